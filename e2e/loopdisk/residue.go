package loopdisk

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prefix begins the name of each folder; the process that made it follows.
const prefix = "hub-loopdisk-"

// sweep removes what processes have left that are gone: a test that runs into its time-out, or is killed, cleans nothing.
func sweep() {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && orphan(filepath.Dir(fields[1])) {
			_ = unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		if orphan(dir) {
			_ = os.RemoveAll(dir)
		}
	}
}

// orphan reports whether a folder was made by a process that is gone.
func orphan(dir string) bool {
	rest, ours := strings.CutPrefix(filepath.Base(dir), prefix)
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ours && err == nil && unix.Kill(pid, 0) == unix.ESRCH
}

// usersOf finds the processes, but this one, that have files open on disks.
func usersOf(disks []*Disk) (pids []int, err error) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		files, err := filepath.Glob(filepath.Join("/proc", e.Name(), "fd", "*"))
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			if on(name, disks) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}

// on reports whether an open file lies on one of the disks.
func on(file string, disks []*Disk) bool {
	to, err := os.Readlink(file)
	if err != nil {
		return false // closed meanwhile
	}
	for _, d := range disks {
		if to == d.Dir || strings.HasPrefix(to, d.Dir+"/") {
			return true
		}
	}
	return false
}

func ioctlPointer(f *os.File, request uint, value *int32) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(value)))
	if errno != 0 {
		return errno
	}
	return nil
}
