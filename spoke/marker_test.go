package spoke

import (
	"context"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// replicated begins a replicated channel on the first node, and waits until all know that.
func replicated(t *testing.T, w *simWorld) (n, next, third *simNode, founded hub.Key) {
	t.Helper()
	n, next, third = w.nodes[0], w.nodes[1], w.nodes[2]
	founded = hub.KeyAt(time.Now().Add(-time.Hour).UnixMilli(), "")
	if err := n.node.WriteComplete(t.Context(), replica, founded); err != nil {
		t.Fatal(err)
	}
	for _, m := range w.nodes {
		w.until(m.name+" knows that the channel is replicated", func() bool {
			at, ok := m.node.Complete(replica)
			return ok && at == founded
		})
	}
	return n, next, third, founded
}

// item is one of a source, some seconds old.
func sourceItem(age time.Duration) hub.Sealed {
	return hub.Sealed{Key: hub.KeyAt(time.Now().Add(-age).UnixMilli(), "s0urce"), Data: []byte("from a source")}
}

func (n *simNode) replicate(item hub.Sealed, complete bool) {
	n.w.t.Helper()
	if err := n.node.WriteKeyed(n.w.t.Context(), replica, item); err != nil {
		n.w.t.Fatal(err)
	}
	if complete {
		if err := n.node.WriteComplete(n.w.t.Context(), replica, item.Key); err != nil {
			n.w.t.Fatal(err)
		}
	}
}

func (n *simNode) holdsItem(key hub.Key) bool {
	_, err := n.node.store.Held(n.w.t.Context(), replica, key)
	return err == nil
}

// A marker of another writer counts when all is there that it relies on, and not before: a follower would pass what is still on its way. One that goes on counts at once.
func TestMarkerWaitsForOtherStreams(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, next, third, _ := replicated(t, w)
		w.setLink(n, third, false, 0)
		first, second := sourceItem(2*time.Second), sourceItem(time.Second)
		n.replicate(first, true)
		w.until("the next one has heard of it", func() bool { at, _ := next.node.Marker(replica); return at == first.Key })
		next.replicate(second, true)
		w.until("its marker comes", func() bool { at, _ := third.node.Marker(replica); return at == second.Key })
		wake, stop := third.node.Watch(replica)
		defer stop()
		for range 100 {
			if at, _ := third.node.Complete(replica); !at.Less(first.Key) && !third.holdsItem(first.Key) {
				t.Fatalf("it is complete up to %v, and has not %v", at, first.Key)
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.openLinks()
		w.until("it is complete", func() bool { at, _ := third.node.Complete(replica); return at == second.Key })
		if !third.holdsItem(first.Key) {
			t.Errorf("%v is not there", first.Key)
		}
		select {
		case <-wake:
		case <-time.After(2 * time.Second):
			t.Error("whoever follows the channel is not woken")
		}
		for _, m := range w.nodes {
			w.until("all are complete", func() bool { at, _ := m.node.Complete(replica); return at == second.Key })
		}
		third2 := sourceItem(0)
		next.replicate(third2, true)
		time.Sleep(200 * time.Millisecond) // less than twice the guard
		for _, m := range w.nodes {
			if at, _ := m.node.Complete(replica); at != third2.Key {
				t.Errorf("a marker that goes on does not count on %s: %v", m.name, at)
			}
		}
	})
}

// A marker that a disk took although it did not take what came before it in the same stream waits until that has come again.
func TestMarkerBehindWhatFailed(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, _, third, _ := replicated(t, w)
		first := sourceItem(3 * time.Second)
		n.replicate(first, true)
		w.until("all are complete", func() bool { at, _ := third.node.Complete(replica); return at == first.Key })
		third.disk.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Delay: 500 * time.Millisecond, Err: errFault}})
		item := sourceItem(time.Second)
		n.replicate(item, true)
		w.setLink(n, third, false, 0)
		for range 300 {
			if at, _ := third.node.Complete(replica); !at.Less(item.Key) && !third.holdsItem(item.Key) {
				t.Fatalf("it is complete up to %v, and has not %v", at, item.Key)
			}
			time.Sleep(10 * time.Millisecond)
		}
		w.openLinks()
		w.until("it is complete", func() bool { at, _ := third.node.Complete(replica); return at == item.Key })
	})
}

// After a start nothing stable is said of a replicated channel before all is there that its markers rely on, and what was said is not taken back.
func TestMarkerAfterAStart(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, next, third, _ := replicated(t, w)
		w.setLink(n, third, false, 0)
		first, second := sourceItem(2*time.Second), sourceItem(time.Second)
		n.replicate(first, true)
		w.until("the next one has heard of it", func() bool { at, _ := next.node.Marker(replica); return at == first.Key })
		next.replicate(second, true)
		w.until("its marker comes", func() bool { at, _ := third.node.Marker(replica); return at == second.Key })
		third.end("kill")
		third.start()
		for range 100 {
			if page := third.stable(replica); page != nil && !third.holdsItem(first.Key) {
				t.Fatalf("it says %v and has not %v", page, first.Key)
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.openLinks()
		w.until("it answers", func() bool { return third.stable(replica) != nil })
		if page := third.stable(replica); len(page.Keys) != 2 {
			t.Errorf("it says %v", page)
		}
	})
}

// inFlight lets the first node replicate an item that only the second one gets, at a low that the third one has, too; then its machine loses power.
func inFlight(t *testing.T, w *simWorld, away func()) hub.Sealed {
	t.Helper()
	n, next, third, _ := replicated(t, w)
	n.write("a", "there is a segment now")
	time.Sleep(100 * time.Millisecond)
	w.setLink(third, n, false, 0) // it takes what comes, and cannot say so
	next.slow(time.Second)
	go func() { _, _ = n.node.Write(context.Background(), "a", []byte("holds the low")) }()
	time.Sleep(200 * time.Millisecond)
	away()
	item := sourceItem(time.Second)
	done := make(chan error, 1)
	go func() { done <- n.node.WriteKeyed(context.Background(), replica, item) }()
	time.Sleep(200 * time.Millisecond)
	w.setLink(n, next, false, 0) // it is there, and no low follows it
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if third.holdsItem(item.Key) {
		t.Fatal("the third one has it already: the test shows nothing")
	}
	n.end("power") // its stream may be closed, and all have the item, before this returns
	w.between(n, next, true)
	return item
}

// What a writer has replicated before it died comes to everybody, whether or not its low has told of it.
func TestReplicatedOutlastsItsWriter(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		item := inFlight(t, w, func() { w.setLink(w.nodes[0], w.nodes[2], false, 0) })
		w.openLinks()
		w.until("the third one has it", func() bool { return w.nodes[2].holdsItem(item.Key) })
	})
}

// So it does to one who could not be reached when the stream of the writer was closed.
func TestReplicatedForTheAbsent(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, next, third := w.nodes[0], w.nodes[1], w.nodes[2]
		item := inFlight(t, w, func() { w.between(n, third, false); w.between(next, third, false) })
		s := roster.Stream{}
		for _, i := range w.list().Streams {
			if i.Node == n.name && i.Closed == nil {
				s = i.Stream
			}
		}
		n.start()
		w.until("its stream is closed", func() bool { i, ok := w.list().Find(s); return !ok || i.Closed != nil })
		w.openLinks()
		w.whole()
		third.past(next.write("a", "later"))
		if !third.holdsItem(item.Key) {
			t.Error("it has caught up, and has not what was replicated")
		}
	})
}

// What is here may have come from a writer that died before enough disks had it.
func TestReplicatedIsWrittenAgain(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, next, third, _ := replicated(t, w)
		w.setLink(n, third, false, 0)
		n.stuck(20 * time.Second)
		item := sourceItem(time.Second)
		go func() { _ = n.node.WriteKeyed(context.Background(), replica, item) }()
		w.until("the second one has it", func() bool { return next.holdsItem(item.Key) })
		n.end("power")
		if err := next.node.WriteKeyed(t.Context(), replica, item); err != nil {
			t.Fatal(err)
		}
		if !third.holdsItem(item.Key) {
			t.Error("it is said to be stored, and is on one disk")
		}
	})
}
