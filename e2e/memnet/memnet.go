// Package memnet is a network in memory, for whole hubs inside testing/synctest bubbles. Connections are buffered and built on sync.Cond, so that whoever waits
// is durably blocked and virtual time goes on; net.Pipe has no buffer, and real sockets stop the clock.
//
// A Net stands for the cable of one machine. Cut breaks everything that is connected, as the death of a process does: both ends see a reset. With Host it is
// a network of several machines, between which each direction of each line can be cut or slow. Nothing runs in the background but timers.
package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Net connects listeners and those who dial them. It is safe for concurrent use.
type Net struct {
	mu        sync.Mutex // held for computing only
	listeners map[string]*listener
	conns     map[*conn]struct{}
	port      int
	lines     map[[2]string]Line // between machines, from and to; those that are not there are good
	mended    chan struct{}      // closed when a line changes, and made anew
	routes    map[*conn]struct{} // on these lines, until both ends are closed
}

// New returns a network without anybody.
func New() *Net {
	return &Net{listeners: map[string]*listener{}, conns: map[*conn]struct{}{}, port: 40000, lines: map[[2]string]Line{}, routes: map[*conn]struct{}{}, mended: make(chan struct{})}
}

// addr is host:port.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

// Listen listens at an address; port 0 is any free one.
func (n *Net) Listen(_, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		n.port++
		port = strconv.Itoa(n.port)
	}
	l := &listener{net: n, addr: addr(net.JoinHostPort(host, port)), queue: make(chan *conn), done: make(chan struct{})}
	if n.listeners[l.addr.String()] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: l.addr, Err: syscall.EADDRINUSE}
	}
	n.listeners[l.addr.String()] = l
	return l, nil
}

// Dial connects to who listens at an address.
func (n *Net) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.port++
	from := addr("client:" + strconv.Itoa(n.port))
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	near, far := n.pair(from, l.addr)
	select {
	case l.queue <- far:
		return near, nil
	case <-l.done:
		_ = near.Close()
		_ = far.Close()
		return nil, refused
	case <-ctx.Done():
		_ = near.Close()
		_ = far.Close()
		return nil, ctx.Err()
	}
}

// Cut resets all connections.
func (n *Net) Cut() {
	n.mu.Lock()
	all := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		all = append(all, c)
	}
	n.mu.Unlock()
	for _, c := range all {
		c.in.reset()
		c.out.reset()
	}
}

// Open is the number of connections that are open at one end at least.
func (n *Net) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

func (n *Net) pair(from, to addr) (near, far *conn) {
	a, b := newPipe(), newPipe()
	near = &conn{net: n, in: a, out: b, local: from, remote: to}
	far = &conn{net: n, in: b, out: a, local: to, remote: from}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

type listener struct {
	net   *Net
	addr  addr
	queue chan *conn
	done  chan struct{}
	once  sync.Once
	host  *Host // nil: of a Net without machines
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr.String())
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// conn is one end of a connection.
type conn struct {
	net           *Net
	in, out       *pipe
	local, remote addr

	// between machines; set before it is used
	host     *Host
	from, to string
	peer     *conn
	closed   bool // guarded by net.mu
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions: the other end reads what is on its way, then EOF.
func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	if c.closed = true; c.peer != nil && c.peer.closed {
		delete(c.net.routes, c)
		delete(c.net.routes, c.peer)
	}
	c.net.mu.Unlock()
	c.in.closeReader()
	c.out.closeWriter()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.set(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.set(&c.out.writeBy, t)
	return nil
}

// room is how many bytes are on their way at most.
const room = 64 << 10

// pipe is one direction.
type pipe struct {
	mu      sync.Mutex // held for computing only
	changed *sync.Cond
	buf     []byte
	ended   bool // the end has come to the reader
	closed  bool // the writer has closed
	unread  bool // the reader has closed
	broken  bool
	readBy  deadline
	writeBy deadline

	line   Line
	onWay  []packet    // what has been sent and is not there yet
	flying int         // its bytes
	wakeUp *time.Timer // when the first of it will be there
}

// packet is something on its way.
type packet struct {
	due   time.Time // when it will be there, unless the line is cut
	data  []byte
	last  bool // the end
	reset bool
}

type deadline struct {
	timer  *time.Timer
	passed bool
	number int // of the setting, so that an older timer is known
}

func newPipe() *pipe {
	p := &pipe{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.unread:
			return 0, net.ErrClosed
		case p.broken:
			return 0, syscall.ECONNRESET
		case p.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			if p.buf = p.buf[n:]; len(p.buf) == 0 {
				p.buf = nil
			}
			p.changed.Broadcast()
			return n, nil
		case p.ended:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed:
			return n, net.ErrClosed
		case p.broken:
			return n, syscall.ECONNRESET
		case p.unread:
			return n, syscall.EPIPE
		case p.writeBy.passed:
			return n, os.ErrDeadlineExceeded
		}
		k := min(len(b), room-len(p.buf)-p.flying)
		p.send(packet{data: b[:k]})
		b, n = b[k:], n+k
		if k > 0 {
			p.changed.Broadcast()
		}
		if len(b) == 0 {
			return n, nil
		}
		p.changed.Wait()
	}
}

func (p *pipe) closeReader() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread, p.buf = true, nil
	p.readBy.stop()
	p.changed.Broadcast()
}

func (p *pipe) closeWriter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.send(packet{last: true})
	p.writeBy.stop()
	p.changed.Broadcast()
}

func (p *pipe) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken, p.buf, p.onWay, p.flying = true, nil, nil, 0
	p.land()
	p.changed.Broadcast()
}

func (d *deadline) stop() {
	d.number++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// set moves a deadline of p; zero is none.
func (p *pipe) set(d *deadline, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.stop()
	d.passed = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		p.changed.Broadcast()
		return
	}
	number := d.number
	d.timer = time.AfterFunc(left, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d.number == number {
			d.passed = true
			p.changed.Broadcast()
		}
	})
}
