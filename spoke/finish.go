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

const setChunk = 1000 // records of a set that are stored at once

// finishAll completes the streams that are closed on record and of which everything is here.
func (c *cluster) finishAll(ctx context.Context) {
	c.n.mu.Lock()
	var todo []roster.Incarnation
	for _, i := range c.rec.Streams {
		if s := c.streams[streamOf(i.Stream)]; i.Closed != nil && s != nil && !s.complete {
			todo = append(todo, i)
		}
	}
	c.n.mu.Unlock()
	for _, i := range todo {
		if err := c.finish(ctx, i); err != nil && ctx.Err() == nil {
			c.n.log.Debug("a closed incarnation is not whole here yet", "stream", i.Stream, "err", err)
		}
	}
}

// finish drops the low of a closed stream once everything of it is here, and gives up what is not in it.
func (c *cluster) finish(ctx context.Context, i roster.Incarnation) error {
	s := streamOf(i.Stream)
	low, err := c.refuse(ctx, s)
	if err != nil {
		return err
	}
	if c.isComplete(s) { // it was whole here once: of such a stream no low is kept, and a hole of the log is refilled
		low = max(low, i.Closed.Base)
	}
	if low < i.Closed.Base {
		return errors.New("what lies below the base is missing")
	}
	if err := c.setsStored(ctx, s); err != nil {
		return err
	}
	end, err := c.getEnding(ctx, i)
	if err != nil {
		return err
	}
	if f := end.Floor; f != nil { // what those who closed it had swept is not in the set, and is given up here: long-term storage has it
		if err := c.raiseFloor(keyOf(*f), end.Base); err != nil {
			return err
		}
	}
	if err := c.takeSent(ctx, i, end); err != nil {
		return err
	}
	if i.Closed.Forced {
		if err := c.finishForced(ctx, i, end, low); err != nil {
			return err
		}
		return c.completed(ctx, s)
	}
	if err := c.storeSet(ctx, s, end.Keys, nil, 0, true); err != nil {
		return err
	}
	h, err := c.holds(ctx, s, spokelog.From{Above: max(end.Base, 1), Lenient: true})
	if err != nil {
		return err
	}
	if err := c.giveUpBut(ctx, s, h, end.Keys); err != nil {
		return err
	}
	return c.completed(ctx, s)
}

func (c *cluster) isComplete(s spokelog.Stream) bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	st := c.streams[s]
	return st != nil && st.complete
}

// takeSent makes sure that what a closed stream has replicated is here, as far as it was acknowledged. A disk that stored the set has it. Another one asks those that have, or
// have completed the stream, which is the same, until one of them answers; unless none of these is a member any more: then all are asked for what there is, and all have to answer.
func (c *cluster) takeSent(ctx context.Context, i roster.Incarnation, end ending) error {
	s := streamOf(i.Stream)
	c.n.mu.Lock()
	nodes, others, lost, mine := []string(nil), 0, true, false
	for _, d := range c.rec.Disks {
		holder := slices.Contains(end.Holders, d.ID)
		if d.Node == c.opt.Node {
			continue
		}
		others++
		lost = lost && !holder
		switch {
		case !c.members[d.Node]: // each question to a machine that is gone takes seconds
		case holder:
			nodes = slices.Insert(nodes, 0, d.Node)
		default:
			nodes = append(nodes, d.Node)
		}
	}
	if st := c.streams[s]; st != nil && slices.Contains(end.Holders, c.n.identity.ID) {
		mine = !st.holed && !st.patched
	}
	c.n.mu.Unlock()
	if len(end.Holders) == 0 || mine {
		return nil
	}
	if !c.mayAskSent(s) {
		return errors.New("what it has replicated was asked for a moment ago")
	}
	for _, node := range nodes {
		h, err := c.askHeld(ctx, node, i.Stream, end.Base)
		if err != nil || !lost && !h.Done && !slices.Contains(end.Holders, h.Disk) {
			continue
		}
		if err := c.raiseFloor(keyOf(h.Floor), end.Base); err != nil {
			return err
		}
		have := map[string][]string{}
		for _, k := range h.Sent {
			have[k.Channel+"/"+k.Key] = []string{node}
		}
		if err := c.storeSet(ctx, s, h.Sent, have, spokelog.Replicated, false); err != nil || !lost || h.Done {
			return err
		}
		others--
	}
	if !lost || others > 0 {
		return errors.New("nobody who answers is known to have what it has replicated")
	}
	return nil
}

// mayAskSent says yes once in a while: being asked wakes a member, and what it does then may wake this one.
func (c *cluster) mayAskSent(s spokelog.Stream) bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	st := c.streams[s]
	if st == nil || time.Since(st.sentAsked) < settlePause {
		return false
	}
	st.sentAsked = time.Now()
	return true
}

// giveUpBut gives up what this disk holds of a stream, but for what is in its set.
func (c *cluster) giveUpBut(ctx context.Context, s spokelog.Stream, h held, set []named) error {
	inSet := map[named]bool{}
	for _, k := range set {
		inSet[k] = true
	}
	given := map[named]bool{}
	for _, k := range h.Given {
		given[k] = true
	}
	var names []spokelog.Record
	for _, k := range h.Keys {
		if inSet[k] || given[k] {
			continue
		}
		key, err := hub.ParseKey(k.Key)
		if err != nil {
			return err
		}
		names = append(names, spokelog.Record{Channel: k.Channel, Key: key, Stream: s, Flags: spokelog.GivenUp})
	}
	if len(names) == 0 {
		return nil
	}
	if err := c.store(ctx, names); err != nil {
		return err
	}
	c.n.log.Warn("records that were never acknowledged are given up", "stream", recordOf(s), "records", len(names))
	return nil
}

// completed drops the low of a stream of which everything is here.
func (c *cluster) completed(ctx context.Context, s spokelog.Stream) error {
	c.n.mu.Lock()
	st := c.streams[s]
	if st != nil {
		st.complete = true
	}
	c.n.mu.Unlock()
	err := c.save(ctx, nil, nil)
	c.moved()
	poke(c.nudge)
	return err
}

// store writes records of others to the own disk.
func (c *cluster) store(ctx context.Context, records []spokelog.Record) error {
	return c.storeBatch(ctx, &spokelog.Batch{Records: records})
}

// storeBatch lets the horizon tell who follows the channels, also of what is stored after nobody has waited for it any more.
func (c *cluster) storeBatch(ctx context.Context, b *spokelog.Batch) error {
	done := make(chan error, 1)
	c.n.mu.Lock()
	st := c.streams[b.Records[0].Stream]
	if st == nil {
		st = &peerStream{}
	}
	st.sets++ // until it is stored, whatever becomes of the one who waits for it
	c.n.mu.Unlock()
	b.Done = func(err error) {
		c.n.mu.Lock()
		st.sets--
		for i := range b.Records {
			if err == nil {
				c.await(&b.Records[i], false)
			}
		}
		c.n.mu.Unlock()
		done <- err
	}
	if err := c.n.store.Enqueue(b); err != nil {
		c.n.mu.Lock()
		st.sets--
		c.n.mu.Unlock()
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeSet stores a set for one who closes a stream. Not once its end is on record here: whoever comes late with another set would bring back what finish
// has given up, on this disk alone.
func (c *cluster) takeSet(ctx context.Context, o storeOrder) (hub.Mark, error) {
	s := streamOf(o.Stream)
	low, err := c.refuse(ctx, s)
	if err != nil {
		return 0, err
	}
	if low < o.Base {
		poke(c.work)
		return 0, hub.E(hub.Conflict, "what lies below the base is missing here")
	}
	c.n.mu.Lock()
	st := c.streams[s]
	i, listed := c.rec.Find(recordOf(s))
	if st == nil || !listed || i.Closed != nil {
		c.n.mu.Unlock()
		return 0, hub.E(hub.Conflict, "the stream %d.%d is closed already", s.Ordinal, s.Incarnation)
	}
	st.sets++
	c.n.mu.Unlock()
	defer func() {
		c.n.mu.Lock()
		st.sets--
		c.n.mu.Unlock()
	}()
	if err := c.storeSet(ctx, s, o.Sent, o.Have, spokelog.Replicated, false); err != nil {
		return low, err
	}
	return low, c.storeSet(ctx, s, o.Keys, o.Have, 0, false)
}

// setsStored waits for what was begun before the end of the stream was known here: a set of somebody else, also if he is gone by now.
func (c *cluster) setsStored(ctx context.Context, s spokelog.Stream) error {
	for {
		c.n.mu.Lock()
		st := c.streams[s]
		done := st == nil || st.sets == 0
		c.n.mu.Unlock()
		if done {
			return nil
		}
		if !hub.Sleep(ctx, time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// storeSet makes sure that the records of a set are on the own disk; those that are not are fetched from whoever has them. Before the set is on record, keys
// that were given up here stay so; final takes them back. as are flags of the records.
func (c *cluster) storeSet(ctx context.Context, s spokelog.Stream, keys []named, have map[string][]string, as spokelog.Flags, final bool) error {
	var records []spokelog.Record
	size, silent := 0, map[string]bool{}
	for _, k := range keys {
		key, err := hub.ParseKey(k.Key)
		if err != nil {
			return err
		}
		if _, err := c.n.store.Get(ctx, k.Channel, key); err == nil {
			continue
		}
		flags := as
		mine, err := c.n.store.Held(ctx, k.Channel, key)
		switch {
		case err == nil && !final:
			continue
		case err == nil:
			flags |= spokelog.Taken
		default:
			if mine.Data, err = c.fetch(ctx, k, have[k.Channel+"/"+k.Key], silent); err != nil {
				if final && key.Less(c.n.store.Floor()) && c.archived(k.Channel, key) { // it was swept where it was
					continue
				}
				return err
			}
			if final { // its name may be here although its data is not
				flags |= spokelog.Taken
			}
		}
		if as&spokelog.Replicated != 0 && !c.n.passed(k.Channel).Less(key) {
			flags |= spokelog.Late
		}
		records = append(records, spokelog.Record{Channel: k.Channel, Key: key, Stream: s, Flags: flags, Data: mine.Data})
		if size += len(mine.Data); size >= frameTarget || len(records) >= setChunk { // what was fetched is kept, or one who has little time begins again for ever
			if err := c.storeOf(ctx, records); err != nil {
				return err
			}
			records, size = nil, 0
		}
	}
	return c.storeOf(ctx, records)
}

// archived reports whether long-term storage has a key, or nobody needs its channel. That it lies below the floor says nothing of that: a new disk has a floor, too.
func (c *cluster) archived(channel string, key hub.Key) bool {
	if c.n.opt.Archived == nil {
		return false
	}
	upTo, known := c.n.opt.Archived(channel)
	return !known || !upTo.Less(key)
}

// storeOf writes records of others, if there are any.
func (c *cluster) storeOf(ctx context.Context, records []spokelog.Record) error {
	if len(records) == 0 {
		return nil
	}
	return c.store(ctx, records)
}
