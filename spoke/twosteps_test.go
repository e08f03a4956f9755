package spoke

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// Courses of events in which something fails, or changes, between two steps that belong together.

// failing lets every change of a node's file of promises fail until mend.
func (n *simNode) failing() (mend func()) {
	return n.disk.Inject(memdisk.Rule{Ops: memdisk.Changes, Name: "cluster*", Fault: memdisk.Fault{Err: errFault}})
}

// of tells how a node has a stream.
func (n *simNode) of(s roster.Stream) (st peerStream, closed bool) {
	n.node.mu.Lock()
	defer n.node.mu.Unlock()
	i, _ := n.node.cluster.rec.Find(s)
	if p := n.node.cluster.streams[streamOf(s)]; p != nil {
		st = *p
	}
	return st, i.Closed != nil
}

// That a hole is mended is known to the log although it could not be written down when that was tried first.
func TestMendedHoleIsWrittenDownLater(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		b := w.nodes[1]
		for _, data := range []string{"item one", "item two", "item three"} {
			b.past(w.nodes[0].write("x", data))
			time.Sleep(20 * time.Millisecond)
		}
		b.end("kill")
		if !b.spoil("item one") {
			t.Fatal("it is not on the disk")
		}
		w.tune = func(o *Options) { o.ClockGuard = 10 * time.Second } // it lasts so long until the hole counts as mended
		b.start()
		w.tune = nil
		w.until("only streams of others that go on are missing", func() bool {
			n := b.node
			n.mu.Lock()
			defer n.mu.Unlock()
			c := n.cluster
			for id, s := range c.streams {
				if i, _ := c.rec.Find(recordOf(id)); (i.Closed != nil || i.Node == b.name && id != n.stream) && !s.settled {
					return false
				}
			}
			return c.open && c.rec.Next == nil && !c.noHole()
		})
		mend := b.failing()
		w.until("they have come", func() bool { return !b.holed() })
		time.Sleep(3 * time.Second)
		mend()
		w.until("the log knows that its hole is mended", func() bool { _, hurt := b.node.store.Hurt(); return !hurt })
		b.end("kill")
		b.start()
		if b.holed() {
			t.Error("the hole was mended, and is looked for again")
		}
	})
}

// A disk alone with a hole has nobody to copy from: what was lost is lost, and the rest goes on.
func TestHoleOfOneAlone(t *testing.T) {
	t.Parallel()
	directed(t, 1, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		want := map[hub.Key]string{}
		for _, data := range []string{"item one", "item two", "item three"} {
			want[n.write("x", data)] = data
			time.Sleep(20 * time.Millisecond)
		}
		n.end("kill")
		if !n.spoil("item one") {
			t.Fatal("it is not on the disk")
		}
		n.start()
		w.whole()
		last := n.write("x", "more")
		n.past(last)
		if page := n.stable("x"); page == nil || len(page.Keys) < 3 {
			t.Errorf("it says %v", page)
		}
	})
}

// Everything of a closed stream is on a disk, and that could not be written down: it is tried again, or the log waits for it for ever.
func TestCompleteIsWrittenDownLater(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, third := w.nodes[0], w.nodes[2]
		g := third.gated(&gate{})
		s := recordOf(n.node.stream)
		g.shut(false, "end", "acquire")
		n.end("kill")
		w.until("it knows of the end", func() bool { st, closed := third.of(s); return closed && st.promised })
		time.Sleep(3 * time.Second)
		mend := third.failing()
		g.shut(false)
		w.until("it has all of it", func() bool { st, _ := third.of(s); return st.complete })
		time.Sleep(3 * time.Second)
		mend()
		w.until("that is durable", func() bool { st, _ := third.of(s); return st.settled })
	})
}

// When all disks that had what a stream has replicated are gone, one that comes later does not do without it only because nobody answers.
func TestReplicatedIsAskedForUntilSomebodyAnswers(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		third := w.nodes[2]
		w.between(third, w.nodes[0], false)
		w.between(third, w.nodes[1], false)
		c := third.node.cluster
		i, _ := w.list().Find(recordOf(w.nodes[0].node.stream))
		if err := c.takeSent(t.Context(), i, ending{Base: 1, Holders: []string{"a disk that was replaced"}}); err == nil {
			t.Error("nobody has answered, and that is enough")
		}
	})
}

// A disk that had what a stream has replicated, and has a hole, may have it no more.
func TestReplicatedAndAHole(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, next, third := w.nodes[0], w.nodes[1], w.nodes[2]
		s := recordOf(n.node.stream)
		item := inFlight(t, w, func() { w.between(n, third, false); w.between(next, third, false) })
		n.start()
		w.until("its stream is closed", func() bool { i, ok := w.list().Find(s); return !ok || i.Closed != nil })
		for range 3 { // in a segment of its own
			time.Sleep(spokelog.DefaultSegmentAge)
			next.write("a", "behind it")
		}
		next.end("kill")
		next.hollow("from a source")
		w.between(n, next, false)
		w.between(next, third, true)
		next.start()
		if !next.holed() {
			t.Fatal("nobody noticed the hole")
		}
		time.Sleep(10 * time.Second)
		if third.holdsItem(item.Key) {
			t.Fatal("the third one has it: this test shows nothing")
		}
		w.openLinks()
		w.whole()
		last := n.write("a", "later")
		for _, m := range w.nodes {
			m.past(last)
			if !m.holdsItem(item.Key) {
				t.Errorf("%s has caught up, and has not what was replicated", m.name)
			}
		}
	})
}

// One who closes a stream may go away while a slow disk stores his set. What is written then is not in the set of another one: it is given up when it has come.
func TestRuleSetOfALeaderWhoIsGone(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, leads, slow := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, g := range gates {
			g.shut(false, "acquire")
		}
		slow.write("a", "there is a segment now")
		w.between(n, leads, false)
		w.between(n, slow, false)
		s := recordOf(n.node.stream)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		k, _ := n.node.Write(ctx, "a", []byte("on one disk"))
		w.session(n, false)
		c := slow.node.cluster
		low, err := c.refuse(t.Context(), streamOf(s))
		if err != nil {
			t.Fatal(err)
		}
		w.between(n, slow, true)
		mend := slow.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Fault: memdisk.Fault{Delay: 20 * time.Second}})
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		key := named{"a", k.String()}
		if _, err := c.takeSet(gone, storeOrder{Stream: s, Base: low, Keys: []named{key}, Have: map[string][]string{"a/" + k.String(): {n.name}}}); err == nil {
			t.Fatal("it was stored at once: this test shows nothing")
		}
		mend()
		w.between(n, slow, false)
		gates[1].shut(false)
		w.until("another one has closed it", func() bool { i, ok := w.list().Find(s); return !ok || i.Closed != nil })
		if i, ok := w.list().Find(s); ok && i.Closed.Count > 0 {
			t.Fatal("it is in the set: this test shows nothing")
		}
		time.Sleep(30 * time.Second)
		w.until("all of it is here", func() bool { st, _ := slow.of(s); return st.complete })
		if _, err := leads.node.store.Get(t.Context(), "a", k); !hub.Is(err, hub.NotFound) {
			t.Errorf("the leader: %v", err)
		}
		if _, err := slow.node.store.Get(t.Context(), "a", k); !hub.Is(err, hub.NotFound) {
			t.Errorf("%v is not in the set, and is shown: %v", k, err)
		}
	})
}

// The disk of one node takes nothing any more, and the node goes on: what it had in flight does not hold the horizons of the others.
func TestDiskThatTakesNothingHoldsNobody(t *testing.T) {
	t.Parallel()
	for name, ill := range map[string]func(*simNode){
		"nearly full": func(n *simNode) {
			free, _ := n.disk.Free()
			n.disk.SetCapacity(1<<40 - free + 1<<19)
		},
		"full": func(n *simNode) { n.disk.SetCapacity(1) },
		"broken": func(n *simNode) {
			n.disk.Inject(memdisk.Rule{Ops: memdisk.Changes, Fault: memdisk.Fault{Err: errFault}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
				n := w.nodes[0]
				w.tune = func(o *Options) { o.Segments.MinFree = 1 << 20 }
				w.restart()
				n.write("a", "there is a segment now")
				w.setLink(w.nodes[1], n, false, 0)
				w.setLink(w.nodes[2], n, false, 0)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = n.node.Write(context.Background(), "a", []byte("in flight"))
				}()
				time.Sleep(100 * time.Millisecond)
				ill(n)
				<-done
				w.openLinks()
				last := w.nodes[1].write("a", "later")
				w.nodes[2].past(last)
				n.end("kill")
			})
		})
	}
}

// What a disk promises of a closed stream outlasts a power cut, also where what is acknowledged need not.
func TestPromisesOutlastPowerWithoutSync(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) { promises(t, w, seed) })
	}
}

func promises(t *testing.T, w *simWorld, seed uint64) {
	w.rng = rand.New(rand.NewPCG(seed, 3)) // of what was written and not synced, some is lost
	w.tune = func(o *Options) { o.Segments.Sync = spokelog.Interval }
	w.restart()
	n, other, third := w.nodes[0], w.nodes[1], w.nodes[2]
	third.write("a", "there is a segment now")
	time.Sleep(time.Second)
	w.between(n, third, false)
	w.between(other, third, false)
	s := recordOf(n.node.stream)
	k := n.write("a", "on two disks")
	time.Sleep(time.Second)
	w.session(n, false)
	w.until("it is closed", func() bool { i, ok := w.list().Find(s); return !ok || i.Closed != nil })
	w.between(other, third, true)
	w.until("it has all of it", func() bool { st, _ := third.of(s); return st.settled })
	third.end("power")
	third.start()
	w.until("it answers", func() bool { page := third.stable("a"); return page != nil && !page.Horizon.Less(k) })
	if page := third.stable("a"); !slices.Contains(page.Keys, k) {
		t.Errorf("it promises everything up to %v and lacks %v", page.Horizon, k)
	}
}

// A node whose disk is ill, and whose session lives, holds neither the horizons of the others nor their lists; when the disk is well again, it is one of them again.
func TestIllDiskHoldsNobody(t *testing.T) {
	t.Parallel()
	for name, ill := range map[string]func(*simNode) (heal func()){
		"hangs": func(n *simNode) func() {
			return n.disk.Inject(memdisk.Rule{Ops: memdisk.Changes, Fault: memdisk.Fault{Delay: time.Minute}})
		},
		"broken": func(n *simNode) func() {
			return n.disk.Inject(memdisk.Rule{Ops: memdisk.Changes, Fault: memdisk.Fault{Err: errFault}})
		},
		"full": func(n *simNode) func() { n.disk.SetCapacity(1); return func() { n.disk.SetCapacity(0) } },
	} {
		t.Run(name, func(t *testing.T) {
			directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
				n, other, third := w.nodes[0], w.nodes[1], w.nodes[2]
				n.write("a", "there is a segment now")
				heal := ill(n)
				defer heal()
				time.Sleep(time.Second)
				other.past(third.write("a", "later"))
				other.end("kill")
				other.start()
				w.until("another one writes after a restart", func() bool { _, err := other.node.Write(t.Context(), "a", []byte("restarted")); return err == nil })
				heal()
				w.whole()
				last := n.write("a", "well again")
				for _, m := range w.nodes {
					m.past(last)
				}
			})
		})
	}
}

// A node that was closed by the others and cannot begin anew, because its disk is full, says that, and not that it waits for the others.
func TestFullDiskSaysSo(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		n.write("a", "there is a segment now")
		s := recordOf(n.node.stream)
		n.disk.SetCapacity(1)
		w.session(n, false)
		w.until("it is closed", func() bool { i, ok := w.list().Find(s); return !ok || i.Closed != nil })
		w.session(n, true)
		time.Sleep(time.Minute)
		if _, err := n.node.Write(t.Context(), "a", []byte("refused")); !hub.Is(err, hub.Full) {
			t.Errorf("it says %v", err)
		}
		n.disk.SetCapacity(0)
		w.whole()
		n.write("a", "there is room again")
	})
}

// A disk that is only slow is not ill.
func TestSlowDiskIsNotIll(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		own := n.node.stream
		heal := n.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Fault: memdisk.Fault{Delay: 600 * time.Millisecond}})
		defer heal()
		for range 30 {
			w.nodes[1].write("a", "beside it")
			time.Sleep(2 * time.Second)
			if !n.node.cluster.mayJoin() {
				t.Fatal("it has left the others")
			}
		}
		if now := n.node.stream; now != own {
			t.Errorf("it has begun another incarnation: %v, it was %v", now, own)
		}
	})
}

// What others had swept is read from long-term storage for as long as this disk lags behind, and no longer: a new disk has swept nothing, and says so of all that is older than itself.
func TestFloorOfOthersIsForgotten(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, other, third := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(third, n, false)
		w.between(third, other, false)
		time.Sleep(time.Second)
		floor := hub.KeyAt(time.Now().UnixMilli(), "")
		third.node.cluster.hear(floor)
		if at := third.node.Floor("a"); at != floor {
			t.Fatalf("its floor is %v, and it has heard of %v", at, floor)
		}
		w.openLinks()
		third.past(n.write("a", "later"))
		if at := third.node.Floor("a"); at != third.node.store.Floor() {
			t.Errorf("its floor is %v, and it has everything from %v on", at, third.node.store.Floor())
		}
	})
}

// A closing that is finished and a hole that is refilled may find late items at the same time.
func TestLateItemsOfTwo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		d.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Name: lateFile, Fault: memdisk.Fault{Delay: time.Second}})
		b, err := openLate(d)
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		for _, key := range []string{"one", "two"} {
			both.Go(func() {
				if _, err := b.add([]LateItem{{Channel: "a", Key: key}}); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if items, _, err := b.page(0, 0); err != nil || len(items) != 2 {
			t.Errorf("%v, %v", items, err)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

// While the disk of one node stands still, the others go on; what they send there waits with them, and does not fill its memory.
func TestSlowDiskHoldsTheLine(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		w.tune = func(o *Options) { o.Cluster.room = 1 << 20 }
		w.restart()
		n, slow := w.nodes[0], w.nodes[2]
		slow.stuck(time.Minute)
		data := strings.Repeat("x", 64<<10)
		var last hub.Key
		for i := range 200 {
			last = n.write("a", data)
			time.Sleep(10 * time.Millisecond)
			if waiting := slow.node.store.Status().Waiting; waiting > 2<<20/len(data) {
				t.Fatalf("after %d items of 64 KiB, %d batches are waiting for the disk", i, waiting)
			}
		}
		slow.past(last)
	})
}

// What is copied slowly on purpose is copied once: the time in which nothing is read does not break the line.
func TestSlowRepairIsNotBrokenOff(t *testing.T) {
	t.Parallel()
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		var broken atomic.Int32
		w.tune = func(o *Options) {
			o.Cluster.RepairRate = 100 << 10
			o.Log = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
				if bytes.Contains(b, []byte("could not be repaired")) && bytes.Contains(b, []byte(context.Canceled.Error())) {
					broken.Add(1)
				}
				return len(b), nil
			}), &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		w.restart()
		n, other, third := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(n, third, false)
		w.between(other, third, false)
		var last hub.Key
		for range 24 {
			last = n.write("a", strings.Repeat("x", 200<<10))
		}
		time.Sleep(time.Second)
		n.end("power")
		w.between(other, third, true)
		third.past(last)
		if broken.Load() > 0 {
			t.Errorf("it was broken off %d times", broken.Load())
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
