package spoke

import (
	"context"
	"sync"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// Courses of events for rules that the search breaks without noticing it in a minute. All nodes are asked all the time, and the judge compares their answers; in the end all
// faults are mended, and all have to get on.

// observed is directed with everybody watched.
func observed(t *testing.T, nodes int, rule roster.Rule, play func(t *testing.T, w *simWorld)) {
	directed(t, nodes, rule, func(t *testing.T, w *simWorld) {
		over := make(chan struct{})
		var watch sync.WaitGroup
		defer watch.Wait()
		defer close(over)
		watch.Go(func() {
			for !w.judge.failed() {
				for _, n := range w.living() {
					w.ask(n)
				}
				select {
				case <-over:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
		play(t, w)
		if w.judge.failed() {
			return
		}
		w.endFaults()
		w.startDead(true)
		w.whole()
		last := hub.MinKey
		for _, n := range w.living() {
			if k, _ := w.try(n, "the end"); last.Less(k) {
				last = k
			}
		}
		for _, n := range w.living() {
			n.past(last)
		}
	})
}

// ask gives the judge a stable answer of a node.
func (w *simWorld) ask(n *simNode) {
	node, life := w.current(n)
	if node == nil {
		return
	}
	page, err := node.Keys(context.Background(), hub.Query{Channel: "a", From: hub.MinKey, To: hub.MaxKey, Stable: true})
	if _, now := w.current(n); err == nil && now == life {
		w.judge.answer(n.name, "a", page, true)
	}
}

// try writes an item and tells the judge.
func (w *simWorld) try(n *simNode, data string) (hub.Key, error) {
	node, life := w.current(n)
	began := time.Now()
	w.judge.offers("a", data)
	k, err := node.Write(context.Background(), "a", []byte(data))
	if k.IsZero() {
		return k, err
	}
	_, now := w.current(n)
	w.judge.wrote(n.name, "a", []hub.Key{k}, []string{data}, err, now == life, began)
	return k, err
}

// slow lets the next sync of a node's log take its time. A power cut before its end may leave what was written, or not.
func (n *simNode) slow(d time.Duration) { n.delay(memdisk.OpSync, "spoke/*", d) }

// stuck lets the next write to a node's log take its time. A power cut before its end leaves nothing of it.
func (n *simNode) stuck(d time.Duration) { n.delay(memdisk.OpWrite, "spoke/*", d) }

func (n *simNode) delay(op memdisk.Op, name string, d time.Duration) {
	n.disk.Inject(memdisk.Rule{Ops: op, Name: name, Times: 1, Fault: memdisk.Fault{Delay: d}})
}

// A key is given up when its name is on enough disks. Before that, the writer's readers must not go on: the others may have the item and not its name, or neither.
func TestRuleNameNeedsEnoughDisks(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{true, false} {
		observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			n, slow := w.nodes[0], w.nodes[1]
			w.setLink(n, w.nodes[2], false, 0)
			w.setLink(n, slow, elsewhere, 0)
			slow.slow(6 * time.Second)
			var beside sync.WaitGroup
			beside.Go(func() {
				if _, err := w.try(n, "on a disk that is slow, or on no other one"); err == nil {
					t.Error("it was acknowledged")
				}
			})
			time.Sleep(500 * time.Millisecond)
			w.setLink(n, slow, false, 0)
			time.Sleep(2500 * time.Millisecond)
			n.end("power")
			beside.Wait()
			time.Sleep(10 * time.Second)
		})
	}
}

// session ends a session, or begins one.
func (w *simWorld) session(n *simNode, lives bool) {
	if n.cut = !lives; lives {
		w.store.Mend(n.session)
	} else {
		w.store.Cut(n.session)
	}
}

// closeOf ends the incarnation of a node by cutting its session, and waits until another one has all of it.
func (w *simWorld) closeOf(n, other *simNode) {
	old := n.node.stream
	w.session(n, false)
	w.until("the incarnation is closed", func() bool {
		other.node.mu.Lock()
		defer other.node.mu.Unlock()
		s := other.node.cluster.streams[old]
		return s != nil && s.complete
	})
}

// An incarnation mints above the clocks of those who answered to it: its own clock may be behind what they have shown meanwhile.
func TestRuleMintAboveTheAnswers(t *testing.T) {
	t.Parallel()
	observed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		n, other := w.nodes[0], w.nodes[1]
		n.setSkew(-200 * time.Millisecond)
		other.setSkew(200 * time.Millisecond)
		time.Sleep(2 * clockEvery)
		w.closeOf(n, other)
		w.between(n, other, false)
		time.Sleep(time.Second)
		w.session(n, true)
		w.until("it writes again", func() bool {
			_, err := w.try(n, "behind")
			return err == nil
		})
	})
}

// What a stream says by a list that is not known here counts nothing: it promises that nothing is missing of streams that are on that list.
func TestRuleFramesOfAnUnknownEpoch(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[1]
		g := n.gated(&gate{})
		g.shut(true, "set")
		own := n.node.stream
		w.closeOf(n, w.nodes[0])
		w.session(n, true)
		w.until("it has all of its own incarnation", func() bool {
			n.node.mu.Lock()
			defer n.node.mu.Unlock()
			return n.node.cluster.streams[own].complete
		})
		time.Sleep(learnEvery)
		w.session(n, false)
		joined := w.joins()
		if n.epochOf() >= joined.epochOf() {
			t.Fatal("it knows the list")
		}
		k, err := w.try(joined, "of a stream that is not known")
		if err != nil {
			t.Fatal(err)
		}
		w.nodes[0].past(k)
		time.Sleep(10 * time.Second)
		g.shut(false)
	})
}

// Who acknowledges has the record on the disk: after a power cut it is there.
func TestRulePowerBehindAnAcknowledgement(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, slow, other := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(n, other, false)
		slow.stuck(10 * time.Second)
		_, _ = w.try(n, "on a disk that is slow")
		slow.end("power")
		w.lost(n)
		w.openLinks()
		w.startDead(true)
		w.whole()
		time.Sleep(5 * time.Second)
	})
}

// lost gives a node an empty disk; it does not start.
func (w *simWorld) lost(n *simNode) {
	n.end("power")
	old := n.disk
	n.disk = w.newDisk(n)
	if text, err := readFile(old, identityFile); err == nil && breaks("lost-disk-counts") {
		_ = replaceFile(n.disk, identityFile, text)
	}
}

// A name that may or may not have got to the disk before the log was closed decides nothing, although what came behind it is known not to be there.
func TestRuleNameOfAClosedLog(t *testing.T) {
	t.Parallel()
	directed(t, 1, roster.Half, func(t *testing.T, w *simWorld) {
		n := w.nodes[0]
		n.past(n.write("a", "before"))
		write := func(data string) {
			w.actors.Go(func() { _, _ = n.node.Write(context.Background(), "a", []byte(data)) })
		}
		n.slow(3 * time.Second)
		write("too late") // it gets to the disk when it is being given up
		time.Sleep(time.Second)
		n.stuck(10 * time.Second) // so its name does not
		time.Sleep(3 * time.Second)
		write("behind it")
		time.Sleep(time.Second)
		n.end("kill")
		w.actors.Wait()
		n.start()
		w.whole()
		n.past(n.write("a", "after"))
		keys := n.stable("a").Keys
		if len(keys) != 3 {
			t.Errorf("%d items show, want 3", len(keys))
		}
		for _, k := range keys {
			if w.judge.gone["a"][k] {
				t.Errorf("%v was given up, and shows", k)
			}
		}
	})
}

// What a stream has decided counts when everything before it is on the disk.
func TestRuleLowBehindRecords(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, slow := w.nodes[0], w.nodes[1]
		slow.slow(3 * time.Second)
		for range 20 {
			if _, err := w.try(n, "in time"); err != nil {
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// Nothing is acknowledged before it is on the writer's own disk: its readers would lack it.
func TestRuleOwnDiskCounts(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		for range 5 {
			w.nodes[0].slow(time.Second)
			if _, err := w.try(w.nodes[0], "on the disks of the others first"); err != nil {
				t.Error(err)
			}
		}
	})
}

// A key whose name is on its way is not committed any more, although its record gets to enough disks: readers of those that have the name would lack it.
func TestRuleLateAcknowledgement(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, slow := w.nodes[0], w.nodes[1]
		_, _ = w.try(n, "there is a segment now")
		time.Sleep(time.Second)
		w.setLink(n, w.nodes[2], false, 0)
		slow.slow(3 * time.Second)
		slow.slow(6 * time.Second)
		_, err := w.try(n, "on a disk that is slow")
		if err == nil {
			t.Error("it was acknowledged")
		}
		time.Sleep(2 * time.Second) // the record is on the other disk, its name not yet
		n.end("power")
		slow.end("power")
		slow.start()
		time.Sleep(10 * time.Second)
	})
}

// busy lets nobody close the incarnation of a node until release: somebody has the right to, and takes long.
func (w *simWorld) busy(n *simNode) (release func()) {
	w.t.Helper()
	s := w.store.Session("busy")
	if _, err := s.Acquire(w.t.Context(), settlePrefix+recordOf(n.node.stream).String()); err != nil {
		w.t.Fatal(err)
	}
	return func() { w.store.Cut(s) }
}

// gates starts all nodes again, behind gates.
func (w *simWorld) gates() (list []*gate) {
	for _, n := range w.nodes {
		list = append(list, n.gated(&gate{}))
	}
	return list
}

// What came before a refusal is on the disk when it is given, or never will be: whoever closes an incarnation learns of it.
func TestRuleRefusalWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, slow, leads := w.nodes[0], w.nodes[1], w.nodes[2]
		gates[1].shut(true, "acquire")
		w.between(n, leads, false)
		slow.slow(1500 * time.Millisecond)
		var beside sync.WaitGroup
		beside.Go(func() { _, _ = w.try(n, "on its way to a slow disk") })
		time.Sleep(100 * time.Millisecond)
		w.session(n, false)
		beside.Wait()
		time.Sleep(5 * time.Second)
		gates[1].shut(false)
	})
}

// A refusal holds when the one who gave it starts again: the end of the incarnation may be about to go on record.
func TestRuleRefusalOutlastsARestart(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		gates := w.gates()
		n, other, leads := w.nodes[0], w.nodes[1], w.nodes[2]
		gates[1].shut(true, "acquire")
		gates[2].shut(true, "update")
		w.between(n, leads, false)
		w.between(n, other, false)
		w.session(n, false)
		w.until("the other one refuses the incarnation", func() bool {
			other.node.mu.Lock()
			defer other.node.mu.Unlock()
			s := other.node.cluster.streams[n.node.stream]
			return s.refused && s.promised
		})
		time.Sleep(time.Second)
		other.end("kill")
		w.tune = func(o *Options) { gates[1].Coordinator, o.Cluster.Coordinator = o.Cluster.Coordinator, gates[1] }
		other.start()
		w.tune = nil
		w.between(n, other, true)
		for range 20 {
			if _, err := w.try(n, "of an incarnation that is over"); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		gates[2].shut(false)
		time.Sleep(5 * time.Second)
		gates[1].shut(false)
	})
}

// The end of one incarnation is not the beginning of the next one: what is missing of the first is missing until it was settled.
func TestRuleSuccessorDoesNotSettle(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		n, behind := w.nodes[0], w.nodes[1]
		defer w.busy(n)()
		w.between(n, behind, false)
		if _, err := w.try(n, "not on all disks"); err != nil {
			t.Fatal(err)
		}
		n.end("kill")
		n.start()
		time.Sleep(3 * time.Second)
	})
}

// An incarnation writes when all have answered to it: who does not know it, does not wait for it.
func TestRuleMintBehindTheAnswers(t *testing.T) {
	t.Parallel()
	observed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		n, other := w.nodes[0], w.nodes[1]
		g := other.gated(&gate{})
		w.closeOf(n, other)
		g.shut(true, "get")
		w.between(n, other, false)
		time.Sleep(time.Second)
		w.session(n, true)
		for range 30 {
			_, _ = w.try(n, "of a stream that nobody knows")
			time.Sleep(100 * time.Millisecond)
		}
		g.shut(false)
	})
}
