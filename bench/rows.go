package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"timehub/e2e/hubproc"
)

// measurement fills one or more rows of the table.
type measurement struct {
	rows []string
	run  func(context.Context) error
}

// The names of the rows, in the order of ENGINE.md §8.
const (
	rowPost64   = "POST 1 KiB, 64 connections, always, first 40 s"
	rowSustain  = "the same, minutes 2–4, the archiver keeping up"
	rowPost1    = "POST 1 KiB, 1 connection, always"
	rowPost100  = "POST 100 KiB, 16 connections, always"
	rowBulk     = "bulk POST, 100 × 1 KiB a request, 4 connections, always"
	rowGet      = "GET one item, 16 connections, hot"
	rowBulkRead = "?bulk=true over a million × 1 KiB"
	rowLatency  = "latest, next/100, a second: p99 with 10^6 / with 10^4 items"
	rowWindow   = "insert rate, window at 10^6 items / first window"
	rowReady    = "ready after kill -9, 10^6 × 1 KiB in the log"
	rowMemory   = "RSS, maximum over 10^6 inserts and their archiving"
	rowIdle     = "RSS with 10,000 idle channels"
	rowPush50   = "insert answered → websocket message, 1,000 items/s: p50"
	rowPush99   = "insert answered → websocket message, 1,000 items/s: p99"
	rowPushMany = "1,000 websockets × 100 items/s"
)

func (b *bench) measurements() []measurement {
	return append([]measurement{
		{[]string{rowPost64}, func(ctx context.Context) error {
			hub, floor, err := b.posts(ctx, b.small, 64)
			b.floor64 = floor
			return b.ratio(rowPost64, hub, floor, 0.70, 0.80, err)
		}},
		{[]string{rowSustain}, b.sustain},
		{[]string{rowPost1}, func(ctx context.Context) error {
			hub, floor, err := b.posts(ctx, b.small, 1)
			return b.ratio(rowPost1, hub, floor, 0.80, 0.95, err)
		}},
		{[]string{rowPost100}, func(ctx context.Context) error {
			hub, floor, err := b.posts(ctx, b.large, 16)
			return b.ratio(rowPost100, hub, floor, 0.70, 0.90, err)
		}},
		{[]string{rowBulk}, b.bulk},
		{[]string{rowGet}, b.gets},
		{[]string{rowWindow, rowMemory}, b.million},
		{[]string{rowBulkRead, rowReady}, b.restart},
		{[]string{rowLatency}, b.latency},
		{[]string{rowIdle}, b.idle},
		{[]string{rowPush50, rowPush99}, b.pushLatency},
		{[]string{rowPushMany}, b.manyPushed},
	}, append(b.hookMeasurements(), b.clusterMeasurements()...)...)
}

func (b *bench) ratio(name string, hub, floor, must, aim float64, err error) error {
	if err != nil {
		return err
	}
	b.add(result{name: name, hub: thousands(hub) + "/s", yardstick: thousands(floor) + "/s", value: hub / floor, unit: "×", must: must, aim: aim})
	return nil
}

const warmUp = 500 * time.Millisecond

// calm waits until d fits into the minute: the work of a closing minute has a row of its own.
func calm(ctx context.Context, d time.Duration) error {
	now := time.Now()
	if left := now.Truncate(time.Minute).Add(time.Minute).Sub(now); d < 50*time.Second && left < d+2*time.Second {
		return pause(ctx, left+2*time.Second)
	}
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// posts lets hub and floor take turns and returns the medians of their inserts per second.
func (b *bench) posts(ctx context.Context, body []byte, conns int) (hub, floor float64, err error) {
	var hubs, floors []float64
	for range b.opt.runs {
		if err := calm(ctx, b.opt.seconds+warmUp+time.Second); err != nil {
			return 0, 0, err
		}
		err := b.withFloor(ctx, "group", func(addr string) error {
			o, err := load{addr: addr, conns: conns, request: post(addr, "/channel/bench", "application/json", body), status: 201, warm: warmUp, duration: b.opt.seconds}.run(ctx)
			floors = append(floors, o.perSecond())
			return err
		})
		if err != nil {
			return 0, 0, fmt.Errorf("floor: %w", err)
		}
		if err := calm(ctx, b.opt.seconds+warmUp+time.Second); err != nil {
			return 0, 0, err
		}
		err = b.withHub(func(h *hubproc.Hub) error {
			if err := b.channel(h, "bench"); err != nil {
				return err
			}
			o, err := load{addr: h.Addr, conns: conns, request: post(h.Addr, "/channel/bench", "application/json", body), status: 201, warm: warmUp, duration: b.opt.seconds}.run(ctx)
			if err != nil {
				return err
			}
			hubs = append(hubs, o.perSecond())
			return b.check(h, o.location, body)
		})
		if err != nil {
			return 0, 0, fmt.Errorf("hub: %w", err)
		}
	}
	return median(hubs), median(floors), nil
}

// floor64OrMeasure is the floor's rate with 64 connections, measured now if its row was left out.
func (b *bench) floor64OrMeasure(ctx context.Context) (float64, error) {
	if b.floor64 > 0 {
		return b.floor64, nil
	}
	var floors []float64
	for range b.opt.runs {
		err := b.withFloor(ctx, "group", func(addr string) error {
			o, err := load{addr: addr, conns: 64, request: post(addr, "/channel/bench", "application/json", b.small), status: 201, warm: warmUp, duration: b.opt.seconds}.run(ctx)
			floors = append(floors, o.perSecond())
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("floor: %w", err)
		}
	}
	b.floor64 = median(floors)
	return b.floor64, nil
}

// sustain writes for minutes, with the archiver at work, and watches its lag.
func (b *bench) sustain(ctx context.Context) error {
	floor, err := b.floor64OrMeasure(ctx)
	if err != nil {
		return err
	}
	return b.withHub(func(h *hubproc.Hub) error {
		if err := b.channel(h, "bench"); err != nil {
			return err
		}
		request := post(h.Addr, "/channel/bench", "application/json", b.small)
		// The first quarter is the warm-up; the rest is measured in three parts, so that a lag that grows is seen.
		part := b.opt.sustain / 4
		rates, lags := []float64{}, []float64{}
		for i := range 4 {
			o, err := load{addr: h.Addr, conns: 64, request: request, status: 201, duration: part}.run(ctx)
			if err != nil {
				return err
			}
			if i == 0 {
				continue
			}
			lag, err := b.metric(h, "hub_archive_lag_seconds")
			if err != nil {
				return err
			}
			rates, lags = append(rates, o.perSecond()), append(lags, lag)
		}
		rate := (rates[0] + rates[1] + rates[2]) / 3
		note := fmt.Sprintf(" (lag %.0f, %.0f, %.0f s)", lags[0], lags[1], lags[2])
		r := result{name: rowSustain + note, hub: thousands(rate) + "/s", yardstick: thousands(floor) + "/s", value: rate / floor, unit: "×", must: 0.45, aim: 0.60}
		// The archiver works minute by minute: a lag of up to two minutes is its rhythm. One that grows by more than one is not.
		if lags[2] > lags[0]+60 {
			r.name += ", **growing**"
			r.value = 0
		}
		b.add(r)
		return nil
	})
}

// bulk compares with the floor at 31,000 inserts a second, on which the figures of ENGINE.md rest.
func (b *bench) bulk(ctx context.Context) error {
	floor, err := b.floor64OrMeasure(ctx)
	if err != nil {
		return err
	}
	body := b.bulkBody(100)
	var rates []float64
	for range b.opt.runs {
		if err := calm(ctx, b.opt.seconds+warmUp+time.Second); err != nil {
			return err
		}
		err := b.withHub(func(h *hubproc.Hub) error {
			if err := b.channel(h, "bench"); err != nil {
				return err
			}
			o, err := load{addr: h.Addr, conns: 4, request: post(h.Addr, "/channel/bench/bulk", "multipart/mixed; boundary=bench-boundary", body),
				status: 201, warm: warmUp, duration: b.opt.seconds}.run(ctx)
			rates = append(rates, 100*o.perSecond())
			return err
		})
		if err != nil {
			return err
		}
	}
	rate, scale := median(rates), floor/31_000
	b.add(result{name: rowBulk, hub: thousands(rate) + " items/s", yardstick: fmt.Sprintf("floor %s/s: × %.2f", thousands(floor), scale),
		value: rate, unit: "/s", must: 60_000 * scale, aim: 120_000 * scale})
	return nil
}

func (b *bench) bulkBody(n int) []byte {
	var body bytes.Buffer
	for range n {
		body.WriteString("--bench-boundary\r\nContent-Type: application/json\r\n\r\n")
		body.Write(b.small)
		body.WriteString("\r\n")
	}
	body.WriteString("--bench-boundary--")
	return body.Bytes()
}

// gets reads one item again and again.
func (b *bench) gets(ctx context.Context) error {
	var hubs, echoes []float64
	for range b.opt.runs {
		err := b.withFloor(ctx, "echo", func(addr string) error {
			if _, err := b.call("POST", "http://"+addr+"/channel/bench", b.small, 201); err != nil {
				return err
			}
			o, err := load{addr: addr, conns: 16, request: get(addr, "/channel/bench/item"), status: 200, warm: warmUp, duration: b.opt.seconds}.run(ctx)
			if err == nil && o.bytes != o.requests*int64(len(b.small)) {
				err = fmt.Errorf("%d bytes in %d answers", o.bytes, o.requests)
			}
			echoes = append(echoes, o.perSecond())
			return err
		})
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		err = b.withHub(func(h *hubproc.Hub) error {
			if err := b.channel(h, "bench"); err != nil {
				return err
			}
			first, err := load{addr: h.Addr, conns: 1, request: post(h.Addr, "/channel/bench", "application/json", b.small), status: 201, requests: 1}.run(ctx)
			if err != nil {
				return err
			}
			o, err := load{addr: h.Addr, conns: 16, request: get(h.Addr, first.location[len(h.URL):]), status: 200, warm: warmUp, duration: b.opt.seconds}.run(ctx)
			if err == nil && o.bytes != o.requests*int64(len(b.small)) {
				err = fmt.Errorf("%d bytes in %d answers", o.bytes, o.requests)
			}
			hubs = append(hubs, o.perSecond())
			return err
		})
		if err != nil {
			return fmt.Errorf("hub: %w", err)
		}
	}
	return b.ratio(rowGet, median(hubs), median(echoes), 0.60, 0.75, nil)
}
