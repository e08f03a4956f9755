package spoke

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"timehub/hub"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
)

const (
	upgradeTo    = "hub-spoke/1"
	streamPath   = "/internal/spoke/stream"
	frameTarget  = 2 << 20          // bytes of a frame, unless a single request is larger
	quietStep    = 256 << 10        // bytes that a peer has streamQuiet for
	streamQuiet  = 5 * time.Second  // a stream on which nothing comes or goes is given up
	ownWait      = 20 * time.Second // for the own disk, when a peer begins
	refusedPause = time.Second
	refusalText  = 500 // bytes of what a peer says that takes no stream
)

var errRefused = errors.New("a peer refuses this incarnation")

// keepSending keeps one stream to each other node on the list.
func (c *cluster) keepSending(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[string]context.CancelFunc{}
	for {
		want := map[string]bool{}
		c.n.mu.Lock()
		for _, d := range c.rec.Disks {
			want[d.Node] = true
		}
		if c.rec.Next != nil {
			for _, d := range c.rec.Next.Disks {
				want[d.Node] = true
			}
		}
		c.n.mu.Unlock()
		delete(want, c.opt.Node)
		for node := range want {
			if running[node] == nil {
				inner, cancel := context.WithCancel(ctx)
				running[node] = cancel
				wg.Go(func() { c.keepTail(inner, node) })
			}
		}
		for node, cancel := range running {
			if !want[node] {
				cancel()
				delete(running, node)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.listed:
		}
	}
}

// keepTail streams to one node, again and again.
func (c *cluster) keepTail(ctx context.Context, node string) {
	said := ""
	for ctx.Err() == nil {
		c.n.mu.Lock()
		open, own := c.open, c.n.stream
		c.n.mu.Unlock()
		if open {
			err := c.sendTo(ctx, node, own)
			c.ended(node, err)
			switch {
			case errors.Is(err, errRefused):
				c.refusedBy(ctx, own)
				hub.Sleep(ctx, refusedPause)
			case err != nil && ctx.Err() == nil && err.Error() != said:
				said = err.Error()
				c.n.log.Debug("the stream to a peer ended", "peer", node, "err", err)
			}
		}
		hub.Sleep(ctx, peerPause)
	}
}

// ended remembers why there is no stream to a node.
func (c *cluster) ended(node string, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	delete(c.why, node)
	if err != nil {
		c.why[node] = err.Error()
	}
}

// refusedBy: somebody closes this incarnation. It stops, and another one follows.
func (c *cluster) refusedBy(ctx context.Context, own spokelog.Stream) {
	if _, err := c.refuse(ctx, own); err != nil {
		c.n.log.Error("an incarnation that is refused could not be stopped", "err", err)
	}
	poke(c.nudge)
}

// upgrade opens a stream.
func (c *cluster) upgrade(ctx context.Context, node string) (net.Conn, *bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	conn, err := c.opt.Dial(ctx, "tcp", node)
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(callTime))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+node+streamPath, nil)
	if err == nil {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", upgradeTo)
		err = req.Write(conn)
	}
	var br *bufio.Reader
	if err == nil {
		br = bufio.NewReaderSize(patient{conn}, 64<<10)
		var resp *http.Response
		if resp, err = http.ReadResponse(br, req); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			said, _ := io.ReadAll(io.LimitReader(resp.Body, refusalText))
			err = fmt.Errorf("it answers %s %s", resp.Status, bytes.TrimSpace(said))
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, br, nil
}

// sendTo streams the own incarnation to one node until something ends it.
func (c *cluster) sendTo(ctx context.Context, node string, own spokelog.Stream) error {
	conn, br, err := c.upgrade(ctx, node)
	if err != nil {
		return err
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer unhook()
	n := c.n
	n.mu.Lock()
	h := frame.Hello{Node: c.opt.Node, Disk: n.identity.ID, Stream: own, Epoch: c.epoch()}
	n.mu.Unlock()
	if _, err := conn.Write(frame.AppendJSON(nil, frame.KindHello, h)); err != nil {
		return err
	}
	k, payload, err := frame.Read(br, frame.MaxGreeting)
	if err != nil {
		return err
	}
	w, err := greeted(k, payload)
	if err != nil {
		return err
	}
	t, ok := c.attach(node, w.Disk, own)
	if !ok {
		return errEnded
	}
	defer c.detach(t)
	ended := make(chan struct{})
	var why error // of the end, once ended is closed
	go func() {   // ends with the connection
		defer close(ended)
		why = c.readAcks(br, t)
	}()
	err = c.feedTail(ctx, conn, t, own, w.Low, ended)
	_ = conn.Close()
	<-ended
	if errors.Is(why, errRefused) {
		return why
	}
	return err
}

func greeted(k frame.Kind, payload []byte) (frame.Welcome, error) {
	var w frame.Welcome
	switch k {
	case frame.KindWelcome:
		return w, frame.ParseJSON(payload, &w)
	case frame.KindRefusal:
		return w, errRefused
	case frame.KindAway:
		var a frame.Away
		_ = frame.ParseJSON(payload, &a)
		return w, fmt.Errorf("the peer does not take the stream: %s", a.Why)
	}
	return w, fmt.Errorf("%w: a message of kind %d", frame.ErrInvalid, k)
}

// epoch is that of the list, or of the change that is announced. Under mu.
func (c *cluster) epoch() uint64 {
	if c.rec.Next != nil {
		return c.rec.Next.Epoch
	}
	return c.rec.Epoch
}

// attach begins to follow the own stream for a peer.
func (c *cluster) attach(node, disk string, own spokelog.Stream) (t *tail, ok bool) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if !c.open || c.n.stream != own {
		return nil, false
	}
	delete(c.why, node)
	t = &tail{disk: disk, wake: make(chan struct{}, 1), stopped: make(chan struct{}), there: map[*cargo]uint64{}}
	c.tails[t] = struct{}{}
	return t, true
}

// attached reports whether the incarnation that a tail follows goes on.
func (c *cluster) attached(t *tail) bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	_, ok := c.tails[t]
	return ok
}

func (c *cluster) detach(t *tail) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	delete(c.tails, t)
}

// feedTail sends what the own disk has above the receiver's low, then what comes. A peer for which more has come meanwhile than a queue may hold is sent what the disk
// has again, from where it stands then: that is less each time, and nothing but the disk remembers it.
func (c *cluster) feedTail(ctx context.Context, conn net.Conn, t *tail, own spokelog.Stream, low hub.Mark, ended <-chan struct{}) error {
	beat := time.NewTimer(c.opt.Beat)
	defer beat.Stop()
	t.low = low
	var buf []byte
	for {
		pos, ok := c.enter(t)
		if !ok {
			return errEnded
		}
		if err := c.ownHas(ctx, t, pos); err != nil {
			return err
		}
		if err := c.repeat(ctx, conn, t, own, pos); err != nil {
			return err
		}
		for c.goLive(t) {
			l, ok := c.next(t)
			if !ok {
				return errEnded
			}
			var err error
			if buf, err = l.send(conn, buf[:0]); err != nil {
				return err
			}
			if l.part != nil { // there may be more
				poke(t.wake)
			}
			beat.Reset(l.beat)
			select {
			case <-ended:
				return errors.New("the peer has gone")
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-t.stopped:
				return errEnded
			case <-t.wake:
			case <-beat.C:
			}
		}
	}
}

var errEnded = errors.New("the incarnation has ended")

// enter begins an empty queue. Everything up to pos is to be read from the own disk.
func (c *cluster) enter(t *tail) (pos uint64, ok bool) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	_, ok = c.tails[t]
	t.clear()
	t.broken, t.pos = false, c.pos
	return c.pos, ok
}

// goLive reports whether the queue has everything that follows what was read from the disk.
func (c *cluster) goLive(t *tail) bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if !t.live && !t.broken { // what is being brought to the others meanwhile
		c.offer(t)
	}
	t.live = !t.broken
	return t.live
}

// ownHas waits until the own disk has the stream up to a position.
func (c *cluster) ownHas(ctx context.Context, t *tail, pos uint64) error {
	deadline := time.Now().Add(ownWait)
	for {
		c.n.mu.Lock()
		at := c.ownPos
		_, ok := c.tails[t]
		c.n.mu.Unlock()
		switch {
		case !ok:
			return errEnded
		case at >= pos:
			return nil
		}
		if time.Now().After(deadline) || !hub.Sleep(ctx, 2*time.Millisecond) {
			return errors.New("the own disk is behind")
		}
	}
}

// repeat sends what the own disk has above t.low, with the lows that go with it, so that what was done need not be done again. Its last frame carries the position.
func (c *cluster) repeat(ctx context.Context, conn net.Conn, t *tail, own spokelog.Stream, pos uint64) error {
	n := c.n
	n.mu.Lock()
	f := frame.Frame{Epoch: c.epoch(), Again: true}
	n.mu.Unlock()
	reached, next, fresh := t.low, t.low, true // reached: before the first record of the piece that is being gathered
	var wrong error
	carried := false // a sweep has emptied segments of what the peer lacks: what it has carried lies anywhere, however old it is
	from := spokelog.From{Low: t.low, Floor: func(k hub.Key) {
		carried = t.low < hub.MarkAt(k.Millis()+1)
		wrong = write(conn, frame.AppendJSON(nil, frame.KindFloor, floorOf(k)))
	}, Reached: func(m hub.Mark) { next = max(next, m) }}
	all := func(yield func(spokelog.Record, error) bool) {
		for r, err := range n.store.Stream(ctx, own, from) {
			if err = errors.Join(err, wrong); fresh && err == nil {
				reached, fresh = next, false
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
	err := inPieces(all, func(records []spokelog.Record) error {
		if !c.attached(t) { // once the incarnation has ended, a damaged record of it is left out where the rest of its bulk is not
			return errEnded
		}
		if fresh = true; carried {
			reached = t.low
		}
		f.Records, f.Low = records, reached
		t.low = reached
		return write(conn, frame.Append(nil, &f))
	})
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	t.low = next
	f.Records, f.Low, f.Pos = nil, next, pos
	return write(conn, frame.Append(nil, &f))
}

// write sends a message in steps, each of which may take streamQuiet.
func write(conn net.Conn, b []byte) error {
	for len(b) > 0 {
		if err := conn.SetWriteDeadline(time.Now().Add(streamQuiet)); err != nil {
			return err
		}
		n, err := conn.Write(b[:min(len(b), quietStep)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// patient reads from a connection as long as something comes every streamQuiet.
type patient struct{ conn net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(streamQuiet)); err != nil {
		return 0, err
	}
	return p.conn.Read(b)
}

// readAcks takes in what the peer says.
func (c *cluster) readAcks(br *bufio.Reader, t *tail) error {
	for {
		k, payload, err := frame.Read(br, frame.MaxGreeting)
		if err != nil {
			return err
		}
		if k != frame.KindAck {
			if _, err := greeted(k, payload); err != nil {
				return err
			}
			return frame.ErrInvalid
		}
		a, err := frame.ParseAck(payload)
		if err != nil {
			return err
		}
		c.acknowledged(t, a)
	}
}

func (c *cluster) acknowledged(t *tail, a frame.Ack) {
	n := c.n
	n.mu.Lock()
	if _, ok := c.tails[t]; !ok {
		n.mu.Unlock()
		return
	}
	c.acked[t.disk] = max(c.acked[t.disk], a.Pos)
	c.came(t, a.Parts)
	c.decide()
	channels := c.passed()
	n.mu.Unlock()
	for _, ch := range channels {
		n.board.notify(ch)
	}
}
