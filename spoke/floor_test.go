package spoke

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// sweeping lets logs forget after half a minute what is archived, and everything is.
func sweeping(w *simWorld, ttl time.Duration) {
	w.tune = func(o *Options) {
		o.SweepEvery = time.Second
		o.Segments.TTL, o.Segments.SegmentAge = ttl, 5*time.Second
		o.Archived = func(string) (hub.Key, bool) { return hub.MaxKey, true }
	}
}

// restart ends all nodes in order and starts them again, with what w.tune says now.
func (w *simWorld) restart() {
	for _, n := range w.nodes {
		n.end("stop")
		n.start()
	}
	w.whole()
}

// promised checks that a node has every key from its floor on, and that what it has not is below its floor. It returns how many there were of both.
func promised(t *testing.T, n *simNode, channel string, keys []hub.Key) (here, gone int) {
	t.Helper()
	page := n.stable(channel)
	if page == nil {
		t.Fatalf("%s gives no stable answer", n.name)
	}
	have := map[hub.Key]bool{}
	for _, k := range page.Keys {
		have[k] = true
	}
	floor := n.node.Floor(channel)
	for _, k := range keys {
		switch {
		case have[k]:
			here++
		case k.Less(floor):
			gone++
		default:
			t.Errorf("%s: %v lies above its floor %v and is not there", n.name, k, floor)
		}
	}
	return here, gone
}

// A node that was away for longer than the others keep what is archived promises nothing of that time.
func TestFloorAfterLongAbsence(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		sweeping(w, 30*time.Second)
		w.restart()
		a, c := w.nodes[0], w.nodes[2]
		first := a.write("x", "before")
		c.past(first)
		c.end("kill")
		var keys []hub.Key
		for i := range 40 {
			keys = append(keys, a.write("x", fmt.Sprint(i)))
			time.Sleep(2 * time.Second)
		}
		keys = append(keys, a.write("x", "last"))
		c.start()
		c.past(keys[len(keys)-1])
		for _, n := range w.nodes {
			n.past(keys[len(keys)-1])
			here, gone := promised(t, n, "x", keys)
			if here == 0 || gone == 0 {
				t.Errorf("%s: %d are here, %d are swept: the test shows nothing", n.name, here, gone)
			}
		}
	})
}

// A node that has not caught up denies nothing that the others have swept meanwhile: it is in long-term storage. Whoever asks all of them for a list has to look there, too.
func TestBehindWhatOthersHaveSwept(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		sweeping(w, 15*time.Second)
		w.restart()
		a, c := w.nodes[0], w.nodes[2]
		c.past(a.write("x", "before"))
		heal := c.disk.Inject(memdisk.Rule{Ops: memdisk.OpWrite | memdisk.OpSync, Name: "spoke/*", Times: 10_000, Fault: memdisk.Fault{Err: errFault}})
		key := a.write("x", "while it takes nothing")
		for range 20 {
			a.past(a.write("x", "later"))
			time.Sleep(2 * time.Second)
		}
		if !key.Less(a.node.Floor("x")) {
			t.Fatal("nothing was swept: the test shows nothing")
		}
		denied, lists := 0, 0
		for range 20 {
			_, err := c.node.Read(t.Context(), "x", key)
			floor := c.node.Floor("x")
			if hub.Is(err, hub.NotFound) {
				if denied++; !key.Less(floor) {
					t.Fatalf("%v was acknowledged; the node says %v, with a floor of %v", key, err, floor)
				}
			}
			page, err := c.node.Keys(t.Context(), hub.Query{Channel: "x", From: key, To: key.After()})
			if err == nil && page.Silent == 0 {
				if lists++; len(page.Keys) == 0 && !key.Less(c.node.Floor("x")) {
					t.Fatalf("%v was acknowledged; a list that is said to be whole lacks it, with a floor of %v", key, c.node.Floor("x"))
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		heal()
		if denied == 0 || lists == 0 {
			t.Errorf("%d times it was not there, and %d lists were whole: the test shows nothing", denied, lists)
		}
	})
}

// The same, when an incarnation was closed meanwhile with a set of which everything has been swept since.
func TestSweptSetOfClosedStream(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		sweeping(w, 30*time.Second)
		w.restart()
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		c.past(a.write("x", "before"))
		c.past(b.write("x", "before"))
		c.end("kill")
		w.setLink(a, b, true, 300*time.Millisecond)
		for range 20 {
			go func(n *Node) { _, _ = n.Write(context.Background(), "x", []byte("in flight")) }(b.node)
			time.Sleep(20 * time.Millisecond)
		}
		b.end("kill")
		w.openLinks()
		b.start() // its old incarnation is closed by the two
		w.until("it is closed, with a set", func() bool {
			set := 0
			for _, i := range w.list().Streams {
				if i.Closed != nil {
					set += i.Closed.Count
				}
			}
			return set > 0
		})
		w.whole()
		for range 30 {
			a.write("x", "later")
			time.Sleep(3 * time.Second)
		}
		last := a.write("x", "last")
		a.past(last)
		c.start()
		c.past(last)
		for _, n := range []*simNode{b, c} {
			promised(t, n, "x", []hub.Key{last})
		}
	})
}

// A disk that joins promises what it has: everything from the others' floor on, if it asks for that.
func TestJoinerHasWhatOthersHave(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		var keys []hub.Key
		for i := range 20 {
			keys = append(keys, w.nodes[i%3].write("x", fmt.Sprint(i)))
			time.Sleep(time.Second)
		}
		d := w.member()
		first := true
		w.until("it has joined", func() bool {
			for _, k := range keys { // until it gives answers, it asks the others
				if _, err := d.node.Read(t.Context(), "x", k); err != nil && !hub.Is(err, hub.Unavailable) {
					t.Fatalf("before: %v", err)
				} else if err == nil && first {
					first = false
				}
			}
			page := d.stable("x")
			if page != nil && len(page.Keys) != len(keys) {
				t.Fatalf("its first stable answer has %d keys", len(page.Keys))
			}
			return page != nil
		})
		for _, k := range keys {
			if !k.Less(d.node.Floor("x")) {
				t.Errorf("%v was written before the disk was made, which promises everything from %v on", k, d.node.Floor("x"))
			}
		}
	})
}

// What lies below a floor that was raised is found in long-term storage from then on. No record tells of it.
func TestFloorWakesWhoFollows(t *testing.T) {
	directed(t, 1, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0].node
		wake, stop := n.Watch("x")
		defer stop()
		floor := hub.KeyAt(time.Now().UnixMilli(), "")
		for i, want := range []bool{true, false} {
			if err := n.cluster.raiseFloor(floor, 0); err != nil {
				t.Fatal(err)
			}
			select {
			case <-wake:
				if !want {
					t.Error("it is woken for a floor that stands")
				}
			default:
				if want {
					t.Errorf("it is not woken, %d", i)
				}
			}
		}
	})
}

// TestCarriedBehindALow: what a sweep has carried lies in the log behind what is newer. Whoever is sent the log from before it is told of no low that has passed it, until it has come.
func TestCarriedBehindALow(t *testing.T) {
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		w.tune = func(o *Options) {
			o.Segments.TTL = 20 * time.Second
			o.Archived = func(channel string) (hub.Key, bool) {
				if channel == "a" {
					return hub.MinKey, true
				}
				return hub.MaxKey, true
			}
		}
		for _, n := range w.nodes {
			n.end("stop")
			n.start()
			w.whole()
		}
		writer, away := w.nodes[0], w.nodes[1]
		w.between(writer, away, false)
		k := writer.write("a", "carried")
		for range 5 {
			writer.write("b", "archived, and more than half")
		}
		time.Sleep(10 * time.Second)
		large := strings.Repeat(".", 200<<10)
		writer.write("b", "in another segment")
		time.Sleep(6 * time.Second)
		for range 40 { // several frames
			writer.write("b", large)
		}
		w.until("the first segment is swept", func() bool { return k.Less(writer.node.store.Floor()) })
		away.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1000, Fault: memdisk.Fault{Delay: 100 * time.Millisecond}})
		w.openLinks()
		w.until("it has caught up", func() bool {
			page := away.stable("a")
			if page == nil || page.Horizon.Less(k) {
				return false
			}
			if !slices.Contains(page.Keys, k) {
				t.Fatalf("a stable answer up to %v lacks %v", page.Horizon, k)
			}
			return true
		})
	})
}
