package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// two machines with a connection between them.
func two(t *testing.T) (n *Net, a, b *Host, near, far net.Conn) {
	t.Helper()
	n = New()
	a, b = n.Host("10.0.0.1"), n.Host("10.0.0.2")
	l, err := b.Listen("tcp", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() { c, _ := l.Accept(); accepted <- c }()
	if near, err = a.Dial(t.Context(), "tcp", "10.0.0.2:80"); err != nil {
		t.Fatal(err)
	}
	return n, a, b, near, <-accepted
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v; want %q", b, err, want)
	}
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// Lines take their time, hold what is sent while they are cut, one direction by itself, and keep the order.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b, near, far := two(t)
		if host, _, _ := net.SplitHostPort(far.RemoteAddr().String()); host != "10.0.0.1" {
			t.Errorf("it comes from %v", far.RemoteAddr())
		}
		n.SetLine("10.0.0.1", "10.0.0.2", Line{Delay: time.Second})
		begin := time.Now()
		write(t, near, "one")
		n.SetLine("10.0.0.1", "10.0.0.2", Line{}) // what comes later does not overtake
		write(t, near, "two")
		read(t, far, "onetwo")
		if d := time.Since(begin); d != time.Second {
			t.Errorf("it took %v", d)
		}
		n.SetLine("10.0.0.1", "10.0.0.2", Line{Cut: true})
		write(t, near, "three")
		write(t, far, "back")
		read(t, near, "back")
		_ = far.SetReadDeadline(time.Now().Add(time.Minute))
		var late net.Error
		if _, err := far.Read(make([]byte, 1)); !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("read through a cut line: %v", err)
		}
		begin = time.Now()
		if _, err := a.Dial(t.Context(), "tcp", "10.0.0.2:80"); err == nil || time.Since(begin) != dialTime {
			t.Errorf("dialed through a cut line: %v after %v", err, time.Since(begin))
		}
		if _, err := b.Dial(t.Context(), "tcp", "10.0.0.1:80"); err == nil {
			t.Error("dialed while the way back is cut")
		}
		_ = far.SetReadDeadline(time.Time{})
		_ = near.Close()
		n.SetLine("10.0.0.1", "10.0.0.2", Line{})
		read(t, far, "three")
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
		_ = far.Close()
		if n.Open() != 0 {
			t.Errorf("%d connections are open", n.Open())
		}
	})
}

// A process that is killed takes its connections and listeners with it; the other end hears of it when a packet gets there.
func TestHostKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b, near, far := two(t)
		n.SetLine("10.0.0.2", "10.0.0.1", Line{Cut: true})
		b.Kill()
		if _, err := far.Write([]byte("x")); err == nil {
			t.Error("a dead process writes")
		}
		_ = near.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := near.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
			t.Error("heard of the death through a cut line")
		}
		_ = near.SetReadDeadline(time.Time{})
		n.SetLine("10.0.0.2", "10.0.0.1", Line{})
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read from a dead process: %v", err)
		}
		if _, err := a.Dial(context.Background(), "tcp", "10.0.0.2:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dialed a dead process: %v", err)
		}
		if _, err := b.Listen("tcp", ":80"); err == nil {
			t.Error("a dead process listens")
		}
		again := n.Host("10.0.0.2")
		l, err := again.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := again.Dial(context.Background(), "tcp", "localhost:80")
			if err == nil {
				_ = c.Close()
			}
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != "127.0.0.1" {
			t.Errorf("a caller on the machine comes from %v", c.RemoteAddr())
		}
		_ = c.Close()
	})
}
