package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"timehub/hub"
)

func newRouter(t testing.TB, opt Options) *Router {
	t.Helper()
	rt, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func text(s string) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/plain")
		_, err := io.WriteString(w, s)
		return err
	}
}

// ask sends one request through rt without a network.
func ask(rt *Router, method, target string, edit func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", nil)
	r.RequestURI = target
	u, err := r.URL.Parse("http://example.com" + target)
	if err != nil {
		panic(err)
	}
	r.URL = u
	r.URL.Host, r.URL.Scheme = "", ""
	r.Host = "hub.example"
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)
	return w
}

func TestTableIsTotal(t *testing.T) {
	for _, k := range hub.Kinds() {
		s := Status(k)
		if s < 400 || s > 599 {
			t.Errorf("%s has status %d", k, s)
		}
		want := k
		if k == hub.Starting {
			want = hub.Internal // shares 500
		}
		if got := KindOf(s); got != want {
			t.Errorf("KindOf(Status(%s)) = %s", k, got)
		}
	}
	if len(statuses) != len(hub.Kinds()) {
		t.Errorf("the table has %d rows for %d kinds", len(statuses), len(hub.Kinds()))
	}
	for status, want := range map[int]hub.Kind{418: hub.Invalid, 502: hub.Unavailable, 599: hub.Internal, 302: hub.Internal, 507: hub.Full} {
		if got := KindOf(status); got != want {
			t.Errorf("KindOf(%d) = %s, want %s", status, got, want)
		}
	}
}

func TestRouting(t *testing.T) {
	rt := newRouter(t, Options{})
	rt.Handle("GET", "/", text("root"))
	rt.Handle("GET", "/channel", text("list"))
	rt.Handle("POST", "/channel", text("create"))
	rt.Handle("GET", "/channel/{channel}", func(w http.ResponseWriter, r *http.Request) error {
		return text("channel "+Param(r, "channel"))(w, r)
	})
	rt.Handle("GET", "/channel/{channel}/latest", text("latest"))
	rt.Handle("GET", "/channel/{channel}/latest/{n}", func(w http.ResponseWriter, r *http.Request) error {
		return text("latest "+Param(r, "channel")+" "+Param(r, "n"))(w, r)
	})
	rt.Resolve("/channel/{channel}/{path...}", func(r *http.Request, rest string) (Methods, any, error) {
		if strings.HasPrefix(rest, "no") {
			return nil, nil, hub.E(hub.NotFound, "nothing under no")
		}
		h := func(w http.ResponseWriter, r *http.Request) error {
			return text(fmt.Sprint("tail ", Found(r), " of ", Param(r, "channel"), " ", Param(r, "path")))(w, r)
		}
		return Methods{"GET": h, "DELETE": h}, len(rest), nil
	})
	for _, c := range []struct {
		method, target string
		status         int
		body, allow    string
	}{
		{"GET", "/", 200, "root", ""},
		{"GET", "/channel", 200, "list", ""},
		{"POST", "/channel", 200, "create", ""},
		{"PUT", "/channel", 405, "", "GET, HEAD, OPTIONS, POST"},
		{"OPTIONS", "/channel", 200, "-", "GET, HEAD, OPTIONS, POST"},
		{"OPTIONS", "/nowhere", 404, "", ""},
		{"GET", "/channel/x", 200, "channel x", ""},
		{"GET", "/channel/a%20b", 200, "channel a b", ""},
		{"GET", "/channel/a%2fb", 404, "", ""},
		{"GET", "/channel/a%00b", 404, "", ""},
		{"GET", "/channel/x/latest", 200, "latest", ""},
		{"GET", "/channel/x/latest/7", 200, "latest x 7", ""},
		{"GET", "/channel/x/latest/7/8", 200, "tail 10 of x latest/7/8", ""},
		{"GET", "/channel/x/2014/01", 200, "tail 7 of x 2014/01", ""},
		{"GET", "/channel/x/..%2f..%2fetc", 200, "tail 13 of x ..%2f..%2fetc", ""},
		{"GET", "/channel/../health", 200, "tail 6 of .. health", ""},
		{"PUT", "/channel/x/2014/01", 405, "", "DELETE, GET, HEAD, OPTIONS"},
		{"GET", "/channel/x/no/where", 404, "", ""},
		{"GET", "//", 404, "", ""},
		{"GET", "//channel", 404, "", ""},
		{"GET", "/channel//x", 404, "", ""},
		{"GET", "/channel/x//y", 404, "", ""},
		{"GET", "/channel/x/y//", 404, "", ""},
		{"GET", "/channel/", 307, "", ""},
		{"GET", "/nowhere/", 404, "", ""},
		{"GET", "/channel/x/no/", 404, "", ""},
		{"GET", "/" + strings.Repeat("a", 10000), 404, "", ""},
	} {
		w := ask(rt, c.method, c.target, nil)
		if w.Code != c.status {
			t.Errorf("%s %s: %d, want %d (%s)", c.method, clip(c.target), w.Code, c.status, w.Body)
			continue
		}
		if c.body != "" && strings.TrimPrefix(c.body, "-") != w.Body.String() {
			t.Errorf("%s %s: body %q, want %q", c.method, c.target, w.Body, c.body)
		}
		if w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.target, w.Header().Get("Allow"), c.allow)
		}
		if c.status >= 400 {
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("%s %s: Content-Type %q", c.method, clip(c.target), got)
			}
			if CheckJSON(w.Body.Bytes()) != nil || !strings.HasPrefix(w.Body.String(), `{"error": "`) {
				t.Errorf("%s %s: body %q", c.method, clip(c.target), w.Body)
			}
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		w := ask(rt, method, "/channel/x/2014/?b=2&a=%7e", nil)
		if w.Code != 307 || w.Header().Get("Location") != "http://hub.example/channel/x/2014?b=2&a=%7e" {
			t.Errorf("%s with a slash: %d %q", method, w.Code, w.Header().Get("Location"))
		}
	}
	head := ask(rt, "HEAD", "/channel/x", nil)
	if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("HEAD: %d %q %v", head.Code, head.Body, head.Header())
	}
}

func TestPatternsThatMakeNoSense(t *testing.T) {
	for _, f := range []func(*Router){
		func(rt *Router) { rt.Handle("GET", "x", nil) },
		func(rt *Router) { rt.Handle("GET", "/x", text("")); rt.Handle("GET", "/x", text("")) },
		func(rt *Router) { rt.Handle("GET", "/{a}", text("")); rt.Handle("GET", "/{b}/x", text("")) },
		func(rt *Router) { rt.Resolve("/x", nil) },
		func(rt *Router) { rt.Handle("GET", "/{a}/{b}/{c}/{d}/{e}", text("")) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a pattern was taken that makes no sense")
				}
			}()
			f(newRouter(t, Options{}))
		}()
	}
}

func TestCommonHeaders(t *testing.T) {
	rt := newRouter(t, Options{Version: "1.2.3", Node: "n1:8080"})
	rt.Handle("GET", "/", text("x"))
	for _, target := range []string{"/", "/missing"} {
		h := ask(rt, "GET", target, nil).Header()
		for name, want := range map[string]string{
			"Server": "Hub/1.2.3", "Hub-Node": "n1:8080", "Access-Control-Allow-Origin": "*", "Vary": "Accept-Encoding",
			"Access-Control-Allow-Headers": "origin, content-type, accept, authorization",
			"Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s = %q, want %q", target, name, h.Get(name), want)
			}
		}
	}
	rt = newRouter(t, Options{})
	rt.Handle("GET", "/", func(w http.ResponseWriter, r *http.Request) error { w.Header().Add("Vary", "Accept"); return nil })
	ask(rt, "GET", "/", nil)
	if v := ask(rt, "GET", "/", nil).Header().Values("Vary"); len(v) != 2 {
		t.Errorf("Vary grew over two requests: %q", v)
	}
	if s := ask(rt, "GET", "/", nil).Header().Get("Server"); s != "Hub/local" {
		t.Errorf("Server = %q", s)
	}
}

type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestErrors(t *testing.T) {
	var lines logLines
	rt := newRouter(t, Options{Log: slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	verbatim := hub.E(hub.Forbidden, "x cannot modified while replicating")
	verbatim.Verbatim = true
	later := hub.E(hub.Unavailable, "no quorum")
	later.RetryAfter = 1500 * time.Millisecond
	for _, c := range []struct {
		name              string
		err               error
		status            int
		contentType, body string
		retry             string
	}{
		{"plain", hub.E(hub.Invalid, "ttlDays is %q", "a\nb"), 400, "application/json", `{"error": "ttlDays is \"a\\nb\""}`, ""},
		{"wrapped", fmt.Errorf("deeper: %w", hub.E(hub.Conflict, "there already")), 409, "application/json", `{"error": "there already"}`, ""},
		{"verbatim", verbatim, 403, "application/json", "x cannot modified while replicating", ""},
		{"internal", errors.New("secret path /etc"), 500, "text/plain", "500 Internal error", ""},
		{"internal with words", hub.E(hub.Internal, "secret"), 500, "text/plain", "500 Internal error", ""},
		{"retry", later, 503, "application/json", `{"error": "no quorum"}`, "2"},
		{"full", hub.E(hub.Full, "no space left"), 507, "application/json", `{"error": "no space left"}`, "10"},
		{"deadline", fmt.Errorf("ask: %w", context.DeadlineExceeded), 504, "application/json", `{"error": "timeout"}`, ""},
		{"canceled", context.Canceled, 499, "application/json", `{"error": "canceled"}`, ""},
		{"because", hub.E(hub.TooLarge, "too big").Because(errors.New("secret")), 413, "application/json", `{"error": "too big"}`, ""},
	} {
		path := "/" + strings.ReplaceAll(c.name, " ", "-")
		rt.Handle("GET", path, func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Length", "99")
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(200)
			return c.err
		})
		before := strings.Count(lines.String(), "\n")
		w := ask(rt, "GET", path, nil)
		if w.Code != c.status || w.Header().Get("Content-Type") != c.contentType || w.Body.String() != c.body {
			t.Errorf("%s: %d %q %q", c.name, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if w.Header().Get("Retry-After") != c.retry || w.Header().Get("ETag") != "" {
			t.Errorf("%s: headers %v", c.name, w.Header())
		}
		if id := w.Header().Get(RequestID); (id != "") != (c.status == 500) || !strings.Contains(lines.String(), id) {
			t.Errorf("%s: request id %q", c.name, id)
		}
		if n := strings.Count(lines.String(), "\n") - before; n != 1 {
			t.Errorf("%s: %d log lines", c.name, n)
		}
		level := "level=DEBUG"
		switch {
		case c.status == 500:
			level = "level=ERROR"
		case c.status > 500:
			level = "level=WARN"
		}
		if all := strings.TrimSpace(lines.String()); !strings.Contains(all[strings.LastIndexByte(all, '\n')+1:], level) {
			t.Errorf("%s: the line is not at %s", c.name, level)
		}
	}
	if !strings.Contains(lines.String(), "secret path") || !strings.Contains(lines.String(), "status=499") {
		t.Errorf("the log lacks what it should hold:\n%s", &lines)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	var lines logLines
	rt := newRouter(t, Options{Log: slog.New(slog.NewTextHandler(&lines, nil))})
	rt.Handle("GET", "/", func(http.ResponseWriter, *http.Request) error { panic("boom") })
	if w := ask(rt, "GET", "/", nil); w.Code != 500 || w.Body.String() != "500 Internal error" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if !strings.Contains(lines.String(), "boom") || !strings.Contains(lines.String(), "web_test.go") {
		t.Errorf("no panic or stack in the log: %s", &lines)
	}
}

func TestHalfAnAnswerIsBrokenOff(t *testing.T) {
	rt := newRouter(t, Options{})
	rt.Handle("GET", "/", func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(w, strings.Repeat("x", 100000))
		return errors.New("the disk went away")
	})
	s := httptest.NewServer(rt)
	defer s.Close()
	for _, coding := range []string{"identity", "gzip", "zstd"} {
		q, _ := http.NewRequest("GET", s.URL, nil)
		q.Header.Set("Accept-Encoding", coding)
		resp, err := s.Client().Do(q)
		if err != nil {
			continue // broken off before the header: as good
		}
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: the client took half an answer for a whole one", coding)
		}
	}
}

func TestBase(t *testing.T) {
	for _, c := range []struct {
		host, fwdHost, fwdProto string
		tls                     bool
		want                    string
	}{
		{"hub.example", "", "", false, "http://hub.example"},
		{"hub.example:8080", "", "", false, "http://hub.example:8080"},
		{"hub.example:80", "", "", false, "http://hub.example"},
		{"hub.example:443", "", "", true, "https://hub.example"},
		{"hub.example:8080", "", "https", false, "https://hub.example:8080"},
		{"hub.example:8080", "pub.example", "", false, "http://pub.example"},
		{"hub.example:8080", "pub.example:9", "https", false, "https://pub.example:9"},
		{"hub.example:8080", "pub.example:9, inner:1", "https, http", false, "https://pub.example:9"},
		{"hub.example:8080", " ", "https", false, "https://hub.example:8080"},
		{"hub.example", "[2001:db8::1]:9", "", false, "http://[2001:db8::1]:9"},
		{"hub.example", "[2001:db8::1]", "https", false, "https://[2001:db8::1]"},
		{"[::1]:8080", "", "", false, "http://[::1]:8080"},
		{"[::1]:80", "", "", false, "http://[::1]"},
		{"hub.example", "evil\"><script>", "javascript", false, "http://hub.example"},
		{"hub.example", "a b", "", false, "http://hub.example"},
		{"hub.example", "[fe80::1%\"><x>]", "", false, "http://hub.example"},
		{"hub.example", "[fe80::1%25eth0]:1", "", false, "http://hub.example"},
		{"hub.example", "[::ffff:1.2.3.4]", "", false, "http://[::ffff:1.2.3.4]"},
		{"", "", "", false, "http://localhost"},
		{"bad<host", "", "", false, "http://localhost"},
	} {
		r := httptest.NewRequest("GET", "/x?q=1", nil)
		r.Host = c.host
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if c.fwdHost != "" {
			r.Header.Set("X-Forwarded-Host", c.fwdHost)
		}
		if c.fwdProto != "" {
			r.Header.Set("X-Forwarded-Proto", c.fwdProto)
		}
		if got := Base(r); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
		if got := URI(r); got != c.want+"/x?q=1" {
			t.Errorf("%+v: URI %q", c, got)
		}
	}
}

func TestLinksAreSafe(t *testing.T) {
	rt := newRouter(t, Options{})
	rt.Resolve("/{path...}", func(*http.Request, string) (Methods, any, error) {
		return Methods{"GET": func(w http.ResponseWriter, r *http.Request) error { return text(URI(r))(w, r) }}, nil, nil
	})
	w := ask(rt, "GET", `/a|b%7e?x=1&y=%3e&z=a+b`, nil)
	if w.Body.String() != `http://hub.example/a|b%7e?x=1&y=%3e&z=a+b` {
		t.Errorf("not as sent: %s", w.Body)
	}
	s := linkSafe("/a\"<b>\\\xff c")
	if s != "/a%22%3Cb%3E%5C%FF%20c" {
		t.Errorf("linkSafe: %s", s)
	}
}

func TestLocal(t *testing.T) {
	for _, c := range []struct {
		peer, host, header string
		want               bool
	}{
		{"127.0.0.1:5", "localhost:8080", "", true},
		{"127.0.0.1:5", "localhost", "", true},
		{"[::1]:5", "localhost", "", true},
		{"[::ffff:127.0.0.1]:5", "localhost", "", true},
		{"127.8.0.1:5", "localhost", "", true},
		{"127.0.0.1:5", "127.0.0.1:8080", "", false},
		{"[::1]:5", "[::1]:8080", "", false},
		{"10.0.0.1:5", "localhost", "", false},
		{"127.0.0.1:5", "localhost.evil.example", "", false},
		{"127.0.0.1:5", "localhost", "Forwarded", false},
		{"127.0.0.1:5", "localhost", "Via", false},
		{"127.0.0.1:5", "localhost", "X-Forwarded-For", false},
		{"127.0.0.1:5", "localhost", "X-Forwarded-Host", false},
		{"@", "localhost", "", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Host = c.peer, c.host
		if c.header != "" {
			r.Header.Set(c.header, "localhost")
		}
		if got := Local(r); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestBool(t *testing.T) {
	for query, want := range map[string]bool{"": true, "?x=": true, "?x=true": true, "?x=TRUE": true, "?x=false": false, "?x=1": false, "?x=yes": false, "?y=1": true} {
		r := httptest.NewRequest("GET", "/"+query, nil)
		if got := Bool(r, "x", true); got != want {
			t.Errorf("%q: %v", query, got)
		}
	}
	if Bool(httptest.NewRequest("GET", "/?x=", nil), "x", false) {
		t.Error("an empty parameter is not its default")
	}
}

func TestAcceptable(t *testing.T) {
	for _, c := range []struct {
		accept, offered string
		want            bool
	}{
		{"", "application/json", true},
		{" ", "application/json", true},
		{"*/*", "application/json", true},
		{"*", "application/json", true},
		{"*; q=.2", "application/json", true},
		{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json", true},
		{"application/*", "application/json", true},
		{"APPLICATION/JSON", "application/json;charset=utf-8", true},
		{"application/json;q=0", "application/json", false},
		{"application/json;q=0, */*", "application/json", false},
		{"application/json;q=0.000, */*;q=1", "text/plain", true},
		{"text/plain", "application/json", false},
		{"garbage", "application/json", false},
		{"garbage, application/json", "application/json", true},
		{"application/zip", "multipart/*", false},
		{"multipart/mixed", "multipart/*", true},
		{"multipart/*", "multipart/*", true},
		{"*/json", "application/json", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		if got := Acceptable(r, c.offered); got != c.want {
			t.Errorf("Accept %q of %q: %v", c.accept, c.offered, got)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Accept"] = []string{"text/html", "application/zip"}
	if err := Produces(r, "application/json", "application/zip"); err != nil {
		t.Error(err)
	}
	if err := Produces(r, "application/json"); !hub.Is(err, hub.NotAcceptable) {
		t.Error(err)
	}
}

func TestConsumes(t *testing.T) {
	for given, want := range map[string]bool{
		"": true, "application/json": true, "Application/JSON; charset=utf-8": true, "application/x-www-form-urlencoded": false,
		"multipart/mixed": false, "application": false, "text/plain": false,
	} {
		r := httptest.NewRequest("PUT", "/", nil)
		if given != "" {
			r.Header.Set("Content-Type", given)
		}
		if err := Consumes(r, "application/json"); (err == nil) != want || err != nil && !hub.Is(err, hub.Unsupported) {
			t.Errorf("%q: %v", given, err)
		}
	}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Content-Type", "multipart/related;boundary=x")
	if err := Consumes(r, "multipart/*"); err != nil {
		t.Error(err)
	}
}

func TestChooseCoding(t *testing.T) {
	for accept, want := range map[string]Coding{
		"": Identity, "gzip": Gzip, "x-gzip": XGzip, "deflate": Deflate, "x-deflate": XDeflate, "GZIP": Gzip, "br": Identity,
		"gzip, deflate, br, zstd": Zstd, "gzip;q=1, zstd;q=.5": Gzip, "gzip;q=0": Identity, "deflate, gzip;q=0.5": Deflate,
		"*": Gzip, "identity": Identity, "identity;q=0, *;q=0": Identity, "zstd;q=0, gzip;q=0.001": Gzip, " gzip ; q=0.5 ": Gzip,
	} {
		if got := chooseCoding(accept); got != want {
			t.Errorf("%q: %q, want %q", accept, got, want)
		}
	}
}

func plain(t *testing.T, coding string, b []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	switch coding {
	case "":
		return b
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(b))
	case "deflate", "x-deflate":
		r, err = zlib.NewReader(bytes.NewReader(b))
	case "zstd":
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(b))
		if err == nil {
			defer d.Close()
		}
		r = d
	}
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	return out
}

func TestResponseCompression(t *testing.T) {
	rt := newRouter(t, Options{})
	rt.Handle("GET", "/small", func(w http.ResponseWriter, r *http.Request) error { WriteJSON(w, 201, []byte("{}")); return nil })
	rt.Handle("GET", "/large", text(strings.Repeat("the quick brown fox ", 5000)))
	rt.Handle("GET", "/events", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "text/event-stream")
		_, err := w.Write([]byte("data: x\n\n"))
		return err
	})
	rt.Handle("GET", "/own", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Encoding", "zstd")
		_, err := w.Write([]byte("frame"))
		return err
	})
	rt.Handle("GET", "/none", func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(204); return nil })
	rt.Handle("GET", "/empty", func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(202); return nil })
	rt.Handle("GET", "/part", func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(206)
		_, err := w.Write([]byte("abc"))
		return err
	})
	for _, coding := range []string{"", "gzip", "x-gzip", "deflate", "x-deflate", "zstd"} {
		for range 3 { // pooled coders must start afresh
			for path, want := range map[string]string{"/small": "{}", "/large": strings.Repeat("the quick brown fox ", 5000)} {
				w := ask(rt, "GET", path, func(r *http.Request) { r.Header.Set("Accept-Encoding", coding) })
				if got := w.Header().Get("Content-Encoding"); got != coding {
					t.Fatalf("%s %s: Content-Encoding %q", coding, path, got)
				}
				if got := plain(t, coding, w.Body.Bytes()); string(got) != want {
					t.Fatalf("%s %s: %d bytes", coding, path, len(got))
				}
				if coding != "" && w.Header().Get("Content-Length") != "" {
					t.Fatalf("%s %s: has the length of another coding", coding, path)
				}
				if coding != "" && path == "/large" && w.Body.Len() > 5000 {
					t.Fatalf("%s: not compressed: %d bytes", coding, w.Body.Len())
				}
			}
		}
	}
	gz := func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") }
	for path, want := range map[string]string{"/events": "", "/own": "zstd", "/none": "", "/empty": "", "/part": ""} {
		w := ask(rt, "GET", path, gz)
		if got := w.Header().Get("Content-Encoding"); got != want {
			t.Errorf("%s: Content-Encoding %q, want %q", path, got, want)
		}
	}
	w := ask(rt, "HEAD", "/small", gz)
	if w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Content-Length") != "" || w.Body.Len() != 0 || w.Code != 201 {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
	if w := ask(rt, "HEAD", "/small", nil); w.Header().Get("Content-Length") != "2" {
		t.Errorf("HEAD without coding: %v", w.Header())
	}
}

func TestFlushReachesTheClientThroughACoder(t *testing.T) {
	rt := newRouter(t, Options{})
	go_on := make(chan struct{})
	rt.Handle("GET", "/", func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.WriteString(w, "first")
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		<-go_on
		_, err := io.WriteString(w, "second")
		return err
	})
	s := httptest.NewServer(rt)
	defer s.Close()
	for _, coding := range []string{"gzip", "zstd", "identity"} {
		q, _ := http.NewRequest("GET", s.URL, nil)
		q.Header.Set("Accept-Encoding", coding)
		resp, err := s.Client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = resp.Body
		switch coding {
		case "gzip":
			body, err = gzip.NewReader(body)
		case "zstd":
			body, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1))
		}
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(body, b); err != nil || string(b) != "first" {
			t.Fatalf("%s: %q %v", coding, b, err)
		}
		go_on <- struct{}{}
		rest, err := io.ReadAll(body)
		if err != nil || string(rest) != "second" {
			t.Fatalf("%s: %q %v", coding, rest, err)
		}
		resp.Body.Close()
	}
}

func encode(t *testing.T, coding string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&out)
	case "deflate", "x-deflate":
		w = zlib.NewWriter(&out)
	case "bare":
		w, _ = flate.NewWriter(&out, 1)
	case "zstd":
		w, _ = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	default:
		return b
	}
	_, _ = w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRequestDecoding(t *testing.T) {
	rt := newRouter(t, Options{})
	rt.Handle("POST", "/", func(w http.ResponseWriter, r *http.Request) error {
		body, err := Content(r)
		if err != nil {
			return err
		}
		defer body.Close()
		b, err := io.ReadAll(Limit(body, 1<<20, "app.maxItemSizeMB"))
		if err != nil {
			return err
		}
		Write(w, 200, "text/plain", b)
		return nil
	})
	post := func(coding string, b []byte) *httptest.ResponseRecorder {
		return ask(rt, "POST", "/", func(r *http.Request) {
			r.Header.Set("Content-Encoding", coding)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		})
	}
	want := []byte(strings.Repeat("payload ", 1000))
	for range 2 {
		for header, coding := range map[string]string{"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "x-deflate": "bare", "zstd": "zstd", "br": "", "": "", "identity": "", "GZIP": "gzip"} {
			if w := post(header, encode(t, coding, want)); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), want) {
				t.Errorf("%s: %d %.80q", header, w.Code, w.Body)
			}
		}
	}
	if w := post("deflate, gzip", encode(t, "gzip", encode(t, "deflate", want))); w.Code != 200 || !bytes.Equal(w.Body.Bytes(), want) {
		t.Errorf("two codings: %d", w.Code)
	}
	if w := post("gzip, gzip, gzip", nil); w.Code != 415 {
		t.Errorf("three codings: %d", w.Code)
	}
	bomb := make([]byte, 64<<20)
	for _, coding := range []string{"gzip", "deflate", "zstd"} {
		if w := post(coding, encode(t, coding, bomb)); w.Code != 413 || !strings.Contains(w.Body.String(), "1048576") {
			t.Errorf("%s bomb: %d %s", coding, w.Code, w.Body)
		}
		whole := encode(t, coding, want)
		for _, cut := range []int{0, 1, 3, len(whole) / 2, len(whole) - 1} {
			if w := post(coding, whole[:cut]); w.Code != 400 {
				t.Errorf("%s cut at %d of %d: %d", coding, cut, len(whole), w.Code)
			}
		}
		if w := post(coding, []byte("this was never compressed at all")); w.Code != 400 || !strings.Contains(w.Body.String(), coding) {
			t.Errorf("%s lie: %d %s", coding, w.Code, w.Body)
		}
	}
	var long bytes.Buffer
	e, _ := zstd.NewWriter(&long, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1))
	for range 40 {
		_, _ = e.Write(make([]byte, 1<<20))
	}
	e.Close()
	if w := post("zstd", long.Bytes()); w.Code != 413 {
		t.Errorf("a zstd window of 64 MiB: %d %s", w.Code, w.Body)
	}
}

// dial sends raw bytes to a server and returns the answer's status and body.
func dial(t *testing.T, s *httptest.Server, raw string, then func(net.Conn)) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	if then != nil {
		then(c)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func readAll(w http.ResponseWriter, r *http.Request) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	Write(w, 200, "text/plain", b)
	return nil
}

func TestShortBodies(t *testing.T) {
	rt := newRouter(t, Options{})
	rt.Handle("POST", "/", readAll)
	s := httptest.NewServer(rt)
	defer s.Close()
	half := func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() }
	if code, body := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", half); code != 400 || !strings.Contains(body, "5 bytes are missing") {
		t.Errorf("short: %d %s", code, body)
	}
	if code, body := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", half); code != 400 || !strings.Contains(body, "chunk") {
		t.Errorf("chunks without an end: %d %s", code, body)
	}
	if code, body := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", nil); code != 400 || !strings.Contains(body, "invalid byte in chunk length") {
		t.Errorf("a chunk without a length: %d %s", code, body)
	}
}

func TestSlowBodies(t *testing.T) {
	rt := newRouter(t, Options{BodyRate: 1 << 10, BodyGrace: 100 * time.Millisecond})
	rt.Handle("POST", "/", readAll)
	rt.Handle("POST", "/ignores", func(w http.ResponseWriter, r *http.Request) error { return hub.E(hub.NotFound, "no") })
	s := httptest.NewServer(rt)
	defer s.Close()
	if code, body := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", nil); code != 408 || !strings.Contains(body, "1024 bytes per second") {
		t.Errorf("slow: %d %s", code, body)
	}
	if code, _ := dial(t, s, "POST /ignores HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n12345", nil); code != 404 {
		t.Errorf("an answer was held up by a body that nobody reads: %d", code)
	}
	// After a good request the connection must be usable for longer than the grace.
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 2 {
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345")
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_, _ = io.ReadAll(resp.Body)
		time.Sleep(300 * time.Millisecond)
	}
}

func TestBodyDeadlineDoesNotOutliveTheBody(t *testing.T) {
	rt := newRouter(t, Options{BodyGrace: 50 * time.Millisecond})
	rt.Handle("POST", "/", func(w http.ResponseWriter, r *http.Request) error {
		if _, err := io.ReadAll(r.Body); err != nil {
			return err
		}
		select {
		case <-r.Context().Done():
			return errors.New("the context ended with the deadline of the body")
		case <-time.After(300 * time.Millisecond):
			return nil
		}
	})
	s := httptest.NewServer(rt)
	defer s.Close()
	if code, body := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345", nil); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct{ size, limit, want int }{{0, 0, 0}, {5, 5, 5}, {6, 5, 5}, {5, 0, 0}} {
		b, err := io.ReadAll(Limit(strings.NewReader(strings.Repeat("x", c.size)), int64(c.limit), "p"))
		if len(b) != c.want || (err != nil) != (c.size > c.limit) || err != nil && !hub.Is(err, hub.TooLarge) {
			t.Errorf("%+v: %d bytes, %v", c, len(b), err)
		}
	}
}

func TestTrace(t *testing.T) {
	rt := newRouter(t, Options{TraceLimit: 2})
	rt.Handle("GET", "/", func(w http.ResponseWriter, r *http.Request) error {
		for i := range 7 {
			TraceOf(r.Context()).Step("step %d", i)
		}
		if !Tracing(r) {
			WriteJSON(w, 200, []byte("{}"))
			return nil
		}
		b := TraceOf(r.Context()).AppendMembers([]byte(`{"x": 1`))
		WriteJSON(w, 200, append(b, '}'))
		return nil
	})
	w := ask(rt, "GET", "/?trace=TRUE", nil)
	var got struct {
		First, ID, Start string
		Millis           *int
		Trace            []string
	}
	if err := Decode(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err, w.Body)
	}
	if got.First != "GET http://hub.example/?trace=TRUE" || len(got.ID) != 36 || got.Millis == nil || len(got.Trace) != 5 {
		t.Errorf("%+v", got)
	}
	for i, want := range []string{"step 0", "step 1", "3 steps were cut", "step 5", "step 6"} {
		if i < len(got.Trace) && !strings.Contains(got.Trace[i], want) {
			t.Errorf("step %d is %q, want %q", i, got.Trace[i], want)
		}
	}
	if w := ask(rt, "GET", "/?trace=1", nil); w.Body.String() != "{}" {
		t.Errorf("traced without being asked: %s", w.Body)
	}
}

func TestObserve(t *testing.T) {
	var seen []Observation
	rt := newRouter(t, Options{Observe: func(o Observation) { seen = append(seen, o) }})
	rt.Handle("GET", "/channel/{channel}", text("12345"))
	ask(rt, "GET", "/channel/x", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") })
	ask(rt, "GET", "/nowhere", nil)
	if len(seen) != 2 || seen[0].Pattern != "/channel/{channel}" || seen[0].Bytes != 5 || seen[0].Status != 200 || seen[1].Status != 404 || seen[1].Pattern != "" {
		t.Errorf("%+v", seen)
	}
}

func BenchmarkPost(b *testing.B) {
	rt := newRouter(b, Options{Node: "n:1"})
	body := bytes.Repeat([]byte("x"), 1024)
	buf := make([]byte, 2048)
	rt.Handle("POST", "/channel/{channel}", func(w http.ResponseWriter, r *http.Request) error {
		in, err := Content(r)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(in, buf[:1024]); err != nil {
			return err
		}
		if _, err := in.Read(buf[:1]); err != io.EOF {
			return err
		}
		WriteJSON(w, 201, []byte(Base(r)))
		return nil
	})
	b.ReportAllocs()
	in := bytes.NewReader(body)
	w := &sink{h: http.Header{}}
	for b.Loop() {
		in.Reset(body)
		r := &http.Request{Method: "POST", Host: "hub:8080", RequestURI: "/channel/orders", Body: io.NopCloser(in), ContentLength: 1024, Header: http.Header{}, URL: root}
		clear(w.h)
		rt.ServeHTTP(w, r)
	}
}
