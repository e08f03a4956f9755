package memdisk_test

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub/disk"
)

var errBroken = errors.New("broken")

func TestKill(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, d.MkdirAll("a"))
	f := create(t, d, "f", "abc")
	unlock, err := d.Lock("lock", "pid 1")
	ok(t, err)
	select {
	case <-d.Dead():
		t.Fatal("dead before it was killed")
	default:
	}
	d.Kill()
	d.Kill()
	<-d.Dead()
	before := d.Dump()
	_, createErr := d.Create("g")
	_, openErr := d.Open("f", true)
	_, listErr := d.List(".")
	_, statErr := d.Stat("f")
	_, lockErr := d.Lock("lock2", "")
	_, freeErr := d.Free()
	_, writeErr := f.Write([]byte("x"))
	_, writeAtErr := f.WriteAt([]byte("x"), 0)
	_, readErr := f.ReadAt(make([]byte, 1), 0)
	_, sizeErr := f.Size()
	for op, err := range map[string]error{
		"Create": createErr, "Open": openErr, "List": listErr, "Stat": statErr, "Lock": lockErr, "Free": freeErr, "Write": writeErr,
		"WriteAt": writeAtErr, "ReadAt": readErr, "Size": sizeErr, "Rename": d.Rename("f", "g"), "Link": d.Link("f", "g"), "Remove": d.Remove("f"),
		"RemoveAll": d.RemoveAll("a"), "MkdirAll": d.MkdirAll("b"), "MkdirAll again": d.MkdirAll("a"), "SyncDir": d.SyncDir("."), "Sync": f.Sync(),
		"Truncate": f.Truncate(0), "Close": f.Close(), "Unlock": unlock(),
	} {
		if !errors.Is(err, memdisk.ErrKilled) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if d.Dump() != before {
		t.Errorf("a dead process has changed the disk:\n%s\n%s", before, d.Dump())
	}
	next := d.Restart(memdisk.ProcessKill, 0)
	if s, _ := content(t, next, "f"); s != "abc" {
		t.Errorf("%q", s)
	}
}

func TestRules(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, d.MkdirAll("a"))
	remove := d.Inject(memdisk.Rule{Ops: memdisk.OpWrite | memdisk.OpSync, Name: "a/*.seg", Skip: 1, Times: 2, Fault: memdisk.Fault{Err: errBroken}})
	f, g := create(t, d, "a/1.seg", "x"), create(t, d, "other", "x")
	for i, want := range []error{errBroken, errBroken, nil, nil} {
		if _, err := f.Write([]byte("y")); !errors.Is(err, want) || err != nil && want == nil {
			t.Errorf("write %d: %v", i, err)
		}
		ok(t, g.Sync())
	}
	if s, _ := content(t, d, "a/1.seg"); s != "xyy" {
		t.Errorf("%q", s)
	}
	remove()
	remove()
	always := d.Inject(memdisk.Rule{Name: "a/1.seg", Fault: memdisk.Fault{Err: syscall.EIO}})
	for range 3 {
		if _, err := d.Stat("a/1.seg"); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "a/1.seg") {
			t.Error(err)
		}
	}
	always()
	_, err := d.Stat("a/1.seg")
	ok(t, err)
	if n := d.Calls(memdisk.OpStat); n != 4 {
		t.Errorf("%d calls of Stat", n)
	}
	if n := d.Calls(memdisk.Any); n <= 4 || n < d.Calls(memdisk.Changes) {
		t.Errorf("%d calls", n)
	}
	if s := (memdisk.OpWrite | memdisk.OpSync).String(); s != "write|sync" {
		t.Error(s)
	}
}

func TestEffects(t *testing.T) {
	for _, c := range []struct {
		effect memdisk.Effect
		want   []string
	}{
		{memdisk.None, []string{""}}, {memdisk.All, []string{"abcd"}}, {memdisk.Part, []string{"", "a", "ab", "abc"}},
	} {
		seen := map[string]bool{}
		for seed := range uint64(100) {
			d := memdisk.New(memdisk.Options{Seed: seed})
			f := create(t, d, "f", "")
			d.Inject(memdisk.Rule{Ops: memdisk.OpWrite, Times: 1, Fault: memdisk.Fault{Err: errBroken, Effect: c.effect}})
			n, err := f.Write([]byte("abcd"))
			s, _ := content(t, d, "f")
			if !errors.Is(err, errBroken) || n != len(s) {
				t.Fatal(n, err)
			}
			seen[s] = true
		}
		if len(seen) != len(c.want) {
			t.Errorf("effect %d: %v", c.effect, seen)
		}
		for _, w := range c.want {
			if !seen[w] {
				t.Errorf("effect %d: never %q", c.effect, w)
			}
		}
	}
	d := memdisk.New(memdisk.Options{})
	d.Inject(memdisk.Rule{Ops: memdisk.OpCreate | memdisk.OpLock, Times: 2, Fault: memdisk.Fault{Err: errBroken, Effect: memdisk.All}})
	if _, err := d.Create("f"); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := d.Create("f"); !errors.Is(err, fs.ErrExist) { // it is there though the call has failed, and a call that fails by itself says so
		t.Error(err)
	}
	d.Inject(memdisk.Rule{Ops: memdisk.OpLock, Times: 1, Fault: memdisk.Fault{Err: errBroken, Effect: memdisk.All}})
	if _, err := d.Lock("lock", ""); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	_, err := d.Lock("lock", "") // nobody holds what nobody could give back
	ok(t, err)
}

func TestFailedSync(t *testing.T) {
	setup := func(seed uint64, effect memdisk.Effect) (*memdisk.Disk, disk.File) {
		d := memdisk.New(memdisk.Options{Seed: seed})
		f := create(t, d, "f", "safe")
		ok(t, f.Sync())
		ok(t, d.SyncDir("."))
		write(t, f, "more")
		d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Times: 1, Fault: memdisk.Fault{Err: syscall.EIO, Effect: effect}})
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		return d, f
	}
	look := func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		return s
	}
	d, f := setup(0, memdisk.None)
	if s := look(t, d); s != "safemore" {
		t.Errorf("reads %q", s)
	}
	ok(t, f.Sync()) // lies, as Linux does
	lost := "safe\x00\x00\x00\x00"
	only(t, outcomes(t, d, look), lost)
	if _, err := f.WriteAt([]byte("more"), 4); err != nil { // the same again, and it is dirty again
		t.Fatal(err)
	}
	ok(t, f.Sync())
	only(t, outcomes(t, d, look), "safemore")

	d, _ = setup(0, memdisk.All)
	only(t, outcomes(t, d, look), "safemore")

	seen := map[string]int{}
	reads := map[string]bool{}
	for seed := range uint64(300) {
		d, f := setup(seed, memdisk.Part)
		reads[look(t, d)] = true
		ok(t, f.Sync())
		s := look(t, d.Restart(memdisk.PowerCut, seed))
		if !strings.HasPrefix(s, "safe") || len(s) != 8 {
			t.Fatalf("%q", s)
		}
		seen[s]++
	}
	if seen["safemore"] == 0 || seen[lost] == 0 || len(seen) < 3 {
		t.Errorf("%v", seen)
	}
	if !reads["safemore"] || len(reads) < 2 {
		t.Errorf("reads %v", reads)
	}
}

func TestFailedSyncDir(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, create(t, d, "f", "x").Sync())
	d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Times: 1, Fault: memdisk.Fault{Err: syscall.EIO}})
	if err := d.SyncDir("."); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	ok(t, d.SyncDir("."))
	if _, there := content(t, d, "f"); !there {
		t.Error("the name does not show")
	}
	for seed := range uint64(20) {
		if _, there := content(t, d.Fork(memdisk.PowerCut, seed), "f"); there {
			t.Fatal("a name that was lost is found again")
		}
	}
}

// A folder has one name, also after the first half of two renames was lost in a failed SyncDir.
func TestFailedSyncDirOfFolders(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, d.MkdirAll("a/x"))
	ok(t, d.Rename("a", "b"))
	d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Times: 1, Fault: memdisk.Fault{Err: syscall.EIO}})
	if err := d.SyncDir("."); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	ok(t, d.Rename("b", "c"))
	ok(t, d.SyncDir("."))
	next := d.Restart(memdisk.PowerCut, 0)
	list, err := next.List(".")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if inside, err := next.List(list[0].Name); err != nil || len(inside) != 1 {
		t.Error(inside, err)
	}
}

func TestFull(t *testing.T) {
	d := memdisk.New(memdisk.Options{Capacity: 5 * 4096}) // one is the root
	f := create(t, d, "f", "")
	n, err := f.Write(make([]byte, 5*4096))
	if n != 4*4096 || !errors.Is(err, disk.ErrFull) {
		t.Errorf("%d %v", n, err)
	}
	if free, err := d.Free(); free != 0 || err != nil {
		t.Error(free, err)
	}
	if _, err := f.WriteAt([]byte("x"), 100); err != nil { // in place it goes
		t.Error(err)
	}
	if err := d.MkdirAll("a"); !errors.Is(err, disk.ErrFull) {
		t.Error(err)
	}
	unlock, err := d.Lock("lock", "note") // as a node does that starts on a full disk
	ok(t, err)
	ok(t, unlock())
	d.SetCapacity(6 * 4096)
	write(t, f, "y")
	ok(t, f.Truncate(1))
	if free, err := d.Free(); free != 4*4096 || err != nil {
		t.Error(free, err)
	}
	ok(t, d.Remove("f"))
	if free, err := d.Free(); free != 4*4096 || err != nil { // an open file keeps its space
		t.Error(free, err)
	}
	ok(t, f.Close())
	if free, err := d.Free(); free != 5*4096 || err != nil {
		t.Error(free, err)
	}
	if free, err := d.Restart(memdisk.ProcessKill, 0).Free(); free != 5*4096 || err != nil {
		t.Error(free, err)
	}
}

func TestDamage(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", strings.Repeat("a", 5000))
	ok(t, f.Sync())
	ok(t, d.SyncDir("."))
	fork := d.Fork(memdisk.ProcessKill, 0)
	if err := d.Damage("f", 4999, []byte("xx")); err == nil {
		t.Error("damage beyond the end")
	}
	if err := d.Damage("g", 0, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	ok(t, d.Damage("f", 4094, []byte("xxxx")))
	want := strings.Repeat("a", 4094) + "xxxx" + strings.Repeat("a", 902)
	if s, _ := content(t, d, "f"); s != want {
		t.Error("the damage does not show")
	}
	next := d.Restart(memdisk.PowerCut, 0)
	ok(t, d.Damage("f", 0, []byte("y"))) // of a dead disk, after the next was made: only for one made later
	if s, _ := content(t, next, "f"); s != want {
		t.Error("the damage is not on the medium")
	}
	if s, _ := content(t, d.Restart(memdisk.PowerCut, 0), "f"); s != "y"+want[1:] {
		t.Error("the damage of a dead disk is not on the medium")
	}
	if s, _ := content(t, fork, "f"); s != strings.Repeat("a", 5000) {
		t.Error("damage to one generation shows in another")
	}
}

func TestHook(t *testing.T) {
	var calls []memdisk.Call
	var d *memdisk.Disk
	d = memdisk.New(memdisk.Options{Hook: func(c memdisk.Call) memdisk.Fault {
		calls = append(calls, c)
		if c.Op == memdisk.OpRename {
			d.Dump() // it may look at the disk
			return memdisk.Fault{Err: errBroken}
		}
		return memdisk.Fault{}
	}})
	f := create(t, d, "f", "abc")
	write(t, f, "de")
	if err := d.Rename("f", "g"); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	want := []memdisk.Call{
		{Op: memdisk.OpCreate, Name: "f", N: 1},
		{Op: memdisk.OpWrite, Name: "f", Size: 3, N: 1},
		{Op: memdisk.OpWrite, Name: "f", Offset: 3, Size: 2, N: 2},
		{Op: memdisk.OpRename, Name: "g", N: 1},
	}
	if len(calls) != len(want) {
		t.Fatalf("%+v", calls)
	}
	for i := range want {
		if calls[i] != want[i] {
			t.Errorf("%+v, not %+v", calls[i], want[i])
		}
	}
	d = d.Restart(memdisk.ProcessKill, 0)
	if err := d.Rename("f", "g"); !errors.Is(err, errBroken) {
		t.Error("the hook has not passed on:", err)
	}
}

// In a bubble, a slow call takes virtual time, others go on meanwhile, and a Kill ends it.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New(memdisk.Options{})
		f := create(t, d, "f", "abc")
		d.Inject(memdisk.Rule{Ops: memdisk.OpSync, Fault: memdisk.Fault{Delay: time.Hour}})
		start := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if s, _ := content(t, d, "f"); s != "abc" || time.Since(start) != 0 {
			t.Error("a slow call holds up others")
		}
		all.Wait()
		if took := time.Since(start); took != time.Hour {
			t.Errorf("took %v", took)
		}
		start = time.Now()
		all.Go(func() {
			if err := f.Sync(); !errors.Is(err, memdisk.ErrKilled) {
				t.Error(err)
			}
		})
		time.Sleep(time.Minute)
		d.Kill()
		all.Wait()
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
		next := d.Restart(memdisk.PowerCut, 0)
		i, err := next.Stat(".")
		if err != nil || !i.ModTime.Before(start) {
			t.Error(i, err)
		}
	})
}

// RemoveAll and MkdirAll can be cut off in the middle.
func TestCrashWithinMany(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, d.MkdirAll("a/b/c"))
	if n := d.Calls(memdisk.OpMkdir | memdisk.OpSyncDir); n != 6 {
		t.Errorf("%d calls for three folders", n)
	}
	create(t, d, "a/b/f", "")
	d.CrashAt(memdisk.OpRemove, 2, memdisk.All)
	if err := d.RemoveAll("a"); !errors.Is(err, memdisk.ErrKilled) {
		t.Error(err)
	}
	d = d.Restart(memdisk.ProcessKill, 0)
	if list, err := d.List("a/b"); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	d.CrashAt(memdisk.OpMkdir, 2, memdisk.None)
	if err := d.MkdirAll("x/y/z"); !errors.Is(err, memdisk.ErrKilled) {
		t.Error(err)
	}
	d = d.Restart(memdisk.PowerCut, 0)
	if list, err := d.List("x"); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}
