package log

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"strings"

	"timehub/hub"
)

// memIndex is the index of a segment that has no footer yet. Its owner's lock guards it; what runs returns may be used without it, since entries are
// never changed in place.
type memIndex struct {
	channels map[string]*chanIndex
	arena    []byte // long hashes
	count    int
	bytes    int64 // of all records
	flags    Flags // of any record
	lows     map[Stream]Low
}

// chanIndex holds the entries of one channel: main is sorted and grows at its end; late, sorted as well, takes what comes out of order and is replaced,
// never changed, until it is worth merging.
type chanIndex struct {
	name       string
	main, late []entry
	bytes      int64
	flags      Flags
}

// lateLimit is how many entries out of order are kept beside the sorted ones before they are merged.
const lateLimit = 1024

// named is an entry on its way into an index. A long hash is held in hash until then.
type named struct {
	channel string
	hash    string
	entry
}

func newMemIndex() *memIndex {
	return &memIndex{channels: map[string]*chanIndex{}, lows: map[Stream]Low{}}
}

// add takes in the records of a group; list is used up.
func (m *memIndex) add(list []named) {
	var odd []*chanIndex // with something out of order
	for i := range list {
		n := &list[i]
		c := m.channels[n.channel]
		if c == nil {
			name := strings.Clone(n.channel) // the record's may hold a request alive
			c = &chanIndex{name: name}
			m.channels[name] = c
		}
		if n.hlen > inlineHash {
			n.entry.hash = [inlineHash]byte{}
			le.PutUint32(n.entry.hash[:], uint32(len(m.arena)))
			m.arena = append(m.arena, n.hash...)
		}
		m.count++
		m.bytes += int64(n.size)
		m.flags |= n.flags
		c.bytes += int64(n.size)
		c.flags |= n.flags
		if len(c.main) == 0 || compareEntries(&c.main[len(c.main)-1], m.arena, &n.entry, m.arena) <= 0 {
			c.main = append(c.main, n.entry)
			continue
		}
		if !slices.Contains(odd, c) {
			odd = append(odd, c)
			c.late = slices.Clone(c.late)
		}
		c.late = append(c.late, n.entry)
	}
	for _, c := range odd {
		m.settle(c)
	}
}

// settle sorts the late entries of a channel and merges them when they are many.
func (m *memIndex) settle(c *chanIndex) {
	slices.SortStableFunc(c.late, func(a, b entry) int { return compareEntries(&a, m.arena, &b, m.arena) })
	if len(c.late) < max(lateLimit, len(c.main)/8) {
		return
	}
	merged := make([]entry, 0, len(c.main)+len(c.late)+lateLimit)
	for e := range mergedEntries(c, m.arena) {
		merged = append(merged, *e)
	}
	c.main, c.late = merged, nil
}

// mergedEntries yields all entries of a channel in order.
func mergedEntries(c *chanIndex, arena []byte) func(yield func(*entry) bool) {
	return func(yield func(*entry) bool) {
		i, j := 0, 0
		for i < len(c.main) || j < len(c.late) {
			var e *entry
			if j == len(c.late) || i < len(c.main) && compareEntries(&c.main[i], arena, &c.late[j], arena) <= 0 {
				e = &c.main[i]
				i++
			} else {
				e = &c.late[j]
				j++
			}
			if !yield(e) {
				return
			}
		}
	}
}

// runs returns the sorted runs of a channel.
func (m *memIndex) runs(channel string) (main, late []entry, arena []byte) {
	c := m.channels[channel]
	if c == nil {
		return nil, nil, nil
	}
	return c.main, c.late, m.arena
}

// extent returns the first and the last entry.
func (c *chanIndex) extent(arena []byte) (first, last *entry) {
	for _, run := range [2][]entry{c.main, c.late} {
		if len(run) == 0 {
			continue
		}
		if a := &run[0]; first == nil || compareEntries(a, arena, first, arena) < 0 {
			first = a
		}
		if z := &run[len(run)-1]; last == nil || compareEntries(z, arena, last, arena) > 0 {
			last = z
		}
	}
	return first, last
}

func compareEntries(a *entry, aArena []byte, b *entry, bArena []byte) int {
	if a.ms != b.ms {
		return cmp.Compare(a.ms, b.ms)
	}
	return bytes.Compare(a.hashIn(aArena), b.hashIn(bArena))
}

// bound is a key as searches compare it.
type bound struct {
	ms   int64
	hash []byte
}

func boundOf(k hub.Key) bound { return bound{k.Millis(), []byte(k.Hash())} }

// compare orders a key given as milliseconds and hash against the bound.
func (b bound) compare(ms int64, hash []byte) int {
	if ms != b.ms {
		return cmp.Compare(ms, b.ms)
	}
	return bytes.Compare(hash, b.hash)
}

// lower is the position of the first entry of a sorted run at or above the bound.
func (b bound) lower(run []entry, arena []byte) int {
	return sort.Search(len(run), func(i int) bool { return b.compare(run[i].ms, run[i].hashIn(arena)) >= 0 })
}

func keyOf(ms int64, hash []byte) hub.Key { return hub.KeyAt(ms, string(hash)) }
