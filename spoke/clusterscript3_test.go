package spoke

import (
	"context"
	"sync"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// More courses of events for rules that can be broken: who counts, by which list.

// An empty disk is another one, whatever its node is called: what the old one had acknowledged is missing on it.
func TestEmptyDiskIsAnother(t *testing.T) {
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, loses, other := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(n, other, false)
		if _, err := w.try(n, "on two disks"); err != nil {
			t.Fatal(err)
		}
		n.end("power")
		w.lost(loses)
		w.openLinks()
		loses.start()
		time.Sleep(10 * time.Second)
	})
}

// joining announces a change of three disks to four and holds it there: undecided, or, if it is to be decided, not yet in force. Only the one that joins has what the first one
// writes then.
func joining(t *testing.T, w *simWorld, decided bool) (n, leads *simNode, gates []*gate) {
	gates = w.gates()
	n, leads = w.nodes[0], w.nodes[2]
	joins := &gate{}
	for _, g := range append(gates, joins) {
		g.closes = func(r roster.Roster) bool {
			if r.Next == nil || !r.Next.Decided {
				return false
			}
			for _, o := range append(gates, joins) {
				o.shut(false, "set", "acquire")
			}
			return false
		}
	}
	if decided {
		gates[1].shut(true, "acquire")
	} else {
		gates[1].shut(false, "set", "acquire")
	}
	joins.shut(true, "acquire")
	w.tune = func(o *Options) { joins.Coordinator, o.Cluster.Coordinator = o.Cluster.Coordinator, joins }
	joiner := w.member()
	w.tune = nil
	w.until("the change stands", func() bool {
		r := w.list()
		return r.Next != nil && r.Next.Decided == decided && (decided || len(r.Next.Acked) == 3)
	})
	time.Sleep(2 * time.Second) // all know it, and send to the one that joins
	gates[2].shut(false, "set")
	for _, m := range w.nodes[1:3] {
		w.between(n, m, false)
		w.between(joiner, m, false)
	}
	return n, leads, append(gates, joins)
}

// While a list is announced, both count; when it is decided, both settle. Otherwise some would acknowledge by the one what others end by the other.
func TestBothListsCount(t *testing.T) {
	for _, decided := range []bool{false, true} {
		observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			n, _, gates := joining(t, w, decided)
			_, err := w.try(n, "on two disks, of which one is new")
			if (err == nil) != decided {
				t.Errorf("of a change that is decided (%v), it was acknowledged: %v", decided, err)
			}
			n.end("power")
			time.Sleep(10 * time.Second)
			for _, g := range gates {
				g.closes = nil
				g.shut(false)
			}
			w.openLinks()
			time.Sleep(10 * time.Second)
		})
	}
}

// A list is in force when enough of its disks have what was committed by the one before.
func TestListWaitsForItsDisks(t *testing.T) {
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, behind, loses := w.nodes[0], w.nodes[1], w.nodes[2]
		w.setLink(n, behind, false, 0)
		if _, err := w.try(n, "on two disks"); err != nil {
			t.Fatal(err)
		}
		w.lost(loses)
		w.between(n, loses, false)
		loses.start()
		time.Sleep(6 * time.Second)
		n.end("power")
		time.Sleep(10 * time.Second)
	})
}

// The base of an end is what those have who hold its set: if it is only what the writer had, which then is gone, nobody ever has all of it.
func TestBaseIsHeld(t *testing.T) {
	observed(t, 3, roster.Majority, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, leads, away := w.nodes[0], w.nodes[1], w.nodes[2]
		gates[2].shut(true, "acquire")
		_, _ = w.try(leads, "there is a segment now")
		w.setLink(n, leads, false, 0)
		w.setLink(n, away, false, 0)
		var beside sync.WaitGroup
		defer beside.Wait()
		beside.Go(func() {
			_ = n.node.WriteKeyed(context.Background(), replica, hub.Sealed{Key: hub.KeyAt(time.Now().UnixMilli(), "s0urce"), Data: []byte("takes long to copy")})
		})
		time.Sleep(time.Second)
		w.between(leads, away, false)
		leads.slow(20 * time.Second)
		s := recordOf(n.node.stream)
		w.session(n, false)
		time.Sleep(50 * time.Millisecond)
		w.setLink(n, leads, true, 0)
		w.until("the incarnation is closed", func() bool {
			i, ok := w.list().Find(s)
			return !ok || i.Closed != nil
		})
		w.lost(n)
		w.openLinks()
		gates[2].shut(false)
		time.Sleep(25 * time.Second)
	})
}
