package spoke

import (
	"sync"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// What the search for counter-examples has found, each as one course of events.

// A node that starts with a wrong clock moved its position there before it had asked anybody: nobody could write until that time had come.
func TestStartWithAWrongClock(t *testing.T) {
	for _, off := range []time.Duration{10 * time.Minute, -time.Hour} {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			n := w.nodes[0]
			n.end("kill")
			n.setSkew(off)
			n.start()
			time.Sleep(20 * time.Second)
			w.nodes[1].write("a", "while a clock is wrong")
			if _, err := n.node.Write(t.Context(), "a", []byte("x")); !hub.Is(err, hub.Unavailable) {
				t.Errorf("a node whose clock is off by %v took a write: %v", off, err)
			}
			n.setSkew(0)
			began := time.Now()
			w.whole()
			n.past(n.write("a", "when it is right again"))
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("a clock that was off by %v and is right again kept the hub waiting for %v", off, took)
			}
		})
	}
}

// A node that joins with a wrong clock neither joins nor stands in the way.
func TestJoinWithAWrongClock(t *testing.T) {
	directed(t, 1, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.member()
		n.end("kill")
		n.disk = w.newDisk(n)
		n.setSkew(10 * time.Minute)
		n.start()
		time.Sleep(20 * time.Second)
		w.nodes[0].past(w.nodes[0].write("a", "x"))
		n.setSkew(0)
		w.whole()
		n.past(n.write("a", "y"))
	})
}

// The floor of a log that was just made is now, so a node that has just joined said of every older item that there is none, or that it is in long-term storage.
func TestJoinerDoesNotDenyItems(t *testing.T) {
	directed(t, 1, roster.Half, func(t *testing.T, w *simWorld) {
		k := w.nodes[0].write("a", "x")
		time.Sleep(time.Second)
		n := w.member()
		for range 300 {
			if _, err := n.node.Read(t.Context(), "a", k); hub.Is(err, hub.NotFound) {
				t.Fatalf("%v after it began to join, a node said: %v", time.Since(w.judge.began), err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// A node that copied a stream from its writer and then got it from there again lacked what had been on its way to the writer's disk: the low that the
// writer told was that of the moment.
func TestCopyFromTheWriter(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		n.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Fault: memdisk.Fault{Delay: 50 * time.Millisecond}})
		for _, m := range w.nodes[1:] { // what decides comes when the next group is on its way
			w.setLink(m, n, true, 70*time.Millisecond)
		}
		var writers sync.WaitGroup
		var mu sync.Mutex // guards keys
		var keys []hub.Key
		for i := range 60 {
			writers.Go(func() {
				time.Sleep(time.Duration(i) * 7 * time.Millisecond)
				k, err := n.node.Write(t.Context(), "a", []byte("x"))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				keys = append(keys, k)
			})
		}
		own, lows, held := recordOf(n.node.stream), []hub.Mark{}, []map[hub.Key]bool{}
		for range 400 {
			low := n.node.cluster.state().Lows[own.String()]
			here := map[hub.Key]bool{}
			for r, err := range n.node.store.Stream(t.Context(), n.node.stream, spokelog.From{Above: 1}) {
				if err != nil {
					t.Fatal(err)
				}
				here[r.Key] = true
			}
			lows, held = append(lows, low), append(held, here)
			time.Sleep(time.Millisecond)
		}
		writers.Wait()
		for i, low := range lows {
			again := map[hub.Key]bool{}
			for r, err := range n.node.store.Stream(t.Context(), n.node.stream, spokelog.From{Low: low}) {
				if err != nil {
					t.Fatal(err)
				}
				again[r.Key] = true
			}
			for _, k := range keys {
				if !held[i][k] && !again[k] {
					t.Fatalf("at a low of %v, %v was neither to be copied nor is it sent again", low.Key(), k)
				}
			}
		}
	})
}
