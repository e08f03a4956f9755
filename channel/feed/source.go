// Package feed follows a channel for ever: from a cursor, in key order, up to the horizon. Webhooks, websockets, events, replication and the archiver
// stand on it. A feed is woken by the horizon passing a new key of its channel; nothing polls (ENGINE §7).
//
// A Feed follows a channel, a Tag the channels that carry a tag: either by key (Next) or by minutes and seconds in which nothing can change any more
// (NextWindow). Where a cursor lies makes no difference: old keys come out of long-term storage, then those of short-term storage, then new ones, without
// a seam, as the query layer answers for both. Feeds that are made with a Shared, as those of clients are, read each new key once for all, and end with
// their channel. Nothing here keeps a place for anybody: cursors are their owners'.
package feed

import (
	"context"
	"iter"

	"timehub/hub"
)

// Source is what a feed needs of the query layer.
type Source interface {
	// Keys and Items answer stable queries; Page.Horizon is the horizon of the answer.
	Keys(ctx context.Context, q hub.Query) (hub.Page, error)
	Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error]
	// Horizon is the key up to which stable answers of the channel reach now.
	Horizon(ctx context.Context, channel string) (hub.Key, error)
	// Watch wakes, at the latest when the horizon has passed it, for every new key of the channel. The channel holds one token.
	Watch(channel string) (wake <-chan struct{}, stop func())
}
