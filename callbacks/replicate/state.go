package replicate

import (
	"context"
	"encoding/json"
	"time"

	"timehub/hub"
)

// The states of a follower.
const (
	Waiting   = "waiting"     // another node follows, or nobody has begun yet
	Catching  = "catching up" // there is more at the source
	Live      = "live"        // everything of the source is here
	Retrying  = "retrying"    // something is wrong: see LastError
	Unusable  = "unusable"    // the replicationSource is not the address of a channel
	maxRanges = 100
)

// Status is how the replication of a channel stands. It is the member "replication" of the channel's status.
type Status struct {
	State string `json:"state"`
	// LagMillis is the age of the instant up to which the source was read, 0 while everything is here.
	LagMillis     int64   `json:"lagMillis"`
	Items         int64   `json:"items"` // that came from this source
	LastItem      string  `json:"lastItem,omitempty"`
	LastError     string  `json:"lastError,omitempty"`
	LastErrorTime string  `json:"lastErrorTime,omitempty"`
	Gone          []Range `json:"gone"` // what the source no longer had when it was asked
}

// Range is a range of keys of which nothing could be read: From < key < To.
type Range struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// state is what a follower keeps beside its cursor; it is a format: docs/formats.md.
type state struct {
	Source    string  `json:"source"`
	Since     int64   `json:"since,omitempty"` // of the channel
	Lives     int64   `json:"lives,omitempty"` // of the channel
	Begun     bool    `json:"begun,omitempty"` // something was read of the source, if only that it has nothing more
	Items     int64   `json:"items,omitempty"`
	LastItem  string  `json:"lastItem,omitempty"`
	Error     string  `json:"error,omitempty"`
	ErrorTime string  `json:"errorTime,omitempty"`
	Gone      []Range `json:"gone,omitempty"`
}

func (s state) encode() []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers and texts
	}
	return text
}

// parseState reads what a follower left. What is not understood counts as nothing: then everything of the source is looked at again.
func parseState(text []byte) (s state) {
	if json.Unmarshal(text, &s) != nil {
		return state{}
	}
	return s
}

// of reports whether the state belongs to the channel as it is, whatever its source is now.
func (s state) of(ch *hub.Channel) bool {
	return s.Source != "" && s.Since == ch.Since && s.Lives == ch.Lives
}

// Status tells how a channel stands; false if it is not a target here. On a node that does not follow it, the coordinator is asked for what is known.
func (r *Replicator) Status(ctx context.Context, ch *hub.Channel) (Status, bool) {
	id := hub.ChannelID(ch.Name)
	r.mu.Lock()
	f := r.followers[id]
	r.mu.Unlock()
	if f == nil {
		return Status{}, false
	}
	s := f.snapshot()
	if s.State != Waiting {
		return s, true
	}
	p, err := r.cursors.Get(ctx, id)
	if err != nil {
		return s, true
	}
	if st := parseState(p.Payload); st.of(ch) && st.Source == ch.ReplicationSource {
		s.fill(st)
		s.LagMillis = lag(r.opt.Clock(), p.Key)
	}
	return s, true
}

func (s *Status) fill(st state) {
	s.Items, s.LastItem, s.LastError, s.LastErrorTime, s.Gone = st.Items, st.LastItem, st.Error, st.ErrorTime, append([]Range{}, st.Gone...)
}

func lag(now time.Time, at hub.Key) int64 {
	if at.IsZero() {
		return 0
	}
	return max(0, now.UnixMilli()-at.Millis())
}
