package log

import (
	"io"

	"timehub/spoke/log/format"
)

// cursor walks over one sorted run of entries of a channel: a slice of an index in memory, or a range of a footer.
type cursor struct {
	seg     *segment
	reverse bool

	run   []format.Entry // in memory
	arena []byte

	r    io.ReaderAt // in a footer
	foot *format.Footer
	rows []byte // raw entries, from base on
	base int
	step int // pages to read next

	pos, end int          // what is left: pos ≤ i < end
	stop     format.Bound // in a footer: the walk ends before this key, or with reverse below it

	entry format.Entry // the current one
	hash  []byte       // its hash; good until the next call of advance
}

const maxStep = 16 // pages of entries that a long walk reads at once

// advance goes to the next entry; false at the end.
func (c *cursor) advance() (bool, error) {
	if c.pos >= c.end {
		return false, nil
	}
	i := c.pos
	if c.reverse {
		c.end--
		i = c.end
	} else {
		c.pos++
	}
	if c.foot == nil {
		c.entry = c.run[i]
		c.hash = c.entry.HashIn(c.arena)
		return true, nil
	}
	if i < c.base || i >= c.base+len(c.rows)/format.EntrySize {
		if err := c.load(i); err != nil {
			return false, err
		}
	}
	c.entry = format.ParseEntry(c.rows[(i-c.base)*format.EntrySize:])
	var err error
	if c.hash, err = c.foot.Hash(c.r, &c.entry); err != nil {
		return false, err
	}
	if d := c.stop.Compare(c.entry.Millis, c.hash); d >= 0 && !c.reverse || d < 0 && c.reverse {
		c.pos = c.end
		return false, nil
	}
	return true, nil
}

// load reads whole pages from entry i on, in the direction of the walk, more each time.
func (c *cursor) load(i int) error {
	c.step = min(max(1, c.step*2), maxStep)
	page := i / format.PerPage
	from, to := page*format.PerPage, (page+c.step)*format.PerPage
	if c.reverse {
		from, to = (page+1-c.step)*format.PerPage, (page+1)*format.PerPage
		from, to = max(from, c.pos), min(to, i+1)
	} else {
		from, to = max(from, i), min(to, c.end)
	}
	var err error
	c.rows, err = c.foot.EntriesAt(c.r, from, to)
	c.base = from
	return err
}

// compare orders the current entries of two cursors.
func (c *cursor) compare(o *cursor) int {
	return format.Bound{Millis: o.entry.Millis, Hash: o.hash}.Compare(c.entry.Millis, c.hash)
}

// candidate is a segment that may hold keys of a range, as it was when a search began.
type candidate struct {
	seg        *segment
	minMs      int64
	maxMs      int64
	main, late []format.Entry // foot == nil
	arena      []byte
	foot       *format.Footer
	unread     bool
	hollow     bool
}

// snapshot appends to list the segments that may hold keys of the channel between two instants, oldest first, and pins them.
func (l *Log) snapshot(list []candidate, channel string, from, to int64) []candidate {
	hash := format.ChannelHash(channel)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		if !s.overlaps(from, to) {
			continue
		}
		c := candidate{seg: s, foot: s.foot, minMs: s.minMs, maxMs: s.maxMs, unread: s.unread, hollow: !s.hollow.IsZero()}
		switch {
		case c.unread, c.hollow: // it may
		case s.foot != nil:
			if _, ok := s.foot.MayHold(hash); !ok {
				continue
			}
		default:
			if c.main, c.late, c.arena = s.mem.Runs(channel); c.main == nil {
				continue
			}
		}
		s.pin()
		list = append(list, c)
	}
	return list
}

func (l *Log) releaseAll(list []candidate) {
	for _, c := range list {
		l.unpin(c.seg)
	}
}

// cursors opens the runs of a candidate for the keys from ≤ key < to, each at its first entry.
func (l *Log) cursors(c candidate, channel string, from, to format.Bound, reverse bool) ([]*cursor, error) {
	if c.unread {
		return nil, l.reread(c.seg)
	}
	if c.hollow {
		return nil, errHollow()
	}
	var list []*cursor
	add := func(cur *cursor) error {
		cur.seg, cur.reverse = c.seg, reverse
		ok, err := cur.advance()
		if ok {
			list = append(list, cur)
		}
		return err
	}
	if c.foot == nil {
		for _, run := range [2][]format.Entry{c.main, c.late} {
			if err := add(&cursor{run: run, arena: c.arena, pos: from.Lower(run, c.arena), end: to.Lower(run, c.arena)}); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	f, err := l.fileOf(c.seg)
	if err != nil {
		return nil, err
	}
	row, err := l.cache.row(c.foot, f, channel)
	if err != nil || row == nil {
		return nil, err
	}
	cur := &cursor{r: f, foot: c.foot, pos: row.Start, end: row.Start + row.Count}
	first, err := c.foot.Hash(f, &row.First)
	if err != nil {
		return nil, err
	}
	last, err := c.foot.Hash(f, &row.Last)
	if err != nil {
		return nil, err
	}
	if from.Compare(row.Last.Millis, last) < 0 || to.Compare(row.First.Millis, first) >= 0 {
		return nil, nil
	}
	fences := func() ([]byte, error) { return l.cache.fences(c.foot, f) }
	// One end is searched, the other one is recognized when the walk comes there.
	cur.stop = to
	if reverse {
		cur.stop = from
		if to.Compare(row.Last.Millis, last) >= 0 {
			cur.end, err = c.foot.Lower(f, fences, row, to)
		}
	} else if from.Compare(row.First.Millis, first) < 0 {
		cur.pos, err = c.foot.Lower(f, fences, row, from)
	}
	if err != nil {
		return nil, err
	}
	err = add(cur)
	return list, err
}
