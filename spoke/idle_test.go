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

// All streams of a cluster in which nothing happens beat at the same instant, each as often as it would alone; also when one node has gone.
func TestBeatsTogether(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a := w.nodes[0]
		a.past(a.write("x", "the last one"))
		for i, n := range w.nodes { // the streams begin at different instants
			for k, m := range w.nodes {
				w.setLink(n, m, false, 0)
				time.Sleep(streamQuiet + 2*time.Second + time.Duration(7*(3*i+k))*time.Millisecond)
				w.setLink(n, m, true, time.Millisecond)
			}
		}
		judge := func(nodes ...*simNode) {
			t.Helper()
			const seconds = 10
			spoke, last := map[*tail]time.Time{}, time.Time{}
			instants, beats := 0, 0
			for range seconds * 1000 {
				time.Sleep(time.Millisecond)
				for _, n := range nodes {
					n.node.mu.Lock()
					for tl := range n.node.cluster.tails {
						if since := tl.beating.since; since != spoke[tl] {
							if since.Sub(last) > 10*time.Millisecond {
								instants++
							}
							spoke[tl], last = since, since
							beats++
						}
					}
					n.node.mu.Unlock()
				}
			}
			usual := int(seconds * time.Second / a.node.cluster.opt.Beat)
			if instants < usual*9/10 || instants > usual*11/10 || beats > len(spoke)*(usual+seconds) || len(spoke) != len(nodes)*(len(nodes)-1) {
				t.Errorf("in %d s %d streams have said something at %d instants, %d times in all; want %d instants", seconds, len(spoke), instants, beats, usual)
			}
		}
		time.Sleep(3 * time.Second)
		judge(w.nodes...)
		w.nodes[2].end("kill")
		time.Sleep(10 * time.Second)
		judge(w.nodes[:2]...)
	})
}

// What is written after a quiet time is shown on all nodes much sooner than the next beat would come.
func TestFirstWriteAfterQuiet(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		for _, n := range w.nodes {
			for _, m := range w.nodes {
				w.setLink(n, m, true, time.Millisecond)
			}
		}
		slowest := time.Duration(0)
		for i := range 60 {
			time.Sleep(time.Second + time.Duration(7*i)*time.Millisecond)
			var woken []<-chan struct{}
			for _, n := range w.nodes {
				wake, stop := n.node.Watch("x")
				defer stop()
				woken = append(woken, wake)
			}
			began := time.Now()
			key := w.nodes[i%3].write("x", "the first one")
			for k, wake := range woken {
				<-wake
				if h, err := w.nodes[k].node.Horizon(t.Context()); err != nil || h.Less(key) {
					t.Fatalf("a node is woken, and its horizon is %v, %v", h, err)
				}
			}
			slowest = max(slowest, time.Since(began))
		}
		t.Logf("shown everywhere after %v at most", slowest)
		if beat := w.nodes[0].node.cluster.opt.Beat; slowest > beat/4 {
			t.Errorf("that is too long, with a beat every %v", beat)
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
		w.until("it has two streams", func() bool { // one is enough to be whole
			a.node.mu.Lock()
			defer a.node.mu.Unlock()
			live := 0
			for t := range a.node.cluster.tails {
				if t.live {
					live++
				}
			}
			return live == 2
		})
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
		if err := a.node.Status().Refusing; !hub.Is(err, hub.Unavailable) {
			t.Errorf("its status says of writes: %v", err)
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
