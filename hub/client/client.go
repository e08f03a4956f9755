// Package client is the Go client of a hub's public interface: channels, items, queries, bulk inserts and bulk reads. The command line uses it, and so
// does whoever follows another hub.
//
// Errors are those of the hub itself: an answer of 404 comes back as kind hub.NotFound with the hub's own sentence (hub/web has the only table of
// kinds and statuses). A hub that cannot be reached is Unavailable.
//
// Calls that may be repeated without harm are repeated, with growing pauses, while the hub answers 5xx or cannot be reached, for a few tries and never
// after ctx ends. A plain insert is never repeated: of one that failed without an answer nobody knows whether it was stored.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"timehub/hub"
	"timehub/hub/web"
)

const (
	defaultTries = 5
	defaultPause = 100 * time.Millisecond
	maxPause     = 5 * time.Second
	maxDocument  = 256 << 20 // unless Options say otherwise
	maxErrorBody = 64 << 10
	dialTime     = 10 * time.Second
	idleTime     = 25 * time.Second // below the 30 s after which a hub closes idle connections
	idlePerHost  = 64
	userAgent    = "timehub-client"
)

// Options are for New.
type Options struct {
	URL       string            // base URL of the hub: http://127.0.0.1:8080
	Tries     int               // of calls that may be repeated, the first included; 0: 5
	Pause     time.Duration     // before the first repetition; 0: 100 ms. It doubles
	Transport http.RoundTripper // nil: one of its own, which does not ask for compression
	// MaxDocument is the most bytes of an answer that is read whole, such as a list of links; 0: 256 MiB. Bodies of items have no bound.
	MaxDocument int64
}

// Client talks to one hub. It is safe for concurrent use.
type Client struct {
	base  string // without a final slash
	opt   Options
	http  *http.Client
	close func()
}

// New checks the URL. It connects to nothing.
func New(opt Options) (*Client, error) {
	u, err := url.Parse(strings.TrimSpace(opt.URL))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, hub.E(hub.Invalid, "%q is no address of a hub: want something like http://127.0.0.1:8080", opt.URL)
	}
	if opt.Tries <= 0 {
		opt.Tries = defaultTries
	}
	if opt.Pause <= 0 {
		opt.Pause = defaultPause
	}
	if opt.MaxDocument <= 0 {
		opt.MaxDocument = maxDocument
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), opt: opt, close: func() {}}
	if opt.Transport == nil {
		t := &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableCompression: true, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idleTime,
			TLSHandshakeTimeout: dialTime, ExpectContinueTimeout: time.Second, ForceAttemptHTTP2: true,
		}
		opt.Transport, c.close = t, t.CloseIdleConnections
	}
	c.http = &http.Client{
		Transport:     opt.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.close() }

// URL is the base URL, without a final slash.
func (c *Client) URL() string { return c.base }

// request is one call.
type request struct {
	method string
	path   string // escaped, after the base; or an absolute URL
	query  url.Values
	header http.Header
	body   func() (io.Reader, int64) // made anew for each try; nil: none. A size of -1 is not announced
	again  bool                      // may be repeated
	host   string                    // the Host header; "": that of the address
}

// do makes a call and returns an answer of 2xx or 3xx, whose body the caller closes.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	if !r.again {
		resp, err := c.once(ctx, r)
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
	pauses := &backoff.ExponentialBackOff{InitialInterval: c.opt.Pause, Multiplier: 2, RandomizationFactor: 0.3, MaxInterval: maxPause}
	resp, err := backoff.Retry(ctx, func() (*http.Response, error) {
		resp, err := c.once(ctx, r)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil || !repeatable(err) {
			return nil, backoff.Permanent(err)
		}
		return nil, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxTries(uint(c.opt.Tries)), backoff.WithMaxElapsedTime(0))
	if permanent := (*backoff.PermanentError)(nil); errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	return resp, err
}

// repeatable reports whether trying again may help.
func repeatable(err error) bool {
	switch hub.KindOf(err) {
	case hub.Internal, hub.Unavailable, hub.Timeout, hub.TooMany:
		return true
	}
	return false
}

func (c *Client) once(ctx context.Context, r request) (*http.Response, error) {
	target, asked := r.path, r.path
	if strings.HasPrefix(target, "/") {
		target, asked = c.base+target, c.base
	}
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	size := int64(0)
	if r.body != nil {
		body, size = r.body()
	}
	q, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, hub.E(hub.Invalid, "%q is no address", target).Because(err)
	}
	q.Host = cmp.Or(r.host, q.Host)
	if r.body != nil {
		q.ContentLength = size
		if size == 0 {
			q.Body = http.NoBody
		}
	}
	for name, values := range r.header {
		q.Header[name] = values
	}
	if q.Header.Get("User-Agent") == "" {
		q.Header.Set("User-Agent", userAgent)
	}
	resp, err := c.http.Do(q)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, hub.E(hub.Unavailable, "the hub at %s does not answer", asked).Because(unwrapURL(err))
	}
	if resp.StatusCode >= 400 {
		return nil, failure(resp)
	}
	return resp, nil
}

// unwrapURL drops the address that net/http puts before its errors: we say it ourselves.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// failure reads an answer of 4xx or 5xx as the error that the hub had.
func failure(resp *http.Response) error {
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what is there has to do
	kind := web.KindOf(resp.StatusCode)
	if resp.StatusCode == http.StatusGone {
		kind = hub.NotFound
	}
	e := hub.E(kind, "%s", strings.TrimSpace(string(text)))
	var document struct{ Error *string }
	if json.Unmarshal(text, &document) == nil && document.Error != nil {
		e.Msg = *document.Error
	}
	if e.Msg == "" {
		e.Msg = http.StatusText(resp.StatusCode)
	}
	if e.Msg == "" {
		e.Msg = "status " + strconv.Itoa(resp.StatusCode)
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	return e
}

// document makes a call and reads its answer as JSON into v, unless v is nil.
func (c *Client) document(ctx context.Context, r request, v any) (http.Header, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return nil, hub.E(hub.Unavailable, "%s %s is redirected to %q, which is not followed: is this the address of a hub?", r.method, r.path, resp.Header.Get("Location"))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, c.opt.MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(text)) > c.opt.MaxDocument {
		return nil, hub.E(hub.Unavailable, "the answer of %s %s has more than %d bytes", r.method, r.path, c.opt.MaxDocument)
	}
	if v != nil {
		if err := json.Unmarshal(text, v); err != nil {
			return nil, fmt.Errorf("read the answer of %s %s: %w", r.method, r.path, err)
		}
	}
	return resp.Header, nil
}

// jsonBody sends v as JSON.
func jsonBody(v any) (func() (io.Reader, int64), error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	return func() (io.Reader, int64) { return bytes.NewReader(text), int64(len(text)) }, nil
}

// Health asks for the state of the hub. A hub that answers that it is not healthy gives no error.
func (c *Client) Health(ctx context.Context) (healthy bool, description string, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/health", nil)
	if err != nil {
		return false, "", err
	}
	resp, err := c.http.Do(q)
	if err != nil {
		return false, "", hub.E(hub.Unavailable, "the hub at %s does not answer", c.base).Because(unwrapURL(err))
	}
	defer resp.Body.Close()
	var d struct {
		Healthy     bool
		Description string
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&d); err != nil {
		return false, "", hub.E(hub.Unavailable, "what answers at %s is no hub", c.base).Because(err)
	}
	return d.Healthy, d.Description, nil
}

// Raw makes a GET of a path below the base, or of an absolute URL, and returns the answer as it is, redirects not followed; the caller closes its body.
func (c *Client) Raw(ctx context.Context, pathOrURL string, header http.Header) (*http.Response, error) {
	return c.do(ctx, request{method: http.MethodGet, path: pathOrURL, header: header, again: true})
}

// Now asks for the hub's own clock.
func (c *Client) Now(ctx context.Context) (time.Time, error) {
	resp, err := c.Raw(ctx, "/internal/time/millis", nil)
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return time.Time{}, fmt.Errorf("read the hub's clock: %w", err)
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the hub's clock: %w", err)
	}
	return time.UnixMilli(ms).UTC(), nil
}
