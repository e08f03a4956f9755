package archive

import (
	"context"
	"fmt"
	"time"

	"timehub/hub"
)

// Rules is a store that removes what has expired by itself; longterm.Store over S3 is it.
type Rules interface {
	// SetRules gives the store the rules of all channels, at most limit, unless their digest is last; it returns the digest of what is in force.
	SetRules(ctx context.Context, all []*hub.Channel, limit int, now time.Time, last string) (digest string, rules int, err error)
}

const (
	ruleLook  = time.Minute   // how often it is asked whether a channel has changed so that the rules have to
	ruleEvery = 8 * time.Hour // how often they are set although nothing has changed, for somebody else may have changed them; spread by a quarter
	ruleAgain = time.Hour     // the longest pause before rules are tried again that could not be set; the first is ruleLook
)

// keepRules keeps the lifecycle rules of the store equal to the limits of the channels: from the start, a minute after a change, and now and then. A failure
// leaves the rules of before in force.
func (j *Jobs) keepRules(ctx context.Context, _ uint64) error {
	set, pause := "", ruleLook // set: the digest of what is in force
	for again := j.opt.Clock().Add(around(ruleEvery)); ; {
		if now := j.opt.Clock(); !now.Before(again) {
			set, again = "", now.Add(around(ruleEvery))
		}
		digest, err := j.setRules(ctx, set)
		switch {
		case err == nil:
			set, pause = digest, ruleLook
		case ctx.Err() == nil:
			pause = min(2*pause, ruleAgain)
			j.opt.Log.Warn("the lifecycle rules of long-term storage could not be set; meanwhile those of before are in force, and what has expired is removed by the hub",
				"again", pause, "err", err)
		}
		if !hub.Sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// setRules sets the rules unless their digest is set, and returns their digest.
func (j *Jobs) setRules(ctx context.Context, set string) (string, error) {
	all, err := j.opt.Channels.Channels(ctx)
	if err != nil {
		return set, fmt.Errorf("list the channels: %w", err)
	}
	digest, n, err := j.opt.Rules.SetRules(ctx, all, j.opt.MaxRules, j.opt.Clock(), set)
	if err == nil && digest != set {
		j.opt.Log.Info("the lifecycle rules of long-term storage are set", "rules", n)
	}
	return digest, err
}
