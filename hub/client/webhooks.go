package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
)

// Webhook is what a hub says of a webhook (spec 03 §1.2): its settings and how far it is. Document is all of it.
type Webhook struct {
	Name          string   `json:"name"`
	CallbackURL   string   `json:"callbackUrl"`
	ChannelURL    string   `json:"channelUrl"` // "": a prototype, which has a TagURL
	TagURL        string   `json:"tagUrl"`
	Batch         string   `json:"batch"`
	Paused        bool     `json:"paused"`
	ChannelLatest string   `json:"channelLatest"`
	LastCompleted string   `json:"lastCompleted"`
	InFlight      []string `json:"inFlight"`
	Errors        []string `json:"errors"`
	LagMillis     *int64   `json:"lagMillis"`   // nil: not known
	ItemsBehind   *int64   `json:"itemsBehind"` // nil: not known

	Document json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the whole document.
func (w *Webhook) UnmarshalJSON(text []byte) error {
	type plain Webhook
	if err := json.Unmarshal(text, (*plain)(w)); err != nil {
		return err
	}
	w.Document = append(json.RawMessage(nil), text...)
	return nil
}

// Attempt is one call of a callback, as the hub remembers it.
type Attempt struct {
	Time          string `json:"time"`
	Key           string `json:"key"`    // of the item, or a period
	Number        int    `json:"number"` // from 1
	Status        int    `json:"status"` // 0: there was no answer
	Reason        string `json:"reason,omitempty"`
	Error         string `json:"error,omitempty"` // why there was none
	LatencyMillis int64  `json:"latencyMillis"`
	Answer        string `json:"answer,omitempty"` // its beginning
	Replay        bool   `json:"replay,omitempty"` // made because somebody asked for it
}

// Replay says what is delivered again: exactly one of an item, a range, and what failed.
type Replay struct {
	Item   string `json:"item,omitempty"` // URL of an item, or its key
	From   string `json:"from,omitempty"` // time path or URL of an item, included
	To     string `json:"to,omitempty"`   // the same, excluded
	Failed bool   `json:"failed,omitempty"`
}

func webhookPath(name string) string { return "/webhook/" + url.PathEscape(name) }

// Webhooks lists the names of all webhooks, sorted.
func (c *Client) Webhooks(ctx context.Context) ([]string, error) {
	var d struct {
		Links struct{ Webhooks []struct{ Name string } } `json:"_links"`
	}
	if _, err := c.document(ctx, request{method: http.MethodGet, path: "/webhook", again: true}, &d); err != nil {
		return nil, err
	}
	names := make([]string, len(d.Links.Webhooks))
	for i, w := range d.Links.Webhooks {
		names[i] = w.Name
	}
	slices.Sort(names) // hubs that sort otherwise exist
	return names, nil
}

// Webhook reads the settings and the state of a webhook; NotFound if there is none.
func (c *Client) Webhook(ctx context.Context, name string) (w Webhook, err error) {
	_, err = c.document(ctx, request{method: http.MethodGet, path: webhookPath(name), again: true}, &w)
	return w, err
}

// PutWebhook makes a webhook, or merges members into it, and returns the hub's answer: its settings without a state.
func (c *Client) PutWebhook(ctx context.Context, name string, members any) (w Webhook, err error) {
	r := request{method: http.MethodPut, path: webhookPath(name), again: true, header: http.Header{"Content-Type": {"application/json"}}}
	if r.body, err = jsonBody(members); err != nil {
		return w, err
	}
	_, err = c.document(ctx, r, &w)
	return w, err
}

// DeleteWebhook removes a webhook with its cursor; NotFound if there is none. It is not repeated: a second call could not tell.
func (c *Client) DeleteWebhook(ctx context.Context, name string) error {
	_, err := c.document(ctx, request{method: http.MethodDelete, path: webhookPath(name)}, nil)
	return err
}

// Attempts lists the calls of a webhook that the hub remembers, the newest first: all of them, or those of a key (or of an item's URL), or with a status,
// which is a number, 4xx, 5xx, failed or ok.
func (c *Client) Attempts(ctx context.Context, name, key, status string) ([]Attempt, error) {
	v := url.Values{}
	if key != "" {
		v.Set("key", key)
	}
	if status != "" {
		v.Set("status", status)
	}
	var d struct{ Attempts []Attempt }
	_, err := c.document(ctx, request{method: http.MethodGet, path: webhookPath(name) + "/attempts", query: v, again: true}, &d)
	return d.Attempts, err
}

// ReplayWebhook delivers again and returns how many deliveries were queued. It is not repeated.
func (c *Client) ReplayWebhook(ctx context.Context, name string, what Replay) (queued int64, err error) {
	r := request{method: http.MethodPost, path: webhookPath(name) + "/replay", header: http.Header{"Content-Type": {"application/json"}}}
	if r.body, err = jsonBody(what); err != nil {
		return 0, err
	}
	var d struct{ Queued int64 }
	_, err = c.document(ctx, r, &d)
	return d.Queued, err
}
