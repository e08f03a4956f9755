package apiscript

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// mirror is a server that does what the path asks.
func mirror(t *testing.T) string {
	count := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		w.Header().Set("X-Type", r.Header.Get("Content-Type"))
		w.Header().Add("Link", "<a>;rel=\"previous\"")
		w.Header().Add("Link", "<b>;rel=\"next\"")
		w.Header().Set("Location", "http://"+r.Host+"/channel/x/2021/a1")
		w.WriteHeader(201)
		w.Write(body)
	})
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		count++
		fmt.Fprintf(w, `{"n": %d, "list": [{"a": 1}, {"a": 2}], "null": null, "uri": %q}`, count, r.RequestURI)
	})
	mux.HandleFunc("/zip", func(w http.ResponseWriter, r *http.Request) {
		z := zip.NewWriter(w)
		f, _ := z.Create("2021/x")
		f.Write([]byte("hello"))
		z.Close()
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write([]byte("hello"))
		z.Close()
	})
	mux.HandleFunc("/parts", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/mixed;boundary=||||||~~~~~~")
		io.WriteString(w, "--||||||~~~~~~\r\nContent-Type: text/plain\r\n\r\none\r\n--||||||~~~~~~\r\n\r\n\r\n--||||||~~~~~~--")
	})
	mux.HandleFunc("/noparts", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/mixed; boundary=bbb")
		io.WriteString(w, "--bbb--")
	})
	mux.HandleFunc("/hang-up", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func run(t *testing.T, addr, text string) []error {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Addr: addr, Timeout: 20 * time.Second}).Run(s)
}

// TestHolds: scripts that must pass.
func TestHolds(t *testing.T) {
	addr := mirror(t)
	for name, text := range map[string]string{
		"echo":      "> POST /echo\n> Content-Type: text/plain\n>| one\n>| two\n< 201\n< X-Type: text/plain\n< Link *= next\n< Link ~ ^<a>\n< !Etag\n<| one\n<| two\n<bytes 7",
		"quoted":    "> POST /echo\n>q \"\\x00\\xff\"\n< 201\n<q \"\\x00\\xff\"",
		"crlf":      "> POST /echo\n>|| a\n>|| b\n< 201\n<q \"a\\r\\nb\\r\\n\"",
		"repeat":    "> POST /echo\n>repeat 3 \"ab\"\n>bytes 5\n< 201\n<bytes 11",
		"saved":     "> POST /echo\n>bytes 50000\n>save big\n>chunked\n< 201\n<saved big",
		"set":       "> POST /echo\n< 201\n<set key = Location ~ /channel/x/(.*)\n<set all = Location\n> GET /count?${key}\n< 200\n<json {\"uri\": \"/count?2021/a1\"}",
		"json":      "> GET /count\n< 200\n<json {\"n\": \"*\", \"list\": [{\"a\": 1},\n<json {\"a\": \"~^[0-9]$\"}], \"gone\": \"<absent>\", \"null\": null}\n<json {\"list\": \"#2\"}",
		"exactly":   "> GET /count\n< 200\n<json= {\"n\": \"*\", \"list\": \"*\", \"null\": \"*\", \"uri\": \"*\"}",
		"zip":       "> GET /zip\n< 200\n<zip 1\n<entry 0 2021/x\n<entry 0 \"hello\"",
		"gzip":      "> GET /gzip\n< 200\n< Content-Encoding: gzip\n<decoded\n<| hello",
		"multipart": "> GET /parts\n< 200\n<multipart 2\n<part 0 Content-Type: text/plain\n<part 0 \"one\"\n<part 1 \"\"",
		"no parts":  "> GET /noparts\n< 200\n<multipart 0",
		"until":     "> GET /count\n>within 5s\n< 200\n<json {\"n\": \"~^[0-9]*[05]$\"}",
		"times":     "> GET /count\n>times 3\n< 2xx|3xx\n> GET /count\n< 200",
		"raw":       "> RAW /\n>raw\n>q \"GET /count HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n\"\n< 200\n<~ uri",
		"closed":    "> GET /hang-up\n< closed",
		"cut":       "> POST /echo\n> Content-Length: 100\n>| short\n>half\n< 400|closed",
		"now":       "> GET /count?${now+24h:2006}\n< 200\n<~ count.20",
		"matches":   "> GET /count\n< 200\n<~ \"n\"\n<!~ nothing",
		"host":      "> POST /echo\n> Host: hub.example\n< 201\n< Location: http://hub.example/channel/x/2021/a1",
	} {
		if wrong := run(t, addr, text); len(wrong) > 0 {
			t.Errorf("%s: %v", name, wrong)
		}
	}
}

// TestFails: each of these scripts is wrong in one point, and that point is found.
func TestFails(t *testing.T) {
	addr := mirror(t)
	for text, want := range map[string]string{
		"> GET /count\n< 201":                                               "status 200, want 201",
		"> GET /count\n< 4xx|closed":                                        "want 4xx",
		"> GET /hang-up\n< 200":                                             "closed without an answer",
		"> GET /count\n< 200\n< X-Type: a":                                  "missing",
		"> POST /echo\n> Content-Type: b\n< 201\n< X-Type: a":               `is ["b"]`,
		"> POST /echo\n< 201\n< Link *= nowhere":                            "nowhere",
		"> POST /echo\n< 201\n< Link ~ ^x":                                  "want ~",
		"> POST /echo\n< 201\n< !Link":                                      "should not be there",
		"> POST /echo\n>| a\n< 201\n<| b":                                   "body is",
		"> POST /echo\n>| a\n< 201\n<empty":                                 "1 bytes, not 0",
		"> GET /count\n< 200\n<json {\"list\": [{\"a\": 1}]}":               "array of 1",
		"> GET /count\n< 200\n<json {\"list\": [{\"a\": 1}, {\"a\": 3}]}":   ".list.1.a",
		"> GET /count\n< 200\n<json {\"uri\": \"<absent>\"}":                "should not be there",
		"> GET /count\n< 200\n<json {\"nothing\": \"*\"}":                   "missing",
		"> GET /count\n< 200\n<json {\"list\": \"#3\"}":                     "3 elements",
		"> GET /count\n< 200\n<json {\"uri\": \"~^x\"}":                     "want ~^x",
		"> GET /count\n< 200\n<json= {\"n\": \"*\"}":                        "not expected",
		"> GET /zip\n< 200\n<zip 2":                                         "1 items, not 2",
		"> GET /zip\n< 200\n<entry 0 \"other\"":                             "item 0 is",
		"> GET /count\n< 200\n<decoded":                                     "Content-Encoding",
		"> GET /count\n< 200\n<!~ uri":                                      "matches",
		"> GET /count\n< 200\n<~ xyz":                                       "does not match",
		"> GET /count\n< 200\n<set a = Location":                            "no header",
		"> GET /${nothing}\n< 200":                                          "no variable",
		"> GET /count\n>within 120ms\n< 404":                                "want 404",
		"> POST /echo\n>| a\n>save x\n< 201\n> POST /echo\n< 201\n<saved x": "saved as x",
		"> GET /parts\n< 200\n<part 0 \"two\"":                              "item 0 is",
	} {
		wrong := run(t, addr, text)
		if len(wrong) == 0 || !strings.Contains(fmt.Sprint(wrong), want) {
			t.Errorf("%q: %v, want %q", text, wrong, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "no step",
		"hello":                      "begins with",
		"< 200":                      "before the first request",
		"> GET /":                    "no expected status",
		"> GET":                      "METHOD PATH",
		"> GET /\n> nonsense\n< 200": "no header",
		">frobnicate\n< 200":         "unknown request",
		"> GET /\n<frobnicate":       "unknown expectation",
		"> GET /\n< 200 OK":          "neither",
		"> GET /\n< 20":              "neither",
		"> GET /\n>q abc\n< 200":     "invalid syntax",
		"> GET /\n<bytes x":          "invalid syntax",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %q", text, err, want)
		}
	}
}

func TestEncodings(t *testing.T) {
	plain := bytes.Repeat([]byte("hub "), 1000)
	for _, coding := range []string{"gzip", "deflate", "zstd"} {
		out, err := encode(coding, plain)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decoded(coding, out)
		if err != nil || !bytes.Equal(back, plain) || len(out) > 500 {
			t.Errorf("%s: %d bytes, back %v", coding, len(out), err)
		}
	}
}
