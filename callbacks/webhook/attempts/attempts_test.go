package attempts

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub/disk"
)

var update = flag.Bool("update", false, "write the golden files")

// at is the n-th second of a day.
func at(n int) time.Time { return time.Date(2021, 3, 4, 5, 6, n, 7e6, time.UTC) }

// attempt is the n-th one; every third fails.
func attempt(n int) Attempt {
	a := Attempt{
		Time: at(n), Path: fmt.Sprintf("2021/03/04/05/06/%02d/007/k%05d", n%60, n), Number: 1 + n%4, Status: 200, Reason: "OK",
		Latency: time.Duration(n) * time.Microsecond, Answer: []byte(fmt.Sprint("answer ", n)), Replay: n%5 == 0,
	}
	switch n % 3 {
	case 1:
		a.Status, a.Reason = 503, "Service Unavailable"
	case 2:
		a.Status, a.Reason, a.Error, a.Answer = 0, "", "call printer.example: connection reset by peer", nil
	}
	return a
}

func attempts(from, to int) []Attempt {
	var all []Attempt
	for n := from; n < to; n++ {
		all = append(all, attempt(n))
	}
	return all
}

// start opens a store and runs it. stop waits until all is written.
func start(t *testing.T, o Options) (s *Store, stop func()) {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, sync.OnceFunc(func() { cancel(); group.Wait() })
}

func list(t *testing.T, s *Store, name string, f Filter) []Attempt {
	t.Helper()
	all, err := s.List(name, f)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func newest(all []Attempt) []Attempt { slices.Reverse(all); return all }

func same(t *testing.T, what string, got, want []Attempt) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d attempts, want %d", what, len(got), len(want))
		return
	}
	for n := range got {
		if !reflect.DeepEqual(got[n], want[n]) {
			t.Errorf("%s, %d: %+v, want %+v", what, n, got[n], want[n])
			return
		}
	}
}

// used is what the files need.
func used(t *testing.T, d disk.Disk) (bytes int64, files int) {
	t.Helper()
	infos, err := d.List("attempts")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		bytes += blocks(i.Size)
	}
	return bytes, len(infos)
}

// TestKept: they are there at once, after they were written, and after restarts; the last 1,000 of each webhook.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		for n := range 3000 {
			s.Add("b", attempt(n))
			if n < 10 {
				s.Add("a", attempt(n))
			}
			switch n {
			case 5:
				same(t, "not written yet", list(t, s, "b", Filter{}), newest(attempts(0, 6)))
			case 900, 2900:
				time.Sleep(time.Second)
				same(t, "written", list(t, s, "b", Filter{}), newest(attempts(max(0, n-999), n+1)))
			case 1700:
				stop()
				s, stop = start(t, Options{Disk: d})
			case 2000:
				same(t, "partly written", list(t, s, "b", Filter{}), newest(attempts(1001, 2001)))
			}
		}
		same(t, "b", list(t, s, "b", Filter{}), newest(attempts(2000, 3000)))
		same(t, "a", list(t, s, "a", Filter{}), newest(attempts(0, 10)))
		same(t, "nobody", list(t, s, "c", Filter{}), nil)
		stop()
		if _, files := used(t, d); files > 6 {
			t.Errorf("%d files", files)
		}
		s, stop = start(t, Options{Disk: d, PerWebhook: 7})
		same(t, "fewer", list(t, s, "b", Filter{}), newest(attempts(2993, 3000)))
		stop()
		if s.Dropped() != 0 {
			t.Errorf("%d dropped", s.Dropped())
		}
	})
}

func TestFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := start(t, Options{Disk: memdisk.New(memdisk.Options{})})
		defer stop()
		for n := range 120 {
			s.Add("a", attempt(n))
		}
		for _, c := range []struct {
			f    Filter
			want int
		}{
			{Filter{}, 120}, {Filter{Status: 503}, 40}, {Filter{Status: 204}, 0}, {Filter{Silent: true}, 40}, {Filter{Failed: true}, 80},
			{Filter{Path: "2021/03/04/05/06/07/007/k00007"}, 1}, {Filter{Path: "2021/03/04/05/06/07"}, 2}, {Filter{Path: "2021/03/04/05/06/07/"}, 2},
			{Filter{Path: "2021/03/04/05/06/0"}, 0}, {Filter{Path: "2021/03/04/05/06", Status: 503}, 40},
		} {
			if got := list(t, s, "a", c.f); len(got) != c.want {
				t.Errorf("%+v: %d", c.f, len(got))
			}
		}
	})
}

// TestFailed: what counts is the newest attempt of a path.
func TestFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := start(t, Options{Disk: memdisk.New(memdisk.Options{})})
		defer stop()
		for i, a := range []Attempt{
			{Path: "c", Status: 500}, {Path: "a", Status: 302}, {Path: "b", Status: 500}, {Path: "b", Status: 200}, {Path: "d", Status: 204},
			{Path: "e", Status: 200}, {Path: "e", Error: "reset"}, {Path: "f", Status: 200, Error: "more than 10 redirects"},
		} {
			a.Time = at(i)
			s.Add("w", a)
			time.Sleep(70 * time.Millisecond)
		}
		if got, err := s.Failed("w"); err != nil || !slices.Equal(got, []string{"a", "c", "e", "f"}) {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := s.Failed("x"); err != nil || got != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// TestBudget: the oldest attempts of all go first, and the files never need more than they may.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		const limit = 256 << 10
		s, stop := start(t, Options{Disk: d, MaxBytes: limit})
		defer stop()
		answer := bytes.Repeat([]byte("x"), 1000)
		clock := 0
		add := func(name string, n int) {
			for range n {
				a := attempt(clock)
				a.Answer = answer
				clock++
				s.Add(name, a)
			}
			time.Sleep(time.Second)
			if bytes, _ := used(t, d); bytes > limit {
				t.Fatalf("%d bytes", bytes)
			}
		}
		add("old", 50)
		add("older", 50)
		add("old", 10)
		for range 20 {
			add("busy", 10)
		}
		if n := len(list(t, s, "older", Filter{})); n >= 50 {
			t.Errorf("%d of the oldest are left", n)
		}
		if n := len(list(t, s, "busy", Filter{})); n < 120 {
			t.Errorf("only %d of the newest are left", n)
		}
		for range 20 {
			add("busy", 100)
		}
		for name, want := range map[string]int{"old": 0, "older": 0, "busy": 150} {
			if n := len(list(t, s, name, Filter{})); n < want || want == 0 && n != 0 {
				t.Errorf("%s has %d attempts", name, n)
			}
		}
		for i := range 200 { // more webhooks than there is room for
			add(fmt.Sprint("hook", i), 1)
		}
		if n := len(list(t, s, "hook199", Filter{})); n != 1 {
			t.Errorf("the newest has %d attempts", n)
		}
		stop()
		before, _ := used(t, d)
		s, stop = start(t, Options{Disk: d, MaxBytes: limit / 4})
		add0 := attempt(clock)
		s.Add("next", add0)
		time.Sleep(time.Second)
		if after, _ := used(t, d); after > limit/4 {
			t.Errorf("%d bytes became %d with a smaller budget", before, after)
		}
		stop()
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		add := func(from, to int) {
			for n := from; n < to; n++ {
				s.Add("a", attempt(n))
				s.Add("b", attempt(n))
			}
		}
		add(0, 500)
		s.Remove("a")
		same(t, "removed before it was written", list(t, s, "a", Filter{}), nil)
		time.Sleep(time.Second)
		add(500, 700)
		time.Sleep(time.Second)
		s.Remove("a")
		add(700, 710)
		same(t, "a new one", list(t, s, "a", Filter{}), newest(attempts(700, 710)))
		time.Sleep(time.Second)
		s.Remove("nobody")
		stop()
		s, stop = start(t, Options{Disk: d})
		defer stop()
		same(t, "a after a restart", list(t, s, "a", Filter{}), newest(attempts(700, 710)))
		same(t, "b after a restart", list(t, s, "b", Filter{}), newest(attempts(0, 710)))
		s.Remove("a")
		s.Remove("b")
		time.Sleep(time.Second)
		if bytes, files := used(t, d); files != 0 || s.total != 0 {
			t.Errorf("%d files with %d bytes are left, %d by our count", files, bytes, s.total)
		}
	})
}

// TestCrash: whatever a crash leaves can be read and written on; of each webhook a beginning of what was added is there, in order.
func TestCrash(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			d := memdisk.New(memdisk.Options{Seed: seed})
			rng := rand.New(rand.NewPCG(seed, 1))
			next := map[string]int{}
			for round := range 4 {
				s, err := Open(Options{Disk: d})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				var group sync.WaitGroup
				group.Go(func() { s.Run(ctx) })
				synctest.Wait()
				for _, name := range []string{"a", "b", "c"} {
					all := list(t, s, name, Filter{})
					for i, a := range all {
						if n := a.Time.Sub(at(0)); i > 0 && !a.Time.Before(all[i-1].Time) || n >= time.Duration(next[name])*time.Second {
							t.Fatalf("seed %d, round %d: attempt of %v after that of %v", seed, round, a.Time, all[max(i-1, 0)].Time)
						}
						if want := attempt(int(a.Time.Sub(at(0)) / time.Second)); !reflect.DeepEqual(a, want) {
							t.Fatalf("seed %d, round %d: %+v was %+v", seed, round, a, want)
						}
					}
				}
				d.CrashAt(memdisk.OpWrite|memdisk.OpCreate|memdisk.OpRemove, 1+rng.IntN(8), memdisk.Effect(rng.IntN(3)))
				for range 30 {
					for range rng.IntN(60) {
						name := string('a' + rune(rng.IntN(3)))
						s.Add(name, attempt(next[name]))
						next[name]++
					}
					time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
				}
				cancel()
				group.Wait()
				d = d.Restart(memdisk.Death(rng.IntN(2)), rng.Uint64())
			}
		})
	}
}

// TestFull: a disk that is full, or fails, costs attempts and nothing else; when it is well again, so is the store.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		var log bytes.Buffer
		s, stop := start(t, Options{Disk: d, Log: slog.New(slog.NewTextHandler(&log, nil))})
		defer stop()
		n := 0
		add := func(count int) {
			for range count {
				s.Add("a", attempt(n))
				n++
				time.Sleep(200 * time.Millisecond)
			}
		}
		add(10)
		well := d.Inject(memdisk.Rule{Ops: memdisk.OpWrite | memdisk.OpCreate, Fault: memdisk.Fault{Err: disk.ErrFull, Effect: memdisk.Part}})
		add(10)
		well()
		add(10)
		want := newest(slices.Concat(attempts(0, 10), attempts(20, 30)))
		same(t, "after a full disk", list(t, s, "a", Filter{}), want)
		if s.Dropped() != 10 || strings.Count(log.String(), "\n") != 2 || !strings.Contains(log.String(), "lost=") {
			t.Errorf("%d dropped, log: %s", s.Dropped(), log.String())
		}
		well = d.Inject(memdisk.Rule{Ops: memdisk.OpOpen, Fault: memdisk.Fault{Err: errors.New("input/output error")}})
		if _, err := s.List("a", Filter{}); err == nil {
			t.Error("a disk that cannot be read gives a list")
		}
		well()
		stop()
		s, stop = start(t, Options{Disk: d})
		same(t, "after a restart", list(t, s, "a", Filter{}), want)
		stop()
	})
}

// TestSlow: Add never waits, and what waits for the disk is bounded.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		d.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Fault: memdisk.Fault{Delay: time.Hour}})
		began := time.Now()
		a := attempt(0)
		a.Answer = bytes.Repeat([]byte("x"), 1<<20) // is cut
		for range 100_000 {
			s.Add("a", a)
		}
		if time.Since(began) != 0 {
			t.Errorf("it took %v", time.Since(began))
		}
		if s.Dropped() < 50_000 || s.weight > pendingBytes+10_000 {
			t.Errorf("%d dropped, %d bytes wait", s.Dropped(), s.weight)
		}
		if got := list(t, s, "a", Filter{}); len(got) != 1000 || len(got[0].Answer) != maxAnswer {
			t.Errorf("%d attempts", len(got))
		}
		stop()
	})
}

// TestManyWebhooks: the number of open files does not grow with that of webhooks.
func TestManyWebhooks(t *testing.T) {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, stop := start(t, Options{Disk: d})
	const hooks = 2000
	for round := range 2 {
		for n := range hooks {
			s.Add(fmt.Sprint("hook", n), attempt(round))
		}
		for s.waiting() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil && len(entries) > maxOpen+50 {
		t.Errorf("%d open files", len(entries))
	}
	stop()
	s, stop = start(t, Options{Disk: d})
	defer stop()
	for _, n := range []int{0, hooks / 2, hooks - 1} {
		same(t, "a hook", list(t, s, fmt.Sprint("hook", n), Filter{}), newest(attempts(0, 2)))
	}
}

func (s *Store) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)+len(s.writing) > 0
}

func TestOpenErrors(t *testing.T) {
	for _, o := range []Options{{}, {Disk: memdisk.New(memdisk.Options{}), MaxBytes: -1}, {Disk: memdisk.New(memdisk.Options{}), PerWebhook: -1},
		{Disk: memdisk.New(memdisk.Options{}), Folder: "../x"}} {
		if _, err := Open(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Options{Disk: memdisk.New(memdisk.Options{})})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.List("a", Filter{}); err == nil { // Run was never called
			t.Error("there is a list before the folder was read")
		}
	})
}

// TestForeign: files of others and of other versions are left alone.
func TestForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		s.Add("a", attempt(0))
		stop()
		write := func(name string, b []byte) {
			f, err := d.Create("attempts/" + name)
			if err != nil {
				t.Fatal(err)
			}
			f.Write(b)
			f.Close()
		}
		later := appendFrame(nil, func(b []byte) []byte { return append(append(b, magic...), 2, 'a') })
		write("README", []byte("hello"))
		write("0000000000000005.calls", later)
		write("0000000000000006.calls", []byte("torn"))
		s, stop = start(t, Options{Disk: d})
		s.Add("a", attempt(1))
		time.Sleep(time.Second)
		same(t, "a", list(t, s, "a", Filter{}), newest(attempts(0, 2)))
		stop()
		infos, _ := d.List("attempts")
		var names []string
		for _, i := range infos {
			names = append(names, i.Name)
		}
		if want := []string{"0000000000000000.calls", "0000000000000005.calls", "README"}; !slices.Equal(names, want) {
			t.Errorf("%v", names)
		}
	})
}

// TestGolden: the bytes of a segment (docs/formats.md).
func TestGolden(t *testing.T) {
	b := appendHead(nil, "printer")
	want := attempts(0, 6)
	for _, a := range want {
		b = appendAttempt(b, a)
	}
	const file = "testdata/segment.golden"
	if *update {
		if err := os.WriteFile(file, []byte(hex.Dump(b)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if hex.Dump(b) != string(golden) {
		t.Errorf("the format has changed:\n%s", hex.Dump(b))
	}
	var got []Attempt
	name, size, err := parseSegment(b, func(a Attempt) { got = append(got, a) })
	if err != nil || name != "printer" || size != int64(len(b)) {
		t.Errorf("%q, %d, %v", name, size, err)
	}
	same(t, "golden", got, want)
}

func FuzzSegment(f *testing.F) {
	b := appendHead(nil, "printer")
	for _, a := range attempts(0, 3) {
		b = appendAttempt(b, a)
	}
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add([]byte{})
	f.Add(appendFrame(b, func(b []byte) []byte { return append(b, 0xff, 0xff, 0xff) }))
	f.Fuzz(func(t *testing.T, b []byte) {
		var all []Attempt
		name, size, err := parseSegment(b, func(a Attempt) { all = append(all, a) })
		if err != nil {
			return
		}
		if size > int64(len(b)) {
			t.Fatalf("%d of %d bytes are whole", size, len(b))
		}
		again := appendHead(nil, name)
		for _, a := range all {
			again = appendAttempt(again, a)
		}
		var got []Attempt
		if _, _, err := parseSegment(again, func(a Attempt) { got = append(got, a) }); err != nil || !reflect.DeepEqual(got, all) {
			t.Errorf("%v became %v, %v", all, got, err)
		}
	})
}

// FuzzAttempt reads records without their sums, so that the fuzzer reaches the fields.
func FuzzAttempt(f *testing.F) {
	for _, a := range attempts(0, 3) {
		f.Add(appendAttempt(nil, a)[frameSize:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseAttempt(b)
		if !ok {
			return
		}
		if got, ok := parseAttempt(appendAttempt(nil, a)[frameSize:]); !ok || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v became %+v", a, got)
		}
	})
}

// TestTornMiddle: what lies behind the first frame that is not whole is gone for good, also if it happens to be whole itself.
func TestTornMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		for range 3 {
			s.Add("a", attempt(3)) // all of one length
		}
		stop()
		one := int64(len(appendAttempt(nil, attempt(3))))
		if err := d.Damage("attempts/"+fileName(0), int64(len(appendHead(nil, "a")))+one+frameSize, []byte("torn")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, stop = start(t, Options{Disk: d})
			synctest.Wait()
			stop()
			same(t, "damaged", list(t, s, "a", Filter{}), attempts(3, 4))
		}
		s, stop = start(t, Options{Disk: d})
		synctest.Wait()
		s.Add("a", attempt(6)) // as long as the one that was torn
		stop()
		s, stop = start(t, Options{Disk: d})
		same(t, "written on", list(t, s, "a", Filter{}), []Attempt{attempt(6), attempt(3)})
		stop()
	})
}

// TestFileGone: somebody removes files under a running store. It goes on with new ones.
func TestFileGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		s.Add("a", attempt(0))
		stop()
		s, stop = start(t, Options{Disk: d})
		defer stop()
		synctest.Wait()
		if err := d.Remove("attempts/" + fileName(0)); err != nil {
			t.Fatal(err)
		}
		for n := 1; n < 5; n++ {
			s.Add("a", attempt(n))
			time.Sleep(time.Second)
		}
		if got := list(t, s, "a", Filter{}); len(got) != 3 || s.Dropped() != 1 {
			t.Errorf("%d attempts, %d dropped", len(got), s.Dropped())
		}
	})
}

// TestRemoveWhileWriting: what is on its way to the disk is removed too, and a new webhook of the name keeps its own.
func TestRemoveWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		s, stop := start(t, Options{Disk: d})
		s.Add("a", attempt(0))
		time.Sleep(time.Second)
		well := d.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Fault: memdisk.Fault{Delay: time.Minute}})
		for n := range 600 {
			s.Add("a", attempt(n))
		}
		time.Sleep(30 * time.Second)
		s.Remove("a")
		same(t, "removed", list(t, s, "a", Filter{}), nil)
		s.Add("a", attempt(1000))
		same(t, "a new one", list(t, s, "a", Filter{}), attempts(1000, 1001))
		time.Sleep(time.Hour)
		well()
		same(t, "a new one", list(t, s, "a", Filter{}), attempts(1000, 1001))
		stop()
		bytes, files := used(t, d)
		if files != 1 || bytes != s.total {
			t.Errorf("%d files with %d bytes are left, %d by our count", files, bytes, s.total)
		}
		s, stop = start(t, Options{Disk: d})
		same(t, "after a restart", list(t, s, "a", Filter{}), attempts(1000, 1001))
		stop()
	})
}
