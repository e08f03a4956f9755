package feed

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"

	"timehub/hub"
)

const (
	defaultLimit = 1000
	retryMin     = 50 * time.Millisecond // after a failure, doubled up to retryMax
	retryMax     = 5 * time.Second
	lagMin       = 5 * time.Millisecond // while the horizon is behind the clock
	lagMax       = time.Second
)

// Options are the parts of a Feed.
type Options struct {
	Source  Source      // required
	Channel string      // required; display name
	After   hub.Key     // the cursor: the feed begins with the first key above it; zero: with the first there is
	Horizon hub.Horizon // the rule by which Source cuts stable answers: how long to sleep until a key is stable
	Clock   hub.Clock   // nil: time.Now
	Limit   int         // keys of one Next; 0: 1,000
	// Shared reads the new keys of a channel once for all feeds that were made with it, and tells of a channel's end. nil: the feed reads for itself.
	Shared *Shared
	// Nudge, when it can be received from, lets a Next that waits return without keys: for followers that have something else to do now and then.
	Nudge <-chan struct{}
	Log   *slog.Logger
}

// Feed follows one channel. Its methods are for one goroutine at a time. Between two calls, and while it waits, it holds a watch and a few words of
// memory, and uses no CPU.
//
// It goes in key order, skips nothing and repeats nothing: it never steps over an answer that is not whole, nor over a store that does not answer, but
// tries again, after a pause with jitter, for ever. What it returns as an error is the end: ctx's cause, or that the channel is gone (NotFound, Invalid,
// Forbidden).
type Feed struct {
	opt   Options
	at    hub.Key
	clear hub.Key // with Shared: a stable key, or a horizon, up to which there is none above at
	tail  *tail   // with Shared; nil: the feed has a watch of its own
	wake  <-chan struct{}
	gone  <-chan struct{} // with Shared: closed when the channel is
	stop  func()
	pause time.Duration // the next one after a failure; 0: nothing has failed
	lag   time.Duration // the next one while the horizon is behind
}

// New returns a feed that holds a watch on the channel until Close. With Shared, a channel that does not exist is NotFound.
func New(o Options) (*Feed, error) {
	if o.Source == nil || o.Channel == "" {
		return nil, errors.New("a feed needs a Source and a Channel")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Feed{opt: o, at: o.After}
	if o.Shared != nil {
		var err error
		if f.tail, err = o.Shared.join(o.Channel); err != nil {
			return nil, err
		}
		f.gone = f.tail.gone
		f.stop = func() { o.Shared.leave(f.tail) }
		return f, nil
	}
	f.wake, f.stop = o.Source.Watch(o.Channel)
	return f, nil
}

// Close ends the watch.
func (f *Feed) Close() { f.stop() }

// Position is the cursor: everything up to it was returned.
func (f *Feed) Position() hub.Key { return f.at }

// Seek moves the cursor, forward or back.
func (f *Feed) Seek(after hub.Key) { f.at, f.clear = after, hub.Key{} }

// Next waits until there are stable keys after the cursor, returns the next of them in order, and moves the cursor to the last. Nobody may change
// the keys. Without keys and without an error it was nudged.
func (f *Feed) Next(ctx context.Context) ([]hub.Key, error) {
	if f.tail != nil {
		return f.nextShared(ctx)
	}
	for {
		page, ok, err := f.ask(ctx, true, f.at, hub.MaxKey, f.opt.Limit)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if n := len(page.Keys); n > 0 {
			f.at = page.Keys[n-1]
			f.lag = 0
			return page.Keys, nil
		}
		nudged, err := f.untilStable(ctx)
		if nudged || err != nil {
			return nil, err
		}
	}
}

// Items reads the items of keys that Next returned; see the function of that name.
func (f *Feed) Items(ctx context.Context, keys []hub.Key) iter.Seq2[hub.Sealed, error] {
	return Items(ctx, f.opt.Source, f.opt.Channel, keys)
}

// Keys reads the stable keys after < key < to, page by page, without moving the cursor.
func (f *Feed) Keys(ctx context.Context, after, to hub.Key) iter.Seq2[hub.Key, error] {
	return func(yield func(hub.Key, error) bool) {
		for {
			page, ok, err := f.ask(ctx, true, after, to, f.opt.Limit)
			if err != nil {
				yield(hub.Key{}, err)
				return
			}
			for _, k := range page.Keys {
				if !yield(k, nil) {
					return
				}
				after = k
			}
			if ok && !page.More && len(page.Keys) < f.opt.Limit {
				return
			}
		}
	}
}

// ask asks for the first keys after < key < to. ok is false if there was no whole answer; then it has waited before it returns.
func (f *Feed) ask(ctx context.Context, stable bool, after, to hub.Key, limit int) (page hub.Page, ok bool, err error) {
	from := after.After()
	if after.IsZero() {
		from = hub.MinKey
	}
	page, err = f.opt.Source.Keys(ctx, hub.Query{Channel: f.opt.Channel, From: from, To: to, Limit: limit, Stable: stable})
	if err == nil && page.Silent > 0 {
		err = hub.E(hub.Unavailable, "%d stores did not answer", page.Silent)
	}
	if err != nil {
		return hub.Page{}, false, f.failed(ctx, err)
	}
	f.recovered()
	return page, true, nil
}

// failed waits after a failure that may pass, and returns those that do not.
func (f *Feed) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case hub.Is(err, hub.NotFound), hub.Is(err, hub.Invalid), hub.Is(err, hub.Forbidden):
		return err
	}
	if f.pause == 0 {
		f.pause = retryMin
		f.opt.Log.Warn("a channel cannot be followed; trying again", "channel", f.opt.Channel, "err", err)
	}
	d := f.pause/2 + rand.N(f.pause)
	f.pause = min(2*f.pause, retryMax)
	return rest(ctx, d)
}

func (f *Feed) recovered() {
	if f.pause > 0 {
		f.pause = 0
		f.opt.Log.Info("a channel is followed again", "channel", f.opt.Channel)
	}
}

// untilStable waits until there may be a stable key after the cursor. There was none when it was asked last.
func (f *Feed) untilStable(ctx context.Context) (nudged bool, err error) {
	key, found, err := f.pending(ctx, f.at)
	switch {
	case err != nil:
		return false, err
	case !found:
		f.lag = 0
		return f.sleep(ctx, 0, f.wake)
	}
	return f.until(ctx, f.stableAt(key))
}

// pending is the first key after a cursor that is not stable yet. With the rule auto, nothing needs to be known of it: the watch wakes when the
// horizon passes it.
func (f *Feed) pending(ctx context.Context, after hub.Key) (key hub.Key, found bool, err error) {
	if f.opt.Horizon.Auto {
		return hub.Key{}, false, nil
	}
	for {
		page, ok, err := f.ask(ctx, false, after, hub.MaxKey, 1)
		if err != nil {
			return hub.Key{}, false, err
		}
		if !ok {
			continue
		}
		if len(page.Keys) == 0 {
			return hub.Key{}, false, nil
		}
		return page.Keys[0], true, nil
	}
}

// stableAt is when a key becomes stable by the clock.
func (f *Feed) stableAt(k hub.Key) time.Time { return stableAt(f.opt.Horizon, k) }

// stableAt is when a key becomes stable by the clock: a fixed horizon moves in whole seconds and takes in the first millisecond of its own.
func stableAt(rule hub.Horizon, k hub.Key) time.Time {
	if rule.Auto {
		return k.Time()
	}
	t := k.Time().Truncate(time.Second)
	if t.Before(k.Time()) {
		t = t.Add(time.Second)
	}
	return t.Add(time.Duration(rule.Seconds) * time.Second)
}

// until sleeps until an instant of the clock. When that has passed and the horizon still is not there, because a store lags, it waits for a wake-up, or
// for a moment.
func (f *Feed) until(ctx context.Context, t time.Time) (nudged bool, err error) {
	d, early := f.wait(t)
	if early {
		return f.sleep(ctx, d, nil)
	}
	return f.sleep(ctx, d, f.wake)
}

// wait is how long to sleep for a key that is stable at t. early is false if that has passed.
func (f *Feed) wait(t time.Time) (d time.Duration, early bool) {
	if d := t.Sub(f.opt.Clock()); d > 0 {
		f.lag = 0
		return d, true
	}
	if f.lag == 0 {
		f.lag = lagMin
	}
	d = f.lag/2 + rand.N(f.lag)
	f.lag = min(2*f.lag, lagMax)
	return d, false
}

// sleep waits for d (0: for ever), a wake-up if wake is not nil, a nudge, or the end of ctx or, with Shared, of the channel, which are the only errors.
func (f *Feed) sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) (nudged bool, err error) {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-f.opt.Nudge:
		return true, nil
	case <-f.gone:
		return false, f.tail.failed()
	case <-timer:
	case <-wake:
	}
	return false, nil
}

// rest waits for d or the end of ctx: it is no place for a nudge.
func rest(ctx context.Context, d time.Duration) error {
	if !hub.Sleep(ctx, d) {
		return context.Cause(ctx)
	}
	return nil
}
