package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"timehub/channel"
	"timehub/hub"
)

// cleanDelay is how long a deleted channel is left alone: until no pass of an archiver that began before the deletion can still write.
const cleanDelay = 2 * time.Minute

// cleanRound removes what deleted channels have left behind in long-term storage. The documents of the channels say what that is, so whatever was begun and
// not ended, by this process or by one that died, goes on. A channel is clean when a round finds nothing to remove.
func (j *Jobs) cleanRound(ctx context.Context, _ uint64) error {
	all, err := j.opt.Channels.Remains(ctx)
	if err != nil {
		return fmt.Errorf("list deleted channels: %w", err)
	}
	var failed []error
	for _, r := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := j.clean(ctx, r); err != nil {
			failed = append(failed, fmt.Errorf("clean up channel %s: %w", r.Channel.Name, err))
		}
	}
	return errors.Join(failed...)
}

// clean removes the remains of one channel, all of them below the fence r.Until: at or after it lie the items of the next channel of that name.
func (j *Jobs) clean(ctx context.Context, r channel.Remains) error {
	until := time.UnixMilli(r.Until)
	minute := hub.WindowAt(until, hub.Minute)
	// A minute's zip in the middle of which the channel was deleted goes as a whole: when that minute is over, no channel can begin in it any more.
	// The horizon says so, not the clock: a channel begins above the horizon.
	horizon, err := j.opt.Short.Horizon(ctx)
	if err != nil {
		return fmt.Errorf("read the horizon: %w", err)
	}
	if horizon.Less(hub.First(minute.End().Add(cleanDelay))) {
		return nil
	}
	name := r.Channel.Name
	next, err := j.opt.Channels.Fresh(ctx, name)
	if next, err = exactly(next, err, name); err != nil {
		return err
	}
	before := minute.To()
	if next != nil && next.Since < minute.End().UnixMilli() {
		before = hub.First(until) // it began in that minute: the zip is its own, and goes with its retention
	}
	n, err := j.opt.Long.DeleteBefore(ctx, &r.Channel, before)
	j.meters.deleted.Add(int64(n))
	if err != nil {
		return err
	}
	if n > 0 {
		j.opt.Log.Info("removed what a deleted channel has left behind", "channel", name, "before", before, "objects", n)
		return nil
	}
	if err := j.opt.Channels.Cleaned(ctx, r); err != nil {
		return err
	}
	if next != nil {
		return nil
	}
	return errors.Join(j.archived.Delete(ctx, name), j.verified.Delete(ctx, name))
}
