package e2e

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// games are those that a simulation plays.
type games struct {
	flag        string // that repeats one of them
	seeds       int
	from, alone *int64 // the first; the only one, if that is not negative
}

// played plays games, as many at a time as there are processors, and hands each that broke no promise to sum, one after the other. It says how long it took.
func played[G any](t *testing.T, g games, play func(*testing.T, uint64) (end G, verdict string), sum func(G)) string {
	from, seeds := uint64(*g.from), g.seeds
	if *g.alone >= 0 {
		from, seeds = uint64(*g.alone), 1
	}
	var mu sync.Mutex
	begin := time.Now()
	t.Run("seeds", func(t *testing.T) {
		limit := make(chan struct{}, runtime.GOMAXPROCS(0))
		for seed := from; seed < from+uint64(seeds); seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				limit <- struct{}{}
				defer func() { <-limit }()
				end, verdict := play(t, seed)
				if verdict != "" {
					t.Fatalf("seed %d (repeat it with -%s=%d): %s", seed, g.flag, seed, verdict)
				}
				mu.Lock()
				defer mu.Unlock()
				sum(end)
			})
		}
	})
	took := time.Since(begin)
	return fmt.Sprintf("%d seeds in %v, %.1f a second", seeds, took.Round(time.Millisecond), float64(seeds)/took.Seconds())
}

// chatter is where the nodes of a game that is repeated write their logs; nil: nowhere.
func chatter(alone *int64) *slog.Logger {
	if *alone < 0 || !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// noticed demands that a hub that breaks its promises breaks one that is seen, with one of some seeds.
func noticed(t *testing.T, from, seeds uint64, play func(seed uint64) (verdict string)) {
	begin := time.Now()
	for seed := from; seed < from+seeds; seed++ {
		if verdict := play(seed); verdict != "" {
			first, _, _ := strings.Cut(verdict, "\n")
			t.Logf("noticed with seed %d after %v: %.200s", seed, time.Since(begin).Round(time.Millisecond), first)
			return
		}
	}
	t.Errorf("not noticed within %d seeds", seeds)
}
