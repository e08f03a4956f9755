// Package faultproxy stands between two processes of a test and spoils what passes: Line for plain TCP (between hubs, to ZooKeeper, to a source), HTTP
// for requests to an S3 server or a consumer. Faults are switched while the proxy runs; without any it only passes on.
//
// Everything listens on loopback, on a free port, and ends with the test.
package faultproxy

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Way is what happens to bytes that go one way on a Line. The zero value lets them pass.
type Way struct {
	Delay time.Duration // bytes arrive so much later than they came
	Rate  int           // bytes a second, for each connection; 0: as many as come
	Hold  bool          // connections stay open and nothing passes. Nothing is lost either: what was held goes on when this ends
}

// Line is a TCP proxy. Its methods may be called at any time from anywhere.
type Line struct {
	Addr string // where it listens, host:port

	to      string
	gate    *gate
	carried atomic.Int64 // bytes that went back to the client
	fuse    atomic.Int64 // connections end when carried passes it; 0: they do not
	wg      sync.WaitGroup

	mu          sync.Mutex // guards what follows
	there, back Way
	changed     chan struct{}     // closed by Set
	servers     map[net.Conn]bool // false: half open
	onCut       func()
	cuts        int
}

// NewLine runs a proxy to an address until the test ends.
func NewLine(t testing.TB, to string) *Line {
	t.Helper()
	l := &Line{to: to, changed: make(chan struct{}), servers: map[net.Conn]bool{}}
	var err error
	if l.gate, err = newGate(); err != nil {
		t.Fatal(err)
	}
	l.Addr = l.gate.Addr().String()
	l.wg.Go(func() {
		for {
			c, err := l.gate.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.gate.Close()
		l.reset()
		l.wg.Wait()
	})
	return l
}

// Set says what happens from now on, also on connections that are open: there is towards the server, back is towards the client. Bytes that are
// delayed already stay so.
func (l *Line) Set(there, back Way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.there, l.back = there, back
	close(l.changed)
	l.changed = make(chan struct{})
}

// Refuse says whether new connections are reset at once.
func (l *Line) Refuse(on bool) { l.gate.refuse(on) }

// Cut resets all connections, in the middle of whatever they carry.
func (l *Line) Cut() {
	l.reset()
	l.mu.Lock()
	then := l.onCut
	l.onCut = nil
	l.cuts++
	l.mu.Unlock()
	if then != nil {
		then()
	}
}

// CutAfter cuts when so many more bytes have gone back to clients, and calls then, if there is one. 0: it does not cut by itself any more.
func (l *Line) CutAfter(bytes int64, then func()) {
	l.mu.Lock()
	l.onCut = then
	l.mu.Unlock()
	if bytes > 0 {
		bytes += l.carried.Load()
	}
	l.fuse.Store(bytes)
}

// HalfOpen resets the server's ends of all connections and leaves the clients' open and silent: they learn nothing, as when the other machine went away
// without a word. Until the next Cut.
func (l *Line) HalfOpen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.servers {
		l.servers[s] = false
		resetConn(s)
	}
}

// Carried is the number of bytes that went back to clients.
func (l *Line) Carried() int64 { return l.carried.Load() }

// Cuts is how often it was cut.
func (l *Line) Cuts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

func (l *Line) reset() {
	l.gate.cut()
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.servers {
		resetConn(s)
	}
}

// carry carries one connection until one of its ends is gone.
func (l *Line) carry(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", l.to)
	if err != nil {
		resetConn(c)
		return
	}
	l.mu.Lock()
	l.servers[s] = true
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { // the client's end may close first and still wait for an answer
		if l.pump(ctx, deafened{s, l}, c, func() Way { return l.there }, nil) == nil {
			closeWrite(s)
		}
	})
	err = l.pump(ctx, c, s, func() Way { return l.back }, l.burn)
	if l.halfOpen(s) {
		group.Wait() // the client may go on sending, until somebody ends it
	}
	if err != nil {
		resetConn(c)
	}
	cancel()
	_ = c.Close()
	_ = s.Close()
	group.Wait()
	l.mu.Lock()
	delete(l.servers, s)
	l.mu.Unlock()
}

// halfOpen reports whether the server's end was reset by HalfOpen.
func (l *Line) halfOpen(s net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	open, known := l.servers[s]
	return known && !open
}

// deafened is a server's end that swallows what comes after HalfOpen.
type deafened struct {
	net.Conn
	line *Line
}

func (d deafened) Write(b []byte) (int, error) {
	n, err := d.Conn.Write(b)
	if err != nil && d.line.halfOpen(d.Conn) {
		return len(b), nil
	}
	return n, err
}

// burn counts what goes back. It says how much of n bytes may still pass before the line is to be cut; n: all.
func (l *Line) burn(n int) (pass int) {
	fuse := l.fuse.Load()
	if now := l.carried.Add(int64(n)); fuse > 0 && now >= fuse && l.fuse.CompareAndSwap(fuse, 0) {
		return n / 2
	}
	return n
}

// piece is what was read at one time.
type piece struct {
	bytes []byte
	due   time.Time
}

// pump carries bytes one way until from ends (nil), or something fails. count, if there is one, may let it end before.
func (l *Line) pump(ctx context.Context, to, from net.Conn, way func() Way, count func(int) int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan piece, 64)
	var failed error
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		for {
			buf := make([]byte, 8<<10)
			n, err := from.Read(buf)
			if n > 0 {
				now, _ := l.look(way)
				select {
				case pieces <- piece{buf[:n], time.Now().Add(now.Delay)}:
				case <-ctx.Done():
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				failed = err
				return
			}
		}
	})
	for p := range pieces {
		if err := l.deliver(ctx, to, p, way, count); err != nil {
			cancel()
			_ = from.Close() // so that the reader ends
			reader.Wait()
			return err
		}
	}
	return failed
}

func (l *Line) deliver(ctx context.Context, to net.Conn, p piece, way func() Way, count func(int) int) error {
	if !sleep(ctx, time.Until(p.due)) {
		return ctx.Err()
	}
	for len(p.bytes) > 0 {
		now, changed := l.look(way)
		if now.Hold {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		n := len(p.bytes)
		if now.Rate > 0 {
			n = min(n, max(1, now.Rate/50))
			if !sleep(ctx, time.Duration(n)*time.Second/time.Duration(now.Rate)) {
				return ctx.Err()
			}
		}
		pass := n
		if count != nil {
			pass = count(n)
		}
		if _, err := to.Write(p.bytes[:pass]); err != nil {
			return err
		}
		if pass < n {
			l.Cut()
			return net.ErrClosed
		}
		p.bytes = p.bytes[n:]
	}
	return nil
}

func (l *Line) look(way func() Way) (Way, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return way(), l.changed
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
