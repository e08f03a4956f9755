package spoke

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"timehub/hub"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
)

// repairSays is how often a long repair says how far it is.
const repairSays = 10 * time.Second

// told is how a node answers when it is asked how it stands.
type told struct {
	node  string
	state peerState
	err   error
}

// keepWorking repairs what lags behind, and completes what is closed. Nobody is waited for: a machine that is gone answers nothing at all for a long time, and
// must not hold up what can be had from the rest.
func (c *cluster) keepWorking(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	asking := map[string]bool{} // nodes that have not answered yet; true: they are to be asked again then
	answers := make(chan told)
	ask := func(node string) {
		asking[node] = false
		wg.Go(func() {
			state, err := c.askState(ctx, node)
			select {
			case answers <- told{node, state, err}:
			case <-ctx.Done():
			}
		})
	}
	timer := time.NewTicker(learnEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-answers:
			again := asking[a.node]
			delete(asking, a.node)
			if a.err == nil {
				c.repair(ctx, a)
			}
			if again && len(c.lagging()) > 0 {
				ask(a.node)
			}
			c.complete(ctx)
			continue
		case <-c.work:
		case <-timer.C:
		}
		for _, node := range c.nodes() {
			if node == c.opt.Node || len(c.lagging()) == 0 {
				continue
			}
			if _, asked := asking[node]; asked {
				asking[node] = true
				continue
			}
			ask(node)
		}
		c.copyLate(ctx)
		c.complete(ctx)
	}
}

// complete completes what is here by now.
func (c *cluster) complete(ctx context.Context) {
	c.saveAgain(ctx)
	c.finishAll(ctx)
	if err := c.heal(ctx); err != nil && ctx.Err() == nil {
		c.n.log.Error("that the holes of the log are mended could not be written down", "err", err)
	}
}

// lagging lists the streams that nobody sends here and of which something may be missing.
func (c *cluster) lagging() (todo []spokelog.Stream) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for id, s := range c.streams {
		if !s.complete && s.in == nil && s.outstanding == 0 && !(c.open && id == c.n.stream) {
			todo = append(todo, id)
		}
	}
	return todo
}

// repair copies from another one what this disk has missed: of a stream that nobody sends here, a prefix together with its low (ENGINE §4).
func (c *cluster) repair(ctx context.Context, a told) {
	speed := &pace{rate: c.opt.RepairRate}
	for _, id := range c.lagging() {
		c.n.mu.Lock()
		known := a.state.Epoch <= c.epoch()
		c.n.mu.Unlock()
		if !known { // its lows may count what this list does not know
			poke(c.nudge)
			return
		}
		c.repairFrom(ctx, a.node, a.state, id, speed)
	}
}

// repairFrom brings one stream up to where another member has it.
func (c *cluster) repairFrom(ctx context.Context, node string, state peerState, id spokelog.Stream, speed *pace) {
	c.n.mu.Lock()
	s := c.streams[id]
	i, ok := c.rec.Find(recordOf(id))
	closed, mine := s != nil && ok && i.Closed != nil, hub.Mark(0)
	if s != nil {
		mine = s.low
	}
	c.n.mu.Unlock()
	if closed { // of its set something may be in long-term storage only
		if err := c.raiseFloor(keyOf(state.Floor), mine); err != nil {
			c.n.log.Error("the floor of the log cannot be raised", "err", err)
			return
		}
	}
	if err := c.copyFrom(ctx, source{node, state.Disk}, id, state.Lows[recordOf(id).String()], speed); err != nil && ctx.Err() == nil {
		c.n.log.Debug("a stream could not be repaired", "peer", node, "stream", recordOf(id), "err", err)
	}
}

// copyFrom brings a stream up to the low that another member has applied.
func (c *cluster) copyFrom(ctx context.Context, of source, id spokelog.Stream, low hub.Mark, speed *pace) error {
	c.n.mu.Lock()
	s := c.streams[id]
	if s == nil { // its change was withdrawn
		c.n.mu.Unlock()
		return nil
	}
	mine, busy := s.low, s.in != nil || s.outstanding > 0 || s.complete
	c.n.mu.Unlock()
	if busy || low <= mine {
		return nil
	}
	records, said := 0, time.Now()
	err := c.askRecords(ctx, of, id, mine, low, func(list []spokelog.Record) error {
		list = slices.Concat(c.missing(ctx, id, split(list))...)
		if len(list) == 0 {
			return nil
		}
		if err := c.storeBatch(ctx, &spokelog.Batch{Records: list, Several: true}); err != nil { // a sync for each request would take hours
			return err
		}
		records += len(list)
		size := 0
		for i := range list {
			size += len(list[i].Data)
		}
		c.meters.repaired.Add(int64(len(list)))
		c.meters.bytes.Add(int64(size))
		if time.Since(said) >= repairSays {
			said = time.Now()
			c.n.log.Info("a stream is being repaired", "peer", of.node, "stream", recordOf(id), "records", records, "at", list[len(list)-1].Key, "up to", low.Key())
		}
		if !speed.wait(ctx, size) {
			return context.Cause(ctx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.n.mu.Lock()
	if s.in != nil {
		c.n.mu.Unlock()
		return errors.New("the writer has come back meanwhile")
	}
	s.low = max(s.low, low)
	c.n.minter.Raise(min(low, c.n.limit-1))
	c.n.mu.Unlock()
	if records > 0 {
		c.n.log.Info("a stream was repaired", "peer", of.node, "stream", recordOf(id), "records", records, "up to", low.Key())
	}
	c.moved()
	return nil
}

func floorOf(k hub.Key) frame.Floor { return frame.Floor{Millis: k.Millis(), Hash: k.Hash()} }

func keyOf(f frame.Floor) hub.Key { return hub.KeyAt(f.Millis, f.Hash) }

// raiseFloor: what another log had of a stream below its floor is in long-term storage, or nobody needs it. Whoever copies the stream from a mark below that floor on misses
// it, and has to send its readers there too.
func (c *cluster) raiseFloor(floor hub.Key, mine hub.Mark) error {
	if mine >= hub.MarkAt(floor.Millis()+1) {
		return nil
	}
	return c.floorTo(floor)
}

// floorTo raises the floor of the own log. What lies below it is looked for in long-term storage from now on: whoever waits for something there is woken, since no record tells of it.
func (c *cluster) floorTo(floor hub.Key) error {
	before := c.n.store.Floor()
	err := c.n.store.RaiseFloor(floor)
	if before.Less(c.n.store.Floor()) {
		c.n.board.notifyWatched()
	}
	return err
}
