package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// Waiter waits for items. Each method returns a key after the given one when there is one, or its end: that of ctx, or NotFound if the channel is gone.
type Waiter interface {
	Wait(ctx context.Context, channel string, after hub.Key) (hub.Key, error)    // for stable keys
	WaitAny(ctx context.Context, channel string, after hub.Key) (hub.Key, error) // for keys that need not be stable
	WaitTag(ctx context.Context, tag string, after hub.Key) (hub.Key, error)     // for stable keys of a tag's channels
}

const (
	maxWait   = 60                    // seconds
	waitPause = 20 * time.Millisecond // between two looks, when what comes is not what is looked for
)

// waitOf reads ?wait=SECONDS.
func waitOf(r *http.Request) (time.Duration, error) {
	if r.URL.RawQuery == "" {
		return 0, nil
	}
	text := web.Params(r).Get("wait")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= maxWait) {
		return 0, hub.E(hub.Invalid, "wait is %q: it must be the seconds to wait for an item, 0 to %d", clip(text), maxWait)
	}
	return time.Duration(n * float64(time.Second)), nil
}

// hold keeps a request for what comes next, or for the latest, until there is something to answer, the time that the client gave is over, or
// the hub goes away: then it is answered as it would be without. It ends with the channel.
func (h *Handlers) hold(r *http.Request, a *asked) error {
	d, err := waitOf(r)
	if err != nil || d == 0 || h.opt.Waiter == nil || a.N <= 0 || a.Kind != channel.Next && a.Kind != channel.Latest {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	defer cancel()
	if h.opt.Stopping != nil {
		defer context.AfterFunc(h.opt.Stopping, cancel)()
	}
	after := hub.MinKey
	if a.Kind == channel.Next {
		if after = a.Key; a.Inclusive {
			after = hub.First(a.Key.Time())
		}
	}
	found, err := a.find(r.Context())
	for err == nil && found.len() == 0 {
		after, err = h.oneMore(ctx, a, after)
		switch {
		case r.Context().Err() != nil:
			return r.Context().Err()
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if found, err = a.find(r.Context()); err != nil || found.len() > 0 {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitPause):
		}
	}
	return err
}

func (h *Handlers) oneMore(ctx context.Context, a *asked, after hub.Key) (hub.Key, error) {
	switch w := h.opt.Waiter; {
	case a.place.tagged():
		return w.WaitTag(ctx, a.place.tag, after)
	case a.Stable:
		return w.Wait(ctx, a.place.ch.Name, after)
	default:
		return w.WaitAny(ctx, a.place.ch.Name, after)
	}
}
