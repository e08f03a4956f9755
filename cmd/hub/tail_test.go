package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// buffer is a stream that a test looks at while somebody writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// begin runs a command line that does not end by itself; end interrupts it and returns its exit code.
func (c cli) begin(args ...string) (stdout, stderr *buffer, end func() int) {
	stdout, stderr = &buffer{}, &buffer{}
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan int, 1)
	go func() {
		a := &app{stdin: strings.NewReader(""), stdout: stdout, stderr: stderr, environ: []string{"HUB_URL=" + c.url}}
		done <- a.run(ctx, args)
	}()
	return stdout, stderr, func() int {
		cancel()
		select {
		case code := <-done:
			return code
		case <-time.After(time.Minute):
			c.t.Fatalf("hub %v does not end", args)
			return -1
		}
	}
}

func TestTail(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans")
	if got := c.ok("tail", "beans"); got != "" {
		t.Errorf("of an empty channel: %q", got)
	}
	var uris []string
	for _, body := range []string{"one", "two\n", "three\r\nlines\rof\n\ntext", "\xff\x00", `{"a": "<b>"}`} {
		code, stdout, stderr := c.run(body, "put", "beans", "-", "--type", map[bool]string{true: "application/json", false: "text/plain"}[body[0] == '{'])
		if code != exitOK {
			t.Fatal(stderr)
		}
		uris = append(uris, strings.TrimSpace(stdout))
	}
	list := func(from int) string { return strings.Join(uris[from:], "\n") + "\n" }
	_, third, _ := strings.Cut(uris[2], "/beans/")
	for _, want := range []struct {
		args []string
		out  string
	}{
		{[]string{}, list(0)},
		{[]string{"-n", "2"}, list(3)},
		{[]string{"-n", "5"}, list(0)},
		{[]string{"-n", "9000000"}, list(0)},
		{[]string{"-n", "0"}, ""},
		{[]string{"--from", "now"}, ""},
		{[]string{"--from", "previous"}, list(4)},
		{[]string{"--from", "previous 3"}, list(2)},
		{[]string{"--from", "Previous/3"}, list(2)},
		{[]string{"--from", "earliest"}, list(0)},
		{[]string{"--from", uris[1]}, list(2)},
		{[]string{"--from", third}, list(3)},
		{[]string{"--from", third[:10]}, list(0)},
		{[]string{"--from", c.url + "/channel/beans/" + third[:10] + "?x=y"}, list(0)},
		{[]string{"--from", strings.ReplaceAll(third[:10], "/", "-")}, list(0)},
		{[]string{"--from", "2999-01-01"}, ""},
		{[]string{"--from", "earliest", "--max", "2"}, uris[0] + "\n" + uris[1] + "\n"},
		{[]string{"--max", "0"}, ""},
		{[]string{"-f", "--from", "earliest", "--max", "5"}, list(0)},
		{[]string{"--payload"}, "one\ntwo\nthree\r\nlines\rof\n\ntext\n\xff\x00\n{\"a\": \"<b>\"}\n"},
		{[]string{"--payload", "--from", "earliest", "--max", "1"}, "one\n"},
	} {
		if got := c.ok(append([]string{"tail", "beans"}, want.args...)...); got != want.out {
			t.Errorf("%v: %q, want %q", want.args, got, want.out)
		}
	}
	var r record
	lines := strings.Split(strings.TrimSpace(c.ok("tail", "beans", "--payload", "--json")), "\n")
	if err := json.Unmarshal([]byte(lines[3]), &r); err != nil || string(r.Base64) != "\xff\x00" || r.URI != uris[3] || len(lines) != 5 {
		t.Errorf("%d lines, %+v, %v", len(lines), r, err)
	}
	if !strings.Contains(lines[4], `{"a":"<b>"}`) {
		t.Error(lines[4])
	}
	if got := c.ok("tail", "beans", "-n", "1", "--json"); !strings.Contains(got, `"uri":"`+uris[4]+`"`) || strings.Contains(got, "text") {
		t.Error(got)
	}
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"none"}, exitNotFound, "hub channel create none"},
		{[]string{"none", "-f"}, exitNotFound, "hub channel create none"},
		{[]string{"beans/latest"}, exitUsage, "not the name"},
		{[]string{"beans", "--from", "yesterday"}, exitUsage, "earliest, previous"},
		{[]string{"beans", "--from", "previous x"}, exitUsage, "count"},
		{[]string{"beans", "--from", third + "/next"}, exitUsage, "want one of"},
		{[]string{"beans", "--from", "now", "-n", "1"}, exitUsage, "give one"},
		{[]string{"beans", "-n", "-1"}, exitUsage, "negative"},
		{[]string{"beans", "--max", "-1"}, exitUsage, "negative"},
		{[]string{"beans", "--epoch", "new"}, exitUsage, "epoch"},
	} {
		if code, _, stderr := c.run("", append([]string{"tail"}, bad.args...)...); code != bad.code || !strings.Contains(strings.ToLower(stderr), bad.says) {
			t.Errorf("%v: exit %d, %s", bad.args, code, stderr)
		}
	}
	if code, _, stderr := (cli{t, "http://127.0.0.1:1"}).run("", "tail", "beans", "-f"); code != exitUnavailable || !strings.Contains(stderr, "does not answer") {
		t.Errorf("nobody there: exit %d, %s", code, stderr)
	}
}

// With -f what comes is printed as it comes; an interruption ends it without a word, a channel that goes away with one.
func TestTailFollows(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans")
	stdout, stderr, end := c.begin("tail", "beans", "-f", "--payload")
	want := ""
	for i := range 5 {
		c.run(fmt.Sprint("item ", i), "put", "beans", "-")
		want += fmt.Sprintf("item %d\n", i)
		until(t, "an item", func() bool { return stdout.String() == want })
	}
	if code := end(); code != exitInterrupted || stderr.String() != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	var said bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: w, stderr: &said, environ: []string{"HUB_URL=" + c.url}}
	if code := a.run(t.Context(), []string{"tail", "beans", "-f"}); code != exitOK || said.Len() > 0 {
		t.Errorf("into a closed pipe: exit %d, %s", code, &said)
	}
	w.Close()
	_, stderr, end = c.begin("tail", "beans", "-f")
	c.ok("channel", "rm", "beans")
	until(t, "the end of the channel", func() bool { return strings.Contains(stderr.String(), "beans") })
	if code := end(); code != exitNotFound {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// unreliable stands before a hub and fails every other request: no answer, 503, an answer that is cut.
func unreliable(t *testing.T, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host }}
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/next/") {
			proxy.ServeHTTP(w, r)
			return
		}
		switch n.Add(1) % 8 {
		case 1:
			panic(http.ErrAbortHandler)
		case 3:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(503)
			io.WriteString(w, `{"error": "starting"}`)
		case 5, 6:
			rec := httptest.NewRecorder()
			proxy.ServeHTTP(rec, r)
			for name, values := range rec.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(rec.Code)
			w.Write(rec.Body.Bytes()[:rec.Body.Len()*2/3]) //nolint:errcheck // it is cut on purpose
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Nothing is missed and nothing comes twice, whatever the network does.
func TestTailThroughFailures(t *testing.T) {
	direct := cli{t, startHub(t)}
	c := cli{t, unreliable(t, direct.url)}
	direct.ok("channel", "create", "beans")
	var rows, want strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&rows, "%d\n", i)
		fmt.Fprintf(&want, "%d\n", i)
	}
	if code, _, stderr := c.run(rows.String(), "import", "beans", "-", "--format", "ndjson", "--batch", "500"); code != 0 {
		t.Fatal(stderr)
	}
	for _, args := range [][]string{{"--payload"}, {"--payload", "-f", "--max", "3000"}} {
		if got := c.ok(append([]string{"tail", "beans", "--from", "earliest"}, args...)...); got != want.String() {
			t.Errorf("%v: %d bytes, want %d", args, len(got), want.Len())
		}
	}
	if got := c.ok("tail", "beans", "--from", "earliest"); strings.Count(got, "\n") != 3000 || strings.ReplaceAll(got, c.url, direct.url) != direct.ok("tail", "beans", "--from", "earliest") {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
	stdout, stderr, end := c.begin("tail", "beans", "--from", strings.TrimSpace(direct.ok("tail", "beans", "-n", "1")), "-f", "--payload", "--json")
	told := func() bool { // an outage and its end: both while items come, or the last request may be one that waits
		return strings.Contains(stderr.String(), `{"notice":`) && strings.Contains(stderr.String(), "answers again")
	}
	items := 0
	for began := time.Now(); items < 30 || !told() && time.Since(began) < time.Minute; items++ {
		if code, _, stderr := direct.run(fmt.Sprint("item ", items), "put", "beans", "-", "--type", "text/plain"); code != exitOK {
			t.Fatal(stderr)
		}
	}
	until(t, "all items", func() bool { return strings.Count(stdout.String(), "\n") >= items })
	end()
	for i, line := range strings.Split(strings.TrimSpace(stdout.String()), "\n") {
		if !strings.Contains(line, fmt.Sprintf(`"text":"item %d"`, i)) {
			t.Errorf("line %d: %s", i, line)
		}
	}
	if !told() {
		t.Errorf("an outage is not told: %s", stderr.String())
	}
}

// A hub that neither holds requests nor tells its horizon can be followed too.
func TestTailOfOtherHubs(t *testing.T) {
	direct := cli{t, startHub(t)}
	u, err := url.Parse(direct.url)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	s := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			asked.Add(1)
			r.SetURL(u)
			q := r.Out.URL.Query()
			q.Del("wait")
			r.Out.URL.RawQuery = q.Encode()
		},
		ModifyResponse: func(r *http.Response) error { r.Header.Del("Hub-Horizon"); return nil },
	})
	t.Cleanup(s.Close)
	c := cli{t, s.URL}
	direct.ok("channel", "create", "beans")
	for i := range 3 {
		direct.run(fmt.Sprint("item ", i), "put", "beans", "-")
	}
	if got := c.ok("tail", "beans", "--payload", "-n", "2"); got != "item 1\nitem 2\n" {
		t.Errorf("%q", got)
	}
	stdout, _, end := c.begin("tail", "beans", "-f", "--payload")
	until(t, "what is there", func() bool { return stdout.String() == "item 0\nitem 1\nitem 2\n" })
	before, began := asked.Load(), time.Now()
	time.Sleep(time.Second)
	if n, took := asked.Load()-before, time.Since(began); n > int64(took/followPoll)+2 {
		t.Errorf("%d requests in %v", n, took)
	}
	direct.run("item 3", "put", "beans", "-")
	until(t, "what comes", func() bool { return strings.HasSuffix(stdout.String(), "item 3\n") })
	if code := end(); code != exitInterrupted {
		t.Errorf("exit %d", code)
	}
}
