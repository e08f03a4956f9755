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

// beat asks the ensemble something small again and again, so that it is known when it lived last.
func (c *Coordinator) beat(ctx context.Context) error {
	for {
		c.mu.Lock()
		pause, s := c.limit()/5, c.session
		c.mu.Unlock()
		began := time.Now()
		if _, err := call(ctx, c, "look at", c.root, func(conn driver) (bool, error) { return conn.exists(c.root) }); err == nil {
			c.alive(s, began)
		}
		if !hub.Sleep(ctx, pause) {
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
	for {
		c.mu.Lock()
		left := c.limit()
		if len(c.leases) > 0 {
			if left = time.Until(c.contact.Add(c.limit())); left <= 0 {
				n := len(c.leases)
				for l := range c.leases {
					c.abandon(l.dir, l.node)
					l.end()
				}
				clear(c.leases)
				c.opt.Log.Warn("ZooKeeper has not answered for too long: the leases of this node are given up", "leases", n)
				left = c.limit()
			}
		}
		c.mu.Unlock()
		// A lease that is acquired meanwhile has a contact that is not older than this moment.
		if !hub.Sleep(ctx, min(left, c.opt.Session/10)+time.Millisecond) {
			return nil
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
	if changed && d > c.opt.Session {
		c.opt.Log.Warn("ZooKeeper gives sessions a longer time-out than asked for, so others take over later: lower tickTime there",
			"asked", c.opt.Session, "given", d, "tickTime at most", c.opt.Session/2)
	}
}
