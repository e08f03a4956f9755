package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"timehub/callbacks/webhook"
)

const (
	maxRedirects = 10
	answerKept   = 1 << 10
	answerRead   = 64 << 10
	answerTime   = time.Second // for the body of an answer, once its head is there
	reasonKept   = 200
)

// Why a call was ended by us.
var (
	errConnect = errors.New("connect in time")
	errAnswer  = errors.New("answer in time")
)

// attempt is one call on its way, over all its hops.
type attempt struct {
	ctx     context.Context
	stop    context.CancelCauseFunc
	timer   *time.Timer   // until there is a connection, then until there is an answer
	connect time.Duration // how long the first may take
	answer  time.Duration // and the second
	began   atomic.Bool   // there was a connection
	content *content
}

// call makes the request, and again at each place to which it is sent on.
func (c *Caller) call(ctx context.Context, w *webhook.Webhook, m Message) Outcome {
	u, err := target(w.CallbackURL)
	if err != nil {
		return Outcome{Err: err}
	}
	c.warn(w, u)
	a := &attempt{connect: c.opt.ConnectTimeout, answer: time.Duration(w.CallbackTimeoutSeconds) * time.Second}
	if a.answer <= 0 {
		a.answer = defaultAnswer
	}
	if a.content, err = c.prepare(w, m); err != nil {
		return Outcome{Err: err}
	}
	a.ctx, a.stop = context.WithCancelCause(ctx)
	defer a.stop(nil)
	a.timer = time.AfterFunc(a.connect, func() {
		if a.began.Load() {
			a.stop(errAnswer)
		} else {
			a.stop(errConnect)
		}
	})
	defer a.timer.Stop()
	for hop := 0; ; hop++ {
		o, next := c.hop(a, u)
		if next == nil {
			return o
		}
		if hop == maxRedirects {
			o.Err = errors.New(o.Text() + ": more than " + strconv.Itoa(maxRedirects) + " redirects")
			return o
		}
		u = next
		c.warn(w, u)
	}
}

// hop makes the request at one address. next is where it is to be made instead.
func (c *Caller) hop(a *attempt, u *url.URL) (o Outcome, next *url.URL) {
	resp, finish, err := c.send(a, u)
	if err != nil {
		return Outcome{Err: err}, nil
	}
	defer func() {
		resp.Body.Close()
		if made := finish(); errors.Is(made, ErrContent) { // the consumer answered before it had read all
			o, next = Outcome{Err: made}, nil
		}
	}()
	o.Status = resp.StatusCode
	_, reason, _ := strings.Cut(resp.Status, " ")
	o.Reason = oneLine(reason, reasonKept)
	if resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusPermanentRedirect {
		if next = redirect(resp, u); next != nil {
			return o, next
		}
	}
	if !o.OK() {
		o.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	a.timer.Reset(answerTime) // the status is known: the body may be cut short
	o.Answer = readAnswer(resp.Body)
	return o, nil
}

// send makes one request. A pooled connection may have been closed by the consumer while nobody looked: if a reused one fails before any byte of an
// answer, the request is made once more, on a connection of its own. finish belongs to the body, see content.open.
func (c *Caller) send(a *attempt, u *url.URL) (resp *http.Response, finish func() error, err error) {
	var reused, answered atomic.Bool
	trace := &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			reused.Store(i.Reused)
			if !a.began.Swap(true) {
				a.timer.Reset(a.answer)
			}
		},
		GotFirstResponseByte: func() { answered.Store(true) },
	}
	for _, t := range []*http.Transport{c.pooled, c.fresh} {
		var body io.ReadCloser
		body, finish = a.content.open()
		req := (&http.Request{
			Method: http.MethodPost, URL: u, Host: u.Host, Header: a.content.headerFor(u),
			Body: body, ContentLength: a.content.length,
		}).WithContext(httptrace.WithClientTrace(a.ctx, trace))
		resp, err = t.RoundTrip(req)
		if err == nil {
			return resp, finish, nil
		}
		if made := finish(); errors.Is(made, ErrContent) {
			return nil, nil, made
		}
		if !reused.Load() || answered.Load() || a.ctx.Err() != nil {
			break
		}
	}
	return nil, nil, a.explain(err, u)
}

// readAnswer reads so much that a connection can be used again after a modest answer, and returns its beginning.
func readAnswer(body io.Reader) []byte {
	if body == http.NoBody {
		return nil
	}
	kept := make([]byte, answerKept)
	n, err := io.ReadFull(body, kept) // the status has decided already; an answer that breaks off changes nothing
	if err == nil {
		io.CopyN(io.Discard, body, answerRead-answerKept)
	}
	return bytes.Clone(kept[:n]) // what is remembered is mostly short
}

// redirect is the address in Location, if it can be called.
func redirect(resp *http.Response, from *url.URL) *url.URL {
	location := resp.Header.Get("Location")
	if location == "" {
		return nil
	}
	next, err := from.Parse(location)
	if err != nil {
		return nil
	}
	if next, err = target(next.String()); err != nil {
		return nil
	}
	return next
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) { // out of range, n is the nearest
		return time.Duration(min(max(n, 0), 1<<31)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
