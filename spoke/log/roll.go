package log

import (
	"context"
	"errors"
	"fmt"
	"time"

	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

// room makes sure that there is an active segment with room for a group; false if ctx ended before there was one.
func (c *committer) room(ctx context.Context, size int64, records int) bool {
	if c.active == nil {
		return c.reopen(ctx, true)
	}
	o := &c.l.opt
	if !c.linked || c.active.length+size <= o.SegmentBytes && c.active.records+records <= o.SegmentRecords {
		return true
	}
	select {
	case p := <-c.l.prepared:
		c.ready(p)
	default:
	}
	if c.next == nil {
		c.ask()
		if c.active.length+size <= 2*o.SegmentBytes && c.active.records+records <= 2*o.SegmentRecords {
			return true // it will be there soon; nobody has to wait for it
		}
		if c.asked {
			c.ready(<-c.l.prepared)
		}
	}
	if c.next == nil { // the disk makes trouble: go on here as long as that is possible
		return c.active.length+size <= format.MaxSegment-format.MaxBatch || c.reopen(ctx, c.retire())
	}
	return c.roll() || c.reopen(ctx, false)
}

// ask wants the next segment.
func (c *committer) ask() {
	if c.next == nil && !c.asked && !time.Now().Before(c.askAfter) {
		c.asked = true
		token(c.l.prepare)
	}
}

// roll makes the next segment, which is prepared, the active one. It fails if what the old one holds cannot be synced.
func (c *committer) roll() bool {
	ok := c.retire()
	if ok {
		c.use(*c.next)
		c.next = nil
	}
	return ok
}

// retire closes the active segment and queues it for its footer.
func (c *committer) retire() bool {
	if !c.dirty.IsZero() {
		if err := c.sync(); err != nil {
			c.fault(err)
			return false
		}
	}
	l, s := c.l, c.active
	l.mu.Lock()
	if c.linked {
		c.prev = previous{s.seq, s.salt, s.length, s.maxMs}
		l.sealLater(s)
	} else {
		l.drop(s)
		l.voids = append(l.voids, s.seq)
	}
	l.mu.Unlock()
	l.unpin(s)
	c.active, c.file = nil, nil
	token(l.sealWake)
	return true
}

// use makes a prepared segment the active one.
func (c *committer) use(p prepared) {
	c.active, c.file, c.linked, c.groups, c.dirty = p.seg, p.file, false, 0, time.Time{}
	l := c.l
	l.mu.Lock()
	p.seg.pin()
	l.adopt(p.seg, p.file)
	l.insert(p.seg)
	l.mu.Unlock()
}

// fault gives the active segment up after a failed write or sync: nothing is written to that file again.
func (c *committer) fault(err error) {
	l, s := c.l, c.active
	l.failed("a write to the log failed; a new segment is begun", fmt.Errorf("%s: %w", s.name, err))
	l.mu.Lock()
	s.failed = true
	if c.linked { // also when it holds nothing but a link: that may be all that says what was lost
		c.prev = previous{s.seq, s.salt, s.length, s.maxMs}
	} else {
		l.drop(s)
		l.voids = append(l.voids, s.seq)
	}
	l.mu.Unlock()
	l.unpin(s)
	c.active, c.file = nil, nil
}

// failed counts a failed write.
func (l *Log) failed(msg string, err error) {
	l.metrics.failures.Add(1)
	l.mu.Lock()
	l.failures++
	l.full = l.full || errors.Is(err, disk.ErrFull)
	broken := l.failures >= tooMany && !l.broken
	l.broken = l.broken || l.failures >= tooMany
	l.mu.Unlock()
	l.log.Error(msg, "err", err)
	if broken {
		l.log.Error("the disk failed too often in a row: writes are refused until a new segment can be made", "failures", tooMany)
	}
}

// reopen begins a new segment, trying until that works or ctx ends. Unless clean, its link is written and synced at once: it fixes the length of the
// segment that failed, so that what was not acknowledged there can never come back.
func (c *committer) reopen(ctx context.Context, clean bool) bool {
	pause := firstRetry
	c.stalled = false
	for {
		err := c.open(clean)
		if err == nil {
			l := c.l
			l.mu.Lock()
			if c.stalled = l.broken; l.broken {
				l.broken, l.failures = false, tooMany-1 // one more failure refuses again
			}
			l.mu.Unlock()
			return true
		}
		c.l.failed("a new segment could not be begun", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
			pause = retryPause
		}
	}
}

// open makes the next segment the active one.
func (c *committer) open(clean bool) error {
	if c.next == nil {
		if c.asked {
			c.asked = false
			if p := <-c.l.prepared; p.err != nil {
				return p.err
			} else {
				c.next = &p
			}
		} else if p := c.l.newFile(); p.err != nil {
			return p.err
		} else {
			c.next = &p
		}
	}
	p := *c.next
	c.next = nil
	if !clean {
		_, err := p.file.WriteAt(c.link(p.seg).Append(nil), format.HeadSize)
		if err == nil {
			err = p.file.Sync()
		}
		if err != nil {
			p.file.Close()
			c.l.void(p.seg.seq)
			return fmt.Errorf("link segment %s: %w", p.seg.name, err)
		}
	}
	c.use(p)
	c.linked = !clean
	c.since = time.Now()
	return nil
}

func (c *committer) link(s *segment) format.Link {
	return format.Link{
		Seq: s.seq, Salt: s.salt, PrevSeq: c.prev.seq, PrevSalt: c.prev.salt, PrevLength: c.prev.length, PrevLast: c.prev.last,
	}
}
