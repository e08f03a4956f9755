package loopdisk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain: the test binary is also the process whose syncs are spoiled.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "sync" {
		os.Exit(syncs(os.Args[2]))
	}
	if len(os.Args) == 3 && os.Args[1] == "load" {
		os.Exit(load(os.Args[2]))
	}
	os.Exit(m.Run())
}

// load appends to files and says so when each piece is synced, until something fails.
func load(dir string) int {
	var group sync.WaitGroup
	for name := range 4 {
		group.Go(func() {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(name)))
			for n := 1; err == nil; n++ {
				if _, err = f.Write(make([]byte, piece)); err == nil {
					err = unix.Fdatasync(int(f.Fd()))
				}
				if err == nil {
					fmt.Printf("%d %d\n", name, n)
				}
			}
		})
	}
	group.Wait()
	return 1
}

const piece = 300 // bytes

// TestPowerCutUnderLoad: whatever a process says that it has synced is there, also when the power goes in the middle of a sync.
func TestPowerCutUnderLoad(t *testing.T) {
	said := 0
	for round := range 10 {
		d := New(t, Options{Bytes: 64 << 20})
		var out strings.Builder
		cmd := exec.Command(os.Args[0], "load", d.Dir)
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // who has opened nothing is not found, and not stopped
			if names, err := filepath.Glob(filepath.Join(d.Dir, "[0-9]")); err != nil || len(names) == 4 {
				break
			} else if time.Now().After(deadline) {
				t.Fatal("the load does not begin")
			}
		}
		time.Sleep(time.Duration(50+7*round) * time.Millisecond)
		_, err := PowerCut(d)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := errors.Join(err, d.Restore()); err != nil {
			t.Fatal(err)
		}
		last := map[string]int64{}
		for line := range strings.Lines(out.String()) {
			var name string
			var n int64
			if _, err := fmt.Sscan(line, &name, &n); err != nil {
				t.Fatal(err)
			}
			last[name] = n
			said++
		}
		for name, n := range last {
			if st, err := os.Stat(filepath.Join(d.Dir, name)); err != nil || st.Size() < n*piece {
				t.Errorf("%d pieces of %s were synced, and the file has %v, %v", n, name, st, err)
			}
		}
		if err := d.Unmount(); err != nil {
			t.Fatal(err)
		}
	}
	if said == 0 {
		t.Error("nothing was synced")
	}
	t.Logf("%d syncs", said)
}

// syncs syncs a file each time a line comes, and says how that went.
func syncs(name string) int {
	f, err := os.Create(name)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		f.WriteString("x")
		begin := time.Now()
		err := f.Sync()
		fmt.Println(time.Since(begin).Milliseconds(), err)
	}
	return 0
}

func write(t *testing.T, name, text string, sync bool) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if !sync {
		return
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := errors.Join(f.Sync(), dir.Sync()); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCut: what was synced is there afterwards, what was not is lost, and in between nothing can be written.
func TestPowerCut(t *testing.T) {
	disks := []*Disk{New(t, Options{Bytes: 64 << 20}), New(t, Options{Bytes: 64 << 20})}
	for round := range 3 {
		kept, lost := fmt.Sprint("kept", round), fmt.Sprint("lost", round)
		for _, d := range disks {
			write(t, filepath.Join(d.Dir, kept), "safe", true)
			write(t, filepath.Join(d.Dir, lost), "not safe", false)
		}
		took, err := PowerCut(disks...)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("two cuts took %v", took)
		for _, d := range disks {
			if err := os.WriteFile(filepath.Join(d.Dir, "after"), nil, 0o600); !errors.Is(err, syscall.EIO) {
				t.Errorf("a disk without power takes a file: %v", err)
			}
			if err := d.Restore(); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(d.Dir, kept)); string(b) != "safe" || err != nil {
				t.Errorf("what was synced is %q, %v", b, err)
			}
			if b, err := os.ReadFile(filepath.Join(d.Dir, lost)); len(b) > 0 {
				t.Errorf("what was not synced is %q, %v: no power was cut", b, err)
			}
		}
	}
}

func TestFill(t *testing.T) {
	for _, tmpfs := range []bool{false, true} {
		d := New(t, Options{Bytes: 64 << 20, Tmpfs: tmpfs})
		if err := d.Fill(1 << 20); err != nil {
			t.Fatal(err)
		}
		if free, err := d.Free(); err != nil || free > 1<<20 {
			t.Errorf("tmpfs %v: %d bytes are free, %v", tmpfs, free, err)
		}
		if err := d.Fill(0); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(filepath.Join(d.Dir, "more"), make([]byte, 1<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("tmpfs %v: a full disk says %v", tmpfs, err)
		}
		if err := d.Empty(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.Dir, "more"), make([]byte, 1<<20), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingLeft: afterwards no mount, no loop device and no folder is there, also of a process that was killed.
func TestNothingLeft(t *testing.T) {
	var base, image string
	t.Run("made", func(t *testing.T) {
		d := New(t, Options{Bytes: 64 << 20})
		base, image = d.base, d.image
		if loops(t, image) != 1 {
			t.Error("no loop device has the file")
		}
		f, err := os.Create(filepath.Join(d.Dir, "open")) // somebody uses it for a moment
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(100*time.Millisecond, func() { f.Close() })
	})
	left(t, base, image)

	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	d := New(t, Options{Bytes: 64 << 20})
	image = d.image
	if err := d.Unmount(); err != nil {
		t.Fatal(err)
	}
	orphaned := strings.Replace(d.base, fmt.Sprint(prefix, os.Getpid()), fmt.Sprint(prefix, child.Process.Pid), 1)
	if err := os.Rename(d.base, orphaned); err != nil {
		t.Fatal(err)
	}
	of := Disk{base: orphaned, image: filepath.Join(orphaned, "image"), Dir: filepath.Join(orphaned, "mnt")}
	if err := of.Mount(); err != nil {
		t.Fatal(err)
	}
	sweep()
	left(t, orphaned, of.image)
}

func left(t *testing.T, base, image string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), base) {
		t.Error("something is mounted")
	}
	for deadline := time.Now().Add(10 * time.Second); loops(t, image) > 0; time.Sleep(10 * time.Millisecond) { // the kernel frees it in its own time
		if time.Now().After(deadline) {
			t.Fatal("a loop device is left")
		}
	}
	if _, err := os.Stat(base); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

func loops(t *testing.T, image string) (n int) {
	t.Helper()
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), image) {
			n++
		}
	}
	return n
}

// TestSpoil: syncs of a running process fail, or are slow, until it is healed.
func TestSpoil(t *testing.T) {
	cmd := exec.Command(os.Args[0], "sync", filepath.Join(t.TempDir(), "file"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(out)
	try := func() (ms int64, text string) {
		t.Helper()
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		number, text, _ := strings.Cut(lines.Text(), " ")
		if _, err := fmt.Sscan(number, &ms); err != nil {
			t.Fatal(err)
		}
		return ms, text
	}
	if _, text := try(); text != "<nil>" {
		t.Fatal(text)
	}
	heal := Spoil(t, cmd.Process.Pid, Syncs{Error: "EIO"})
	for range 3 {
		if _, text := try(); !strings.Contains(text, "input/output error") {
			t.Errorf("a spoiled sync says %s", text)
		}
	}
	heal()
	if _, text := try(); text != "<nil>" {
		t.Errorf("healed, it says %s", text)
	}
	heal = Spoil(t, cmd.Process.Pid, Syncs{Delay: 300 * time.Millisecond})
	if ms, text := try(); ms < 290 || text != "<nil>" {
		t.Errorf("a slow sync took %d ms, %s", ms, text)
	}
	heal()
	heal()
	if _, text := try(); text != "<nil>" {
		t.Errorf("healed, it says %s", text)
	}
}
