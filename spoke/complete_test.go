package spoke

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// What was answered "complete" is complete after any death: all items before it are there, in order, though their keys are old, and the marker never
// goes back, also when the segments that had it are swept.
func TestCompleteIsNotTakenBack(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			d := memdisk.New(memdisk.Options{Seed: seed})
			var archived hub.Key
			open := func() (*Node, func()) {
				n, _, err := Open(t.Context(), Options{
					Disk: d, Clock: time.Now, SweepEvery: 1000 * time.Hour, Archived: func(string) (hub.Key, bool) { return archived, true },
					Segments: spokelog.Options{MinFree: -1, TTL: 10 * time.Second, SegmentAge: 5 * time.Second},
				})
				if err != nil {
					t.Fatal(err)
				}
				return n, runNode(t, n)
			}
			base := time.Now().Add(-24 * time.Hour)
			var wrote []hub.Key
			var told hub.Key
			n, stop := open()
			for i := range 30 {
				at := base.Add(time.Duration(i) * time.Second)
				for j := range 3 {
					k := hub.NewKey(at, fmt.Sprintf("%06d", 2-j)) // not in their order
					if err := n.WriteKeyed(t.Context(), "a", hub.Sealed{Key: k, Data: []byte("x")}); err != nil {
						t.Fatal(err)
					}
				}
				for j := range 3 {
					wrote = append(wrote, hub.NewKey(at, fmt.Sprintf("%06d", j)))
				}
				told = hub.Last(at)
				if err := n.WriteComplete(t.Context(), "a", told); err != nil {
					t.Fatal(err)
				}
				if err := n.WriteComplete(t.Context(), "a", wrote[0]); err != nil { // a late one changes nothing
					t.Fatal(err)
				}
				if upTo, ok := n.Complete("a"); !ok || upTo != told {
					t.Fatalf("complete up to %v, %v, was told %v", upTo, ok, told)
				}
				if i%4 == 3 {
					archived = told
					if i%8 == 3 {
						time.Sleep(20 * time.Second) // it may go
						if err := n.store.Sweep(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					next := d.Restart(memdisk.Death(seed%2), seed+uint64(i))
					stop()
					d = next
					n, stop = open()
					if upTo, ok := n.Complete("a"); !ok || upTo != told {
						t.Fatalf("complete up to %v, %v after a restart, was told %v", upTo, ok, told)
					}
				}
				keys := keysOf(t, n, all("a", true))
				for x, k := range keys {
					if k != wrote[len(wrote)-len(keys)+x] {
						t.Fatalf("%d: %v in place %d of %d, want %v", i, k, x, len(keys), wrote[len(wrote)-len(keys)+x])
					}
				}
				if gone := len(wrote) - len(keys); gone > 0 && archived.Less(wrote[gone-1]) {
					t.Fatalf("%v is gone, archived is %v", wrote[gone-1], archived)
				}
			}
			stop()
		})
	}
}

// Watchers are woken by a marker that advances, and only by one.
func TestCompleteWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		wake, end := n.Watch("a")
		defer end()
		other, endOther := n.Watch("b")
		defer endOther()
		at := hub.Last(time.Now())
		if upTo, ok := n.Complete("a"); ok {
			t.Errorf("complete up to %v", upTo)
		}
		for _, step := range []struct {
			upTo hub.Key
			want int
		}{{at, 1}, {at, 0}, {hub.First(time.Now()), 0}, {hub.Last(time.Now().Add(time.Second)), 1}} {
			if err := n.WriteComplete(t.Context(), "a", step.upTo); err != nil {
				t.Fatal(err)
			}
			if len(wake) != step.want || len(other) != 0 {
				t.Errorf("%v: %d wake-ups, %d of others", step.upTo, len(wake), len(other))
			}
			for len(wake) > 0 {
				<-wake
			}
		}
	})
}

// A marker that is not on the disk is not told.
func TestCompleteOnAFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		n, stop := started(t, d, time.Now)
		defer stop()
		if _, err := n.Write(t.Context(), "b", []byte("x")); err != nil {
			t.Fatal(err)
		}
		good := d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Err: errors.New("input/output error")}})
		if err := n.WriteComplete(t.Context(), "a", hub.Last(time.Now())); !hub.Is(err, hub.Unavailable) {
			t.Errorf("it was taken: %v", err)
		}
		good()
		if upTo, ok := n.Complete("a"); ok {
			t.Errorf("complete up to %v", upTo)
		}
	})
}

// What was replicated from a hub whose clock is ahead is stable up to the marker, here too.
func TestMarkerAheadOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		k := hub.NewKey(time.Now().Add(time.Minute), "000000")
		if err := n.WriteKeyed(t.Context(), "a", hub.Sealed{Key: k, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if keys := keysOf(t, n, all("a", true)); len(keys) != 0 {
			t.Errorf("%v are stable", keys)
		}
		if err := n.WriteComplete(t.Context(), "a", hub.Last(k.Time())); err != nil {
			t.Fatal(err)
		}
		p, err := n.Keys(t.Context(), all("a", true))
		if err != nil || len(p.Keys) != 1 || p.Horizon != hub.Last(k.Time()) {
			t.Errorf("%+v, %v", p, err)
		}
		if h, err := n.Horizon(t.Context()); err != nil || k.Less(h) {
			t.Errorf("the node's horizon went to %v, %v", h, err)
		}
	})
}

// An item that comes below what has been archived stays until somebody says that it is archived too.
func TestLateReplicatedItemsStay(t *testing.T) {
	for _, by := range []string{"cursor", "marker"} {
		synctest.Test(t, func(t *testing.T) {
			at := time.Now().Add(-time.Hour)
			early, late := hub.NewKey(at, "000001"), hub.NewKey(at, "000000")
			confirmed := false
			archived := hub.MinKey
			n, _, err := Open(t.Context(), Options{
				Disk: memdisk.New(memdisk.Options{}), Clock: time.Now, SweepEvery: 1000 * time.Hour, Archived: func(string) (hub.Key, bool) { return archived, true },
				Segments: spokelog.Options{MinFree: -1, TTL: 10 * time.Second, LateConfirmed: func(_ string, k hub.Key) bool { return k != late || confirmed }},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer runNode(t, n)()
			put := func(k hub.Key) {
				if err := n.WriteKeyed(t.Context(), "a", hub.Sealed{Key: k, Data: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
			put(early)
			for i := range 3 {
				put(hub.NewKey(at, fmt.Sprintf("00000%d", 2+i)))
			}
			early = hub.NewKey(at, "000009")
			if by == "cursor" {
				archived = early
			} else if err := n.WriteComplete(t.Context(), "a", early); err != nil {
				t.Fatal(err)
			}
			put(late)
			archived = hub.NewKey(time.Now(), "")
			for _, want := range []int{1, 0} {
				time.Sleep(5 * time.Minute)
				if err := n.store.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
				if keys := keysOf(t, n, all("a", true)); len(keys) != want || want > 0 && keys[0] != late {
					t.Errorf("%s: %v are left, want %d", by, keys, want)
				}
				confirmed = true
			}
		})
	}
}

// Keys that a source brings from the future do not move our clock, not by a restart either.
func TestReplicatedKeysDoNotMoveTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		n, stop := started(t, d, time.Now)
		ahead := hub.NewKey(time.Now().Add(100*24*time.Hour), "000000")
		if err := n.WriteKeyed(t.Context(), "a", hub.Sealed{Key: ahead, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			k, err := n.Write(t.Context(), "b", []byte("x"))
			if err != nil || k.Millis() > time.Now().Add(time.Second).UnixMilli() {
				t.Errorf("minted %v, %v", k, err)
			}
			next := d.Restart(memdisk.PowerCut, 1)
			stop()
			d = next
			n, stop = started(t, d, time.Now)
		}
		stop()
	})
}
