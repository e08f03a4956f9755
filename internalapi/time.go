package internalapi

import (
	"net/http"
	"strconv"

	"timehub/hub"
	"timehub/hub/web"
)

func (a *API) time(w http.ResponseWriter, r *http.Request) error {
	server, servers, err := a.servers(r.Context(), "/internal/time")
	if err != nil {
		return err
	}
	self := web.Base(r) + "/internal/time"
	return web.JSON(w, http.StatusOK, struct {
		Server       string            `json:"server"`
		Servers      []string          `json:"servers"`
		Description  string            `json:"description"`
		Details      string            `json:"details"`
		Restrictions string            `json:"restrictions"`
		Directions   map[string]string `json:"directions"`
		Links        map[string]link   `json:"_links"`
		Remote       bool              `json:"remote"`
	}{
		server, servers,
		"Which clock gives items their keys.",
		"Every node uses its own clock, which never goes back and is compared with those of the other members.",
		"Changing it is for local callers only, and without effect on a single hub.",
		map[string]string{
			"millis": "GET the milliseconds since 1970 of this node's clock.",
			"local":  "GET the milliseconds since 1970 of this node's clock; PUT to use it.",
			"remote": "GET the milliseconds since 1970 of another member's clock; PUT to use it.",
		},
		map[string]link{"self": {Href: self}, "millis": {Href: self + "/millis"}, "local": {Href: self + "/local"}, "remote": {Href: self + "/remote"}},
		false,
	})
}

func (a *API) timeMillis(w http.ResponseWriter, _ *http.Request) error {
	return plain(w, strconv.FormatInt(a.opt.Clock().UnixMilli(), 10))
}

// timeRemote is what another member's clock says: 500, not 503, when none answers (spec 05 §6), as on a single hub always.
func (a *API) timeRemote(w http.ResponseWriter, r *http.Request) error {
	members, err := a.opt.Members(r.Context())
	if err != nil {
		return err
	}
	answer := ""
	a.others(r.Context(), members, "/internal/time/millis", func(_ string, status int, body []byte, err error) {
		if _, wrong := strconv.ParseInt(string(body), 10, 64); err == nil && wrong == nil && status == http.StatusOK {
			answer = string(body)
		}
	})
	if answer == "" {
		return web.JSON(w, web.Status(hub.Internal), map[string]string{"error": "there is no other node that could tell its time"})
	}
	return plain(w, answer)
}

func (a *API) useLocalTime(w http.ResponseWriter, r *http.Request) error { return nothing(w, r) }

func (a *API) useRemoteTime(http.ResponseWriter, *http.Request) error {
	return hub.E(hub.Conflict, "every node uses its own clock: there is no remote time mode")
}
