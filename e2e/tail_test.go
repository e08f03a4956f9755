package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestTailSurvives: `hub tail -f` prints each item exactly once and in order, whatever happens to the hub meanwhile.
func TestTailSurvives(t *testing.T) {
	bin, err := hubBinary.get()
	if err != nil {
		t.Fatal(err)
	}
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	env := []string{"HUB_URL=" + h.URL}
	addresses := runs(t, env, bin, "tail", "beans", "-f", "--from", "earliest")
	contents := runs(t, env, bin, "tail", "beans", "-f", "--from", "earliest", "--payload", "--json")

	// Writers note what was acknowledged.
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var stop atomic.Bool
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				body := fmt.Sprintf("%d/%d", w, i)
				r, err := call(t.Context(), "POST", h.URL+"/channel/beans", []byte(body), "Content-Type", "text/plain")
				if err != nil || r.status != 201 {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				acknowledged[r.header.Get("Location")] = body
				mu.Unlock()
			}
		})
	}
	for round := range 5 {
		time.Sleep(300 * time.Millisecond)
		if round == 2 { // once in order
			if err := h.Stop(time.Minute); err != nil {
				t.Error(err)
			}
		} else {
			h.Kill()
		}
		time.Sleep(100 * time.Millisecond)
		if err := h.Start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond)
	stop.Store(true)
	writers.Wait()
	last := must(t, 201, "POST", h.URL+"/channel/beans", []byte("last"), "Content-Type", "text/plain").header.Get("Location")
	acknowledged[last] = "last"

	var printed []string
	for len(printed) == 0 || printed[len(printed)-1] != last {
		printed = append(printed, addresses.line())
	}
	if !slices.IsSorted(printed) || len(slices.Compact(slices.Clone(printed))) != len(printed) {
		t.Error("not in order, or twice")
	}
	bodies := map[string]string{}
	for i := 0; bodies[last] == ""; i++ {
		var r struct{ URI, Text string }
		if err := json.Unmarshal([]byte(contents.line()), &r); err != nil {
			t.Fatal(err)
		}
		if i < len(printed) && r.URI != printed[i] {
			t.Fatalf("item %d is %s and %s", i, printed[i], r.URI)
		}
		bodies[r.URI] = r.Text
	}
	for uri, body := range acknowledged {
		if bodies[uri] != body {
			t.Errorf("%s: %q, want %q", uri, bodies[uri], body)
		}
	}
	if len(printed) != len(bodies) || len(printed) < len(acknowledged) {
		t.Errorf("%d addresses, %d contents, %d acknowledged", len(printed), len(bodies), len(acknowledged))
	}
	t.Logf("%d items", len(printed))
}

// TestCommandsEnd: one signal ends a command that waits, and a reader that goes away ends one that prints, without a word.
func TestCommandsEnd(t *testing.T) {
	bin, err := hubBinary.get()
	if err != nil {
		t.Fatal(err)
	}
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	env := []string{"HUB_URL=" + h.URL}
	first := addItem(t, h.URL, "beans", "text/plain", "first")
	// ends sends a signal after a while and returns how the command ended.
	ends := func(signal os.Signal, after time.Duration, args []string) (*program, int) {
		p := runs(t, env, bin, args...)
		if args[0] == "tail" {
			p.line()
		}
		time.Sleep(after)
		if err := p.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		for range p.lines { // until it has ended
		}
		p.cmd.Wait()
		return p, p.cmd.ProcessState.ExitCode()
	}
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, args := range [][]string{{"tail", "beans", "-f"}, {"put", "beans", "-"}, {"import", "beans", "-"}, {"webhook", "listen", "beans", "--forward", "http://127.0.0.1:1/"}} {
			p, code := ends(signal, 100*time.Millisecond, args)
			for after := time.Second; code == -1 && after < patience; after *= 2 { // a command that has not begun ends by the signal itself
				p, code = ends(signal, after, args)
			}
			if code != 130 {
				t.Errorf("%v after %v: %v, %s", args, signal, p.cmd.ProcessState, &p.errs)
			}
			if args[0] == "tail" && p.errs.Len() > 0 {
				t.Errorf("%v: %s", args, &p.errs)
			}
		}
	}
	shell := runs(t, env, "sh", "-c", `"$0" tail beans -f --from earliest | head -n 1`, bin)
	if got := shell.line(); got != first {
		t.Errorf("%s, want %s", got, first)
	}
	for ended := false; !ended; {
		addItem(t, h.URL, "beans", "text/plain", "more") // a pipe tells its end to those who write
		select {
		case line, ok := <-shell.lines:
			ended = !ok
			if ok {
				t.Errorf("also %s", line)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	shell.cmd.Wait()
	if text := strings.TrimSpace(shell.errs.String()); text != "" {
		t.Errorf("the end of a pipe is told: %s", text)
	}
}
