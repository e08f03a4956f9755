package zk

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"timehub/hub"
)

// watchPause is the pause before a watch is set again that could not be set.
const watchPause = 200 * time.Millisecond

// target is a node that is watched: a bell, or the folder of a group.
type target struct {
	path  string
	group bool

	// guarded by Coordinator.mu
	watches map[*watch]struct{}
	running bool
	stop    context.CancelFunc
}

// watch is a channel with room for one token.
type watch struct {
	name string
	wake chan struct{}
}

// all wakes everybody. Coordinator.mu is held.
func (t *target) all() {
	for w := range t.watches {
		poke(w.wake)
	}
}

// Watch: see coord.Registers.
func (c *Coordinator) Watch(name string) (<-chan struct{}, func()) {
	return c.watch(c.bellPath(name), name, false)
}

// WatchMembers: see coord.Members.
func (c *Coordinator) WatchMembers(group string) (<-chan struct{}, func()) {
	return c.watch(c.groupPath(group), group, true)
}

func (c *Coordinator) watch(p, name string, group bool) (<-chan struct{}, func()) {
	w := &watch{name: name, wake: make(chan struct{}, 1)}
	poke(w.wake) // look once
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[p]
	if t == nil {
		t = &target{path: p, group: group, watches: map[*watch]struct{}{}}
		c.targets[p] = t
		poke(c.nudge)
	}
	t.watches[w] = struct{}{}
	var once sync.Once
	return w.wake, func() {
		once.Do(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(t.watches, w)
			if len(t.watches) == 0 && c.targets[p] == t {
				delete(c.targets, p)
				if t.stop != nil {
					t.stop()
				}
			}
		})
	}
}

// watchAll keeps a watch on every target until ctx ends.
func (c *Coordinator) watchAll(ctx context.Context) error {
	var g errgroup.Group
	for {
		c.mu.Lock()
		for _, t := range c.targets {
			if !t.running {
				inner, stop := context.WithCancel(ctx)
				t.running, t.stop = true, stop
				g.Go(func() error { c.keep(inner, t); return nil })
			}
		}
		c.mu.Unlock()
		select {
		case <-c.nudge:
		case <-ctx.Done():
			_ = g.Wait()
			c.mu.Lock()
			for _, t := range c.targets {
				t.running = false
			}
			c.mu.Unlock()
			return nil
		}
	}
}

// keep watches one target until ctx ends. What changes between two watches is seen, because the second one compares.
func (c *Coordinator) keep(ctx context.Context, t *target) {
	last := int32(-1)
	for ctx.Err() == nil {
		var events []<-chan zk.Event
		var err error
		if t.group {
			events, err = c.armGroup(ctx, t)
		} else {
			events, last, err = c.armBell(ctx, t, last)
		}
		if err != nil {
			hub.Sleep(ctx, watchPause)
			continue
		}
		var second <-chan zk.Event // nil for a bell: never ready
		if len(events) > 1 {
			second = events[1]
		}
		select {
		case <-events[0]:
		case <-second:
		case <-ctx.Done():
		}
	}
}

// armBell sets a watch on a bell and wakes those who may have missed something. last is the bell's version that was seen before.
func (c *Coordinator) armBell(ctx context.Context, t *target, last int32) ([]<-chan zk.Event, int32, error) {
	type bell struct {
		data  []byte
		stat  *zk.Stat
		event <-chan zk.Event
	}
	b, err := call(ctx, c, "watch", t.path, func(conn driver) (bell, error) {
		data, stat, event, err := conn.GetW(t.path)
		if errors.Is(err, zk.ErrNoNode) {
			if err = ensure(conn, t.path); err == nil {
				data, stat, event, err = conn.GetW(t.path)
			}
		}
		return bell{data, stat, event}, err
	})
	if err != nil {
		return nil, last, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	switch {
	case b.stat.Version == last:
	case last >= 0 && b.stat.Version == last+1 && json.Unmarshal(b.data, &names) == nil && len(names) > 0:
		for w := range t.watches {
			if w.concerned(names) {
				poke(w.wake)
			}
		}
	default:
		t.all()
	}
	return []<-chan zk.Event{b.event}, b.stat.Version, nil
}

// concerned reports whether a change of one of the names is one of what w watches, or of something below it.
func (w *watch) concerned(names []string) bool {
	for _, n := range names {
		if n == w.name || strings.HasPrefix(n, w.name+"/") {
			return true
		}
	}
	return false
}

// armGroup sets watches on who is in a group and on the folder itself, which is touched when a value changes.
func (c *Coordinator) armGroup(ctx context.Context, t *target) ([]<-chan zk.Event, error) {
	events, err := call(ctx, c, "watch", t.path, func(conn driver) ([]<-chan zk.Event, error) {
		if err := ensure(conn, t.path); err != nil {
			return nil, err
		}
		_, _, who, err := conn.ChildrenW(t.path)
		if err != nil {
			return nil, err
		}
		_, _, what, err := conn.GetW(t.path)
		return []<-chan zk.Event{who, what}, err
	})
	if err == nil {
		c.mu.Lock()
		t.all()
		c.mu.Unlock()
	}
	return events, err
}
