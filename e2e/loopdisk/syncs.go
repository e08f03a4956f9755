package loopdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Syncs says what happens to fsync and fdatasync of a process.
type Syncs struct {
	Error string        // they fail with this ("EIO", "ENOSPC") and do nothing. "": they work
	Delay time.Duration // they return so much later
	When  string        // which of them, as strace counts them per thread: "3+", "2+5". "": all
	Calls string        // other calls than these two, as strace names them: "pwrite64,fdatasync"
}

// Spoil spoils the syncs of a running process until heal is called, or the test ends. It returns when it is in force. The process is slower meanwhile:
// strace stops each of its calls.
func Spoil(t testing.TB, pid int, s Syncs) (heal func()) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is missing: make needs")
	}
	calls := s.Calls
	if calls == "" {
		calls = "fsync,fdatasync"
	}
	inject := "inject=" + calls
	if s.Error != "" {
		inject += ":error=" + s.Error
	}
	if s.Delay > 0 {
		inject += fmt.Sprintf(":delay_exit=%d", s.Delay.Microseconds())
	}
	if s.When != "" {
		inject += ":when=" + s.When
	}
	var said strings.Builder
	cmd := exec.Command("strace", "-f", "-q", "-p", fmt.Sprint(pid), "-e", "trace="+calls, "-e", "signal=none", "-e", inject, "-o", "/dev/null")
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { // heal waits for it
		_ = cmd.Wait()
		close(exited)
	}()
	var once sync.Once
	heal = func() {
		once.Do(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it lets go of the process and ends
			select {
			case <-exited:
			case <-time.After(20 * time.Second):
				_ = cmd.Process.Kill() // the kernel lets go
				<-exited
			}
		})
	}
	t.Cleanup(heal)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		traced, err := traced(pid, cmd.Process.Pid)
		if traced {
			return heal
		}
		select {
		case <-exited:
			t.Fatalf("strace cannot look at process %d (it needs CAP_SYS_PTRACE): %s", pid, said.String())
		default:
		}
		if time.Now().After(deadline) {
			heal()
			t.Fatalf("strace has not taken process %d: %v %s", pid, err, said.String())
		}
	}
}

// traced reports whether all threads of a process are watched by a tracer.
func traced(pid, by int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return false, errors.Join(err, os.ErrNotExist)
	}
	for _, name := range threads {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that ended meanwhile
		}
		if err != nil {
			return false, err
		}
		if !strings.Contains(string(b), fmt.Sprintf("TracerPid:\t%d\n", by)) {
			return false, nil
		}
	}
	return true, nil
}
