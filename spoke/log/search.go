package log

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// search is a k-way merge over the segments that may hold a channel's keys of a range, in either direction. A segment is opened when the merge comes
// near it.
type search struct {
	l        *Log
	channel  string
	from, to format.Bound
	reverse  bool
	pinned   []candidate
	waiting  []candidate // in the order in which the search comes to them
	active   []*cursor
	key      []byte // hash of the key that next returned
}

// hit is a key that was found, with one place where its record lies. Its hash is good until the next call of next.
type hit struct {
	seg   *segment
	entry format.Entry
	hash  []byte
	given bool  // its name was given up, and it was not taken back
	flags Flags // of all records of the key
}

func (h *hit) key() hub.Key { return format.KeyOf(h.entry.Millis, h.hash) }

// search begins a search for from ≤ key < to; close it.
func (l *Log) search(channel string, from, to hub.Key, reverse bool) *search {
	s := &search{l: l, channel: channel, from: format.BoundOf(from), to: format.BoundOf(to), reverse: reverse}
	if from.Less(to) {
		s.pinned = l.snapshot(nil, channel, from.Millis(), to.Millis())
	}
	s.waiting = slices.Clone(s.pinned)
	slices.SortStableFunc(s.waiting, func(a, b candidate) int {
		if reverse {
			return cmp.Compare(b.maxMs, a.maxMs)
		}
		return cmp.Compare(a.minMs, b.minMs)
	})
	return s
}

func (s *search) close() {
	s.l.releaseAll(s.pinned)
	s.pinned = nil
}

// next returns the next key, given-up ones included; false at the end.
func (s *search) next() (h hit, ok bool, err error) {
	if err := s.approach(); err != nil || len(s.active) == 0 {
		return hit{}, false, err
	}
	top := s.head()
	s.key = append(s.key[:0], top.hash...)
	h = hit{seg: top.seg, entry: top.entry, hash: s.key}
	key := format.Bound{Millis: top.entry.Millis, Hash: s.key}
	data := false
	keep := s.active[:0]
	for _, c := range s.active {
		more := true
		for more && key.Compare(c.entry.Millis, c.hash) == 0 {
			h.flags |= c.entry.Flags
			if c.entry.Flags&GivenUp == 0 && !data {
				h.seg, h.entry, data = c.seg, c.entry, true
			}
			if more, err = c.advance(); err != nil {
				return hit{}, false, s.l.footerFailed(c.seg, err)
			}
		}
		if more {
			keep = append(keep, c)
		}
	}
	s.active, h.given = keep, h.flags.Hides()
	return h, true, nil
}

// head is the cursor with the key that comes first.
func (s *search) head() *cursor {
	top := s.active[0]
	for _, c := range s.active[1:] {
		if d := c.compare(top); d < 0 && !s.reverse || d > 0 && s.reverse {
			top = c
		}
	}
	return top
}

// approach opens the segments that may hold something before the head.
func (s *search) approach() error {
	for len(s.waiting) > 0 {
		w := s.waiting[0]
		if len(s.active) > 0 {
			if ms := s.head().entry.Millis; !s.reverse && w.minMs > ms || s.reverse && w.maxMs < ms {
				return nil
			}
		}
		s.waiting = s.waiting[1:]
		list, err := s.l.cursors(w, s.channel, s.from, s.to, s.reverse)
		if err != nil {
			return s.l.footerFailed(w.seg, err)
		}
		s.active = append(s.active, list...)
	}
	return nil
}

// walk calls visit for each key from ≤ key < to of a channel, in order, until it returns false. A segment whose footer turns out to be damaged is
// scanned, and the walk goes on where it was. before, if any, is called before the segments of the hits are let go.
func (l *Log) walk(ctx context.Context, channel string, from, to hub.Key, reverse bool, visit func(*hit) bool, before func()) error {
	for {
		s := l.search(channel, from, to, reverse)
		last, err := s.each(ctx, visit)
		if before != nil {
			before()
		}
		s.close()
		if !errors.Is(err, errAgain) {
			return err
		}
		if last == nil {
			continue
		}
		if reverse {
			to = *last
		} else {
			from = last.After()
		}
	}
}

// each visits what the search finds. When it has to be begun again, last is the last key that was visited.
func (s *search) each(ctx context.Context, visit func(*hit) bool) (last *hub.Key, err error) {
	var seen hit
	var hash []byte
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		h, ok, err := s.next()
		if err != nil && n > 0 {
			k := format.KeyOf(seen.entry.Millis, hash)
			return &k, err
		}
		if err != nil || !ok {
			return nil, err
		}
		seen, hash = h, append(hash[:0], h.hash...)
		if !visit(&h) {
			return nil, nil
		}
	}
}

// errAgain means that a segment's index was rebuilt: the search has to begin again where it is.
var errAgain = errors.New("the index of a segment was rebuilt")

// strike counts reads of a segment's footer that failed.
func (l *Log) strike(s *segment) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.strikes++
	return s.strikes
}

// footerFailed turns the error of a search that met a damaged footer into errAgain, if the segment could be scanned instead.
func (l *Log) footerFailed(s *segment, err error) error {
	var bad format.FooterError
	if !errors.As(err, &bad) || hub.Is(err, hub.Unavailable) { // the latter was here before
		return err
	}
	if bad.Read && l.strike(s) == 1 {
		return cannotRead(err)
	}
	if rerr := l.rebuild(s); rerr != nil {
		return fmt.Errorf("read segment %s: %w", s.name, errors.Join(err, rerr))
	}
	return errAgain
}
