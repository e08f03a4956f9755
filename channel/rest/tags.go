package rest

import (
	"net/http"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// listTags is spec 02 §6.
func (h *Handlers) listTags(w http.ResponseWriter, r *http.Request) error {
	all, err := h.svc.Tags(r.Context())
	if err != nil {
		return err
	}
	base := web.Base(r)
	d := doc{b: make([]byte, 0, 256+len(all)*96)}
	d.open()
	d.link("self", web.URI(r))
	d.named("tags", len(all), func(i int) (string, string) { return all[i], base + "/tag/" + escapeTag(all[i]) })
	d.close()
	d.done()
	web.WriteJSON(w, http.StatusOK, d.b)
	return nil
}

func (h *Handlers) getTag(w http.ResponseWriter, r *http.Request) error {
	tag := web.Param(r, "tag")
	all, err := h.svc.TagChannels(r.Context(), tag)
	if err != nil {
		return err
	}
	base := web.Base(r)
	self := base + "/tag/" + escapeTag(tag)
	d := doc{b: make([]byte, 0, 512+len(all)*128)}
	d.open()
	d.link("self", web.URI(r))
	d.link("latest", self, "/latest")
	d.link("earliest", self, "/earliest")
	d.link("time", self, "/time")
	d.named("channels", len(all), func(i int) (string, string) { return all[i].Name, base + "/channel/" + all[i].Name })
	d.close()
	d.done()
	web.WriteJSON(w, http.StatusOK, d.b)
	return nil
}

// taggedItem is the item of the first of a tag's channels that has the key.
func (h *Handlers) taggedItem(w http.ResponseWriter, r *http.Request) error {
	p := web.Found(r).(hub.Path)
	found, err := h.svc.GetTagged(r.Context(), web.Param(r, "tag"), p.Key(), channel.GetOptions{RemoteOnly: web.Bool(r, "remoteOnly", false)})
	if err != nil {
		return err
	}
	return h.serve(w, r, found, true)
}
