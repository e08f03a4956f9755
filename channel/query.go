package channel

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
)

// The policy of every query, stated once:
//
// The short-term store is always asked: it has what was written lately, and what is not archived yet. Long-term storage is asked too when the search
// reaches keys that the short-term store does not surely hold: below its floor for the channel, or up to the latest mutable time that the channel
// ever had, since historical items go straight to long-term. It is not asked when a search from the newest end is satisfied before it gets there.
// If a store that is needed fails, the query fails; there are no partial answers. An item that the short-term store holds damaged is taken from long-term
// storage if it is there.
//
// An answer is cut to what may be seen (spec 02 §3.6): by age, epoch or what maxItems has removed at the lower end, by the horizon at the upper one if it is
// to be stable. Without that, there is no upper end: every acknowledged item is included.

// frame is when a query was asked: the clock, and the end of what is stable. One frame serves one request, however many channels it asks.
type frame struct {
	now    time.Time
	cut    hub.Key   // zero: the horizon is not known
	stable time.Time // the instant of the cut, as people see it
}

// frame reads clock and horizon. Without a horizon there is no stable answer; others can do without.
func (s *Service) frame(ctx context.Context, stable bool) (frame, error) {
	horizon, err := s.opt.Short.Horizon(ctx)
	f := frame{now: s.opt.Clock().UTC()}
	if err != nil {
		if stable {
			return f, fmt.Errorf("read the horizon: %w", err)
		}
		return f, nil
	}
	f.cut, f.stable = s.cut(horizon, f.now)
	return f, nil
}

// shown is the highest end of stable answers that there was.
type shown struct {
	cut    hub.Key
	stable time.Time
}

// cut finds the end of what is stable. With a number of seconds it is counted from the clock, and a clock that is set back must not take it back: what was
// shown stays stable (ENGINE §5). After a start the clock of the store does that, which survives it and is never behind its horizon.
func (s *Service) cut(horizon hub.Key, now time.Time) (hub.Key, time.Time) {
	if s.opt.Horizon.Auto {
		return s.opt.Horizon.Cut(horizon, now)
	}
	if t := horizon.Time(); t.After(now) {
		now = t
	}
	next := new(shown)
	next.cut, next.stable = s.opt.Horizon.Cut(horizon, now)
	for {
		last := s.shown.Load()
		if last != nil && !last.cut.Less(next.cut) {
			return last.cut, last.stable
		}
		if s.shown.CompareAndSwap(last, next) {
			return next.cut, next.stable
		}
	}
}

// span is a range of keys, From ≤ key < To.
type span struct{ from, to hub.Key }

func (p span) empty() bool { return !p.from.Less(p.to) }

// and is the part that lies in both.
func (p span) and(o span) span { return span{later(p.from, o.from), earlier(p.to, o.to)} }

func later(a, b hub.Key) hub.Key {
	if a.Less(b) {
		return b
	}
	return a
}

func earlier(a, b hub.Key) hub.Key {
	if a.Less(b) {
		return a
	}
	return b
}

// leg is one part of a query: what to ask each store for. An empty span means: nothing.
type leg struct {
	short, long span
	mutable     bool // long-term storage is right where both have a key, and what was deleted is left out of the short-term store's answer
}

// view is all that a plan depends on beside the query.
type view struct {
	frame
	ch       *hub.Channel
	birthday time.Time
	floor    hub.Key // of the short-term store
}

// plan says what to ask for, in ascending order of keys. It is pure.
func plan(q hub.Query, v view) []leg {
	asked := span{later(q.From, hub.MinKey), q.To}
	if q.Stable {
		asked.to = earlier(asked.to, v.cut.After())
	}
	below := longTermBelow(v.ch, v.floor)
	var legs []leg
	for _, part := range visible(q.Epoch, v) {
		keys := asked.and(part.span)
		if !part.mutable && q.Tier != hub.CacheWrite { // the archiver packs whole minutes
			keys.from = later(keys.from, v.ch.Lowest())
		}
		if keys.empty() {
			continue
		}
		l := leg{short: keys, long: keys, mutable: part.mutable}
		switch {
		case !q.Tier.Short():
			l.short = span{}
		case part.mutable:
			l.short.from = later(keys.from, later(hub.First(v.now.Add(-logReach)), hub.KeyAt(v.ch.Since, "")))
		}
		switch {
		case !q.Tier.Long():
			l.long = span{}
		case !part.mutable && q.Tier == hub.AllTiers:
			l.long.to = earlier(keys.to, below)
		}
		if !l.short.empty() || !l.long.empty() {
			legs = append(legs, l)
		}
	}
	return legs
}

// epochPart is what a query may see of one epoch.
type epochPart struct {
	span
	mutable bool
}

// visible lists what a query may see, in ascending order (spec 02 §3.6). Ordinary channels are immutable throughout, whatever epoch is asked for. Of
// the mutable epoch Since hides nothing: a name is free for a historical channel only when nothing is left of the one before.
func visible(e hub.Epoch, v view) []epochPart {
	immutable := epochPart{span: span{hub.First(v.ch.OldestAllowed(v.now, v.birthday)), hub.MaxKey}}
	if !v.ch.Historical() {
		return []epochPart{immutable}
	}
	mutable := epochPart{span: span{hub.MinKey, hub.First(v.ch.MutableTime.Add(time.Millisecond))}, mutable: true}
	switch e {
	case hub.Immutable:
		return []epochPart{immutable}
	case hub.Mutable:
		return []epochPart{mutable}
	}
	return []epochPart{mutable, immutable}
}

// longTermBelow is the key below which immutable items may lie in long-term storage alone.
func longTermBelow(ch *hub.Channel, floor hub.Key) hub.Key {
	top := ch.Backfilled
	if ch.Historical() {
		top = max(top, ch.MutableTime.UnixMilli())
	}
	if top == 0 {
		return floor
	}
	return later(floor, hub.KeyAt(top+1, ""))
}

// Keys answers a query from all stores that it needs; the channel may be named in any spelling. Page.Horizon is the end of what is stable now, also
// of answers that are not.
func (s *Service) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	ch, err := s.Channel(ctx, q.Channel)
	if err != nil {
		return hub.Page{}, err
	}
	f, err := s.frame(ctx, q.Stable)
	if err != nil {
		return hub.Page{}, err
	}
	return s.keys(ctx, ch, q, f)
}

// frameOf is the frame of one channel. A replicated channel is stable up to its marker, whatever the clock says (spec 01 §5); so is one that was a target,
// as long as the horizon is not there: until then nothing is minted in it (hub.Channel.LiveFrom).
func (s *Service) frameOf(ch *hub.Channel, f frame) frame {
	if !ch.Replicated() && ch.LiveFrom == 0 {
		return f
	}
	upTo, ok := s.complete(ch.Name)
	if ok && (s.led(ch, upTo) || !f.cut.IsZero() && f.cut.Less(upTo)) {
		f.cut, f.stable = upTo, upTo.Time()
	}
	return f
}

// led reports whether a marker is the end of what a channel shows: its source has brought it there, in its present time as a target. One from an earlier time
// would hide what was written in between; its follower moves it soon.
func (s *Service) led(ch *hub.Channel, marker hub.Key) bool {
	if !ch.Replicated() || ch.Marked == "" {
		return ch.Replicated()
	}
	before, err := hub.ParseKey(ch.Marked)
	return err != nil || before.Less(marker)
}

// held is a search of one channel: searches by direction show of a replicated channel what is stable, whatever they ask for (spec 01 §5).
func (s *Service) held(ch *hub.Channel, q Search) Search {
	if q.Kind != InWindow && ch.Replicated() {
		if upTo, ok := s.complete(ch.Name); ok && s.led(ch, upTo) {
			q.Stable = true
		}
	}
	return q
}

func (s *Service) view(ch *hub.Channel, f frame) view {
	return view{frame: f, ch: ch, birthday: s.opt.Birthday, floor: s.opt.Short.Floor(ch.Name)}
}

func (s *Service) keys(ctx context.Context, ch *hub.Channel, q hub.Query, f frame) (hub.Page, error) {
	q.Channel, q.Keyed = ch.Name, ch.Replicated()
	f = s.frameOf(ch, f)
	all := hub.Page{Horizon: f.cut}
	legs := inSearchOrder(plan(q, s.view(ch, f)), q.Reverse)
	for i, l := range legs {
		part := q
		if q.Limit > 0 {
			part.Limit = q.Limit - len(all.Keys)
		}
		page, err := s.legKeys(ctx, ch, part, l)
		if err != nil {
			return hub.Page{}, err
		}
		if all.Keys == nil {
			all.Keys = page.Keys
		} else {
			all.Keys = append(all.Keys, page.Keys...)
		}
		all.Silent = max(all.Silent, page.Silent)
		all.More = page.More
		if q.Limit > 0 && len(all.Keys) >= q.Limit {
			all.More = all.More || i+1 < len(legs) // the other epoch was not looked at
			break
		}
	}
	return all, nil
}

func inSearchOrder(legs []leg, reverse bool) []leg {
	if reverse && len(legs) == 2 {
		legs[0], legs[1] = legs[1], legs[0]
	}
	return legs
}

// risen tells that the short-term store has let go of keys since the query was planned, and returns the leg as it has to be asked for then. below is
// what longTermBelow said after the store had answered.
func (l leg) risen(q hub.Query, below hub.Key) (leg, bool) {
	if l.mutable || q.Tier != hub.AllTiers {
		return l, false
	}
	to := earlier(l.short.to, below)
	if !later(l.long.to, l.short.from).Less(to) {
		return l, false
	}
	l.long = span{l.short.from, to}
	return l, true
}

// below is the key below which immutable items of a channel may lie in long-term storage alone, now.
func (s *Service) below(ch *hub.Channel) hub.Key {
	return longTermBelow(ch, s.opt.Short.Floor(ch.Name))
}

// legKeys asks the stores of one leg, again if the short-term store was swept in between.
func (s *Service) legKeys(ctx context.Context, ch *hub.Channel, q hub.Query, l leg) (hub.Page, error) {
	for {
		page, below, err := s.legKeysOnce(ctx, ch, q, l)
		again := false
		if err == nil {
			l, again = l.risen(q, below)
		}
		if !again {
			return page, err
		}
	}
}

// legKeysOnce asks the stores of one leg. A search from the newest end with a limit asks the short-term store first and long-term storage only for what
// is missing; any other asks both at once.
func (s *Service) legKeysOnce(ctx context.Context, ch *hub.Channel, q hub.Query, l leg) (page hub.Page, below hub.Key, err error) {
	if q.Reverse && q.Limit > 0 && !l.mutable && !l.short.empty() && !l.long.empty() {
		return s.legKeysDown(ctx, ch, q, l)
	}
	var short, long hub.Page
	var g errgroup.Group
	if !l.long.empty() {
		ask := func() (err error) {
			long, err = s.longKeys(ctx, ch, q, l.long)
			return err
		}
		if l.short.empty() {
			err = ask()
			return long, below, err
		}
		g.Go(ask)
	}
	if !l.short.empty() {
		short, err = s.shortKeys(ctx, ch, q, l)
		below = s.below(ch)
	}
	if longErr := g.Wait(); err == nil {
		err = longErr
	}
	if err != nil {
		return hub.Page{}, below, err
	}
	return mergePages(short, long, q), below, nil
}

func mergePages(short, long hub.Page, q hub.Query) hub.Page {
	page := hub.Page{Silent: short.Silent + long.Silent}
	page.Keys, page.More = mergeKeys(short.Keys, long.Keys, q.Reverse, q.Limit)
	page.More = page.More || short.More || long.More
	return page
}

// legKeysDown goes from the newest end downwards.
func (s *Service) legKeysDown(ctx context.Context, ch *hub.Channel, q hub.Query, l leg) (page hub.Page, below hub.Key, err error) {
	short, err := s.shortKeys(ctx, ch, q, l)
	if err != nil {
		return hub.Page{}, below, err
	}
	if below = s.below(ch); l.long.to.Less(below) { // the caller would only ask again
		l, _ = l.risen(q, below)
	}
	sure := 0 // keys that nothing of long-term storage can come between
	for sure < len(short.Keys) && !short.Keys[sure].Less(l.long.to) {
		sure++
	}
	if sure >= q.Limit {
		return mergePages(short, hub.Page{}, q), hub.MinKey, nil
	}
	rest := q
	rest.Limit -= sure
	long, err := s.longKeys(ctx, ch, rest, l.long)
	if err != nil {
		return hub.Page{}, below, err
	}
	return mergePages(short, long, q), hub.MinKey, nil
}

func (s *Service) shortKeys(ctx context.Context, ch *hub.Channel, q hub.Query, l leg) (hub.Page, error) {
	q.From, q.To = l.short.from, l.short.to
	var gone goneKeys
	if l.mutable {
		if gone = s.gone(ctx, ch); q.Limit > 0 {
			q.Limit += len(gone)
		}
	}
	page, err := s.opt.Short.Keys(ctx, q)
	if err != nil {
		return hub.Page{}, fmt.Errorf("ask the short-term store for keys: %w", err)
	}
	if len(gone) > 0 {
		page.Keys = dropKeys(page.Keys, gone.has)
	}
	return page, nil
}

func (s *Service) longKeys(ctx context.Context, ch *hub.Channel, q hub.Query, keys span) (hub.Page, error) {
	q.From, q.To = keys.from, keys.to
	page, err := s.opt.Long.Keys(ctx, ch, q)
	if err != nil {
		return hub.Page{}, fmt.Errorf("ask long-term storage for keys: %w", err)
	}
	return page, nil
}

// Horizon is the key up to which stable answers of the channel reach now.
func (s *Service) Horizon(ctx context.Context, channel string) (hub.Key, error) {
	f, err := s.frame(ctx, true)
	if err != nil {
		return f.cut, err
	}
	if ch, err := s.Channel(ctx, channel); err == nil {
		f = s.frameOf(ch, f)
	}
	return f.cut, nil
}

// Now is where somebody begins who wants what is written from now on: {now, to the ms}/initial (spec 03 §1.3). Keys that this node has minted lie below
// it, keys that it mints later above. Unavailable: the clock cannot be moved at the moment.
func (s *Service) Now(ctx context.Context) (hub.Key, error) { return s.opt.Short.Now(ctx) }

// After sees to it that what is written here from now on lies above a key that the writer had from another node (ENGINE §5). Invalid: the key lies too far
// ahead of the clock. A short-term store that knows no others has nothing to do.
func (s *Service) After(ctx context.Context, key hub.Key) error {
	if store, ok := s.opt.Short.(Sequel); ok {
		return store.After(ctx, key)
	}
	return nil
}

// Watch wakes, at the latest when the horizon has passed it, for every new key of the channel. The channel holds one token.
func (s *Service) Watch(channel string) (wake <-chan struct{}, stop func()) {
	if ch, err := s.Channel(context.Background(), channel); err == nil {
		channel = ch.Name
	}
	return s.opt.Short.Watch(channel)
}
