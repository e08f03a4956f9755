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

// Fault is one way to hurt the stage. Inflict begins it and says whom it hits; whoever calls Heal does so after a while between Min and Max. Neither is
// called while another fault lasts.
type Fault struct {
	Kind     string
	Min, Max time.Duration
	Inflict  func(ctx context.Context, rng *rand.Rand) (target string, heal Heal, err error)
}

// Processes are the faults of processes: kill -9 of one hub and of all at once, a pause that is longer than a session, an ordered restart.
func (s *Stage) Processes() []Fault {
	return []Fault{
		{"kill-one", 500 * time.Millisecond, 4 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			s.Hubs[i].Kill()
			return fmt.Sprint("hub ", i), s.Start, nil
		}},
		{"kill-two", time.Second, 3 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			spared := rng.IntN(len(s.Hubs))
			for i, h := range s.Hubs {
				if i != spared {
					h.Kill()
				}
			}
			return fmt.Sprint("all but hub ", spared), s.Start, nil
		}},
		{"kill-all", 0, time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			return "all hubs", s.Start, s.killAll()
		}},
		{"pause", 3 * time.Second, 7 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			return fmt.Sprint("hub ", i), func() error { return s.signal(i, syscall.SIGCONT) }, s.signal(i, syscall.SIGSTOP)
		}},
		{"restart", 0, time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
			i := rng.IntN(len(s.Hubs))
			return fmt.Sprint("hub ", i), s.Start, s.Hubs[i].Stop(time.Minute)
		}},
	}
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
		{"zk-leader", time.Second, 4 * time.Second, func(_ context.Context, rng *rand.Rand) (string, Heal, error) {
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
		{"zk-freeze", 3 * time.Second, 7 * time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
			return "all servers", func() error {
				var wrong []error
				for _, z := range s.ZK {
					wrong = append(wrong, z.Thaw())
				}
				return errors.Join(wrong...)
			}, s.freeze()
		}},
		{"zk-gone", 2 * time.Second, 8 * time.Second, func(context.Context, *rand.Rand) (string, Heal, error) {
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
