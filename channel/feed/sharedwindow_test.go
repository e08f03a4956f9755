package feed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
)

// TestSharedWindowsAll: followers of one channel by minute, by second and by key, some of them slow, each get every key once; windows are never early.
func TestSharedWindowsAll(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("c", "x")
				s := h.open(t)
				src := h.room("c")
				const history, n = 650, 800 // more than a ring before they begin
				write := func(from, to int, pause time.Duration) {
					for i := from; i < to; i++ {
						src.now(fmt.Sprintf("%06d", i))
						time.Sleep(time.Millisecond + rand.N(pause))
					}
				}
				write(0, history, time.Second)
				var wg sync.WaitGroup
				for i := range 24 {
					f, err := s.Follow("c", hub.Key{}, 1+i*50, nil)
					if err != nil {
						t.Fatal(err)
					}
					begin := i % 3 * 250
					if begin > 0 {
						f.Seek(src.keys[begin-1])
					}
					at := hub.First(src.keys[begin].Time())
					wg.Go(func() {
						defer f.Close()
						var got []hub.Key
						var err error
						switch i % 4 {
						case 0:
							got, err = gather(t.Context(), f, n-begin, 0)
						case 1:
							got, err = windows(t, f, hub.Second, false, n-begin, rule, 0)
						case 2:
							got, err = windows(t, f, hub.Minute, false, n-begin, rule, time.Duration(i)*time.Second)
						case 3:
							f.Seek(at)
							got, err = windows(t, f, hub.Second, true, n-begin, rule, 0)
						}
						if err != nil || !slices.Equal(got, src.keys[begin:]) {
							t.Errorf("follower %d got %d keys, %v", i, len(got), err)
						}
					})
				}
				write(history, n, 10*time.Second)
				wg.Wait()
				if len(s.tails) != 0 || len(src.watchers) != 0 {
					t.Errorf("%d tails, %d watches are left", len(s.tails), len(src.watchers))
				}
			})
		})
	}
}

// windows takes windows until they have held n keys.
func windows(t *testing.T, f *Feed, unit hub.Unit, empty bool, n int, rule hub.Horizon, pause time.Duration) (got []hub.Key, err error) {
	var last hub.Window
	for len(got) < n {
		c, err := f.NextWindow(t.Context(), unit, empty)
		if err != nil {
			return got, err
		}
		if time.Since(c.End()) < time.Duration(rule.Seconds)*time.Second {
			t.Errorf("%v came at %v", c.Window, time.Now())
		}
		if !last.Start.IsZero() && (c.Start.Before(last.End()) || empty && c.Window != last.Next()) {
			t.Errorf("%v after %v", c.Window, last)
		}
		last = c.Window
		before := len(got)
		for k, err := range f.Keys(t.Context(), c.After, c.To()) {
			if err != nil {
				return got, err
			}
			got = append(got, k)
		}
		if !empty && before == len(got) {
			t.Errorf("%v holds nothing", c.Window)
		}
		time.Sleep(pause)
	}
	return got, nil
}

// TestSharedWindowsEnd: one who waits for a window learns at once that the channel was deleted, whatever it waits for.
func TestSharedWindowsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(auto)
		s := h.open(t)
		for _, c := range []struct {
			what  string
			empty bool
			key   bool
			lag   time.Duration
		}{{what: "for a key"}, {what: "for the end of a minute", key: true}, {what: "for an empty minute", empty: true}, {what: "for a horizon that lags", empty: true, lag: time.Hour}} {
			h.set("c", "x")
			time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + 10*time.Second)))
			h.room("c").lag = c.lag
			f, err := s.Follow("c", hub.First(time.Now().Add(-2*c.lag)), 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.key {
				h.insert("c", "k")
			}
			if c.lag > 0 { // catch up first
				for range 60 {
					if _, err := f.NextWindow(t.Context(), hub.Minute, true); err != nil {
						t.Fatal(err)
					}
				}
			}
			began := time.Now()
			time.AfterFunc(20*time.Second, func() { h.set("c") })
			if _, err := f.NextWindow(t.Context(), hub.Minute, c.empty); !hub.Is(err, hub.NotFound) {
				t.Errorf("waiting %s: %v", c.what, err)
			}
			if d := time.Since(began); d != 20*time.Second {
				t.Errorf("waiting %s: told after %v", c.what, d)
			}
			if _, err := f.NextWindow(t.Context(), hub.Minute, c.empty); !hub.Is(err, hub.NotFound) {
				t.Errorf("waiting %s: again: %v", c.what, err)
			}
			f.Close()
		}
		h.set("c", "x")
		f, err := s.Follow("c", hub.First(time.Now()), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, empty := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := f.NextWindow(ctx, hub.Minute, empty); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("in time: %v", err)
			}
			cancel()
		}
	})
}
