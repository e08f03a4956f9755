package spoke

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"timehub/hub"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
)

const epochWait = 2 * time.Second

// inbound is the connection on which a stream comes in. Its fields are guarded by Node.mu.
type inbound struct {
	conn   net.Conn
	node   string // that sends it
	s      *peerStream
	id     spokelog.Stream
	failed bool          // a frame did not get into the log: nothing after it counts
	last   *frame.Frame  // the last one with records: what follows it without any is applied with it
	pos    uint64        // what may be acknowledged
	parts  uint64        // bytes of parts that have come
	wake   chan struct{} // one token: pos or parts has risen
	bytes  int           // that wait for the own disk
	freed  chan struct{} // one token: some of them do not any more
}

// inboundRoom is how many bytes of one stream may wait for the own disk. When it is slower than those of others, the line has to wait, and not the memory here to grow.
const inboundRoom = 64 << 20

// serveStream takes the stream of a peer (GET /internal/spoke/stream, upgraded).
func (c *cluster) serveStream(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), upgradeTo) {
		return hub.E(hub.Invalid, "this address is for hubs: Upgrade: %s", upgradeTo)
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTime))
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgradeTo + "\r\n\r\n")); err != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	n := c.n
	n.mu.Lock()
	if c.over {
		n.mu.Unlock()
		return nil
	}
	c.guests[conn] = cancel
	c.visits.Add(1)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(c.guests, conn)
		n.mu.Unlock()
		c.visits.Done()
	}()
	early, _ := buf.Reader.Peek(buf.Reader.Buffered())
	br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), patient{conn}), 64<<10)
	if err := c.take(ctx, conn, br); err != nil {
		c.n.log.Debug("the stream of a peer ended", "peer", r.RemoteAddr, "err", err)
	}
	return nil
}

// take reads one stream until it ends.
func (c *cluster) take(ctx context.Context, conn net.Conn, br *bufio.Reader) error {
	k, payload, err := frame.Read(br, frame.MaxGreeting)
	if err != nil {
		return err
	}
	var h frame.Hello
	if k != frame.KindHello {
		return frame.ErrInvalid
	}
	if err := frame.ParseJSON(payload, &h); err != nil {
		return err
	}
	in, answer := c.greet(conn, &h)
	if _, err := conn.Write(answer); err != nil || in == nil {
		return err
	}
	defer c.leave(in)
	ended := make(chan struct{})
	go func() { // ends with the connection
		defer close(ended)
		c.sendAcks(ctx, in)
	}()
	defer func() { _ = conn.Close(); poke(in.wake); <-ended }()
	var hold frame.Hold
	for {
		c.waitForRoom(ctx, in)
		k, payload, err := frame.Read(br, frame.MaxFrame)
		if err != nil {
			return err
		}
		if err := c.takeMessage(ctx, in, &hold, k, payload); err != nil {
			return err
		}
	}
}

// waitForRoom waits until the disk has got on, or nothing more is taken on this connection.
func (c *cluster) waitForRoom(ctx context.Context, in *inbound) {
	for ctx.Err() == nil {
		c.n.mu.Lock()
		room := in.bytes <= c.opt.room || in.failed || in.s.refused || in.s.in != in
		c.n.mu.Unlock()
		if room {
			return
		}
		select {
		case <-in.freed:
		case <-ctx.Done():
		}
	}
}

func (c *cluster) takeMessage(ctx context.Context, in *inbound, hold *frame.Hold, k frame.Kind, payload []byte) error {
	switch k {
	case frame.KindFrame:
		f, err := frame.Parse(payload)
		if err == nil {
			err = hold.Fill(&f)
		}
		if err != nil {
			return err
		}
		return c.takeFrame(ctx, in, &f)
	case frame.KindPart:
		if err := hold.Part(payload); err != nil {
			return err
		}
		c.n.mu.Lock()
		in.parts = hold.Came()
		c.n.mu.Unlock()
		poke(in.wake)
		return nil
	case frame.KindDrop:
		return hold.Drop(payload)
	case frame.KindFloor:
		var f frame.Floor
		if err := frame.ParseJSON(payload, &f); err != nil {
			return err
		}
		return c.doubtFloor(ctx, in, f)
	}
	return frame.ErrInvalid
}

// greet decides whether a stream is taken, and from where.
func (c *cluster) greet(conn net.Conn, h *frame.Hello) (*inbound, []byte) {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	s := c.streams[h.Stream]
	i, listed := c.rec.Find(recordOf(h.Stream))
	switch {
	case s == nil || !listed || h.Epoch > c.epoch():
		poke(c.nudge)
		return nil, frame.AppendJSON(nil, frame.KindAway, frame.Away{Why: "this stream or its epoch is not known here yet"})
	case s.refused || i.Closed != nil:
		return nil, frame.AppendJSON(nil, frame.KindRefusal, frame.Away{Why: "this incarnation is over"})
	case s.outstanding > 0:
		if s.in != nil {
			_ = s.in.conn.Close()
		}
		return nil, frame.AppendJSON(nil, frame.KindAway, frame.Away{Why: "what came before is still on its way to the disk"})
	}
	if s.in != nil {
		_ = s.in.conn.Close()
	}
	in := &inbound{conn: conn, node: h.Node, s: s, id: h.Stream, wake: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
	s.in = in
	return in, frame.AppendJSON(nil, frame.KindWelcome, frame.Welcome{Node: c.opt.Node, Disk: n.identity.ID, Low: s.low})
}

func (c *cluster) leave(in *inbound) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if in.s.in == in {
		in.s.in = nil
	}
}

// takeFrame brings a frame into the log; it is acknowledged when it is on the disk.
func (c *cluster) takeFrame(ctx context.Context, in *inbound, f *frame.Frame) error {
	if err := c.inStep(ctx, f); err != nil {
		return err
	}
	records := f.Records
	if f.Again {
		records = slices.Concat(c.missing(ctx, in.id, split(f.Records))...)
	}
	n := c.n
	n.mu.Lock()
	switch {
	case in.s.refused:
		n.mu.Unlock()
		_ = write(in.conn, frame.AppendJSON(nil, frame.KindRefusal, frame.Away{Why: "this incarnation is over"}))
		return errRefused
	case in.failed || in.s.in != in:
		n.mu.Unlock()
		return errors.New("another connection took over, or the disk failed")
	case len(records) == 0 && in.s.outstanding == 0:
		channels := c.applied(in, f)
		c.together()
		n.mu.Unlock()
		for _, ch := range channels {
			n.board.notify(ch)
		}
		return nil
	}
	defer n.mu.Unlock()
	if len(records) == 0 { // with what is on its way
		in.last.Low, in.last.Pos = max(in.last.Low, f.Low), max(in.last.Pos, f.Pos)
		return nil
	}
	in.last = f
	if err := c.enqueue(in, records, f); err != nil {
		in.failed = true
		return err
	}
	return nil
}

// enqueue hands the requests of a frame to the log, as one batch: they are kept or lost together. Under mu.
func (c *cluster) enqueue(in *inbound, records []spokelog.Record, f *frame.Frame) error {
	size := 0
	for i := range records {
		size += sizeOf(&records[i])
	}
	err := c.n.store.Enqueue(&spokelog.Batch{Records: records, Several: true, Done: func(err error) { c.stored(in, records, size, f, err) }})
	if err == nil { // stored waits for mu
		in.s.outstanding++
		in.bytes += size
	}
	return err
}

// stored: what was new of a frame is on the disk, or surely not. Called by the log, in the order of enqueue.
func (c *cluster) stored(in *inbound, records []spokelog.Record, size int, f *frame.Frame, err error) {
	n := c.n
	n.mu.Lock()
	in.s.outstanding--
	in.bytes -= size
	poke(in.freed)
	var channels []string
	switch {
	case err != nil:
		in.failed = true
	default:
		for i := range records { // also behind one that failed: it is here, and is not stored again
			c.await(&records[i], !in.failed)
		}
		if !in.failed {
			channels = c.applied(in, f)
		}
	}
	failed := in.failed
	n.mu.Unlock()
	if failed {
		_ = in.conn.Close()
	}
	for _, ch := range channels {
		n.board.notify(ch)
	}
}

// applied: everything up to the end of a frame is on the disk. Under mu.
func (c *cluster) applied(in *inbound, f *frame.Frame) (channels []string) {
	if f.Low > in.s.low {
		in.s.low = f.Low
		if f.Low < c.n.limit { // otherwise the horizon raises it when it is shown
			c.n.minter.Raise(f.Low)
			c.n.ahead(f.Low)
		} else {
			poke(c.n.kick)
		}
	}
	if f.Pos > in.pos {
		in.pos = f.Pos
		poke(in.wake)
	}
	return c.passed()
}

// inStep refuses frames of an epoch that is not known here, and of a clock that is too far ahead.
func (c *cluster) inStep(ctx context.Context, f *frame.Frame) error {
	n := c.n
	for began := time.Now(); ; {
		n.mu.Lock()
		known, wall := f.Epoch <= c.epoch(), n.wall()
		n.mu.Unlock()
		limit := wall + n.opt.ClockGuard.Milliseconds()
		if f.Low.Millis() > limit {
			return errors.New("the clock of the peer is too far ahead")
		}
		for i := range f.Records {
			if r := &f.Records[i]; r.Flags&(spokelog.Replicated|spokelog.Complete) == 0 && r.Key.Millis() > limit {
				return errors.New("the clock of the peer is too far ahead")
			}
		}
		if known {
			return nil
		}
		poke(c.nudge)
		if time.Since(began) > epochWait || !hub.Sleep(ctx, 5*time.Millisecond) {
			return errors.New("the epoch of the frame is not known here")
		}
	}
}

// split cuts records into requests.
func split(records []spokelog.Record) (requests [][]spokelog.Record) {
	for from, i := 0, 0; i < len(records); i++ {
		if records[i].Flags&spokelog.MoreFollows == 0 {
			requests = append(requests, records[from:i+1])
			from = i + 1
		}
	}
	return requests
}

// missing leaves out the requests that are here already.
func (c *cluster) missing(ctx context.Context, _ spokelog.Stream, requests [][]spokelog.Record) [][]spokelog.Record {
	var rest [][]spokelog.Record
	for _, records := range requests {
		here := true
		for i := range records {
			r := &records[i]
			if at, known := c.n.store.Complete(r.Channel); r.Flags&spokelog.Complete != 0 && known && !at.Less(r.Key) {
				continue
			}
			if r.Flags&(spokelog.GivenUp|spokelog.Complete|spokelog.Taken) != 0 {
				here = false
				break
			}
			if _, err := c.n.store.Held(ctx, r.Channel, r.Key); err != nil {
				here = false
				break
			}
		}
		if !here {
			rest = append(rest, records)
		}
	}
	return rest
}

// sendAcks tells the writer what is on the disk, and that this node lives.
func (c *cluster) sendAcks(ctx context.Context, in *inbound) {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		c.n.mu.Lock()
		a, over := frame.Ack{Pos: in.pos, Clock: c.n.minter.Wall(), Parts: in.parts}, in.s.in != in
		c.n.mu.Unlock()
		if over || write(in.conn, frame.AppendAck(nil, a)) != nil {
			_ = in.conn.Close()
			return
		}
		select {
		case <-in.wake:
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}
