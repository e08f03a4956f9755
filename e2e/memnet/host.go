package memnet

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Line is one direction between two machines. The zero value is a good one: bytes are there at once.
type Line struct {
	Cut   bool          // nothing passes; what was sent comes when the line is mended, as from a sender that repeats
	Delay time.Duration // of everything that is sent, in its order
}

// SetLine changes the line from one machine to another, for connections that are open too. What is on its way comes when it would have come.
func (n *Net) SetLine(from, to string, l Line) {
	n.mu.Lock()
	n.lines[[2]string{from, to}] = l
	var affected []*pipe
	for c := range n.routes {
		if c.from == from && c.to == to {
			affected = append(affected, c.out)
		}
	}
	waiting := n.mended
	n.mended = make(chan struct{})
	n.mu.Unlock()
	close(waiting)
	for _, p := range affected {
		p.setLine(l)
	}
}

// line is how it is now, and what is closed when any line has changed.
func (n *Net) line(from, to string) (Line, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lines[[2]string{from, to}], n.mended
}

// Host is a process on a machine with an address of its own, and its connections. To others it is at that address, to itself also at localhost.
type Host struct {
	net     *Net
	address string

	mu        sync.Mutex // held for computing only
	dead      bool
	listeners []*listener
}

// Host makes a process on the machine with an IP address. Several may be there, one after the other.
func (n *Net) Host(ip string) *Host { return &Host{net: n, address: ip} }

// dialTime is how long a connection may take to come about.
const dialTime = 5 * time.Second

// Listen listens at an address of the machine, whatever host is named.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil, syscall.ENETDOWN
	}
	l, err := h.net.Listen(network, net.JoinHostPort(h.address, port))
	if err != nil {
		return nil, err
	}
	own := l.(*listener)
	own.host = h
	h.listeners = append(h.listeners, own)
	return l, nil
}

// Dial connects to who listens at an address. Both directions have to be open; it gives up after 5 seconds.
func (h *Host) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	to, from := host, h.address
	if host == "localhost" || host == "127.0.0.1" {
		to, from = h.address, "127.0.0.1"
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTime, os.ErrDeadlineExceeded)
	defer cancel()
	if err := h.reach(ctx, to); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: err}
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: syscall.ECONNREFUSED}
	near, far, l := h.connect(from, to, port)
	if l == nil {
		return nil, refused
	}
	select {
	case l.queue <- far:
		return near, nil
	case <-l.done:
	case <-ctx.Done():
		refused.Err = context.Cause(ctx)
	}
	_ = near.Close()
	_ = far.Close()
	return nil, refused
}

// reach waits until a first packet has gone there and back.
func (h *Host) reach(ctx context.Context, to string) error {
	for {
		there, changed := h.net.line(h.address, to)
		back, _ := h.net.line(to, h.address)
		if !there.Cut && !back.Cut {
			return sleep(ctx, there.Delay+back.Delay)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connect makes a pair of connections, unless this process is dead or nobody listens there.
func (h *Host) connect(from, to, port string) (near, far *conn, l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.net
	n.mu.Lock()
	l = n.listeners[net.JoinHostPort(to, port)]
	n.port++
	local := addr(net.JoinHostPort(from, strconv.Itoa(n.port)))
	n.mu.Unlock()
	if l == nil || l.host == nil || h.dead {
		return nil, nil, nil
	}
	near, far = n.pair(local, l.addr)
	n.mu.Lock()
	near.from, near.to, near.host = h.address, to, h
	far.from, far.to, far.host = to, h.address, l.host
	near.peer, far.peer = far, near
	n.routes[near], n.routes[far] = struct{}{}, struct{}{}
	there, back := n.lines[[2]string{h.address, to}], n.lines[[2]string{to, h.address}]
	n.mu.Unlock()
	near.out.setLine(there)
	far.out.setLine(back)
	return near, far, l
}

// Kill ends the process: it can neither listen nor dial any more, and its connections are reset, at the other end as soon as a packet gets there.
func (h *Host) Kill() {
	h.mu.Lock()
	h.dead = true
	open := slices.Clone(h.listeners)
	h.mu.Unlock()
	for _, l := range open {
		_ = l.Close()
	}
	h.net.mu.Lock()
	var own []*conn
	for c := range h.net.conns {
		if c.host == h {
			own = append(own, c)
		}
	}
	h.net.mu.Unlock()
	for _, c := range own {
		c.in.reset()
		c.out.hangUp()
	}
}
