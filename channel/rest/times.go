package rest

import (
	"net/http"
	"strconv"
	"time"

	"timehub/hub"
	"timehub/hub/web"
)

// units are the windows of the time interface, in the order of its answer.
var units = [...]struct {
	name, template string
	unit           hub.Unit
}{
	{"second", "{year}/{month}/{day}/{hour}/{minute}/{second}{?stable}", hub.Second},
	{"minute", "{year}/{month}/{day}/{hour}/{minute}{?stable}", hub.Minute},
	{"hour", "{year}/{month}/{day}/{hour}{?stable}", hub.Hour},
	{"day", "{year}/{month}/{day}{?stable}", hub.Day},
}

// times is spec 02 §5: now, the stable instant, and the windows that hold it.
func (h *Handlers) times(w http.ResponseWriter, r *http.Request) error {
	ch := &hub.Channel{}
	root := web.Base(r)
	if tag := web.Param(r, "tag"); tag != "" {
		root += "/tag/" + escapeTag(tag)
	} else {
		var err error
		if ch, err = h.channel(r); err != nil {
			return err
		}
		root += "/channel/" + web.Param(r, "channel")
	}
	now, stable, err := h.svc.Stable(r.Context(), ch)
	if err != nil {
		return err
	}
	at, query := stable, ""
	if v := web.Params(r).Get("stable"); v != "" {
		query = "?stable=" + escapeTag(v)
		if !web.Bool(r, "stable", true) {
			at = now
		}
	}
	d := doc{b: make([]byte, 0, 2048)}
	d.open()
	d.link("self", web.URI(r))
	for _, u := range units {
		d.begin(u.name)
		d.b = append(d.b, root+"/"+hub.WindowAt(at, u.unit).String()+query...)
		d.b = append(d.b, "\",\n      \"template\": \""+root+"/time/"+u.template...)
		d.b = append(d.b, "\",\n      \"redirect\": \""+root+"/time/"+u.name+query...)
		d.end()
	}
	d.close()
	d.instant("now", now)
	d.instant("stable", stable)
	d.done()
	web.WriteJSON(w, http.StatusOK, d.b)
	return nil
}

func (d *doc) instant(name string, t time.Time) {
	d.b = append(d.b, ",\n  \""+name+"\": {\n    \"iso8601\": \""+hub.ISO(t)+"\",\n    \"millis\": "...)
	d.b = strconv.AppendInt(d.b, t.UnixMilli(), 10)
	d.b = append(d.b, "\n  }"...)
}

// timeRedirect sends the client to the window of a unit that holds the stable instant. Whether the channel exists is the target's business.
func (h *Handlers) timeRedirect(w http.ResponseWriter, r *http.Request) error {
	for _, u := range units {
		if u.name != web.Param(r, "unit") {
			continue
		}
		root := web.Base(r) + "/channel/" + web.Param(r, "channel")
		if tag := web.Param(r, "tag"); tag != "" {
			root = web.Base(r) + "/tag/" + escapeTag(tag)
		}
		at, err := h.instant(r, web.Param(r, "channel"))
		if err != nil {
			return err
		}
		web.Redirect(w, http.StatusSeeOther, root+"/"+hub.WindowAt(at, u.unit).String()+web.Query(r))
		return nil
	}
	return hub.E(hub.NotFound, "no such path: the units are second, minute, hour and day")
}

// instant is the stable instant of a channel, or now if the request wants that. A name that no channel has is treated as an ordinary channel's.
func (h *Handlers) instant(r *http.Request, name string) (time.Time, error) {
	ch, err := h.svc.Channel(r.Context(), name)
	if hub.Is(err, hub.NotFound) || name == "" {
		ch, err = &hub.Channel{Name: name}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	now, stable, err := h.svc.Stable(r.Context(), ch)
	if !web.Bool(r, "stable", true) {
		return now, err
	}
	return stable, err
}
