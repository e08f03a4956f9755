package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"timehub/e2e/hubproc"
	"timehub/hub"
)

// The rows of what happens in a cluster.
const (
	rowClusterPush50   = "cluster: insert answered → websocket message of another node, 1,000 items/s: p50"
	rowClusterPush99   = "cluster: insert answered → websocket message of another node, 1,000 items/s: p99"
	rowClusterTakeOver = "cluster: kill of a webhook's node → its next call"
	rowClusterSettled  = "cluster: kill of a node → the horizon moves again"
	rowClusterReady    = "cluster: restart of a node → healthy"
	rowClusterWhole    = "cluster: restart of a node → its horizon moves"
	rowClusterRepair   = "cluster: repair of a node that was away"
)

const (
	repairBulk = 100 // items of a request
	surely     = 100 * time.Millisecond
)

// clusterLife is what happens in one cluster: it is idle, works a little, a node dies and comes back, several times, and one was away for long.
func (b *bench) clusterLife(ctx context.Context) error {
	return b.withCluster(func(c *cluster) error {
		if err := b.channel(c.hubs[0], "bench"); err != nil {
			return err
		}
		if err := c.knows(ctx, b, "bench"); err != nil {
			return err
		}
		if err := b.clusterPush(ctx, c); err != nil {
			return fmt.Errorf("push: %w", err)
		}
		if err := b.clusterIdle(ctx, c, rowClusterIdle, rowClusterIdleRSS, limits{cpu: 3, cpuAim: 1, rss: 100, rssAim: 50}); err != nil {
			return fmt.Errorf("idle: %w", err)
		}
		if err := b.clusterKills(ctx, c); err != nil {
			return fmt.Errorf("kills: %w", err)
		}
		if err := b.clusterRepair(ctx, c); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		return nil
	})
}

func (b *bench) clusterPush(ctx context.Context, c *cluster) error {
	var p50s, p99s []float64
	for i := range b.opt.runs {
		times, err := b.pushed(ctx, c.hubs[i%clusterSize], c.hubs[(i+1)%clusterSize], int(b.opt.seconds.Seconds()*pushRate)/3)
		if err != nil {
			return err
		}
		p50s, p99s = append(p50s, percentile(times, 0.50).Seconds()*1000), append(p99s, percentile(times, 0.99).Seconds()*1000)
	}
	b.add(result{name: rowClusterPush50, hub: figure(median(p50s), "ms"), yardstick: "–", value: median(p50s), unit: "ms", must: 50, aim: 5, atMost: true})
	b.add(result{name: rowClusterPush99, hub: figure(median(p99s), "ms"), yardstick: "–", value: median(p99s), unit: "ms", must: 100, aim: 30, atMost: true})
	return nil
}

// horizon is the instant up to which a node's answers are stable; false while it gives none.
func (b *bench) horizon(h *hubproc.Hub) (time.Time, bool) {
	resp, err := b.client.Get(h.URL + "/channel/bench/latest/1")
	if err != nil {
		return time.Time{}, false
	}
	resp.Body.Close()
	key, err := hub.ParseKey(resp.Header.Get("Hub-Horizon"))
	if resp.StatusCode != http.StatusOK || err != nil {
		return time.Time{}, false
	}
	return key.Time(), true
}

// passes waits until the horizon of a node lies behind an instant.
func (b *bench) passes(ctx context.Context, h *hubproc.Hub, at time.Time, within time.Duration) error {
	for begin := time.Now(); ; {
		if t, ok := b.horizon(h); ok && t.After(at) {
			return nil
		}
		if time.Since(begin) > within {
			return fmt.Errorf("the horizon of %s does not pass %v within %v\n%s", h.Addr, at, within, h.Tail(2000))
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// clusterKills kills the node that runs a webhook, again and again, while somebody inserts.
func (b *bench) clusterKills(ctx context.Context, c *cluster) error {
	var called atomic.Int64 // when, the last time
	s, err := newSink(func([]byte) { called.Store(time.Now().UnixNano()) })
	if err != nil {
		return err
	}
	defer s.close()
	if err := b.hook(c.hubs[0], "bench", "bench", s.url(), "", 201); err != nil {
		return err
	}
	var calls, horizons, readies, wholes []float64
	for range b.opt.runs {
		leader, err := b.leader(ctx, c)
		if err != nil {
			return err
		}
		survivor, other := c.hubs[(leader+1)%clusterSize], c.hubs[(leader+2)%clusterSize]
		for _, h := range c.hubs { // all is well
			if err := b.passes(ctx, h, time.Now(), 20*time.Second); err != nil {
				return err
			}
		}
		writes, stop := context.WithCancel(ctx)
		wrote := make(chan error, 1)
		go func() { wrote <- b.trickle(writes, survivor) }() // waited for below
		err = pause(ctx, 300*time.Millisecond)
		if err == nil {
			c.hubs[leader].Kill()
		}
		killed := time.Now()
		if err == nil {
			err = b.passes(ctx, other, killed.Add(surely), 30*time.Second)
		}
		moved := time.Since(killed)
		for err == nil && time.Unix(0, called.Load()).Before(killed.Add(surely)) {
			if err = pause(ctx, time.Millisecond); time.Since(killed) > 30*time.Second {
				err = errors.Join(err, errors.New("nobody goes on with the webhook"))
			}
		}
		next := time.Unix(0, called.Load()).Sub(killed)
		stop()
		if err := errors.Join(err, <-wrote); err != nil {
			return err
		}
		began := time.Now()
		if err := c.hubs[leader].Start(); err != nil {
			return err
		}
		ready := time.Since(began)
		if err := b.passes(ctx, c.hubs[leader], began, 30*time.Second); err != nil {
			return err
		}
		calls, horizons = append(calls, next.Seconds()), append(horizons, moved.Seconds())
		readies, wholes = append(readies, ready.Seconds()), append(wholes, time.Since(began).Seconds())
	}
	for _, r := range []result{
		{name: rowClusterTakeOver, value: median(calls), must: 3, aim: 2.5}, {name: rowClusterSettled, value: median(horizons), must: 3.5, aim: 3},
		{name: rowClusterReady, value: median(readies), must: 2, aim: 1}, {name: rowClusterWhole, value: median(wholes), must: 3, aim: 1},
	} {
		r.hub, r.yardstick, r.unit, r.atMost = figure(r.value, "s"), "session 2 s", "s", true
		b.add(r)
	}
	return nil
}

// leader is the node that runs the webhook.
func (b *bench) leader(ctx context.Context, c *cluster) (int, error) {
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		for i, h := range c.hubs {
			if n, err := b.call("GET", h.URL+"/internal/webhook/count", nil, 200); err == nil && strings.TrimSpace(n) == "1" {
				return i, nil
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("no node runs the webhook")
}

// trickle inserts 200 items a second until ctx ends.
func (b *bench) trickle(ctx context.Context, h *hubproc.Hub) error {
	for pause(ctx, 5*time.Millisecond) == nil {
		if _, err := b.call("POST", h.URL+"/channel/bench", b.small, 201, "Content-Type", "application/json"); err != nil {
			return err
		}
	}
	return nil
}
