package log

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/hub/metrics"
	"timehub/spoke/log/format"
)

// ErrLost is given to Batch.Done when the records are surely not in the log, now or after any restart.
var ErrLost = errors.New("the records were not written")

// ErrClosed is given to Batch.Done when Run ended before the fate of the records was known: the next start may find them or not.
var ErrClosed = errors.New("the log was closed before the records were safe")

// ErrDamaged is in the chain of the error for a record that is in the log and cannot be read: it is absent, never wrong.
var ErrDamaged = errors.New("the record is damaged on this disk")

// The words of the log that are part of its bytes.
type (
	// Stream is a writer: one start of a node on a disk (ENGINE §4).
	Stream = format.Stream
	// Low says that everything of a stream at or below Mark is decided, as of an epoch. It is logged with each group.
	Low = format.Low
	// Flags say how a record came here and what it means.
	Flags = format.Flags
	// Record is one item of a channel, or with GivenUp the name of one. The log keeps Data as it is and never looks inside.
	Record = format.Record
	// Digest is the fingerprint of a set of keys.
	Digest = format.Digest
)

// The flags of a record; the other bits are zero in this version.
const (
	GivenUp     = format.GivenUp     // a name without data: it hides the key in every read, wherever the data lies, unless it is Taken
	Late        = format.Late        // came at or below the horizon; confirmed one by one
	Carried     = format.Carried     // copied here from a segment that was emptied
	Replicated  = format.Replicated  // came with a key of its own
	MoreFollows = format.MoreFollows // the next record belongs to the same request
	Complete    = format.Complete    // a marker: no item, no data, shown by no read but Log.Complete
	Taken       = format.Taken       // an item that was taken back: it outweighs names of its key, written before or after it, for as long as it is in the log
)

// Batch holds the records of one request: they are kept or dropped together. Enqueue sets MoreFollows on all but the last, unless it is Several. Nothing in it, and none of
// the bytes that it refers to, may be changed before Done is called.
type Batch struct {
	Records []Record
	// Done is called exactly once, by the committer, in the order of Enqueue: with nil when the records are on disk (as SyncMode says) and visible to
	// reads; with ErrLost when they are surely not in the log; with ErrClosed when Run ended before either was known. It must return quickly and
	// must not call the Log, except Enqueue.
	Done func(err error)
	// Several: the records are those of several requests, and their MoreFollows say where each ends.
	Several bool

	size    int64
	durable bool // synced whatever SyncMode says: what it replaces goes when Done is called
}

// SyncMode says when a record counts as written.
type SyncMode uint8

// The modes of spoke.sync.
const (
	Always   SyncMode = iota // acknowledged means on disk
	Interval                 // synced every 100 ms; a power cut loses what is younger
	Never                    // synced when a segment is full
)

// Defaults of Options.
const (
	DefaultDir            = "spoke"
	DefaultSegmentBytes   = 64 << 20
	DefaultSegmentRecords = 250_000
	DefaultSegmentAge     = time.Minute
	DefaultTTL            = time.Hour
	DefaultMinFree        = 256 << 20
)

// Options of Open. Disk is needed; everything else has a default.
type Options struct {
	Disk           disk.Disk
	Dir            string // folder of the log
	Sync           SyncMode
	SegmentBytes   int64         // a segment is rolled when a group would pass any of these
	SegmentRecords int           //
	SegmentAge     time.Duration // since its first group
	Clock          hub.Clock     // for the age of segments; default time.Now
	TTL            time.Duration // a segment younger than this is not swept
	MinFree        int64         // writes are refused when less is free; negative: 0
	// Unconfirmed is the number of bytes that long-term storage on the same file system will still need; added to MinFree. nil: 0.
	Unconfirmed func() int64
	// Lows is asked for each group by the committer; it must return quickly and must not call the Log. nil: none.
	Lows func() []Low
	// Archived is the key up to which a channel is in long-term storage; false: the channel needs nothing (it was deleted). nil: nothing is archived.
	Archived func(channel string) (hub.Key, bool)
	// Reached is what Reached of the process before said last, as far as that was written down: what is not valid before it is damage, and no write that was not finished.
	Reached Position
	// Mended reports whether what was lost in a hole has been put into the log again. nil: it was not.
	Mended func(Hole) bool
	// LateConfirmed reports whether a record flagged Late is in long-term storage. nil: none is.
	LateConfirmed func(channel string, key hub.Key) bool
	// NameSpread reports whether everybody who may hold the record of a given-up key has its name; until then a sweep keeps the name. It must not call the Log. nil: always.
	NameSpread func(key hub.Key) bool
	// MayRemove is asked by a sweep before a segment goes, after Archived was; an error keeps the segment for now. nil: it may.
	MayRemove func(ctx context.Context) error
	// Damaged is called when a record was found damaged that the log has nowhere else: Broken lists it, and until somebody has mended it or has said that it is Lost, visits that
	// need it fail, and its segment is not swept. It must return quickly and must not call the Log. nil: nobody can mend anything.
	Damaged func()
	// StreamOf says by its key alone who minted a record, for those that cannot be read; false: nobody who is on record. It must not call the Log. nil: that is not known.
	StreamOf func(key hub.Key) (Stream, bool)
	Metrics  metrics.Registry
	Log      *slog.Logger
	Salt     func() uint64 // of new segments; nil: random
}

// withDefaults checks the options and fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Disk == nil {
		return o, errors.New("spoke log: Options.Disk is nil")
	}
	if o.Sync > Never {
		return o, fmt.Errorf("spoke log: no such sync mode: %d", o.Sync)
	}
	if o.SegmentBytes > format.MaxSegment-format.MaxBatch || o.SegmentBytes < 0 || o.SegmentRecords < 0 || o.SegmentAge < 0 || o.TTL < 0 {
		return o, errors.New("spoke log: a limit of segments is out of range")
	}
	o.Dir = cmp.Or(o.Dir, DefaultDir)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, DefaultSegmentBytes)
	o.SegmentRecords = cmp.Or(o.SegmentRecords, DefaultSegmentRecords)
	o.SegmentAge = cmp.Or(o.SegmentAge, DefaultSegmentAge)
	o.TTL = cmp.Or(o.TTL, DefaultTTL)
	o.MinFree = max(0, cmp.Or(o.MinFree, DefaultMinFree))
	o.Metrics = metrics.OrDiscard(o.Metrics)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Unconfirmed == nil {
		o.Unconfirmed = func() int64 { return 0 }
	}
	if o.Lows == nil {
		o.Lows = func() []Low { return nil }
	}
	if o.Archived == nil {
		o.Archived = func(string) (hub.Key, bool) { return hub.MinKey, true }
	}
	if o.Mended == nil {
		o.Mended = func(Hole) bool { return false }
	}
	if o.LateConfirmed == nil {
		o.LateConfirmed = func(string, hub.Key) bool { return false }
	}
	if o.NameSpread == nil {
		o.NameSpread = func(hub.Key) bool { return true }
	}
	if o.MayRemove == nil {
		o.MayRemove = func(context.Context) error { return nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Salt == nil {
		o.Salt = rand.Uint64
	}
	return o, nil
}

// Range is what the log has of a channel.
type Range struct {
	First, Last hub.Key
	Count       int64 // records: a key that lies in two segments counts twice, a name of a given-up key counts
}

// Hole is damage to acknowledged data: bytes of a segment that are no valid group or record.
type Hole struct {
	Segment        uint64
	Offset, Length int64
	From, To       hub.Key // the lost keys of one writer probably lie between these
}

// Recovered says what Open found.
type Recovered struct {
	Segments int
	Scanned  int     // segments that had no good footer
	Records  int64   //
	Bytes    int64   //
	Cut      int64   // bytes of a torn tail that were dropped
	Last     hub.Key // highest key in the log, names of given-up keys included
	Lows     []Low   // latest of each stream
	Holes    []Hole
	Took     time.Duration
}

// Status is a snapshot for metrics and health.
type Status struct {
	Segments   int
	Bytes      int64 // of all segments, footers included
	Records    int64
	Holes      []Hole
	Damaged    int64 // records found damaged by reads since the start
	Failures   int   // failed writes in a row
	Refusing   error // why writes are refused now; nil: they are not. A *hub.Error of kind Unavailable or Full
	Free       int64 // bytes, as last seen; -1: not known
	Waiting    int   // batches that wait for the committer
	Unfootered int   // segments whose index is held in memory
	Unread     int   // segments that the disk does not give at the moment: what may lie in them is Unavailable
	Carried    int64 // records copied by sweeps since the start
	Swept      int64 // segments removed by sweeps since the start
}
