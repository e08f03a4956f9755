package fleet

import (
	"context"
	"math"
	"time"

	"timehub/hub"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// sessionTime is how long the coordinator waits for a node that it does not hear of; of that, leaseTime passes until the node itself counts its leases as lost.
const (
	sessionTime = 2 * time.Second
	leaseTime   = 1300 * time.Millisecond
)

// seat is the session of a process with the coordinator, as the process has it. When the coordinator is away, every call fails; when the process is dead, too.
type seat struct {
	*local.Coordinator
	world *world
	dead  chan struct{}
}

var _ coord.Coordinator = (*seat)(nil)

// ok reports whether a call gets through. It takes a moment.
func (s *seat) ok() error {
	select {
	case <-s.dead:
		return errGone
	default:
	}
	if s.world.away.Load() {
		return hub.E(hub.Unavailable, "the coordinator is away (injected)")
	}
	return nil
}

// around makes a call that may be lost, before it gets there or behind.
func (s *seat) around(call func() error) error {
	if err := s.ok(); err != nil {
		return err
	}
	if s.world.chance(math.Float64frombits(s.world.deaf.Load())) {
		return hub.E(hub.Unavailable, "the coordinator did not hear (injected)")
	}
	if err := call(); err != nil {
		return err
	}
	if s.world.chance(math.Float64frombits(s.world.deaf.Load())) {
		return hub.E(hub.Unavailable, "the answer of the coordinator got lost (injected)")
	}
	return s.ok()
}

func (s *seat) Get(ctx context.Context, name string) (value []byte, version uint64, err error) {
	err = s.around(func() error { value, version, err = s.Coordinator.Get(ctx, name); return err })
	return value, version, err
}

func (s *seat) Set(ctx context.Context, name string, value []byte, version uint64) (n uint64, err error) {
	err = s.around(func() error { n, err = s.Coordinator.Set(ctx, name, value, version); return err })
	return n, err
}

func (s *seat) Update(ctx context.Context, changes []coord.Change) (versions []uint64, err error) {
	err = s.around(func() error { versions, err = s.Coordinator.Update(ctx, changes); return err })
	return versions, err
}

func (s *seat) Delete(ctx context.Context, name string, version uint64) error {
	return s.around(func() error { return s.Coordinator.Delete(ctx, name, version) })
}

func (s *seat) Names(ctx context.Context, prefix string) (names []string, err error) {
	err = s.around(func() error { names, err = s.Coordinator.Names(ctx, prefix); return err })
	return names, err
}

func (s *seat) Join(ctx context.Context, group, name string, value []byte) error {
	return s.around(func() error { return s.Coordinator.Join(ctx, group, name, value) })
}

func (s *seat) Replace(ctx context.Context, group, name string, old, value []byte) error {
	return s.around(func() error { return s.Coordinator.Replace(ctx, group, name, old, value) })
}

func (s *seat) Leave(ctx context.Context, group, name string) error {
	return s.around(func() error { return s.Coordinator.Leave(ctx, group, name) })
}

func (s *seat) List(ctx context.Context, group string) (members []coord.Member, epoch uint64, err error) {
	err = s.around(func() error { members, epoch, err = s.Coordinator.List(ctx, group); return err })
	return members, epoch, err
}

func (s *seat) Acquire(ctx context.Context, name string) (coord.Lease, error) {
	if err := s.ok(); err != nil {
		return nil, err
	}
	l, err := s.Coordinator.Acquire(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := s.ok(); err != nil {
		_ = l.Release(ctx)
		return nil, err
	}
	return l, nil
}

// goAway lets the coordinator be away until comeBack. Nodes give up their leases by their own clocks.
func (w *world) goAway() {
	if w.away.Swap(true) {
		return
	}
	w.note("the coordinator is away")
	w.unrest.begin()
	w.absence++
	number := w.absence
	w.lives.Go(func() {
		time.Sleep(leaseTime)
		w.doors.Lock()
		defer w.doors.Unlock()
		if w.away.Load() && w.absence == number {
			w.cutAll()
		}
	})
}

// cutAll ends all sessions of processes that live.
func (w *world) cutAll() {
	for _, m := range w.machines {
		if p, _ := m.current(); p != nil {
			w.store.Cut(p.seat.Coordinator)
		}
	}
}

func (w *world) comeBack() {
	w.doors.Lock()
	defer w.doors.Unlock()
	if w.away.Swap(false) {
		w.note("the coordinator is back")
	}
	if w.deaf.Load() == 0 {
		w.unrest.end()
	}
	for _, m := range w.machines {
		if p, _ := m.current(); p != nil {
			w.store.Mend(p.seat.Coordinator)
		}
	}
}

// bucketFault is asked of each call of the bucket.
func (w *world) bucketFault(c mem.Call) mem.Fault { return w.sick.Load().Fault(c, w.draw) }
