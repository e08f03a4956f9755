package webhook

import (
	"encoding/json"
	"fmt"
	"time"
)

// CursorPrefix is where the cursors of webhooks are kept in the coordinator; a webhook's is named like it. The key of its position is the contiguous
// cursor: everything of the channel at or below it is done, by success or by giving up. State is its payload.
const CursorPrefix = "webhook"

// LeasePrefix is where the leases are: LeasePrefix + "/" + name.
const LeasePrefix = "webhook"

// Bounds of a State, so that it fits beside its key (coord.MaxPayload).
const (
	MaxFinished = 1000           // keys done above the cursor; then the webhook waits for the one that is missing
	MaxLines    = 10             // error lines
	MaxLineAge  = 24 * time.Hour // of an error line
	MaxLineText = 500            // bytes of the text of one
)

// State is what a webhook keeps beside its cursor. Cursor and State are written in one step, so that whoever sees the line of a give-up also sees the item
// gone from InFlight (spec 03 §1.2).
//
// Items and periods are written as time paths: 2014/01/13/10/42/31/759/s03ub2, or the path of the second or minute.
type State struct {
	Born     string   `json:"born,omitempty"`     // the life of the webhook in which it was written; in another life it means nothing
	Last     string   `json:"last,omitempty"`     // the greatest path done, as the status shows it
	Finished []string `json:"finished,omitempty"` // paths above the cursor that are done, ascending
	InFlight []Flight `json:"inFlight,omitempty"` // called, or waiting to be called again, ascending
	Errors   []Line   `json:"errors,omitempty"`   // oldest first
	Replay   []Range  `json:"replay,omitempty"`   // what is still to be delivered again
}

// Flight is a delivery that has begun and is not done.
type Flight struct {
	Path     string `json:"path"`
	Attempts int    `json:"attempts,omitempty"` // calls that have failed
}

// Line is one failed attempt, or a give-up (spec 03 §2.5).
type Line struct {
	Time int64  `json:"time"` // ms
	Path string `json:"path"`
	Text string `json:"text"`
}

// String is the line as it is shown: ISO time, path, text.
func (l Line) String() string {
	return time.UnixMilli(l.Time).UTC().Format("2006-01-02T15:04:05.000Z") + " " + l.Path + " " + l.Text
}

// Range is a part of a channel to be delivered again: From ≤ key < To, or only the keys listed.
type Range struct {
	From string   `json:"from,omitempty"` // key path; what is done moves it on
	To   string   `json:"to,omitempty"`
	Keys []string `json:"keys,omitempty"`
}

// Encode is the payload.
func (s State) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the state of a webhook: %w", err)
	}
	return b, nil
}

// ParseState reads a payload; an empty one is the zero State.
func ParseState(b []byte) (State, error) {
	var s State
	if len(b) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("read the state of a webhook: %w", err)
	}
	return s, nil
}
