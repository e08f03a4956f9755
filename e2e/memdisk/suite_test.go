package memdisk_test

import (
	"testing"

	"timehub/e2e/memdisk"
	"timehub/hub/disk"
	"timehub/hub/disk/disktest"
)

func TestSuite(t *testing.T) {
	disktest.Run(t, func(*testing.T) disk.Disk { return memdisk.New(memdisk.Options{}) })
}

func TestSuiteFull(t *testing.T) {
	disktest.RunFull(t, func(*testing.T) disk.Disk { return memdisk.New(memdisk.Options{Capacity: 1 << 20}) })
}

// A generation after a restart is as good a disk as the first.
func TestSuiteAfterRestart(t *testing.T) {
	for _, how := range []memdisk.Death{memdisk.PowerCut, memdisk.ProcessKill} {
		t.Run(how.String(), func(t *testing.T) {
			disktest.Run(t, func(*testing.T) disk.Disk { return memdisk.New(memdisk.Options{}).Restart(how, 1) })
		})
	}
}
