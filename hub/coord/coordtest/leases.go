package coordtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

func testLease(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	first := acquire(t, c, "job")
	other := acquire(t, d, "another/job")
	got := acquiring(t, d, "job")
	nothing(t, got, "a lease is held")
	same := acquiring(t, c, "job")
	nothing(t, same, "a lease is held by this very session")
	ok(t, first.Release(t.Context()))
	ok(t, first.Release(t.Context()))

	var second, third coord.Lease
	select {
	case second = <-got:
		ok(t, second.Release(t.Context()))
		third = something(t, same, "after a release")
	case second = <-same:
		ok(t, second.Release(t.Context()))
		third = something(t, got, "after a release")
	case <-time.After(patience):
		t.Fatal("nobody got the lease")
	}
	if first.Fence() == 0 || second.Fence() <= first.Fence() || third.Fence() <= second.Fence() {
		t.Fatalf("fences %d, %d, %d do not rise", first.Fence(), second.Fence(), third.Fence())
	}
	select {
	case <-third.Lost():
		t.Fatal("a lease that is held counts as lost")
	case <-other.Lost():
		t.Fatal("a lease that is held counts as lost")
	default:
	}
}

func testLeaseQueue(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	held := acquire(t, c, "job")
	ctx, cancel := context.WithTimeout(t.Context(), quiet)
	defer cancel()
	if l, err := d.Acquire(ctx, "job"); err == nil {
		t.Fatalf("a lease was given twice: fence %d", l.Fence())
	}
	// Who gave up waiting must not stand in the way of the next.
	ok(t, held.Release(t.Context()))
	ok(t, acquire(t, c, "job").Release(t.Context()))
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Acquire(ended, "job"); err == nil {
		t.Fatal("a lease was given to a context that had ended")
	}
	ok(t, acquire(t, d, "job").Release(t.Context()))
}

func testExclusion(t *testing.T, w World) {
	var wg sync.WaitGroup
	var inside, greatest atomic.Int64
	for range 4 {
		c := w.Open(t)
		wg.Go(func() {
			for range 5 {
				l, err := c.Acquire(t.Context(), "job")
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold one lease")
				}
				if f := int64(l.Fence()); greatest.Swap(f) >= f {
					t.Errorf("fence %d does not rise", f)
				}
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				if err := l.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func testSessionLoss(t *testing.T, w World) {
	if w.Cut == nil {
		t.Skip("this world cannot cut a session")
	}
	c, d := w.Open(t), w.Open(t)
	ok(t, c.Join(t.Context(), "spoke", "c", nil))
	ok(t, c.Join(t.Context(), "spoke", "taken.over", []byte("c")))
	ok(t, d.Replace(t.Context(), "spoke", "taken.over", []byte("c"), []byte("d")))
	held := acquire(t, c, "job")
	told, untold := make(chan struct{}), acquire(t, c, "untold")
	after(t, held, func() { close(told) })
	if !after(t, untold, func() { t.Error("somebody who does not want to know is told of a loss") })() {
		t.Fatal("a lease was lost at once")
	}
	got := acquiring(t, d, "job")
	wake, stop := c.Watch("x")
	defer stop()
	members, stopMembers := d.WatchMembers("spoke")
	defer stopMembers()
	drain(wake)
	drain(members)
	_, before, err := d.List(t.Context(), "spoke")
	ok(t, err)

	w.Cut(c)
	woken(t, held.Lost(), "a lease of a lost session")
	woken(t, told, "who wants to know of the loss of a lease")
	late := make(chan struct{})
	after(t, held, func() { close(late) })
	woken(t, late, "who wants to know of a loss that was")
	if l := something(t, got, "after a loss"); l.Fence() <= held.Fence() {
		t.Fatalf("fence %d after %d", l.Fence(), held.Fence())
	}
	woken(t, members, "a member's session was lost")
	if left, epoch, err := d.List(t.Context(), "spoke"); err != nil || len(left) != 1 || string(left[0].Value) != "d" || epoch <= before {
		t.Fatalf("members %v, epoch %d after %d, %v", left, epoch, before, err)
	}
	_, err = c.Set(t.Context(), "x", []byte("1"), 0)
	wantKind(t, err, hub.Unavailable, "set without a session")
	_, err = c.Acquire(t.Context(), "other")
	wantKind(t, err, hub.Unavailable, "acquire without a session")

	w.Mend(c)
	woken(t, wake, "the start of a new session")
	// A machine with much to do may be slower to begin a session than a call waits for one, or lose it again.
	present(t, func() error { _, err := c.Set(t.Context(), "x", []byte("1"), 0); return err })
	ok(t, held.Release(t.Context())) // of the old session: must not free what another one holds
	nothing(t, acquiring(t, c, "job"), "the lease went to another session")
	present(t, func() error { return c.Join(t.Context(), "spoke", "c", nil) })
}

// after calls f when the lease is lost: every implementation has to be able to tell without a goroutine for each lease.
func after(t *testing.T, l coord.Lease, f func()) (stop func() bool) {
	t.Helper()
	a, ok := l.(interface {
		AfterLost(f func()) (stop func() bool)
	})
	if !ok {
		t.Fatal("a lease has no AfterLost")
	}
	return a.AfterLost(f)
}

func testRestart(t *testing.T, w World) {
	if w.Restart == nil {
		t.Skip("this world cannot start again")
	}
	c := w.Open(t)
	v := must[uint64](t)(c.Set(t.Context(), "kept", []byte("yes"), 0))
	gone := must[uint64](t)(c.Set(t.Context(), "gone", []byte("yes"), 0))
	ok(t, c.Delete(t.Context(), "gone", gone))
	fence := acquire(t, c, "job").Fence()
	ok(t, c.Join(t.Context(), "spoke", "c", nil))
	_, epoch, err := c.List(t.Context(), "spoke")
	ok(t, err)
	for range 3 {
		w.Restart(t)
		c = w.Open(t)
		if got := get(t, c, "kept", "yes"); got != v {
			t.Fatalf("version %d, want %d", got, v)
		}
		absent(t, c, "gone")
		if v2 := must[uint64](t)(c.Set(t.Context(), "gone", []byte("again"), 0)); v2 <= gone {
			t.Fatalf("version %d of a register after one of %d was deleted", v2, gone)
		} else {
			gone = v2
			ok(t, c.Delete(t.Context(), "gone", v2))
		}
		l := acquire(t, c, "job")
		if l.Fence() <= fence {
			t.Fatalf("fence %d after %d and a restart", l.Fence(), fence)
		}
		fence = l.Fence()
		if members, _, err := c.List(t.Context(), "spoke"); err != nil || len(members) != 0 {
			t.Fatalf("members %v, %v after a restart", members, err)
		}
		ok(t, c.Join(t.Context(), "spoke", "c", nil))
		_, e, err := c.List(t.Context(), "spoke")
		if err != nil || e <= epoch {
			t.Fatalf("epoch %d after %d, %v", e, epoch, err)
		}
		epoch = e
	}
}

func testLead(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	if err := coord.Lead(t.Context(), c, "job", func(context.Context, uint64) error { return nil }); err != nil {
		t.Fatalf("work that is done: %v", err)
	}
	broken := errors.New("broken")
	if err := coord.Lead(t.Context(), c, "job", func(context.Context, uint64) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("work that fails: %v", err)
	}
	wantKind(t, coord.Lead(t.Context(), c, "a//b", func(context.Context, uint64) error { return nil }), hub.Invalid, "lead under a bad name")

	// Two ask; the second leads when the first is told to stop.
	ctx1, stop1 := context.WithCancel(t.Context())
	ctx2, stop2 := context.WithCancel(t.Context())
	defer stop2()
	leads := make(chan uint64, 2)
	run := func(ctx context.Context, fence uint64) error {
		leads <- fence
		<-ctx.Done()
		return ctx.Err()
	}
	ended := make(chan error, 2)
	go func() { ended <- coord.Lead(ctx1, c, "job", run) }()
	f1 := <-leads
	go func() { ended <- coord.Lead(ctx2, d, "job", run) }()
	select {
	case <-leads:
		t.Fatal("two lead")
	case <-time.After(quiet):
	}
	stop1()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("lead ended with %v", err)
	}
	if f2 := <-leads; f2 <= f1 {
		t.Fatalf("fence %d after %d", f2, f1)
	}
	stop2()
	<-ended
}

func testLeadLoss(t *testing.T, w World) {
	if w.Cut == nil {
		t.Skip("this world cannot cut a session")
	}
	c := w.Open(t)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	leads, lost := make(chan uint64, 10), make(chan error, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- coord.Lead(ctx, c, "job", func(ctx context.Context, fence uint64) error {
			leads <- fence
			<-ctx.Done()
			lost <- context.Cause(ctx)
			return ctx.Err()
		})
	}()
	var last uint64
	for range 3 {
		fence := <-leads
		if fence <= last {
			t.Fatalf("fence %d after %d", fence, last)
		}
		last = fence
		w.Cut(c)
		if err := <-lost; !errors.Is(err, coord.ErrLeaseLost) {
			t.Fatalf("the cause is %v", err)
		}
		w.Mend(c)
	}
	<-leads
	stop()
	<-lost
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("lead ended with %v", err)
	}
}
