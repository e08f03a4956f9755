package memdisk

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"timehub/hub/disk"
)

// Create implements disk.Disk. It needs no space.
func (d *Disk) Create(name string) (disk.File, error) {
	if err := disk.CheckName("create", name, false); err != nil {
		return nil, err
	}
	var h *handle
	err := d.do(Call{Op: OpCreate, Name: name}, func(Effect) error {
		dir, base, err := d.parent("create", name)
		if err != nil {
			return err
		}
		if dir.names[base] != nil {
			return &fs.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
		}
		n := d.newNode(false)
		d.apply(OpCreate, name, slot{dir, base, n})
		h = d.handle(n, name, true)
		return nil
	})
	if err != nil {
		return nil, d.abandon(h, err)
	}
	return h, nil
}

// Open implements disk.Disk.
func (d *Disk) Open(name string, write bool) (disk.File, error) {
	if err := disk.CheckName("open", name, false); err != nil {
		return nil, err
	}
	var h *handle
	err := d.do(Call{Op: OpOpen, Name: name}, func(Effect) error {
		n, err := d.lookup("open", name)
		if err == nil && n.dir() {
			err = &fs.PathError{Op: "open", Path: name, Err: errIsFolder}
		}
		if err == nil {
			h = d.handle(n, name, write)
		}
		return err
	})
	if err != nil {
		return nil, d.abandon(h, err)
	}
	return h, nil
}

func (d *Disk) handle(n *node, name string, write bool) *handle {
	n.handles++
	return &handle{d: d, n: n, name: name, write: write}
}

// abandon closes the handle of a call that has had its effect and fails.
func (d *Disk) abandon(h *handle, err error) error {
	if h != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		h.close()
	}
	return err
}

// Rename implements disk.Disk.
func (d *Disk) Rename(old, new string) error {
	if err := errors.Join(disk.CheckName("rename", old, false), disk.CheckName("rename", new, false)); err != nil {
		return err
	}
	return d.do(Call{Op: OpRename, Name: new}, func(Effect) error {
		failed := func(err error) error { return &os.LinkError{Op: "rename", Old: old, New: new, Err: err} }
		n, err := d.lookup("rename", old)
		if err != nil {
			return failed(errors.Unwrap(err))
		}
		from, oldBase, err := d.parent("rename", old)
		if err != nil {
			return failed(errors.Unwrap(err))
		}
		to, newBase, err := d.parent("rename", new)
		if err != nil {
			return failed(errors.Unwrap(err))
		}
		there := to.names[newBase]
		switch {
		case there == n:
			return nil // two names of one file: both stay, as POSIX has it
		case n.dir() && strings.HasPrefix(new, old+"/"):
			return failed(syscall.EINVAL)
		case there != nil && n.dir() && !there.dir():
			return failed(errNoFolder)
		case there != nil && !n.dir() && there.dir():
			return failed(errIsFolder)
		case there != nil && there.dir() && len(there.names) > 0:
			return failed(errNotEmpty)
		}
		if there != nil && there.dir() {
			d.blocks--
		}
		n.links++ // so that giving up the old name frees nothing
		d.apply(OpRename, new, slot{from, oldBase, nil}, slot{to, newBase, n})
		n.links--
		return nil
	})
}

// Link implements disk.Disk.
func (d *Disk) Link(old, new string) error {
	if err := errors.Join(disk.CheckName("link", old, false), disk.CheckName("link", new, false)); err != nil {
		return err
	}
	return d.do(Call{Op: OpLink, Name: new}, func(Effect) error {
		failed := func(err error) error { return &os.LinkError{Op: "link", Old: old, New: new, Err: err} }
		n, err := d.lookup("link", old)
		if err != nil {
			return failed(errors.Unwrap(err))
		}
		to, base, err := d.parent("link", new)
		if err != nil {
			return failed(errors.Unwrap(err))
		}
		if to.names[base] != nil {
			return failed(syscall.EEXIST)
		}
		if n.dir() {
			return failed(syscall.EPERM)
		}
		d.apply(OpLink, new, slot{to, base, n})
		return nil
	})
}

// Remove implements disk.Disk. A file that is open can still be read and written, and takes its space, until it is closed.
func (d *Disk) Remove(name string) error {
	if err := disk.CheckName("remove", name, false); err != nil {
		return err
	}
	return d.do(Call{Op: OpRemove, Name: name}, func(Effect) error { return d.remove(name) })
}

func (d *Disk) remove(name string) error {
	n, err := d.lookup("remove", name)
	if err != nil {
		return err
	}
	if len(n.names) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: errNotEmpty}
	}
	dir, base, err := d.parent("remove", name)
	if err != nil {
		return err
	}
	d.apply(OpRemove, name, slot{dir, base, nil})
	return nil
}

// RemoveAll implements disk.Disk. It is one call of OpRemove for each name.
func (d *Disk) RemoveAll(name string) error {
	if err := disk.CheckName("remove", name, false); err != nil {
		return err
	}
	for {
		next, err := d.deepest(name)
		if err != nil {
			return err
		}
		err = d.do(Call{Op: OpRemove, Name: next}, func(Effect) error { return d.remove(next) })
		switch {
		case errors.Is(err, ErrKilled):
			return err
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotEmpty): // somebody else is at work here
		case err != nil:
			return err
		}
		if next == name && !errors.Is(err, errNotEmpty) {
			return nil
		}
	}
}

// deepest is the first name at or below name that can be removed.
func (d *Disk) deepest(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.lookup("remove", name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for err == nil && len(n.names) > 0 {
		first := n.sorted()[0]
		n, name = n.names[first], name+"/"+first
	}
	return name, nil
}

// MkdirAll implements disk.Disk. It is one call of OpMkdir for each folder that it makes, and one of OpSyncDir for each name that is not durable.
func (d *Disk) MkdirAll(name string) error {
	if err := disk.CheckName("mkdir", name, true); err != nil || name == "." {
		return err
	}
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' {
			continue
		}
		p := name[:i]
		there, durable, err := d.folder(p)
		if err != nil {
			return err
		}
		if !there {
			if err := d.do(Call{Op: OpMkdir, Name: p}, func(Effect) error { return d.mkdir(p) }); err != nil {
				return err
			}
		}
		if !durable {
			if err := d.SyncDir(path.Dir(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Disk) folder(name string) (there, durable bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.killed {
		return false, false, &fs.PathError{Op: "mkdir", Path: name, Err: ErrKilled}
	}
	dir, base, err := d.parent("mkdir", name)
	if err != nil {
		return false, false, err
	}
	n := dir.names[base]
	if n != nil && !n.dir() {
		return false, false, &fs.PathError{Op: "mkdir", Path: name, Err: errNoFolder}
	}
	return n != nil, n != nil && dir.medium[base] == n, nil
}

func (d *Disk) mkdir(name string) error {
	dir, base, err := d.parent("mkdir", name)
	if err != nil {
		return err
	}
	if n := dir.names[base]; n != nil {
		if n.dir() {
			return nil // made meanwhile
		}
		return &fs.PathError{Op: "mkdir", Path: name, Err: errNoFolder}
	}
	if (d.blocks+1)*pageSize > d.options.Capacity {
		return &fs.PathError{Op: "mkdir", Path: name, Err: disk.ErrFull}
	}
	d.apply(OpMkdir, name, slot{dir, base, d.newNode(true)})
	return nil
}

// SyncDir implements disk.Disk.
func (d *Disk) SyncDir(name string) error {
	if err := disk.CheckName("sync", name, true); err != nil {
		return err
	}
	return d.do(Call{Op: OpSyncDir, Name: name}, func(e Effect) error {
		n, err := d.lookup("sync", name)
		if err != nil {
			return err
		}
		if !n.dir() {
			return &fs.PathError{Op: "sync", Path: name, Err: errNoFolder}
		}
		d.commit(n, e)
		return nil
	})
}

// List implements disk.Disk.
func (d *Disk) List(name string) ([]disk.Info, error) {
	if err := disk.CheckName("list", name, true); err != nil {
		return nil, err
	}
	var all []disk.Info
	err := d.do(Call{Op: OpList, Name: name}, func(Effect) error {
		n, err := d.lookup("list", name)
		if err != nil {
			return err
		}
		if !n.dir() {
			return &fs.PathError{Op: "list", Path: name, Err: errNoFolder}
		}
		for _, entry := range n.sorted() {
			all = append(all, d.info(entry, n.names[entry]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Stat implements disk.Disk.
func (d *Disk) Stat(name string) (i disk.Info, err error) {
	if err := disk.CheckName("stat", name, true); err != nil {
		return disk.Info{}, err
	}
	err = d.do(Call{Op: OpStat, Name: name}, func(Effect) error {
		n, err := d.lookup("stat", name)
		if err == nil {
			i = d.info(name, n)
		}
		return err
	})
	if err != nil {
		return disk.Info{}, err
	}
	return i, nil
}

// Lock implements disk.Disk. The lock goes with the generation; the note in the file stays.
func (d *Disk) Lock(name, note string) (func() error, error) {
	if err := disk.CheckName("lock", name, false); err != nil {
		return nil, err
	}
	var n *node
	err := d.do(Call{Op: OpLock, Name: name}, func(Effect) error {
		dir, base, err := d.parent("lock", name)
		if err != nil {
			return err
		}
		there := dir.names[base]
		if there == nil {
			there = d.newNode(false)
			d.apply(OpCreate, name, slot{dir, base, there})
		}
		if there.dir() {
			return &fs.PathError{Op: "lock", Path: name, Err: errIsFolder}
		}
		if holder, held := d.locks[there]; held {
			return &fs.PathError{Op: "lock", Path: name, Err: heldBy(holder)}
		}
		n = there
		n.handles++
		d.locks[n] = note
		d.rewrite(n, note)
		return nil
	})
	if err != nil {
		if n != nil { // the lock was taken and the call fails: nobody could give it back
			d.mu.Lock()
			defer d.mu.Unlock()
			d.unlock(n)
		}
		return nil, err
	}
	given := false // back; guarded by d.mu
	return func() error {
		return d.do(Call{Op: OpUnlock, Name: name}, func(Effect) error {
			if !given {
				given = true
				d.rewrite(n, "")
				d.unlock(n)
			}
			return nil
		})
	}, nil
}

func (d *Disk) unlock(n *node) {
	delete(d.locks, n)
	n.handles--
	d.release(n)
}

// rewrite replaces the content of a lock file, as far as there is space: a full disk keeps nobody from the lock.
func (d *Disk) rewrite(n *node, note string) {
	d.blocks -= n.content.truncate(0)
	n.content.writeAt([]byte(note), 0, d.take)
	d.touch(n)
}

type heldBy string

func (h heldBy) Error() string {
	if h == "" {
		return disk.ErrLocked.Error()
	}
	return disk.ErrLocked.Error() + " by " + string(h)
}

func (h heldBy) Unwrap() error { return disk.ErrLocked }

// Free implements disk.Disk.
func (d *Disk) Free() (free int64, err error) {
	err = d.do(Call{Op: OpFree, Name: "."}, func(Effect) error {
		free = max(0, d.options.Capacity/pageSize-d.blocks) * pageSize
		return nil
	})
	return free, err
}

// Path implements disk.Disk: names in memory lie nowhere.
func (d *Disk) Path(string) string { return "" }
