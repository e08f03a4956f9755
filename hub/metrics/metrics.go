// Package metrics is the contract of everything that is counted and timed. A room asks a Registry for its instruments once, in its constructor, and
// uses them on hot paths; what becomes of the figures is decided in node/parts.go: nothing (Discard), Prometheus text (metrics/prom), DogStatsD
// (metrics/datadog), or several of them (Fanout).
//
// An instrument is made for a name of Table, which says its sentence and its tags. One with tags counts nothing by itself: With gives the variant for
// a set of values, in the order of the tags. A caller that knows its values beforehand keeps the variants; one that learns them with each request
// may call With each time, it costs a look-up in a map.
//
// All methods of all instruments are safe for concurrent use, never block, never fail, and accept being called before and after the registry runs.
package metrics

import "time"

// Registry hands out instruments. Asking twice for a name gives the same instrument. help may be "": then Table's sentence is taken. A name that was
// taken with other tags or as another kind of instrument is a mistake in the program: Registry panics.
type Registry interface {
	Counter(name, help string, tags ...string) Counter
	Gauge(name, help string, tags ...string) Gauge
	Timing(name, help string, tags ...string) Timing
}

// Counter only rises.
type Counter interface {
	Add(n int64) // n < 0 is ignored
	With(values ...string) Counter
}

// Gauge is a level.
type Gauge interface {
	Set(v float64)
	With(values ...string) Gauge
}

// Timing is a distribution of durations.
type Timing interface {
	Observe(d time.Duration)
	With(values ...string) Timing
}

// Discard is the registry that keeps nothing.
var Discard Registry = discard{}

// OrDiscard returns r, or Discard if r is nil: for Options.
func OrDiscard(r Registry) Registry {
	if r == nil {
		return Discard
	}
	return r
}

type (
	discard        struct{}
	discardCounter struct{}
	discardGauge   struct{}
	discardTiming  struct{}
)

func (discard) Counter(string, string, ...string) Counter { return discardCounter{} }
func (discard) Gauge(string, string, ...string) Gauge     { return discardGauge{} }
func (discard) Timing(string, string, ...string) Timing   { return discardTiming{} }

func (discardCounter) Add(int64)              {}
func (discardCounter) With(...string) Counter { return discardCounter{} }
func (discardGauge) Set(float64)              {}
func (discardGauge) With(...string) Gauge     { return discardGauge{} }
func (discardTiming) Observe(time.Duration)   {}
func (discardTiming) With(...string) Timing   { return discardTiming{} }
