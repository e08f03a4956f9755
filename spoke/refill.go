package spoke

import (
	"context"
	"errors"
	"slices"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// What was lost while a node runs, and nobody knows what it was, is copied as a whole: of every stream that may have had something there, all that another disk has of that time. Until
// then the log answers nothing of that time, and no visit passes the hole, so whoever closes a stream does without this disk.

const ownRefilled = 5 * time.Second // for the others to come up to what was lost of the own stream, before it ends

// refill brings back what hollow segments have lost.
func (c *cluster) refill(ctx context.Context) {
	for _, h := range c.n.store.Hollow() {
		states := map[string]peerState{}
		for _, node := range c.nodes() {
			if node == c.opt.Node {
				continue
			}
			if state, err := c.askState(ctx, node); err == nil {
				states[node] = state
			}
		}
		whole, speed := true, &pace{rate: c.opt.RepairRate}
		if len(c.nodes()) <= 1 {
			c.n.log.Error("acknowledged items are lost: there is no other node that could have them", "holes", len(h.Holes))
		}
		for _, i := range c.concerned(h) {
			if err := c.refillFrom(ctx, states, i, h, speed); err != nil {
				c.n.log.Debug("what a hole of the log has held of a stream could not be copied", "stream", i.Stream, "err", err)
				whole = false
			}
		}
		if !whole || ctx.Err() != nil {
			continue
		}
		c.n.mu.Lock()
		c.noteMended(h.Holes)
		c.n.mu.Unlock()
		if err := c.save(ctx, nil, nil); err != nil {
			c.n.log.Error("that holes of the log are mended could not be written down", "err", err)
			return
		}
		c.n.store.Mended(h.Holes)
		c.n.log.Warn("a part of the log was damaged, and was copied from other nodes", "segment", h.Holes[0].Segment, "from", h.From.Key(), "to", h.To.Key())
		poke(c.work)
	}
}

// concerned lists the incarnations that may have had something in a hole: those that had begun.
func (c *cluster) concerned(h spokelog.Hollow) []roster.Incarnation {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if len(listed(c.rec)) <= 1 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.rec.Streams), func(i roster.Incarnation) bool { return i.Above >= h.To || c.streams[streamOf(i.Stream)] == nil })
}

// refillFrom copies one stream from a disk on which all of it is decided that may have been lost. Of a closed one, that is what lies below its base; what lies above is its set.
func (c *cluster) refillFrom(ctx context.Context, states map[string]peerState, i roster.Incarnation, h spokelog.Hollow, speed *pace) error {
	id := streamOf(i.Stream)
	c.n.mu.Lock()
	if st := c.streams[id]; st != nil {
		st.patched = true
	}
	c.n.mu.Unlock()
	need := h.To
	if i.Closed != nil {
		need = min(need, i.Closed.Base)
	}
	err := errors.New("no other node has all of it")
	for node, state := range states {
		if state.Lows[i.Stream.String()] < need {
			continue
		}
		if err = c.askRecords(ctx, source{node, state.Disk}, id, h.From, 0, func(list []spokelog.Record) error { return c.putBack(ctx, id, list, h, speed) }); err == nil {
			break
		}
	}
	if err != nil {
		c.n.mu.Lock()
		own := c.open && id == c.n.stream
		c.n.mu.Unlock()
		if own && time.Since(h.Since) > ownRefilled { // what was lost is what is to be sent
			c.n.log.Warn("a part of the log is lost that the others lack: this incarnation ends", "stream", i.Stream)
			c.refusedBy(ctx, id)
		}
		return err
	}
	if i.Closed == nil || !c.isComplete(id) { // it will be
		return nil
	}
	return c.finish(ctx, i)
}

// putBack stores what may have been lost.
func (c *cluster) putBack(ctx context.Context, id spokelog.Stream, list []spokelog.Record, h spokelog.Hollow, speed *pace) error {
	requests := slices.DeleteFunc(c.missing(ctx, id, split(list)), func(records []spokelog.Record) bool {
		m, minted := hub.MarkOf(records[0].Key)
		return minted && records[0].Flags&(spokelog.Replicated|spokelog.Complete) == 0 && m > h.To
	})
	records := slices.Concat(requests...)
	if len(records) == 0 {
		return nil
	}
	if err := c.storeBatch(ctx, &spokelog.Batch{Records: records, Several: true}); err != nil {
		return err
	}
	size := 0
	for i := range records {
		size += len(records[i].Data)
	}
	c.meters.repaired.Add(int64(len(records)))
	c.meters.bytes.Add(int64(size))
	if !speed.wait(ctx, size) {
		return context.Cause(ctx)
	}
	return nil
}
