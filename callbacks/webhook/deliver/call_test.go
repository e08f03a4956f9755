package deliver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"timehub/callbacks/webhook"
	"timehub/hub"
)

func caller(t *testing.T, o Options) *Caller {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		goleak.VerifyNone(t, leaks, goleak.IgnoreAnyFunction("net/http.(*conn).serve")) // of servers of the test
	})
	return c
}

// to is a webhook that calls an address, within a minute.
func to(address string) *webhook.Webhook {
	w := hook("")
	w.CallbackURL, w.CallbackTimeoutSeconds = address, 60
	return w
}

func message(t *testing.T, w *webhook.Webhook) Message {
	t.Helper()
	m, err := ItemMessage(w, key(0), samples()[0])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// consumer is an HTTP server that is closed with the test.
func consumer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// raw is a consumer of its own kind: talk gets each connection, and how many there were before, after the head and body of its first request were read.
func raw(t *testing.T, talk func(n int, c net.Conn, r *bufio.Reader)) (url string, requests *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	var group sync.WaitGroup
	group.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if readRequest(r) {
					requests.Add(1)
					talk(n, c, r)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
	return "http://" + l.Addr().String() + "/cb?secret=s3cret", requests
}

func readRequest(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err == nil {
		_, err = io.Copy(io.Discard, req.Body)
	}
	return err == nil
}

const answered = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

func TestRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	s := consumer(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "thanks")
	})
	c := caller(t, Options{Node: func() string { return "hub1.example:8080" }})
	w := to(s.URL + "/cb?x=1&y=2")
	o := c.Post(t.Context(), w, message(t, w))
	if !o.OK() || o.Gone() || o.Text() != "202 Accepted" || string(o.Answer) != "thanks" || o.Took <= 0 || o.RetryAfter != 0 {
		t.Errorf("%+v", o)
	}
	want := map[string]string{"Content-Type": "application/json", "Hub-Node": "hub1.example:8080", "User-Agent": "TheHub", "Content-Length": strconv.Itoa(len(body))}
	for name, value := range want {
		if got.Header.Get(name) != value {
			t.Errorf("%s: %q", name, got.Header.Get(name))
		}
	}
	if len(got.Header) != len(want) || got.Method != "POST" || got.RequestURI != "/cb?x=1&y=2" || got.Proto != "HTTP/1.1" {
		t.Errorf("%s %s %s %v", got.Method, got.RequestURI, got.Proto, got.Header)
	}
	if string(body) != `{"name":"printer","uris":["http://hub.example/channel/orders/2021/03/04/05/07/07/089/aZ3k9Q"],"type":"item"}` {
		t.Errorf("%s", body)
	}
}

// TestStatus: 2xx is success, nothing else is; the text has the reason phrase as it came.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		line, header, text string
		ok, gone           bool
		after              time.Duration
	}{
		{line: "200 OK", text: "200 OK", ok: true},
		{line: "299 Whatever Works", text: "299 Whatever Works", ok: true},
		{line: "204", text: "204", ok: true},
		{line: "301 Moved Permanently", header: "Location: /ok\r\n", text: "301 Moved Permanently"},
		{line: "303 See Other", header: "Location: /ok\r\n", text: "303 See Other"},
		{line: "304 Not Modified", text: "304 Not Modified"},
		{line: "307 No Location", text: "307 No Location"},
		{line: "308 Bad Location", header: "Location: ftp://x/\r\n", text: "308 Bad Location"},
		{line: "308 Bad Location", header: "Location: http://[::1\r\n", text: "308 Bad Location"},
		{line: "410 Gone", text: "410 Gone", gone: true},
		{line: "429 Too Many Requests", header: "Retry-After: 17\r\n", text: "429 Too Many Requests", after: 17 * time.Second},
		{line: "503 Paper jam in tray 2", header: "Retry-After: -5\r\n", text: "503 Paper jam in tray 2"},
		{line: "503 " + strings.Repeat("x", 500), header: "Retry-After: 99999999999999999\r\n", text: "503 " + strings.Repeat("x", reasonKept), after: 1 << 31 * time.Second},
		{line: "200 OK", header: "Retry-After: 17\r\n", text: "200 OK", ok: true},
		{line: "500 \x1b[31mred", text: "500 [31mred"},
		{line: "101 Switching Protocols", header: "Upgrade: x\r\nConnection: Upgrade\r\n", text: "101 Switching Protocols"},
	} {
		t.Run(c.line[:3]+c.header, func(t *testing.T) {
			url, requests := raw(t, func(_ int, conn net.Conn, _ *bufio.Reader) {
				fmt.Fprintf(conn, "HTTP/1.1 %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", c.line, c.header)
			})
			w := to(url)
			o := caller(t, Options{}).Post(t.Context(), w, message(t, w))
			if o.OK() != c.ok || o.Gone() != c.gone || strings.Join(strings.Fields(o.Text()), " ") != c.text || o.RetryAfter != c.after {
				t.Errorf("%+v", o)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "0": 0, " 3 ": 3 * time.Second, "1.5": 0, "soon": 0, "-5": 0,
		"9999999999": 1 << 31 * time.Second, "99999999999999999999": 1 << 31 * time.Second, "-99999999999999999999": 0,
		"Thu, 04 Mar 2021 05:08:07 GMT": 2 * time.Minute, "Thu, 04 Mar 2021 05:00:00 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// TestBadConsumers: whatever the consumer does, the call ends in bounds, with a text that names the host and no secrets.
func TestBadConsumers(t *testing.T) {
	trickle := func(c net.Conn, head string) {
		io.WriteString(c, head)
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for name, c := range map[string]struct {
		talk func(n int, c net.Conn, r *bufio.Reader)
		text string
		ok   bool
	}{
		"never answers":        {talk: func(_ int, c net.Conn, r *bufio.Reader) { r.ReadByte() }, text: "no answer within 1s"},
		"trickles its head":    {talk: func(_ int, c net.Conn, _ *bufio.Reader) { trickle(c, "HTTP/1.1 200 ") }, text: "no answer within 1s"},
		"trickles its answer":  {talk: func(_ int, c net.Conn, _ *bufio.Reader) { trickle(c, "HTTP/1.1 200 OK\r\n\r\n") }, text: "200 OK", ok: true},
		"trickles a failure":   {talk: func(_ int, c net.Conn, _ *bufio.Reader) { trickle(c, "HTTP/1.1 500 No\r\n\r\n") }, text: "500 No"},
		"closes after reading": {talk: func(int, net.Conn, *bufio.Reader) {}, text: "the connection was closed before there was an answer"},
		"resets after reading": {talk: func(_ int, c net.Conn, _ *bufio.Reader) { c.(*net.TCPConn).SetLinger(0) }, text: "connection reset by peer"},
		"breaks off its head":  {talk: func(_ int, c net.Conn, _ *bufio.Reader) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y\r\n") }, text: "the connection was closed before there was an answer"},
		"breaks off its answer": {talk: func(_ int, c net.Conn, _ *bufio.Reader) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
		}, text: "200 OK", ok: true},
		"is no HTTP server": {talk: func(_ int, c net.Conn, _ *bufio.Reader) { io.WriteString(c, "220 smtp.example ESMTP\r\n\r\n") }, text: "malformed HTTP"},
		"has an endless head": {talk: func(_ int, c net.Conn, _ *bufio.Reader) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X-A: "+strings.Repeat("a", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, text: "header"},
		"answers 10 GB": {talk: func(_ int, c net.Conn, _ *bufio.Reader) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
			block := bytes.Repeat([]byte("g"), 1<<16)
			for n := 0; ; n += len(block) {
				if _, err := c.Write(block); err != nil {
					if n > 64<<20 {
						panic("the hub reads on and on")
					}
					return
				}
			}
		}, text: "200 OK", ok: true},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := raw(t, c.talk)
			w := to(url)
			w.CallbackTimeoutSeconds = 600 // the rest of an answer has its own time
			if strings.Contains(c.text, "within 1s") {
				w.CallbackTimeoutSeconds = 1
			}
			began := time.Now()
			o := caller(t, Options{}).Post(t.Context(), w, message(t, w))
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if o.OK() != c.ok || !strings.Contains(o.Text(), c.text) || len(o.Answer) > answerKept {
				t.Errorf("%v, %s", o, o.Text())
			}
			host := strings.TrimPrefix(strings.TrimSuffix(url, "/cb?secret=s3cret"), "http://")
			if o.Err != nil && !strings.Contains(o.Text(), host) || strings.Contains(o.Text(), "secret") {
				t.Errorf("%q does not name %s", o.Text(), host)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestUnusable(t *testing.T) {
	c := caller(t, Options{ConnectTimeout: 20 * time.Second})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for address, want := range map[string]string{
		"mailto:x@y.example":               `callbackUrl cannot be called: its scheme is "mailto", not http or https`,
		"/relative":                        `callbackUrl cannot be called: its scheme is "", not http or https`,
		"http://":                          "callbackUrl cannot be called: it has no host",
		"http:///path":                     "callbackUrl cannot be called: it has no host",
		"http://a b/":                      "callbackUrl cannot be called: it is no URL",
		"http://u:s3cret@nothing.invalid/": "lookup nothing.invalid: ",
		"http://u:s3cret@" + free.Addr().String():     "connect " + free.Addr().String() + ": connection refused",
		"https://127.0.0.1:99999/":                    "connect 127.0.0.1:99999: ",
		"http://" + free.Addr().String() + "/s3cret?": "connection refused",
	} {
		w := to(address)
		o := c.Post(t.Context(), w, message(t, w))
		if o.OK() || o.Status != 0 || !strings.Contains(o.Text(), want) || strings.Contains(o.Text(), "s3cret") {
			t.Errorf("%s: %s", address, o.Text())
		}
	}
}

// TestConnectTimeout: there is a time for connecting, and a text for a name that does not exist (spec 03 §2.5).
func TestConnectTimeout(t *testing.T) {
	c := caller(t, Options{ConnectTimeout: 50 * time.Millisecond, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}})
	w := to("http://printer.example/")
	if o := c.Post(t.Context(), w, message(t, w)); o.Text() != "connect printer.example: no connection within 50ms" {
		t.Error(o.Text())
	}
	c = caller(t, Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "nothing", Server: "10.0.0.1:53", IsNotFound: true}}
	}})
	w = to("http://nothing/")
	if o := c.Post(t.Context(), w, message(t, w)); o.Text() != "lookup nothing: no such host" {
		t.Error(o.Text())
	}
}

// TestPooled: a pooled connection that the consumer has closed is no failed attempt; the request is made once more on another one, and that once only.
func TestPooled(t *testing.T) {
	for name, c := range map[string]struct {
		second   func(c net.Conn, r *bufio.Reader) // what happens to the second request of a connection
		ok       bool
		requests int64
	}{
		"is used again":             {func(c net.Conn, r *bufio.Reader) { readRequest(r); io.WriteString(c, answered) }, true, 1},
		"was closed":                {func(net.Conn, *bufio.Reader) {}, true, 2},
		"was reset":                 {func(c net.Conn, _ *bufio.Reader) { c.(*net.TCPConn).SetLinger(0) }, true, 2},
		"closes after reading":      {func(_ net.Conn, r *bufio.Reader) { readRequest(r) }, true, 2},
		"breaks off after one byte": {func(c net.Conn, r *bufio.Reader) { readRequest(r); io.WriteString(c, "H") }, false, 1},
		"is silent":                 {func(c net.Conn, r *bufio.Reader) { readRequest(r); r.ReadByte() }, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for try := 1; ; try++ {
				url, requests := raw(t, func(n int, conn net.Conn, r *bufio.Reader) {
					io.WriteString(conn, answered)
					c.second(conn, r)
				})
				caller := caller(t, Options{})
				w := to(url)
				if o := caller.Post(t.Context(), w, message(t, w)); !o.OK() {
					t.Fatal(o.Text())
				}
				if !c.ok {
					w.CallbackTimeoutSeconds = 1
				}
				o := caller.Post(t.Context(), w, message(t, w))
				n := requests.Load() // first requests of connections
				if o.OK() == c.ok && n == c.requests {
					return
				}
				if try == 3 { // a machine that stands still for half a second has dropped the connection before it is used again
					t.Fatalf("%s; %d connections, want %d", o.Text(), n, c.requests)
				}
			}
		})
	}
}

// TestNoRepeat: on a new connection a failure is a failure.
func TestNoRepeat(t *testing.T) {
	url, requests := raw(t, func(int, net.Conn, *bufio.Reader) {})
	c := caller(t, Options{})
	w := to(url)
	for n := range int64(3) {
		if o := c.Post(t.Context(), w, message(t, w)); o.OK() || requests.Load() != n+1 {
			t.Errorf("%s after %d requests", o.Text(), requests.Load())
		}
	}
}

func TestRedirects(t *testing.T) {
	var other *httptest.Server
	seen := make(chan *http.Request, 100)
	bodies := make(chan string, 100)
	handler := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen <- r
		bodies <- string(b)
		switch p := r.URL.Path; {
		case p == "/circle":
			http.Redirect(w, r, "/circle", http.StatusTemporaryRedirect)
		case p == "/other":
			http.Redirect(w, r, other.URL+"/end", http.StatusPermanentRedirect)
		case strings.HasPrefix(p, "/n"):
			if n, _ := strconv.Atoi(p[2:]); n > 0 {
				w.Header().Set("Location", fmt.Sprintf("n%d", n-1))
				w.WriteHeader(http.StatusTemporaryRedirect)
			}
		case p == "/302":
			http.Redirect(w, r, "/end", http.StatusFound)
		}
	}
	s := consumer(t, handler)
	other = consumer(t, handler)
	c := caller(t, Options{})
	for _, e := range []struct {
		path  string
		ok    bool
		calls int
		text  string
	}{
		{"/end", true, 1, "200 OK"},
		{"/n10", true, 11, "200 OK"},
		{"/n11", false, 11, "307 Temporary Redirect: more than 10 redirects"},
		{"/circle", false, 11, "307 Temporary Redirect: more than 10 redirects"},
		{"/other", true, 2, "200 OK"},
		{"/302", false, 1, "302 Found"},
	} {
		w := to(strings.Replace(s.URL, "//", "//user:s3cret@", 1) + e.path)
		w.Secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("key"))
		o := c.Post(t.Context(), w, message(t, w))
		if o.OK() != e.ok || o.Text() != e.text {
			t.Errorf("%s: %s", e.path, o.Text())
		}
		if len(seen) != e.calls {
			t.Errorf("%s: %d calls", e.path, len(seen))
		}
		var first string
		for range e.calls {
			r, body := <-seen, <-bodies
			if first == "" {
				first = body
			}
			_, password, _ := r.BasicAuth()
			sameHost := strings.HasSuffix(s.URL, r.Host)
			if r.Method != "POST" || body != first || body == "" || r.Header.Get("Webhook-Signature") == "" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %s %v %q", e.path, r.Method, r.Header, body)
			}
			if sent := password == "s3cret"; sent != sameHost {
				t.Errorf("%s: the password was sent to %s: %v", e.path, r.Host, sent)
			}
		}
	}
}

// TestSignature verifies as the standard says, with code of its own.
func TestSignature(t *testing.T) {
	type request struct {
		header http.Header
		body   []byte
	}
	got := make(chan request, 1)
	s := consumer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{r.Header, b}
	})
	c := caller(t, Options{})
	long := make([]hub.Key, 30_000)
	for n := range long {
		long[n] = key(int64(n))
	}
	encoded := base64.StdEncoding.EncodeToString([]byte("the key, 24 bytes long.."))
	for _, e := range []struct {
		secret, previous string
		keys             []string
	}{
		{"", "", nil},
		{"whsec_" + encoded, "", []string{"the key, 24 bytes long.."}},
		{encoded, "", []string{"the key, 24 bytes long.."}},
		{"not base64!", "whsec_" + encoded, []string{"not base64!", "the key, 24 bytes long.."}},
		{"", "whsec_" + encoded, []string{"the key, 24 bytes long.."}},
	} {
		for _, period := range []bool{false, true} {
			w := to(s.URL)
			w.Secret, w.PreviousSecret = e.secret, e.previous
			m := message(t, w)
			if period {
				m, _ = PeriodMessage(w, hub.WindowAt(key(0).Time(), hub.Minute), KeyList(long), nil)
			}
			if o := c.Post(t.Context(), w, m); !o.OK() {
				t.Fatal(o.Text())
			}
			r := <-got
			if period && len(r.body) < bodyKept {
				t.Errorf("only %d bytes", len(r.body))
			}
			var want []string
			for _, k := range e.keys {
				mac := hmac.New(sha256.New, []byte(k))
				fmt.Fprintf(mac, "%s.%s.%s", r.header.Get("webhook-id"), r.header.Get("webhook-timestamp"), r.body)
				want = append(want, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
			}
			if r.header.Get("webhook-signature") != strings.Join(want, " ") {
				t.Errorf("%v: %q, want %q", e, r.header.Get("webhook-signature"), want)
			}
			at, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
			if e.keys != nil && (err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute) {
				t.Errorf("timestamp %q", r.header.Get("webhook-timestamp"))
			}
		}
	}
}

// TestLong: a body that is made twice; and one that is another the second time is a failure of ours, not the consumer's.
func TestLong(t *testing.T) {
	var size atomic.Int64
	s := consumer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		size.Store(n)
	})
	c := caller(t, Options{})
	w := to(s.URL)
	const n = 100_000
	passes := 0
	keys := func(more int) Keys {
		return func(yield func(hub.Key, error) bool) {
			passes++
			count := n
			if passes > 1 {
				count += more
			}
			for i := range count {
				if !yield(key(int64(i)), nil) {
					return
				}
			}
		}
	}
	window := hub.WindowAt(key(0).Time(), hub.Minute)
	m, _ := PeriodMessage(w, window, keys(0), nil)
	if o := c.Post(t.Context(), w, m); !o.OK() || passes != 2 || size.Load() < n*60 {
		t.Errorf("%s, %d passes, %d bytes", o.Text(), passes, size.Load())
	}
	for _, more := range []int{-1, 1} {
		passes = 0
		m, _ = PeriodMessage(w, window, keys(more), nil)
		if o := c.Post(t.Context(), w, m); o.OK() || !errors.Is(o.Err, ErrContent) {
			t.Errorf("%+d keys the second time: %s", more, o.Text())
		}
	}
	passes = 0
	w.CallbackURL += "/early"
	m, _ = PeriodMessage(w, window, keys(0), nil)
	if o := c.Post(t.Context(), w, m); o.OK() || errors.Is(o.Err, ErrContent) {
		t.Errorf("%s", o.Text())
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var log bytes.Buffer
	for _, verify := range []bool{true, false} {
		c := caller(t, Options{VerifyTLS: verify, Log: slog.New(slog.NewTextHandler(&log, nil))})
		w := to(strings.Replace(s.URL, "//", "//u:s3cret@", 1))
		for range 3 {
			o := c.Post(t.Context(), w, message(t, w))
			if o.OK() == verify || verify && !strings.Contains(o.Text(), "certificate") {
				t.Errorf("verify %v: %s", verify, o.Text())
			}
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || strings.Contains(log.String(), "s3cret") {
		t.Errorf("%d lines: %s", n, log.String())
	}
}

// TestEnd: a call whose context ends, ends, and tells why.
func TestEnd(t *testing.T) {
	why := errors.New("lost the lease")
	url, _ := raw(t, func(_ int, c net.Conn, r *bufio.Reader) { r.ReadByte() })
	c := caller(t, Options{MaxCalls: 1})
	w := to(url)
	w.CallbackTimeoutSeconds = 600
	ctx, cancel := context.WithCancelCause(t.Context())
	var group sync.WaitGroup
	for range 3 { // one calls, two wait for its place
		group.Go(func() {
			if o := c.Post(ctx, w, message(t, w)); !errors.Is(o.Err, why) || o.OK() {
				t.Errorf("%v", o)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	cancel(why)
	group.Wait()
}

// TestIdle: connections are used again within half a second, and dropped after it.
func TestIdle(t *testing.T) {
	var opened, closed atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answer") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := caller(t, Options{})
	w := to(s.URL)
	for range 100 {
		if o := c.Post(t.Context(), w, message(t, w)); !o.OK() {
			t.Fatal(o.Text())
		}
	}
	if n := opened.Load(); n > 50 {
		t.Errorf("%d connections for 100 calls in a row", n)
	}
	for range 1000 {
		if closed.Load() == opened.Load() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d of %d connections are still open", opened.Load()-closed.Load(), opened.Load())
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{ConnectTimeout: -1}, {MaxCalls: -1}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// BenchmarkPost is one call after the other to a consumer that does nothing.
func BenchmarkPost(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				buf := make([]byte, 4096) // a request comes in one piece here
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					io.WriteString(c, answered)
				}
			})
		}
	})
	c, err := New(Options{Node: func() string { return "hub1.example:8080" }})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { c.Close(); l.Close(); group.Wait() }()
	w := hook("")
	w.CallbackURL = "http://" + l.Addr().String() + "/cb"
	b.ReportAllocs()
	for b.Loop() {
		m, err := ItemMessage(w, key(0), nil)
		if err != nil {
			b.Fatal(err)
		}
		if o := c.Post(b.Context(), w, m); !o.OK() {
			b.Fatal(o.Text())
		}
	}
}

// TestLookupTimeout: a name server that is silent has 5 s of the time for connecting; connecting has the rest.
func TestLookupTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		lookup, found bool
		took          time.Duration
		text          string
	}{
		"silent name server": {true, false, 5 * time.Second, "lookup printer.example: no answer within 5s"},
		"silent host":        {true, true, time.Minute, "connect printer.example: no connection within 1m0s"},
		"no look-up":         {false, false, time.Minute, "connect printer.example: no connection within 1m0s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			caller, err := New(Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				if trace := httptrace.ContextClientTrace(ctx); c.lookup {
					trace.DNSStart(httptrace.DNSStartInfo{Host: "printer.example"})
					if c.found {
						time.Sleep(time.Second)
						trace.DNSDone(httptrace.DNSDoneInfo{})
					}
				}
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(2 * time.Minute):
					return nil, errors.New("it took too long")
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			w := to("http://printer.example/")
			began := time.Now()
			if o := caller.Post(t.Context(), w, message(t, w)); o.Text() != c.text || time.Since(began) != c.took {
				t.Errorf("%s: %s after %v", name, o.Text(), time.Since(began))
			}
			time.Sleep(5 * time.Minute) // what dials ends too
			caller.Close()
		})
	}
}
