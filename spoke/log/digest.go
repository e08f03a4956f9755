package log

import (
	"context"
	"time"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// Channels returns every channel with what the log has of it.
func (l *Log) Channels(ctx context.Context) (map[string]Range, error) {
	all := map[string]Range{}
	add := func(name string, first, last hub.Key, count int) {
		r, ok := all[name]
		if !ok || first.Less(r.First) {
			r.First = first
		}
		if r.Last.Less(last) || !ok {
			r.Last = last
		}
		r.Count += int64(count)
		all[name] = r
	}
	l.rereadAll()
	unread := false
	segs, feet := l.pinAll(func(s *segment) {
		unread = unread || s.unread
		if s.foot != nil {
			return
		}
		for name, c := range s.mem.Channels {
			first, last := c.Extent(s.mem.Arena)
			add(name, format.KeyOf(first.Millis, first.HashIn(s.mem.Arena)), format.KeyOf(last.Millis, last.HashIn(s.mem.Arena)), len(c.Main)+len(c.Late))
		}
	})
	defer l.unpin(segs...)
	if unread {
		return nil, cannotRead(nil)
	}
	for i, s := range segs {
		if feet[i] == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := l.directory(s, feet[i], func(d *format.DirRow, first, last hub.Key) error {
			add(d.Name, first, last, d.Count)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// pinAll pins all segments. visit is called for each under Log.mu; feet are their footers, nil for an index in memory.
func (l *Log) pinAll(visit func(*segment)) (segs []*segment, feet []*format.Footer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segs {
		s.pin()
		visit(s)
		segs = append(segs, s)
		feet = append(feet, s.foot)
	}
	return segs, feet
}

// directory visits the channels of a pinned segment with a footer.
func (l *Log) directory(s *segment, foot *format.Footer, visit func(d *format.DirRow, first, last hub.Key) error) error {
	f, err := l.fileOf(s)
	if err != nil {
		return err
	}
	err = foot.Rows(f, func(d *format.DirRow) error {
		first, err := foot.Hash(f, &d.First)
		if err != nil {
			return err
		}
		last, err := foot.Hash(f, &d.Last)
		if err != nil {
			return err
		}
		return visit(d, format.KeyOf(d.First.Millis, first), format.KeyOf(d.Last.Millis, last))
	})
	if err != nil {
		return l.footerFailed(s, err)
	}
	return nil
}

// Minute returns the digest of a channel's keys, given-up ones excluded, in the minute that holds t.
func (l *Log) Minute(ctx context.Context, channel string, t time.Time) (Digest, error) {
	minute := format.MinuteOf(t.UnixMilli())
	if d, ok := l.minuteFast(channel, minute); ok {
		return d, nil
	}
	var d Digest
	from, to := hub.KeyAt(minute*60_000, ""), hub.KeyAt((minute+1)*60_000, "")
	err := l.walk(ctx, channel, from, to, false, func(h *hit) bool {
		if !h.given {
			d.Count++
			d.Sum += hub.DigestOf(h.entry.Millis, h.hash)
		}
		return true
	}, nil)
	return d, err
}

// minuteFast adds up the digests of footers. It gives up when a part of the minute is in memory, or when keys of it may lie in two places.
func (l *Log) minuteFast(channel string, minute int64) (d Digest, ok bool) {
	list := l.snapshot(nil, channel, minute*60_000, minute*60_000+59_999)
	defer l.releaseAll(list)
	for _, c := range list {
		if c.foot == nil {
			return d, false
		}
		f, err := l.fileOf(c.seg)
		if err != nil {
			return d, false
		}
		row, err := l.cache.row(c.foot, f, channel)
		if err != nil {
			return d, false
		}
		if row == nil {
			continue
		}
		m, found, err := c.foot.Minute(f, row, minute)
		if err != nil || m.Flags != 0 {
			return d, false
		}
		if found {
			d.Count += int(m.Count)
			d.Sum += m.Sum
		}
	}
	return d, true
}
