package format

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"sort"
	"strings"

	"timehub/hub"
)

// Index is the index of a segment that has no footer yet. Its owner's lock guards it; what runs returns may be used without it, since entries are
// never changed in place.
type Index struct {
	Channels map[string]*chanIndex
	Arena    []byte // long hashes
	count    int
	Bytes    int64 // of all records
	Flags    Flags // of any record
	Lows     map[Stream]Low
	Holes    []Damage           // what a scan could not read
	Complete map[string]hub.Key // see AddComplete; nil: no markers
}

// AddHole notes damage, between the records that lie around it.
func (m *Index) AddHole(d Damage) {
	before, after := int64(-1), int64(math.MaxInt64)
	d.From, d.To = math.MinInt64, math.MaxInt64
	for _, c := range m.Channels {
		for e := range MergedEntries(c, m.Arena) {
			switch off := int64(e.Off); {
			case off < d.Off && off > before:
				before, d.From = off, e.Millis
			case off > d.Off && off < after:
				after, d.To = off, e.Millis
			}
		}
	}
	m.Holes = append(m.Holes, d)
}

func appendDamage(b []byte, d Damage) []byte {
	for _, v := range [...]int64{d.Off, d.Length, d.From, d.To} {
		b = le.AppendUint64(b, uint64(v))
	}
	return b
}

func parseDamage(b []byte) Damage {
	at := func(i int) int64 { return int64(le.Uint64(b[8*i:])) }
	return Damage{at(0), at(1), at(2), at(3)}
}

// chanIndex holds the entries of one channel: main is sorted and grows at its end; late, sorted as well, takes what comes out of order and is replaced,
// never changed, until it is worth merging.
type chanIndex struct {
	Name       string
	Main, Late []Entry
	Bytes      int64
	Flags      Flags
}

// lateLimit is how many entries out of order are kept beside the sorted ones before they are merged.
const lateLimit = 1024

// Named is an entry on its way into an index. A long hash is held in hash until then.
type Named struct {
	Channel string
	Hash    string
	Entry
}

// NewNamed makes an entry of its parts.
func NewNamed[T string | []byte](channel string, ms int64, hash T, flags Flags, off int64, size int) Named {
	n := Named{Channel: channel, Entry: Entry{Millis: ms, Off: uint32(off), Size: uint32(size), Flags: flags, HashLen: uint8(len(hash))}}
	if len(hash) > inlineHash {
		n.Hash = string(hash)
	} else {
		copy(n.Entry.Hash[:], hash)
	}
	return n
}

// HashBytes is the hash of an entry that is not yet in an index.
func (n *Named) HashBytes() []byte {
	if n.HashLen > inlineHash {
		return []byte(n.Hash)
	}
	return n.Entry.Hash[:n.HashLen]
}

// Key is the key of the entry.
func (n *Named) Key() hub.Key { return KeyOf(n.Millis, n.HashBytes()) }

// NewIndex makes an empty index.
func NewIndex() *Index {
	return &Index{Channels: map[string]*chanIndex{}, Lows: map[Stream]Low{}}
}

// Add takes in the records of a group; list is used up.
func (m *Index) Add(list []Named) {
	var odd []*chanIndex // with something out of order
	for i := range list {
		n := &list[i]
		c := m.Channels[n.Channel]
		if c == nil {
			name := strings.Clone(n.Channel) // the record's may hold a request alive
			c = &chanIndex{Name: name}
			m.Channels[name] = c
		}
		if n.HashLen > inlineHash {
			n.Entry.Hash = [inlineHash]byte{}
			le.PutUint32(n.Entry.Hash[:], uint32(len(m.Arena)))
			m.Arena = append(m.Arena, n.Hash...)
		}
		m.count++
		m.Bytes += int64(n.Size)
		m.Flags |= n.Flags
		c.Bytes += int64(n.Size)
		c.Flags |= n.Flags
		if len(c.Main) == 0 || compareEntries(&c.Main[len(c.Main)-1], m.Arena, &n.Entry, m.Arena) <= 0 {
			c.Main = append(c.Main, n.Entry)
			continue
		}
		if !slices.Contains(odd, c) {
			odd = append(odd, c)
			c.Late = slices.Clone(c.Late)
		}
		c.Late = append(c.Late, n.Entry)
	}
	for _, c := range odd {
		m.settle(c)
	}
}

// settle sorts the late entries of a channel and merges them when they are many.
func (m *Index) settle(c *chanIndex) {
	slices.SortStableFunc(c.Late, func(a, b Entry) int { return compareEntries(&a, m.Arena, &b, m.Arena) })
	if len(c.Late) < max(lateLimit, len(c.Main)/8) {
		return
	}
	merged := make([]Entry, 0, len(c.Main)+len(c.Late)+lateLimit)
	for e := range MergedEntries(c, m.Arena) {
		merged = append(merged, *e)
	}
	c.Main, c.Late = merged, nil
}

// MergedEntries yields all entries of a channel in order.
func MergedEntries(c *chanIndex, arena []byte) func(yield func(*Entry) bool) {
	return func(yield func(*Entry) bool) {
		i, j := 0, 0
		for i < len(c.Main) || j < len(c.Late) {
			var e *Entry
			if j == len(c.Late) || i < len(c.Main) && compareEntries(&c.Main[i], arena, &c.Late[j], arena) <= 0 {
				e = &c.Main[i]
				i++
			} else {
				e = &c.Late[j]
				j++
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Runs returns the sorted runs of a channel.
func (m *Index) Runs(channel string) (main, late []Entry, arena []byte) {
	c := m.Channels[channel]
	if c == nil {
		return nil, nil, nil
	}
	return c.Main, c.Late, m.Arena
}

// Extent returns the first and the last entry.
func (c *chanIndex) Extent(arena []byte) (first, last *Entry) {
	for _, run := range [2][]Entry{c.Main, c.Late} {
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

func compareEntries(a *Entry, aArena []byte, b *Entry, bArena []byte) int {
	if a.Millis != b.Millis {
		return cmp.Compare(a.Millis, b.Millis)
	}
	return bytes.Compare(a.HashIn(aArena), b.HashIn(bArena))
}

// Bound is a key as searches compare it.
type Bound struct {
	Millis int64
	Hash   []byte
}

// BoundOf is the bound at a key.
func BoundOf(k hub.Key) Bound { return Bound{k.Millis(), []byte(k.Hash())} }

// Compare orders a key given as milliseconds and hash against the bound.
func (b Bound) Compare(ms int64, hash []byte) int {
	if ms != b.Millis {
		return cmp.Compare(ms, b.Millis)
	}
	return bytes.Compare(hash, b.Hash)
}

// Lower is the position of the first entry of a sorted run at or above the bound.
func (b Bound) Lower(run []Entry, arena []byte) int {
	return sort.Search(len(run), func(i int) bool { return b.Compare(run[i].Millis, run[i].HashIn(arena)) >= 0 })
}

// KeyOf makes a key of its parts.
func KeyOf(ms int64, hash []byte) hub.Key { return hub.KeyAt(ms, string(hash)) }
