package run

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
	"timehub/hub/coord"
)

// mortal is a coordinator that a process has lost when it died: whatever it still tries to write does not arrive.
type mortal struct {
	coord.Registers
	dead *atomic.Bool
}

func (m mortal) Set(ctx context.Context, name string, value []byte, version uint64) (uint64, error) {
	if m.dead.Load() {
		return 0, hub.E(hub.Unavailable, "dead")
	}
	return m.Registers.Set(ctx, name, value, version)
}

func (m mortal) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	if m.dead.Load() {
		return nil, hub.E(hub.Unavailable, "dead")
	}
	return m.Registers.Update(ctx, changes)
}

// TestCrashes kills the process at random moments, with a consumer that fails in between. Each item is accepted at least once, first acceptances come in
// the order of the keys (of a value), and no more is repeated than what was in flight or had ended within the last tick.
func TestCrashes(t *testing.T) {
	for _, kind := range []struct {
		name     string
		parallel int
		orderBy  string
	}{{"strict", 1, ""}, {"parallel", 8, ""}, {"by value", 8, ".v"}} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(kind.name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashes(t, kind.parallel, kind.orderBy, rand.New(rand.NewPCG(seed, 1))) })
			})
		}
	}
}

// tick is how long after it happened something may not be written, with a little for the write.
const tick = 110 * time.Millisecond

func crashes(t *testing.T, parallel int, orderBy string, rnd *rand.Rand) {
	const items, kills = 600, 25
	w := newWorld(t)
	w.opt.FirstPause = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); _ = w.session.Run(ctx) }()
	defer func() { cancel(); <-over }()

	var (
		dead     *atomic.Bool
		luck     = rand.New(rand.NewPCG(rnd.Uint64(), 2)) // the consumer's
		group    = map[string]string{}
		accepts  = map[string]int{}
		first    []string
		ended    []time.Time // calls that were accepted by a living process
		running  = 0
		allowed  = 0
		repeated = 0
	)
	w.consumer.set(nil)
	post := func(dead *atomic.Bool) func(context.Context, call, int) deliver.Outcome {
		return func(ctx context.Context, c call, _ int) deliver.Outcome {
			w.mu.Lock()
			running++
			d, fails, lost := time.Duration(luck.IntN(20))*time.Millisecond, luck.IntN(4) == 0, luck.IntN(2) == 0
			w.mu.Unlock()
			hub.Sleep(ctx, d)
			w.mu.Lock()
			defer w.mu.Unlock()
			running--
			if dead.Load() && lost || fails {
				return status(503)
			}
			if accepts[c.path]++; accepts[c.path] > 1 {
				repeated++
			} else {
				first = append(first, c.path)
			}
			ended = append(ended, time.Now())
			return accepted
		}
	}
	var m *Manager
	var stop context.CancelFunc
	var ran chan struct{}
	start := func() {
		dead = &atomic.Bool{}
		w.consumer.set(post(dead))
		cursors, err := coord.NewCursors(coord.CursorsOptions{Registers: mortal{w.session, dead}, Prefix: webhook.CursorPrefix})
		if err != nil {
			t.Fatal(err)
		}
		w.opt.Leases, w.opt.Cursors = w.session, cursors
		if m, err = New(w.opt); err != nil {
			t.Fatal(err)
		}
		var run context.Context
		run, stop = context.WithCancel(context.Background())
		ran = make(chan struct{})
		go func(m *Manager, ran chan struct{}) { defer close(ran); _ = m.Run(run) }(m, ran)
	}
	start()
	w.put(func(h *webhook.Webhook) { h.ParallelCalls, h.OrderBy = parallel, orderBy })
	var all []string
	killed := 0
	for len(all) < items || killed < kills {
		time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond)
		for range rnd.IntN(4) {
			body := fmt.Sprintf(`{"v":%d}`, rnd.IntN(5))
			p := w.store.add("c", body).String()
			if all = append(all, p); orderBy != "" {
				group[p] = body
			} else if parallel > 1 {
				group[p] = p
			}
		}
		if rnd.IntN(12) != 0 {
			continue
		}
		killed++
		dead.Store(true)
		w.mu.Lock()
		allowed += running
		for i := len(ended) - 1; i >= 0 && time.Since(ended[i]) <= tick; i-- {
			allowed++
		}
		w.mu.Unlock()
		stop()
		<-ran
		start()
	}
	time.Sleep(time.Minute)
	stop()
	<-ran
	for _, p := range all {
		if accepts[p] == 0 {
			t.Errorf("%s was lost", p)
		}
	}
	last := map[string]string{}
	for _, p := range first {
		if p < last[group[p]] {
			t.Errorf("%s of %s came first after %s", p, group[p], last[group[p]])
		}
		last[group[p]] = p
	}
	if repeated > allowed {
		t.Errorf("%d repeated, %d allowed, in %d restarts", repeated, allowed, killed)
	}
	t.Logf("%d items, %d restarts, %d repeated of %d allowed", len(all), killed, repeated, allowed)
}
