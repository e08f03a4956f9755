package coord

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"timehub/hub"
)

// Position is what a cursor's register holds.
type Position struct {
	Key        hub.Key // the last key that the follower has finished with; zero: none yet
	Generation uint64  // rises whenever a person moves the cursor
	Fence      uint64  // of the lease under which it was written last
	Payload    []byte  // what the follower keeps beside the key, such as finished keys above it
}

const (
	positionVersion = 1
	// MaxPayload is the greatest payload of a Position in bytes; in a register it takes a third more.
	MaxPayload = 256 << 10
)

// position is the form in the register: JSON, so that people can read it with the tools of their coordinator.
type position struct {
	Version    int    `json:"version"`
	Key        string `json:"key,omitempty"`
	RawKey     []byte `json:"rawKey,omitempty"` // instead of Key, when that is not UTF-8
	Generation uint64 `json:"generation,omitempty"`
	Fence      uint64 `json:"fence,omitempty"`
	Payload    []byte `json:"payload,omitempty"`
}

func (p Position) encode() []byte {
	w := position{Version: positionVersion, Generation: p.Generation, Fence: p.Fence, Payload: p.Payload}
	if !p.Key.IsZero() {
		if w.Key = p.Key.String(); !utf8.ValidString(w.Key) {
			w.Key, w.RawKey = "", []byte(w.Key)
		}
	}
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // a struct of numbers, a string and bytes
	}
	return b
}

// parsePosition reads a register's value. What it cannot read it does not guess: a follower that started again from nothing would repeat everything.
func parsePosition(b []byte) (Position, error) {
	var w position
	if err := json.Unmarshal(b, &w); err != nil {
		return Position{}, fmt.Errorf("read cursor: %w", err)
	}
	if w.Version != positionVersion {
		return Position{}, fmt.Errorf("read cursor: its version is %d, this program knows %d", w.Version, positionVersion)
	}
	p := Position{Generation: w.Generation, Fence: w.Fence, Payload: w.Payload}
	text := w.Key
	if text == "" {
		text = string(w.RawKey)
	}
	if text == "" {
		return p, nil
	}
	var err error
	if p.Key, err = hub.ParseKey(text); err != nil {
		return Position{}, fmt.Errorf("read cursor: %w", err)
	}
	return p, nil
}
