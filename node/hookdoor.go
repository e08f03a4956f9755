package node

import (
	"context"
	"strings"
	"time"

	"timehub/callbacks/webhook"
	hookrun "timehub/callbacks/webhook/run"
	"timehub/hub"
	"timehub/internalapi"
)

var _ internalapi.Webhooks = hookDoor{}

// hookDoor is what internalapi may see of webhooks. runs is nil where none may run.
type hookDoor struct {
	service *webhook.Service
	runs    *hookrun.Manager
}

// Webhooks implements internalapi.Webhooks.
func (d hookDoor) Webhooks(ctx context.Context) ([]internalapi.Webhook, error) {
	all, err := d.service.List(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]internalapi.Webhook, len(all))
	for i, w := range all {
		list[i] = internalapi.Webhook{
			Name: w.Name, CallbackURL: w.CallbackURL, ParallelCalls: w.ParallelCalls, Paused: w.Paused, Batch: w.Batch, Heartbeat: w.Heartbeat,
			TTLMinutes: w.TTLMinutes, MaxWaitMinutes: w.MaxWaitMinutes,
		}
		if !w.IsPrototype() {
			list[i].ChannelURL = &w.ChannelURL
		}
	}
	return list, nil
}

// WebhookState implements internalapi.Webhooks.
func (d hookDoor) WebhookState(ctx context.Context, name string) (s internalapi.WebhookState, err error) {
	ends, err := d.service.LastCompleted(ctx, name)
	if err != nil {
		return s, err
	}
	lines, err := d.service.Errors(ctx, name)
	if err != nil || len(ends) != 1 || len(lines) != 1 { // a prototype
		return s, err
	}
	s.ChannelLatest, s.LastCompleted, s.Errors = ends[0].ChannelLatest, ends[0].LastCompleted, lines[0].Lines
	_, rest, _ := strings.Cut(s.LastCompleted, "/channel/")
	_, path, _ := strings.Cut(rest, "/")
	s.At = timeOf(path)
	return s, nil
}

// timeOf is the instant up to which a webhook is done that has done a path.
func timeOf(path string) time.Time {
	k, err := webhook.CursorAt(path)
	if err != nil {
		return time.UnixMilli(0)
	}
	return k.Time()
}

// RunningWebhooks implements internalapi.Webhooks.
func (d hookDoor) RunningWebhooks() []internalapi.RunningWebhook {
	if d.runs == nil {
		return nil
	}
	all := d.runs.Running()
	list := make([]internalapi.RunningWebhook, len(all))
	for i, r := range all {
		list[i] = internalapi.RunningWebhook{Name: r.Name, Since: r.Since, Last: r.Last, At: timeOf(r.Last)}
	}
	return list
}

// RunWebhook implements internalapi.Webhooks.
func (d hookDoor) RunWebhook(ctx context.Context, name string) (bool, error) {
	if d.runs == nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return d.runs.Runs(ctx, name), nil
}

// StopWebhook implements internalapi.Webhooks.
func (d hookDoor) StopWebhook(ctx context.Context, name string) error {
	if d.runs == nil {
		return hub.E(hub.Forbidden, "webhook.leadership.enabled is false on this node: no webhook runs here")
	}
	return d.runs.Yield(ctx, name)
}
