package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"timehub/e2e/hubproc"
)

// The rows of webhooks.
const (
	rowCall50    = "insert answered → webhook called, 1,000 items/s: p50"
	rowCall99    = "insert answered → webhook called, 1,000 items/s: p99"
	rowCalls1    = "calls of a webhook with a backlog, parallelCalls 1"
	rowCalls16   = "calls of a webhook with a backlog, parallelCalls 16"
	rowIdleHooks = "10,000 idle webhooks"
	rowIdleCPU   = "10,000 idle webhooks: CPU"
)

const (
	callItems = 40_000 // of a backlog
	cpuTime   = 10 * time.Second
)

func (b *bench) hookMeasurements() []measurement {
	return []measurement{
		{[]string{rowCall50, rowCall99}, b.callLatency},
		{[]string{rowCalls1}, func(ctx context.Context) error { return b.calls(ctx, rowCalls1, 1) }},
		{[]string{rowCalls16}, func(ctx context.Context) error { return b.calls(ctx, rowCalls16, 16) }},
		{[]string{rowIdleHooks, rowIdleCPU}, b.idleHooks},
	}
}

// sink is a consumer that does as little as possible, because it shares the machine with what it measures. It tells of every call.
type sink struct {
	net.Listener
	called func(uri []byte)
	conns  sync.Map // net.Conn
	group  sync.WaitGroup
}

func newSink(called func(uri []byte)) (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{Listener: l, called: called}
	s.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Store(c, nil)
			s.group.Go(func() { s.serve(c) })
		}
	})
	return s, nil
}

func (s *sink) url() string { return "http://" + s.Addr().String() + "/cb" }

// close ends all connections and waits for who reads them.
func (s *sink) close() {
	s.Close()
	s.conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	s.group.Wait()
}

func (s *sink) serve(c net.Conn) {
	defer c.Close()
	defer s.conns.Delete(c)
	in := bufio.NewReaderSize(c, 16<<10)
	for {
		length := 0
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			if hasName(line, "content-length:") {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(line[15:])))
			}
		}
		body, err := in.Peek(length)
		if err != nil {
			return
		}
		_, uri, _ := bytes.Cut(body, []byte(`"uris":["`))
		uri, _, _ = bytes.Cut(uri, []byte(`"`))
		s.called(uri)
		in.Discard(length)
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// hook makes or changes a webhook on the channel bench.
func (b *bench) hook(h *hubproc.Hub, name, channel, callback, members string, status int) error {
	body := fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": "%s/channel/%s"%s}`, callback, h.URL, channel, members)
	_, err := b.call("PUT", h.URL+"/webhook/"+name, []byte(body), status, "Content-Type", "application/json")
	return err
}

// callLatency is the time from an insert's answer to the call of its webhook.
func (b *bench) callLatency(ctx context.Context) error {
	var p50s, p99s []float64
	for range b.opt.runs {
		if err := calm(ctx, b.opt.seconds+time.Second); err != nil {
			return err
		}
		n := int(b.opt.seconds.Seconds() * pushRate)
		err := b.withHub(func(h *hubproc.Hub) error {
			times, err := b.called(ctx, h, n)
			p50s, p99s = append(p50s, percentile(times, 0.50).Seconds()*1000), append(p99s, percentile(times, 0.99).Seconds()*1000)
			return err
		}, "--set", "app.stable_seconds=auto")
		if err != nil {
			return err
		}
	}
	b.add(result{name: rowCall50, hub: figure(median(p50s), "ms"), yardstick: "–", value: median(p50s), unit: "ms", must: 5, aim: 1, atMost: true})
	b.add(result{name: rowCall99, hub: figure(median(p99s), "ms"), yardstick: "–", value: median(p99s), unit: "ms", must: 50, aim: 10, atMost: true})
	return nil
}

func (b *bench) called(ctx context.Context, h *hubproc.Hub, n int) ([]time.Duration, error) {
	if err := b.channel(h, "bench"); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	seen, all := make(map[string]time.Time, n), make(chan struct{})
	s, err := newSink(func(uri []byte) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if seen[string(uri)] = now; len(seen) == n {
			close(all)
		}
	})
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := b.hook(h, "bench", "bench", s.url(), "", 201); err != nil {
		return nil, err
	}
	type answer struct {
		at       time.Time
		location string
	}
	answers := make([]answer, n)
	err = b.paced(ctx, h.Addr, pushConns, pushRate, n, func(i int, at time.Time, location string) { answers[i] = answer{at, location} })
	if err != nil {
		return nil, err
	}
	if err := within(ctx, all, time.Minute); err != nil {
		return nil, err
	}
	times := make([]time.Duration, 0, n)
	for _, a := range answers {
		at, ok := seen[a.location]
		if !ok {
			return nil, fmt.Errorf("no call for %s", a.location)
		}
		times = append(times, max(0, at.Sub(a.at))) // the call may overtake the answer
	}
	return times, nil
}

func within(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return errors.New("the webhook does not deliver")
	}
}

// calls compares a webhook that has a backlog with a bare client that posts the same bodies to the same consumer.
func (b *bench) calls(ctx context.Context, row string, parallel int) error {
	n := min(callItems, b.opt.items)
	if parallel == 1 {
		n /= 2
	}
	var hubs, clients []float64
	for range b.opt.runs {
		rate, err := b.bareCalls(ctx, parallel, n)
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		clients = append(clients, rate)
		if rate, err = b.hookCalls(ctx, parallel, n); err != nil {
			return fmt.Errorf("hub: %w", err)
		}
		hubs = append(hubs, rate)
	}
	return b.ratio(row, median(hubs), median(clients), 0.40, 0.60, nil)
}

func (b *bench) bareCalls(ctx context.Context, parallel, n int) (float64, error) {
	s, err := newSink(func([]byte) {})
	if err != nil {
		return 0, err
	}
	defer s.close()
	cmd := exec.CommandContext(ctx, b.callBin, "-to", s.url(), "-conns", strconv.Itoa(parallel), "-n", strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

func (b *bench) hookCalls(ctx context.Context, parallel, n int) (rate float64, err error) {
	err = b.withHub(func(h *hubproc.Hub) error {
		if err := b.channel(h, "bench"); err != nil {
			return err
		}
		var calls atomic.Int64
		var first atomic.Int64
		all := make(chan struct{})
		s, err := newSink(func([]byte) {
			switch i := calls.Add(1); i {
			case 1:
				first.Store(time.Now().UnixNano())
			case int64(n):
				close(all)
			}
		})
		if err != nil {
			return err
		}
		defer s.close()
		if err := b.hook(h, "bench", "bench", s.url(), fmt.Sprintf(`, "paused": true, "parallelCalls": %d`, parallel), 201); err != nil {
			return err
		}
		_, err = load{addr: h.Addr, conns: 4, request: post(h.Addr, "/channel/bench/bulk", "multipart/mixed; boundary=bench-boundary", b.bulkBody(100)),
			status: 201, requests: n / 100}.run(ctx)
		if err != nil {
			return err
		}
		if err := calm(ctx, 10*time.Second); err != nil {
			return err
		}
		if err := b.hook(h, "bench", "bench", s.url(), `, "paused": false`, 200); err != nil {
			return err
		}
		if err := within(ctx, all, 5*time.Minute); err != nil {
			return err
		}
		rate = float64(n) / time.Since(time.Unix(0, first.Load())).Seconds()
		return nil
	}, "--set", "app.stable_seconds=auto")
	return rate, err
}

// idleHooks is what webhooks cost that have nothing to do, each on a channel of its own.
func (b *bench) idleHooks(ctx context.Context) error {
	return b.withHub(func(h *hubproc.Hub) error {
		var made, hooked atomic.Int64
		_, err := load{addr: h.Addr, conns: 8, status: 201, requests: b.opt.idle, next: func() []byte {
			return fmt.Appendf(nil, "PUT /channel/idle-%d HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", made.Add(1), h.Addr)
		}}.run(ctx)
		if err != nil {
			return err
		}
		if err := pause(ctx, 3*time.Second); err != nil {
			return err
		}
		before, err := memory(h, "VmRSS")
		if err != nil {
			return err
		}
		_, err = load{addr: h.Addr, conns: 8, status: 201, requests: b.opt.idle, next: func() []byte {
			i := hooked.Add(1)
			body := fmt.Sprintf(`{"callbackUrl": "http://127.0.0.1:9/cb", "channelUrl": "%s/channel/idle-%d"}`, h.URL, i)
			return fmt.Appendf(nil, "PUT /webhook/idle-%d HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", i, h.Addr, len(body), body)
		}}.run(ctx)
		if err != nil {
			return err
		}
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		after, err := memory(h, "VmRSS")
		if err != nil {
			return err
		}
		used, err := cpu(h)
		if err != nil {
			return err
		}
		if err := pause(ctx, cpuTime); err != nil {
			return err
		}
		now, err := cpu(h)
		if err != nil {
			return err
		}
		each := (after - before) * 1024 / float64(b.opt.idle)
		b.add(result{name: rowIdleHooks, hub: fmt.Sprintf("%.0f MiB, %.0f without them", after, before), yardstick: "–",
			value: each, unit: "KiB each", must: 20, aim: 8, atMost: true})
		b.add(result{name: rowIdleCPU, hub: fmt.Sprintf("%v in %v", now-used, cpuTime), yardstick: "–",
			value: 100 * (now - used).Seconds() / cpuTime.Seconds(), unit: "% of a core", must: 2, aim: 1, atMost: true})
		return nil
	}, "--set", "app.stable_seconds=auto")
}

// cpu is the time that a hub has computed.
func cpu(h *hubproc.Hub) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the time of the processor: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("/proc tells no time")
	}
	var ticks int
	for _, f := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
