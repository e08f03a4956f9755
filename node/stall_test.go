package node

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := &pipes{make(chan net.Conn), make(chan struct{})}
		l := stallListener{wire, time.Minute}
		accept := func() (client net.Conn, server net.Conn) {
			got := make(chan net.Conn, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
			client, err := wire.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			return client, <-got
		}
		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

		// A slow client gets everything, however long that takes.
		client, server := accept()
		done := make(chan error, 1)
		go func() { _, err := server.Write(body); done <- errors.Join(err, server.Close()) }()
		var got bytes.Buffer
		begin := time.Now()
		for {
			if _, err := io.CopyN(&got, client, 32<<10); err != nil {
				break
			}
			time.Sleep(20 * time.Second)
		}
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), body) || time.Since(begin) < 10*time.Minute {
			t.Errorf("%d bytes in %s, %v", got.Len(), time.Since(begin), err)
		}

		// One that stops is cut off, and one that was idle for an hour before is not.
		client, server = accept()
		time.Sleep(time.Hour)
		go func() { _, err := server.Write(body); done <- err }()
		if _, err := io.CopyN(io.Discard, client, 100); err != nil {
			t.Error(err)
		}
		begin = time.Now()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) > time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		client.Close()
		server.Close()
		l.Close()
	})
}

func BenchmarkStallConn(b *testing.B) {
	c := &stallConn{Conn: nowhere{}, limit: time.Minute}
	part := []byte("0123456789")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(part); err != nil {
			b.Fatal(err)
		}
	}
}

type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error)        { return len(p), nil }
func (nowhere) SetWriteDeadline(t time.Time) error { return nil }
