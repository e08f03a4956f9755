package node

import (
	"net/http"
	"strings"

	"timehub/hub"
)

// readOnly refuses whatever would change something (spec 02 §1.9, spec 04 §13): all writes but those of operators, and channel events, which the interface
// has always counted among them.
func readOnly(r *http.Request, pattern string) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		if strings.HasPrefix(pattern, "/channel/") && strings.HasSuffix(r.URL.Path, "/events") {
			return refusedHere()
		}
		return nil
	}
	if strings.HasPrefix(pattern, "/internal/") || pattern == "/shutdown" {
		return nil
	}
	return refusedHere()
}

func refusedHere() error {
	return &hub.Error{Kind: hub.Forbidden, Msg: "this node is read-only", Verbatim: true}
}
