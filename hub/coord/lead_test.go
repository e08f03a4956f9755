package coord_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

type flaky struct {
	coord.Leases
	failures int
}

func (f *flaky) Acquire(ctx context.Context, name string) (coord.Lease, error) {
	if f.failures > 0 {
		f.failures--
		return nil, hub.E(hub.Unavailable, "no coordinator")
	}
	return f.Leases.Acquire(ctx, name)
}

func TestLeadOutlastsTheCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flaky{local.NewMemory().Session("a"), 100}
		began := time.Now()
		led := false
		if err := coord.Lead(t.Context(), f, "job", func(context.Context, uint64) error { led = true; return nil }); err != nil || !led {
			t.Fatalf("led %v, %v", led, err)
		}
		if d := time.Since(began); d < time.Minute || d > time.Hour {
			t.Errorf("100 attempts took %v", d)
		}
	})
}

// TestLeadWaitsForRun: whoever lost the lease has stopped before this node asks for it again.
func TestLeadWaitsForRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := local.NewMemory()
		a := s.Session("a")
		ctx, stop := context.WithCancel(t.Context())
		running, times := 0, 0
		ended := make(chan error, 1)
		go func() {
			ended <- coord.Lead(ctx, a, "job", func(ctx context.Context, _ uint64) error {
				running++
				times++
				if running > 1 {
					t.Error("two at once on one node")
				}
				<-ctx.Done()
				time.Sleep(time.Minute) // slow to stop
				running--
				return errors.New("stopped: " + context.Cause(ctx).Error())
			})
		}()
		time.Sleep(time.Second)
		s.Cut(a)
		s.Mend(a)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if times != 2 {
			t.Errorf("led %d times", times)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestLeadReleasesAfterPanic: others must not wait for a lease whose holder has failed.
func TestLeadReleasesAfterPanic(t *testing.T) {
	s := local.NewMemory()
	a, b := s.Session("a"), s.Session("b")
	func() {
		defer func() { _ = recover() }()
		_ = coord.Lead(t.Context(), a, "job", func(context.Context, uint64) error { panic("broken") })
	}()
	if _, err := b.Acquire(t.Context(), "job"); err != nil {
		t.Fatal(err)
	}
}
