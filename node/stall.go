package node

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// stallTime is how long a client may take to make room for more of an answer. One that stops reading would else hold its answer, and the parts of the
// log that it is made of, for ever.
const stallTime = time.Minute

// stallListener cuts connections off whose other end stops reading.
type stallListener struct {
	net.Listener
	limit time.Duration
	rooms sync.Pool // of *[]byte, to put lines into a header in
}

func (l *stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: c, limit: l.limit, made: time.Now(), rooms: &l.rooms}, nil
}

// stallConn gives every write a deadline unless its owner does, and keeps the read deadlines that its owner asks for, at less cost: net/http moves
// them six times for each request, and every move would stop and start a timer.
//
// The write deadline is moved on in steps, so that most writes cost a look at the clock only; a write has between 3/4 of the limit and all of it.
//
// Read deadlines are kept by a timer that may ring too early and then is set again. So it costs nothing to ask for a later deadline, or for none. The
// connection below has either no deadline, or one long ago: while reads are broken off.
type stallConn struct {
	net.Conn
	limit time.Duration
	made  time.Time
	rooms *sync.Pool

	mu      sync.Mutex // guards what follows; held across the setting of deadlines and timers, which never waits
	readBy  time.Time  // what the owner has asked for; zero: nothing
	rings   time.Time  // when the timer does, at or before readBy; zero: never
	timer   *time.Timer
	cut     bool          // reads are broken off
	closed  bool          // the timer is not to be set any more
	writes  time.Duration // since made: how long the deadline of writes need not be moved
	owned   bool          // the owner has set the deadline of writes
	preface []byte        // goes into the header of the answer that is written next
}

// Preface implements web.Prefacer.
func (c *stallConn) Preface(lines []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.preface = lines
}

// SetReadDeadline implements net.Conn.
func (c *stallConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = t
	if !t.IsZero() && t.Before(c.made) { // long ago: net/http breaks a read off
		return c.breakOff()
	}
	if c.cut {
		if err := c.Conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		c.cut = false
	}
	if !t.IsZero() && (c.rings.IsZero() || t.Before(c.rings)) {
		c.ring(t)
	}
	return nil
}

func (c *stallConn) breakOff() error {
	if c.cut {
		return nil
	}
	c.cut = true
	return c.Conn.SetReadDeadline(time.Unix(1, 0))
}

// ring sets the timer.
func (c *stallConn) ring(t time.Time) {
	switch {
	case c.closed:
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(t), c.rang)
	default:
		c.timer.Reset(time.Until(t))
	}
	c.rings = t
}

// rang is what the timer calls. It may come late, when everything has changed again.
func (c *stallConn) rang() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rings = time.Time{}
	switch {
	case c.readBy.IsZero():
	case time.Until(c.readBy) > 0:
		c.ring(c.readBy)
	default:
		_ = c.breakOff() // fails when the connection is closed, which breaks reads off too
	}
}

// Close implements net.Conn.
func (c *stallConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// SetWriteDeadline implements net.Conn. No deadline means that of stallConn: net/http takes its own away after each answer though it set none.
func (c *stallConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() {
		if c.owned {
			c.owned, c.writes = false, 0
		}
		return nil
	}
	c.owned = true
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *stallConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteBuffer bounds what the kernel keeps for a client, where it can be told to.
func (c *stallConn) SetWriteBuffer(bytes int) error {
	if b, ok := c.Conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		return b.SetWriteBuffer(bytes)
	}
	return nil
}

func (c *stallConn) Write(p []byte) (int, error) {
	total := 0
	for {
		lines, err := c.allow()
		if err != nil {
			return total, err
		}
		part := p[total:min(len(p), total+maxWrite)]
		var n int
		if at := headEnd(part); lines != nil && at > 0 {
			n, err = c.insert(part, at, lines)
		} else {
			n, err = c.Conn.Write(part)
		}
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// allow gives the next part of a write its time, and the lines that belong into it.
func (c *stallConn) allow() (lines []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines, c.preface = c.preface, nil
	if c.owned {
		return lines, nil
	}
	now := time.Since(c.made) // cheaper than time.Now
	if now < c.writes {
		return lines, nil
	}
	if err := c.Conn.SetWriteDeadline(c.made.Add(now + c.limit)); err != nil {
		return nil, err
	}
	c.writes = now + c.limit/4
	return lines, nil
}

// headEnd is the length of the status line that p begins with, 0 if it begins otherwise.
func headEnd(p []byte) int {
	if !bytes.HasPrefix(p, []byte("HTTP/1.")) {
		return 0
	}
	return bytes.IndexByte(p, '\n') + 1
}

// insert writes p with lines at a place in its middle and returns how much of p was written.
func (c *stallConn) insert(p []byte, at int, lines []byte) (int, error) {
	room, _ := c.rooms.Get().(*[]byte)
	if room == nil {
		room = new([]byte)
	}
	*room = append(append(append((*room)[:0], p[:at]...), lines...), p[at:]...)
	n, err := c.Conn.Write(*room)
	if cap(*room) <= keepRoom {
		c.rooms.Put(room)
	}
	return max(min(n, at), n-len(lines)), err
}

// keepRoom is the largest room that waits for the next answer: net/http writes a header with up to 4 KiB of what follows.
const keepRoom = 8 << 10

// maxWrite is what goes out under one deadline: a slow client is not a stalled one.
const maxWrite = 64 << 10
