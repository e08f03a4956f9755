//go:build clockcontrol

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"timehub/hub"
)

// This file is in binaries that tests build for themselves, with -tags clockcontrol, and never in one that is released: e2e/clockctl speaks to it.

// wrongClock is a wall clock that can be set. What it says of time that passes stays right, as on a machine whose clock is set.
type wrongClock struct {
	mu     sync.Mutex // guards what follows
	offset time.Duration
	frozen time.Time // zero: it goes
}

// systemClock serves the socket that the environment names, for as long as the process lives. Without one it is the clock of the machine.
func systemClock(environ []string) (hub.Clock, error) {
	a := app{environ: environ}
	path := a.env("CLOCKCONTROL", "")
	if path == "" {
		return nil, nil
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("clock control: %w", err)
	}
	c := &wrongClock{}
	if err := c.obey(a.env("CLOCKCONTROL_BEGIN", "set 0s")); err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.serve(conn)
		}
	}()
	return c.now, nil
}

// serve answers each line with ok, or with what is wrong with it.
func (c *wrongClock) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if err := c.obey(lines.Text()); err != nil {
			fmt.Fprintln(conn, err)
			continue
		}
		fmt.Fprintln(conn, "ok")
	}
}

// obey does what a line says: "set OFFSET" to the clock of the machine, or "freeze".
func (c *wrongClock) obey(line string) error {
	word, text, _ := strings.Cut(line, " ")
	switch word {
	case "set":
		offset, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.offset, c.frozen = offset, time.Time{}
		c.mu.Unlock()
		return nil
	case "freeze":
		at := c.now()
		c.mu.Lock()
		c.frozen = at
		c.mu.Unlock()
		return nil
	}
	return fmt.Errorf("%q: want \"set OFFSET\" or \"freeze\"", line)
}

func (c *wrongClock) now() time.Time {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen.IsZero() {
		return moveWall(now, c.frozen.Round(0).Sub(now.Round(0)))
	}
	return moveWall(now, c.offset)
}

// moveWall moves the wall clock's part of a time only, which package time has no way to do: Add moves both parts. It relies on how time.Time lies in
// memory; its test says whether it still does.
func moveWall(t time.Time, by time.Duration) time.Time {
	type parts struct {
		wall uint64 // the highest bit: ext is the monotonic clock
		ext  int64
		loc  *time.Location
	}
	moved := t.Add(by)
	from, to := (*parts)(unsafe.Pointer(&t)), (*parts)(unsafe.Pointer(&moved))
	if from.wall>>63 == 1 && to.wall>>63 == 1 {
		to.ext = from.ext
	}
	return moved
}
