package format

import (
	"bytes"
	"io"
)

// ScanWindow is how much a scan reads at once; a larger record is read whole.
const ScanWindow = 1 << 20

// Scan reads the groups of a segment without its footer.
type Scan struct {
	R     io.ReaderAt
	Salt  uint64
	Limit int64 // nothing at or after it is read
	Fixed bool  // everything below limit was acknowledged: what is not valid there is damage, never a torn tail
	Sure  int64 // the same, below this only
	// visit is called for each good record of a group; keep then says whether the group counts. Nothing is kept of what it points to.
	Visit func(r Raw, off int64)
	Keep  func(g Group, at int64, lows []Low, ok bool)
	// Hurt, if it is set, is told of damage before what comes after it is visited or kept.
	Hurt func(off, length int64)

	buf    []byte
	bufOff int64
	failed error
}

// Damage is a range of bytes of a segment that is no valid group or record. The keys that were there probably lie between the milliseconds From and To.
type Damage struct {
	Off, Length int64
	From, To    int64
}

// Scanned is what a scan found.
type Scanned struct {
	End       int64  // end of the last group that counts
	LastGroup int64  // where that one begins; 0: none
	groups    uint64 // sequence of the last group that counts
	Damage    []Damage
	Failed    error // a read failed, and not because the file has ended: the scan was given up, and what it says means nothing
}

// Run reads from dataStart on.
func (s *Scan) Run() Scanned {
	res := s.run()
	res.Failed = s.failed
	return res
}

func (s *Scan) run() Scanned {
	res := Scanned{End: DataStart}
	off := int64(DataStart)
	sure := s.Sure
	if s.Fixed {
		sure = s.Limit
	}
	for off < s.Limit {
		g, lows, ok := s.group(off, res.groups)
		if !ok {
			next := s.search(off+1, res.groups)
			if next < 0 {
				if off < sure {
					s.hurt(off, sure-off)
					res.Damage = append(res.Damage, Damage{Off: off, Length: sure - off})
					res.End = sure
				}
				return res
			}
			s.hurt(off, next-off)
			res.Damage = append(res.Damage, Damage{Off: off, Length: next - off})
			off = next
			continue
		}
		end := off + int64(g.Length)
		bad := s.records(g, off)
		if len(bad) > 0 && !s.acknowledged(off, end, g.Seq) {
			s.Keep(g, off, nil, false)
			return res
		}
		for _, d := range bad {
			s.hurt(d.Off, d.Length)
		}
		s.Keep(g, off, lows, true)
		res.Damage = append(res.Damage, bad...)
		res.End, res.LastGroup, res.groups = min(end, s.Limit), off, g.Seq
		off = end
	}
	return res
}

func (s *Scan) hurt(off, length int64) {
	if s.Hurt != nil {
		s.Hurt(off, length)
	}
}

// acknowledged reports whether the group from at to end was: only the last group of a segment can be one that was not synced.
func (s *Scan) acknowledged(at, end int64, seq uint64) bool {
	return s.Fixed || at < s.Sure || s.search(end, seq) >= 0
}

// Group reads the header at off. A group that goes beyond the limit is none, except where all was acknowledged: then its head is worth reading.
func (s *Scan) group(off int64, after uint64) (Group, []Low, bool) {
	b := s.at(off, GroupHead)
	need := GroupNeed(b, s.Salt)
	if need == 0 {
		return Group{}, nil, false
	}
	if b = s.at(off, need); len(b) < need {
		return Group{}, nil, false
	}
	g, err := ParseGroup(b, s.Salt)
	if err != nil || g.Seq <= after {
		return Group{}, nil, false
	}
	var lows []Low
	for i := range int(g.Lows) {
		lows = append(lows, parseLow(b[GroupHead+i*LowSize:]))
	}
	return g, lows, true
}

// Records visits the good records of a group and returns what is not good.
func (s *Scan) records(g Group, at int64) (bad []Damage) {
	end := at + int64(g.Length)
	off := at + GroupHead + int64(g.Lows)*LowSize
	count, sum := uint32(0), uint32(0)
	var last Flags
	var four [4]byte
	for off < end && off < s.Limit {
		r, err := s.record(off, end)
		if err != nil {
			next := s.resume(off, end)
			bad = append(bad, Damage{Off: off, Length: next - off})
			off = next
			continue
		}
		s.Visit(r, off)
		le.PutUint32(four[:], r.crc)
		sum = crcUpdate(sum, four[:])
		count, last = count+1, r.Flags
		off += int64(r.Size)
	}
	if off < end {
		bad = append(bad, Damage{Off: off, Length: end - off})
	}
	if len(bad) == 0 && (count != g.Records || sum != g.Sum || last&MoreFollows != 0) {
		bad = append(bad, Damage{Off: at, Length: GroupHead})
	}
	return bad
}

func (s *Scan) record(off, end int64) (Raw, error) {
	n := recordLength(s.at(off, 4))
	if n == 0 || off+int64(n) > end {
		return Raw{}, ErrFormat
	}
	return ParseRecord(s.at(off, n))
}

// resume finds the next good record of a group after a bad one at off, if the bad one's length can be believed; else the end of the group.
func (s *Scan) resume(off, end int64) int64 {
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
func (s *Scan) search(off int64, after uint64) int64 {
	var pattern [12]byte
	le.PutUint32(pattern[:], groupMagic)
	le.PutUint64(pattern[4:], s.Salt)
	for off < s.Limit {
		b := s.at(off, int(min(ScanWindow, s.Limit-off)))
		if len(b) < GroupHead {
			return -1
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
func (s *Scan) at(off int64, n int) []byte {
	n = int(min(int64(n), max(0, s.Limit-off)))
	if n == 0 {
		return nil
	}
	if off >= s.bufOff && off+int64(n) <= s.bufOff+int64(len(s.buf)) {
		return s.buf[off-s.bufOff:][:n]
	}
	want := int(min(int64(max(n, ScanWindow)), s.Limit-off))
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	got, err := s.R.ReadAt(s.buf[:want], off)
	if err != nil && err != io.EOF {
		s.failed, s.Limit = err, 0 // which ends the scan
		return nil
	}
	s.buf, s.bufOff = s.buf[:max(got, 0)], off
	return s.buf[:min(n, len(s.buf))]
}
