package disktest

import (
	"testing"

	"golang.org/x/sys/unix"

	"timehub/hub/disk"
)

func TestDirFull(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mount("none", path, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no small file system can be mounted here:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	RunFull(t, func(t *testing.T) disk.Disk { return open(t, path) })
}
