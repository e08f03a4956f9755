package webhook

import (
	"strings"

	"timehub/hub"
	"timehub/hub/coord"
)

// Webhook is a stored configuration (spec 03 §1.1): what was asked for, with every default filled in. A Webhook that was handed out is shared; nobody
// changes it. It is the document of the catalog, so its JSON is a format that others may have stored.
type Webhook struct {
	Name                      string `json:"name"`
	CallbackURL               string `json:"callbackUrl"`
	ChannelURL                string `json:"channelUrl,omitempty"` // without a final slash; empty for a prototype
	TagURL                    string `json:"tagUrl,omitempty"`     // of a prototype
	ParallelCalls             int    `json:"parallelCalls"`
	Paused                    bool   `json:"paused,omitempty"`
	PausedReason              string `json:"pausedReason,omitempty"` // why the hub paused it by itself: the consumer said 410
	Batch                     string `json:"batch"`                  // as it was sent: SINGLE, SECOND, MINUTE in any case
	Heartbeat                 bool   `json:"heartbeat,omitempty"`
	TTLMinutes                int    `json:"ttlMinutes,omitempty"`
	MaxWaitMinutes            int    `json:"maxWaitMinutes"`
	CallbackTimeoutSeconds    int    `json:"callbackTimeoutSeconds"`
	MaxAttempts               int    `json:"maxAttempts,omitempty"`
	ErrorChannelURL           string `json:"errorChannelUrl,omitempty"`
	FastForwardable           bool   `json:"fastForwardable,omitempty"`
	SecondaryMetricsReporting bool   `json:"secondaryMetricsReporting,omitempty"`
	ManagedByTag              string `json:"managedByTag,omitempty"` // of an instance
	Prototype                 string `json:"prototype,omitempty"`    // of an instance: the name of its prototype
	Revision                  string `json:"revision,omitempty"`     // drawn when a prototype changes; of an instance: that of the prototype when it was copied
	Further                   bool   `json:"further,omitempty"`      // of a prototype: the tag had one before it; its instances have its name at their end

	OrderBy        string `json:"orderBy,omitempty"`        // a jq expression, or "header:Name": order is kept per value of it; see package run
	Payload        string `json:"payload,omitempty"`        // "" or uris, items, cloudevents
	Secret         string `json:"secret,omitempty"`         // of Standard Webhooks, with or without the prefix whsec_; never shown
	PreviousSecret string `json:"previousSecret,omitempty"` // signs too, while it is rotated; never shown

	// Born names a life of the webhook. It is drawn when the name is taken and whenever a person puts the webhook to another position; then Start is that
	// position: a key path, or the path of a minute or second, of which the end is meant. Where a webhook stands is in its cursor only if the State there
	// was written in the same life, see At: so a webhook and its place are made, moved and removed in one step, which is a write of this document.
	Born  string `json:"born"`
	Start string `json:"start"`
}

// At is where a webhook stands, by the position of its cursor: there if that was written in this life, else at Start, with nothing done and nothing in
// flight. A leader that is told fresh resets the cursor to what At returned before it begins.
func (w *Webhook) At(p coord.Position) (key hub.Key, s State, fresh bool, err error) {
	if s, err = ParseState(p.Payload); err != nil {
		return hub.Key{}, State{}, false, err
	}
	if s.Born == w.Born && !p.Key.IsZero() {
		return p.Key, s, false, nil
	}
	key, err = CursorAt(w.Start)
	return key, State{Born: w.Born, Last: w.Start}, true, err
}

// CursorAt is the cursor of somebody who is done with a key path, or with the minute or second of a period path: feeds go on above it.
func CursorAt(path string) (hub.Key, error) {
	if w, err := hub.ParseWindow(path); err == nil {
		return w.To(), nil
	}
	return hub.ParseKey(path)
}

// Payload kinds.
const (
	URIs        = "uris"
	Items       = "items"
	CloudEvents = "cloudevents"
)

// Unit is what one call stands for: hub.Second or hub.Minute, or 0 for one item (SINGLE).
func (w *Webhook) Unit() hub.Unit {
	switch strings.ToUpper(w.Batch) {
	case "SECOND":
		return hub.Second
	case "MINUTE":
		return hub.Minute
	}
	return 0
}

// IsPrototype reports whether it is never delivered itself, but gives an instance to each channel of a tag (spec 03 §4).
func (w *Webhook) IsPrototype() bool { return w.TagURL != "" }

// ChannelName is the text after the first /channel/ of channelUrl; empty for a prototype.
func (w *Webhook) ChannelName() string {
	_, name, _ := strings.Cut(w.ChannelURL, "/channel/")
	return strings.TrimSuffix(name, "/")
}

// Tag is the text after the first /tag/ of tagUrl.
func (w *Webhook) Tag() string {
	_, tag, _ := strings.Cut(w.TagURL, "/tag/")
	return strings.TrimSuffix(tag, "/")
}
