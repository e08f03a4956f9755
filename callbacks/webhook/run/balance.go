package run

import (
	"context"
	"math/rand/v2"
	"time"

	"timehub/hub"
)

// memberGroup are the nodes that run webhooks.
const memberGroup = "webhooks"

const (
	balanceAfter = 3 * time.Second // a node that has just come needs a moment to stand in line
	balanceStep  = 50              // webhooks that are given up at once
)

// balance lets the nodes of a cluster lead about as many webhooks each (spec 03 §2.7): a node that leads more than its share, and a tenth, gives some up to
// those that wait for them. A node that is alone does nothing.
func (m *Manager) balance(ctx context.Context) {
	if m.opt.Members == nil {
		return
	}
	wake, stop := m.opt.Members.WatchMembers(memberGroup)
	defer stop()
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		err := m.opt.Members.Join(ctx, memberGroup, m.opt.Node, nil)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			m.opt.Log.Warn("this node cannot say that it runs webhooks; trying again", "err", err)
		}
		if !hub.Sleep(ctx, pause) {
			return
		}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.opt.Grace)
		defer cancel()
		_ = m.opt.Members.Leave(ctx, memberGroup, m.opt.Node) // otherwise it ends with the session
	}()
	for {
		members, _, err := m.opt.Members.List(ctx, memberGroup)
		var timer <-chan time.Time
		if err != nil || len(members) > 1 {
			timer = time.After(m.opt.Balance*3/4 + rand.N(m.opt.Balance/2+1))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer:
		case <-wake:
		}
		if !hub.Sleep(ctx, balanceAfter/2+rand.N(balanceAfter)) {
			return
		}
		if members, _, err := m.opt.Members.List(ctx, memberGroup); err == nil && len(members) > 1 {
			m.shed(len(members))
		}
	}
}

// shed gives up what is too much for one of so many nodes.
func (m *Manager) shed(nodes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var mine []*hook
	for _, h := range m.hooks {
		if h.session != nil && h.quit != nil {
			mine = append(mine, h)
		}
	}
	share := (len(m.hooks) + nodes - 1) / nodes
	if len(mine) <= share+share/10 {
		return
	}
	over := mine[:min(len(mine)-share, balanceStep)]
	for _, h := range over {
		h.quit(errYielded)
	}
	m.opt.Log.Info("webhooks were given up to other nodes", "given", len(over), "led", len(mine), "share", share)
}
