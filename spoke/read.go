package spoke

import (
	"context"
	"errors"
	"iter"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// Horizon implements channel.ShortTerm: the smallest low of the streams that are not settled; here, of the own one. It moves the clock to what it
// returns, so that nothing is ever minted at or below it.
func (n *Node) Horizon(ctx context.Context) (hub.Key, error) {
	if n.cluster != nil {
		h, err := n.cluster.stable(ctx)
		return h.Key(), err
	}
	for {
		n.mu.Lock()
		if low, busy := n.flight.low(); busy {
			n.mu.Unlock()
			return low.Key(), nil
		}
		next := n.minter.Peek()
		if next < n.limit {
			m := n.minter.Now()
			n.ahead(m)
			n.mu.Unlock()
			return m.Key(), nil
		}
		last := n.minter.Last()
		n.mu.Unlock()
		if err := n.raise(ctx, next); err != nil {
			if ctx.Err() != nil {
				return hub.Key{}, ctx.Err()
			}
			return last.Key(), nil // the clock stands still; everything that was acknowledged lies below
		}
	}
}

// Read implements channel.ShortTerm. Among others, an item that is not here, or damaged, is read from them: NotFound is only said when so many
// answer that it would be known (ENGINE §4).
func (n *Node) Read(ctx context.Context, channel string, key hub.Key) (hub.Sealed, error) {
	r, err := n.store.Get(ctx, channel, key)
	switch {
	case err == nil:
		return hub.Sealed{Key: r.Key, Data: r.Data}, nil
	case n.cluster != nil:
		return n.cluster.read(ctx, channel, key, err)
	case errors.Is(err, spokelog.ErrDamaged):
		return hub.Sealed{}, hub.E(hub.Unavailable, "the item is damaged on this disk").Because(err)
	}
	return hub.Sealed{}, err
}

// clip cuts a stable query at the horizon. What was replicated is decided up to the channel's marker, also ahead of our clock: nothing at or below it is
// minted here.
func (n *Node) clip(ctx context.Context, q *hub.Query) (hub.Key, error) {
	h, err := n.Horizon(ctx)
	if upTo, ok := n.store.Complete(q.Channel); ok {
		sure := true
		if n.cluster != nil {
			upTo, sure = n.cluster.completeTo(q.Channel, upTo)
		}
		if h.Less(upTo) {
			h = upTo
		}
		if !sure && err == nil {
			err = tryAgain("this node has not yet caught up with how far the channel is replicated")
		}
	}
	if err == nil && q.Stable && h.Less(q.To) {
		q.To = h.After()
	}
	return h, err
}

// Keys implements channel.ShortTerm. Among others, an unstable query asks all of them; Page.Silent counts those who should have answered and did not.
func (n *Node) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	h, err := n.clip(ctx, &q)
	if n.cluster != nil && !q.Stable {
		return n.cluster.keys(ctx, q, h, err == nil)
	}
	if err != nil {
		return hub.Page{}, err
	}
	keys, more, err := n.store.Keys(ctx, q.Channel, q.From, q.To, q.Limit, q.Reverse)
	return hub.Page{Keys: keys, More: more, Horizon: h}, err
}

// Items implements channel.ShortTerm.
func (n *Node) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		h, err := n.clip(ctx, &q)
		if n.cluster != nil && !q.Stable {
			n.cluster.items(ctx, q, h, err == nil)(yield)
			return
		}
		if err != nil {
			yield(hub.Sealed{}, err)
			return
		}
		n.itemsHere(ctx, q)(yield)
	}
}

// Floor implements channel.ShortTerm. Among others, it is at least what they have swept of the time that this disk has not caught up with.
func (n *Node) Floor(string) hub.Key {
	floor := n.store.Floor()
	if n.cluster != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		c := n.cluster
		if h, ok := c.lowest(); ok && !h.Key().Less(c.swept) { // it has caught up: what was swept then lies below the floor of the own log
			c.swept = hub.Key{}
		}
		if floor.Less(c.swept) {
			floor = c.swept
		}
	}
	return floor
}

// Watch implements channel.ShortTerm.
func (n *Node) Watch(channel string) (wake <-chan struct{}, stop func()) {
	return n.board.watch(channel)
}

// Changes wakes when any channel has a new key that the horizon has reached; drain returns the names since the last drain, in no order.
func (n *Node) Changes() (wake <-chan struct{}, drain func() []string, stop func()) {
	return n.board.watchAll()
}

// Channels returns every channel that the log holds something of, with its last key here.
func (n *Node) Channels(ctx context.Context) (map[string]hub.Key, error) {
	ranges, err := n.store.Channels(ctx)
	if err != nil {
		return nil, err
	}
	last := make(map[string]hub.Key, len(ranges))
	for name, r := range ranges {
		last[name] = r.Last
	}
	return last, nil
}

// Minute returns the number and the sum of the digests of the distinct keys that the log holds of one minute of a channel. A node of a cluster compares them with those of the
// others first, and copies what it has lost.
func (n *Node) Minute(ctx context.Context, channel string, minute time.Time) (count int, digest uint64, err error) {
	if n.cluster != nil {
		n.cluster.compare(ctx, channel, hub.WindowAt(minute, hub.Minute))
	}
	d, err := n.store.Minute(ctx, channel, minute)
	return d.Count, d.Sum, err
}
