// Package prom shows the hub's figures to Prometheus: a registry of its own with the figures of the Go runtime and of the process, and the handler
// of /metrics.
//
// Names are those of metrics.Table with the prefix hub_, dots as underscores, and Prometheus's suffixes: _total for counters, _seconds for timings,
// which are histograms. The tags channel and name are left out of histograms, and of a metric with 5,000 variants further ones count as channel="…" or name="…":
// what a scrape costs must not grow with what strangers create.
package prom

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"timehub/hub/metrics"
)

const (
	maxVariants = 5000
	otherValue  = "…"
)

// buckets reach from what a memory hit costs to what a slow upload costs, in seconds.
var buckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120}

// Registry implements metrics.Registry.
type Registry struct {
	prom *prometheus.Registry

	mu    sync.Mutex
	taken map[string]taken
}

type taken struct {
	t          metrics.Type
	tags       []string
	instrument any
}

var _ metrics.Registry = (*Registry)(nil)

// New returns a registry that holds the runtime's figures only.
func New() *Registry {
	r := &Registry{prom: prometheus.NewRegistry(), taken: map[string]taken{}}
	r.prom.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return r
}

// Handler answers GET /metrics in the text format (or OpenMetrics, if asked for).
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.prom, promhttp.HandlerOpts{DisableCompression: true, EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// Name is the Prometheus name of a metric.
func Name(d metrics.Def) string {
	name := "hub_" + strings.NewReplacer(".", "_", "-", "_").Replace(d.Name)
	switch d.Type {
	case metrics.CounterType:
		return name + "_total"
	case metrics.TimingType:
		return name + "_seconds"
	}
	return name
}

// Counter implements metrics.Registry.
func (r *Registry) Counter(name, help string, tags ...string) metrics.Counter {
	return take(r, metrics.Lookup(name, metrics.CounterType, help, tags), func(d metrics.Def) *counter {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: Name(d), Help: d.Help}, d.Tags)
		r.prom.MustRegister(vec)
		if len(d.Tags) == 0 {
			vec.WithLabelValues() // shown as 0: an alert sees the first one only as a rise from there
		}
		return &counter{family: &family{tags: d.Tags}, vec: vec, known: len(d.Tags) == 0}
	})
}

// Gauge implements metrics.Registry.
func (r *Registry) Gauge(name, help string, tags ...string) metrics.Gauge {
	return take(r, metrics.Lookup(name, metrics.GaugeType, help, tags), func(d metrics.Def) *gauge {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: Name(d), Help: d.Help}, d.Tags)
		r.prom.MustRegister(vec)
		g := &gauge{family: &family{tags: d.Tags}, vec: vec}
		if len(d.Tags) == 0 {
			g.one = vec.WithLabelValues()
		}
		return g
	})
}

// endless tells the tags that have as many values as people make things: the name of a channel or of a webhook.
func endless(tag string) bool { return tag == "channel" || tag == "name" }

// Timing implements metrics.Registry.
func (r *Registry) Timing(name, help string, tags ...string) metrics.Timing {
	return take(r, metrics.Lookup(name, metrics.TimingType, help, tags), func(d metrics.Def) *timing {
		kept := slices.DeleteFunc(slices.Clone(d.Tags), endless)
		vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: Name(d), Help: d.Help, Buckets: buckets}, kept)
		r.prom.MustRegister(vec)
		t := &timing{family: &family{tags: kept}, vec: vec, drop: slices.IndexFunc(d.Tags, endless)}
		if len(d.Tags) == 0 {
			t.one = vec.WithLabelValues()
		}
		return t
	})
}

// take makes an instrument once per name.
func take[I any](r *Registry, d metrics.Def, make func(metrics.Def) I) I {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.taken[d.Name]; ok {
		if t.t != d.Type || !slices.Equal(t.tags, d.Tags) {
			panic("metrics: " + d.Name + " is taken as another kind of instrument, or with other tags")
		}
		return t.instrument.(I)
	}
	i := make(d)
	r.taken[d.Name] = taken{d.Type, slices.Clone(d.Tags), i}
	return i
}

// family bounds the variants of one metric.
type family struct {
	tags []string

	variants sync.Map // joined values → instrument
	count    atomic.Int64
}

// variant finds or makes the instrument for a set of values.
func variant[I any](f *family, values []string, make func(values []string) I) I {
	if len(values) != len(f.tags) {
		panic("metrics: a variant needs one value for each of " + strings.Join(f.tags, ", "))
	}
	var key string
	if len(values) == 1 {
		key = values[0]
	} else {
		key = strings.Join(values, "\x00")
	}
	if i, ok := f.variants.Load(key); ok {
		return i.(I)
	}
	clean := slices.Clone(values)
	for i, v := range clean {
		clean[i] = strings.ToValidUTF8(v, "?")
	}
	if f.count.Load() >= maxVariants {
		at := slices.IndexFunc(f.tags, endless)
		if at < 0 {
			return make(clean) // not remembered: the map is bounded too
		}
		if clean[at] != otherValue {
			clean[at] = otherValue
			return variant(f, clean, make) // one for all of them
		}
	}
	i, loaded := f.variants.LoadOrStore(key, make(clean))
	if !loaded {
		f.count.Add(1)
	}
	return i.(I)
}

// counter makes its series with the first Add: a channel's counters are asked for together, and most are never used.
type counter struct {
	*family
	vec    *prometheus.CounterVec
	values []string
	known  bool // it has a value for each tag
	once   sync.Once
	one    prometheus.Counter
}

func (c *counter) Add(n int64) {
	if n > 0 && c.known {
		c.once.Do(func() { c.one = c.vec.WithLabelValues(c.values...) })
		c.one.Add(float64(n))
	}
}

func (c *counter) With(values ...string) metrics.Counter {
	return variant(c.family, values, func(v []string) *counter { return &counter{vec: c.vec, values: v, known: true} })
}

type gauge struct {
	*family
	vec *prometheus.GaugeVec
	one prometheus.Gauge
}

func (g *gauge) Set(v float64) {
	if g.one != nil {
		g.one.Set(v)
	}
}

func (g *gauge) With(values ...string) metrics.Gauge {
	return variant(g.family, values, func(v []string) *gauge { return &gauge{one: g.vec.WithLabelValues(v...)} })
}

type timing struct {
	*family
	vec  *prometheus.HistogramVec
	one  prometheus.Observer
	drop int // index of the tag that is left out; -1: none
}

func (t *timing) Observe(d time.Duration) {
	if t.one != nil {
		t.one.Observe(d.Seconds())
	}
}

func (t *timing) With(values ...string) metrics.Timing {
	if t.drop >= 0 && len(values) == len(t.tags)+1 {
		values = slices.Delete(slices.Clone(values), t.drop, t.drop+1)
	}
	return variant(t.family, values, func(v []string) *timing { return &timing{one: t.vec.WithLabelValues(v...)} })
}

// Names lists the metrics that were asked for, under their names in the table.
func (r *Registry) Names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.taken))
}
