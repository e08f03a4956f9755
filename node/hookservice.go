package node

import (
	"context"
	"fmt"

	"timehub/callbacks/webhook"
	webhookrest "timehub/callbacks/webhook/rest"
	hookrun "timehub/callbacks/webhook/run"
	"timehub/channel"
	"timehub/hub"
	"timehub/hub/catalog"
	"timehub/hub/coord"
)

var (
	_ webhook.Catalog  = (*catalog.Catalog[webhook.Webhook])(nil)
	_ webhook.Cursors  = (*coord.Cursors)(nil)
	_ webhook.Channels = (*channel.Service)(nil)
)

// openHookService makes the service of webhooks and its public face, over what openWebhooks has made.
func (n *Node) openHookService() error {
	p, c := &n.parts, n.cfg
	h, leads := &p.hooks, c.Bool("webhook.leadership.enabled")
	opt := webhook.Options{
		Catalog: h.catalog, Cursors: h.cursors, Channels: p.service, MakeChannel: n.makeErrorChannel, Attempts: h.attempts,
		Rules: webhook.Rules{
			MinTimeout: int(c.Int("webhook.callbackTimeoutSeconds.min")), MaxTimeout: int(c.Int("webhook.callbackTimeoutSeconds.max")),
			DefaultTimeout: int(c.Int("webhook.callbackTimeoutSeconds.default")),
			Cluster:        c.Text("hub.type") == "aws", CheckOrder: hookrun.CheckOrderBy,
		},
		Clock: n.env.Clock, Log: n.log.With("component", "webhook"),
	}
	if h.runs != nil {
		opt.Runs = h.runs
	}
	service, err := webhook.New(opt)
	if err != nil {
		return fmt.Errorf("make the service of webhooks: %w", err)
	}
	h.service.Store(service)
	h.rest, err = webhookrest.New(webhookrest.Options{Service: service, Attempts: h.attempts, ReadOnly: !leads})
	if err != nil {
		return fmt.Errorf("make the public interface of webhooks: %w", err)
	}
	return nil
}

// makeErrorChannel makes the channel of an errorChannelUrl. It is not protected, also where channels are by default: that would demand an owner.
func (n *Node) makeErrorChannel(ctx context.Context, name string) error {
	patch := channel.ChannelPatch{Name: channel.Said(name), Protect: channel.Said(false)}
	_, err := n.parts.service.CreateChannel(ctx, patch, channel.Caller{})
	if hub.Is(err, hub.Conflict) { // somebody else was first
		return nil
	}
	return err
}

// channelChanged keeps the instances of tag prototypes in line.
func (n *Node) channelChanged(ctx context.Context, before, after *hub.Channel) error {
	if s := n.parts.hooks.service.Load(); s != nil {
		return s.ChannelChanged(ctx, before, after)
	}
	return nil
}

// pauseWebhook pauses a webhook of which the consumer is gone.
func (n *Node) pauseWebhook(ctx context.Context, name, born, reason string) error {
	if s := n.parts.hooks.service.Load(); s != nil {
		return s.PauseByHub(ctx, name, born, reason)
	}
	return hub.E(hub.Unavailable, "webhooks are not there yet")
}
