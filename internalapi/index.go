package internalapi

import (
	"net/http"

	"timehub/hub/web"
)

const warning = "This interface is for operators and for hubs among themselves. It may change with any version: programs should use the public one."

func (a *API) index(w http.ResponseWriter, r *http.Request) error {
	base := web.Base(r) + "/internal/"
	links := map[string]link{"self": {Href: base}}
	for name, text := range map[string]string{
		"channel":    "Refresh the channel cache, delete channels, find stale ones.",
		"cluster":    "The nodes that are one hub; take one off the list, or call it back.",
		"deploy":     "The members of the cluster.",
		"health":     "The health of every member.",
		"properties": "The configuration of this node.",
		"shutdown":   "Stop this node in order.",
		"time":       "The clock of this node.",
		"webhook":    "Which webhooks there are, which of them run here, which have errors or fall behind.",
	} {
		if name == "channel" && a.opt.Channels == nil || name == "shutdown" && a.opt.Shutdown == nil || name == "webhook" && a.opt.Webhooks == nil {
			continue
		}
		links[name] = link{Description: text, Href: base + name}
	}
	return web.JSON(w, http.StatusOK, struct {
		Warning string          `json:"WARNING"`
		Links   map[string]link `json:"_links"`
	}{warning, links})
}
