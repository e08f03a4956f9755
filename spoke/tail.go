package spoke

import (
	"iter"
	"net"
	"slices"
	"time"

	"timehub/hub"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
)

// tailRoom is how many bytes may wait for one peer; whoever is further behind is sent what the writer's disk has.
const tailRoom = 64 << 20

// tail is what one peer is to be sent of the own stream. Its fields but low are guarded by Node.mu.
type tail struct {
	disk    string
	low     hub.Mark      // of the last frame; of whoever sends
	wake    chan struct{} // one token
	stopped chan struct{} // closed when the own incarnation has ended

	queue  []parcel
	bytes  int    // in it
	pos    uint64 // of the last batch that was sent or is in the queue
	broken bool   // there was no room: the queue is empty, and what comes is left out
	live   bool   // the queue follows what was read from the disk: the peer can be counted on

	offers    []*cargo          // to be brought ahead of their frames
	load      *cargo            // that is being sent
	loadAt    int               // bytes of it that were
	there     map[*cargo]uint64 // sent and not named by a frame: with the value of partsSent at their end
	held      int               // bytes of load and there: the peer keeps them
	drops     []uint64          // that the peer may forget
	beating   beating
	partsSent uint64 // bytes of parts on this connection
	partsCame uint64 // that the peer has
}

// parcel is a batch of the own stream on its way to a peer.
type parcel struct {
	records []spokelog.Record
	pos     uint64
	size    int
	cargo   *cargo // the data of the records, if it goes ahead of them
}

// fan puts a batch that has gone to the own log into the queues of all peers; lows wakes them when the log begins the next group, so that what becomes one
// group here goes out as one frame. Nothing is lost by that: no record is decided before it is on the own disk. g has the data if it is large. Under mu.
func (c *cluster) fan(records []spokelog.Record, g *cargo) (pos uint64) {
	c.pos++
	c.own.outstanding++
	if len(c.tails) > 0 { // a peer may be slower than the quorum, and the writer uses its memory again when it is answered
		p := parcel{records: slices.Clone(records), pos: c.pos, cargo: g}
		if g != nil {
			c.number(g)
			p.size = g.size
			for i := range p.records {
				p.records[i].Data = g.data[i]
			}
		} else {
			p.size = ownData(p.records)
		}
		for i := range p.records {
			r := &p.records[i]
			p.size += len(r.Channel) + 64
			if r.Flags |= spokelog.MoreFollows; i == len(p.records)-1 {
				r.Flags &^= spokelog.MoreFollows // as the log stores a batch
			}
		}
		for t := range c.tails {
			t.put(p)
		}
	}
	for i := range records {
		if records[i].Flags&(spokelog.Replicated|spokelog.Complete) == 0 { // nothing waits for a decision of the others: they wake when they are stored
			c.await(&records[i], true)
		}
	}
	return c.pos
}

// ownData gives records a copy of their data, and returns its length.
func ownData(records []spokelog.Record) (size int) {
	for i := range records {
		size += len(records[i].Data)
	}
	all := make([]byte, 0, size)
	for i := range records {
		at := len(all)
		all = append(all, records[i].Data...)
		records[i].Data = all[at:len(all):len(all)]
	}
	return size
}

// put queues a parcel, if there is room. Under mu.
func (t *tail) put(p parcel) {
	switch {
	case t.broken:
	case t.bytes+p.size > tailRoom && t.bytes > 0:
		t.clear()
		t.broken = true
	default:
		t.queue, t.bytes = append(t.queue, p), t.bytes+p.size
		if p.cargo != nil { // the queue asks for it
			t.offers = slices.DeleteFunc(t.offers, func(g *cargo) bool { return g == p.cargo })
		}
	}
}

// clear empties the queue. Under mu.
func (t *tail) clear() {
	for _, p := range t.queue {
		if p.cargo != nil {
			t.forget(p.cargo)
		}
	}
	t.queue, t.bytes = nil, 0
}

// load is what is to be sent at once, in this order.
type load struct {
	drops   []uint64
	parcels []parcel
	last    frame.Frame // position, epoch and low of the last frame
	part    []byte      // a message
	beat    time.Duration
}

// next takes what may go: the queue up to the first request whose bytes are not there yet. Until everything of it is sent, low stays where it was; with low,
// everything that was enqueued before has been sent. False: the incarnation has ended.
func (c *cluster) next(t *tail) (l load, ok bool) {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := c.tails[t]; !ok { // another incarnation may be open, and its low is not that of this one
		return l, false
	}
	select {
	case <-t.wake: // whatever it was for goes out now
	default:
	}
	k := 0
	for ; k < len(t.queue); k++ {
		p := &t.queue[k]
		if p.cargo != nil {
			if !t.has(p.cargo) {
				break
			}
			delete(t.there, p.cargo)
			t.held -= p.cargo.size
		}
		t.bytes -= p.size
		t.pos = p.pos
	}
	l.parcels = t.queue[:k:k]
	if t.queue = t.queue[k:]; len(t.queue) == 0 {
		t.queue, t.bytes = nil, 0
		if !t.broken {
			t.low = n.ownLow()
		}
	}
	l.last = frame.Frame{Pos: t.pos, Epoch: c.epoch(), Low: t.low}
	l.drops, t.drops = t.drops, nil
	l.part = t.part()
	l.beat = t.beating.speaks(c.opt.Beat, c.stirred)
	c.together()
	return l, true
}

// send sends a load; the last of its frames carries position and low. It uses and returns buf, unless that has become large.
func (l *load) send(conn net.Conn, buf []byte) ([]byte, error) {
	for _, id := range l.drops {
		buf = frame.AppendDrop(buf, id)
	}
	f, size := frame.Frame{Epoch: l.last.Epoch}, 0
	flush := func() error {
		buf = frame.Append(buf, &f)
		err := write(conn, buf)
		buf, f, size = buf[:0], frame.Frame{Epoch: l.last.Epoch}, 0
		return err
	}
	for _, p := range l.parcels {
		if len(f.Records) > 0 && (p.cargo != nil || f.Cargo != 0 || size+p.size > frameTarget) {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		if f.Records, size = append(f.Records, p.records...), size+p.size; p.cargo != nil {
			f.Cargo, size = p.cargo.id, 0
		}
	}
	f.Pos, f.Low = l.last.Pos, l.last.Low
	err := flush()
	if err == nil && l.part != nil {
		err = write(conn, l.part)
	}
	if cap(buf) > 2*frameTarget {
		buf = nil
	}
	return buf, err
}

// inPieces cuts what is read of a log into frames of whole requests: of about frameTarget, or of a single request.
func inPieces(all iter.Seq2[spokelog.Record, error], send func([]spokelog.Record) error) error {
	var list []spokelog.Record
	size, whole, since := 0, 0, 0 // whole: records of requests that have ended; since: bytes behind them
	flush := func(k int) error {
		if k == 0 {
			return nil
		}
		piece := list[:k:k]
		piece[k-1].Flags &^= spokelog.MoreFollows // a request that was torn apart by a sweep
		list = slices.Clone(list[k:])
		return send(piece)
	}
	for r, err := range all {
		if err != nil {
			return err
		}
		list = append(list, r)
		n := sizeOf(&r)
		size, since = size+n, since+n
		if size > frameTarget && whole > 0 {
			if err := flush(whole); err != nil {
				return err
			}
			size, whole = since, 0
		}
		if r.Flags&spokelog.MoreFollows == 0 {
			whole, since = len(list), 0
		}
	}
	return flush(len(list))
}

func sizeOf(r *spokelog.Record) int { return len(r.Data) + len(r.Channel) + len(r.Key.Hash()) + 64 }
