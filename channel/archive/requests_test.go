package archive

import (
	"fmt"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/bucket/mem"
)

// TestRequests counts what the archive asks of the bucket: docs/operations.md ("Sizing") makes a bill of it.
func TestRequests(t *testing.T) {
	const minutes, items = 60, 20 // items a minute
	for _, c := range []struct {
		storage          hub.Storage
		puts, gets, list int // a minute, at most
	}{
		{hub.Batch, 2, 5, 0}, {hub.Single, items, items, 1}, {hub.Both, items + 2, items + 5, 1},
	} {
		t.Run(string(c.storage), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", c.storage)
				n := w.start(verifying)
				defer n.stop()
				for range minutes {
					for i := range items {
						w.insert("c", fmt.Sprint(i))
						wait(time.Minute / items)
					}
				}
				wait(30 * time.Minute)
				puts, gets, lists := w.count(mem.Put), w.count(mem.Get)+w.count(mem.Stat), w.count(mem.List)
				w.whole("c") // reads, too
				t.Logf("%s, %d items in %d minutes: %d puts, %d gets, %d listings; a minute %.2f, %.2f, %.2f", c.storage, items*minutes, minutes, puts, gets, lists,
					float64(puts)/minutes, float64(gets)/minutes, float64(lists)/minutes)
				if puts > c.puts*minutes+2 || gets > c.gets*minutes+5 || lists > c.list*minutes+5 {
					t.Errorf("more than %d puts, %d gets and %d listings a minute", c.puts, c.gets, c.list)
				}
			})
		})
	}
}
