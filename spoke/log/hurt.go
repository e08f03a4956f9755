package log

import (
	"errors"
	"fmt"
	"slices"

	"timehub/hub"
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
}

// errLost says that something of a stream may be lost here.
func errLost(s *segment, err error) error {
	return fmt.Errorf("segment %s: %w: %w", s.name, ErrDamaged, err)
}

// rescue reads the records of a stream that lie in a damaged part of a pinned segment: each by itself, or where the log has it again. It fails if one cannot be
// read, or if nobody knows which ones there were.
func (l *Log) rescue(v *visit, s *segment, off, length int64) (list []Record, err error) {
	l.mu.Lock()
	for _, h := range l.hurt.Holes {
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
			if v.from.Lost != nil {
				v.from.Lost(p.channel, p.key)
			}
		case !errors.Is(err, errGone):
			return nil, errLost(s, err)
		}
	}
	return list, nil
}
