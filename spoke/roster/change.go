package roster

import (
	"slices"

	"timehub/hub"
)

// Me is what a node knows of itself when it looks at the list.
type Me struct {
	Node    string
	Disk    string
	Clock   hub.Mark // the position of its clock
	Horizon hub.Mark // as applied on its disk
	Done    bool     // its disk holds every incarnation that it knows, closed and complete
	Writing bool     // it has an open incarnation, or one that is on its way
	Epoch   uint64   // the epoch that its disk has synced: a change of that epoch may be answered
}

// Sessions tells which nodes have a session with the coordinator.
type Sessions map[string]bool

// Closable reports whether an incarnation may be closed by anybody: its owner has no session, or lives on without it, or leaves. present is the stream
// that the owner's session names as its own, the zero Stream for none.
func (r Roster) Closable(s Stream, sessions Sessions, present func(node string) Stream) bool {
	i, ok := r.Find(s)
	if !ok || i.Closed != nil {
		return false
	}
	return !sessions[i.Node] || present(i.Node) != s || slices.Contains(r.Leaving, i.Node)
}

// Answer says that a node has synced the announced change.
func (r Roster) Answer(me Me) (Roster, bool) {
	c := r.Next
	if c == nil || c.Decided || me.Epoch < c.Epoch || slices.ContainsFunc(c.Acked, func(a Answer) bool { return a.Node == me.Node }) {
		return r, false
	}
	r = r.clone()
	r.Next.Acked = append(r.Next.Acked, Answer{me.Node, me.Disk})
	r.Next.Top = max(r.Next.Top, me.Clock)
	return r, true
}

// Catch says that a node's disk has everything up to the top of the decided change.
func (r Roster) Catch(me Me) (Roster, bool) {
	c := r.Next
	if c == nil || !c.Decided || slices.Contains(c.Caught, me.Disk) || me.Horizon < c.Top && !me.Done {
		return r, false
	}
	r = r.clone()
	r.Next.Caught = append(r.Next.Caught, me.Disk)
	return r, true
}

// Advance decides the announced change, and puts the decided one in force, as far as that may be.
func (r Roster) Advance(sessions Sessions) (Roster, bool) {
	changed := false
	if r.Next != nil && !r.Next.Decided && r.decidable(sessions) {
		r, changed = r.clone(), true
		r.Next.Decided = true
		for i := range r.Streams {
			if r.Next.Stream != nil && r.Streams[i].Stream == *r.Next.Stream {
				r.Streams[i].Above = r.Next.Top
			}
		}
	}
	c := r.Next
	if c == nil || !c.Decided {
		return r, changed
	}
	caught := map[string]bool{}
	for _, id := range c.Caught {
		caught[id] = true
	}
	if !sameDisks(c.Disks, r.Disks) && holds(c.Disks, caught) < r.Rule.Write(len(c.Disks)) {
		return r, changed
	}
	r = r.clone()
	r.Epoch, r.Disks, r.Next = c.Epoch, c.Disks, nil
	return r, true
}

// decidable: every member with a session has answered, R disks of the old list among them, the owner of the new incarnation too, and every open
// incarnation whose owner did not answer is closed.
func (r Roster) decidable(sessions Sessions) bool {
	c := r.Next
	nodes, disks := map[string]bool{}, map[string]bool{}
	for _, a := range c.Acked {
		nodes[a.Node], disks[a.Disk] = true, true
	}
	for _, d := range r.Disks {
		if sessions[d.Node] && !nodes[d.Node] {
			return false
		}
	}
	for _, i := range r.Streams {
		if i.Closed == nil && (c.Stream == nil || i.Stream != *c.Stream) && !nodes[i.Node] {
			return false
		}
	}
	if c.Stream != nil {
		if i, ok := r.Find(*c.Stream); !ok || !nodes[i.Node] {
			return false
		}
	}
	return len(r.Disks) == 0 || holds(r.Disks, disks) >= r.Rule.Read(len(r.Disks))
}

func sameDisks(a, b []Disk) bool {
	ids := func(list []Disk) []string {
		out := make([]string, len(list))
		for i, d := range list {
			out[i] = d.ID
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(ids(a), ids(b))
}

// Withdraw takes back an announced change whose incarnation belongs to a node that is gone and that nobody can wait for: a joiner that died.
func (r Roster) Withdraw(sessions Sessions) (Roster, bool) {
	c := r.Next
	if c == nil || c.Decided || c.Stream == nil {
		return r, false
	}
	i, ok := r.Find(*c.Stream)
	if !ok || sessions[i.Node] {
		return r, false
	}
	if _, member := onList(r.Disks, i.Node); member { // its return, or its replacement, goes on
		return r, false
	}
	r = r.clone()
	r.Streams = slices.DeleteFunc(r.Streams, func(j Incarnation) bool { return j.Stream == i.Stream })
	// The epoch is spent: members may have synced it.
	r.Epoch, r.Next = c.Epoch, nil
	return r, true
}

// Propose asks for what has to come next: the removal of a leaving node whose incarnations are closed, or an incarnation for a node that has none, which
// is also how a disk joins the list or replaces the one that its node had. One change is made at a time. incarnation is what the node's disk would
// use; the stream that was made is in the change.
func (r Roster) Propose(me Me, incarnation uint32) (Roster, bool) {
	if r.Next != nil {
		return r, false
	}
	for _, d := range r.Disks {
		if slices.Contains(r.Leaving, d.Node) {
			return r.remove(d)
		}
	}
	if me.Writing || slices.Contains(r.Leaving, me.Node) {
		return r, false
	}
	r = r.clone()
	disks := slices.Clone(r.Disks)
	ordinal := uint16(0)
	if i := slices.IndexFunc(disks, func(d Disk) bool { return d.ID == me.Disk }); i >= 0 {
		ordinal = disks[i].Ordinal
		disks[i].Node = me.Node
	} else {
		disks = slices.DeleteFunc(disks, func(d Disk) bool { return d.Node == me.Node })
		ordinal = r.Ordinals
		r.Ordinals++
		disks = append(disks, Disk{ID: me.Disk, Ordinal: ordinal, Node: me.Node})
	}
	s := Stream{ordinal, incarnation}
	if r.Used(me.Disk, incarnation) {
		return r, false
	}
	r.Streams = append(r.Streams, Incarnation{Stream: s, Disk: me.Disk, Node: me.Node})
	r.Next = &Change{Epoch: r.Epoch + 1, Disks: disks, Stream: &s}
	return r, true
}

// Used reports whether an incarnation of a disk, or a later one, is on record: such a number is not used again. The last one of each disk is never dropped.
func (r Roster) Used(disk string, incarnation uint32) bool {
	return slices.ContainsFunc(r.Streams, func(i Incarnation) bool { return i.Disk == disk && i.Incarnation >= incarnation })
}

// remove announces the list without a disk, once everything that its node wrote is closed.
func (r Roster) remove(d Disk) (Roster, bool) {
	for _, i := range r.Streams {
		if i.Node == d.Node && i.Closed == nil {
			return r, false
		}
	}
	r = r.clone()
	r.Next = &Change{Epoch: r.Epoch + 1, Disks: slices.DeleteFunc(slices.Clone(r.Disks), func(x Disk) bool { return x.ID == d.ID })}
	return r, true
}

// Leave marks a node to be decommissioned. It is refused while something else is being changed, while another one leaves, and when the rest would not be
// enough to write and to settle: whole is the number of the other disks that hold everything.
func (r Roster) Leave(node string, whole int) (Roster, error) {
	if _, ok := onList(r.Disks, node); !ok {
		if r.Next != nil {
			if _, coming := onList(r.Next.Disks, node); coming {
				return r, hub.E(hub.Conflict, "%s is just joining: try again when that is done", node)
			}
		}
		return r, hub.E(hub.NotFound, "there is no node %s on the list", node)
	}
	rest := len(r.Disks) - 1
	switch {
	case slices.Contains(r.Leaving, node):
		return r, nil
	case r.Next != nil || slices.ContainsFunc(r.Disks, func(d Disk) bool { return slices.Contains(r.Leaving, d.Node) }):
		return r, hub.E(hub.Conflict, "the list is being changed: try again when that is done")
	case rest == 0:
		return r, hub.E(hub.Conflict, "%s is the only node: it cannot leave", node)
	case whole < max(r.Rule.Write(rest), r.Rule.Read(rest)):
		return r, hub.E(hub.Conflict, "only %d of the other %d nodes hold everything: %s must stay until more do", whole, rest, node)
	}
	r = r.clone()
	r.Leaving = append(r.Leaving, node)
	return r, nil
}

// Left reports whether a node was decommissioned: it must not join again before Return.
func (r Roster) Left(node string) bool {
	_, member := onList(r.Disks, node)
	return !member && slices.Contains(r.Leaving, node)
}

// Return lets a decommissioned node join again; one that is still leaving has to leave first.
func (r Roster) Return(node string) (Roster, error) {
	if _, member := onList(r.Disks, node); member {
		return r, hub.E(hub.Conflict, "%s has not left yet", node)
	}
	r = r.clone()
	r.Leaving = slices.DeleteFunc(r.Leaving, func(n string) bool { return n == node })
	return r, nil
}
