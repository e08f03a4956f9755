// Package channeltest holds in-memory stores that keep the promises of channel.ShortTerm, channel.LongTerm and channel.Catalog, for tests of what stands
// on package channel. They are faithful in what they answer, not in what they cost: each query copies and scans.
//
// They can be told to fail, to forget what is older than a floor, and count how often they were asked, so that tests can say what a query may cost.
// Nothing outside tests imports this package.
package channeltest

import (
	"context"
	"iter"
	"slices"
	"sync"

	"timehub/hub"
)

// Short is a short-term store in memory. Its horizon is the newest position of its clock: everything that was answered is stable at once.
type Short struct {
	mu     sync.Mutex
	minter *hub.Minter
	items  map[string][]hub.Sealed // by display name, sorted
	floors map[string]hub.Key
	marks  map[string]hub.Key // of replicated channels
	wakes  map[string]map[chan struct{}]bool
	hold   *hub.Key
	fail   error
	lost   error
	broken map[hub.Key]error
	asked  int
	silent int
}

// NewShort returns an empty store; clock nil: one that starts at 2026-01-02 and moves on by a millisecond each time it is read.
func NewShort(clock hub.Clock) *Short {
	if clock == nil {
		clock = NewClock().Tick
	}
	random := uint32(0)
	return &Short{
		minter: hub.NewMinter(clock, 0, 0, func() uint32 { random++; return random }),
		items:  map[string][]hub.Sealed{}, broken: map[hub.Key]error{}, marks: map[string]hub.Key{}, floors: map[string]hub.Key{}, wakes: map[string]map[chan struct{}]bool{},
	}
}

// Fail lets every call fail with err from now on; nil: no more.
func (s *Short) Fail(err error) { s.mu.Lock(); s.fail = err; s.mu.Unlock() }

// Lose lets writes happen and then fail with err; nil: no more.
func (s *Short) Lose(err error) { s.mu.Lock(); s.lost = err; s.mu.Unlock() }

// Break lets reads of a key fail with err, and Items end with it and the key; nil: no more.
func (s *Short) Break(key hub.Key, err error) { s.mu.Lock(); s.broken[key] = err; s.mu.Unlock() }

// Hush lets a number of stores that ought to answer unstable queries say nothing from now on.
func (s *Short) Hush(stores int) { s.mu.Lock(); s.silent = stores; s.mu.Unlock() }

// Hold keeps the horizon at a key; nil lets it go.
func (s *Short) Hold(at *hub.Key) { s.mu.Lock(); s.hold = at; s.mu.Unlock() }

// Sweep forgets the items of a channel below floor and reports floor from then on.
func (s *Short) Sweep(channel string, floor hub.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[channel] = slices.DeleteFunc(s.items[channel], func(i hub.Sealed) bool { return i.Key.Less(floor) })
	s.floors[channel] = floor
}

// SetFloor reports floor from now on and forgets nothing, as a log does that could not let go of a segment.
func (s *Short) SetFloor(channel string, floor hub.Key) {
	s.mu.Lock()
	s.floors[channel] = floor
	s.mu.Unlock()
}

// Asked is how many reads and queries were asked so far.
func (s *Short) Asked() int { s.mu.Lock(); defer s.mu.Unlock(); return s.asked }

// All lists what the store holds of a channel.
func (s *Short) All(channel string) []hub.Sealed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.items[channel])
}

func (s *Short) put(channel string, i hub.Sealed) {
	all := s.items[channel]
	at, found := slices.BinarySearchFunc(all, i.Key, func(a hub.Sealed, k hub.Key) int { return a.Key.Compare(k) })
	if !found {
		i.Data = slices.Clone(i.Data)
		s.items[channel] = slices.Insert(all, at, i)
	}
	for w := range s.wakes[channel] {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (s *Short) state(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.fail
}

// Write mints a key for sealed bytes.
func (s *Short) Write(ctx context.Context, channel string, sealed []byte) (hub.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state(ctx); err != nil {
		return hub.Key{}, err
	}
	_, k := s.minter.Mint()
	s.put(channel, hub.Sealed{Key: k, Data: sealed})
	if s.lost != nil {
		return hub.Key{}, s.lost
	}
	return k, nil
}

// WriteBulk writes all items under one shared key.
func (s *Short) WriteBulk(ctx context.Context, channel string, sealed [][]byte) (hub.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state(ctx); err != nil {
		return hub.Key{}, err
	}
	_, k := s.minter.Mint()
	for i, data := range sealed {
		s.put(channel, hub.Sealed{Key: hub.BulkKey(k, i), Data: data})
	}
	if s.lost != nil {
		return hub.Key{}, s.lost
	}
	return k, nil
}

// WriteKeyed writes items under keys of their own.
func (s *Short) WriteKeyed(ctx context.Context, channel string, items ...hub.Sealed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state(ctx); err != nil {
		return err
	}
	for _, i := range items {
		s.put(channel, i)
	}
	return s.lost
}

// WriteComplete moves the marker of a replicated channel, forward only.
func (s *Short) WriteComplete(ctx context.Context, channel string, upTo hub.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state(ctx); err != nil {
		return err
	}
	if at, ok := s.marks[channel]; !ok || at.Less(upTo) {
		s.marks[channel] = upTo
	}
	return s.lost
}

// Marker is Complete: there is one node.
func (s *Short) Marker(channel string) (hub.Key, bool) { return s.Complete(channel) }

// Complete is the marker of a replicated channel.
func (s *Short) Complete(channel string) (hub.Key, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.marks[channel]
	return k, ok
}

// Now is the position of the clock; what is written later lies above it.
func (s *Short) Now(ctx context.Context) (hub.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state(ctx); err != nil {
		return hub.Key{}, err
	}
	ms := s.minter.Peek().Millis()
	s.minter.Raise(hub.MarkAt(ms+1) - 1)
	return hub.KeyAt(ms, "initial"), nil
}

// Read returns one item.
func (s *Short) Read(ctx context.Context, channel string, key hub.Key) (hub.Sealed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if err := s.state(ctx); err != nil {
		return hub.Sealed{}, err
	}
	if err := s.broken[key]; err != nil {
		return hub.Sealed{}, err
	}
	return find(s.items[channel], key)
}

// Keys answers a query.
func (s *Short) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	hits, page, err := s.query(ctx, q)
	page.Keys = keysOf(hits)
	return page, err
}

// Items answers a query.
func (s *Short) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		hits, page, err := s.query(ctx, q)
		if err == nil && page.Silent > 0 && !q.Partial {
			hits, err = nil, hub.E(hub.Unavailable, "%d stores do not answer", page.Silent)
		}
		for i, h := range hits {
			s.mu.Lock()
			broken := s.broken[h.Key]
			s.mu.Unlock()
			if broken != nil {
				if each(ctx, hits[:i], nil, yield) {
					yield(hub.Sealed{Key: h.Key}, broken)
				}
				return
			}
		}
		each(ctx, hits, err, yield)
	}
}

func (s *Short) query(ctx context.Context, q hub.Query) ([]hub.Sealed, hub.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if err := s.state(ctx); err != nil {
		return nil, hub.Page{}, err
	}
	page := hub.Page{Horizon: s.horizon()}
	if mark, ok := s.marks[q.Channel]; ok && page.Horizon.Less(mark) {
		page.Horizon = mark
	}
	if q.Stable && page.Horizon.After().Less(q.To) {
		q.To = page.Horizon.After()
	}
	hits, more := choose(s.items[q.Channel], q)
	if page.More = more; !q.Stable {
		page.Silent = s.silent
	}
	return hits, page, nil
}

// Horizon is the position of the clock, or where it is held.
func (s *Short) Horizon(ctx context.Context) (hub.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state(ctx); err != nil {
		return hub.Key{}, err
	}
	return s.horizon(), nil
}

func (s *Short) horizon() hub.Key {
	if s.hold != nil {
		return *s.hold
	}
	return s.minter.Now().Key()
}

// Floor is what Sweep said last; hub.MinKey before.
func (s *Short) Floor(channel string) hub.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.floors[channel]; ok {
		return f
	}
	return hub.MinKey
}

// Watch wakes with every write to a channel.
func (s *Short) Watch(channel string) (wake <-chan struct{}, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := make(chan struct{}, 1)
	if s.wakes[channel] == nil {
		s.wakes[channel] = map[chan struct{}]bool{}
	}
	s.wakes[channel][w] = true
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.wakes[channel], w)
	}
}

func find(all []hub.Sealed, key hub.Key) (hub.Sealed, error) {
	at, found := slices.BinarySearchFunc(all, key, func(a hub.Sealed, k hub.Key) int { return a.Key.Compare(k) })
	if !found {
		return hub.Sealed{}, hub.E(hub.NotFound, "no item %s", key)
	}
	return all[at], nil
}

// choose answers a query from sorted items.
func choose(all []hub.Sealed, q hub.Query) (hits []hub.Sealed, more bool) {
	for _, i := range all {
		if !i.Key.Less(q.From) && i.Key.Less(q.To) {
			hits = append(hits, i)
		}
	}
	if q.Reverse {
		slices.Reverse(hits)
	}
	if q.Limit > 0 && len(hits) > q.Limit {
		return hits[:q.Limit], true
	}
	return hits, false
}

func keysOf(items []hub.Sealed) []hub.Key {
	var keys []hub.Key
	for _, i := range items {
		keys = append(keys, i.Key)
	}
	return keys
}

func each(ctx context.Context, hits []hub.Sealed, err error, yield func(hub.Sealed, error) bool) (more bool) {
	for _, i := range hits {
		if ctx.Err() != nil {
			yield(hub.Sealed{}, ctx.Err())
			return false
		}
		if !yield(i, nil) {
			return false
		}
	}
	if err != nil {
		yield(hub.Sealed{}, err)
	}
	return err == nil
}
