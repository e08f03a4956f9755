package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"timehub/hub"
)

// lenience is how long expired items stay: reads of single items are served for 15 minutes after their time (spec 04 §6.1).
const lenience = time.Hour

// retainRound applies the limits of every channel. One that fails does not keep the others from it.
func (j *Jobs) retainRound(ctx context.Context, _ uint64) error {
	all, err := j.opt.Channels.Channels(ctx)
	if err != nil {
		return fmt.Errorf("list the channels: %w", err)
	}
	var failed []error
	for _, ch := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := j.Retain(ctx, ch); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Retain removes what is over the limits of one channel from long-term storage, and returns the number of objects removed: by ttlDays, what has expired more
// than an hour ago; by maxItems, what is strictly older than the maxItems-th newest item, which is hidden first: the logs of the nodes hold it for different
// times, and lists of all have to agree. A channel that keeps for ever, or has a mutable epoch, has no limits. A minute's zip goes when all of it may.
func (j *Jobs) Retain(ctx context.Context, ch *hub.Channel) (int, error) {
	if ch.KeepForever || ch.Historical() {
		return 0, nil
	}
	before, err := j.expired(ctx, ch)
	if err == nil && ch.MaxItems > 0 {
		before, err = j.trimmed(ctx, ch, before)
	}
	if err != nil || before.IsZero() {
		return 0, err
	}
	n, err := j.opt.Long.DeleteBefore(ctx, ch, before)
	j.meters.deleted.Add(int64(n))
	if err != nil {
		return n, fmt.Errorf("remove what is over the limits of channel %s: %w", ch.Name, err)
	}
	if n > 0 {
		j.opt.Log.Info("removed what is over the limits of a channel", "channel", ch.Name, "before", before, "objects", n)
	}
	return n, nil
}

// present is the instant by which items expire: no clock that is ahead of all others may remove what has not expired, so it is never after the horizon, on
// which all nodes agree.
func (j *Jobs) present(ctx context.Context) (time.Time, error) {
	now := j.opt.Clock()
	horizon, err := j.opt.Short.Horizon(ctx)
	if err != nil {
		return now, fmt.Errorf("read the horizon: %w", err)
	}
	if t := horizon.Time(); t.Before(now) {
		now = t
	}
	return now, nil
}

// expired is the key below which a channel keeps nothing by its age; the zero Key if it has no such limit.
func (j *Jobs) expired(ctx context.Context, ch *hub.Channel) (hub.Key, error) {
	if ch.TTLDays <= 0 {
		return hub.Key{}, nil
	}
	now, err := j.present(ctx)
	if err != nil {
		return hub.Key{}, err
	}
	before := hub.First(ch.OldestAllowed(now, time.UnixMilli(0)).Add(-lenience))
	if since := hub.KeyAt(ch.Since, ""); ch.Since > 0 && before.Less(since) {
		return hub.Key{}, nil // only what the clean-up removes lies there
	}
	return before, nil
}

// trimmed hides what is older than the newest items of a channel that keeps a number of them, and returns the key below which nothing is kept: at least before,
// and at least what it was, as something may have been archived since that was hidden already.
func (j *Jobs) trimmed(ctx context.Context, ch *hub.Channel, before hub.Key) (hub.Key, error) {
	// What is not stable may be given up yet: it must not push out an item that is one of the newest without it.
	q := hub.Query{Channel: ch.Name, From: hub.MinKey, To: hub.MaxKey, Limit: int(ch.MaxItems), Reverse: true, Stable: true}
	page, err := j.keys(ctx, q)
	if err != nil {
		return hub.Key{}, fmt.Errorf("find the newest %d items of channel %s: %w", ch.MaxItems, ch.Name, err)
	}
	lowest := ch.Lowest()
	if n := len(page.Keys); int64(n) == ch.MaxItems && lowest.Less(page.Keys[n-1]) {
		done, err := j.opt.Channels.Trim(ctx, ch, page.Keys[n-1])
		if err != nil {
			return hub.Key{}, fmt.Errorf("keep the newest %d items of channel %s: %w", ch.MaxItems, ch.Name, err)
		}
		if done {
			lowest = page.Keys[n-1]
		}
	}
	if before.Less(lowest) {
		before = lowest
	}
	return before, nil
}
