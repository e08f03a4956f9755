package channel

import (
	"context"
	"fmt"
	"iter"

	"timehub/hub"
)

// Items is Keys with the items, read as they are consumed. An error is the last thing it yields.
func (s *Service) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		ch, err := s.Channel(ctx, q.Channel)
		if err == nil {
			var f frame
			if f, err = s.frame(ctx, q.Stable); err == nil {
				s.items(ctx, ch, q, f)(yield)
				return
			}
		}
		yield(hub.Sealed{}, err)
	}
}

func (s *Service) items(ctx context.Context, ch *hub.Channel, q hub.Query, f frame) iter.Seq2[hub.Sealed, error] {
	q.Channel = ch.Name
	f = s.frameOf(ch, f)
	return func(yield func(hub.Sealed, error) bool) {
		found := 0
		for _, l := range inSearchOrder(plan(q, s.view(ch, f)), q.Reverse) {
			part := q
			if q.Limit > 0 {
				part.Limit = q.Limit - found
			}
			for item, err := range s.legItems(ctx, ch, part, l) {
				if err != nil {
					yield(hub.Sealed{}, fmt.Errorf("read items: %w", err))
					return
				}
				found++
				if !yield(item, nil) || found == q.Limit {
					return
				}
			}
		}
	}
}

// legItems merges the items of one leg. If the short-term store was swept after the plan was made, it begins again before it has yielded anything: the store
// answers from what it held when its first item was asked for, and that happens first.
func (s *Service) legItems(ctx context.Context, ch *hub.Channel, q hub.Query, l leg) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		for again := true; again; {
			again = false
			first := func() (goOn bool) {
				l, again = l.risen(q, s.below(ch))
				return !again
			}
			for item, err := range s.legItemsOnce(ctx, ch, q, l, first) {
				if again {
					break
				}
				if !yield(item, err) {
					return
				}
			}
		}
	}
}

func (s *Service) legItemsOnce(ctx context.Context, ch *hub.Channel, q hub.Query, l leg, first func() bool) iter.Seq2[hub.Sealed, error] {
	var short, long source
	if !l.short.empty() {
		short.items = s.shortItems(ctx, ch, q, l, first)
	}
	if !l.long.empty() {
		lq := q
		lq.From, lq.To = l.long.from, l.long.to
		long.items = s.opt.Long.Items(ctx, ch, lq)
	}
	if l.mutable {
		return mergeItems(long, short, q.Reverse)
	}
	if q.Reverse && q.Limit > 0 {
		long.late = &l.long.to
	}
	return mergeItems(short, long, q.Reverse)
}

// shortItems are the items of the short-term store, without those that were deleted, and with those that it holds damaged replaced from long-term
// storage. first is called when the store has answered for the first time; false ends it.
func (s *Service) shortItems(ctx context.Context, ch *hub.Channel, q hub.Query, l leg, first func() bool) iter.Seq2[hub.Sealed, error] {
	q.From, q.To = l.short.from, l.short.to
	var gone goneKeys
	if l.mutable {
		if gone = s.gone(ctx, ch); q.Limit > 0 {
			q.Limit += len(gone)
		}
	}
	return func(yield func(hub.Sealed, error) bool) {
		asked := false
		answered := func() bool { was := asked; asked = true; return was || first() }
		for more := true; more; {
			more = false
			for item, err := range s.opt.Short.Items(ctx, q) {
				if !answered() {
					return
				}
				if err != nil {
					if item, err = s.mend(ctx, ch, q, item, err); err == nil {
						q, more = past(q, item.Key), true // the store may have ended with its error
					}
				}
				if err != nil || !gone.has(item.Key) {
					if !yield(item, err) || err != nil || q.Limit == 1 {
						return
					}
					q.Limit = max(q.Limit-1, 0)
				}
				if more {
					break
				}
			}
		}
		answered()
	}
}

// past is what is left of a query after a key.
func past(q hub.Query, key hub.Key) hub.Query {
	if q.Reverse {
		q.To = key
	} else {
		q.From = key.After()
	}
	return q
}

// mend takes an item whose reading failed from long-term storage, or returns the error.
func (s *Service) mend(ctx context.Context, ch *hub.Channel, q hub.Query, item hub.Sealed, err error) (hub.Sealed, error) {
	if item.Key.IsZero() {
		return item, err
	}
	unreadable := hub.E(hub.Unavailable, "item %s of channel %s cannot be read now", item.Key, ch.Name).Because(err)
	if !q.Tier.Long() {
		return item, unreadable
	}
	whole, longErr := s.opt.Long.Read(ctx, ch, item.Key)
	if longErr == nil {
		s.opt.Log.Warn("an item that cannot be read here was taken from long-term storage", "channel", ch.Name, "key", item.Key.String(), "err", err)
		return whole, nil
	}
	return item, unreadable
}
