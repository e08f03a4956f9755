package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A hub's live heap is small, a few megabytes to some tens. A collector that lets it double would run dozens of times a second under load, so it may
// grow to five times its size; but what the process holds in all stays below the floor while that is enough, and never far above one and a half times the live heap
// (docs/performance.md has the figures).
const (
	heapGrowth = 400      // percent of the live heap, as GOGC
	heapFloor  = 64 << 20 // bytes of the whole process that are always allowed
	heapSlack  = 24 << 20 // bytes beside one and a half times the live heap
	heapLook   = time.Second
)

// tuneHeap keeps the collector's limits in step with the live heap until ctx ends. Whoever sets GOGC or GOMEMLIMIT knows better.
func tuneHeap(ctx context.Context, env func(name, otherwise string) string) {
	if env("GOGC", "") != "" || env("GOMEMLIMIT", "") != "" {
		return
	}
	debug.SetGCPercent(heapGrowth)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	set := int64(0)
	look := time.NewTicker(heapLook)
	defer look.Stop()
	for {
		metrics.Read(live)
		limit := int64(heapFloor)
		if live[0].Value.Kind() == metrics.KindUint64 {
			limit = max(limit, int64(live[0].Value.Uint64())*3/2+heapSlack)
		}
		if limit > set+set/16 || limit < set-set/16 { // setting it stops the world for a moment
			debug.SetMemoryLimit(limit)
			set = limit
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
