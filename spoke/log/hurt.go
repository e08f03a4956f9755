package log

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// Hurt is what a log with holes that were not mended can still be sure of.
type Hurt struct {
	Holes  []Hole
	Before map[Stream]hub.Mark // the lows that were logged before the first of them: what was decided at or below lies before it
	After  map[Stream]bool     // streams of which something was logged as not complete in the segment of the first, or later
}

// learn takes in the lows of a segment; they come in the order of the segments.
func (h *Hurt) learn(seq uint64, lows []Low) {
	for _, low := range lows {
		if slices.ContainsFunc(h.Holes, func(o Hole) bool { return o.Segment <= seq }) {
			h.After[low.Stream] = true
		} else {
			h.Before[low.Stream] = max(h.Before[low.Stream], low.Mark)
		}
	}
}

// Hurt tells of the holes that Open found and Options.Mended did not know, or Mended has not been told of; false: there is none.
func (l *Log) Hurt() (Hurt, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hurt, len(l.hurt.Holes) > 0
}

// Mended is told that what was lost in some holes has been put into the log again.
func (l *Log) Mended(holes []Hole) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurt.Holes = slices.DeleteFunc(slices.Clone(l.hurt.Holes), func(h Hole) bool { return slices.Contains(holes, h) })
	l.hollow = slices.DeleteFunc(slices.Clone(l.hollow), func(h Hole) bool { return slices.Contains(holes, h) })
	for _, s := range l.segs {
		if !s.hollow.IsZero() && !slices.ContainsFunc(l.hollow, func(h Hole) bool { return h.Segment == s.seq }) {
			s.hollow = time.Time{}
		}
	}
}

// Hollow is a segment of which a part was lost while the log runs: its index was damaged, and so were records of it, so nobody knows which ones they were. Reads of anything that it
// may have held are Unavailable until its holes are Mended.
type Hollow struct {
	Holes    []Hole
	From, To hub.Mark // what it held was minted above From, and not above To
	Since    time.Time
}

// Hollow lists them.
func (l *Log) Hollow() (list []Hollow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.hollow) == 0 {
		return nil
	}
	for _, s := range l.segs {
		if s.hollow.IsZero() {
			continue
		}
		h := Hollow{To: hub.MarkAt(s.maxMs+1) - 1, Since: s.hollow}
		if s.minMs > 0 {
			h.From = hub.MarkAt(s.minMs) - 1
		}
		for _, o := range l.hollow {
			if o.Segment == s.seq {
				h.Holes = append(h.Holes, o)
			}
		}
		list = append(list, h)
	}
	return list
}

// hollowed takes in the holes that were found in a segment while the log runs, and reports whether reads have to wait for somebody who mends them: then the segment keeps the extent
// that it had. Log.mu is held.
func (l *Log) hollowed(s *segment, holes []format.Damage) bool {
	for _, d := range holes {
		h := holeOf(s.seq, d)
		l.holes = append(l.holes, h)
		if l.opt.Damaged != nil && !l.opt.Mended(h) {
			l.hollow = append(l.hollow, h)
			s.hollow = time.Now()
		}
	}
	return !s.hollow.IsZero()
}

// errHollow is the answer to who may need what was lost.
func errHollow() error {
	return cannotRead(errors.New("it is damaged, and was not copied from another node yet"))
}

// errLost says that something of a stream may be lost here.
func errLost(s *segment, err error) error {
	return fmt.Errorf("segment %s: %w: %w", s.name, ErrDamaged, err)
}

// rescue reads the records of a stream that lie in a damaged part of a pinned segment: each by itself, or where the log has it again. It fails if one cannot be
// read, or if nobody knows which ones there were.
func (l *Log) rescue(v *visit, s *segment, off, length int64) (list []Record, err error) {
	l.mu.Lock()
	for _, h := range slices.Concat(l.hurt.Holes, l.hollow) {
		if h.Segment == s.seq && h.Offset < off+length && off < h.Offset+h.Length {
			l.mu.Unlock()
			return nil, errLost(s, errors.New("a hole"))
		}
	}
	l.mu.Unlock()
	var places []placed
	rows, err := l.channelsOf(s)
	for _, row := range rows {
		if err != nil {
			break
		}
		err = l.own(s, row.name, row.first, row.last.After(), func(h *hit) error {
			if at := int64(h.entry.Off); off <= at && at < off+length {
				places = append(places, placed{seg: s, entry: h.entry, channel: row.name, key: h.key()})
			}
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	for i := range places {
		p := &places[i]
		r, err := l.placedRecord(s, p)
		if err != nil && (l.opt.StreamOf != nil || p.entry.Flags&GivenUp == 0) {
			r, err = l.otherwise(v.ctx, s, p)
		}
		switch {
		case err == nil && r.Stream == v.stream:
			list = append(list, r)
		case err == nil || !l.concerns(v, p):
		case v.from.Lenient:
			if v.from.Lost != nil && minted(p.entry.Flags) && l.opt.StreamOf != nil {
				v.from.Lost(p.channel, p.key)
			}
		case !errors.Is(err, errGone):
			return nil, errLost(s, err)
		}
	}
	return list, nil
}
