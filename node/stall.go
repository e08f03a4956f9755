package node

import (
	"net"
	"sync/atomic"
	"time"
)

// stallTime is how long a client may take to make room for more of an answer. One that stops reading would else hold its answer, and the parts of the
// log that it is made of, for ever.
const stallTime = time.Minute

// stallListener cuts connections off whose other end stops reading.
type stallListener struct {
	net.Listener
	limit time.Duration
}

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: c, limit: l.limit}, nil
}

// stallConn gives every write a deadline. It is moved on in steps, so that most writes cost a look at the clock only; a write has between 3/4 of the
// limit and all of it.
type stallConn struct {
	net.Conn
	limit time.Duration
	set   atomic.Int64 // when the deadline was moved last, in ns since 1970
}

func (c *stallConn) Write(p []byte) (int, error) {
	total := 0
	for {
		now := time.Now()
		if last := c.set.Load(); now.UnixNano()-last > int64(c.limit/4) {
			if err := c.SetWriteDeadline(now.Add(c.limit)); err != nil {
				return total, err
			}
			c.set.Store(now.UnixNano())
		}
		part := p[total:min(len(p), total+maxWrite)]
		n, err := c.Conn.Write(part)
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// maxWrite is what goes out under one deadline: a slow client is not a stalled one.
const maxWrite = 64 << 10
