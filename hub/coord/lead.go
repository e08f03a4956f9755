package coord

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"timehub/hub"
)

const (
	releaseTimeout = 5 * time.Second
	leadPause      = 200 * time.Millisecond // after a loss or a failed attempt; doubled up to leadPauseMax
	leadPauseMax   = 10 * time.Second
	leadSteady     = time.Minute // who led this long starts again with the short pause
)

// Lead runs run while this node holds name: the one way to do something on one node only. run's context ends, with ErrLeaseLost as its cause, when
// the lease is lost; Lead waits until run has returned before it asks for the lease again, and releases a lease that it still holds. fence rises with
// every holder: a new leader first rewrites its registers with it, so that a stale compare-and-set fails.
//
// Lead returns
//   - nil when run returned nil: the work is done, whoever holds the lease;
//   - ctx's cause when ctx has ended;
//   - run's error when run failed for another reason than the lease;
//   - the error of Acquire if it is the caller's fault (Invalid).
//
// A lost lease, an error of run that wraps ErrLeaseLost, and a coordinator that cannot be reached lead to another attempt, after a pause with jitter.
func Lead(ctx context.Context, l Leases, name string, run func(ctx context.Context, fence uint64) error) error {
	pause := leadPause
	for {
		lease, err := l.Acquire(ctx, name)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				release(ctx, lease)
			}
			return context.Cause(ctx)
		case hub.Is(err, hub.Invalid):
			return fmt.Errorf("acquire lease %s: %w", name, err)
		case err == nil:
			began := time.Now()
			again, err := leadOnce(ctx, lease, run)
			if !again {
				return err
			}
			if time.Since(began) > leadSteady {
				pause = leadPause
			}
		}
		if !hub.Sleep(ctx, pause/2+rand.N(pause)) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, leadPauseMax)
	}
}

// leadOnce runs run under one lease. again: the lease was lost and the work is not done.
func leadOnce(ctx context.Context, lease Lease, run func(ctx context.Context, fence uint64) error) (again bool, err error) {
	inner, cancel := context.WithCancelCause(ctx)
	unwatch := watch(inner, lease, func() { cancel(ErrLeaseLost) })
	defer func() { // also when run panics: others must not wait for a lease that nobody uses
		cancel(nil)
		unwatch()
		release(ctx, lease)
	}()
	err = run(inner, lease.Fence())
	switch {
	case err == nil:
		return false, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, ErrLeaseLost) || errors.Is(context.Cause(inner), ErrLeaseLost):
		return true, nil
	}
	return false, err
}

// watch calls lost when a lease is lost before ctx ends. Of leases that can tell by themselves, nobody has to wait for it: ten thousand of them would be ten
// thousand goroutines. unwatch may be called when ctx has ended.
func watch(ctx context.Context, lease Lease, lost func()) (unwatch func()) {
	if l, ok := lease.(interface {
		AfterLost(f func()) (stop func() bool)
	}); ok {
		stop := l.AfterLost(lost)
		return func() { stop() }
	}
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		select {
		case <-lease.Lost():
			lost()
		case <-ctx.Done():
		}
	}()
	return func() { <-watcher }
}

// release gives a lease back, also when ctx has ended. An error changes nothing: the lease then ends with the session.
func release(ctx context.Context, lease Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_ = lease.Release(ctx)
}
