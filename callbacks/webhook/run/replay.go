package run

import (
	"context"

	"timehub/callbacks/webhook"
	"timehub/hub"
)

// Bounds of what waits to be delivered again.
const (
	maxRanges     = 100
	maxReplayKeys = 1000
	maxReplaySize = 80 << 10 // bytes of paths
)

// Replay: see webhook.Runs.
func (m *Manager) Replay(ctx context.Context, name string, r webhook.Range) (queued int, err error) {
	s := m.sessionOf(name)
	if s == nil {
		return m.replayLater(ctx, name, r)
	}
	if err := s.ledger.again(r); err != nil {
		return 0, err
	}
	s.touch()
	s.hire()
	if err := m.opt.Cursors.Flush(ctx); err != nil {
		return 0, err
	}
	return max(1, len(r.Keys)), nil
}

// replayLater notes a replay of a webhook that does not run here.
func (m *Manager) replayLater(ctx context.Context, name string, r webhook.Range) (int, error) {
	w, err := m.opt.Webhooks.Get(ctx, name)
	if err != nil {
		return 0, err
	}
	if !w.Paused {
		return 0, hub.E(hub.Unavailable, "webhook %s does not run on this node now: try again", name)
	}
	p, err := m.opt.Cursors.Get(ctx, name)
	if err != nil {
		return 0, err
	}
	at, state, _, err := w.At(p)
	if err != nil {
		return 0, err
	}
	if state.Replay, err = withRange(state.Replay, r); err != nil {
		return 0, err
	}
	payload, err := state.Encode()
	if err != nil {
		return 0, err
	}
	if _, err := m.opt.Cursors.Reset(ctx, name, at, payload); err != nil {
		return 0, err
	}
	return max(1, len(r.Keys)), nil
}

func withRange(all []webhook.Range, r webhook.Range) ([]webhook.Range, error) {
	keys, size := 0, 0
	for _, o := range append(all[:len(all):len(all)], r) {
		keys += len(o.Keys)
		size += len(o.From) + len(o.To)
		for _, path := range o.Keys {
			size += len(path) + 3
		}
	}
	if len(all) >= maxRanges || keys > maxReplayKeys || size > maxReplaySize {
		return nil, hub.E(hub.TooMany, "too much waits to be delivered again: at most %d ranges and %d single items may; try again later", maxRanges, maxReplayKeys)
	}
	return append(all[:len(all):len(all)], r), nil
}

// again queues what is to be delivered again.
func (l *ledger) again(r webhook.Range) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := withRange(l.replay, r)
	if err == nil {
		l.replay = all
	}
	return err
}

// firstReplay is the range that comes next.
func (l *ledger) firstReplay() (webhook.Range, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.replay) == 0 {
		return webhook.Range{}, false
	}
	return l.replay[0], true
}

// replace puts other ranges in the place of the first.
func (l *ledger) replace(with ...webhook.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replay = append(append([]webhook.Range(nil), with...), l.replay[1:]...)
}

// found ends the search for what is to be delivered again; nil: there is nothing.
func (l *ledger) found(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh = false
	if l.replayed = e; e == nil {
		return
	}
	e.replay = true
	if l.flewAgain.Path == e.path() {
		e.tries = l.flewAgain.Attempts
	}
	l.flewAgain = webhook.Flight{}
}

// passed moves the first range on after a delivery; mu is held.
func (l *ledger) passed(e *entry) {
	r := l.replay[0]
	switch {
	case len(r.Keys) > 1:
		r.Keys = r.Keys[1:]
	case len(r.Keys) == 1:
		l.replay = l.replay[1:]
		return
	case e.window.Unit != hub.NoUnit:
		r.From = e.key.String()
	default:
		r.From = e.key.After().String()
	}
	l.replay = append([]webhook.Range{r}, l.replay[1:]...)
}

// nextReplay finds the next entry that is to be delivered again; nil if there is none, or the session ends.
func (s *session) nextReplay() *entry {
	e := s.searchReplay()
	if e != nil {
		e.asked = s.opt.Clock()
	}
	s.ledger.found(e)
	if e == nil {
		s.touch()
	}
	return e
}

func (s *session) searchReplay() *entry {
	for pause := retryMin; ; {
		r, ok := s.ledger.firstReplay()
		if !ok {
			return nil
		}
		e, err := s.replayOf(r)
		switch {
		case err == nil && e != nil:
			return e
		case err == nil:
			continue
		case hub.Is(err, hub.Invalid), hub.Is(err, hub.NotFound):
			s.opt.Log.Warn("a range that should be delivered again is dropped", "webhook", s.w.Name, "err", err)
			s.ledger.replace()
			continue
		}
		if s.ctx.Err() == nil {
			s.opt.Log.Warn("what should be delivered again cannot be read; trying again", "webhook", s.w.Name, "err", err)
		}
		if !hub.Sleep(s.ctx, pause) {
			return nil
		}
		pause = min(2*pause, retryMax)
	}
}

// replayOf is the first entry of a range. Without one and without an error, it has changed the ranges.
func (s *session) replayOf(r webhook.Range) (*entry, error) {
	unit := s.w.Unit()
	if len(r.Keys) > 0 {
		path := r.Keys[0]
		if w, err := hub.ParseWindow(path); err == nil {
			if unit != hub.NoUnit && w.Unit >= unit {
				return periodEntry(hub.WindowAt(w.Start, unit)), nil
			}
			s.ledger.replace(splitRange(r, webhook.Range{From: w.From().String(), To: w.To().String()})...)
			return nil, nil
		}
		key, err := hub.ParseKey(path)
		if err != nil {
			return nil, err
		}
		if unit != hub.NoUnit {
			return periodEntry(hub.WindowAt(key.Time(), unit)), nil
		}
		return &entry{key: key}, nil
	}
	from, to := hub.MinKey, hub.MaxKey
	var err error
	if r.From != "" {
		if from, err = hub.ParseKey(r.From); err != nil {
			return nil, err
		}
	}
	if r.To != "" {
		if to, err = hub.ParseKey(r.To); err != nil {
			return nil, err
		}
	}
	page, err := s.opt.Source.Keys(s.ctx, hub.Query{Channel: s.channel.Name, From: from, To: to, Limit: 1, Stable: true})
	switch {
	case err != nil:
		return nil, err
	case page.Silent > 0:
		return nil, hub.E(hub.Unavailable, "%d stores did not answer", page.Silent)
	case len(page.Keys) == 0:
		s.ledger.replace()
		return nil, nil
	case unit != hub.NoUnit:
		return periodEntry(hub.WindowAt(page.Keys[0].Time(), unit)), nil
	}
	return &entry{key: page.Keys[0]}, nil
}

func periodEntry(w hub.Window) *entry { return &entry{key: w.To(), window: w, after: w.From()} }

// splitRange puts a range before what is left of the keys of r.
func splitRange(r, first webhook.Range) []webhook.Range {
	if len(r.Keys) == 1 {
		return []webhook.Range{first}
	}
	return []webhook.Range{first, {Keys: r.Keys[1:]}}
}
