package spoke

import (
	"context"
	"time"

	"timehub/hub"
)

// A node whose disk is ill while its session lives would hold up all others: its low stands, as the clock does not pass the bound that is on the disk, and no list is changed without its
// answer, which it cannot make durable. So it takes its name from the members, as if the session had ended, until the disk is well. The others close what it has left open.

const illLeast = 10 * time.Second

// illness is what is known of the own disk. Guarded by Node.mu. Looks are counted and no time, in which the process may have stood still.
type illness struct {
	unsaved bool     // what the disk is to promise is not on it, or on its way
	saves   uint64   // how often it was
	saw     uint64   // of these, at the last look
	limit   hub.Mark // the bound then
	unsafe  int      // looks, one after the other, at which something was unsaved, and nothing was saved before
	behind  int      // at which the bound was behind the clock, and had not moved
	gone    bool     // this node is not among the members
}

// illTime is how long a disk may take that is only slow.
func (c *cluster) illTime() time.Duration { return max(illLeast, 4*c.n.opt.WriteTimeout) }

// keepWell looks at the own disk.
func (c *cluster) keepWell(ctx context.Context) error {
	for hub.Sleep(ctx, learnEvery) {
		was, is := c.examine()
		switch {
		case is:
			if !was {
				c.n.log.Error("the disk of this node does not take anything: the other nodes go on without it until it does")
			}
			c.leaveMembers(ctx) // it may just have joined again
		case was:
			c.n.log.Info("the disk of this node is well again")
			poke(c.nudge)
		}
	}
	return nil
}

// examine reports whether this node was, and is, to be no member.
func (c *cluster) examine() (was, is bool) {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	count := func(looks int, ill bool) int {
		if ill {
			return looks + 1
		}
		return 0
	}
	behind := !n.stands() && n.minter.Peek() >= n.limit
	if behind {
		poke(n.kick)
	}
	i := &c.ill
	i.unsafe, i.behind = count(i.unsafe, i.unsaved && i.saves == i.saw), count(i.behind, behind && n.limit == i.limit)
	i.saw, i.limit = i.saves, n.limit
	most := int(c.illTime() / learnEvery)
	was, i.gone = i.gone, max(i.unsafe, i.behind) > most
	c.current = c.current && !i.gone
	return was, i.gone
}

func (c *cluster) leaveMembers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := c.opt.Coordinator.Leave(ctx, memberGroup, c.opt.Node); err != nil {
		c.n.log.Debug("this node could not leave the others", "err", err)
	}
}

// mayJoin reports whether this node may be a member.
func (c *cluster) mayJoin() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return !c.ill.gone
}

// saveAgain saves what could not be saved when it was tried last.
func (c *cluster) saveAgain(ctx context.Context) {
	c.n.mu.Lock()
	todo := c.ill.unsaved && len(c.saving) > 0 // nobody is at it
	c.n.mu.Unlock()
	if !todo {
		return
	}
	if err := c.save(ctx, nil, nil); err != nil && ctx.Err() == nil {
		c.n.log.Debug("what this disk knows of the others could not be written down", "err", err)
	}
}
