package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"timehub/e2e/hubproc"
)

// repairBytes is what a node misses, as it is stored.
const repairBytes = 200 << 20

// clusterRepair lets a node miss much, starts it again, and waits until it can give stable answers about the time after its start: until it has all of it.
func (b *bench) clusterRepair(ctx context.Context, c *cluster) error {
	want := repairBytes
	if b.opt.items < full.items {
		want /= 20
	}
	away, rest := c.hubs[clusterSize-1], c.hubs[:clusterSize-1]
	away.Kill()
	if err := b.passes(ctx, rest[0], time.Now(), 30*time.Second); err != nil {
		return err
	}
	noise := make([]byte, 1024) // nothing compresses it: what is stored is what was sent
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var body bytes.Buffer
	for range repairBulk {
		body.WriteString("--bench-boundary\r\nContent-Type: application/octet-stream\r\n\r\n")
		body.Write(noise)
		body.WriteString("\r\n")
	}
	body.WriteString("--bench-boundary--")
	requests := want / repairBulk / len(noise)
	errs := make([]error, len(rest))
	var wg sync.WaitGroup
	for i, h := range rest {
		wg.Go(func() {
			_, errs[i] = load{addr: h.Addr, conns: 2, request: post(h.Addr, "/channel/bench/bulk", "multipart/mixed; boundary=bench-boundary", body.Bytes()),
				status: 201, requests: requests / len(rest)}.run(ctx)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := away.Launch(); err != nil {
		return err
	}
	began := time.Now()
	if err := b.repaired(ctx, away, began, 5*time.Minute); err != nil {
		return err
	}
	took := time.Since(began)
	stored, err := b.metric(away, "hub_spoke_log_bytes_total")
	if err != nil {
		return err
	}
	if stored < float64(want) {
		return fmt.Errorf("the node that was away says that it has all, and has stored %.0f of %d bytes", stored, want)
	}
	speed := stored / 1e6 / took.Seconds()
	b.add(result{name: rowClusterRepair, hub: fmt.Sprintf("%.0f MB in %.1f s from its start", stored/1e6, took.Seconds()), yardstick: "–", value: speed, unit: "MB/s", must: 50, aim: 100})
	return nil
}

// repaired waits for passes with its eyes open: a node that does not run yet refuses connections.
func (b *bench) repaired(ctx context.Context, h *hubproc.Hub, at time.Time, within time.Duration) error {
	for begin := time.Now(); ; {
		if t, ok := b.horizon(h); ok && t.After(at) {
			return nil
		}
		if !h.Running() || time.Since(begin) > within {
			return fmt.Errorf("the node did not get what it has missed\n%s", h.Tail(2000))
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
