package archive

import (
	"context"
	"fmt"
	"iter"

	"timehub/hub"
)

// query asks the short-term store alone, for everything that people may see.
func query(name string, from, to hub.Key, limit int) hub.Query {
	return hub.Query{Channel: name, From: from, To: to, Limit: limit, Epoch: hub.AllEpochs, Tier: hub.CacheWrite}
}

// first returns the first key of a range; false if there is none.
func (j *Jobs) first(ctx context.Context, name string, from, to hub.Key) (hub.Key, bool, error) {
	page, err := j.keys(ctx, query(name, from, to, 1))
	if err != nil || len(page.Keys) == 0 {
		return hub.Key{}, false, err
	}
	return page.Keys[0], true, nil
}

// keys never takes an answer for whole that is not.
func (j *Jobs) keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	page, err := j.opt.Source.Keys(ctx, q)
	if err != nil {
		return page, fmt.Errorf("read the keys to archive: %w", err)
	}
	if page.Silent > 0 {
		return page, hub.E(hub.Unavailable, "%d stores did not answer", page.Silent)
	}
	return page, nil
}

// items yields the items of a range. One that is damaged on this disk is named in the log and left out: nothing could be archived in its place, and
// nothing behind it must wait for it.
func (j *Jobs) items(ctx context.Context, name string, from, to hub.Key) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		for {
			damaged, last := false, hub.Key{}
			for item, err := range j.opt.Source.Items(ctx, query(name, from, to, 0)) {
				if err != nil && j.opt.Damaged(err) {
					damaged = true
					break
				}
				if err != nil {
					err = fmt.Errorf("read the items to archive: %w", err)
				}
				if !yield(item, err) || err != nil {
					return
				}
				last = item.Key
			}
			if !damaged {
				return
			}
			if !last.IsZero() {
				from = last.After()
			}
			next, more, err := j.stepOver(ctx, name, from, to, yield)
			if err != nil {
				yield(hub.Sealed{}, err)
			}
			if err != nil || !more {
				return
			}
			from = next
		}
	}
}

// stepOver reads item by item up to and including the first damaged one, and returns where to go on.
func (j *Jobs) stepOver(ctx context.Context, name string, from, to hub.Key, yield func(hub.Sealed, error) bool) (next hub.Key, more bool, err error) {
	for {
		key, found, err := j.first(ctx, name, from, to)
		if err != nil || !found {
			return from, false, err
		}
		from = key.After()
		for item, err := range j.opt.Source.Items(ctx, query(name, key, from, 1)) {
			switch {
			case err == nil:
				if !yield(item, nil) {
					return from, false, nil
				}
			case j.opt.Damaged(err):
				j.opt.Log.Error("an item is damaged on this disk and cannot be archived", "channel", name, "key", key, "err", err)
				return from, true, nil
			default:
				return from, false, fmt.Errorf("read an item to archive: %w", err)
			}
		}
	}
}
