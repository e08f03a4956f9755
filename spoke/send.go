package spoke

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
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
	frameRoom    = 64               // bytes of a frame beside its records
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
		if !hub.Sleep(ctx, peerPause) {
			return nil
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
	t, pos, ok := c.attach(node, w.Disk, own)
	if !ok {
		return errors.New("the incarnation has ended")
	}
	defer c.detach(t)
	ended := make(chan struct{})
	var why error // of the end, once ended is closed
	go func() {   // ends with the connection
		defer close(ended)
		why = c.readAcks(br, t)
	}()
	err = c.feedTail(ctx, conn, t, own, w.Low, pos, ended)
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

// attach begins a queue for a peer. Everything up to pos is to be read from the own disk.
func (c *cluster) attach(node, disk string, own spokelog.Stream) (t *tail, pos uint64, ok bool) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if !c.open || c.n.stream != own {
		return nil, 0, false
	}
	delete(c.why, node)
	t = &tail{disk: disk, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	c.tails[t] = struct{}{}
	return t, c.pos, true
}

func (c *cluster) detach(t *tail) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	delete(c.tails, t)
}

// feedTail sends what the own disk has above the receiver's low, then what comes.
func (c *cluster) feedTail(ctx context.Context, conn net.Conn, t *tail, own spokelog.Stream, low hub.Mark, pos uint64, ended <-chan struct{}) error {
	err := c.ownHas(ctx, pos)
	if err == nil {
		err = c.repeat(ctx, conn, own, low, pos)
	}
	if err != nil {
		return err
	}
	beat := time.NewTicker(c.opt.Beat)
	defer beat.Stop()
	var buf []byte
	for {
		f, broken := c.next(t)
		if broken {
			return errors.New("the incarnation has ended, or the peer is too slow")
		}
		if buf, err = sendFrames(conn, f, buf[:0]); err != nil {
			return err
		}
		select {
		case <-t.wake:
		case <-beat.C:
		case <-t.stopped:
			return errors.New("the incarnation has ended")
		case <-ended:
			return errors.New("the peer has gone")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ownHas waits until the own disk has the stream up to a position.
func (c *cluster) ownHas(ctx context.Context, pos uint64) error {
	deadline := time.Now().Add(ownWait)
	for {
		c.n.mu.Lock()
		at := c.ownPos
		c.n.mu.Unlock()
		if at >= pos {
			return nil
		}
		if time.Now().After(deadline) || !hub.Sleep(ctx, 2*time.Millisecond) {
			return errors.New("the own disk is behind")
		}
	}
}

// repeat sends what the own disk has. Its last frame carries the position.
func (c *cluster) repeat(ctx context.Context, conn net.Conn, own spokelog.Stream, low hub.Mark, pos uint64) error {
	n := c.n
	n.mu.Lock()
	f := frame.Frame{Epoch: c.epoch(), Again: true}
	n.mu.Unlock()
	err := inPieces(n.store.Stream(ctx, own, spokelog.From{Low: low}), func(records []spokelog.Record) error {
		f.Records = records
		return write(conn, frame.Append(nil, &f))
	})
	if err != nil {
		return err
	}
	f.Records, f.Pos = nil, pos
	return write(conn, frame.Append(nil, &f))
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

// next takes the queue, with the low that holds when everything in it is there.
func (c *cluster) next(t *tail) (f frame.Frame, broken bool) {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := c.tails[t]; !ok { // another incarnation may be open, and its low is not that of this one
		return frame.Frame{}, true
	}
	f = frame.Frame{Pos: t.pos, Epoch: c.epoch(), Records: t.queue, Low: n.ownLow()}
	t.queue, t.bytes = nil, 0
	return f, t.broken
}

// sendFrames sends what may be more than one frame; the last one carries position and low. It uses and returns buf, unless that has become large.
func sendFrames(conn net.Conn, f frame.Frame, buf []byte) ([]byte, error) {
	size := 0
	for i := range f.Records {
		size += sizeOf(&f.Records[i])
	}
	if size <= frameTarget {
		buf = frame.Append(slices.Grow(buf, size+frameRoom), &f)
		return buf, write(conn, buf)
	}
	left := len(f.Records)
	all := func(yield func(spokelog.Record, error) bool) {
		for _, r := range f.Records {
			if !yield(r, nil) {
				return
			}
		}
	}
	return nil, inPieces(all, func(records []spokelog.Record) error {
		piece := frame.Frame{Epoch: f.Epoch, Records: records}
		if left -= len(records); left == 0 {
			piece.Pos, piece.Low = f.Pos, f.Low
		}
		return write(conn, frame.Append(nil, &piece))
	})
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
	c.decide()
	channels := c.passed()
	n.mu.Unlock()
	for _, ch := range channels {
		n.board.notify(ch)
	}
}
