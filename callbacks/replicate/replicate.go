package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/metrics"
)

// Channels is what replication needs of the channels of this hub; channel.Service is it. See there for what the methods promise.
type Channels interface {
	Channel(ctx context.Context, name string) (*hub.Channel, error)
	Channels(ctx context.Context) ([]*hub.Channel, error)
	BeginReplica(ctx context.Context, ch *hub.Channel, resumed bool, archived hub.Key) (marker, oldest hub.Key, fresh bool, err error)
	Missing(ctx context.Context, ch *hub.Channel, keys []hub.Key) ([]hub.Key, error)
	Replicate(ctx context.Context, ch *hub.Channel, items ...channel.Replica) error
	Complete(ctx context.Context, ch *hub.Channel, upTo hub.Key) error
}

// Options are the parts of a Replicator. Everything down to Registers is required.
type Options struct {
	Channels Channels
	// Watch tells which configurations change: catalog.Catalog.Watch. The ids are those of hub.ChannelID.
	Watch     func() (wake <-chan struct{}, drain func() []string, stop func())
	Leases    coord.Leases
	Registers coord.Registers

	// Archived is the key up to which a channel is in long-term storage, zero if nothing of it is. nil: always zero.
	Archived func(ctx context.Context, channel string) (hub.Key, error)
	// LargeBytes is the size from which on an item is stored as a large one; smaller ones pass through memory. 0: 40 MiB.
	LargeBytes int64
	// Dial reaches sources; nil: TCP.
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	StallAfter time.Duration // a source that sends nothing for so long is given up; 0: 30 s
	Page       int           // keys of one list; 0: 1,000

	RetryMin time.Duration // the first pause after a failure; 0: 250 ms
	RetryMax time.Duration // the greatest one; 0: 30 s
	RestMin  time.Duration // how long a follower that has everything rests without an event at first; 0: 1 s
	RestMax  time.Duration // and in the end; 0: 5 s

	Clock   hub.Clock // nil: time.Now
	Log     *slog.Logger
	Metrics metrics.Registry
}

const (
	cursorPrefix = "replicate/cursor"
	leasePrefix  = "replicate/"
	memoryBudget = 256 << 20 // of items too great for a batch that are in memory at the same time
)

// Replicator runs the followers of one node. Its methods are safe for concurrent use.
type Replicator struct {
	opt     Options
	calls   *guard
	cursors *coord.Cursors
	memory  *semaphore.Weighted
	meters  meters

	mu        sync.Mutex // guards what follows
	followers map[string]*follower
}

type meters struct {
	items, bytes, failures metrics.Counter
	lag                    metrics.Gauge
}

// New checks the options.
func New(opt Options) (*Replicator, error) {
	if opt.Channels == nil || opt.Watch == nil || opt.Leases == nil || opt.Registers == nil {
		return nil, errors.New("replication needs Channels, Watch, Leases and Registers")
	}
	if opt.Archived == nil {
		opt.Archived = func(context.Context, string) (hub.Key, error) { return hub.Key{}, nil }
	}
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{{&opt.StallAfter, 30 * time.Second}, {&opt.RetryMin, 250 * time.Millisecond}, {&opt.RetryMax, 30 * time.Second}, {&opt.RestMin, time.Second}, {&opt.RestMax, 5 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.value
		}
	}
	if opt.LargeBytes <= 0 {
		opt.LargeBytes = 40 << 20
	}
	if opt.Page <= 0 {
		opt.Page = 1000
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Dial == nil {
		opt.Dial = (&net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}).DialContext
	}
	cursors, err := coord.NewCursors(coord.CursorsOptions{Registers: opt.Registers, Prefix: cursorPrefix, Log: opt.Log})
	if err != nil {
		return nil, fmt.Errorf("make the cursors of replication: %w", err)
	}
	m := metrics.OrDiscard(opt.Metrics)
	return &Replicator{
		opt: opt, calls: newGuard(opt.Dial, opt.StallAfter), cursors: cursors, memory: semaphore.NewWeighted(max(memoryBudget, opt.LargeBytes)), followers: map[string]*follower{},
		meters: meters{
			items: m.Counter(metrics.ReplicationItems, "", "channel"), bytes: m.Counter(metrics.ReplicationBytes, "", "channel"),
			failures: m.Counter(metrics.ReplicationErrors, "", "channel"), lag: m.Gauge(metrics.ReplicationLag, "", "channel"),
		},
	}, nil
}

// Run follows the configurations until ctx ends; then every follower has stopped and the cursors are written.
func (r *Replicator) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var cursors, followers sync.WaitGroup
	var failed error
	cursors.Go(func() { failed = r.cursors.Run(writing) })
	r.watch(ctx, &followers)
	followers.Wait()
	r.calls.next.CloseIdleConnections()
	stop()
	cursors.Wait()
	return failed
}

// watch starts and stops followers as the configurations say. What it starts is in the group.
func (r *Replicator) watch(ctx context.Context, group *sync.WaitGroup) {
	wake, drain, stop := r.opt.Watch()
	defer stop()
	pause := r.opt.RetryMin
	for whole := true; ; {
		var failed error
		if whole {
			if failed = r.lookAtAll(ctx, group); failed == nil {
				whole = false
			}
		}
		for _, id := range drain() {
			if err := r.look(ctx, group, id); err != nil {
				failed, whole = err, true
			}
		}
		var again <-chan time.Time
		if failed != nil && ctx.Err() == nil {
			r.opt.Log.Warn("the channels to replicate are not known; trying again", "err", failed)
			again, pause = time.After(pause), min(2*pause, r.opt.RetryMax)
		} else {
			pause = r.opt.RetryMin
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-again:
		}
	}
}

// lookAtAll starts what is to run, and forgets the cursors of channels that were deleted while nobody looked.
func (r *Replicator) lookAtAll(ctx context.Context, group *sync.WaitGroup) error {
	all, err := r.opt.Channels.Channels(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, ch := range all {
		known[hub.ChannelID(ch.Name)] = true
		r.set(ctx, group, hub.ChannelID(ch.Name), ch)
	}
	names, err := r.opt.Registers.Names(ctx, cursorPrefix)
	if err != nil {
		return fmt.Errorf("list the cursors of replication: %w", err)
	}
	for _, name := range names {
		if id := strings.TrimPrefix(name, cursorPrefix+"/"); !known[id] {
			if err := r.look(ctx, group, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// look brings one channel up to date.
func (r *Replicator) look(ctx context.Context, group *sync.WaitGroup, id string) error {
	ch, err := r.opt.Channels.Channel(ctx, id)
	if hub.Is(err, hub.NotFound) {
		r.set(ctx, group, id, nil)
		return r.cursors.Delete(ctx, id)
	}
	if err != nil {
		return err
	}
	r.set(ctx, group, id, ch)
	return nil
}

// set starts, stops or exchanges the follower of a channel; ch nil: there is no such channel. A new follower begins when the old one has ended.
func (r *Replicator) set(ctx context.Context, group *sync.WaitGroup, id string, ch *hub.Channel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.followers[id]
	if old != nil {
		if ch != nil && old.follows(ch) {
			return
		}
		old.cancel()
		delete(r.followers, id)
	}
	if ch == nil || !ch.Replicated() {
		return
	}
	inner, cancel := context.WithCancel(ctx)
	f := &follower{r: r, ch: ch, id: id, cancel: cancel, ended: make(chan struct{})}
	f.status = Status{State: Waiting, Gone: []Range{}}
	r.followers[id] = f
	group.Go(func() {
		defer close(f.ended)
		defer cancel()
		if old != nil {
			<-old.ended
		}
		f.run(inner)
	})
}
