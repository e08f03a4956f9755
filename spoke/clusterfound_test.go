package spoke

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/coord"
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

// A node that starts with a wrong clock and reaches nobody moved its bound there when a write came, although it refused the write: after the next start its horizon was to be
// above that bound, and it gave no stable answer until the time had come.
func TestStartAloneWithAWrongClock(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		n.end("kill")
		for _, m := range w.nodes[1:] {
			w.between(n, m, false)
		}
		n.setSkew(10 * time.Minute)
		n.start()
		for range 20 {
			time.Sleep(time.Second)
			if _, err := n.node.Write(t.Context(), "a", []byte("x")); !hub.Is(err, hub.Unavailable) {
				t.Fatalf("alone, with a wrong clock, it took a write: %v", err)
			}
			if err := n.node.After(t.Context(), hub.KeyAt(n.clock().UnixMilli(), "x")); !hub.Is(err, hub.Unavailable) {
				t.Fatalf("alone, it knows whether a key is ahead of the clocks: %v", err)
			}
		}
		n.end("kill")
		n.setSkew(0)
		w.openLinks()
		n.start()
		began := time.Now()
		w.whole()
		n.past(n.write("a", "when it is right again"))
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("a node that was started alone with a wrong clock gave no stable answer for %v", took)
		}
	})
}

// A node with a wrong clock that was called back, and whose only fellow on the list was not up yet, took its own clock for enough of those of the list: it is not on it. What it
// answered to the change that let it in brought the others there, and nobody could write until that time had come.
func TestReturnWithAWrongClock(t *testing.T) {
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		stays, n := w.nodes[0], w.nodes[1]
		w.until("it may leave", func() bool { return stays.node.Leave(t.Context(), n.name) == nil })
		w.until("it has left", func() bool { r := w.list(); return r.Left(n.name) && r.Next == nil })
		n.end("stop")
		if err := stays.node.Return(t.Context(), n.name); err != nil {
			t.Fatal(err)
		}
		stays.end("kill")
		n.setSkew(10 * time.Minute)
		n.start()
		time.Sleep(3 * time.Second)
		stays.start()
		time.Sleep(5 * time.Second)
		n.setSkew(0)
		began := time.Now()
		w.whole()
		n.past(stays.write("a", "when it is right again"))
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("a node that was called back with a wrong clock kept the hub waiting for %v", took)
		}
	})
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

// A name was swept together with its record, although a member that was away had the record and not the name. When that one came back, the floor of the others was all
// that it heard of it, and its stable answers had a key that was given up.
func TestNameOutlastsAnAbsence(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		sweeping(w, 15*time.Second)
		w.restart()
		writer, other, away := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, n := range w.nodes {
			n.past(writer.write("a", "before"))
		}
		w.setLink(writer, other, false, 0)
		w.setLink(away, writer, false, 0)
		type end struct {
			key hub.Key
			err error
		}
		done := make(chan end, 1)
		go func() {
			k, err := writer.node.Write(t.Context(), "a", []byte("on one other disk"))
			done <- end{k, err}
		}()
		time.Sleep(time.Second)
		away.end("kill")
		e := <-done
		if e.err == nil {
			t.Fatal("it was acknowledged")
		}
		w.openLinks()
		w.until("the key is given up", func() bool {
			w.judge.mu.Lock()
			defer w.judge.mu.Unlock()
			return w.judge.gone["a"][e.key]
		})
		var last hub.Key
		for range 20 {
			last = writer.write("b", "later")
			time.Sleep(2 * time.Second)
		}
		writer.past(last)
		if floor := writer.node.Floor("a"); !e.key.Less(floor) {
			t.Fatalf("nothing was swept: the floor is %v", floor)
		}
		away.start()
		away.past(last)
		if _, err := away.node.store.Held(t.Context(), "a", e.key); err != nil {
			t.Fatalf("the record did not get there: %v", err)
		}
		for _, n := range w.nodes {
			if page := n.stable("a"); page == nil || slices.Contains(page.Keys, e.key) {
				t.Errorf("%s shows %v, which was given up: %v", n.name, e.key, page)
			}
		}
		w.whole()
		for range 40 { // all have it now
			for _, n := range w.nodes {
				n.write("b", "more")
			}
			time.Sleep(time.Second)
		}
		for _, n := range w.nodes {
			if f, err := n.node.store.Flags(t.Context(), "a", e.key); f != 0 || err != nil {
				t.Errorf("%s keeps the name for ever: %v, %v", n.name, f, err)
			}
		}
	})
}

// A member that was away while a closing was forced, and for longer than the others keep what is archived, waited for ever for a record of the set.
func TestForcedSetThatWasSwept(t *testing.T) {
	directed(t, 4, roster.Half, func(t *testing.T, w *simWorld) {
		w.judge.forcible = true
		sweeping(w, 15*time.Second)
		swept := w.tune
		w.tune = func(o *Options) {
			swept(o)
			o.Segments.LateConfirmed = func(string, hub.Key) bool { return true }
		}
		w.restart()
		a, b, c, d := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		d.past(a.write("x", "before"))
		d.end("kill")
		w.setLink(a, b, false, 0)
		key := a.write("x", "in the set")
		a.end("kill")
		w.openLinks()
		w.until("both are closed by force", func() bool {
			for _, n := range []*simNode{a, d} {
				_ = c.node.CloseOpen(t.Context(), n.name, true)
			}
			h, err := b.node.Horizon(t.Context())
			return err == nil && key.Less(h)
		})
		var last hub.Key
		for range 30 {
			last = b.write("x", "later")
			b.past(last)
			c.past(last)
			time.Sleep(time.Second)
		}
		for _, n := range []*simNode{b, c} {
			if _, err := n.node.store.Get(t.Context(), "x", key); !key.Less(n.node.Floor("x")) || !hub.Is(err, hub.NotFound) {
				t.Fatalf("%s has not swept the set: %v", n.name, err)
			}
		}
		d.start()
		d.past(last)
	})
}

// A node whose list could be read and not be written announced its incarnation and took that back, again and again, as fast as the coordinator answered: either woke it anew.
func TestListThatCannotBeWritten(t *testing.T) {
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		n, g := w.nodes[1], &reader{}
		n.end("kill")
		w.tune = func(o *Options) { g.Coordinator, o.Cluster.Coordinator = o.Cluster.Coordinator, g }
		n.start()
		w.tune = nil
		time.Sleep(10 * time.Second)
		if reads := g.reads.Load(); reads == 0 || reads > 300 {
			t.Errorf("the list was read %d times in 10 s", reads)
		}
		g.mends.Store(true)
		w.whole()
		n.past(n.write("a", "after all"))
	})
}

// reader is a coordinator whose list can be read only, until it is mended.
type reader struct {
	coord.Coordinator
	reads atomic.Int64
	mends atomic.Bool
}

func (r *reader) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	if name == listRegister && r.reads.Add(1) > 1000 {
		hub.Sleep(ctx, time.Second) // or virtual time would stand still
	}
	return r.Coordinator.Get(ctx, name)
}

func (r *reader) Set(ctx context.Context, name string, value []byte, version uint64) (uint64, error) {
	if name == listRegister && !r.mends.Load() {
		return 0, hub.E(hub.Unavailable, "the list cannot be written")
	}
	return r.Coordinator.Set(ctx, name, value, version)
}

// The file of late items was made, and a full disk kept its first line out: from then on it could not be made again, and the closing was never finished there.
func TestLateListOnAFullDisk(t *testing.T) {
	for _, op := range []memdisk.Op{memdisk.OpWrite, memdisk.OpSync, memdisk.OpSyncDir} {
		for _, effect := range []memdisk.Effect{0, 1, 2} {
			d := memdisk.New(memdisk.Options{})
			b, err := openLate(d)
			if err != nil {
				t.Fatal(err)
			}
			items := []LateItem{{Channel: "x", Key: "1", Stream: "1.1", Node: "with a long name"}, {Channel: "x", Key: "2", Stream: "1.1", Node: "n"}}
			name := lateFile
			if op == memdisk.OpSyncDir {
				name = "*"
			}
			d.Inject(memdisk.Rule{Ops: op, Name: name, Times: 1, Fault: memdisk.Fault{Err: errFault, Effect: effect}})
			if _, err := b.add(items[:1]); err == nil {
				t.Fatal("a failed call made names durable")
			}
			if fresh, err := b.add(items[1:]); err != nil || len(fresh) != 1 {
				t.Fatalf("%v %v: nothing can be named after a failure: %v", op, effect, err)
			}
			if _, err := b.add(items[:1]); err != nil {
				t.Fatal(err)
			}
			again, err := openLate(d.Restart(memdisk.PowerCut, 1))
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := again.page(0, 0)
			if _, count := again.state(); err != nil || count != 2 || len(list) != 2 || list[0] != items[1] || list[1] != items[0] {
				t.Errorf("%v %v: %d items are named: %v %v", op, effect, count, list, err)
			}
		}
	}
}

// TestDamagedWitness: one whose disk cannot tell what it holds of a stream counts as silent when that is closed: the others are enough.
func TestDamagedWitness(t *testing.T) {
	directed(t, 5, roster.Half, func(t *testing.T, w *simWorld) {
		dead, damaged := w.nodes[0], w.nodes[1]
		var k hub.Key
		for i := range 20 {
			k = dead.write("a", fmt.Sprint("item ", i))
		}
		for _, n := range w.nodes[1:] {
			n.past(k)
		}
		for _, n := range w.nodes[2:] { // damaged is ahead of the others, so its low is not the base
			w.setLink(dead, n, false, 0)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, _ = dead.node.Write(ctx, "a", []byte("nobody else has this"))
		if !damaged.spoil("nobody else has this") {
			t.Fatal("it is not there")
		}
		dead.end("power")
		for _, n := range w.nodes[2:] {
			n.past(n.write("a", "after "+n.name))
		}
		damaged.past(k)
		damaged.past(damaged.write("a", "after all"))
	})
}
