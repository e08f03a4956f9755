package spoke

import (
	"context"
	"time"

	"timehub/hub"
)

// Ahead implements channel.Others: a node that writes is within the guard of the median of all clocks, and so is this one, or it stands still.
func (n *Node) Ahead() time.Duration {
	if n.cluster == nil {
		return 0
	}
	return 2 * n.opt.ClockGuard
}

// After implements channel.Sequel: it moves the clock to a key that was minted elsewhere, so that whatever is minted here later lies above it (ENGINE §5). A
// key that lies further ahead of the clocks than app.clock_guard is Invalid; while this node has not heard enough clocks, any is Unavailable; for one that lies more than half
// of it ahead, After waits: the bound in the clock file runs no further ahead, or a node that restarts quickly would be out of the guard.
func (n *Node) After(ctx context.Context, key hub.Key) error {
	guard := n.opt.ClockGuard.Milliseconds()
	for {
		n.mu.Lock()
		if n.cluster != nil && !n.cluster.sureOfClock { // by what clock?
			err := n.cluster.standing()
			n.mu.Unlock()
			return err
		}
		ahead := key.Millis() - n.wall()
		if ahead > guard {
			n.mu.Unlock()
			return hub.E(hub.Invalid, "the key %s lies %d ms ahead of this node's clock, more than app.clock_guard (%d ms) allows: send a key that a hub has given",
				key, ahead, guard)
		}
		if key.Millis() < n.minter.Last().Millis() { // also what is too long ago to have a mark
			n.mu.Unlock()
			return nil
		}
		m, ok := hub.MarkOf(key)
		if !ok {
			m = hub.MarkAt(key.Millis()+1) - 1 // above all of its millisecond
		}
		if m <= n.minter.Last() {
			n.mu.Unlock()
			return nil
		}
		if ahead > guard/2 {
			n.mu.Unlock()
			if !hub.Sleep(ctx, time.Duration(ahead-guard/2)*time.Millisecond) {
				return ctx.Err()
			}
			continue
		}
		if m < n.limit {
			n.minter.Raise(m)
			n.ahead(m)
			n.mu.Unlock()
			return nil
		}
		n.mu.Unlock()
		if err := n.raise(ctx, m); err != nil {
			return clockStuck(err)
		}
	}
}
