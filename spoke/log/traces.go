package log

import (
	"slices"

	"timehub/hub"
)

// Traces lists the streams of which a record may lie in the log: every group names, with its lows, all streams that were not complete when it was written, and that is when
// records of a stream are written. sure is false while the log cannot tell: there is a hole, a segment that cannot be read, or something that a sweep has carried from
// one segment to another.
func (l *Log) Traces() (streams map[Stream]bool, sure bool) {
	streams, sure = map[Stream]bool{}, true
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		for _, name := range s.named {
			streams[name] = true
		}
		flags := Flags(0)
		if s.foot != nil {
			flags = s.foot.Flags
		}
		if s.mem != nil {
			flags |= s.mem.Flags
			for name := range s.mem.Lows {
				streams[name] = true
			}
		}
		hole := slices.ContainsFunc(l.holes, func(h Hole) bool { return h.Segment == s.seq })
		sure = sure && !s.unread && !hole && flags&Carried == 0
	}
	for _, h := range l.holes { // a file that does not even say what is in it
		sure = sure && h.To != hub.MaxKey
	}
	return streams, sure
}

func namesOf(lows []Low) []Stream {
	list := make([]Stream, len(lows))
	for i, low := range lows {
		list[i] = low.Stream
	}
	return list
}
