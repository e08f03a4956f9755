package channel

import (
	"context"
	"iter"
	"time"

	"timehub/hub"
)

// Kind is what a Search looks for.
type Kind uint8

// The kinds of search.
const (
	InWindow Kind = iota // the keys of Window
	Next                 // the N nearest keys after Key
	Previous             // the N nearest keys before Key
	Latest               // the N newest keys
	Earliest             // the N oldest keys
)

// Search is one of the queries that people make, on a channel or on the channels of a tag (spec 02 §3.2–3.4, §6).
type Search struct {
	Kind      Kind
	Window    hub.Window // InWindow
	Key       hub.Key    // Next, Previous: it need not exist
	Inclusive bool       // Next, Previous: Key itself is a hit if it exists
	N         int        // all but InWindow; above MaxCount it is clamped, at or below 0 nothing is found
	Stable    bool       // nothing above the horizon
	Epoch     hub.Epoch
	Tier      hub.Tier
}

// Answer is what a Search found in one channel.
type Answer struct {
	hub.Page // Keys ascend, whatever the direction of the search
	// Start is the Key of the search, moved to the TTL time if it was before it (spec 02 §3.3).
	Start hub.Key
	// Now and Until are the clock and the end of what the answer can show: the stable instant, or Now if the search was not Stable. A window has
	// a next one if its End is before Until.
	Now, Until time.Time
}

// Tagged is a hit in one of a tag's channels.
type Tagged struct {
	Channel *hub.Channel
	Key     hub.Key
}

// TagAnswer is what a Search found in the channels of a tag: Hits ascend by key, then display name; Page.Keys is nil.
type TagAnswer struct {
	Answer
	Hits []Tagged
}

// Find runs a search on one channel. Errors: Unavailable if a store that is needed does not answer.
func (s *Service) Find(ctx context.Context, ch *hub.Channel, q Search) (Answer, error) {
	return Answer{}, errUnwritten
}

// FindTagged runs a search on all channels of a tag and cuts the union to N. An unknown tag is empty.
func (s *Service) FindTagged(ctx context.Context, tag string, q Search) (TagAnswer, error) {
	return TagAnswer{}, errUnwritten
}

// Stream is Find for bulk reads: it returns the answer and the items it stands for, ascending or descending. A window may hold any number of items, so
// its keys are not gathered: Answer.Keys is nil then. Items that vanished meanwhile are left out.
func (s *Service) Stream(ctx context.Context, ch *hub.Channel, q Search, order hub.Order) (Answer, iter.Seq2[hub.Sealed, error], error) {
	return Answer{}, nil, errUnwritten
}

// TaggedItem is an item of one of a tag's channels.
type TaggedItem struct {
	Channel *hub.Channel
	hub.Sealed
}

// StreamTagged is Stream for a tag; TagAnswer.Hits is nil for a window.
func (s *Service) StreamTagged(ctx context.Context, tag string, q Search, order hub.Order) (TagAnswer, iter.Seq2[TaggedItem, error], error) {
	return TagAnswer{}, nil, errUnwritten
}

// GetTagged reads the item of the first channel of a tag, by display name, that has the key.
func (s *Service) GetTagged(ctx context.Context, tag string, key hub.Key, opt GetOptions) (Found, error) {
	return Found{}, errUnwritten
}

// Stable is the instant up to which stable answers of the channel reach, as /time shows it; now is the clock.
func (s *Service) Stable(ctx context.Context, ch *hub.Channel) (now, stable time.Time, err error) {
	return time.Time{}, time.Time{}, errUnwritten
}
