package disk

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	noteLimit = 1024 // bytes of a lock's note that are read back
	lockTries = 100  // times that the file may be replaced under a Lock
)

// Lock takes an exclusive lock; see Disk. It is an flock, so it goes with the process whatever ends it.
func (d *Dir) Lock(name, note string) (func() error, error) {
	if err := CheckName("lock", name, false); err != nil {
		return nil, err
	}
	for range lockTries {
		f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
		if err != nil {
			return nil, d.failed("lock", name, err)
		}
		unlock, again, err := d.lock(f, name, note)
		if err != nil || again {
			f.Close()
		}
		if !again {
			return unlock, err
		}
	}
	return nil, d.failed("lock", name, errors.New("the file is replaced again and again"))
}

// lock locks an open file. again: the name stands for another file by now, so what we locked protects nothing.
func (d *Dir) lock(f *os.File, name, note string) (unlock func() error, again bool, err error) {
	err = control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		held := make([]byte, noteLimit)
		n, _ := f.ReadAt(held, 0)
		return nil, false, lockedError(d.Path(name), string(held[:n]))
	}
	if err != nil {
		return nil, false, d.failed("lock", name, err)
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, false, d.failed("lock", name, err)
	}
	if there, err := d.root.Stat(name); err != nil || !os.SameFile(mine, there) {
		return nil, true, nil
	}
	// The note is for people. A full disk must not keep anybody from the lock: a node has to start on one.
	if err := writeNote(f, note); err != nil && !noSpace(err) {
		return nil, false, d.failed("lock", name, err)
	}
	return sync.OnceValue(func() error {
		err := errors.Join(f.Truncate(0), f.Close()) // closing unlocks
		if err != nil {
			return d.failed("unlock", name, err)
		}
		return nil
	}), false, nil
}

// writeNote puts the new note over the old one before it cuts, so that a reader in between finds some note.
func writeNote(f *os.File, note string) error {
	if _, err := f.WriteAt([]byte(note), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(note)))
}

func lockedError(path, note string) error {
	if note == "" {
		return fmt.Errorf("lock %s: %w", path, ErrLocked)
	}
	return fmt.Errorf("lock %s: %w by %s", path, ErrLocked, note)
}
