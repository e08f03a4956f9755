package memdisk

import (
	"math/rand/v2"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

// content is what is in a file: as its readers see it, and as it is on the medium. Pages are shared between the two, and between generations, until they are
// written to; so a copy of a whole disk costs little.
type content struct {
	size  int64
	pages []page           // shrinks in sync only, so that it covers medium
	dirty map[int]struct{} // pages that the next Sync writes

	mediumSize int64
	medium     [][]byte // never changed in place
	lengths    []span   // that the file has had since mediumSize was good, oldest first
}

// page is up to pageSize bytes; what is missing at its end is zero. No page at all is a hole.
type page struct {
	b   []byte
	own bool // b belongs to this file and generation alone, so that it can be changed in place
}

// span is a range of lengths, both ends included: a growing file can be caught at any length on the way, a truncated one only before or after.
type span struct{ from, to int64 }

func newContent() *content {
	return &content{dirty: map[int]struct{}{}, lengths: []span{{}}}
}

func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for done := 0; done < len(p); {
		i, at := split(off + int64(done))
		n := min(pageSize-at, len(p)-done)
		to := p[done : done+n]
		copied := 0
		if i < len(c.pages) && at < len(c.pages[i].b) {
			copied = copy(to, c.pages[i].b[at:])
		}
		clear(to[copied:])
		done += n
	}
	return len(p)
}

// writeAt writes as long as take gives it a block for each hole that it fills.
func (c *content) writeAt(p []byte, off int64, take func() bool) int {
	done := 0
	for done < len(p) {
		i, at := split(off + int64(done))
		if (i >= len(c.pages) || c.pages[i].b == nil) && !take() {
			break
		}
		n := min(pageSize-at, len(p)-done)
		copy(c.change(i, at+n)[at:], p[done:done+n])
		done += n
	}
	if end := off + int64(done); done > 0 && end > c.size {
		last := &c.lengths[len(c.lengths)-1]
		last.to = end // all that lies between the old end and the new one, a hole too
		c.size = end
	}
	return done
}

// change returns page i for writing, with at least n bytes.
func (c *content) change(i, n int) []byte {
	for len(c.pages) <= i {
		c.pages = append(c.pages, page{}) // a hole
	}
	pg := &c.pages[i]
	if !pg.own {
		room := max(n, len(pg.b))
		if i > 0 || room > sectorSize { // small files stay small
			room = pageSize
		}
		pg.b, pg.own = append(make([]byte, 0, room), pg.b...), true
	}
	if len(pg.b) < n {
		old := len(pg.b)
		pg.b = slices.Grow(pg.b, n-old)[:n]
		clear(pg.b[old:])
	}
	c.dirty[i] = struct{}{}
	return pg.b
}

func (c *content) truncate(size int64) (freed int64) {
	if size < c.size {
		i, at := split(size)
		if at > 0 && i < len(c.pages) && len(c.pages[i].b) > at {
			c.change(i, at)
			c.pages[i].b = c.pages[i].b[:at]
		}
		if at > 0 {
			i++
		}
		for ; i < len(c.pages); i++ {
			if c.pages[i].b != nil {
				freed++
			}
			// The page stays as a hole, so that a Sync after the file has grown again takes the old bytes off the medium.
			c.pages[i] = page{}
			c.dirty[i] = struct{}{}
		}
	}
	if size != c.size {
		c.size = size
		c.lengths = append(c.lengths, span{size, size})
	}
	return freed
}

// sync puts all that is dirty on the medium.
func (c *content) sync() {
	for i := range c.dirty {
		c.put(i, c.pages[i].b)
		c.pages[i].own = false
	}
	clear(c.dirty)
	c.mediumSize = c.size
	c.lengths = append(c.lengths[:0], span{c.size, c.size})
	n := int((c.size + pageSize - 1) / pageSize)
	c.pages = c.pages[:min(n, len(c.pages))]
	c.medium = c.medium[:min(n, len(c.medium))]
	// The last page of the medium may be longer than the file, if a Sync in between has failed.
	if _, at := split(c.size); at > 0 && n == len(c.medium) && len(c.medium[n-1]) > at {
		c.medium[n-1] = c.medium[n-1][:at:at]
	}
}

func (c *content) put(i int, b []byte) {
	for len(c.medium) <= i {
		c.medium = append(c.medium, nil)
	}
	c.medium[i] = b
}

// spoil is a Sync that fails: what was dirty is not any more, whether it reached the medium or not.
func (c *content) spoil(e Effect, rng *rand.Rand) {
	switch e {
	case All:
		c.sync()
		return
	case Part:
		c.medium, c.mediumSize = c.afterCut(rng)
		if rng.IntN(4) == 0 { // some file systems then read what is on the medium
			for i := range c.dirty {
				c.pages[i] = page{b: c.below(c.onMedium(i), i)}
			}
		}
	}
	for i := range c.dirty {
		c.pages[i].own = false // as written, so that only a further write makes it dirty
	}
	clear(c.dirty)
}

func (c *content) onMedium(i int) []byte {
	if i < len(c.medium) {
		return c.medium[i]
	}
	return nil
}

// below cuts what lies at or above the end of the file off page i.
func (c *content) below(b []byte, i int) []byte {
	n := max(0, min(int64(len(b)), c.size-int64(i)*pageSize))
	if n == 0 {
		return nil
	}
	return b[:n:n]
}

func (c *content) damage(with []byte, off int64) {
	for len(with) > 0 {
		i, at := split(off)
		n := min(pageSize-at, len(with))
		for len(c.pages) <= i {
			c.pages = append(c.pages, page{}) // a hole
		}
		c.pages[i] = page{b: patched(c.pages[i].b, with[:n], at)}
		if off < c.mediumSize {
			c.put(i, patched(c.onMedium(i), with[:n], at))
		}
		with, off = with[n:], off+int64(n)
	}
}

// patched is a copy of page b with some bytes replaced.
func patched(b, with []byte, at int) []byte {
	fresh := make([]byte, max(len(b), at+len(with)))
	copy(fresh, b)
	copy(fresh[at:], with)
	return fresh
}

// copy gives the next generation its own view. From here on neither changes a page in place that the other sees.
func (c *content) copy() *content {
	for i := range c.pages {
		c.pages[i].own = false
	}
	dirty := make(map[int]struct{}, len(c.dirty))
	for i := range c.dirty {
		dirty[i] = struct{}{}
	}
	return &content{
		size: c.size, pages: slices.Clone(c.pages), dirty: dirty,
		mediumSize: c.mediumSize, medium: slices.Clone(c.medium), lengths: slices.Clone(c.lengths),
	}
}

// clean is a content of which everything is on the medium.
func clean(medium [][]byte, size int64) *content {
	c := &content{size: size, mediumSize: size, medium: medium, dirty: map[int]struct{}{}, lengths: []span{{size, size}}}
	c.pages = make([]page, len(medium))
	for i, b := range medium {
		c.pages[i].b = b
	}
	return c
}

func (c *content) blocks() (n int64) {
	for i := range c.pages {
		if c.pages[i].b != nil {
			n++
		}
	}
	return n
}

func split(off int64) (page, at int) { return int(off / pageSize), int(off % pageSize) }
