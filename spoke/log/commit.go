package log

import (
	"context"
	"fmt"
	"strings"
	"time"

	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

const (
	groupBytes = 4 << 20 // a group takes no further batch beyond this
	flushBytes = 2 << 20 // what is encoded before it is written; a longer group takes several writes
	keepBuffer = 8 << 20 // a larger buffer is not kept
)

// previous is the last segment that holds acknowledged groups: what the link of the next one says.
type previous struct {
	seq, salt uint64
	length    int64
	last      int64 // ms
}

// committer owns the active segment. One goroutine runs it.
type committer struct {
	l    *Log
	prev previous
	next *prepared // the segment that follows

	active   *segment // nil: none yet, or the last one failed
	file     disk.File
	linked   bool   // the link of active is in the file
	groups   uint64 // sequence of the last group of active
	since    time.Time
	asked    bool      // for the next segment
	askAfter time.Time // not before this again
	stalled  bool      // writes were refused while the last segment was begun
	slowed   time.Time // when it was said last that the disk is slow
	dirty    time.Time // SyncMode Interval, Never: since when something is written and not synced

	buf   []byte
	base  int64 // offset of buf in the file
	pend  []format.Named
	marks []format.Named // markers: they are in no index
	spare []*Batch       // the other slice of Log.queue
}

// run commits until ctx ends, then what was enqueued before.
func (c *committer) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		list, ended := c.take(ctx)
		if len(list) > 0 {
			c.commit(ctx, list)
		}
		c.housekeeping()
		c.syncNow()
		if ended {
			c.finish()
			return
		}
		if len(list) > 0 {
			continue
		}
		timer.Reset(c.due())
		select {
		case <-c.l.wake:
		case p := <-c.l.prepared:
			c.ready(p)
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// take returns what is enqueued. When ctx has ended, nothing can be enqueued any more, and ended is true.
func (c *committer) take(ctx context.Context) (list []*Batch, ended bool) {
	ended = ctx.Err() != nil
	l := c.l
	l.mu.Lock()
	list, l.queue = l.queue, c.spare[:0]
	l.ended = l.ended || ended
	l.mu.Unlock()
	c.spare = list
	return list, ended
}

// ready takes in the answer of prepareSegments.
func (c *committer) ready(p prepared) {
	c.asked = false
	if p.err != nil { // nobody waits for it yet
		c.askAfter = time.Now().Add(retryPause)
		c.l.metrics.failures.Add(1)
		c.l.log.Warn("the next segment could not be prepared", "err", p.err)
		return
	}
	c.next = &p
}

// commit writes batches in groups and calls Done of each.
func (c *committer) commit(ctx context.Context, list []*Batch) {
	for i := 0; i < len(list); {
		j, size := i+1, list[i].size
		records := len(list[i].Records)
		for j < len(list) && size+list[j].size <= groupBytes {
			size += list[j].size
			records += len(list[j].Records)
			j++
		}
		if !c.room(ctx, size, records) {
			finish(list[i:], ErrLost) // ctx ended, none of them was ever written
			return
		}
		err := c.group(list[i:j])
		if err == nil {
			finish(list[i:j], nil)
			i = j
			continue
		}
		c.fault(err)
		if !c.reopen(ctx, false) {
			finish(list[i:j], ErrClosed)
			finish(list[j:], ErrLost)
			return
		}
		finish(list[i:j], ErrLost)
		if i = j; c.stalled || c.refusing() {
			finish(list[j:], ErrLost)
			return
		}
	}
}

// finish answers batches and lets them go.
func finish(list []*Batch, err error) {
	for i, b := range list {
		list[i] = nil
		b.Done(err)
	}
}

func (c *committer) refusing() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.l.broken || c.l.full
}

// group writes batches as one group, syncs it and makes it visible.
func (c *committer) group(list []*Batch) error {
	s, l := c.active, c.l
	c.buf, c.base, c.pend, c.marks = c.buf[:0], s.length, c.pend[:0], c.marks[:0]
	if !c.linked {
		c.buf, c.base = c.link(s).Append(c.buf), format.HeadSize
	}
	lows := l.opt.Lows()
	if len(lows) > format.MaxLows {
		return fmt.Errorf("%d lows in a group: at most %d are possible", len(lows), format.MaxLows)
	}
	g := format.Group{Salt: s.salt, Seq: c.groups + 1, Lows: uint16(len(lows))}
	at := len(c.buf) // of the header in buf, until that is flushed
	c.buf = append(c.buf, make([]byte, format.GroupHead)...)
	for _, low := range lows {
		c.buf = format.AppendLow(c.buf, low)
	}
	header := c.buf[at:]
	flushed, durable := false, false
	for _, b := range list {
		durable = durable || b.durable
		for i := range b.Records {
			if len(c.buf) >= flushBytes {
				if !flushed { // the header is written last
					header, flushed = append([]byte(nil), header...), true
				}
				if err := c.flush(); err != nil {
					return err
				}
			}
			c.encode(&b.Records[i], &g)
		}
	}
	end := c.base + int64(len(c.buf))
	g.Length = uint32(end - s.length)
	if !flushed {
		header = c.buf[at : at+format.GroupHead+len(lows)*format.LowSize]
	}
	g.Put(header)
	err := c.flush()
	if err == nil && flushed {
		_, err = c.file.WriteAt(header, s.length)
	}
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
	if err == nil {
		err = c.written(durable)
	}
	if err != nil {
		return err
	}
	c.publish(end, lows)
	c.count(&g)
	return nil
}

// encode appends a record to the buffer and notes where it lies.
func (c *committer) encode(r *Record, g *format.Group) {
	at := len(c.buf)
	var crc uint32
	c.buf, crc = format.AppendRecord(c.buf, r, r.Flags)
	g.Add(crc)
	n := format.NewNamed(r.Channel, r.Key.Millis(), r.Key.Hash(), r.Flags, c.base+int64(at), len(c.buf)-at)
	if r.Flags&Complete != 0 {
		c.marks = append(c.marks, n)
		return
	}
	c.pend = append(c.pend, n)
}

func (c *committer) flush() error {
	_, err := c.file.WriteAt(c.buf, c.base)
	c.base += int64(len(c.buf))
	c.buf = c.buf[:0]
	return err
}

// written syncs, if the mode or somebody wants it now.
func (c *committer) written(durable bool) error {
	if durable || c.l.opt.Sync == Always {
		return c.sync()
	}
	now := time.Now()
	if c.dirty.IsZero() {
		c.dirty = now
	}
	if c.l.opt.Sync == Interval && now.Sub(c.dirty) >= syncInterval {
		return c.sync()
	}
	return nil
}

func (c *committer) sync() error {
	start := time.Now()
	err := c.file.Sync()
	took := time.Since(start)
	c.l.metrics.sync.Observe(took)
	if took >= slowSync && (c.slowed.IsZero() || time.Since(c.slowed) >= slowAgain) {
		c.slowed = time.Now()
		c.l.log.Warn("the disk took long to make a write durable; writes wait for it, and are refused when that takes as long as spoke.write.timeout", "took", took)
	}
	c.dirty = time.Time{}
	return err
}

// syncActive syncs between two groups: all that was written is durable then.
func (c *committer) syncActive() error {
	if err := c.sync(); err != nil {
		return err
	}
	c.l.mu.Lock()
	c.reach()
	c.l.mu.Unlock()
	return nil
}

// A disk that stands still is told of, but not with each write.
const (
	slowSync  = time.Second
	slowAgain = 10 * time.Second
)

// publish makes a group visible.
func (c *committer) publish(end int64, lows []Low) {
	s, l := c.active, c.l
	now := l.opt.Clock().UnixMilli()
	l.mu.Lock()
	s.add(c.pend)
	s.length, s.size, s.closed = end, end, now
	if c.dirty.IsZero() { // synced with it
		c.reach()
	}
	format.MergeLows(s.mem.Lows, lows)
	l.learn(lows)
	for i := range c.marks {
		m := &c.marks[i]
		name, upTo := strings.Clone(m.Channel), m.Key()
		s.mem.AddComplete(name, upTo)
		l.learnComplete(name, upTo, s.seq)
	}
	if l.failures > 0 && !l.broken {
		l.failures = 0
	}
	l.mu.Unlock()
	if c.groups == 0 {
		c.linked, c.since = true, time.Now()
	}
	c.groups++
	clear(c.pend) // they refer to requests
	clear(c.marks)
	if cap(c.pend) > 1<<16 {
		c.pend = nil
	}
}

func (c *committer) count(g *format.Group) {
	m := &c.l.metrics
	m.groups.Add(1)
	m.records.Add(int64(g.Records))
	m.bytes.Add(int64(g.Length))
}

// due is when housekeeping has something to do.
func (c *committer) due() time.Duration {
	d := time.Hour
	if c.active != nil && c.groups > 0 {
		age := c.l.opt.SegmentAge
		if c.next == nil && !c.asked {
			age = age * 3 / 4
		}
		d = age - time.Since(c.since)
		if c.asked {
			d = max(d, retryPause)
		}
		d = max(d, time.Until(c.askAfter))
	}
	if c.l.opt.Sync == Interval && !c.dirty.IsZero() {
		d = min(d, syncInterval-time.Since(c.dirty))
	}
	return max(d, time.Millisecond)
}

// housekeeping asks for the next segment in good time, rolls by age and syncs by interval.
func (c *committer) housekeeping() {
	if c.active == nil || c.groups == 0 {
		return
	}
	if c.l.opt.Sync == Interval && !c.dirty.IsZero() && time.Since(c.dirty) >= syncInterval {
		if err := c.syncActive(); err != nil {
			c.fault(err)
			return
		}
	}
	o := &c.l.opt
	age := time.Since(c.since)
	if c.active.length >= o.SegmentBytes/4*3 || c.active.records >= o.SegmentRecords/4*3 || age >= o.SegmentAge*3/4 {
		c.ask()
	}
	if age >= o.SegmentAge && c.next != nil {
		c.roll() // if that fails, the next group begins another one
	}
}

// finish ends the active segment.
func (c *committer) finish() {
	if c.active != nil {
		c.retire()
	}
	if c.asked {
		c.ready(<-c.l.prepared)
	}
}
