package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"timehub/hub/disk"
)

func badNames(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("a"))
	mustCreate(t, d, "f", "x")
	for _, name := range []string{
		"", "..", "../x", "a/..", "a/../f", "a/../../x", "/", "/etc/passwd", "a/", "a//b", "./f", "a/./b", "f/.", "a\x00b", "\x00", "a/\xff", "//f",
	} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			for op, err := range everyCall(d, name) {
				is(t, op, err, fs.ErrInvalid)
			}
		})
	}
	for _, op := range []string{"Create", "Open", "Rename from", "Rename to", "Link from", "Link to", "Remove", "RemoveAll", "Lock"} {
		is(t, op+" of the root", everyCall(d, ".")[op], fs.ErrInvalid)
	}
	names(t, d, ".", "a/", "f")
}

// everyCall makes every call that takes a name.
func everyCall(d disk.Disk, name string) map[string]error {
	errs := map[string]error{}
	_, errs["Create"] = d.Create(name)
	_, errs["Open"] = d.Open(name, true)
	errs["Rename from"] = d.Rename(name, "new")
	errs["Rename to"] = d.Rename("f", name)
	errs["Link from"] = d.Link(name, "new")
	errs["Link to"] = d.Link("f", name)
	errs["Remove"] = d.Remove(name)
	errs["RemoveAll"] = d.RemoveAll(name)
	_, errs["Lock"] = d.Lock(name, "")
	if name != "." {
		errs["MkdirAll"] = d.MkdirAll(name)
		errs["SyncDir"] = d.SyncDir(name)
		_, errs["List"] = d.List(name)
		_, errs["Stat"] = d.Stat(name)
	}
	return errs
}

func goodNames(t *testing.T, d disk.Disk) {
	for _, name := range []string{"a", "...", "..a", "a..", ".hidden", "a b", `a\b`, "ü", "世界", "a\nb", "-", "~", "*?[", strings.Repeat("x", 255)} {
		mustCreate(t, d, name, name)
		content(t, d, name, name)
		if i, err := d.Stat(name); err != nil || i.Name != name {
			t.Errorf("Stat(%q) = %+v %v", name, i, err)
		}
	}
	if _, err := d.Create(strings.Repeat("x", 256)); err == nil {
		t.Error("a name of 256 bytes was taken")
	}
	mustCreate(t, d, "B", "1") // names that differ in case differ
	mustCreate(t, d, "b", "2")
	content(t, d, "B", "1")
}

func root(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("."))
	ok(t, d.SyncDir("."))
	names(t, d, ".")
	if i, err := d.Stat("."); err != nil || !i.Dir {
		t.Errorf("Stat(.) = %+v %v", i, err)
	}
}

func notThere(t *testing.T, d disk.Disk) {
	mustCreate(t, d, "f", "x")
	_, err := d.Create("x/y")
	is(t, "Create", err, fs.ErrNotExist)
	_, err = d.Lock("x/y", "")
	is(t, "Lock", err, fs.ErrNotExist)
	ok(t, d.RemoveAll("x"))
	ok(t, d.RemoveAll("x/y"))
	for _, name := range []string{"x", "x/y"} {
		_, err = d.Open(name, false)
		is(t, "Open", err, fs.ErrNotExist)
		_, err = d.Open(name, true)
		is(t, "Open", err, fs.ErrNotExist)
		_, err = d.List(name)
		is(t, "List", err, fs.ErrNotExist)
		_, err = d.Stat(name)
		is(t, "Stat", err, fs.ErrNotExist)
		is(t, "SyncDir", d.SyncDir(name), fs.ErrNotExist)
		is(t, "Remove", d.Remove(name), fs.ErrNotExist)
		is(t, "Rename", d.Rename(name, "new"), fs.ErrNotExist)
		is(t, "Link", d.Link(name, "new"), fs.ErrNotExist)
	}
	names(t, d, ".", "f")
}

func belowFile(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "x")
	defer f.Close()
	mustCreate(t, d, "g", "y")
	_, err := d.Open("f/x", false)
	is(t, "Open", err, fs.ErrNotExist)
	_, err = d.Stat("f/x")
	is(t, "Stat", err, fs.ErrNotExist)
	_, err = d.List("f/x")
	is(t, "List", err, fs.ErrNotExist)
	is(t, "SyncDir", d.SyncDir("f/x"), fs.ErrNotExist)
	is(t, "Remove", d.Remove("f/x"), fs.ErrNotExist)
	is(t, "Rename from", d.Rename("f/x", "z"), fs.ErrNotExist)
	is(t, "Link from", d.Link("f/x", "z"), fs.ErrNotExist)
	ok(t, d.RemoveAll("f/x"))
	_, createErr := d.Create("f/x")
	_, lockErr := d.Lock("f/x", "")
	_, listErr := d.List("f")
	for op, err := range map[string]error{
		"Create": createErr, "Lock": lockErr, "MkdirAll": d.MkdirAll("f/x"), "MkdirAll of a file": d.MkdirAll("f"),
		"List of a file": listErr, "SyncDir of a file": d.SyncDir("f"), "Rename to": d.Rename("g", "f/x"), "Link to": d.Link("g", "f/x"),
	} {
		// Not "does not exist": making the folder and trying again would not help.
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrLocked) {
			t.Errorf("%s: %v", op, err)
		}
	}
	names(t, d, ".", "f", "g")
}

func folders(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("a/b"))
	mustCreate(t, d, "f", "x")
	_, err := d.Create("a")
	is(t, "Create", err, fs.ErrExist)
	for _, write := range []bool{false, true} {
		if _, err := d.Open("a", write); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of a folder: %v", err)
		}
	}
	is(t, "Link to", d.Link("f", "a"), fs.ErrExist)
	for op, err := range map[string]error{
		"Rename of a file over a folder": d.Rename("f", "a"), "Link of a folder": d.Link("a", "z"), "Remove of a full folder": d.Remove("a"),
		"Rename of a folder over a file": d.Rename("a", "f"),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if _, err := d.Lock("a", ""); err == nil || errors.Is(err, disk.ErrLocked) {
		t.Errorf("Lock of a folder: %v", err)
	}
	names(t, d, ".", "a/", "f")
}

func rename(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("a"))
	mustCreate(t, d, "x", "1")
	mustCreate(t, d, "y", "2")
	ok(t, d.Rename("x", "y"))
	content(t, d, "y", "1")
	names(t, d, ".", "a/", "y")
	ok(t, d.Rename("y", "a/z"))
	content(t, d, "a/z", "1")
	ok(t, d.Rename("a/z", "a/z"))
	content(t, d, "a/z", "1")
	names(t, d, ".", "a/")
	is(t, "Rename into nowhere", d.Rename("a/z", "b/z"), fs.ErrNotExist)
	content(t, d, "a/z", "1")
	// A reader never finds the name without a file while files are renamed over it.
	mustCreate(t, d, "v", "v00")
	var all sync.WaitGroup
	done := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			f, err := d.Open("v", false)
			if err != nil {
				t.Error(err)
				return
			}
			if got := readAll(t, f); len(got) != 3 {
				t.Errorf("%q", got)
			}
			ok(t, f.Close())
		}
	})
	for i := range 50 {
		ok(t, mustCreate(t, d, "tmp", fmt.Sprintf("v%02d", i)).Close())
		ok(t, d.Rename("tmp", "v"))
	}
	close(done)
	all.Wait()
}

func renameOpen(t *testing.T, d disk.Disk) {
	old := mustCreate(t, d, "f", "old")
	fresh := mustCreate(t, d, "tmp", "new")
	ok(t, d.Rename("tmp", "f"))
	if got := readAll(t, old); got != "old" {
		t.Errorf("the file that was replaced reads %q", got)
	}
	write(t, fresh, "er") // the handle goes with its file
	content(t, d, "f", "newer")
	ok(t, d.Remove("f"))
	if got := readAll(t, fresh); got != "newer" {
		t.Errorf("%q", got)
	}
}

func renameFolders(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("a/b"))
	ok(t, d.MkdirAll("empty"))
	ok(t, d.MkdirAll("full"))
	f := mustCreate(t, d, "a/b/f", "x")
	mustCreate(t, d, "full/g", "y")
	if err := d.Rename("a", "full"); err == nil {
		t.Error("Rename over a full folder")
	}
	if err := d.Rename("a", "a/b/c"); err == nil {
		t.Error("Rename into itself")
	}
	ok(t, d.Rename("a", "c"))
	content(t, d, "c/b/f", "x")
	write(t, f, "z")
	content(t, d, "c/b/f", "xz")
	names(t, d, ".", "c/", "empty/", "full/")
	ok(t, d.MkdirAll("a/b")) // anew, and empty
	names(t, d, "a/b")
}

func link(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "x", "1")
	ok(t, d.MkdirAll("a"))
	ok(t, d.Link("x", "a/y"))
	content(t, d, "a/y", "1")
	write(t, f, "2")
	content(t, d, "a/y", "12")
	is(t, "Link", d.Link("x", "a/y"), fs.ErrExist)
	is(t, "Link", d.Link("x", "x"), fs.ErrExist)
	is(t, "Link", d.Link("x", "b/y"), fs.ErrNotExist)
	ok(t, d.Remove("x"))
	content(t, d, "a/y", "12")
	names(t, d, ".", "a/")
}

func linkRace(t *testing.T, d disk.Disk) {
	for i := range 16 {
		mustCreate(t, d, fmt.Sprintf("tmp%d", i), fmt.Sprint(i))
	}
	race(t, fs.ErrExist, func(i int) error { return d.Link(fmt.Sprintf("tmp%d", i), "f") })
}

func remove(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("a/b"))
	f := mustCreate(t, d, "a/b/f", "x")
	if err := d.Remove("a/b"); err == nil {
		t.Error("Remove of a full folder")
	}
	ok(t, d.Remove("a/b/f"))
	if got := readAll(t, f); got != "x" {
		t.Errorf("an open file that was removed reads %q", got)
	}
	is(t, "Remove", d.Remove("a/b/f"), fs.ErrNotExist)
	ok(t, d.Remove("a/b"))
	ok(t, d.Remove("a"))
	names(t, d, ".")
}

func removeAll(t *testing.T, d disk.Disk) {
	for i := range 5 {
		ok(t, d.MkdirAll(fmt.Sprintf("a/%d/x", i)))
		mustCreate(t, d, fmt.Sprintf("a/%d/f", i), "x")
	}
	mustCreate(t, d, "ab", "x")
	ok(t, d.RemoveAll("a"))
	ok(t, d.RemoveAll("a"))
	ok(t, d.RemoveAll("a/b"))
	names(t, d, ".", "ab")
	ok(t, d.RemoveAll("ab"))
	names(t, d, ".")
}

func mkdirAll(t *testing.T, d disk.Disk) {
	for range 2 {
		ok(t, d.MkdirAll("a/b/c"))
		ok(t, d.MkdirAll("a/b"))
		ok(t, d.MkdirAll("a"))
		ok(t, d.MkdirAll("a/b/d"))
		names(t, d, "a/b", "c/", "d/")
		ok(t, d.RemoveAll("a"))
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { ok(t, d.MkdirAll(fmt.Sprintf("x/y/z%d", i%2))) })
	}
	all.Wait()
	names(t, d, "x/y", "z0/", "z1/")
}

func list(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("d"))
	for _, n := range []string{"b", "a", "B", "a.b", "a-b", "ab", "10", "9", "ü", "z"} {
		mustCreate(t, d, "d/"+n, n)
	}
	ok(t, d.MkdirAll("d/a0/x"))
	names(t, d, "d", "10", "9", "B", "a", "a-b", "a.b", "a0/", "ab", "b", "z", "ü")
	all, err := d.List("d")
	ok(t, err)
	for _, i := range all {
		s, err := d.Stat("d/" + i.Name)
		if err != nil || s.Name != i.Name || s.Dir != i.Dir || s.ID != i.ID || !s.ModTime.Equal(i.ModTime) || s.Size != i.Size {
			t.Errorf("List says %+v, Stat %+v %v", i, s, err)
		}
		if !i.Dir && i.Size != int64(len(i.Name)) {
			t.Errorf("%+v", i)
		}
		if i.ModTime.IsZero() {
			t.Errorf("%+v", i)
		}
	}
	for i := range 1500 { // more than one system call gives
		ok(t, mustCreate(t, d, fmt.Sprintf("d/a0/%04d", i), "").Close())
	}
	all, err = d.List("d/a0")
	if err != nil || len(all) != 1501 || !slices.IsSortedFunc(all, func(a, b disk.Info) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d entries %v", len(all), err)
	}
}

func identity(t *testing.T, d disk.Disk) {
	ids := map[uint64]int{}
	see := func(i int) {
		info, err := d.Stat("f")
		if err != nil {
			t.Fatal(err)
		}
		if again, err := d.Stat("f"); err != nil || again.ID != info.ID {
			t.Errorf("a second look says %d, not %d (%v)", again.ID, info.ID, err)
		}
		if before, seen := ids[info.ID]; seen && before == i-1 {
			t.Errorf("file %d has the identity of the one before", i)
		}
		ids[info.ID] = i
	}
	ok(t, mustCreate(t, d, "f", "x").Close())
	see(0)
	for i := 1; i < 20; i++ {
		ok(t, mustCreate(t, d, "tmp", "x").Close()) // the same content and length
		ok(t, d.Rename("tmp", "f"))
		see(i)
	}
	i, err := d.Stat("f")
	if err != nil || i.Size != 1 || i.Dir || i.Name != "f" {
		t.Errorf("%+v %v", i, err)
	}
}

func lock(t *testing.T, d disk.Disk) {
	unlock, err := d.Lock("lock", "first")
	ok(t, err)
	_, err = d.Lock("lock", "second")
	is(t, "a second Lock", err, disk.ErrLocked)
	other, err := d.Lock("other", "")
	ok(t, err)
	_, err = d.Lock("other", "")
	is(t, "a second Lock without notes", err, disk.ErrLocked)
	ok(t, unlock())
	unlock, err = d.Lock("lock", "third")
	ok(t, err)
	ok(t, unlock())
	ok(t, unlock()) // again is nothing
	ok(t, other())
	names(t, d, ".", "lock", "other")
}

func lockNote(t *testing.T, d disk.Disk) {
	for _, note := range []string{"a long note about the first holder, pid 4711", "pid 1"} {
		unlock, err := d.Lock("lock", note)
		ok(t, err)
		content(t, d, "lock", note)
		_, err = d.Lock("lock", "x")
		if err == nil || !strings.Contains(err.Error(), note) {
			t.Errorf("the error does not hold the note: %v", err)
		}
		content(t, d, "lock", note)
		ok(t, unlock())
	}
	unlock, err := d.Lock("lock", "pid 2") // a shorter note leaves nothing of a longer one
	ok(t, err)
	if _, err = d.Lock("lock", "x"); err == nil || strings.Contains(err.Error(), "4711") {
		t.Error(err)
	}
	ok(t, unlock())
}

func lockRace(t *testing.T, d disk.Disk) {
	race(t, disk.ErrLocked, func(i int) error {
		unlock, err := d.Lock("lock", fmt.Sprint(i))
		if err == nil {
			t.Cleanup(func() { _ = unlock() }) // after the others have tried
		}
		return err
	})
}
