package log

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

const (
	batchHits  = 1024      // keys that Items looks up at once
	batchBytes = 1 << 20   // and their records
	readGap    = 8 << 10   // bytes between two records that are rather read than skipped
	readSpan   = 256 << 10 // Items reads no more than this at once, unless a record is larger
	hotRecords = 64        // records of at most hotBytes that single reads keep at hand
	hotBytes   = 8 << 10
	damageKept = 4096 // damaged places that are remembered, so that each is reported once
)

// Get returns the record of a key: NotFound if there is none or it was given up, ErrDamaged if it is not valid here, Unavailable if the disk does not give
// it at the moment. Data may be kept, and must not be
// changed: readers of one record share it.
func (l *Log) Get(ctx context.Context, channel string, key hub.Key) (Record, error) {
	return l.get(ctx, channel, key, false)
}

// Held is Get that shows a key also if it was given up here: for those who decide whether it is to stay so.
func (l *Log) Held(ctx context.Context, channel string, key hub.Key) (Record, error) {
	return l.get(ctx, channel, key, true)
}

// Flags returns the flags of all records of a key together, names of it included; 0 if there is none, or if none has a flag.
func (l *Log) Flags(ctx context.Context, channel string, key hub.Key) (Flags, error) {
	for ctx.Err() == nil {
		s := l.search(channel, key, key.After(), false)
		h, found, err := s.next()
		s.close()
		switch {
		case err == nil && found:
			return h.flags, nil
		case err == nil:
			return 0, nil
		case !errors.Is(err, errAgain):
			return 0, err
		}
	}
	return 0, ctx.Err()
}

func (l *Log) get(ctx context.Context, channel string, key hub.Key, hidden bool) (Record, error) {
	var pinRoom [2]candidate
	var hitRoom [2]hit
	for {
		pinned := l.snapshot(pinRoom[:0], channel, key.Millis(), key.Millis())
		places, given, err := l.places(hitRoom[:0], pinned, channel, key)
		if err == nil && (hidden || !given) && len(places) > 0 {
			r, err := l.recordAt(ctx, places, channel, key)
			l.releaseAll(pinned)
			return r, err
		}
		l.releaseAll(pinned)
		if err == nil {
			return Record{}, notFound(channel, key)
		}
		if !errors.Is(err, errAgain) {
			return Record{}, err
		}
	}
}

// recordAt reads the record of a key from the first place where it can be read.
func (l *Log) recordAt(ctx context.Context, places []hit, channel string, key hub.Key) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	var failed error
	for i := range places { // normally one
		r, err := l.record(places[i].seg, &places[i].entry, channel, key)
		if err == nil {
			return r, nil
		}
		failed = errors.Join(failed, err)
	}
	return Record{}, failed
}

func notFound(channel string, key hub.Key) error {
	return hub.E(hub.NotFound, "channel %q has no item %s", channel, key)
}

// places appends to list where the records of a key lie, the newest segment first, and says whether the key was given up and not taken back. Entries in
// memory, where hot items are found, are looked at in place.
func (l *Log) places(list []hit, pinned []candidate, channel string, key hub.Key) (_ []hit, given bool, err error) {
	at := format.BoundOf(key)
	var flags Flags
	for i := len(pinned) - 1; i >= 0; i-- {
		c := &pinned[i]
		if c.unread {
			return list, flags.Hides(), l.reread(c.seg)
		}
		if c.hollow {
			return list, flags.Hides(), errHollow()
		}
		if c.foot != nil {
			if list, err = l.placesInFooter(list, &flags, c, channel, key); err != nil {
				return list, flags.Hides(), err
			}
			continue
		}
		for _, run := range [2][]format.Entry{c.main, c.late} {
			for n := at.Lower(run, c.arena); n < len(run) && at.Compare(run[n].Millis, run[n].HashIn(c.arena)) == 0; n++ {
				flags |= run[n].Flags
				if run[n].Flags&GivenUp == 0 {
					list = append(list, hit{seg: c.seg, entry: run[n]})
				}
			}
		}
	}
	return list, flags.Hides(), nil
}

func (l *Log) placesInFooter(list []hit, flags *Flags, c *candidate, channel string, key hub.Key) ([]hit, error) {
	cursors, err := l.cursors(*c, channel, format.BoundOf(key), format.BoundOf(key.After()), false)
	if err != nil {
		return list, l.footerFailed(c.seg, err)
	}
	for _, cur := range cursors {
		for more := true; more; {
			*flags |= cur.entry.Flags
			if cur.entry.Flags&GivenUp == 0 {
				list = append(list, hit{seg: cur.seg, entry: cur.entry})
			}
			if more, err = cur.advance(); err != nil {
				return list, l.footerFailed(c.seg, err)
			}
		}
	}
	return list, nil
}

// record reads one record of a pinned segment.
func (l *Log) record(s *segment, e *format.Entry, channel string, key hub.Key) (Record, error) {
	slot := &l.hot[(uint32(s.seq)*31+e.Off/32)%hotRecords]
	if h := slot.Load(); h != nil && h.seq == s.seq && h.off == e.Off {
		return h.record, nil
	}
	r, err := l.readRecord(s, e, channel, key)
	if err == nil && e.Size <= hotBytes {
		slot.Store(&hotRecord{s.seq, e.Off, r})
	}
	return r, err
}

// hotRecord is a record that was read and checked lately; its bytes never change, nor does another one ever come to lie in its place.
type hotRecord struct {
	seq    uint64
	off    uint32
	record Record
}

func (l *Log) readRecord(s *segment, e *format.Entry, channel string, key hub.Key) (Record, error) {
	f, err := l.fileOf(s)
	if err != nil {
		return Record{}, err
	}
	buf := make([]byte, e.Size)
	n, err := f.ReadAt(buf, int64(e.Off))
	if n < len(buf) && readFailed(err) {
		return Record{}, l.recordUnread(s, e, channel, key, err)
	}
	return l.parse(buf[:n], s, e, channel, key)
}

// parse checks the record that an entry leads to.
func (l *Log) parse(buf []byte, s *segment, e *format.Entry, channel string, key hub.Key) (Record, error) {
	r, err := format.ParseRecord(buf)
	if err == nil && (r.Millis != key.Millis() || string(r.Channel) != channel || string(r.Hash) != key.Hash()) {
		err = format.ErrFormat
	}
	if err != nil {
		return Record{}, l.damaged(s, e, channel, key, err)
	}
	l.recordRead(s, e)
	return Record{Channel: channel, Key: key, Stream: r.Stream, Flags: r.Flags, Data: r.Data}, nil
}

// damaged reports a record that cannot be read, once.
func (l *Log) damaged(s *segment, e *format.Entry, channel string, key hub.Key, err error) error {
	place := damagedPlace{s.seq, e.Off}
	l.mu.Lock()
	_, known := l.damage[place]
	if !known && len(l.damage) < damageKept {
		l.damage[place] = struct{}{}
	}
	if !known {
		l.damageCount++
	}
	fresh := l.breaks(place, e, channel, key)
	l.mu.Unlock()
	if fresh {
		l.opt.Damaged()
	}
	if !known {
		l.metrics.damaged.Add(1)
		l.log.Error("a record is damaged; it is not served", "segment", s.name, "offset", e.Off, "channel", channel, "key", key, "err", err)
	}
	return fmt.Errorf("read %s of channel %q in %s at %d: %w (%w)", key, channel, s.name, e.Off, ErrDamaged, err)
}

type damagedPlace struct {
	seq uint64
	off uint32
}

// Keys returns the keys from ≤ key < to of a channel that were not given up, at most limit of them (0: all), ascending from from, or with reverse
// descending from to; more says that the limit ended the search.
func (l *Log) Keys(ctx context.Context, channel string, from, to hub.Key, limit int, reverse bool) (keys []hub.Key, more bool, err error) {
	err = l.walk(ctx, channel, from, to, reverse, func(h *hit) bool {
		if h.given {
			return true
		}
		if limit > 0 && len(keys) == limit {
			more = true
			return false
		}
		keys = append(keys, h.key())
		return true
	}, nil)
	if err != nil {
		return nil, false, err
	}
	return keys, more, nil
}

// Items is Keys with the records. They are those that were there at the first step. A damaged record is yielded without Data and with an error that is
// ErrDamaged; the iteration can go on. Any other error ends it; that of a record that cannot be read at the moment comes with its key. Data may be kept; it shares memory with its neighbours (up to 256 KiB).
func (l *Log) Items(ctx context.Context, channel string, from, to hub.Key, limit int, reverse bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		b := itemBatch{l: l, ctx: ctx, channel: channel, yield: yield, size: 16}
		left := limit
		err := l.walk(ctx, channel, from, to, reverse, func(h *hit) bool {
			if b.stopped { // when the walk began again
				return false
			}
			if h.given {
				return true
			}
			b.add(h)
			if left--; left == 0 {
				return false
			}
			return !b.full() || b.flush()
		}, func() {
			if !b.stopped {
				b.flush()
			}
		})
		if err != nil && !b.stopped {
			yield(Record{Channel: channel}, err)
		}
	}
}

// itemBatch gathers places of records and reads them in few large pieces. Its segments are pinned by the walk that fills it.
type itemBatch struct {
	l       *Log
	ctx     context.Context
	channel string
	yield   func(Record, error) bool
	stopped bool
	size    int // keys of the next batch: small at first, for those who want few
	hits    []placed
	bytes   int64
	order   []int32 // of hits, by place
}

// placed is a key with the place of its record, and later the bytes there.
type placed struct {
	seg     *segment
	entry   format.Entry
	channel string // where it is not the same for all
	key     hub.Key
	data    []byte
}

func (b *itemBatch) add(h *hit) {
	b.hits = append(b.hits, placed{seg: h.seg, entry: h.entry, key: h.key()})
	b.bytes += int64(h.entry.Size)
}

func (b *itemBatch) full() bool { return len(b.hits) >= b.size || b.bytes >= batchBytes }

// flush yields what was gathered; false when nobody wants more.
func (b *itemBatch) flush() bool {
	if err := b.read(); err != nil {
		b.stopped = true
		b.yield(Record{Channel: b.channel}, err)
		return false
	}
	for i := range b.hits {
		h := &b.hits[i]
		var r Record
		err := ErrDamaged
		if h.data != nil {
			r, err = b.l.parse(h.data, h.seg, &h.entry, b.channel, h.key)
		}
		if err != nil { // perhaps there is another copy, or it can be read now
			if r, err = b.l.Get(b.ctx, b.channel, h.key); err != nil {
				r = Record{Channel: b.channel, Key: h.key}
			}
		}
		h.data = nil
		if !b.yield(r, err) || err != nil && !errors.Is(err, ErrDamaged) {
			b.stopped = true
			return false
		}
	}
	b.hits, b.bytes, b.size = b.hits[:0], 0, min(b.size*4, batchHits)
	return true
}

// read fetches the bytes of all records, neighbours together.
func (b *itemBatch) read() error {
	b.order = b.order[:0]
	for i := range b.hits {
		b.order = append(b.order, int32(i))
	}
	slices.SortFunc(b.order, func(i, j int32) int {
		x, y := &b.hits[i], &b.hits[j]
		return cmp.Or(cmp.Compare(x.seg.seq, y.seg.seq), cmp.Compare(x.entry.Off, y.entry.Off))
	})
	for i := 0; i < len(b.order); {
		first := &b.hits[b.order[i]]
		start, end := int64(first.entry.Off), int64(first.entry.Off)+int64(first.entry.Size)
		j := i + 1
		for ; j < len(b.order); j++ {
			n := &b.hits[b.order[j]]
			stop := int64(n.entry.Off) + int64(n.entry.Size)
			if n.seg != first.seg || int64(n.entry.Off) > end+readGap || stop-start > readSpan {
				break
			}
			end = max(end, stop)
		}
		f, err := b.l.fileOf(first.seg)
		if err != nil {
			return err
		}
		buf := readSome(f, start, end)
		for ; i < j; i++ {
			h := &b.hits[b.order[i]]
			at := int64(h.entry.Off) - start
			if stop := at + int64(h.entry.Size); stop <= int64(len(buf)) {
				h.data = buf[at:stop:stop]
			}
		}
	}
	return nil
}

// readSome returns the bytes from start to end, or as many as can be read; a record that is missing then is read by itself.
func readSome(f disk.File, start, end int64) []byte {
	buf := make([]byte, end-start)
	n, _ := f.ReadAt(buf, start)
	return buf[:max(n, 0)]
}
