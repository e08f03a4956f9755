package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"timehub/node"
)

// lastDay finds the path of the day of an item's address.
var lastDay = regexp.MustCompile(`(/channel/[^/"]+/[0-9]{4}/[0-9]{2}/[0-9]{2})/[0-9]{2}/`)

// latency compares queries with few and with many items in the log. The items lie a millisecond apart, so that a second always has a thousand of them:
// a million of them would take a quarter of an hour of real time, therefore the node runs in this process, with a clock that we move.
func (b *bench) latency(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(b.dir, "latency-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, _, err := node.Load(node.Sources{Data: dir, Listen: "127.0.0.1:0", Set: []string{"spoke.sync=interval"}})
	if err != nil {
		return err
	}
	var clock atomic.Int64 // milliseconds
	begin := time.Now().Add(-time.Duration(b.opt.items) * time.Millisecond).Truncate(time.Second)
	clock.Store(begin.UnixMilli())
	n, err := node.New(cfg, node.Env{Clock: func() time.Time { return time.UnixMilli(clock.Load()) }})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }() // waited for below
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	select {
	case <-n.Ready():
	case err := <-ended:
		ended <- nil
		return err
	}
	addr, err := n.Address(ctx)
	if err != nil {
		return err
	}
	few, err := b.stepTo(ctx, addr, &clock, begin, 0, b.opt.few)
	if err != nil {
		return err
	}
	many, err := b.stepTo(ctx, addr, &clock, begin, b.opt.few, b.opt.items)
	if err != nil {
		return err
	}
	worst, hub, yard := 0.0, []string{}, []string{}
	for i, name := range []string{"latest", "next", "second"} {
		worst = max(worst, many[i].Seconds()/few[i].Seconds())
		hub = append(hub, fmt.Sprintf("%s %v", name, many[i].Round(10*time.Microsecond)))
		yard = append(yard, fmt.Sprint(few[i].Round(10*time.Microsecond)))
	}
	b.add(result{name: rowLatency, hub: strings.Join(hub, ", "), yardstick: strings.Join(yard, ", "), value: worst, unit: "×", must: 2.0, aim: 1.2, atMost: true})
	return nil
}

// stepTo inserts items number from+1 to to, moving the clock a millisecond before each, and measures the p99 of three queries.
func (b *bench) stepTo(ctx context.Context, addr string, clock *atomic.Int64, begin time.Time, from, to int) ([]time.Duration, error) {
	if from == 0 {
		if _, err := b.call("PUT", "http://"+addr+"/channel/bench", nil, 201); err != nil {
			return nil, err
		}
	}
	request := post(addr, "/channel/bench", "application/json", b.small)
	_, err := load{addr: addr, conns: 16, status: 201, requests: to - from, next: func() []byte {
		clock.Add(1)
		return request
	}}.run(ctx)
	if err != nil {
		return nil, err
	}
	// The horizon is a thing of the clock too.
	clock.Add(2000)
	rng := rand.New(rand.NewPCG(1, 2))
	somewhere := func(format string) string {
		return begin.Add(time.Duration(1000+rng.IntN(to-2000)) * time.Millisecond).UTC().Format(format)
	}
	var p99 []time.Duration
	for _, q := range []struct {
		status int
		path   func() string
	}{
		{303, func() string { return "/channel/bench/latest" }},
		{200, func() string {
			return "/channel/bench/" + strings.Replace(somewhere("2006/01/02/15/04/05.000"), ".", "/", 1) + "/0/next/100"
		}},
		{200, func() string { return "/channel/bench/" + somewhere("2006/01/02/15/04/05") }},
	} {
		var rounds []float64
		for range 5 {
			runtime.GC()
			o, err := load{addr: addr, conns: 1, status: q.status, requests: b.opt.samples / 5, next: func() []byte { return get(addr, q.path()) }}.run(ctx)
			if err != nil {
				return nil, err
			}
			rounds = append(rounds, percentile(o.times, 0.99).Seconds())
		}
		p99 = append(p99, time.Duration(median(rounds)*float64(time.Second)))
	}
	return p99, nil
}
