package log

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// Broken is a record that was found damaged while the log runs and that it has nowhere else. Whoever has it may put it into the log again.
type Broken struct {
	Channel string
	Key     hub.Key
	Flags   Flags
	Since   time.Time // it was found
	place   damagedPlace
}

// Broken lists what waits to be mended or to be Lost, in the order of the log; at most 4,096 at a time.
func (l *Log) Broken() []Broken {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.toMend) == 0 {
		return nil
	}
	list := make([]Broken, 0, len(l.toMend))
	for _, b := range l.toMend {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b Broken) int {
		if a.place.seq != b.place.seq {
			return int(a.place.seq) - int(b.place.seq)
		}
		return int(a.place.off) - int(b.place.off)
	})
	return list
}

// Mend takes a record off the list that can be read in another place by now, and reports whether it can.
func (l *Log) Mend(ctx context.Context, b Broken) bool {
	if _, err := l.Held(ctx, b.Channel, b.Key); err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.toMend, b.place)
	return true
}

// Lost takes a record off the list that nobody has. Visits leave it out from now on, and a sweep lets it go; who asks for it is told that it is damaged.
func (l *Log) Lost(b Broken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.toMend, b.place)
	if len(l.gone) < damageKept {
		l.gone[b.place] = b
	}
}

// Gone lists what is Lost.
func (l *Log) Gone() []Broken {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.gone))
}

// breaks puts a damaged record on the list of what is to be mended; false if it was there, or need not be. Of a name the index has all that there is to know. Log.mu is held.
func (l *Log) breaks(place damagedPlace, e *format.Entry, channel string, key hub.Key) bool {
	_, waits := l.toMend[place]
	_, gone := l.gone[place]
	if l.opt.Damaged == nil || waits || gone || e.Flags&(GivenUp|Complete) != 0 || len(l.toMend) >= damageKept {
		return false
	}
	l.toMend[place] = Broken{Channel: channel, Key: key, Flags: e.Flags, Since: time.Now(), place: place}
	return true
}

// unbreak forgets the damage of a segment that goes. Log.mu is held.
func (l *Log) unbreak(s *segment) {
	for place := range l.toMend {
		if place.seq == s.seq {
			delete(l.toMend, place)
		}
	}
	l.hollow = slices.DeleteFunc(slices.Clone(l.hollow), func(h Hole) bool { return h.Segment == s.seq })
	for place := range l.gone {
		if place.seq == s.seq {
			delete(l.gone, place)
		}
	}
}

// errGone: nobody has it, so nobody need wait for it.
var errGone = errors.New("nobody has it")

// otherwise gets a record that is damaged in its place: a name out of the index, anything else where the log has it again. errGone: it is Lost.
func (l *Log) otherwise(ctx context.Context, s *segment, p *placed) (Record, error) {
	if p.entry.Flags&GivenUp != 0 {
		r := Record{Channel: p.channel, Key: p.key, Flags: p.entry.Flags}
		if l.opt.StreamOf != nil {
			r.Stream, _ = l.opt.StreamOf(p.key)
		}
		return r, nil
	}
	r, err := l.Held(ctx, p.channel, p.key)
	if err == nil {
		l.mu.Lock()
		delete(l.toMend, damagedPlace{s.seq, p.entry.Off})
		l.mu.Unlock()
		return r, nil
	}
	l.mu.Lock()
	_, gone := l.gone[damagedPlace{s.seq, p.entry.Off}]
	l.mu.Unlock()
	if gone {
		err = errors.Join(errGone, err)
	}
	return r, fmt.Errorf("a damaged record is not mended: %w", err)
}

// concerns reports whether a record that cannot be read may be one that a visit has to see. What was minted at or below a low from which the visit begins was decided when that
// was told: whoever was told it has it, or needs it no more.
func (l *Log) concerns(v *visit, p *placed) bool {
	m, minted := hub.MarkOf(p.key)
	if p.entry.Flags&Replicated != 0 || !minted {
		return true
	}
	if m <= max(v.from.Above, v.from.Low) {
		return false
	}
	if l.opt.StreamOf == nil {
		return true
	}
	s, known := l.opt.StreamOf(p.key)
	return known && s == v.stream
}
