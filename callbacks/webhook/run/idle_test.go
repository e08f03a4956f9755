package run

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"timehub/callbacks/webhook"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/coord"
)

// TestIdle: what ten thousand webhooks cost that have nothing to do, each with a channel of its own, in all: goroutines, lease, watch, cursor.
func TestIdle(t *testing.T) {
	const n = 10_000
	if testing.Short() {
		t.Skip("takes a second")
	}
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); _ = w.session.Run(ctx) }()
	defer func() { cancel(); <-over }()
	var err error
	w.opt.Leases = w.session
	if w.opt.Cursors, err = coord.NewCursors(coord.CursorsOptions{Registers: w.session, Prefix: webhook.CursorPrefix}); err != nil {
		t.Fatal(err)
	}
	if w.opt.Shared, err = feed.NewShared(feed.SharedOptions{Source: w.store, Channels: w.store, Horizon: w.opt.Horizon}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("c%d", i)
		w.store.create(name)
		w.hooks.put(webhook.Webhook{
			Name: fmt.Sprintf("w%d", i), CallbackURL: "http://consumer/", ChannelURL: "http://hub/channel/" + name, ParallelCalls: 1 + i%2, Batch: "SINGLE",
			Born: "1", Start: hub.NewKey(time.Now(), "initial").String(),
		})
	}
	m, err := New(w.opt)
	if err != nil {
		t.Fatal(err)
	}
	before, goroutines := used(), runtime.NumGoroutine()
	run, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(run) }()
	idle := func() (k int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, h := range m.hooks {
			if h.session != nil {
				k++
			}
		}
		return k
	}
	for deadline := time.Now().Add(time.Minute); idle() < n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they do not start")
		}
	}
	time.Sleep(300 * time.Millisecond)
	each := (used() - before) / n
	if f := os.Getenv("HEAP"); f != "" {
		out, _ := os.Create(f)
		_ = pprof.WriteHeapProfile(out)
		out.Close()
	}
	t.Logf("%d bytes and %.2f goroutines each", each, float64(runtime.NumGoroutine()-goroutines)/n)
	if each > 15<<10 {
		t.Errorf("%d bytes each", each)
	}
	queries := w.store.asked()
	time.Sleep(500 * time.Millisecond)
	if w.store.asked() != queries {
		t.Errorf("%d queries while nothing happens", w.store.asked()-queries)
	}
	began := time.Now()
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %v", time.Since(began))
}

// used is the memory of the heap and of the stacks.
func used() int {
	for range 4 { // stacks shrink with each collection
		runtime.GC()
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc + s.StackInuse)
}

// TagChannels is not asked.
func (s *store) TagChannels(context.Context, string) ([]*hub.Channel, error) { return nil, nil }
