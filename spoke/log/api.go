package log

import (
	"context"
	"iter"
	"time"

	"timehub/hub"
)

// Log is the log of one disk. All methods are safe for concurrent use.
type Log struct {
	opt Options
}

// Open recovers the log in opt.Dir, making it if there is none. It starts nothing: writes wait for Run.
func Open(ctx context.Context, opt Options) (*Log, Recovered, error) { return nil, Recovered{}, nil }

// Run commits what is enqueued, writes footers, rolls segments by age and watches the free space. It returns soon after ctx ends, when what was enqueued
// before is on disk or failed. It may be called once.
func (l *Log) Run(ctx context.Context) error { return nil }

// Enqueue hands a batch to the committer; it never blocks. Batches lie in the log in the order of their Enqueue. When it returns an error (Unavailable,
// Full, Invalid, TooLarge), Done is not called and nothing is written.
func (l *Log) Enqueue(b *Batch) error { return nil }

// Get returns the record of a key: NotFound if there is none or it was given up, ErrDamaged if it cannot be read here. The caller owns Data.
func (l *Log) Get(ctx context.Context, channel string, key hub.Key) (Record, error) {
	return Record{}, nil
}

// Keys returns the keys from ≤ key < to of a channel that were not given up, at most limit of them (0: all), ascending from from, or with reverse
// descending from to; more says that the limit ended the search.
func (l *Log) Keys(ctx context.Context, channel string, from, to hub.Key, limit int, reverse bool) (keys []hub.Key, more bool, err error) {
	return nil, false, nil
}

// Items is Keys with the records. They are those that were there at the first step. A damaged record is yielded without Data and with an error that is
// ErrDamaged; the iteration can go on. Any other error ends it. Data may be kept; it shares memory with its neighbours (up to 256 KiB).
func (l *Log) Items(ctx context.Context, channel string, from, to hub.Key, limit int, reverse bool) iter.Seq2[Record, error] {
	return nil
}

// Channels returns every channel with what the log has of it.
func (l *Log) Channels(ctx context.Context) (map[string]Range, error) { return nil, nil }

// Minute returns the digest of a channel's keys, given-up ones excluded, in the minute that holds t.
func (l *Log) Minute(ctx context.Context, channel string, t time.Time) (Digest, error) {
	return Digest{}, nil
}

// Floor is the key from which on everything that was ever written is still here. It is durable, never moves back, and a log that was made empty starts
// with the instant of its making.
func (l *Log) Floor() hub.Key { return hub.Key{} }

// Lows returns the latest low of each stream that the log holds.
func (l *Log) Lows() []Low { return nil }

// Sweep removes the segments that nobody needs any more (ENGINE §3) and empties those of which little is needed; the node calls it now and then, while
// Run runs.
func (l *Log) Sweep(ctx context.Context) error { return nil }

// Status is a snapshot of figures.
func (l *Log) Status() Status { return Status{} }
