package spoke

import (
	"slices"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// A decommissioned member had the record of a key, and not its name. The others swept the name, as all members knew it; when the old disk was called back, its stable answers
// had a key that was given up. What was in flight then and is only on the others' disks now has to stay.
func TestDecommissionedDiskForgetsWhatWasGivenUp(t *testing.T) {
	for name, closed := range map[string]bool{"from its writer": false, "from another member": true} {
		t.Run(name, func(t *testing.T) {
			directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
				w.tune = func(o *Options) {
					o.SweepEvery = time.Second
					o.Segments.TTL, o.Segments.SegmentAge = 15*time.Second, 5*time.Second
					o.Archived = func(channel string) (hub.Key, bool) {
						if channel == "kept" {
							return hub.MinKey, true
						}
						return hub.MaxKey, true
					}
				}
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
				send := func(channel string) chan end {
					done := make(chan end, 1)
					go func() {
						k, err := writer.node.Write(t.Context(), channel, []byte("in flight"))
						done <- end{k, err}
					}()
					return done
				}
				gone := send("a")
				time.Sleep(time.Second)
				kept := send("kept")
				time.Sleep(200 * time.Millisecond)
				away.end("kill")
				g := <-gone
				w.openLinks()
				k := <-kept
				if g.err == nil || k.err != nil {
					t.Fatalf("acknowledged: %v, %v", g.err, k.err)
				}
				w.until("it may leave", func() bool { return other.node.Leave(t.Context(), away.name) == nil })
				w.until("it has left", func() bool { r := w.list(); return r.Left(away.name) && r.Next == nil })
				if closed {
					writer.end("kill")
					writer.start()
					w.until("both write", func() bool {
						_, err1 := writer.node.Write(t.Context(), "b", nil)
						_, err2 := other.node.Write(t.Context(), "b", nil)
						return err1 == nil && err2 == nil
					})
				}
				var last hub.Key
				w.until("the name is swept", func() bool {
					last = writer.write("b", "later")
					other.write("b", "later")
					time.Sleep(time.Second)
					for _, n := range []*simNode{writer, other} {
						if trace, err := n.node.cluster.traceOf(t.Context(), "a", g.key); err != nil || trace || !k.key.Less(n.node.Floor("a")) {
							return false
						}
					}
					return true
				})
				if err := other.node.Return(t.Context(), away.name); err != nil {
					t.Fatal(err)
				}
				away.start()
				if _, err := away.node.store.Get(t.Context(), "a", g.key); err != nil {
					t.Fatalf("the record was not there: %v", err)
				}
				away.past(last)
				for _, n := range w.nodes {
					if page := n.stable("a"); page == nil || slices.Contains(page.Keys, g.key) {
						t.Errorf("%s shows %v, which was given up: %v", n.name, g.key, page)
					}
					if page := n.stable("kept"); page == nil || !slices.Contains(page.Keys, k.key) {
						t.Errorf("%s lacks %v, which is nowhere else: %v", n.name, k.key, page)
					}
				}
			})
		})
	}
}
