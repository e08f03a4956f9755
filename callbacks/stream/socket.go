package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"timehub/channel"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/web"
)

func (s *Server) newUpgrader() websocket.Upgrader {
	return websocket.Upgrader{
		ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &sync.Pool{},
		CheckOrigin: func(*http.Request) bool { return true }, // as every answer of the hub says: Access-Control-Allow-Origin: *
	}
}

// wish is what the client of a socket wants beside items.
type wish struct {
	bodies bool // ?payload=items
	gaps   bool // ?slow=gap
}

func wishes(r *http.Request) (w wish, err error) {
	q := web.Params(r)
	switch v := q.Get("payload"); v {
	case "", "uris":
	case "items":
		w.bodies = true
	default:
		return w, hub.E(hub.Invalid, "payload is %.40q: it must be uris or items", v)
	}
	switch v := q.Get("slow"); v {
	case "", "close":
	case "gap":
		w.gaps = true
	default:
		return w, hub.E(hub.Invalid, "slow is %.40q: it must be close or gap", v)
	}
	return w, nil
}

// socket is spec 03 §5. What is wrong with the request is said before the upgrade, in HTTP.
func (s *Server) socket(w http.ResponseWriter, r *http.Request) error {
	want, err := wishes(r)
	if err != nil {
		return err
	}
	c := s.enter(sockets, int(s.opt.Ping/s.opt.Beat))
	l, err := s.open(r, directBase(r), "", c.nudge)
	if err != nil {
		s.leave(c)
		return err
	}
	end := func() {
		l.close()
		s.leave(c)
	}
	ws, err := s.upgrade(w, r)
	if ws == nil || err != nil {
		end()
		return err
	}
	s.hand(func() {
		defer end()
		s.serve(ws, l, want)
	})
	return nil
}

// upgrade takes the connection over. Without a socket and without an error the connection is gone.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	if !websocket.IsWebSocketUpgrade(r) {
		// Not 426: to whoever does not speak websocket there is nothing here (spec 02 §7).
		return nil, hub.E(hub.NotFound, "this address is a websocket: connect with Connection: Upgrade, Upgrade: websocket and Sec-WebSocket-Version: 13; for plain HTTP there is /events")
	}
	upgrader := s.upgrader
	var refused error
	upgrader.Error = func(_ http.ResponseWriter, _ *http.Request, _ int, reason error) {
		refused = hub.E(hub.Invalid, "the websocket handshake is not valid: %v", reason)
	}
	ws, err := upgrader.Upgrade(w, r, http.Header{"Hub-Node": w.Header()["Hub-Node"]})
	if err != nil {
		return nil, refused
	}
	return ws, nil
}

// directBase is scheme and authority that the client connected to: proxies are not considered (spec 03 §5).
func directBase(r *http.Request) string {
	plain := &http.Request{Host: r.Host, TLS: r.TLS, Header: http.Header{}}
	local := r.Context().Value(http.LocalAddrContextKey)
	return web.Base(plain.WithContext(context.WithValue(context.Background(), http.LocalAddrContextKey, local)))
}

// peer is a socket that is open.
type peer struct {
	s    *Server
	ws   *websocket.Conn
	line *line
	want wish
	out  []byte                 // frames that are not written yet
	ping atomic.Pointer[string] // of the client, not answered yet

	live    bool          // it has been up to date
	short   bool          // the last page was not full
	unheard atomic.Int32  // pings since it was heard of last
	left    atomic.Int32  // the close code to answer the client's with
	blocked time.Duration // for how long its client has kept messages waiting since then
	last    hub.Key       // of the last item sent
}

// errLeft is why a socket ends when its client does.
var errLeft = errors.New("the client has left")

// slowError ends the socket of a client that cannot keep up.
type slowError struct{ last hub.Key }

func (e *slowError) Error() string {
	if e.last.IsZero() {
		return "too slow; nothing was sent"
	}
	return "too slow; last sent " + e.last.String()
}

// serve pushes until one side ends it, then closes properly.
func (s *Server) serve(ws *websocket.Conn, l *line, want wish) {
	hurry := func() { _ = ws.NetConn().SetWriteDeadline(time.Now().Add(closeGrace)) } // a write may be under way, to nobody
	ctx, cancel, done := s.until(context.Background(), hurry)
	defer done()
	ws.SetReadLimit(clientFrame)
	if b, ok := ws.NetConn().(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = b.SetWriteBuffer(kernelBuffer)
	}
	p := &peer{s: s, ws: ws, line: l, want: want}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.listen()
		cancel(errLeft)
		hurry()
	}()
	err := p.push(ctx)
	code, reason := closing(err)
	if answer := p.left.Load(); answer != 0 && errors.Is(err, errLeft) {
		code, reason = int(answer), "" // the client's half of the handshake is done
	}
	if code != 0 {
		if len(reason) > 123 { // what a close frame can hold
			reason = reason[:123]
		}
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(closeGrace))
		timer := time.NewTimer(closeGrace) // for the client's half of the handshake
		select {
		case <-read:
		case <-timer.C:
		}
		timer.Stop()
	}
	_ = ws.Close()
	<-read
}

// closing is what a client is told at the end; 0: nothing, it knows or cannot be told.
func closing(err error) (code int, reason string) {
	var slow *slowError
	switch {
	case errors.Is(err, errGone):
		return websocket.CloseGoingAway, errGone.Error()
	case errors.As(err, &slow):
		return tooSlow, slow.Error()
	case hub.Is(err, hub.NotFound):
		var e *hub.Error
		errors.As(err, &e)
		return channelEnded, e.Msg
	case errors.Is(err, errLeft), errors.Is(err, errStalled):
		return 0, ""
	}
	return websocket.CloseInternalServerErr, "the hub cannot go on with this"
}

// listen reads what nobody wants until the client leaves, or breaks the protocol: then gorilla has told it so. Pings and the close are left to push to
// answer: there is one who writes, so no frame comes to lie in the middle of another.
func (p *peer) listen() {
	p.ws.SetPongHandler(func(string) error { p.unheard.Store(0); return nil })
	p.ws.SetPingHandler(func(text string) error {
		p.unheard.Store(0)
		p.ping.Store(&text)
		p.line.rouse()
		return nil
	})
	p.ws.SetCloseHandler(func(code int, _ string) error {
		if code == websocket.CloseNoStatusReceived {
			code = websocket.CloseNormalClosure
		}
		p.left.Store(int32(code))
		return nil
	})
	for {
		_, r, err := p.ws.NextReader()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if errors.Is(err, websocket.ErrReadLimit) { // of a length beyond all bounds gorilla says nothing; a second close goes nowhere
			_ = p.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseMessageTooBig, ""), time.Now().Add(closeGrace))
		}
		if err != nil {
			return
		}
		p.unheard.Store(0)
	}
}

// push sends items until ctx or the channel ends, or the client stops reading.
func (p *peer) push(ctx context.Context) error {
	for {
		hits, err := p.line.next(ctx)
		if err != nil {
			return err
		}
		if len(hits) == 0 {
			if err := p.control(); err != nil {
				return err
			}
			continue
		}
		if hits, err = p.keepUp(ctx, hits); err != nil {
			return err
		}
		if err := p.send(ctx, hits); err != nil {
			return err
		}
		select {
		case <-p.line.nudge: // it does not only come to those who wait
			if err := p.control(); err != nil {
				return err
			}
		default:
		}
	}
}

// deadPings is how many pings a client may leave unanswered.
const deadPings = 3

// control answers the client's ping, or sends one. It ends with a client that is silent; one that has not been asked, because it does not read, is not.
func (p *peer) control() error {
	kind, text := websocket.PingMessage, ""
	if p.unheard.Add(1) > deadPings {
		return errLeft
	}
	if asked := p.ping.Swap(nil); asked != nil {
		kind, text = websocket.PongMessage, *asked
	}
	if err := p.ws.WriteControl(kind, []byte(text), time.Now().Add(p.s.opt.Stall)); err != nil {
		return errLeft
	}
	return nil
}

// keepUp notes whether the client is up to date. If it was, and has since kept messages waiting for too long, it ends the socket, or leaves out what the client
// is behind, and says so. A hub that is slow is not the client's fault.
func (p *peer) keepUp(ctx context.Context, hits []feed.Hit) ([]feed.Hit, error) {
	if len(hits) < pageKeys {
		if p.short { // one may be the end of what was read together, with more behind it
			p.blocked = 0
		}
		p.live, p.short = true, true
		return hits, nil
	}
	p.short = false
	if !p.live || p.blocked < p.s.opt.Patience {
		return hits, nil
	}
	p.s.meters.slow[sockets].Add(1)
	if !p.want.gaps {
		return nil, &slowError{p.last}
	}
	from, to, count := hits[0].Key, hub.Key{}, 0
	for len(hits) == pageKeys {
		to = hits[len(hits)-1].Key
		count += len(hits)
		var err error
		if hits, err = p.line.peek(ctx); err != nil {
			return nil, err
		}
	}
	p.blocked = 0
	p.out = appendFrame(p.out, fmt.Appendf(nil, `{"gap":{"from":%q,"to":%q,"count":%d}}`, from, to, count))
	return hits, p.flush(ctx)
}

// gatherFrames is what is gathered before it is written. A page of addresses goes out in one piece.
const gatherFrames = 32 << 10

// send sends hits, with or without their bodies.
func (p *peer) send(ctx context.Context, hits []feed.Hit) (err error) {
	if p.want.bodies {
		err = p.line.items(ctx, hits, func(h feed.Hit, f channel.Found) error { return p.item(ctx, h, f) })
		if err != nil {
			return err
		}
	} else {
		for _, h := range hits {
			var head [frameHead]byte // an address has its length in the last two bytes
			at := len(p.out)
			p.out = p.line.appendURL(append(p.out, head[:]...), h)
			p.out = closeFrame(p.out, at)
			if err := p.sent(ctx, h); err != nil {
				return err
			}
		}
	}
	return p.flush(ctx)
}

// sent notes that the frame of an item was appended.
func (p *peer) sent(ctx context.Context, h feed.Hit) error {
	p.last = h.Key
	p.s.meters.sent[sockets].Add(1)
	if len(p.out) < gatherFrames {
		return nil
	}
	return p.flush(ctx)
}

// blockedWrite is what no write takes for which there is room.
const blockedWrite = 10 * time.Millisecond

// errStalled ends a connection whose client does not read.
var errStalled = errors.New("the client does not read")

// flush writes what has gathered.
func (p *peer) flush(ctx context.Context) error {
	if len(p.out) == 0 {
		return nil
	}
	conn := p.ws.NetConn()
	began, limit := time.Now(), p.s.opt.Stall
	if ctx.Err() != nil { // the last words
		limit = min(limit, closeGrace)
	}
	_ = conn.SetWriteDeadline(began.Add(limit))
	_, err := conn.Write(p.out)
	if p.out = p.out[:0]; cap(p.out) > 2*gatherFrames {
		p.out = nil
	}
	took := time.Since(began)
	if took > blockedWrite {
		p.blocked += took
	}
	if err != nil && took > limit/2 {
		p.s.meters.slow[sockets].Add(1)
		return errStalled
	}
	if err != nil {
		return errLeft
	}
	return nil
}

// maxInline is the size up to which the body of an item goes into a message.
const maxInline = 8 << 20

// item appends one item with its body, or with where that is, if it is too long for a message.
func (p *peer) item(ctx context.Context, h feed.Hit, f channel.Found) error {
	b := append(make([]byte, 0, 256), `{"key":`...)
	b = web.AppendString(b, h.Key.String())
	if p.line.tag != "" {
		b = web.AppendString(append(b, `,"channel":`...), h.Channel)
	}
	b = web.AppendString(append(b, `,"contentType":`...), f.Meta.ContentType)
	if f.Meta.Large || f.Meta.Size > maxInline {
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, f.Meta.Size, 10)
		b = append(b, `,"bodyUrl":"`...)
		b = append(p.line.appendURL(b, h), `"}`...)
	} else {
		free, err := p.s.take(ctx, f.Meta.Size)
		if err != nil {
			return err
		}
		defer free()
		body, err := p.s.opt.Channels.Body(nil, f)
		if err != nil {
			return err
		}
		b = append(appendBody(b, f.Meta.ContentType, body), '}')
	}
	p.out = appendFrame(p.out, b)
	if err := p.sent(ctx, h); err != nil {
		return &sendError{err}
	}
	return nil
}
