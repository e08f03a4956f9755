// Package internalapi is the operators' door: /health, /shutdown and what lies below /internal (spec 02 §8 and §9, spec 05). There is one file per
// subject. Its shapes are called by other hubs of a cluster and by scripts, so they stay as they are documented; what it shows it asks for through the
// functions of Options, which node hands in.
//
// Everything is open to every caller but what changes the node's state or costs much: that is for local callers only (spec 01 §3.6). Where a
// document lists servers, they are the texts of the members' Hub-Node headers; a single hub lists exactly itself. The room imports ground-floor kits
// only and holds no state.
package internalapi

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/web"
)

// State is what /health says of a node.
type State uint8

// The states, in the order in which a node goes through them.
const (
	Starting State = iota
	Healthy
	ShuttingDown
)

// Options are what this room needs to know of its node. Node, Clock and State are required; without Channels, Shutdown or Members these parts answer
// for a node that has none.
type Options struct {
	Node     string // host:port, as in Hub-Node
	Version  string
	ReadOnly bool
	Started  time.Time
	Clock    hub.Clock
	State    func() State
	Reason   func() string                               // why a healthy node does not take writes, "" if it does; nil: it does
	Waiting  func() string                               // what a node that starts waits for, "" if nothing; nil: nothing
	Members  func(ctx context.Context) ([]string, error) // Hub-Node texts of the cluster; nil: this node alone
	// Fetch asks another of Members for one of its pages; nil: nobody is asked.
	Fetch      func(ctx context.Context, node, path string) (status int, body []byte, err error)
	Cluster    Cluster                         // nil: this node is alone
	Properties func() map[string]string        // explicitly set ones, secrets redacted
	Shutdown   func(ctx context.Context) error // begins an orderly end and returns when requests are no longer accepted
	// ShutdownLock tells which node is down in order, so that others wait; "": none. ResetLock ends that. Both nil: there are no others.
	ShutdownLock func(ctx context.Context) (node string, err error)
	ResetLock    func(ctx context.Context) error
	Guarded      bool     // hub.protect.channels: deletes are for local callers
	Channels     Channels // nil: no such paths
	Webhooks     Webhooks // nil: no such paths
	// MaxItems applies the limits of one channel to long-term storage now; one that does not exist, or has none, is no error. nil: no such path.
	MaxItems func(ctx context.Context, channel string) error
}

// Channels is what can be done with channels behind the scenes.
type Channels interface {
	// RefreshChannels reads the configurations again.
	RefreshChannels(ctx context.Context) error
	// RemoveChannel deletes a channel, protected or not: NotFound if there is none.
	RemoveChannel(ctx context.Context, name string) error
	// LastItems tells the last item of each channel, unstable ones included; empty channels are left out.
	LastItems(ctx context.Context) ([]LastItem, error)
}

// LastItem is the last item of one channel.
type LastItem struct {
	Channel, Owner string
	Key            hub.Key
}

// API is the room.
type API struct{ opt Options }

// New checks the options.
func New(opt Options) (*API, error) {
	if opt.Node == "" || opt.Clock == nil || opt.State == nil {
		return nil, errors.New("internalapi.New needs Node, Clock and State")
	}
	if opt.Members == nil {
		opt.Members = func(context.Context) ([]string, error) { return []string{opt.Node}, nil }
	}
	if opt.Properties == nil {
		opt.Properties = func() map[string]string { return nil }
	}
	if opt.ShutdownLock == nil || opt.ResetLock == nil {
		opt.ShutdownLock = func(context.Context) (string, error) { return "", nil }
		opt.ResetLock = func(context.Context) error { return nil }
	}
	if opt.Reason == nil {
		opt.Reason = func() string { return "" }
	}
	if opt.Waiting == nil {
		opt.Waiting = func() string { return "" }
	}
	if opt.Version == "" {
		opt.Version = "local"
	}
	return &API{opt}, nil
}

// AddHealth adds the routes that answer while the node starts and stops.
func (a *API) AddHealth(rt *web.Router) {
	rt.Handle(http.MethodGet, "/health", web.JSONOnly(a.health))
	rt.Handle(http.MethodGet, "/health/metrics", web.JSONOnly(a.healthMetrics))
	rt.Handle(http.MethodGet, "/health/metrics/trace", local(a.healthTrace))
	if a.opt.Shutdown != nil {
		rt.Handle(http.MethodPost, "/shutdown", local(a.shutdown))
	}
}

// Add adds all routes.
func (a *API) Add(rt *web.Router) {
	a.AddHealth(rt)
	get := func(pattern string, h web.Handler) { rt.Handle(http.MethodGet, pattern, h) }
	get("/internal", web.JSONOnly(a.index))
	get("/internal/deploy", web.JSONOnly(a.deploy))
	get("/internal/deploy/text", a.deployText)
	get("/internal/health", web.JSONOnly(a.allHealth))
	get("/internal/properties", web.JSONOnly(a.properties))
	get("/internal/time", web.JSONOnly(a.time))
	get("/internal/time/millis", a.timeMillis)
	get("/internal/time/local", a.timeMillis)
	get("/internal/time/remote", a.timeRemote)
	rt.Handle(http.MethodPut, "/internal/time/local", local(a.useLocalTime))
	rt.Handle(http.MethodPut, "/internal/time/remote", local(a.useRemoteTime))
	if a.opt.Shutdown != nil {
		get("/internal/shutdown", web.JSONOnly(a.shutdownHelp))
		rt.Handle(http.MethodPost, "/internal/shutdown", local(a.shutdown))
		rt.Handle(http.MethodPost, "/internal/shutdown/resetLock", local(a.resetLock))
	}
	a.AddCluster(rt)
	a.addWebhooks(rt)
	if a.opt.MaxItems != nil {
		rt.Handle(http.MethodPatch, "/internal/max-items/{channel}", a.maxItems)
	}
	if a.opt.Channels != nil {
		get("/internal/channel", web.JSONOnly(a.channelHelp))
		get("/internal/channel/refresh", a.refresh)
		get("/internal/channel/stale/{minutes}", web.JSONOnly(a.stale))
		get("/internal/channel/stale/{minutes}/{owner}", web.JSONOnly(a.stale))
		rt.Handle(http.MethodDelete, "/internal/channel/{channel}", a.deleteChannel)
	}
}

// local lets only local callers pass.
func local(h web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !web.Local(r) {
			return hub.E(hub.Forbidden, "only a caller on the hub's own machine that addresses it as localhost may do this")
		}
		return h(w, r)
	}
}

// nothing answers 200 with an empty body: there is nothing to do, or it is done.
func nothing(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

// link is {"href": …} of spec 02 §1.8, here with a text.
type link struct {
	Description string `json:"description,omitempty"`
	Href        string `json:"href"`
}

// servers is the prefix of several documents: this node's URL of a path, and that of each member.
func (a *API) servers(ctx context.Context, path string) (server string, servers []string, err error) {
	members, err := a.opt.Members(ctx)
	if err != nil {
		return "", nil, err
	}
	servers = make([]string, len(members))
	for i, m := range members {
		servers[i] = "http://" + m + path
	}
	return "http://" + a.opt.Node + path, servers, nil
}

// others asks all members but this one for a page, at the same time. Whoever does not answer within a few seconds is answered for with an error.
func (a *API) others(ctx context.Context, members []string, path string, take func(node string, status int, body []byte, err error)) {
	if a.opt.Fetch == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	var mu sync.Mutex // held by whoever takes
	var wg sync.WaitGroup
	for _, m := range members {
		if m == a.opt.Node {
			continue
		}
		wg.Go(func() {
			status, body, err := a.opt.Fetch(ctx, m, path)
			mu.Lock()
			defer mu.Unlock()
			take(m, status, body, err)
		})
	}
	wg.Wait()
}

const fetchTime = 3 * time.Second

// plain answers a text.
func plain(w http.ResponseWriter, text string) error {
	web.Write(w, http.StatusOK, "text/plain", []byte(text))
	return nil
}
