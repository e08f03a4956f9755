package node

import (
	"context"
	"fmt"

	"timehub/callbacks/replicate"
	"timehub/channel"
	"timehub/hub"
	"timehub/spoke"
)

var (
	_ replicate.Channels = (*channel.Service)(nil)
	_ channel.Replicas   = (*spoke.Node)(nil)
)

// runReplication keeps channels that have a source equal to it, as far as this node holds the leases.
func (n *Node) runReplication(ctx context.Context, ready func()) error {
	p := &n.parts
	if !n.cfg.Bool("replication.enabled") {
		ready()
		<-ctx.Done()
		return nil
	}
	r, err := replicate.New(replicate.Options{
		Channels: p.service, Watch: p.catalog.Watch, Leases: p.coordinator, Registers: p.coordinator, Archived: n.archivedTo,
		Dial: n.env.Dial, LargeBytes: min(n.cfg.Bytes("app.large.payload.MB"), maxSmall), Clock: n.env.Clock, Log: n.log.With("component", "replicate"), Metrics: p.metrics,
	})
	if err != nil {
		return fmt.Errorf("make the replication: %w", err)
	}
	p.replication.Store(r)
	ready()
	return r.Run(ctx)
}

// archivedTo is how far a channel is archived, by the coordinator.
func (n *Node) archivedTo(ctx context.Context, channel string) (hub.Key, error) {
	j := n.parts.jobs.Load()
	if j == nil {
		return hub.Key{}, hub.E(hub.Unavailable, "the archive jobs are not there yet")
	}
	return j.Cursor(ctx, channel)
}

// replicationStatus is the member "replication" of a channel's status.
func (n *Node) replicationStatus(ctx context.Context, ch *hub.Channel) (any, bool) {
	r := n.parts.replication.Load()
	if r == nil {
		return nil, false
	}
	return r.Status(ctx, ch)
}
