package node

import (
	"context"
	"strconv"
	"strings"
	"time"

	"timehub/hub/metrics"
	"timehub/hub/web"
	"timehub/internalapi"
)

// lifeMeters count starts and stops.
type lifeMeters struct{ starting, started, stopping, stopped metrics.Counter }

func newLifeMeters(r metrics.Registry) lifeMeters {
	return lifeMeters{
		starting: r.Counter(metrics.StartupStart, "", "startup").With("startup"),
		started:  r.Counter(metrics.StartupComplete, "", "startup").With("startup"),
		stopping: r.Counter(metrics.ShutdownStart, "", "shutdown").With("shutdown"),
		stopped:  r.Counter(metrics.ShutdownComplete, "", "shutdown").With("shutdown"),
	}
}

// requestMeters time requests by method and path template (spec 06 §6).
type requestMeters struct {
	api, other, internalChannel, internal metrics.Timing
	errors                                metrics.Counter
}

func newRequestMeters(r metrics.Registry) *requestMeters {
	return &requestMeters{
		api:             r.Timing(metrics.RequestAPI, "", "method", "call", "channel"),
		other:           r.Timing(metrics.RequestAPIOther, "", "method", "call", "channel"),
		internalChannel: r.Timing(metrics.RequestInternalC, "", "method", "call"),
		internal:        r.Timing(metrics.RequestInternal, "", "method", "call"),
		errors:          r.Counter(metrics.Errors, "", "errorCode", "call", "channel"),
	}
}

func (m *requestMeters) observe(o web.Observation) {
	if o.Pattern == "" {
		o.Pattern = "unknown"
	}
	switch o.Method { // a stranger's words are no tags
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		o.Method = "OTHER"
	}
	call := o.Method + " " + o.Pattern
	switch p := o.Pattern; {
	case strings.HasPrefix(p, "/internal/channel"):
		m.internalChannel.With(o.Method, call).Observe(o.Took)
	case strings.HasPrefix(p, "/internal"):
		m.internal.With(o.Method, call).Observe(o.Took)
	case strings.HasPrefix(p, "/channel/") || strings.HasPrefix(p, "/tag/"):
		m.api.With(o.Method, call, "").Observe(o.Took)
	default:
		m.other.With(o.Method, call, "").Observe(o.Took)
	}
	if o.Status > 400 && o.Status != 404 {
		m.errors.With(strconv.Itoa(o.Status), call, "").Add(1)
	}
}

// sample sets the periodic figures until ctx ends.
func (n *Node) sample(ctx context.Context, ready func()) error {
	ready()
	r := n.parts.metrics
	openFiles, free := r.Gauge(metrics.OpenFiles, ""), r.Gauge(metrics.DiskFree, "")
	ttl, segments, size := r.Gauge(metrics.SpokeTTL, ""), r.Gauge(metrics.LogSegments, ""), r.Gauge(metrics.LogSize, "")
	horizon := r.Gauge(metrics.HorizonAge, "")
	every := time.NewTicker(n.cfg.Duration("metrics.seconds"))
	defer every.Stop()
	for {
		openFiles.Set(float64(internalapi.OpenFiles()))
		if bytes, err := n.disk.Free(); err == nil {
			free.Set(float64(bytes))
		}
		ttl.Set(n.cfg.Duration("spoke.write.ttlMinutes").Minutes())
		status := n.parts.spoke.Status()
		segments.Set(float64(status.Segments))
		size.Set(float64(status.Bytes))
		if h, err := n.parts.spoke.Horizon(ctx); err == nil {
			horizon.Set(max(0, n.env.Clock().Sub(h.Time()).Seconds()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}
