// Package clockctl sets the clocks of hub processes, each for itself, for tests of wrong clocks. It needs a binary that Build makes; a hub that is released
// has no such control. What is set is the wall clock: the time that passes is measured right, as on a machine whose clock is set.
package clockctl

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Tag is the build tag of binaries that have the control, for hubproc.Build.
const Tag = "clockcontrol"

// Clock is the clock of one hub. It is not safe for concurrent use.
type Clock struct {
	socket string
}

// New makes a place for the control of a hub, which Env takes there.
func New(t testing.TB) *Clock {
	t.Helper()
	dir, err := os.MkdirTemp("", "clock-") // names of sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &Clock{socket: filepath.Join(dir, "s")}
}

// Env is the environment with which the hub is to be started, its clock so far off.
func (c *Clock) Env(offset time.Duration) []string {
	return []string{"CLOCKCONTROL=" + c.socket, "CLOCKCONTROL_BEGIN=set " + offset.String()}
}

// Set sets the clock of the running hub so far from that of the machine. A start begins again with what Env said.
func (c *Clock) Set(offset time.Duration) error { return c.say("set " + offset.String()) }

// Freeze stops the clock where it is, until the next Set.
func (c *Clock) Freeze() error { return c.say("freeze") }

func (c *Clock) say(line string) error {
	conn, err := net.DialTimeout("unix", c.socket, 10*time.Second)
	if err != nil {
		return fmt.Errorf("the hub has no clock control (was it built with the tag %s, and does it run?): %w", Tag, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return fmt.Errorf("the hub's clock control says: %s", answer)
	}
	return nil
}
