package node

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
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

// requestMeters time requests by method and path template (spec 06 §6), and by channel where that is asked for.
type requestMeters struct {
	api, other, internalChannel, internal metrics.Timing
	errors                                metrics.Counter
	byChannel                             bool

	mu    sync.RWMutex // guards known
	known map[requestKind]metrics.Timing
}

// requestKind is what requests have in common that are counted together.
type requestKind struct{ method, pattern, channel string }

// maxRequestKinds bounds the memory: strangers choose the channels' names.
const maxRequestKinds = 10_000

func newRequestMeters(r metrics.Registry, byChannel bool) *requestMeters {
	return &requestMeters{
		api:             r.Timing(metrics.RequestAPI, "", "method", "call", "channel"),
		other:           r.Timing(metrics.RequestAPIOther, "", "method", "call", "channel"),
		internalChannel: r.Timing(metrics.RequestInternalC, "", "method", "call"),
		internal:        r.Timing(metrics.RequestInternal, "", "method", "call"),
		errors:          r.Counter(metrics.Errors, "", "errorCode", "call", "channel"),
		byChannel:       byChannel,
		known:           map[requestKind]metrics.Timing{},
	}
}

func (m *requestMeters) observe(o web.Observation) {
	k := requestKind{o.Method, o.Pattern, ""}
	if k.pattern == "" {
		k.pattern = "unknown"
	}
	switch o.Method { // a stranger's words are no tags
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		k.method = "OTHER"
	}
	if m.byChannel && o.Status != http.StatusNotFound {
		k.channel = o.Channel
	}
	m.mu.RLock()
	t := m.known[k]
	m.mu.RUnlock()
	if t == nil {
		t = m.timing(k)
	}
	t.Observe(o.Took)
	if o.Status > http.StatusBadRequest && o.Status != http.StatusNotFound {
		m.errors.With(strconv.Itoa(o.Status), k.method+" "+k.pattern, k.channel).Add(1)
	}
}

// timing makes the instrument of a kind, and remembers it.
func (m *requestMeters) timing(k requestKind) metrics.Timing {
	call := k.method + " " + k.pattern
	var t metrics.Timing
	switch p := k.pattern; {
	case strings.HasPrefix(p, "/internal/channel"):
		t = m.internalChannel.With(k.method, call)
	case strings.HasPrefix(p, "/internal"):
		t = m.internal.With(k.method, call)
	case strings.HasPrefix(p, "/channel/") || strings.HasPrefix(p, "/tag/"):
		t = m.api.With(k.method, call, k.channel)
	default:
		t = m.other.With(k.method, call, k.channel)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) < maxRequestKinds {
		m.known[k] = t
	}
	return t
}

// sample sets the periodic figures that no room sets by itself, until ctx ends.
func (n *Node) sample(ctx context.Context, ready func()) error {
	ready()
	r := n.parts.metrics
	openFiles, horizon, ttl := r.Gauge(metrics.OpenFiles, ""), r.Gauge(metrics.HorizonAge, ""), r.Gauge(metrics.SpokeTTL, "")
	every := time.NewTicker(n.cfg.Duration("metrics.seconds"))
	defer every.Stop()
	for {
		openFiles.Set(float64(internalapi.OpenFiles()))
		ttl.Set(n.cfg.Duration("spoke.write.ttlMinutes").Minutes()) // again and again: statsd may have missed it
		n.parts.backlog.note(n.env.Clock(), n.parts.spoke.Status().Bytes)
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
