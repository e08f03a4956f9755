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

	"timehub/e2e/sim"
)

// How many seeds are played. CI takes the default, `make sim` more; -sim.seed repeats one.
var (
	simSeeds = flag.Int("sim.seeds", 50, "seeds of the simulation, in all")
	simSeed  = flag.Int64("sim.seed", -1, "play only this seed of the simulation")
	simFrom  = flag.Int64("sim.from", 0, "the first seed of the simulation")
)

// TestSimShort plays lives of the short-term store alone.
func TestSimShort(t *testing.T) { simulate(t, sim.Short{}, *simSeeds-*simSeeds/5) }

// simulate plays seeds, two at a time, and stops at the first that breaks a promise.
func simulate(t *testing.T, f sim.Flavor, seeds int) {
	if testing.Short() {
		seeds = min(seeds, 20)
	}
	from := uint64(*simFrom)
	if *simSeed >= 0 {
		from, seeds = uint64(*simSeed), 1
	}
	var mu sync.Mutex
	var all sim.Played
	begin := time.Now()
	t.Run("seeds", func(t *testing.T) {
		limit := make(chan struct{}, runtime.GOMAXPROCS(0))
		for seed := from; seed < from+uint64(seeds); seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				limit <- struct{}{}
				defer func() { <-limit }()
				p := play(t, seed, f)
				if p.Verdict != "" {
					t.Fatalf("seed %d (repeat it with -sim.seed=%d): %s", seed, seed, p.Verdict)
				}
				mu.Lock()
				defer mu.Unlock()
				all.Add(p)
			})
		}
	})
	took := time.Since(begin)
	t.Logf("%d seeds in %v, %.1f a second: %v", seeds, took.Round(time.Millisecond), float64(seeds)/took.Seconds(), all)
}

func play(t *testing.T, seed uint64, f sim.Flavor) (p sim.Played) {
	var log *slog.Logger
	if *simSeed >= 0 && testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	synctest.Test(t, func(t *testing.T) { p = sim.Play(seed, f, log) })
	return p
}

// TestSimWhole plays lives of whole hubs, over HTTP.
func TestSimWhole(t *testing.T) { simulate(t, sim.Whole{}, *simSeeds/5) }
