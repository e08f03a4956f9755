package e2e

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"timehub/e2e/hubproc"
)

// link is a TCP proxy on the loopback address that breaks when it is told to: all its connections end at once, in the middle of whatever they carry.
type link struct {
	addr, to string
	listener net.Listener
	group    sync.WaitGroup

	carried atomic.Int64 // bytes that went back to the client
	fuse    atomic.Int64 // connections end when carried passes it; 0: they do not

	mu     sync.Mutex // guards what follows
	open   map[net.Conn]bool
	down   bool // new connections are refused
	ended  bool
	broken int // how often it broke
	onCut  func()
}

// newLink makes a link to an address. It ends with the test.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	addr, err := hubproc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: addr, to: to, open: map[net.Conn]bool{}}
	if l.listener, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	l.group.Go(l.accept)
	t.Cleanup(func() {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.listener.Close()
		l.cut()
		l.group.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		down := l.down || l.ended
		l.mu.Unlock()
		if down {
			reset(c)
			continue
		}
		l.group.Go(func() { l.carry(c) })
	}
}

func (l *link) carry(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", l.to)
	if err != nil {
		reset(c)
		return
	}
	defer s.Close()
	l.mu.Lock()
	l.open[c], l.open[s] = true, true
	ended := l.ended
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.open, c)
		delete(l.open, s)
		l.mu.Unlock()
	}()
	if ended {
		return
	}
	var group sync.WaitGroup
	group.Go(func() {
		io.Copy(s, c)
		s.(*net.TCPConn).CloseWrite()
	})
	buf := make([]byte, 8<<10)
	for {
		n, err := s.Read(buf)
		if n > 0 {
			fuse := l.fuse.Load()
			if now := l.carried.Add(int64(n)); fuse > 0 && now >= fuse && l.fuse.CompareAndSwap(fuse, 0) {
				c.Write(buf[:n/2])
				l.cut()
				break
			}
			if _, err := c.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	c.Close()
	s.Close()
	group.Wait()
}

// burn lets the link break after so many more bytes.
func (l *link) burn(after int64, then func()) {
	l.mu.Lock()
	l.onCut = then
	l.mu.Unlock()
	l.fuse.Store(l.carried.Load() + max(1, after))
}

// cut ends all connections as a broken line does.
func (l *link) cut() {
	l.mu.Lock()
	l.broken++
	then := l.onCut
	l.onCut = nil
	for c := range l.open {
		reset(c)
	}
	l.mu.Unlock()
	if then != nil {
		then()
	}
}

// set says whether new connections are refused.
func (l *link) set(down bool) {
	l.mu.Lock()
	l.down = down
	l.mu.Unlock()
}

// reset closes without the courtesies.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
