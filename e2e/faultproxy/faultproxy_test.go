package faultproxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that sends back what comes, and counts it.
func echo(t *testing.T) (addr string, got *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = new(atomic.Int64)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				buf := make([]byte, 32<<10)
				for {
					n, err := c.Read(buf)
					got.Add(int64(n))
					if _, wrong := c.Write(buf[:n]); err != nil || wrong != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String(), got
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// talk sends text and waits for its echo.
func talk(c net.Conn, text string, within time.Duration) (time.Duration, error) {
	begin := time.Now()
	if _, err := c.Write([]byte(text)); err != nil {
		return 0, err
	}
	return hear(c, text, begin, within)
}

func hear(c net.Conn, text string, begin time.Time, within time.Duration) (time.Duration, error) {
	buf := make([]byte, len(text))
	_ = c.SetReadDeadline(time.Now().Add(within))
	if _, err := io.ReadFull(c, buf); err != nil {
		return 0, err
	}
	if string(buf) != text {
		return 0, fmt.Errorf("%q came back as %q", text, buf)
	}
	return time.Since(begin), nil
}

const patience = 30 * time.Second

func TestLinePasses(t *testing.T) {
	to, _ := echo(t)
	l := NewLine(t, to)
	c := dial(t, l.Addr)
	text := strings.Repeat("0123456789abcdef", 20_000)
	if _, err := talk(c, text, patience); err != nil {
		t.Fatal(err)
	}
	if l.Carried() != int64(len(text)) {
		t.Errorf("%d bytes went back, want %d", l.Carried(), len(text))
	}
	if _, err := c.Write([]byte("the end")); err != nil { // an end that closes first still gets its answer
		t.Fatal(err)
	}
	closeWrite(c)
	if b, err := io.ReadAll(c); string(b) != "the end" || err != nil {
		t.Errorf("%q %v", b, err)
	}
}

func TestLineDelay(t *testing.T) {
	to, _ := echo(t)
	l := NewLine(t, to)
	c := dial(t, l.Addr)
	l.Set(Way{Delay: 100 * time.Millisecond}, Way{Delay: 200 * time.Millisecond})
	if took, err := talk(c, "slow", patience); err != nil || took < 290*time.Millisecond {
		t.Errorf("it took %v, %v", took, err)
	}
	l.Set(Way{Rate: 1000}, Way{})
	if took, err := talk(c, strings.Repeat("x", 500), patience); err != nil || took < 400*time.Millisecond {
		t.Errorf("500 bytes at 1000 a second took %v, %v", took, err)
	}
}

func TestLineHold(t *testing.T) {
	to, got := echo(t)
	l := NewLine(t, to)
	c := dial(t, l.Addr)
	l.Set(Way{}, Way{Hold: true}) // one way only
	begin := time.Now()
	if _, err := talk(c, "held", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v, want a time-out", err)
	}
	if got.Load() != 4 {
		t.Errorf("the server got %d bytes", got.Load())
	}
	l.Set(Way{}, Way{})
	if _, err := hear(c, "held", begin, patience); err != nil {
		t.Error(err)
	}
}

func TestLineHalfOpen(t *testing.T) {
	to, _ := echo(t)
	l := NewLine(t, to)
	c := dial(t, l.Addr)
	if _, err := talk(c, "before", patience); err != nil {
		t.Fatal(err)
	}
	l.HalfOpen()
	for range 3 {
		if _, err := talk(c, "nobody hears this", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want silence", err)
		}
	}
	if _, err := talk(dial(t, l.Addr), "a new one works", patience); err != nil {
		t.Error(err)
	}
	l.Cut()
	if _, err := talk(c, "x", patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a cut: %v", err)
	}
}

func TestLineCut(t *testing.T) {
	to, _ := echo(t)
	l := NewLine(t, to)
	c := dial(t, l.Addr)
	if _, err := talk(c, "before", patience); err != nil {
		t.Fatal(err)
	}
	cut := make(chan struct{})
	l.CutAfter(100, func() { close(cut) })
	if _, err := talk(c, strings.Repeat("x", 10_000), patience); err == nil {
		t.Error("everything came through a line that was cut")
	}
	<-cut
	l.Refuse(true)
	if err := gone(l.Addr); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a refused connection: %v", err)
	}
	l.Refuse(false)
	if _, err := talk(dial(t, l.Addr), "after", patience); err != nil {
		t.Error(err)
	}
}

// TestLineNobody: a server that is not there resets, as it would without a proxy.
func TestLineNobody(t *testing.T) {
	s := httptest.NewServer(nil)
	addr := s.Listener.Addr().String()
	s.Close()
	l := NewLine(t, addr)
	if err := gone(l.Addr); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// gone tries an address at which everything ends with a reset, which may come before the dial is over.
func gone(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = talk(c, "x", patience)
	return err
}

// store is a server that keeps what is put and says what it saw.
type store struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string][]byte
	puts    int
	broken  int
	hosts   map[string]bool
}

func newStore(t *testing.T) *store {
	s := &store{objects: map[string][]byte{}, hosts: map[string]bool{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[r.Host] = true
	if err != nil {
		s.broken++
		return
	}
	name := r.URL.EscapedPath() + "?" + r.URL.RawQuery
	if r.Method == http.MethodPut {
		s.objects[name] = body
		s.puts++
		w.Header().Set("ETag", fmt.Sprintf("%x", sha256.Sum256(body)))
		return
	}
	b, ok := s.objects[name]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = w.Write(b)
}

func (s *store) counts() (puts, broken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts, s.broken
}

type asked struct {
	status int
	body   []byte
	header http.Header
	took   time.Duration
	err    error
}

func ask(t *testing.T, method, url string, body []byte, within time.Duration) asked {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: within}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return asked{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return asked{resp.StatusCode, b, resp.Header, time.Since(begin), err}
}

func TestHTTPPasses(t *testing.T) {
	s := newStore(t)
	p := NewHTTP(t, s.Listener.Addr().String())
	body := bytes.Repeat([]byte("0123456789"), 50_000)
	const name = "/bucket/a%2Fb%3Ac%20d?list-type=2&prefix=a%2Fb"
	if a := ask(t, "PUT", p.URL+name, body, patience); a.err != nil || a.status != 200 || a.header.Get("ETag") == "" {
		t.Fatalf("%d %v %v", a.status, a.err, a.header)
	}
	if a := ask(t, "GET", p.URL+name, nil, patience); a.err != nil || !bytes.Equal(a.body, body) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	if a := ask(t, "HEAD", p.URL+"/nothing", nil, patience); a.err != nil || a.status != 404 {
		t.Errorf("%d %v", a.status, a.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects["/bucket/a%2Fb%3Ac%20d?list-type=2&prefix=a%2Fb"]; !ok {
		t.Errorf("the server saw other names: %d", len(s.objects))
	}
	if !s.hosts[p.Addr] || len(s.hosts) != 1 {
		t.Errorf("the server saw %v, want the host that was asked: signatures are over it", s.hosts)
	}
	if p.Passed() != 3 {
		t.Errorf("%d requests were passed on", p.Passed())
	}
}

// TestHTTPFaults: each kind does what it says to the client, and to the server.
func TestHTTPFaults(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	for _, c := range []struct {
		fault  Fault
		method string
		puts   int // that the server saw whole
		want   func(asked) bool
	}{
		{Fault{Kind: Delay, For: 300 * time.Millisecond}, "PUT", 1, func(a asked) bool { return a.status == 200 && a.took >= 300*time.Millisecond }},
		{Fault{Kind: Reset}, "PUT", 0, func(a asked) bool { return a.err != nil && !os.IsTimeout(a.err) }},
		{Fault{Kind: Cut}, "PUT", 0, func(a asked) bool { return a.err != nil }},
		{Fault{Kind: Status, Code: 500}, "PUT", 0, func(a asked) bool { return a.status == 500 && bytes.Contains(a.body, []byte("InternalError")) }},
		{Fault{Kind: Status, Code: 503}, "GET", 0, func(a asked) bool { return a.status == 503 && bytes.Contains(a.body, []byte("SlowDown")) }},
		{Fault{Kind: Lost}, "PUT", 1, func(a asked) bool { return a.err != nil }},
		{Fault{Kind: Hang}, "PUT", 1, func(a asked) bool { return os.IsTimeout(a.err) }},
		{Fault{Kind: Truncate}, "GET", 0, func(a asked) bool { return a.err != nil && a.status == 200 && len(a.body) == len(body)/2 }},
		{Fault{Kind: Trickle, Rate: 200_000}, "GET", 0, func(a asked) bool {
			return a.err == nil && bytes.Equal(a.body, body) && a.took >= 400*time.Millisecond
		}},
	} {
		t.Run(fmt.Sprint(c.fault.Kind, c.fault.Code), func(t *testing.T) {
			s := newStore(t)
			p := NewHTTP(t, s.Listener.Addr().String())
			name := p.URL + "/thing"
			if a := ask(t, "PUT", name, body, patience); a.status != 200 {
				t.Fatal(a.err)
			}
			c.fault.Only = func(r *http.Request) bool { return r.Method == c.method }
			p.Set(c.fault)
			within := patience
			if c.fault.Kind == Hang {
				within = 3 * time.Second // in which the server has seen it
			}
			if a := ask(t, c.method, name, body, within); !c.want(a) {
				t.Errorf("%d, %d bytes, after %v, %v", a.status, len(a.body), a.took, a.err)
			}
			if puts, _ := s.counts(); puts != 1+c.puts {
				t.Errorf("the server has done %d puts, want %d", puts, 1+c.puts)
			}
			if p.Struck()[c.fault.Kind] == 0 {
				t.Error("the fault was not counted")
			}
			p.Set()
			if a := ask(t, c.method, name, body, patience); a.status != 200 || a.err != nil {
				t.Errorf("afterwards: %d %v", a.status, a.err)
			}
		})
	}
}

func TestHTTPTimes(t *testing.T) {
	s := newStore(t)
	p := NewHTTP(t, s.Listener.Addr().String())
	p.Set(Fault{Kind: Status, Code: 500, Times: 2}, Fault{Kind: Status, Code: 503, Times: 1})
	var got []int
	for range 4 {
		got = append(got, ask(t, "GET", p.URL+"/x", nil, patience).status)
	}
	if fmt.Sprint(got) != "[500 500 503 404]" {
		t.Errorf("%v", got)
	}
	p.Set(Fault{Kind: Status, Code: 500, Chance: 0.5})
	failed := 0
	for range 100 {
		if ask(t, "GET", p.URL+"/x", nil, patience).status == 500 {
			failed++
		}
	}
	if failed < 10 || failed > 90 {
		t.Errorf("%d of 100 failed by a chance of a half", failed)
	}
}

func TestHTTPAway(t *testing.T) {
	s := newStore(t)
	p := NewHTTP(t, s.Listener.Addr().String())
	p.Away(true)
	if a := ask(t, "GET", p.URL+"/x", nil, patience); a.err == nil {
		t.Errorf("a server that is away answers %d", a.status)
	}
	p.Away(false)
	if a := ask(t, "GET", p.URL+"/x", nil, patience); a.status != 404 {
		t.Errorf("%d %v", a.status, a.err)
	}
}
