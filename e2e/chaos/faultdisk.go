package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"timehub/e2e/loopdisk"
)

// Power are the faults of disks that lose their power, of one and of all at the same instant, and that are full. They need Options.Disks.
func (s *Stage) Power() []Fault {
	return []Fault{
		{"power-one", Hubs, 500 * time.Millisecond, 3 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			return fmt.Sprint("hub ", i), s.power, s.cutPower(i)
		}},
		{"power-all", Hubs, 0, time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			var all []int
			for i := range s.Hubs {
				all = append(all, i)
			}
			return "all hubs", s.power, s.cutPower(all...)
		}},
		{"disk-full", Hubs, 2 * time.Second, 6 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			leave := []int64{0, 64 << 20, 200 << 20}[rng.IntN(3)]
			return fmt.Sprintf("hub %d, %d MiB left", i, leave>>20), s.Disks[i].Empty, s.Disks[i].Fill(leave)
		}},
	}
}

// cutPower cuts the power of hubs and their disks. The processes stand still first, as they would: ext4 lets a sync that meets the shutdown succeed now
// and then although nothing was written.
func (s *Stage) cutPower(hubs ...int) error {
	var wrong []error
	var disks []*loopdisk.Disk
	for _, i := range hubs {
		wrong = append(wrong, s.signal(i, syscall.SIGSTOP))
		disks = append(disks, s.Disks[i])
	}
	if err := stopped(s, hubs); err != nil {
		wrong = append(wrong, err)
	}
	_, err := loopdisk.PowerCut(disks...)
	for _, i := range hubs {
		s.Hubs[i].Kill()
	}
	return errors.Join(append(wrong, err)...)
}

// stopped waits until the processes of hubs stand still: a signal is on its way for a moment.
func stopped(s *Stage, hubs []int) error {
	for _, i := range hubs {
		name := fmt.Sprintf("/proc/%d/stat", s.Hubs[i].PID())
		for n := 0; ; n++ {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			_, state, _ := strings.Cut(string(b), ") ")
			if strings.HasPrefix(state, "T") {
				break
			}
			if n > 5000 {
				return fmt.Errorf("hub %d does not stop: %s", i, b)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
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
