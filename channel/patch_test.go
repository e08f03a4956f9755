package channel

import (
	"strings"
	"testing"
	"time"

	"timehub/hub"
)

func TestParsePatch(t *testing.T) {
	for _, c := range []struct{ body, want string }{ // want: "" accepted, else a part of the message
		{`{}`, ""},
		{``, ""},
		{" \n\t ", ""},
		{`{"ttlDays":"14","maxItems":3,"keepForever":true}`, ""},
		{`{"nobody":{"knows":[1,2.5e3,{"it":null}]},"tags":[]}`, ""},
		{`{"mutableTime":""}`, ""},
		{`{"creationDate":5,"displayName":[]}`, ""},
		{`{"description":null,"tags":null,"ttlDays":null,"mutableTime":null}`, ""},
		{`{"owner" "x"}`, "invalid JSON at byte 10: expected ':' after a member name"},
		{`{"description" 5}`, "expected ':' after a member name"},
		{`null`, "expected an object"},
		{`""`, "expected an object"},
		{`[]`, "expected an object"},
		{`5`, "expected an object"},
		{`{`, "invalid JSON at byte 2, where it ends: expected a member name"},
		{`{"a":1`, "expected ',' or '}'"},
		{`{"a":1,}`, "expected a member name"},
		{`{"a":[1,]}`, "expected a value"},
		{`{"a":[1 2]}`, "expected ',' or ']'"},
		{`{'a':1}`, "expected a member name in double quotes"},
		{`{a:1}`, "expected a member name in double quotes"},
		{`{"a":01}`, "expected ',' or '}'"},
		{`{"a":-}`, "expected a digit"},
		{`{"a":1.}`, "expected a digit after '.'"},
		{`{"a":1e}`, "expected a digit in the exponent"},
		{`{"a":tru}`, "expected a value"},
		{`{"a":"\x"}`, "expected one of"},
		{`{"a":"\u12g4"}`, "expected 4 hexadecimal digits"},
		{"{\"a\":\"\n\"}", "expected control characters"},
		{"{\"a\":\"\xff\"}", "expected UTF-8"},
		{`{"a":"b`, "expected '\"' at the end of a string"},
		{`{} x`, "expected the end of the document"},
		{`{}{}`, "expected the end of the document"},
		{`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "expected at most 64 levels"},
		{`{"a":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + `}`, ""},
		{`{"ttlDays":"abc"}`, `ttlDays is "abc": it must be an integer`},
		{`{"ttlDays":1.5}`, "ttlDays is 1.5"},
		{`{"ttlDays":true}`, "ttlDays is true"},
		{`{"ttlDays":""}`, "must be an integer"},
		{`{"maxItems":99999999999999999999}`, "maxItems"},
		{`{"maxItems":[1]}`, "maxItems"},
		{`{"keepForever":"yes"}`, `keepForever is "yes": it must be true or false`},
		{`{"protect":1}`, "protect"},
		{`{"allowZeroBytes":"true"}`, "allowZeroBytes"},
		{`{"owner":5}`, "owner is 5: it must be a string"},
		{`{"description":{}}`, "description"},
		{`{"tags":"x"}`, `tags is "x": it must be an array of strings`},
		{`{"tags":["a",5]}`, "tags"},
		{`{"tags":["a",null]}`, "tags"},
		{`{"mutableTime":"soon"}`, `mutableTime is "soon"`},
		{`{"mutableTime":5}`, "mutableTime is 5"},
		{`{"name":[]}`, "name is []"},
		{`{"storage":` + `"` + strings.Repeat("x", 500) + `5}`, "expected"},
	} {
		_, err := ParsePatch([]byte(c.body))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.body, err)
		case c.want != "" && err == nil:
			t.Errorf("%s: accepted, want %q", c.body, c.want)
		case c.want != "" && (!strings.Contains(err.Error(), c.want) || !hub.Is(err, hub.Invalid)):
			t.Errorf("%s: %v (%v), want %q", c.body, err, hub.KindOf(err), c.want)
		}
	}
}

func TestParsePatchValues(t *testing.T) {
	p, err := ParsePatch([]byte(`{"name":" n ","owner":"\u00e4\n","ttlDays":"-3","maxItems":7,"keepForever":false,"protect":null,"tags":["b","a"],
		"mutableTime":"2021-03-04T05:06:07.0899999+02:00","ttlDays":"14"}`))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name.Value != " n " || p.Owner.Value != "ä\n" || p.TTLDays != Said(int64(14)) || p.MaxItems != Said(int64(7)) || p.KeepForever != Said(false) {
		t.Errorf("%+v", p)
	}
	if !p.Protect.Present || !p.Protect.Null || p.AllowZeroBytes.Present || len(p.Tags.Value) != 2 || p.Empty {
		t.Errorf("%+v", p)
	}
	if got := hub.ISO(p.MutableTime.Value); got != "2021-03-04T03:06:07.089Z" {
		t.Errorf("mutableTime %s", got)
	}
	if p, err := ParsePatch([]byte("\n ")); err != nil || !p.Empty {
		t.Errorf("white space: %+v %v", p, err)
	}
}

func TestParseInstant(t *testing.T) {
	for text, want := range map[string]string{
		"2021-03-04":                     "2021-03-04T00:00:00.000Z",
		"2021-03-04T":                    "2021-03-04T00:00:00.000Z",
		"2021-03-04T05":                  "2021-03-04T05:00:00.000Z",
		"2021-03-04T05:06":               "2021-03-04T05:06:00.000Z",
		"2021-03-04T05:06:07":            "2021-03-04T05:06:07.000Z",
		"2021-03-04T05:06:07.":           "2021-03-04T05:06:07.000Z",
		"2021-03-04T05:06:07.1":          "2021-03-04T05:06:07.100Z",
		"2021-03-04T05:06:07.123456789":  "2021-03-04T05:06:07.123Z",
		"2021-03-04T05:06:07.123456789Z": "2021-03-04T05:06:07.123Z",
		"2021-03-04T05:06:07,5Z":         "2021-03-04T05:06:07.500Z",
		"2021-03-04T05:06:07+02:00":      "2021-03-04T03:06:07.000Z",
		"2021-03-04T05:06:07-0230":       "2021-03-04T07:36:07.000Z",
		"2021-03-04T00:00+01":            "2021-03-03T23:00:00.000Z",
		"2021-03-04TZ":                   "2021-03-04T00:00:00.000Z",
		"2024-02-29":                     "2024-02-29T00:00:00.000Z",
		"0000-01-01":                     "0000-01-01T00:00:00.000Z",
		"9999-12-31T23:59:59.999Z":       "9999-12-31T23:59:59.999Z",
		"2021-02-29":                     "",
		"2021-13-01":                     "",
		"2021-00-01":                     "",
		"2021-03-04T24":                  "",
		"2021-03-04T05:60":               "",
		"2021-03-04T05:06:60":            "",
		"2021-03-04T05:06:07.1234567890": "",
		"2021-03-04 05:06":               "",
		"2021-3-4":                       "",
		"2021-03":                        "",
		"21-03-04":                       "",
		"2021-03-04T5":                   "",
		"2021-03-04T05:":                 "",
		"2021-03-04T05:06:07+":           "",
		"2021-03-04T05:06:07+2":          "",
		"2021-03-04T05:06:07+02:":        "",
		"2021-03-04T05:06:07+24:00":      "",
		"2021-03-04T05:06:07Zx":          "",
		"+2021-03-04":                    "",
		"0000-01-01T00:00+01:00":         "",
		"9999-12-31T23:59-01:00":         "",
		" 2021-03-04":                    "",
		"null":                           "",
		"2021-03-04T05:06:07\u0660":      "",
	} {
		got := ""
		if at, ok := parseInstant(text); ok {
			got = hub.ISO(at)
			if at.Location() != time.UTC || at.Nanosecond()%1e6 != 0 {
				t.Errorf("%q: not in whole UTC milliseconds: %v", text, at)
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzParsePatch(f *testing.F) {
	for _, s := range []string{`{"name":"x","ttlDays":"14","tags":["a"]}`, `{"mutableTime":"2021-03-04T05:06:07.089Z"}`, `{"a":[{"b":"\u00e4"}]}`, ``, `{"a" 1}`, `{"a":1e5`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePatch(body)
		if err != nil && !hub.Is(err, hub.Invalid) {
			t.Fatalf("%q: %v", body, err)
		}
		if err != nil && !strings.Contains(err.Error(), "expected") && !strings.Contains(err.Error(), "must be") {
			t.Fatalf("%q: %v does not say what was expected", body, err)
		}
		_ = p
	})
}

// FuzzMembers holds our reader of JSON against the standard library's: they must agree on what is JSON.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":{"b":[true,false,null,-0.5e+7,"\"\\\/\b\f\n\r\t\u12aF"]}}`, `{"a":1} `, `{"a":01}`, `{"":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(agrees)
}
