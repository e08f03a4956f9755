package local

import (
	"context"
	"errors"

	"timehub/hub"
	"timehub/hub/coord"
)

// holder is a lease's name: who has it, and who waits for it, in the order of asking.
type holder struct {
	held    *lease
	waiting []*waiter
}

type waiter struct {
	session *Coordinator
	turn    chan struct{} // closed when it is this one's turn to try again
}

// lease is one holding of a name.
type lease struct {
	owner *Coordinator
	name  string
	fence uint64
	life  context.Context // ends when it is lost
	end   context.CancelFunc
}

// Acquire: see coord.Leases. Waiters get a lease in the order in which they asked. While the session is cut, it fails with Unavailable.
func (c *Coordinator) Acquire(ctx context.Context, name string) (coord.Lease, error) {
	if err := errors.Join(coord.CheckName(name), c.live(ctx, "acquire", name)); err != nil {
		return nil, err
	}
	w := &waiter{session: c, turn: make(chan struct{})}
	down := c.enqueue(name, w)
	select {
	case <-w.turn:
	case <-down:
		c.store.dequeue(name, w)
		return nil, hub.E(hub.Unavailable, "the session with the coordinator was lost")
	case <-ctx.Done():
		c.store.dequeue(name, w)
		return nil, context.Cause(ctx)
	}
	// The head of the queue is ours: nobody else can take the name until we hold it or leave.
	fence, err := c.store.revise()
	if err != nil {
		c.store.dequeue(name, w)
		return nil, err
	}
	return c.take(name, w, fence)
}

// enqueue puts a waiter at the end of the queue and returns what ends with the session.
func (c *Coordinator) enqueue(name string, w *waiter) <-chan struct{} {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.leases[name]
	if h == nil {
		h = &holder{}
		s.leases[name] = h
	}
	h.waiting = append(h.waiting, w)
	s.advance(name, h)
	return c.down
}

// advance tells the first waiter of a free lease that it is its turn; mu is held.
func (s *Store) advance(name string, h *holder) {
	switch {
	case h.held != nil:
	case len(h.waiting) > 0:
		select {
		case <-h.waiting[0].turn: // told before
		default:
			close(h.waiting[0].turn)
		}
	default:
		delete(s.leases, name)
	}
}

// dequeue takes out a waiter that gives up.
func (s *Store) dequeue(name string, w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.leases[name]
	for i, x := range h.waiting {
		if x == w {
			h.waiting = append(h.waiting[:i:i], h.waiting[i+1:]...)
			break
		}
	}
	s.advance(name, h)
}

// take makes the first waiter the holder.
func (c *Coordinator) take(name string, w *waiter, fence uint64) (coord.Lease, error) {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.leases[name]
	h.waiting = h.waiting[1:] // w is the first: only it can leave before
	if c.cut || s.closed {
		s.advance(name, h)
		return nil, hub.E(hub.Unavailable, "the session with the coordinator was lost")
	}
	l := &lease{owner: c, name: name, fence: fence}
	l.life, l.end = context.WithCancel(context.Background())
	h.held = l
	c.leases[l] = struct{}{}
	return l, nil
}

// Steal takes a lease away without a word to its holder, as if that were a process that sleeps while its session ends: it goes on believing until it
// is told by a fence, or by tell, as by its own clock. It is for tests.
func (s *Store) Steal(name string) (tell func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.leases[name]
	if h == nil || h.held == nil {
		return func() {}
	}
	l := h.held
	delete(l.owner.leases, l)
	h.held = nil
	s.advance(name, h)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.freed(l)
	}
}

// freed ends a holding; mu is held.
func (s *Store) freed(l *lease) {
	delete(l.owner.leases, l)
	l.end()
	if h := s.leases[l.name]; h != nil && h.held == l {
		h.held = nil
		s.advance(l.name, h)
	}
}

// Lost: see coord.Lease. It is closed by Release too.
func (l *lease) Lost() <-chan struct{} { return l.life.Done() }

// AfterLost calls f in a goroutine of its own when the lease is lost or released. stop ends that.
func (l *lease) AfterLost(f func()) (stop func() bool) { return context.AfterFunc(l.life, f) }

// Fence: see coord.Lease.
func (l *lease) Fence() uint64 { return l.fence }

// Release: see coord.Lease. Releasing twice, or a lost lease, is no error.
func (l *lease) Release(context.Context) error {
	s := l.owner.store
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed(l)
	return nil
}
