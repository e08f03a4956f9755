package web

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"sync"
	"time"

	"timehub/hub"
)

// Trace collects the steps of a request that asked for it with trace=true (spec 02 §3.5). A nil Trace collects nothing. It is safe for concurrent use.
type Trace struct {
	id    string
	first string
	start time.Time
	limit int

	mu   sync.Mutex // guards what follows
	head []string
	tail []string // a ring once it is full
	next int
	cut  int
}

// TraceOf is the trace of the request a context belongs to, nil if it asked for none.
func TraceOf(ctx context.Context) *Trace {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x.trace
	}
	return nil
}

// Tracing reports whether the request asked for a trace.
func Tracing(r *http.Request) bool { return TraceOf(r.Context()) != nil }

func newTrace(start time.Time, limit int, first string) *Trace {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return &Trace{id: id, first: first, start: start, limit: limit}
}

// Step adds a step. The arguments are formatted only if there is a trace.
func (t *Trace) Step(format string, args ...any) {
	if t == nil {
		return
	}
	line := hub.ISO(time.Now()) + " " + fmt.Sprintf(format, args...)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.head) < t.limit:
		t.head = append(t.head, line)
	case len(t.tail) < t.limit:
		t.tail = append(t.tail, line)
	default:
		t.tail[t.next] = line
		t.next = (t.next + 1) % t.limit
		t.cut++
	}
}

// Steps are the steps so far; a line tells how many were cut out between the first and the last.
func (t *Trace) Steps() []string {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := append(make([]string, 0, len(t.head)+len(t.tail)+1), t.head...)
	if t.cut > 0 {
		out = append(out, fmt.Sprintf("(%d steps were cut here)", t.cut))
	}
	out = append(out, t.tail[t.next:]...)
	return append(out, t.tail[:t.next]...)
}

// AppendMembers appends the members of spec 02 §3.5 to an open JSON object, each line with a comma before it.
func (t *Trace) AppendMembers(b []byte) []byte {
	if t == nil {
		return b
	}
	b = AppendString(append(b, ",\n  \"first\": "...), t.first)
	b = AppendString(append(b, ",\n  \"id\": "...), t.id)
	b = AppendString(append(b, ",\n  \"start\": "...), hub.ISO(t.start))
	b = fmt.Appendf(b, ",\n  \"millis\": %d", time.Since(t.start).Milliseconds())
	b = append(b, ",\n  \"trace\": ["...)
	for i, s := range t.Steps() {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(append(b, "\n    "...), s)
	}
	return append(b, "\n  ]"...)
}
