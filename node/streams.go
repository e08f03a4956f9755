package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/sync/errgroup"

	"timehub/callbacks/stream"
	"timehub/channel"
	"timehub/channel/feed"
)

var (
	_ feed.Source     = (*channel.Service)(nil)
	_ feed.Channels   = (*channel.Service)(nil)
	_ stream.Channels = (*channel.Service)(nil)
)

// openStreams makes what all followers of this node share, and the connections on which items are pushed. parts.leaving ends when no more requests
// are accepted: those that wait for items end then.
func (n *Node) openStreams(server *http.Server) error {
	p := &n.parts
	var leave context.CancelFunc
	p.leaving, leave = context.WithCancel(context.Background())
	server.RegisterOnShutdown(leave)
	var err error
	p.feeds, err = feed.NewShared(feed.SharedOptions{
		Source: n.env.Seams.feed(p.service), Channels: p.service, Horizon: stability(n.cfg), Clock: n.env.Clock,
		Configs: p.catalog.Watch, Keys: p.spoke.Changes, Log: n.log.With("component", "feed"),
	})
	if err != nil {
		return fmt.Errorf("make the feeds: %w", err)
	}
	p.streams, err = stream.New(stream.Options{
		Channels: p.service, Feeds: p.feeds, Stopping: p.leaving, Metrics: p.metrics, Log: n.log.With("component", "stream"),
	})
	if err != nil {
		return fmt.Errorf("make websockets and events: %w", err)
	}
	return nil
}

// withStreams runs the feeds and the connections beside fn, and lets them end after it.
func (n *Node) withStreams(ctx context.Context, fn func() error) error {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(own)
	g.Go(func() error { return n.parts.streams.Run(gctx) })
	g.Go(func() error { return n.parts.feeds.Run(gctx) })
	err := fn()
	stop()
	return errors.Join(err, g.Wait())
}
