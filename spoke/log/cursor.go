package log

import "io"

// cursor walks over one sorted run of entries of a channel: a slice of an index in memory, or a range of a footer.
type cursor struct {
	seg     *segment
	reverse bool

	run   []entry // in memory
	arena []byte

	r    io.ReaderAt // in a footer
	foot *footer
	rows []byte // raw entries, from base on
	base int
	step int // pages to read next

	pos, end int   // what is left: pos ≤ i < end
	stop     bound // in a footer: the walk ends before this key, or with reverse below it

	entry entry  // the current one
	hash  []byte // its hash; good until the next call of advance
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
		c.hash = c.entry.hashIn(c.arena)
		return true, nil
	}
	if i < c.base || i >= c.base+len(c.rows)/entrySize {
		if err := c.load(i); err != nil {
			return false, err
		}
	}
	c.entry = parseEntry(c.rows[(i-c.base)*entrySize:])
	var err error
	if c.hash, err = c.foot.hash(c.r, &c.entry); err != nil {
		return false, err
	}
	if d := c.stop.compare(c.entry.ms, c.hash); d >= 0 && !c.reverse || d < 0 && c.reverse {
		c.pos = c.end
		return false, nil
	}
	return true, nil
}

// load reads whole pages from entry i on, in the direction of the walk, more each time.
func (c *cursor) load(i int) error {
	c.step = min(max(1, c.step*2), maxStep)
	page := i / perPage
	from, to := page*perPage, (page+c.step)*perPage
	if c.reverse {
		from, to = (page+1-c.step)*perPage, (page+1)*perPage
		from, to = max(from, c.pos), min(to, i+1)
	} else {
		from, to = max(from, i), min(to, c.end)
	}
	var err error
	c.rows, err = c.foot.entriesAt(c.r, from, to)
	c.base = from
	return err
}

// compare orders the current entries of two cursors.
func (c *cursor) compare(o *cursor) int {
	return bound{o.entry.ms, o.hash}.compare(c.entry.ms, c.hash)
}

// candidate is a segment that may hold keys of a range, as it was when a search began.
type candidate struct {
	seg        *segment
	minMs      int64
	maxMs      int64
	main, late []entry // foot == nil
	arena      []byte
	foot       *footer
}

// snapshot pins the segments that may hold keys of the channel between two instants, oldest first.
func (l *Log) snapshot(channel string, from, to int64) []candidate {
	hash := channelHash(channel)
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []candidate
	for _, s := range l.segs {
		if !s.overlaps(from, to) {
			continue
		}
		c := candidate{seg: s, foot: s.foot, minMs: s.minMs, maxMs: s.maxMs}
		if s.foot != nil {
			if _, ok := s.foot.mayHold(hash); !ok {
				continue
			}
		} else if c.main, c.late, c.arena = s.mem.runs(channel); c.main == nil {
			continue
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
func (l *Log) cursors(c candidate, channel string, from, to bound, reverse bool) ([]*cursor, error) {
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
		for _, run := range [2][]entry{c.main, c.late} {
			if err := add(&cursor{run: run, arena: c.arena, pos: from.lower(run, c.arena), end: to.lower(run, c.arena)}); err != nil {
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
	cur := &cursor{r: f, foot: c.foot, pos: row.start, end: row.start + row.count}
	first, err := c.foot.hash(f, &row.first)
	if err != nil {
		return nil, err
	}
	last, err := c.foot.hash(f, &row.last)
	if err != nil {
		return nil, err
	}
	if from.compare(row.last.ms, last) < 0 || to.compare(row.first.ms, first) >= 0 {
		return nil, nil
	}
	// One end is searched, the other one is recognized when the walk comes there.
	cur.stop = to
	if reverse {
		cur.stop = from
		if to.compare(row.last.ms, last) >= 0 {
			cur.end, err = c.foot.lower(f, l.cache, row, to)
		}
	} else if from.compare(row.first.ms, first) < 0 {
		cur.pos, err = c.foot.lower(f, l.cache, row, from)
	}
	if err != nil {
		return nil, err
	}
	err = add(cur)
	return list, err
}
