package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

const (
	confirmTimeout = 10 * time.Second
	verifyPage     = 10000
)

// verifyRound compares every minute that has been archived since it was compared last, channel by channel. A channel that fails, or takes too long, keeps
// its place: it was not found to be whole.
func (j *Jobs) verifyRound(ctx context.Context, fence uint64) error {
	all, err := j.opt.Short.Channels(ctx)
	if err != nil {
		return fmt.Errorf("list the channels to verify: %w", err)
	}
	failed := 0
	for name := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := j.verifyChannel(ctx, name, fence)
		switch {
		case errors.Is(err, coord.ErrFenced):
			return fmt.Errorf("%w: %w", coord.ErrLeaseLost, err)
		case err != nil && ctx.Err() == nil:
			failed++
			j.meters.verifyFailed.Add(1)
			j.opt.Log.Warn("a channel was not verified to its end; the next round goes on", "channel", name, "err", err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d channels were not verified to their end", failed, len(all))
	}
	return nil
}

// verifyChannel compares the minutes of one channel, from where the last round ended to where the archiver is.
func (j *Jobs) verifyChannel(ctx context.Context, name string, fence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, j.opt.VerifyTimeout)
	defer cancel()
	ch, err := j.live(ctx, name)
	if err != nil || ch == nil {
		return err
	}
	archived, known := j.Archived(name)
	if !known || archived == hub.MinKey {
		return nil // the archiver has not looked at it yet
	}
	c, err := j.verified.Load(ctx, name, fence)
	if err != nil {
		return err
	}
	return j.verifyRange(ctx, ch, above(c.Position().Key), archived, func(w hub.Window) error { return c.Move(w.To(), nil) })
}

// verifyRange compares the minutes that hold keys of from ≤ key < to and lie wholly below to; done is called after each.
func (j *Jobs) verifyRange(ctx context.Context, ch *hub.Channel, from, to hub.Key, done func(hub.Window) error) error {
	compared := false
	for {
		key, found, err := j.first(ctx, ch.Name, from, to)
		if err == nil && !found {
			return nil
		}
		w := hub.WindowAt(key.Time(), hub.Minute)
		if err == nil {
			var all bool
			if all, err = j.allArchived(ctx, ch, to, w); err == nil && !all {
				return nil // the next round has it
			}
		}
		if err == nil {
			err = j.verifyMinute(ctx, ch, w)
		}
		if err == nil && done != nil {
			err = done(w)
		}
		if err != nil {
			if compared {
				j.meters.verifyParts.Add(1)
			}
			return err
		}
		compared, from = true, w.To()
	}
}

// allArchived reports whether everything of a minute is, given how far the channel is archived. The cursor of a channel with single items stops at the
// horizon it saw last, in the middle of a minute.
func (j *Jobs) allArchived(ctx context.Context, ch *hub.Channel, to hub.Key, w hub.Window) (bool, error) {
	if !to.Less(w.To()) {
		return true, nil
	}
	horizon, err := j.opt.Short.Horizon(ctx)
	if err != nil {
		return false, fmt.Errorf("read the horizon: %w", err)
	}
	if horizon, known := j.bound(ch, horizon); !known || horizon.Less(w.To()) {
		return false, nil
	}
	_, found, err := j.first(ctx, ch.Name, to.After(), w.To())
	return !found, err
}

// verifyMinute compares a minute in each layout of the channel's storage and archives what is missing. It returns nil when nothing is missing any more.
func (j *Jobs) verifyMinute(ctx context.Context, ch *hub.Channel, w hub.Window) error {
	count, digest, err := j.opt.Short.Minute(ctx, ch.Name, w.Start)
	if err != nil {
		return fmt.Errorf("read the digest of minute %s: %w", w, err)
	}
	for _, layout := range layouts(ch) {
		n, sum, err := j.opt.Long.MinuteDigest(ctx, ch, layout, w.Start)
		if err != nil {
			return fmt.Errorf("read the digest of minute %s in long-term storage: %w", w, err)
		}
		if n == count && sum == digest {
			continue
		}
		if err := j.complete(ctx, ch, layout, w); err != nil {
			return err
		}
	}
	return nil
}

func layouts(ch *hub.Channel) []hub.Storage {
	var all []hub.Storage
	if ch.Storage.Singles() {
		all = append(all, hub.Single)
	}
	if ch.Storage.Batches() {
		all = append(all, hub.Batch)
	}
	return all
}

// complete looks, key by key, at what one layout lacks of a minute. Digests differ for good reasons too: the log may hold keys that nobody may see, and
// long-term storage historical ones.
func (j *Jobs) complete(ctx context.Context, ch *hub.Channel, layout hub.Storage, w hub.Window) error {
	missing, err := j.lacking(ctx, ch, layout, w.From(), w.To())
	if err != nil || len(missing) == 0 {
		return err
	}
	j.meters.missing.Add(int64(len(missing)))
	j.opt.Log.Warn("long-term storage lacks items; archiving them again", "channel", ch.Name, "minute", w.String(), "layout", layout, "items", len(missing), "first", missing[0])
	return j.supply(ctx, ch, layout, w, missing)
}

// lacking lists the keys of a range that one layout of long-term storage does not hold.
func (j *Jobs) lacking(ctx context.Context, ch *hub.Channel, layout hub.Storage, from, to hub.Key) (missing []hub.Key, err error) {
	tier := hub.LongTermSingle
	if layout == hub.Batch {
		tier = hub.LongTermBatch
	}
	for {
		here, err := j.keys(ctx, query(ch.Name, from, to, verifyPage))
		if err != nil || len(here.Keys) == 0 {
			return missing, err
		}
		end := to
		if here.More || len(here.Keys) == verifyPage {
			end = here.Keys[len(here.Keys)-1].After()
		}
		there, err := j.opt.Long.Keys(ctx, ch, hub.Query{Channel: ch.Name, From: from, To: end, Epoch: hub.AllEpochs, Tier: tier})
		if err != nil {
			return nil, fmt.Errorf("list the keys in long-term storage: %w", err)
		}
		for _, k := range here.Keys {
			if _, found := slices.BinarySearchFunc(there.Keys, k, hub.Key.Compare); !found {
				missing = append(missing, k)
			}
		}
		if end == to {
			return missing, nil
		}
		from = end
	}
}

// supply archives missing keys of a minute in one layout.
func (j *Jobs) supply(ctx context.Context, ch *hub.Channel, layout hub.Storage, w hub.Window, missing []hub.Key) error {
	if layout == hub.Batch {
		_, err := j.putMinute(ctx, ch, w)
		return err
	}
	for _, k := range missing {
		for item, err := range j.items(ctx, ch.Name, k, k.After()) {
			if err == nil {
				err = j.putSingle(ctx, ch, item)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Confirmed reports whether one key of a channel is in long-term storage, in each layout it should be in; if it is not, it is put there first. The sweep of
// the short-term store asks it of keys that came up late: at or below the horizon, and so perhaps below the cursor. false: not now, ask again.
func (j *Jobs) Confirmed(name string, key hub.Key) bool {
	ctx, cancel := context.WithTimeout(context.Background(), confirmTimeout)
	defer cancel()
	err := j.confirm(ctx, name, key)
	if err != nil {
		j.opt.Log.Debug("a late item is not confirmed yet", "channel", name, "key", key, "err", err)
	}
	return err == nil
}

func (j *Jobs) confirm(ctx context.Context, name string, key hub.Key) error {
	ch, err := j.live(ctx, name)
	if err != nil || ch == nil {
		return err
	}
	for _, layout := range layouts(ch) {
		missing, err := j.lacking(ctx, ch, layout, key, key.After())
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			if err := j.supply(ctx, ch, layout, hub.WindowAt(key.Time(), hub.Minute), missing); err != nil {
				return err
			}
		}
	}
	return nil
}
