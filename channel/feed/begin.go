package feed

import (
	"context"
	"time"

	"timehub/hub"
)

// Now is the cursor of a feed that takes what becomes stable from now on: the horizon.
func Now(ctx context.Context, s Source, channel string) (hub.Key, error) {
	return s.Horizon(ctx, channel)
}

// At is the cursor of a feed that begins with the keys of an instant's millisecond.
func At(t time.Time) hub.Key { return hub.First(t) }

// Last is the cursor of a feed that begins with the n newest stable keys, or fewer if there are not so many; without any, it is Now.
func Last(ctx context.Context, s Source, channel string, n int) (hub.Key, error) {
	h, err := s.Horizon(ctx, channel)
	if err != nil || n <= 0 {
		return h, err
	}
	page, err := s.Keys(ctx, hub.Query{Channel: channel, From: hub.MinKey, To: h.After(), Limit: n + 1, Reverse: true, Stable: true})
	switch {
	case err != nil:
		return hub.Key{}, err
	case page.Silent > 0:
		return hub.Key{}, hub.E(hub.Unavailable, "the newest items of channel %s are not known for sure: a store did not answer", channel)
	case len(page.Keys) == 0:
		return h, nil
	case len(page.Keys) > n:
		return page.Keys[n], nil
	}
	return hub.First(page.Keys[len(page.Keys)-1].Time()), nil
}

// Earliest is the cursor of a feed that begins with the first key there is; without any, it is Now.
func Earliest(ctx context.Context, s Source, channel string) (hub.Key, error) {
	h, err := s.Horizon(ctx, channel)
	if err != nil {
		return h, err
	}
	page, err := s.Keys(ctx, hub.Query{Channel: channel, From: hub.MinKey, To: h.After(), Limit: 1, Stable: true})
	switch {
	case err != nil:
		return hub.Key{}, err
	case page.Silent > 0:
		return hub.Key{}, hub.E(hub.Unavailable, "the first item of channel %s is not known for sure: a store did not answer", channel)
	case len(page.Keys) == 0:
		return h, nil
	}
	return hub.First(page.Keys[0].Time()), nil
}
