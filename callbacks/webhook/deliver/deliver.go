package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"timehub/callbacks/webhook"
)

const (
	defaultConnect = time.Minute
	defaultAnswer  = 2 * time.Minute
	defaultCalls   = 4096
	lookupTimeout  = 5 * time.Second
	idleTimeout    = 500 * time.Millisecond
	idlePerHost    = 256
	idleInAll      = 1024
	headLimit      = 64 << 10
	warnedLimit    = 100_000 // webhooks of which it is remembered that they were warned of
)

// Options are the parts of a Caller.
type Options struct {
	ConnectTimeout time.Duration                                                     // from the look-up of the name to a connection that can be used; 0: 60 s
	VerifyTLS      bool                                                              // false: every certificate is accepted; logged once per webhook
	Node           func() string                                                     // host:port of this node, for the header Hub-Node; nil: no header
	MaxCalls       int                                                               // at the same time, all webhooks together; 0: 4,096. Further ones wait
	Dial           func(ctx context.Context, network, addr string) (net.Conn, error) // nil: TCP
	Log            *slog.Logger
}

// Caller makes calls. All methods are safe for concurrent use.
type Caller struct {
	opt    Options
	places *semaphore.Weighted
	pooled *http.Transport // keeps connections for half a second
	fresh  *http.Transport // a connection of its own for each request

	mu     sync.Mutex // guards warned
	warned map[string]struct{}
}

// New returns a Caller; it holds nothing but idle connections, which end after half a second.
func New(o Options) (*Caller, error) {
	if o.ConnectTimeout < 0 || o.MaxCalls < 0 {
		return nil, fmt.Errorf("a caller cannot connect within %v or make %d calls at the same time", o.ConnectTimeout, o.MaxCalls)
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = defaultConnect
	}
	if o.MaxCalls == 0 {
		o.MaxCalls = defaultCalls
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.ConnectTimeout}).DialContext
	}
	c := &Caller{opt: o, places: semaphore.NewWeighted(int64(o.MaxCalls)), warned: map[string]struct{}{}}
	c.pooled, c.fresh = c.transport(idlePerHost), c.transport(-1)
	return c, nil
}

// transport speaks HTTP/1.1 only: there, what a request did when its connection broke can be told exactly, which decides whether it is repeated.
func (c *Caller) transport(idle int) *http.Transport {
	t := &http.Transport{
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: !c.opt.VerifyTLS},
		TLSHandshakeTimeout:    c.opt.ConnectTimeout,
		DisableCompression:     true,
		MaxIdleConns:           idleInAll,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: headLimit,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// errLookup is why a look-up was ended.
var errLookup = fmt.Errorf("no answer within %v", lookupTimeout)

// dial bounds the look-up of the name by itself: a name server that is silent must not use up the time for connecting.
func (c *Caller) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(lookupTimeout, func() { cancel(errLookup) })
	timer.Stop()
	defer timer.Stop()
	conn, err := c.opt.Dial(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { timer.Reset(lookupTimeout) },
		DNSDone:  func(httptrace.DNSDoneInfo) { timer.Stop() },
	}), network, addr)
	if err != nil && errors.Is(context.Cause(ctx), errLookup) {
		host, _, _ := net.SplitHostPort(addr)
		return nil, &net.DNSError{Err: errLookup.Error(), Name: host, IsTimeout: true}
	}
	return conn, err
}

// Post makes one call and waits for its end, also when ctx ends (then soon). It never fails otherwise than by what the Outcome says.
func (c *Caller) Post(ctx context.Context, w *webhook.Webhook, m Message) Outcome {
	if err := c.places.Acquire(ctx, 1); err != nil {
		return Outcome{Err: context.Cause(ctx)}
	}
	defer c.places.Release(1)
	began := time.Now()
	o := c.call(ctx, w, m)
	if o.Err != nil && ctx.Err() != nil {
		o = Outcome{Err: context.Cause(ctx)}
	}
	o.Took = time.Since(began)
	return o
}

// Close drops the idle connections. Calls that run go on.
func (c *Caller) Close() {
	c.pooled.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// target is the address to be called. Any address can be stored, so it is looked at here. Texts hold no more of it than its host: the rest may be secret.
func target(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("callbackUrl cannot be called: it is no URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("callbackUrl cannot be called: its scheme is %.40q, not http or https", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("callbackUrl cannot be called: it has no host")
	}
	return u, nil
}

// warn says once per webhook that nobody looks at certificates.
func (c *Caller) warn(w *webhook.Webhook, u *url.URL) {
	if c.opt.VerifyTLS || u.Scheme != "https" {
		return
	}
	id := w.Name + "/" + w.Born
	c.mu.Lock()
	_, told := c.warned[id]
	if !told {
		if len(c.warned) >= warnedLimit {
			clear(c.warned)
		}
		c.warned[id] = struct{}{}
	}
	c.mu.Unlock()
	if !told {
		c.opt.Log.Warn("certificates of this webhook's consumer are not verified", "webhook", w.Name, "host", u.Host)
	}
}
