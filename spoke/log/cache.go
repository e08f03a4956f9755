package log

import (
	"io"
	"sync"

	"timehub/spoke/log/format"
)

const (
	cachedRows   = 1024
	cachedFences = 32 // segments; about 40 KiB each
)

// cache holds what look-ups in footers read again and again. It is small, and emptied when it is full.
type cache struct {
	mu     sync.Mutex // guards all below; never held during a call to the disk
	rowsOf map[rowKey]*format.DirRow
	fence  map[*format.Footer][]byte
}

type rowKey struct {
	foot    *format.Footer
	channel string
}

func newCache() *cache {
	return &cache{rowsOf: map[rowKey]*format.DirRow{}, fence: map[*format.Footer][]byte{}}
}

// row is footer.row.
func (c *cache) row(f *format.Footer, r io.ReaderAt, channel string) (*format.DirRow, error) {
	key := rowKey{f, channel}
	c.mu.Lock()
	row := c.rowsOf[key]
	c.mu.Unlock()
	if row != nil {
		return row, nil
	}
	row, err := f.Row(r, channel, format.ChannelHash(channel))
	if err != nil || row == nil {
		return nil, err
	}
	c.mu.Lock()
	if len(c.rowsOf) >= cachedRows {
		clear(c.rowsOf)
	}
	c.rowsOf[key] = row
	c.mu.Unlock()
	return row, nil
}

// fences returns the first entries of all pages of entries.
func (c *cache) fences(f *format.Footer, r io.ReaderAt) ([]byte, error) {
	c.mu.Lock()
	b := c.fence[f]
	c.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := f.Fences(r)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if len(c.fence) >= cachedFences {
		clear(c.fence)
	}
	c.fence[f] = b
	c.mu.Unlock()
	return b, nil
}

// forget lets go what is known of a footer.
func (c *cache) forget(f *format.Footer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.fence, f)
	for k := range c.rowsOf {
		if k.foot == f {
			delete(c.rowsOf, k)
		}
	}
}
