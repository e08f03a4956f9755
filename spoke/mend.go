package spoke

import (
	"context"
	"slices"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// Damage that is found while a node runs. The log knows from its index which record it was, and says so; it is written again as another node has it. Until then whoever needs it from
// here is refused: a peer that is sent the stream, one who copies or closes it. Where it can be known that nobody has it, it is named and left out, and everybody goes on.

const flightMended = 2 * time.Second // for a record in flight to come to the others before its incarnation ends

// keepMending mends what was found damaged.
func (c *cluster) keepMending(ctx context.Context) error {
	for c.waitForDamage(ctx) {
		c.refill(ctx)
		silent := map[string]bool{}
		for _, b := range c.n.store.Broken() {
			if ctx.Err() != nil {
				return nil
			}
			c.mend(ctx, b, silent)
		}
	}
	return nil
}

// waitForDamage waits until something is to be mended, and between two rounds; false: ctx is done.
func (c *cluster) waitForDamage(ctx context.Context) bool {
	if len(c.n.store.Broken()) > 0 || len(c.n.store.Hollow()) > 0 {
		return poked(ctx, c.damage)
	}
	select {
	case <-ctx.Done():
		return false
	case <-c.damage:
		return true
	}
}

// mend gets one record from whoever has it. Nodes that do not answer are asked once a round.
func (c *cluster) mend(ctx context.Context, b spokelog.Broken, silent map[string]bool) {
	if c.n.store.Mend(ctx, b) {
		return
	}
	none := c.newCensus()
	for _, node := range c.nodes() {
		if node == c.opt.Node || silent[node] {
			continue
		}
		r, err := c.askCopy(ctx, node, b, &none)
		if err != nil {
			silent[node] = hub.KindOf(err) == hub.Internal // no answer at all
			continue
		}
		if r != nil {
			c.repairItem(ctx, *r)
			if c.n.store.Mend(ctx, b) {
				poke(c.work)
				return
			}
		}
	}
	if ctx.Err() != nil || !c.endFlight(ctx, b, none.disks) && !c.hopeless(b, none) {
		return
	}
	c.n.store.Lost(b)
	c.n.log.Error("a damaged record is lost: no other node has it", "channel", b.Channel, "key", b.Key)
}

// askCopy asks one node for a record, whether it was given up there or not.
func (c *cluster) askCopy(ctx context.Context, node string, b spokelog.Broken, none *census) (*spokelog.Record, error) {
	return c.askRecord(ctx, node, b.Channel, b.Key, true, none, callTime)
}

// mintedIn finds the incarnation that minted a key: those of one disk begin above each other's clocks. Under mu.
func (c *cluster) mintedIn(key hub.Key) (found roster.Incarnation, ok bool) {
	m, minted := hub.MarkOf(key)
	ordinal, named := hub.Ordinal(key)
	if !minted || !named {
		return found, false
	}
	for _, i := range c.rec.Streams {
		if i.Ordinal == ordinal && i.Above < m && (!ok || i.Above > found.Above) {
			found, ok = i, true
		}
	}
	return found, ok
}

// streamOf is Options.StreamOf of the log.
func (c *cluster) streamOf(key hub.Key) (spokelog.Stream, bool) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	i, ok := c.mintedIn(key)
	return streamOf(i.Stream), ok
}

// hopeless reports whether it is known that a record is nowhere. If it is decided here, or replicated, or this disk was its writer's and writes that incarnation no more, all who have
// it can be asked: the disks on the lists; those that cannot read it either are as good as those that lack it. If it is not decided here, it may still be on its way to those who lack it – as what is replicated may for some time –, unless its writer's disk lacks it and its incarnation has ended:
// nothing is committed that the own disk has not.
func (c *cluster) hopeless(b spokelog.Broken, none census) bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	own := c.n.identity.ID
	disks := slices.Clone(c.rec.Disks)
	if c.rec.Next != nil {
		disks = append(disks, c.rec.Next.Disks...)
	}
	all := c.known && !slices.ContainsFunc(disks, func(d roster.Disk) bool { return d.ID != own && !none.disks[d.ID] && !none.damaged[d.ID] })
	i, minted := c.mintedIn(b.Key)
	if b.Flags&spokelog.Replicated != 0 || !minted { // nobody knows which stream brought it: whoever waits for it is answered by then, and sends it again
		return all && time.Since(b.Since) > 2*c.n.opt.WriteTimeout
	}
	m, _ := hub.MarkOf(b.Key)
	if i.Disk == own {
		return all && !(c.open && streamOf(i.Stream) == c.n.stream && m > c.n.lowOfFlight())
	}
	if s := c.streams[streamOf(i.Stream)]; s == nil || s.complete || m <= s.low {
		return all
	}
	now := c.present[i.Node]
	return none.disks[i.Disk] && now.Ordinal == i.Ordinal && now.Incarnation > i.Incarnation
}

// torn tells which records of a stream are all that is left of bulks of which a part is lost here, and that were never acknowledged: a part is lost once all others lack it, or its
// writer does. Nobody is to be told of them, or a bulk would show in part. Unless its writer's disk was enough to acknowledge it, which is this one: then the rest is worth having.
func (c *cluster) torn(s spokelog.Stream) func(named) bool {
	bulks := map[named]bool{}
	gone := c.n.store.Gone()
	c.n.mu.Lock()
	i, listed := c.rec.Find(recordOf(s))
	st := c.streams[s]
	if bare := listed && i.Disk == c.n.identity.ID && c.rec.Rule.Write(len(c.rec.Disks)) == 1; st == nil || st.complete || bare {
		gone = nil
	}
	for _, b := range gone {
		if m, minted := hub.MarkOf(b.Key); !minted || m <= st.low || b.Flags&spokelog.Replicated != 0 {
			continue
		}
		if bulk, ok := bulkOf(named{b.Channel, b.Key.String()}); ok {
			bulks[bulk] = true
		}
	}
	c.n.mu.Unlock()
	return func(k named) bool {
		bulk, ok := bulkOf(k)
		return ok && bulks[bulk]
	}
}

// endFlight ends the own incarnation if the record is one of a write that is not decided, and some node lacks it: nobody can be sent it any more, and the low that is sent must not pass
// it. It reports whether the write stays undecided, so that nobody was ever told that it is stored.
func (c *cluster) endFlight(ctx context.Context, b spokelog.Broken, none map[string]bool) bool {
	m, minted := hub.MarkOf(b.Key)
	if !minted || b.Flags&spokelog.Replicated != 0 || len(none) == 0 || time.Since(b.Since) < flightMended {
		return false
	}
	n := c.n
	n.mu.Lock()
	own := n.stream
	var hit *request
	if i, ok := c.mintedIn(b.Key); ok && c.open && streamOf(i.Stream) == own {
		n.flight.each(func(r *request) bool {
			if r.mark == m && !r.decided() {
				hit = r
			}
			return r.mark < m
		})
	}
	n.mu.Unlock()
	if hit == nil {
		return false
	}
	n.log.Warn("a write in flight is damaged on this disk, and others lack it: this incarnation ends", "stream", recordOf(own), "channel", b.Channel, "key", b.Key)
	if _, err := c.refuse(ctx, own); err != nil {
		n.log.Error("an incarnation could not be ended", "err", err)
		return false
	}
	poke(c.nudge)
	n.mu.Lock()
	defer n.mu.Unlock()
	return !hit.decided()
}
