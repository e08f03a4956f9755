package spoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"timehub/hub"
	"timehub/hub/disk"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// A hole is damage to acknowledged data that was found when the log was opened. Nobody knows which records lay in it, so this disk vouches for no stream that may have had some
// there, until it has copied the stream anew: its low goes back to what was logged before the hole, which holds the horizon, and it counts for nobody's R (ENGINE §4).

// holeMark names a hole in the file "cluster".
type holeMark struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

func markOf(h spokelog.Hole) holeMark { return holeMark{h.Segment, h.Offset} }

// mendedHoles reads which holes earlier starts have mended.
func mendedHoles(d disk.Disk) (func(spokelog.Hole) bool, error) {
	var s diskState
	text, err := readFile(d, stateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read what the disk knows of the others: %w", err)
	case json.Unmarshal(text, &s) != nil:
		s.Mended = nil // load says what is wrong
	}
	return func(h spokelog.Hole) bool { return slices.Contains(s.Mended, markOf(h)) }, nil
}

// hurt takes back what this disk said of streams that may have had something in a hole. Nothing runs yet.
func (c *cluster) hurt() {
	h, hurt := c.n.store.Hurt()
	if !hurt {
		return
	}
	if !c.others() { // what was lost is lost; without the rest, nothing could ever be closed or sent
		c.n.log.Error("acknowledged items are lost: there is no other node that could have them", "holes", len(h.Holes))
		c.noteMended(h.Holes)
		c.n.store.Mended(h.Holes)
		return
	}
	for id, s := range c.streams {
		if s.complete && !h.After[id] && len(h.After) > 0 {
			continue // it was complete before the first hole
		}
		s.holed, s.complete, s.settled, s.low = true, false, false, h.Before[id]
	}
	c.healedAt = c.floor + hub.MarkAt(c.n.opt.ClockGuard.Milliseconds())
	c.n.log.Warn("the log has holes: this node gives no stable answers until it has copied what may have lain there from the others", "holes", len(h.Holes))
}

// others reports whether another disk than this one is, or is to be, on the list.
func (c *cluster) others() bool {
	disks := c.rec.Disks
	if c.rec.Next != nil {
		disks = slices.Concat(disks, c.rec.Next.Disks)
	}
	return slices.ContainsFunc(disks, func(d roster.Disk) bool { return d.ID != c.n.identity.ID })
}

// errHole is the answer for who counts on this disk.
func errHole() error {
	return tryAgain("a part of the log of this node is damaged, and was not copied from the others yet")
}

// vouches says why this disk must not be counted on for a stream. Under mu.
func (c *cluster) vouches(s spokelog.Stream) error {
	if st := c.streams[s]; st != nil && st.holed {
		return errHole()
	}
	return nil
}

// noHole reports whether there is no hole of which something may be missing. Under mu.
func (c *cluster) noHole() bool {
	for _, s := range c.streams {
		if s.holed {
			return false
		}
	}
	return true
}

// counts reports whether it means something that this disk has not got an item.
func (c *cluster) counts() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.noHole()
}

// heal finds out which streams are copied beyond everything that can have lain in a hole, and remembers when that is so of all.
func (c *cluster) heal(ctx context.Context) error {
	n := c.n
	h, hurt := n.store.Hurt()
	n.mu.Lock()
	for _, s := range c.streams {
		if s.holed && (s.complete || s.low >= c.healedAt) {
			s.holed = false
		}
	}
	if !hurt || !c.noHole() { // the log is told last: what fails before is tried again
		n.mu.Unlock()
		return nil
	}
	c.noteMended(h.Holes)
	n.mu.Unlock()
	if err := c.save(ctx, nil, nil); err != nil {
		return err
	}
	n.store.Mended(h.Holes)
	n.log.Info("what lay in the holes of the log has been copied from the others")
	return nil
}

// noteMended: there is nothing more to be had for these holes. Under mu; durable with the next save.
func (c *cluster) noteMended(holes []spokelog.Hole) {
	for _, hole := range holes {
		if m := markOf(hole); !slices.Contains(c.mended, m) {
			c.mended = append(c.mended, m)
		}
	}
}

// answerRefusal is refuse for a leader, who counts on this disk.
func (c *cluster) answerRefusal(ctx context.Context, s spokelog.Stream) (hub.Mark, error) {
	low, err := c.refuse(ctx, s)
	if err != nil {
		return 0, err
	}
	poke(c.work) // the leader waits for this disk, if it lags behind
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return low, c.vouches(s)
}
