package rest

import (
	"net/http"
	"strconv"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// neighbour sends the client to the item after or before a key (spec 02 §3.3).
func (h *Handlers) neighbour(w http.ResponseWriter, r *http.Request) error {
	a, err := h.ask(r)
	if err != nil {
		return err
	}
	a.towards(web.Found(r).(hub.Path))
	a.N, a.Inclusive = 1, false
	if err := h.hold(r, &a); err != nil {
		return err
	}
	return h.redirect(w, r, &a, "there is no item in that direction", "&stable="+strconv.FormatBool(a.Stable))
}

func (a *asked) towards(p hub.Path) {
	a.Kind, a.Key, a.N = channel.Next, p.Key(), p.N
	if p.Verb == hub.Previous {
		a.Kind = channel.Previous
	}
}

// redirect answers with the one item that was found. Under a tag the address says so, and more.
func (h *Handlers) redirect(w http.ResponseWriter, r *http.Request, a *asked, nothing, more string) error {
	found, err := a.find(r.Context())
	if err != nil {
		return err
	}
	showHorizon(w, found.Page)
	if found.len() == 0 {
		return hub.E(hub.NotFound, "%s", nothing)
	}
	location := string(found.appendURI(nil, 0))
	if a.place.tagged() {
		location += more
	}
	web.Redirect(w, http.StatusSeeOther, location)
	return nil
}

// neighbours lists the n items after or before a key.
func (h *Handlers) neighbours(w http.ResponseWriter, r *http.Request) error {
	if err := produces(r); err != nil {
		return err
	}
	a, err := h.ask(r)
	if err != nil {
		return err
	}
	p := web.Found(r).(hub.Path)
	a.towards(p)
	if a.place.tagged() {
		a.Inclusive = false
	}
	if err := h.hold(r, &a); err != nil {
		return err
	}
	if a.bulk {
		return h.bulkRead(w, r, a, func(l *listing) links { return a.neighbourLinks(r, l, p.N, true) })
	}
	found, err := a.find(r.Context())
	if err != nil {
		return err
	}
	return h.list(w, r, found, a.neighbourLinks(r, &found, p.N, false), a.order)
}

// neighbourLinks lead on from the greatest and back from the smallest key found. With nothing found they lead back from where the search began; bulk
// answers then have none.
func (a *asked) neighbourLinks(r *http.Request, found *listing, n int, bulk bool) links {
	query := web.Query(r)
	if a.place.tagged() {
		query = ""
		if bulk {
			query = "?bulk=true"
		}
	}
	to := func(k hub.Key, verb hub.Verb) string { return a.beside(k, verb, n, query) }
	switch {
	case found.len() > 0:
		return links{next: to(found.last(), hub.Next), previous: to(found.first(), hub.Previous)}
	case bulk:
		return links{}
	case a.Kind == channel.Next:
		return links{previous: to(found.Start, hub.Previous)}
	}
	return links{next: to(found.Start, hub.Next)}
}

// beside is the address of the n items beside a key.
func (a *asked) beside(k hub.Key, verb hub.Verb, n int, query string) string {
	b := append(make([]byte, 0, 160), a.place.root()...)
	b = appendKey(append(b, '/'), k)
	b = append(append(b, '/'), verb...)
	b = strconv.AppendInt(append(b, '/'), int64(n), 10)
	return string(append(b, query...))
}

// end sends the client to the newest or oldest item (spec 02 §3.4).
func (h *Handlers) end(kind channel.Kind) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		a, err := h.ask(r)
		if err != nil {
			return err
		}
		a.Kind, a.N = kind, 1
		if err := h.hold(r, &a); err != nil {
			return err
		}
		return h.redirect(w, r, &a, emptyMessage, "")
	}
}

// endList lists the n newest or oldest items.
func (h *Handlers) endList(kind channel.Kind) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		n, ok := hub.Count(web.Param(r, "n"))
		if !ok {
			return hub.E(hub.NotFound, "no such path: %s is no number of items", clip(web.Param(r, "n")))
		}
		if err := produces(r); err != nil {
			return err
		}
		a, err := h.ask(r)
		if err != nil {
			return err
		}
		a.Kind, a.N = kind, n
		if err := h.hold(r, &a); err != nil {
			return err
		}
		if a.bulk {
			return h.bulkRead(w, r, a, func(*listing) links { return links{} })
		}
		found, err := a.find(r.Context())
		if err != nil {
			return err
		}
		return h.endAnswer(w, r, &a, found, n)
	}
}

// missing reports whether an empty answer is 404: that of latest and earliest is, but for latest/0 and for earliest under a tag (spec 02 §3.4, §6).
func (a *asked) missing(found *listing) bool {
	switch {
	case found.len() > 0:
		return false
	case a.Kind == channel.Latest:
		return a.N > 0
	}
	return a.Kind == channel.Earliest && !a.place.tagged()
}

func (h *Handlers) endAnswer(w http.ResponseWriter, r *http.Request, a *asked, found listing, n int) error {
	if a.missing(&found) {
		showHorizon(w, found.Page)
		return hub.E(hub.NotFound, "%s", emptyMessage)
	}
	var to links
	if found.len() > 0 {
		to = a.neighbourLinks(r, &found, n, false)
	}
	if a.Kind == channel.Earliest {
		to.previous = ""
	}
	return h.list(w, r, found, to, a.order)
}
