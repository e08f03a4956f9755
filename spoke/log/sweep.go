package log

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// carryBytes is how much of a segment that is emptied is copied in one batch.
const carryBytes = 1 << 20

// Sweep removes the segments that nobody needs any more (ENGINE §3) and empties those of which little is needed; the node calls it now and then, while
// Run runs. One call at a time.
func (l *Log) Sweep(ctx context.Context) error {
	start := time.Now()
	if _, err := l.removeVoids(); err != nil {
		return fmt.Errorf("remove a file without content: %w", err)
	}
	l.rereadAll()
	removed := 0
	var failed error
	for _, s := range l.old() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !l.mayGo(s) {
			continue
		}
		n, err := l.sweep(ctx, s)
		if err != nil { // the others need not wait for it
			failed = errors.Join(failed, fmt.Errorf("sweep segment %s: %w", s.name, err))
		}
		removed += n
	}
	l.metrics.evicted.Set(float64(removed))
	l.metrics.sweepRuntime.Set(float64(time.Since(start).Milliseconds()))
	return failed
}

// old lists the segments past the TTL that are closed and have their footer, or cannot get one any more.
func (l *Log) old() []*segment {
	limit := l.opt.Clock().Add(-l.opt.TTL).UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*segment
	for i, s := range l.segs {
		if !s.hollow.IsZero() {
			continue // what it held may be needed
		}
		closed := s.foot != nil || s.failed && i < len(l.segs)-1
		if closed && max(s.closed, s.maxMs) < limit {
			list = append(list, s)
		}
	}
	return list
}

// mayGo reports whether nothing depends on the link of a segment: every older one has a footer, which fixes its length as well.
func (l *Log) mayGo(s *segment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.voids) > 0 {
		return false
	}
	for _, o := range l.segs {
		if o == s {
			return true
		}
		if o.foot == nil {
			return false
		}
	}
	return false
}

// sweep removes a segment if it can go, with what has to be carried carried; n is the number of records that are gone.
func (l *Log) sweep(ctx context.Context, s *segment) (n int, err error) {
	l.mu.Lock()
	s.pin()
	total, bytes := s.records, s.recordBytes()
	l.mu.Unlock()
	defer l.unpin(s)
	need, needBytes, err := l.needed(ctx, s)
	if err != nil {
		return 0, err
	}
	if needBytes > 0 && needBytes*2 >= bytes {
		return 0, nil
	}
	if err := l.opt.MayRemove(ctx); err != nil {
		return 0, err
	}
	if len(need) > 0 {
		if err := l.carry(ctx, s, need); err != nil {
			return 0, err
		}
	}
	if err := l.carryMarkers(ctx, s); err != nil {
		return 0, err
	}
	l.mu.Lock()
	hollow := !s.hollow.IsZero()
	l.mu.Unlock()
	if hollow { // that was found while we looked: what it has lost may be needed
		return 0, nil
	}
	return total - len(need), l.remove(s)
}

// needed lists what somebody still needs of a segment: data above its channel's archived key that was not given up, late records that are not
// confirmed, and names of given-up keys whose data lies elsewhere in the log, or may lie on a disk that has not got the name.
func (l *Log) needed(ctx context.Context, s *segment) (list []placed, bytes int64, err error) {
	var rows []channelRow
	if rows, err = l.channelsOf(s); err != nil {
		return nil, 0, err
	}
	if !l.givenUp() && l.mostlyNeeded(s, rows) {
		return nil, math.MaxInt64 / 2, nil
	}
	for _, row := range rows {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		archived, known := l.opt.Archived(row.name)
		if !known {
			continue
		}
		if row.flags&(GivenUp|Late) == 0 && !archived.Less(row.last) {
			continue
		}
		from := archived.After()
		if row.flags&(GivenUp|Late) != 0 {
			from = row.first
		}
		err := l.own(s, row.name, from, row.last.After(), func(h *hit) error {
			p := placed{seg: s, entry: h.entry, channel: row.name, key: h.key()}
			wanted, err := l.wanted(s, row.name, &p, archived)
			if err == nil && wanted {
				list = append(list, p)
				bytes += int64(h.entry.Size)
			}
			return err
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return list, bytes, nil
}

// givenUp reports whether the log has a name of a given-up key at all.
func (l *Log) givenUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		if s.foot != nil && s.foot.Flags&GivenUp != 0 || s.foot == nil && s.mem.Flags&GivenUp != 0 {
			return true
		}
	}
	return false
}

// mostlyNeeded looks at the directory only: channels of which nothing is archived.
func (l *Log) mostlyNeeded(s *segment, rows []channelRow) bool {
	var bytes int64
	for _, row := range rows {
		if archived, known := l.opt.Archived(row.name); known && archived.Less(row.first) {
			bytes += row.bytes
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes > 0 && bytes*2 >= s.recordBytes()
}

// wanted decides of one record of a segment.
func (l *Log) wanted(s *segment, channel string, p *placed, archived hub.Key) (bool, error) {
	flags := p.entry.Flags
	if flags&GivenUp == 0 && !archived.Less(p.key) && (flags&Late == 0 || l.opt.LateConfirmed(channel, p.key)) {
		return false, nil
	}
	if flags&GivenUp != 0 && !l.opt.NameSpread(p.key) {
		return true, nil
	}
	pinned := l.snapshot(nil, channel, p.key.Millis(), p.key.Millis())
	places, given, err := l.places(nil, pinned, channel, p.key)
	l.releaseAll(pinned)
	if errors.Is(err, errAgain) {
		return l.wanted(s, channel, p, archived)
	}
	if err != nil {
		return false, err
	}
	if flags&GivenUp == 0 {
		return !given, nil
	}
	for _, o := range places {
		if o.seg != s {
			return true, nil
		}
	}
	return false, nil
}

// channelRow is a channel of one segment.
type channelRow struct {
	name        string
	first, last hub.Key
	flags       Flags
	bytes       int64
}

// channelsOf lists the channels of a pinned segment.
func (l *Log) channelsOf(s *segment) ([]channelRow, error) {
	for {
		var rows []channelRow
		l.mu.Lock()
		foot, mem := s.foot, s.mem
		if foot == nil { // failed, so nobody changes it any more
			for name, c := range mem.Channels {
				first, last := c.Extent(mem.Arena)
				rows = append(rows, channelRow{name, format.KeyOf(first.Millis, first.HashIn(mem.Arena)), format.KeyOf(last.Millis, last.HashIn(mem.Arena)), c.Flags, c.Bytes})
			}
		}
		l.mu.Unlock()
		if foot == nil {
			return rows, nil
		}
		err := l.directory(s, foot, func(d *format.DirRow, first, last hub.Key) error {
			rows = append(rows, channelRow{d.Name, first, last, d.Flags, d.Bytes})
			return nil
		})
		if !errors.Is(err, errAgain) {
			return rows, err
		}
	}
}

// own visits the records of one pinned segment alone, each copy of a key for itself.
func (l *Log) own(s *segment, channel string, from, to hub.Key, visit func(*hit) error) error {
	for {
		l.mu.Lock()
		c := candidate{seg: s, foot: s.foot, minMs: s.minMs, maxMs: s.maxMs}
		if c.foot == nil {
			c.main, c.late, c.arena = s.mem.Runs(channel)
		}
		l.mu.Unlock()
		curs, err := l.cursors(c, channel, format.BoundOf(from), format.BoundOf(to), false)
		var next hub.Key
		for _, cur := range curs {
			for more := true; more && err == nil; {
				h := hit{seg: s, entry: cur.entry, hash: cur.hash}
				if err = visit(&h); err == nil {
					next = h.key().After()
					more, err = cur.advance()
				}
			}
		}
		if err == nil {
			return nil
		}
		if err = l.footerFailed(s, err); !errors.Is(err, errAgain) {
			return err
		}
		if !next.IsZero() {
			from = next
		}
	}
}

// carry copies records into the active segment and waits until they are on the disk.
func (l *Log) carry(ctx context.Context, s *segment, need []placed) error {
	for len(need) > 0 {
		var batch Batch
		for size := 0; len(need) > 0 && (size == 0 || size+int(need[0].entry.Size) <= carryBytes); need = need[1:] {
			r, err := l.placedRecord(s, &need[0])
			if errors.Is(err, ErrDamaged) {
				r, err = l.otherwise(ctx, s, &need[0])
				switch {
				case err == nil && r.Flags&GivenUp == 0:
					continue // it is kept where it can be read
				case err != nil && (l.opt.Damaged == nil || errors.Is(err, errGone)):
					continue // reported; what cannot be read cannot be kept
				}
			}
			if err != nil {
				return err
			}
			size += int(need[0].entry.Size)
			r.Flags |= Carried
			batch.Records = append(batch.Records, r)
		}
		if len(batch.Records) == 0 {
			continue
		}
		if err := l.put(ctx, &batch); err != nil {
			return fmt.Errorf("carry records: %w", err)
		}
		l.metrics.carried.Add(int64(len(batch.Records)))
		l.mu.Lock()
		l.carried += int64(len(batch.Records))
		l.mu.Unlock()
	}
	return nil
}

// placedRecord reads a record by its place alone.
func (l *Log) placedRecord(s *segment, p *placed) (Record, error) {
	f, err := l.fileOf(s)
	if err != nil {
		return Record{}, err
	}
	buf := make([]byte, p.entry.Size)
	n, err := f.ReadAt(buf, int64(p.entry.Off))
	if n < len(buf) && readFailed(err) {
		return Record{}, l.recordUnread(s, &p.entry, p.channel, p.key, err)
	}
	r, err := format.ParseRecord(buf[:n])
	if err != nil {
		return Record{}, l.damaged(s, &p.entry, p.channel, p.key, err)
	}
	return Record{Channel: string(r.Channel), Key: p.key, Stream: r.Stream, Flags: r.Flags, Data: r.Data}, nil
}

// remove takes a segment out of the log: first the floor, then the file. A reader that has it open goes on reading.
func (l *Log) remove(s *segment) error {
	if _, err := l.fileOf(s); err != nil && !errors.Is(err, fs.ErrNotExist) { // readers that have pinned it will want it
		return err
	}
	floor := hub.MinKey
	if s.records > 0 {
		floor = floorAbove(s.last)
	}
	if err := l.RaiseFloor(floor); err != nil {
		return err
	}
	l.mu.Lock()
	l.drop(s)
	l.unbreak(s)
	l.swept++
	before, foot := l.dirFailures, s.foot
	l.mu.Unlock()
	l.cache.forget(foot)
	err := l.opt.Disk.Remove(s.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.void(s.seq) // tried again
		return fmt.Errorf("remove the file: %w", err)
	}
	if err = l.syncName(before); err != nil {
		l.mu.Lock()
		l.bury(s.seq)
		l.mu.Unlock()
	}
	return err
}

// floorAbove is the smallest floor above a key.
func floorAbove(k hub.Key) hub.Key {
	if len(k.Hash()) >= format.MaxName {
		return hub.KeyAt(k.Millis()+1, "")
	}
	return k.After()
}
