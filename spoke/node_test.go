package spoke

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/disk"
	spokelog "timehub/spoke/log"
)

// started is a node that runs, and what stops it.
func started(t testing.TB, d disk.Disk, clock hub.Clock) (*Node, func()) {
	t.Helper()
	n, _, err := Open(t.Context(), Options{Disk: d, Clock: clock, Segments: spokelog.Options{MinFree: -1}})
	if err != nil {
		t.Fatal(err)
	}
	return n, runNode(t, n)
}

// runNode runs a node until the result is called.
func runNode(t testing.TB, n *Node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, memdisk.ErrKilled) {
			t.Errorf("Run: %v", err)
		}
		n.Close()
	}
}

func all(channel string, stable bool) hub.Query {
	return hub.Query{Channel: channel, From: hub.MinKey, To: hub.MaxKey, Stable: stable}
}

func keysOf(t testing.TB, n *Node, q hub.Query) []hub.Key {
	t.Helper()
	p, err := n.Keys(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return p.Keys
}

// An item is in a stable answer in the moment its insert was answered.
func TestStableSeesWhatWasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		var mu sync.Mutex
		var wrote []hub.Key
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				last := hub.Key{}
				for i := range 50 {
					k, err := n.Write(t.Context(), "a", fmt.Appendf(nil, "%d-%d", w, i))
					if err != nil || !last.Less(k) {
						t.Errorf("%v after %v: %v", k, last, err)
						return
					}
					last = k
					if got := keysOf(t, n, hub.Query{Channel: "a", From: k, To: k.After(), Stable: true}); !slices.Equal(got, []hub.Key{k}) {
						t.Errorf("the stable answer does not hold %v", k)
					}
					mu.Lock()
					wrote = append(wrote, k)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.SortFunc(wrote, hub.Key.Compare)
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, wrote) {
			t.Errorf("%d keys, %d were answered", len(got), len(wrote))
		}
	})
}

func TestBulkSharesAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		n, stop := started(t, d, time.Now)
		k, err := n.WriteBulk(t.Context(), "a", [][]byte{[]byte("x"), []byte("y"), []byte("z")})
		if err != nil {
			t.Fatal(err)
		}
		want := []hub.Key{hub.BulkKey(k, 0), hub.BulkKey(k, 1), hub.BulkKey(k, 2)}
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, want) {
			t.Errorf("%v", got)
		}
		if s, err := n.Read(t.Context(), "a", want[1]); err != nil || string(s.Data) != "y" {
			t.Errorf("%q %v", s.Data, err)
		}
		for _, size := range []int{0, hub.MaxBulk + 1} {
			if _, err := n.WriteBulk(t.Context(), "a", make([][]byte, size)); !hub.Is(err, hub.TooLarge) {
				t.Errorf("%d parts: %v", size, err)
			}
		}
		stop()
	})
}

// A restart with the clock set back, or with an emptied log, uses no key twice and shows no older horizon.
func TestRestartKeepsKeysAndHorizonRising(t *testing.T) {
	for name, empty := range map[string]bool{"same log": false, "empty log": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := memdisk.New(memdisk.Options{})
				back := time.Duration(0)
				clock := func() time.Time { return time.Now().Add(-back).Round(0) }
				last, horizon := hub.Key{}, hub.Key{}
				for life := range 6 {
					n, stop := started(t, d, clock)
					h, err := n.Horizon(t.Context())
					if err != nil || h.Less(horizon) {
						t.Fatalf("life %d: horizon %v after %v (%v)", life, h, horizon, err)
					}
					k, err := n.Write(t.Context(), "a", []byte("x"))
					if err != nil || !last.Less(k) || !horizon.Less(k) {
						t.Fatalf("life %d: %v after %v, horizon %v (%v)", life, k, last, horizon, err)
					}
					last = k
					time.Sleep(300 * time.Millisecond)
					if horizon, err = n.Horizon(t.Context()); err != nil || horizon.Less(k) {
						t.Fatalf("life %d: horizon %v below %v (%v)", life, horizon, k, err)
					}
					stop()
					d = d.Restart(memdisk.PowerCut, uint64(life))
					back += time.Hour
					if empty {
						if err := d.RemoveAll(spokelog.DefaultDir); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
		})
	}
}

// A write that the disk does not take in time is answered 503, holds the horizon until its name is on disk, and is in no answer after that.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		n, stop := started(t, d, time.Now)
		before, err := n.Write(t.Context(), "a", []byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Delay: 20 * time.Second}})
		if k, err := n.Write(t.Context(), "a", []byte("slow")); !hub.Is(err, hub.Unavailable) {
			t.Fatalf("%v %v", k, err)
		}
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, []hub.Key{before}) {
			t.Errorf("while it is undecided: %v", got)
		}
		h, err := n.Horizon(t.Context())
		if err != nil || time.Since(h.Time()) < 4*time.Second {
			t.Errorf("an undecided write does not hold the horizon: %v %v", h, err)
		}
		time.Sleep(30 * time.Second)
		for _, stable := range []bool{true, false} {
			if got := keysOf(t, n, all("a", stable)); !slices.Equal(got, []hub.Key{before}) {
				t.Errorf("stable %v: %v", stable, got)
			}
		}
		if h, err := n.Horizon(t.Context()); err != nil || time.Since(h.Time()) > time.Second {
			t.Errorf("the horizon does not move on: %v %v", h, err)
		}
		after, err := n.Write(t.Context(), "a", []byte("after"))
		if err != nil {
			t.Fatal(err)
		}
		stop()
		n, stop = started(t, d.Restart(memdisk.PowerCut, 1), time.Now)
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, []hub.Key{before, after}) {
			t.Errorf("after a restart: %v", got)
		}
		stop()
	})
}

func TestFailedSyncIsAnsweredAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		n, stop := started(t, d, time.Now)
		first, err := n.Write(t.Context(), "a", []byte("first"))
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("input/output error")
		d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: "spoke/*", Times: 1, Fault: memdisk.Fault{Err: broken}})
		if _, err := n.Write(t.Context(), "a", []byte("lost")); !hub.Is(err, hub.Unavailable) {
			t.Fatalf("%v", err)
		}
		k, err := n.Write(t.Context(), "a", []byte("next"))
		if err != nil {
			t.Fatal(err)
		}
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, []hub.Key{first, k}) {
			t.Errorf("%v", got)
		}
		stop()
		n, stop = started(t, d.Restart(memdisk.ProcessKill, 1), time.Now)
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, []hub.Key{first, k}) {
			t.Errorf("after a restart: %v", got)
		}
		stop()
	})
}

func TestWatchersWakeWhenTheHorizonPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		wake, end := n.Watch("a")
		defer end()
		anything, drain, endAll := n.Changes()
		defer endAll()
		k, err := n.Write(t.Context(), "a", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		<-wake
		<-anything
		if got := drain(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%v", got)
		}
		if got := keysOf(t, n, all("a", true)); !slices.Equal(got, []hub.Key{k}) {
			t.Errorf("woken, but the horizon has not passed %v", k)
		}
		if _, err := n.Write(t.Context(), "b", []byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-wake:
			t.Error("woken by another channel")
		default:
		}
	})
}

func TestWriteKeyedStoresOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, stop := started(t, memdisk.New(memdisk.Options{}), time.Now)
		defer stop()
		old := time.Date(1999, 1, 2, 3, 4, 5, 0, time.UTC)
		items := []hub.Sealed{{Key: hub.NewKey(old.Add(time.Hour), "b"), Data: []byte("2")}, {Key: hub.NewKey(old, "a"), Data: []byte("1")}}
		for range 2 {
			if err := n.WriteKeyed(t.Context(), "r", items...); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for s, err := range n.Items(t.Context(), all("r", true)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(s.Data))
		}
		if !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("%v", got)
		}
		last, err := n.Channels(t.Context())
		if err != nil || last["r"] != items[0].Key {
			t.Errorf("%v %v", last, err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no identity":   "not json",
		"newer version": `{"version":2,"id":"x","ordinal":0,"incarnation":1}`,
	} {
		d := memdisk.New(memdisk.Options{})
		f, err := d.Create(identityFile)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(t.Context(), Options{Disk: d, Clock: time.Now}); !hub.Is(err, hub.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClockFileSurvivesATornSlot(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	b, _, _, err := openBound(d)
	if err != nil {
		t.Fatal(err)
	}
	for i := range hub.Mark(5) {
		if err := b.raise(1000+i, spokelog.Position{}); err != nil {
			t.Fatal(err)
		}
	}
	for slot, want := range []hub.Mark{1004, 1003} { // write 5 lies in slot 1: with slot 0 damaged it is found, with slot 1 the one before it
		torn := d.Fork(memdisk.ProcessKill, 1)
		f, err := torn.Open(clockFile, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 20), int64(slot)*slotBytes); err != nil {
			t.Fatal(err)
		}
		if _, at, lost, err := openBound(torn); err != nil || lost || at != want {
			t.Errorf("slot %d torn: %d, lost %v, %v", slot, at, lost, err)
		}
	}
}

func BenchmarkWrite64(b *testing.B) {
	d, err := disk.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	n, stop := started(b, d, time.Now)
	defer stop()
	data := bytes.Repeat([]byte("0123456789abcdef"), 25)
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := n.Write(context.Background(), "bench", data); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// A clock file that is there, but whose name an earlier process could not sync, is not relied upon.
func TestClockFileOfAFailedStart(t *testing.T) {
	for seed := range uint64(10) {
		d := memdisk.New(memdisk.Options{})
		d.CrashAt(memdisk.OpSyncDir, 1, memdisk.None)
		if _, _, _, err := openBound(d); err == nil {
			t.Fatal("it did not die")
		}
		d = d.Restart(memdisk.ProcessKill, 1)
		d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Times: 1, Fault: memdisk.Fault{Err: errors.New("input/output error")}})
		if err := d.SyncDir("."); err == nil {
			t.Fatal("it did not fail")
		}
		d = d.Restart(memdisk.ProcessKill, 1)
		b, at, lost, err := openBound(d)
		if err != nil || at != 0 || lost {
			t.Fatal(at, lost, err)
		}
		if err := b.raise(1000, spokelog.Position{}); err != nil {
			t.Fatal(err)
		}
		if _, at, lost, err := openBound(d.Restart(memdisk.PowerCut, seed)); err != nil || at != 1000 || lost {
			t.Errorf("seed %d: %d, lost %v, %v", seed, at, lost, err)
		}
	}
}

// The clock file says how far the log was durable; one of before, or one whose place is torn, says nothing of it, and its clock holds.
func TestClockFileNamesThePlace(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	b, _, _, err := openBound(d)
	if err != nil {
		t.Fatal(err)
	}
	place := spokelog.Position{Segment: 7, Salt: 0x1234, Length: 4711}
	for i, p := range []spokelog.Position{{}, {Segment: 6, Length: 1}, place} {
		if err := b.raise(hub.Mark(1000+i), p); err != nil {
			t.Fatal(err)
		}
	}
	if b, at, lost, err := openBound(d); err != nil || at != 1002 || lost || b.reached != place {
		t.Errorf("%d, lost %v, %+v, %v", at, lost, b.reached, err)
	}
	const slot = 1 // of the third write
	for what, c := range map[string]struct {
		at   int64
		with []byte
		want spokelog.Position
	}{
		"as it was written before places were": {slotUsed, make([]byte, slotEnd-slotUsed), spokelog.Position{}},
		"a place that is torn":                 {slotPlace + 20, []byte{1}, spokelog.Position{}},
		"a torn slot":                          {20, []byte{0xff}, spokelog.Position{Segment: 6, Length: 1}},
	} {
		old := d.Fork(memdisk.ProcessKill, 1)
		if err := old.Damage(clockFile, slot*slotBytes+c.at, c.with); err != nil {
			t.Fatal(err)
		}
		at := hub.Mark(1002)
		if c.at < slotUsed {
			at = 1001
		}
		if b, got, lost, err := openBound(old); err != nil || got != at || lost || b.reached != c.want {
			t.Errorf("%s: %d, lost %v, %+v, %v", what, got, lost, b.reached, err)
		}
	}
}

// The bytes of the clock file: others have them on their disks.
func TestGoldenClock(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	b, _, _, err := openBound(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.raise(0x0102030405060708, spokelog.Position{Segment: 7, Salt: 0x1122334455667788, Length: 4711}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2*slotBytes)
	f, err := d.Open(clockFile, false)
	if err == nil {
		_, err = f.ReadAt(got, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString("687562636c6f636b01000000000000000807060504030201da09b0af00000000" + "070000000000000088776655443322116712000000000000641dcf2c")
	if err != nil {
		t.Fatal(err)
	}
	want = append(append(make([]byte, slotBytes), want...), make([]byte, slotBytes-len(want))...) // the first write goes into the second slot
	if !bytes.Equal(got, want) {
		t.Errorf("the slot holds\n%x, want\n%x", got[slotBytes:][:slotEnd], want[slotBytes:][:slotEnd])
	}
}
