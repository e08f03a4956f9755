package datadog

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"timehub/hub/metrics"
)

// listen opens a real UDP socket and returns its port and what arrives, line by line.
func listen(t *testing.T) (int, <-chan string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for line := range strings.SplitSeq(strings.TrimSpace(string(buf[:n])), "\n") {
				lines <- line
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).Port, lines
}

// start runs a registry and returns how to stop it.
func start(t *testing.T, o Options) (*Registry, func()) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() { done <- r.Run(ctx, func() { close(ready) }) }()
	<-ready
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// gather reads lines until all wanted ones were seen, then returns everything that came.
func gather(t *testing.T, lines <-chan string, want ...string) []string {
	t.Helper()
	var got []string
	want = slices.Clone(want)
	for deadline := time.After(20 * time.Second); len(want) > 0; {
		select {
		case line := <-lines:
			got = append(got, line)
			want = slices.DeleteFunc(want, func(w string) bool { return w == line })
		case <-deadline:
			t.Fatalf("missing %q in %q", want, got)
		}
	}
	return got
}

func TestBothPortsNamesTypesTags(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	portA, a := listen(t)
	portB, b := listen(t)
	r, stop := start(t, Options{Ports: []int{portA, portB}, Ignore: []string{"request.internal.nonchannel"}})
	insert := []string{"type", "channel"}
	r.Counter(metrics.ChannelItems, "", insert...).With("BULK", "beans").Add(5)
	r.Counter(metrics.ChannelItems, "", insert...).With("BULK", "Test_beans").Add(5)
	r.Counter(metrics.ChannelItems, "", insert...).Add(7)
	r.Timing(metrics.Channel, "", insert...).With("SINGLE", "beans").Observe(1500 * time.Microsecond)
	r.Timing(metrics.Channel, "", insert...).With("SINGLE", "test_").Observe(time.Second)
	r.Timing(metrics.RequestInternal, "", "method", "call").With("GET", "/internal").Observe(time.Second)
	r.Counter(metrics.Errors, "", "errorCode", "call", "channel").With("503", "POST|x,y", "test_it").Add(1)
	r.Gauge(metrics.OpenFiles, "").Set(12)
	r.Gauge(metrics.SpokeTTL, "").Set(60)
	r.Gauge(metrics.ArchiveLag, "").Set(3) // ours alone
	r.Counter(metrics.StartupComplete, "", "startup").With("startup").Add(1)
	stop()
	want := []string{
		"hub.channel.items:5|c|#type:BULK,channel:beans",
		"hub.channel:1.500000|ms|#type:SINGLE,channel:beans",
		"hub.errors:1|c|#errorCode:503,call:POST_x_y,channel:test_it",
		"hub.openFiles:12|c",
		"hub.spoke.write.ttl:60|g",
		"hub.lifecycle.startup.complete:1|c|#startup:startup",
	}
	for port, lines := range map[string]<-chan string{"statsd": a, "grafanastatsd": b} {
		if got := gather(t, lines, want...); len(got) != len(want) {
			t.Errorf("%s got more than it should: %q", port, got)
		}
	}
}

// Nobody listens, or the socket stands still: the hot path goes on.
func TestNeverBlocks(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	stuck := make(chan struct{})
	r, stop := start(t, Options{Ports: []int{9}, Dial: func(string, string) (net.Conn, error) { return stuckConn{stuck: stuck}, nil }})
	timing := r.Timing(metrics.Channel, "", "type", "channel").With("SINGLE", "beans")
	items := r.Counter(metrics.ChannelItems, "", "type", "channel").With("SINGLE", "beans")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200_000 {
			timing.Observe(time.Millisecond)
			items.Add(1)
		}
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Error("the hot path waits for a socket that stands still")
	}
	close(stuck)
	<-done
	stop()
	timing.Observe(time.Second) // after Run: dropped
}

type stuckConn struct {
	net.Conn
	stuck chan struct{}
}

func (c stuckConn) Write(p []byte) (int, error) { <-c.stuck; return len(p), nil }
func (c stuckConn) Close() error                { return nil }

func TestOptions(t *testing.T) {
	for _, ports := range [][]int{nil, {0}, {8124, 65536}} {
		if _, err := New(Options{Ports: ports}); err == nil {
			t.Errorf("ports %v are accepted", ports)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a variant without values goes unnoticed")
		}
	}()
	r, _ := New(Options{Ports: []int{1}})
	r.Counter(metrics.ChannelItems, "", "type", "channel").With("SINGLE")
}
