package stream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"timehub/channel"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/web"
)

// events is spec 03 §6.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	c := s.enter(events, 1)
	defer s.leave(c)
	l, err := s.open(r, web.Base(r), r.Header.Get("Last-Event-Id"), c.nudge)
	if err != nil {
		return err
	}
	defer l.close()
	h := w.Header()
	h["Content-Type"] = []string{"text/event-stream"}
	h["Cache-Control"] = []string{"no-cache"}
	h["X-Accel-Buffering"] = []string{"no"} // proxies that gather answers shall not
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	control := http.NewResponseController(w)
	ctx, _, done := s.until(r.Context(), func() { _ = control.SetWriteDeadline(time.Now().Add(closeGrace)) })
	defer done()
	e := &eventStream{s: s, line: l, w: w, control: control}
	e.out = append(e.out, "retry: "...)
	e.out = append(strconv.AppendInt(e.out, retryMillis, 10), "\n\n"...)
	e.flush()
	e.finish(e.push(ctx))
	return nil
}

// eventStream is one client of events.
type eventStream struct {
	s       *Server
	line    *line
	w       http.ResponseWriter
	control *http.ResponseController
	out     []byte // not written yet
	framer  framer
	began   time.Time // when an item was sent last
	err     error     // of writing: the client is gone
}

// push sends items, and heartbeats while there are none, until ctx or the channel ends, or the client is gone.
func (e *eventStream) push(ctx context.Context) error {
	for e.err == nil {
		hits, err := e.line.next(ctx)
		switch {
		case err != nil:
			return err
		case len(hits) == 0 && time.Since(e.began) < e.s.opt.Beat*9/10:
			continue // there was an item in this second
		case len(hits) == 0:
			e.out = append(e.out, ": \n\n"...)
			e.flush()
			continue
		}
		err = e.line.items(ctx, hits, func(h feed.Hit, f channel.Found) error { return e.item(ctx, h, f) })
		if err != nil {
			return err
		}
		e.began = time.Now()
		e.flush()
	}
	return e.err
}

// finish says why the stream ends, in words that no client takes for an event.
func (e *eventStream) finish(err error) {
	var why *hub.Error
	switch {
	case e.err != nil:
		return
	case errors.Is(err, errGone):
		e.out = append(e.out, ": the hub is going away\n\n"...)
	case hub.Is(err, hub.NotFound) && errors.As(err, &why):
		e.out = fmt.Appendf(e.out, ": %s\n\n", why.Msg)
	default:
		return
	}
	e.flush()
}

const (
	gather = 16 << 10 // what is gathered before it is written
	piece  = 32 << 10 // of a body that is read in parts
)

// write puts out what has gathered.
func (e *eventStream) write() {
	if e.err != nil || len(e.out) == 0 {
		return
	}
	began, stall := time.Now(), min(e.s.opt.Stall, time.Minute)
	_ = e.control.SetWriteDeadline(began.Add(stall)) // where there is no such thing, the listener has its own
	if _, e.err = e.w.Write(e.out); e.err != nil && time.Since(began) > stall/2 {
		e.s.meters.slow[events].Add(1)
	}
	e.out = e.out[:0]
}

func (e *eventStream) flush() {
	e.write()
	if e.err == nil {
		e.err = e.control.Flush()
	}
}

// spill keeps out short.
func (e *eventStream) spill() error {
	if len(e.out) >= gather {
		e.write()
	}
	if e.err != nil {
		return &sendError{e.err}
	}
	return nil
}

// item writes one event. It looks at the body first, to know whether it is text, and holds only a part of one that is not small.
func (e *eventStream) item(ctx context.Context, h feed.Hit, f channel.Found) error {
	e.s.meters.sent[events].Add(1)
	if f.Meta.Large || f.Meta.Size > smallBody {
		return e.long(ctx, h, f)
	}
	pooled, _ := e.s.bodies.Get().(*[]byte)
	if pooled == nil {
		pooled = new([]byte)
	}
	defer e.s.bodies.Put(pooled)
	body, err := e.s.opt.Channels.Body((*pooled)[:0], f)
	if err != nil {
		return err
	}
	*pooled = body
	t := text{lax: isText(f.Meta.ContentType)}
	binary := !t.add(body) || !t.end()
	e.head(h, f, binary)
	if binary {
		e.out = base64.StdEncoding.AppendEncode(append(e.out, "data: "...), body)
		e.out = append(e.out, "\n\n"...)
	} else {
		e.framer.begin(&e.out)
		e.framer.add(&e.out, body)
		e.framer.end(&e.out)
	}
	return e.spill()
}

func (e *eventStream) head(h feed.Hit, f channel.Found, binary bool) {
	t := f.Meta.ContentType
	if binary {
		if t == "" {
			t = "application/octet-stream"
		}
		t += ";base64"
	}
	if t != "" {
		e.out = append(e.out, "event: "...)
		e.out = append(appendLine(e.out, t), '\n')
	}
	e.out = append(e.out, "id: "...)
	e.out = append(e.line.appendURL(e.out, h), '\n')
}

// long writes an event whose body is read twice, in parts: the first time to see whether it is text. The memory of a body that is not large is taken from the budget.
func (e *eventStream) long(ctx context.Context, h feed.Hit, f channel.Found) error {
	if !f.Meta.Large {
		free, err := e.s.take(ctx, f.Meta.Size)
		if err != nil {
			return err
		}
		defer free()
	}
	t := text{lax: isText(f.Meta.ContentType)}
	if err := e.read(ctx, f, func(part []byte) error { t.add(part); return nil }); err != nil {
		return err
	}
	binary := !t.end()
	e.head(h, f, binary)
	if !binary {
		e.framer.begin(&e.out)
		err := e.read(ctx, f, func(part []byte) error {
			e.framer.add(&e.out, part)
			return e.spill()
		})
		if err != nil {
			return e.torn(err)
		}
		e.framer.end(&e.out)
		return e.spill()
	}
	e.out = append(e.out, "data: "...)
	coder := base64.NewEncoder(base64.StdEncoding, spiller{e})
	if err := e.read(ctx, f, func(part []byte) error { _, err := coder.Write(part); return err }); err != nil {
		return e.torn(err)
	}
	if err := coder.Close(); err != nil {
		return err
	}
	e.out = append(e.out, "\n\n"...)
	return e.spill()
}

// torn ends the connection in the middle of an event: a client drops one that is not complete, and asks for it again.
func (e *eventStream) torn(err error) error {
	if e.err == nil {
		e.err = err
	}
	return &sendError{err}
}

// spiller is out as an io.Writer.
type spiller struct{ e *eventStream }

func (s spiller) Write(p []byte) (int, error) {
	s.e.out = append(s.e.out, p...)
	return len(p), s.e.spill()
}

// read reads a body in parts.
func (e *eventStream) read(ctx context.Context, f channel.Found, each func(part []byte) error) error {
	body, err := e.s.opt.Channels.Open(ctx, f, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, piece)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if err := each(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
