package fleet

import (
	"context"
	"io"
	"math"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
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

// mortal is the bucket as a process sees it that may die: then its calls have no effect any more.
type mortal struct {
	*mem.Bucket
	dead chan struct{}
}

var _ bucket.Bucket = mortal{}

func (m mortal) gone() error {
	select {
	case <-m.dead:
		return errGone
	default:
		return nil
	}
}

// Put implements bucket.Bucket.
func (m mortal) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	if err := m.gone(); err != nil {
		return bucket.Info{}, err
	}
	return m.Bucket.Put(ctx, name, body, size, opt)
}

// Delete implements bucket.Bucket.
func (m mortal) Delete(ctx context.Context, names ...string) error {
	if err := m.gone(); err != nil {
		return err
	}
	return m.Bucket.Delete(ctx, names...)
}

// bucketFault is asked of each call of the bucket.
func (w *world) bucketFault(mem.Call) (f mem.Fault) {
	t := w.sick.Load()
	if t == nil {
		return f
	}
	away := hub.E(hub.Unavailable, "long-term storage is away (injected)")
	if w.chance(t.before) {
		f.Before = away
	}
	if w.chance(t.after) {
		f.After = away
	}
	if w.chance(0.25) {
		f.Delay = time.Duration(w.draw() * float64(t.late))
	}
	return f
}

// sickness is what happens to calls of the bucket.
type sickness struct {
	before, after float64
	late          time.Duration
}
