package log

import (
	"bytes"
	"io"
)

// scanWindow is how much a scan reads at once; a larger record is read whole.
const scanWindow = 1 << 20

// scan reads the groups of a segment without its footer.
type scan struct {
	r     io.ReaderAt
	salt  uint64
	limit int64 // nothing at or after it is read
	fixed bool  // everything below limit was acknowledged: what is not valid there is damage, never a torn tail
	// visit is called for each good record of a group; keep then says whether the group counts. Nothing is kept of what it points to.
	visit func(r raw, off int64)
	keep  func(g group, at int64, lows []Low, ok bool)

	buf    []byte
	bufOff int64
}

// damage is a range of bytes that is no valid group or record.
type damage struct{ off, length int64 }

// scanned is what a scan found.
type scanned struct {
	end       int64  // end of the last group that counts
	lastGroup int64  // where that one begins; 0: none
	groups    uint64 // sequence of the last group that counts
	damage    []damage
}

// run reads from dataStart on.
func (s *scan) run() scanned {
	res := scanned{end: dataStart}
	off := int64(dataStart)
	for off < s.limit {
		g, lows, ok := s.group(off, res.groups)
		if !ok {
			next := s.search(off+1, res.groups)
			if next < 0 {
				if s.fixed {
					res.damage = append(res.damage, damage{off, s.limit - off})
					res.end = s.limit
				}
				return res
			}
			res.damage = append(res.damage, damage{off, next - off})
			off = next
			continue
		}
		end := off + int64(g.length)
		bad := s.records(g, off)
		if len(bad) > 0 && !s.acknowledged(end, g.seq) {
			s.keep(g, off, nil, false)
			return res
		}
		s.keep(g, off, lows, true)
		res.damage = append(res.damage, bad...)
		res.end, res.lastGroup, res.groups = min(end, s.limit), off, g.seq
		off = end
	}
	return res
}

// acknowledged reports whether the group that ends at end was: only the last group of a segment can be one that was not synced.
func (s *scan) acknowledged(end int64, seq uint64) bool {
	return s.fixed || s.search(end, seq) >= 0
}

// group reads the header at off. A group that goes beyond the limit is none, except where all was acknowledged: then its head is worth reading.
func (s *scan) group(off int64, after uint64) (group, []Low, bool) {
	b := s.at(off, groupHead)
	need := groupNeed(b, s.salt)
	if need == 0 {
		return group{}, nil, false
	}
	if b = s.at(off, need); len(b) < need {
		return group{}, nil, false
	}
	g, err := parseGroup(b, s.salt)
	if err != nil || g.seq <= after {
		return group{}, nil, false
	}
	var lows []Low
	for i := range int(g.lows) {
		lows = append(lows, parseLow(b[groupHead+i*lowSize:]))
	}
	return g, lows, true
}

// records visits the good records of a group and returns what is not good.
func (s *scan) records(g group, at int64) (bad []damage) {
	end := at + int64(g.length)
	off := at + groupHead + int64(g.lows)*lowSize
	count, sum := uint32(0), uint32(0)
	var last Flags
	var four [4]byte
	for off < end && off < s.limit {
		r, err := s.record(off, end)
		if err != nil {
			next := s.resume(off, end)
			bad = append(bad, damage{off, next - off})
			off = next
			continue
		}
		s.visit(r, off)
		le.PutUint32(four[:], r.crc)
		sum = crcUpdate(sum, four[:])
		count, last = count+1, r.flags
		off += int64(r.size)
	}
	if off < end {
		bad = append(bad, damage{off, end - off})
	}
	if len(bad) == 0 && (count != g.records || sum != g.sum || last&MoreFollows != 0) {
		bad = append(bad, damage{at, groupHead})
	}
	return bad
}

func (s *scan) record(off, end int64) (raw, error) {
	n := recordLength(s.at(off, 4))
	if n == 0 || off+int64(n) > end {
		return raw{}, errFormat
	}
	return parseRecord(s.at(off, n))
}

// resume finds the next good record of a group after a bad one at off, if the bad one's length can be believed; else the end of the group.
func (s *scan) resume(off, end int64) int64 {
	n := recordLength(s.at(off, 4))
	if n == 0 || off+int64(n) > end {
		return end
	}
	next := off + int64(n)
	if next < end {
		if _, err := s.record(next, end); err != nil {
			return end
		}
	}
	return next
}

// search returns the offset of the first valid group header at or after off whose sequence is higher than after; -1 if there is none.
func (s *scan) search(off int64, after uint64) int64 {
	var pattern [12]byte
	le.PutUint32(pattern[:], groupMagic)
	le.PutUint64(pattern[4:], s.salt)
	for off < s.limit {
		b := s.at(off, int(min(scanWindow, s.limit-off)))
		if len(b) < groupHead {
			if s.limit-off < groupHead {
				return -1
			}
			off += 4096 // a part of the disk that cannot be read
			continue
		}
		i := bytes.Index(b, pattern[:])
		if i < 0 {
			off += int64(len(b)) - int64(len(pattern)) + 1
			continue
		}
		off += int64(i)
		if _, _, ok := s.group(off, after); ok {
			return off
		}
		off++
	}
	return -1
}

// at returns n bytes at off, or what there is of them; the result is good until the next call.
func (s *scan) at(off int64, n int) []byte {
	n = int(min(int64(n), max(0, s.limit-off)))
	if n == 0 {
		return nil
	}
	if off >= s.bufOff && off+int64(n) <= s.bufOff+int64(len(s.buf)) {
		return s.buf[off-s.bufOff:][:n]
	}
	want := int(min(int64(max(n, scanWindow)), s.limit-off))
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	got, _ := s.r.ReadAt(s.buf[:want], off) // what cannot be read is damage
	s.buf, s.bufOff = s.buf[:max(got, 0)], off
	return s.buf[:min(n, len(s.buf))]
}
