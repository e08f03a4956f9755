package spoke

import (
	"cmp"
	"context"
	"slices"
	"time"

	"timehub/spoke/frame"
)

// A request of more than cargoBytes does not travel within a frame, where everything behind it would wait for it: its bytes go ahead in parts, between the
// frames, and its frame only names them (ENGINE §4). Where that may be, the parts come before the key is minted: what takes long then holds no horizon.
const (
	cargoBytes  = 256 << 10
	partsAhead  = 256 << 10 // bytes of parts that may be on their way: a frame waits for no more than these
	offersBytes = 64 << 20  // bytes of requests without a key that a peer keeps; a larger request gets its key first
)

// cargo is the bytes of one large request.
type cargo struct {
	id   uint64 // 0 until somebody has to be sent it
	data [][]byte
	size int
}

// loading is a cargo whose request waits for it to be at enough disks.
type loading struct {
	disks map[string]bool
	moved time.Time // when a part of it was last acknowledged
	done  chan error
}

// cargoOf copies the data of records, if it is enough for a cargo and there is somebody to send it to; nil: not so.
func (c *cluster) cargoOf(data [][]byte) *cargo {
	g := &cargo{}
	for _, d := range data {
		g.size += len(d)
	}
	c.n.mu.Lock()
	alone := len(c.tails) == 0
	c.n.mu.Unlock()
	if g.size <= cargoBytes || alone {
		return nil
	}
	for _, d := range data { // a peer may be slower than the quorum, and the writer uses its memory again when it is answered
		g.data = append(g.data, slices.Clone(d))
	}
	return g
}

// piece is what comes at an offset, at most one part.
func (g *cargo) piece(at int) []byte {
	var b []byte
	for _, d := range g.data {
		if at >= len(d) {
			at -= len(d)
			continue
		}
		n := min(len(d)-at, frame.PartBytes-len(b))
		if b == nil && n == frame.PartBytes {
			return d[at : at+n]
		}
		b = append(b, d[at:at+n]...)
		if at = 0; len(b) == frame.PartBytes {
			break
		}
	}
	return b
}

// preload brings the bytes of a large request to the peers before it gets a key, and returns when enough have them. It gives up when nothing moves for the
// time that a write may take. What it returns has to be fanned or dropped; nil: the request is small, or goes another way.
func (c *cluster) preload(ctx context.Context, data [][]byte) (*cargo, error) {
	g := c.cargoOf(data)
	if g == nil || g.size > offersBytes {
		return g, nil
	}
	n := c.n
	l := &loading{disks: map[string]bool{n.Identity().ID: true}, moved: time.Now(), done: make(chan error, 1)}
	n.mu.Lock()
	if err := c.writable(); err != nil || c.rec.Committed(l.disks) {
		n.mu.Unlock()
		return g, err
	}
	c.number(g)
	c.loads[g] = l
	for t := range c.tails {
		if t.live {
			t.offers = append(t.offers, g)
			poke(t.wake)
		}
	}
	n.mu.Unlock()
	err := c.loaded(ctx, l)
	n.mu.Lock()
	delete(c.loads, g)
	n.mu.Unlock()
	if err != nil {
		c.drop(g)
		return nil, err
	}
	return g, nil
}

// offer offers a tail that was not live before what is being brought to the others: it would else begin with it when the frame is due, and hold its horizon for as
// long as all of it takes. Under mu.
func (c *cluster) offer(t *tail) {
	for g := range c.loads {
		if _, there := t.there[g]; !there && t.load != g && !slices.Contains(t.offers, g) {
			t.offers = append(t.offers, g)
		}
	}
	slices.SortFunc(t.offers, func(a, b *cargo) int { return cmp.Compare(a.id, b.id) })
}

// loaded waits until a cargo is at enough disks.
func (c *cluster) loaded(ctx context.Context, l *loading) error {
	look := time.NewTicker(c.n.opt.WriteTimeout / 10)
	defer look.Stop()
	for {
		select {
		case err := <-l.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
		c.n.mu.Lock()
		quiet := time.Since(l.moved)
		err := c.writable()
		c.n.mu.Unlock()
		if err != nil {
			return err
		}
		if quiet >= c.n.opt.WriteTimeout {
			return tryAgain("the other nodes do not take the bytes of this write; nothing of it was stored")
		}
	}
}

// number gives a cargo its number. Under mu.
func (c *cluster) number(g *cargo) {
	if g.id == 0 {
		c.cargoes++
		g.id = c.cargoes
	}
}

// drop tells the peers that a cargo is not needed.
func (c *cluster) drop(g *cargo) {
	if g == nil {
		return
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for t := range c.tails {
		t.forget(g)
		poke(t.wake)
	}
}

// forget lets go of a cargo that no frame of this tail has named. Under mu.
func (t *tail) forget(g *cargo) {
	t.offers = slices.DeleteFunc(t.offers, func(o *cargo) bool { return o == g })
	_, there := t.there[g]
	if t.load == g {
		t.load, there = nil, true
	}
	if there {
		delete(t.there, g)
		t.held -= g.size
		t.drops = append(t.drops, g.id)
	}
}

// has reports whether the peer has told that it has all of a cargo. Under mu.
func (t *tail) has(g *cargo) bool {
	end, sent := t.there[g]
	return sent && t.partsCame >= end
}

// part is the next part to be sent, nil if there is none, or too much is on its way. Under mu.
func (t *tail) part() []byte {
	if t.load == nil {
		t.load, t.loadAt = t.nextLoad(), 0
		if t.load == nil {
			return nil
		}
		t.held += t.load.size
		t.offers = slices.DeleteFunc(t.offers, func(o *cargo) bool { return o == t.load })
	}
	if t.partsSent-t.partsCame >= partsAhead {
		return nil
	}
	g := t.load
	piece := g.piece(t.loadAt)
	t.loadAt += len(piece)
	t.partsSent += uint64(len(piece))
	if t.loadAt == g.size {
		t.there[g] = t.partsSent
		t.load = nil
	}
	return frame.AppendPart(nil, g.id, uint64(g.size), piece)
}

// nextLoad is the cargo to be sent next: the one that the queue waits for, or else the first on offer, unless the peer keeps too much already. Under mu.
func (t *tail) nextLoad() *cargo {
	if len(t.queue) > 0 {
		if g := t.queue[0].cargo; g != nil {
			if _, sent := t.there[g]; !sent {
				return g
			}
		}
	}
	if len(t.offers) > 0 && t.held+t.offers[0].size <= offersBytes {
		return t.offers[0]
	}
	return nil
}

// came takes in how many bytes of parts a peer has. Under mu.
func (c *cluster) came(t *tail, parts uint64) {
	if parts <= t.partsCame {
		return
	}
	t.partsCame = parts
	poke(t.wake)
	if l := c.loads[t.load]; l != nil { // t.load may be nil
		l.moved = time.Now()
	}
	for g, l := range c.loads {
		if _, sent := t.there[g]; sent {
			l.moved = time.Now()
		}
		if t.has(g) && !l.disks[t.disk] {
			l.disks[t.disk] = true
			if c.rec.Committed(l.disks) {
				select {
				case l.done <- nil:
				default:
				}
			}
		}
	}
}
