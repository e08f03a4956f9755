package spoke

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// spoil damages what the log of a node that is down has of some data, and reports whether there was anything.
func (n *simNode) spoil(data string) (found bool) {
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
		for at := 0; ; {
			i := bytes.Index(b[at:], []byte(data))
			if i < 0 {
				break
			}
			at += i + 1
			found = true
			if err := n.disk.Damage(name, int64(at)+1, []byte("@@@")); err != nil {
				n.w.t.Fatal(err)
			}
		}
	}
	return found
}

func (n *simNode) holed() bool {
	n.node.mu.Lock()
	defer n.node.mu.Unlock()
	return !n.node.cluster.noHole()
}

// lossless checks that the stable answer has all keys and the data is right.
func (n *simNode) lossless(channel string, want map[hub.Key]string) {
	n.w.t.Helper()
	page := n.stable(channel)
	if page == nil {
		n.w.t.Fatalf("%s gives no stable answer", n.name)
	}
	for k, data := range want {
		if !slices.Contains(page.Keys, k) {
			n.w.t.Errorf("%s lacks %v (%q) in a stable answer at %v", n.name, k, data, page.Horizon)
		} else if item, err := n.node.Read(n.w.t.Context(), channel, k); err != nil || string(item.Data) != data {
			n.w.t.Errorf("%s: %v is %q, %v", n.name, k, item.Data, err)
		}
	}
}

// What lay in a hole is copied from the others before anything stable is answered, and then is not looked for again.
func TestHoleIsMended(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		want := map[hub.Key]string{}
		var last hub.Key
		for i := range 30 {
			data := fmt.Sprintf("item number %03d", i)
			last = w.nodes[i%3].write("x", data)
			want[last] = data
			time.Sleep(20 * time.Millisecond)
		}
		b := w.nodes[1]
		b.past(last)
		b.end("kill")
		for _, i := range []int{6, 7, 8, 13} {
			if !b.spoil(fmt.Sprintf("item number %03d", i)) {
				t.Fatal("it is not on the disk")
			}
		}
		b.start()
		if !b.holed() {
			t.Fatal("nobody noticed the holes")
		}
		if b.stable("x") != nil {
			t.Error("a stable answer over a hole")
		}
		w.until("it gives stable answers", func() bool { return b.stable("x") != nil })
		b.lossless("x", want)
		w.until("the holes are mended", func() bool { return !b.holed() })
		for _, n := range w.nodes {
			n.past(n.write("x", "more"))
			n.lossless("x", want)
		}
		b.end("kill")
		b.start()
		if b.holed() {
			t.Error("the holes were mended, and are looked for again")
		}
		w.whole()
		b.lossless("x", want)
	})
}

// A disk with a hole is not counted when a stream is closed: what it has lost may be what nobody else who answers has.
func TestHoleDoesNotCount(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		w.setLink(a, c, false, 0)
		w.setLink(b, c, false, 0) // or c would copy it from there
		w.setLink(c, b, false, 0)
		w.setLink(c, a, false, 0)
		time.Sleep(time.Second) // what is on its way arrives
		want := map[hub.Key]string{}
		for i := range 5 { // a and b have it
			data := fmt.Sprint("acknowledged item ", i, strings.Repeat(".", 50))
			want[a.write("x", data)] = data
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		a.end("kill")
		b.end("kill")
		for i := range 4 { // what was written last would be taken for a torn tail
			if !b.spoil(fmt.Sprint("acknowledged item ", i, ".")) {
				t.Fatal("it is not on the disk")
			}
		}
		w.openLinks()
		b.start()
		if !b.holed() {
			t.Fatal("nobody noticed the holes")
		}
		for k, data := range want {
			if strings.Contains(data, "item 4") {
				continue
			}
			if _, err := c.node.Read(t.Context(), "x", k); err == nil || hub.Is(err, hub.NotFound) {
				t.Errorf("nobody who answers can know: %v", err)
			}
			if _, err := b.node.Read(t.Context(), "x", k); err == nil || hub.Is(err, hub.NotFound) {
				t.Errorf("nobody who answers can know: %v", err)
			}
		}
		time.Sleep(20 * time.Second)
		for _, i := range w.list().Streams {
			if i.Node == a.name && i.Closed != nil {
				t.Errorf("what a wrote was closed with %d records by those who cannot know", i.Closed.Count)
			}
		}
		a.start()
		w.whole()
		last := a.write("x", "a is back")
		for _, n := range w.nodes {
			n.past(last)
			n.lossless("x", want)
		}
	})
}

// Flipped bytes at the very end of the log of a node that is down are no write that was not finished: the item that lay there is on one disk only while its writer is down, too, and
// whoever closes the stream must not take the other one's word for there being none.
func TestRuleEndOfALogIsKnown(t *testing.T) {
	t.Parallel()
	observed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		time.Sleep(time.Second)
		w.between(a, c, false)
		if _, err := w.try(a, "at the very end"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the clock file is written
		b.end("kill")
		a.end("kill")
		w.between(a, c, true)
		if !b.spoil("at the very end") {
			t.Fatal("it is not on the disk")
		}
		b.start()
		time.Sleep(20 * time.Second)
	})
}
