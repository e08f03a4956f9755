package channel

import (
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// newBodySum computes the checksum of a large body, which its index keeps: long-term storage may be a directory, and nobody else would notice a flipped bit.
func newBodySum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

func sumText(h hash.Hash32) string { return fmt.Sprintf("%08x", h.Sum32()) }

var errBodyDamaged = errors.New("the body of a large item is damaged in long-term storage: it does not match its checksum")

// heldBack is how much of a body is given out only once all of it is known to be right.
const heldBack = 32 << 10

// checked reads a whole body and compares it with its checksum. Its last bytes are held back until then, so that nobody who counts takes a damaged one for whole.
type checked struct {
	from io.ReadCloser
	sum  hash.Hash32
	want string
	left int64 // bytes of the body that were not read yet
	held []byte
	out  []byte // may be given out
	free []byte
	err  error
}

func (c *checked) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		c.step()
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// step reads the next block, and releases the one before.
func (c *checked) step() {
	if c.left == 0 {
		if c.err = io.EOF; sumText(c.sum) != c.want {
			c.err = errBodyDamaged
			return
		}
		c.out, c.held = c.held, nil
		return
	}
	next := c.free
	if next == nil {
		next = make([]byte, heldBack)
	}
	next = next[:min(int64(heldBack), c.left)]
	if _, err := io.ReadFull(c.from, next); err != nil {
		if c.err = err; errors.Is(err, io.EOF) {
			c.err = io.ErrUnexpectedEOF
		}
		return
	}
	c.left -= int64(len(next))
	c.sum.Write(next)
	c.out, c.held = c.held, next
	c.free = c.out[:cap(c.out)] // what is given out is taken before the next step
	if c.out == nil {
		c.free = nil
	}
}

func (c *checked) Close() error { return c.from.Close() }
