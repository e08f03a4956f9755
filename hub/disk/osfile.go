package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// osFile is a File of the operating system. os.File loops over short writes and interrupted calls, reads with pread and writes with pwrite.
type osFile struct {
	f    *os.File
	path string
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.f.ReadAt(p, off)
	return n, o.failed("read", err)
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	return n, o.failed("write", err)
}

func (o *osFile) Write(p []byte) (int, error) {
	n, err := o.f.Write(p)
	return n, o.failed("write", err)
}

func (o *osFile) Sync() error {
	return o.failed("sync", control(o.f, func(fd int) error { return dataSync(fd) }))
}

func (o *osFile) Truncate(size int64) error { return o.failed("truncate", o.f.Truncate(size)) }

func (o *osFile) Size() (int64, error) {
	fi, err := o.f.Stat()
	if err != nil {
		return 0, o.failed("stat", err)
	}
	return fi.Size(), nil
}

func (o *osFile) Close() error { return o.failed("close", o.f.Close()) }

func (o *osFile) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return withSpace(&fs.PathError{Op: op, Path: o.path, Err: bare(err)})
}

// control calls use with the descriptor of a file that can not be closed meanwhile, again after an interruption.
func control(f *os.File, use func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return fs.ErrClosed
	}
	var called error
	if err := conn.Control(func(fd uintptr) {
		called = ignoringEINTR(func() error { return use(int(fd)) })
	}); err != nil {
		return fs.ErrClosed // the only reason that there is
	}
	return called
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// failed gives an error of a call on one name its whole path.
func (d *Dir) failed(op, name string, err error) error {
	return withSpace(&fs.PathError{Op: op, Path: d.Path(name), Err: bare(err)})
}

// missing is failed for calls on a name that should exist: below a file nothing exists.
func (d *Dir) missing(op, name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) {
		err = missing{bare(err)}
	}
	return d.failed(op, name, err)
}

// below is for calls on two names: it tells an old name below a file, which does not exist, from a folder and a file mixed up.
func (d *Dir) below(old string, err error) error {
	if errors.Is(err, unix.ENOTDIR) {
		if _, statErr := d.root.Lstat(old); errors.Is(statErr, unix.ENOTDIR) {
			return missing{bare(err)}
		}
	}
	return err
}

// failed2 is failed for a call on two names.
func (d *Dir) failed2(op, old, new string, err error) error {
	return withSpace(&os.LinkError{Op: op, Old: d.Path(old), New: d.Path(new), Err: bare(err)})
}

// bare takes the layer off that names a path or a call.
func bare(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	case *os.SyscallError:
		return e.Err
	}
	return err
}

func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func withSpace(err error) error {
	if noSpace(err) {
		return full{err}
	}
	return err
}

// full is an error that says of itself what happened, and is ErrFull.
type full struct{ error }

func (f full) Unwrap() []error { return []error{ErrFull, f.error} }

// missing is an error that is fs.ErrNotExist though the system calls it otherwise.
type missing struct{ error }

func (m missing) Unwrap() []error { return []error{fs.ErrNotExist, m.error} }

// identity mixes what tells one file from another. Inode numbers are used again, therefore the times; it may change for other reasons too, such as a
// write or a second name.
func identity(ino uint64, size, mtime, ctime int64) uint64 {
	h := uint64(14695981039346656037)
	for _, v := range [...]uint64{ino, uint64(size), uint64(mtime), uint64(ctime)} {
		h = (h ^ v) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}
