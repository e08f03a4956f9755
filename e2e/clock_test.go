package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/e2e/clockctl"
	"timehub/e2e/hubproc"
)

// TestClockControl: tests can set the clock of a hub that they build for it, and of no other one.
func TestClockControl(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(makefile)) {
		if strings.Contains(line, "$(GO) build") && strings.Contains(line, "-tags") {
			t.Errorf("a binary is released with build tags: %s", line)
		}
	}
	const name = "CLOCKCONTROL"
	for _, b := range []*builder{&hubBinary, &clockBinary} {
		bin, err := b.get()
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		if has, wanted := bytes.Contains(content, []byte(name)), b == &clockBinary; has != wanted {
			t.Errorf("built with the tags %q, %s is in the binary: %v", b.tags, name, has)
		}
		clock := clockctl.New(t)
		h := prepareWith(t, b, hubproc.Options{Env: clock.Env(-time.Hour)})
		if err := h.Start(); err != nil {
			t.Fatal(err)
		}
		err = clock.Set(-2 * time.Hour)
		shown := string(must(t, 200, "GET", h.URL+"/internal/time/millis", nil).body)
		var ms int64
		if _, err := fmt.Sscan(shown, &ms); err != nil {
			t.Fatal(err)
		}
		off := time.Until(time.UnixMilli(ms)).Round(time.Minute)
		if b == &hubBinary && (err == nil || off != 0) {
			t.Errorf("the clock of a released hub is off by %v, %v", off, err)
		}
		if b == &clockBinary && (err != nil || off == 0) {
			t.Errorf("a clock that was set is off by %v, %v", off, err)
		}
	}
}

// TestClusterClock: a node whose clock is wrong stops taking items, the others go on, and when it is right again it comes back; keys, order and stable
// answers are as if nothing had been.
func TestClusterClock(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	clocks := make([]*clockctl.Clock, 3)
	c := startClusterOf(t, func(i int, flags []string) *hubproc.Hub {
		clocks[i] = clockctl.New(t)
		return prepareWith(t, &clockBinary, hubproc.Options{Flags: flags, Env: clocks[i].Env(0)})
	}, "--set", "storage.directory="+filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=1")
	for _, channel := range []string{"clocks", "clock-probe"} {
		putChannel(t, c.hubs[0].URL, channel, `{}`)
		for _, h := range c.hubs {
			waitChannel(t, h.URL, channel, patience)
		}
	}
	w := c.crowd(t, "clocks")
	time.Sleep(time.Second)
	set := func(i int, offset time.Duration) {
		t.Helper()
		if err := clocks[i].Set(offset); err != nil {
			t.Fatal(err)
		}
	}

	set(1, 10*time.Minute)
	eventually(t, "a node whose clock went wrong takes nothing", func() bool {
		r, err := call(t.Context(), "POST", c.hubs[1].URL+"/channel/clocks", []byte(fmt.Sprint("by the wrong clock ", rand.Uint64())), "Content-Type", "text/plain")
		return err == nil && r.status == 503 && bytes.Contains(r.body, []byte("clock"))
	})
	for range 10 {
		r, err := call(t.Context(), "POST", c.hubs[1].URL+"/channel/clocks", []byte("by the wrong clock"), "Content-Type", "text/plain")
		if err != nil || r.status != 503 || r.header.Get("Retry-After") == "" || !bytes.Contains(r.body, []byte("clock")) {
			t.Errorf("a node whose clock is wrong answers %d %v %.200s", r.status, err, r.body)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if r := must(t, 200, "GET", c.hubs[1].URL+"/health", nil); !bytes.Contains(r.body, []byte("clock")) {
		t.Errorf("/health says nothing of the clock: %s", r.body)
	}
	untilWritten(t, c.hubs[0].URL+"/channel/clock-probe", patience)
	set(1, 0)
	untilWritten(t, c.hubs[1].URL+"/channel/clock-probe", patience)

	// Set back while it runs: the time that passed is measured otherwise, so it may go on; what it has shown stays.
	latest := ""
	eventually(t, "something is stable", func() bool {
		r, err := call(t.Context(), "GET", c.hubs[2].URL+"/channel/clocks/latest", nil)
		latest = keyOf(r.header.Get("Location"))
		return err == nil && r.status == 303
	})
	set(2, -time.Hour)
	for range 20 {
		if r := must(t, 303, "GET", c.hubs[2].URL+"/channel/clocks/latest", nil); keyOf(r.header.Get("Location")) < latest {
			t.Fatalf("latest was %s and is %s since the clock was set back", latest, keyOf(r.header.Get("Location")))
		}
		time.Sleep(50 * time.Millisecond)
	}

	// Started with a clock that is an hour behind it takes nothing, and its log says why.
	c.hubs[2].Kill()
	if err := c.hubs[2].LaunchEnv(clocks[2].Env(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log speaks of the clock", func() bool { return strings.Contains(c.hubs[2].Log(), "the clock of this machine is out of the guard") })
	for range 20 {
		if r, err := call(t.Context(), "POST", c.hubs[2].URL+"/channel/clocks", []byte("by the wrong clock"), "Content-Type", "text/plain"); err == nil && r.status != 503 {
			t.Errorf("a node that started an hour behind answers %d %v %.200s", r.status, err, r.body)
		}
		time.Sleep(50 * time.Millisecond)
	}
	set(2, 0)
	if err := c.hubs[2].Ready(); err != nil {
		t.Fatal(err)
	}
	untilWritten(t, c.hubs[2].URL+"/channel/clock-probe", patience)

	if err := clocks[0].Freeze(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	set(0, 200*time.Millisecond) // within the guard
	time.Sleep(500 * time.Millisecond)
	set(0, 0)
	untilWritten(t, c.hubs[0].URL+"/channel/clock-probe", patience)
	w.stop()
	w.check(t)
}
