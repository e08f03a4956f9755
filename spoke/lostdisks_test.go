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

// TestLostDisks: nodes whose disks are all gone say which these are, and what can be done; without the list of the lost ones they begin anew.
func TestLostDisks(t *testing.T) {
	t.Parallel()
	w := newClusterWorld(t, 3, roster.Half)
	for _, n := range w.nodes {
		n.write("x", "lost")
	}
	var lost []string
	for _, d := range w.nodes[0].members().Disks {
		lost = append(lost, d.ID)
	}
	wipe := func() {
		for _, n := range w.nodes {
			n.kill()
			n.disk = memdisk.New(memdisk.Options{})
		}
	}
	wipe()
	for _, n := range w.nodes {
		n.start()
	}
	join := func(n *clusterNode) error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return n.Join(ctx)
	}
	w.until("the nodes say what is missing", func() bool {
		for _, n := range w.nodes {
			err := join(n)
			if err == nil {
				t.Fatal("a node joined disks that are gone")
			}
			for _, id := range lost {
				if !strings.Contains(err.Error(), "disk "+id+" of ") {
					return false
				}
			}
			if !strings.Contains(err.Error(), "data directories that are gone") {
				t.Fatal(err)
			}
		}
		return true
	})
	wipe()
	operator := w.store.Session("operator")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- operator.Run(ctx) }()
	names, err := operator.Names(ctx, "spoke")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		_, version, err := operator.Get(ctx, name)
		if err == nil {
			err = operator.Delete(ctx, name, version)
		}
		if err != nil && !hub.Is(err, hub.NotFound) {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	want := map[hub.Key]string{}
	for _, n := range w.nodes {
		n.start()
	}
	for _, n := range w.nodes {
		w.until("a node has joined", func() bool { return join(n) == nil })
		want[n.write("x", "new")] = "new"
	}
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
}
