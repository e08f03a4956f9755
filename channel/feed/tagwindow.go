package feed

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"timehub/hub"
)

// TagClosed is a minute or second in which the keys of a tag's channels can never change again.
type TagClosed struct {
	hub.Window
	// After is the cursor before of each channel that has keys to take, by name: they are After.Key < key < Window.To(), see Tag.Keys.
	After []Hit
}

// NextWindow waits until the next window of a unit is closed in every channel that carries the tag now, that is, the horizon of each has reached its
// end, and moves the cursor to that end. A replica that does not get on holds up the windows until it does, loses the tag or is deleted. The first
// window is the one that the cursor lies in.
//
// With empty, every window comes, one after the other, also those without keys, and by the clock while there are no channels; the cursor must not be
// the zero Key then. Without, only windows that hold keys after the cursor come, and nothing ticks while there are none. A channel that gets the tag
// joins in with the first window that has not come yet.
//
// The only errors are those of ctx, and Invalid for such a question. After a Next, what a replica that lags still owes comes with the first window.
func (t *Tag) NextWindow(ctx context.Context, unit hub.Unit, empty bool) (TagClosed, error) {
	if err := followable("a tag", unit, empty, t.at.Key); err != nil {
		return TagClosed{}, err
	}
	for {
		if ctx.Err() != nil {
			return TagClosed{}, context.Cause(ctx)
		}
		if t.recast.Swap(false) {
			if err := t.cast(ctx); err != nil {
				return TagClosed{}, err
			}
		}
		w, found, err := t.candidate(ctx, unit, empty)
		if err != nil {
			return TagClosed{}, err
		}
		if !found {
			continue
		}
		closed, err := t.closed(ctx, w)
		if err != nil {
			return TagClosed{}, err
		}
		if closed && !t.recast.Load() {
			if first, some := t.first(); some && !empty {
				w = hub.WindowAt(first.Time(), unit) // it may have come up before the candidate
			}
			return t.take(w), nil
		}
	}
}

// candidate is the window that is next, as far as is known. Without any it has waited.
func (t *Tag) candidate(ctx context.Context, unit hub.Unit, empty bool) (hub.Window, bool, error) {
	if empty {
		return hub.WindowAt(t.at.Key.Time(), unit), true, nil
	}
	first, found := t.first()
	if !found {
		if ok, err := t.fill(ctx, hub.MaxKey, hub.MaxKey, 1); !ok {
			return hub.Window{}, false, err
		}
		first, found = t.first()
	}
	if found || t.recast.Load() {
		return hub.WindowAt(first.Time(), unit), found, nil
	}
	_, err := t.untilStable(ctx)
	return hub.Window{}, false, err
}

// first is the first key in hand.
func (t *Tag) first() (first hub.Key, found bool) {
	for _, m := range t.of {
		if len(m.keys) > 0 && (!found || m.keys[0].Less(first)) {
			first, found = m.keys[0], true
		}
	}
	return first, found
}

// closed reports whether nothing can change in w any more and its channels' first keys are in hand; if not, it waits before it says so.
func (t *Tag) closed(ctx context.Context, w hub.Window) (bool, error) {
	h, known, err := t.floor(ctx)
	if err != nil || !known {
		return false, err
	}
	if !h.Less(w.To()) {
		if ok, err := t.fill(ctx, hub.MaxKey, w.To(), 1); !ok {
			return false, err
		}
		if t.sure(w.To()) {
			return true, nil
		}
	}
	if t.recast.Load() {
		return false, nil
	}
	t.probe.wake = t.wake
	_, err = t.probe.until(ctx, stableAt(t.shared.opt.Horizon, w.To()))
	return false, err
}

// sure reports whether each channel has its first key below to in hand, or has none.
func (t *Tag) sure(to hub.Key) bool {
	for _, m := range t.of {
		if len(m.keys) == 0 && m.sure.Less(to) {
			return false
		}
	}
	return true
}

// floor is the lowest horizon of all channels; without channels, that of the clock. If it is not known, it has waited.
func (t *Tag) floor(ctx context.Context) (low hub.Key, known bool, err error) {
	if len(t.of) == 0 {
		now := t.shared.opt.Clock()
		low, _ = t.shared.opt.Horizon.Cut(hub.First(now), now)
		return low, true, nil
	}
	low = hub.MaxKey
	node := false // that of the node is known
	for name, m := range t.of {
		own := m.channel.Replicated() || m.channel.LiveFrom != 0
		if node && !own {
			continue
		}
		node = node || !own
		h, err := t.shared.opt.Source.Horizon(ctx, name)
		switch {
		case hub.Is(err, hub.NotFound):
			t.reconsider()
			return low, false, nil
		case err != nil:
			return low, false, t.probe.failed(ctx, err)
		case h.Less(low):
			low = h
		}
	}
	return low, true, nil
}

// take moves all cursors to the end of w.
func (t *Tag) take(w hub.Window) TagClosed {
	c := TagClosed{Window: w}
	for name, m := range t.of {
		if len(m.keys) > 0 && m.keys[0].Less(w.To()) {
			c.After = append(c.After, Hit{name, m.after})
			m.keys = nil
		}
		m.after = later(m.after, w.To())
	}
	slices.SortFunc(c.After, func(a, b Hit) int { return strings.Compare(a.Channel, b.Channel) })
	if end := (Hit{Key: w.To()}); t.at.Compare(end) < 0 {
		t.at = end
	}
	t.probe.lag = 0
	return c
}

// Keys reads the keys of a window in the order of the tag, page by page, without moving the cursor, and as often as it is called. Channels that have
// been deleted since drop out. The only errors are those of ctx: a store that does not answer is asked again.
func (t *Tag) Keys(ctx context.Context, c TagClosed) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		last := hub.Last(c.End().Add(-time.Millisecond))
		r := Tag{shared: t.shared, opt: t.opt, of: map[string]*member{}, wake: make(chan struct{}, 1)}
		r.probe.opt = t.probe.opt
		for _, h := range c.After {
			r.of[h.Channel] = &member{channel: &hub.Channel{Name: h.Channel}, after: h.Key}
		}
		for len(r.of) > 0 {
			ok, err := r.fill(ctx, last, hub.MaxKey, r.opt.Limit)
			if err != nil {
				yield(Hit{}, err)
				return
			}
			if !ok {
				continue
			}
			for _, h := range r.merge() {
				if !yield(h, nil) {
					return
				}
			}
			for name, m := range r.of {
				if len(m.keys) == 0 && m.upto.Key == last {
					delete(r.of, name)
				}
			}
		}
	}
}
