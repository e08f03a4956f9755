// Package coordtest is the acceptance suite of hub/coord: an implementation is finished when Run passes. It checks what the contract promises: versions
// and all-or-none writes, watches, members with epochs, leases with rising fences, and that coord.Lead and coord.Cursors hold up on top.
//
// What only some implementations can be told to do (losing a session, starting again) is checked where World says how.
package coordtest

import (
	"context"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

// World is a fresh place to agree in.
type World struct {
	// Open begins a session of another node, which lasts until the test ends.
	Open func(t *testing.T) coord.Coordinator
	// Cut lets a session be lost; Mend begins a new one. Both nil: not checked.
	Cut, Mend func(c coord.Coordinator)
	// Restart ends every session and starts the coordinator again with what was durable. nil: not checked.
	Restart func(t *testing.T)
}

// patience is how long the suite waits for what must happen; quiet, how long it watches for what must not.
const (
	patience = 30 * time.Second
	quiet    = 50 * time.Millisecond
)

// Run runs the suite. world is called once per test.
func Run(t *testing.T, world func(t *testing.T) World) {
	for name, test := range map[string]func(*testing.T, World){
		"Names": testNames, "Values": testValues, "Versions": testVersions, "Update": testUpdate, "Listing": testListing, "Watch": testWatch,
		"Counting": testCounting, "Members": testMembers, "Lease": testLease, "LeaseQueue": testLeaseQueue, "LeaseExclusion": testExclusion,
		"SessionLoss": testSessionLoss, "Restart": testRestart, "Lead": testLead, "LeadLoss": testLeadLoss, "Cursor": testCursor,
		"CursorFence": testCursorFence, "CursorReset": testCursorReset, "CursorRestart": testCursorRestart,
	} {
		t.Run(name, func(t *testing.T) { test(t, world(t)) })
	}
}

func wantKind(t *testing.T, err error, kind hub.Kind, what string) {
	t.Helper()
	if !hub.Is(err, kind) {
		t.Fatalf("%s: error %v, want kind %v", what, err, kind)
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// present calls f until there is a session for it, or fails. What a lost answer did may be found done.
func present(t *testing.T, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(quiet) {
		err := f()
		switch {
		case hub.Is(err, hub.Unavailable) && time.Now().Before(deadline):
		case err != nil && !hub.Is(err, hub.Conflict):
			t.Fatal(err)
		default:
			return
		}
	}
}

// woken waits for a token, or fails.
func woken(t *testing.T, wake <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(patience):
		t.Fatalf("%s: not woken", what)
	}
}

func asleep(t *testing.T, wake <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-wake:
		t.Fatalf("%s: woken for nothing", what)
	case <-time.After(quiet):
	}
}

func drain(wake <-chan struct{}) {
	for {
		select {
		case <-wake:
		case <-time.After(quiet):
			return
		}
	}
}

func get(t *testing.T, r coord.Registers, name, want string) uint64 {
	t.Helper()
	v, version, err := r.Get(t.Context(), name)
	if err != nil || string(v) != want {
		t.Fatalf("register %s: %q, %v; want %q", name, v, err, want)
	}
	return version
}

func absent(t *testing.T, r coord.Registers, name string) {
	t.Helper()
	_, _, err := r.Get(t.Context(), name)
	wantKind(t, err, hub.NotFound, "register "+name)
}

func acquire(t *testing.T, l coord.Leases, name string) coord.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return must[coord.Lease](t)(l.Acquire(ctx, name))
}

// acquiring asks for a lease beside the test.
func acquiring(t *testing.T, l coord.Leases, name string) <-chan coord.Lease {
	got := make(chan coord.Lease, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if lease, err := l.Acquire(ctx, name); err == nil {
			got <- lease
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return got
}

func nothing(t *testing.T, got <-chan coord.Lease, what string) {
	t.Helper()
	select {
	case <-got:
		t.Fatalf("%s: two hold one lease", what)
	case <-time.After(quiet):
	}
}

func something(t *testing.T, got <-chan coord.Lease, what string) coord.Lease {
	t.Helper()
	select {
	case l := <-got:
		return l
	case <-time.After(patience):
		t.Fatalf("%s: nobody got the lease", what)
		return nil
	}
}
