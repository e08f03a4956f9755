package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord/local"
	"timehub/hub/disk"
)

// pipes is a listener whose connections stay in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A whole hub runs in a bubble of virtual time: a minute that is over goes to long-term storage by itself, and is read from there when the log has let
// go of it.
func TestVirtualTime(t *testing.T) {
	folder, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	synctest.Test(t, func(t *testing.T) {
		cfg, _, err := Load(Sources{Set: []string{"spoke.write.ttlMinutes=5", "app.birthDay=1999/01/01"}})
		if err != nil {
			t.Fatal(err)
		}
		blobs := mem.New(mem.Options{})
		wire := &pipes{make(chan net.Conn), make(chan struct{})}
		n, err := New(cfg, Env{
			Disk: folder, Bucket: blobs, Coordinator: local.NewMemory().Session("node-1"), Host: "node-1",
			Listen: func(string, string) (net.Listener, error) { return wire, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		<-n.Ready()
		transport := &http.Transport{DialContext: wire.dial}
		client := &http.Client{Transport: transport}
		call := func(method, path, body string) (int, string, string) {
			r, err := http.NewRequest(method, path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(text), resp.Header.Get("Location")
		}
		if status, body, _ := call("PUT", "http://hub/channel/beans", ""); status != 201 {
			t.Fatalf("%d %s", status, body)
		}
		status, body, location := call("POST", "http://hub/channel/beans", "hello")
		if status != 201 {
			t.Fatalf("%d %s", status, body)
		}
		time.Sleep(10 * time.Minute)
		l, err := blobs.List(t.Context(), bucket.ListOptions{Prefix: "beansBatch/"})
		if err != nil || len(l.Blobs) != 2 {
			t.Errorf("ten minutes later long-term storage has %v, %v", l.Blobs, err)
		}
		if s := n.parts.spoke.Status(); s.Records > 0 {
			t.Errorf("the log still has %d records", s.Records)
		}
		if _, body, _ := call("GET", location, ""); body != "hello" {
			t.Errorf("read from long-term storage: %q", body)
		}
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
