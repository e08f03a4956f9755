package rest

import (
	"html"
	"net/http"
	"slices"
	"strings"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// maxDocument limits the JSON of a configuration.
const maxDocument = 1 << 20

const documentation = "https://github.com/flightstats/hub"

// root is the entry of the API (spec 02 §2.1).
func (h *Handlers) root(w http.ResponseWriter, r *http.Request) error {
	base := web.Base(r)
	d := doc{b: make([]byte, 0, 1024)}
	d.open()
	d.link("self", base, "/")
	d.link("documentation", documentation)
	for _, name := range []string{"channel", "health", "tag", "webhook", "internal"} {
		d.link(name, base, "/", name)
	}
	d.close()
	d.done()
	web.WriteJSON(w, http.StatusOK, d.b)
	return nil
}

// listChannels is spec 02 §2.2.
func (h *Handlers) listChannels(w http.ResponseWriter, r *http.Request) error {
	all, err := h.svc.Channels(r.Context())
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, ch := range all {
		names[i] = ch.Name
	}
	if broken := h.svc.Unreadable(); len(broken) > 0 { // they are there: asking for one says what is wrong with it
		names = append(names, broken...)
		slices.Sort(names)
	}
	d := doc{b: make([]byte, 0, 256+len(names)*128)}
	d.open()
	d.link("self", web.URI(r))
	base := web.Base(r)
	d.named("channels", len(names), func(i int) (string, string) { return names[i], base + "/channel/" + names[i] })
	d.close()
	d.done()
	web.WriteJSON(w, http.StatusOK, d.b)
	return nil
}

// readPatch reads the body of a request that makes or changes a channel.
func readPatch(r *http.Request) (channel.ChannelPatch, error) {
	if err := web.Consumes(r, "application/json"); err != nil {
		return channel.ChannelPatch{}, err
	}
	body, err := web.ReadDocument(r, maxDocument)
	if err != nil {
		return channel.ChannelPatch{}, err
	}
	return channel.ParsePatch(body)
}

func callerOf(r *http.Request) channel.Caller { return channel.Caller{Local: web.Local(r)} }

var errNoDocument = hub.E(hub.Invalid, "the body is empty: send a JSON object, application/json expected")

// createChannel is spec 02 §2.3. Its answer speaks of the channel by its display name.
func (h *Handlers) createChannel(w http.ResponseWriter, r *http.Request) error {
	patch, err := readPatch(r)
	if err != nil {
		return err
	}
	if patch.Empty {
		return errNoDocument
	}
	ch, err := h.svc.CreateChannel(lasting(r), patch, callerOf(r))
	if err != nil {
		return err
	}
	return h.created(w, r, ch, ch.Name)
}

// putChannel is spec 02 §2.4.
func (h *Handlers) putChannel(w http.ResponseWriter, r *http.Request) error {
	patch, err := readPatch(r)
	if err != nil {
		return err
	}
	name := web.Param(r, "channel")
	ch, _, err := h.svc.PutChannel(lasting(r), name, patch, callerOf(r))
	if err != nil {
		return err
	}
	return h.created(w, r, ch, strings.TrimSpace(name))
}

func (h *Handlers) created(w http.ResponseWriter, r *http.Request, ch *hub.Channel, spelled string) error {
	w.Header().Set("Location", web.Base(r)+"/channel/"+ch.Name)
	return web.JSON(w, http.StatusCreated, describe(r, ch, spelled))
}

// patchChannel is spec 02 §2.5.
func (h *Handlers) patchChannel(w http.ResponseWriter, r *http.Request) error {
	patch, err := readPatch(r)
	if err != nil {
		return err
	}
	if patch.Empty {
		return errNoDocument
	}
	name := web.Param(r, "channel")
	ch, err := h.svc.PatchChannel(lasting(r), name, patch, callerOf(r))
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, describe(r, ch, name))
}

func (h *Handlers) getChannel(w http.ResponseWriter, r *http.Request) error {
	name := web.Param(r, "channel")
	get := h.svc.Channel
	if !web.Bool(r, "cached", true) {
		get = h.svc.Fresh
	}
	ch, err := get(r.Context(), name)
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, describe(r, ch, name))
}

// deleteChannel is spec 02 §2.6; its content goes behind the answer.
func (h *Handlers) deleteChannel(w http.ResponseWriter, r *http.Request) error {
	name := web.Param(r, "channel")
	err := h.svc.DeleteChannel(lasting(r), name, callerOf(r))
	if hub.Is(err, hub.NotFound) { // a sentence that clients compare
		gone := hub.E(hub.NotFound, "channel %s not found", html.EscapeString(name)).Because(err)
		gone.Verbatim = true
		return gone
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// description is the channel as answers show it (spec 01 §3.7).
type description struct {
	Name                      string   `json:"name"`
	AllowZeroBytes            bool     `json:"allowZeroBytes"`
	SecondaryMetricsReporting bool     `json:"secondaryMetricsReporting"`
	CreationDate              string   `json:"creationDate"`
	Description               string   `json:"description"`
	MaxItems                  int64    `json:"maxItems"`
	MutableTime               string   `json:"mutableTime"`
	Owner                     string   `json:"owner"`
	Protect                   bool     `json:"protect"`
	ReplicationSource         string   `json:"replicationSource"`
	Storage                   string   `json:"storage"`
	Tags                      []string `json:"tags"`
	TTLDays                   int64    `json:"ttlDays"`
	KeepForever               bool     `json:"keepForever"`
	Links                     struct {
		Self     href `json:"self"`
		Latest   href `json:"latest"`
		Earliest href `json:"earliest"`
		Bulk     href `json:"bulk"`
		WS       href `json:"ws"`
		Events   href `json:"events"`
		Time     href `json:"time"`
		Status   href `json:"status"`
	} `json:"_links"`
}

type href struct {
	Href string `json:"href"`
}

// describe shows a channel; its links spell the name as asked.
func describe(r *http.Request, ch *hub.Channel, spelled string) *description {
	d := &description{
		Name: ch.Name, AllowZeroBytes: ch.AllowZeroBytes, SecondaryMetricsReporting: ch.SecondaryMetricsReporting,
		CreationDate: hub.ISO(ch.CreationDate), Description: ch.Description, MaxItems: ch.MaxItems, Owner: ch.Owner, Protect: ch.Protect,
		ReplicationSource: ch.ReplicationSource, Storage: string(ch.Storage), Tags: ch.Tags, TTLDays: ch.TTLDays, KeepForever: ch.KeepForever,
	}
	if ch.Historical() {
		d.MutableTime = hub.ISO(ch.MutableTime)
	}
	if d.Tags == nil {
		d.Tags = []string{}
	}
	self := web.Base(r) + "/channel/" + spelled
	l := &d.Links
	l.Self, l.Latest, l.Earliest, l.Bulk = href{self}, href{self + "/latest"}, href{self + "/earliest"}, href{self + "/bulk"}
	l.WS = href{"ws" + strings.TrimPrefix(self, "http") + "/ws"} // wss for https
	l.Events, l.Time, l.Status = href{self + "/events"}, href{self + "/time"}, href{self + "/status"}
	return d
}
