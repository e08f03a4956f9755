package memdisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"timehub/e2e/memdisk"
	"timehub/hub/disk"
)

const seeds = 400

func create(t testing.TB, d disk.Disk, name, text string) disk.File {
	t.Helper()
	f, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, text)
	return f
}

func write(t testing.TB, f disk.File, text string) {
	t.Helper()
	if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is what a name holds; ok is false if there is no such name.
func content(t testing.TB, d disk.Disk, name string) (text string, ok bool) {
	t.Helper()
	f, err := d.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); err != nil || n != len(p) {
		t.Fatal(n, err)
	}
	return string(p), true
}

// outcomes calls look on the disk after a power cut of each seed, and counts what it says. Each of want must have been seen.
func outcomes(t *testing.T, d *memdisk.Disk, look func(*testing.T, *memdisk.Disk) string, want ...string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(seeds) {
		seen[look(t, d.Fork(memdisk.PowerCut, seed))]++
	}
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("never %q; seen %v", w, seen)
		}
	}
	return seen
}

func only(t *testing.T, seen map[string]int, allowed ...string) {
	t.Helper()
	for s, n := range seen {
		if !slices.Contains(allowed, s) {
			t.Errorf("%d times %.100q", n, s)
		}
	}
}

func TestSyncedIsKept(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	text := strings.Repeat("0123456789", 1000)
	f := create(t, d, "f", text)
	ok(t, f.Sync())
	ok(t, d.SyncDir("."))
	only(t, outcomes(t, d, func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		return s
	}), text)
	// What is appended to it may be lost, and harms nothing.
	write(t, f, strings.Repeat("x", 6000))
	for seed := range uint64(seeds) {
		if s, there := content(t, d.Fork(memdisk.PowerCut, seed), "f"); !there || !strings.HasPrefix(s, text) || len(s) > len(text)+6000 {
			t.Fatalf("seed %d: %d bytes", seed, len(s))
		}
	}
}

func TestAppendedIsLostKeptOrTorn(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", strings.Repeat("s", 1000))
	ok(t, f.Sync())
	ok(t, d.SyncDir("."))
	tail := strings.Repeat("x", 20000)
	write(t, f, tail)
	outcomes(t, d, func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		s = s[1000:]
		switch {
		case s == "":
			return "lost"
		case s == tail:
			return "kept"
		case strings.Trim(s, "x") == "":
			return "short"
		case strings.Trim(s, "\x00") == "":
			return "zeros"
		case strings.Trim(strings.TrimLeft(s, "x"), "\x00") == "":
			return "zeros at the end"
		case strings.Trim(s, "x\x00") == "":
			return "holes"
		}
		return "garbage"
	}, "lost", "kept", "short", "zeros", "zeros at the end", "holes", "garbage")
}

// A tail that grew by small writes can be found in any older state.
func TestTornWithinASector(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", "")
	ok(t, d.SyncDir("."))
	for i := range 40 {
		write(t, f, string(rune('a'+i%26)))
	}
	lengths := map[int]bool{}
	for seed := range uint64(2000) {
		s, _ := content(t, d.Fork(memdisk.PowerCut, seed), "f")
		lengths[len(s)] = true
	}
	for n := range 41 {
		if !lengths[n] {
			t.Errorf("never found with %d bytes", n)
		}
	}
}

func TestOverwrittenIsOldOrNew(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", strings.Repeat("o", 16384))
	ok(t, f.Sync())
	ok(t, d.SyncDir("."))
	if _, err := f.WriteAt(bytes.Repeat([]byte("n"), 8192), 4096); err != nil {
		t.Fatal(err)
	}
	outcomes(t, d, func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		if len(s) != 16384 || strings.Trim(s[:4096]+s[12288:], "o") != "" || strings.Trim(s, "on") != "" {
			t.Fatal("bytes that nobody wrote")
		}
		switch s[4096:12288] {
		case strings.Repeat("o", 8192):
			return "old"
		case strings.Repeat("n", 8192):
			return "new"
		case strings.Repeat("n", 4096) + strings.Repeat("o", 4096):
			return "first page"
		case strings.Repeat("o", 4096) + strings.Repeat("n", 4096):
			return "second page"
		}
		return "sectors"
	}, "old", "new", "first page", "second page", "sectors")
}

func TestTruncated(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", strings.Repeat("o", 9000))
	ok(t, f.Sync())
	ok(t, d.SyncDir("."))
	look := func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		return s
	}
	long := strings.Repeat("o", 9000)
	ok(t, f.Truncate(100))
	only(t, outcomes(t, d, look, long, long[:100]), long, long[:100])
	ok(t, f.Sync())
	only(t, outcomes(t, d, look), long[:100])
	ok(t, f.Truncate(9000)) // a cut that is durable does not come back
	zeros := long[:100] + strings.Repeat("\x00", 8900)
	only(t, outcomes(t, d, look, long[:100], zeros), long[:100], zeros)
}

// A cut of a torn tail and a write after it, synced together, leave nothing of the tail.
func TestTruncateWriteSync(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", strings.Repeat("o", 9000))
	ok(t, f.Sync())
	ok(t, d.SyncDir("."))
	ok(t, f.Truncate(100))
	if _, err := f.WriteAt([]byte("new"), 5000); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("o", 100) + strings.Repeat("\x00", 4900) + "new"
	if s, _ := content(t, d, "f"); s != want {
		t.Fatal("the old tail shows")
	}
	ok(t, f.Sync())
	only(t, outcomes(t, d, func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		return s
	}), want)
}

func TestNewNames(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", "x")
	ok(t, f.Sync()) // the content only
	look := func(t *testing.T, d *memdisk.Disk) string {
		s, there := content(t, d, "f")
		if !there {
			return "none"
		}
		return s
	}
	only(t, outcomes(t, d, look, "none", "x"), "none", "x")
	ok(t, d.SyncDir("."))
	only(t, outcomes(t, d, look), "x")
	ok(t, d.Remove("f"))
	only(t, outcomes(t, d, look, "none", "x"), "none", "x")
	ok(t, d.SyncDir("."))
	only(t, outcomes(t, d, look), "none")
}

func TestRename(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, create(t, d, "f", "old").Sync())
	ok(t, d.SyncDir("."))
	tmp := create(t, d, "tmp", "new")
	look := func(t *testing.T, d *memdisk.Disk) string {
		s, there := content(t, d, "f")
		if !there {
			return "none"
		}
		if _, both := content(t, d, "tmp"); both && s != "old" {
			t.Error("a rename half done")
		}
		return s
	}
	ok(t, d.Rename("tmp", "f"))
	// The new name without its content is what a careless program finds.
	seen := outcomes(t, d, look, "old", "new", "")
	if seen["none"] > 0 {
		t.Error("neither the old file nor the new one")
	}
	ok(t, tmp.Sync())
	only(t, outcomes(t, d, look, "old", "new"), "old", "new")
	ok(t, d.SyncDir("."))
	only(t, outcomes(t, d, look), "new")
}

func TestRenameAcrossFolders(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, d.MkdirAll("a"))
	ok(t, d.MkdirAll("b"))
	ok(t, create(t, d, "a/f", "x").Sync())
	ok(t, d.SyncDir("a"))
	ok(t, d.Rename("a/f", "b/g"))
	look := func(t *testing.T, d *memdisk.Disk) string {
		_, a := content(t, d, "a/f")
		_, b := content(t, d, "b/g")
		return fmt.Sprint(a, b)
	}
	only(t, outcomes(t, d, look, "true false", "false true"), "true false", "false true")
	ok(t, d.SyncDir("a")) // is not the folder of the new name
	only(t, outcomes(t, d, look, "true false", "false true"), "true false", "false true")
	ok(t, create(t, d, "a/f", "y").Sync()) // but what builds on the rename takes it along: x must not be lost
	ok(t, d.SyncDir("a"))
	only(t, outcomes(t, d, look), "true true")
}

func TestLink(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, create(t, d, "tmp", "x").Sync())
	ok(t, d.Link("tmp", "f"))
	ok(t, d.Remove("tmp"))
	ok(t, d.SyncDir("."))
	next := d.Restart(memdisk.PowerCut, 1)
	if s, _ := content(t, next, "f"); s != "x" {
		t.Errorf("%q\n%s", s, next.Dump())
	}
	ok(t, next.Link("f", "g"))
	ok(t, next.SyncDir("."))
	last := next.Restart(memdisk.PowerCut, 2)
	f, err := last.Open("f", true)
	ok(t, err)
	write(t, f, "y")
	if s, _ := content(t, last, "g"); s != "y" {
		t.Error("the two names are not one file any more")
	}
}

// A file and its folder that were synced are lost with the name of the folder.
func TestFolderNames(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	ok(t, d.MkdirAll("a"))
	ok(t, create(t, d, "a/f", "x").Sync())
	ok(t, d.SyncDir("a"))
	look := func(t *testing.T, d *memdisk.Disk) string {
		a, _ := content(t, d, "a/f")
		b, _ := content(t, d, "b/f")
		return a + "," + b
	}
	only(t, outcomes(t, d, look), "x,")
	ok(t, d.Rename("a", "b"))
	only(t, outcomes(t, d, look, "x,", ",x"), "x,", ",x")
	d.CrashAt(memdisk.OpSyncDir, 1, memdisk.None)
	if err := d.MkdirAll("c"); !errors.Is(err, memdisk.ErrKilled) {
		t.Fatal(err)
	}
	// The process dies between making a folder and syncing its parent. The next one makes the name durable by asking for the folder.
	next := d.Restart(memdisk.ProcessKill, 0)
	if _, err := next.Stat("c"); err != nil {
		t.Fatal(err)
	}
	isThere := func(t *testing.T, d *memdisk.Disk) string {
		_, err := d.Stat("c")
		return fmt.Sprint(err == nil)
	}
	outcomes(t, next, isThere, "true", "false")
	ok(t, next.MkdirAll("c"))
	only(t, outcomes(t, next, isThere), "true")
}

func TestProcessKill(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	create(t, d, "f", "abc")
	create(t, d, "gone", "")
	ok(t, d.SyncDir("."))
	ok(t, d.Remove("gone"))
	_, err := d.Lock("lock", "pid 1")
	ok(t, err)
	next := d.Restart(memdisk.ProcessKill, 0)
	if s, _ := content(t, next, "f"); s != "abc" {
		t.Errorf("%q: the page cache is lost", s)
	}
	if _, there := content(t, next, "gone"); there {
		t.Error("a removed file is back")
	}
	if s, _ := content(t, next, "lock"); s != "pid 1" {
		t.Errorf("the note is %q", s)
	}
	unlock, err := next.Lock("lock", "pid 2")
	ok(t, err)
	ok(t, unlock())
	// It is not durable for that: a power cut after it still takes it.
	outcomes(t, next, func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		_, there := content(t, d, "gone")
		return fmt.Sprint(s, there)
	}, "abcfalse", "abctrue", "false", "true")
	f, err := next.Open("f", true)
	ok(t, err)
	ok(t, f.Sync()) // recovery syncs what it found
	outcomes(t, next, func(t *testing.T, d *memdisk.Disk) string {
		s, _ := content(t, d, "f")
		return s
	}, "abc")
}

func TestForkLeavesTheDiskAlone(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	f := create(t, d, "f", strings.Repeat("a", 5000))
	before := d.Dump()
	one, two := d.Fork(memdisk.PowerCut, 3), d.Fork(memdisk.ProcessKill, 3)
	if d.Dump() != before {
		t.Error("Fork changes the disk")
	}
	g, err := two.Open("f", true)
	ok(t, err)
	write(t, g, "TWO")
	write(t, f, "b")
	if _, err := f.WriteAt([]byte("ONE"), 0); err != nil {
		t.Fatal(err)
	}
	if s, _ := content(t, two, "f"); s != "TWO"+strings.Repeat("a", 4997) {
		t.Error("the fork sees writes to the original")
	}
	if s, _ := content(t, d, "f"); s != "ONE"+strings.Repeat("a", 4997)+"b" {
		t.Error("the original sees writes to the fork")
	}
	if one.Dump() == two.Dump() {
		t.Error("a power cut is no process kill")
	}
}

func TestSameSeedSameDisk(t *testing.T) {
	build := func() *memdisk.Disk {
		d := memdisk.New(memdisk.Options{Seed: 7})
		d.Inject(memdisk.Rule{Ops: memdisk.OpWrite | memdisk.OpSync, Skip: 3, Fault: memdisk.Fault{Err: errBroken, Effect: memdisk.Part}})
		for i := range 20 {
			f, err := d.Create(fmt.Sprint(i))
			ok(t, err)
			_, _ = f.Write(bytes.Repeat([]byte{byte(i)}, 3000*i))
			_ = f.Sync()
			_, _ = f.Write(bytes.Repeat([]byte{byte(i)}, 100*i))
		}
		return d
	}
	one, two := build(), build()
	dump := func(d *memdisk.Disk) string {
		s := d.Dump()
		for i := range 20 {
			text, _ := content(t, d, fmt.Sprint(i))
			s += text
		}
		return s
	}
	differ := false
	for seed := range uint64(50) {
		a := dump(one.Restart(memdisk.PowerCut, seed))
		if a != dump(two.Restart(memdisk.PowerCut, seed)) {
			t.Fatal("the same seed gives another disk")
		}
		differ = differ || a != dump(one.Restart(memdisk.PowerCut, seed+1))
	}
	if !differ {
		t.Error("all seeds give the same disk")
	}
}

// The classic way to replace a file: at whatever call the process or the power ends, the file is the old or the new one, and the new one if it was said so.
func TestEveryCrashPoint(t *testing.T) {
	replace := func(d disk.Disk, text string, sync bool) error {
		f, err := d.Create("d/tmp")
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte(text)); err != nil {
			return err
		}
		if sync {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := d.Rename("d/tmp", "d/f"); err != nil {
			return err
		}
		return d.SyncDir("d")
	}
	old, new := strings.Repeat("old", 500), strings.Repeat("new", 3000)
	run := func(sync bool) (points int, broken int) {
		for _, effect := range []memdisk.Effect{memdisk.None, memdisk.All, memdisk.Part} {
			for k := 1; ; k++ {
				d := memdisk.New(memdisk.Options{Seed: uint64(k)})
				ok(t, d.MkdirAll("d"))
				ok(t, replace(d, old, true))
				d.CrashAt(memdisk.Any, k, effect)
				err := replace(d, new, sync)
				if err != nil && !errors.Is(err, memdisk.ErrKilled) {
					t.Fatal(err)
				}
				for seed := range uint64(40) {
					s, _ := content(t, d.Fork(memdisk.PowerCut, seed), "d/f")
					if s != new && (s != old || err == nil) {
						broken++
					}
				}
				if s, _ := content(t, d.Fork(memdisk.ProcessKill, 0), "d/f"); s != old && s != new {
					t.Errorf("process kill at %d: %d bytes", k, len(s))
				}
				if err == nil {
					break // fewer than k calls: all points are through
				}
				points++
			}
		}
		return points, broken
	}
	if points, broken := run(true); points != 3*6 || broken > 0 {
		t.Errorf("%d crash points, %d times the file is neither old nor new", points, broken)
	}
	if _, broken := run(false); broken == 0 {
		t.Error("a replacement that forgets to sync goes unpunished")
	}
}
