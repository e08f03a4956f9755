package local

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"timehub/hub"
	"timehub/hub/coord"
)

// Coordinator is one node's session on a Store.
type Coordinator struct {
	store *Store
	name  string

	// guarded by store.mu:
	cut      bool
	leases   map[*lease]struct{}
	joined   map[[2]string]struct{} // group, member name
	watchers map[*watcher]struct{}
	down     chan struct{} // closed when the session is cut; made anew by Mend
}

var _ coord.Coordinator = (*Coordinator)(nil)

// Session opens a session. name is for messages.
func (s *Store) Session(name string) *Coordinator {
	c := &Coordinator{
		store: s, name: name, leases: map[*lease]struct{}{}, joined: map[[2]string]struct{}{}, watchers: map[*watcher]struct{}{},
		down: make(chan struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[c] = struct{}{}
	return c
}

// Cut ends a session as if the network had failed for longer than its time-out: its leases are lost, its members gone, its calls fail with
// Unavailable, until Mend. A node that is killed is cut and never mended.
func (s *Store) Cut(c *Coordinator) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.cut {
		return
	}
	c.cut = true
	close(c.down)
	delete(s.sessions, c)
	for l := range c.leases {
		s.freed(l)
	}
	for m := range c.joined {
		s.leave(m[0], m[1])
	}
	clear(c.joined)
}

// Mend begins a new session of the same node. Every watch wakes.
func (s *Store) Mend(c *Coordinator) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.cut {
		return
	}
	c.cut = false
	c.down = make(chan struct{})
	s.sessions[c] = struct{}{}
	for w := range c.watchers {
		w.signal()
	}
}

// Run keeps the session until ctx ends; then it gives up leases and membership, and calls fail with Unavailable. It returns nil.
func (c *Coordinator) Run(ctx context.Context) error {
	<-ctx.Done()
	c.store.Cut(c)
	return nil
}

// Get: see coord.Registers.
func (c *Coordinator) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := errors.Join(checkValue(name, nil), c.live(ctx, "get", name)); err != nil {
		return nil, 0, err
	}
	return c.store.get(name)
}

// Set: see coord.Registers.
func (c *Coordinator) Set(ctx context.Context, name string, value []byte, version uint64) (uint64, error) {
	if value == nil {
		value = []byte{}
	}
	versions, err := c.Update(ctx, []coord.Change{{Name: name, Value: value, Version: version}})
	if err != nil {
		return 0, err
	}
	return versions[0], nil
}

// Update: see coord.Registers.
func (c *Coordinator) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	if err := checkChanges(changes); err != nil || len(changes) == 0 {
		return nil, err
	}
	if err := c.live(ctx, "update", changes[0].Name); err != nil {
		return nil, err
	}
	return c.store.update(changes)
}

// Delete: see coord.Registers.
func (c *Coordinator) Delete(ctx context.Context, name string, version uint64) error {
	if version == 0 {
		return hub.E(hub.Conflict, "register %s cannot be deleted without its version", name)
	}
	_, err := c.Update(ctx, []coord.Change{{Name: name, Version: version}})
	return err
}

// Names: see coord.Registers.
func (c *Coordinator) Names(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" {
		if err := coord.CheckName(prefix); err != nil {
			return nil, err
		}
	}
	if err := c.live(ctx, "list", prefix); err != nil {
		return nil, err
	}
	return c.store.names(prefix), nil
}

// Watch: see coord.Registers.
func (c *Coordinator) Watch(name string) (<-chan struct{}, func()) {
	return c.watch(registerWatch, name)
}

// WatchMembers: see coord.Members.
func (c *Coordinator) WatchMembers(group string) (<-chan struct{}, func()) {
	return c.watch(groupWatch, group)
}

// group is the members of one group.
type group struct {
	members map[string]member
	epoch   uint64
}

type member struct {
	value []byte
	owner *Coordinator
}

// Join: see coord.Members.
func (c *Coordinator) Join(ctx context.Context, groupName, name string, value []byte) error {
	return c.enter(ctx, groupName, name, value, func(m member, held bool) error {
		if held && m.owner != c {
			return hub.E(hub.Conflict, "%s is a member of %s already, by session %s", name, groupName, m.owner.name)
		}
		return nil
	})
}

// Replace: see coord.Members.
func (c *Coordinator) Replace(ctx context.Context, groupName, name string, old, value []byte) error {
	return c.enter(ctx, groupName, name, value, func(m member, held bool) error {
		if !held || !bytes.Equal(m.value, old) {
			return hub.E(hub.Conflict, "%s is not a member of %s with that value any more", name, groupName)
		}
		delete(m.owner.joined, [2]string{groupName, name})
		return nil
	})
}

// enter makes a session a member, if may has nothing against it.
func (c *Coordinator) enter(ctx context.Context, groupName, name string, value []byte, may func(m member, held bool) error) error {
	if err := errors.Join(checkValue(groupName, nil), checkValue(name, value), c.live(ctx, "join", groupName)); err != nil {
		return err
	}
	epoch, err := c.store.revise()
	if err != nil {
		return err
	}
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.cut {
		return hub.E(hub.Unavailable, "no session with the coordinator")
	}
	g := s.groups[groupName]
	if g == nil {
		g = &group{members: map[string]member{}}
		s.groups[groupName] = g
	}
	m, held := g.members[name]
	if err := may(m, held); err != nil {
		return err
	}
	g.members[name] = member{slices.Clone(value), c}
	g.epoch = max(g.epoch+1, epoch)
	c.joined[[2]string{groupName, name}] = struct{}{}
	s.notify(groupWatch, groupName)
	return nil
}

// Leave: see coord.Members. Leaving a group that this node is not in is no error.
func (c *Coordinator) Leave(ctx context.Context, groupName, name string) error {
	if err := c.live(ctx, "leave", groupName); err != nil {
		return err
	}
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := c.joined[[2]string{groupName, name}]; ok {
		delete(c.joined, [2]string{groupName, name})
		s.leave(groupName, name)
	}
	return nil
}

// leave removes a member; mu is held. It cannot write, so its revision is not reserved: Open leaves room for these.
func (s *Store) leave(groupName, name string) {
	g := s.groups[groupName]
	delete(g.members, name)
	s.revision++
	g.epoch = max(g.epoch+1, s.revision)
	s.notify(groupWatch, groupName)
}

// List: see coord.Members.
func (c *Coordinator) List(ctx context.Context, groupName string) ([]coord.Member, uint64, error) {
	if err := errors.Join(checkValue(groupName, nil), c.live(ctx, "list", groupName)); err != nil {
		return nil, 0, err
	}
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[groupName]
	if g == nil {
		return nil, 0, nil
	}
	members := make([]coord.Member, 0, len(g.members))
	for name, m := range g.members {
		members = append(members, coord.Member{Name: name, Value: slices.Clone(m.value)})
	}
	slices.SortFunc(members, func(a, b coord.Member) int { return strings.Compare(a.Name, b.Name) })
	return members, g.epoch, nil
}

// watchKind tells watches of registers from those of groups.
type watchKind string

const (
	registerWatch watchKind = "r/"
	groupWatch    watchKind = "g/"
)

// watcher is one watch: a channel with room for one token.
type watcher struct {
	owner *Coordinator
	wake  chan struct{}
	stop  sync.Once
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (c *Coordinator) watch(kind watchKind, name string) (<-chan struct{}, func()) {
	w := &watcher{owner: c, wake: make(chan struct{}, 1)}
	key := string(kind) + name
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers[key] == nil {
		s.watchers[key] = map[*watcher]struct{}{}
	}
	s.watchers[key][w] = struct{}{}
	c.watchers[w] = struct{}{}
	w.signal() // the start of a session, as far as this watch is concerned: look once
	return w.wake, func() {
		w.stop.Do(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(c.watchers, w)
			delete(s.watchers[key], w)
			if len(s.watchers[key]) == 0 {
				delete(s.watchers, key)
			}
		})
	}
}

// notify wakes the watches of a name and of everything above it; mu is held. A cut session does not hear: its watches wake when it is mended.
func (s *Store) notify(kind watchKind, name string) {
	for {
		for w := range s.watchers[string(kind)+name] {
			if !w.owner.cut {
				w.signal()
			}
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return
		}
		name = name[:i]
	}
}
