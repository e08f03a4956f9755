package zk

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"timehub/hub/coord"
)

// Names give what lies under some names a place of its own below Root, for people who look for it where they are used to find it. Keys are names, or what
// names begin with (whole segments), as package coord has them; values are paths below Root. What is not named lies in the folders of the package comment.
type Names struct {
	Registers, Leases, Groups map[string]string
}

// The folders of what has no place of its own.
const (
	registersFolder = "registers"
	leasesFolder    = "leases"
	membersFolder   = "members"
	bellsFolder     = "bells"
)

// check makes sure that no two things can have one place.
func (n Names) check() error {
	places := []string{registersFolder, leasesFolder, membersFolder, bellsFolder}
	for _, m := range []map[string]string{n.Registers, n.Leases, n.Groups} {
		for name, place := range m {
			if err := errors.Join(coord.CheckName(name), coord.CheckName(place)); err != nil {
				return fmt.Errorf("the place of %s in ZooKeeper: %w", name, err)
			}
			if slices.ContainsFunc(places, func(p string) bool { return within(p, place) || within(place, p) }) {
				return fmt.Errorf("the place of %s in ZooKeeper is %s: something else lies there", name, place)
			}
			places = append(places, place)
		}
	}
	return nil
}

// within reports whether name is prefix or lies below it.
func within(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// place finds the longest entry that a name is, or lies below, and what is left of the name.
func place(m map[string]string, name string) (at, rest string, ok bool) {
	best := ""
	for prefix, p := range m {
		if within(name, prefix) && (!ok || len(prefix) > len(best)) {
			best, at, ok = prefix, p, true
		}
	}
	return at, strings.TrimPrefix(name[len(best):], "/"), ok
}

// flat writes a name as one segment.
func flat(name string) string { return strings.ReplaceAll(name, "/", "~") }

func (c *Coordinator) registerPath(name string) string {
	if at, rest, ok := place(c.opt.Names.Registers, name); ok {
		return path.Join(c.root, at, rest)
	}
	return path.Join(c.root, registersFolder, name)
}

// folder is where registers lie.
type folder struct {
	path string // in ZooKeeper
	name string // what a name in it begins with
	self bool   // a register of that name would lie below the prefix too
}

// registerFolders are all folders in which registers below a prefix can lie.
func (c *Coordinator) registerFolders(prefix string) []folder {
	all := []folder{{path: path.Join(c.root, registersFolder)}}
	if prefix != "" {
		all[0] = folder{path: c.registerPath(prefix), name: prefix}
	}
	for name, at := range c.opt.Names.Registers {
		if name != prefix && (prefix == "" || within(name, prefix)) {
			all = append(all, folder{path.Join(c.root, at), name, true})
		}
	}
	return all
}

// bellPath is the node that rings for all registers below a name's first segment.
func (c *Coordinator) bellPath(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return path.Join(c.root, bellsFolder, first)
}

func (c *Coordinator) leasePath(name string) string {
	if at, rest, ok := place(c.opt.Names.Leases, name); ok {
		return path.Join(c.root, at, flat(rest))
	}
	return path.Join(c.root, leasesFolder, flat(name))
}

func (c *Coordinator) groupPath(name string) string {
	if at, ok := c.opt.Names.Groups[name]; ok {
		return path.Join(c.root, at)
	}
	return path.Join(c.root, membersFolder, flat(name))
}
