package internalapi

import (
	"cmp"
	"net"
	"net/http"

	"timehub/hub/web"
)

// shutdown answers when the node no longer accepts requests; this one is the last.
func (a *API) shutdown(w http.ResponseWriter, r *http.Request) error {
	if err := a.opt.Shutdown(r.Context()); err != nil {
		return err
	}
	w.Header().Set("Connection", "close")
	return nothing(w, r)
}

func (a *API) resetLock(w http.ResponseWriter, r *http.Request) error {
	if err := a.opt.ResetLock(r.Context()); err != nil {
		return err
	}
	return nothing(w, r)
}

type shutdownText struct {
	Description  string            `json:"description"`
	Directions   map[string]string `json:"directions"`
	ShutdownLock string            `json:"shutdownLock"`
}

// shutdownHelp gives its members at the top and, as the original does, under object.
func (a *API) shutdownHelp(w http.ResponseWriter, r *http.Request) error {
	self := web.Base(r) + "/internal/shutdown"
	doing := "http://localhost/internal/shutdown" // only who addresses the hub like this may do it
	if _, port, err := net.SplitHostPort(a.opt.Node); err == nil {
		doing = "http://localhost:" + port + "/internal/shutdown"
	}
	holder, err := a.opt.ShutdownLock(r.Context())
	if err != nil {
		return err
	}
	text := shutdownText{
		"Stops this node in order: /health says SHUTTING DOWN, requests in flight are finished, what was acknowledged is on disk.",
		map[string]string{
			"shutdown":  "POST, as a local caller. The answer comes when the node no longer accepts requests.",
			"resetLock": "POST, as a local caller. Releases the lock that lets one node of a cluster stop at a time (app.shutdown_lock_seconds); a single hub takes none.",
		},
		cmp.Or(holder, "none"),
	}
	return web.JSON(w, http.StatusOK, struct {
		Links map[string]link `json:"_links"`
		shutdownText
		Object shutdownText `json:"object"`
	}{map[string]link{"self": {Href: self}, "shutdown": {Href: doing}, "resetLock": {Href: doing + "/resetLock"}}, text, text})
}
