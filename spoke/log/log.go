package log

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/hub/metrics"
	"timehub/spoke/log/format"
)

// Log is the log of one disk. All methods are safe for concurrent use.
type Log struct {
	opt     Options
	log     *slog.Logger
	metrics instruments

	wake     chan struct{} // one token: there is something in queue
	sealWake chan struct{} // one token: there is something in toSeal
	prepare  chan struct{} // one token: a new segment is wanted
	prepared chan prepared // the answer
	flooring chan struct{} // holds a token while nobody writes the file floor
	prev     previous      // of Open, then of the committer
	cache    *cache
	hot      [hotRecords]atomic.Pointer[hotRecord]
	unreads  atomic.Int32 // len(unread)

	mu          sync.Mutex // never held during a call to the disk
	segs        []*segment // by sequence; the last one may be active
	open        int        // files of segments
	nextSeq     uint64
	queue       []*Batch
	syncs       []chan error // of those who wait in Sync; each holds one
	toSeal      []*segment
	voids       []uint64 // segments that hold nothing acknowledged and must go before the one whose link says so
	dead        []uint64 // segments that were removed and may come back after a crash
	buried      bool     // dead is in the file floor
	floored     bool     // this process has written the file floor: what an older one left may not be durable
	dirFailures int      // failed syncs of the folder
	lows        map[Stream]Low
	complete    map[string]marker // of channels
	floor       hub.Key
	holes       []Hole
	hurt        Hurt
	hollow      []Hole // that were found since Open, where somebody can mend them
	damage      map[damagedPlace]struct{}
	toMend      map[damagedPlace]Broken // if there is somebody who can
	gone        map[damagedPlace]Broken // damaged, and nobody has them
	damageCount int64
	unread      map[damagedPlace]time.Time // records that could not be read, since when
	unreadSegs  int
	failures    int  // failed writes in a row
	broken      bool // too many of them
	full        bool // the disk
	running     bool
	ended       bool
	reached     Position
	free        int64
	carried     int64
	swept       int64
}

// instruments are the metrics of the log.
type instruments struct {
	sync                                      metrics.Timing
	groups, records, bytes, damaged, failures metrics.Counter
	carried                                   metrics.Counter
	refusedFull, refusedBroken                metrics.Counter
	segments, size, active, free, oldest, ttl metrics.Gauge
	evicted, sweepRuntime                     metrics.Gauge
}

func newInstruments(r metrics.Registry) instruments {
	refused := r.Counter(metrics.LogRefused, "", "reason")
	return instruments{
		sync: r.Timing(metrics.LogSync, ""), groups: r.Counter(metrics.LogGroups, ""), records: r.Counter(metrics.LogRecords, ""),
		bytes: r.Counter(metrics.LogBytes, ""), damaged: r.Counter(metrics.LogDamaged, ""), failures: r.Counter(metrics.LogFailures, ""),
		carried: r.Counter(metrics.LogCarried, ""), refusedFull: refused.With("full"), refusedBroken: refused.With("disk"),
		segments: r.Gauge(metrics.LogSegments, ""), size: r.Gauge(metrics.LogSize, ""), active: r.Gauge(metrics.LogActiveRecords, ""),
		free: r.Gauge(metrics.DiskFree, ""), oldest: r.Gauge(metrics.SpokeOldest, ""), ttl: r.Gauge(metrics.SpokeTTL, ""),
		evicted: r.Gauge(metrics.SpokeEvicted, ""), sweepRuntime: r.Gauge(metrics.SpokeSweepRuntime, ""),
	}
}

func newLog(opt Options) *Log {
	l := &Log{
		opt: opt, flooring: make(chan struct{}, 1), log: opt.Log, metrics: newInstruments(opt.Metrics),
		wake: make(chan struct{}, 1), sealWake: make(chan struct{}, 1), prepare: make(chan struct{}, 1), prepared: make(chan prepared, 1),
		lows: map[Stream]Low{}, complete: map[string]marker{}, damage: map[damagedPlace]struct{}{}, toMend: map[damagedPlace]Broken{}, gone: map[damagedPlace]Broken{},
		unread: map[damagedPlace]time.Time{}, free: -1, cache: newCache(), reached: opt.Reached,
	}
	l.hurt = Hurt{Before: map[Stream]hub.Mark{}, After: map[Stream]bool{}}
	l.flooring <- struct{}{}
	return l
}

// token puts a token into a channel of capacity one.
func token(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Enqueue hands a batch to the committer; it never blocks. Batches lie in the log in the order of their Enqueue. When it returns an error (Unavailable,
// Full, Invalid, TooLarge), Done is not called and nothing is written.
func (l *Log) Enqueue(b *Batch) error { return l.enqueue(b, false) }

// enqueue with force takes the batch although the disk is nearly full: what a sweep writes makes room.
func (l *Log) enqueue(b *Batch, force bool) error {
	if err := b.check(); err != nil {
		return err
	}
	l.mu.Lock()
	err := l.refusal()
	if force && !l.broken && hub.Is(err, hub.Full) {
		err = nil
	}
	if err == nil {
		l.queue = append(l.queue, b)
	}
	l.mu.Unlock()
	if err != nil {
		if hub.Is(err, hub.Full) {
			l.metrics.refusedFull.Add(1)
		} else {
			l.metrics.refusedBroken.Add(1)
		}
		return err
	}
	token(l.wake)
	return nil
}

// check validates a batch, sets MoreFollows and adds up its bytes.
func (b *Batch) check() error {
	if len(b.Records) == 0 {
		return hub.E(hub.Invalid, "a write without items")
	}
	b.size = 0
	for i := range b.Records {
		r := &b.Records[i]
		switch {
		case r.Channel == "" || len(r.Channel) > format.MaxName:
			return hub.E(hub.Invalid, "the name of a channel must have 1 to %d bytes, not %d", format.MaxName, len(r.Channel))
		case len(r.Key.Hash()) > format.MaxName:
			return hub.E(hub.Invalid, "the hash of a key must have at most %d bytes, not %d", format.MaxName, len(r.Key.Hash()))
		case r.Flags&^format.KnownFlags != 0:
			return hub.E(hub.Internal, "record with unknown flags %#x", uint8(r.Flags))
		case r.Flags&GivenUp != 0 && len(r.Data) > 0:
			return hub.E(hub.Internal, "the name of a given-up key with data")
		case r.Flags&Complete != 0 && (len(r.Data) > 0 || r.Flags&GivenUp != 0):
			return hub.E(hub.Internal, "a marker that is an item too")
		case r.Flags&Taken != 0 && r.Flags&(GivenUp|Complete) != 0:
			return hub.E(hub.Internal, "only an item can be taken back")
		}
		if i < len(b.Records)-1 {
			if !b.Several {
				r.Flags |= MoreFollows
			}
		} else {
			r.Flags &^= MoreFollows
		}
		if b.size += format.RecordSize(r); b.size > format.MaxBatch {
			return hub.E(hub.TooLarge, "one request may write at most %d bytes", format.MaxBatch)
		}
	}
	return nil
}

// Refusing is why writes are refused now: a *hub.Error of kind Unavailable or Full; nil: they are not.
func (l *Log) Refusing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal()
}

// refusal is Refusing. l.mu is held.
func (l *Log) refusal() error {
	switch {
	case l.ended:
		return hub.E(hub.Unavailable, "this node is stopping: try another one")
	case l.full: // which may be why it is broken
		e := hub.E(hub.Full, "the disk of this node is nearly full: try again when there is room")
		e.RetryAfter = 30 * time.Second
		return e
	case l.broken:
		e := hub.E(hub.Unavailable, "this node cannot write to its disk at the moment: try again")
		e.RetryAfter = 5 * time.Second
		return e
	}
	return nil
}

// Floor is the key from which on everything that was ever written is still here. It is durable, never moves back, and a log that was made empty starts
// with the instant of its making.
func (l *Log) Floor() hub.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floor
}

// Lows returns the latest low of each stream that the log holds, by stream.
func (l *Log) Lows() []Low {
	l.mu.Lock()
	defer l.mu.Unlock()
	return format.SortedLows(l.lows)
}

// learn takes in lows that are on the disk. l.mu is held.
func (l *Log) learn(lows []Low) { format.MergeLows(l.lows, lows) }

// Status is a snapshot of figures.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		Segments: len(l.segs), Holes: slices.Clone(l.holes), Damaged: l.damageCount, Failures: l.failures, Refusing: l.refusal(), Free: l.free,
		Waiting: len(l.queue), Unread: l.unreadSegs, Carried: l.carried, Swept: l.swept,
	}
	for _, seg := range l.segs {
		s.Bytes += seg.size
		s.Records += int64(seg.records)
		if seg.foot == nil {
			s.Unfootered++
		}
	}
	return s
}

// Close closes the files that are open; call it when Run has returned and nobody reads any more.
func (l *Log) Close() error {
	l.mu.Lock()
	l.ended = true
	var files []disk.File
	for _, s := range l.segs {
		if s.file != nil {
			files = append(files, s.file)
			s.file = nil
			l.open--
		}
	}
	l.mu.Unlock()
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// insert puts a segment into its place. l.mu is held.
func (l *Log) insert(s *segment) {
	i, _ := slices.BinarySearchFunc(l.segs, s.seq, func(s *segment, seq uint64) int { return cmp.Compare(s.seq, seq) })
	l.segs = slices.Insert(slices.Clone(l.segs), i, s)
}

// drop takes a segment out. l.mu is held.
func (l *Log) drop(s *segment) {
	l.segs = slices.DeleteFunc(slices.Clone(l.segs), func(o *segment) bool { return o == s })
	s.removed = true
}

// removeVoids removes files that hold nothing acknowledged; it reports whether none is left.
func (l *Log) removeVoids() (bool, error) {
	l.mu.Lock()
	voids := slices.Clone(l.voids)
	l.mu.Unlock()
	if len(voids) == 0 {
		return true, nil
	}
	before := l.dirState()
	for _, seq := range voids {
		if err := l.opt.Disk.Remove(segmentName(l.opt.Dir, seq)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	err := l.syncName(before)
	l.mu.Lock()
	l.voids = slices.DeleteFunc(l.voids, func(v uint64) bool { return slices.Contains(voids, v) })
	if err != nil {
		l.bury(voids...)
	}
	left := len(l.voids)
	l.mu.Unlock()
	return left == 0, err
}

// bury notes removed segments whose names may come back. l.mu is held.
func (l *Log) bury(seqs ...uint64) {
	l.dead = append(l.dead, seqs...)
	l.dead = l.dead[max(0, len(l.dead)-format.MaxDead):]
	l.buried = false
}
