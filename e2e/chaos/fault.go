package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"time"
)

// Heal ends a fault. It does not wait until the hubs are healthy again.
type Heal func() error

// Part is what a fault hurts. Faults of different parts may last at the same time.
type Part int

// The parts of a stage.
const (
	Hubs Part = iota
	Lines
	Coordinator
	Bucket
	Alone // it wants everything else to be well
)

// Fault is one way to hurt the stage. Inflict begins it and says whom it hits; whoever calls Heal does so after a while between Min and Max. Neither is
// called while another fault of the same part lasts.
type Fault struct {
	Kind     string
	Part     Part
	Min, Max time.Duration
	Inflict  func(ctx context.Context, rng *rand.Rand) (target string, heal Heal, err error)
}

// Processes are the faults of processes: kill -9 of one hub and of all at once, a pause that is longer than a session, an ordered restart of one, and of one after the other.
func (s *Stage) Processes() []Fault {
	return []Fault{
		{"kill-one", Hubs, 500 * time.Millisecond, 4 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			s.Hubs[i].Kill()
			return fmt.Sprint("hub ", i), s.Start, nil
		}},
		{"kill-two", Hubs, time.Second, 3 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			spared := rng.IntN(len(s.Hubs))
			for i, h := range s.Hubs {
				if i != spared {
					h.Kill()
				}
			}
			return fmt.Sprint("all but hub ", spared), s.Start, nil
		}},
		{"kill-all", Hubs, 0, time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			return "all hubs", s.Start, s.killAll()
		}},
		{"pause", Hubs, 3 * time.Second, 7 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			return fmt.Sprint("hub ", i), func() error { return s.signal(i, syscall.SIGCONT) }, s.signal(i, syscall.SIGSTOP)
		}},
		{"restart", Hubs, 0, time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			return fmt.Sprint("hub ", i), s.Start, s.Hubs[i].Stop(time.Minute)
		}},
		{"rolling", Alone, 0, time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			return "all hubs, one after the other", s.Start, s.roll()
		}},
	}
}

// roll restarts one hub after the other in order, as one does for an upgrade.
func (s *Stage) roll() error {
	for _, h := range s.Hubs {
		if err := h.Stop(time.Minute); err != nil {
			return err
		}
		if err := h.Launch(); err != nil {
			return err
		}
		if err := s.Healthy(time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// killAll ends all hubs at once: each is stopped where it is first, so that none sees another one die.
func (s *Stage) killAll() error {
	var wrong []error
	for i := range s.Hubs {
		wrong = append(wrong, s.signal(i, syscall.SIGSTOP))
	}
	for _, h := range s.Hubs {
		h.Kill()
	}
	return errors.Join(wrong...)
}

func (s *Stage) signal(i int, signal syscall.Signal) error {
	if err := syscall.Kill(s.Hubs[i].PID(), signal); err != nil {
		return fmt.Errorf("%v to hub %d: %w", signal, i, err)
	}
	return nil
}

// Ensemble are the faults of ZooKeeper: its leader is killed, all servers stand still, all are killed.
func (s *Stage) Ensemble() []Fault {
	return []Fault{
		{"zk-leader", Coordinator, time.Second, 4 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			who := rng.IntN(len(s.ZK))
			for i, z := range s.ZK {
				if z.Leads() {
					who = i
				}
			}
			z := s.ZK[who]
			z.Kill()
			return fmt.Sprint("server ", who), func() error { z.Run(s.t); return nil }, nil
		}},
		{"zk-freeze", Coordinator, 3 * time.Second, 7 * time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			return "all servers", func() error {
				var wrong []error
				for _, z := range s.ZK {
					wrong = append(wrong, z.Thaw())
				}
				return errors.Join(wrong...)
			}, s.freeze()
		}},
		{"zk-gone", Coordinator, 2 * time.Second, 8 * time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			for _, z := range s.ZK {
				z.Kill()
			}
			return "all servers", func() error {
				for _, z := range s.ZK {
					z.Run(s.t)
				}
				return nil
			}, nil
		}},
	}
}

func (s *Stage) freeze() error {
	var wrong []error
	for _, z := range s.ZK {
		wrong = append(wrong, z.Freeze())
	}
	return errors.Join(wrong...)
}

// startZK starts a ZooKeeper server in its place.
func (s *Stage) startZK(i int, cmd *exec.Cmd) error { return s.ZooKeeper(i).Start(cmd) }
