package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"timehub/hub"
	"timehub/hub/client"
)

// longPoll is how long a source without events may hold a list while there is nothing.
const longPoll = 5 * time.Second

// maxList bounds what is read whole: a page of keys, the configuration of a channel. No hub sends more; who does must not fill the memory.
const maxList = 16 << 20

// limits are those of the channel at the source.
type limits struct {
	ttl      time.Duration // 0: none
	maxItems int64
}

// errWrong is in the chain of errors about answers that no hub gives.
var errWrong = errors.New("this is not what a hub answers")

// meet asks the source for its channel, and finds out whether it has lost what we have not read.
func (f *follower) meet(ctx context.Context) error {
	ch, err := f.source.Channel(ctx, f.name)
	if hub.Is(err, hub.NotFound) {
		return hub.E(hub.NotFound, "the source has no channel %s: %v", f.name, err)
	}
	if err != nil {
		return fmt.Errorf("ask the source for its channel: %w", err)
	}
	f.limits = limits{maxItems: ch.MaxItems}
	if ch.TTLDays > 0 && ch.TTLDays < 1<<15 && !ch.KeepForever {
		f.limits.ttl = time.Duration(ch.TTLDays) * 24 * time.Hour
	}
	if !f.state.Begun || f.limits.maxItems == 0 {
		return nil
	}
	first, err := f.source.Earliest(ctx, f.name, 1, client.Query{})
	if err != nil {
		return fmt.Errorf("ask the source for its first item: %w", err)
	}
	if len(first.Keys) > 0 && f.at.Less(first.Keys[0]) {
		f.lost(first.Keys[0])
	}
	return nil
}

// lost notes that the source no longer has what lay between the cursor and a key.
func (f *follower) lost(to hub.Key) {
	gone := Range{From: f.at.String(), To: to.String()}
	if n := len(f.state.Gone); n > 0 && f.state.Gone[n-1].From == gone.From {
		return
	}
	f.state.Gone = append(f.state.Gone[max(0, len(f.state.Gone)-maxRanges+1):], gone)
	f.show(func(s *Status) { s.Gone = append([]Range{}, f.state.Gone...) })
	f.log().Error("the source no longer has items that were not replicated yet", "after", gone.From, "before", gone.To)
}

// expired notes what the source has let go by its ttlDays; next is the first key that it still has, zero if it has none up to upTo.
func (f *follower) expired(next, upTo hub.Key) {
	if !f.state.Begun || f.limits.ttl == 0 {
		return
	}
	kept := f.r.opt.Clock().Add(-f.limits.ttl)
	if !f.at.Time().Before(kept) {
		return
	}
	if next.IsZero() {
		if next = hub.First(kept); upTo.Less(next) {
			next = upTo
		}
	}
	if f.at.Less(next) {
		f.lost(next)
	}
}

// list asks for the stable keys after the cursor. upTo is the key up to which the list is whole; zero if nothing is known. hold: the source may wait for a while.
func (f *follower) list(ctx context.Context, hold bool) (keys []hub.Key, upTo hub.Key, more bool, err error) {
	var before hub.Key // stable before the list was made
	if !f.horizon {
		t, err := f.source.Stable(ctx, f.name)
		if err != nil {
			return nil, upTo, false, fmt.Errorf("ask the source for its stable time: %w", err)
		}
		before = hub.Last(t.Add(-time.Millisecond))
	}
	q := client.Query{}
	if hold {
		q.Wait = longPoll
	}
	page, err := f.source.After(ctx, f.name, f.at, f.r.opt.Page, q)
	if err != nil {
		return nil, upTo, false, fmt.Errorf("ask the source for keys: %w", err)
	}
	if err := f.checkKeys(page.Keys); err != nil {
		return nil, upTo, false, err
	}
	f.horizon = !page.Horizon.IsZero()
	if len(page.Keys) >= f.r.opt.Page {
		return page.Keys, page.Keys[len(page.Keys)-1], true, nil
	}
	if upTo = before; f.horizon {
		upTo = page.Horizon
	}
	// A source whose clock is ahead, or wrong, does not take the marker along further than its items do.
	if now := hub.First(f.r.opt.Clock().Add(time.Minute)); now.Less(upTo) {
		upTo = now
	}
	return page.Keys, upTo, false, nil
}

// checkKeys refuses lists that no hub makes.
func (f *follower) checkKeys(keys []hub.Key) error {
	if len(keys) > f.r.opt.Page {
		return fmt.Errorf("%w: %d keys, asked for %d", errWrong, len(keys), f.r.opt.Page)
	}
	last := f.at
	for _, k := range keys {
		if !last.Less(k) {
			return fmt.Errorf("%w: key %s does not come after %s", errWrong, k, last)
		}
		last = k
	}
	if limit := f.r.opt.Clock().Add(ahead); len(keys) > 0 && last.Time().After(limit) {
		return fmt.Errorf("%w: key %s is more than a day ahead of our clock", errWrong, last)
	}
	return nil
}
