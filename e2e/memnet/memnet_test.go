package memnet

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// An HTTP server and its client work in a bubble, over bodies larger than what fits on the way, and leave nothing behind.
func TestHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{IdleTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			_, _ = io.Copy(w, r.Body)
		})}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		c := http.Client{Transport: &http.Transport{DialContext: n.Dial}}
		body := strings.Repeat("0123456789", 50_000)
		for range 3 {
			resp, err := c.Post("http://"+l.Addr().String()+"/", "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != body {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			resp.Body.Close()
		}
		time.Sleep(2 * time.Minute) // idle connections are closed
		if n.Open() != 0 {
			t.Errorf("%d ends are open", n.Open())
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-done
		if _, err := n.Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l, err := n.Listen("tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen("tcp", "a:1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error(err)
		}
		open := func() (near, far io.ReadWriteCloser, deadline func(time.Time) error) {
			done := make(chan io.ReadWriteCloser, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
				}
				done <- c
			}()
			c, err := n.Dial(t.Context(), "tcp", "a:1")
			if err != nil {
				t.Fatal(err)
			}
			return c, <-done, c.SetDeadline
		}
		b := make([]byte, 10)

		near, far, _ := open()
		_, _ = near.Write([]byte("last words"))
		near.Close()
		if k, err := far.Read(b); k != 10 || err != nil {
			t.Error(k, err)
		}
		if _, err := far.Read(b); err != io.EOF {
			t.Error(err)
		}
		if _, err := far.Write(b); !errors.Is(err, syscall.EPIPE) {
			t.Error(err)
		}
		far.Close()

		near, far, deadline := open()
		begin := time.Now()
		_ = deadline(begin.Add(time.Second))
		if _, err := near.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
			t.Error(err, time.Since(begin))
		}
		if _, err := near.Write(make([]byte, 2*room)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = deadline(time.Time{})
		go func() { time.Sleep(time.Hour); n.Cut() }()
		if _, err := near.Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := far.Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		near.Close()
		far.Close()
		l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Dial(ctx, "tcp", "a:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}
