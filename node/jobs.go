package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"timehub/channel"
	"timehub/channel/archive"
	"timehub/hub"
	"timehub/hub/catalog"
	spokelog "timehub/spoke/log"
)

// maxRules is the largest s3.maxRules; above it, and below 1, lifecycle rules are not touched (spec 04 §6.2).
const maxRules = 990

// runJobs makes long-term storage whole, for as long as this node holds the leases.
func (n *Node) runJobs(ctx context.Context, ready func()) error {
	p, c := &n.parts, n.cfg
	opt := archive.Options{
		Short: p.spoke, Source: p.service, Long: p.longterm, Channels: p.service, Leases: p.coordinator, Registers: p.coordinator,
		Damaged:     func(err error) bool { return errors.Is(err, spokelog.ErrDamaged) },
		VerifyEvery: c.Duration("s3Verifier.offsetMinutes"), VerifyTimeout: c.Duration("s3Verifier.baseTimeoutMinutes"),
		Clock: n.env.Clock, Log: n.log.With("component", "archive"), Metrics: p.metrics,
	}
	if !c.Bool("s3Verifier.run") {
		opt.VerifyEvery = -1
	}
	if !c.Bool("channel.enforceTTL") || !c.Bool("s3.config.management.enabled") {
		opt.RetainEvery = -1
	}
	if most := int(c.Int("s3.maxRules")); c.Bool("s3.config.management.enabled") && most >= 1 && most <= maxRules && p.longterm.Expires() {
		opt.Rules, opt.MaxRules = p.longterm, most
	}
	if change := n.env.Seams.Jobs; change != nil {
		change(&opt)
	}
	jobs, err := archive.New(opt)
	if err != nil {
		return fmt.Errorf("make the archive jobs: %w", err)
	}
	p.jobs.Store(jobs)
	ready()
	return jobs.Run(ctx)
}

// maxItems applies the limits of one channel now (spec 04 §6.3), whoever holds the lease: doing it twice does no harm.
func (n *Node) maxItems(ctx context.Context, name string) error {
	j := n.parts.jobs.Load()
	if j == nil {
		return hub.E(hub.Unavailable, "the archive jobs are not there yet")
	}
	ch, err := n.parts.service.Fresh(ctx, name)
	if hub.Is(err, hub.NotFound) {
		return nil
	}
	if err != nil || ch.MaxItems <= 0 {
		return err
	}
	_, err = j.Retain(ctx, ch)
	return err
}

// archived is how far a channel is in long-term storage; false: there is no such channel. The sweep of Spoke's log asks that, and whoever misses what the others have swept. A node
// that comes back after that is not one of them before it has an answer, and has no jobs, and no channels, before it is: then the store and the coordinator are asked here.
func (n *Node) archived(name string) (hub.Key, bool) {
	if j := n.parts.jobs.Load(); j != nil {
		return j.Archived(name)
	}
	if n.cfg.Bool("hub.read.only") {
		return hub.MinKey, true
	}
	select {
	case <-n.parts.claimed:
	default: // it may be another hub's
		return hub.MinKey, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), archivedTime)
	defer cancel()
	doc, err := catalog.Look[channel.Document](ctx, n.parts.bucket, catalogPrefix, hub.ChannelID(name))
	switch {
	case hub.Is(err, hub.NotFound), err == nil && (doc.Channel == nil || doc.Channel.Name != name):
		return hub.Key{}, false
	case err != nil:
		return hub.MinKey, true
	}
	at, err := archive.ArchivedTo(ctx, n.parts.coordinator, name)
	if err != nil || at.IsZero() {
		return hub.MinKey, true
	}
	return at, true
}

const archivedTime = 10 * time.Second

// confirmed is what the sweep asks about records that came late.
func (n *Node) confirmed(channel string, key hub.Key) bool {
	j := n.parts.jobs.Load()
	return j != nil && j.Confirmed(channel, key)
}

// unconfirmed estimates the bytes that long-term storage, on the file system of the log, will still need: what was written to the log since the oldest
// item that is not archived yet.
func (n *Node) unconfirmed() int64 {
	p := &n.parts
	j := p.jobs.Load()
	if j == nil {
		return 0
	}
	age, _ := j.Oldest()
	if age <= 0 {
		return 0
	}
	return p.backlog.since(n.env.Clock().Add(-age))
}

// backlog remembers how the log grew.
type backlog struct {
	mu     sync.Mutex // guards what follows
	size   int64      // of the log, when it was looked at last
	total  int64      // by how much it has grown
	points []growth   // in the order of time
}

type growth struct {
	at    time.Time
	total int64
}

// maxGrowth bounds the memory: a day, at four looks a minute.
const maxGrowth = 24 * 60 * 4

// note takes the size of the log down.
func (b *backlog) note(at time.Time, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += max(0, size-b.size)
	b.size = size
	if len(b.points) >= maxGrowth {
		b.points = append(b.points[:0], b.points[1:]...)
	}
	b.points = append(b.points, growth{at, b.total})
}

// since is by how much the log has grown since an instant, but never more than there is in it.
func (b *backlog) since(t time.Time) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := int64(0)
	for i := len(b.points) - 1; i >= 0; i-- {
		if b.points[i].at.Before(t) {
			before = b.points[i].total
			break
		}
	}
	return min(b.total-before, b.size)
}
