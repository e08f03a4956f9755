package web

import (
	"net/http"
	"net/url"
	"strings"
)

type parsedQuery struct {
	values url.Values
	done   bool
}

// Params are the query parameters. Nobody may change them. Pairs that cannot be read are ignored, as are those an endpoint does not know.
func Params(r *http.Request) url.Values {
	x := exchangeOf(r)
	if x == nil {
		return r.URL.Query()
	}
	if !x.values.done {
		x.values.done = true
		if r.URL.RawQuery != "" {
			x.values.values = r.URL.Query()
		}
	}
	return x.values.values
}

// Bool reads a boolean query parameter: "true" in any case is true, absent or empty is the default, anything else false (spec 01 §4).
func Bool(r *http.Request, name string, def bool) bool {
	if r.URL.RawQuery == "" {
		return def
	}
	v := Params(r).Get(name)
	if v == "" {
		return def
	}
	return strings.EqualFold(v, "true")
}
