package chaos

import (
	"io"
	"net"
	"sync"
	"testing"
)

// carryS3 lets hubs reach the proxy before the S3 server, which listens on loopback, at the address of the test; it returns the port.
func (s *Stage) carryS3(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", Here+":0")
	if err != nil {
		t.Fatal(err)
	}
	c := &carrier{to: s.Proxy.Addr, open: map[net.Conn]bool{}}
	c.group.Go(func() { c.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		c.end()
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// carrier carries connections from one address to another.
type carrier struct {
	to    string
	group sync.WaitGroup

	mu    sync.Mutex // guards what follows
	open  map[net.Conn]bool
	ended bool
}

func (c *carrier) accept(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		c.group.Go(func() { c.carry(in) })
	}
}

// keep remembers a connection so that it can be ended; false: it is too late.
func (c *carrier) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = true
	return !c.ended
}

func (c *carrier) drop(conn net.Conn) {
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

func (c *carrier) carry(in net.Conn) {
	defer c.drop(in)
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer c.drop(out)
	if !c.keep(in) || !c.keep(out) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	})
	_, _ = io.Copy(out, in)
	_ = out.Close()
	back.Wait()
}

func (c *carrier) end() {
	c.mu.Lock()
	c.ended = true
	for conn := range c.open {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.group.Wait()
}
