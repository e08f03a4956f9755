package e2e

import (
	"flag"
	"testing"
	"testing/synctest"

	"timehub/e2e/fleet"
)

var (
	fleetSeeds = flag.Int("fleet.seeds", 30, "seeds of the simulation of whole hubs of several nodes")
	fleetSeed  = flag.Int64("fleet.seed", -1, "play only this seed of it")
	fleetFrom  = flag.Int64("fleet.from", 0, "the first seed of it")
)

func playFleet(t *testing.T, seed uint64, f fleet.Flavor) (p fleet.Played) {
	synctest.Test(t, func(t *testing.T) { p = fleet.Play(seed, f, chatter(fleetSeed)) })
	return p
}

// TestSimCluster plays lives of whole hubs of several nodes, over HTTP.
func TestSimCluster(t *testing.T) {
	seeds := *fleetSeeds
	if testing.Short() {
		seeds = min(seeds, 6)
	}
	var all fleet.Played
	took := played(t, games{"fleet.seed", seeds, fleetFrom, fleetSeed}, func(t *testing.T, seed uint64) (fleet.Played, string) {
		p := playFleet(t, seed, fleet.Flavor{})
		return p, p.Verdict
	}, func(p fleet.Played) { all.Add(p) })
	t.Logf("%s: %v", took, all)
}
