package memdisk

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"timehub/hub/disk"
)

const (
	errIsFolder  = syscall.EISDIR
	errNoFolder  = syscall.ENOTDIR
	errNotEmpty  = syscall.ENOTEMPTY
	nameMax      = 255
	errNameTooBg = syscall.ENAMETOOLONG
)

// node is a file or a folder, whatever its names.
type node struct {
	id      uint64
	version uint64 // moves with every change of the file or of its names, as a ctime does
	modTime time.Time
	links   int // names that readers see, of a file
	handles int
	content *content // of a file

	names  map[string]*node // of a folder: as its readers see it
	medium map[string]*node // and as it is on the medium
}

func (n *node) dir() bool { return n.names != nil }

// change is one change of names that a power cut finds either done or not done. A rename is one, also across folders.
type change struct {
	op    Op
	name  string
	slots []slot
}

// slot is a name in a folder and what it stands for after the change; nil for nothing.
type slot struct {
	dir  *node
	name string
	to   *node
}

func (d *Disk) newNode(dir bool) *node {
	d.nextID++
	n := &node{id: d.nextID}
	d.touch(n)
	if dir {
		n.names, n.medium = map[string]*node{}, map[string]*node{}
		d.blocks++
	} else {
		n.content = newContent()
	}
	return n
}

func (d *Disk) touch(n *node) {
	d.tick++
	n.version, n.modTime = d.tick, d.options.Now()
}

// lookup finds what a name stands for.
func (d *Disk) lookup(op, name string) (*node, error) {
	n := d.root
	if name == "." {
		return n, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		if !n.dir() {
			return nil, &fs.PathError{Op: op, Path: name, Err: belowFile{}}
		}
		if len(element) > nameMax {
			return nil, &fs.PathError{Op: op, Path: name, Err: errNameTooBg}
		}
		if n = n.names[element]; n == nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		}
	}
	return n, nil
}

// parent finds the folder in which a name lies or would lie.
func (d *Disk) parent(op, name string) (dir *node, base string, err error) {
	folder, base := path.Split(name)
	if len(base) > nameMax {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: errNameTooBg}
	}
	dir = d.root
	if folder != "" {
		dir, err = d.lookup(op, strings.TrimSuffix(folder, "/"))
		if err != nil && !errors.Is(err, errNoFolder) {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: errors.Unwrap(err)}
		}
	}
	if err != nil || !dir.dir() {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: errNoFolder}
	}
	return dir, base, nil
}

// belowFile is what the system says of a/b if a is a file. To us, a/b does not exist.
type belowFile struct{}

func (belowFile) Error() string   { return errNoFolder.Error() }
func (belowFile) Unwrap() []error { return []error{errNoFolder, fs.ErrNotExist} }

// apply makes a change for the readers, and notes it as pending.
func (d *Disk) apply(op Op, name string, slots ...slot) {
	for _, s := range slots {
		if was := s.dir.names[s.name]; was != nil && !was.dir() {
			was.links--
			d.release(was)
		} else if was != nil && s.to == nil && op == OpRemove {
			d.blocks--
		}
		if s.to == nil {
			delete(s.dir.names, s.name)
		} else {
			s.dir.names[s.name] = s.to
			s.to.links++
			d.touch(s.to)
		}
		d.touch(s.dir)
	}
	d.pending = append(d.pending, &change{op: op, name: name, slots: slots})
}

// release gives the space of a file back that has neither name nor handle.
func (d *Disk) release(n *node) {
	if n.links == 0 && n.handles == 0 && !n.dir() {
		d.blocks -= n.content.blocks()
	}
}

// commit puts the changes whose name is in the folder on the medium, and those before them on which they build. Of a rename, that is the new name. With
// an effect other than All, SyncDir fails: some changes go, and the others never will.
func (d *Disk) commit(dir *node, e Effect) {
	type place struct {
		dir  *node
		name string
	}
	needed := map[place]bool{}
	taken := map[*change]bool{}
	for _, p := range slices.Backward(d.pending) {
		take := p.slots[len(p.slots)-1].dir == dir
		for _, s := range p.slots {
			take = take || needed[place{s.dir, s.name}]
		}
		if !take {
			continue
		}
		taken[p] = true
		for _, s := range p.slots {
			needed[place{s.dir, s.name}] = true
		}
	}
	keep := d.pending[:0]
	lost := e == None
	for _, p := range d.pending {
		if !taken[p] {
			keep = append(keep, p)
			continue
		}
		if e == Part && !lost { // a journal, cut somewhere
			lost = d.rng.IntN(2) == 0
		}
		if lost {
			continue
		}
		for _, s := range p.slots {
			if s.to == nil {
				delete(s.dir.medium, s.name)
			} else {
				s.dir.medium[s.name] = s.to
			}
		}
	}
	clear(d.pending[len(keep):])
	d.pending = keep
}

func (d *Disk) info(name string, n *node) disk.Info {
	i := disk.Info{Name: path.Base(name), ModTime: n.modTime, ID: n.id<<32 | n.version&(1<<32-1)}
	if n.dir() {
		i.Dir = true
	} else {
		i.Size = n.content.size
	}
	return i
}

// count is the number of blocks below and including n.
func (n *node) count(seen map[*node]bool) int64 {
	if seen[n] {
		return 0
	}
	seen[n] = true
	if !n.dir() {
		return n.content.blocks()
	}
	blocks := int64(1)
	for _, c := range n.names {
		blocks += c.count(seen)
	}
	return blocks
}

func (n *node) sorted() []string {
	names := make([]string, 0, len(n.names))
	for name := range n.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// take takes a block, if there is one.
func (d *Disk) take() bool {
	if (d.blocks+1)*pageSize > d.options.Capacity {
		return false
	}
	d.blocks++
	return true
}
