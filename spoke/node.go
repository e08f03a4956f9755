package spoke

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	spokelog "timehub/spoke/log"
)

// Defaults of Options.
const (
	DefaultWriteTimeout = 5 * time.Second
	DefaultClockGuard   = 500 * time.Millisecond
	DefaultSweepEvery   = time.Minute
	namesRetry          = time.Second
)

// Options are for Open. Disk and Clock are required.
type Options struct {
	Disk         disk.Disk
	Clock        hub.Clock
	Log          *slog.Logger
	Random       func() uint32 // for the last character of a hash; nil: a random source
	WriteTimeout time.Duration // spoke.write.timeout
	ClockGuard   time.Duration // app.clock_guard: the clock file runs at most half of it ahead
	SweepEvery   time.Duration
	// Segments configures the log. Disk, Clock, Log, Lows and Archived are filled in here.
	Segments spokelog.Options
	// Cluster makes the node one of several; nil: it is alone.
	Cluster *Cluster
	// Archived tells the key up to which long-term storage has confirmed a channel; false: nobody needs the channel any more.
	Archived func(channel string) (hub.Key, bool)
}

// Node is one incarnation on one disk. All methods are safe for concurrent use. It takes writes while Run runs.
type Node struct {
	opt      Options
	log      *slog.Logger
	identity Identity
	stream   spokelog.Stream
	store    *spokelog.Log
	board    *board
	raising  chan struct{} // holds a token while nobody raises the bound
	kick     chan struct{} // asks Run to raise the bound ahead of need
	renames  chan struct{} // asks Run to try again to name keys that are given up

	mu      sync.Mutex // guards the fields below; never held while anybody waits
	minter  *hub.Minter
	limit   hub.Mark // the durable bound: nothing at or above it is minted or shown
	flight  flight
	unnamed []*request // giving up, and the log would not take the name yet
	nowEnd  hub.Mark   // the end of the millisecond that Now returned last

	cluster *cluster // nil: alone

	bound *bound // whoever holds the token of raising
}

// Open takes a disk: it recovers the log, makes sure of the identity and begins a new incarnation. Nothing runs before Run. Errors name what is wrong
// with the data directory. What the log had to report is in the second result.
func Open(ctx context.Context, opt Options) (*Node, spokelog.Recovered, error) {
	if opt.Disk == nil || opt.Clock == nil {
		return nil, spokelog.Recovered{}, errors.New("spoke: Disk and Clock are required")
	}
	opt.WriteTimeout = cmp.Or(opt.WriteTimeout, DefaultWriteTimeout)
	opt.ClockGuard = cmp.Or(opt.ClockGuard, DefaultClockGuard)
	opt.SweepEvery = cmp.Or(opt.SweepEvery, DefaultSweepEvery)
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Random == nil {
		opt.Random = rand.Uint32
	}
	n := &Node{
		opt: opt, log: opt.Log, board: newBoard(), raising: make(chan struct{}, 1), kick: make(chan struct{}, 1), renames: make(chan struct{}, 1),
	}
	n.raising <- struct{}{}
	var err error
	if n.identity, err = begin(opt.Disk); err != nil {
		return nil, spokelog.Recovered{}, err
	}
	n.stream = spokelog.Stream{Ordinal: n.identity.Ordinal, Incarnation: n.identity.Incarnation}
	b, at, lost, err := openBound(opt.Disk)
	if err != nil {
		return nil, spokelog.Recovered{}, err
	}
	n.bound = b
	seg := opt.Segments
	seg.Disk, seg.Clock, seg.Log, seg.Lows, seg.Archived, seg.Reached = opt.Disk, opt.Clock, opt.Log, n.lows, opt.Archived, b.reached
	if opt.Cluster != nil {
		seg.NameSpread = func(k hub.Key) bool { return n.cluster.nameSpread(k) }
		seg.StreamOf = func(k hub.Key) (spokelog.Stream, bool) {
			if n.cluster == nil { // while it is made
				return spokelog.Stream{}, false
			}
			return n.cluster.streamOf(k)
		}
		seg.Damaged = func() {
			if n.cluster != nil { // while it is made, nobody waits yet
				poke(n.cluster.damage)
			}
		}
		seg.MayRemove = func(ctx context.Context) error { return n.cluster.mayRemove(ctx) }
		if seg.Mended, err = mendedHoles(opt.Disk); err != nil {
			return nil, spokelog.Recovered{}, err
		}
	}
	meters := newMeters(seg.Metrics)
	n.minter = hub.NewMinter(opt.Clock, at, n.identity.Ordinal, opt.Random)
	store, found, err := spokelog.Open(ctx, seg)
	if err != nil {
		return nil, found, err
	}
	n.store = store
	for _, low := range store.Lows() { // they lie below the bound, unless its file was lost
		n.minter.Raise(low.Mark)
	}
	if lost { // otherwise what lies above the bound was not minted here: replicated keys do not move the clock
		if m, ok := hub.MarkOf(found.Last); ok {
			n.minter.Raise(m)
		}
		n.log.Error("the clock file held no position; starting above everything in the log and half a guard above the clock", "file", opt.Disk.Path(clockFile))
		n.minter.Raise(hub.MarkAt(n.minter.Wall() + opt.ClockGuard.Milliseconds()/2))
	}
	n.limit = n.minter.Last()
	if opt.Cluster != nil {
		if n.cluster, err = newCluster(n, *opt.Cluster, meters); err != nil {
			return nil, found, errors.Join(err, n.Close())
		}
	}
	return n, found, nil
}

// Identity is the identity of the disk, with the incarnation that this node is.
func (n *Node) Identity() Identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.identity
}

// Run takes writes until ctx ends; then it has answered all of them.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	parts := []func(context.Context) error{n.store.Run, n.keepAhead, n.keepNaming, n.keepSwept}
	if n.cluster != nil {
		parts = append(parts, n.cluster.run)
	}
	for _, part := range parts {
		wg.Go(func() {
			if err := part(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Close closes the files. Run must have returned.
func (n *Node) Close() error {
	err := errors.Join(n.store.Close(), n.bound.file.Close())
	if n.cluster != nil {
		err = errors.Join(err, n.cluster.late.close())
	}
	return err
}

// keepAhead raises the bound ahead of need, so that a write on a busy node does not wait for it.
func (n *Node) keepAhead(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.kick:
		}
		n.mu.Lock()
		need, stands := n.minter.Peek(), n.stands()
		n.mu.Unlock()
		if stands {
			continue
		}
		if err := n.raise(ctx, need+n.lead()/2); err != nil && ctx.Err() == nil {
			n.log.Error("the clock file cannot be moved ahead; writes will wait for it", "err", err)
			hub.Sleep(ctx, namesRetry)
		}
	}
}

func (n *Node) keepNaming(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.renames:
		}
		hub.Sleep(ctx, namesRetry)
		n.mu.Lock()
		waiting := n.unnamed
		n.unnamed = nil
		for _, r := range waiting {
			n.name(r)
		}
		n.mu.Unlock()
	}
}

func (n *Node) keepSwept(ctx context.Context) error {
	for hub.Sleep(ctx, n.opt.SweepEvery) {
		if err := n.store.Sweep(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("sweeping the log failed; it is tried again", "err", err)
		}
		if n.cluster != nil {
			n.cluster.forgetMarkers()
		}
	}
	return nil
}

// lead is how far the bound may run ahead.
func (n *Node) lead() hub.Mark { return hub.MarkAt(n.opt.ClockGuard.Milliseconds() / 2) }

// raise makes the bound durable above a position, and up to a lead further.
func (n *Node) raise(ctx context.Context, above hub.Mark) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-n.raising:
	}
	defer func() { n.raising <- struct{}{} }()
	n.mu.Lock()
	to := max(above+1, n.minter.Peek()+n.lead())
	enough := n.limit > above
	var err error
	if n.stands() { // its own time counts for nothing
		to = above + 1
		if above.Millis() > n.wall()+n.opt.ClockGuard.Milliseconds() {
			err = n.cluster.standing()
		}
	}
	n.mu.Unlock()
	if enough || err != nil {
		return err
	}
	if err := n.bound.raise(to, n.store.Reached()); err != nil {
		return err
	}
	n.mu.Lock()
	n.limit = max(n.limit, to)
	n.mu.Unlock()
	return nil
}

// ahead asks for a higher bound in time. Called under mu.
func (n *Node) ahead(m hub.Mark) {
	if n.limit-m < n.lead()/2 {
		select {
		case n.kick <- struct{}{}:
		default:
		}
	}
}

// lows is what is logged with the next group.
func (n *Node) lows() []spokelog.Low {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cluster != nil {
		return n.cluster.lows()
	}
	return []spokelog.Low{{Stream: n.stream, Epoch: 1, Mark: n.lowOfFlight()}}
}

// Status is the state of the log, for /health and /metrics.
func (n *Node) Status() spokelog.Status {
	s := n.store.Status()
	if s.Refusing == nil && n.cluster != nil {
		n.mu.Lock()
		s.Refusing = n.cluster.writable()
		n.mu.Unlock()
	}
	return s
}

// sortedRecords is used where a caller's order is not the order of the keys.
func sortedRecords(records []spokelog.Record) []spokelog.Record {
	slices.SortStableFunc(records, func(a, b spokelog.Record) int { return a.Key.Compare(b.Key) })
	return records
}
