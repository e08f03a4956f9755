package spoke

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/roster"
)

// What was minted before Now lies below its key, what is minted after it above, whatever the clock does meanwhile.
func TestNowDivides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		shift := time.Duration(0)
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(shift).Round(0)
		}
		n, stop := started(t, memdisk.New(memdisk.Options{}), clock)
		defer stop()
		last := hub.MinKey
		for i := range 300 {
			if i%7 == 0 {
				time.Sleep(time.Duration(i%3) * time.Millisecond)
			}
			if i%50 == 20 {
				mu.Lock()
				shift -= time.Duration(i) * time.Second // somebody sets the clock back
				mu.Unlock()
			}
			now, err := n.Now(t.Context())
			if err != nil || now.Hash() != "initial" || !last.Less(now) {
				t.Fatalf("%d: %v after %v, %v", i, now, last, err)
			}
			if again, err := n.Now(t.Context()); err != nil || again != now {
				t.Fatalf("%d: %v, and %v when nothing had happened, %v", i, now, again, err)
			}
			if i%5 == 0 { // it is stable that nothing more will be there
				if h, err := n.Horizon(t.Context()); err != nil || h.Less(now) {
					t.Fatalf("horizon %v below %v, %v", h, now, err)
				}
			}
			k, err := n.WriteBulk(t.Context(), "a", [][]byte{{1}, {2}})
			if err != nil || !now.Less(k) {
				t.Fatalf("%d: minted %v after %v, %v", i, k, now, err)
			}
			last = hub.BulkKey(k, 1)
		}
		if ahead := last.Millis() - time.Now().UnixMilli(); ahead > 1000 {
			t.Errorf("the clock ran away: %d ms", ahead)
		}
	})
}

// A millisecond that is used beyond its initial is passed over.
func TestNowInABusyMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		ms := time.Now().UnixMilli()
		fence, _ := hub.MarkOf(hub.KeyAt(ms, "ini"))
		for _, c := range []struct {
			last hub.Mark
			want int64
		}{{fence - 1, ms}, {fence, ms + 1}, {fence + 1, ms + 1}} {
			n.mu.Lock()
			*n.minter = *hub.NewMinter(time.Now, c.last, 0, func() uint32 { return 61 })
			n.nowEnd = 0
			n.mu.Unlock()
			if now, err := n.Now(t.Context()); err != nil || now.Millis() != c.want || now.Less(c.last.Key()) {
				t.Errorf("after %v: %v, %v", c.last.Key(), now, err)
			}
		}
	})
}

// The next start, on a log that holds nothing and a clock that shows the same instant, mints above every key that Now returned.
func TestNowSurvives(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			d := memdisk.New(memdisk.Options{})
			frozen := time.Now()
			last := hub.MinKey
			for range 4 {
				n, stop := started(t, d, func() time.Time { return frozen })
				if k, err := n.Write(t.Context(), "a", []byte("x")); err != nil || !last.Less(k) {
					t.Fatalf("minted %v after %v, %v", k, last, err)
				}
				var err error
				if last, err = n.Now(t.Context()); err != nil {
					t.Fatal(err)
				}
				next := d.Restart(memdisk.PowerCut, seed)
				stop()
				d = next
			}
		})
	}
}

// A clock that cannot be moved gives no key.
func TestNowWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		n, stop := started(t, d, time.Now)
		defer stop()
		if _, err := n.Now(t.Context()); err != nil {
			t.Fatal(err)
		}
		good := d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: clockFile, Fault: memdisk.Fault{Err: errors.New("input/output error")}})
		time.Sleep(time.Minute) // far above the bound
		if k, err := n.Now(t.Context()); !hub.Is(err, hub.Unavailable) {
			t.Errorf("%v, %v", k, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if k, err := n.Now(ctx); err == nil {
			t.Errorf("%v", k)
		}
		good()
		if _, err := n.Now(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Among several nodes, what any of them mints after Now has returned lies above its key, also where the clock is behind; and a node that is gone does not keep
// anybody waiting for long.
func TestNowDividesNodes(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	late := w.nodes[2]
	late.kill()
	late.clock = func() time.Time { return time.Now().Add(-200 * time.Millisecond) }
	late.start()
	late.write("a", "x")
	for _, n := range w.nodes {
		w.until("it has caught up", func() bool {
			_, err := n.Now(t.Context())
			return err == nil
		})
	}
	for range 5 {
		k, err := w.nodes[0].Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes {
			if minted := n.write("a", "x"); !k.Less(minted) {
				t.Fatalf("%s minted %v after %v", n.address, minted, k)
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	late.kill()
	written := w.nodes[1].write("a", "x")
	k, err := w.nodes[0].Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after := w.nodes[1].write("a", "x"); !k.Less(after) {
		t.Errorf("%v was minted after %v; before it, %v", after, k, written)
	}
}
