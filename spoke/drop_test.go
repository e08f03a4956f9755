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

// store moves to long-term storage what a node shows.
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

// alone checks what each node tells without the others, with what is in long-term storage below its floor.
func (w *simWorld) alone(want map[hub.Key]bool, exactly bool, nodes ...*simNode) {
	w.t.Helper()
	w.shows(nil, nodes...)
	for _, n := range nodes {
		node, _ := w.current(n)
		page, err := node.Keys(w.t.Context(), hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey, Stable: true})
		if err != nil {
			w.t.Fatalf("%s: %v", n.name, err)
		}
		have := map[hub.Key]bool{}
		for _, k := range w.past.with("x", page.Keys, hub.MinKey, hub.MaxKey, node.Floor("x")) {
			have[k] = true
			if !want[k] && exactly {
				w.t.Errorf("%s shows %v, which was never acknowledged", n.name, k)
			}
		}
		for k := range want {
			if !have[k] {
				w.t.Errorf("%s lacks %v, its floor is %v", n.name, k, node.Floor("x"))
			}
		}
	}
}

// settled waits until the horizon of all nodes has passed a key.
func (w *simWorld) passed(k hub.Key) {
	w.t.Helper()
	for _, n := range w.living() {
		n.past(k)
	}
}

// TestListStaysSmall: neither the list nor the registers beside it, nor what each disk keeps of them, grows with the restarts.
func TestListStaysSmall(t *testing.T) {
	for _, busy := range []bool{true, false} {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			brief(w)
			want := map[hub.Key]bool{}
			size, most := 0, 0
			for i := range *restarts {
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
			t.Logf("busy %v, %d restarts: the list has %d bytes, and had at most %d, of %d streams", busy, *restarts, len(b), size, most)
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
			w.alone(want, false, w.nodes...)
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
		w.alone(want, false, w.nodes...)
		old := w.nodes[0]
		old.end("power")
		old.disk = w.newDisk(old)
		old.start()
		k = old.put("on a new disk")
		want[k] = true
		w.passed(k)
		w.alone(want, false, w.nodes...)
	})
}

// TestAbsentMemberKeepsStreams: as long as a member of the list is away, nothing that it has not got is dropped; when it is back, it has everything.
func TestAbsentMemberKeepsStreams(t *testing.T) {
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
		w.alone(want, false, w.nodes...)
		w.dropped(away)
		w.alone(want, false, w.nodes...)
	})
}

// TestStrangerAfterDrop: a disk that was off the list while streams were closed and dropped has records that nobody else has, and lacks what came meanwhile.
func TestStrangerAfterDrop(t *testing.T) {
	directed(t, 4, roster.Majority, func(t *testing.T, w *simWorld) {
		brief(w)
		x, rest := w.nodes[3], w.nodes[:3]
		k := x.put("early")
		want := map[hub.Key]bool{k: true}
		w.passed(k)
		for _, n := range rest {
			w.setLink(x, n, false, 0)
		}
		node, _ := w.current(x)
		if _, err := node.Write(t.Context(), "x", []byte("nobody else has this")); err == nil {
			t.Fatal("acknowledged by one of four")
		}
		x.end("kill")
		w.openLinks()
		if records, err := x.keysOnDisk(); err != nil || records < 2 {
			t.Fatalf("the disk has %d records, %v", records, err)
		}
		want[rest[0].put("meanwhile")] = true
		w.shows(nil, rest...)
		w.until("it may leave", func() bool { n, _ := w.current(rest[0]); return n.Leave(t.Context(), x.name) == nil })
		w.until("it has left", func() bool { r := w.list(); return r.Left(x.name) && r.Next == nil })
		for i := range 6 { // streams that x has never heard of come and go
			n := rest[i%3]
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
		x.start()
		k = x.put("it is back")
		want[k] = true
		w.passed(k)
		w.alone(want, true, w.nodes...)
	})
}

// keysOnDisk counts what the log of a node that does not run has.
func (n *simNode) keysOnDisk() (int64, error) {
	node, found, err := Open(context.Background(), Options{Disk: n.disk, Clock: time.Now})
	if err != nil {
		return 0, err
	}
	return found.Records, node.Close()
}
