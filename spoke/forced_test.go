package spoke

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// close ends everything, and says what the judge has against it.
func (w *simWorld) close() {
	w.openLinks()
	w.finish()
	if bad := w.judge.verdict(); bad != "" {
		w.t.Error(bad)
	}
}

// part cuts nodes off from the rest and from the coordinator.
func (w *simWorld) part(off ...*simNode) {
	for _, n := range off {
		for _, m := range w.nodes {
			if !slices.Contains(off, m) {
				w.setLink(n, m, false, 0)
				w.setLink(m, n, false, 0)
			}
		}
		n.cut = true
		w.store.Cut(n.session)
	}
}

// putOn writes an item on any of some nodes.
func putOn(data string, nodes ...*simNode) hub.Key {
	w := nodes[0].w
	w.t.Helper()
	for i := range 1200 {
		node, _ := w.current(nodes[i%len(nodes)])
		if k, err := node.Write(context.Background(), "x", []byte(data)); err == nil {
			return k
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Fatalf("nobody takes an item\n%s", w.dump())
	return hub.Key{}
}

// put writes an item, again and again until it is acknowledged; what was refused may be there as well.
func (n *simNode) put(data string) hub.Key {
	n.w.t.Helper()
	node, _ := n.w.current(n)
	for began := time.Now(); ; {
		k, err := node.Write(context.Background(), "x", []byte(data))
		if err == nil {
			return k
		}
		if time.Since(began) > time.Minute {
			n.w.t.Fatalf("%s: %v\n%s", n.name, err, n.w.dump())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (n *simNode) answer() (map[hub.Key]bool, hub.Key, error) {
	node, _ := n.w.current(n)
	page, err := node.Keys(context.Background(), hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey, Stable: true})
	have := map[hub.Key]bool{}
	for _, k := range page.Keys {
		have[k] = true
	}
	return have, page.Horizon, err
}

// shows waits until each node's stable answer holds some keys.
func (w *simWorld) shows(want map[hub.Key]bool, nodes ...*simNode) {
	w.t.Helper()
	var why string
	for range 600 {
		why = ""
		for _, n := range nodes {
			have, _, err := n.answer()
			if err != nil {
				why = n.name + ": " + err.Error()
			}
			for k := range want {
				if !have[k] {
					why = fmt.Sprintf("%s lacks %v", n.name, k)
				}
			}
		}
		if why == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("%s\n%s", why, w.dump())
}

func (n *simNode) late() map[string]string {
	n.w.t.Helper()
	node, _ := n.w.current(n)
	all := map[string]string{}
	for from := int64(0); ; {
		items, _, next, err := node.Late(from, 7)
		if err != nil {
			n.w.t.Fatal(err)
		}
		for _, i := range items {
			if i.Channel != "x" || i.Stream == "" || i.Node == "" || i.Found.IsZero() {
				n.w.t.Errorf("a late item is not named in full: %+v", i)
			}
			all[i.Key] = i.Why
		}
		if from = next; next == 0 {
			return all
		}
	}
}

func TestForcedClosing(t *testing.T) {
	for _, c := range []struct {
		nodes     int
		lives     bool // those who are cut off go on; or they die
		automatic bool
	}{{2, false, false}, {2, true, false}, {4, false, false}, {4, true, true}} {
		t.Run(fmt.Sprintf("%d nodes, lives %v, automatic %v", c.nodes, c.lives, c.automatic), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playForced(t, c.nodes, c.lives, c.automatic) })
		})
	}
}

func playForced(t *testing.T, count int, lives, automatic bool) {
	w := newSim(t, uint64(count))
	w.rule, w.judge.forcible = roster.Half, true
	if automatic {
		w.tune = func(o *Options) { o.Cluster.ForceAfter = 20 * time.Second }
	}
	for range count {
		w.member()
	}
	defer w.close()
	gone, here := w.nodes[:count/2], w.nodes[count/2:]
	early, outside, after := map[hub.Key]bool{}, map[hub.Key]bool{}, map[hub.Key]bool{}
	for i := range 20 {
		early[w.nodes[i%count].put(fmt.Sprint("early ", i))] = true
	}
	w.shows(early, w.nodes...)
	w.part(gone...)
	time.Sleep(200 * time.Millisecond)
	for i := range 20 { // half of the nodes acknowledge
		outside[putOn(fmt.Sprint("outside ", i), gone...)] = true
		after[putOn(fmt.Sprint("here ", i), here...)] = true
	}
	if !lives {
		for _, n := range gone {
			n.end("power")
		}
	}
	time.Sleep(10 * time.Second)
	have, h, err := here[0].answer()
	if err != nil || have[only(after)] {
		t.Fatalf("the horizon did not wait: %v %v", h, err)
	}
	one, _ := w.current(here[0])
	for _, n := range gone {
		if automatic {
			break
		}
		if err := one.CloseOpen(t.Context(), n.name, false); !hub.Is(err, hub.Unavailable) {
			t.Errorf("closed by too few: %v", err)
		}
		if err := one.CloseOpen(t.Context(), n.name, true); err != nil {
			t.Fatalf("%s cannot be closed: %v\n%s", n.name, err, w.dump())
		}
	}
	after[here[0].put("after the closing")] = true
	w.shows(after, here...)
	have, h, _ = here[0].answer()
	if late := here[0].late(); len(late) != 0 {
		t.Errorf("late before anybody has come: %v", late)
	}

	w.openLinks()
	w.mend()
	time.Sleep(3 * time.Second) // what the old incarnations took until they know that they are closed would be late too
	for _, n := range gone {
		if !lives {
			n.start()
		}
		after[n.put("is back")] = true
	}
	all := map[hub.Key]bool{}
	for _, some := range []map[hub.Key]bool{early, outside, after} {
		for k := range some {
			all[k] = true
		}
	}
	w.shows(all, w.nodes...)
	time.Sleep(5 * time.Second)
	w.sameLate(outside, early, after)
	// What was answered before differs from what is answered now only in what is named.
	now, _, _ := here[0].answer()
	late := here[0].late()
	for k := range now {
		if !h.Less(k) && !have[k] && late[k.String()] == "" {
			t.Errorf("%v came late and is not named", k)
		}
	}
	for k := range have {
		if !now[k] {
			t.Errorf("%v is gone", k)
		}
	}
	for _, n := range w.nodes { // nothing of this is in memory only
		n.end("power")
	}
	for _, n := range w.nodes {
		n.start()
	}
	w.shows(all, w.nodes...)
	w.sameLate(outside, early, after)
}

// sameLate: all nodes name the same, at least these and none of those.
func (w *simWorld) sameLate(want map[hub.Key]bool, not ...map[hub.Key]bool) {
	w.t.Helper()
	first := w.nodes[0].late()
	for k := range want {
		if first[k.String()] != LateOutside {
			w.t.Errorf("%v was acknowledged outside of the set and is named %q", k, first[k.String()])
		}
	}
	for _, some := range not {
		for k := range some {
			if first[k.String()] != "" {
				w.t.Errorf("%v is named late: %s", k, first[k.String()])
			}
		}
	}
	for _, n := range w.nodes {
		late := n.late()
		node, _ := w.current(n)
		if _, count, _, _ := node.Late(0, 1); len(late) != len(first) || count != len(first) {
			w.t.Errorf("%s names %d late items and counts %d, not %d", n.name, len(late), count, len(first))
		}
		for k, why := range first {
			if late[k] != why {
				w.t.Errorf("%s says of %s %q, not %q", n.name, k, late[k], why)
			}
		}
	}
}

func only(keys map[hub.Key]bool) hub.Key {
	for k := range keys {
		return k
	}
	return hub.Key{}
}

// A key that was given up for good, by members who do not answer, may be in the set of those who do: then it is back, for everybody, and named.
func TestForcedClosingTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSim(t, 1)
		w.rule, w.judge.forcible = roster.Half, true
		for range 4 {
			w.member()
		}
		defer w.close()
		a, b, c, d := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
		early := map[hub.Key]bool{a.put("early"): true}
		w.shows(early, w.nodes...)
		time.Sleep(3 * time.Second) // all streams are there
		for _, n := range []*simNode{b, d} {
			w.setLink(a, n, false, 0)
		}
		w.setLink(c, a, false, 0)
		done := make(chan error, 1)
		node, _ := w.current(a)
		go func() {
			_, err := node.Write(context.Background(), "x", []byte("given up"))
			done <- err
		}()
		time.Sleep(500 * time.Millisecond) // c has it, and a does not know
		w.setLink(a, c, false, 0)
		if err := <-done; err == nil {
			t.Fatal("acknowledged by one of four")
		}
		w.setLink(a, b, true, 0)
		time.Sleep(1500 * time.Millisecond) // its name is on two disks; soon the others would notice that a is silent, and repair from b
		want := map[hub.Key]bool{a.put("behind it"): true}
		w.part(a, b)
		time.Sleep(5 * time.Second)
		two, _ := w.current(c)
		for _, n := range []*simNode{a, b} {
			if err := two.CloseOpen(t.Context(), n.name, true); err != nil {
				t.Fatal(err)
			}
		}
		want[c.put("after")] = true
		w.shows(want2(want, c), c, d)
		w.openLinks()
		w.mend()
		time.Sleep(5 * time.Second)
		want[a.put("is back")] = true
		w.shows(want, w.nodes...)
		time.Sleep(3 * time.Second)
		reasons := map[string]int{}
		for _, n := range w.nodes {
			for _, why := range n.late() {
				reasons[why]++
			}
			have, _, _ := n.answer()
			if len(have) != 5 {
				t.Errorf("%s shows %d items of 5", n.name, len(have))
			}
		}
		if reasons[LateGivenUp] != 4 || reasons[LateOutside] != 4 || len(reasons) != 2 {
			t.Errorf("late: %v", reasons)
		}
	})
}

// want2 are the keys that a node may have before the others are back.
func want2(keys map[hub.Key]bool, n *simNode) map[hub.Key]bool {
	out := map[hub.Key]bool{}
	node, _ := n.w.current(n)
	for k := range keys {
		if _, err := node.store.Get(context.Background(), "x", k); err == nil {
			out[k] = true
		}
	}
	return out
}

// What a member has that was away must survive the sweep until long-term storage has it, although the archiver has passed it.
func TestLateItemsAreNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSim(t, 1)
		w.rule, w.judge.forcible = roster.Half, true
		var cursor hub.Key // as the archiver has left it; the main goroutine alone
		var confirmed bool
		w.tune = func(o *Options) {
			o.SweepEvery = 10 * time.Second
			o.Segments.TTL, o.Segments.SegmentAge = time.Minute, 5*time.Second
			o.Archived = func(string) (hub.Key, bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return cursor, true
			}
			o.Segments.LateConfirmed = func(string, hub.Key) bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return confirmed
			}
		}
		cursor = hub.MinKey
		a, b := w.member(), w.member()
		defer w.close()
		first := map[hub.Key]bool{a.put("first"): true, b.put("first too"): true}
		w.shows(first, a, b)
		w.part(a)
		outside := map[hub.Key]bool{}
		for range 20 {
			outside[a.put("outside")] = true
			time.Sleep(time.Second)
		}
		time.Sleep(3 * time.Minute)
		node, _ := w.current(b)
		if err := node.CloseOpen(t.Context(), a.name, true); err != nil {
			t.Fatal(err)
		}
		w.shows(map[hub.Key]bool{b.put("goes on"): true}, b)
		_, h, err := b.answer()
		if err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		cursor = h
		w.mu.Unlock()
		// The closing cannot be finished, for a while, since nothing can be named.
		heal := a.disk.Inject(memdisk.Rule{Ops: memdisk.OpCreate, Name: lateFile, Times: 1000, Fault: memdisk.Fault{Err: io.ErrShortWrite}})
		w.openLinks()
		w.mend()
		time.Sleep(2 * time.Minute)
		there := func(n *simNode) (count int) {
			node, _ := w.current(n)
			for k := range outside {
				if _, err := node.store.Get(t.Context(), "x", k); err == nil {
					count++
				}
			}
			return count
		}
		if there(a) != len(outside) {
			t.Fatalf("%d of %d items are left, and nobody else has them", there(a), len(outside))
		}
		heal()
		w.shows(outside, a, b)
		time.Sleep(10 * time.Minute)
		if there(a) != len(outside) || there(b) != len(outside) {
			t.Fatalf("%d and %d of %d items are left, and long-term storage has none", there(a), there(b), len(outside))
		}
		w.mu.Lock()
		confirmed = true
		w.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if there(a) != 0 || there(b) != 0 {
			t.Errorf("%d and %d items stay although they are confirmed", there(a), there(b))
		}
		for k := range first {
			if _, err := node.store.Get(t.Context(), "x", k); err == nil {
				t.Errorf("%v stays", k)
			}
		}
		w.sameLate(outside, first)
	})
}

// TestLateBulks: late items come in batches where stable answers have passed them; a bulk comes as a whole.
func TestLateBulks(t *testing.T) {
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		w.judge.forcible = true
		gone, here := w.nodes[0], w.nodes[1]
		w.part(gone)
		time.Sleep(200 * time.Millisecond)
		fill := make([]byte, 150<<10) // several bulks are more than a batch
		part := [][]byte{fill, fill, fill, fill, fill}
		var bulks [][]hub.Key
		for range 4 {
			k, err := gone.node.WriteBulk(t.Context(), "x", part)
			if err != nil {
				t.Fatal(err)
			}
			var keys []hub.Key
			for i := range part {
				keys = append(keys, hub.BulkKey(k, i))
			}
			bulks = append(bulks, keys)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		if err := here.node.CloseOpen(t.Context(), gone.name, true); err != nil {
			t.Fatal(err)
		}
		here.past(bulks[3][4])
		here.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1000, Fault: memdisk.Fault{Delay: 100 * time.Millisecond}})
		w.openLinks()
		w.mend()
		w.until("the bulks are there", func() bool {
			have, _, err := here.answer()
			for _, b := range bulks {
				n := 0
				for _, k := range b {
					if have[k] {
						n++
					}
				}
				if n > 0 && n < len(b) {
					t.Fatalf("%d of %d parts of a bulk show", n, len(b))
				}
			}
			return err == nil && have[bulks[0][0]] && have[bulks[3][0]]
		})
	})
}

// TestLatePages: a page of the list does not end within a bulk, however many it names.
func TestLatePages(t *testing.T) {
	b, err := openLate(memdisk.New(memdisk.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var all []LateItem
	for ms := range int64(1000) {
		k := hub.KeyAt(ms, "abc123")
		for i := range 11 {
			all = append(all, LateItem{Channel: "x", Key: hub.BulkKey(k, i).String(), Stream: "1.1", Why: LateOutside, Node: "n:80"})
		}
	}
	if _, err := b.add(all); err != nil {
		t.Fatal(err)
	}
	pages, found := 0, 0
	for from := int64(0); ; pages++ {
		items, next, err := b.page(from, 0)
		if err != nil {
			t.Fatal(err)
		}
		if next == from {
			break
		}
		for _, i := range items {
			if i != all[found] {
				t.Fatalf("item %d is %v, want %v", found, i, all[found])
			}
			found++
		}
		if len(items)%11 != 0 {
			t.Errorf("a page of %d items ends within a bulk", len(items))
		}
		from = next
	}
	if size, _ := b.state(); pages < 2 || found != len(all) {
		t.Errorf("%d of %d items on %d pages, in %d bytes", found, len(all), pages, size)
	}
}
