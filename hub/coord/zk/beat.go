package zk

import (
	"context"
	"fmt"
	"strings"
	"time"

	"timehub/hub"
)

// A lease counts as lost when the last answer is this part of the session's time-out old: 2/3.
const fenceNumerator, fenceDenominator = 2, 3

// limit is how long after the last contact a lease holds. mu is held.
func (c *Coordinator) limit() time.Duration {
	d := c.opt.Session
	if c.granted > 0 {
		d = c.granted
	}
	return d * fenceNumerator / fenceDenominator
}

// Granted is the session's time-out as the server gave it; 0 while there has been none. A server gives at least two of its ticks.
func (c *Coordinator) Granted() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.granted
}

// beat asks the ensemble something small when nobody else has had an answer for a while, so that it is known when it lived last.
func (c *Coordinator) beat(ctx context.Context) error {
	for {
		c.mu.Lock()
		pause := c.limit() / 5
		left := time.Until(c.contact.Add(pause))
		c.mu.Unlock()
		if left <= 0 {
			_, _ = call(ctx, c, "look at", c.root, func(conn driver) (bool, error) { return conn.exists(c.root) })
			left = pause
		}
		if !hub.Sleep(ctx, left) {
			return nil
		}
	}
}

// alive notes that a session lived at an instant.
func (c *Coordinator) alive(s *session, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == s && at.After(c.contact) {
		c.contact = at
	}
}

// fence loses all leases when the ensemble has not been heard of for too long, whatever the driver believes.
func (c *Coordinator) fence(ctx context.Context) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.held: // the first lease, or the limit is another one
		case <-due.C:
		}
		c.mu.Lock()
		left := time.Until(c.contact.Add(c.limit()))
		if n := len(c.leases); n > 0 && left <= 0 {
			for l := range c.leases {
				c.abandon(l.dir, l.node)
				l.end()
			}
			clear(c.leases)
			c.opt.Log.Warn("ZooKeeper has not answered for too long: the leases of this node are given up", "leases", n)
		}
		some := len(c.leases) > 0
		c.mu.Unlock()
		if some { // contact only comes later meanwhile
			due.Reset(left + time.Millisecond)
		} else {
			due.Stop()
		}
	}
}

// fresh reports whether a lease may be taken now. mu is held.
func (c *Coordinator) fresh(s *session) bool {
	return c.session == s && c.isUp && time.Since(c.contact) < c.limit()
}

// listener hears what the driver logs: the only place where it tells the session's time-out that the server gave.
type listener struct{ c *Coordinator }

func (l listener) Printf(format string, args ...any) {
	if len(args) == 2 && strings.HasPrefix(format, "authenticated: ") {
		if ms, ok := args[1].(int32); ok {
			l.c.grant(time.Duration(ms) * time.Millisecond)
		}
	}
	l.c.opt.Log.Debug("ZooKeeper driver", "says", fmt.Sprintf(format, args...))
}

func (c *Coordinator) grant(d time.Duration) {
	c.mu.Lock()
	changed := c.granted != d
	c.granted = d
	c.mu.Unlock()
	poke(c.held)
	if changed && d > c.opt.Session {
		c.opt.Log.Warn("ZooKeeper gives sessions a longer time-out than asked for, so others take over later: lower tickTime there",
			"asked", c.opt.Session, "given", d, "tickTime at most", c.opt.Session/2)
	}
}
