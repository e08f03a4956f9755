package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"timehub/e2e/hubproc"
	"timehub/e2e/zkproc"
)

// The rows of three nodes on one machine, against one node on the same machine in the same run.
const (
	rowCluster64    = "cluster: POST 1 KiB, 64 connections to all nodes"
	rowCluster64One = "cluster: POST 1 KiB, 64 connections to one node"
	rowCluster1     = "cluster: POST 1 KiB, 1 connection"
	rowClusterBulk  = "cluster: bulk POST, 100 × 1 KiB a request, 4 connections to all nodes"
	rowClusterGet   = "cluster: GET one item, 16 connections to all nodes"
)

const clusterSize = 3

func (b *bench) clusterMeasurements() []measurement {
	return []measurement{
		{[]string{rowCluster64, rowCluster64One, rowCluster1, rowClusterBulk, rowClusterGet}, b.clusterLoads},
		{[]string{rowClusterPush50, rowClusterPush99, rowClusterIdle, rowClusterIdleRSS, rowClusterTakeOver, rowClusterSettled, rowClusterReady, rowClusterWhole, rowClusterRepair}, b.clusterLife},
		{[]string{rowClusterMany, rowClusterManyRSS}, b.clusterMany},
	}
}

// cluster is three hub processes that make one hub, with one real ZooKeeper server and a folder for the long term that they share.
type cluster struct {
	hubs []*hubproc.Hub
	zk   *zkproc.Server
}

// withCluster runs fn against a fresh cluster with empty folders.
func (b *bench) withCluster(fn func(*cluster) error, flags ...string) (err error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	servers, err := zkproc.Launch(dir, zkproc.Options{})
	for _, s := range servers {
		defer s.Kill()
	}
	if err != nil {
		return err
	}
	c := &cluster{zk: servers[0]}
	flags = append([]string{"--set", "spoke.sync=always", "--set", "hub.type=aws", "--set", "zookeeper.connection=" + c.zk.Address,
		"--set", "storage.directory=" + filepath.Join(dir, "shared"), "--set", "app.stable_seconds=auto"}, flags...)
	for i := range clusterSize {
		h, err := hubproc.New(hubproc.Options{Bin: b.hubBin, Dir: filepath.Join(dir, fmt.Sprint("node-", i+1)), Flags: flags})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.Close()) }()
		c.hubs = append(c.hubs, h)
	}
	for _, h := range c.hubs {
		if err := h.Launch(); err != nil {
			return err
		}
	}
	for _, h := range c.hubs {
		if err := h.Ready(); err != nil {
			return err
		}
	}
	err = fn(c)
	for _, h := range c.hubs {
		if err != nil && !h.Running() {
			err = fmt.Errorf("%w; a node has died:\n%s", err, h.Tail(2000))
		}
	}
	return err
}

// knows waits until every node knows a channel.
func (c *cluster) knows(ctx context.Context, b *bench, channel string) error {
	for _, h := range c.hubs {
		for deadline := time.Now().Add(10 * time.Second); ; {
			_, err := b.call("GET", h.URL+"/channel/"+channel, nil, 200)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return err
			}
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// slice is what one of the two has done in its turn.
type slice struct {
	rate float64 // of requests
	cost float64 // µs of processor time of its processes for a request
}

// turn lets a load run against some nodes, its connections shared out among them, and counts the processor time of all.
func (b *bench) turn(ctx context.Context, all, to []*hubproc.Hub, one func(*hubproc.Hub) load) (slice, []outcome, error) {
	var before, after time.Duration
	for _, h := range all {
		t, err := cpu(h)
		if err != nil {
			return slice{}, nil, err
		}
		before += t
	}
	outs, errs := make([]outcome, len(to)), make([]error, len(to))
	var wg sync.WaitGroup
	for i, h := range to {
		l := one(h)
		if l.conns = share(l.conns, len(to), i); l.conns > 0 {
			wg.Go(func() { outs[i], errs[i] = l.run(ctx) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return slice{}, nil, err
	}
	for _, h := range all {
		t, err := cpu(h)
		if err != nil {
			return slice{}, nil, err
		}
		after += t
	}
	var s slice
	var n int64
	for _, o := range outs {
		if o.requests > 0 {
			s.rate += o.perSecond()
			n += o.requests
		}
	}
	s.cost = float64((after - before).Microseconds()) / float64(max(n, 1))
	return s, outs, nil
}

// share is how many of n the one with number i of so many gets.
func share(n, among, i int) int { return n/among + min(1, max(0, n%among-i)) }

// kindOfLoad is one row of clusterLoads.
type kindOfLoad struct {
	row       string
	all       bool // the nodes share it; otherwise one of them has all of it
	times     float64
	unit      string
	must, aim float64
	load      func(h *hubproc.Hub) load
	single    []slice
	cluster   []slice
}

// clusterLoads lets one node and three nodes take turns with several loads, all of it within a minute, before the archiver has something to do.
func (b *bench) clusterLoads(ctx context.Context) error {
	part := b.opt.seconds / 3 // all of it has to fit into a minute
	bulk, item := b.bulkBody(100), map[*hubproc.Hub]string{}
	posts := func(conns int) func(*hubproc.Hub) load {
		return func(h *hubproc.Hub) load {
			return load{addr: h.Addr, conns: conns, request: post(h.Addr, "/channel/bench", "application/json", b.small), status: 201, duration: part}
		}
	}
	kinds := []*kindOfLoad{
		{row: rowCluster64, all: true, times: 1, unit: "/s", must: 0.30, aim: 0.45, load: posts(64)},
		{row: rowCluster64One, times: 1, unit: "/s", must: 0.30, aim: 0.45, load: posts(64)},
		{row: rowCluster1, times: 1, unit: "/s", must: 0.30, aim: 0.50, load: posts(1)},
		{row: rowClusterBulk, all: true, times: 100, unit: " items/s", must: 0.30, aim: 0.45, load: func(h *hubproc.Hub) load {
			return load{addr: h.Addr, conns: 4, request: post(h.Addr, "/channel/bench/bulk", "multipart/mixed; boundary=bench-boundary", bulk), status: 201, duration: part}
		}},
		{row: rowClusterGet, all: true, times: 1, unit: "/s", must: 0.80, aim: 0.95, load: func(h *hubproc.Hub) load {
			return load{addr: h.Addr, conns: 16, request: get(h.Addr, item[h]), status: 200, duration: part}
		}},
	}
	return b.withHub(func(h *hubproc.Hub) error {
		return b.withCluster(func(c *cluster) error {
			single := []*hubproc.Hub{h}
			if err := b.channel(h, "bench"); err != nil {
				return err
			}
			if err := b.channel(c.hubs[0], "bench"); err != nil {
				return err
			}
			if err := c.knows(ctx, b, "bench"); err != nil {
				return err
			}
			if err := b.oneItem(ctx, c, h, item); err != nil {
				return err
			}
			if err := calm(ctx, min(48*time.Second, time.Duration(2*b.opt.runs*len(kinds))*part+2*time.Second)); err != nil {
				return err
			}
			for i := range b.opt.runs {
				for _, k := range kinds {
					s, _, err := b.turn(ctx, single, single, k.load)
					if err != nil {
						return fmt.Errorf("one node: %w", err)
					}
					to := c.hubs
					if !k.all {
						to = c.hubs[i%clusterSize:][:1]
					}
					t, outs, err := b.turn(ctx, c.hubs, to, k.load)
					if err != nil {
						return fmt.Errorf("three nodes: %w", err)
					}
					k.single, k.cluster = append(k.single, s), append(k.cluster, t)
					if k.row == rowCluster64 {
						if err := b.check(to[0], outs[0].location, b.small); err != nil {
							return err
						}
					}
				}
			}
			for _, k := range kinds {
				b.addLoad(k)
			}
			return nil
		})
	})
}

// oneItem puts an item into both and notes its path, for each node.
func (b *bench) oneItem(ctx context.Context, c *cluster, h *hubproc.Hub, item map[*hubproc.Hub]string) error {
	for _, to := range []*hubproc.Hub{h, c.hubs[0]} {
		o, err := load{addr: to.Addr, conns: 1, request: post(to.Addr, "/channel/bench", "application/json", b.small), status: 201, requests: 1}.run(ctx)
		if err != nil {
			return err
		}
		item[to] = strings.TrimPrefix(o.location, to.URL)
	}
	for _, other := range c.hubs[1:] {
		item[other] = item[c.hubs[0]]
	}
	return nil
}

func (b *bench) addLoad(k *kindOfLoad) {
	show := func(list []slice) (text string, rate float64) {
		var rates, costs []float64
		for _, s := range list {
			rates, costs = append(rates, s.rate*k.times), append(costs, s.cost/k.times)
		}
		rate = median(rates)
		return fmt.Sprintf("%s%s, %.1f µs of CPU each", thousands(rate), k.unit, median(costs)), rate
	}
	three, rate := show(k.cluster)
	one, floor := show(k.single)
	b.add(result{name: k.row, hub: three, yardstick: "one node " + one, value: rate / floor, unit: "×", must: k.must, aim: k.aim})
}
