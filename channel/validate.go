package channel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"timehub/hub"
)

// The rules of spec 01 §3. Everything here is pure.

const (
	maxName        = 48
	maxOwner       = 48
	maxDescription = 1024 // UTF-16 units
	maxTags        = 20
	maxTag         = 48
	maxMaxItems    = 5000
	defaultTTLDays = 120
)

// nameRule is rule 2, 3 and 5 of spec 01 §3.3 in one, for lookups: a name that breaks it is no channel's.
func nameRule(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, badInName)
}

func badInName(r rune) bool { return r != '_' && r != '-' && !alphanumeric(r) }

func badInTag(r rune) bool { return r != ':' && r != '-' && !alphanumeric(r) }

func alphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// checkNames holds rules 1 to 5 of spec 01 §3.3, which come before the question whether the channel exists.
func checkNames(name string, p ChannelPatch) error {
	owner := strings.TrimSpace(p.Owner.or(""))
	switch {
	case name == "":
		return hub.E(hub.Invalid, "Channel name is missing or blank: give it 1 to %d letters, digits, _ or -", maxName)
	case len([]rune(name)) > maxName:
		return hub.E(hub.Invalid, "Channel name %q is longer than %d characters: shorten it", clip([]byte(name)), maxName)
	case len([]rune(owner)) > maxOwner:
		return longOwner(owner)
	case !nameRule(name):
		return hub.E(hub.Invalid, "Channel name %q has a character that is not allowed: use letters, digits, _ and - only", clip([]byte(name)))
	}
	return nil
}

func longOwner(owner string) error {
	return hub.E(hub.Invalid, "owner %q is longer than %d characters: shorten it", clip([]byte(owner)), maxOwner)
}

// blank is a channel before its creator's wishes.
func blank(name string, now time.Time, protect bool) *hub.Channel {
	return &hub.Channel{
		Name: name, CreationDate: now.UTC().Truncate(time.Millisecond),
		AllowZeroBytes: true, Protect: protect,
	}
}

// merge lays a patch over a channel, or over a blank one on create, and returns a new one, normalised (spec 01 §3.2) but not checked.
func merge(base *hub.Channel, p ChannelPatch, create bool, protect bool) (*hub.Channel, error) {
	c := base.Clone()
	if !create && (p.Tags.Null || p.MutableTime.Null) { // on create both mean: the default (spec 01 §3.3)
		name := "tags"
		if p.MutableTime.Null {
			name = "mutableTime"
		}
		return nil, hub.E(hub.Invalid, "%s is null: leave it out to keep it, or give it a value", name)
	}
	mergeText(&c.Owner, p.Owner, create)
	mergeText(&c.Description, p.Description, create)
	mergeText(&c.ReplicationSource, p.ReplicationSource, create)
	c.Owner = strings.TrimSpace(c.Owner)
	c.ReplicationSource = strings.TrimSpace(c.ReplicationSource)
	set(&c.KeepForever, p.KeepForever, false)
	set(&c.TTLDays, p.TTLDays, 0)
	set(&c.MaxItems, p.MaxItems, 0)
	set(&c.Protect, p.Protect, protect)
	set(&c.AllowZeroBytes, p.AllowZeroBytes, true)
	set(&c.SecondaryMetricsReporting, p.SecondaryMetricsReporting, false)
	set(&c.MutableTime, p.MutableTime, time.Time{})
	set(&c.Tags, p.Tags, nil)
	if p.Storage.Present {
		c.Storage = hub.Storage(strings.ToUpper(strings.TrimSpace(p.Storage.or(""))))
	}
	normalise(c)
	c.Mixed = c.Mixed || !create && c.Storage != base.Storage
	return c, nil
}

func set[T any](into *T, m Member[T], byDefault T) {
	if m.Present {
		*into = m.or(byDefault)
	}
}

// mergeText takes null, and on an update the text null as the original did, as the order to clear.
func mergeText(into *string, m Member[string], create bool) {
	set(into, m, "")
	if !create && m.Present && m.Value == "null" {
		*into = ""
	}
}

// normalise fills in what follows from the rest: retention, storage, built-in tags (spec 01 §3.2).
func normalise(c *hub.Channel) {
	switch {
	case c.KeepForever:
		c.TTLDays, c.MaxItems = 0, 0
	case c.TTLDays == 0 && c.MaxItems == 0 && !c.Historical():
		c.TTLDays = defaultTTLDays
	}
	if c.Storage == "" {
		c.Storage = hub.Batch
		if c.Historical() {
			c.Storage = hub.Single
		}
	}
	if c.Historical() {
		c.Backfilled = max(c.Backfilled, c.MutableTime.UnixMilli())
	}
	tags := slices.DeleteFunc(slices.Clone(c.Tags), func(t string) bool { return t == hub.HistoricalTag || t == hub.ReplicatedTag })
	if c.Historical() {
		tags = append(tags, hub.HistoricalTag)
	}
	if c.Replicated() {
		tags = append(tags, hub.ReplicatedTag)
	}
	slices.Sort(tags)
	if c.Tags = slices.Compact(tags); len(c.Tags) == 0 {
		c.Tags = nil
	}
}

// check holds rules 7 to 15 of spec 01 §3.3 for a merged channel; old is nil on create.
func check(c, old *hub.Channel, now time.Time) error {
	limits := 0
	for _, given := range []bool{c.TTLDays > 0, c.MaxItems > 0, c.Historical()} {
		if given {
			limits++
		}
	}
	switch {
	case len([]rune(c.Owner)) > maxOwner:
		return longOwner(c.Owner)
	case limits > 1:
		return hub.E(hub.Invalid, "Only one of ttlDays, maxItems and mutableTime can be defined: set the others to 0 (mutableTime: \"\") in the same request")
	case c.TTLDays < 0:
		return hub.E(hub.Invalid, "ttlDays is %d: it must be 0 (no limit of age) or more", c.TTLDays)
	case c.MaxItems < 0:
		return hub.E(hub.Invalid, "maxItems is %d: it must be 0 (no limit of count) to %d", c.MaxItems, maxMaxItems)
	case c.Historical() && c.MutableTime.After(now):
		return hub.E(hub.Invalid, "mutableTime %s is in the future: it must be now or earlier", hub.ISO(c.MutableTime))
	case c.Historical() && old != nil && old.Historical() && c.MutableTime.After(old.MutableTime):
		return hub.E(hub.Invalid, "mutableTime can only be moved back: it is %s, not %s or later", hub.ISO(old.MutableTime), hub.ISO(c.MutableTime))
	case c.Historical() && c.Storage != hub.Single:
		return hub.E(hub.Invalid, "storage is %q: with a mutableTime it must be SINGLE", clip([]byte(c.Storage)))
	case c.MaxItems > maxMaxItems:
		return hub.E(hub.Invalid, "maxItems is %d: it must be %d at most", c.MaxItems, maxMaxItems)
	case len(utf16.Encode([]rune(c.Description))) > maxDescription:
		return hub.E(hub.Invalid, "description is longer than %d characters: shorten it", maxDescription)
	}
	return checkRest(c)
}

func checkRest(c *hub.Channel) error {
	if len(c.Tags) > maxTags {
		return hub.E(hub.Invalid, "tags has %d entries with the built-in ones: there can be %d", len(c.Tags), maxTags)
	}
	for _, t := range c.Tags {
		switch {
		case t == "" || strings.ContainsFunc(t, badInTag):
			return hub.E(hub.Invalid, "tag %q has a character that is not allowed, or none: use letters, digits, : and - only", clip([]byte(t)))
		case len(t) > maxTag:
			return hub.E(hub.Invalid, "tag %q is longer than %d characters: shorten it", clip([]byte(t)), maxTag)
		}
	}
	switch c.Storage {
	case hub.Single, hub.Batch, hub.Both:
	default:
		return hub.E(hub.Invalid, "storage is %q: it must be SINGLE, BATCH or BOTH", clip([]byte(c.Storage)))
	}
	if c.Protect && c.Owner == "" {
		return hub.E(hub.Invalid, "protect is true, so owner must not be blank: name an owner, or set protect to false")
	}
	return nil
}

// protected holds the rules of spec 01 §3.6 for an update by a caller who is not local.
func protected(old, c *hub.Channel) error {
	no := func(format string, args ...any) error {
		return hub.E(hub.Forbidden, "channel %s is protected: "+format+", unless localhost asks", append([]any{old.Name}, args...)...)
	}
	if old.Protect && !c.Protect {
		return no("protect cannot be switched off")
	}
	if !c.Protect {
		return nil
	}
	switch {
	case c.Storage != old.Storage && c.Storage != hub.Both:
		return no("storage can only be changed to BOTH, not to %s", c.Storage)
	case old.Owner != "" && c.Owner != old.Owner:
		return no("owner cannot be changed")
	}
	for _, t := range old.Tags {
		if !c.HasTag(t) {
			return no("tag %q cannot be removed", t)
		}
	}
	switch {
	case old.KeepForever && !c.KeepForever:
		return no("keepForever cannot be switched off")
	case !c.KeepForever && c.MaxItems < old.MaxItems:
		return no("maxItems cannot be lowered from %d to %d", old.MaxItems, c.MaxItems)
	case !c.KeepForever && c.TTLDays < old.TTLDays:
		return no("ttlDays cannot be lowered from %d to %d", old.TTLDays, c.TTLDays)
	case old.Replicated() && c.ReplicationSource != old.ReplicationSource:
		return no("replicationSource cannot be changed")
	}
	return nil
}

// same reports whether two configurations are equal, as they would be stored.
func same(a, b *hub.Channel) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, fmt.Errorf("compare channel %s: %w", a.Name, err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		return false, fmt.Errorf("compare channel %s: %w", b.Name, err)
	}
	return bytes.Equal(x, y), nil
}
