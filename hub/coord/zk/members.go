package zk

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"

	"timehub/hub"
	"timehub/hub/coord"
)

// Join: see coord.Members.
func (c *Coordinator) Join(ctx context.Context, group, name string, value []byte) error {
	if err := checkMember(group, name, value); err != nil {
		return err
	}
	p := c.groupPath(group) + "/" + flat(name)
	_, err := call(ctx, c, "join", group, func(conn driver) (struct{}, error) {
		var none struct{}
		_, err := conn.Create(p, value, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
		if errors.Is(err, zk.ErrNoNode) {
			if err = ensure(conn, c.groupPath(group)); err == nil {
				_, err = conn.Create(p, value, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
			}
		}
		if !errors.Is(err, zk.ErrNodeExists) {
			return none, err
		}
		ok, stat, err := conn.Exists(p)
		if err != nil || !ok {
			return none, errors.Join(err, hub.E(hub.Unavailable, "%s is just leaving %s: try again", name, group))
		}
		if stat.EphemeralOwner != conn.SessionID() {
			return none, hub.E(hub.Conflict, "%s is a member of %s already, by another session", name, group)
		}
		_, err = conn.Multi(&zk.SetDataRequest{Path: p, Data: value, Version: stat.Version}, &zk.SetDataRequest{Path: c.groupPath(group), Version: -1})
		return none, err
	})
	return err
}

// Replace: see coord.Members.
func (c *Coordinator) Replace(ctx context.Context, group, name string, old, value []byte) error {
	if err := checkMember(group, name, value); err != nil {
		return err
	}
	p := c.groupPath(group) + "/" + flat(name)
	_, err := call(ctx, c, "replace", group, func(conn driver) (struct{}, error) {
		var none struct{}
		there, stat, err := conn.Get(p)
		if errors.Is(err, zk.ErrNoNode) || err == nil && !bytes.Equal(there, old) {
			return none, hub.E(hub.Conflict, "%s is not a member of %s with that value any more", name, group)
		}
		if err == nil {
			_, err = conn.Multi(&zk.DeleteRequest{Path: p, Version: stat.Version},
				&zk.CreateRequest{Path: p, Data: value, Acl: zk.WorldACL(zk.PermAll), Flags: zk.FlagEphemeral})
		}
		if errors.Is(err, zk.ErrNoNode) {
			err = zk.ErrBadVersion
		}
		return none, err
	})
	return err
}

func checkMember(group, name string, value []byte) error {
	if err := errors.Join(coord.CheckName(group), coord.CheckName(name)); err != nil {
		return err
	}
	if len(value) > coord.MaxValue {
		return hub.E(hub.TooLarge, "the value of %s has %d bytes: at most %d are allowed", name, len(value), coord.MaxValue)
	}
	return nil
}

// Leave: see coord.Members. Leaving a group that this node is not in is no error.
func (c *Coordinator) Leave(ctx context.Context, group, name string) error {
	if err := checkMember(group, name, nil); err != nil {
		return err
	}
	p := c.groupPath(group) + "/" + flat(name)
	_, err := call(ctx, c, "leave", group, func(conn driver) (struct{}, error) {
		ok, stat, err := conn.Exists(p)
		if err != nil || !ok || stat.EphemeralOwner != conn.SessionID() {
			return struct{}{}, err
		}
		if err = conn.Delete(p, -1); errors.Is(err, zk.ErrNoNode) {
			err = nil
		}
		return struct{}{}, err
	})
	return err
}

// group is what a folder of members held, and the last changes of who is in it and of the folder, which is touched when a value changes.
type group struct {
	members []coord.Member
	epoch   uint64
	who     int64
	what    int64
}

// List: see coord.Members. A group that has not changed since it was listed last is not read again: its folder says so.
func (c *Coordinator) List(ctx context.Context, name string) ([]coord.Member, uint64, error) {
	if err := coord.CheckName(name); err != nil {
		return nil, 0, err
	}
	p := c.groupPath(name)
	c.mu.Lock()
	in, last := c.session, c.groups[p]
	c.mu.Unlock()
	g, err := call(ctx, c, "list members of", name, func(conn driver) (group, error) {
		if _, err := conn.Sync(p); err != nil {
			return group{}, err
		}
		ok, stat, err := conn.Exists(p)
		if err != nil || !ok {
			return group{}, err
		}
		if last.who == stat.Pzxid && last.what == stat.Mzxid {
			return last, nil
		}
		for {
			g, whole, err := list(conn, p)
			if errors.Is(err, zk.ErrNoNode) {
				return group{}, nil
			}
			if err != nil || whole {
				return g, err
			}
		}
	})
	if err != nil {
		return nil, 0, err
	}
	c.mu.Lock()
	same := c.session == in
	if same {
		c.groups[p] = g
	}
	c.mu.Unlock()
	if !same { // the ensemble may have been set up anew: numbers from before mean nothing
		return c.List(ctx, name)
	}
	return slices.Clone(g.members), g.epoch, nil
}

// list reads a group; whole: nobody came or went meanwhile. The epoch is the last change of who is in it, or of a value.
func list(conn driver, p string) (g group, whole bool, err error) {
	names, before, err := conn.Children(p)
	if err != nil {
		return group{}, false, err
	}
	g = group{who: before.Pzxid, what: before.Mzxid}
	latest := max(before.Pzxid, before.Mzxid)
	for _, name := range names {
		value, stat, err := conn.Get(p + "/" + name)
		if errors.Is(err, zk.ErrNoNode) {
			return group{}, false, nil
		}
		if err != nil {
			return group{}, false, err
		}
		latest = max(latest, stat.Mzxid)
		g.members = append(g.members, coord.Member{Name: strings.ReplaceAll(name, "~", "/"), Value: value})
	}
	_, after, err := conn.Exists(p)
	if err != nil {
		return group{}, false, err
	}
	slices.SortFunc(g.members, func(a, b coord.Member) int { return strings.Compare(a.Name, b.Name) })
	g.epoch = uint64(latest)
	return g, after != nil && after.Pzxid == before.Pzxid && after.Mzxid == before.Mzxid, nil
}
