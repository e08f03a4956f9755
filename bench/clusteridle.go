package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The rows of nodes that have nothing to do.
const (
	rowClusterIdle    = "cluster: idle node, CPU"
	rowClusterIdleRSS = "cluster: idle node, RSS"
	rowClusterMany    = "three nodes, 10,000 idle channels, 1,000 idle webhooks: CPU of a node"
	rowClusterManyRSS = "three nodes, 10,000 idle channels, 1,000 idle webhooks: RSS of a node"
)

const clusterIdleTime = 5 * time.Second

// clusterMany is a cluster with many channels and webhooks that have nothing to do.
func (b *bench) clusterMany(ctx context.Context) error {
	return b.withCluster(func(c *cluster) error {
		var made, hooked atomic.Int64
		h := c.hubs[0]
		_, err := load{addr: h.Addr, conns: 8, status: 201, requests: b.opt.idle, next: func() []byte {
			return fmt.Appendf(nil, "PUT /channel/idle-%d HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", made.Add(1), h.Addr)
		}}.run(ctx)
		if err != nil {
			return err
		}
		_, err = load{addr: h.Addr, conns: 8, status: 201, requests: b.opt.idle / 10, next: func() []byte {
			i := hooked.Add(1)
			body := fmt.Sprintf(`{"callbackUrl": "http://127.0.0.1:9/cb", "channelUrl": "%s/channel/idle-%d"}`, h.URL, i)
			return fmt.Appendf(nil, "PUT /webhook/idle-%d HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", i, h.Addr, len(body), body)
		}}.run(ctx)
		if err != nil {
			return err
		}
		for _, h := range c.hubs { // everybody has heard of all
			for begin := time.Now(); ; {
				_, err := b.call("GET", fmt.Sprintf("%s/channel/idle-%d", h.URL, b.opt.idle), nil, 200)
				if err == nil {
					break
				}
				if time.Since(begin) > 30*time.Second {
					return err
				}
				if err := pause(ctx, 100*time.Millisecond); err != nil {
					return err
				}
			}
		}
		if err := pause(ctx, 15*time.Second); err != nil { // webhooks move to where there are few, and leave traces
			return err
		}
		return b.clusterIdle(ctx, c, rowClusterMany, rowClusterManyRSS, limits{cpu: 5, cpuAim: 2, rss: 150, rssAim: 100})
	})
}

// limits are those of the two rows of clusterIdle.
type limits struct{ cpu, cpuAim, rss, rssAim float64 }

// clusterIdle is what a node costs that has nothing to do: the mean of all for the processor, the largest for the memory.
func (b *bench) clusterIdle(ctx context.Context, c *cluster, cpuRow, rssRow string, l limits) error {
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	before, err := b.usage(c)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := pause(ctx, clusterIdleTime); err != nil {
		return err
	}
	after, err := b.usage(c)
	if err != nil {
		return err
	}
	each := func(name string) float64 {
		return (after[name] - before[name]) / time.Since(begin).Seconds() / clusterSize
	}
	highest := 0.0
	for _, h := range c.hubs {
		rss, err := memory(h, "VmRSS")
		if err != nil {
			return err
		}
		highest = max(highest, rss)
	}
	b.add(result{name: cpuRow, yardstick: "–", value: 100 * each("cpu"), unit: "% of a core", must: l.cpu, aim: l.cpuAim, atMost: true,
		hub: fmt.Sprintf("%.1f %% of a core, %.1f syncs/s, %.0f KB/s read, %.0f KB/s written, %.0f + %.0f system calls/s for it; ZooKeeper: %.1f packets/s of a node, %.0f watches of all",
			100*each("cpu"), each("syncs"), each("rchar")/1000, each("wchar")/1000, each("syscr"), each("syscw"), each("packets"), after["watches"])})
	b.add(result{name: rssRow, hub: fmt.Sprintf("%.0f MiB at most", highest), yardstick: "–", value: highest, unit: "MiB", must: l.rss, aim: l.rssAim, atMost: true})
	return nil
}

// usage sums up what the nodes have used: seconds of processor time, syncs of the log, and what /proc counts of input and output, sockets included.
func (b *bench) usage(c *cluster) (map[string]float64, error) {
	sum := map[string]float64{}
	for _, h := range c.hubs {
		used, err := cpu(h)
		if err != nil {
			return nil, err
		}
		sum["cpu"] += used.Seconds()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", h.PID()))
		if err != nil {
			return nil, fmt.Errorf("read what was read and written: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			name, figure, _ := strings.Cut(strings.TrimSpace(line), ": ")
			v, _ := strconv.ParseFloat(figure, 64)
			sum[name] += v
		}
		syncs, err := b.metric(h, "hub_spoke_log_sync_seconds_count")
		if err != nil {
			return nil, err
		}
		sum["syncs"] += syncs
	}
	text, err := c.zk.Ask("mntr")
	if err != nil {
		return nil, fmt.Errorf("ask ZooKeeper: %w", err)
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "zk_packets_received" {
			sum["packets"], _ = strconv.ParseFloat(f[1], 64)
		} else if len(f) == 2 && f[0] == "zk_watch_count" {
			sum["watches"], _ = strconv.ParseFloat(f[1], 64)
		}
	}
	return sum, nil
}
