package feed

import (
	"context"

	"timehub/hub"
)

// Follow returns a feed of a channel. limit and nudge are Options.Limit and Options.Nudge.
func (s *Shared) Follow(channel string, after hub.Key, limit int, nudge <-chan struct{}) (*Feed, error) {
	o := s.opt
	return New(Options{Source: o.Source, Channel: channel, After: after, Horizon: o.Horizon, Clock: o.Clock, Limit: limit, Shared: s, Nudge: nudge, Log: o.Log})
}

// Wait returns a stable key after a cursor when the channel has one, or its end: that of ctx, or NotFound if the channel is gone.
func (s *Shared) Wait(ctx context.Context, channel string, after hub.Key) (hub.Key, error) {
	f, err := s.Follow(channel, after, 0, nil)
	if err != nil {
		return hub.Key{}, err
	}
	defer f.Close()
	_, err = f.Next(ctx)
	return f.Position(), err
}

// WaitAny is Wait for keys that need not be stable.
func (s *Shared) WaitAny(ctx context.Context, channel string, after hub.Key) (hub.Key, error) {
	if s.opt.Horizon.Auto {
		return s.Wait(ctx, channel, after)
	}
	t, err := s.join(channel)
	if err != nil {
		return hub.Key{}, err
	}
	defer s.leave(t)
	wake, stop := s.opt.Source.Watch(t.channel.Name)
	defer stop()
	f := Feed{opt: Options{Source: s.opt.Source, Channel: channel, Horizon: s.opt.Horizon, Clock: s.opt.Clock, Log: s.opt.Log}}
	for {
		if key, found, err := f.pending(ctx, after); found || err != nil {
			return key, err
		}
		ended, err := t.end()
		if err != nil {
			return hub.Key{}, err
		}
		select {
		case <-ctx.Done():
			return hub.Key{}, context.Cause(ctx)
		case <-wake:
		case <-ended:
		}
	}
}

// WaitTag is Wait for the channels of a tag.
func (s *Shared) WaitTag(ctx context.Context, tag string, after hub.Key) (hub.Key, error) {
	f, err := s.Tag(TagOptions{Tag: tag, After: Hit{Key: after}})
	if err != nil {
		return hub.Key{}, err
	}
	defer f.Close()
	_, err = f.Next(ctx)
	return f.Position().Key, err
}
