package spoke

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/spoke/roster"
)

// Courses of events that are too rare for a search by chance: the model of the protocol has found the first three after some hundred thousand schedules each. Here they
// are played on nodes. TestClusterMutants breaks the rule that each of them is about.

// gate stands between a node and the coordinator.
type gate struct {
	coord.Coordinator
	closes func(roster.Roster) bool // the node that has put a list like this on record finds the gate closed; nil: it stays open
	behind []string                 // by that: see shut

	mu    sync.Mutex
	calls []string // that do not get through
	hangs bool     // they are not answered; otherwise they fail
}

// shut lets calls not get through: of the list "get" and "set", of the record of an end "update", of what is on record of it "end", of the right to close something "acquire".
func (g *gate) shut(hangs bool, calls ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls, g.hangs = calls, hangs
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.calls) > 0
}

func (g *gate) way(ctx context.Context, call string) error {
	for {
		g.mu.Lock()
		closed, hangs := slices.Contains(g.calls, call), g.hangs
		g.mu.Unlock()
		switch {
		case !closed:
			return nil
		case !hangs:
			return hub.E(hub.Unavailable, "the coordinator is away")
		case !hub.Sleep(ctx, 10*time.Millisecond):
			return context.Cause(ctx)
		}
	}
}

func (g *gate) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	call := ""
	switch {
	case name == listRegister:
		call = "get"
	case strings.HasPrefix(name, closedPrefix):
		call = "end"
	}
	if err := g.way(ctx, call); err != nil {
		return nil, 0, err
	}
	return g.Coordinator.Get(ctx, name)
}

func (g *gate) Set(ctx context.Context, name string, value []byte, version uint64) (uint64, error) {
	if name != listRegister {
		return g.Coordinator.Set(ctx, name, value, version)
	}
	if err := g.way(ctx, "set"); err != nil {
		return 0, err
	}
	v, err := g.Coordinator.Set(ctx, name, value, version)
	if rec, e := roster.Parse(value); errors.Join(err, e) == nil && g.closes != nil && g.closes(rec) {
		g.shut(g.hangs, g.behind...)
	}
	return v, err
}

func (g *gate) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	if err := g.way(ctx, "update"); err != nil {
		return nil, err
	}
	return g.Coordinator.Update(ctx, changes)
}

func (g *gate) Acquire(ctx context.Context, name string) (coord.Lease, error) {
	if err := g.way(ctx, "acquire"); err != nil {
		return nil, err
	}
	return g.Coordinator.Acquire(ctx, name)
}

// gated starts a node again, behind a gate.
func (n *simNode) gated(g *gate) *gate {
	n.w.tune = func(o *Options) {
		g.Coordinator = o.Cluster.Coordinator
		o.Cluster.Coordinator = g
	}
	n.end("stop")
	n.start()
	n.w.tune = nil
	n.w.whole()
	return g
}

// between cuts or mends both directions between two nodes.
func (w *simWorld) between(a, b *simNode, open bool) {
	w.setLink(a, b, open, 0)
	w.setLink(b, a, open, 0)
}

// joins is another member, on the list in force, that writes.
func (w *simWorld) joins() *simNode {
	n := w.member()
	w.until("another one has joined", func() bool {
		r := w.list()
		_, ok := r.Member(n.name)
		return ok && r.Next == nil
	})
	w.until("the joiner writes", func() bool { _, err := n.node.Write(w.t.Context(), "b", nil); return err == nil })
	return n
}

// leaver is a node that was decommissioned and has said yes to its removal, but does not hear what becomes of it: the list goes on without it, another node joins.
func leaver(t *testing.T, w *simWorld, hangs bool) (left, stays, joined *simNode) {
	stays, left = w.nodes[0], w.nodes[1]
	g := left.gated(&gate{hangs: hangs, behind: []string{"get"}, closes: func(rec roster.Roster) bool {
		return rec.Next != nil && rec.Next.Stream == nil && acks(rec, left.name)
	}})
	stays.past(left.write("a", "before"))
	left.past(stays.write("a", "before"))
	if err := stays.node.Leave(t.Context(), left.name); err != nil {
		t.Fatal(err)
	}
	w.until("it has answered", g.isShut)
	w.until("it has gone", func() bool { return w.list().Left(left.name) })
	joined = w.joins()
	left.node.mu.Lock()
	defer left.node.mu.Unlock()
	if stays.epochOf() <= left.node.cluster.epoch() {
		t.Fatal("the node that leaves knows the list")
	}
	return left, stays, joined
}

func (n *simNode) epochOf() uint64 { return n.node.cluster.state().Epoch }

// Repair took lows from a member whose list was newer: they counted a stream of which the repaired disk had never heard, and its stable answers lacked what was written there.
func TestRuleRepairFromAnUnknownEpoch(t *testing.T) {
	t.Parallel()
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		left, stays, joined := leaver(t, w, false)
		k := joined.write("a", "the old list does not know its writer")
		stays.past(k)
		for range 3 {
			stays.write("b", "later")
		}
		own := recordOf(stays.node.stream).String()
		if low := stays.node.cluster.state().Lows[own]; !k.Less(low.Key()) {
			t.Fatalf("the low that is copied is %v only", low.Key())
		}
		for range 50 {
			if page := left.stable("a"); page != nil && !page.Horizon.Less(k) && !slices.Contains(page.Keys, k) {
				t.Fatalf("a node with an old list promises everything up to %v, and lacks %v, which was acknowledged", page.Horizon, k)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// A node that leaves called what it had found whole. Two rules stand in the way, each of which is enough: it knows that it leaves, and the others know a newer list.
func TestRuleLeaverReadsNoMore(t *testing.T) {
	t.Parallel()
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		left, stays, joined := leaver(t, w, true)
		w.between(joined, stays, false)
		silent(t, left, joined.write("a", "the old list does not know its disk"))
	})
}

// silent demands that a node which lacks an acknowledged item says that its answer may lack something.
func silent(t *testing.T, n *simNode, k hub.Key) {
	t.Helper()
	page, err := n.node.Keys(t.Context(), hub.Query{Channel: "a", From: hub.MinKey, To: hub.MaxKey})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(page.Keys, k) {
		t.Fatal("it has the item: this test shows nothing")
	}
	if page.Silent == 0 {
		t.Errorf("%s says that its answer is whole, and lacks %v, which was acknowledged", n.name, k)
	}
}

// A node that knows an old list only may find enough members of that, and none of those that have what was written since.
func TestRuleReadByAnOldList(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]bool{"no session": false, "session lost a moment ago": true} {
		t.Run(name, func(t *testing.T) {
			directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
				n := w.nodes[1]
				g := n.gated(&gate{})
				g.shut(hangs, "get")
				time.Sleep(2 * learnEvery)
				w.store.Cut(n.session)
				joined := w.joins()
				w.between(joined, w.nodes[0], false)
				w.between(n, w.nodes[2], false)
				k := joined.write("a", "on disks of which the one is not known, the other does not answer")
				silent(t, n, k)
			})
		})
	}
}

// A list was changed while a member was silent whose incarnation was open. The new incarnation was to mint above the clocks of those who had answered: not above what the silent
// one, whose clock was ahead, had already shown without it.
func TestRuleChangeWaitsForTheSilent(t *testing.T) {
	t.Parallel()
	directed(t, 2, roster.Majority, func(t *testing.T, w *simWorld) {
		n, other := w.nodes[0], w.nodes[1]
		n.setSkew(-200 * time.Millisecond)
		other.setSkew(200 * time.Millisecond)
		time.Sleep(2 * clockEvery)
		other.past(n.write("a", "before"))
		old := n.node.stream
		w.store.Cut(n.session)
		w.until("the other one has closed its incarnation, and has all of it", func() bool {
			other.node.mu.Lock()
			defer other.node.mu.Unlock()
			s := other.node.cluster.streams[old]
			return s != nil && s.complete
		})
		defer w.busy(other)()
		// Nothing tells the clock of the one to the other from now on: what comes is applied with a record that is on its way to the disk.
		n.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Delay: 1500 * time.Millisecond}})
		var beside sync.WaitGroup
		defer beside.Wait()
		beside.Go(func() {
			_ = other.node.WriteKeyed(context.WithoutCancel(t.Context()), replica, hub.Sealed{Key: hub.KeyAt(time.Now().UnixMilli(), "s0urce"), Data: []byte("x")})
		})
		time.Sleep(100 * time.Millisecond)
		w.store.Cut(other.session)
		w.store.Mend(n.session)
		w.until("the change is announced", func() bool { return w.list().Next != nil || w.list().Epoch > other.epochOf() })
		time.Sleep(200 * time.Millisecond)
		shown, began := hub.MinKey, other.epochOf()
		if page := other.stable("a"); page != nil {
			shown = page.Horizon
		}
		w.store.Mend(other.session)
		beside.Go(func() { // until it knows of the change
			for other.epochOf() == began {
				if page := other.stable("a"); page != nil {
					shown = page.Horizon
				}
				time.Sleep(time.Millisecond)
			}
		})
		var k hub.Key
		w.until("the new incarnation writes", func() (ok bool) {
			var err error
			k, err = n.node.Write(t.Context(), "a", []byte("after"))
			return err == nil
		})
		beside.Wait()
		if !shown.Less(k) {
			t.Errorf("%v was acknowledged, and the other node has shown a horizon of %v without it", k, shown)
		}
		if clock := n.clock().UnixMilli(); shown.Millis() < clock-2000 {
			t.Errorf("a horizon of %v, at %d, shows nothing", shown, clock)
		}
	})
}
