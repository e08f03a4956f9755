// Package local is the coordinator of a hub that runs in one process: registers, leases with fences and members in memory, and, opened on a file, the
// registers in a bbolt database beside the data. It needs nothing else and is the default.
//
// A Store is the world that nodes agree about; a Coordinator is one node's session on it. A Store made by NewMemory outlives a simulated kill: open
// another Coordinator on it. Several Coordinators on one Store see each other as members, compete for leases, and can be cut off and mended, so that
// whole clusters can be simulated. It works inside a testing/synctest bubble: no mutex is held across a channel operation, a timer or a callback.
//
// A Store opened on a file belongs to one process: a second one is refused. What Set and Update have returned survives a crash of process and machine.
// Leases and members live as long as their session; fences, versions and epochs rise over restarts.
package local

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"timehub/hub"
	"timehub/hub/coord"
)

// revisionBlock is how many revisions are reserved in the file at once. After a start revisions begin above all that were reserved.
const revisionBlock = 1 << 16

// Store is what all sessions share. All methods are safe for concurrent use.
type Store struct {
	file *file         // nil: in memory
	turn chan struct{} // held by the one who commits

	mu        sync.Mutex // guards what follows, for moments only
	queue     []*commit  // waiting to be written
	registers map[string]register
	revision  uint64 // the last one given out; one sequence for versions, fences and epochs
	reserved  uint64 // revisions up to here may be given out
	leases    map[string]*holder
	groups    map[string]*group
	watchers  map[string]map[*watcher]struct{}
	sessions  map[*Coordinator]struct{}
	closed    bool
}

type register struct {
	value   []byte
	version uint64
}

// commit is one Update on its way.
type commit struct {
	changes  []coord.Change
	versions []uint64
	err      error
	done     chan struct{}
}

// NewMemory returns an empty Store that lives in memory only.
func NewMemory() *Store {
	return &Store{
		turn: make(chan struct{}, 1), registers: map[string]register{}, reserved: 1 << 62, leases: map[string]*holder{},
		groups: map[string]*group{}, watchers: map[string]map[*watcher]struct{}{}, sessions: map[*Coordinator]struct{}{},
	}
}

// Close ends all sessions and closes the file. What was written stays.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	open := sessionsOf(s)
	s.mu.Unlock()
	for _, c := range open {
		s.Cut(c)
	}
	s.turn <- struct{}{} // whoever commits now, ends first
	defer func() { <-s.turn }()
	return s.file.close()
}

func sessionsOf(s *Store) []*Coordinator {
	all := make([]*Coordinator, 0, len(s.sessions))
	for c := range s.sessions {
		all = append(all, c)
	}
	return all
}

// get returns a copy of a register.
func (s *Store) get(name string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.registers[name]
	if !ok {
		return nil, 0, hub.E(hub.NotFound, "there is no register %s", name)
	}
	return slices.Clone(r.value), r.version, nil
}

func (s *Store) names(prefix string) []string {
	if prefix != "" {
		prefix += "/"
	}
	s.mu.Lock()
	var names []string
	for name := range s.registers {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	sort.Strings(names)
	return names
}

// update commits changes, together with whatever else is waiting: one sync for all of them.
func (s *Store) update(changes []coord.Change) ([]uint64, error) {
	c := &commit{changes: changes, done: make(chan struct{})}
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	select {
	case s.turn <- struct{}{}:
		s.drain()
		<-s.turn
	case <-c.done: // somebody else's turn took it along
	}
	<-c.done
	return c.versions, c.err
}

// drain decides about everything that waits, writes what may be written, and only then shows it. The turn is held.
func (s *Store) drain() {
	todo, changed, bound := s.stage()
	var err error
	if len(changed) > 0 {
		err = s.file.write(changed, bound)
	}
	if err == nil {
		s.show(changed, bound)
	}
	for _, c := range todo {
		if err != nil && c.err == nil {
			c.versions, c.err = nil, err
		}
		close(c.done)
	}
}

// stage takes what waits, checks it in its order and gives versions to what passes. changed holds the outcome, version 0 meaning deleted; bound is the
// revision that has to be reserved with it.
func (s *Store) stage() (todo []*commit, changed map[string]register, bound uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	todo, s.queue = s.queue, nil
	changed = map[string]register{}
	for _, c := range todo {
		if s.closed {
			c.err = errClosed()
			continue
		}
		if c.err = s.check(c, changed); c.err != nil {
			continue
		}
		c.versions = make([]uint64, len(c.changes))
		for i, ch := range c.changes {
			if ch.Value != nil {
				s.revision++
				c.versions[i] = s.revision
			}
			changed[ch.Name] = register{slices.Clone(ch.Value), c.versions[i]}
		}
	}
	if bound = s.reserved; s.revision+revisionBlock/2 > bound {
		bound = s.revision + revisionBlock
	}
	return todo, changed, bound
}

// check reports whether the versions of a commit hold, given what earlier ones of the same turn are about to change. mu is held.
func (s *Store) check(c *commit, changed map[string]register) error {
	for _, ch := range c.changes {
		now, ok := changed[ch.Name]
		if !ok {
			now = s.registers[ch.Name]
		}
		if !ch.Any && now.version != ch.Version {
			return hub.E(hub.Conflict, "register %s has version %d, not %d", ch.Name, now.version, ch.Version)
		}
	}
	return nil
}

// show makes what was written visible and wakes who watches.
func (s *Store) show(changed map[string]register, bound uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(changed) > 0 {
		s.reserved = max(s.reserved, bound)
	}
	for name, r := range changed {
		if r.version == 0 {
			delete(s.registers, name)
		} else {
			s.registers[name] = r
		}
		s.notify(registerWatch, name)
	}
}

// revise gives out a revision for a fence or an epoch: one above every revision given out before, also before a restart.
func (s *Store) revise() (uint64, error) {
	for {
		s.mu.Lock()
		if s.revision < s.reserved {
			s.revision++
			v := s.revision
			s.mu.Unlock()
			return v, nil
		}
		bound := s.revision + revisionBlock
		s.mu.Unlock()

		s.turn <- struct{}{}
		err := s.file.write(nil, bound)
		if err == nil {
			s.mu.Lock()
			s.reserved = max(s.reserved, bound)
			s.mu.Unlock()
		}
		<-s.turn
		if err != nil {
			return 0, err
		}
	}
}

func errClosed() error { return hub.E(hub.Unavailable, "the coordinator has been closed") }

func checkChanges(changes []coord.Change) error {
	seen := make(map[string]bool, len(changes))
	for _, ch := range changes {
		if err := checkValue(ch.Name, ch.Value); err != nil {
			return err
		}
		if seen[ch.Name] {
			return hub.E(hub.Invalid, "register %s occurs twice in one update", ch.Name)
		}
		seen[ch.Name] = true
	}
	return nil
}

func checkValue(name string, value []byte) error {
	if err := coord.CheckName(name); err != nil {
		return err
	}
	if len(value) > coord.MaxValue {
		return hub.E(hub.TooLarge, "the value of %s has %d bytes: at most %d are allowed", name, len(value), coord.MaxValue)
	}
	return nil
}

// live fails if ctx has ended or the session is cut.
func (c *Coordinator) live(ctx context.Context, verb, name string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", verb, name, context.Cause(ctx))
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	switch {
	case c.store.closed:
		return errClosed()
	case c.cut:
		return hub.E(hub.Unavailable, "no session with the coordinator")
	}
	return nil
}
