package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"timehub/hub"
)

var root = &url.URL{Path: "/channel/orders"}

type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

func TestCheckJSON(t *testing.T) {
	for doc, want := range map[string]string{
		`{}`: "", ` [1, -2.5e+3, "a\u00e9\n", true, false, null, {"a": {"b": []}}] `: "", `0`: "", `"ü"`: "",
		``:                          "byte 1: expected a value, the document ends here",
		`{`:                         "byte 2: expected a member name in double quotes, the document ends",
		`{"owner": "x" "y"}`:        "byte 15: expected ',' or '}' after a member",
		`{"name" 5}`:                "byte 9: expected ':' after a member name",
		`{name: 5}`:                 "byte 2: expected a member name in double quotes",
		`{'a': 5}`:                  "byte 2: expected a member name",
		`{"a": 5,}`:                 "byte 9: expected a member name",
		`[1, ]`:                     "byte 5: expected a value",
		`[1 2]`:                     "byte 4: expected ',' or ']'",
		`nul`:                       "byte 4: expected the word null",
		`{} x`:                      "byte 4: expected the end of the document",
		`"a`:                        "byte 3: expected '\"' at the end of a string",
		"\"a\nb\"":                  "byte 3: expected a control character",
		`"\x"`:                      "byte 3: expected one of",
		`"\u12g4"`:                  "byte 6: expected four hexadecimal digits",
		"\"\xff\"":                  "byte 2: expected UTF-8",
		`01`:                        "byte 2: expected the end",
		`-`:                         "byte 2: expected a digit",
		`1.`:                        "byte 3: expected a digit",
		`1e`:                        "byte 3: expected a digit",
		strings.Repeat("[", 100000): "expected no more than 64 levels",
	} {
		err := CheckJSON([]byte(doc))
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", clip(doc), err)
			}
			continue
		}
		if !hub.Is(err, hub.Invalid) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "invalid JSON at byte ") {
			t.Errorf("%s: %v, want %s", clip(doc), err, want)
		}
	}
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2,{"b":null}]}`, `"\ud800"`, `[1e999]`, "{}\x00", `-0`, `{"a":1,"a":2}`, "\ufeff{}", `[`, `"` + "\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		err := CheckJSON(doc)
		if err == nil && !json.Valid(doc) {
			t.Fatalf("took %q", doc)
		}
		if err != nil && json.Valid(doc) && !strings.Contains(err.Error(), "UTF-8") && !strings.Contains(err.Error(), "levels") {
			t.Fatalf("refused %q: %v", doc, err)
		}
	})
}

func TestDecode(t *testing.T) {
	var v struct {
		TTLDays int64    `json:"ttlDays"`
		Tags    []string `json:"tags"`
		Protect bool     `json:"protect"`
		Sub     struct {
			Name string `json:"name"`
		} `json:"sub"`
	}
	if err := Decode([]byte(`{"ttlDays": 5, "unknown": {"x": []}, "tags": ["a"]}`), &v); err != nil || v.TTLDays != 5 {
		t.Error(err)
	}
	for doc, want := range map[string]string{
		`{"ttlDays": "x"}`:     "ttlDays is a JSON string: it must be an integer",
		`{"ttlDays": 1.5}`:     "ttlDays is a JSON number 1.5: it must be an integer",
		`{"tags": "x"}`:        "tags is a JSON string: it must be an array",
		`{"protect": 1}`:       "protect is a JSON number: it must be true or false",
		`{"sub": {"name": 1}}`: "sub.name is a JSON number: it must be a string",
		`[]`:                   "the document is a JSON array: it must be an object",
		`5`:                    "the document is a JSON number: it must be an object",
	} {
		err := Decode([]byte(doc), &v)
		if !hub.Is(err, hub.Invalid) || err.(*hub.Error).Msg != want {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "plain", "a\"b\\c", "\x00\x1f\n\r\t", "ü€😀", "bad\xff\xfe", "\u2028", "<&>"} {
		var back, want string
		b := AppendString(nil, s)
		if err := json.Unmarshal(b, &back); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		std, _ := json.Marshal(s)
		_ = json.Unmarshal(std, &want)
		if back != want {
			t.Errorf("%q came back as %q", s, back)
		}
	}
}

func TestJSONIsIndentedAndUnescaped(t *testing.T) {
	w := httptest.NewRecorder()
	if err := JSON(w, 201, map[string]any{"a": []int{1}, "b": "x&y<z>"}); err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"a\": [\n    1\n  ],\n  \"b\": \"x&y<z>\"\n}"
	if w.Body.String() != want || w.Code != 201 || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if JSON(w, 200, func() {}) == nil {
		t.Error("no error for what cannot be JSON")
	}
}

func TestReadDocumentHasALimit(t *testing.T) {
	r := httptest.NewRequest("PUT", "/", strings.NewReader(strings.Repeat("x", 101)))
	if _, err := ReadDocument(r, 100); !hub.Is(err, hub.TooLarge) {
		t.Error(err)
	}
	r = httptest.NewRequest("PUT", "/", strings.NewReader("{}"))
	if b, err := ReadDocument(r, 100); err != nil || string(b) != "{}" {
		t.Error(err)
	}
}
