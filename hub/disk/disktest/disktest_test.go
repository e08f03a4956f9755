package disktest

import (
	"os"
	"testing"

	"timehub/hub/disk"
)

func TestDir(t *testing.T) {
	Run(t, func(t *testing.T) disk.Disk { return open(t, t.TempDir()) })
}

func open(t *testing.T, path string) disk.Disk {
	d, err := disk.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// The note of a lock and the lock itself are seen by another Dir of the same folder, as another process would have it.
func TestLockOfTwoDirs(t *testing.T) {
	path := t.TempDir()
	one, two := open(t, path), open(t, path)
	unlock, err := one.Lock("lock", "pid 1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Lock("lock", "pid 2")
	is(t, "the second", err, disk.ErrLocked)
	content(t, two, "lock", "pid 1")
	ok(t, unlock())
	unlock, err = two.Lock("lock", "pid 2")
	ok(t, err)
	ok(t, unlock())
	if b, err := os.ReadFile(one.Path("lock")); err != nil || len(b) != 0 {
		t.Errorf("%q %v", b, err)
	}
}
