package spoke

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// until waits until ok says so.
func (w *clusterWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (c *clusterNode) members() View {
	c.w.t.Helper()
	v, err := c.Members(c.w.t.Context())
	if err != nil {
		c.w.t.Fatal(err)
	}
	return v
}

func nodesOf(v View) (list []string) {
	for _, d := range v.Disks {
		list = append(list, d.Node)
	}
	slices.Sort(list)
	return list
}

func TestMembers(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	for _, n := range w.nodes {
		n.write("x", "begin")
	}
	all := []string{w.nodes[0].address, w.nodes[1].address, w.nodes[2].address}
	slices.Sort(all)
	w.until("all three are whole", func() bool {
		v := w.nodes[0].members()
		whole := 0
		for _, d := range v.Disks {
			if d.Whole && d.Answers && d.Session && d.Epoch == v.Epoch {
				whole++
			}
		}
		return whole == 3 && v.Changing == "" && len(v.Open) == 3 && slices.Equal(nodesOf(v), all) && v.Caught
	})
	w.nodes[2].kill()
	w.until("the dead one is silent, and what it wrote is closed", func() bool {
		v := w.nodes[0].members()
		i := slices.IndexFunc(v.Disks, func(d DiskView) bool { return d.Node == w.nodes[2].address })
		return i >= 0 && !v.Disks[i].Answers && !v.Disks[i].Session && v.Disks[i].Error != "" && len(v.Open) == 2
	})
}

func TestDecommission(t *testing.T) {
	w := newClusterWorld(t, 4, roster.Half)
	want := map[hub.Key]string{}
	put := func(nodes ...*clusterNode) {
		t.Helper()
		for _, n := range nodes {
			data := fmt.Sprint("item ", len(want))
			want[n.write("x", data)] = data
		}
	}
	put(w.nodes...)
	gone, rest := w.nodes[3], w.nodes[:3]
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
	w.until("the node may leave", func() bool {
		err := rest[0].Leave(t.Context(), gone.address)
		if err != nil && !hub.Is(err, hub.Conflict) {
			t.Fatal(err)
		}
		return err == nil
	})
	w.until("it has left", func() bool {
		v := rest[0].members()
		return len(v.Disks) == 3 && v.Changing == "" && slices.Equal(v.Left, []string{gone.address})
	})
	if err := rest[1].Leave(t.Context(), "nobody:1"); !hub.Is(err, hub.NotFound) {
		t.Errorf("a stranger leaves: %v", err)
	}
	put(rest...)
	for _, n := range rest {
		n.waitFor("x", want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := gone.Write(ctx, "x", []byte("late")); !hub.Is(err, hub.Unavailable) {
		t.Errorf("who has left writes: %v", err)
	}
	gone.kill()
	gone.start()
	time.Sleep(1500 * time.Millisecond) // it looks at the list at least once
	if v := rest[0].members(); len(v.Disks) != 3 {
		t.Fatalf("who has left is there again: %v", nodesOf(v))
	}
	if err := rest[1].Return(t.Context(), rest[0].address); !hub.Is(err, hub.NotFound) {
		t.Errorf("somebody returns who has not left: %v", err)
	}
	if err := rest[1].Return(t.Context(), gone.address); err != nil {
		t.Fatal(err)
	}
	put(gone)
	put(rest...)
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
}

func TestLastNodesStay(t *testing.T) {
	w := newClusterWorld(t, 2, roster.Majority)
	w.nodes[0].write("x", "a")
	w.nodes[1].write("x", "b")
	w.nodes[1].kill()
	if err := w.nodes[0].Leave(t.Context(), ""); !hub.Is(err, hub.Conflict) {
		t.Errorf("the last one who holds everything leaves: %v", err)
	}
	if err := w.nodes[0].CloseOpen(t.Context(), w.nodes[0].address, false); !hub.Is(err, hub.Conflict) {
		t.Errorf("what a living node writes is closed: %v", err)
	}
}
