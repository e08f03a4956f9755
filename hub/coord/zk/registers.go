package zk

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/coord"
)

const (
	present   = 0x01 // the first byte of a node that holds a value
	maxKnown  = 100_000
	maxBell   = 64 << 10
	namesLook = 16 // nodes looked at, at the same time
)

// zkVersion is what ZooKeeper calls the version of a node, at a version of ours. Nodes of registers are never deleted, so a pair stays true for ever.
type zkVersion struct {
	mzxid   uint64
	version int32
}

// Get: see coord.Registers. It sees every change whose Set had returned, anywhere, when it was called.
func (c *Coordinator) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := coord.CheckName(name); err != nil {
		return nil, 0, err
	}
	type found struct {
		data []byte
		stat *zk.Stat
	}
	f, err := call(ctx, c, "read register", name, func(conn driver) (found, error) {
		p := c.registerPath(name)
		if _, err := conn.Sync(p); err != nil {
			return found{}, err
		}
		data, stat, err := conn.Get(p)
		return found{data, stat}, err
	})
	if err != nil {
		return nil, 0, err
	}
	if len(f.data) == 0 {
		return nil, 0, hub.E(hub.NotFound, "there is no register %s", name)
	}
	c.know(name, f.stat)
	return f.data[1:], uint64(f.stat.Mzxid), nil
}

func (c *Coordinator) know(name string, s *zk.Stat) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnown {
		clear(c.known)
	}
	c.known[name] = zkVersion{uint64(s.Mzxid), s.Version}
}

func (c *Coordinator) knows(name string, mzxid uint64) (int32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.known[name]
	return k.version, ok && mzxid != 0 && k.mzxid == mzxid
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

// Delete: see coord.Registers.
func (c *Coordinator) Delete(ctx context.Context, name string, version uint64) error {
	if version == 0 {
		return hub.E(hub.Conflict, "register %s cannot be deleted without its version", name)
	}
	_, err := c.Update(ctx, []coord.Change{{Name: name, Version: version}})
	return err
}

// Update: see coord.Registers.
func (c *Coordinator) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	if err := check(changes); err != nil || len(changes) == 0 {
		return nil, err
	}
	for {
		versions, again, err := c.update(ctx, changes)
		if err != nil || !again {
			return versions, err
		}
	}
}

func check(changes []coord.Change) error {
	seen := make(map[string]bool, len(changes))
	for _, ch := range changes {
		if err := coord.CheckName(ch.Name); err != nil {
			return err
		}
		if len(ch.Value) > coord.MaxValue {
			return hub.E(hub.TooLarge, "the value of %s has %d bytes: at most %d are allowed", ch.Name, len(ch.Value), coord.MaxValue)
		}
		if seen[ch.Name] {
			return hub.E(hub.Invalid, "register %s occurs twice in one update", ch.Name)
		}
		seen[ch.Name] = true
	}
	return nil
}

// update tries once. again: a change that does not care about versions lost a race.
func (c *Coordinator) update(ctx context.Context, changes []coord.Change) (versions []uint64, again bool, err error) {
	ops, index, err := c.operations(ctx, changes)
	if err != nil || len(ops) == 0 {
		return make([]uint64, len(changes)), false, err
	}
	ops, err = c.ring(ctx, ops, changes)
	if err != nil {
		return nil, false, err
	}
	results, err := call(ctx, c, "write register", changes[0].Name, func(conn driver) ([]zk.MultiResponse, error) {
		results, err := conn.Multi(ops...)
		if errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNoNode) {
			return results, nil // results say which one
		}
		return results, err
	})
	if err != nil {
		return nil, false, err
	}
	for i, r := range results {
		if r.Error == nil {
			continue
		}
		if !errors.Is(r.Error, zk.ErrBadVersion) {
			continue // the others of a failed update say that they were not tried
		}
		ch := changes[index[i]]
		if ch.Any {
			return nil, true, nil
		}
		return nil, false, hub.E(hub.Conflict, "register %s has not version %d any more", ch.Name, ch.Version)
	}
	versions = make([]uint64, len(changes))
	for i, at := range index {
		s := results[i].Stat
		if s == nil {
			return nil, false, hub.E(hub.Unavailable, "write register %s: ZooKeeper did not do it", changes[at].Name)
		}
		c.know(changes[at].Name, s)
		if changes[at].Value != nil {
			versions[at] = uint64(s.Mzxid)
		}
	}
	return versions, false, nil
}

// operations makes one set of each change; index tells the change of an operation. Registers that do not exist and shall not, are left out.
func (c *Coordinator) operations(ctx context.Context, changes []coord.Change) (ops []any, index []int, err error) {
	for i, ch := range changes {
		p := c.registerPath(ch.Name)
		version, ok := c.knows(ch.Name, ch.Version)
		if !ok || ch.Any {
			var there bool
			if version, there, err = c.look(ctx, ch, p); err != nil {
				return nil, nil, err
			}
			if !there && ch.Value == nil && (ch.Any || ch.Version == 0) {
				continue
			}
		}
		var data []byte
		if ch.Value != nil {
			data = append([]byte{present}, ch.Value...)
		}
		ops, index = append(ops, &zk.SetDataRequest{Path: p, Data: data, Version: version}), append(index, i)
	}
	return ops, index, nil
}

// look finds the node's version if the change's holds, and makes the node if it is to get a value.
func (c *Coordinator) look(ctx context.Context, ch coord.Change, p string) (version int32, there bool, err error) {
	s, err := call(ctx, c, "look at register", ch.Name, func(conn driver) (*zk.Stat, error) {
		if _, err := conn.Sync(p); err != nil {
			return nil, err
		}
		ok, s, err := conn.Exists(p)
		if err != nil || ok {
			return s, err
		}
		if ch.Value == nil || !ch.Any && ch.Version != 0 {
			return nil, nil
		}
		if err := ensure(conn, p); err != nil {
			return nil, err
		}
		_, s, err = conn.Exists(p)
		return s, err
	})
	if err != nil {
		return 0, false, err
	}
	now := uint64(0)
	if s != nil && s.DataLength > 0 {
		now = uint64(s.Mzxid)
	}
	if !ch.Any && now != ch.Version {
		return 0, false, hub.E(hub.Conflict, "register %s has version %d, not %d", ch.Name, now, ch.Version)
	}
	if s == nil {
		return 0, false, nil
	}
	return s.Version, now != 0, nil
}

// ring adds the bells.
func (c *Coordinator) ring(ctx context.Context, ops []any, changes []coord.Change) ([]any, error) {
	bells := map[string][]string{}
	for _, ch := range changes {
		b := c.bellPath(ch.Name)
		bells[b] = append(bells[b], ch.Name)
	}
	for bell, names := range bells {
		data, err := json.Marshal(names)
		if err != nil || len(data) > maxBell {
			data = nil // everything
		}
		if err := c.hang(ctx, bell); err != nil {
			return nil, err
		}
		ops = append(ops, &zk.SetDataRequest{Path: bell, Data: data, Version: -1})
	}
	return ops, nil
}

// hang makes a bell, once in a session.
func (c *Coordinator) hang(ctx context.Context, bell string) error {
	if _, ok := c.knows(bell, 1); ok {
		return nil
	}
	_, err := call(ctx, c, "make", bell, func(conn driver) (struct{}, error) { return struct{}{}, ensure(conn, bell) })
	if err == nil {
		c.know(bell, &zk.Stat{Mzxid: 1})
	}
	return err
}

// Names: see coord.Registers.
func (c *Coordinator) Names(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" {
		if err := coord.CheckName(prefix); err != nil {
			return nil, err
		}
	}
	if _, err := call(ctx, c, "list", prefix, func(conn driver) (string, error) { return conn.Sync(c.root) }); err != nil {
		return nil, err
	}
	l := lister{c: c}
	l.group, ctx = errgroup.WithContext(ctx)
	l.group.SetLimit(namesLook)
	for _, f := range c.registerFolders(prefix) {
		l.group.Go(func() error {
			if f.self {
				return l.look(ctx, f)
			}
			return l.walk(ctx, f)
		})
	}
	err := l.group.Wait()
	slices.Sort(l.names)
	return l.names, err
}

// lister collects the names of registers.
type lister struct {
	c     *Coordinator
	group *errgroup.Group
	mu    sync.Mutex // guards names
	names []string
}

// walk looks at everything in a folder.
func (l *lister) walk(ctx context.Context, f folder) error {
	children, err := call(ctx, l.c, "list", f.path, func(conn driver) ([]string, error) {
		children, _, err := conn.Children(f.path)
		return children, err
	})
	if hub.Is(err, hub.NotFound) {
		return nil
	}
	for _, child := range children {
		if err := l.look(ctx, folder{path: f.path + "/" + child, name: strings.TrimPrefix(f.name+"/"+child, "/")}); err != nil {
			return err
		}
	}
	return err
}

// look takes the name of a register that has a value, and goes on below it.
func (l *lister) look(ctx context.Context, f folder) error {
	s, err := call(ctx, l.c, "look at", f.path, func(conn driver) (*zk.Stat, error) {
		_, s, err := conn.Exists(f.path)
		return s, err
	})
	if err != nil || s == nil {
		return err
	}
	if s.DataLength > 0 {
		l.mu.Lock()
		l.names = append(l.names, f.name)
		l.mu.Unlock()
	}
	if s.NumChildren == 0 || l.group.TryGo(func() error { return l.walk(ctx, f) }) {
		return nil
	}
	return l.walk(ctx, f)
}
