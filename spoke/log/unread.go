package log

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// What cannot be read at the moment may be whole: a cable, a controller, a file system over a network come back. Nobody may take it for damaged then, which
// would let the archiver go past it and a sweep remove it. So a read that fails is an answer that fails (Unavailable), and is tried again:
//
//   - a record by the next who wants it. When it cannot be read for damageAfter, it counts as damaged: a medium that is broken must not stop the archiver;
//   - a page of a footer by the next who wants it; the second failure has the segment scanned;
//   - a segment that has to be scanned at a start, by the next who wants something that it may hold, and by each sweep. Until then it is neither sealed nor
//     removed. The last segment has to be read: nothing else says where it ends, so Open fails.
const (
	damageAfter = 10 * time.Minute
	rereadPause = time.Second
)

// readFailed reports whether a read failed, rather than found the end of the file.
func readFailed(err error) bool { return err != nil && err != io.EOF }

// cannotRead is the answer to who needs what cannot be read now.
func cannotRead(err error) error {
	e := hub.E(hub.Unavailable, "a part of the log cannot be read from the disk at the moment: try again").Because(err)
	e.RetryAfter = rereadPause
	return e
}

// noEnd refuses a start: nothing but what cannot be read says how much of the last segment was acknowledged.
func noEnd(err error) error {
	return fmt.Errorf("the disk does not give what says where the log ends: start again; if that does not help, copy the file with a tool that leaves out what "+
		"it cannot read, or move it away, which loses what is in it: %w", err)
}

// recordUnread is the error of a record that could not be read.
func (l *Log) recordUnread(s *segment, e *format.Entry, channel string, key hub.Key, err error) error {
	place, now := damagedPlace{s.seq, e.Off}, time.Now()
	l.mu.Lock()
	since, known := l.unread[place]
	if !known && len(l.unread) < damageKept {
		l.unread[place] = now
		l.unreads.Store(int32(len(l.unread)))
	}
	l.mu.Unlock()
	if known && now.Sub(since) >= damageAfter {
		return l.damaged(s, e, channel, key, err)
	}
	if !known {
		l.log.Warn("a record cannot be read", "segment", s.name, "offset", e.Off, "channel", channel, "key", key, "err", err)
	}
	return cannotRead(err)
}

// recordRead notes that a record could be read.
func (l *Log) recordRead(s *segment, e *format.Entry) {
	if l.unreads.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unread, damagedPlace{s.seq, e.Off})
	l.unreads.Store(int32(len(l.unread)))
}

// unreadSegment makes a segment one of which nothing is known but that it holds acknowledged bytes up to length, with keys up to a millisecond.
func (s *segment) unreadSegment(length, lastMs int64) {
	s.length, s.unread, s.minMs, s.maxMs = length, true, math.MinInt64, lastMs
}

// reread scans a pinned segment that could not be read before: errAgain when that is done, by this call or another one.
func (l *Log) reread(s *segment) error {
	l.mu.Lock()
	unread, soon := s.unread, time.Since(s.tried) < rereadPause
	if unread && !soon {
		s.tried = time.Now()
	}
	l.mu.Unlock()
	switch {
	case !unread:
		return errAgain
	case soon:
		return cannotRead(nil)
	}
	f, err := l.fileOf(s)
	if err != nil {
		return err
	}
	fresh := newSegment(l.opt.Dir, s.seq, s.salt)
	if res := scanInto(f, fresh, s.length, true, 0); res.Failed != nil {
		return cannotRead(res.Failed)
	}
	l.mu.Lock()
	if !s.unread {
		l.mu.Unlock()
		return errAgain
	}
	l.unreadSegs--
	s.unread, s.mem, s.records = false, fresh.mem, fresh.records
	s.last, s.closed = fresh.last, fresh.maxMs
	if !l.hollowed(s, s.mem.Holes) {
		s.minMs, s.maxMs = fresh.minMs, fresh.maxMs
	}
	l.learn(format.SortedLows(s.mem.Lows))
	for name, upTo := range s.mem.Complete {
		l.learnComplete(name, upTo, s.seq)
	}
	l.sealLater(s)
	holes, hollow := len(s.mem.Holes), !s.hollow.IsZero()
	l.mu.Unlock()
	if hollow {
		l.opt.Damaged()
	}
	token(l.sealWake)
	l.metrics.damaged.Add(int64(holes))
	l.log.Info("a segment could be read after all", "segment", s.name, "records", fresh.records, "holes", holes)
	return errAgain
}

// rereadAll tries the segments that could not be read.
func (l *Log) rereadAll() {
	var list []*segment
	l.mu.Lock()
	for _, s := range l.segs {
		if s.unread {
			s.pin()
			list = append(list, s)
		}
	}
	l.mu.Unlock()
	defer l.unpin(list...)
	for _, s := range list {
		if err := l.reread(s); !errors.Is(err, errAgain) {
			l.log.Error("a segment cannot be read; its file stays, and whoever needs it is told so. If the disk never gives it back: copy the file with a tool "+
				"that leaves out what it cannot read, or move it away, while the hub is stopped", "segment", l.opt.Disk.Path(s.name), "err", err)
		}
	}
}
