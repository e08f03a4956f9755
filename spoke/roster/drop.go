package roster

import (
	"slices"

	"timehub/hub"
)

// Spent is what a disk says of itself to the one who drops closed streams: it has all of these complete, durably, and its log holds no record of them any more,
// neither an item nor the name of a given-up key: whatever there was has been swept, which only happens once it is in long-term storage. Floor was read after that.
type Spent struct {
	Disk    string
	Floor   hub.Key
	Streams map[Stream]bool
}

// Drop forgets the closed streams that nobody can need any more, and returns them. Every disk on the list has to say so of itself. A stream stays while the list is being
// changed, when it was closed by force, and while it is the last one of its disk, so that an incarnation is never used twice.
//
// What the streams held lies below the floor of each of these disks, and so does Floor: a disk that comes to the list later raises its own floor to it.
func (r Roster) Drop(told []Spent) (Roster, []Stream) {
	if r.Next != nil || len(r.Disks) == 0 {
		return r, nil
	}
	floor := hub.MaxKey
	var all []map[Stream]bool
	for _, d := range r.Disks {
		i := slices.IndexFunc(told, func(s Spent) bool { return s.Disk == d.ID })
		if i < 0 {
			return r, nil
		}
		if all = append(all, told[i].Streams); told[i].Floor.Less(floor) {
			floor = told[i].Floor
		}
	}
	gone := r.Droppable(func(s Stream) bool {
		return !slices.ContainsFunc(all, func(m map[Stream]bool) bool { return !m[s] })
	})
	if len(gone) == 0 {
		return r, nil
	}
	r = r.clone()
	r.Streams = slices.DeleteFunc(r.Streams, func(i Incarnation) bool { return slices.Contains(gone, i.Stream) })
	r.Dropped += uint64(len(gone))
	if r.Floor == nil || r.Floor.Key().Less(floor) {
		r.Floor = &Floor{floor.Millis(), floor.Hash()}
	}
	return r, gone
}

// Droppable lists the streams that Drop may forget, as far as spent says that a disk needs nothing of them.
func (r Roster) Droppable(spent func(Stream) bool) (list []Stream) {
	last := map[string]uint32{} // of each disk
	for _, i := range r.Streams {
		last[i.Disk] = max(last[i.Disk], i.Incarnation)
	}
	for _, i := range r.Streams {
		if i.Closed != nil && !i.Closed.Forced && i.Incarnation < last[i.Disk] && spent(i.Stream) {
			list = append(list, i.Stream)
		}
	}
	return list
}
