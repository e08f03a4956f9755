package spoke

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"timehub/e2e/memdisk"
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
			for _, ch := range w.passed(h, farStep) {
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
	if got := w.passed(hub.MarkAt(7), farStep); !slices.Equal(got, []string{"a"}) {
		t.Errorf("told %v", got)
	}
	if got := w.passed(hub.MarkAt(8), farStep); len(got) > 0 {
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

// aside cuts a node off from the others and from the coordinator: nothing comes there any more that could move its horizon.
func (n *simNode) aside() {
	w := n.w
	for _, m := range w.nodes {
		if m != n {
			w.between(n, m, false)
		}
	}
	w.store.Cut(n.session)
	time.Sleep(2 * time.Second)
}

// TestWokenWhateverMovesTheHorizon: the clock of a node was wrong, so its horizon stood below what the others had sent. Then the node was cut off, and its horizon moved all the
// same: nobody who followed a channel there was told, although the items were shown.
func TestWokenWhateverMovesTheHorizon(t *testing.T) {
	for name, move := range map[string]func(n *simNode, k hub.Key) error{
		"by Hub-After":            func(n *simNode, k hub.Key) error { return n.node.After(n.w.t.Context(), k) },
		"by a clock set right":    func(n *simNode, _ hub.Key) error { n.setSkew(0); return nil },
		"and is shown to readers": func(n *simNode, k hub.Key) error { err := n.node.After(n.w.t.Context(), k); n.stable("a"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
				n, other := w.nodes[0], w.nodes[1]
				n.past(other.write("a", "before"))
				n.setSkew(-time.Hour)
				time.Sleep(3 * time.Second)
				k := other.write("a", "its clock is wrong")
				after := other.write("b", "later")
				time.Sleep(time.Second)
				n.aside()
				if _, err := n.node.store.Held(t.Context(), "a", k); err != nil {
					t.Fatalf("it has not got the item: %v", err)
				}
				wake, stop := n.node.Watch("a")
				defer stop()
				_, drain, stop2 := n.node.Changes()
				defer stop2()
				if page := n.stable("a"); page == nil || slices.Contains(page.Keys, k) {
					t.Fatalf("its horizon did not stand: %v", page)
				}
				select {
				case <-wake:
					t.Fatal("it woke who follows before")
				default:
				}
				if err := move(n, after); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				if page := n.stable("a"); page == nil || !slices.Contains(page.Keys, k) {
					t.Fatalf("its horizon has not moved: %v", page)
				}
				select {
				case <-wake:
				default:
					t.Errorf("who follows was not woken for %v, which is shown", k)
				}
				if !slices.Contains(drain(), "a") {
					t.Error("who follows all channels was not told")
				}
			})
		})
	}
}

// TestWokenAgainWhenTheHorizonFallsBack: a node whose clock is wrong joins in no write, its horizon runs ahead of that clock, and nobody is shown it. A stream that comes onto the
// list then begins at the clock, and the horizon with it: who was told before, and looked after, saw nothing and was not told again.
func TestWokenAgainWhenTheHorizonFallsBack(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, stays, returns := w.nodes[0], w.nodes[1], w.nodes[2]
		old := recordOf(n.node.stream)
		n.end("stop")
		n.setSkew(10 * time.Minute)
		w.until("its stream is closed", func() bool { i, ok := w.list().Find(old); return !ok || i.Closed != nil })
		n.start()
		time.Sleep(5 * time.Second)
		wake, stop := n.node.Watch("a")
		defer stop()
		_, drain, stop2 := n.node.Changes()
		defer stop2()
		k := stays.write("a", "nobody looks at it")
		time.Sleep(2 * time.Second)
		n.node.mu.Lock()
		h, ok := n.node.cluster.lowest()
		last := n.node.minter.Last()
		n.node.mu.Unlock()
		if !ok || h.Key().Less(k) || !last.Key().Less(k) {
			t.Fatalf("horizon %v, %v, clock %v: this test shows nothing", h.Key(), ok, last.Key())
		}
		gone := returns.node.stream
		returns.end("stop")
		w.until("its stream is complete here", func() bool {
			n.node.mu.Lock()
			defer n.node.mu.Unlock()
			return n.node.cluster.streams[gone].complete
		})
		w.between(n, returns, false)
		w.between(n, stays, false)
		returns.start()
		w.until("its new stream is on the list", func() bool {
			n.node.mu.Lock()
			defer n.node.mu.Unlock()
			h, ok := n.node.cluster.lowest()
			return ok && h.Key().Less(k)
		})
		<-wake
		drain()
		if page := n.stable("a"); page == nil || slices.Contains(page.Keys, k) {
			t.Fatalf("its horizon has not fallen back: %v", page)
		}
		w.openLinks()
		w.until("the item is shown", func() bool { page := n.stable("a"); return page != nil && slices.Contains(page.Keys, k) })
		time.Sleep(2 * time.Second)
		select {
		case <-wake:
		default:
			t.Errorf("who follows was not woken for %v, which is shown", k)
		}
		if !slices.Contains(drain(), "a") {
			t.Error("who follows all channels was not told")
		}
	})
}

// TestWokenForAMarkerThatNobodyWaitsFor: a marker shows when it is on the own disk, however long that takes. Who follows was told before, when it was on its way there.
func TestWokenForAMarkerThatNobodyWaitsFor(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		wake, stop := n.node.Watch(replica)
		defer stop()
		n.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Delay: 10 * time.Second}})
		upTo := hub.KeyAt(time.Now().UnixMilli(), "s0urce")
		if err := n.node.WriteComplete(t.Context(), replica, upTo); !hub.Is(err, hub.Unavailable) {
			t.Fatalf("a disk that hangs took it: %v", err)
		}
		for { // what it was told too early
			select {
			case <-wake:
				continue
			default:
			}
			break
		}
		if _, ok := n.node.Complete(replica); ok {
			t.Fatal("the marker shows already")
		}
		time.Sleep(10 * time.Second)
		if at, ok := n.node.Complete(replica); !ok || at != upTo {
			t.Fatalf("the marker is %v, %v", at, ok)
		}
		select {
		case <-wake:
		default:
			t.Error("nobody was woken for it")
		}
	})
}

// Of a channel with forgotten marks, the horizon may have passed some when it stops short of a step: they are told, too, if late.
func TestWaitingLessThanAStep(t *testing.T) {
	var w waiting
	w.addFar(hub.MarkAt(50), "a")
	w.addFar(hub.MarkAt(1000), "a")
	w.passed(hub.MarkAt(1), 0)
	if got := w.passed(hub.MarkAt(60), farStep); len(got) > 0 || w.has(hub.MarkAt(60)) {
		t.Errorf("told %v", got)
	}
	if got := w.passed(hub.MarkAt(60), 0); !slices.Equal(got, []string{"a"}) {
		t.Errorf("told %v", got)
	}
	if got := w.passed(hub.MarkAt(60), 0); len(got) > 0 {
		t.Errorf("told %v again", got)
	}
}
