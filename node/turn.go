package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"timehub/hub"
)

// shutdownRegister says which node of a cluster is down in order, so that the others wait with their own stop.
const shutdownRegister = "shutdown"

const turnLook = 250 * time.Millisecond

// turn is the value of the register.
type turn struct {
	Node  string    `json:"node"`  // the address at which the others reach it
	Taken time.Time `json:"taken"` // by its clock
}

// readTurn tells who has the turn; the zero turn: nobody.
func (n *Node) readTurn(ctx context.Context) (t turn, version uint64, err error) {
	b, version, err := n.parts.coordinator.Get(ctx, shutdownRegister)
	if hub.Is(err, hub.NotFound) {
		return turn{}, 0, nil
	}
	if err == nil && json.Unmarshal(b, &t) != nil {
		t = turn{Node: "?"} // of nobody that this program knows: as old as can be
	}
	return t, version, err
}

// awaitTurn waits until no other node is down in order, at most as long as app.shutdown_lock_seconds; then this one is. The turn ends when this node is
// healthy again (endTurn). One that is older than that is nobody's any more: a node that died, or does not come back, keeps nobody from stopping.
func (n *Node) awaitTurn(ctx context.Context) {
	limit := n.cfg.Duration("app.shutdown_lock_seconds")
	if limit <= 0 || !n.cfg.Cluster() {
		return
	}
	select {
	case <-n.ready:
	default:
		return // nobody relies on a node that has not been healthy
	}
	waited := false
	for begin := time.Now(); ; {
		t, version, err := n.readTurn(ctx)
		old := n.env.Clock().Sub(t.Taken) >= limit
		if err == nil && (t.Node == "" || t.Node == n.clusterAddress() || old) {
			if t.Node != "" && t.Node != n.clusterAddress() {
				n.log.Warn("another node has been down for too long to be waited for", "node", t.Node, "since", t.Taken)
			}
			if err = n.takeTurn(ctx, version); err == nil {
				return
			}
		}
		if time.Since(begin) >= limit {
			n.log.Warn("this node stops without having waited for its turn", "waited", limit, "err", err)
			return
		}
		if !waited && err == nil {
			waited = true
			n.log.Info("another node is down in order: this one waits until it is back", "node", t.Node, "since", t.Taken, "limit", limit)
		}
		if !hub.Sleep(ctx, turnLook) {
			return
		}
	}
}

func (n *Node) takeTurn(ctx context.Context, version uint64) error {
	b, err := json.Marshal(turn{n.clusterAddress(), n.env.Clock().UTC().Truncate(time.Millisecond)})
	if err != nil {
		return fmt.Errorf("write down who stops: %w", err)
	}
	_, err = n.parts.coordinator.Set(ctx, shutdownRegister, b, version)
	return err
}

// endTurn lets the next node stop, if this one had the turn.
func (n *Node) endTurn(ctx context.Context) error {
	t, version, err := n.readTurn(ctx)
	if err != nil || t.Node != n.clusterAddress() {
		return err
	}
	return n.parts.coordinator.Delete(ctx, shutdownRegister, version)
}

// turnHolder is what the internal interface shows.
func (n *Node) turnHolder(ctx context.Context) (string, error) {
	t, _, err := n.readTurn(ctx)
	return t.Node, err
}

// resetTurn ends whoever's turn it is.
func (n *Node) resetTurn(ctx context.Context) error {
	t, version, err := n.readTurn(ctx)
	if err != nil || t.Node == "" {
		return err
	}
	return n.parts.coordinator.Delete(ctx, shutdownRegister, version)
}
