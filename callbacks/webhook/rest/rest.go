// Package rest is the HTTP face of webhooks: /webhook, and /group, the older name of the same things, whose entries have no sub-resources (spec 03 §1.2).
// What is asked is understood here and carried out by webhook.Service; what was called before is read from the attempts.
//
// Secrets go in and never come out: the answer says "signed": true instead. Links begin with the prefix of the request.
package rest

import (
	"context"
	"errors"
	"net/http"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/hub"
	"timehub/hub/web"
)

// maxDocument limits the JSON of a configuration, and the URL of a cursor.
const maxDocument = 256 << 10

// Attempts are the last calls of webhooks; attempts.Store is it.
type Attempts interface {
	List(name string, f attempts.Filter) ([]attempts.Attempt, error)
}

// Options are for New.
type Options struct {
	Service  *webhook.Service // required
	Attempts Attempts         // nil: none are remembered
	// ReadOnly: webhook.leadership.enabled is false. Nothing can be changed under /webhook on this node.
	ReadOnly bool
}

// Handlers are the face. They are safe for concurrent use.
type Handlers struct {
	opt Options
	svc *webhook.Service
}

// New checks the options and returns the face; Mount makes it reachable.
func New(opt Options) (*Handlers, error) {
	if opt.Service == nil {
		return nil, errors.New("webhook/rest: Options.Service is missing")
	}
	return &Handlers{opt: opt, svc: opt.Service}, nil
}

// Mount adds the routes.
func (h *Handlers) Mount(rt *web.Router) {
	for _, prefix := range []string{"/webhook", "/group"} {
		change := func(f web.Handler) web.Handler { return f }
		if prefix == "/webhook" {
			change = h.change
		}
		one := prefix + "/{webhook}"
		rt.Handle("GET", prefix, web.JSONOnly(h.list(prefix[1:]+"s")))
		rt.Handle("GET", one, web.JSONOnly(h.status(prefix)))
		rt.Handle("PUT", one, change(web.JSONOnly(h.put)))
		rt.Handle("DELETE", one, change(h.remove))
	}
	rt.Handle("GET", "/webhook/{webhook}/errors", web.JSONOnly(h.errors))
	rt.Handle("GET", "/webhook/{webhook}/lastCompleted", web.JSONOnly(h.lastCompleted))
	rt.Handle("PUT", "/webhook/{webhook}/updateCursor", h.change(h.updateCursor))
	rt.Handle("GET", "/webhook/{webhook}/attempts", web.JSONOnly(h.attempts))
	rt.Handle("POST", "/webhook/{webhook}/replay", h.change(web.JSONOnly(h.replay)))
}

// change refuses on a node that must not touch webhooks.
func (h *Handlers) change(f web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if h.opt.ReadOnly {
			return hub.E(hub.Forbidden, "webhook.leadership.enabled is false on this node: ask another one")
		}
		return f(w, r)
	}
}

func name(r *http.Request) string { return web.Param(r, "webhook") }

// lasting is the context for changes: what was received whole is carried out, also when the client does not wait for the answer.
func lasting(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

type href struct {
	Href string `json:"href"`
}

type named struct {
	Name string `json:"name"`
	Href string `json:"href"`
}

// self is the address of the request without its query: what links below it begin with.
func self(r *http.Request) string { return web.Base(r) + web.Path(r) }

func (h *Handlers) list(key string) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		all, err := h.svc.Names(r.Context())
		if err != nil {
			return err
		}
		entries := make([]named, len(all))
		for i, one := range all {
			entries[i] = named{one, self(r) + "/" + one}
		}
		links := any(struct {
			Self     href    `json:"self"`
			Webhooks []named `json:"webhooks"`
		}{href{web.URI(r)}, entries})
		if key == "groups" {
			links = struct {
				Self   href    `json:"self"`
				Groups []named `json:"groups"`
			}{href{web.URI(r)}, entries}
		}
		return web.JSON(w, http.StatusOK, map[string]any{"_links": links})
	}
}

func (h *Handlers) put(w http.ResponseWriter, r *http.Request) error {
	if err := web.Consumes(r, "application/json"); err != nil {
		return err
	}
	body, err := web.ReadDocument(r, maxDocument)
	if err != nil {
		return err
	}
	patch, err := webhook.ParsePatch(body)
	if err != nil {
		return err
	}
	made, created, err := h.svc.Put(lasting(r), name(r), patch)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		w.Header().Set("Location", self(r))
	}
	return web.JSON(w, status, describe(r, made))
}

func (h *Handlers) remove(w http.ResponseWriter, r *http.Request) error {
	if err := h.svc.Delete(lasting(r), name(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (h *Handlers) updateCursor(w http.ResponseWriter, r *http.Request) error {
	if err := web.Consumes(r, "text/plain"); err != nil {
		return err
	}
	body, err := web.ReadDocument(r, maxDocument)
	if err != nil {
		return err
	}
	if err := h.svc.MoveCursor(lasting(r), name(r), trim(body)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
