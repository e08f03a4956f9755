package archive

import (
	"fmt"
	"testing"
	"time"

	"timehub/hub"
)

// TestUnheardOf: items of a channel that was made on another node a moment ago are archived, also if nothing more comes.
func TestUnheardOf(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				n := w.start()
				defer n.stop()
				w.channel("c", s)
				w.stale = map[string]*hub.Channel{"c": nil}
				w.insert("c", "one")
				wait(2 * time.Minute)
				w.heard("c")
				w.whole("c")
				if at, known := n.Archived("c"); !known || at == hub.MinKey {
					t.Errorf("the sweep is told %v, %v", at, known)
				}
			})
		})
	}
}

// TestHeardOfLate: while this node takes a channel for an ordinary one, another one follows its source already. What comes with keys that this node has passed
// by the clock is archived all the same.
func TestHeardOfLate(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				ordinary := w.channel("c", s)
				n := w.start()
				defer n.stop()
				for i := range 5 {
					w.insert("c", fmt.Sprint("before ", i))
					wait(20 * time.Second)
				}
				begin := time.Now()
				w.stale = map[string]*hub.Channel{"c": ordinary}
				w.channel("c", s, func(ch *hub.Channel) { ch.ReplicationSource = "http://h/channel/c" })
				w.complete("c", hub.Last(begin))
				for i := range 150 { // each three seconds after its time
					wait(time.Second)
					w.put("c", hub.NewKey(time.Now().Add(-3*time.Second+time.Duration(min(i, 3))*time.Second/2), "source"), fmt.Sprint("after ", i))
				}
				w.complete("c", hub.Last(time.Now().Add(-time.Second)))
				wait(time.Second)
				w.heard("c")
				for i := range 10 {
					wait(30 * time.Second)
					w.put("c", hub.NewKey(time.Now(), "source"), fmt.Sprint("then ", i))
					w.complete("c", hub.Last(time.Now()))
				}
				wait(3 * time.Minute)
				w.complete("c", hub.Last(time.Now()))
				wait(time.Minute)
				w.whole("c")
			})
		})
	}
}
