package run

import (
	"time"

	"timehub/hub/metrics"
)

type meters struct {
	delivery, delta          metrics.Timing
	errors, started, stopped metrics.Counter
}

func newMeters(r metrics.Registry) meters {
	return meters{
		delivery: r.Timing(metrics.Webhook, "", "name"), delta: r.Timing(metrics.WebhookDelta, "", "name"),
		errors:  r.Counter(metrics.WebhookErrors, "", "name", "status"),
		started: r.Counter(metrics.WebhookLeaderStart, "", "name"), stopped: r.Counter(metrics.WebhookLeaderComplete, "", "name"),
	}
}

// hookMeters are the meters of one webhook. They are looked up when something happens: most webhooks are idle.
type hookMeters struct {
	*meters
	name string
}

func (m *meters) of(name string) hookMeters { return hookMeters{m, name} }

func (h hookMeters) begun()                       { h.started.With(h.name).Add(1) }
func (h hookMeters) ended()                       { h.stopped.With(h.name).Add(1) }
func (h hookMeters) failed(status string)         { h.errors.With(h.name, status).Add(1) }
func (h hookMeters) first(age time.Duration)      { h.delta.With(h.name).Observe(age) }
func (h hookMeters) delivered(took time.Duration) { h.delivery.With(h.name).Observe(took) }
