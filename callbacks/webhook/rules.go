package webhook

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"timehub/hub"
)

// Bounds of spec 03 §1.1 and of the additional members.
const (
	maxName      = 128
	maxOrderBy   = 2000
	maxURL       = 8000
	secretPrefix = "whsec_"
	minSecret    = 24 // bytes
	maxSecret    = 64
)

// Rules are what depends on the installation. The zero value has the defaults of spec 06.
type Rules struct {
	MinTimeout     int  // webhook.callbackTimeoutSeconds.min; 0: 1
	MaxTimeout     int  // webhook.callbackTimeoutSeconds.max; 0: 1800
	DefaultTimeout int  // webhook.callbackTimeoutSeconds.default; 0: 120
	Cluster        bool // hub.type=aws: callbacks to localhost would go to another node each time
	// CheckOrder says what is wrong with an orderBy, as an error of kind Invalid. nil: there is none here.
	CheckOrder func(text string) error
}

func (r Rules) filled() Rules {
	if r.MinTimeout == 0 {
		r.MinTimeout = 1
	}
	if r.MaxTimeout == 0 {
		r.MaxTimeout = 1800
	}
	if r.DefaultTimeout == 0 {
		r.DefaultTimeout = 120
	}
	return r
}

func (r Rules) check() error {
	if r.MinTimeout > r.DefaultTimeout || r.DefaultTimeout > r.MaxTimeout {
		return fmt.Errorf("webhook.callbackTimeoutSeconds.default is %d: it must lie between .min, %d, and .max, %d", r.DefaultTimeout, r.MinTimeout, r.MaxTimeout)
	}
	return nil
}

// CheckName holds the rule of names that people give.
func CheckName(name string) error {
	switch {
	case !nameRule(name):
		return hub.E(hub.Invalid, "the name of a webhook is %q: use letters, digits, _ and - only", clip(name))
	case len(name) > maxName:
		return hub.E(hub.Invalid, "the name of a webhook has %d characters: shorten it to %d", len(name), maxName)
	}
	return nil
}

func nameRule(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// merge lays a patch over a webhook, nil: a new one, fills in every default, and checks the result against the rules of spec 03 §1.1. It returns a new
// Webhook without Born, Start and Revision if now is nil, else with now's. Errors are of kind Invalid or Conflict.
func (r Rules) merge(now *Webhook, name string, p Patch) (*Webhook, error) {
	w := Webhook{Name: name, ParallelCalls: 1, Batch: "SINGLE", MaxWaitMinutes: 1, CallbackTimeoutSeconds: r.DefaultTimeout}
	if now != nil {
		w = *now
	}
	p.CallbackURL.onto(&w.CallbackURL, "")
	p.ChannelURL.onto(&w.ChannelURL, "")
	p.TagURL.onto(&w.TagURL, "")
	p.ErrorChannelURL.onto(&w.ErrorChannelURL, "")
	w.ChannelURL = strings.TrimSuffix(w.ChannelURL, "/")
	p.Batch.onto(&w.Batch, "SINGLE")
	p.ParallelCalls.onto(&w.ParallelCalls, 1)
	p.TTLMinutes.onto(&w.TTLMinutes, 0)
	p.MaxWaitMinutes.onto(&w.MaxWaitMinutes, 1)
	p.CallbackTimeoutSeconds.onto(&w.CallbackTimeoutSeconds, r.DefaultTimeout)
	p.MaxAttempts.onto(&w.MaxAttempts, 0)
	p.FastForwardable.onto(&w.FastForwardable, false)
	p.SecondaryMetricsR.onto(&w.SecondaryMetricsReporting, false)
	p.OrderBy.onto(&w.OrderBy, "")
	p.Payload.onto(&w.Payload, "")
	p.Secret.onto(&w.Secret, "")
	p.PreviousSecret.onto(&w.PreviousSecret, "")
	if p.Paused.Present {
		p.Paused.onto(&w.Paused, false)
		w.PausedReason = ""
	}
	for _, check := range []func(*Webhook) error{checkSource, r.checkCallback, checkErrorChannel, r.checkNumbers, r.checkOrder, checkSecrets} {
		if err := check(&w); err != nil {
			return nil, err
		}
	}
	if err := checkBatch(&w, p.Heartbeat.Value); err != nil {
		return nil, err
	}
	return &w, nil
}

// sameSource holds what an update cannot change (spec 03 §1.3); a new start permits another channel.
func sameSource(now, w *Webhook, start string) error {
	switch {
	case now == nil:
	case now.IsPrototype() != w.IsPrototype():
		return hub.E(hub.Conflict, "webhook %s follows %s: a webhook of a channel cannot become one of a tag, or the reverse; delete it first", w.Name, now.source())
	case start == "" && !strings.EqualFold(now.ChannelName(), w.ChannelName()):
		return hub.E(hub.Conflict, "webhook %s follows %s: it cannot be moved to channel %s; delete it first, or give a startItem", w.Name, now.source(), w.ChannelName())
	}
	return nil
}

func (w *Webhook) source() string {
	if w.IsPrototype() {
		return "tag " + w.Tag()
	}
	return "channel " + w.ChannelName()
}

// checkSource holds the rules of channelUrl and tagUrl.
func checkSource(w *Webhook) error {
	switch {
	case w.TagURL != "" && w.ChannelURL != "":
		return hub.E(hub.Invalid, "channelUrl and tagUrl are both given: a webhook has one of them")
	case w.TagURL == "" && w.ChannelURL == "":
		return hub.E(hub.Invalid, "channelUrl is missing: give the URL of a channel, or a tagUrl")
	case w.TagURL != "":
		u, err := checkURL("tagUrl", w.TagURL)
		if err != nil {
			return err
		}
		if tag := w.Tag(); !strings.Contains(u.Path, "/tag/") || tag == "" || len(tag) > 48 || !tagRule(tag) {
			return hub.E(hub.Invalid, "tagUrl is %q: it must be the URL of a tag, such as http://hub.example/tag/orders", shown(w.TagURL))
		}
		return nil
	}
	return checkChannelURL("channelUrl", w.ChannelURL)
}

func tagRule(tag string) bool {
	return !strings.Contains(tag, "_") && nameRule(strings.ReplaceAll(tag, ":", "-"))
}

func checkChannelURL(member, text string) error {
	u, err := checkURL(member, text)
	if err != nil {
		return err
	}
	if name := channelOf(text); !strings.Contains(u.Path, "/channel/") || !nameRule(name) {
		return hub.E(hub.Invalid, "%s is %q: it must be the URL of a channel, such as http://hub.example/channel/orders", member, shown(text))
	}
	return nil
}

// channelOf is the text after the first /channel/ of a URL.
func channelOf(text string) string {
	_, name, _ := strings.Cut(text, "/channel/")
	return strings.TrimSuffix(name, "/")
}

// checkURL takes what is a URI by its syntax; for http and https it must name a host.
func checkURL(member, text string) (*url.URL, error) {
	wrong := func(why string) error {
		return hub.E(hub.Invalid, "%s is %q: it must be a valid URL: %s", member, shown(text), why)
	}
	if len(text) > maxURL {
		return nil, hub.E(hub.Invalid, "%s has %d bytes: it must have at most %d", member, len(text), maxURL)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) }); i >= 0 {
		return nil, wrong("it has a character that must be percent-encoded")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, wrong("it cannot be read") // the reason would repeat the text, with what may be a password
	}
	if s := strings.ToLower(u.Scheme); (s == "http" || s == "https") && u.Hostname() == "" {
		return nil, wrong("it names no host")
	}
	if port := u.Port(); len(port) > 5 || len(port) == 5 && port > "65535" {
		return nil, wrong("there is no such port")
	}
	return u, nil
}

// shown is a URL for the eyes of others: without a password.
func shown(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		if scheme, _, ok := strings.Cut(text[:at], "://"); ok {
			return clip(scheme + "://…" + text[at:])
		}
		return clip("…" + text[at:])
	}
	return clip(text)
}

func (r Rules) checkCallback(w *Webhook) error {
	if w.CallbackURL == "" {
		return hub.E(hub.Invalid, "callbackUrl is missing: give the URL to call")
	}
	if r.Cluster && strings.Contains(strings.ToLower(w.CallbackURL), "localhost") {
		return hub.E(hub.Invalid, "callbackUrl is %q: in a cluster it must not be localhost, which is another machine on each node", shown(w.CallbackURL))
	}
	_, err := checkURL("callbackUrl", w.CallbackURL)
	return err
}

func checkErrorChannel(w *Webhook) error {
	if w.ErrorChannelURL == "" {
		return nil
	}
	if err := checkChannelURL("errorChannelUrl", w.ErrorChannelURL); err != nil {
		return err
	}
	if name := channelOf(w.ErrorChannelURL); w.ManagedByTag == "" && strings.EqualFold(name, w.ChannelName()) {
		return hub.E(hub.Invalid, "errorChannelUrl names channel %s, which the webhook follows: each item given up would make another one; name another channel", name)
	}
	return nil
}

func (r Rules) checkNumbers(w *Webhook) error {
	switch {
	case w.ParallelCalls < 1:
		return hub.E(hub.Invalid, "parallelCalls is %d: it must be 1 or more", w.ParallelCalls)
	case w.TTLMinutes < 0:
		return hub.E(hub.Invalid, "ttlMinutes is %d: it must be 0 (no limit) or more", w.TTLMinutes)
	case w.MaxWaitMinutes < 1:
		return hub.E(hub.Invalid, "maxWaitMinutes is %d: it must be 1 or more", w.MaxWaitMinutes)
	case w.MaxAttempts < 0:
		return hub.E(hub.Invalid, "maxAttempts is %d: it must be 0 (no limit) or more", w.MaxAttempts)
	case w.CallbackTimeoutSeconds < r.MinTimeout || w.CallbackTimeoutSeconds > r.MaxTimeout:
		return hub.E(hub.Invalid, "callbackTimeoutSeconds is %d: it must be %d to %d", w.CallbackTimeoutSeconds, r.MinTimeout, r.MaxTimeout)
	}
	return nil
}

// checkBatch also settles heartbeat, which minutes and seconds always have and single items never (spec 03 §1.1).
func checkBatch(w *Webhook, heartbeat bool) error {
	if u := strings.ToUpper(w.Batch); u != "SINGLE" && w.Unit() == 0 {
		return hub.E(hub.Invalid, "batch is %q: it must be SINGLE, SECOND or MINUTE", clip(w.Batch))
	}
	if heartbeat && w.Unit() == 0 {
		return hub.E(hub.Invalid, "heartbeat is true with batch SINGLE: heartbeats are of SECOND and MINUTE")
	}
	w.Heartbeat = w.Unit() != 0
	switch w.Payload {
	case "", URIs, Items, CloudEvents:
		return nil
	}
	return hub.E(hub.Invalid, "payload is %q: it must be uris, items or cloudevents", clip(w.Payload))
}

func (r Rules) checkOrder(w *Webhook) error {
	switch {
	case w.OrderBy == "":
		return nil
	case len(w.OrderBy) > maxOrderBy:
		return hub.E(hub.Invalid, "orderBy has %d bytes: it must have at most %d", len(w.OrderBy), maxOrderBy)
	case r.CheckOrder == nil:
		return hub.E(hub.Invalid, "orderBy is not possible here")
	}
	return r.CheckOrder(w.OrderBy)
}

// checkSecrets holds the form of Standard Webhooks: base64 of 24 to 64 bytes, with or without the prefix whsec_.
func checkSecrets(w *Webhook) error {
	for _, s := range []struct{ member, text string }{{"secret", w.Secret}, {"previousSecret", w.PreviousSecret}} {
		if s.text == "" {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.text, secretPrefix))
		if err != nil || len(b) < minSecret || len(b) > maxSecret {
			return hub.E(hub.Invalid, "%s must be %s and the base64 of %d to %d bytes", s.member, secretPrefix, minSecret, maxSecret)
		}
	}
	if w.Secret == "" && w.PreviousSecret != "" {
		return hub.E(hub.Invalid, "previousSecret is given without a secret: it signs beside it")
	}
	return nil
}
