package spoke

import (
	"context"
	"strings"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// TestUnreachable: a node that the members do not find at its address is not taken up, and says why; what it would have counted for is not missing.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	w := newClusterWorld(t, 2, roster.Half)
	w.until("both are members", func() bool { return len(w.nodes[0].members().Disks) == 2 })
	try := func(address string) string {
		t.Helper()
		n := &clusterNode{w: w, address: address, listen: "127.0.0.1:0", disk: memdisk.New(memdisk.Options{})}
		w.nodes = append(w.nodes, n)
		n.start()
		why := ""
		w.until("the node says that nobody reaches it", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			err := n.Join(ctx)
			if err == nil {
				t.Fatal("it has joined")
			}
			why = err.Error()
			return strings.Contains(why, "no member reaches this node at its address "+address+" (cluster.address)")
		})
		n.kill()
		w.nodes = w.nodes[:2]
		return why
	}
	if why := try("127.0.0.1:1"); !strings.Contains(why, "refused") || strings.Contains(why, retryHint+retryHint) {
		t.Error(why)
	}
	other := newClusterWorld(t, 1, roster.Half)
	if why := try(other.nodes[0].address); !strings.Contains(why, "another node") {
		t.Error(why)
	}
	if n := len(w.nodes[0].members().Disks); n != 2 {
		t.Errorf("%d members", n)
	}
	k := w.nodes[0].write("x", "1")
	w.nodes[1].waitFor("x", map[hub.Key]string{k: "1"})
}
