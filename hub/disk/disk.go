// Package disk is the contract for the few calls that our storage makes on a file system, and its implementation over os.Root. The other
// implementation, e2e/memdisk, loses what was not synced, tears, fills, fails and freezes on command. Both pass disktest.
//
// Names are slash-separated relative paths without "." and ".." elements; no name can reach outside the root. A name that does not exist gives an error
// that errors.Is calls fs.ErrNotExist; one that exists where it must not, fs.ErrExist; a name of the wrong form, fs.ErrInvalid; no space, ErrFull.
//
// What a process that was killed had written can be read by the next one and is still not durable: recovery syncs the files and the folders on which it
// relies (MkdirAll does that for folders). After a failed Sync, another Sync that succeeds proves nothing about what was written before the failure.
package disk

import (
	"errors"
	"io"
	"time"
)

// ErrFull is in the chain of every error that means: no space left (or no inode, or quota).
var ErrFull = errors.New("no space left on the disk")

// ErrLocked is in the chain of the error of a Lock that somebody else holds.
var ErrLocked = errors.New("locked")

// Disk is a directory tree. All methods are safe for concurrent use.
type Disk interface {
	Files
	Folders
	Volume
}

// Files is what a Disk does with single names.
type Files interface {
	// Create makes a new file, open for reading and writing; it fails if the name exists. The name survives a crash only after SyncDir of its folder.
	Create(name string) (File, error)
	// Open opens an existing file. With write, it can be written to as well.
	Open(name string, write bool) (File, error)
	// Rename moves a file over whatever has the new name, atomically. It survives a crash only after SyncDir of the folder of the new name.
	Rename(old, new string) error
	// Link gives a file a second name; it fails with fs.ErrExist if that name exists.
	Link(old, new string) error
	// Remove removes a file or an empty folder.
	Remove(name string) error
	Stat(name string) (Info, error)
}

// Folders is what a Disk does with folders and whole trees.
type Folders interface {
	// RemoveAll removes a name and everything below it; nil if there is no such name.
	RemoveAll(name string) error
	// MkdirAll makes a folder and its parents and syncs each parent, so that the folder itself is durable when it returns. A folder that is there
	// already costs little the second time.
	MkdirAll(name string) error
	// SyncDir makes the names in a folder durable; "." is the root. After an error nothing is known about them, as after one of File.Sync.
	SyncDir(name string) error
	// List returns the entries of a folder in byte order of their names.
	List(name string) ([]Info, error)
}

// Volume is what a Disk says of itself, and its lock.
type Volume interface {
	// Lock takes an exclusive lock on a file, made if need be, without waiting: ErrLocked if another process (or another Lock of this one) has
	// it. note is written into the file; the error of a failing Lock holds the note of the holder. The lock goes with the process.
	Lock(name, note string) (Unlock func() error, err error)
	// Free is the number of bytes that can still be written.
	Free() (int64, error)
	// Path is where a name lies for a person who reads a message; "" if it lies nowhere.
	Path(name string) string
}

// File is an open file. ReadAt may be called from many goroutines at once, also while one goroutine writes.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Write appends at the position of this handle: the end of what its Writes have written, 0 for a file just opened (also for one that has content).
	// WriteAt and Truncate do not move it. Fewer bytes than given are written only with an error.
	io.Writer
	// Sync makes content and length durable (fdatasync). After an error nothing is known about what was written since the last good Sync.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
}

// Info describes an entry.
type Info struct {
	Name    string // last element only
	Size    int64
	Dir     bool
	ModTime time.Time
	ID      uint64 // changes whenever Rename or Create put another file under the name
}
