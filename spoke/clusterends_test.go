package spoke

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// More courses of events for rules that can be broken: who counts, by which list.

// An empty disk is another one, whatever its node is called: what the old one had acknowledged is missing on it.
func TestRuleEmptyDiskIsAnother(t *testing.T) {
	t.Parallel()
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

// A member may lose its disk after it has refused a stream, and before it tells what it holds of it: its new disk does not answer for the old one.
func TestRuleWhoRefusedTells(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, loses, leads := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, g := range w.gates() { // nobody else closes it
			g.shut(false, "acquire")
		}
		w.between(n, leads, false)
		k := n.write("a", "on two disks")
		s := recordOf(n.node.stream)
		n.end("power")
		l := &leader{c: leads.node.cluster, s: s, answers: map[string]held{}}
		l.askAll(t.Context())
		l.state = l.refused()
		l.span()
		if m, _ := hub.MarkOf(k); l.base >= m || !leads.node.cluster.rec.Enough(l.state) {
			t.Fatalf("base %v: this test shows nothing", l.base)
		}
		w.lost(loses)
		loses.start()
		w.until("the new disk answers", func() bool {
			_, err := leads.node.cluster.askHeld(t.Context(), loses.name, s, l.base)
			return err == nil
		})
		if err := l.collect(t.Context()); err == nil {
			t.Fatalf("a set of %d is made without %v, which was acknowledged", len(l.set), k)
		}
	})
}

// What a disk has said that it has is not on the one that its node runs on after it: nothing is copied from that for what was said, and what it has never heard of was not given up.
func TestRuleWhoSaidItHasItGivesIt(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, loses, lags := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(lags, n, false)
		w.between(lags, loses, false)
		k := n.write("a", "on two disks")
		s := n.node.stream
		mark, _ := hub.MarkOf(k)
		w.until("it is counted", func() bool { return loses.node.cluster.state().Lows[recordOf(s).String()] >= mark })
		state := loses.node.cluster.state()
		n.end("power")
		w.lost(loses)
		loses.start()
		w.openLinks()
		of := source{loses.name, state.Disk}
		c := lags.node.cluster
		w.until("the new disk answers", func() bool { a, err := c.askState(t.Context(), loses.name); return err == nil && a.Disk != of.disk })
		if err := c.copyFrom(t.Context(), of, s, state.Lows[recordOf(s).String()], &pace{}); !hub.Is(err, hub.Conflict) {
			t.Errorf("copied from a disk that has nothing: %v", err)
		}
		lags.node.mu.Lock()
		defer lags.node.mu.Unlock()
		if low := c.streams[s].low; low >= mark {
			t.Errorf("its low is %v, and it lacks %v", low.Key(), k)
		}
	})
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		n, loses := w.nodes[0], w.nodes[1]
		k := n.write("a", "on two disks")
		w.until("it has come", func() bool { _, err := loses.node.store.Get(t.Context(), "a", k); return err == nil })
		of := source{loses.name, loses.node.Identity().ID}
		w.lost(loses)
		loses.start()
		c := n.node.cluster
		w.until("the new disk answers", func() bool { a, err := c.askState(t.Context(), loses.name); return err == nil && a.Disk != of.disk })
		q := questions{Ordinal: n.node.stream.Ordinal, Incarnation: n.node.stream.Incarnation, Keys: []named{{"a", k.String()}}}
		if err := c.hideUnknown(t.Context(), of, q); !hub.Is(err, hub.Conflict) {
			t.Errorf("a disk that has nothing has told what was given up: %v", err)
		}
		if _, err := n.node.store.Get(t.Context(), "a", k); err != nil {
			t.Errorf("%v is hidden: %v", k, err)
		}
		late := hub.KeyAt(time.Now().UnixMilli(), "000000")
		if _, err := c.lateData(t.Context(), named{"a", late.String()}, late, of); !hub.Is(err, hub.Conflict) {
			t.Errorf("a disk that has nothing has told that a late item went to long-term storage: %v", err)
		}
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
func TestRuleBothListsCount(t *testing.T) {
	t.Parallel()
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
func TestRuleListWaitsForItsDisks(t *testing.T) {
	t.Parallel()
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
func TestRuleBaseIsHeld(t *testing.T) {
	t.Parallel()
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
		leads.stuck(20 * time.Second)
		s := recordOf(n.node.stream)
		w.session(n, false)
		time.Sleep(50 * time.Millisecond)
		w.setLink(n, leads, true, 0)
		w.until("the incarnation is closed", func() bool {
			i, ok := w.list().Find(s)
			return !ok || i.Closed != nil
		})
		w.lost(n)
		leads.end("power") // or it had what it was copying
		leads.start()
		w.openLinks()
		gates[2].shut(false)
		time.Sleep(10 * time.Second)
	})
}

// What a node has shown is shown by it after a restart, or nothing is.
func TestRuleHorizonIsHeld(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		if _, err := w.try(n, "there is a segment now"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		n.end("kill")
		w.between(n, w.nodes[1], false)
		w.between(n, w.nodes[2], false)
		n.start()
		time.Sleep(5 * time.Second)
	})
}

// While a clock is out of the guard, low stands: otherwise everybody would wait for the time to which it has moved.
// So it is from the moment on when others are on the list: a node that was alone asked those who came a second later, and the clock that was set within that second counted.
func TestRuleLowStandsOutOfTheGuard(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		n.setSkew(10 * time.Minute)
		time.Sleep(5 * time.Second)
		n.setSkew(0)
		time.Sleep(5 * time.Second)
	})
}

// A writer whose incarnation is over begins another one.
func TestRuleRefusedWriterBeginsAnew(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		w.closeOf(w.nodes[0], w.nodes[1])
		w.session(w.nodes[0], true)
		time.Sleep(5 * time.Second)
	})
}

// Without the word of a silent member the horizon stands, until it is settled what that one has written.
func TestRuleSilentIsWaitedFor(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, behind := w.nodes[0], w.nodes[1]
		defer w.busy(n)()
		w.setLink(n, behind, false, 0)
		if _, err := w.try(n, "not on all disks"); err != nil {
			t.Fatal(err)
		}
		w.session(n, false)
		time.Sleep(3 * time.Second)
	})
}

// Whoever closes an incarnation asks so many that one of them has what was committed.
func TestRuleCloseAsksEnough(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, leads, slow := w.nodes[0], w.nodes[1], w.nodes[2]
		gates[2].shut(true, "acquire")
		w.setLink(n, leads, false, 0)
		if _, err := w.try(n, "not on the disk of the one who closes"); err != nil {
			t.Fatal(err)
		}
		slow.delay(memdisk.OpSync, "cluster*", 1500*time.Millisecond)
		leads.slow(20 * time.Second) // or the one who closes repairs itself before
		n.end("power")
		time.Sleep(30 * time.Second)
		gates[2].shut(false)
	})
}

// A set is on enough disks before it is on record: the one disk that had it may be lost.
func TestRuleSetIsHeld(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, other, leads := w.nodes[0], w.nodes[1], w.nodes[2]
		gates[1].shut(false, "acquire", "get")
		for _, m := range w.nodes {
			_, _ = w.try(m, "there is a segment now")
		}
		w.setLink(n, other, false, 0)
		n.stuck(10 * time.Second)
		s := recordOf(n.node.stream)
		var beside sync.WaitGroup
		beside.Go(func() { _, _ = w.try(n, "on one disk") })
		time.Sleep(100 * time.Millisecond)
		other.stuck(15 * time.Second) // or it repairs itself before
		n.end("power")
		beside.Wait()
		w.until("the incarnation is closed", func() bool {
			i, ok := w.list().Find(s)
			return !ok || i.Closed != nil
		})
		w.lost(leads)
		other.end("power")
		other.start()
		time.Sleep(5 * time.Second)
	})
}

// What was given up is in no set, although somebody has the record and never heard of the name.
func TestRuleSetWithoutNames(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, deaf, other := w.nodes[0], w.nodes[1], w.nodes[2]
		_, _ = w.try(n, "there is a segment now")
		time.Sleep(time.Second)
		w.setLink(deaf, n, false, 0)
		other.slow(2500 * time.Millisecond)
		var beside sync.WaitGroup
		beside.Go(func() { _, _ = w.try(n, "given up") })
		time.Sleep(time.Second)
		w.setLink(n, deaf, false, 0)
		time.Sleep(3 * time.Second)
		deaf.slow(20 * time.Second) // or it repairs itself before
		deaf.slow(20 * time.Second) // the first may be that of a segment that ends
		n.end("power")
		beside.Wait()
		time.Sleep(30 * time.Second)
	})
}

// The first end that is on record counts: another one, of a leader who was away, comes too late.
func TestRuleFirstEndCounts(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, stale, other := w.nodes[0], w.nodes[1], w.nodes[2]
		gates[1].shut(true, "update")
		gates[2].shut(true, "acquire")
		w.between(n, stale, false)
		w.setLink(n, other, false, 0)
		var beside sync.WaitGroup
		beside.Go(func() { _, _ = w.try(n, "on the disk of the writer") })
		time.Sleep(100 * time.Millisecond)
		s := recordOf(n.node.stream)
		w.session(n, false)
		time.Sleep(time.Second) // one has its answers
		w.setLink(n, other, true, 0)
		w.session(stale, false)
		gates[2].shut(false)
		w.until("the other one has closed it", func() bool {
			i, ok := w.list().Find(s)
			return !ok || i.Closed != nil
		})
		time.Sleep(time.Second)
		w.session(stale, true)
		gates[1].shut(false)
		beside.Wait()
		time.Sleep(10 * time.Second)
	})
}

// Nothing is minted at or below what a stream has said is decided.
func TestRuleMintAboveLow(t *testing.T) {
	t.Parallel()
	observed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		for i := range 20 {
			if _, err := w.try(w.nodes[i%2], "above"); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// With the low of another disk come its records.
func TestRuleRepairBringsRecords(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		w.setLink(w.nodes[0], w.nodes[1], false, 0)
		if _, err := w.try(w.nodes[0], "not on all disks"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.nodes[0].end("power")
		time.Sleep(10 * time.Second)
	})
}

// What was in flight when an incarnation ended holds its low: whether it stays is not known yet.
func TestRuleEndKeepsWhatIsInFlight(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n := w.nodes[0]
		gates[1].shut(true, "update")
		gates[2].shut(true, "update")
		w.setLink(n, w.nodes[1], false, 0)
		w.setLink(n, w.nodes[2], false, 0)
		var beside sync.WaitGroup
		beside.Go(func() { _, _ = w.try(n, "on one disk") })
		time.Sleep(100 * time.Millisecond)
		w.session(n, false)
		beside.Wait()
		time.Sleep(2 * time.Second)
		n.end("power")
		gates[1].shut(false)
		gates[2].shut(false)
		time.Sleep(10 * time.Second)
	})
}

// Whoever is alone knows that he does not know.
func TestRuleAloneKnowsNothing(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		alone := w.nodes[1]
		w.between(alone, w.nodes[0], false)
		w.between(alone, w.nodes[2], false)
		k, err := w.try(w.nodes[0], "elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		silent(t, alone, k)
		if _, err := alone.node.Read(t.Context(), "a", k); !hub.Is(err, hub.Unavailable) {
			t.Errorf("%v, which was acknowledged, is %v", k, err)
		}
	})
}

// What is outside of the set is given up by whoever has it.
func TestRuleMembersGiveUp(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, has, other := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, m := range w.nodes {
			_, _ = w.try(m, "there is a segment now")
		}
		w.setLink(n, other, false, 0)
		n.stuck(10 * time.Second)
		var beside sync.WaitGroup
		beside.Go(func() { _, _ = w.try(n, "on one disk") })
		time.Sleep(100 * time.Millisecond)
		has.end("power")
		n.end("power")
		beside.Wait()
		w.openLinks()
		n.start()
		time.Sleep(10 * time.Second)
		has.start()
		time.Sleep(5 * time.Second)
	})
}

// Of a bulk of which a part is here, the rest is copied: a set is stored piece by piece, and a power cut may come in between.
func TestRuleRepairOfHalfABulk(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, half := w.nodes[0], w.nodes[1]
		w.setLink(n, half, false, 0)
		data := []string{"the first of 3", "the second of 3", "the third of 3"}
		w.judge.offers("a", data...)
		began := time.Now()
		first, err := n.node.WriteBulk(t.Context(), "a", [][]byte{[]byte(data[0]), []byte(data[1]), []byte(data[2])})
		if err != nil {
			t.Fatal(err)
		}
		keys := []hub.Key{hub.BulkKey(first, 0), hub.BulkKey(first, 1), hub.BulkKey(first, 2)}
		w.judge.wrote(n.name, "a", keys, data, nil, true, began)
		var part []spokelog.Record
		for i, k := range keys[:2] {
			part = append(part, spokelog.Record{Channel: "a", Key: k, Stream: n.node.stream, Data: []byte(data[i])})
		}
		if err := half.node.cluster.storeOf(t.Context(), part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		n.end("power")
		time.Sleep(10 * time.Second)
	})
}

// What is not archived is not swept, however old it is.
func TestRuleSweepWaitsForTheArchive(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		w.tune = func(o *Options) {
			o.SweepEvery = time.Second
			o.Segments.TTL, o.Segments.SegmentAge = 5*time.Second, 2*time.Second
		}
		w.restart()
		for range 10 {
			if _, err := w.try(w.nodes[0], "old"); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// Whoever refuses a stream says how far he has it, and a leader relies on that: it holds after a power cut, although no record has told the log.
func TestRuleRefusedLowOutlastsPower(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n := w.nodes[0]
		if _, err := w.try(n, "what the log knows of"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		gates[1].shut(false, "end")
		gates[2].shut(false, "end")
		s := recordOf(n.node.stream)
		for _, m := range w.nodes[1:] { // what they have is never decided, so it is in the set, and they complete nothing without reading that
			w.setLink(m, n, false, 0)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		w.judge.offers("a", "undecided")
		_, _ = n.node.Write(ctx, "a", []byte("undecided"))
		w.lost(n)
		w.until("the incarnation is closed", func() bool {
			i, ok := w.list().Find(s)
			return ok && i.Closed != nil
		})
		for _, m := range w.nodes[1:] {
			m.end("power")
		}
		for _, m := range w.nodes[1:] {
			m.start()
		}
		time.Sleep(10 * time.Second)
	})
}

// A member answers a change with its clock as it is when the list counts there: until then its horizon goes on without the new stream.
func TestRuleAnswerWithTheClockOfNow(t *testing.T) {
	t.Parallel()
	observed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		n, other := w.nodes[0], w.nodes[1]
		n.setSkew(-200 * time.Millisecond)
		other.setSkew(200 * time.Millisecond)
		g := other.gated(&gate{})
		time.Sleep(2 * clockEvery)
		w.closeOf(n, other)
		w.between(n, other, false)
		time.Sleep(time.Second)
		g.shut(true, "get")
		other.delay(memdisk.OpSync, "cluster*", 300*time.Millisecond)
		w.session(n, true)
		w.until("the first one has answered", func() bool { return acks(w.list(), n.name) })
		g.shut(false)
		w.until("it writes again", func() bool {
			_, err := w.try(n, "behind")
			return err == nil
		})
	})
}

// So many are asked that one of them knows a newer list, if there is one: with a majority, fewer have every committed item.
func TestRuleReadMeetsANewerList(t *testing.T) {
	t.Parallel()
	directed(t, 4, roster.Majority, func(t *testing.T, w *simWorld) {
		old, gates := w.nodes[:2], w.gates()
		gates[0].shut(true, "get")
		gates[1].shut(true, "get")
		time.Sleep(2 * learnEvery)
		for _, n := range old {
			w.session(n, false)
		}
		joined := w.joins()
		for _, n := range old {
			for _, m := range w.nodes[2:] {
				w.between(n, m, false)
			}
		}
		silent(t, old[1], joined.write("a", "on disks of which two are not known or do not answer"))
		w.endFaults()
	})
}

// While the bytes of a large item are on their way, low stays below it, although enough others have them.
func TestRuleLowBehindLargeItems(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		w.setLink(w.nodes[0], w.nodes[1], true, 50*time.Millisecond)
		for range 3 {
			if _, err := w.try(w.nodes[0], strings.Repeat("x", 1<<20)); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(5 * time.Second)
	})
}
