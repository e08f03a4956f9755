package zk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/zkproc"
)

// packet is a length and fields of 4 or 8 bytes, or text.
func packet(fields ...any) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		if s, ok := f.(string); ok {
			b.WriteString(s)
		} else if err := binary.Write(&b, binary.BigEndian, f); err != nil {
			panic(err)
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(b.Len())), b.Bytes()...)
}

// TestPromptHidesZxids: the driver reads answers without zxids, and what it sends bears the zxid that it means.
func TestPromptHidesZxids(t *testing.T) {
	var seen atomic.Int64
	seen.Store(7)
	for _, chunk := range []int{1, 3, 4096} {
		before := seen.Load()
		near, far := net.Pipe()
		p := newPrompt(near, time.Minute, &seen)
		sent := make(chan []byte, 1)
		go func() {
			b := make([]byte, 0, 256)
			buf := make([]byte, 256)
			for {
				n, err := far.Read(buf)
				if b = append(b, buf[:n]...); err != nil {
					sent <- b
					return
				}
			}
		}()
		watches := packet(int32(-8), int32(101), int64(0), "paths")
		for i, b := range [][]byte{
			packet(int32(0), int64(0), int32(2000), int64(5), "password"), // connect
			packet(int32(1), int32(3), "/a path"),                         // exists
			watches,
			packet(int32(-2), int32(11)), // ping
		} {
			kept := bytes.Clone(b)
			if n, err := p.Write(b); err != nil || n != len(b) || !bytes.Equal(b, kept) {
				t.Fatalf("packet %d: %d of %d written, %v, changed %v", i, n, len(b), err, !bytes.Equal(b, kept))
			}
			seen.Store(before + 100)
		}
		_ = near.Close()
		want := bytes.Join([][]byte{
			packet(int32(0), before, int32(2000), int64(5), "password"), packet(int32(1), int32(3), "/a path"),
			packet(int32(-8), int32(101), int64(0), "paths"), packet(int32(-2), int32(11)),
		}, nil)
		if got := <-sent; !bytes.Equal(got, want) {
			t.Errorf("the server heard\n%x, want\n%x", got, want)
		}
		seen.Store(before)
		reads(t, chunk, &seen)
	}
}

// reads has a prompt read answers in pieces.
func reads(t *testing.T, chunk int, seen *atomic.Int64) {
	t.Helper()
	near, far := net.Pipe()
	p := newPrompt(near, time.Minute, seen)
	base := seen.Load()
	go func() {
		_, _ = far.Write(bytes.Join([][]byte{
			packet(int32(0), int32(2000), int64(base+50), "password"), // of the connection: no zxid in it
			packet(int32(1), int64(base+1), int32(0), "body"),
			packet(int32(-1), int64(-1), int32(0), "event"),
			packet(int32(-2), int64(base+9), int32(0)), // a ping: the driver does not take its zxid either
			packet(int32(2), int64(base+2), int32(-101)),
			packet(int32(3), int64(0), int32(0)),
		}, nil))
		_ = far.Close()
	}()
	want := bytes.Join([][]byte{
		packet(int32(0), int32(2000), int64(base+50), "password"), packet(int32(1), int64(0), int32(0), "body"),
		packet(int32(-1), int64(-1), int32(0), "event"), packet(int32(-2), int64(base+9), int32(0)),
		packet(int32(2), int64(0), int32(-101)), packet(int32(3), int64(0), int32(0)),
	}, nil)
	var got []byte
	b := make([]byte, chunk)
	for {
		n, err := p.Read(b)
		if got = append(got, b[:n]...); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("in pieces of %d the driver reads\n%x, want\n%x", chunk, got, want)
	}
	if seen.Load() != base+2 {
		t.Errorf("the last zxid is %d, want %d", seen.Load(), base+2)
	}
}

// TestPromptRefuses: what cannot be an answer ends the connection.
func TestPromptRefuses(t *testing.T) {
	for _, b := range [][]byte{
		packet()[:2], binary.BigEndian.AppendUint32(nil, 1<<31),
		append(packet("hello"), binary.BigEndian.AppendUint32(nil, 15)...), append(packet("hello"), append(binary.BigEndian.AppendUint32(nil, 15), make([]byte, 16)...)...),
	} {
		near, far := net.Pipe()
		go func() { _, _ = far.Write(b); _ = far.Close() }()
		var seen atomic.Int64
		if got, err := io.ReadAll(newPrompt(near, time.Minute, &seen)); err == nil {
			t.Errorf("%x was read as %q", b, got)
		}
	}
}

// TestManyReconnections: connections that break while many ask and many watch lose no change; the race detector sees nothing.
func TestManyReconnections(t *testing.T) {
	server := zkproc.Start(t, zkproc.Options{Tick: time.Second})[0]
	n := run(t, []string{server.Address}, newRoot(), lasting)
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	defer askers.Wait()
	defer cancel()
	for i := range 12 {
		group := fmt.Sprint("group-", i)
		done(t, func() error { return n.Join(ctx, group, "me", nil) })
		_, stop := n.WatchMembers(group)
		defer stop()
		askers.Go(func() {
			for ctx.Err() == nil {
				_, _, _ = n.List(ctx, group)
			}
		})
	}
	conn, err := n.connection(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4000 { // it takes the driver a while to set so many again
		if _, _, _, err := conn.ExistsW(fmt.Sprint("/none-", i)); err != nil {
			t.Fatal(err)
		}
	}
	wake, stop := n.Watch("a")
	defer stop()
	writer := run(t, []string{server.Address}, n.root, lasting)
	for i := range 3 {
		n.link.set(true)
		for len(wake) > 0 {
			<-wake
		}
		name := "a/" + strings.Repeat("x", i%3+1)
		done(t, func() error {
			_, version, _ := writer.Get(ctx, name)
			_, err := writer.Set(ctx, name, []byte{byte(i)}, version)
			return err
		})
		n.link.set(false)
		select {
		case <-wake:
		case <-time.After(time.Minute):
			t.Fatalf("a change while the connection was away was missed, at %d", i)
		}
	}
}

// FuzzPrompt: whatever a server says, the driver reads as much of it as is whole, in the same places.
func FuzzPrompt(f *testing.F) {
	f.Add(append(packet("hello"), packet(int32(1), int64(5), int32(0), "body")...), 3)
	f.Add(packet(int32(0))[:3], 1)
	f.Fuzz(func(t *testing.T, said []byte, chunk int) {
		near, far := net.Pipe()
		go func() { _, _ = far.Write(said); _ = far.Close() }()
		defer func() { _ = near.Close() }()
		var seen atomic.Int64
		p := newPrompt(near, time.Minute, &seen)
		b := make([]byte, min(max(chunk, 1), 4096))
		var got []byte
		for {
			n, err := p.Read(b)
			if got = append(got, b[:n]...); err != nil {
				break
			}
		}
		if len(got) > len(said) {
			t.Fatalf("%d bytes of %d", len(got), len(said))
		}
		for i := range got {
			if got[i] != said[i] && got[i] != 0 {
				t.Fatalf("byte %d is %x of %x", i, got[i], said[i])
			}
		}
	})
}

// heard notes what is asked of a server, and breaks the connection behind a request, whose outcome is then unknown.
type heard struct {
	net.Conn
	of *requests
}

// requests are what several connections ask, one after the other.
type requests struct {
	mu    sync.Mutex // guards what follows
	asked []string   // number of the request, and the path
	after int32      // the connection breaks when this was asked; 0: it does not
}

func (r *requests) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &heard{conn, r}, nil
}

func (h *heard) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	if len(b) < 16 {
		return n, err
	}
	request := int32(binary.BigEndian.Uint32(b[8:]))
	path := ""
	if size := int(binary.BigEndian.Uint32(b[12:])); size > 0 && size <= len(b)-16 {
		path = string(b[16:][:size])
	}
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.asked = append(h.of.asked, fmt.Sprint(request, " ", path))
	if request != 0 && request == h.of.after {
		h.of.after = 0
		_ = h.Conn.(*net.TCPConn).CloseWrite() // the server reads it all
		_ = h.Conn.Close()
	}
	return n, err
}

// TestOrphanOfAnUnknownOutcome: what a call of unknown outcome has left in a queue is looked for on a server that has heard of it, or everybody waits for it as long as the session lives.
func TestOrphanOfAnUnknownOutcome(t *testing.T) {
	const create, sync, children = 1, 9, 12
	server := zkproc.Start(t, zkproc.Options{Tick: time.Second})[0]
	var r requests
	root := newRoot()
	n := run(t, []string{server.Address}, root, func(o *Options) { o.Session, o.Dial = 20*time.Second, r.dial })
	if l, err := n.Acquire(t.Context(), "job"); err != nil { // the folder is there then
		t.Fatal(err)
	} else if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := run(t, []string{server.Address}, root, func(o *Options) { o.Session = 20 * time.Second })
	r.mu.Lock()
	r.asked, r.after = nil, create
	r.mu.Unlock()
	if l, err := n.Acquire(t.Context(), "job"); err == nil {
		_ = l.Release(t.Context())
		t.Fatal("the connection did not break")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := other.Acquire(ctx, "job")
	if err != nil {
		t.Fatalf("somebody whose outcome was unknown stands in the way: %v", err)
	}
	defer func() { _ = l.Release(t.Context()) }()
	dir := n.leasePath("job")
	look := fmt.Sprint(children, " ", dir)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // the request may not have got through: then nobody had to wait for that
		r.mu.Lock()
		asked := slices.Clone(r.asked)
		r.mu.Unlock()
		if at := slices.Index(asked, look); at >= 0 {
			if !slices.Contains(asked[:at], fmt.Sprint(sync, " ", dir)) {
				t.Errorf("the queue was not looked at on a server that is up to date: %q", asked)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody looked at the queue: %q", asked)
		}
	}
}
