package metrics

import "time"

// Fanout returns a registry that hands every figure to each of the given ones, in their order; nil and Discard are left out.
func Fanout(registries ...Registry) Registry {
	var to fanout
	for _, r := range registries {
		if r != nil && r != Discard {
			to = append(to, r)
		}
	}
	switch len(to) {
	case 0:
		return Discard
	case 1:
		return to[0]
	}
	return to
}

type (
	fanout        []Registry
	fanoutCounter []Counter
	fanoutGauge   []Gauge
	fanoutTiming  []Timing
)

func (f fanout) Counter(name, help string, tags ...string) Counter {
	return each(f, func(r Registry) Counter { return r.Counter(name, help, tags...) }, fanoutCounter.self)
}

func (f fanout) Gauge(name, help string, tags ...string) Gauge {
	return each(f, func(r Registry) Gauge { return r.Gauge(name, help, tags...) }, fanoutGauge.self)
}

func (f fanout) Timing(name, help string, tags ...string) Timing {
	return each(f, func(r Registry) Timing { return r.Timing(name, help, tags...) }, fanoutTiming.self)
}

// each maps the parts of a fan-out and wraps the results.
func each[S ~[]P, P, Q any, F ~[]Q, R any](parts S, part func(P) Q, wrap func(F) R) R {
	to := make(F, len(parts))
	for i, p := range parts {
		to[i] = part(p)
	}
	return wrap(to)
}

func (f fanoutCounter) self() Counter { return f }
func (f fanoutGauge) self() Gauge     { return f }
func (f fanoutTiming) self() Timing   { return f }

func (f fanoutCounter) Add(n int64) {
	for _, c := range f {
		c.Add(n)
	}
}

func (f fanoutGauge) Set(v float64) {
	for _, g := range f {
		g.Set(v)
	}
}

func (f fanoutTiming) Observe(d time.Duration) {
	for _, t := range f {
		t.Observe(d)
	}
}

func (f fanoutCounter) With(values ...string) Counter {
	return each(f, func(c Counter) Counter { return c.With(values...) }, fanoutCounter.self)
}

func (f fanoutGauge) With(values ...string) Gauge {
	return each(f, func(g Gauge) Gauge { return g.With(values...) }, fanoutGauge.self)
}

func (f fanoutTiming) With(values ...string) Timing {
	return each(f, func(t Timing) Timing { return t.With(values...) }, fanoutTiming.self)
}
