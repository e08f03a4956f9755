package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"timehub/hub"
)

var _ Disk = (*Dir)(nil)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestNotForOthers: what is made can be read by the owner and the group only.
func TestNotForOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := open(t, path)
	if err := d.MkdirAll("x/y"); err != nil {
		t.Fatal(err)
	}
	f, err := d.Create("x/y/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unlock, err := d.Lock("lock", "me")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for _, name := range []string{"", "x", "x/y", "x/y/file", "lock"} {
		if fi, err := os.Stat(filepath.Join(path, name)); err != nil || fi.Mode().Perm()&0o027 != 0 || fi.Mode().Perm()&0o600 != 0o600 {
			t.Errorf("%q: %v, %v", name, fi.Mode(), err)
		}
	}
}

func TestOpenDirMakesParents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	d := open(t, path)
	if err := d.MkdirAll("x/y"); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(path, "x", "y")); err != nil || !fi.IsDir() {
		t.Fatal(fi, err)
	}
	open(t, path) // a second time, as it is
}

func TestOpenDirSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		kind hub.Kind
	}{
		"empty":        {"", hub.Invalid},
		"a file":       {file, hub.Invalid},
		"below a file": {filepath.Join(file, "x"), hub.Invalid},
		"too long":     {filepath.Join(dir, strings.Repeat("x", 300)), hub.Invalid},
		"NUL":          {filepath.Join(dir, "a\x00b"), hub.Invalid},
		"impossible":   {"/proc/nothing-here", hub.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OpenDir(c.path)
			if !hub.Is(err, c.kind) {
				t.Fatalf("kind %v: %v", hub.KindOf(err), err)
			}
			if !strings.Contains(err.Error(), c.path) {
				t.Errorf("does not name the path: %v", err)
			}
		})
	}
}

func TestOpenDirReadOnly(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
	} else if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, "size=1m"); err != nil {
		t.Skip("root can write to everything and may not mount:", err)
	} else {
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := OpenDir(dir); !hub.Is(err, hub.Invalid) || !strings.Contains(err.Error(), dir) {
		t.Errorf("kind %v: %v", hub.KindOf(err), err)
	}
}

func TestErrorsNameTheWholePath(t *testing.T) {
	d := open(t, t.TempDir())
	_, err := d.Open("a/b", false)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), d.Path("a/b")) {
		t.Error(err)
	}
	if !filepath.IsAbs(d.Path("a")) {
		t.Error(d.Path("a"))
	}
}

// No symbolic link leads out of the root.
func TestSymlinks(t *testing.T) {
	outside, inside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"abs": outside, "rel": "../" + filepath.Base(outside), "file": filepath.Join(outside, "secret"), "in": "real", "lost": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(inside, link)); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, inside)
	if err := d.MkdirAll("real"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"abs/secret", "rel/secret", "file"} {
		if _, err := d.Open(name, false); err == nil {
			t.Errorf("Open(%q) got out", name)
		}
		if _, err := d.Stat(name); err == nil {
			t.Errorf("Stat(%q) got out", name)
		}
		if _, err := d.Create(name + "2"); err == nil && name != "file" {
			t.Errorf("Create(%q) got out", name+"2")
		}
	}
	if err := d.RemoveAll("abs"); err != nil { // the link, not what it stands for
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "secret")); err != nil {
		t.Error(err)
	}
	f, err := d.Create("in/x") // inside, a link is as good as what it stands for
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if i, err := d.Stat("real/x"); err != nil || i.Name != "x" {
		t.Error(i, err)
	}
	list, err := d.List(".")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, i := range list {
		got[i.Name] = i.Dir
	}
	if dir, ok := got["in"]; !ok || !dir {
		t.Error("a link to a folder inside is not listed as a folder")
	}
	if dir, ok := got["lost"]; !ok || dir {
		t.Error("a dangling link is not listed as something that is no folder")
	}
}

func TestLockTakesOverAReplacedFile(t *testing.T) {
	d := open(t, t.TempDir())
	unlock, err := d.Lock("lock", "one")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(d.Path("lock")); err != nil || string(b) != "one" {
		t.Errorf("%q %v", b, err)
	}
	if err := d.Remove("lock"); err != nil { // by a careless operator
		t.Fatal(err)
	}
	second, err := d.Lock("lock", "two")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []func() error{unlock, second, second} { // twice does no harm
		if err := u(); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(d.Path("lock")); err != nil || string(b) != "" {
		t.Errorf("%q %v", b, err)
	}
}

// MkdirAll must not believe what it remembers of folders that went.
func TestMkdirAllForgets(t *testing.T) {
	d := open(t, t.TempDir())
	for _, gone := range []func() error{
		func() error { return d.RemoveAll("a") },
		func() error { return os.RemoveAll(d.Path("a")) },
		func() error { return d.Rename("a", "z") },
		func() error { return errors.Join(d.Remove("a/b"), d.Remove("a")) },
	} {
		for range 2 {
			if err := d.MkdirAll("a/b"); err != nil {
				t.Fatal(err)
			}
		}
		if i, err := d.Stat("a/b"); err != nil || !i.Dir {
			t.Fatal(i, err)
		}
		if err := gone(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range syncedLimit + 10 {
		d.remember(strings.Repeat("x", i))
	}
	if len(d.synced) > syncedLimit {
		t.Error("MkdirAll remembers too much:", len(d.synced))
	}
}

func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := &osFile{f: f, path: "/dev/full"}
	defer file.Close()
	if _, err := file.Write([]byte("x")); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "/dev/full") {
		t.Error(err)
	}
}

func TestReadAtEOFIsBare(t *testing.T) {
	d := open(t, t.TempDir())
	f, err := d.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if n, err := f.ReadAt(b, 0); n != 3 || err != io.EOF {
		t.Error(n, err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Sync(); !errors.Is(err, fs.ErrClosed) {
		t.Error("sync of a closed file:", err)
	}
	if free, err := d.Free(); err != nil || free <= 0 {
		t.Error(free, err)
	}
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a", "a/b", "/a", "a/", "a//b", "a/../b", "./a", "a\x00", "\xff", "a/.", "…"} {
		f.Add(s)
	}
	base := f.TempDir()
	f.Fuzz(func(t *testing.T, name string) {
		if CheckName("x", name, false) != nil {
			return
		}
		if p := filepath.Join(base, name); !strings.HasPrefix(p, base+"/") || p != base+"/"+name {
			t.Errorf("%q leads to %q", name, p)
		}
	})
}
