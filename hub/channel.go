package hub

import (
	"slices"
	"strings"
	"time"
)

// Storage is how a channel's items are laid out in long-term storage (spec 04 §4).
type Storage string

// The layouts: one object an item, one zip a minute, or both.
const (
	Single Storage = "SINGLE"
	Batch  Storage = "BATCH"
	Both   Storage = "BOTH"
)

// Singles and Batches say which layouts the storage takes in.
func (s Storage) Singles() bool { return s != Batch }

// Batches reports whether minutes are kept as zips.
func (s Storage) Batches() bool { return s != Single }

// Channel is the configuration of a channel (spec 01 §3): a document of the catalog. It holds what was decided, never a default still to be filled in.
type Channel struct {
	Name                      string    `json:"name"` // as its creator spelled it; unique without regard to case
	Owner                     string    `json:"owner,omitempty"`
	Description               string    `json:"description,omitempty"`
	CreationDate              time.Time `json:"creationDate"`
	TTLDays                   int64     `json:"ttlDays,omitempty"`  // 0: not limited by age
	MaxItems                  int64     `json:"maxItems,omitempty"` // 0: not limited by count
	KeepForever               bool      `json:"keepForever,omitempty"`
	MutableTime               time.Time `json:"mutableTime,omitzero"` // zero: an ordinary channel
	Tags                      []string  `json:"tags,omitempty"`       // sorted, without duplicates, with the built-in ones
	ReplicationSource         string    `json:"replicationSource,omitempty"`
	Storage                   Storage   `json:"storage"`
	Mixed                     bool      `json:"mixed,omitempty"` // the storage was changed: items may lie in the other layout too
	Protect                   bool      `json:"protect,omitempty"`
	AllowZeroBytes            bool      `json:"allowZeroBytes"`
	SecondaryMetricsReporting bool      `json:"secondaryMetricsReporting,omitempty"`
	Since                     int64     `json:"since,omitempty"`      // ms: keys before it belong to a deleted channel of this name (ENGINE §6)
	Backfilled                int64     `json:"backfilled,omitempty"` // ms: the latest mutable time there ever was; keys up to it may lie in long-term storage alone
	Lives                     int64     `json:"lives,omitempty"`      // how often it was an ordinary channel before it became the target of a replication
	Marked                    string    `json:"marked,omitempty"`     // the marker that it had, from an earlier time as a target, when it became one again
	LiveFrom                  int64     `json:"liveFrom,omitempty"`   // ms: it was a target; every replicated key lies before it, every key minted since at or after it
	Trimmed                   string    `json:"trimmed,omitempty"`    // the key below which maxItems has removed everything; it never falls
}

// Names of the tags that follow from the configuration; nobody can add or remove them by hand.
const (
	HistoricalTag = "historical"
	ReplicatedTag = "replicated"
)

// ChannelID is the name under which a channel is unique: without regard to case (spec 01 §3.8).
func ChannelID(name string) string { return strings.ToLower(name) }

// Historical reports whether the channel has a mutable epoch.
func (c *Channel) Historical() bool { return !c.MutableTime.IsZero() }

// Replicated reports whether the channel follows another one and so refuses inserts.
func (c *Channel) Replicated() bool { return c.ReplicationSource != "" }

// HasTag reports whether the channel carries a tag, in exactly this spelling.
func (c *Channel) HasTag(tag string) bool { return slices.Contains(c.Tags, tag) }

// OldestAllowed is the TTL time of spec 01 §5 for immutable items: nothing before it is in a query's answer.
func (c *Channel) OldestAllowed(now, birthday time.Time) time.Time {
	oldest := birthday
	if c.Historical() {
		oldest = c.MutableTime.Add(time.Millisecond)
	} else if c.TTLDays > 0 {
		if t := now.AddDate(0, 0, -int(min(c.TTLDays, 1<<20))); t.After(oldest) {
			oldest = t
		}
	}
	if since := time.UnixMilli(c.Since).UTC(); c.Since > 0 && since.After(oldest) {
		oldest = since
	}
	return oldest.UTC()
}

// Lowest is the lowest key that the channel can show: what lies below it is gone by maxItems, wherever something still holds it. The zero Key: there is none.
func (c *Channel) Lowest() Key {
	if c.Trimmed == "" {
		return Key{}
	}
	k, err := ParseKey(c.Trimmed)
	if err != nil {
		return Key{} // then it hides nothing
	}
	return k
}

// Clone returns a copy that shares nothing.
func (c *Channel) Clone() *Channel {
	d := *c
	d.Tags = slices.Clone(c.Tags)
	return &d
}
