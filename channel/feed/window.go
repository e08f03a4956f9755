package feed

import (
	"context"

	"timehub/hub"
)

// Closed is a minute or second whose keys can never change again.
type Closed struct {
	hub.Window
	After hub.Key // the cursor before: the keys to take are After < key < Window.To(), see Feed.Keys
}

// NextWindow waits until the next window of a unit is closed, that is, the horizon has reached its end, and moves the cursor to that end
// (hub.Window.To). The first window is the one that the cursor lies in.
//
// With empty, every window comes, one after the other, also those without keys; the cursor must not be the zero Key then. Without, only windows that hold
// keys after the cursor come, and nothing ticks while there are none. A feed with Shared ends with its channel here too.
func (f *Feed) NextWindow(ctx context.Context, unit hub.Unit, empty bool) (Closed, error) {
	if err := followable("a channel", unit, empty, f.at); err != nil {
		return Closed{}, err
	}
	for {
		w, stable := hub.WindowAt(f.at.Time(), unit), true
		if !empty {
			var key hub.Key
			var err error
			if key, stable, err = f.first(ctx); err != nil {
				return Closed{}, err
			}
			w = hub.WindowAt(key.Time(), unit)
		}
		closed, err := f.closed(ctx, w)
		if err != nil {
			return Closed{}, err
		}
		if !closed || !stable {
			continue // a key that was not stable is no proof that none comes up before it
		}
		c := Closed{w, f.at}
		f.at, f.clear, f.lag = w.To(), w.To(), 0
		return c, nil
	}
}

// followable checks what NextWindow is asked for.
func followable(what string, unit hub.Unit, empty bool, after hub.Key) error {
	switch {
	case unit.Duration() == 0:
		return hub.E(hub.Invalid, "%s cannot be followed by windows of unit %v", what, unit)
	case empty && after.IsZero():
		return hub.E(hub.Invalid, "%s cannot be followed by each %v from the beginning of time: set a cursor", what, unit)
	}
	return nil
}

// first waits for a key after the cursor, stable or not; with a tail, for a stable one.
func (f *Feed) first(ctx context.Context) (key hub.Key, stable bool, err error) {
	for f.tail != nil {
		keys, err := f.peek(ctx, 1)
		if err != nil {
			return hub.Key{}, false, err
		}
		if len(keys) > 0 {
			return keys[0], true, nil
		}
	}
	for {
		page, ok, err := f.ask(ctx, true, f.at, hub.MaxKey, 1)
		if err != nil {
			return hub.Key{}, false, err
		}
		if !ok {
			continue
		}
		if len(page.Keys) > 0 {
			return page.Keys[0], true, nil
		}
		key, found, err := f.pending(ctx, f.at)
		if err != nil || found {
			return key, false, err
		}
		if _, err := f.sleep(ctx, 0, f.wake); err != nil {
			return hub.Key{}, false, err
		}
	}
}

// closed reports whether the horizon has reached the end of w; if it has not, it waits before it says so.
func (f *Feed) closed(ctx context.Context, w hub.Window) (bool, error) {
	if f.tail != nil { // a source need not mind that there is no such channel
		if err := f.tail.failed(); err != nil {
			return false, err
		}
	}
	h, err := f.opt.Source.Horizon(ctx, f.opt.Channel)
	if err != nil {
		return false, f.failed(ctx, err)
	}
	f.recovered()
	if !h.Less(w.To()) {
		return true, nil
	}
	_, err = f.until(ctx, f.stableAt(w.To()))
	return false, err
}
