package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"timehub/e2e/loopdisk"
)

// Power are the faults of disks that lose their power, of one and of all at the same instant, and that are full. They need Options.Disks.
func (s *Stage) Power() []Fault {
	return []Fault{
		{"power-one", Hubs, 500 * time.Millisecond, 3 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			_, err := loopdisk.PowerCut(s.Disks[i])
			s.Hubs[i].Kill()
			return fmt.Sprint("hub ", i), s.power, err
		}},
		{"power-all", Hubs, 0, time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			took, err := loopdisk.PowerCut(s.Disks...)
			for _, h := range s.Hubs {
				h.Kill()
			}
			return fmt.Sprintf("all hubs within %v", took), s.power, err
		}},
		{"disk-full", Hubs, 2 * time.Second, 6 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			leave := []int64{0, 64 << 20, 200 << 20}[rng.IntN(3)]
			return fmt.Sprintf("hub %d, %d MiB left", i, leave>>20), s.Disks[i].Empty, s.Disks[i].Fill(leave)
		}},
	}
}

// power gives disks their power back, and starts the hubs on them.
func (s *Stage) power() error {
	var wrong []error
	for i, h := range s.Hubs {
		if !h.Running() {
			wrong = append(wrong, s.Disks[i].Restore())
		}
	}
	return errors.Join(append(wrong, s.Start())...)
}

// Syncs are the faults of fsync: it fails, or takes long.
func (s *Stage) Syncs() []Fault {
	spoil := func(kind string, least, most time.Duration, syncs func(rng *rand.Rand) (string, loopdisk.Syncs)) Fault {
		return Fault{kind, Hubs, least, most, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			what, spoilt := syncs(rng)
			heal := loopdisk.Spoil(s.t, s.Hubs[i].PID(), spoilt)
			return fmt.Sprint("hub ", i, ", ", what), func() error { heal(); return nil }, nil
		}}
	}
	return []Fault{
		spoil("fsync-slow", 2*time.Second, 6*time.Second, func(rng *rand.Rand) (string, loopdisk.Syncs) {
			d := time.Duration(100+rng.IntN(1500)) * time.Millisecond
			return d.String(), loopdisk.Syncs{Delay: d}
		}),
		spoil("fsync-error", 0, 3*time.Second, func(rng *rand.Rand) (string, loopdisk.Syncs) {
			which := []string{"EIO", "ENOSPC"}[rng.IntN(2)]
			when := []string{"", "2+3", "1+2"}[rng.IntN(3)]
			return which + " " + when, loopdisk.Syncs{Error: which, When: when}
		}),
	}
}

// Times are the faults of clocks: one hub's is set, or stands still. They need Options.Clocks.
func (s *Stage) Times() []Fault {
	return []Fault{
		{"clock-step", Hubs, 2 * time.Second, 6 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			by := []time.Duration{10 * time.Minute, -time.Hour, 200 * time.Millisecond, -200 * time.Millisecond, 3 * time.Second, -3 * time.Second}[rng.IntN(6)]
			return fmt.Sprint("hub ", i, " by ", by), func() error { return s.Clocks[i].Set(0) }, s.Clocks[i].Set(by)
		}},
		{"clock-stop", Hubs, 2 * time.Second, 5 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			return fmt.Sprint("hub ", i), func() error { return s.Clocks[i].Set(0) }, s.Clocks[i].Freeze()
		}},
	}
}

// All are all faults that the stage is made for.
func (s *Stage) All() []Fault {
	all := s.Processes()
	for _, more := range [][]Fault{s.Ensemble(), s.Partitions(), s.Store(), s.Syncs()} {
		all = append(all, more...)
	}
	if s.opt.Disks {
		all = append(all, s.Power()...)
	}
	if s.opt.Clocks {
		all = append(all, s.Times()...)
	}
	return all
}
