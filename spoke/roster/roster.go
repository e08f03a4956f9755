// Package roster is the list on record of a cluster (ENGINE §4): which disks count, which incarnations have written, which of those are closed and with
// what, and the one change that is being made. It is the value of one register of the coordinator; whoever changes it does so by compare-and-set.
//
// Everything here is a pure function of a Roster and of what the caller knows; nothing waits, reads a clock, or talks to anybody. The rules are those of the
// model that was searched for counter-examples (its words are used here): change none without running it.
//
// What a node does with a Roster – refuse streams, answer a settling leader, start to mint – is package spoke's.
package roster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"timehub/hub"
)

// Versions of the JSON; a newer one is not guessed at. A list of which nothing was dropped is written as the first one, which older programs know; those that do
// not know Floor must not write a list that has one.
const (
	version      = 1
	versionFloor = 2 // with Dropped and Floor
)

// Rule is how many disks of a list acknowledge.
type Rule string

// Half asks ⌈n/2⌉ disks, the documented 50 %; Majority asks ⌊n/2⌋+1.
const (
	Half     Rule = "half"
	Majority Rule = "majority"
)

// Write is W of a list of n disks.
func (r Rule) Write(n int) int {
	if r == Majority {
		return n/2 + 1
	}
	return (n + 1) / 2
}

// Read is R = n−W+1: so many answers meet every committed record.
func (r Rule) Read(n int) int { return n - r.Write(n) + 1 }

// Stream names an incarnation: the writer of one ordered stream.
type Stream struct {
	Ordinal     uint16 `json:"ordinal"`
	Incarnation uint32 `json:"incarnation"`
}

// String is how a stream is named in logs and registers.
func (s Stream) String() string { return fmt.Sprintf("%d.%d", s.Ordinal, s.Incarnation) }

// ParseStream reads what String has written.
func ParseStream(text string) (Stream, error) {
	ordinal, incarnation, _ := strings.Cut(text, ".")
	o, err1 := strconv.ParseUint(ordinal, 10, 16)
	i, err2 := strconv.ParseUint(incarnation, 10, 32)
	if err1 != nil || err2 != nil {
		return Stream{}, hub.E(hub.Invalid, "%q names no incarnation: want ordinal.number", text)
	}
	return Stream{uint16(o), uint32(i)}, nil
}

// Disk is a data directory on the list.
type Disk struct {
	ID      string `json:"id"`
	Ordinal uint16 `json:"ordinal"`
	Node    string `json:"node"` // that runs on it
}

// Incarnation is a stream on record.
type Incarnation struct {
	Stream
	Disk   string   `json:"disk"`
	Node   string   `json:"node"`
	Above  hub.Mark `json:"above,omitempty"`  // it mints above this; known from the moment on when its change is decided
	Closed *Closing `json:"closed,omitempty"` // nil: open
}

// Closing is the end of a stream: everything at or below Base that its writer decided, and the Set above it. The content of the set is held by W disks; on
// record is what tells the right one.
type Closing struct {
	Base   hub.Mark `json:"base"`
	Count  int      `json:"count"`  // records of the set
	Digest uint64   `json:"digest"` // of their channels and keys
	Forced bool     `json:"forced,omitempty"`
	Bare   bool     `json:"bare,omitempty"` // the set is empty, and no register says so
}

// Change is a new list on its way, with or without an incarnation that comes with it. It is announced first, then decided, then in force.
type Change struct {
	Epoch  uint64   `json:"epoch"`
	Disks  []Disk   `json:"disks"`
	Stream *Stream  `json:"stream,omitempty"` // the incarnation that begins with it
	Acked  []Answer `json:"acked,omitempty"`
	Top    hub.Mark `json:"top,omitempty"` // the highest clock of those who answered
	// Decided: everybody has answered or is closed. From then on the new list commits, both settle, and the new incarnation mints above Top.
	Decided bool     `json:"decided,omitempty"`
	Caught  []string `json:"caught,omitempty"` // disks whose horizon has passed Top
}

// Answer is a member that has synced an announced change.
type Answer struct {
	Node string `json:"node"`
	Disk string `json:"disk"`
}

// Roster is the list on record. Values are not changed: every method that changes something returns another one.
type Roster struct {
	Version  int           `json:"version"`
	Rule     Rule          `json:"rule"`
	Epoch    uint64        `json:"epoch"`
	Disks    []Disk        `json:"disks"`
	Streams  []Incarnation `json:"streams"`
	Next     *Change       `json:"next,omitempty"`
	Leaving  []string      `json:"leaving,omitempty"` // nodes that are being decommissioned
	Ordinals uint16        `json:"ordinals"`          // the next one to be given
	// Dropped counts the streams that were forgotten (see Drop). Everything that they held lies below Floor and is in long-term storage, or nobody needs it: a disk
	// that takes this list in promises nothing below.
	Dropped uint64 `json:"dropped,omitempty"`
	Floor   *Floor `json:"floor,omitempty"`
}

// Floor is a key from which on a log has everything.
type Floor struct {
	Millis int64  `json:"ms"`
	Hash   string `json:"hash,omitempty"`
}

// Key is the floor as a key.
func (f Floor) Key() hub.Key { return hub.KeyAt(f.Millis, f.Hash) }

// New is the list before the first node.
func New(rule Rule) Roster { return Roster{Version: version, Rule: rule, Ordinals: 1} }

// Parse reads the register's value.
func Parse(b []byte) (Roster, error) {
	var r Roster
	if err := json.Unmarshal(b, &r); err != nil {
		return Roster{}, fmt.Errorf("read the list of members: %w", err)
	}
	if r.Version != version && r.Version != versionFloor {
		return Roster{}, fmt.Errorf("read the list of members: its version is %d, this program knows %d", r.Version, versionFloor)
	}
	if r.Rule != Half && r.Rule != Majority {
		return Roster{}, fmt.Errorf("read the list of members: no such quorum: %q", r.Rule)
	}
	return r, nil
}

// Encode is the register's value.
func (r Roster) Encode() ([]byte, error) {
	if r.Dropped > 0 {
		r.Version = versionFloor
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write the list of members: %w", err)
	}
	return b, nil
}

// clone copies what methods change.
func (r Roster) clone() Roster {
	r.Disks, r.Streams, r.Leaving = slices.Clone(r.Disks), slices.Clone(r.Streams), slices.Clone(r.Leaving)
	if r.Next != nil {
		next := *r.Next
		next.Disks, next.Acked, next.Caught = slices.Clone(next.Disks), slices.Clone(next.Acked), slices.Clone(next.Caught)
		r.Next = &next
	}
	return r
}

// Find returns an incarnation on record.
func (r Roster) Find(s Stream) (Incarnation, bool) {
	i := slices.IndexFunc(r.Streams, func(i Incarnation) bool { return i.Stream == s })
	if i < 0 {
		return Incarnation{}, false
	}
	return r.Streams[i], true
}

// Member returns the disk that a node has on the list in force.
func (r Roster) Member(node string) (Disk, bool) { return onList(r.Disks, node) }

func onList(disks []Disk, node string) (Disk, bool) {
	i := slices.IndexFunc(disks, func(d Disk) bool { return d.Node == node })
	if i < 0 {
		return Disk{}, false
	}
	return disks[i], true
}

// holds counts the disks of a list that are in a set of identities.
func holds(disks []Disk, ids map[string]bool) int {
	n := 0
	for _, d := range disks {
		if ids[d.ID] {
			n++
		}
	}
	return n
}

// Committed reports whether the disks that have synced something are enough: W of the list in force; while a change is announced, of both; once it is
// decided, of the new one.
func (r Roster) Committed(synced map[string]bool) bool {
	if r.Next != nil && holds(r.Next.Disks, synced) < r.Rule.Write(len(r.Next.Disks)) {
		return false
	}
	return r.Next != nil && r.Next.Decided || holds(r.Disks, synced) >= r.Rule.Write(len(r.Disks))
}

// Whole reports whether the disks that have answered meet every committed record: R of each list.
func (r Roster) Whole(answered map[string]bool) bool {
	return holds(r.Disks, answered) >= r.Rule.Read(len(r.Disks)) && (r.Next == nil || holds(r.Next.Disks, answered) >= r.Rule.Read(len(r.Next.Disks)))
}

// Met reports whether the disks that have answered also meet everybody who may have decided another list without the one who asks: W of each, since a
// change is decided when R disks have synced it.
func (r Roster) Met(answered map[string]bool) bool {
	return holds(r.Disks, answered) >= r.Rule.Write(len(r.Disks)) && (r.Next == nil || holds(r.Next.Disks, answered) >= r.Rule.Write(len(r.Next.Disks)))
}
