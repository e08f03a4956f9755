// Package archive holds the jobs that make long-term storage whole, each on one node at a time (coord.Lead):
//
//   - the archiver carries what the short-term store holds to long-term storage and remembers, by a durable cursor for each channel, how far it is;
//   - the verifier compares minutes of both stores and archives again what is missing;
//   - the retention removes what has expired (ttlDays) or is one too many (maxItems);
//   - the lifecycle rules of a store that removes by age on its own are kept in line with the channels;
//   - the clean-up removes what deleted channels have left behind.
//
// The queue between the stores is the log of the short-term store itself: nothing waits in memory, so a crash forgets nothing, and the log keeps what is not
// archived. A cursor moves only after what lies below it has been written and read back. Everything can be done twice: a process may die between any
// two steps, a reply may be lost, and two leaders may work at once without harm.
//
// Nothing here polls. Ten thousand quiet channels cost a few hundred bytes each and no goroutine; a channel with new items waits in a queue for one of
// a few workers, one with a minute still open waits for the end of that minute.
package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/metrics"
)

// ShortTerm is what the jobs need of the short-term store; spoke.Node is it.
type ShortTerm interface {
	// Channels returns every channel of which the store holds something, with the last key.
	Channels(ctx context.Context) (map[string]hub.Key, error)
	// Changes wakes when any channel has a new key that the horizon has reached; drain returns their names since the last drain.
	Changes() (wake <-chan struct{}, drain func() []string, stop func())
	// Horizon is the key up to which nothing can come up any more, but keys that bring their own order (replication).
	Horizon(ctx context.Context) (hub.Key, error)
	// Complete takes its place for a replicated channel: keys at or below it that come later are flagged late, and asked of Confirmed. false: nothing of the
	// channel is settled yet.
	Complete(channel string) (hub.Key, bool)
	// Minute returns number and sum of hub.Key.Digest of the distinct keys that the store holds of a minute.
	Minute(ctx context.Context, channel string, minute time.Time) (count int, digest uint64, err error)
}

// Source reads items of the short-term store as people may see them; channel.Service is it. Queries have tier CACHE_WRITE and all epochs. What has expired,
// was deleted, or belongs to a deleted channel is left out, and so never archived.
type Source interface {
	Keys(ctx context.Context, q hub.Query) (hub.Page, error)
	Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error]
}

// LongTerm is what the jobs need of long-term storage; longterm.Store is it.
type LongTerm interface {
	// PutMinute and PutSingle return nil when everything they were given is durable and was read back. Conflict: other content is there.
	PutMinute(ctx context.Context, ch *hub.Channel, minute time.Time, items iter.Seq2[hub.Sealed, error]) (int, error)
	PutSingle(ctx context.Context, ch *hub.Channel, item hub.Sealed) error
	// MinuteDigest is ShortTerm.Minute of one layout, hub.Single or hub.Batch.
	MinuteDigest(ctx context.Context, ch *hub.Channel, layout hub.Storage, minute time.Time) (count int, digest uint64, err error)
	Keys(ctx context.Context, ch *hub.Channel, q hub.Query) (hub.Page, error)
	// DeleteBefore removes what lies below key, except a minute's zip that key lies within. It returns the number of objects removed.
	DeleteBefore(ctx context.Context, ch *hub.Channel, key hub.Key) (int, error)
}

// Channels is what the jobs need of the configurations; channel.Service is it.
type Channels interface {
	// Channel answers from memory, Fresh from the store: NotFound if there is none of that name in any spelling.
	Channel(ctx context.Context, name string) (*hub.Channel, error)
	Fresh(ctx context.Context, name string) (*hub.Channel, error)
	Channels(ctx context.Context) ([]*hub.Channel, error)
	Remains(ctx context.Context) ([]channel.Remains, error)
	Cleaned(ctx context.Context, r channel.Remains) error
	// Trim hides what lies below a key from everybody, whatever still holds it. false: the channel is gone, or keeps another number of items now.
	Trim(ctx context.Context, ch *hub.Channel, below hub.Key) (bool, error)
}

// Options are the parts of Jobs. Everything down to Registers is required.
type Options struct {
	Short     ShortTerm
	Source    Source
	Long      LongTerm
	Channels  Channels
	Leases    coord.Leases
	Registers coord.Registers

	// Damaged tells errors of Source that mean: this item is lost on this disk, go on without it. nil: there are none.
	Damaged func(error) bool

	Workers  int // channels that are archived at the same time; 0: 8
	Parallel int // single items that are put at the same time; 0: 64

	// How long from one round to the next; 0: the default, negative: the job does not run here. Rounds are spread by a quarter.
	VerifyEvery time.Duration // 15 minutes (s3Verifier.offsetMinutes)
	RetainEvery time.Duration // 6 hours
	CleanEvery  time.Duration // 1 minute
	// VerifyTimeout bounds the verification of one channel in one round; 0: 2 minutes.
	VerifyTimeout time.Duration

	Rules    Rules // nil: the store has no rules by which it removes what has expired
	MaxRules int   // s3.maxRules: how many there may be

	Clock   hub.Clock // nil: time.Now
	Log     *slog.Logger
	Metrics metrics.Registry
}

func (o *Options) complete() error {
	if o.Short == nil || o.Source == nil || o.Long == nil || o.Channels == nil || o.Leases == nil || o.Registers == nil {
		return errors.New("the archive jobs need Short, Source, Long, Channels, Leases and Registers")
	}
	if o.Damaged == nil {
		o.Damaged = func(error) bool { return false }
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Metrics = metrics.OrDiscard(o.Metrics)
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{{&o.VerifyEvery, 15 * time.Minute}, {&o.RetainEvery, 6 * time.Hour}, {&o.CleanEvery, time.Minute}, {&o.VerifyTimeout, 2 * time.Minute}} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	for _, d := range []struct {
		of    *int
		value int
	}{{&o.Workers, 8}, {&o.Parallel, 64}} {
		if *d.of <= 0 {
			*d.of = d.value
		}
	}
	return nil
}

// The names in the coordinator.
const (
	archivedPrefix = "archive/archived" // cursors: archived up to
	verifiedPrefix = "archive/verified" // cursors: verified up to
	leasePrefix    = "archive/lease/"
)

// Jobs are the archive jobs of one node. All methods are safe for concurrent use.
type Jobs struct {
	opt      Options
	meters   meters
	archived *coord.Cursors
	verified *coord.Cursors
	puts     chan struct{} // a token for each PutSingle that may run

	mu     sync.Mutex // guards what follows
	leads  bool       // this node archives
	views  map[string]*view
	behind int // views with something that is not archived
}

// view is what the node that archives knows of one channel. Of a channel that it has not looked at there is none.
type view struct {
	at     hub.Key   // archived up to
	oldest time.Time // of the items that are not archived; zero: all are
	gone   bool      // there is no such channel
}

type meters struct {
	items, bytes, failures             metrics.Counter
	lag, pending                       metrics.Gauge
	missing, verifyFailed, verifyParts metrics.Counter
	deleted                            metrics.Counter
}

// New checks the options and returns the jobs, not running.
func New(o Options) (*Jobs, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	j := &Jobs{opt: o, puts: make(chan struct{}, o.Parallel), views: map[string]*view{}}
	var err error
	if j.archived, err = coord.NewCursors(coord.CursorsOptions{Registers: o.Registers, Prefix: archivedPrefix, Log: o.Log}); err != nil {
		return nil, fmt.Errorf("make the archive's cursors: %w", err)
	}
	if j.verified, err = coord.NewCursors(coord.CursorsOptions{Registers: o.Registers, Prefix: verifiedPrefix, Log: o.Log}); err != nil {
		return nil, fmt.Errorf("make the verifier's cursors: %w", err)
	}
	m := o.Metrics
	j.meters = meters{
		items: m.Counter(metrics.ArchiveItems, ""), bytes: m.Counter(metrics.ArchiveBytes, ""), failures: m.Counter(metrics.ArchiveErrors, ""),
		lag: m.Gauge(metrics.ArchiveLag, ""), pending: m.Gauge(metrics.ArchivePending, ""),
		missing: m.Counter(metrics.VerifierMissing, ""), verifyFailed: m.Counter(metrics.VerifierFailed, ""),
		verifyParts: m.Counter(metrics.VerifierPartial, ""), deleted: m.Counter(metrics.RetentionDeleted, ""),
	}
	return j, nil
}

// Run runs the jobs until ctx ends, then writes the cursors for the last time. It returns nil, or why a job, or that write, failed for good.
func (j *Jobs) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var cursors errgroup.Group
	cursors.Go(func() error { return j.archived.Run(writing) })
	cursors.Go(func() error { return j.verified.Run(writing) })

	jobs, inner := errgroup.WithContext(ctx)
	jobs.Go(func() error { return j.lead(inner, "archiver", j.archive) })
	for _, job := range []struct {
		name  string
		every time.Duration
		round func(context.Context, uint64) error
	}{
		{"verifier", j.opt.VerifyEvery, j.verifyRound}, {"retention", j.opt.RetainEvery, j.retainRound}, {"clean-up", j.opt.CleanEvery, j.cleanRound},
	} {
		if job.every < 0 {
			continue
		}
		jobs.Go(func() error {
			return j.lead(inner, job.name, func(ctx context.Context, fence uint64) error {
				return j.rounds(ctx, job.name, job.every, func(ctx context.Context) error { return job.round(ctx, fence) })
			})
		})
	}
	if j.opt.Rules != nil {
		jobs.Go(func() error { return j.lead(inner, "lifecycle", j.keepRules) })
	}
	err := jobs.Wait()
	if ctx.Err() != nil {
		err = nil
	}
	stop()
	return errors.Join(err, cursors.Wait())
}

func (j *Jobs) lead(ctx context.Context, name string, run func(context.Context, uint64) error) error {
	if err := coord.Lead(ctx, j.opt.Leases, leasePrefix+name, run); err != nil {
		return fmt.Errorf("job %s: %w", name, err)
	}
	return nil
}

// rounds runs a round now and then; a round that fails is logged and comes again.
func (j *Jobs) rounds(ctx context.Context, name string, every time.Duration, round func(context.Context) error) error {
	for hub.Sleep(ctx, around(every)) {
		if err := round(ctx); err != nil && ctx.Err() == nil {
			j.opt.Log.Warn("a round of an archive job failed; it comes again", "job", name, "err", err)
		}
	}
	return context.Cause(ctx)
}

// live returns the channel of exactly this name; nil if there is none.
func (j *Jobs) live(ctx context.Context, name string) (*hub.Channel, error) {
	ch, err := j.opt.Channels.Channel(ctx, name)
	return exactly(ch, err, name)
}

// exactly drops a channel that is spelled in another way: its items have other names in both stores.
func exactly(ch *hub.Channel, err error, name string) (*hub.Channel, error) {
	switch {
	case hub.Is(err, hub.NotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the configuration of a channel: %w", err)
	case ch.Name != name:
		return nil, nil
	}
	return ch, nil
}
