package channel

import (
	"context"
	"iter"

	"timehub/hub"
)

// Keys answers a query from all stores that it needs; the channel may be named in any spelling.
func (s *Service) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	return hub.Page{}, errUnwritten
}

// Items is Keys with the items, read as they are consumed.
func (s *Service) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) { yield(hub.Sealed{}, errUnwritten) }
}

// Horizon is the key up to which stable answers of the channel reach now.
func (s *Service) Horizon(ctx context.Context, channel string) (hub.Key, error) {
	return hub.Key{}, errUnwritten
}

// Watch wakes, at the latest when the horizon has passed it, for every new key of the channel. The channel holds one token.
func (s *Service) Watch(channel string) (wake <-chan struct{}, stop func()) {
	return s.opt.Short.Watch(channel)
}
