package run

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/callbacks/webhook/deliver"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/metrics"
	"timehub/hub/seal"
)

// Webhooks are the configurations, as this node's memory has them.
type Webhooks interface {
	// Get answers NotFound if there is none of that name.
	Get(ctx context.Context, name string) (*webhook.Webhook, error)
	Cached(ctx context.Context) ([]*webhook.Webhook, error)
	// Watch tells which names have changed: see catalog.Catalog.
	Watch() (wake <-chan struct{}, drain func() []string, stop func())
}

// Channels are the configurations of channels; channel.Service is it.
type Channels interface {
	// Channel finds a channel by its name in any spelling, in memory: NotFound if there is none.
	Channel(ctx context.Context, name string) (*hub.Channel, error)
}

// Caller makes one call; deliver.Caller is it.
type Caller interface {
	Post(ctx context.Context, w *webhook.Webhook, m deliver.Message) deliver.Outcome
}

// Diary remembers calls; attempts.Store is it.
type Diary interface {
	Add(name string, a attempts.Attempt)
	Remove(name string)
}

// Options are the parts of a Manager. Everything down to Caller is required.
type Options struct {
	Webhooks    Webhooks
	Source      feed.Source
	Channels    Channels
	ChannelNews feed.News // configurations of channels that were made, changed or removed, by hub.ChannelID
	Leases      coord.Leases
	Cursors     *coord.Cursors // of webhook.CursorPrefix; the Manager runs it
	Caller      Caller

	// Pause pauses a webhook, if it still has this life, and keeps the reason: its consumer has answered 410. nil: such an answer is a failure as others.
	Pause func(ctx context.Context, name, born, reason string) error
	// ErrorItem inserts one item of type application/json into the channel that an errorChannelUrl names. nil: nobody is told of what is given up.
	ErrorItem func(ctx context.Context, channel string, body []byte) error
	Attempts  Diary        // nil: calls are not remembered
	Shared    *feed.Shared // nil: each loop reads its channel for itself

	// Members, with the name of this node, lets the nodes of a cluster share the webhooks out among them. nil: whoever is first leads.
	Members coord.Members
	Node    string
	Balance time.Duration // between two looks at who leads how many; 0: a minute. Varied by a quarter

	Horizon    hub.Horizon   // the rule by which Source cuts stable answers
	Birthday   time.Time     // app.birthDay; zero: 2015-01-01
	FirstPause time.Duration // before the first repetition; 0: 2 s (webhook.retry.first_millis)
	Grace      time.Duration // that calls have to end in when a loop ends; 0: 5 s
	Memory     int64         // bytes of great bodies that are in calls at the same time, of all webhooks; others wait. 0: 256 MiB

	Sealer  *seal.Sealer // nil: one of its own
	Clock   hub.Clock    // nil: time.Now
	Log     *slog.Logger // nil: nothing
	Metrics metrics.Registry
}

func (o *Options) complete() error {
	if o.Webhooks == nil || o.Source == nil || o.Channels == nil || o.ChannelNews == nil || o.Leases == nil || o.Cursors == nil || o.Caller == nil {
		return errors.New("run.New needs Webhooks, Source, Channels, ChannelNews, Leases, Cursors and Caller")
	}
	if o.Members != nil && o.Node == "" {
		return errors.New("run.New with Members needs Node")
	}
	if o.Balance <= 0 {
		o.Balance = time.Minute
	}
	if o.Attempts == nil {
		o.Attempts = noDiary{}
	}
	if o.Birthday.IsZero() {
		o.Birthday = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if o.FirstPause <= 0 {
		o.FirstPause = 2 * time.Second
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.Memory <= 0 {
		o.Memory = 256 << 20
	}
	o.Memory = max(o.Memory, 2*deliver.MaxInline)
	if o.Sealer == nil {
		o.Sealer = seal.New(seal.Options{})
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Metrics = metrics.OrDiscard(o.Metrics)
	return nil
}

type noDiary struct{}

func (noDiary) Add(string, attempts.Attempt) {}
func (noDiary) Remove(string)                {}
