package channel

import (
	"context"
	"iter"
	"slices"
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

// query is the search as a query of one channel. It is pure.
func (q Search) query(channel string) hub.Query {
	h := hub.Query{Channel: channel, From: hub.MinKey, To: hub.MaxKey, Limit: q.N, Stable: q.Stable, Epoch: q.Epoch, Tier: q.Tier}
	switch q.Kind {
	case InWindow:
		h.From, h.To, h.Limit = q.Window.From(), q.Window.To(), 0
	case Next:
		if h.From = q.Key; !q.Inclusive {
			h.From = q.Key.After()
		}
	case Previous:
		h.Reverse = true
		if h.To = q.Key; q.Inclusive {
			h.To = q.Key.After()
		}
	case Latest:
		h.Reverse = true
	}
	return h
}

// clamp holds N to the limit.
func (s *Service) clamp(q Search) Search {
	q.N = min(q.N, s.opt.MaxCount)
	return q
}

// asksNothing tells of a search that finds nothing by its N alone.
func (q Search) asksNothing() bool { return q.Kind != InWindow && q.N <= 0 }

// start is the Key, moved to the TTL time of the asked epoch with hash 0 if it is before it. The mutable epoch has no lower end.
func (q Search) start(ch *hub.Channel, now, birthday time.Time) hub.Key {
	if q.Kind != Next && q.Kind != Previous || ch.Historical() && q.Epoch != hub.Immutable {
		return q.Key
	}
	if oldest := ch.OldestAllowed(now, birthday).UnixMilli(); q.Key.Millis() < oldest {
		return hub.KeyAt(oldest, "0")
	}
	return q.Key
}

func (f frame) until(stable bool) time.Time {
	if stable {
		return f.stable
	}
	return f.now
}

// Find runs a search on one channel. Errors: Unavailable if a store that is needed does not answer.
func (s *Service) Find(ctx context.Context, ch *hub.Channel, q Search) (Answer, error) {
	f, err := s.frame(ctx, q.Stable)
	if err != nil {
		return Answer{}, err
	}
	return s.find(ctx, ch, s.clamp(q), f)
}

// header is the answer without keys.
func (s *Service) header(ch *hub.Channel, q Search, f frame) Answer {
	f = s.frameOf(ch, f)
	return Answer{
		Page: hub.Page{Horizon: f.cut}, Start: q.start(ch, f.now, s.opt.Birthday),
		Now: f.now, Until: f.until(q.Stable),
	}
}

func (s *Service) find(ctx context.Context, ch *hub.Channel, q Search, f frame) (Answer, error) {
	q = s.held(ch, q)
	a := s.header(ch, q, f)
	if q.asksNothing() {
		return a, nil
	}
	h := q.query(ch.Name)
	var err error
	if a.Page, err = s.keys(ctx, ch, h, f); err != nil {
		return Answer{}, err
	}
	if h.Reverse {
		slices.Reverse(a.Keys)
	}
	return a, nil
}

// Stream is Find for bulk reads: it returns the answer and the items it stands for, ascending or descending. A window may hold any number of items, so
// its keys are not gathered: Answer.Keys is nil then. Items that vanished meanwhile are left out.
func (s *Service) Stream(ctx context.Context, ch *hub.Channel, q Search, order hub.Order) (Answer, iter.Seq2[hub.Sealed, error], error) {
	f, err := s.frame(ctx, q.Stable)
	if err != nil {
		return Answer{}, nil, err
	}
	q = s.clamp(q)
	if q.Kind == InWindow {
		h := q.query(ch.Name)
		h.Reverse = bool(order)
		a := s.header(ch, q, f)
		if !q.Stable && q.Tier.Short() {
			a.Silent = s.silent(ctx, ch, h)
			h.Partial = a.Silent > 0 // which the answer says
		}
		return a, s.items(ctx, ch, h, f), nil
	}
	a, err := s.find(ctx, ch, q, f)
	if err != nil {
		return Answer{}, nil, err
	}
	return a, s.itemsOf(ctx, ch, s.held(ch, q), a.Page, order, f), nil
}

// silent is how many stores do not answer for the newest end of a window: items cannot say so. What fails here fails again when the items are read.
func (s *Service) silent(ctx context.Context, ch *hub.Channel, h hub.Query) int {
	h.Channel, h.Reverse, h.Limit = ch.Name, true, 1
	page, err := s.opt.Short.Keys(ctx, h)
	if err != nil {
		return 0
	}
	return page.Silent
}

// itemsOf reads the items of an answer with ascending keys, and none that appeared between them since.
func (s *Service) itemsOf(ctx context.Context, ch *hub.Channel, q Search, a hub.Page, order hub.Order, f frame) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		keys := a.Keys
		if len(keys) == 0 {
			return
		}
		h := hub.Query{
			Channel: ch.Name, From: keys[0], To: keys[len(keys)-1].After(), Reverse: bool(order), Stable: q.Stable, Partial: a.Silent > 0, Epoch: q.Epoch, Tier: q.Tier,
		}
		for item, err := range s.items(ctx, ch, h, f) {
			if err == nil {
				if _, found := slices.BinarySearchFunc(keys, item.Key, hub.Key.Compare); !found {
					continue
				}
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// Stable is the instant up to which stable answers of the channel reach, as /time shows it; now is the clock. Both were taken at once.
func (s *Service) Stable(ctx context.Context, ch *hub.Channel) (now, stable time.Time, err error) {
	f, err := s.frame(ctx, true)
	if err == nil && ch != nil {
		f = s.frameOf(ch, f)
	}
	return f.now, f.stable, err
}
