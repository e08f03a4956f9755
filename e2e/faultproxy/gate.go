package faultproxy

import (
	"fmt"
	"net"
	"sync"
)

// gate is a listener that remembers its connections and ends them when it is told to.
type gate struct {
	net.Listener

	mu      sync.Mutex // guards what follows
	open    map[net.Conn]bool
	refuses bool
}

func newGate() (*gate, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy: %w", err)
	}
	return &gate{Listener: l, open: map[net.Conn]bool{}}, nil
}

// Accept waits for a connection that is not refused.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		refuses := g.refuses
		if !refuses {
			g.open[c] = true
		}
		g.mu.Unlock()
		if !refuses {
			return &gated{c, g}, nil
		}
		resetConn(c)
	}
}

// Close ends the listener and everything that it has accepted.
func (g *gate) Close() error {
	g.refuse(true)
	err := g.Listener.Close()
	g.cut()
	return err
}

func (g *gate) refuse(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuses = on
}

// cut resets every connection.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.open {
		resetConn(c)
	}
}

// gated is a connection that its gate forgets when it is closed.
type gated struct {
	net.Conn
	gate *gate
}

func (c *gated) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.open, c.Conn)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// resetConn closes without the courtesies: the other end is told that the connection is gone.
func resetConn(c net.Conn) {
	if g, ok := c.(*gated); ok {
		c = g.Conn
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
