// Package datadog sends the hub's figures as DogStatsD over UDP to the agents on this host: names with the prefix hub., types and tags of spec 06 §6.
// Only metrics that the original has are sent (Def.Statsd); channels whose name begins with test_, in any case, are left out of the channel metrics.
//
// Nothing on a hot path waits for the network: counts and gauges are added up in the client and sent every two seconds, timings go to a bounded
// queue, and what does not fit is dropped. Before Run and after it, figures are dropped too.
package datadog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"timehub/hub/metrics"
)

// Options say where to send to.
type Options struct {
	Ports  []int                                           // UDP ports on the local host, in the order in which they are called
	Ignore []string                                        // names of request metrics that are not sent (metrics.grafana.request.ignore), with or without the prefix
	Dial   func(network, address string) (net.Conn, error) // nil: net.Dial
	Log    *slog.Logger
}

// Registry implements metrics.Registry.
type Registry struct {
	options Options
	clients atomic.Pointer[[]*statsd.Client] // nil while nothing is sent
}

var _ metrics.Registry = (*Registry)(nil)

// New checks the options. Figures are sent while Run runs.
func New(o Options) (*Registry, error) {
	if len(o.Ports) == 0 {
		return nil, errors.New("datadog: no port to send to")
	}
	for _, p := range o.Ports {
		if p < 1 || p > 65535 {
			return nil, fmt.Errorf("datadog: %d is not a UDP port", p)
		}
	}
	if o.Dial == nil {
		o.Dial = net.Dial
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Registry{options: o}, nil
}

// Run sends until ctx ends, then what is still waiting. It calls ready, unless that is nil, when it has begun. It fails only when a socket cannot be had.
func (r *Registry) Run(ctx context.Context, ready func()) error {
	var clients []*statsd.Client
	defer func() {
		r.clients.Store(nil)
		for _, c := range clients {
			if err := c.Close(); err != nil {
				r.options.Log.Debug("closing statsd", "err", err)
			}
		}
	}()
	for _, port := range r.options.Ports {
		conn, err := r.options.Dial("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("open the socket to statsd: %w", err)
		}
		c, err := statsd.NewWithWriter(quiet{conn}, statsd.WithNamespace("hub."), statsd.WithoutTelemetry(), statsd.WithoutOriginDetection(),
			statsd.WithMaxBytesPerPayload(statsd.OptimalUDPPayloadSize), statsd.WithSenderQueueSize(statsd.DefaultUDPBufferPoolSize))
		if err != nil {
			conn.Close()
			return fmt.Errorf("make the statsd client: %w", err)
		}
		clients = append(clients, c)
	}
	r.clients.Store(&clients)
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	return nil
}

// quiet forgets that nobody listens: on the local host an agent that is down answers with refusals, and UDP promises nothing anyway.
type quiet struct{ io.WriteCloser }

func (q quiet) Write(p []byte) (int, error) {
	q.WriteCloser.Write(p) //nolint:errcheck // see above
	return len(p), nil
}

// each calls every client, if there are any now.
func (r *Registry) each(call func(*statsd.Client)) {
	if clients := r.clients.Load(); clients != nil {
		for _, c := range *clients {
			call(c)
		}
	}
}

// Counter implements metrics.Registry.
func (r *Registry) Counter(name, help string, tags ...string) metrics.Counter {
	if d := metrics.Lookup(name, metrics.CounterType, help, tags); r.sends(d) {
		return counter{series{r, d, nil}}
	}
	return metrics.Discard.Counter(name, help, tags...)
}

// Gauge implements metrics.Registry.
func (r *Registry) Gauge(name, help string, tags ...string) metrics.Gauge {
	if d := metrics.Lookup(name, metrics.GaugeType, help, tags); r.sends(d) {
		return gauge{series{r, d, nil}}
	}
	return metrics.Discard.Gauge(name, help, tags...)
}

// Timing implements metrics.Registry.
func (r *Registry) Timing(name, help string, tags ...string) metrics.Timing {
	if d := metrics.Lookup(name, metrics.TimingType, help, tags); r.sends(d) {
		return timing{series{r, d, nil}}
	}
	return metrics.Discard.Timing(name, help, tags...)
}

func (r *Registry) sends(d metrics.Def) bool {
	ignored := strings.HasPrefix(d.Name, "request.") &&
		slices.ContainsFunc(r.options.Ignore, func(n string) bool { return strings.TrimPrefix(n, "hub.") == d.Name })
	return d.Statsd && !ignored
}

// series is one metric with the values of its tags.
type series struct {
	r    *Registry
	def  metrics.Def
	tags []string // as they are sent; nil when the metric has tags and these are not known yet
}

// ready reports whether the series has a value for each tag.
func (s series) ready() bool { return len(s.tags) == len(s.def.Tags) }

// with gives the series for a set of values; ok is false if it is not to be sent.
func (s series) with(values []string) (_ series, ok bool) {
	if len(values) != len(s.def.Tags) {
		panic("metrics: a variant of " + s.def.Name + " needs one value for each of " + strings.Join(s.def.Tags, ", "))
	}
	tags := make([]string, len(values))
	for i, tag := range s.def.Tags {
		if tag == "channel" && isChannelMetric(s.def.Name) && len(values[i]) >= 5 && strings.EqualFold(values[i][:5], "test_") {
			return series{}, false
		}
		tags[i] = tag + ":" + clean.Replace(values[i])
	}
	return series{s.r, s.def, tags}, true
}

func isChannelMetric(name string) bool {
	return name == metrics.Channel || strings.HasPrefix(name, metrics.Channel+".")
}

// clean takes out what has a meaning in the protocol.
var clean = strings.NewReplacer(",", "_", "|", "_", "#", "_", "\n", "_", "\r", "_")

type (
	counter struct{ series }
	gauge   struct{ series }
	timing  struct{ series }
)

func (c counter) Add(n int64) {
	if n > 0 && c.ready() {
		c.r.each(func(to *statsd.Client) { to.Count(c.def.Name, n, c.tags, 1) }) //nolint:errcheck // a dropped figure
	}
}

func (c counter) With(values ...string) metrics.Counter {
	if s, ok := c.with(values); ok {
		return counter{s}
	}
	return metrics.Discard.Counter("", "")
}

func (g gauge) Set(v float64) {
	if !g.ready() {
		return
	}
	g.r.each(func(to *statsd.Client) {
		if g.def.AsCount {
			to.Count(g.def.Name, int64(v), g.tags, 1) //nolint:errcheck // a dropped figure
			return
		}
		to.Gauge(g.def.Name, v, g.tags, 1) //nolint:errcheck // a dropped figure
	})
}

func (g gauge) With(values ...string) metrics.Gauge {
	if s, ok := g.with(values); ok {
		return gauge{s}
	}
	return metrics.Discard.Gauge("", "")
}

func (t timing) Observe(d time.Duration) {
	if t.ready() {
		t.r.each(func(to *statsd.Client) { to.Timing(t.def.Name, d, t.tags, 1) }) //nolint:errcheck // a dropped figure
	}
}

func (t timing) With(values ...string) metrics.Timing {
	if s, ok := t.with(values); ok {
		return timing{s}
	}
	return metrics.Discard.Timing("", "")
}
