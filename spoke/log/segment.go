package log

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

const (
	segmentSuffix = ".seg"
	idleFiles     = 64 // open files of segments that nobody reads at the moment
)

// segment is one file of the log. What changes is guarded by Log.mu.
type segment struct {
	seq, salt uint64
	name      string // path on the disk

	// Guarded by Log.mu.
	refs    int            // readers, the sealer, the committer
	file    disk.File      // nil: not open
	removed bool           // unlinked: the last reader closes
	length  int64          // bytes that are acknowledged: data starts of groups only below it
	size    int64          // bytes of the file, footer included
	mem     *format.Index  // the index, until foot is there
	foot    *format.Footer // nil: no footer yet
	named   []Stream       // streams that its groups named, as far as mem does not say it
	failed  bool           // a write or a sync failed: never written again by this process
	unread  bool           // it could not be read at the start (see unread.go)
	hollow  time.Time      // since then it has holes that somebody can mend, and no read of what it held is answered; zero: it has none
	tried   time.Time      // when it was tried last
	strikes int            // reads of the footer that failed
	records int
	minMs   int64 // of all keys; minMs > maxMs: no records
	maxMs   int64
	last    hub.Key // highest key
	closed  int64   // ms: when the last group was written
}

func newSegment(dir string, seq, salt uint64) *segment {
	return &segment{
		seq: seq, salt: salt, name: segmentName(dir, seq),
		length: format.DataStart, size: format.DataStart, mem: format.NewIndex(), minMs: math.MaxInt64, maxMs: math.MinInt64,
	}
}

func segmentName(dir string, seq uint64) string {
	return fmt.Sprintf("%s/%016x%s", dir, seq, segmentSuffix)
}

// parseSegmentName reads the sequence out of the last element of a name.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil && seq > 0 && fmt.Sprintf("%016x", seq) == digits
}

// add takes the records of a group into the index.
func (s *segment) add(list []format.Named) {
	if len(list) == 0 {
		return
	}
	top := &list[0]
	for i := range list {
		n := &list[i]
		s.minMs, s.maxMs = min(s.minMs, n.Millis), max(s.maxMs, n.Millis)
		if c := cmp.Compare(n.Millis, top.Millis); c > 0 || c == 0 && bytes.Compare(n.HashBytes(), top.HashBytes()) > 0 {
			top = n
		}
	}
	if k := format.KeyOf(top.Millis, top.HashBytes()); s.records == 0 || s.last.Less(k) {
		s.last = k
	}
	s.records += len(list)
	s.mem.Add(list)
}

// recordBytes is the size of all records. Log.mu is held.
func (s *segment) recordBytes() int64 {
	if s.foot != nil {
		return s.foot.Bytes
	}
	return s.mem.Bytes
}

// overlaps reports whether the segment may hold keys of these milliseconds.
func (s *segment) overlaps(from, to int64) bool { return s.minMs <= to && from <= s.maxMs }

// pin keeps the segment's file from being closed until unpin. Log.mu is held.
func (s *segment) pin() { s.refs++ }

// unpin gives a pin back; the last one closes what is removed or too much.
func (l *Log) unpin(segs ...*segment) {
	for _, s := range segs {
		l.mu.Lock()
		s.refs--
		var f disk.File
		if s.refs == 0 && s.file != nil && (s.removed || l.open > idleFiles) {
			f, s.file = s.file, nil
			l.open--
		}
		l.mu.Unlock()
		if f != nil {
			f.Close()
		}
	}
}

// fileOf returns the open file of a pinned segment.
func (l *Log) fileOf(s *segment) (disk.File, error) {
	l.mu.Lock()
	f := s.file
	l.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := l.opt.Disk.Open(s.name, false)
	if err != nil {
		return nil, cannotRead(fmt.Errorf("open segment %s: %w", s.name, err))
	}
	l.mu.Lock()
	other := s.file
	if other == nil {
		l.adopt(s, f)
	}
	l.mu.Unlock()
	if other != nil { // somebody else was faster
		f.Close()
		return other, nil
	}
	return f, nil
}

// adopt makes f the file of a segment that nobody else knows yet, or that has none. Log.mu is held.
func (l *Log) adopt(s *segment, f disk.File) {
	s.file = f
	l.open++
}
