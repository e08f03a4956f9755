package web

import (
	"net/http"
	"strings"

	"timehub/hub"
)

// quality reads the q of an entry's parameters leniently, in thousandths: ".2" is 200, none is 1000, nonsense is 1000.
func quality(params string) int {
	for params != "" {
		var p string
		p, params, _ = strings.Cut(params, ";")
		p = strings.TrimSpace(p)
		if len(p) < 2 || p[0]|0x20 != 'q' || p[1] != '=' {
			continue
		}
		whole, fraction, _ := strings.Cut(p[2:], ".")
		q := 0
		switch strings.TrimSpace(whole) {
		case "", "0":
		default:
			return 1000
		}
		scale := 100
		for i := 0; i < len(fraction) && i < 3; i++ {
			if fraction[i] < '0' || fraction[i] > '9' {
				break
			}
			q += int(fraction[i]-'0') * scale
			scale /= 10
		}
		return q
	}
	return 1000
}

// Acceptable reports whether Accept allows a media type (spec 02 §1.5, §3.1): no entry or a blank one allows everything, entries that cannot be read
// are skipped, "*" alone means "*/*", and of the entries that match the most exact one decides. offered may be a range itself: "multipart/*".
func Acceptable(r *http.Request, offered string) bool {
	lines := r.Header["Accept"]
	switch len(lines) {
	case 0:
		return true
	case 1:
		if lines[0] == "*/*" || lines[0] == "" {
			return true
		}
	}
	accept := strings.Join(lines, ",")
	if strings.TrimSpace(accept) == "" {
		return true
	}
	main, sub := splitType(offered)
	best, allowed := -1, false
	for entry := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(entry, ";")
		m, s := splitType(name)
		if m == "*" && s == "" {
			s = "*"
		}
		if m == "" || s == "" {
			continue
		}
		exact := exactness(m, s, main, sub)
		if exact > best || exact == best && !allowed {
			best, allowed = exact, exact >= 0 && quality(params) > 0
		}
	}
	return allowed
}

// exactness says how well an Accept entry m/s fits a type: 2 exactly, 1 by its main type, 0 by "*/*", -1 not at all.
func exactness(m, s, main, sub string) int {
	switch {
	case m == "*":
		if s == "*" {
			return 0
		}
		return -1
	case !strings.EqualFold(m, main):
		return -1
	case strings.EqualFold(s, sub):
		return 2
	case s == "*" || sub == "*":
		return 1
	}
	return -1
}

// splitType takes a media type apart, without parameters.
func splitType(t string) (main, sub string) {
	t, _, _ = strings.Cut(t, ";")
	main, sub, _ = strings.Cut(strings.TrimSpace(t), "/")
	return main, sub
}

// Produces is nil if Accept allows one of the types, NotAcceptable otherwise.
func Produces(r *http.Request, types ...string) error {
	for _, t := range types {
		if Acceptable(r, t) {
			return nil
		}
	}
	return hub.E(hub.NotAcceptable, "Accept excludes everything there is here: %s", strings.Join(types, ", "))
}

// Consumes is nil if the request's Content-Type is absent or one of the types (a type, or a range like "multipart/*"), Unsupported otherwise.
func Consumes(r *http.Request, types ...string) error {
	lines := r.Header["Content-Type"]
	if len(lines) == 0 || lines[0] == "" {
		return nil
	}
	m, s := splitType(lines[0])
	for _, t := range types {
		if main, sub := splitType(t); strings.EqualFold(m, main) && s != "" && (sub == "*" || strings.EqualFold(s, sub)) {
			return nil
		}
	}
	return hub.E(hub.Unsupported, "Content-Type is %q: it must be %s", clip(lines[0]), strings.Join(types, " or "))
}

// JSONOnly wraps a handler that has nothing but JSON to offer: 406 if the client does not want that.
func JSONOnly(h Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := Produces(r, jsonType); err != nil {
			return err
		}
		return h(w, r)
	}
}
