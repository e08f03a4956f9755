package spoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// has reports whether the own disk of a node can read a record.
func (n *simNode) has(channel string, k hub.Key) error {
	_, err := n.node.store.Held(n.w.t.Context(), channel, k)
	return err
}

// A node whose log has a damaged record that a peer needs gets it from a third one, and sends it.
func TestDamageIsMendedWhileItRuns(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(a, c, false)
		w.between(b, c, false)
		time.Sleep(time.Second)
		want := map[hub.Key]string{}
		var keys []hub.Key
		for i := range 9 {
			data := fmt.Sprint("item ", i, " of b", strings.Repeat(".", 40))
			k := b.write("a", data)
			want[k], keys = data, append(keys, k)
		}
		for _, i := range []int{0, 4, 8} {
			if !b.spoil(fmt.Sprint("item ", i, " of b")) {
				t.Fatal("it is not there")
			}
		}
		w.between(a, b, false) // the new connections send what the log has
		time.Sleep(time.Second)
		w.openLinks()
		for _, n := range w.nodes {
			n.past(n.write("a", "after "+n.name))
			n.past(keys[8])
			n.lossless("a", want)
		}
		for _, k := range keys {
			if err := b.has("a", k); err != nil {
				t.Errorf("%v is not mended: %v", k, err)
			}
		}
		w.until("nothing is left to be mended", func() bool { return len(b.node.store.Broken()) == 0 })
	})
}

// A damaged record that was acknowledged by this disk and one that is away is not lost: nobody closes the stream without it, and it is there again when that one is back.
func TestDamageWaitsForWhoMayHaveIt(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		w.between(a, c, false)
		w.between(b, c, false)
		time.Sleep(time.Second)
		want := map[hub.Key]string{}
		for i := range 3 {
			data := fmt.Sprint("item ", i, " of a", strings.Repeat(".", 40))
			want[a.write("a", data)] = data
		}
		if !b.spoil("item 1 of a") {
			t.Fatal("it is not there")
		}
		time.Sleep(time.Second)
		a.end("kill")
		w.openLinks()
		time.Sleep(20 * time.Second)
		for _, i := range w.list().Streams {
			if i.Node == a.name && i.Closed != nil {
				t.Errorf("what a wrote was closed with %d records by those who cannot know", i.Closed.Count)
			}
		}
		a.start()
		w.whole()
		last := c.write("a", "after")
		for _, n := range w.nodes {
			n.past(last)
			n.lossless("a", want)
		}
	})
}

// A damaged record of another stream, or of before what a peer has, is nobody's business: the log is sent as if it were whole, also by a node that starts anew.
func TestDamageThatNobodyNeeds(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b := w.nodes[0], w.nodes[1]
		w.tune = func(o *Options) { o.Segments.SegmentRecords = 4 }
		defer func() { w.tune = nil }()
		b.end("stop")
		b.start()
		w.whole()
		var k hub.Key
		for i := range 9 {
			a.write("a", fmt.Sprint("item ", i, " of a", strings.Repeat(".", 40)))
			k = b.write("a", fmt.Sprint("item ", i, " of b", strings.Repeat(".", 40)))
		}
		for _, n := range w.nodes {
			n.past(k)
		}
		if !b.spoil("item 2 of a") || !b.spoil("item 2 of b") {
			t.Fatal("it is not there")
		}
		for _, n := range w.nodes { // nobody can mend anything
			if n != b {
				_ = n.spoil("item 2 of a")
				_ = n.spoil("item 2 of b")
			}
		}
		b.end("kill")
		b.start()
		w.whole()
		k = b.write("a", "after")
		for _, n := range w.nodes {
			n.past(k)
		}
	})
}

// A record in flight that is damaged, and that nobody else has, ends the incarnation: its low must not pass what nobody can be sent. Its writer knows that it was not acknowledged, so
// a node that does not answer need not be asked.
func TestDamageInFlight(t *testing.T) {
	for _, alone := range []bool{false, true} {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
			b.past(b.write("a", "before"))
			before := b.node.stream
			w.setLink(b, a, false, 0)
			w.setLink(b, c, false, 0)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := b.node.Write(ctx, "a", []byte("nobody else has this"))
			if err == nil {
				t.Fatal("it was acknowledged")
			}
			if !b.spoil("nobody else has this") {
				t.Fatal("it is not there")
			}
			if alone {
				c.end("power")
			}
			time.Sleep(6 * time.Second) // the connections end, and what is to be sent is read from the log
			w.openLinks()
			w.whole()
			living := w.living()
			for _, n := range living {
				k := n.write("a", "after")
				for _, m := range living {
					m.past(k)
				}
			}
			if b.node.stream == before {
				t.Error("the incarnation goes on")
			}
			for _, n := range living {
				for _, k := range n.stable("a").Keys {
					if item, err := n.node.Read(t.Context(), "a", k); err != nil {
						t.Errorf("%s shows %v and cannot read it: %v, %q", n.name, k, err, item.Data)
					}
				}
			}
		})
	}
}

// Of a bulk in flight of which a part is damaged, and that nobody else has, nothing is left: it shows as a whole, or not at all.
func TestDamagedPartInFlight(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		single := b.write("a", "before")
		b.past(single)
		own := b.node.stream
		w.setLink(b, a, false, 0)
		w.setLink(b, c, false, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := b.node.WriteBulk(ctx, "a", [][]byte{[]byte("one"), []byte("nobody else has this"), []byte("three")}); err == nil {
			t.Fatal("it was acknowledged")
		}
		if !b.spoil("nobody else has this") {
			t.Fatal("it is not there")
		}
		c.end("power") // b is needed to close its incarnation
		time.Sleep(6 * time.Second)
		w.openLinks()
		w.until("its incarnation has ended", func() bool { i, ok := w.list().Find(recordOf(own)); return !ok || i.Closed != nil })
		w.whole()
		for _, n := range w.living() {
			k := n.write("b", "after")
			for _, m := range w.living() {
				m.past(k)
			}
		}
		for _, n := range w.living() {
			if keys := n.stable("a").Keys; !slices.Equal(keys, []hub.Key{single}) {
				t.Errorf("%s shows %v, want %v", n.name, keys, single)
			}
		}
	})
}

// What its writer's disk has lost in a power cut was not acknowledged: a damaged record of it need not be had to close the stream, also where everybody is asked.
func TestDamagedAndLostByItsWriter(t *testing.T) {
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		a, b := w.nodes[0], w.nodes[1]
		b.past(a.write("a", "before"))
		time.Sleep(time.Second)
		a.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Delay: 4 * time.Second}})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := a.node.Write(ctx, "a", []byte("the writer loses this")); err == nil {
			t.Fatal("it was acknowledged")
		}
		a.end("power")
		if !b.spoil("the writer loses this") {
			t.Fatal("it is not there")
		}
		if a.spoil("the writer loses this") {
			t.Fatal("the power cut has left it")
		}
		a.start()
		w.whole()
		for _, n := range w.nodes {
			k := n.write("a", "after")
			for _, m := range w.nodes {
				m.past(k)
			}
		}
	})
}

// What is damaged here and not in the set of its stream is given up here, too, though its record cannot be read: it was shown by this node alone.
func TestDamagedOutsideTheSet(t *testing.T) {
	directed(t, 5, roster.Half, func(t *testing.T, w *simWorld) {
		dead, damaged := w.nodes[0], w.nodes[1]
		k := dead.write("a", "first")
		for _, n := range w.nodes[1:] {
			n.past(k)
			if n != damaged {
				w.setLink(dead, n, false, 0)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, _ = dead.node.Write(ctx, "a", []byte("nobody else has this"))
		if !damaged.spoil("nobody else has this") {
			t.Fatal("it is not there")
		}
		dead.end("power")
		k = damaged.write("a", "after all")
		for _, n := range w.nodes[1:] {
			n.past(k)
		}
		for _, n := range w.nodes[1:] {
			if keys := n.stable("a").Keys; len(keys) != 2 {
				t.Errorf("%s shows %v", n.name, keys)
			}
		}
	})
}

// Of two nodes of which one is enough to acknowledge, its damaged record is lost if the other never had it: it is named, and everybody goes on.
func TestDamageThatNobodyCanMend(t *testing.T) {
	directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
		a, b := w.nodes[0], w.nodes[1]
		a.past(a.write("a", "before"))
		w.between(a, b, false)
		time.Sleep(6 * time.Second)
		k := a.write("a", "on one disk only")
		if !a.spoil("on one disk only") {
			t.Fatal("it is not there")
		}
		w.judge.mu.Lock()
		w.judge.forcible = true // the two differ in what is lost
		w.judge.mu.Unlock()
		w.openLinks()
		for _, n := range w.nodes {
			last := n.write("b", "after")
			for _, m := range w.nodes {
				m.past(last)
			}
		}
		if _, err := a.node.Read(t.Context(), "a", k); !hub.Is(err, hub.Unavailable) || !errors.Is(err, spokelog.ErrDamaged) {
			t.Errorf("what is lost: %v", err)
		}
	})
}

// hollow damages the index of the segment in which some data lies, and the records from there on: which ones there were, nobody can know any more.
func (n *simNode) hollow(data string) {
	n.w.t.Helper()
	entries, err := n.disk.List(spokelog.DefaultDir)
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, e := range entries {
		name := spokelog.DefaultDir + "/" + e.Name
		f, err := n.disk.Open(name, false)
		if err != nil {
			n.w.t.Fatal(err)
		}
		b := make([]byte, e.Size)
		_, _ = f.ReadAt(b, 0)
		_ = f.Close()
		at := bytes.Index(b, []byte(data))
		if at < 0 {
			continue
		}
		for ; at < len(b); at += 64 {
			if err := n.disk.Damage(name, int64(at), []byte{b[at] ^ 1}); err != nil {
				n.w.t.Fatal(err)
			}
		}
		return
	}
	n.w.t.Fatal("it is not there")
}

// A node that loses an index and records while it runs knows no more what it had. It answers nothing of that time until it has copied all of it, and counts for nobody.
func TestHollowIsRefilled(t *testing.T) {
	for restarts := range 3 {
		directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
			b := w.nodes[1]
			w.tune = func(o *Options) { o.Segments.SegmentRecords = 12 }
			defer func() { w.tune = nil }()
			b.end("stop")
			b.start()
			w.whole()
			want := map[hub.Key]string{}
			var last hub.Key
			for i := range 60 {
				data := fmt.Sprintf("item number %03d%s", i, strings.Repeat(".", 60))
				last = w.nodes[i%3].write("x", data)
				want[last] = data
				time.Sleep(20 * time.Millisecond)
			}
			b.past(last)
			time.Sleep(2 * time.Second) // footers are written
			if restarts > 0 {           // and some streams are closed
				gone := w.nodes[0].node.stream
				w.nodes[0].end("power")
				if restarts > 1 { // the log knows of no low that reaches up to the base
					w.until("it is complete", func() bool { return b.node.cluster.isComplete(gone) })
				}
				w.nodes[2].past(w.nodes[2].write("x", "meanwhile"))
				w.nodes[0].start()
				w.whole()
			}
			if restarts > 1 {
				b.end("stop")
				b.start()
				w.whole()
			}
			b.hollow("item number 015")
			if page := b.stable("x"); page != nil {
				for k := range want {
					if !slices.Contains(page.Keys, k) {
						t.Errorf("%s lacks %v in a stable answer at %v", b.name, k, page.Horizon)
					}
				}
			}
			if len(b.node.store.Status().Holes) == 0 { // they may be mended already
				t.Fatal("nobody noticed it")
			}
			w.until("it gives stable answers", func() bool { return b.stable("x") != nil })
			for _, n := range w.nodes {
				n.past(n.write("x", "more"))
				n.lossless("x", want)
			}
			b.end("kill")
			b.start()
			w.whole()
			if b.holed() {
				t.Error("the holes were mended, and are looked for again")
			}
			b.past(last)
			b.lossless("x", want)
		})
	}
}

// What is replicated belongs to a stream that its key does not tell, and is never given up: not either when its record cannot be read while a stream is completed.
func TestDamagedReplicaIsNotGivenUp(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		var keys []hub.Key
		for i := range 3 {
			k := hub.NewKey(time.Now(), fmt.Sprintf("zzz00%d", i)) // above what is minted now
			if err := a.node.WriteKeyed(t.Context(), "r", hub.Sealed{Key: k, Data: fmt.Appendf(nil, "replicated item %d%s", i, strings.Repeat(".", 40))}); err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k)
		}
		time.Sleep(time.Second)
		for _, n := range w.nodes { // nobody can mend it
			if !n.spoil("replicated item 1") {
				t.Fatal("it is not there")
			}
		}
		for _, n := range w.nodes {
			if _, err := n.node.Read(t.Context(), "r", keys[1]); !errors.Is(err, spokelog.ErrDamaged) {
				t.Error(err)
			}
		}
		w.until("it is known to be lost", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *simNode) bool { return len(n.node.store.Broken()) > 0 })
		})
		c.end("power")
		for _, n := range []*simNode{a, b} {
			n.past(n.write("x", "more"))
			shown, _, err := n.node.store.Keys(t.Context(), "r", hub.MinKey, hub.MaxKey, 0, false)
			if err != nil || !slices.Equal(shown, keys) {
				t.Errorf("%s shows %v, %v", n.name, shown, err)
			}
		}
	})
}
