package spoke

import (
	"context"
	"errors"
	"slices"
	"time"

	spokelog "timehub/spoke/log"
)

// posWaiter waits until enough disks have the own stream up to a position.
type posWaiter struct {
	pos  uint64
	err  error      // to be answered: the own disk did not take it
	done chan error // holds one
}

// tailRoom is how many bytes may wait for one peer; whoever is further behind begins again from the writer's disk.
const tailRoom = 64 << 20

// tail is the queue of records for one peer.
type tail struct {
	disk    string
	queue   []spokelog.Record
	bytes   int
	pos     uint64 // of the last batch in the queue
	broken  bool   // the peer was too slow
	wake    chan struct{}
	stopped chan struct{} // closed when the own incarnation has ended
}

// fan puts a batch that has gone to the own log into the queues of all peers; lows wakes them when the log begins the next group, so that what becomes one
// group here goes out as one frame. Nothing is lost by that: no record is decided before it is on the own disk. Under mu.
func (c *cluster) fan(records []spokelog.Record) (pos uint64) {
	c.pos++
	c.own.outstanding++
	size := 0
	if len(c.tails) > 0 { // a peer may be slower than the quorum, and the writer uses its memory again when it is answered
		records, size = cloned(records)
	}
	for t := range c.tails {
		if t.broken {
			continue
		}
		if t.bytes+size > tailRoom && t.bytes > 0 {
			t.broken, t.queue, t.bytes = true, nil, 0
		} else {
			t.queue = append(t.queue, records...)
			for i := len(t.queue) - len(records); i < len(t.queue)-1; i++ {
				t.queue[i].Flags |= spokelog.MoreFollows // as the log stores a batch
			}
			t.bytes, t.pos = t.bytes+size, c.pos
		}
	}
	for i := range records {
		c.await(&records[i])
	}
	return c.pos
}

// cloned copies records with their data, and adds up what they take in a queue.
func cloned(records []spokelog.Record) ([]spokelog.Record, int) {
	records = slices.Clone(records)
	size := 0
	for i := range records {
		size += len(records[i].Data)
	}
	all := make([]byte, 0, size)
	for i := range records {
		r := &records[i]
		at := len(all)
		all = append(all, r.Data...)
		r.Data = all[at:len(all):len(all)]
		size += len(r.Channel) + 64
	}
	return records, size
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
			r.state = givingUp
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
	case r.of != c.own, r.decided(), errors.Is(err, spokelog.ErrClosed):
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

// put is Node.put among others: it returns when enough disks have the records.
func (c *cluster) put(ctx context.Context, records []spokelog.Record) error {
	n := c.n
	done := make(chan error, 1)
	n.mu.Lock()
	err := c.writable()
	if err == nil {
		for i := range records {
			records[i].Stream = n.stream
		}
		of, pos := c.own, c.pos+1
		if err = n.store.Enqueue(&spokelog.Batch{Records: records, Done: func(err error) { c.putSynced(of, pos, done, err) }}); err == nil {
			c.fan(records)
		}
	}
	n.mu.Unlock()
	if err != nil {
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

func (c *cluster) putSynced(of *peerStream, pos uint64, done chan error, err error) {
	n := c.n
	if err != nil {
		err = lost(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	of.outstanding--
	if of != c.own {
		done <- errGivenUp
		return
	}
	c.ownPos = max(c.ownPos, pos)
	if pos <= c.quorum {
		done <- err
	} else {
		c.waiters = append(c.waiters, posWaiter{pos, err, done})
	}
	c.decide()
}
