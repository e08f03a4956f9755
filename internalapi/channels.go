package internalapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/web"
)

func (a *API) channelHelp(w http.ResponseWriter, r *http.Request) error {
	self := web.Base(r) + "/internal/channel"
	return web.JSON(w, http.StatusOK, struct {
		Description string          `json:"description"`
		Directions  map[string]any  `json:"directions"`
		Links       map[string]link `json:"_links"`
	}{
		"What can be done with channels behind the scenes.",
		map[string]any{
			"delete":  "DELETE /internal/channel/{channel} removes a channel, protected or not; for local callers only if hub.protect.channels is true.",
			"refresh": "GET /internal/channel/refresh makes every node read the channels again; with ?all=false this node alone.",
			"stale": map[string]string{
				"by age":        "GET /internal/channel/stale/{minutes} lists the channels whose last item is older than that.",
				"by age, owner": "GET /internal/channel/stale/{minutes}/{owner} lists those of one owner.",
			},
		},
		map[string]link{"self": {Href: self}, "refresh": {Href: self + "/refresh"}, "stale": {Href: self + "/stale/1440"}},
	})
}

// refresh answers this node's name, or with all (the default) a map of the members that did it.
func (a *API) refresh(w http.ResponseWriter, r *http.Request) error {
	if err := a.opt.Channels.RefreshChannels(r.Context()); err != nil {
		return err
	}
	if !web.Bool(r, "all", true) {
		return plain(w, a.opt.Node)
	}
	members, err := a.opt.Members(r.Context())
	if err != nil {
		return err
	}
	done := map[string]string{a.opt.Node: "success"} // by what each has answered; who does not answer is left out
	a.others(r.Context(), members, "/internal/channel/refresh?all=false", func(node string, status int, body []byte, err error) {
		switch {
		case err != nil:
		case status == http.StatusOK:
			done[string(body)] = "success"
		default:
			done[node] = "failure"
		}
	})
	return web.JSON(w, http.StatusOK, done)
}

func (a *API) deleteChannel(w http.ResponseWriter, r *http.Request) error {
	if a.opt.Guarded && !web.Local(r) {
		return hub.E(hub.Forbidden, "hub.protect.channels is true: only a caller on the hub's own machine that addresses it as localhost may delete channels")
	}
	if err := a.opt.Channels.RemoveChannel(r.Context(), web.Param(r, "channel")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

type staleChannel struct {
	LastUpdate string `json:"last update"`
	URI        string `json:"uri"`
}

type staleDocument struct {
	Minutes int            `json:"stale minutes"`
	Cutoff  string         `json:"stale cutoff"`
	URIs    []staleChannel `json:"uris"`
}

// stale lists the channels whose last item is not newer than so many minutes ago, the oldest first.
func (a *API) stale(w http.ResponseWriter, r *http.Request) error {
	minutes, ok := hub.Count(web.Param(r, "minutes"))
	if !ok {
		return hub.E(hub.NotFound, "no such path: stale/{minutes} wants a number")
	}
	minutes = min(max(minutes, 0), 100_000_000) // 190 years
	cutoff := a.opt.Clock().Add(-time.Duration(minutes) * time.Minute)
	last, err := a.opt.Channels.LastItems(r.Context())
	if err != nil {
		return err
	}
	owner := web.Param(r, "owner")
	last = slices.DeleteFunc(last, func(l LastItem) bool { return l.Key.Time().After(cutoff) || owner != "" && l.Owner != owner })
	slices.SortFunc(last, func(x, y LastItem) int {
		if c := x.Key.Compare(y.Key); c != 0 {
			return c
		}
		return strings.Compare(x.Channel, y.Channel)
	})
	base := web.Base(r)
	d := staleDocument{minutes, hub.ISO(cutoff), []staleChannel{}}
	for _, l := range last {
		d.URIs = append(d.URIs, staleChannel{hub.ISO(l.Key.Time()), base + "/channel/" + url.PathEscape(l.Channel)})
	}
	return web.JSON(w, http.StatusOK, struct {
		Links map[string]link `json:"_links"`
		Stale staleDocument   `json:"stale"`
	}{map[string]link{"self": {Href: web.URI(r)}}, d})
}

// maxItems removes what is over the limits of a channel, and answers when that is done (spec 05 §10): a failure is 400.
func (a *API) maxItems(w http.ResponseWriter, r *http.Request) error {
	if err := a.opt.MaxItems(r.Context(), web.Param(r, "channel")); err != nil {
		return hub.E(hub.Invalid, "what is over the limits of the channel could not be removed: it is tried again every few hours").Because(err)
	}
	return nothing(w, r)
}
