package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// moody is a coordinator whose session is away at the first questions.
type moody struct {
	coord.Coordinator
	away int
}

func (m *moody) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	if m.away > 0 {
		m.away--
		return nil, 0, hub.E(hub.Unavailable, "there is no session")
	}
	return m.Coordinator.Get(ctx, name)
}

// TestClusterID: a session that is lost while a node starts is waited for; all nodes are told one name.
func TestClusterID(t *testing.T) {
	store := local.NewMemory()
	n := &Node{log: slog.New(slog.DiscardHandler)}
	n.parts.coordinator = &moody{store.Session("a"), 2}
	first, err := n.clusterID(t.Context())
	if err != nil || first == "" {
		t.Fatalf("%q, %v", first, err)
	}
	n.parts.coordinator = store.Session("b")
	if second, err := n.clusterID(t.Context()); err != nil || second != first {
		t.Errorf("%q, %v, want %q", second, err, first)
	}
	n.parts.coordinator = &moody{store.Session("c"), 1 << 30}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.clusterID(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a start that was broken off: %v", err)
	}
}
