package spoke

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"timehub/spoke/roster"
)

// settling is how many closings one node leads at the same time.
const settling = 16

// keepSettling closes what may be closed, beside the repair that brings those up who lag behind, and several streams at a time: each waits for silent members.
func (c *cluster) keepSettling(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex // guards led
	led := map[roster.Stream]bool{}
	open := map[roster.Stream]time.Time{} // since when a stream might be closed
	for poked(ctx, c.closing) {
		closable := c.closable()
		c.forgetUnclosed(closable)
		maps.DeleteFunc(open, func(s roster.Stream, _ time.Time) bool { return !slices.Contains(closable, s) })
		for _, s := range closable {
			if _, known := open[s]; !known {
				open[s] = time.Now()
			}
			forced := c.overdue(open[s])
			mu.Lock()
			free := !led[s] && len(led) < settling
			if free {
				led[s] = true
			}
			mu.Unlock()
			if !free {
				continue
			}
			wg.Go(func() {
				err := c.settle(ctx, s, forced)
				if ctx.Err() == nil && c.unclosable(s, err) {
					c.n.log.Warn("an incarnation could not be closed; trying again", "stream", s, "err", err)
				}
				mu.Lock()
				defer mu.Unlock()
				delete(led, s)
			})
		}
	}
	return nil
}

// unclosable remembers why a stream could not be closed; nil: it was. It reports whether that is news: a reason is logged once for each stream.
func (c *cluster) unclosable(s roster.Stream, err error) (news bool) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if err == nil {
		delete(c.unclosed, s)
		return false
	}
	news = c.unclosed[s] != err.Error()
	c.unclosed[s] = err.Error()
	return news
}

// forgetUnclosed drops what is remembered of streams that are closed, or whose owner is back.
func (c *cluster) forgetUnclosed(closable []roster.Stream) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	maps.DeleteFunc(c.unclosed, func(s roster.Stream, _ string) bool { return !slices.Contains(closable, s) })
}

// poked waits for a token, for a second at most; false: ctx is done.
func poked(ctx context.Context, wake <-chan struct{}) bool {
	timer := time.NewTimer(learnEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// overdue reports whether a stream that might have been closed since then is to be closed by force.
func (c *cluster) overdue(since time.Time) bool {
	if c.opt.ForceAfter <= 0 || time.Since(since) < c.opt.ForceAfter {
		return false
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.rec.Forcible() == nil
}

// closable lists the streams that anybody may close.
func (c *cluster) closable() (list []roster.Stream) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.members == nil {
		return nil
	}
	for _, i := range c.rec.Streams {
		if c.rec.Closable(i.Stream, c.members, func(node string) roster.Stream { return c.present[node] }) {
			list = append(list, i.Stream)
		}
	}
	return list
}

// closableNow looks anew at the list and at the sessions: those that were read last may be from before a pause, and a stream whose owner has come back need not end.
func (c *cluster) closableNow(ctx context.Context, s roster.Stream) (bool, error) {
	b, _, err := c.opt.Coordinator.Get(ctx, listRegister)
	if err != nil {
		return false, err
	}
	rec, err := roster.Parse(b)
	if err != nil {
		return false, err
	}
	list, _, err := c.opt.Coordinator.List(ctx, memberGroup)
	if err != nil {
		return false, err
	}
	c.n.mu.Lock()
	mine := c.ownIn(rec)
	c.n.mu.Unlock()
	sessions, present, err := c.sessionsOf(list, mine)
	return err == nil && rec.Closable(s, sessions, func(node string) roster.Stream { return present[node] }), err
}

// settle closes one stream, unless somebody else is at it. forced: by fewer members than know everything, if no more answer.
func (c *cluster) settle(ctx context.Context, s roster.Stream, forced bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTime)
	defer cancel()
	lease, err := c.opt.Coordinator.Acquire(ctx, settlePrefix+s.String())
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
		defer cancel()
		_ = lease.Release(ctx)
	}()
	if may, err := c.closableNow(ctx, s); err != nil || !may {
		poke(c.nudge)
		return err
	}
	l := &leader{c: c, s: s, forced: forced, answers: map[string]held{}}
	if err := l.gather(ctx); err != nil {
		return err
	}
	if err := l.write(ctx); err != nil {
		return err
	}
	return l.record(ctx)
}
