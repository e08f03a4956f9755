package spoke

import (
	"testing"
	"time"

	"timehub/hub"
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
