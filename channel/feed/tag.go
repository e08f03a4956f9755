package feed

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
)

// Hit is a key of one of a tag's channels.
type Hit struct {
	Channel string // display name
	Key     hub.Key
}

// Compare is the order of a tag: by key, then by display name (spec 01 §1.5).
func (h Hit) Compare(o Hit) int {
	return cmp.Or(h.Key.Compare(o.Key), strings.Compare(h.Channel, o.Channel))
}

// TagOptions are for Shared.Tag.
type TagOptions struct {
	Tag string
	// After is the cursor. With a Channel, the keys equal to it of channels further down the alphabet are still to come; without, none are.
	After Hit
	Limit int             // hits of one Next; 0: 1,000
	Nudge <-chan struct{} // see Options
}

// Tag follows the channels that carry a tag now: those that get it join in at the cursor, those that lose it or are deleted drop out. An unknown tag is
// followed until it has channels. Its methods are for one goroutine at a time.
//
// What comes is in the order of the tag as far as stable answers agree on one horizon: a replica whose own horizon lags brings its keys when they are
// stable, behind others that are greater. Of each channel everything comes, once, in key order. NextWindow waits for such a replica instead.
type Tag struct {
	shared *Shared
	opt    TagOptions
	probe  Feed // asks and waits
	at     Hit
	of     map[string]*member // by display name

	wake   chan struct{}
	recast atomic.Bool // configurations have changed
	mu     sync.Mutex  // guards names
	names  map[string]struct{}
}

// member is one channel of a tag.
type member struct {
	channel *hub.Channel
	after   hub.Key   // its cursor
	keys    []hub.Key // read and not yet returned
	upto    Hit       // up to here, keys is all there is
	sure    hub.Key   // up to here, keys is all there will ever be: no further than the channel's own horizon when it was asked
}

const (
	tagParallel = 8
	// tagPause is what a channel costs a round: rounds over many channels are not begun for each new key.
	tagPause = 20 * time.Microsecond
	tagFree  = 16  // channels for which there is no pause
	lastName = "~" // sorts after every name of a channel
)

// Tag returns a feed of a tag that is told of news until Close.
func (s *Shared) Tag(o TagOptions) (*Tag, error) {
	if s.opt.Keys == nil {
		return nil, errors.New("a Shared without Keys cannot follow a tag")
	}
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	t := &Tag{shared: s, opt: o, at: o.After, of: map[string]*member{}, wake: make(chan struct{}, 1), names: map[string]struct{}{}}
	t.probe.opt = Options{Source: s.opt.Source, Channel: "of tag " + o.Tag, Horizon: s.opt.Horizon, Clock: s.opt.Clock, Nudge: o.Nudge, Log: s.opt.Log}
	t.recast.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tags[t] = struct{}{}
	return t, nil
}

// Close ends it.
func (t *Tag) Close() {
	t.shared.mu.Lock()
	defer t.shared.mu.Unlock()
	delete(t.shared.tags, t)
}

// reconsider and written are called by Shared.
func (t *Tag) reconsider() {
	t.recast.Store(true)
	t.token()
}

func (t *Tag) written(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range names {
		if _, mine := t.names[n]; mine {
			t.token()
			return
		}
	}
}

func (t *Tag) token() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Position is the cursor: the last hit, or where it began.
func (t *Tag) Position() Hit { return t.at }

// Next waits until there are stable keys after the cursor and returns the next of them. Without hits and without an error it was nudged. The only errors
// are those of ctx.
func (t *Tag) Next(ctx context.Context) ([]Hit, error) {
	for {
		if t.recast.Swap(false) {
			if err := t.cast(ctx); err != nil {
				return nil, err
			}
		}
		hits, err := t.round(ctx)
		if err != nil || len(hits) > 0 {
			return hits, err
		}
		if t.recast.Load() {
			continue
		}
		nudged, err := t.untilStable(ctx)
		if nudged || err != nil {
			return nil, err
		}
	}
}

// cast finds out which channels carry the tag.
func (t *Tag) cast(ctx context.Context) error {
	channels, err := t.shared.opt.Channels.TagChannels(ctx, t.opt.Tag)
	if err != nil {
		t.recast.Store(true)
		return t.probe.failed(ctx, err)
	}
	of, names := map[string]*member{}, map[string]struct{}{}
	for _, ch := range channels {
		m := t.of[ch.Name]
		if m == nil || !same(m.channel, ch) {
			m = &member{after: t.start(ch.Name)}
		} else if m.channel.Replicated() != ch.Replicated() {
			m.sure = hub.Key{} // it has another horizon now
		}
		m.channel = ch
		of[ch.Name], names[ch.Name] = m, struct{}{}
	}
	t.of = of
	t.mu.Lock()
	defer t.mu.Unlock()
	t.names = names
	return nil
}

// start is the cursor of a channel that joins in: where the tag stands.
func (t *Tag) start(name string) hub.Key {
	if t.at.Channel == "" || name <= t.at.Channel {
		return t.at.Key
	}
	return hub.KeyAt(t.at.Key.Millis(), before(t.at.Key.Hash()))
}

// before is a hash that sorts before hash, and after those that do: no stored one lies between.
func before(hash string) string {
	if hash == "" {
		return ""
	}
	b := []byte(hash)
	b[len(b)-1]--
	return string(append(b, 0x7f))
}

// round asks all channels up to one horizon and merges what they have. All, for those that nobody told of may have keys below the others'.
func (t *Tag) round(ctx context.Context) ([]Hit, error) {
	if len(t.of) == 0 {
		return nil, nil
	}
	h, err := t.shared.opt.Source.Horizon(ctx, t.leading())
	if hub.Is(err, hub.NotFound) {
		t.reconsider()
		return nil, nil
	}
	if err != nil {
		if err := t.probe.failed(ctx, err); err != nil {
			return nil, err
		}
		t.token()
		return nil, nil
	}
	if ok, err := t.fill(ctx, h, hub.MaxKey, t.opt.Limit); !ok {
		return nil, err
	}
	return t.merge(), nil
}

// leading is a channel whose horizon is that of the node, if there is one.
func (t *Tag) leading() (name string) {
	for n, m := range t.of {
		if name = n; !m.channel.Replicated() {
			break
		}
	}
	return name
}

// fill reads, up to h, for every channel that has nothing in hand, unless it is sure already that there is nothing up to some key. ok is false if not
// all have answered; then it has waited, or it is the end.
func (t *Tag) fill(ctx context.Context, h, unless hub.Key, limit int) (ok bool, err error) {
	var g errgroup.Group
	g.SetLimit(tagParallel)
	for _, m := range t.of {
		switch {
		case len(m.keys) > 0 || !m.sure.Less(unless):
		case len(t.of) == 1:
			if err := t.read(ctx, m, h, limit); err != nil {
				return false, t.unread(ctx, err)
			}
		default:
			g.Go(func() error { return t.read(ctx, m, h, limit) })
		}
	}
	if err := g.Wait(); err != nil {
		return false, t.unread(ctx, err)
	}
	t.probe.recovered()
	return true, nil
}

// read asks for the next keys of one channel.
func (t *Tag) read(ctx context.Context, m *member, h hub.Key, limit int) error {
	from := m.after.After()
	if m.after.IsZero() {
		from = hub.MinKey
	}
	page, err := t.shared.opt.Source.Keys(ctx, hub.Query{Channel: m.channel.Name, From: from, To: h.After(), Limit: limit, Stable: true})
	switch {
	case err == nil && page.Silent > 0:
		err = hub.E(hub.Unavailable, "%d stores did not answer", page.Silent)
	case hub.Is(err, hub.NotFound):
		t.reconsider()
		err = nil
	}
	m.keys, m.upto, m.sure = page.Keys, Hit{lastName, h}, page.Horizon
	if h.Less(m.sure) {
		m.sure = h
	}
	if n := len(page.Keys); n > 0 && (page.More || n == limit) {
		m.upto, m.sure = Hit{m.channel.Name, page.Keys[n-1]}, page.Keys[n-1]
	}
	return err
}

// unread forgets what was read beside a failure: nothing is merged that is not whole. It waits, or returns the end.
func (t *Tag) unread(ctx context.Context, err error) error {
	for _, m := range t.of {
		m.keys, m.upto, m.sure = nil, Hit{}, hub.Key{}
	}
	t.token()
	return t.probe.failed(ctx, err)
}

// merge takes the hits that nothing unread can come before.
func (t *Tag) merge() []Hit {
	var hits []Hit
	bound := Hit{Key: hub.MaxKey}
	for name, m := range t.of {
		if m.upto.Compare(bound) < 0 {
			bound = m.upto
		}
		for _, k := range m.keys {
			hits = append(hits, Hit{name, k})
		}
	}
	slices.SortFunc(hits, Hit.Compare)
	n, _ := slices.BinarySearchFunc(hits, bound, Hit.Compare)
	if n < len(hits) && hits[n] == bound {
		n++
	}
	hits = hits[:min(n, t.opt.Limit)]
	for _, h := range hits {
		m := t.of[h.Channel]
		m.after, m.keys = h.Key, m.keys[1:]
		if t.at.Compare(h) < 0 {
			t.at = h
		}
	}
	return hits
}

// untilStable waits until there may be something.
func (t *Tag) untilStable(ctx context.Context) (nudged bool, err error) {
	if n := len(t.of); n > tagFree {
		if err := rest(ctx, time.Duration(n)*tagPause); err != nil {
			return false, err
		}
	}
	var due time.Time
	if !t.shared.opt.Horizon.Auto {
		for name, m := range t.of {
			t.probe.opt.Channel = name
			key, found, err := t.probe.pending(ctx, m.after)
			switch {
			case hub.Is(err, hub.NotFound):
				t.reconsider()
			case err != nil:
				return false, err
			case found:
				if at := stableAt(t.shared.opt.Horizon, key); due.IsZero() || at.Before(due) {
					due = at
				}
			}
		}
	}
	if due.IsZero() {
		t.probe.lag = 0
		return t.probe.sleep(ctx, 0, t.wake)
	}
	t.probe.wake = t.wake
	return t.probe.until(ctx, due)
}
