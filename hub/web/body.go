package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"timehub/hub"
)

const (
	maxDrain = 256 << 10
	lastWait = time.Second
)

// guard is the body of a request: it does not wait for ever, and says in words of the domain what went wrong. A body must arrive at no less than rate
// bytes per second once grace is used up; time that a fast sender saved counts for it, up to grace.
type guard struct {
	body    io.ReadCloser
	control *http.ResponseController
	rate    int64
	grace   time.Duration
	left    int64 // bytes of the announced length still to come; -1: none was announced
	until   time.Time
	armed   bool // a deadline is set on the connection
	done    bool // the end was read
	slow    bool
	failed  error
}

func (g *guard) init(r *http.Request, w http.ResponseWriter, opt Options) {
	g.body, g.left = r.Body, r.ContentLength
	g.rate, g.grace = opt.BodyRate, opt.BodyGrace
	g.control = http.NewResponseController(w)
}

func (g *guard) Read(p []byte) (int, error) {
	if g.failed != nil {
		return 0, g.failed
	}
	if g.rate > 0 && g.until.IsZero() {
		g.until = time.Now().Add(g.grace)
		g.armed = g.control.SetReadDeadline(g.until) == nil
	}
	n, err := g.body.Read(p)
	if g.left > 0 {
		g.left -= int64(n)
	}
	if err != nil {
		g.failed = g.explain(err)
		if g.armed && !g.slow {
			g.armed = false
			_ = g.control.SetReadDeadline(time.Time{})
		}
		return n, g.failed
	}
	if g.armed {
		g.extend(n)
	}
	return n, nil
}

// extend moves the deadline on for bytes that have come.
func (g *guard) extend(n int) {
	latest := time.Now().Add(g.grace)
	moved := g.until.Add(time.Duration(int64(n) * int64(time.Second) / g.rate))
	if moved.After(latest) {
		moved = latest
	}
	if moved.Sub(g.until) > g.grace/16 || g.grace < time.Second { // not for every packet
		g.until = moved
		_ = g.control.SetReadDeadline(moved)
	}
}

func (g *guard) explain(err error) error {
	switch {
	case err == io.EOF:
		g.done = true
		return io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		g.slow = true
		return hub.E(hub.SlowBody, "the body came too slowly: after %s it must bring %d bytes per second", g.grace, g.rate).Because(err)
	case errors.Is(err, io.ErrUnexpectedEOF) && g.left > 0:
		return hub.E(hub.Invalid, "the body is shorter than its Content-Length: %d bytes are missing", g.left).Because(err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return hub.E(hub.Invalid, "the body was cut off: its last chunk is missing").Because(err)
	case errors.As(err, new(net.Error)):
		return hub.E(hub.Canceled, "the client went away while it sent the body").Because(err)
	case errors.Is(err, http.ErrBodyReadAfterClose):
		return fmt.Errorf("read the request's body: %w", err)
	}
	return hub.E(hub.Invalid, "the body could not be read to its end: %s", clip(strings.TrimPrefix(err.Error(), "http: "))).Because(err)
}

func (g *guard) Close() error {
	if g.body == nil {
		return nil
	}
	return g.body.Close()
}

// pending reports whether bytes of the body may still be on their way.
func (g *guard) pending() bool { return g.body != nil && !g.done }

// drain reads and drops up to n bytes and reports whether that was all.
func (g *guard) drain(n int64) bool {
	if g.left > n || g.failed != nil {
		return g.done
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(g, n+1))
	return g.done
}

// Limit returns a reader of r that fails with TooLarge after n bytes. The message holds the number and what it limits, a property's name.
func Limit(r io.Reader, n int64, property string) io.Reader {
	return &limited{r: r, left: n, limit: n, property: property}
}

type limited struct {
	r           io.Reader
	left, limit int64
	property    string
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, TooLarge(l.limit, l.property)
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n - 1, TooLarge(l.limit, l.property)
	}
	return n, err
}

// TooLarge is the error of a body over a limit of n bytes.
func TooLarge(n int64, property string) error {
	return hub.E(hub.TooLarge, "the body is larger than %d bytes (%s)", n, property)
}
