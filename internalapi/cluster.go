package internalapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"

	"timehub/hub"
	"timehub/hub/web"
)

// Cluster is what can be seen and done of the nodes that are one hub. Nodes are named by the addresses (host:port) at which they reach each other.
type Cluster interface {
	// Cluster tells how it stands.
	Cluster(ctx context.Context) (ClusterState, error)
	// Leave begins the decommissioning of a node, "" being this one: NotFound, or Conflict with the reason.
	Leave(ctx context.Context, node string) error
	// Return lets a decommissioned node join again: NotFound, or Conflict with the reason.
	Return(ctx context.Context, node string) error
	// CloseOpen closes what a node, or an incarnation, has left open; with force, by half of the nodes if no more answer.
	CloseOpen(ctx context.Context, what string, force bool) error
	// LateItems lists, from a position on (0, or next of the call before), items that came late because of that. next is 0 at the end.
	LateItems(ctx context.Context, from int64, limit int) (items any, count int, next int64, err error)
}

// ClusterState is the members by what they are.
type ClusterState struct {
	Members []string // that write
	Leaving []string // that are being decommissioned and still answer readers
	Left    []string // that must not start before they are called back
	Detail  any      // everything that is known, as JSON
}

type serverName struct {
	Server string `json:"server"`
}

type decommissioned struct {
	WithinSpokeTTL []serverName `json:"withinSpokeTTL"`
	DoNotStart     []serverName `json:"doNotStart"`
}

type clusterText struct {
	Description    string         `json:"description"`
	Directions     string         `json:"directions"`
	Decommission   string         `json:"/decommission"`
	Recommission   string         `json:"/recommission/{server}"`
	Close          string         `json:"/close/{node or incarnation}"`
	Late           string         `json:"/late"`
	SpokeCluster   []serverName   `json:"spokeCluster"`
	Decommissioned decommissioned `json:"decommissioned"`
}

// AddCluster adds the routes with which operators look at a cluster and change it: a node that waits for the others has them, too.
func (a *API) AddCluster(rt *web.Router) {
	rt.Handle(http.MethodGet, "/internal/cluster", web.JSONOnly(a.cluster))
	rt.Handle(http.MethodPost, "/internal/cluster/decommission", local(a.decommission))
	rt.Handle(http.MethodPost, "/internal/cluster/recommission/{server}", local(a.recommission))
	rt.Handle(http.MethodPost, "/internal/cluster/close/{what}", local(a.closeOpen))
	rt.Handle(http.MethodGet, "/internal/cluster/late", web.JSONOnly(a.late))
}

// cluster gives its members at the top and, as the original does, under object.
func (a *API) cluster(w http.ResponseWriter, r *http.Request) error {
	state := ClusterState{Members: []string{a.opt.Node}}
	if a.opt.Cluster != nil {
		var err error
		if state, err = a.opt.Cluster.Cluster(r.Context()); err != nil {
			return err
		}
	}
	doing := "http://localhost/internal/cluster"
	if _, port, err := net.SplitHostPort(a.opt.Node); err == nil {
		doing = "http://localhost:" + port + "/internal/cluster"
	}
	links := map[string]link{"self": {Href: web.Base(r) + "/internal/cluster"}, "decommission": {Href: doing + "/decommission"}}
	for _, node := range state.Left {
		links["recommission "+node] = link{Href: doing + "/recommission/" + node}
	}
	text := clusterText{
		Description:  "The nodes that are one hub: who writes, who is leaving, who has left.",
		Directions:   "Changes are for callers on a node's own machine that address it as localhost.",
		Decommission: "POST. Takes this node, or ?node=host:port, off the list: what it wrote is closed; it stops when the others hold everything.",
		Recommission: "POST. Lets a node that was decommissioned be started again.",
		Close: "POST. Closes now what a node (host:port) that is gone, or an incarnation (ordinal.number), has left open, instead of when a member comes to it. " +
			"?force=true: with an even number of nodes and spoke.quorum=half, by half of them; what the others have and these have not comes late.",
		Late:           "GET. Names the items that came late because of that: ?from=, ?limit=.",
		SpokeCluster:   named(state.Members),
		Decommissioned: decommissioned{named(state.Leaving), named(state.Left)},
	}
	return web.JSON(w, http.StatusOK, struct {
		Links map[string]link `json:"_links"`
		clusterText
		Detail any         `json:"detail,omitempty"`
		Object clusterText `json:"object"`
	}{links, text, state.Detail, text})
}

func named(nodes []string) []serverName {
	list := make([]serverName, 0, len(nodes))
	for _, n := range slices.Sorted(slices.Values(nodes)) {
		list = append(list, serverName{n})
	}
	return list
}

var errAlone = hub.E(hub.Conflict, "this hub is alone: there is no cluster to change")

func (a *API) decommission(w http.ResponseWriter, r *http.Request) error {
	if a.opt.Cluster == nil {
		return errAlone
	}
	if err := a.opt.Cluster.Leave(r.Context(), r.URL.Query().Get("node")); err != nil {
		return err
	}
	return nothing(w, r)
}

// recommission is 202, and 500 for a node that nobody knows (spec 05 §2).
func (a *API) recommission(w http.ResponseWriter, r *http.Request) error {
	if a.opt.Cluster == nil {
		return errAlone
	}
	err := a.opt.Cluster.Return(r.Context(), web.Param(r, "server"))
	var known *hub.Error
	switch {
	case hub.Is(err, hub.NotFound) && errors.As(err, &known):
		return web.JSON(w, web.Status(hub.Internal), map[string]string{"error": known.Msg})
	case err != nil:
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (a *API) closeOpen(w http.ResponseWriter, r *http.Request) error {
	if a.opt.Cluster == nil {
		return errAlone
	}
	force := false
	if text := r.URL.Query().Get("force"); text != "" {
		var err error
		if force, err = strconv.ParseBool(text); err != nil {
			return hub.E(hub.Invalid, "force is %q: it must be true or false", text)
		}
	}
	if err := a.opt.Cluster.CloseOpen(r.Context(), web.Param(r, "what"), force); err != nil {
		return err
	}
	return nothing(w, r)
}

// maxLate is how many late items one answer names.
const maxLate = 10_000

func (a *API) late(w http.ResponseWriter, r *http.Request) error {
	from, limit := int64(0), 1000
	for name, set := range map[string]func(int64){"from": func(v int64) { from = v }, "limit": func(v int64) { limit = int(min(v, maxLate)) }} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 {
			return hub.E(hub.Invalid, "%s is %q: it must be a number from 0 on", name, text)
		}
		set(v)
	}
	answer := struct {
		Count int   `json:"count"`
		Items any   `json:"items"`
		Next  int64 `json:"next,omitempty"`
	}{Items: []string{}}
	if a.opt.Cluster != nil {
		var err error
		if answer.Items, answer.Count, answer.Next, err = a.opt.Cluster.LateItems(r.Context(), from, limit); err != nil {
			return err
		}
	}
	return web.JSON(w, http.StatusOK, answer)
}
