// Package disktest is the acceptance suite of disk.Disk: an implementation is finished when Run passes. It tests what every disk promises while nothing
// goes wrong: names and their limits, exclusive creation, renames, links, listing, locks, reads during writes, positions, lengths, and the identity of
// errors and files. What survives a crash is not visible from here; e2e/memdisk tests that of itself, and real disks are tested by cutting their power.
package disktest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"timehub/hub/disk"
)

// Run runs the suite. open returns an empty disk each time; it sees to the cleaning up by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) disk.Disk) {
	for _, c := range []struct {
		name string
		test func(*testing.T, disk.Disk)
	}{
		{"bad names", badNames},
		{"good names", goodNames},
		{"the root is a folder", root},
		{"not there", notThere},
		{"below a file is nothing", belowFile},
		{"folders are no files", folders},
		{"create is exclusive", create},
		{"create is exclusive among many", createRace},
		{"open", openFile},
		{"position", position},
		{"read", read},
		{"write at", writeAt},
		{"read while write", readWhileWrite},
		{"truncate", truncate},
		{"large file", large},
		{"sync", syncs},
		{"rename", rename},
		{"rename over an open file", renameOpen},
		{"rename folders", renameFolders},
		{"link", link},
		{"link is exclusive among many", linkRace},
		{"remove", remove},
		{"remove all", removeAll},
		{"mkdir all", mkdirAll},
		{"list", list},
		{"stat and identity", identity},
		{"lock", lock},
		{"lock note", lockNote},
		{"lock is exclusive among many", lockRace},
		{"free", free},
		{"closed", closed},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// RunFull tests what happens when the space ends. open returns an empty disk with room for at least 64 KiB and at most 64 MiB.
func RunFull(t *testing.T, open func(t *testing.T) disk.Disk) {
	d := open(t)
	keep := mustCreate(t, d, "keep", "before")
	before, err := d.Free()
	ok(t, err)

	f := mustCreate(t, d, "f", "")
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096) // 64 KiB
	var written int64
	for {
		n, err := f.Write(block)
		written += int64(n)
		if err == nil && n == len(block) {
			if written > 64<<20 {
				t.Fatal("the disk does not fill")
			}
			continue
		}
		if err == nil {
			t.Fatalf("wrote %d of %d without an error", n, len(block))
		}
		is(t, "a write to a full disk", err, disk.ErrFull)
		break
	}
	if size, err := f.Size(); err != nil || size != written {
		t.Errorf("size %d (%v) after %d bytes were written", size, err, written)
	}
	got := make([]byte, written)
	if _, err := f.ReadAt(got, 0); err != nil && err != io.EOF {
		t.Error(err)
	}
	for i, b := range got {
		if b != block[i%len(block)] {
			t.Fatalf("byte %d is wrong", i)
		}
	}
	if left, err := d.Free(); err != nil || left >= before || left > 64<<10 {
		t.Errorf("free: %d of %d (%v)", left, before, err)
	}
	content(t, d, "keep", "before")
	ok(t, keep.Sync())
	unlock, err := d.Lock("lock", "me") // a node has to start on a full disk
	if err != nil {
		t.Log("no lock on a full disk:", err)
		is(t, "a lock on a full disk", err, disk.ErrFull)
	} else {
		ok(t, unlock())
	}

	ok(t, f.Close())
	ok(t, d.Remove("f"))
	if left, err := d.Free(); err != nil || left < before-64<<10 {
		t.Errorf("after a remove, free: %d of %d (%v)", left, before, err)
	}
	g := mustCreate(t, d, "g", "")
	if n, err := g.Write(block[:len(block)/2]); err != nil {
		t.Errorf("a write after space was made: %d %v", n, err)
	}
}

func mustCreate(t *testing.T, d disk.Disk, name, text string) disk.File {
	t.Helper()
	f, err := d.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	write(t, f, text)
	return f
}

func mustOpen(t *testing.T, d disk.Disk, name string, write bool) disk.File {
	t.Helper()
	f, err := d.Open(name, write)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func write(t *testing.T, f disk.File, text string) {
	t.Helper()
	if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
}

func readAll(t *testing.T, f disk.File) string {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Error(err)
		return ""
	}
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); err != nil || n != len(p) {
		t.Errorf("read %d of %d: %v", n, size, err)
	}
	return string(p)
}

func content(t *testing.T, d disk.Disk, name, want string) {
	t.Helper()
	f, err := d.Open(name, false)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if got := readAll(t, f); got != want {
		t.Errorf("%s holds %.100q, not %.100q", name, got, want)
	}
}

// names checks the entries of a folder; those of folders end with "/".
func names(t *testing.T, d disk.Disk, dir string, want ...string) {
	t.Helper()
	all, err := d.List(dir)
	if err != nil {
		t.Error(err)
		return
	}
	var got []string
	for _, i := range all {
		if i.Dir {
			i.Name += "/"
		}
		got = append(got, i.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, not %q", dir, got, want)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, not %v", what, err, want)
	}
}
