package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"timehub/hub"
	"timehub/hub/web"
	"timehub/internalapi"
)

// newRouter makes a router that observes what it answers.
func (n *Node) newRouter() (*web.Router, error) {
	rate := n.cfg.Int("http.body.minBytesPerSecond")
	if rate == 0 {
		rate = -1 // as long as they like
	}
	admit := n.admitPeers
	if n.cfg.Bool("hub.read.only") {
		admit = func(r *http.Request, pattern string) error {
			return cmp.Or(n.admitPeers(r, pattern), readOnly(r, pattern))
		}
	}
	return web.New(web.Options{
		Admit: admit,
		Log:   n.log.With("component", "http"), Version: n.env.Version, Node: n.name(),
		BodyRate: rate, BodyGrace: n.cfg.Duration("http.body.grace.seconds"), TraceLimit: int(n.cfg.Int("traces.limit")),
		Observe: n.parts.requests.observe, Expected: expected,
	})
}

// errTooEarly is the answer to everything but /health while a node starts.
var errTooEarly = &hub.Error{Kind: hub.Unavailable, Msg: "the hub is starting up: try again in a moment", RetryAfter: 1e9}

// expected: a node that starts says in its log what it waits for, and not with each request; the other nodes ask one that is not there yet, or cannot answer
// now, again and again, and know what to make of it.
func expected(r *http.Request, err error) bool {
	return errors.Is(err, errTooEarly) || strings.HasPrefix(r.URL.Path, peerDoors) && hub.Is(err, hub.Unavailable)
}

// earlyRoutes answer while the node starts: /health, and for everything else that it is too early.
func (n *Node) earlyRoutes() (*web.Router, error) {
	rt, err := n.newRouter()
	if err != nil {
		return nil, err
	}
	api, err := internalapi.New(n.internalOptions())
	if err != nil {
		return nil, err
	}
	api.AddHealth(rt)
	if n.joins() && n.parts.spoke != nil {
		api.AddCluster(rt)
	}
	n.addPeerDoors(rt)
	tooEarly := func(http.ResponseWriter, *http.Request) error { return errTooEarly }
	every := web.Methods{}
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		every[m] = tooEarly
		rt.Handle(m, "/", tooEarly)
	}
	rt.Resolve("/{path...}", func(*http.Request, string) (web.Methods, any, error) { return every, nil, nil })
	return rt, nil
}

// routes is the whole URL space:
//
//	/, /channel…, /tag…, /provider…            channel/rest, with callbacks/stream at /…/ws and /…/events
//	/webhook…, /group…                         callbacks/webhook/rest
//	/health…, /shutdown, /internal…            internalapi
//	/internal/spoke…                           spoke, for the other nodes of a cluster
//	/metrics                                   hub/metrics/prom
func (n *Node) routes() (*web.Router, error) {
	rt, err := n.newRouter()
	if err != nil {
		return nil, err
	}
	n.parts.rest.Mount(rt)
	n.parts.hooks.rest.Mount(rt)
	api, err := internalapi.New(n.internalOptions())
	if err != nil {
		return nil, fmt.Errorf("make the internal interface: %w", err)
	}
	api.Add(rt)
	n.addPeerDoors(rt)
	if n.cfg.Cluster() {
		n.addLeads(rt)
	}
	scrape := n.parts.prom.Handler()
	rt.Handle(http.MethodGet, "/metrics", func(w http.ResponseWriter, r *http.Request) error {
		scrape.ServeHTTP(w, r)
		return nil
	})
	return rt, nil
}

func (n *Node) internalOptions() internalapi.Options {
	opt := internalapi.Options{
		Node: n.name(), Version: n.env.Version, Started: n.started, Clock: n.env.Clock, State: n.State, Waiting: n.waits.text, ReadOnly: n.cfg.Bool("hub.read.only"),
		Properties: n.cfg.Explicit, Shutdown: n.Shutdown, Guarded: n.cfg.Bool("hub.protect.channels"),
	}
	if n.cfg.Cluster() {
		opt.Members = func(context.Context) ([]string, error) { return n.parts.members.names(), nil }
		opt.Fetch, opt.ShutdownLock, opt.ResetLock = n.fetch, n.turnHolder, n.resetTurn
		if n.joins() && n.parts.spoke != nil {
			opt.Cluster = clusterDoor{n.parts.spoke}
		}
	}
	if s := n.parts.service; s != nil {
		opt.Channels = backDoor{s}
	}
	if n.parts.service != nil && !n.cfg.Bool("hub.read.only") {
		opt.MaxItems = n.maxItems
	}
	if s := n.parts.hooks.service.Load(); s != nil {
		opt.Webhooks = hookDoor{s, n.parts.hooks.runs}
	}
	if s := n.parts.spoke; s != nil {
		opt.Reason = func() string {
			var why *hub.Error
			if errors.As(s.Status().Refusing, &why) {
				return "writes are refused: " + why.Msg
			}
			return ""
		}
	}
	return opt
}
