package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Here is the address of the test itself, where the S3 server and the consumers of webhooks are. Every place reaches it.
const Here = "10.77.0.1"

// Place is a network namespace with one line, which ends at the test. Whatever goes from place to place passes there, where it can be stopped.
type Place struct {
	IP string
	ns *os.File
}

// Network is places, and what is stopped between them at the moment. Its methods may be called at any time.
type Network struct {
	Places []*Place

	mu   sync.Mutex // guards cuts
	cuts map[string][]string
}

// NewNetwork makes so many places. It belongs into a network namespace of the test's own (Inside).
func NewNetwork(t *testing.T, places int) *Network {
	t.Helper()
	n := &Network{cuts: map[string][]string{}}
	if err := n.make(t, places); err != nil {
		t.Fatalf("make a network: %v", err)
	}
	return n
}

func (n *Network) make(t *testing.T, places int) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return err
	}
	if err := run("ip", "addr", "add", Here+"/32", "dev", "lo"); err != nil {
		return err
	}
	if err := n.apply(); err != nil {
		return err
	}
	for i := range places {
		ns, err := newNamespace()
		if err != nil {
			return fmt.Errorf("a namespace: %w", err)
		}
		p := &Place{IP: fmt.Sprintf("10.77.%d.2", i+1), ns: ns}
		t.Cleanup(func() { _ = ns.Close() })
		n.Places = append(n.Places, p)
		line, gateway := fmt.Sprintf("place%d", i), fmt.Sprintf("10.77.%d.1", i+1)
		here := [][]string{
			{"link", "add", line, "type", "veth", "peer", "name", "line", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())},
			{"addr", "add", gateway + "/24", "dev", line}, {"link", "set", line, "up"},
		}
		there := [][]string{
			{"link", "set", "lo", "up"}, {"addr", "add", p.IP + "/24", "dev", "line"}, {"link", "set", "line", "up"}, {"route", "add", "default", "via", gateway},
		}
		for _, args := range here {
			if err := run("ip", args...); err != nil {
				return err
			}
		}
		for _, args := range there {
			if err := p.Do(func() error { return run("ip", args...) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// newNamespace makes a network namespace that lives as long as its file. Its thread ends with the call.
func newNamespace() (*os.File, error) {
	var f *os.File
	var err error
	var made sync.WaitGroup
	made.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread is not what it was
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
	})
	made.Wait()
	return f, err
}

// Do runs f on a thread that is in the place: sockets that f opens and processes that it starts stay there.
func (p *Place) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("go to %s: %w", p.IP, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("a thread cannot come back from %s: %v", p.IP, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Start starts a command in the place.
func (p *Place) Start(cmd *exec.Cmd) error { return p.Do(cmd.Start) }

// Cut adds rules of iptables, without "-A", under a name until Mend takes them away.
func (n *Network) Cut(name string, rules ...string) error {
	n.mu.Lock()
	n.cuts[name] = rules
	n.mu.Unlock()
	return n.apply()
}

// Mend takes away what was cut under the name; without one, everything.
func (n *Network) Mend(name string) error {
	n.mu.Lock()
	if name == "" {
		clear(n.cuts)
	}
	delete(n.cuts, name)
	n.mu.Unlock()
	return n.apply()
}

// apply replaces all rules at once.
func (n *Network) apply() error {
	var b strings.Builder
	b.WriteString("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n")
	n.mu.Lock()
	var names []string
	for name := range n.cuts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, rule := range n.cuts[name] {
			fmt.Fprintf(&b, "-A %s\n", rule)
		}
	}
	n.mu.Unlock()
	b.WriteString("COMMIT\n")
	cmd := exec.Command("iptables-restore")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s\n%s(make needs installs iptables)", err, out, b.String())
	}
	return nil
}

// Between are the rules that stop what one place sends to another, in one direction.
func Between(from, to *Place) string {
	return fmt.Sprintf("FORWARD -s %s -d %s -j DROP", from.IP, to.IP)
}

// FromHere stops what the test's own address sends to a place from a port, ToHere what the place sends to that port.
func FromHere(to *Place, port string) string {
	return fmt.Sprintf("OUTPUT -s %s -d %s -p tcp --sport %s -j DROP", Here, to.IP, port)
}

// ToHere is the other direction of FromHere.
func ToHere(from *Place, port string) string {
	return fmt.Sprintf("INPUT -s %s -d %s -p tcp --dport %s -j DROP", from.IP, Here, port)
}
