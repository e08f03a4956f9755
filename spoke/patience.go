package spoke

import (
	"time"

	"timehub/spoke/roster"
)

// Every start of a node adds to the list on record, which has to fit into one register (coord.MaxValue). What bounds it is that closed streams leave it (drop.go); while that
// cannot be – a member is away, a channel cannot be archived – these limits keep a node that is started again and again from filling it.
const (
	listWarn     = 256 << 10 // bytes of the list about which the log complains
	listFull     = 384 << 10 // from which on nobody begins another incarnation: what is open can still be closed then
	calmStarts   = 100       // closed incarnations of a disk on the list that are nothing to wonder at
	startPenalty = 100 * time.Millisecond
	maxPenalty   = time.Minute
)

// patience is how long a node that writes nothing waits before it asks for another incarnation.
func patience(rec roster.Roster, disk string) time.Duration {
	closed := 0
	for _, i := range rec.Streams {
		if i.Disk == disk && i.Closed != nil {
			closed++
		}
	}
	return min(max(0, time.Duration(closed-calmStarts)*startPenalty), maxPenalty)
}

// calm reports whether this node may ask for an incarnation now.
func (c *cluster) calm(rec roster.Roster, bytes int) bool {
	c.n.mu.Lock()
	wait, waited := patience(rec, c.n.identity.ID), time.Since(c.idle)
	full := bytes >= listFull
	said := c.restless
	c.restless = full || waited < wait
	c.n.mu.Unlock()
	switch {
	case said:
	case full:
		c.n.log.Error("the list of members is too large for another incarnation: this node waits until closed ones have left it. They do when all members are there and "+
			"what they held is archived; one that does not come back has to be decommissioned (hub node remove)", "bytes", bytes, "incarnations", len(rec.Streams))
	case waited < wait:
		c.n.log.Warn("this node was started very often: it waits before it writes again, so that the list of members does not grow without bound", "wait", wait)
	}
	return !full && waited >= wait
}

// sized notes how large the list is.
func (c *cluster) sized(bytes, incarnations int) {
	c.meters.list.Set(float64(bytes))
	c.n.mu.Lock()
	large := bytes >= listWarn
	say := large && !c.large
	c.large = large
	c.n.mu.Unlock()
	if say {
		c.n.log.Warn("the list of members grows: closed incarnations leave it only when all members are there and what they held is archived", "bytes", bytes,
			"incarnations", incarnations)
	}
}
