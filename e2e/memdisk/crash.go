package memdisk

import (
	"math/rand/v2"
	"slices"
)

// The ways in which a file that was not synced can be found. Each file draws one, so that the plain outcomes are as frequent as the wild ones.
const (
	allLost = iota
	allKept
	prefixKept  // what was written up to some offset
	sectorsKept // any of 512 bytes, the last of them cut anywhere: an older state of a tail that grew
	pagesKept   // any of 4 KiB
	lengthKept  // the length, but not what was written
	ways
)

// afterCut is what a power cut now would leave of the file.
func (c *content) afterCut(rng *rand.Rand) (medium [][]byte, size int64) {
	way := rng.IntN(ways)
	size, fresh := c.lengthAfterCut(way, rng)
	cut := fresh // of what was written, nothing at or above it is found
	if way == prefixKept {
		cut = min(cut, within(rng, 0, c.size))
	}
	odds := [...]float64{0.1, 0.5, 0.9}[rng.IntN(3)]
	var garbage *rand.Rand // in space that the file got and did not fill; most file systems give zeros
	if rng.IntN(4) == 0 {
		garbage = rng
	}
	medium = slices.Clone(c.medium)
	for _, i := range c.sortedDirty() {
		from := int64(i) * pageSize
		b := [pageSize]byte{}
		copy(b[:], c.onMedium(i))
		wholePage := rng.Float64() < odds
		for s := 0; s < pageSize; s += sectorSize {
			old, now := b[s:s+sectorSize], c.sector(i, s)
			n := 0 // how many bytes of the sector are as they were written
			switch way {
			case allKept, prefixKept:
				n = sectorSize
			case sectorsKept:
				n = rng.IntN(sectorSize + 1)
				if rng.Float64() < odds {
					n = sectorSize
				} else if rng.Float64() < odds {
					n = 0
				}
			case pagesKept:
				if wholePage {
					n = sectorSize
				}
			}
			n = int(min(int64(n), max(0, cut-from-int64(s))))
			if n == 0 && way != allLost && garbage != nil && from+int64(s) >= c.mediumSize {
				for k := range old {
					old[k] = byte(garbage.Uint32())
				}
			}
			copy(old, now[:n])
		}
		for len(medium) <= i {
			medium = append(medium, nil)
		}
		medium[i] = b[:]
	}
	return trim(medium, size), size
}

// lengthAfterCut chooses one of the lengths that the file has had. If the file was truncated after it had that length, the truncation is lost: then
// what was written above its cut is lost, too, since it went into space given out after it. fresh is that bound.
func (c *content) lengthAfterCut(way int, rng *rand.Rand) (size, fresh int64) {
	last := len(c.lengths) - 1
	const unbounded = 1<<63 - 1
	switch way {
	case allLost:
		size = c.mediumSize
		return size, 0
	case allKept, lengthKept:
		return c.size, unbounded
	}
	k := rng.IntN(last + 1)
	fresh = unbounded
	for _, s := range c.lengths[k+1:] {
		fresh = min(fresh, s.from)
	}
	return within(rng, c.lengths[k].from, c.lengths[k].to), fresh
}

// within is any number of a range, its ends more often than others.
func within(rng *rand.Rand, from, to int64) int64 {
	switch rng.IntN(4) {
	case 0:
		return from
	case 1:
		return to
	}
	return from + rng.Int64N(to-from+1)
}

// sector is what readers see of a sector.
func (c *content) sector(page, at int) []byte {
	var s [sectorSize]byte
	if page < len(c.pages) && at < len(c.pages[page].b) {
		copy(s[:], c.pages[page].b[at:])
	}
	return s[:]
}

func (c *content) sortedDirty() []int {
	all := make([]int, 0, len(c.dirty))
	for i := range c.dirty {
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

// trim cuts pages to a length.
func trim(medium [][]byte, size int64) [][]byte {
	n, at := split(size)
	if at > 0 {
		n++
	}
	medium = medium[:min(n, len(medium))]
	if at > 0 && len(medium) == n && len(medium[n-1]) > at {
		medium[n-1] = medium[n-1][:at:at]
	}
	return medium
}

// copier makes the nodes of the next generation.
type copier struct {
	from, to *Disk
	seed     uint64
	nodes    map[*node]*node // what is copied already: a file with two names stays one
}

// everything copies both states and what is pending.
func (c *copier) everything() {
	c.to.root = c.node(c.from.root)
	for _, p := range c.from.pending {
		next := &change{op: p.op, name: p.name, slots: make([]slot, len(p.slots))}
		for i, s := range p.slots {
			next.slots[i] = slot{c.node(s.dir), s.name, c.node(s.to)}
		}
		c.to.pending = append(c.to.pending, next)
	}
}

func (c *copier) node(n *node) *node {
	if n == nil || c.nodes[n] != nil {
		return c.nodes[n]
	}
	next := &node{id: n.id, version: n.version, modTime: n.modTime}
	c.nodes[n] = next
	if !n.dir() {
		next.content = n.content.copy()
		next.links = n.links
		return next
	}
	next.names, next.medium = map[string]*node{}, map[string]*node{}
	for name, child := range n.names {
		next.names[name] = c.node(child)
	}
	for name, child := range n.medium {
		next.medium[name] = c.node(child)
	}
	return next
}

// durable copies what a power cut leaves.
func (c *copier) durable() {
	rng := rand.New(rand.NewPCG(c.seed, 0))
	names := map[*node]map[string]*node{} // by which changes that survive replace those on the medium
	for _, p := range c.surviving(rng) {
		for _, s := range p.slots {
			if names[s.dir] == nil {
				names[s.dir] = map[string]*node{}
			}
			names[s.dir][s.name] = s.to
		}
	}
	c.to.root = c.cut(c.from.root, names)
}

// surviving chooses the changes of names that are found after a power cut.
func (c *copier) surviving(rng *rand.Rand) []*change {
	pending := c.from.pending
	switch rng.IntN(4) {
	case 0:
		return nil
	case 1:
		return pending
	case 2: // a journal, cut somewhere
		return pending[:rng.IntN(len(pending)+1)]
	}
	// Any, as long as changes of one name keep their order without a gap.
	type place struct {
		dir  *node
		name string
	}
	gone := map[place]bool{}
	var some []*change
	for _, p := range pending {
		lost := rng.IntN(2) == 0
		for _, s := range p.slots {
			lost = lost || gone[place{s.dir, s.name}]
		}
		if !lost {
			some = append(some, p)
			continue
		}
		for _, s := range p.slots {
			gone[place{s.dir, s.name}] = true
		}
	}
	return some
}

func (c *copier) cut(n *node, names map[*node]map[string]*node) *node {
	if done := c.nodes[n]; done != nil {
		if done.dir() {
			return nil // a folder has one name; a second can only come from a rename half lost in a failed SyncDir
		}
		done.links++
		return done
	}
	next := &node{id: n.id, version: n.version, modTime: n.modTime}
	c.nodes[n] = next
	if !n.dir() {
		// Each file draws from its own source, so that the outcome of one does not depend on the others.
		next.content = clean(n.content.afterCut(rand.New(rand.NewPCG(c.seed, n.id))))
		next.links = 1
		if len(n.content.dirty) > 0 {
			c.to.tick++
			next.version = c.to.tick
		}
		return next
	}
	next.names, next.medium = map[string]*node{}, map[string]*node{}
	merged := map[string]*node{}
	for name, child := range n.medium {
		merged[name] = child
	}
	for name, child := range names[n] {
		merged[name] = child
	}
	order := make([]string, 0, len(merged))
	for name := range merged {
		order = append(order, name)
	}
	slices.Sort(order)
	for _, name := range order {
		if merged[name] == nil {
			continue
		}
		if child := c.cut(merged[name], names); child != nil {
			next.names[name], next.medium[name] = child, child
		}
	}
	return next
}
