package log

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

// scanSegment reads the groups of a file that has no good footer.
func (r *recovery) scanSegment(f *segmentFile, s *segment) error {
	l := r.l
	sure := r.sure(f, s.salt)
	limit := max(f.size, sure)
	if f.fixed != nil {
		limit = f.fixed.PrevLength
	}
	res := scanInto(f.file, s, limit, f.fixed != nil, sure)
	r.found.Scanned++
	switch {
	case res.Failed != nil && f.fixed == nil:
		return noEnd(res.Failed)
	case res.Failed != nil:
		l.log.Error("a segment cannot be read; it is tried again", "segment", f.name, "err", res.Failed)
		*s = *newSegment(l.opt.Dir, s.seq, s.salt)
		s.unreadSegment(limit, f.fixed.PrevLast)
		l.unreadSegs++
		r.take(f, s, nil, nil)
		return nil
	}
	s.length, s.size = res.End, max(f.size, sure)
	if s.records > 0 {
		s.closed = s.maxMs
	}
	if f.fixed != nil && limit > f.size {
		s.mem.AddHole(format.Damage{Off: f.size, Length: limit - f.size})
	}
	for _, d := range s.mem.Holes {
		r.hole(holeOf(f.seq, d))
	}
	if f.fixed == nil {
		if cut := f.size - res.End; cut > 0 {
			r.found.Cut += cut
			l.log.Warn("the end of a segment was not finished before the last stop; it is cut", "segment", f.name, "bytes", cut)
		}
		if res.LastGroup == 0 && len(res.Damage) == 0 && f.linkErr != nil {
			l.voids = append(l.voids, f.seq) // its first group was not finished; a link alone has to stay
			return nil
		}
		if sure == 0 {
			if err := rewrite(l.opt.Disk, f.name, format.HeadSize, format.DataStart); err != nil {
				return err
			}
		}
		if res.LastGroup > 0 && res.End > sure {
			if err := rewrite(l.opt.Disk, f.name, res.LastGroup, res.End); err != nil {
				return err
			}
		}
	}
	r.take(f, s, format.SortedLows(s.mem.Lows), s.mem.Complete)
	l.sealLater(s)
	return nil
}

// scanInto reads the groups of a file into the index of a segment.
func scanInto(f disk.File, s *segment, limit int64, fixed bool, sure int64) format.Scanned {
	var list, marks []format.Named
	var intern = map[string]string{}
	sc := format.Scan{R: f, Salt: s.salt, Limit: limit, Fixed: fixed, Sure: sure}
	sc.Visit = func(r format.Raw, off int64) {
		if off+int64(r.Size) > math.MaxUint32 {
			return
		}
		name, ok := intern[string(r.Channel)]
		if !ok {
			name = string(r.Channel)
			intern[name] = name
		}
		n := format.NewNamed(name, r.Millis, r.Hash, r.Flags, off, r.Size)
		if r.Flags&Complete != 0 {
			marks = append(marks, n)
			return
		}
		list = append(list, n)
	}
	sc.Keep = func(g format.Group, _ int64, lows []Low, ok bool) {
		if ok {
			s.add(list)
			format.MergeLows(s.mem.Lows, lows)
			for i := range marks {
				s.mem.AddComplete(marks[i].Channel, marks[i].Key())
			}
		}
		clear(list)
		list, marks = list[:0], marks[:0]
	}
	res := sc.Run()
	for _, d := range res.Damage {
		s.mem.AddHole(d)
	}
	return res
}

// holeOf is damage as it is reported.
func holeOf(seq uint64, d format.Damage) Hole {
	h := Hole{Segment: seq, Offset: d.Off, Length: d.Length, From: hub.MinKey, To: hub.MaxKey}
	if d.From > h.From.Millis() {
		h.From = hub.KeyAt(d.From, "")
	}
	if d.To < h.To.Millis() {
		h.To = hub.Last(time.UnixMilli(d.To))
	}
	return h
}

// rewrite writes a link, the last group or the trailer of a file again, as it was read, and syncs it: it may be in the memory of the system only, and after a failed
// sync a further sync would not write it.
func rewrite(d disk.Disk, name string, from, to int64) (err error) {
	f, err := d.Open(name, true)
	if err != nil {
		return fmt.Errorf("open for writing: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, format.ScanWindow)
	for from < to {
		b := buf[:min(int64(len(buf)), to-from)]
		if n, err := f.ReadAt(b, from); n < len(b) {
			return fmt.Errorf("read what was written last: %w", err)
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return fmt.Errorf("write it again: %w", err)
		}
		from += int64(len(b))
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync it: %w", err)
	}
	return nil
}

// rebuild scans a segment whose footer turned out to be damaged; from then on its index is held in memory.
func (l *Log) rebuild(s *segment) error {
	f, err := l.fileOf(s)
	if err != nil {
		return err
	}
	l.mu.Lock()
	foot, length := s.foot, s.length
	l.mu.Unlock()
	if foot == nil {
		return nil // somebody else has done it
	}
	fresh := newSegment(l.opt.Dir, s.seq, s.salt)
	res := scanInto(f, fresh, length, true, 0)
	if res.Failed != nil {
		return cannotRead(res.Failed)
	}
	l.mu.Lock()
	first := s.foot != nil
	if first {
		s.foot, s.mem, s.failed = nil, fresh.mem, true
		s.records = fresh.records // last stays: the floor passes what was lost, too, when the segment goes
		l.damageCount += int64(1 + len(res.Damage))
		if !l.hollowed(s, slices.DeleteFunc(slices.Clone(fresh.mem.Holes), func(d format.Damage) bool { return slices.Contains(foot.Holes, d) })) {
			s.minMs, s.maxMs = fresh.minMs, fresh.maxMs
		}
	}
	hollow := !s.hollow.IsZero()
	l.mu.Unlock()
	if first {
		if hollow {
			l.opt.Damaged()
		}
		l.metrics.damaged.Add(int64(1 + len(res.Damage)))
		l.log.Error("the footer of a segment is damaged; the segment was scanned", "segment", s.name, "holes", len(res.Damage))
	}
	return nil
}
