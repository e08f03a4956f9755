package spoke

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

func TestAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memdisk.New(memdisk.Options{})
		n, stop := started(t, disk, time.Now)
		defer stop()
		wall := time.Now().UnixMilli()
		for _, c := range []struct {
			key  hub.Key
			ok   bool
			wait time.Duration
		}{
			{hub.KeyAt(wall-1_000_000, "000abc"), true, 0},
			{hub.KeyAt(wall, "zzzabc"), true, 0},
			{hub.KeyAt(wall+250, "00Aabc"), true, 0},
			{hub.BulkKey(hub.KeyAt(wall+250, "00Babc"), 7), true, 0},
			{hub.KeyAt(wall+240, "~not minted"), true, 0},
			{hub.KeyAt(wall+250, "x"), true, 0},
			{hub.KeyAt(wall+500, "000abc"), true, 250 * time.Millisecond},
			{hub.MaxKey, false, 0},
			{hub.MinKey, true, 0},
			{hub.KeyAt(wall+250+501, "000abc"), false, 0},
		} {
			began := time.Now()
			err := n.After(t.Context(), c.key)
			if (err == nil) != c.ok || err != nil && !hub.Is(err, hub.Invalid) {
				t.Errorf("%s: %v", c.key, err)
			}
			if took := time.Since(began); took != c.wait {
				t.Errorf("%s took %v, want %v", c.key, took, c.wait)
			}
			if k, err := n.Write(t.Context(), "x", []byte("a")); err != nil || c.ok && !c.key.Less(k) {
				t.Errorf("after %s came %s, %v", c.key, k, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.After(ctx, hub.KeyAt(time.Now().UnixMilli()+500, "000abc")); err == nil {
			t.Error("nobody waits any more")
		}
		if lead := n.limit.Millis() - time.Now().UnixMilli(); lead > 510 {
			t.Errorf("the bound is %d ms ahead", lead)
		}
	})
}

// A client that goes from node to node writes rising keys if it says which one it had last.
func TestAfterAcrossNodes(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	w.begun()
	last := hub.MinKey
	for i := range 60 {
		n := w.nodes[i%3]
		if err := n.After(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		key := n.write("x", "a")
		if !last.Less(key) {
			t.Fatalf("%s after %s", key, last)
		}
		last = key
	}
}
