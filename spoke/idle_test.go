package spoke

import (
	"errors"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// A cluster in which nothing happens moves its horizon all the time, and hardly writes.
func TestIdleCluster(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a := w.nodes[0]
		a.past(a.write("x", "the last one"))
		before, _ := a.node.Horizon(t.Context())
		type work struct {
			raised uint64 // times that the clock file was written
			bytes  int64  // of the log
		}
		done := func(n *simNode) work {
			<-n.node.raising
			defer func() { n.node.raising <- struct{}{} }()
			return work{n.node.bound.writes, n.node.Status().Bytes}
		}
		var began []work
		for _, n := range w.nodes {
			began = append(began, done(n))
		}
		const idle = 30
		for range idle * 4 {
			time.Sleep(250 * time.Millisecond)
			now, err := a.node.Horizon(t.Context())
			if err != nil || now.Millis()-before.Millis() < 100 {
				t.Fatalf("the horizon was %v and is %v, %v", before, now, err)
			}
			before = now
		}
		for i, n := range w.nodes {
			now := done(n)
			each := float64(now.raised-began[i].raised) / idle
			t.Logf("%s writes its clock file %.1f times a second", n.name, each)
			if each > 10 || now.bytes-began[i].bytes > 128<<10 { // a footer may have come
				t.Errorf("that is too often, or the log has grown by %d bytes", now.bytes-began[i].bytes)
			}
		}
	})
}

func retryAfter(err error) time.Duration {
	var e *hub.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.RetryAfter
}

// With too few streams up a write is refused at once, and nothing of it was minted.
func TestTooFewStreams(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a := w.nodes[0]
		a.past(a.write("x", "before"))
		w.nodes[1].end("kill")
		a.past(a.write("x", "two of three"))
		w.nodes[2].end("kill")
		time.Sleep(6 * time.Second)
		for _, size := range []int{10, 1 << 20} {
			began := time.Now()
			key, err := a.node.Write(t.Context(), "x", make([]byte, size))
			if took := time.Since(began); took > 0 || !hub.Is(err, hub.Unavailable) || key != (hub.Key{}) || retryAfter(err) == 0 {
				t.Errorf("%d bytes: %v, %v after %v", size, key, err, took)
			}
		}
		a.node.mu.Lock()
		if !a.node.flight.empty() {
			t.Error("something is in flight")
		}
		a.node.mu.Unlock()
		w.nodes[1].start()
		w.whole()
		a.past(a.write("x", "after"))
		if page := a.stable("x"); page == nil || len(page.Keys) != 3 {
			t.Errorf("%v", page)
		}
	})
}
