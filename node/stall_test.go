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
		l := &stallListener{Listener: wire, limit: time.Minute}
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

		// net/http takes the deadline of writes away after each answer: the next one is cut off all the same.
		client, server = accept()
		go func() {
			_, err := server.Write(body[:10])
			done <- errors.Join(err, server.SetWriteDeadline(time.Time{}))
		}()
		if _, err := io.CopyN(io.Discard, client, 10); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		begin = time.Now()
		go func() { _, err := server.Write(body); done <- err }()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) > time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		client.Close()
		server.Close()

		// An owner may be stricter, for as long as it likes.
		client, server = accept()
		begin = time.Now()
		if err := server.SetDeadline(begin.Add(time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := server.Write(body); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		if err := server.SetDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
		begin = time.Now()
		if _, err := server.Write(body); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		client.Close()
		server.Close()
		l.Close()
	})
}

// TestReadDeadlines asks for deadlines as net/http does, and in other ways: a read ends when it should, whatever was asked for before.
func TestReadDeadlines(t *testing.T) {
	const never = time.Duration(0)
	longAgo := time.Unix(1, 0)
	type step struct {
		ask  []time.Duration // deadlines from now on, in this order; 0: none, negative: long ago
		ends time.Duration   // when a read that begins then ends: at its deadline, or never
	}
	for name, steps := range map[string][]step{
		"none":                   {{nil, never}},
		"one":                    {{[]time.Duration{5 * time.Second}, 5 * time.Second}},
		"moved on":               {{[]time.Duration{5 * time.Second, 30 * time.Second}, 30 * time.Second}},
		"moved nearer":           {{[]time.Duration{30 * time.Second, 5 * time.Second}, 5 * time.Second}},
		"taken away":             {{[]time.Duration{5 * time.Second, 0}, never}},
		"broken off":             {{[]time.Duration{5 * time.Second, -1}, 0}},
		"broken off, then idle":  {{[]time.Duration{-1, 0, 30 * time.Second}, 30 * time.Second}},
		"idle, then a header":    {{[]time.Duration{-1, 0, 30 * time.Second, 5 * time.Second}, 5 * time.Second}},
		"a header for a second":  {{[]time.Duration{-1, 0, 30 * time.Second, time.Second}, time.Second}},
		"broken off, then none":  {{[]time.Duration{-1, 0}, never}},
		"run out, then again":    {{[]time.Duration{time.Second}, time.Second}, {[]time.Duration{2 * time.Second}, 2 * time.Second}},
		"run out, then none":     {{[]time.Duration{time.Second}, time.Second}, {[]time.Duration{0}, never}},
		"idle, then a body":      {{[]time.Duration{-1, 0, 7 * time.Second}, 7 * time.Second}, {[]time.Duration{0, 10 * time.Second}, 10 * time.Second}},
		"soon, in the same step": {{[]time.Duration{-1, 0, time.Second}, time.Second}, {[]time.Duration{-1, 0, 9 * time.Second}, 9 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, wire := net.Pipe()
				defer client.Close()
				c := &stallConn{Conn: wire, limit: time.Minute, made: time.Now()}
				defer c.Close()
				for i, s := range steps {
					time.Sleep(time.Minute)
					begin := time.Now()
					for _, d := range s.ask {
						at := begin.Add(d)
						switch {
						case d == 0:
							at = time.Time{}
						case d < 0:
							at = longAgo
						}
						if err := c.SetReadDeadline(at); err != nil {
							t.Fatal(err)
						}
					}
					brokenOff := len(s.ask) > 0 && s.ask[len(s.ask)-1] < 0
					if s.ends == never && !brokenOff {
						go func() { time.Sleep(time.Hour); client.Write([]byte{1}) }()
					}
					n, err := c.Read(make([]byte, 8))
					took := time.Since(begin)
					switch {
					case s.ends == never && !brokenOff:
						if n != 1 || err != nil || took != time.Hour {
							t.Errorf("step %d: %d, %v after %s", i, n, err, took)
						}
					case n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != s.ends:
						t.Errorf("step %d: %d, %v after %s, want %s", i, n, err, took, s.ends)
					}
				}
			})
		})
	}
}

// TestReadBrokenOff: a deadline long ago ends a read that waits already, whatever deadline it waits under.
func TestReadBrokenOff(t *testing.T) {
	for _, asked := range []time.Duration{0, time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			client, wire := net.Pipe()
			defer client.Close()
			c := &stallConn{Conn: wire, limit: time.Minute, made: time.Now()}
			defer c.Close()
			for range 3 {
				if asked > 0 {
					c.SetReadDeadline(time.Now().Add(asked))
				}
				ended := make(chan error)
				go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
				synctest.Wait()
				c.SetReadDeadline(time.Unix(1, 0))
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				c.SetReadDeadline(time.Time{})
			}
		})
	}
}

func BenchmarkStallConn(b *testing.B) {
	c := &stallConn{Conn: nowhere{}, limit: time.Minute, made: time.Now()}
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
