package spoke

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// A stream can be closed however much was in flight.
func TestCloseWithMuchInFlight(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		w.setLink(a, b, false, 0) // b is not told that a has it
		w.setLink(b, c, false, 0)
		var all [][]byte
		for i := range 7_000 {
			all = append(all, fmt.Append(nil, "part ", i))
		}
		answered := make(chan struct{})
		go func(n *Node) {
			defer close(answered)
			_, _ = n.WriteBulk(context.Background(), "x", all)
		}(b.node)
		defer func() { <-answered }() // in virtual time, all this may be over before it is
		time.Sleep(1500 * time.Millisecond)
		b.end("kill")
		w.openLinks()
		w.until("the stream is closed", func() bool {
			return slices.ContainsFunc(w.list().Streams, func(i roster.Incarnation) bool { return i.Closed != nil && i.Closed.Count == len(all) })
		})
		last := a.write("y", "after")
		for _, n := range []*simNode{a, c} {
			n.past(last)
			i := 0
			for item, err := range n.node.Items(t.Context(), hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey, Stable: true}) {
				if err != nil || !bytes.Equal(item.Data, all[i]) {
					t.Fatalf("%s: item %d is %q, %v", n.name, i, item.Data, err)
				}
				i++
			}
			if i != len(all) {
				t.Errorf("%s has %d of %d", n.name, i, len(all))
			}
		}
	})
}
