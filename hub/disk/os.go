package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"timehub/hub"
)

const (
	// Items and the secrets of webhooks lie there: they are not for everybody on the machine. The group may read, for backups.
	dirMode  = 0o750
	fileMode = 0o640
	// syncedLimit bounds the memory of MkdirAll: the folders that are known to be durable.
	syncedLimit = 4096
)

// Dir is a Disk over a folder of the operating system. Nothing outside the folder can be reached, not through symbolic links either (os.Root).
// Errors name the whole path.
//
// It goes one step further than the contract in MkdirAll: the first time that a Dir is asked for a folder it syncs the parents even if the folder is
// there already, since a process that was killed may have made it and not synced it.
type Dir struct {
	root *os.Root
	base string // absolute, for messages

	mu     sync.Mutex // guards synced; never held during a call to the system
	synced map[string]struct{}
}

// OpenDir opens the folder at path, which it makes, durably and with its parents, if it does not exist. A path that can not be a data folder (empty, a
// file, not writable, on a read-only file system) gives an error of kind hub.Invalid, anything else that fails hub.Unavailable or hub.Full; all name the path.
func OpenDir(path string) (*Dir, error) {
	if path == "" {
		return nil, hub.E(hub.Invalid, "the data folder has no path: name one")
	}
	base, err := filepath.Abs(path)
	if err != nil {
		return nil, unusable(path, err)
	}
	if err := mkdirDurably(base); err != nil {
		return nil, unusable(base, err)
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, unusable(base, err)
	}
	d := &Dir{root: root, base: base, synced: map[string]struct{}{}}
	if err := d.writable(); err != nil {
		root.Close()
		return nil, unusable(base, err)
	}
	return d, nil
}

// writable asks for the permissions of the effective user; it also finds a file system that is mounted read-only.
func (d *Dir) writable() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return control(f, func(fd int) error {
		return unix.Faccessat(fd, ".", unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	})
}

func unusable(path string, err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return hub.E(hub.Invalid, "the data folder %s is on a read-only file system: mount it for writing or name another folder", path).Because(err)
	case errors.Is(err, fs.ErrPermission):
		return hub.E(hub.Invalid, "the data folder %s can not be read and written by this user: give the user the folder or name another one", path).Because(err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
		return hub.E(hub.Invalid, "the data folder %s can not be one: a part of the path is a file", path).Because(err)
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EINVAL):
		return hub.E(hub.Invalid, "the data folder %s can not be one: the system does not take the path", path).Because(err)
	case noSpace(err):
		return hub.E(hub.Full, "the data folder %s can not be made: no space left on the disk", path).Because(full{err})
	}
	return hub.E(hub.Unavailable, "the data folder %s can not be used", path).Because(err)
}

// mkdirDurably makes a folder outside any root and syncs each parent in which it made something.
func mkdirDurably(name string) error {
	if fi, err := os.Stat(name); err == nil {
		if !fi.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: name, Err: unix.ENOTDIR}
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(name)
	if err := mkdirDurably(parent); err != nil {
		return err
	}
	if err := os.Mkdir(name, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Close lets the folder go. Files that are open stay open.
func (d *Dir) Close() error { return d.root.Close() }

// Create makes a new file; see Disk.
func (d *Dir) Create(name string) (File, error) {
	if err := CheckName("create", name, false); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, d.failed("create", name, err)
	}
	return &osFile{f: f, path: d.Path(name)}, nil
}

// Open opens an existing regular file; see Disk.
func (d *Dir) Open(name string, write bool) (File, error) {
	if err := CheckName("open", name, false); err != nil {
		return nil, err
	}
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	f, err := d.root.OpenFile(name, flag, 0)
	if err != nil {
		return nil, d.missing("open", name, err)
	}
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = unix.EISDIR
	}
	if err != nil {
		f.Close()
		return nil, d.failed("open", name, err)
	}
	return &osFile{f: f, path: d.Path(name)}, nil
}

// Rename moves a file; see Disk.
func (d *Dir) Rename(old, new string) error {
	if err := errors.Join(CheckName("rename", old, false), CheckName("rename", new, false)); err != nil {
		return err
	}
	if err := d.root.Rename(old, new); err != nil {
		return d.failed2("rename", old, new, d.below(old, err))
	}
	d.forget(old)
	d.forget(new)
	return nil
}

// Link gives a file a second name; see Disk.
func (d *Dir) Link(old, new string) error {
	if err := errors.Join(CheckName("link", old, false), CheckName("link", new, false)); err != nil {
		return err
	}
	if err := d.root.Link(old, new); err != nil {
		return d.failed2("link", old, new, d.below(old, err))
	}
	return nil
}

// Remove removes a file or an empty folder; see Disk.
func (d *Dir) Remove(name string) error {
	if err := CheckName("remove", name, false); err != nil {
		return err
	}
	d.forget(name)
	if err := d.root.Remove(name); err != nil {
		return d.missing("remove", name, err)
	}
	return nil
}

// RemoveAll removes a tree; see Disk.
func (d *Dir) RemoveAll(name string) error {
	if err := CheckName("remove", name, false); err != nil {
		return err
	}
	d.forget(name)
	if err := d.root.RemoveAll(name); err != nil && !errors.Is(err, unix.ENOTDIR) { // a/b is not there if a is a file
		return d.failed("remove", name, err)
	}
	return nil
}

// MkdirAll makes a folder and its parents, durably; see Disk.
func (d *Dir) MkdirAll(name string) error {
	if err := CheckName("mkdir", name, true); err != nil || name == "." {
		return err
	}
	if fi, err := d.root.Stat(name); err == nil && fi.IsDir() && d.durable(name) {
		return nil
	}
	for _, p := range parents(name) {
		made := true
		if err := d.root.Mkdir(p, dirMode); errors.Is(err, fs.ErrExist) {
			made = false
			if fi, err := d.root.Stat(p); err != nil {
				return d.failed("mkdir", p, err)
			} else if !fi.IsDir() {
				return d.failed("mkdir", p, unix.ENOTDIR)
			}
		} else if err != nil {
			return d.failed("mkdir", p, err)
		}
		if !made && d.durable(p) {
			continue
		}
		if err := d.SyncDir(path.Dir(p)); err != nil {
			return err
		}
		d.remember(p)
	}
	return nil
}

// SyncDir makes the names in a folder durable; see Disk.
func (d *Dir) SyncDir(name string) error {
	f, err := d.folder("sync", name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return d.failed("sync", name, err)
	}
	return nil
}

// Free is the space that an ordinary user can still fill.
func (d *Dir) Free() (int64, error) {
	f, err := d.folder("statfs", ".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n int64
	err = control(f, func(fd int) error {
		n, err = freeBytes(fd)
		return err
	})
	if err != nil {
		return 0, d.failed("statfs", ".", err)
	}
	return n, nil
}

// Path is where a name lies in the operating system.
func (d *Dir) Path(name string) string { return filepath.Join(d.base, filepath.FromSlash(name)) }

// folder opens a folder for reading.
func (d *Dir) folder(op, name string) (*os.File, error) {
	if err := CheckName(op, name, true); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		// With O_DIRECTORY a file and a name below a file give the same error; only the second does not exist.
		if fi, statErr := d.root.Stat(name); statErr == nil && !fi.IsDir() {
			return nil, d.failed(op, name, unix.ENOTDIR)
		}
		return nil, d.missing(op, name, err)
	}
	return f, nil
}

func (d *Dir) durable(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.synced[name]
	return ok
}

func (d *Dir) remember(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.synced) >= syncedLimit {
		clear(d.synced)
	}
	d.synced[name] = struct{}{}
}

// forget is for a name that goes, with everything below it. Nearly all names that go are files, and of those nothing is remembered.
func (d *Dir) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.synced[name]; !ok {
		return
	}
	for s := range d.synced {
		if s == name || strings.HasPrefix(s, name) && s[len(name)] == '/' {
			delete(d.synced, s)
		}
	}
}

// Stat describes what a name stands for.
func (d *Dir) Stat(name string) (Info, error) {
	if err := CheckName("stat", name, true); err != nil {
		return Info{}, err
	}
	fi, err := d.root.Stat(name)
	if err != nil {
		return Info{}, d.missing("stat", name, err)
	}
	return d.info(path.Base(name), fi), nil
}

// List returns the entries of a folder; see Disk.
func (d *Dir) List(name string) ([]Info, error) {
	f, err := d.folder("list", name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, d.failed("list", name, err)
	}
	slices.Sort(names)
	all := make([]Info, 0, len(names))
	err = control(f, func(fd int) error {
		for _, n := range names {
			var st unix.Stat_t
			err := ignoringEINTR(func() error { return unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW) })
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue // removed since we read the names
			case err != nil:
				return fmt.Errorf("look at %s: %w", n, err)
			}
			i := infoOf(n, &st)
			if st.Mode&unix.S_IFMT == unix.S_IFLNK { // say what it stands for, if that lies inside
				if target, err := d.Stat(path.Join(name, n)); err == nil {
					i = target
				}
			}
			all = append(all, i)
		}
		return nil
	})
	if err != nil {
		return nil, d.failed("list", name, err)
	}
	return all, nil
}
