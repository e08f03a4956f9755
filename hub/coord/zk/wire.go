package zk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// What the first bytes of a packet are (zookeeper.jute): its length; then, of an answer, xid, zxid and error; of a request, xid and what is asked for. The first
// packet either way is another one: protocol version, last zxid seen, …
const (
	lengthSize    = 4
	answerSize    = lengthSize + 16
	zxidOfAnswer  = 8 // after length and xid
	zxidOfConnect = 8 // after length and protocol version
)

// prompt is a connection to a server that mends two habits of the driver: waiting too long, and zxids.
//
// It waits ten times the session's time-out for a server that takes connections and says nothing: no deadline is further away than that time-out here.
//
// It notes the zxid of each answer without a lock, and reads it when it sets its watches again after a reconnection, while answers may come already: a race, and a
// watch that is set from too late a zxid misses a change (github.com/go-zookeeper/zk/pull/35); so does one that was being set when the connection broke again. So the
// driver sees no zxid: it is kept here, and put into what the driver says when it connects, so that no server is believed that is behind. Watches are set again from
// zxid 0, and all that is watched is looked at once more.
//
// Like the driver, it is used by one reader and one writer at a time; a packet is written by one call.
type prompt struct {
	net.Conn
	limit time.Duration
	seen  *atomic.Int64 // the last zxid of any answer, over all connections of a process

	in      *bufio.Reader
	head    []byte // what is left to be given of a head
	body    int    // and of the rest of its packet
	greeted bool   // the first packet has come
	called  bool   // the first packet has gone
}

func newPrompt(conn net.Conn, limit time.Duration, seen *atomic.Int64) *prompt {
	return &prompt{Conn: conn, limit: limit, seen: seen, in: bufio.NewReader(conn)}
}

// Read gives what the server says, with zxids of 0 in the heads of answers.
func (p *prompt) Read(b []byte) (int, error) {
	if len(p.head) == 0 && p.body == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	n, err := p.in.Read(b[:min(len(b), p.body)])
	p.body -= n
	return n, err
}

// next reads the head of a packet.
func (p *prompt) next() error {
	size := answerSize
	if !p.greeted {
		size = lengthSize
	}
	head := make([]byte, size)
	if _, err := io.ReadFull(p.in, head); err != nil {
		return err
	}
	rest := int64(int32(binary.BigEndian.Uint32(head))) - int64(size-lengthSize)
	if rest < 0 {
		return fmt.Errorf("ZooKeeper sent an answer of %d bytes", rest+int64(size-lengthSize))
	}
	if p.greeted {
		at := head[zxidOfAnswer : zxidOfAnswer+8]
		if xid, zxid := int32(binary.BigEndian.Uint32(head[lengthSize:])), int64(binary.BigEndian.Uint64(at)); xid >= 0 && zxid > 0 {
			p.seen.Store(zxid)
			clear(at)
		}
	}
	p.greeted, p.head, p.body = true, head, int(rest)
	return nil
}

// Write sends a packet; the first one says what has been seen.
func (p *prompt) Write(b []byte) (int, error) {
	if !p.called && len(b) >= zxidOfConnect+8 {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint64(b[zxidOfConnect:], uint64(p.seen.Load()))
	}
	p.called = true
	return p.Conn.Write(b)
}

func (p *prompt) clamp(t time.Time) time.Time {
	if latest := time.Now().Add(p.limit); !t.IsZero() && t.After(latest) {
		return latest
	}
	return t
}

// SetReadDeadline is net.Conn's, at most a session's time-out from now.
func (p *prompt) SetReadDeadline(t time.Time) error { return p.Conn.SetReadDeadline(p.clamp(t)) }

// SetWriteDeadline is net.Conn's, at most a session's time-out from now.
func (p *prompt) SetWriteDeadline(t time.Time) error { return p.Conn.SetWriteDeadline(p.clamp(t)) }
