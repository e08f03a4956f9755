package web

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"timehub/hub"
)

// RequestID is the header that names a request whose error went to the log.
const RequestID = "Hub-Request-Id"

// fullRetry is when to try again after 507 if nobody said.
const fullRetry = 10 * time.Second

// fail answers an error and logs it, once.
func (x *exchange) fail(r *http.Request, err error) {
	kind := x.kindOf(err)
	status := Status(kind)
	var id string
	if kind == hub.Internal {
		id = newID()
	}
	x.log(r, err, status, id)
	if x.out.hijacked {
		return
	}
	if x.out.sent {
		x.out.abort()
		panic(http.ErrAbortHandler) // the only way to tell the client that what it has is not all
	}
	x.out.dropHeld()
	h := x.out.Header()
	if id != "" {
		h.Set(RequestID, id)
		write(&x.out, status, "text/plain", []byte("500 Internal error"))
		return
	}
	e := explain(err, kind)
	retry := e.RetryAfter
	if retry == 0 && kind == hub.Full {
		retry = fullRetry
	}
	if retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((retry+time.Second-1)/time.Second), 10))
	}
	if e.Verbatim {
		if h.Get("Content-Type") == "" {
			h.Set("Content-Type", jsonType)
		}
		write(&x.out, status, h.Get("Content-Type"), []byte(e.Msg))
		return
	}
	body := AppendString([]byte(`{"error": `), e.Msg)
	write(&x.out, status, jsonType, append(body, '}'))
}

// kindOf is the kind of an error in the light of the request: what failed because the client went away is not our failure.
func (x *exchange) kindOf(err error) hub.Kind {
	kind := hub.KindOf(err)
	if kind == hub.Internal && x.Err() != nil && errors.Is(x.Err(), context.Canceled) {
		return hub.Canceled
	}
	return kind
}

// explain returns the outermost *hub.Error of a chain, or says in words what kind of failure it was.
func explain(err error, kind hub.Kind) *hub.Error {
	var e *hub.Error
	if errors.As(err, &e) && e.Msg != "" {
		return e
	}
	plain := hub.E(kind, "%s", kind)
	if e != nil {
		plain.RetryAfter = e.RetryAfter
	}
	return plain
}

func (x *exchange) log(r *http.Request, err error, status int, id string) {
	level := slog.LevelDebug // the client's own doing, which it was told
	switch {
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case status > http.StatusInternalServerError && (x.rt.opt.Expected == nil || !x.rt.opt.Expected(r, err)):
		level = slog.LevelWarn
	}
	log := x.rt.opt.Log
	if !log.Enabled(r.Context(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("method", r.Method), slog.String("path", clip(x.path)), slog.Int("status", status),
		slog.String("peer", r.RemoteAddr), slog.Any("err", err))
	if id != "" {
		attrs = append(attrs, slog.String("request", id))
	}
	if x.out.sent {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	log.LogAttrs(r.Context(), level, "request failed", attrs...)
}

// panicked turns a handler's panic into an error with its stack.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return "handler panicked" }

// LogValue is what the log shows.
func (p *panicked) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
}

// call runs a handler; a panic comes back as an error.
func call(h Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			panic(v)
		default:
			err = &panicked{v, debug.Stack()}
		}
	}()
	return h(w, r)
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
