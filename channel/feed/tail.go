package feed

import (
	"context"
	"slices"
	"sync"
	"time"

	"timehub/hub"
)

// ringSize is how many of the newest keys of a channel are kept for its followers.
const ringSize = 512

// tail is the newest part of a channel that is followed. One of its followers leads: it waits for the channel's new keys, reads them and puts them here.
// The others wait for either: the keys, or the lead. A leader that has keys for itself gives the lead back before it does anything with them, so
// somebody who waits always leads.
type tail struct {
	id      string
	channel *hub.Channel
	wake    <-chan struct{}
	stop    func()
	refs    int           // guarded by Shared.mu
	lead    chan struct{} // holds a token while nobody leads
	gone    chan struct{} // closed at the end: for those who wait for something else than keys

	// The leader's: is there something to ask for, and when does the first key become stable that is not yet? Handed on with the token.
	dirty bool
	due   time.Time

	mu   sync.Mutex // guards what follows
	from hub.Key    // ring holds every stable key above from that was read
	upto hub.Key    // reading goes on after it
	live bool       // from and upto mean something
	ring []hub.Key
	news chan struct{} // closed when the ring has grown, or at the end
	err  error         // the end
}

func newTail(id string, ch *hub.Channel) *tail {
	t := &tail{id: id, channel: ch, lead: make(chan struct{}, 1), gone: make(chan struct{}), news: make(chan struct{}), dirty: true}
	t.lead <- struct{}{}
	return t
}

// after returns the keys that the ring holds above at. Without any: whether none is missing, and what to wait for. clear is a position up to which the
// follower knows that there is none above at.
func (t *tail) after(at, clear hub.Key, limit int) (keys []hub.Key, news <-chan struct{}, covered bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return nil, nil, false, t.err
	}
	if !t.live || later(at, clear).Less(t.from) {
		return nil, nil, false, nil
	}
	i, found := slices.BinarySearchFunc(t.ring, at, hub.Key.Compare)
	if found {
		i++
	}
	j := min(i+limit, len(t.ring))
	return t.ring[i:j:j], t.news, true, nil
}

func later(a, b hub.Key) hub.Key {
	if a.Less(b) {
		return b
	}
	return a
}

// begin lets the ring begin at a horizon up to which a follower found nothing more.
func (t *tail) begin(at hub.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live {
		t.live, t.from, t.upto = true, at, at
	}
}

// skip moves a ring that nobody has led for long on to where its next leader stands, a stable key or a horizon: it need not read what only others want.
func (t *tail) skip(at hub.Key) hub.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.upto.Less(at) {
		t.from, t.upto, t.ring = at, at, nil
	}
	return t.upto
}

// add appends keys that follow upto, and wakes.
func (t *tail) add(keys []hub.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if over := len(t.ring) + len(keys) - ringSize; over > 0 { // others may hold parts of the old ring: it is left alone
		all := append(t.ring[:len(t.ring):len(t.ring)], keys...)
		drop := min(max(over, ringSize/2), len(all)-1)
		t.from = all[drop-1]
		t.ring = slices.Clone(all[drop:])
	} else {
		t.ring = append(t.ring, keys...)
	}
	t.upto = keys[len(keys)-1]
	close(t.news)
	t.news = make(chan struct{})
}

// fail ends all feeds of the tail.
func (t *tail) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
		close(t.news)
		close(t.gone)
	}
}

func (t *tail) failed() error {
	_, err := t.end()
	return err
}

// end is the error that has ended the tail, or what is closed when it ends, or sooner.
func (t *tail) end() (<-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.news, t.err
}

// nextShared is Next with a tail.
func (f *Feed) nextShared(ctx context.Context) ([]hub.Key, error) {
	keys, err := f.peek(ctx, f.opt.Limit)
	if n := len(keys); n > 0 {
		f.at, f.clear, f.lag = keys[n-1], keys[n-1], 0
	}
	return keys, err
}

// peek waits, with a tail, for the first stable keys after the cursor, and leaves the cursor alone. Without keys and without an error it was nudged.
func (f *Feed) peek(ctx context.Context, limit int) ([]hub.Key, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		keys, news, covered, err := f.tail.after(f.at, f.clear, limit)
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 && !covered {
			if keys, err = f.catchUp(ctx, limit); err != nil {
				return nil, err
			}
			if len(keys) == 0 {
				continue
			}
		}
		if len(keys) > 0 {
			return keys, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-f.opt.Nudge:
			return nil, nil
		case <-news:
		case <-f.tail.lead:
			nudged, err := f.lead(ctx, news)
			f.tail.lead <- struct{}{}
			if nudged || err != nil {
				return nil, err
			}
		}
	}
}

// catchUp reads for this feed alone what the ring does not hold. Without keys there are none, or there was no answer.
func (f *Feed) catchUp(ctx context.Context, limit int) ([]hub.Key, error) {
	page, ok, err := f.ask(ctx, true, f.at, hub.MaxKey, limit)
	if err != nil || !ok || len(page.Keys) > 0 {
		return page.Keys, err
	}
	f.clear = later(f.clear, page.Horizon)
	f.tail.begin(f.clear) // not at: a cursor may lie in the future
	return nil, nil
}

// lead waits for new keys for all feeds of the tail. news is what the feed waited for: when it is closed, somebody else was faster.
func (f *Feed) lead(ctx context.Context, news <-chan struct{}) (nudged bool, err error) {
	t := f.tail
	for {
		if t.dirty {
			grown, err := f.look(ctx)
			if grown || err != nil {
				return false, err
			}
		}
		var timer *time.Timer
		var due <-chan time.Time
		wake := t.wake
		if !t.due.IsZero() {
			d, early := f.wait(t.due)
			if early {
				wake = nil // what comes now is stable later
			}
			timer = time.NewTimer(d)
			due = timer.C
		}
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-f.opt.Nudge:
			nudged = true
		case <-wake:
			t.dirty = true
		case <-due:
			t.dirty = true
		case <-news:
			return false, nil
		}
		if timer != nil {
			timer.Stop()
		}
		if nudged || err != nil {
			return nudged, err
		}
	}
}

// look asks for the keys after those of the ring, once. When there are none, it notes when the next one may be stable.
func (f *Feed) look(ctx context.Context) (grown bool, err error) {
	t := f.tail
	upto := t.skip(f.clear)
	page, ok, err := f.ask(ctx, true, upto, hub.MaxKey, ringSize)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			t.fail(err)
			f.opt.Shared.forget(t)
		}
		return false, err
	case !ok:
		return false, t.failed()
	case len(page.Keys) > 0:
		t.add(page.Keys)
		t.dirty, t.due, f.lag = page.More || !f.opt.Horizon.Auto, time.Time{}, 0
		return true, nil
	}
	key, found, err := f.pending(ctx, upto)
	if err != nil {
		return false, err
	}
	t.dirty, t.due = false, time.Time{}
	if found {
		t.due = f.stableAt(key)
	}
	return false, t.failed()
}
