package zk

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"timehub/hub"
	"timehub/hub/coord"
)

// lease is a node at the head of its queue.
type lease struct {
	c         *Coordinator
	dir, node string // node: the name within dir
	fence     uint64
	life      context.Context // ends when it is lost or released
	end       context.CancelFunc
}

func (c *Coordinator) newLease(name string) *lease {
	l := &lease{c: c, dir: c.leasePath(name)}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// Lost: see coord.Lease. It is closed by Release too.
func (l *lease) Lost() <-chan struct{} { return l.life.Done() }

// AfterLost calls f in a goroutine of its own when the lease is lost or released. stop ends that. Ten thousand leases need no goroutine each.
func (l *lease) AfterLost(f func()) (stop func() bool) { return context.AfterFunc(l.life, f) }

// Fence: see coord.Lease.
func (l *lease) Fence() uint64 { return l.fence }

// Release: see coord.Lease. A lease that cannot be given back now is given back as soon as that is possible, or ends with the session.
func (l *lease) Release(ctx context.Context) error {
	c := l.c
	c.mu.Lock()
	_, held := c.leases[l]
	delete(c.leases, l)
	c.mu.Unlock()
	l.end()
	if !held {
		return nil
	}
	err := c.remove(ctx, l.dir, l.node)
	if err != nil {
		c.mu.Lock()
		c.abandon(l.dir, l.node)
		c.mu.Unlock()
	}
	return err
}

// orphan is what a node of a queue is known by that nobody waits for any more: its name, or how it begins.
type orphan struct{ dir, prefix string }

// abandon notes something to be removed. mu is held.
func (c *Coordinator) abandon(dir, prefix string) {
	c.orphans[orphan{dir, prefix}] = struct{}{}
	poke(c.tidy)
}

// Acquire: see coord.Leases. It fails with Unavailable when there is no session, or when it ends.
func (c *Coordinator) Acquire(ctx context.Context, name string) (coord.Lease, error) {
	if err := coord.CheckName(name); err != nil {
		return nil, err
	}
	if _, err := c.connection(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	l := c.newLease(name)
	prefix := c.id + "-" + strings.ToLower(rand.Text()) + "-"
	if err := l.enqueue(ctx, prefix); err != nil {
		return nil, err
	}
	err := l.wait(ctx, s)
	if err == nil && !c.take(l, s) {
		err = hub.E(hub.Unavailable, "acquire lease %s: the session with ZooKeeper has ended", name)
	}
	if err != nil {
		c.mu.Lock()
		c.abandon(l.dir, l.node)
		c.mu.Unlock()
		return nil, err
	}
	return l, nil
}

// take makes the lease ours, if the session in which we queued up is known to live.
func (c *Coordinator) take(l *lease, s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fresh(s) {
		return false
	}
	if len(c.leases) == 0 {
		poke(c.held)
	}
	c.leases[l] = struct{}{}
	return true
}

// enqueue makes the node. One that may have been made by a call of unknown outcome is removed behind us.
func (l *lease) enqueue(ctx context.Context, prefix string) error {
	c := l.c
	made, err := callOr(ctx, c, "acquire lease", l.dir, func(conn driver) (string, error) {
		p, err := conn.Create(l.dir+"/"+prefix, []byte(c.opt.Name), zk.FlagEphemeralSequential, zk.WorldACL(zk.PermAll))
		for tries := 0; errors.Is(err, zk.ErrNoNode) && tries < 5; tries++ { // containers go when they are empty
			if err = container(conn, l.dir); err == nil {
				p, err = conn.Create(l.dir+"/"+prefix, []byte(c.opt.Name), zk.FlagEphemeralSequential, zk.WorldACL(zk.PermAll))
			}
		}
		return p, err
	}, func(string, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.abandon(l.dir, prefix)
	})
	if err != nil {
		c.mu.Lock()
		c.abandon(l.dir, prefix)
		c.mu.Unlock()
		return err
	}
	l.node = made[len(l.dir)+1:]
	return nil
}

// container makes a folder that ZooKeeper (3.5 and later) removes when it has been emptied, so that queues of jobs that are gone do not pile up.
func container(conn driver, dir string) error {
	if err := ensure(conn, dir[:strings.LastIndexByte(dir, '/')]); err != nil {
		return err
	}
	_, err := conn.CreateContainer(dir, nil, zk.FlagContainer, zk.WorldACL(zk.PermAll))
	if errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return err
}

// wait returns when the node is the first of its queue.
func (l *lease) wait(ctx context.Context, s *session) error {
	for {
		before, fence, err := l.predecessor(ctx)
		if err != nil {
			return err
		}
		if before == "" {
			l.fence = fence
			return nil
		}
		gone, err := call(ctx, l.c, "wait for lease", l.dir, func(conn driver) (<-chan zk.Event, error) {
			ok, _, event, err := conn.ExistsW(l.dir + "/" + before)
			if err == nil && !ok {
				event = nil
			}
			return event, err
		})
		if err != nil {
			return err
		}
		if gone == nil {
			continue
		}
		select {
		case <-gone:
		case <-s.lost:
			return hub.E(hub.Unavailable, "wait for lease %s: the session with ZooKeeper has ended", l.dir)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// predecessor is the node before ours, "" if there is none; then fence is the zxid of our own node's creation.
func (l *lease) predecessor(ctx context.Context) (before string, fence uint64, err error) {
	type place struct {
		before string
		fence  uint64
	}
	at, err := call(ctx, l.c, "acquire lease", l.dir, func(conn driver) (place, error) {
		names, _, err := conn.Children(l.dir)
		if err != nil {
			return place{}, err
		}
		slices.SortFunc(names, func(a, b string) int { return strings.Compare(number(a), number(b)) })
		i := slices.Index(names, l.node)
		switch {
		case i < 0:
			return place{}, hub.E(hub.Unavailable, "acquire lease %s: the session with ZooKeeper has ended", l.dir)
		case i > 0:
			return place{before: names[i-1]}, nil
		}
		ok, stat, err := conn.Exists(l.dir + "/" + l.node)
		if err == nil && !ok {
			err = hub.E(hub.Unavailable, "acquire lease %s: the session with ZooKeeper has ended", l.dir)
		}
		if err != nil {
			return place{}, err
		}
		return place{fence: uint64(stat.Czxid)}, nil
	})
	return at.before, at.fence, err
}

// number is the part of a name that ZooKeeper gave: ten digits, rising.
func number(node string) string { return node[strings.LastIndexByte(node, '-')+1:] }

// remove deletes a node of a queue, or all whose names begin like it, which then ends with a hyphen. They belong to this process.
func (c *Coordinator) remove(ctx context.Context, dir, prefix string) error {
	_, err := call(ctx, c, "release lease", dir, func(conn driver) (struct{}, error) {
		if !strings.HasSuffix(prefix, "-") {
			err := conn.Delete(dir+"/"+prefix, -1)
			if errors.Is(err, zk.ErrNoNode) {
				err = nil
			}
			return struct{}{}, err
		}
		if _, err := conn.Sync(dir); err != nil { // a server may not have heard of it yet; nobody would look again, and the queue would wait for it as long as the session lasts
			return struct{}{}, err
		}
		names, _, err := conn.Children(dir)
		if errors.Is(err, zk.ErrNoNode) {
			return struct{}{}, nil
		}
		for _, n := range names {
			if err == nil && strings.HasPrefix(n, prefix) {
				if err = conn.Delete(dir+"/"+n, -1); errors.Is(err, zk.ErrNoNode) {
					err = nil
				}
			}
		}
		return struct{}{}, err
	})
	return err
}

// clean removes what was abandoned, as soon as there is a session.
func (c *Coordinator) clean(ctx context.Context) error {
	for {
		select {
		case <-c.tidy:
		case <-ctx.Done():
			return nil
		}
		for _, o := range c.lost() {
			if err := c.remove(ctx, o.dir, o.prefix); err != nil {
				c.mu.Lock()
				c.orphans[o] = struct{}{}
				c.mu.Unlock()
				if !hub.Sleep(ctx, time.Second) {
					return nil
				}
				poke(c.tidy)
			}
		}
	}
}

// lost takes the list of what is to be removed.
func (c *Coordinator) lost() []orphan {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]orphan, 0, len(c.orphans))
	for o := range c.orphans {
		list = append(list, o)
	}
	clear(c.orphans)
	return list
}
