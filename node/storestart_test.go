package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord/local"
	"timehub/hub/disk"
)

// TestStartWithoutStore: a hub that starts while long-term storage fails, or does not answer at all, says so, and is up within seconds when it is back.
func TestStartWithoutStore(t *testing.T) {
	for name, away := range map[string]mem.Fault{
		"fails": {Before: hub.E(hub.Unavailable, "out of order")}, "hangs": {Delay: 24 * time.Hour}, "loses answers": {After: hub.E(hub.Unavailable, "lost")},
	} {
		t.Run(name, func(t *testing.T) {
			folder, err := disk.OpenDir(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			synctest.Test(t, func(t *testing.T) { startWithout(t, folder, away) })
		})
	}
}

func startWithout(t *testing.T, folder disk.Disk, away mem.Fault) {
	cfg, _, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards fault
	fault := away
	blobs := mem.New(mem.Options{Fault: func(mem.Call) mem.Fault {
		mu.Lock()
		defer mu.Unlock()
		return fault
	}})
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
	transport := &http.Transport{DialContext: wire.dial}
	health := func() (int, string) {
		resp, err := (&http.Client{Transport: transport}).Get("http://hub/health")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	time.Sleep(10 * time.Minute)
	if status, text := health(); status == 200 || !strings.Contains(text, "waiting for long-term storage") {
		t.Errorf("%d %s", status, text)
	}
	mu.Lock()
	fault = mem.Fault{}
	mu.Unlock()
	back := time.Now()
	<-n.Ready()
	if took := time.Since(back); took > storeMost+time.Second {
		t.Errorf("it was up %v after the store was back", took)
	}
	if status, text := health(); status != 200 || strings.Contains(text, "waiting") {
		t.Errorf("%d %s", status, text)
	}
	transport.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestStopWithoutStore: a hub that waits for long-term storage stops when it is told to, and without an error.
func TestStopWithoutStore(t *testing.T) {
	folder, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	synctest.Test(t, func(t *testing.T) {
		cfg, _, err := Load(Sources{})
		if err != nil {
			t.Fatal(err)
		}
		wire := &pipes{make(chan net.Conn), make(chan struct{})}
		n, err := New(cfg, Env{
			Disk: folder, Bucket: mem.New(mem.Options{Fault: func(mem.Call) mem.Fault { return mem.Fault{Delay: time.Hour} }}),
			Coordinator: local.NewMemory().Session("node-1"), Host: "node-1", Listen: func(string, string) (net.Listener, error) { return wire, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// probed is a bucket that has to be found good first.
type probed struct {
	bucket.Bucket
	probe func() error
}

func (p probed) Probe(context.Context, string) error { return p.probe() }

// TestClaim: what passes is waited for; a store that does not do what it must ends the start at once.
func TestClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := 5
		outcome := error(nil)
		n, err := New(configure(t, t.TempDir()), Env{Bucket: probed{mem.New(mem.Options{}), func() error {
			if left--; left >= 0 {
				return hub.E(hub.Unavailable, "not now")
			}
			return outcome
		}}})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.openMetrics(); err != nil {
			t.Fatal(err)
		}
		open := func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := n.runStore(ctx, func() {}); err != nil {
				t.Fatal(err)
			}
		}
		open()
		began := time.Now()
		if err := n.claimStore(t.Context(), "disk"); err != nil || time.Since(began) < 5*storePause || time.Since(began) > 6*storePause {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		open()
		outcome = hub.E(hub.Unsupported, "the store does not honour If-Match")
		if err := n.claimStore(t.Context(), "disk"); !errors.Is(err, outcome) || n.waits.text() != "" {
			t.Errorf("%v, waits for %q", err, n.waits.text())
		}
	})
}
