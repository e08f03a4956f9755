package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

// bubble runs a test on a disk in memory, in virtual time.
func bubble(t *testing.T, f func(t *testing.T, d *memdisk.Disk)) {
	synctest.Test(t, func(t *testing.T) { f(t, memdisk.New(memdisk.Options{})) })
}

// mem starts a log on a disk in memory; the caller stops it.
func mem(t *testing.T, opt Options) *testLog {
	t.Helper()
	l, _, err := Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, l)
}

func run(t *testing.T, l *Log) *testLog {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return &testLog{Log: l, t: t, stop: func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
	}}
}

func (l *testLog) has(t *testing.T, want ...Record) {
	t.Helper()
	k, _, err := l.Keys(context.Background(), "a", hub.MinKey, hub.MaxKey, 0, false)
	if err != nil || len(k) != len(want) {
		t.Fatalf("keys %v, want %d: %v", k, len(want), err)
	}
	for i, w := range want {
		if r, err := l.Get(context.Background(), "a", w.Key); err != nil || string(r.Data) != string(w.Data) || k[i] != w.Key {
			t.Fatalf("%v: %v", w.Key, err)
		}
	}
}

func TestFailedWriteIsFixedByTheNextSegment(t *testing.T) {
	for _, op := range []memdisk.Op{memdisk.OpWrite, memdisk.OpSync} {
		for _, effect := range []memdisk.Effect{memdisk.None, memdisk.Part, memdisk.All} {
			bubble(t, func(t *testing.T, d *memdisk.Disk) {
				opt := Options{Disk: d, MinFree: -1}
				l := mem(t, opt)
				l.mustPut(rec("a", 1, "one"))
				d.Inject(memdisk.Rule{Ops: op, Times: 1, Fault: memdisk.Fault{Err: errInjected, Effect: effect}})
				if err := l.put(rec("a", 2, "two")); !errors.Is(err, ErrLost) {
					t.Fatalf("after a failed %v: %v", op, err)
				}
				// Even before anything else is written, a power cut does not bring it back.
				for seed := range uint64(10) {
					o, r, err := Open(context.Background(), Options{Disk: d.Fork(memdisk.Death(seed%2), seed)})
					if err != nil || r.Records != 1 || len(r.Holes) > 0 {
						t.Fatalf("%v, effect %v: %+v, %v", op, effect, r, err)
					}
					o.Close()
				}
				l.mustPut(rec("a", 3, "three"))
				l.has(t, rec("a", 1, "one"), rec("a", 3, "three"))
				if s := l.Status(); s.Segments != 2 || s.Failures != 0 || s.Refusing != nil {
					t.Fatalf("%+v", s)
				}
				failed := segmentName(DefaultDir, 1)
				d.Inject(memdisk.Rule{Ops: memdisk.OpWrite | memdisk.OpSync | memdisk.OpTruncate, Name: failed, Fault: memdisk.Fault{Err: errors.New("touched again")}})
				l.stop()
				opt.Disk = d.Restart(memdisk.PowerCut, 1)
				l = mem(t, opt)
				l.has(t, rec("a", 1, "one"), rec("a", 3, "three"))
				l.stop()
			})
		}
	}
}

// TestSlowDisk: the log tells of a disk that stands still, and not with each write.
func TestSlowDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		var text bytes.Buffer
		l := mem(t, Options{Disk: d, MinFree: -1, Log: slog.New(slog.NewTextHandler(&text, nil))})
		l.mustPut(rec("a", 1, "x"))
		d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Fault: memdisk.Fault{Delay: 3 * time.Second}})
		for i := range 8 {
			l.mustPut(rec("a", 2+i, "x"))
		}
		l.stop()
		if n := strings.Count(text.String(), "took=3s"); n < 2 || n > 3 {
			t.Errorf("in 24 s it was said %d times:\n%s", n, &text)
		}
	})
}

func TestThreeFailuresRefuseAndResume(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		l := mem(t, Options{Disk: d, MinFree: -1})
		l.mustPut(rec("a", 1, "one"))
		mend := d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Fault: memdisk.Fault{Err: errInjected}})
		done := make(chan error, 2)
		for i := range 2 {
			if err := l.Enqueue(&Batch{Records: []Record{rec("a", 2+i, "x")}, Done: func(err error) { done <- err }}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		err := l.Enqueue(&Batch{Records: []Record{rec("a", 9, "x")}, Done: func(err error) { t.Error("called") }})
		if !hub.Is(err, hub.Unavailable) || !hub.Is(l.Status().Refusing, hub.Unavailable) {
			t.Fatalf("a failing disk: %v", err)
		}
		select {
		case err := <-done:
			t.Fatalf("answered before the loss is fixed: %v", err)
		default:
		}
		l.has(t, rec("a", 1, "one")) // reads go on
		mend()
		time.Sleep(2 * time.Second)
		for range 2 {
			if err := <-done; !errors.Is(err, ErrLost) {
				t.Fatalf("the writers that waited: %v", err)
			}
		}
		l.mustPut(rec("a", 5, "five"))
		l.has(t, rec("a", 1, "one"), rec("a", 5, "five"))
		l.stop()
		l = mem(t, Options{Disk: d.Restart(memdisk.PowerCut, 3), MinFree: -1})
		l.has(t, rec("a", 1, "one"), rec("a", 5, "five"))
		l.stop()
	})
}

func TestStopOnAFailingDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		l := mem(t, Options{Disk: d, MinFree: -1})
		l.mustPut(rec("a", 1, "one"))
		d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Fault: memdisk.Fault{Err: errInjected}})
		done := make(chan error, 1)
		if err := l.Enqueue(&Batch{Records: []Record{rec("a", 2, "x")}, Done: func(err error) { done <- err }}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		l.stop()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Fatalf("nobody knows, but: %v", err)
		}
	})
}

func TestFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		d.SetCapacity(1 << 20)
		opt := Options{Disk: d, MinFree: 256 << 10, SegmentBytes: 64 << 10}
		l := mem(t, opt)
		var kept []Record
		var err error
		for i := 0; i < 5000; i++ {
			r := rec("a", i, fmt.Sprintf("%01000d", i))
			if err = l.put(r); err != nil {
				break
			}
			kept = append(kept, r)
			time.Sleep(100 * time.Millisecond)
		}
		var e *hub.Error
		if !errors.As(err, &e) || e.Kind != hub.Full || e.RetryAfter <= 0 {
			t.Fatalf("after %d records: %v", len(kept), err)
		}
		if s := l.Status(); s.Free > opt.MinFree || s.Free < opt.MinFree/2 {
			t.Fatalf("free %d of %d that shall stay", s.Free, opt.MinFree)
		}
		l.has(t, kept...)
		d.SetCapacity(4 << 20)
		time.Sleep(3 * time.Second)
		r := rec("a", 10_000, "more")
		l.mustPut(r)
		l.has(t, append(kept, r)...)

		// No space at all, seen first by a write.
		d.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Times: 3, Fault: memdisk.Fault{Err: disk.ErrFull, Effect: memdisk.Part}})
		if err := l.put(rec("a", 10_001, "x")); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		if err := l.put(rec("a", 10_002, "x")); err != nil && !hub.Is(err, hub.Full) {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		l.mustPut(rec("a", 10_003, "x"))

		// No space at all for long: whoever asks is told that it is space that is missing, also when nothing more can be tried.
		d.SetCapacity(1)
		lost := make(chan error, 1) // seen first by a write, of which nobody knows anything until a segment can be made
		if err := l.Enqueue(&Batch{Records: []Record{rec("a", 10_004, fmt.Sprintf("%030000d", 0))}, Done: func(err error) { lost <- err }}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if s := l.Status(); s.Failures < tooMany {
			t.Fatalf("%d failures: it does not try, or it can", s.Failures)
		}
		for range 20 {
			if err := l.put(rec("a", 10_004, "x")); !hub.Is(err, hub.Full) {
				t.Fatal(err)
			}
			if err := l.Status().Refusing; !hub.Is(err, hub.Full) {
				t.Fatalf("a disk that is full: %v", err)
			}
			time.Sleep(time.Second)
		}
		d.SetCapacity(4 << 20)
		time.Sleep(10 * time.Second)
		if err := <-lost; !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		l.mustPut(rec("a", 10_005, "x"))
		l.stop()
	})
}

func TestIntervalAndNever(t *testing.T) {
	for mode, syncs := range map[SyncMode][2]int64{Always: {20, 20}, Interval: {1, 3}, Never: {0, 0}} {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			l := mem(t, Options{Disk: d, MinFree: -1, Sync: mode})
			l.mustPut(rec("a", 0, "x"))
			before := d.Calls(memdisk.OpSync)
			for i := range 20 {
				l.mustPut(rec("a", i+1, "x"))
				time.Sleep(10 * time.Millisecond)
			}
			if n := d.Calls(memdisk.OpSync) - before; n < syncs[0] || n > syncs[1] {
				t.Errorf("mode %v: %d syncs", mode, n)
			}
			time.Sleep(200 * time.Millisecond)
			next := d.Fork(memdisk.PowerCut, 4)
			l.stop() // syncs in every mode
			if mode == Interval {
				l = mem(t, Options{Disk: next, MinFree: -1})
				if k, _, _ := l.Keys(context.Background(), "a", hub.MinKey, hub.MaxKey, 0, false); len(k) != 21 {
					t.Errorf("%d records after 200 ms", len(k))
				}
				l.stop()
			}
			l = mem(t, Options{Disk: d.Restart(memdisk.PowerCut, 4), MinFree: -1})
			if k, _, _ := l.Keys(context.Background(), "a", hub.MinKey, hub.MaxKey, 0, false); len(k) != 21 {
				t.Errorf("mode %v: %d records after a clean stop", mode, len(k))
			}
			l.stop()
		})
	}
}

// TestRollByAge: an idle segment is closed, gets its footer and can be swept.
func TestRollByAge(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		now := func() time.Time {
			return time.UnixMilli(t0).Add(time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)))
		}
		l := mem(t, Options{Disk: d, MinFree: -1, Clock: now, Archived: func(string) (hub.Key, bool) { return hub.MaxKey, true }})
		first := l.Floor()
		if first != hub.First(now()) {
			t.Errorf("the floor of a new log is %v", first)
		}
		l.mustPut(rec("a", 5, "x"))
		time.Sleep(2 * time.Minute)
		if s := l.Status(); s.Unfootered != 1 || s.Segments != 2 {
			t.Fatalf("%+v", s)
		}
		if err := l.Sweep(context.Background()); err != nil || l.Status().Swept != 0 {
			t.Fatalf("swept before the TTL: %v", err)
		}
		time.Sleep(time.Hour)
		if err := l.Sweep(context.Background()); err != nil || l.Status().Swept != 1 {
			t.Fatalf("%+v, %v", l.Status(), err)
		}
		if want := rec("a", 5, "").Key.After(); l.Floor() != want {
			t.Fatalf("floor %v, want %v", l.Floor(), want)
		}
		floor := l.Floor()
		l.stop()
		l = mem(t, Options{Disk: d.Restart(memdisk.PowerCut, 1), MinFree: -1, Clock: now})
		if l.Floor() != floor {
			t.Fatalf("floor %v after a restart, want %v", l.Floor(), floor)
		}
		l.stop()
	})
}

func TestSweep(t *testing.T) {
	var late bool
	archived := map[string]hub.Key{"a": key(1000, ""), "b": hub.MinKey}
	now := time.UnixMilli(t0)
	d := openDir(t)
	opt := Options{
		Disk: d, Clock: func() time.Time { return now }, TTL: time.Minute,
		Archived:      func(ch string) (hub.Key, bool) { k, ok := archived[ch]; return k, ok },
		LateConfirmed: func(string, hub.Key) bool { return late },
	}
	l, _ := start(t, opt)
	fill := func(ch string, from, n int, flags Flags) {
		for i := range n {
			r := rec(ch, from+i, fmt.Sprintf("%0100d", i))
			r.Flags = flags
			l.mustPut(r)
		}
	}
	next := func() { // each start begins a segment
		l.stop()
		l, _ = start(t, opt)
	}
	fill("a", 0, 25, 0)
	fill("b", 30, 5, 0) // the first segment: 25 archived, 5 not
	next()
	fill("c", 40, 15, 0) // deleted
	fill("b", 60, 15, 0) // the second: half needed
	next()
	fill("a", 80, 29, 0)
	fill("a", 110, 1, Late) // the third: a late record
	next()
	fill("a", 2000, 1, 0) // active
	l.sealAll()
	if n := l.Status().Segments; n != 4 {
		t.Fatalf("%d segments", n)
	}
	now = now.Add(2 * time.Minute)
	if err := l.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := l.Status()
	if s.Swept != 2 || s.Carried != 6 {
		t.Fatalf("the first and the third are emptied, the second stays: %+v", s)
	}
	if k, _ := l.keys("b", hub.MinKey, hub.MaxKey, 0, false); len(k) != 20 {
		t.Fatalf("%d unconfirmed keys", len(k))
	}
	if r, err := l.Get(t.Context(), "b", rec("b", 31, "").Key); err != nil || r.Flags&Carried == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if k, _ := l.keys("a", hub.MinKey, hub.MaxKey, 0, false); len(k) != 2 {
		t.Fatalf("keys %v", k)
	}
	if _, err := fs.Stat(osFS(d), fmt.Sprintf("%016x.seg", 1)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the file: %v", err)
	}
	// A reader goes on reading what a sweep unlinks.
	archived["b"], late = hub.MaxKey, true
	n := 0
	for r, err := range l.Items(t.Context(), "b", hub.MinKey, hub.MaxKey, 0, false) {
		if err != nil || len(r.Data) != 100 {
			t.Fatalf("%v", err)
		}
		if n++; n == 1 {
			if err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l.Status().Swept != 3 {
				t.Fatalf("%+v", l.Status())
			}
		}
	}
	if n != 20 {
		t.Fatalf("%d items", n)
	}
	l.stop()
	l, _ = start(t, opt)
	if k, _ := l.keys("b", hub.MinKey, hub.MaxKey, 0, false); len(k) != 5 {
		t.Fatalf("%d keys: the carried ones should still be there", len(k))
	}
}

// osFS is the folder of the log on a real disk.
func osFS(d disk.Disk) fs.FS { return os.DirFS(d.Path(DefaultDir)) }

// TestDamagedFooterDuringAnIterationThatEnds: who wants no more items gets none, also if a footer turns out to be damaged in that moment.
func TestDamagedFooterDuringAnIterationThatEnds(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		opt := Options{Disk: d, MinFree: -1, SegmentRecords: 10}
		l := mem(t, opt)
		for i := range 60 {
			l.mustPut(rec("a", i, "data"))
			time.Sleep(time.Second)
		}
		l.stop()
		infos, err := d.List(DefaultDir)
		if err != nil {
			t.Fatal(err)
		}
		l = mem(t, opt)
		for _, i := range infos[1:] {
			if i.Size > format.PageSize {
				if err := d.Damage(DefaultDir+"/"+i.Name, format.PageSize, make([]byte, i.Size-2*format.PageSize)); err != nil {
					t.Fatal(err)
				}
			}
		}
		n := 0
		for _, err := range l.Items(context.Background(), "a", hub.MinKey, hub.MaxKey, 0, false) {
			if n++; n > 1 || err != nil {
				t.Fatal(n, err)
			}
			break
		}
		if got := l.items("a", hub.MinKey, hub.MaxKey, 0, false); len(got) != 60 {
			t.Errorf("%d items", len(got))
		}
		l.stop()
	})
}

// TestFolderOfAFailedStart: a folder that is there, but whose name an earlier process could not sync, is not relied upon.
func TestFolderOfAFailedStart(t *testing.T) {
	for seed := range uint64(10) {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			d.CrashAt(memdisk.OpSyncDir, 1, memdisk.None)
			if _, _, err := Open(t.Context(), Options{Disk: d, MinFree: -1}); err == nil {
				t.Fatal("it did not die")
			}
			d = d.Restart(memdisk.ProcessKill, 1)
			d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Fault: memdisk.Fault{Err: errInjected}})
			if err := d.SyncDir("."); err == nil {
				t.Fatal("it did not fail")
			}
			d = d.Restart(memdisk.ProcessKill, 1)
			l := mem(t, Options{Disk: d, MinFree: -1})
			l.mustPut(rec("a", 1, "data"))
			l.stop()
			l = mem(t, Options{Disk: d.Restart(memdisk.PowerCut, seed), MinFree: -1})
			l.has(t, rec("a", 1, "data"))
			l.stop()
		})
	}
}

// TestFloorOfAFailedSweep: a floor that is there, but that an earlier process could not sync, is written again before anything is removed.
func TestFloorOfAFailedSweep(t *testing.T) {
	for seed := range uint64(10) {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			opt := Options{Disk: d, MinFree: -1, TTL: time.Second, Archived: func(string) (hub.Key, bool) { return hub.MaxKey, true }}
			l := mem(t, opt)
			k := hub.NewKey(time.Now(), "000001")
			l.mustPut(Record{Channel: "a", Key: k, Data: []byte("data")})
			l.stop()
			l = mem(t, opt)
			time.Sleep(time.Minute)
			remove := d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Fault: memdisk.Fault{Err: errInjected}})
			if err := l.Sweep(t.Context()); err == nil {
				t.Fatal("the sweep did not fail")
			}
			remove()
			l.stop()
			opt.Disk = d.Restart(memdisk.ProcessKill, 1)
			l = mem(t, opt)
			if err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l.Status().Swept != 1 {
				t.Fatalf("%+v", l.Status())
			}
			l.stop()
			opt.Disk = opt.Disk.(*memdisk.Disk).Restart(memdisk.PowerCut, seed)
			l = mem(t, opt)
			if !k.Less(l.Floor()) {
				t.Errorf("seed %d: the floor is %v, and what lies above it is gone", seed, l.Floor())
			}
			l.stop()
		})
	}
}
