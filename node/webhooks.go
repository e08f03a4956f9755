package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/callbacks/webhook/deliver"
	webhookrest "timehub/callbacks/webhook/rest"
	hookrun "timehub/callbacks/webhook/run"
	"timehub/channel"
	"timehub/hub/catalog"
	"timehub/hub/coord"
)

var (
	_ hookrun.Webhooks = (*catalog.Catalog[webhook.Webhook])(nil)
	_ hookrun.Channels = (*channel.Service)(nil)
	_ hookrun.Caller   = (*deliver.Caller)(nil)
	_ hookrun.Diary    = (*attempts.Store)(nil)
)

const (
	hookPrefix   = ".hub/webhooks/"
	attemptsDir  = "attempts"
	hookStopTime = 30 * time.Second // calls on their way get 5 s of it
)

// webhooks are the parts that make webhooks. runs is nil where webhook.leadership.enabled is false.
type webhooks struct {
	catalog  *catalog.Catalog[webhook.Webhook]
	cursors  *coord.Cursors
	attempts *attempts.Store
	caller   *deliver.Caller
	runs     *hookrun.Manager
	service  atomic.Pointer[webhook.Service] // told of channels, which may come earlier
	rest     *webhookrest.Handlers
}

// openWebhooks reads the configurations of webhooks and makes what runs them.
func (n *Node) openWebhooks(ctx context.Context) error {
	p, c := &n.parts, n.cfg
	h, log := &p.hooks, n.log.With("component", "webhook")
	var err error
	err = n.untilStore(ctx, func(ctx context.Context) (err error) {
		h.catalog, err = catalog.Open[webhook.Webhook](ctx, catalog.Options{
			Bucket: p.bucket, Prefix: hookPrefix, Registers: p.coordinator, Register: "catalog/webhooks", Deaf: n.deaf(),
			Clock: n.env.Clock, Log: n.log.With("component", "catalog"),
		})
		return err
	})
	if err != nil {
		return err
	}
	for id, err := range h.catalog.Broken() {
		n.log.Error("the configuration of a webhook cannot be read; the webhook does not run", "webhook", id, "err", err)
	}
	if h.cursors, err = coord.NewCursors(coord.CursorsOptions{Registers: p.coordinator, Prefix: webhook.CursorPrefix, Log: log}); err != nil {
		return fmt.Errorf("make the cursors of webhooks: %w", err)
	}
	if h.attempts, err = attempts.Open(attempts.Options{Disk: n.disk, Folder: attemptsDir, Log: log}); err != nil {
		return fmt.Errorf("open the attempts of webhooks: %w", err)
	}
	if !c.Bool("webhook.leadership.enabled") {
		return nil
	}
	h.caller, err = deliver.New(deliver.Options{
		ConnectTimeout: c.Duration("webhook.connectTimeoutSeconds"), VerifyTLS: c.Bool("webhook.tls.verify"), Node: n.name, Dial: n.env.Dial, Log: log,
	})
	if err != nil {
		return fmt.Errorf("make the caller of webhooks: %w", err)
	}
	h.runs, err = hookrun.New(hookrun.Options{
		Webhooks: h.catalog, Source: n.env.Seams.feed(p.service), Channels: p.service, ChannelNews: p.catalog.Watch, Leases: p.coordinator, Cursors: h.cursors,
		Members: p.coordinator, Node: n.name(), Caller: h.caller, Pause: n.pauseWebhook, ErrorItem: n.insertError, Attempts: h.attempts, Shared: p.feeds,
		Horizon: stability(c), Birthday: c.Time("app.birthDay"), FirstPause: c.Duration("webhook.retry.first_millis"),
		Sealer: p.sealer, Clock: n.env.Clock, Log: log, Metrics: p.metrics,
	})
	if err != nil {
		return fmt.Errorf("make what runs webhooks: %w", err)
	}
	return nil
}

// runWebhooks delivers until ctx ends.
func (n *Node) runWebhooks(ctx context.Context, ready func()) error {
	h := &n.parts.hooks
	ready()
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(own)
	g.Go(func() error { return h.catalog.Run(gctx) })
	g.Go(func() error { return h.service.Load().Run(gctx) })
	g.Go(func() error { return h.attempts.Run(gctx) })
	var err error
	if h.runs != nil {
		err = h.runs.Run(ctx)
		h.caller.Close()
	} else {
		<-ctx.Done()
	}
	stop()
	return errors.Join(err, g.Wait())
}

// insertError puts an item into an error channel.
func (n *Node) insertError(ctx context.Context, name string, body []byte) error {
	s := n.parts.service
	ch, err := s.Channel(ctx, name)
	if err != nil {
		return err
	}
	_, err = s.Insert(ctx, ch, channel.Upload{ContentType: "application/json", Body: body})
	return err
}
