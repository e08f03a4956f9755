package rest

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// period is spec 02 §3.2, and its form for tags.
func (h *Handlers) period(w http.ResponseWriter, r *http.Request) error {
	if err := produces(r); err != nil {
		return err
	}
	a, err := h.ask(r)
	if err != nil {
		return err
	}
	a.Kind, a.Window = channel.InWindow, web.Found(r).(hub.Path).Window()
	if a.bulk {
		return h.bulkRead(w, r, a, func(l *listing) links { return a.periodLinks(r, l, true) })
	}
	found, err := a.find(r.Context())
	if err != nil {
		return err
	}
	return h.list(w, r, found, a.periodLinks(r, &found, false), a.order)
}

// periodLinks are the windows beside the one that was asked for; the next one only if it has begun to be visible.
func (a *asked) periodLinks(r *http.Request, found *listing, bulk bool) links {
	query := web.Query(r)
	if a.place.tagged() {
		query = "?stable=" + strconv.FormatBool(a.Stable)
		if bulk {
			query = "?bulk=true&" + query[1:]
		}
	}
	var to links
	root := a.place.root() + "/"
	if a.Window.End().Before(found.Until) {
		to.next = root + a.Window.Next().String() + query
	}
	if before := a.Window.Previous(); before.Start.Year() >= 0 {
		to.previous = root + before.String() + query
	}
	return to
}

// toSecond sends a path down to the millisecond to its second (spec 02 §3.2).
func (h *Handlers) toSecond(w http.ResponseWriter, r *http.Request) error {
	path := web.Path(r)
	web.Redirect(w, http.StatusSeeOther, web.Base(r)+path[:strings.LastIndexByte(path, '/')]+web.Query(r))
	return nil
}

// seconds lists the seconds beside one: it needs no store (spec 02 §3.3).
func (h *Handlers) seconds(w http.ResponseWriter, r *http.Request) error {
	p := web.Found(r).(hub.Path)
	name := web.Param(r, "channel")
	until, err := h.instant(r, name)
	if err != nil {
		return err
	}
	n := max(0, min(p.N, h.svc.MaxCount()))
	start := p.Start
	if p.Verb == hub.Previous {
		if s := until.Truncate(time.Second); s.Before(start) {
			start = s
		}
		n = min(n, secondsBetween(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), start)) // no key lies before the year 0
		start = start.Add(-time.Duration(n) * time.Second)
	} else {
		n = min(n, secondsBetween(start, until))
	}
	web.TraceOf(r.Context()).Step("%d seconds up to %s", n, hub.ISO(until))
	root := web.Base(r) + "/channel/" + name + "/"
	query := web.Query(r)
	at := func(i int) string { return hub.WindowAt(start.Add(time.Duration(i)*time.Second), hub.Second).String() }
	var to links
	if n > 0 && n == p.N {
		to.next = root + at(n) + "/next/" + strconv.Itoa(p.N) + query
	}
	if n > 0 {
		to.previous = root + at(0) + "/previous/" + strconv.Itoa(p.N) + query
	}
	buf := h.buffer()
	defer h.giveBack(buf)
	l := lister{w: w, doc: doc{b: *buf}}
	l.begins(r, to)
	l.uris(n, hub.ParseOrder(web.Params(r).Get("order")), func(b []byte, i int) []byte { return append(append(b, root...), at(i)...) })
	return l.ends(r, buf)
}

// secondsBetween counts the seconds that begin at or after start and before until.
func secondsBetween(start, until time.Time) int {
	if !start.Before(until) {
		return 0
	}
	n := until.Unix() - start.Unix() // a time.Duration holds 292 years only
	if until.Nanosecond() > start.Nanosecond() {
		n++
	}
	return int(n)
}
