package channel

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"timehub/hub"
)

// ChannelPatch is a parsed body of POST, PUT or PATCH of a channel: what was said, before any rule about values is looked at. Members that it does
// not name, creationDate among them, are ignored (spec 01 §3.4).
type ChannelPatch struct {
	Empty bool // the body was empty or white space

	Name                      Member[string] // only POST looks at it
	Owner                     Member[string]
	Description               Member[string]
	ReplicationSource         Member[string]
	Storage                   Member[string]
	TTLDays                   Member[int64]
	MaxItems                  Member[int64]
	KeepForever               Member[bool]
	Protect                   Member[bool]
	AllowZeroBytes            Member[bool]
	SecondaryMetricsReporting Member[bool]
	MutableTime               Member[time.Time] // the zero time: "", unset
	Tags                      Member[[]string]
}

// Member is one member of a JSON object: absent (the zero value), null, or a value.
type Member[T any] struct {
	Present bool
	Null    bool // present, and null
	Value   T
}

// Said makes a member that is present.
func Said[T any](v T) Member[T] { return Member[T]{Present: true, Value: v} }

// or is the value, or the given one if the member is absent or null.
func (m Member[T]) or(other T) T {
	if m.Present && !m.Null {
		return m.Value
	}
	return other
}

// ParsePatch reads a body. Everything wrong is of kind Invalid: syntax ("invalid JSON at byte 14: expected ':' after a member name"), a document that
// is no object, a member of the wrong type, an unreadable mutableTime. Integers may be strings (spec 01 §3.3).
func ParsePatch(body []byte) (ChannelPatch, error) {
	var p ChannelPatch
	if len(bytes.TrimSpace(body)) == 0 {
		p.Empty = true
		return p, nil
	}
	said, err := members(body)
	if err != nil {
		return p, err
	}
	for _, read := range []func() error{
		func() error { return read(said, "name", &p.Name, text) },
		func() error { return read(said, "owner", &p.Owner, text) },
		func() error { return read(said, "description", &p.Description, text) },
		func() error { return read(said, "replicationSource", &p.ReplicationSource, text) },
		func() error { return read(said, "storage", &p.Storage, text) },
		func() error { return read(said, "ttlDays", &p.TTLDays, integer) },
		func() error { return read(said, "maxItems", &p.MaxItems, integer) },
		func() error { return read(said, "keepForever", &p.KeepForever, boolean) },
		func() error { return read(said, "protect", &p.Protect, boolean) },
		func() error { return read(said, "allowZeroBytes", &p.AllowZeroBytes, boolean) },
		func() error { return read(said, "secondaryMetricsReporting", &p.SecondaryMetricsReporting, boolean) },
		func() error { return read(said, "mutableTime", &p.MutableTime, instant) },
		func() error { return read(said, "tags", &p.Tags, list) },
	} {
		if err := read(); err != nil {
			return ChannelPatch{}, err
		}
	}
	return p, nil
}

// read fills a member from its text. A reader that fails says what the value must be.
func read[T any](said map[string]json.RawMessage, name string, into *Member[T], reader func([]byte) (T, string)) error {
	raw, ok := said[name]
	if !ok {
		return nil
	}
	into.Present = true
	if string(raw) == "null" {
		into.Null = true
		return nil
	}
	var must string
	if into.Value, must = reader(raw); must != "" {
		return hub.E(hub.Invalid, "%s is %s: it must be %s", name, clip(raw), must)
	}
	return nil
}

// clip keeps echoes of a stranger's text short and whole.
func clip(raw []byte) string {
	const most = 80
	if len(raw) <= most {
		return string(raw)
	}
	return string(bytes.ToValidUTF8(raw[:most], nil)) + "…"
}

func text(raw []byte) (v string, must string) {
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", "a string"
	}
	return v, ""
}

func integer(raw []byte) (int64, string) {
	const must = "an integer"
	digits := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &digits); err != nil {
			return 0, must
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, must
	}
	return v, ""
}

func boolean(raw []byte) (bool, string) {
	switch string(raw) {
	case "true":
		return true, ""
	case "false":
		return false, ""
	}
	return false, "true or false"
}

func list(raw []byte) ([]string, string) {
	const must = "an array of strings"
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return nil, must
	}
	v := make([]string, len(elements))
	for i, e := range elements {
		if e[0] != '"' || json.Unmarshal(e, &v[i]) != nil {
			return nil, must
		}
	}
	return v, ""
}

func instant(raw []byte) (time.Time, string) {
	const must = `an ISO 8601 date or date-time, such as 2021-03-04 or 2021-03-04T05:06:07.089Z, or "" for none`
	s, wrong := text(raw)
	if wrong != "" {
		return time.Time{}, must
	}
	if s == "" {
		return time.Time{}, ""
	}
	t, ok := parseInstant(s)
	if !ok {
		return time.Time{}, must
	}
	return t, ""
}

// parseInstant reads yyyy-MM-dd['T'[HH[:mm[:ss[.fraction]]]][offset]]. Without an offset the text is UTC (spec 01 §3.1). What is finer than a
// millisecond is cut off.
func parseInstant(s string) (time.Time, bool) {
	p := isoText(s)
	f := [7]int{}
	ok := p.number(4, &f[0]) && p.literal("-") && p.number(2, &f[1]) && p.literal("-") && p.number(2, &f[2])
	zone := 0
	if ok && p != "" {
		if ok = p.literal("T"); ok && p != "" && p[0] >= '0' && p[0] <= '9' {
			ok = p.clock(&f)
		}
		ok = ok && p.offset(&zone)
	}
	if !ok || p != "" || f[1] < 1 || f[1] > 12 || f[3] > 23 || f[4] > 59 || f[5] > 59 {
		return time.Time{}, false
	}
	t := time.Date(f[0], time.Month(f[1]), f[2], f[3], f[4], f[5], f[6]*1e6, time.UTC)
	if t.Day() != f[2] {
		return time.Time{}, false
	}
	t = t.Add(-time.Duration(zone) * time.Minute)
	return t, t.Year() >= 0 && t.Year() <= 9999
}

// isoText is what is left to read.
type isoText string

func (p *isoText) literal(s string) bool {
	if len(*p) < len(s) || string((*p)[:len(s)]) != s {
		return false
	}
	*p = (*p)[len(s):]
	return true
}

func (p *isoText) number(width int, into *int) bool {
	if len(*p) < width {
		return false
	}
	v := 0
	for i := range width {
		c := (*p)[i]
		if c < '0' || c > '9' {
			return false
		}
		v = v*10 + int(c-'0')
	}
	*into, *p = v, (*p)[width:]
	return true
}

func (p *isoText) clock(f *[7]int) bool {
	if !p.number(2, &f[3]) {
		return false
	}
	for i := 4; i <= 5; i++ {
		if !p.literal(":") {
			return true
		}
		if !p.number(2, &f[i]) {
			return false
		}
	}
	if !p.literal(".") && !p.literal(",") {
		return true
	}
	digit := 0
	for i := range 9 {
		if !p.number(1, &digit) {
			break
		}
		if i < 3 {
			f[6] += digit * [3]int{100, 10, 1}[i]
		}
	}
	return true
}

func (p *isoText) offset(minutes *int) bool {
	sign := 1
	switch {
	case *p == "" || p.literal("Z"):
		return true
	case p.literal("-"):
		sign = -1
	case !p.literal("+"):
		return false
	}
	hours, rest := 0, 0
	if !p.number(2, &hours) || hours > 23 {
		return false
	}
	if *p != "" {
		p.literal(":") // may be left out
		if !p.number(2, &rest) || rest > 59 {
			return false
		}
	}
	*minutes = sign * (hours*60 + rest)
	return true
}
