package feed

import (
	"context"
	"iter"

	"timehub/hub"
)

// ItemSource is the part of a Source that has items.
type ItemSource interface {
	Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error]
}

// Items reads the items of ascending keys of a channel, in their order. An item that is no longer there (it has expired, or was deleted) comes as an error of
// kind NotFound with its Key set, and the next one follows; any other error ends the sequence.
func Items(ctx context.Context, s ItemSource, channel string, keys []hub.Key) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		if len(keys) == 0 {
			return
		}
		missing := func(k hub.Key) bool {
			return yield(hub.Sealed{Key: k}, hub.E(hub.NotFound, "item %s of channel %s is no longer there", k, channel))
		}
		q := hub.Query{Channel: channel, From: keys[0], To: keys[len(keys)-1].After(), Stable: true}
		i := 0
		for item, err := range s.Items(ctx, q) {
			if err != nil {
				yield(hub.Sealed{}, err)
				return
			}
			for i < len(keys) && keys[i].Less(item.Key) {
				if i++; !missing(keys[i-1]) {
					return
				}
			}
			if i == len(keys) || keys[i] != item.Key {
				continue
			}
			if i++; !yield(item, nil) {
				return
			}
		}
		for ; i < len(keys); i++ {
			if !missing(keys[i]) {
				return
			}
		}
	}
}
