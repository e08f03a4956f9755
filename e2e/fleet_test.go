package e2e

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/fleet"
)

var (
	fleetSeeds = flag.Int("fleet.seeds", 30, "seeds of the simulation of whole hubs of several nodes")
	fleetSeed  = flag.Int64("fleet.seed", -1, "play only this seed of it")
	fleetFrom  = flag.Int64("fleet.from", 0, "the first seed of it")
)

func playFleet(t *testing.T, seed uint64, f fleet.Flavor) (p fleet.Played) {
	var log *slog.Logger
	if *fleetSeed >= 0 && testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	synctest.Test(t, func(t *testing.T) { p = fleet.Play(seed, f, log) })
	return p
}

// TestSimCluster plays lives of whole hubs of several nodes, over HTTP.
func TestSimCluster(t *testing.T) {
	from, seeds := uint64(*fleetFrom), *fleetSeeds
	if testing.Short() {
		seeds = min(seeds, 6)
	}
	if *fleetSeed >= 0 {
		from, seeds = uint64(*fleetSeed), 1
	}
	var mu sync.Mutex
	var all fleet.Played
	begin := time.Now()
	t.Run("seeds", func(t *testing.T) {
		limit := make(chan struct{}, runtime.GOMAXPROCS(0))
		for seed := from; seed < from+uint64(seeds); seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				limit <- struct{}{}
				defer func() { <-limit }()
				p := playFleet(t, seed, fleet.Flavor{})
				if p.Verdict != "" {
					t.Fatalf("seed %d (repeat it with -fleet.seed=%d): %s", seed, seed, p.Verdict)
				}
				mu.Lock()
				defer mu.Unlock()
				all.Add(p.Played)
				all.Faults += p.Faults
			})
		}
	})
	took := time.Since(begin)
	t.Logf("%d seeds in %v, %.1f a second: %d faults, %v", seeds, took.Round(time.Millisecond), float64(seeds)/took.Seconds(), all.Faults, all.Played)
}
