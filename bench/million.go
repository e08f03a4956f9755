package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"timehub/e2e/hubproc"
)

// tick is how many answers there were at a time.
type tick struct {
	at    time.Time
	count int64
}

// million inserts a million items one by one, compares the last window with the first, waits until they are archived, and looks at the memory.
func (b *bench) million(ctx context.Context) error {
	return b.withHub(func(h *hubproc.Hub) error {
		if err := b.channel(h, "bench"); err != nil {
			return err
		}
		ticks, err := b.insertCounted(ctx, h)
		if err != nil {
			return err
		}
		last := ticks[len(ticks)-1]
		start := ticks[0].at.Add(b.opt.window / 5)
		first, end := rate(ticks, start, start.Add(b.opt.window)), rate(ticks, last.at.Add(-b.opt.window), last.at)
		b.add(result{name: rowWindow, hub: thousands(end) + "/s", yardstick: thousands(first) + "/s", value: end / first, unit: "×", must: 0.9, aim: 1.0})

		if err := b.archived(ctx, h); err != nil {
			return err
		}
		rss, err := memory(h, "VmHWM")
		if err != nil {
			return err
		}
		b.add(result{name: rowMemory, hub: fmt.Sprintf("%.0f MiB", rss), yardstick: "–", value: rss, unit: "MiB", must: 150, aim: 80, atMost: true})
		return nil
	})
}

// insertCounted inserts opt.items with 64 connections and counts every 50 ms.
func (b *bench) insertCounted(ctx context.Context, h *hubproc.Hub) ([]tick, error) {
	var count atomic.Int64
	ticks := []tick{{time.Now(), 0}}
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				ticks = append(ticks, tick{time.Now(), count.Load()})
			}
		}
	})
	_, err := load{addr: h.Addr, conns: 64, request: post(h.Addr, "/channel/bench", "application/json", b.small),
		status: 201, requests: b.opt.items, count: &count}.run(ctx)
	close(done)
	group.Wait()
	return append(ticks, tick{time.Now(), count.Load()}), err
}

// rate is the answers per second between two instants.
func rate(ticks []tick, from, to time.Time) float64 {
	var first, last tick
	for _, t := range ticks {
		if first.at.IsZero() && !t.at.Before(from) {
			first = t
		}
		if !t.at.After(to) {
			last = t
		}
	}
	if !last.at.After(first.at) {
		return 0
	}
	return float64(last.count-first.count) / last.at.Sub(first.at).Seconds()
}

// archived waits until nothing is left to archive.
func (b *bench) archived(ctx context.Context, h *hubproc.Hub) error {
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); {
		lag, err := b.metric(h, "hub_archive_lag_seconds")
		if err != nil {
			return err
		}
		items, err := b.metric(h, "hub_archive_items_total")
		if err != nil {
			return err
		}
		if lag == 0 && items >= float64(b.opt.items) {
			return nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return errors.New("the archiver did not keep up within 10 minutes")
}

// restart fills a log with a million items, reads them in one bulk answer, kills the hub, and waits until it is ready again; thrice.
func (b *bench) restart(ctx context.Context) error {
	var speeds, readies []float64
	for range min(b.opt.runs, 3) {
		err := b.withHub(func(h *hubproc.Hub) error {
			if err := b.fill(ctx, h); err != nil {
				return err
			}
			day, err := b.call("GET", h.URL+"/channel/bench/latest/1", nil, 200)
			if err != nil {
				return err
			}
			path, err := dayOf(day)
			if err != nil {
				return err
			}
			read, err := load{addr: h.Addr, conns: 1, request: get(h.Addr, path+"?bulk=true"), status: 200, requests: 1}.run(ctx)
			if err != nil {
				return err
			}
			if want := int64(b.opt.items) * int64(len(b.small)); read.bytes < want {
				return fmt.Errorf("the bulk answer has %d bytes, want at least %d", read.bytes, want)
			}
			speeds = append(speeds, float64(read.bytes)/1e6/read.times[0].Seconds())

			h.Kill()
			begin := time.Now()
			if err := h.Start(); err != nil {
				return err
			}
			readies = append(readies, time.Since(begin).Seconds())
			_, err = b.call("GET", h.URL+"/channel/bench/latest", nil, 200)
			return err
		})
		if err != nil {
			return err
		}
	}
	b.add(result{name: rowBulkRead, hub: fmt.Sprintf("%.0f MB/s", median(speeds)), yardstick: "–", value: median(speeds), unit: "MB/s", must: 150, aim: 200})
	b.add(result{name: rowReady, hub: fmt.Sprintf("%.2f s", median(readies)), yardstick: "–", value: median(readies), unit: "s", must: 1.0, aim: 0.4, atMost: true})
	return nil
}

// fill inserts opt.items in bulks of 1,000.
func (b *bench) fill(ctx context.Context, h *hubproc.Hub) error {
	if err := b.channel(h, "bench"); err != nil {
		return err
	}
	_, err := load{addr: h.Addr, conns: 4, request: post(h.Addr, "/channel/bench/bulk", "multipart/mixed; boundary=bench-boundary", b.bulkBody(1000)),
		status: 201, requests: b.opt.items / 1000}.run(ctx)
	return err
}

// dayOf cuts the path of the day out of a list answer.
func dayOf(list string) (string, error) {
	at := lastDay.FindStringSubmatch(list)
	if at == nil {
		return "", fmt.Errorf("no item in %.300s", list)
	}
	return at[1], nil
}

// idle makes many channels with one item each, waits for more than a minute and looks at the memory.
func (b *bench) idle(ctx context.Context) error {
	return b.withHub(func(h *hubproc.Hub) error {
		var made, filled atomic.Int64
		_, err := load{addr: h.Addr, conns: 8, status: 201, requests: b.opt.idle, next: func() []byte {
			return fmt.Appendf(nil, "PUT /channel/idle-%d HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", made.Add(1), h.Addr)
		}}.run(ctx)
		if err != nil {
			return err
		}
		_, err = load{addr: h.Addr, conns: 8, status: 201, requests: b.opt.idle, next: func() []byte {
			return post(h.Addr, fmt.Sprintf("/channel/idle-%d", filled.Add(1)), "application/json", b.small)
		}}.run(ctx)
		if err != nil {
			return err
		}
		wait := 90 * time.Second
		if b.opt.idle < full.idle {
			wait = 2 * time.Second
		}
		highest := 0.0
		for begin := time.Now(); time.Since(begin) < wait; {
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			rss, err := memory(h, "VmRSS")
			if err != nil {
				return err
			}
			highest = max(highest, rss)
		}
		now, err := memory(h, "VmRSS")
		if err != nil {
			return err
		}
		b.add(result{name: rowIdle, hub: fmt.Sprintf("%.0f MiB at most, %.0f at the end", highest, now), yardstick: "–", value: highest, unit: "MiB", must: 100, aim: 50, atMost: true})
		return nil
	})
}
