package disktest

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"timehub/hub/disk"
)

func create(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "one")
	_, err := d.Create("f")
	is(t, "Create", err, fs.ErrExist)
	content(t, d, "f", "one")
	ok(t, f.Close())
	_, err = d.Create("f")
	is(t, "Create", err, fs.ErrExist)
	content(t, d, "f", "one")
	ok(t, d.Remove("f"))
	mustCreate(t, d, "f", "two")
	content(t, d, "f", "two")
}

func createRace(t *testing.T, d disk.Disk) {
	race(t, fs.ErrExist, func(int) error {
		f, err := d.Create("f")
		if err == nil {
			err = f.Close()
		}
		return err
	})
}

// race calls try from many goroutines: one must win, the others get lost.
func race(t *testing.T, lost error, try func(i int) error) {
	t.Helper()
	errs := make([]error, 16)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = try(i) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			is(t, "a loser", err, lost)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d have won", won, len(errs))
	}
}

func openFile(t *testing.T, d disk.Disk) {
	ok(t, mustCreate(t, d, "f", "abc").Close())
	r := mustOpen(t, d, "f", false)
	if got := readAll(t, r); got != "abc" {
		t.Errorf("%q", got)
	}
	if _, err := r.Write([]byte("x")); err == nil {
		t.Error("Write without the right")
	}
	if _, err := r.WriteAt([]byte("x"), 0); err == nil {
		t.Error("WriteAt without the right")
	}
	if err := r.Truncate(0); err == nil {
		t.Error("Truncate without the right")
	}
	ok(t, r.Sync())
	content(t, d, "f", "abc")
	w := mustOpen(t, d, "f", true)
	write(t, w, "X") // from the beginning, over what is there
	if got := readAll(t, w); got != "Xbc" {
		t.Errorf("%q", got)
	}
	if got := readAll(t, r); got != "Xbc" {
		t.Errorf("another handle sees %q", got)
	}
}

func position(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "abc")
	if _, err := f.WriteAt([]byte("XY"), 6); err != nil {
		t.Fatal(err)
	}
	write(t, f, "d") // WriteAt has not moved it
	if got := readAll(t, f); got != "abcd\x00\x00XY" {
		t.Errorf("%q", got)
	}
	ok(t, f.Truncate(2))
	write(t, f, "e") // nor has Truncate
	if got := readAll(t, f); got != "ab\x00\x00e" {
		t.Errorf("%q", got)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	write(t, f, "")
	write(t, f, "f") // nor ReadAt
	if got := readAll(t, f); got != "ab\x00\x00ef" {
		t.Errorf("%q", got)
	}
	g := mustOpen(t, d, "f", true) // each handle has its own
	write(t, g, "12")
	write(t, f, "g")
	if got := readAll(t, f); got != "12\x00\x00efg" {
		t.Errorf("%q", got)
	}
	var all sync.WaitGroup // Writes at once do not overlap
	h := mustCreate(t, d, "h", "")
	for i := range 16 {
		all.Go(func() {
			if _, err := h.Write(bytes.Repeat([]byte{'a' + byte(i)}, 100)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := []byte(readAll(t, h))
	slices.Sort(got)
	if len(got) != 1600 || len(slices.Compact(got)) != 16 {
		t.Errorf("%d bytes", len(got))
	}
}

func read(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "abcdef")
	for _, c := range []struct {
		off  int64
		n    int
		want string
		eof  bool
	}{
		{0, 3, "abc", false}, {3, 3, "def", false}, {4, 3, "ef", true}, {6, 1, "", true}, {600000, 1, "", true}, {0, 0, "", false}, {0, 7, "abcdef", true},
	} {
		p := make([]byte, c.n)
		n, err := f.ReadAt(p, c.off)
		if string(p[:n]) != c.want || c.eof && err != io.EOF || !c.eof && err != nil {
			t.Errorf("%d bytes at %d: %q %v", c.n, c.off, p[:n], err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Error("ReadAt(-1):", err)
	}
	e := mustCreate(t, d, "empty", "")
	if n, err := e.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
}

func writeAt(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "")
	want := make([]byte, 20000)
	for _, w := range []struct {
		off int
		s   string
	}{{4094, "abcd"}, {0, "x"}, {19999, "z"}, {511, "yy"}, {4095, "Q"}, {8192, strings.Repeat("r", 4096)}, {12000, strings.Repeat("s", 5000)}} {
		if n, err := f.WriteAt([]byte(w.s), int64(w.off)); n != len(w.s) || err != nil {
			t.Fatal(n, err)
		}
		copy(want[w.off:], w.s)
	}
	if got := readAll(t, f); got != string(want) {
		t.Error("the file is not what was written")
	}
	if _, err := f.WriteAt([]byte("x"), -1); err == nil {
		t.Error("WriteAt(-1)")
	}
}

// What is written is visible at once, and what a reader sees never changes behind its back.
func readWhileWrite(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "")
	const records, size = 400, 100
	r := mustOpen(t, d, "f", false)
	var written sync.Mutex
	count := 0
	var all sync.WaitGroup
	for _, h := range []disk.File{f, r} {
		all.Go(func() {
			p := make([]byte, size)
			for seen := 0; seen < records; {
				written.Lock()
				n := count
				written.Unlock()
				for i := seen; i < n; i++ {
					if _, err := h.ReadAt(p, int64(i*size)); err != nil || p[0] != byte(i) || p[size-1] != byte(i) {
						t.Errorf("record %d: %d..%d %v", i, p[0], p[size-1], err)
						return
					}
				}
				seen = max(seen, n)
			}
		})
	}
	for i := range records {
		if _, err := f.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
			t.Error(err)
		}
		if i%50 == 0 {
			ok(t, f.Sync())
		}
		written.Lock()
		count++
		written.Unlock()
	}
	all.Wait()
}

func truncate(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", strings.Repeat("x", 10000))
	ok(t, f.Sync())
	for _, size := range []int64{9000, 8192, 8192, 100, 0} {
		ok(t, f.Truncate(size))
		if got := readAll(t, f); got != strings.Repeat("x", int(size)) {
			t.Errorf("wrong after a cut to %d", size)
		}
	}
	g := mustCreate(t, d, "g", "abcdef")
	ok(t, g.Truncate(3))
	ok(t, g.Truncate(8)) // grows by zeros, also where something was
	if got := readAll(t, g); got != "abc\x00\x00\x00\x00\x00" {
		t.Errorf("%q", got)
	}
	ok(t, g.Truncate(9000))
	if _, err := g.WriteAt([]byte("z"), 8999); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, g); got != "abc"+strings.Repeat("\x00", 8996)+"z" {
		t.Error("wrong after growing")
	}
	if err := g.Truncate(-1); err == nil {
		t.Error("Truncate(-1)")
	}
	ok(t, g.Sync())
}

func large(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "")
	block := make([]byte, 1<<20+7)
	for i := range block {
		block[i] = byte(i * 7 >> 3)
	}
	for range 3 {
		if n, err := f.Write(block); n != len(block) || err != nil {
			t.Fatal(n, err)
		}
	}
	ok(t, f.Sync())
	if readAll(t, f) != strings.Repeat(string(block), 3) {
		t.Error("the file is not what was written")
	}
}

func syncs(t *testing.T, d disk.Disk) {
	ok(t, d.MkdirAll("a"))
	f := mustCreate(t, d, "a/f", "")
	ok(t, f.Sync())
	write(t, f, "abc")
	ok(t, f.Sync())
	ok(t, f.Sync())
	ok(t, d.SyncDir("a"))
	ok(t, d.SyncDir("."))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			ok(t, f.Sync())
			ok(t, d.SyncDir("a"))
		})
	}
	all.Wait()
	ok(t, d.Remove("a/f"))
	write(t, f, "def") // a file without a name works on
	ok(t, f.Sync())
	if got := readAll(t, f); got != "abcdef" {
		t.Errorf("%q", got)
	}
}

func free(t *testing.T, d disk.Disk) {
	if n, err := d.Free(); err != nil || n <= 0 {
		t.Error(n, err)
	}
}

func closed(t *testing.T, d disk.Disk) {
	f := mustCreate(t, d, "f", "x")
	ok(t, f.Close())
	_, errWrite := f.Write([]byte("x"))
	_, errWriteAt := f.WriteAt([]byte("x"), 0)
	_, errRead := f.ReadAt(make([]byte, 1), 0)
	_, errSize := f.Size()
	for op, err := range map[string]error{
		"Write": errWrite, "WriteAt": errWriteAt, "ReadAt": errRead, "Size": errSize, "Sync": f.Sync(), "Truncate": f.Truncate(0), "Close": f.Close(),
	} {
		is(t, op, err, fs.ErrClosed)
	}
	content(t, d, "f", "x")
}
