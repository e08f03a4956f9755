package memdisk

import (
	"io"
	"io/fs"
	"math"
	"syscall"

	"timehub/hub/disk"
)

// handle is an open file. What it guards by the mutex of its disk: pos, closed.
type handle struct {
	d      *Disk
	n      *node
	name   string
	write  bool
	pos    int64
	closed bool
}

// do runs a call on an open handle.
func (h *handle) do(c Call, effect func(Effect) error) error {
	c.Name = h.name
	return h.d.do(c, func(e Effect) error {
		if h.closed {
			return h.failed(c.Op, fs.ErrClosed)
		}
		return effect(e)
	})
}

func (h *handle) failed(op Op, err error) error {
	return &fs.PathError{Op: op.String(), Path: h.name, Err: err}
}

// ReadAt implements disk.File.
func (h *handle) ReadAt(p []byte, off int64) (n int, err error) {
	err = h.do(Call{Op: OpRead, Offset: off, Size: len(p)}, func(Effect) error {
		if off < 0 {
			return h.failed(OpRead, syscall.EINVAL)
		}
		n = h.n.content.readAt(p, off)
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements disk.File.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, h.failed(OpWrite, syscall.EINVAL)
	}
	return h.put(p, off)
}

// Write implements disk.File.
func (h *handle) Write(p []byte) (int, error) { return h.put(p, atPosition) }

const atPosition = -1

func (h *handle) put(p []byte, off int64) (n int, err error) {
	c := Call{Op: OpWrite, Offset: off, Size: len(p)}
	if off == atPosition { // to show it to the Hook; another Write may still come first
		h.d.mu.Lock()
		c.Offset = h.pos
		h.d.mu.Unlock()
	}
	err = h.do(c, func(e Effect) error {
		at := off
		if off == atPosition {
			at = h.pos
		}
		if !h.write {
			return h.failed(OpWrite, syscall.EBADF)
		}
		if at > math.MaxInt64-int64(len(p)) {
			return h.failed(OpWrite, syscall.EFBIG)
		}
		want := p
		if e == Part && len(p) > 0 {
			want = p[:h.d.rng.IntN(len(p))]
		}
		n = h.n.content.writeAt(want, at, h.d.take)
		if n > 0 {
			h.d.touch(h.n)
		}
		if off == atPosition {
			h.pos += int64(n)
		}
		if n < len(want) {
			return h.failed(OpWrite, disk.ErrFull)
		}
		return nil
	})
	return n, err
}

// Sync implements disk.File.
func (h *handle) Sync() error {
	return h.do(Call{Op: OpSync}, func(e Effect) error {
		c := h.n.content
		if e == All {
			c.sync()
			return nil
		}
		h.d.blocks -= c.blocks()
		c.spoil(e, h.d.rng)
		h.d.blocks += c.blocks()
		return nil
	})
}

// Truncate implements disk.File.
func (h *handle) Truncate(size int64) error {
	return h.do(Call{Op: OpTruncate, Offset: size}, func(Effect) error {
		switch {
		case size < 0:
			return h.failed(OpTruncate, syscall.EINVAL)
		case !h.write:
			return h.failed(OpTruncate, syscall.EINVAL)
		}
		h.d.blocks -= h.n.content.truncate(size)
		h.d.touch(h.n)
		return nil
	})
}

// Size implements disk.File.
func (h *handle) Size() (size int64, err error) {
	err = h.do(Call{Op: OpSize}, func(Effect) error {
		size = h.n.content.size
		return nil
	})
	return size, err
}

// Close implements disk.File. It makes nothing durable.
func (h *handle) Close() error {
	return h.do(Call{Op: OpClose}, func(Effect) error {
		h.close()
		return nil
	})
}

func (h *handle) close() {
	if !h.closed {
		h.closed = true
		h.n.handles--
		h.d.release(h.n)
	}
}
