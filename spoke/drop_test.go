package spoke

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

var restarts = flag.Int("cluster.restarts", 200, "restarts of nodes after which the list has to be small")

// brief lets logs be swept soon of what is archived.
func brief(w *simWorld) {
	w.tune = func(o *Options) {
		o.SweepEvery = time.Second
		o.Segments.TTL, o.Segments.SegmentAge = 10*time.Second, 2*time.Second
	}
	w.restart()
}

// registers are the names of all that the coordinator holds of Spoke.
func (w *simWorld) registers() []string {
	w.t.Helper()
	s := w.store.Session("reader")
	defer w.store.Cut(s)
	names, err := s.Names(context.Background(), "spoke")
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// archive moves to long-term storage what a node shows.
func (n *simNode) archive() {
	n.w.t.Helper()
	node, _ := n.w.current(n)
	cursor, _ := n.w.past.archived("x")
	var items []hub.Sealed
	q := hub.Query{Channel: "x", From: cursor.After(), To: hub.MaxKey, Stable: true}
	page, err := node.Keys(n.w.t.Context(), q)
	if err != nil {
		return // it has to catch up first
	}
	for _, k := range page.Keys {
		items = append(items, hub.Sealed{Key: k})
	}
	n.w.past.take("x", items, page.Horizon)
}

// dropped archives on a node until no more is on record than has to be, of each disk the last closed stream.
func (w *simWorld) dropped(by *simNode) {
	w.t.Helper()
	w.until("closed streams are off the list", func() bool {
		by.archive()
		r := w.list()
		return r.Next == nil && r.Dropped > 0 && len(r.Droppable(func(roster.Stream) bool { return true })) == 0
	})
}

// alone checks what each node tells without the others, with what is in long-term storage below its floor: the same on all, and nothing is missing.
func (w *simWorld) alone(want map[hub.Key]bool, nodes ...*simNode) {
	w.t.Helper()
	w.shows(nil, nodes...)
	var first map[hub.Key]bool
	for _, n := range nodes {
		node, _ := w.current(n)
		page, err := node.Keys(w.t.Context(), hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey, Stable: true})
		if err != nil {
			w.t.Fatalf("%s: %v", n.name, err)
		}
		have := map[hub.Key]bool{}
		for _, k := range w.past.with("x", page.Keys, hub.MinKey, hub.MaxKey, node.Floor("x")) {
			have[k] = true
			if first != nil && !first[k] {
				w.t.Errorf("%s shows %v, which %s does not", n.name, k, nodes[0].name)
			}
		}
		for k := range first {
			if !have[k] {
				w.t.Errorf("%s does not show %v, which %s does", n.name, k, nodes[0].name)
			}
		}
		if first == nil {
			first = have
		}
		for k := range want {
			if !have[k] {
				w.t.Errorf("%s lacks %v, its floor is %v", n.name, k, node.Floor("x"))
			}
		}
	}
}

func closedOf(r roster.Roster) (n int) {
	for _, i := range r.Streams {
		if i.Closed != nil {
			n++
		}
	}
	return n
}

// passed waits until the horizon of all nodes has passed a key.
func (w *simWorld) passed(k hub.Key) {
	w.t.Helper()
	for _, n := range w.living() {
		n.past(k)
	}
}

// TestRuleListStaysSmall: neither the list nor the registers beside it, nor what each disk keeps of them, grows with the restarts.
func TestRuleListStaysSmall(t *testing.T) {
	for _, busy := range []bool{true, false} {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			brief(w)
			want := map[hub.Key]bool{}
			size, most, times := 0, 0, *restarts
			if !busy {
				times /= 4
			}
			for i := range times {
				n := w.nodes[2]
				if i%20 == 19 {
					n = w.nodes[i/20%2]
				}
				if busy {
					want[n.put(fmt.Sprint("item ", i))] = true
				}
				n.end([]string{"power", "kill", "stop"}[i/3%3])
				n.start()
				w.whole()
				time.Sleep(time.Second)
				w.nodes[0].archive()
				r := w.list()
				b, err := r.Encode()
				if err != nil {
					t.Fatal(err)
				}
				size, most = max(size, len(b)), max(most, len(r.Streams))
			}
			w.dropped(w.nodes[0])
			b, _ := w.list().Encode()
			t.Logf("busy %v, %d restarts: the list has %d bytes, and had at most %d, of %d streams", busy, times, len(b), size, most)
			if len(b) > 2000 || size > 6000 {
				t.Errorf("the list has %d bytes, and had up to %d: %s", len(b), size, b)
			}
			if names := w.registers(); len(names) > 8 {
				t.Errorf("registers are left: %v", names)
			}
			last := w.nodes[0].put("last")
			want[last] = true
			w.passed(last)
			for _, n := range w.nodes {
				text, err := readFile(n.disk, stateFile)
				if err != nil || len(text) > 4000 {
					t.Errorf("%s remembers %d bytes, %v: %s", n.name, len(text), err, text)
				}
			}
			w.alone(want, w.nodes...)
		})
	}
}

// TestJoinerAfterDrop: who comes when streams are off the list finds in long-term storage what was in them, and promises nothing else.
func TestJoinerAfterDrop(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		brief(w)
		want := map[hub.Key]bool{}
		for i := range 30 {
			n := w.nodes[i%3]
			want[n.put(fmt.Sprint("item ", i))] = true
			if i%5 == 0 {
				n.end("power")
				n.start()
				w.whole()
			}
		}
		w.dropped(w.nodes[1])
		joiner := w.member()
		k := joiner.put("of the joiner")
		want[k] = true
		w.passed(k)
		w.alone(want, w.nodes...)
		old := w.nodes[0]
		old.end("power")
		old.disk = w.newDisk(old)
		old.start()
		k = old.put("on a new disk")
		want[k] = true
		w.passed(k)
		w.alone(want, w.nodes...)
	})
}

// TestRuleAbsentMemberKeepsStreams: as long as a member of the list is away, nothing that it has not got is dropped; when it is back, it has everything.
func TestRuleAbsentMemberKeepsStreams(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		brief(w)
		want := map[hub.Key]bool{}
		away := w.nodes[2]
		k := w.nodes[0].put("before")
		want[k] = true
		w.passed(k)
		away.end("kill")
		before := w.list().Dropped
		for i := range 20 {
			n := w.nodes[i%2]
			want[n.put(fmt.Sprint("item ", i))] = true
			n.end("power")
			n.start()
			w.whole()
			n.archive()
			time.Sleep(3 * time.Second)
		}
		if r := w.list(); r.Dropped > before && r.Dropped-before > 3 { // of what was closed before it went
			t.Errorf("%d streams were dropped while a member was away", r.Dropped-before)
		}
		away.start()
		w.whole()
		k = away.put("back")
		want[k] = true
		w.passed(k)
		w.alone(want, w.nodes...)
		w.dropped(away)
		w.alone(want, w.nodes...)
	})
}

// TestNothingIsDroppedThatIsNotArchived: as long as a log holds something of a stream, whoever comes copies it from there.
func TestNothingIsDroppedThatIsNotArchived(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		brief(w)
		want := map[hub.Key]bool{}
		for i := range 12 {
			n := w.nodes[i%3]
			want[n.put(fmt.Sprint("item ", i))] = true
			n.end("power")
			n.start()
			w.whole()
		}
		time.Sleep(time.Minute)
		joiner := w.member()
		k := joiner.put("of the joiner")
		want[k] = true
		w.passed(k)
		if r := w.list(); closedOf(r) < 12 {
			t.Errorf("of %d streams that hold items that are not archived %d are left on the list", 12, closedOf(r))
		}
		w.alone(want, w.nodes...)
	})
}

// TestRulePowerCutsAroundDrop: whatever write of whatever disk is the last one, nothing is lost, and the list gets small.
func TestRulePowerCutsAroundDrop(t *testing.T) {
	for cut := range 10 {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			brief(w)
			want := map[hub.Key]bool{}
			for i := range 6 {
				n := w.nodes[i%3]
				want[n.put(fmt.Sprint("item ", i))] = true
				n.end("kill")
				n.start()
				w.whole()
			}
			before := w.list().Dropped
			w.until("the first is dropped", func() bool { w.nodes[0].archive(); return w.list().Dropped > before })
			for i := range w.nodes { // one after the other, a bit later each time: before the list is read, while it is saved, after
				time.Sleep(time.Duration(cut) * 7 * time.Millisecond)
				w.nodes[(cut+i)%3].end("power")
			}
			for i := range w.nodes {
				w.nodes[(i+cut/3)%3].start()
			}
			w.whole()
			k := w.nodes[cut%3].put("after")
			want[k] = true
			w.passed(k)
			w.alone(want, w.nodes...)
			w.dropped(w.nodes[0])
			w.alone(want, w.nodes...)
		})
	}
}

// TestIncarnationIsNotUsedTwice: the last one of a disk stays on the list, so a copy of an old data directory does not take a number again.
func TestIncarnationIsNotUsedTwice(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		brief(w)
		n := w.nodes[1]
		n.end("stop")
		old, err := readFile(n.disk, identityFile)
		if err != nil {
			t.Fatal(err)
		}
		n.start()
		w.whole()
		for range 5 {
			n.end("kill")
			n.start()
			w.whole()
		}
		w.dropped(w.nodes[0])
		highest := n.node.Identity().Incarnation
		n.end("stop")
		if err := replaceFile(n.disk, identityFile, old); err != nil {
			t.Fatal(err)
		}
		n.start()
		w.whole()
		if now := n.node.Identity().Incarnation; now <= highest {
			t.Errorf("incarnation %d writes after %d was on the list", now, highest)
		}
	})
}

// TestRuleRestlessNodeWaits: a node that is started again and again while nothing can be dropped waits longer and longer, and says so; the others do not.
func TestRuleRestlessNodeWaits(t *testing.T) {
	r := roster.New(roster.Half)
	for i := range uint32(1000) {
		r.Streams = append(r.Streams, roster.Incarnation{Stream: roster.Stream{Ordinal: 1, Incarnation: i}, Disk: "a", Closed: &roster.Closing{}})
		want := min(max(0, time.Duration(int(i)+1-calmStarts)*startPenalty), maxPenalty)
		if got := patience(r, "a"); got != want || patience(r, "b") != 0 {
			t.Fatalf("after %d starts: %v, want %v; another one %v", i+1, got, want, patience(r, "b"))
		}
	}
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		away, n := w.nodes[0], w.nodes[2]
		away.end("kill")
		for range calmStarts {
			n.end("kill")
			n.start()
			w.whole()
		}
		var took time.Duration
		for range 20 {
			n.end("kill")
			began := time.Now()
			n.start()
			w.whole()
			took = time.Since(began)
		}
		if took < 20*startPenalty || took > 20*startPenalty+10*time.Second {
			t.Errorf("after %d starts it wrote after %v", calmStarts+20, took)
		}
		away.start()
		w.whole()
	})
}

// TestStrangerAfterDrop: a disk that was off the list while streams were closed and dropped has records that nobody else has, and lacks what came meanwhile.
func TestStrangerAfterDrop(t *testing.T) {
	directed(t, 5, roster.Half, func(t *testing.T, w *simWorld) {
		brief(w)
		a, x, rest := w.nodes[0], w.nodes[4], w.nodes[:4]
		k := x.put("early")
		want := map[hub.Key]bool{k: true}
		w.passed(k)
		for _, n := range rest[1:] {
			w.setLink(a, n, false, 0)
		}
		before, err := x.keysOnDisk()
		if err != nil {
			t.Fatal(err)
		}
		node, _ := w.current(a)
		if _, err := node.Write(t.Context(), "x", []byte("only two have this")); err == nil {
			t.Fatal("acknowledged by two of five")
		}
		x.end("kill")
		a.end("kill")
		w.openLinks()
		if records, err := x.keysOnDisk(); err != nil || records <= before {
			t.Fatalf("the disk has %d records, and had %d, %v", records, before, err)
		}
		w.until("what was open is closed without them", func() bool { return closedOf(w.list()) >= 2 })
		a.start()
		w.whole()
		want[rest[0].put("meanwhile")] = true
		w.shows(nil, rest...)
		w.until("it may leave", func() bool { n, _ := w.current(rest[0]); return n.Leave(t.Context(), x.name) == nil })
		w.until("it has left", func() bool { r := w.list(); return r.Left(x.name) && r.Next == nil })
		for i := range 6 { // streams that x has never heard of come and go
			n := rest[i%4]
			n.end("power")
			n.start()
			w.whole()
			want[n.put("after it has left")] = true
		}
		gone := w.list().Dropped
		w.dropped(rest[0])
		if w.list().Dropped <= gone {
			t.Fatal("nothing was dropped: the test shows nothing")
		}
		one, _ := w.current(rest[0])
		if err := one.Return(t.Context(), x.name); err != nil {
			t.Fatal(err)
		}
		w.tune = func(o *Options) { o.SweepEvery = time.Hour } // or it sweeps what it has before anybody has seen it
		x.start()
		k = x.put("it is back")
		want[k] = true
		w.passed(k)
		w.alone(want, w.nodes...)
	})
}

// keysOnDisk counts the records in the log of a node.
func (n *simNode) keysOnDisk() (int64, error) {
	if node, _ := n.w.current(n); node != nil {
		return node.Status().Records, nil
	}
	node, found, err := Open(context.Background(), Options{Disk: n.disk, Clock: time.Now})
	if err != nil {
		return 0, err
	}
	return found.Records, node.Close()
}
