package spoke

import (
	"fmt"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// TestSilentMachine: a machine that is gone answers nothing, not even that it does not: whoever comes back beside it does not wait for it with each question.
func TestSilentMachine(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		back, lives, gone := w.nodes[0], w.nodes[1], w.nodes[2]
		for i := range 50 {
			w.nodes[i%3].write("a", fmt.Sprint("before ", i))
		}
		for _, n := range w.nodes[:2] {
			w.setLink(n, gone, false, 0)
			w.setLink(gone, n, false, 0)
		}
		w.store.Cut(gone.session)
		gone.cut = true
		time.Sleep(200 * time.Millisecond)
		for i := range 50 { // what nobody but these two has
			w.nodes[i%2].write("a", fmt.Sprint("while it is gone ", i))
		}
		back.end("power")
		time.Sleep(time.Second)
		began := time.Now()
		back.start()
		w.until("the one that came back writes and gives stable answers", func() bool {
			for _, n := range []*simNode{back, lives} {
				n.node.mu.Lock()
				_, ok := n.node.cluster.horizon()
				ok = ok && n.node.cluster.writable() == nil
				n.node.mu.Unlock()
				if !ok {
					return false
				}
			}
			return true
		})
		var k hub.Key
		for _, n := range []*simNode{back, lives} {
			k = n.write("a", "after")
		}
		back.past(k)
		lives.past(k)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("that took %v", took)
		} else {
			t.Log(took)
		}
	})
}
