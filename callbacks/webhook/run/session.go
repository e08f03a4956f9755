package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"timehub/callbacks/webhook"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/coord"
)

// session is one webhook running with one configuration.
type session struct {
	*Manager
	w         *webhook.Webhook
	channel   *hub.Channel
	channelID string
	ledger    *ledger
	cursor    *coord.Cursor
	meters    hookMeters
	order     *order // nil: orderBy means nothing here
	began     time.Time
	over      chan struct{}

	ctx    context.Context // ends when the session should
	end    context.CancelCauseFunc
	calls  context.Context // ends when calls are broken off
	breaks context.CancelCauseFunc
	work   sync.WaitGroup
}

// run runs one session. It returns why it has ended: the cause of ctx, or what failed.
func (h *hook) run(ctx context.Context, end context.CancelCauseFunc, w *webhook.Webhook, fence uint64, meters hookMeters) error {
	m := h.manager
	ch, err := m.await(ctx, h, w.ChannelName())
	if err != nil {
		return err
	}
	s := &session{Manager: m, w: w, channel: ch, channelID: hub.ChannelID(w.ChannelName()), meters: meters, began: m.opt.Clock(), over: make(chan struct{}), ctx: ctx, end: end}
	if s.order, err = newOrder(w); err != nil { // it was checked when it was stored
		m.opt.Log.Error("orderBy cannot be used; all items are one group", "webhook", w.Name, "err", err)
		s.order = &order{}
	}
	if err := s.open(fence); err != nil {
		if s.cursor != nil {
			s.cursor.Close()
		}
		return err
	}
	defer s.cursor.Close()
	stop := s.cursor.AfterLost(func(why error) { end(why) })
	defer stop()
	m.mu.Lock()
	if ctx.Err() != nil { // Stop may have looked already
		m.mu.Unlock()
		return context.Cause(ctx)
	}
	h.session = s
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		h.session = nil
		m.mu.Unlock()
		close(s.over)
	}()
	if !s.sameChannel(ctx) { // it went before others could know that somebody follows it
		return errMissing
	}
	return s.loop()
}

// open finds out where the webhook stands.
func (s *session) open(fence uint64) error {
	for {
		c, err := s.opt.Cursors.Load(s.ctx, s.w.Name, fence)
		if err != nil {
			return err
		}
		at, state, fresh, err := s.w.At(c.Position())
		if err != nil {
			c.Close()
			return fmt.Errorf("read where webhook %s stands: %w", s.w.Name, err)
		}
		if !fresh || !at.Less(c.Position().Key) { // a place ahead is written with the first delivery: until then, At says the same again
			s.cursor, s.ledger = c, newLedger(s.w, at, state)
			return s.resume(state)
		}
		c.Close()
		payload, err := state.Encode()
		if err != nil {
			return err
		}
		if _, err := s.opt.Cursors.Reset(s.ctx, s.w.Name, at, payload); err != nil {
			return err
		}
	}
}

// sameChannel reports whether the channel is still the one that the session was begun for.
func (s *session) sameChannel(ctx context.Context) bool {
	now, err := s.opt.Channels.Channel(ctx, s.w.ChannelName())
	if err != nil {
		return !hub.Is(err, hub.NotFound)
	}
	return now.Name == s.channel.Name && now.CreationDate.Equal(s.channel.CreationDate) && now.Since == s.channel.Since
}

// channelNow is the configuration of the channel now: its time to live may have changed.
func (s *session) channelNow() *hub.Channel {
	if now, err := s.opt.Channels.Channel(s.ctx, s.channel.Name); err == nil {
		return now
	}
	return s.channel
}

// loop reads and delivers until the session should end.
func (s *session) loop() error {
	s.calls, s.breaks = context.WithCancelCause(context.WithoutCancel(s.ctx))
	defer s.breaks(nil)
	s.hire()
	var err error
	if unit := s.w.Unit(); unit == hub.NoUnit {
		err = s.followItems()
	} else {
		err = s.followPeriods(unit)
	}
	s.end(err) // so that workers that wait end; the first cause holds
	s.ledger.stop()
	s.finish()
	return context.Cause(s.ctx)
}

// finish waits for the calls on their way, but not for long, and writes what is known.
func (s *session) finish() {
	why := context.Cause(s.ctx)
	grace := s.opt.Grace
	switch {
	case errors.Is(why, errRetired), errors.Is(why, coord.ErrLeaseLost), errors.Is(why, coord.ErrFenced), errors.Is(why, coord.ErrReset):
		grace = 0
	}
	timer := time.AfterFunc(grace, func() { s.breaks(why) })
	s.work.Wait()
	timer.Stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.opt.Grace)
	defer cancel()
	if err := s.opt.Cursors.Flush(ctx); err != nil {
		s.opt.Log.Warn("where a webhook stands could not be written; a little of it may be called again", "webhook", s.w.Name, "err", err)
	}
}

// touch lets the state be written with the next tick. Whoever has lost the cursor ends.
func (s *session) touch() {
	if err := s.cursor.MoveFunc(s.position); err != nil {
		s.end(err)
	}
}

// position is what the cursor asks for when it is written.
func (s *session) position() (hub.Key, []byte) {
	key, state := s.ledger.live(s.opt.Clock())
	b, err := state.Encode()
	if err != nil { // strings and numbers
		panic(err)
	}
	return key, b
}

// hire begins as many workers as there is work for.
func (s *session) hire() {
	for range s.ledger.hire() {
		s.work.Go(s.labour)
	}
}

// labour is one worker: it delivers while there is something to deliver.
func (s *session) labour() {
	for {
		e, replay, ok := s.ledger.take()
		switch {
		case !ok:
			return
		case replay:
			if e = s.nextReplay(); e == nil {
				continue
			}
		}
		s.deliver(e)
	}
}

// followItems reads key by key.
func (s *session) followItems() error {
	f, err := feed.New(feed.Options{
		Source: s.opt.Source, Channel: s.channel.Name, After: s.ledger.top(), Horizon: s.opt.Horizon, Clock: s.opt.Clock, Limit: batch,
		Shared: s.opt.Shared, Log: s.opt.Log,
	})
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		keys, err := f.Next(s.ctx)
		if err != nil {
			return err
		}
		if err := s.admitKeys(keys); err != nil {
			return err
		}
	}
}

// batch is how many keys a loop reads at once.
const batch = 256

func (s *session) admitKeys(keys []hub.Key) error {
	entries := make([]entry, len(keys))
	all := make([]*entry, len(keys))
	for i, k := range keys {
		entries[i].key = k
		all[i] = &entries[i]
	}
	lanes, err := s.lanes(all)
	if err != nil {
		return err
	}
	return s.admit(all, lanes)
}

// admit hands entries over to the workers, and waits while there is no room.
func (s *session) admit(entries []*entry, lanes []string) error {
	for {
		n := s.ledger.admit(entries, lanes)
		if n > 0 {
			s.hire()
		}
		if entries = entries[n:]; len(entries) == 0 {
			return nil
		}
		if lanes != nil {
			lanes = lanes[n:]
		}
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-s.ledger.room:
		}
	}
}
