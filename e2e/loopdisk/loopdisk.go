// Package loopdisk gives real processes disks that fail: file systems of their own in a file, whose power can be cut and which can be full, and syncs
// that fail or are slow (syncs.go). It needs root, Linux, and the commands mkfs.ext4 and strace, which `make needs` installs.
//
// What a power cut loses here is what the kernel had not handed to the disk yet: pages and journal that nobody has synced. A disk that forgets what it
// was given, or tears a block, is e2e/memdisk's.
//
// Everything is unmounted and removed when the test ends. What a test process left behind that was killed is removed by the next one.
package loopdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shutdown  = 0x8004587D // EXT4_IOC_SHUTDOWN
	noFlush   = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: the journal is not written out first
	majorLoop = 7
)

// Options are for New.
type Options struct {
	Bytes int64 // of the file system; the file is sparse. 0: 1 GiB. A hub refuses inserts below 256 MiB free
	Tmpfs bool  // a file system in memory: fast and of exactly this size, but what it holds is gone with the power
}

// Disk is a file system of its own. Its methods are for one goroutine at a time.
type Disk struct {
	Dir string // where it is mounted

	opt     Options
	base    string
	image   string
	mounted bool
	filler  string
}

// New makes a file system and mounts it, until the test ends. Without root, or where loop devices cannot be made, the test fails.
func New(t testing.TB, opt Options) *Disk {
	t.Helper()
	if opt.Bytes == 0 {
		opt.Bytes = 1 << 30
	}
	sweep()
	base, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{opt: opt, base: base, image: filepath.Join(base, "image"), Dir: filepath.Join(base, "mnt"), filler: filepath.Join(base, "mnt", "filler")}
	t.Cleanup(func() {
		if err := errors.Join(d.Unmount(), os.RemoveAll(base)); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(d.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if !opt.Tmpfs {
		if err := d.format(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Mount(); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *Disk) format() error {
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(d.opt.Bytes), f.Close()); err != nil {
		return err
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs, err = exec.LookPath("/sbin/mkfs.ext4") // not in everybody's PATH
	}
	if err != nil {
		return errors.New("mkfs.ext4 is missing: make needs")
	}
	out, err := exec.Command(mkfs, "-q", "-F", "-m", "0", "-b", "4096", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", d.image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a file system: %w: %s", err, out)
	}
	return nil
}

// Mount mounts the file system. After a power cut the kernel replays its journal, as after a real one.
func (d *Disk) Mount() error {
	var err error
	if d.opt.Tmpfs {
		err = unix.Mount("tmpfs", d.Dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", d.opt.Bytes))
	} else {
		err = d.mountLoop()
	}
	if err != nil {
		return fmt.Errorf("no file system of one's own can be mounted here (it needs root, CAP_SYS_ADMIN and loop devices): %w", err)
	}
	d.mounted = true
	return nil
}

func (d *Disk) mountLoop() error {
	device, err := attach(d.image)
	if err != nil {
		return err
	}
	defer device.Close() // the mount keeps it; when that ends the kernel frees the device
	return unix.Mount(device.Name(), d.Dir, "ext4", 0, "")
}

// Unmount waits a moment for those who still use it. Nil if it is not mounted.
func (d *Disk) Unmount() error {
	if !d.mounted {
		return nil
	}
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = unix.Unmount(d.Dir, 0); err != unix.EBUSY {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("unmount %s: %w", d.Dir, errors.Join(err, unix.Unmount(d.Dir, unix.MNT_DETACH)))
	}
	d.mounted = false
	return err
}

// PowerCut cuts the power of disks at the same moment: what was not synced is lost, whatever is asked of them afterwards fails. It returns how long it
// took. Processes that have files open there are stopped just before, as the power would stop them: ext4 lets a sync that meets the shutdown succeed now
// and then, and nobody may act on that. Kill them, then Restore.
func PowerCut(disks ...*Disk) (time.Duration, error) {
	var files []*os.File
	var wrong []error
	for _, d := range disks {
		f, err := os.Open(d.Dir)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		defer f.Close()
		files = append(files, f)
	}
	users, err := usersOf(disks)
	if err != nil {
		wrong = append(wrong, err)
	}
	for _, pid := range users {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil && err != unix.ESRCH {
			wrong = append(wrong, err)
		}
	}
	for _, pid := range users {
		if !awaitStop(pid) {
			wrong = append(wrong, fmt.Errorf("process %d does not stop", pid))
		}
	}
	errs := make([]error, len(files))
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i, f := range files {
		group.Go(func() {
			<-begin
			flags := int32(noFlush)
			errs[i] = ioctlPointer(f, shutdown, &flags)
		})
	}
	began := time.Now()
	close(begin)
	group.Wait()
	took := time.Since(began)
	if err := errors.Join(append(wrong, errs...)...); err != nil {
		return took, fmt.Errorf("cut the power: %w", err)
	}
	return took, nil
}

// awaitStop waits until no thread of a process runs any more: a signal takes a moment, on a machine with much to do more than a second, and what lies in between could act on a sync
// that the cut has hurt. A thread that waits in the kernel for a disk stops before it comes back.
func awaitStop(pid int) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		running := false
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, name := range stats {
			text, _ := os.ReadFile(name)
			_, rest, _ := strings.Cut(string(text), ") ") // behind the name of the command
			running = running || rest != "" && !strings.ContainsAny(rest[:1], "TtDZX")
		}
		if !running {
			return true
		}
	}
	return false
}

// Restore mounts a disk again whose power was cut.
func (d *Disk) Restore() error {
	if err := d.Unmount(); err != nil {
		return err
	}
	return d.Mount()
}

// Fill takes room until only so many bytes are left; Empty gives it back.
func (d *Disk) Fill(leave int64) error {
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		free, err := d.Free()
		if err != nil {
			return err
		}
		if free <= leave {
			return nil
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		// The blocks that tell where the others are need room as well.
		step := max(4096, min(free-leave, max(4096, (free-leave)/2)))
		if err := unix.Fallocate(int(f.Fd()), 0, st.Size(), step); err == unix.ENOSPC && leave <= 64<<10 {
			return nil
		} else if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
}

// Empty ends Fill.
func (d *Disk) Empty() error { return os.Remove(d.filler) }

// Free is what can still be written, in bytes.
func (d *Disk) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.Dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// attach makes a loop device of a file. The kernel frees it when nobody uses it any more.
func attach(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := special("/dev/loop-control", 10, 237)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 50 { // somebody else may take the one that was free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := special(fmt.Sprintf("/dev/loop%d", n), majorLoop, uint32(n))
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		_ = device.Close()
		if err != unix.EBUSY {
			return nil, fmt.Errorf("make a loop device: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("no loop device is free")
}

// special opens a device, and makes its name where nobody else does.
func special(name string, major, minor uint32) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	kind := uint32(unix.S_IFCHR)
	if major == majorLoop {
		kind = unix.S_IFBLK
	}
	if err := unix.Mknod(name, kind|0o660, int(unix.Mkdev(major, minor))); err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return os.OpenFile(name, os.O_RDWR, 0)
}
