package spoke

import (
	"context"
	"time"

	"timehub/hub"
)

// initial is the hash of the keys that Now returns (spec 03 §1.3).
const initial = "initial"

// How long Now waits for the other nodes, and how often it looks.
const (
	nowWait  = time.Second
	nowPause = 2 * time.Millisecond
)

// Now implements channel.Writer: {the present millisecond}/initial. It moves the clock to the end of that millisecond, and the bound above it, so that
// whatever is minted later lies above the key, by this start or the next one. While nothing else moves the clock, all who ask get the same key.
//
// Among others it returns when they too have moved their clocks there, as the horizon shows. If one of them holds the horizon for more than a second, the key
// is the millisecond below the horizon instead: what is written later lies above it, and perhaps a little of what was written before.
func (n *Node) Now(ctx context.Context) (hub.Key, error) {
	k, err := n.now(ctx)
	if err != nil || n.cluster == nil {
		return k, err
	}
	for begin := time.Now(); ; {
		h, err := n.Horizon(ctx)
		switch {
		case err != nil:
			return hub.Key{}, err
		case !h.Less(k):
			return k, nil
		case time.Since(begin) >= nowWait:
			return hub.KeyAt(h.Millis()-1, initial), nil
		}
		if !hub.Sleep(ctx, nowPause) {
			return hub.Key{}, ctx.Err()
		}
	}
}

// now is Now of this node alone.
func (n *Node) now(ctx context.Context) (hub.Key, error) {
	for {
		n.mu.Lock()
		if n.stands() {
			err := n.cluster.standing()
			n.mu.Unlock()
			return hub.Key{}, err
		}
		ms := n.minter.Peek().Millis()
		if last := n.minter.Last(); last == n.nowEnd && n.minter.Wall() <= last.Millis() {
			ms = last.Millis()
		} else if fence, _ := hub.MarkOf(hub.KeyAt(ms, initial)); last >= fence {
			ms++ // keys of this millisecond lie above its initial
		}
		end := hub.MarkAt(ms+1) - 1
		if end < n.limit {
			n.minter.Raise(end)
			n.nowEnd = end
			n.ahead(end)
			n.mu.Unlock()
			return hub.KeyAt(ms, initial), nil
		}
		n.mu.Unlock()
		if err := n.raise(ctx, end); err != nil {
			return hub.Key{}, clockStuck(err)
		}
	}
}

// clockStuck says that no key can be given.
func clockStuck(err error) error {
	if hub.Is(err, hub.Unavailable) { // it says why
		return err
	}
	return hub.E(hub.KindOf(unavailable(err)), "the clock file cannot be moved ahead, so no key can be given: look at the disk of the data directory").Because(err)
}
