package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// inside tells a test that it runs in namespaces of its own. Its value is the test's name.
const inside = "CHAOS_INSIDE"

// Inside runs the calling test once more, alone, in new namespaces of network, mounts and processes, with further flags of the test's program, and
// returns false when that one has ended; its failure is that of the caller. In there it returns true. When the caller dies, everything in there dies.
func Inside(t *testing.T, flags ...string) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		if err := furnish(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true", "-test.count=1"}
	given := os.Args[1:]
	for i := 0; i < len(given); i++ {
		switch name, _, whole := strings.Cut(strings.TrimLeft(given[i], "-"), "="); name {
		case "test.v":
		case "test.run", "test.count", "test.testlogfile", "test.coverprofile", "test.skip":
			if !whole {
				i++ // its value
			}
		default:
			args = append(args, given[i])
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(args, flags...)...)
	// Not everybody's PATH has what administrators use. Below TMPDIR others take what they find by numbers of processes, which mean nothing in there.
	cmd.Env = append(os.Environ(), inside+"="+t.Name(), "TMPDIR="+t.TempDir(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("the chaos run needs namespaces of network, processes and mounts, which this machine or user cannot make (it takes root, or CAP_SYS_ADMIN in a container): %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("in its namespaces: %v", err)
	}
	return false
}

// furnish makes the new namespaces usable: mounts are private, /proc shows the new processes, there is a loopback address.
func furnish() error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := leave(); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return run("ip", "link", "set", "lo", "up")
}

// leave lets go of the disks of other tests, which would not be free for them as long as they are mounted here too.
func leave() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.Contains(fields[1], "/hub-loopdisk-") {
			if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil {
				return fmt.Errorf("let go of %s: %w", fields[1], err)
			}
		}
	}
	return nil
}

// run runs a command to its end.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s (scripts/needs installs iproute2 and iptables: make needs)", name, strings.Join(args, " "), err, out)
	}
	return nil
}
