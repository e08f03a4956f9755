package spoke

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// However many there are and in whatever order they come, a channel is told when the horizon has passed a record of it, and not for ever.
func TestWaiting(t *testing.T) {
	for _, n := range []int{1000, waitingMost + 50_000} {
		rnd := rand.New(rand.NewPCG(1, 2))
		var w waiting
		marks := map[string][]hub.Mark{}
		for range n {
			ch, m := fmt.Sprint(rnd.IntN(20)), hub.Mark(1+rnd.Int64N(int64(hub.MarkAt(10_000))))
			marks[ch] = append(marks[ch], m)
			w.add(m, ch)
		}
		if len(w.heap) > waitingMost {
			t.Errorf("%d are remembered", len(w.heap))
		}
		for _, list := range marks {
			slices.Sort(list)
		}
		last := hub.Mark(0)
		owed := map[string]bool{}
		for h := hub.MarkAt(50); h <= hub.MarkAt(10_300); h += hub.MarkAt(50) {
			told := map[string]bool{}
			for _, ch := range w.passed(h) {
				if told[ch] {
					t.Fatalf("%s was told twice", ch)
				}
				told[ch] = true
			}
			for ch, list := range marks {
				i, _ := slices.BinarySearch(list, last+1)
				due := i < len(list) && list[i] <= h
				if owed[ch] && !told[ch] || due && n <= waitingMost && !told[ch] {
					t.Fatalf("%s was not told at %v", ch, h)
				}
				owed[ch] = due && !told[ch] // of what was forgotten, one step later
				if n <= waitingMost && told[ch] && !due {
					t.Fatalf("%s was told of nothing", ch)
				}
			}
			last = h
		}
		if len(w.heap) > 0 || len(w.far) > 0 {
			t.Errorf("left: %d, %d", len(w.heap), len(w.far))
		}
	}
}

// Who follows a channel is woken for what was stored before a restart and is passed by the horizon only after it has looked.
func TestWokenForWhatAnEarlierStartStored(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b := w.nodes[0], w.nodes[1]
		b.end("stop")
		b.setSkew(450 * time.Millisecond) // its keys lie above the bounds of the others
		b.start()
		for round := range 30 {
			w.whole()
			a.past(b.write("x", "before"))
			time.Sleep(time.Duration(round) * 7 * time.Millisecond)
			k := b.write("x", "when a dies")
			time.Sleep(5 * time.Millisecond) // a has it
			a.end("kill")
			b.end("kill")
			a.start()
			wake, stop := a.node.Watch("x")
			page := a.stable("x")
			for ; page == nil; page = a.stable("x") {
				time.Sleep(time.Millisecond)
			}
			if slices.Contains(page.Keys, k) { // there was no moment between: another one
				stop()
				b.start()
				continue
			}
			for page == nil || !slices.Contains(page.Keys, k) {
				select {
				case <-wake:
				case <-time.After(20 * time.Second):
					t.Fatalf("%v is stored, and nobody was woken: stable now: %v", k, slices.Contains(a.stable("x").Keys, k))
				}
				page = a.stable("x")
			}
			stop()
			return
		}
		t.Error("the horizon was never below what was stored: the test shows nothing")
	})
}

// Whatever the horizon, a channel that is to be told is told the next time, once.
func TestWaitingTell(t *testing.T) {
	var w waiting
	w.tell("a")
	w.tell("a")
	w.add(hub.MarkAt(5), "a")
	w.add(hub.MarkAt(9), "b")
	if got := w.passed(hub.MarkAt(7)); !slices.Equal(got, []string{"a"}) {
		t.Errorf("told %v", got)
	}
	if got := w.passed(hub.MarkAt(8)); len(got) > 0 {
		t.Errorf("told %v again", got)
	}
}

// The marker of a replicated channel is its horizon: who follows it on another node than the one that replicates is woken by it.
func TestMarkersWakeOthers(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		writer := w.nodes[0].node
		type follower struct {
			n     *simNode
			wake  <-chan struct{}
			drain func() []string
		}
		var all []follower
		for _, n := range w.nodes[1:] {
			wake, stop := n.node.Watch("replica")
			defer stop()
			_, drain, stop2 := n.node.Changes()
			defer stop2()
			all = append(all, follower{n, wake, drain})
		}
		key := hub.NewKey(time.Now().Add(-time.Minute), "source")
		if err := writer.WriteKeyed(t.Context(), "replica", hub.Sealed{Key: key, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for _, f := range all {
			f.drain()
			select {
			case <-f.wake:
			default:
			}
		}
		if err := writer.WriteComplete(t.Context(), "replica", key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for i, f := range all {
			if at, ok := f.n.node.Complete("replica"); !ok || at != key {
				t.Errorf("follower %d knows the marker %v, %v", i, at, ok)
			}
			select {
			case <-f.wake:
			default:
				t.Errorf("follower %d is not woken", i)
			}
			if !slices.Contains(f.drain(), "replica") {
				t.Errorf("follower %d is not told which channel has changed", i)
			}
		}
	})
}
