package archive

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/coord"
)

const (
	chunkItems = 256     // single items between two moves of the cursor
	chunkBytes = 1 << 20 // and their bytes, at most, unless one item is greater
	passChunks = 4       // chunks, or minutes, of one channel before the others have their turn
	openRetry  = 20 * time.Millisecond
	openMax    = time.Second
	// agoReplica is how far back a channel is compared that is found to be replicated: longer than a node can go without hearing of a change (catalog.Options.Poll).
	agoReplica = 10 * time.Minute
	// staleMarker is how long the source of a replicated channel may stay silent before a minute that it has not ended is archived as it is.
	staleMarker = time.Minute
)

// pass archives one channel as far as it is decided what belongs to it.
//
// SINGLE: every item up to the horizon, then the cursor stands at the horizon. BATCH: every minute that the horizon has passed, then the cursor stands at the
// end of that minute. BOTH: the cursor is that of BATCH, and how far the single items are is kept beside it.
func (j *Jobs) pass(ctx context.Context, st *state, fence uint64) outcome {
	// The horizon comes first: of a channel that is found ordinary after it, whatever is replicated later lies above the horizon or is flagged late.
	horizon, err := j.opt.Short.Horizon(ctx)
	if err != nil {
		return outcome{err: fmt.Errorf("read the horizon: %w", err)}
	}
	ch, err := j.known(ctx, st.name)
	if err != nil {
		return outcome{err: err}
	}
	if ch == nil {
		j.vanished(st.name)
		return outcome{gone: true}
	}
	if err := j.load(ctx, st, fence); err != nil {
		return outcome{err: err}
	}
	at := st.cursor.Position().Key
	if !st.last.IsZero() && !at.Less(st.last) && !ch.Replicated() {
		j.reached(st.name, at, time.Time{}) // nothing new since the last start
		return outcome{}
	}
	horizon, ok := j.bound(ch, horizon)
	if !ok {
		return outcome{}
	}
	if err := j.recheck(ctx, ch, st, horizon); err != nil {
		return outcome{err: err}
	}
	p := &run{j: j, ch: ch, cursor: st.cursor, horizon: horizon, budget: passChunks, wary: st.pause > retryMin}
	if ch.Replicated() {
		if now := j.opt.Clock(); st.marker != horizon {
			st.marker, st.marked = horizon, now
		} else {
			p.stale = now.Sub(st.marked) >= staleMarker
		}
	}
	o := p.all(ctx)
	if errors.Is(o.err, errOther) {
		return outcome{more: true}
	}
	if errors.Is(o.err, coord.ErrReset) {
		st.cursor = nil // moved by hand: begin where it stands now
		return outcome{more: true}
	}
	return o
}

// known is the channel of a name of which the short-term store holds something; nil: there is none. Before that is believed, the store of configurations is
// asked: the channel may have been made on another node a moment ago, and nobody would come back to it.
func (j *Jobs) known(ctx context.Context, name string) (*hub.Channel, error) {
	ch, err := j.live(ctx, name)
	if ch != nil || err != nil {
		return ch, err
	}
	ch, err = j.opt.Channels.Fresh(ctx, name)
	return exactly(ch, err, name)
}

// recheck compares what a channel, found to be replicated for the first time, has around the cursor with long-term storage, as far as the marker has come. Until
// this node heard of that change it may have passed keys by the clock that another node, which follows the source already, wrote only then.
func (j *Jobs) recheck(ctx context.Context, ch *hub.Channel, st *state, marker hub.Key) error {
	at := st.cursor.Position().Key
	if was := st.replica; ch.Replicated() && !was && !at.IsZero() {
		st.passed = at
		st.compared = hub.First(earlier(at, marker).Time().Add(-agoReplica))
	}
	if st.replica = ch.Replicated(); !st.replica || st.passed.IsZero() {
		return nil
	}
	to := earlier(at, marker)
	if err := j.verifyRange(ctx, ch, st.compared, to, func(w hub.Window) error { st.compared = w.To(); return nil }); err != nil {
		return err
	}
	if !to.Less(hub.WindowAt(st.passed.Time(), hub.Minute).To()) {
		st.passed, st.compared = hub.Key{}, hub.Key{}
	}
	return nil
}

func earlier(a, b hub.Key) hub.Key {
	if a.Less(b) {
		return a
	}
	return b
}

// load opens the cursor. Its first move takes it, so that a quiet channel costs no write.
func (j *Jobs) load(ctx context.Context, st *state, fence uint64) error {
	if st.cursor != nil {
		return nil
	}
	c, err := j.archived.Load(ctx, st.name, fence)
	if err != nil {
		return err
	}
	st.cursor = c
	j.look(st.name, func(v *view) { v.at, v.gone = c.Position().Key, false })
	return nil
}

// bound is how far a channel can be archived: to the horizon; a replicated one to its marker, which the clock of its source drives; one that was a target
// to whichever is higher, since nothing is minted in it below its marker. false: its replication has not begun.
func (j *Jobs) bound(ch *hub.Channel, horizon hub.Key) (hub.Key, bool) {
	if !ch.Replicated() && ch.LiveFrom == 0 {
		return horizon, true
	}
	upTo, ok := j.opt.Short.Complete(ch.Name)
	switch {
	case ch.Replicated():
		return upTo, ok
	case ok && horizon.Less(upTo):
		return upTo, true
	}
	return horizon, true
}

// run is one pass over one channel.
type run struct {
	j       *Jobs
	ch      *hub.Channel
	cursor  *coord.Cursor
	horizon hub.Key
	budget  int
	moved   bool // the cursor has
	wary    bool // the last pass failed: begin with something small
	stale   bool // a replicated channel whose source has said nothing for a while
}

// all does what the storage of the channel asks for. The states: singles, minutes, rest.
func (p *run) all(ctx context.Context) outcome {
	if p.ch.Storage.Singles() {
		if more, err := p.singles(ctx); more || err != nil {
			return p.left(outcome{more: more, err: err}, p.singlesDone())
		}
	}
	if p.ch.Storage.Batches() {
		return p.minutes(ctx)
	}
	return p.left(outcome{}, p.horizon)
}

// left notes how far the channel is and passes the outcome on. Unless that is success, something above done may be left.
func (p *run) left(o outcome, done hub.Key) outcome {
	o.moved = p.moved
	at := p.cursor.Position().Key
	if !o.more && o.err == nil && o.due.IsZero() {
		p.j.reached(p.ch.Name, at, time.Time{})
		return o
	}
	p.j.look(p.ch.Name, func(v *view) {
		v.at = at
		switch {
		case v.oldest.IsZero():
			v.oldest = p.j.opt.Clock()
		case !done.IsZero() && v.oldest.Before(done.Time()):
			v.oldest = done.Time()
		}
	})
	return o
}

// singlesDone is how far the single items are archived.
func (p *run) singlesDone() hub.Key {
	at := p.cursor.Position()
	if p.ch.Storage.Batches() {
		if k, err := hub.ParseKey(string(at.Payload)); err == nil && at.Key.Less(k) {
			return k
		}
	}
	return at.Key
}

// didSingles moves the cursor, or the position beside it.
func (p *run) didSingles(ctx context.Context, to hub.Key) error {
	if !p.ch.Storage.Batches() {
		return p.move(ctx, to, nil)
	}
	at := p.cursor.Position()
	return p.move(ctx, at.Key, []byte(to.String()))
}

// errOther ends a pass whose channel has become another one: it knows too little of that.
var errOther = errors.New("the channel was changed during the pass")

// move moves the cursor, unless the channel has become a replicated one, or another of its name, since the pass began: what is replicated now may lie below the
// horizon of the pass, and would be taken for archived.
func (p *run) move(ctx context.Context, to hub.Key, payload []byte) error {
	now, err := p.j.live(ctx, p.ch.Name)
	if err != nil {
		return err
	}
	if now == nil || now.Replicated() != p.ch.Replicated() || now.Lives != p.ch.Lives || now.Since != p.ch.Since {
		return errOther
	}
	return p.cursor.Move(to, payload)
}

// singles puts the items up to the horizon, chunk by chunk.
func (p *run) singles(ctx context.Context) (more bool, err error) {
	for ; p.budget > 0; p.budget-- {
		from := above(p.singlesDone())
		if !from.Less(p.horizon.After()) {
			return false, nil
		}
		last, whole, err := p.chunk(ctx, from, p.horizon.After())
		if whole {
			last = p.horizon
		}
		if !last.IsZero() {
			if err := p.didSingles(ctx, last); err != nil {
				return false, err
			}
			p.moved, p.wary = true, false
			p.j.look(p.ch.Name, func(v *view) { v.at = p.cursor.Position().Key })
		}
		if whole || err != nil {
			return false, err
		}
	}
	return true, nil
}

// chunk puts some items at the same time and returns the last key up to which all are archived, also with an error; the zero Key if there is none. whole:
// that was everything.
func (p *run) chunk(ctx context.Context, from, to hub.Key) (last hub.Key, whole bool, err error) {
	var puts errgroup.Group
	var failed atomic.Bool
	var done [chunkItems]bool
	var keys []hub.Key
	size, limit := 0, chunkItems
	if p.wary {
		limit = 1
	}
	whole = true
	for item, readErr := range p.j.items(ctx, p.ch.Name, from, to) {
		if err = readErr; err != nil {
			break
		}
		i := len(keys)
		if i == 0 {
			p.begins(item.Key)
		}
		keys = append(keys, item.Key)
		puts.Go(func() error {
			err := p.j.putSingle(ctx, p.ch, item)
			done[i] = err == nil
			if err != nil {
				failed.Store(true)
			}
			return err
		})
		if size += len(item.Data); len(keys) == limit || size >= chunkBytes || failed.Load() {
			whole = false
			break
		}
	}
	if putErr := puts.Wait(); putErr != nil {
		err = putErr
	}
	for i, k := range keys {
		if !done[i] {
			break
		}
		last = k
	}
	return last, whole && err == nil, err
}

// begins notes the first item that is not archived.
func (p *run) begins(k hub.Key) {
	p.j.look(p.ch.Name, func(v *view) { v.oldest = k.Time() })
}

// putSingle puts one item, when there is room for one more.
func (j *Jobs) putSingle(ctx context.Context, ch *hub.Channel, item hub.Sealed) error {
	select {
	case j.puts <- struct{}{}:
		defer func() { <-j.puts }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := j.opt.Long.PutSingle(ctx, ch, item)
	if hub.Is(err, hub.Conflict) && ch.Historical() && !item.Key.Time().After(ch.MutableTime) {
		return nil // a mutable item was overwritten since: long-term storage is right
	}
	if err != nil {
		return fmt.Errorf("archive item %s of channel %s: %w", item.Key, ch.Name, err)
	}
	j.meters.items.Add(1)
	j.meters.bytes.Add(int64(len(item.Data)))
	return nil
}

// minutes puts the minutes that the horizon has passed.
func (p *run) minutes(ctx context.Context) outcome {
	for ; p.budget > 0; p.budget-- {
		at := p.cursor.Position()
		key, found, err := p.j.first(ctx, p.ch.Name, above(at.Key), p.horizon.After())
		if err != nil {
			return p.left(outcome{err: err}, at.Key)
		}
		if !found {
			// Whatever is there up to the horizon shall never be archived; let the sweep have it.
			if err := p.move(ctx, p.horizon, at.Payload); err != nil {
				return p.left(outcome{err: err}, at.Key)
			}
			return p.left(outcome{}, p.horizon)
		}
		p.begins(key)
		w := hub.WindowAt(key.Time(), hub.Minute)
		if !p.closed(w) {
			return p.left(outcome{due: p.j.afterEnd(w), eager: p.ch.Storage.Singles()}, hub.Key{})
		}
		n, err := p.minute(ctx, w)
		if err != nil {
			return p.left(outcome{err: err}, hub.Key{})
		}
		p.j.meters.items.Add(int64(n))
		end := w.To()
		if p.horizon.Less(end) { // more of this minute may come; it is put again then
			end = p.horizon
		}
		if err := p.move(ctx, end, at.Payload); err != nil {
			return p.left(outcome{err: err}, hub.Key{})
		}
		p.moved = true
		p.j.look(p.ch.Name, func(v *view) { v.at = end })
	}
	return p.left(outcome{more: true}, p.cursor.Position().Key)
}

// minute puts one minute. After a failure it asks first whether long-term storage answers at all: packing a great minute costs more.
func (p *run) minute(ctx context.Context, w hub.Window) (int, error) {
	if p.wary {
		if _, _, err := p.j.opt.Long.MinuteDigest(ctx, p.ch, hub.Batch, w.Start); hub.Is(err, hub.Unavailable) || hub.Is(err, hub.Timeout) {
			return 0, fmt.Errorf("look at minute %s of channel %s: %w", w, p.ch.Name, err)
		}
	}
	return p.j.putMinute(ctx, p.ch, w)
}

// closed reports whether a minute will not grow any more. One whose source has fallen silent in the middle of it counts as closed too: what it has should
// not wait for a source that may never come back.
func (p *run) closed(w hub.Window) bool {
	return !p.horizon.Less(w.To()) || p.stale && !p.j.opt.Clock().Before(w.End())
}

// afterEnd is when to look at a minute that is not closed: soon after its end, not all channels at once.
func (j *Jobs) afterEnd(w hub.Window) time.Time {
	now := j.opt.Clock()
	if d := w.End().Sub(now); d > 0 {
		return w.End().Add(around(openRetry))
	}
	// The clock is past the end and the horizon is not: it is held by a write, for a moment, or by a peer, for longer.
	late := now.Sub(w.End())
	return now.Add(around(min(max(openRetry, late/4), openMax)))
}

// putMinute archives all that the short-term store has of a minute.
func (j *Jobs) putMinute(ctx context.Context, ch *hub.Channel, w hub.Window) (int, error) {
	n, err := j.opt.Long.PutMinute(ctx, ch, w.Start, j.items(ctx, ch.Name, w.From(), w.To()))
	if err != nil {
		return 0, fmt.Errorf("archive minute %s of channel %s: %w", w, ch.Name, err)
	}
	return n, nil
}

// above is the smallest key above a cursor.
func above(at hub.Key) hub.Key {
	if at.IsZero() {
		return hub.MinKey
	}
	return at.After()
}
