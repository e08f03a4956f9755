package run

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"timehub/hub"
)

var errYielded = errors.New("the webhook was stopped on this node by hand")

// Running is a webhook that runs here.
type Running struct {
	Name  string
	Since time.Time // with its present settings
	Last  string    // the greatest path done
}

// Running lists the webhooks that run on this node, by name.
func (m *Manager) Running() []Running {
	m.mu.Lock()
	var all []*session
	for _, h := range m.hooks {
		if h.session != nil && h.session.ledger != nil {
			all = append(all, h.session)
		}
	}
	m.mu.Unlock()
	list := make([]Running, len(all))
	for i, s := range all {
		_, state := s.ledger.live(m.opt.Clock())
		list[i] = Running{s.w.Name, s.began, state.Last}
	}
	slices.SortFunc(list, func(a, b Running) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Yield gives the lease of a webhook that runs here up, so that a node that waits for it runs it; this one waits for it again, behind them. It returns when
// the loop has stopped, or ctx ends.
func (m *Manager) Yield(ctx context.Context, name string) error {
	m.mu.Lock()
	var over chan struct{}
	if h := m.hooks[name]; h != nil && h.quit != nil {
		if h.session != nil {
			over = h.session.over
		}
		h.quit(errYielded)
	}
	m.mu.Unlock()
	if over == nil {
		return nil
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Runs waits until a webhook runs here, or ctx ends, and reports whether it does.
func (m *Manager) Runs(ctx context.Context, name string) bool {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if m.sessionOf(name) != nil {
			return true
		}
		if !hub.Sleep(ctx, pause) {
			return false
		}
	}
}
