package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const dialTime = 10 * time.Second

var errStalled = errors.New("the source sent nothing")

// guard is a transport that gives up an answer of which no byte comes for a while. Time that the reader spends elsewhere does not count.
type guard struct {
	next  *http.Transport
	stall time.Duration
}

func newGuard(dial func(ctx context.Context, network, address string) (net.Conn, error), stall time.Duration) *guard {
	return &guard{stall: stall, next: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: stall, DisableCompression: true,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 25 * time.Second, ForceAttemptHTTP2: true,
	}}
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(q *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(q.Context())
	resp, err := g.next.RoundTrip(q.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &guarded{body: resp.Body, cancel: cancel, stall: g.stall}
	b.timer = time.AfterFunc(g.stall, func() {
		if b.reading.Load() {
			cancel(fmt.Errorf("%w for %v", errStalled, g.stall))
		}
	})
	b.ctx = ctx
	resp.Body = b
	return resp, nil
}

type guarded struct {
	body    io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	stall   time.Duration
	timer   *time.Timer
	reading atomic.Bool
}

func (b *guarded) Read(p []byte) (int, error) {
	b.reading.Store(true)
	b.timer.Reset(b.stall)
	n, err := b.body.Read(p)
	b.reading.Store(false)
	b.timer.Stop()
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *guarded) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}
