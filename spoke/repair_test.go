package spoke

import (
	"fmt"
	"testing"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// TestRepairSyncs: a node that was away gets what it has missed of a stream that is closed with a few syncs, not with one for each request.
func TestRepairSyncs(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	want := map[hub.Key]string{}
	away, writer := w.nodes[2], w.nodes[1]
	for _, n := range w.nodes { // who is not on the list yet cannot come there while its first member is away
		want[n.write("x", n.address)] = n.address
	}
	away.waitFor("x", want)
	away.kill()
	for i := range 400 {
		data := fmt.Sprint("item ", i)
		want[writer.write("x", data)] = data
	}
	writer.kill()
	writer.start() // its first stream is to be closed
	want[writer.write("x", "again")] = "again"
	writer.waitFor("x", want)
	before := away.disk.Calls(memdisk.OpSync)
	away.start()
	away.waitFor("x", want)
	n := away.disk.Calls(memdisk.OpSync) - before
	t.Logf("%d syncs", n)
	if n > 200 {
		t.Errorf("%d syncs for a repair of 400 requests", n)
	}
}
