package log

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

const (
	watchEvery   = time.Second            // free space, gauges
	retryPause   = time.Second            // between attempts to open a segment on a disk that fails
	firstRetry   = 50 * time.Millisecond  // before the second attempt
	syncInterval = 100 * time.Millisecond // of SyncMode Interval
	tooMany      = 3                      // failures in a row after which writes are refused
)

// Run commits what is enqueued, writes footers, rolls segments by age and watches the free space. It returns soon after ctx ends, when what was enqueued
// before is on disk or failed. It may be called once.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.running || l.ended {
		l.mu.Unlock()
		return errors.New("spoke log: Run was called before")
	}
	l.running = true
	l.mu.Unlock()
	// The helpers outlive ctx: what waits is flushed with their help.
	helpers, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { l.prepareSegments(helpers) })
	wg.Go(func() { l.sealSegments(helpers) })
	wg.Go(func() { l.watch(ctx) })
	c := committer{l: l, prev: l.prev}
	c.run(ctx)
	stop()
	wg.Wait()
	l.discardPrepared(c.next)
	select {
	case p := <-l.prepared:
		l.discardPrepared(&p)
	default:
	}
	if _, err := l.removeVoids(); err != nil {
		l.log.Warn("a file without content could not be removed; the next start does it", "err", err)
	}
	return nil
}

// prepared is a segment whose head is on disk, or why there is none.
type prepared struct {
	seg  *segment
	file disk.File
	err  error
}

// prepareSegments makes the next segment when the committer asks for it, so that a roll waits for nothing.
func (l *Log) prepareSegments(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.prepare:
			l.prepared <- l.newFile()
		}
	}
}

// newFile makes a segment: created, head written and synced, name synced.
func (l *Log) newFile() prepared {
	l.mu.Lock()
	seq := l.nextSeq
	l.nextSeq++
	sealed := l.sealedUpTo()
	l.mu.Unlock()
	s := newSegment(l.opt.Dir, seq, l.opt.Salt())
	before := l.dirState()
	f, err := l.opt.Disk.Create(s.name)
	if err != nil {
		return prepared{err: fmt.Errorf("create segment %s: %w", s.name, err)}
	}
	_, err = f.WriteAt(format.Head{Seq: seq, Salt: s.salt, Created: l.opt.Clock().UnixMilli(), Sealed: sealed}.Append(nil), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.syncName(before)
	}
	if err != nil {
		f.Close()
		l.void(seq)
		return prepared{err: fmt.Errorf("begin segment %s: %w", s.name, err)}
	}
	return prepared{seg: s, file: f}
}

// sealedUpTo is the sequence up to which all segments have their footers on the disk. l.mu is held.
func (l *Log) sealedUpTo() (seq uint64) {
	for _, s := range l.segs {
		if s.foot == nil {
			break
		}
		seq = s.seq
	}
	return seq
}

// void notes a segment that holds nothing acknowledged.
func (l *Log) void(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.voids = append(l.voids, seq)
}

// discardPrepared removes a segment that was made and not used. If it stays, the next start removes it.
func (l *Log) discardPrepared(p *prepared) {
	if p == nil || p.file == nil {
		return
	}
	p.file.Close()
	if err := l.opt.Disk.Remove(p.seg.name); err != nil {
		l.log.Warn("an unused segment could not be removed", "segment", p.seg.name, "err", err)
	}
}

// sealSegments writes the footers of segments that are closed; when ctx ends, those that wait are still written.
func (l *Log) sealSegments(ctx context.Context) {
	for {
		for {
			l.mu.Lock()
			if len(l.toSeal) == 0 {
				l.mu.Unlock()
				break
			}
			s := l.toSeal[0]
			l.toSeal = l.toSeal[1:]
			l.mu.Unlock()
			if err := l.seal(s); err != nil {
				l.mu.Lock()
				s.failed = true
				l.mu.Unlock()
				l.metrics.failures.Add(1)
				l.log.Warn("a footer could not be written; the index of the segment stays in memory", "segment", s.name, "err", err)
			}
			l.unpin(s)
		}
		select {
		case <-ctx.Done():
			l.mu.Lock()
			done := len(l.toSeal) == 0
			l.mu.Unlock()
			if done {
				return
			}
		case <-l.sealWake:
		}
	}
}

// sealLater queues a closed segment for its footer. l.mu is held.
func (l *Log) sealLater(s *segment) {
	s.pin()
	l.toSeal = append(l.toSeal, s)
}

// seal writes the footer of a segment that nobody writes to any more, and lets its index go. It uses a handle of its own.
func (l *Log) seal(s *segment) error {
	l.mu.Lock()
	length, skip := s.length, s.failed || s.removed || s.foot != nil
	l.mu.Unlock()
	if skip {
		return nil
	}
	f, err := l.opt.Disk.Open(s.name, true)
	if err != nil {
		return fmt.Errorf("open segment %s: %w", s.name, err)
	}
	foot, end, err := l.sealFile(f, s, length)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	l.mu.Lock()
	s.foot, s.named, s.mem, s.size = foot, namesOf(format.SortedLows(s.mem.Lows)), nil, end
	l.mu.Unlock()
	return nil
}

func (l *Log) sealFile(f disk.File, s *segment, length int64) (*format.Footer, int64, error) {
	size, err := f.Size()
	if err == nil && size > length { // a torn tail, or a footer that was not finished
		err = f.Truncate(length)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cut segment %s: %w", s.name, err)
	}
	return format.WriteFooter(f, s.mem, format.Trailer{
		Seq: s.seq, Salt: s.salt, Length: length, MinMs: s.minMs, MaxMs: s.maxMs, Closed: s.closed, Last: s.last,
	})
}

// watch looks at the free space and shows the gauges.
func (l *Log) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	l.metrics.ttl.Set(l.opt.TTL.Minutes())
	for {
		l.checkSpace()
		l.gauges()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkSpace refuses writes while less is free than long-term storage may still need, and takes that back.
func (l *Log) checkSpace() {
	free, err := l.opt.Disk.Free()
	if err != nil {
		l.log.Warn("the free space is not known", "err", err)
		return
	}
	need := l.opt.Unconfirmed() + l.opt.MinFree
	l.mu.Lock()
	was := l.full
	l.full, l.free = free < need, free
	l.mu.Unlock()
	switch {
	case free < need && !was:
		l.log.Error("the disk is nearly full: writes are refused", "free", free, "needed", need)
	case free >= need && was:
		l.log.Info("there is room on the disk again: writes are taken", "free", free, "needed", need)
	}
}

func (l *Log) gauges() {
	s := l.Status()
	l.metrics.segments.Set(float64(s.Segments))
	l.metrics.size.Set(float64(s.Bytes))
	l.metrics.free.Set(float64(s.Free))
	l.mu.Lock()
	active, oldest := 0, int64(0)
	if n := len(l.segs); n > 0 {
		if last := l.segs[n-1]; last.foot == nil {
			active = last.records
		}
		if first := l.segs[0]; first.records > 0 {
			oldest = max(0, l.opt.Clock().UnixMilli()-first.minMs)
		}
	}
	l.mu.Unlock()
	l.metrics.active.Set(float64(active))
	l.metrics.oldest.Set(float64(oldest))
}
