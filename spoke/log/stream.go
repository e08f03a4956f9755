package log

import (
	"context"
	"errors"
	"iter"
	"slices"

	"timehub/hub"
	"timehub/spoke/log/format"
)

// From says where a visit of a stream begins.
type From struct {
	// Low: with the first group that was written when the stream's low was here already, as the log had it. Whatever the writer of the log enqueued after that
	// low was known to it lies there or later. It is the rule for the own stream of a log: see ADR 014.
	Low hub.Mark
	// Above: only records whose key was minted above this mark, wherever they lie, and of what was not minted, replicated items and markers, all that was written about then or
	// later. It is the rule for streams of others. Zero: Low counts.
	Above hub.Mark
	// Lenient leaves out what cannot be had, as reads do. Lost, if it is set, is told of those left out that are the stream's, as far as Options.StreamOf says so.
	Lenient bool
	Lost    func(channel string, key hub.Key)
	// Floor, if it is set, is called first, with the floor of the log at a time when nothing that the visit will see can be swept any more.
	Floor func(hub.Key)
	// Reached, if it is set, is called with each low of the stream that was logged with a group, after what lies in the groups before was visited: nothing of
	// the stream that was decided at or below it lies in that group or later.
	Reached func(hub.Mark)
}

// slackMillis is how much older than a mark a segment's last write may be, by this clock, while the segment still has to do with what lies above the mark.
const slackMillis = 60_000

var errEnough = errors.New("enough")

// Stream visits the records of one writer in the order in which they were written here: items, names of given-up keys, markers. What is written while it
// runs may be visited or not. What is damaged is read by itself or where the log has it again; a record that cannot be had is an error (ErrDamaged) unless it is known
// to be another stream's, or Lost; so is a hole that was not mended, or a segment that cannot be read: whoever relies on a visit relies on all of it.
func (l *Log) Stream(ctx context.Context, stream Stream, from From) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l.rereadAll()
		unread := false
		past := max(from.Above, from.Low).Millis() - slackMillis
		lengths := map[*segment]int64{} // of those that may hold something
		segs, _ := l.pinAll(func(s *segment) {
			unread = unread || s.unread
			if s.closed == 0 || max(s.closed, s.maxMs) >= past {
				lengths[s] = s.length
			}
		})
		defer l.unpin(segs...)
		if from.Floor != nil {
			from.Floor(l.Floor())
		}
		if unread {
			yield(Record{}, cannotRead(nil))
			return
		}
		v := &visit{ctx: ctx, stream: stream, from: from, yield: yield}
		for _, s := range segs {
			length, may := lengths[s]
			if !may {
				continue
			}
			if err := l.visit(ctx, v, s, length); err != nil {
				if !errors.Is(err, errEnough) {
					yield(Record{}, err)
				}
				return
			}
		}
	}
}

// visit is a Stream on its way.
type visit struct {
	ctx    context.Context
	stream Stream
	from   From
	yield  func(Record, error) bool
	begun  bool // from.Low has been reached
	group  []Record
	over   bool // nothing more is yielded: nobody wants it, or ctx is done
	left   bool // nobody wants it
	failed error
}

// give yields a record, unless the visit is over.
func (v *visit) give(r Record) {
	if v.over || v.ctx.Err() != nil {
		v.over = true
		return
	}
	v.left = !v.yield(r, nil)
	v.over = v.left
}

// wants reports whether the rule Above lets a record be visited.
func (v *visit) wants(key hub.Key, flags Flags) bool {
	m, ok := hub.MarkOf(key)
	return v.from.Above == 0 || !minted(flags) || !ok || m > v.from.Above
}

func minted(f Flags) bool { return f&(Replicated|Complete) == 0 }

// visit reads one pinned segment up to a length.
func (l *Log) visit(ctx context.Context, v *visit, s *segment, length int64) error {
	f, err := l.fileOf(s)
	if err != nil {
		return err
	}
	sc := format.Scan{R: f, Salt: s.salt, Limit: length, Fixed: true}
	sc.Hurt = func(off, length int64) {
		if v.over || v.failed != nil {
			return
		}
		lost, err := l.rescue(v, s, off, length)
		if !v.from.Lenient {
			v.failed = err
		}
		for _, r := range lost {
			if r.Flags &^= MoreFollows; v.wants(r.Key, r.Flags) {
				v.give(r)
			}
		}
	}
	sc.Visit = func(r format.Raw, _ int64) {
		if v.failed != nil || r.Stream != v.stream || v.over {
			return
		}
		key := format.KeyOf(r.Millis, r.Hash)
		if !v.wants(key, r.Flags) {
			return
		}
		v.group = append(v.group, Record{Channel: string(r.Channel), Key: key, Stream: r.Stream, Flags: r.Flags, Data: slices.Clone(r.Data)})
	}
	sc.Keep = func(_ format.Group, _ int64, lows []Low, ok bool) {
		group := v.group
		v.group = v.group[:0]
		if !ok || v.over || v.failed != nil {
			return
		}
		for _, low := range lows {
			if low.Stream != v.stream {
				continue
			}
			v.begun = v.begun || low.Mark >= v.from.Low
			if v.from.Reached != nil {
				v.from.Reached(low.Mark)
			}
		}
		if !v.begun && v.from.Above == 0 {
			return
		}
		for _, r := range group {
			v.give(r)
		}
	}
	switch res := sc.Run(); {
	case v.left: // asked first: whoever has left is told nothing more, not even that ctx is done
		return errEnough
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case v.failed != nil:
		return v.failed
	case res.Failed != nil:
		return cannotRead(res.Failed)
	}
	return nil
}
