package internalapi

import (
	"net/http"

	"timehub/hub/web"
)

func (a *API) properties(w http.ResponseWriter, r *http.Request) error {
	server, servers, err := a.servers(r.Context(), "/internal/properties")
	if err != nil {
		return err
	}
	properties := a.opt.Properties()
	if properties == nil {
		properties = map[string]string{}
	}
	return web.JSON(w, http.StatusOK, struct {
		Server     string            `json:"server"`
		Servers    []string          `json:"servers"`
		Properties map[string]string `json:"properties"` // written in the order of the keys
	}{server, servers, properties})
}
