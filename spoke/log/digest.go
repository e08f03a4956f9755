package log

import (
	"context"
	"time"

	"timehub/hub"
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
	segs, feet := l.pinAll(func(s *segment) {
		if s.foot != nil {
			return
		}
		for name, c := range s.mem.channels {
			first, last := c.extent(s.mem.arena)
			add(name, keyOf(first.ms, first.hashIn(s.mem.arena)), keyOf(last.ms, last.hashIn(s.mem.arena)), len(c.main)+len(c.late))
		}
	})
	defer l.unpin(segs...)
	for i, s := range segs {
		if feet[i] == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := l.directory(s, feet[i], func(d *dirRow, first, last hub.Key) error {
			add(d.name, first, last, d.count)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// pinAll pins all segments. visit is called for each under Log.mu; feet are their footers, nil for an index in memory.
func (l *Log) pinAll(visit func(*segment)) (segs []*segment, feet []*footer) {
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
func (l *Log) directory(s *segment, foot *footer, visit func(d *dirRow, first, last hub.Key) error) error {
	f, err := l.fileOf(s)
	if err != nil {
		return err
	}
	err = foot.rows(f, func(d *dirRow) error {
		first, err := foot.hash(f, &d.first)
		if err != nil {
			return err
		}
		last, err := foot.hash(f, &d.last)
		if err != nil {
			return err
		}
		return visit(d, keyOf(d.first.ms, first), keyOf(d.last.ms, last))
	})
	if err != nil {
		return l.footerFailed(s, err)
	}
	return nil
}

// Minute returns the digest of a channel's keys, given-up ones excluded, in the minute that holds t.
func (l *Log) Minute(ctx context.Context, channel string, t time.Time) (Digest, error) {
	minute := minuteOf(t.UnixMilli())
	if d, ok := l.minuteFast(channel, minute); ok {
		return d, nil
	}
	var d Digest
	from, to := hub.KeyAt(minute*60_000, ""), hub.KeyAt((minute+1)*60_000, "")
	err := l.walk(ctx, channel, from, to, false, func(h *hit) bool {
		if !h.given {
			d.Count++
			d.Sum += hub.DigestOf(h.entry.ms, h.hash)
		}
		return true
	}, nil)
	return d, err
}

// minuteFast adds up the digests of footers. It gives up when a part of the minute is in memory, or when keys of it may lie in two places.
func (l *Log) minuteFast(channel string, minute int64) (d Digest, ok bool) {
	list := l.snapshot(channel, minute*60_000, minute*60_000+59_999)
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
		m, found, err := c.foot.minute(f, row, minute)
		if err != nil || m.flags != 0 {
			return d, false
		}
		if found {
			d.Count += int(m.count)
			d.Sum += m.sum
		}
	}
	return d, true
}
