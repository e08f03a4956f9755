package rest

import (
	"net/http"
	"strings"
	"time"

	"timehub/callbacks/webhook"
	"timehub/hub"
	"timehub/hub/web"
)

// description is the configuration as PUT answers it, every default filled in (spec 03 §1.2).
type description struct {
	CallbackURL               string `json:"callbackUrl"`
	ChannelURL                string `json:"channelUrl,omitempty"`
	TagURL                    string `json:"tagUrl,omitempty"`
	ParallelCalls             int    `json:"parallelCalls"`
	Name                      string `json:"name"`
	Batch                     string `json:"batch"`
	Heartbeat                 bool   `json:"heartbeat"`
	Paused                    bool   `json:"paused"`
	TTLMinutes                int    `json:"ttlMinutes"`
	MaxWaitMinutes            int    `json:"maxWaitMinutes"`
	CallbackTimeoutSeconds    int    `json:"callbackTimeoutSeconds"`
	FastForwardable           bool   `json:"fastForwardable"`
	MaxAttempts               int    `json:"maxAttempts"`
	ErrorChannelURL           string `json:"errorChannelUrl,omitempty"`
	ManagedByTag              string `json:"managedByTag,omitempty"`
	SecondaryMetricsReporting bool   `json:"secondaryMetricsReporting"`
	Minute                    bool   `json:"minute"`
	Second                    bool   `json:"second"`
	ChannelName               string `json:"channelName,omitempty"`
	extras
	Links struct {
		Self href `json:"self"`
	} `json:"_links"`
}

// extras are the additional members, shown when they say something.
type extras struct {
	OrderBy      string `json:"orderBy,omitempty"`
	Payload      string `json:"payload,omitempty"`
	Signed       bool   `json:"signed,omitempty"` // it has a secret
	PausedReason string `json:"pausedReason,omitempty"`
}

func extrasOf(w *webhook.Webhook) extras {
	return extras{w.OrderBy, w.Payload, w.Secret != "", w.PausedReason}
}

func describe(r *http.Request, w *webhook.Webhook) *description {
	d := &description{
		CallbackURL: w.CallbackURL, ChannelURL: w.ChannelURL, TagURL: w.TagURL, ParallelCalls: w.ParallelCalls, Name: w.Name, Batch: w.Batch,
		Heartbeat: w.Heartbeat, Paused: w.Paused, TTLMinutes: w.TTLMinutes, MaxWaitMinutes: w.MaxWaitMinutes,
		CallbackTimeoutSeconds: w.CallbackTimeoutSeconds, FastForwardable: w.FastForwardable, MaxAttempts: w.MaxAttempts,
		ErrorChannelURL: w.ErrorChannelURL, ManagedByTag: w.ManagedByTag, SecondaryMetricsReporting: w.SecondaryMetricsReporting,
		Minute: w.Unit() == hub.Minute, Second: w.Unit() == hub.Second, ChannelName: w.ChannelName(), extras: extrasOf(w),
	}
	d.Links.Self = href{web.URI(r)}
	return d
}

// settings begin every status.
type settings struct {
	Links                     any     `json:"_links"`
	Name                      string  `json:"name"`
	CallbackURL               string  `json:"callbackUrl"`
	ParallelCalls             int     `json:"parallelCalls"`
	Paused                    bool    `json:"paused"`
	Batch                     string  `json:"batch"`
	Heartbeat                 bool    `json:"heartbeat"`
	TTLMinutes                int     `json:"ttlMinutes"`
	MaxWaitMinutes            int     `json:"maxWaitMinutes"`
	CallbackTimeoutSeconds    int     `json:"callbackTimeoutSeconds"`
	MaxAttempts               int     `json:"maxAttempts"`
	ErrorChannelURL           *string `json:"errorChannelUrl"`
	SecondaryMetricsReporting bool    `json:"secondaryMetricsReporting"`
}

type status struct {
	settings
	ChannelURL      string   `json:"channelUrl"`
	ChannelLatest   string   `json:"channelLatest"`
	LastCompleted   string   `json:"lastCompleted"`
	StableTime      instant  `json:"stableTime"`
	InFlight        []string `json:"inFlight"`
	Errors          []string `json:"errors"`
	LagMillis       *int64   `json:"lagMillis"`
	ItemsBehind     *int     `json:"itemsBehind"`
	FastForwardable bool     `json:"fastForwardable,omitempty"`
	ManagedByTag    string   `json:"managedByTag,omitempty"`
	extras
}

type prototypeStatus struct {
	settings
	TagURL         string `json:"tagUrl"`
	IsTagPrototype bool   `json:"isTagPrototype"`
	extras
}

type instant struct {
	ISO    string `json:"iso8601"`
	Millis int64  `json:"millis"`
}

func instantOf(t time.Time) instant { return instant{hub.ISO(t), t.UnixMilli()} }

// status is where a webhook stands. The sub-resources are under /webhook only.
func (h *Handlers) status(prefix string) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		st, err := h.svc.Status(r.Context(), name(r))
		if err != nil {
			return err
		}
		under := web.Base(r) + "/webhook/" + st.Name
		links := struct {
			Self          href `json:"self"`
			Errors        href `json:"errors"`
			LastCompleted href `json:"lastCompleted"`
		}{href{web.URI(r)}, href{under + "/errors"}, href{under + "/lastCompleted"}}
		return web.JSON(w, http.StatusOK, show(st, links))
	}
}

func show(st webhook.Status, links any) any {
	w := st.Webhook
	s := settings{
		Links: links, Name: w.Name, CallbackURL: w.CallbackURL, ParallelCalls: w.ParallelCalls, Paused: w.Paused, Batch: w.Batch,
		Heartbeat: w.Heartbeat, TTLMinutes: w.TTLMinutes, MaxWaitMinutes: w.MaxWaitMinutes, CallbackTimeoutSeconds: w.CallbackTimeoutSeconds,
		MaxAttempts: w.MaxAttempts, SecondaryMetricsReporting: w.SecondaryMetricsReporting,
	}
	if w.ErrorChannelURL != "" {
		s.ErrorChannelURL = &w.ErrorChannelURL
	}
	if w.IsPrototype() {
		return prototypeStatus{s, w.TagURL, true, extrasOf(w)}
	}
	return status{
		settings: s, ChannelURL: w.ChannelURL, ChannelLatest: st.ChannelLatest, LastCompleted: st.LastCompleted, StableTime: instantOf(st.StableTime),
		InFlight: list(st.InFlight), Errors: list(st.Errors), LagMillis: st.LagMillis, ItemsBehind: st.ItemsBehind,
		FastForwardable: w.FastForwardable, ManagedByTag: w.ManagedByTag, extras: extrasOf(w),
	}
}

// list is never null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

type selfLink struct {
	Self href `json:"self"`
}

func (h *Handlers) errors(w http.ResponseWriter, r *http.Request) error {
	all, err := h.svc.Errors(r.Context(), name(r))
	if err != nil {
		return err
	}
	type lines struct {
		Name   string   `json:"name"`
		Errors []string `json:"errors"`
	}
	var out struct {
		Links  selfLink `json:"_links"`
		Errors []lines  `json:"errors"`
	}
	out.Links.Self.Href, out.Errors = web.URI(r), []lines{}
	for _, one := range all {
		out.Errors = append(out.Errors, lines{one.Name, list(one.Lines)})
	}
	return web.JSON(w, http.StatusOK, out)
}

func (h *Handlers) lastCompleted(w http.ResponseWriter, r *http.Request) error {
	all, err := h.svc.LastCompleted(r.Context(), name(r))
	if err != nil {
		return err
	}
	type ends struct {
		Name          string `json:"name"`
		ChannelLatest string `json:"channelLatest"`
		LastCompleted string `json:"lastCompleted"`
	}
	var out struct {
		Links         selfLink `json:"_links"`
		LastCompleted []ends   `json:"lastCompleted"`
	}
	out.Links.Self.Href, out.LastCompleted = web.URI(r), []ends{}
	for _, one := range all {
		out.LastCompleted = append(out.LastCompleted, ends(one))
	}
	return web.JSON(w, http.StatusOK, out)
}

func trim(body []byte) string { return strings.TrimSpace(string(body)) }
