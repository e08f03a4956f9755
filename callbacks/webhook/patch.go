package webhook

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"timehub/hub"
	"timehub/hub/web"
)

// Patch is what the body of a PUT says (spec 03 §1.1).
type Patch struct {
	CallbackURL, ChannelURL, TagURL, ErrorChannelURL      Member[string]
	Batch, OrderBy, Payload, Secret, PreviousSecret       Member[string]
	StartItem                                             Member[string]
	ParallelCalls, TTLMinutes, MaxWaitMinutes             Member[int]
	CallbackTimeoutSeconds, MaxAttempts                   Member[int]
	Paused, Heartbeat, FastForwardable, SecondaryMetricsR Member[bool]
}

// Member is one member of a JSON object: absent (the zero value), null, or a value.
type Member[T any] struct {
	Present bool
	Null    bool // present, and null: the default again
	Value   T
}

// Said makes a member that is present.
func Said[T any](v T) Member[T] { return Member[T]{Present: true, Value: v} }

// onto lays a member over a value.
func (m Member[T]) onto(v *T, byDefault T) {
	switch {
	case m.Null:
		*v = byDefault
	case m.Present:
		*v = m.Value
	}
}

// ParsePatch reads a body: strict JSON (spec 01 §3.3). Unknown members are ignored; so are name, tag and lastCompleted, so that what GET has answered can be
// PUT back without moving the cursor. Everything wrong is of kind Invalid.
func ParsePatch(body []byte) (Patch, error) {
	var p Patch
	if len(bytes.TrimSpace(body)) == 0 {
		return p, hub.E(hub.Invalid, "the body is empty: expected a JSON object with the members of a webhook")
	}
	if err := web.CheckJSON(body); err != nil {
		return p, err
	}
	if bytes.TrimSpace(body)[0] != '{' {
		return p, hub.E(hub.Invalid, "invalid JSON at byte 1: expected an object, '{'")
	}
	var said map[string]json.RawMessage
	if err := web.Decode(body, &said); err != nil {
		return p, err
	}
	return p, p.fill(said)
}

func (p *Patch) fill(said map[string]json.RawMessage) error {
	for name, m := range map[string]*Member[string]{
		"callbackUrl": &p.CallbackURL, "channelUrl": &p.ChannelURL, "tagUrl": &p.TagURL, "errorChannelUrl": &p.ErrorChannelURL, "batch": &p.Batch,
		"orderBy": &p.OrderBy, "payload": &p.Payload, "secret": &p.Secret, "previousSecret": &p.PreviousSecret, "startItem": &p.StartItem,
	} {
		if err := read(said, name, m, "a string"); err != nil {
			return err
		}
	}
	for name, m := range map[string]*Member[bool]{
		"paused": &p.Paused, "heartbeat": &p.Heartbeat, "fastForwardable": &p.FastForwardable, "secondaryMetricsReporting": &p.SecondaryMetricsR,
	} {
		if err := read(said, name, m, "true or false"); err != nil {
			return err
		}
	}
	for name, m := range map[string]*Member[int]{
		"parallelCalls": &p.ParallelCalls, "ttlMinutes": &p.TTLMinutes, "maxWaitMinutes": &p.MaxWaitMinutes,
		"callbackTimeoutSeconds": &p.CallbackTimeoutSeconds, "maxAttempts": &p.MaxAttempts,
	} {
		if err := readInt(said, name, m); err != nil {
			return err
		}
	}
	return nil
}

// read fills a member from its text.
func read[T any](said map[string]json.RawMessage, name string, into *Member[T], must string) error {
	raw, ok := said[name]
	if !ok {
		return nil
	}
	into.Present, into.Null = true, string(raw) == "null"
	if err := json.Unmarshal(raw, &into.Value); err != nil {
		shown := clip(string(raw))
		if name == "secret" || name == "previousSecret" {
			shown = "of another type"
		}
		return hub.E(hub.Invalid, "%s is %s: it must be %s", name, shown, must).Because(err)
	}
	return nil
}

// readInt takes integers of up to 32 bits only, and also when they are written like 2.0 or 1e3.
func readInt(said map[string]json.RawMessage, name string, into *Member[int]) error {
	raw, ok := said[name]
	if !ok {
		return nil
	}
	into.Present, into.Null = true, string(raw) == "null"
	if into.Null {
		return nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return hub.E(hub.Invalid, "%s is %s: it must be an integer, of at most %d", name, clip(string(raw)), math.MaxInt32)
	}
	into.Value = int(f)
	return nil
}

// clip keeps echoes of a stranger's text short.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
}
