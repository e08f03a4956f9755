package deliver

import (
	"context"
	"log/slog"
	"net"
	"time"

	"timehub/callbacks/webhook"
)

// Options are the parts of a Caller.
type Options struct {
	ConnectTimeout time.Duration                                                     // from the look-up of the name to a connection that can be used; 0: 60 s
	VerifyTLS      bool                                                              // false: every certificate is accepted; logged once per webhook
	Node           func() string                                                     // host:port of this node, for the header Hub-Node; nil: no header
	MaxCalls       int                                                               // at the same time, all webhooks together; 0: 4,096. Further ones wait
	Dial           func(ctx context.Context, network, addr string) (net.Conn, error) // nil: TCP
	Log            *slog.Logger
}

// Caller makes calls. All methods are safe for concurrent use.
type Caller struct {
	opt Options
}

// New returns a Caller; it holds nothing but idle connections, which end after half a second.
func New(o Options) (*Caller, error) {
	panic("")
}

// Post makes one call and waits for its end, also when ctx ends (then soon). It never fails otherwise than by what the Outcome says.
func (c *Caller) Post(ctx context.Context, w *webhook.Webhook, m Message) Outcome {
	panic("")
}

// Close drops the idle connections. Calls that run go on.
func (c *Caller) Close() {}
