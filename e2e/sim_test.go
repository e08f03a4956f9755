package e2e

import (
	"flag"
	"testing"
	"testing/synctest"

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

// TestSimWhole plays lives of whole hubs, over HTTP.
func TestSimWhole(t *testing.T) { simulate(t, sim.Whole{}, *simSeeds/5) }

func simulate(t *testing.T, f sim.Flavor, seeds int) {
	if testing.Short() {
		seeds = min(seeds, 20)
	}
	var all sim.Played
	took := played(t, games{"sim.seed", seeds, simFrom, simSeed}, func(t *testing.T, seed uint64) (sim.Played, string) {
		p := play(t, seed, f)
		return p, p.Verdict
	}, func(p sim.Played) { all.Add(p) })
	t.Logf("%s: %v", took, all)
}

func play(t *testing.T, seed uint64, f sim.Flavor) (p sim.Played) {
	synctest.Test(t, func(t *testing.T) { p = sim.Play(seed, f, chatter(simSeed)) })
	return p
}
