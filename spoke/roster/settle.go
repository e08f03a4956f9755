package roster

import (
	"slices"

	"timehub/hub"
)

// Settlement is what a leader has gathered who closes a stream. Several leaders may be at it at once; the first whose Close goes on record wins.
type Settlement struct {
	Stream  Stream
	Refused map[string]bool // disks that have synced that they refuse the stream, and have told what they hold
	Wrote   map[string]bool // nodes that have everything up to the base, and have synced the set, on a disk of the list or on one that is being brought in
	Forced  bool            // n−W are enough (an operator's word; even n with half only)
}

// Enough reports whether so many disks have refused that every committed record is known: R of the list in force, and of the coming one once that is decided.
func (r Roster) Enough(s Settlement) bool {
	if !r.meets(s, s.Refused, r.Disks) {
		return false
	}
	return r.Next == nil || !r.Next.Decided || r.meets(s, s.Refused, r.Next.Disks)
}

func (r Roster) meets(s Settlement, ids map[string]bool, disks []Disk) bool {
	need := r.Rule.Read(len(disks))
	if s.Forced {
		need = len(disks) - r.Rule.Write(len(disks))
	}
	return holds(disks, ids) >= need
}

// Close puts the end of a stream on record. False: not yet, or somebody else was first.
func (r Roster) Close(s Settlement, end Closing) (Roster, bool) {
	at := slices.IndexFunc(r.Streams, func(i Incarnation) bool { return i.Stream == s.Stream })
	if at < 0 || r.Streams[at].Closed != nil || !r.Enough(s) || !r.held(s, r.Disks) {
		return r, false
	}
	if r.Next != nil && r.Next.Decided && !r.held(s, r.Next.Disks) {
		return r, false
	}
	r = r.clone()
	end.Forced = s.Forced
	r.Streams[at].Closed = &end
	return r, true
}

// held: W nodes of a list hold the set. A disk that is being brought in counts for the one that it replaces.
func (r Roster) held(s Settlement, disks []Disk) bool {
	need := r.Rule.Write(len(disks))
	if s.Forced {
		need = min(need, len(disks)-need)
	}
	for _, d := range disks {
		if s.Wrote[d.Node] {
			need--
		}
	}
	return need <= 0
}

// Forcible reports whether an operator may force a closing at all: an even number of disks, and half of them acknowledge.
func (r Roster) Forcible() error {
	if r.Rule != Half || len(r.Disks)%2 != 0 || len(r.Disks) == 0 {
		return hub.E(hub.Conflict, "a closing can be forced only with an even number of nodes and spoke.quorum=half: otherwise enough of them remain by themselves")
	}
	return nil
}
