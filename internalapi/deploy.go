package internalapi

import (
	"net"
	"net/http"
	"strings"

	"timehub/hub/web"
)

func (a *API) deploy(w http.ResponseWriter, r *http.Request) error {
	members, err := a.opt.Members(r.Context())
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, append([]string{}, members...))
}

// deployText is for shell scripts: host names without ports.
func (a *API) deployText(w http.ResponseWriter, r *http.Request) error {
	members, err := a.opt.Members(r.Context())
	if err != nil {
		return err
	}
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m
		if host, _, err := net.SplitHostPort(m); err == nil {
			names[i] = host
		}
	}
	return plain(w, strings.Join(names, " "))
}
