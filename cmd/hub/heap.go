package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A hub's live heap is small, a few megabytes to some tens. A collector that lets it double would run dozens of times a second under load. So the
// heap may grow to heapGoal, or to twice the live heap if that is more; but what the process holds in all stays below the floor while that is
// enough, and never far above one and a half times the live heap and the stacks (docs/performance.md has the figures). The stacks count because the limit
// is one of the process: with ten thousand goroutines that wait, the collector would else run all the time and win nothing.
const (
	heapGoal  = 40 << 20 // bytes of heap at which the collector runs
	heapFloor = 64 << 20 // bytes of the whole process that are always allowed
	heapSlack = 16 << 20 // bytes beside one and a half times the live heap
	heapLook  = time.Second
)

// tuneHeap keeps the collector's limits in step with the live heap until ctx ends. Whoever sets GOGC or GOMEMLIMIT knows better.
func tuneHeap(ctx context.Context, env func(name, otherwise string) string) {
	if env("GOGC", "") != "" || env("GOMEMLIMIT", "") != "" {
		return
	}
	seen := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	var limit int64
	var growth int
	look := time.NewTicker(heapLook)
	defer look.Stop()
	for {
		metrics.Read(seen)
		alive, stacks := int64(1<<20), int64(0) // before the first collection
		if seen[0].Value.Kind() == metrics.KindUint64 && seen[1].Value.Kind() == metrics.KindUint64 {
			alive, stacks = max(alive, int64(seen[0].Value.Uint64())), int64(seen[1].Value.Uint64())
		}
		// Setting either stops the world for a moment: only when it matters.
		if g := max(100, int(100*(heapGoal-alive)/alive)); g > growth+growth/8 || g < growth-growth/8 {
			growth = g
			debug.SetGCPercent(growth)
		}
		if l := max(heapFloor, alive*3/2+stacks+heapSlack); l > limit+limit/16 || l < limit-limit/16 {
			limit = l
			debug.SetMemoryLimit(limit)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
