package spoke

import (
	"context"
	"errors"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// posWaiter waits until enough disks have the own stream up to a position.
type posWaiter struct {
	pos  uint64
	err  error      // to be answered: the own disk did not take it
	done chan error // holds one
}

// synced is Node.synced among others: the own disk alone decides nothing.
func (c *cluster) synced(r *request, err error) {
	n := c.n
	n.mu.Lock()
	r.of.outstanding--
	switch {
	case r.of != c.own: // it was stopped, and the writer was told: settling decides
		n.mu.Unlock()
		return
	case errors.Is(err, spokelog.ErrClosed): // settling decides
		n.mu.Unlock()
		r.answer(errGivenUp.Because(err))
		return
	case err != nil: // the others may have it: only its name can end it
		c.ownPos = max(c.ownPos, r.pos)
		if r.state == undecided {
			r.state, r.gave = givingUp, time.Now()
			n.name(r)
		}
	default:
		r.onDisk = true
		c.ownPos = max(c.ownPos, r.pos)
	}
	c.decide()
	channels := c.passed()
	n.mu.Unlock()
	if err != nil {
		r.answer(errGivenUp.Because(err))
	}
	for _, ch := range channels {
		n.board.notify(ch)
	}
}

// nameSynced is Node.nameSynced among others.
func (c *cluster) nameSynced(r *request, pos uint64, err error) {
	n := c.n
	n.mu.Lock()
	r.of.outstanding--
	switch {
	case r.of != c.own, r.decided():
	case errors.Is(err, spokelog.ErrClosed): // settling decides; what was enqueued behind it is known to be lost, and moves the position on
		r.namePos = 0
	case err != nil: // the name was not kept here: it counts for nothing
		c.ownPos = max(c.ownPos, pos)
		r.namePos = 0
		n.name(r)
	default:
		c.ownPos = max(c.ownPos, pos)
	}
	c.decide()
	channels := c.passed()
	n.mu.Unlock()
	for _, ch := range channels {
		n.board.notify(ch)
	}
}

// keepNamed ends the own incarnation when its disk does not take the name of a key for long, being full or broken: low cannot pass that key, and everybody's horizon would wait for
// as long as this node has a session. The others know enough to close it.
func (c *cluster) keepNamed(ctx context.Context) error {
	at, since := uint64(0), time.Now() // how far the own disk is, and since when
	for hub.Sleep(ctx, learnEvery) {
		n := c.n
		n.mu.Lock()
		if c.ownPos != at {
			at, since = c.ownPos, time.Now()
		}
		own, hit, stands := n.stream, false, time.Since(since) > c.illTime()
		n.flight.each(func(r *request) bool {
			hit = r.state == givingUp && time.Since(r.gave) > c.illTime() && (r.namePos == 0 || r.namePos > c.ownPos && stands)
			return !hit
		})
		n.mu.Unlock()
		if hit {
			n.log.Error("the disk does not take what has to be known of writes that were given up: this incarnation ends, so that the other nodes can go on", "stream", recordOf(own))
			c.refusedBy(ctx, own)
		}
	}
	return nil
}

// put is Node.put among others: it returns when enough disks have the records.
func (c *cluster) put(ctx context.Context, records []spokelog.Record) error {
	n := c.n
	done := make(chan error, 1)
	data := make([][]byte, len(records))
	for i := range records {
		data[i] = records[i].Data
	}
	large, err := c.preload(ctx, data)
	if err != nil {
		return err
	}
	n.mu.Lock()
	err = c.writable()
	if err == nil {
		for i := range records {
			records[i].Stream = n.stream
		}
		of, pos := c.own, c.pos+1
		if err = n.store.Enqueue(&spokelog.Batch{Records: records, Done: func(err error) { c.putSynced(of, pos, records, done, err) }}); err == nil {
			c.fan(records, large)
		}
	}
	n.mu.Unlock()
	if err != nil {
		c.drop(large)
		return err
	}
	timer := time.NewTimer(n.opt.WriteTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errGivenUp // the keys are the source's: what is sent again is not stored twice
	}
}

// putSynced is told that records are on this disk, or surely not.
func (c *cluster) putSynced(of *peerStream, pos uint64, records []spokelog.Record, done chan error, err error) {
	n := c.n
	if err != nil {
		err = lost(err)
	}
	n.mu.Lock()
	of.outstanding--
	if err == nil { // they show from now on, also when nobody waits for it any more
		for i := range records {
			c.await(&records[i], true)
		}
	}
	if of == c.own {
		c.ownPos = max(c.ownPos, pos)
		if pos <= c.quorum {
			done <- err
		} else {
			c.waiters = append(c.waiters, posWaiter{pos, err, done})
		}
		c.decide()
	} else {
		done <- errGivenUp
	}
	channels := c.passed()
	n.mu.Unlock()
	for _, ch := range channels {
		n.board.notify(ch)
	}
}
