package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kind is what goes wrong with a request.
type Kind string

// The kinds of faults.
const (
	Delay    Kind = "delay"    // it is passed on after For
	Reset    Kind = "reset"    // the connection is reset, nothing is passed on
	Cut      Kind = "cut"      // half of the body is passed on, then both connections are reset
	Status   Kind = "status"   // Code is answered, nothing is passed on
	Lost     Kind = "lost"     // it is passed on and done; the answer is dropped and the connection reset
	Hang     Kind = "hang"     // it is passed on and done; no answer comes until the client gives up, or Set is called
	Trickle  Kind = "trickle"  // the answer's body comes with Rate bytes a second
	Truncate Kind = "truncate" // half of the answer's body comes, then the connection is closed
)

// Fault is something that goes wrong with requests.
type Fault struct {
	Kind   Kind
	For    time.Duration            // of Delay
	Code   int                      // of Status: 500, or 503, which S3 calls SlowDown
	Rate   int                      // of Trickle
	Only   func(*http.Request) bool // which requests; nil: all. Called from many goroutines
	Chance float64                  // of each of these; 0: certain
	Times  int                      // the fault is over after so many; 0: when Set is called again
}

// HTTP is a proxy before an HTTP server. It passes Host and path on as they came, so that signatures of S3 hold. Its methods may be called at any time
// from anywhere.
type HTTP struct {
	URL  string // where it listens, http://host:port
	Addr string // host:port

	to     string // host:port
	gate   *gate
	server *http.Server
	client *http.Transport

	mu      sync.Mutex // guards what follows
	faults  []Fault
	left    []int // of Times
	struck  map[Kind]int
	passed  int
	changed chan struct{} // closed by Set
}

// NewHTTP runs a proxy before the server at an address (host:port) until the test ends.
func NewHTTP(t testing.TB, to string) *HTTP {
	t.Helper()
	p := &HTTP{
		to: to, struck: map[Kind]int{}, changed: make(chan struct{}),
		client: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
	}
	var err error
	if p.gate, err = newGate(); err != nil {
		t.Fatal(err)
	}
	p.Addr = p.gate.Addr().String()
	p.URL = "http://" + p.Addr
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.server.Serve(p.gate) })
	t.Cleanup(func() {
		p.Set()
		_ = p.server.Close()
		_ = p.gate.Close()
		wg.Wait()
		p.client.CloseIdleConnections()
	})
	return p
}

// Set replaces the faults: of each request the first one that fits counts. Without any, all is well from now on.
func (p *HTTP) Set(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.left = faults, nil
	for _, f := range faults {
		p.left = append(p.left, f.Times)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Away says whether the server cannot be reached at all: open connections are reset, new ones too.
func (p *HTTP) Away(on bool) {
	p.gate.refuse(on)
	if on {
		p.gate.cut()
	}
}

// Struck is how often each kind of fault has hit a request, since the start.
func (p *HTTP) Struck() map[Kind]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.struck)
}

// Passed is how many requests were passed on whole, since the start.
func (p *HTTP) Passed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed
}

// fault draws what happens to a request.
func (p *HTTP) fault(r *http.Request) (f Fault, changed <-chan struct{}) {
	p.mu.Lock()
	faults := p.faults
	p.mu.Unlock()
	for i, f := range faults {
		if f.Only != nil && !f.Only(r) || f.Chance > 0 && rand.Float64() >= f.Chance {
			continue
		}
		p.mu.Lock()
		same := len(p.faults) == len(faults) && (len(faults) == 0 || &p.faults[0] == &faults[0])
		hit := same && (f.Times == 0 || p.left[i] > 0)
		if hit {
			p.left[i]--
			p.struck[f.Kind]++
		}
		changed = p.changed
		p.mu.Unlock()
		if hit {
			return f, changed
		}
	}
	return Fault{}, nil
}

// ServeHTTP serves one request.
func (p *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, changed := p.fault(r)
	switch f.Kind {
	case Delay:
		if !sleep(r.Context(), f.For) {
			return
		}
	case Reset:
		hangUp(w)
		return
	case Status:
		refuse(w, r, f.Code)
		return
	}
	ctx := r.Context()
	if f.Kind == Lost || f.Kind == Hang { // the server is to finish it whatever the client does
		ctx = context.WithoutCancel(ctx)
	}
	resp, err := p.pass(ctx, r, f.Kind == Cut)
	if err != nil {
		hangUp(w)
		return
	}
	defer resp.Body.Close()
	switch f.Kind {
	case Lost, Hang:
		_, _ = io.Copy(io.Discard, resp.Body)
		if f.Kind == Hang {
			select {
			case <-changed:
			case <-r.Context().Done():
			}
		}
		hangUp(w)
		return
	}
	maps.Copy(w.Header(), resp.Header)
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(resp.ContentLength))
	}
	w.WriteHeader(resp.StatusCode)
	if answer(r.Context(), w, resp, f) != nil {
		panic(http.ErrAbortHandler) // closed without a reset, which could take back what was sent
	}
}

var errTruncated = errors.New("the rest is left out")

// answer sends the body of an answer.
func answer(ctx context.Context, w http.ResponseWriter, resp *http.Response, f Fault) error {
	flush := http.NewResponseController(w)
	switch f.Kind {
	case Truncate:
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		_, err = w.Write(body[:len(body)/2])
		return errors.Join(errTruncated, err, flush.Flush())
	case Trickle:
		size := max(1, f.Rate/50)
		for {
			n, err := io.CopyN(w, resp.Body, int64(size))
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if err := flush.Flush(); err != nil {
				return err
			}
			if !sleep(ctx, time.Duration(n)*time.Second/time.Duration(f.Rate)) {
				return ctx.Err()
			}
		}
	}
	_, err := io.Copy(w, resp.Body)
	return err
}

// pass hands a request to the server.
func (p *HTTP) pass(ctx context.Context, r *http.Request, cut bool) (*http.Response, error) {
	out := r.Clone(ctx)
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", p.to
	out.Header.Del("Connection")
	out.Header.Del("Expect")
	if _, named := out.Header["User-Agent"]; !named {
		out.Header.Set("User-Agent", "") // net/http would name itself
	}
	switch {
	case r.ContentLength == 0:
		out.Body = http.NoBody
	case cut:
		out.Body = &part{body: r.Body, left: r.ContentLength / 2, end: net.ErrClosed}
	case r.ContentLength > 0:
		out.Body = &part{body: r.Body, left: r.ContentLength, end: io.EOF}
	}
	resp, err := p.client.RoundTrip(out)
	if err == nil && !cut {
		p.mu.Lock()
		p.passed++
		p.mu.Unlock()
	}
	if cut && err == nil { // it has answered without the body
		_ = resp.Body.Close()
		err = net.ErrClosed
	}
	return resp, err
}

// part is the beginning of a body. It does not touch the body after that: the transport looks once more when the request has long been answered, and an
// error would then end a connection that others use.
type part struct {
	body io.Reader
	left int64
	end  error
}

func (p *part) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, p.end
	}
	n, err := p.body.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

func (*part) Close() error { return nil }

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, r *http.Request, status int) {
	code := "InternalError"
	if status == http.StatusServiceUnavailable {
		code = "SlowDown"
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, strings.NewReader(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>`+code+`</Code><Message>the proxy says so</Message></Error>`))
	}
}

// hangUp resets the client's connection.
func hangUp(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	resetConn(c)
	_ = c.Close()
}
