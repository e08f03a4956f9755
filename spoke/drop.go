package spoke

import (
	"context"
	"net/http"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/web"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// Closed streams leave the list, with their sets, once no log of the list holds anything of them: then whoever comes later finds what they held in long-term storage (ADR 015).

const (
	spentPath = "/internal/spoke/spent"
	dropEvery = 10 * time.Second
	dropMost  = 100 // streams that leave the list at once
)

// spentAnswer is what a disk says of itself: see roster.Spent.
type spentAnswer struct {
	Disk    string          `json:"disk"`
	Epoch   uint64          `json:"epoch"`
	Floor   frame.Floor     `json:"floor"`
	Streams []roster.Stream `json:"streams"`
}

// spent lists the closed streams of which this disk needs nothing any more. They are complete, durably; after that nothing of them is written, so what the log has no
// trace of then will never be in it again.
func (c *cluster) spent() spentAnswer {
	n := c.n
	n.mu.Lock()
	a := spentAnswer{Disk: n.identity.ID, Epoch: c.epoch(), Streams: []roster.Stream{}}
	var list []roster.Stream
	if c.known && c.noHole() {
		list = c.rec.Droppable(func(s roster.Stream) bool {
			st := c.streams[streamOf(s)]
			return st != nil && st.complete && st.settled && st.sets == 0 && st.outstanding == 0
		})
	}
	n.mu.Unlock()
	if traces, sure := n.store.Traces(); sure {
		for _, s := range list {
			if !traces[streamOf(s)] {
				a.Streams = append(a.Streams, s)
			}
		}
	}
	a.Floor = floorOf(n.store.Floor())
	return a
}

func (c *cluster) serveSpent(w http.ResponseWriter, _ *http.Request) error {
	return web.JSON(w, http.StatusOK, c.spent())
}

// keepDropping takes off the list what nobody needs. Every node does, or one that is started again and again would be the one that should; two at once are harmless.
func (c *cluster) keepDropping(ctx context.Context) error {
	for pause := learnEvery; hub.Sleep(ctx, pause); pause = dropEvery {
		for c.changing() && hub.Sleep(ctx, learnEvery) {
			continue
		}
		if err := c.dropSpent(ctx); err != nil && ctx.Err() == nil {
			c.n.log.Debug("closed incarnations could not be taken off the list", "err", err)
		}
	}
	return nil
}

// dropSpent asks every disk of the list, as it is on record, what it needs, and takes off what none of them does. What they have answered stays true; that the list is still
// that one is what the compare-and-set makes sure of.
func (c *cluster) dropSpent(ctx context.Context) error {
	own := c.spent()
	if own.Streams = own.Streams[:min(len(own.Streams), dropMost)]; len(own.Streams) == 0 {
		return nil
	}
	b, version, err := c.opt.Coordinator.Get(ctx, listRegister)
	if err != nil {
		return err
	}
	rec, err := roster.Parse(b)
	if err != nil || c.older(rec) {
		return err
	}
	var told []roster.Spent
	for _, d := range rec.Disks {
		a := own
		if d.Node != c.opt.Node {
			if err := c.ask(ctx, http.MethodGet, d.Node, spentPath, nil, nil, &a); err != nil {
				return err
			}
		}
		if a.Disk != d.ID || a.Epoch != rec.Epoch {
			return nil
		}
		s := roster.Spent{Disk: a.Disk, Floor: keyOf(a.Floor), Streams: map[roster.Stream]bool{}}
		for _, id := range a.Streams {
			s.Streams[id] = true
		}
		told = append(told, s)
	}
	next, gone := rec.Drop(told)
	if len(gone) == 0 {
		return nil
	}
	if b, err = next.Encode(); err != nil {
		return err
	}
	changes, err := c.forget(ctx, rec, gone)
	if err != nil {
		return err
	}
	changes = append(changes, coord.Change{Name: listRegister, Value: b, Version: version})
	if _, err := c.opt.Coordinator.Update(ctx, changes); err != nil {
		return err
	}
	c.n.log.Debug("closed incarnations of which no log holds anything have left the list", "streams", len(gone), "left", len(next.Streams))
	poke(c.nudge)
	return nil
}

// changing reports whether a change of the list is on its way.
func (c *cluster) changing() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.rec.Next != nil
}

// forget is what goes with streams that leave the list: their sets.
func (c *cluster) forget(ctx context.Context, rec roster.Roster, gone []roster.Stream) (changes []coord.Change, err error) {
	for _, s := range gone {
		if i, _ := rec.Find(s); i.Closed.Bare {
			continue
		}
		text, _, err := c.opt.Coordinator.Get(ctx, closedPrefix+s.String())
		if hub.Is(err, hub.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		changes = append(changes, coord.Change{Name: closedPrefix + s.String(), Any: true})
		changes = append(changes, piecesOf(s, text)...)
	}
	return changes, nil
}

// onList reports whether this disk is on a list, or on the one that is coming. Under mu.
func (c *cluster) onList(rec roster.Roster) bool {
	mine := func(d roster.Disk) bool { return d.ID == c.n.identity.ID }
	return slices.ContainsFunc(rec.Disks, mine) || rec.Next != nil && slices.ContainsFunc(rec.Next.Disks, mine)
}

// comeAfter prepares this disk for a list from which streams are gone that it may not hold whole. On the list that cannot be: what is gone then was withdrawn before
// anything was minted in it, or this disk has said that it needs nothing of it. Off the list – a member that was decommissioned, a disk that was replaced and is put in
// again – two things can be missing: what the streams held, which is in long-term storage, so the floor rises above it; and that something of them was given up, so all
// goes that this disk cannot know to be decided. It is durable when comeAfter returns nil.
func (c *cluster) comeAfter(ctx context.Context, rec roster.Roster) error {
	n := c.n
	if f := rec.Floor; f != nil && n.store.Floor().Less(f.Key()) {
		if err := c.floorTo(f.Key()); err != nil {
			return err
		}
	}
	n.mu.Lock()
	var gone []spokelog.Stream
	for id, s := range c.streams {
		if _, listed := rec.Find(recordOf(id)); !listed && !s.complete && !c.onList(rec) {
			gone = append(gone, id)
		}
	}
	n.mu.Unlock()
	for _, id := range gone {
		low, err := c.refuse(ctx, id)
		if err != nil {
			return err
		}
		h, err := c.holds(ctx, id, spokelog.From{Above: max(low, 1), Lenient: true})
		if err != nil {
			return err
		}
		if err := c.giveUpBut(ctx, id, h, nil); err != nil {
			return err
		}
	}
	return nil
}
