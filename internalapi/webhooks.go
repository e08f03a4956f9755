package internalapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/web"
)

// Webhooks is what can be seen of webhooks, and done with those that run here, behind the scenes.
type Webhooks interface {
	// Webhooks lists the configurations by name.
	Webhooks(ctx context.Context) ([]Webhook, error)
	// WebhookState tells where one stands: NotFound if there is none.
	WebhookState(ctx context.Context, name string) (WebhookState, error)
	// RunningWebhooks lists those that run on this node.
	RunningWebhooks() []RunningWebhook
	// RunWebhook waits a second at most for a webhook to run here, and reports whether it does.
	RunWebhook(ctx context.Context, name string) (bool, error)
	// StopWebhook lets another node run it, if it runs here. Forbidden if this node must not touch webhooks.
	StopWebhook(ctx context.Context, name string) error
}

// Webhook is a configuration as /internal/webhook/configs shows it.
type Webhook struct {
	Name           string  `json:"name"`
	CallbackURL    string  `json:"callbackUrl"`
	ChannelURL     *string `json:"channelUrl"` // nil: a prototype
	ParallelCalls  int     `json:"parallelCalls"`
	Paused         bool    `json:"paused"`
	Batch          string  `json:"batch"`
	Heartbeat      bool    `json:"heartbeat"`
	TTLMinutes     int     `json:"ttlMinutes"`
	MaxWaitMinutes int     `json:"maxWaitMinutes"`
}

// WebhookState is where a webhook stands.
type WebhookState struct {
	ChannelLatest, LastCompleted string    // URLs
	At                           time.Time // of LastCompleted
	Errors                       []string
}

// RunningWebhook is a webhook that runs here.
type RunningWebhook struct {
	Name  string
	Since time.Time
	Last  string    // the path of what is done
	At    time.Time // its time
}

func (a *API) addWebhooks(rt *web.Router) {
	if a.opt.Webhooks == nil {
		return
	}
	get := func(pattern string, h web.Handler) { rt.Handle(http.MethodGet, "/internal/webhook"+pattern, h) }
	get("", web.JSONOnly(a.webhookHelp))
	get("/configs", web.JSONOnly(a.webhookConfigs))
	get("/errors", web.JSONOnly(a.webhookErrors))
	get("/stale/{minutes}", web.JSONOnly(a.staleWebhooks))
	get("/running", web.JSONOnly(a.runningWebhooks))
	get("/count", a.countWebhooks)
	rt.Handle(http.MethodPut, "/internal/webhook/run/{webhook}", a.runWebhook)
	rt.Handle(http.MethodPut, "/internal/webhook/stop/{webhook}", a.stopWebhook)
}

func (a *API) webhookHelp(w http.ResponseWriter, r *http.Request) error {
	self := web.Base(r) + "/internal/webhook"
	return web.JSON(w, http.StatusOK, struct {
		Description string            `json:"description"`
		Directions  map[string]string `json:"directions"`
		Links       map[string]link   `json:"_links"`
	}{
		"What can be seen of webhooks behind the scenes.",
		map[string]string{
			"configs":     "GET /internal/webhook/configs lists all webhooks.",
			"stale":       "GET /internal/webhook/stale/{minutes} lists those of which the last item that is done is older than that.",
			"errors":      "GET /internal/webhook/errors lists those that had errors within a day.",
			"running":     "GET /internal/webhook/running lists those that run on this node, /internal/webhook/count counts them.",
			"run/{name}":  "PUT /internal/webhook/run/{name} answers 200 when the webhook runs on this node within a second, 400 if not.",
			"stop/{name}": "PUT /internal/webhook/stop/{name} lets another node run it, if there is one that waits for it.",
		},
		map[string]link{"self": {Href: self}, "configs": {Href: self + "/configs"}, "stale": {Href: self + "/stale/60"}, "errors": {Href: self + "/errors"}},
	})
}

func (a *API) webhookConfigs(w http.ResponseWriter, r *http.Request) error {
	all, err := a.opt.Webhooks.Webhooks(r.Context())
	if err != nil {
		return err
	}
	if all == nil {
		all = []Webhook{}
	}
	return web.JSON(w, http.StatusOK, map[string]any{"webhooks": all})
}

type webhookErrors struct {
	Name          string   `json:"name"`
	Href          string   `json:"href"`
	CallbackURL   string   `json:"callbackUrl"`
	ChannelURL    string   `json:"channelUrl"`
	ChannelLatest string   `json:"channelLatest"`
	LastCompleted string   `json:"lastCompleted"`
	Errors        []string `json:"errors"`
}

// states calls f for every webhook that is there and no prototype.
func (a *API) states(ctx context.Context, f func(Webhook, WebhookState)) error {
	all, err := a.opt.Webhooks.Webhooks(ctx)
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.ChannelURL == nil {
			f(h, WebhookState{At: time.UnixMilli(0)})
			continue
		}
		s, err := a.opt.Webhooks.WebhookState(ctx, h.Name)
		if hub.Is(err, hub.NotFound) { // deleted meanwhile
			continue
		}
		if err != nil {
			return err
		}
		f(h, s)
	}
	return nil
}

func (a *API) webhookErrors(w http.ResponseWriter, r *http.Request) error {
	list, base := []webhookErrors{}, web.Base(r)
	err := a.states(r.Context(), func(h Webhook, s WebhookState) {
		if len(s.Errors) > 0 {
			list = append(list, webhookErrors{h.Name, base + "/webhook/" + h.Name, h.CallbackURL, *h.ChannelURL, s.ChannelLatest, s.LastCompleted, s.Errors})
		}
	})
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, map[string]any{"webhooks": list})
}

// staleWebhooks lists those of which the last item done is not newer than so many minutes ago, the oldest first. Prototypes are always among them.
func (a *API) staleWebhooks(w http.ResponseWriter, r *http.Request) error {
	minutes, ok := hub.Count(web.Param(r, "minutes"))
	if !ok {
		return hub.E(hub.NotFound, "no such path: stale/{minutes} wants a number")
	}
	minutes = min(max(minutes, 0), 100_000_000) // 190 years
	cutoff := a.opt.Clock().Add(-time.Duration(minutes) * time.Minute)
	d, base := staleDocument{minutes, hub.ISO(cutoff), []staleChannel{}}, web.Base(r)
	err := a.states(r.Context(), func(h Webhook, s WebhookState) {
		if !s.At.After(cutoff) {
			d.URIs = append(d.URIs, staleChannel{hub.ISO(s.At), base + "/webhook/" + url.PathEscape(h.Name)})
		}
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(d.URIs, func(x, y staleChannel) int { return strings.Compare(x.LastUpdate, y.LastUpdate) })
	return web.JSON(w, http.StatusOK, struct {
		Links map[string]link `json:"_links"`
		Stale staleDocument   `json:"stale"`
	}{map[string]link{"self": {Href: web.URI(r)}}, d})
}

func (a *API) countWebhooks(w http.ResponseWriter, _ *http.Request) error {
	return plain(w, strconv.Itoa(len(a.opt.Webhooks.RunningWebhooks())))
}

type runningWebhook struct {
	Started       int64  `json:"startTimeMillis"`
	LastURL       string `json:"lastUpdatedUrl"`
	LastMillis    int64  `json:"lastUpdatedMillis"`
	HasLeadership bool   `json:"hasLeadership"`
	State         string `json:"executorState"`
}

func (a *API) runningWebhooks(w http.ResponseWriter, _ *http.Request) error {
	mine := map[string]runningWebhook{}
	for _, h := range a.opt.Webhooks.RunningWebhooks() {
		mine[h.Name] = runningWebhook{h.Since.UnixMilli(), h.Last, h.At.UnixMilli(), true, "ACTIVE"}
	}
	return web.JSON(w, http.StatusOK, map[string]map[string]runningWebhook{a.opt.Node: mine})
}

func (a *API) runWebhook(w http.ResponseWriter, r *http.Request) error {
	runs, err := a.opt.Webhooks.RunWebhook(r.Context(), web.Param(r, "webhook"))
	if err == nil && !runs {
		err = hub.E(hub.Invalid, "the webhook does not run on this node: there is none of the name, it is paused, its channel is missing, or another node runs it")
	}
	if err != nil {
		return err
	}
	return nothing(w, r)
}

func (a *API) stopWebhook(w http.ResponseWriter, r *http.Request) error {
	if err := a.opt.Webhooks.StopWebhook(r.Context(), web.Param(r, "webhook")); err != nil {
		return err
	}
	return nothing(w, r)
}
