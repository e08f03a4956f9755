package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"timehub/callbacks/webhook"
	"timehub/hub"
	"timehub/hub/coord"
)

var _ webhook.Runs = (*Manager)(nil)

// Why a session ends; the cause of its context.
var (
	errChanged = errors.New("the webhook was changed")
	errPaused  = errors.New("the webhook was paused")
	errRetired = errors.New("the webhook was removed or put elsewhere")
	errMissing = errors.New("the channel is not there")
)

// Manager runs the webhooks of one node: each that the catalog has, unless it is a prototype or paused, for as long as this node holds its lease. It learns
// of changes from the catalog. All methods are safe for concurrent use.
type Manager struct {
	opt    Options
	meters meters
	memory *semaphore.Weighted

	mu     sync.Mutex      // guards what follows, and config, session and cancel of each hook
	ctx    context.Context // of Run; nil: it does not run
	hooks  map[string]*hook
	loops  sync.WaitGroup
	absent map[string]map[*hook]chan struct{} // by hub.ChannelID: who waits for the channel
}

// New checks the options and returns a Manager, not running.
func New(o Options) (*Manager, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	return &Manager{
		opt: o, meters: newMeters(o.Metrics), memory: semaphore.NewWeighted(o.Memory), hooks: map[string]*hook{}, absent: map[string]map[*hook]chan struct{}{},
	}, nil
}

// Run runs webhooks until ctx ends. Then calls that are on their way get a moment to end, and everything that is known is written. It returns nil, or the
// error of that last write.
func (m *Manager) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var cursors errgroup.Group
	cursors.Go(func() error { return m.opt.Cursors.Run(writing) })

	var others sync.WaitGroup
	sharing, alone := context.WithCancel(ctx)
	defer alone()
	others.Go(func() { m.balance(sharing) })
	err := m.follow(ctx)
	alone()
	m.loops.Wait()
	others.Wait()
	stop()
	return errors.Join(err, cursors.Wait())
}

// follow begins and ends loops as the configurations say.
func (m *Manager) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ctx = nil // nothing is begun any more
		cancel()
	}()
	wake, changed, stop := m.opt.Webhooks.Watch()
	defer stop()
	channels, moved, stopChannels := m.opt.ChannelNews()
	defer stopChannels()
	all, err := m.opt.Webhooks.Cached(ctx)
	if err != nil {
		return fmt.Errorf("list the webhooks: %w", err)
	}
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	for _, w := range all {
		m.apply(w.Name)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			for _, name := range changed() {
				m.apply(name)
			}
		case <-channels:
			m.channelsChanged(ctx, moved())
		}
	}
}

// apply brings one loop in line with what the catalog says.
func (m *Manager) apply(name string) {
	w, err := m.opt.Webhooks.Get(context.Background(), name) // from memory
	why := errRetired
	switch {
	case hub.Is(err, hub.NotFound):
		w = nil
		m.opt.Attempts.Remove(name)
	case err != nil:
		m.opt.Log.Error("the configuration of a webhook cannot be read; it goes on as before", "webhook", name, "err", err)
		return
	case w.IsPrototype() || w.ChannelName() == "":
		w = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hooks[name]
	if w != nil && w.Paused {
		if h != nil && h.config != nil && h.config.Born == w.Born {
			why = errPaused
		}
		w = nil
	}
	switch {
	case h == nil && w != nil && m.ctx != nil && m.ctx.Err() == nil:
		h = &hook{manager: m, name: name, config: w}
		m.hooks[name] = h
		ctx := m.ctx
		m.loops.Go(func() { h.keep(ctx) })
	case h != nil:
		h.set(w, why)
	}
}

// channelsChanged wakes who waits for a channel, and ends the sessions of those whose channel is gone, or another one of its name.
func (m *Manager) channelsChanged(ctx context.Context, ids []string) {
	set := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range set {
		for _, wake := range m.absent[id] {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
	for _, h := range m.hooks {
		if s := h.session; s != nil {
			if _, ok := set[s.channelID]; ok && !s.sameChannel(ctx) {
				h.cancel(errMissing)
			}
		}
	}
}

// await returns the channel of a webhook. It waits until there is one.
func (m *Manager) await(ctx context.Context, h *hook, name string) (*hub.Channel, error) {
	ch, err := m.opt.Channels.Channel(ctx, name)
	if !hub.Is(err, hub.NotFound) {
		return ch, err
	}
	id := hub.ChannelID(name)
	wake := make(chan struct{}, 1)
	m.mu.Lock()
	if m.absent[id] == nil {
		m.absent[id] = map[*hook]chan struct{}{}
	}
	m.absent[id][h] = wake
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if delete(m.absent[id], h); len(m.absent[id]) == 0 {
			delete(m.absent, id)
		}
	}()
	for {
		ch, err := m.opt.Channels.Channel(ctx, name)
		if !hub.Is(err, hub.NotFound) {
			return ch, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-wake:
		}
	}
}

// Live: see webhook.Runs. It knows of webhooks that this node leads.
func (m *Manager) Live(_ context.Context, name string) (webhook.Live, bool) {
	s := m.sessionOf(name)
	if s == nil {
		return webhook.Live{}, false
	}
	l := webhook.Live{Born: s.w.Born}
	l.Cursor, l.State = s.ledger.live(m.opt.Clock())
	return l, true
}

// Stop: see webhook.Runs.
func (m *Manager) Stop(ctx context.Context, name string) error {
	m.apply(name)
	born := ""
	if w, err := m.opt.Webhooks.Get(ctx, name); err == nil {
		born = w.Born
	}
	for {
		m.mu.Lock()
		var over chan struct{}
		if h := m.hooks[name]; h != nil && h.session != nil && h.session.w.Born != born {
			over = h.session.over
		}
		m.mu.Unlock()
		if over == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
		}
	}
}

func (m *Manager) sessionOf(name string) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.hooks[name]; h != nil && h.session != nil && h.session.ledger != nil {
		return h.session
	}
	return nil
}

// hook is one webhook that should run here.
type hook struct {
	manager *Manager
	name    string
	config  *webhook.Webhook        // nil: it should end
	session *session                // nil: there is none
	quit    context.CancelCauseFunc // ends everything
	cancel  context.CancelCauseFunc // ends the session, or what is done to begin one; nil: there is nothing to end
}

// set changes the configuration; why is the reason if there is none any more. The Manager's mu is held.
func (h *hook) set(w *webhook.Webhook, why error) {
	old := h.config
	if w != nil && old != nil && *w == *old {
		return
	}
	h.config = w
	switch {
	case w == nil && h.quit != nil:
		h.quit(why)
	case h.cancel == nil: // what comes next begins with the new one
	case w == nil || old == nil || w.Born != old.Born:
		h.cancel(errRetired)
	default:
		h.cancel(errChanged)
	}
}

// keep leads the webhook until it should end.
func (h *hook) keep(ctx context.Context) {
	m := h.manager
	pause := retryMin
	for {
		life, quit := context.WithCancelCause(ctx)
		m.mu.Lock()
		if h.config == nil || ctx.Err() != nil {
			delete(m.hooks, h.name)
			m.mu.Unlock()
			quit(nil)
			return
		}
		h.quit = quit
		m.mu.Unlock()
		err := coord.Lead(life, m.opt.Leases, webhook.LeasePrefix+"/"+h.name, h.lead)
		if err != nil && life.Err() == nil {
			m.opt.Log.Error("a webhook cannot run; trying again", "webhook", h.name, "err", err)
			hub.Sleep(life, pause)
			pause = min(2*pause, retryMax)
		}
		quit(nil)
	}
}

// lead runs sessions, one for each configuration, while this node holds the lease.
func (h *hook) lead(ctx context.Context, fence uint64) error {
	m := h.manager
	meters := m.meters.of(h.name)
	meters.begun()
	defer meters.ended()
	pause := retryMin
	for {
		inner, cancel := context.WithCancelCause(ctx)
		m.mu.Lock()
		w := h.config
		h.cancel = cancel
		m.mu.Unlock()
		if w == nil {
			cancel(nil)
			return nil
		}
		began := time.Now()
		err := h.run(inner, cancel, w, fence, meters)
		switch {
		case ctx.Err() != nil:
			cancel(nil)
			return context.Cause(ctx)
		case errors.Is(err, coord.ErrFenced):
			cancel(nil)
			return coord.ErrLeaseLost
		case inner.Err() == nil && !hub.Is(err, hub.NotFound):
			m.opt.Log.Warn("a webhook was interrupted; it goes on", "webhook", h.name, "err", err)
		}
		if time.Since(began) > time.Minute {
			pause = retryMin
		}
		hub.Sleep(inner, pause) // over at once if it was told to end
		pause = min(2*pause, retryMax)
		cancel(nil)
	}
}

const (
	retryMin = 50 * time.Millisecond // after something of our own failed, doubled up to retryMax
	retryMax = 5 * time.Second
)
