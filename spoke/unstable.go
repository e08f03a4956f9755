package spoke

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

const (
	keysChunk  = 10_000 // keys that are asked for at once
	itemsChunk = 256    // keys that are found before their items are read
)

// span is a part of an unstable query, in the order of the search. Of one that is settled this disk alone can tell; of another all are asked.
type span struct {
	hub.Query
	settled bool
}

// spans cuts an unstable query at the horizon: all that was committed at or below it is here. That is not so if the horizon is not known (ok), or the channel is
// replicated: what a source has sent has no place in the order of our marks.
func (c *cluster) spans(q hub.Query, h hub.Key, ok bool) []span {
	_, replicated := c.n.store.Complete(q.Channel)
	if !ok || replicated || q.Keyed {
		return []span{{q, false}}
	}
	below, above, fence := q, q, h.After()
	if fence.Less(below.To) {
		below.To = fence
	}
	if above.From.Less(fence) {
		above.From = fence
	}
	parts := []span{{below, true}, {above, false}}
	if q.Reverse {
		slices.Reverse(parts)
	}
	return slices.DeleteFunc(parts, func(p span) bool { return !p.From.Less(p.To) })
}

// keys answers an unstable query for keys.
func (c *cluster) keys(ctx context.Context, q hub.Query, h hub.Key, ok bool) (hub.Page, error) {
	page := hub.Page{Horizon: h}
	for _, part := range c.spans(q, h, ok) {
		if q.Limit > 0 {
			if part.Limit = q.Limit - len(page.Keys); part.Limit == 0 {
				page.More = true // nobody has looked
				break
			}
		}
		var found hub.Page
		var err error
		if part.settled {
			found.Keys, found.More, err = c.n.store.Keys(ctx, q.Channel, part.From, part.To, part.Limit, q.Reverse)
		} else {
			found, err = c.keysOfAll(ctx, part.Query)
		}
		if err != nil {
			return hub.Page{}, err
		}
		page.Keys = append(page.Keys, found.Keys...)
		page.More, page.Silent = found.More, max(page.Silent, found.Silent)
	}
	return page, nil
}

// keysOfAll asks every node on the list for its keys, in pieces.
func (c *cluster) keysOfAll(ctx context.Context, q hub.Query) (page hub.Page, err error) {
	for {
		part := q
		part.Limit = keysChunk
		if q.Limit > 0 {
			part.Limit = min(keysChunk, q.Limit-len(page.Keys))
		}
		found, err := c.keysOnce(ctx, part)
		if err != nil {
			return hub.Page{}, err
		}
		page.Keys = append(page.Keys, found.Keys...)
		page.More, page.Silent = found.More, max(page.Silent, found.Silent)
		if len(found.Keys) == 0 || !found.More || q.Limit > 0 && len(page.Keys) >= q.Limit {
			return page, nil
		}
		q = behind(q, found.Keys[len(found.Keys)-1])
	}
}

// behind is what is left of a query after a key.
func behind(q hub.Query, key hub.Key) hub.Query {
	if q.Reverse {
		q.To = key
	} else {
		q.From = key.After()
	}
	return q
}

// keysOnce merges the answers of all; again if one of them knows a newer list.
func (c *cluster) keysOnce(ctx context.Context, q hub.Query) (hub.Page, error) {
	for {
		page, asked, err := c.gatherKeys(ctx, q)
		if err != nil {
			return page, err
		}
		whole, newer := c.whole(asked)
		if newer && c.catchUp(ctx, asked.epoch) {
			continue
		}
		if whole && c.mayTell() {
			page.Silent = 0
		} else {
			page.Silent = max(page.Silent, 1)
		}
		return page, nil
	}
}

// mayTell reports whether this node may call an answer whole: it has read the list in its present session, and it does not leave.
func (c *cluster) mayTell() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.current && !slices.Contains(c.rec.Leaving, c.opt.Node)
}

// gatherKeys asks all at once. Page.Silent counts those that do not answer.
func (c *cluster) gatherKeys(ctx context.Context, q hub.Query) (page hub.Page, asked census, err error) {
	asked = c.newCensus()
	var mu sync.Mutex // guards page and asked
	var wg sync.WaitGroup
	for _, node := range c.nodes() {
		if node == c.opt.Node {
			continue
		}
		wg.Go(func() {
			a, keys, err := c.askKeys(ctx, node, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				page.Silent++
				return
			}
			asked.add(a.Disk, a.Epoch)
			page.Keys, page.More = append(page.Keys, keys...), page.More || a.More
		})
	}
	own, more, err := c.n.store.Keys(ctx, q.Channel, q.From, q.To, q.Limit, q.Reverse)
	wg.Wait()
	if err != nil {
		return hub.Page{}, asked, err
	}
	if ctx.Err() != nil {
		return hub.Page{}, asked, ctx.Err()
	}
	if c.counts() {
		asked.add(c.n.Identity().ID, 0)
	}
	page.Keys, page.More = append(page.Keys, own...), page.More || more
	slices.SortFunc(page.Keys, func(a, b hub.Key) int {
		if q.Reverse {
			a, b = b, a
		}
		return a.Compare(b)
	})
	page.Keys = slices.Compact(page.Keys)
	if len(page.Keys) > q.Limit {
		page.Keys, page.More = page.Keys[:q.Limit], true
	}
	return page, asked, nil
}

// items answers an unstable query for items: the keys are found, then each is read, here if it is here.
func (c *cluster) items(ctx context.Context, q hub.Query, h hub.Key, ok bool) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		left := q.Limit
		counted := func(item hub.Sealed, err error) bool {
			left--
			return yield(item, err) && (left != 0 || q.Limit == 0)
		}
		for _, part := range c.spans(q, h, ok) {
			part.Limit = max(left, 0)
			parts := c.n.itemsHere(ctx, part.Query)
			if !part.settled {
				parts = c.itemsOfAll(ctx, part.Query)
			}
			for item, err := range parts {
				if !counted(item, err) {
					return
				}
			}
		}
	}
}

// itemsOfAll reads the items of an open part. One that has gone meanwhile – it was given up – is left out.
func (c *cluster) itemsOfAll(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		for left := q.Limit; ; {
			part := q
			part.Limit = itemsChunk
			if q.Limit > 0 {
				part.Limit = min(itemsChunk, left)
			}
			page, err := c.keysOnce(ctx, part)
			if err == nil && page.Silent > 0 && !q.Partial { // a sequence of items cannot say that it lacks some
				err = tryAgain("too few nodes answer to be sure of every item")
			}
			if err != nil {
				yield(hub.Sealed{}, err)
				return
			}
			for _, key := range page.Keys {
				item, err := c.n.Read(ctx, q.Channel, key)
				if hub.Is(err, hub.NotFound) {
					continue
				}
				if left--; !yield(hub.Sealed{Key: key, Data: item.Data}, err) || err != nil || q.Limit > 0 && left == 0 {
					return
				}
			}
			if len(page.Keys) == 0 || !page.More {
				return
			}
			q = behind(q, page.Keys[len(page.Keys)-1])
		}
	}
}

// itemsHere are the items of a query as this disk has them; damaged ones are taken from the others.
func (n *Node) itemsHere(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		for r, err := range n.store.Items(ctx, q.Channel, q.From, q.To, q.Limit, q.Reverse) {
			item := hub.Sealed{Key: r.Key, Data: r.Data}
			if n.cluster != nil && errors.Is(err, spokelog.ErrDamaged) && !r.Key.IsZero() {
				if mended, e := n.cluster.read(ctx, q.Channel, r.Key, err); e == nil {
					item, err = mended, nil
				}
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}
