package node

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub/coord/local"
)

// stopping is a node that has been healthy, without its parts.
func stopping(t *testing.T, store *local.Store, address, seconds string) *Node {
	t.Helper()
	cfg, _, err := Load(Sources{Set: []string{"hub.type=aws", "cluster.address=" + address, "app.shutdown_lock_seconds=" + seconds}})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: cfg, log: slog.New(slog.DiscardHandler), ready: make(chan struct{})}
	n.env.Clock = time.Now
	n.parts.coordinator = store.Session(address)
	close(n.ready)
	return n
}

// TestTurns: nodes go down one after the other, whatever happens to those that are down.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := local.NewMemory()
		a, b := stopping(t, store, "a:1", "60"), stopping(t, store, "[::1]:2", "60")
		wait := func(n *Node) (took time.Duration) {
			begin := time.Now()
			n.awaitTurn(t.Context())
			return time.Since(begin)
		}
		if d := wait(a); d != 0 {
			t.Errorf("the first waits %v", d)
		}
		if who, err := b.turnHolder(t.Context()); who != "a:1" || err != nil {
			t.Errorf("%q is down, %v", who, err)
		}
		done := make(chan time.Duration)
		go func() { done <- wait(b) }()
		time.Sleep(10 * time.Second)
		if err := b.endTurn(t.Context()); err != nil { // not its own
			t.Error(err)
		}
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("two are down")
		default:
		}
		if err := a.endTurn(t.Context()); err != nil {
			t.Error(err)
		}
		if d := <-done; d > 11*time.Second {
			t.Errorf("the second waits %v", d)
		}
		// The second dies for good: it is waited for until its time is over, counted from its stop.
		time.Sleep(50 * time.Second)
		if d := wait(a); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("a dead node is waited for %v", d)
		}
		if d := wait(a); d != 0 {
			t.Errorf("who has the turn waits %v", d)
		}
		if err := b.resetTurn(t.Context()); err != nil {
			t.Error(err)
		}
		if d := wait(b); d != 0 {
			t.Errorf("after a reset it waits %v", d)
		}
		// Without the coordinator nobody waits for ever.
		store.Cut(a.parts.coordinator.(*local.Coordinator))
		if d := wait(a); d < 60*time.Second || d > 61*time.Second {
			t.Errorf("without a session it waits %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		a.awaitTurn(ctx)
		if d := time.Since(begin); d != time.Second {
			t.Errorf("who is told to end waits %v", d)
		}
		if d := wait(stopping(t, store, "c:3", "0")); d != 0 {
			t.Errorf("who was not asked to wait waits %v", d)
		}
	})
}
