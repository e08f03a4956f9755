package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/e2e/chaos"
)

// How long and how the chaos run hurts the cluster: briefly in CI, longer by `make chaos`.
var (
	chaosMinutes = flag.Float64("chaos.minutes", 1, "how long faults go on in the chaos run")
	chaosFaults  = flag.String("chaos.faults", "", "comma-separated kinds of faults of the chaos run; \"\": all")
	chaosRate    = flag.Int("chaos.rate", 300, "items a second that the chaos run offers")
	chaosDir     = flag.String("chaos.dir", "", "folder in which the chaos run keeps its histories and logs; \"\": a temporary one, kept only when it fails")
	chaosHold    = flag.Duration("chaos.hold", 0, "how long each fault of the chaos run lasts; 0: seconds, as is its own")
	chaosSet     = flag.String("chaos.set", "", "comma-separated properties of the hubs of the chaos run, such as spoke.write.ttlMinutes=1")
	chaosPairs   = flag.Float64("chaos.pairs", 0.3, "share of the faults of the chaos run that come with another one")
	chaosDebug   = flag.Bool("chaos.debug", false, "the hubs of the chaos run log everything, and their logs are kept with the histories")
	chaosInside  = flag.String("chaos.inside", "", "the hub with the control of clocks: given by the chaos run to itself in its namespaces")
)

// TestChaos: three hubs, three ZooKeeper servers and an S3 server, as processes in network namespaces of their own, are killed, stopped and cut off while
// clients write, read, follow and are called. What was acknowledged is there, once, in one order, on every node; every answer meanwhile agrees with that.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes two minutes")
	}
	if *chaosInside == "" {
		bin, err := clockBinary.get()
		if err != nil {
			t.Fatal(err)
		}
		chaosOutside(t, bin)
		return
	}
	if !chaos.Inside(t) {
		t.Fatal("the run is not in the namespaces that were made for it")
	}
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", seed)
	var flags []string
	for property := range strings.SplitSeq(*chaosSet, ",") {
		if property != "" {
			flags = append(flags, "--set", property)
		}
	}
	s := chaos.NewStage(t, chaos.Options{Bin: *chaosInside, Root: "..", Dir: *chaosDir, Disks: true, Clocks: true, Flags: flags, Logs: *chaosDebug})
	span := time.Duration(*chaosMinutes * float64(time.Minute))
	opt := chaos.RunOptions{Seed: seed, Span: span, Least: 15, Acked: 5500, Rate: *chaosRate, Faults: s.All(), Only: *chaosFaults, Hold: *chaosHold, Pairs: *chaosPairs}
	if span < 3*time.Minute {
		opt.Brief, opt.Calm = true, 300*time.Millisecond
	}
	v, _ := s.Go(t, opt)
	t.Logf("%v", v)
	if !v.Good() {
		t.Error("promises were broken")
	}
	if *chaosFaults == "" && (v.Acked < 5000 || v.FaultCount() < 15 || len(v.Faults) < 6) {
		t.Errorf("%d items acknowledged under %d faults of %d kinds: the run shows little, it wants 5000 under 15 of 6", v.Acked, v.FaultCount(), len(v.Faults))
	}
}

// chaosOutside lets the test run in namespaces of its own, with a folder that stays when it fails.
func chaosOutside(t *testing.T, bin string) {
	t.Helper()
	if *chaosDir != "" {
		if err := os.MkdirAll(*chaosDir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp(*chaosDir, "chaos-")
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	chaos.Inside(t, "-chaos.inside="+bin, "-chaos.dir="+dir)
	if t.Failed() || *chaosDir != "" {
		t.Logf("histories and logs are in %s", dir)
	} else if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
