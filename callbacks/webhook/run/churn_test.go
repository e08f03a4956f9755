package run

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// TestChurn changes everything that can be changed while items come: settings, pauses, other kinds of order, restarts, stores that fail, repeats on demand.
// Nothing is left out, nothing hangs, and at the end nothing is left over.
func TestChurn(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) { churn(w, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func churn(w *world, rnd *rand.Rand) {
	var mu sync.Mutex
	luck, took := rand.New(rand.NewPCG(rnd.Uint64(), 2)), map[string]int{}
	w.consumer.set(func(ctx context.Context, c call, _ int) deliver.Outcome {
		mu.Lock()
		d, o := time.Duration(luck.IntN(40))*time.Millisecond, accepted
		switch luck.IntN(12) {
		case 0, 1, 2:
			o = status(503)
		case 3:
			d = time.Duration(luck.IntN(8)) * time.Second
		}
		mu.Unlock()
		if !hub.Sleep(ctx, d) {
			return o
		}
		mu.Lock()
		defer mu.Unlock()
		if o.OK() {
			for _, u := range c.uris {
				took[u]++
			}
		}
		return o
	})
	h := w.put(func(h *webhook.Webhook) { h.MaxWaitMinutes = 1 })
	var all []string
	asked := map[string]int{}
	for range 400 {
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
		for range rnd.IntN(5) {
			all = append(all, w.store.add("c", fmt.Sprintf(`{"v":%d}`, rnd.IntN(4))).String())
		}
		switch rnd.IntN(20) {
		case 0:
			w.stop()
			w.start()
		case 1:
			h.Paused = !h.Paused
			w.hooks.put(h)
		case 2:
			h.ParallelCalls = 1 + rnd.IntN(9)
			w.hooks.put(h)
		case 3:
			h.OrderBy = []string{"", ".v", "header:Content-Type"}[rnd.IntN(3)]
			w.hooks.put(h)
		case 4:
			h.Batch = []string{"SINGLE", "SINGLE", "SECOND", "MINUTE"}[rnd.IntN(4)]
			w.hooks.put(h)
		case 5:
			fail := error(nil)
			if rnd.IntN(2) == 0 {
				fail = hub.E(hub.Unavailable, "down")
			}
			w.store.lock.Lock()
			w.store.fail = fail
			w.store.lock.Unlock()
		case 6:
			if len(all) > 0 {
				p := all[rnd.IntN(len(all))]
				if _, err := w.m.Replay(w.t.Context(), "w", webhook.Range{Keys: []string{p}}); err == nil {
					asked[p]++
				}
			}
		}
	}
	w.store.lock.Lock()
	w.store.fail = nil
	w.store.lock.Unlock()
	h.Paused, h.Batch = false, "SINGLE"
	w.hooks.put(h)
	time.Sleep(30 * time.Minute)
	mu.Lock()
	defer mu.Unlock()
	for _, p := range all {
		if took[p] == 0 {
			w.t.Errorf("%s was left out", p)
		}
	}
	for p, n := range asked {
		if took[p] < 1+min(n, 1) {
			w.t.Errorf("%s was asked for again %d times and came %d times", p, n, took[p])
		}
	}
	l := w.live()
	w.want("cursor", l.Cursor, all[len(all)-1])
	w.want("left over", fmt.Sprint(l.State.InFlight, l.State.Finished, l.State.Replay), "[] [] []")
	if w.m.sessionOf("w").ledger.workers != 0 {
		w.t.Error("workers without work")
	}
}

// TestNodes: of several nodes one leads each webhook. When it stops, or loses its session, another goes on where it was: nothing is left out, attempts are
// counted on.
func TestNodes(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { nodes(t, rand.New(rand.NewPCG(seed, 9))) })
		})
	}
}

func nodes(t *testing.T, rnd *rand.Rand) {
	w := newWorld(t)
	w.opt.FirstPause = 20 * time.Millisecond
	var mu sync.Mutex
	luck, took := rand.New(rand.NewPCG(rnd.Uint64(), 2)), map[string]int{}
	w.consumer.set(func(ctx context.Context, c call, _ int) deliver.Outcome {
		mu.Lock()
		d, fails := time.Duration(luck.IntN(30))*time.Millisecond, luck.IntN(3) == 0
		mu.Unlock()
		hub.Sleep(ctx, d)
		mu.Lock()
		defer mu.Unlock()
		if fails {
			return status(503)
		}
		took[c.hook+c.path]++
		return accepted
	})
	type node struct {
		session *local.Coordinator
		m       *Manager
		stop    func()
	}
	all := make([]node, 3)
	start := func(i int) {
		s := w.local.Session(fmt.Sprint(i))
		opt := w.opt
		cursors, err := coord.NewCursors(coord.CursorsOptions{Registers: s, Prefix: webhook.CursorPrefix})
		if err != nil {
			t.Fatal(err)
		}
		opt.Leases, opt.Cursors = s, cursors
		m, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var group sync.WaitGroup
		group.Go(func() { _ = s.Run(ctx) })
		group.Go(func() { _ = m.Run(ctx) })
		all[i] = node{s, m, func() { cancel(); group.Wait() }}
	}
	for i := range all {
		start(i)
	}
	defer func() {
		for _, n := range all {
			n.stop()
		}
	}()
	hooks := []string{"w0", "w1", "w2"}
	for i, name := range hooks {
		w.put(func(h *webhook.Webhook) { h.Name, h.ParallelCalls, h.MaxAttempts = name, 1+2*i, 0 })
	}
	var paths []string
	for range 300 {
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
		for range rnd.IntN(3) {
			paths = append(paths, w.store.add("c", "{}").String())
		}
		switch i := rnd.IntN(3); rnd.IntN(12) {
		case 0:
			all[i].stop()
			start(i)
		case 1:
			w.local.Cut(all[i].session)
			time.Sleep(time.Second)
			w.local.Mend(all[i].session)
		}
	}
	time.Sleep(10 * time.Minute)
	mu.Lock()
	defer mu.Unlock()
	for _, name := range hooks {
		leads := 0
		for i, n := range all {
			if l, ok := n.m.Live(t.Context(), name); ok {
				leads++
				w.want("cursor", l.Cursor, paths[len(paths)-1])
				w.want("in flight", len(l.State.InFlight), 0)
			} else if n.m.sessionOf(name) != nil {
				t.Error("node", i)
			}
		}
		w.want("leaders of "+name, leads, 1)
		for _, p := range paths {
			if took[name+p] == 0 {
				t.Errorf("%s was left out of %s", p, name)
			}
		}
	}
}

// TestBalance: a node that comes later gets its share, and then there is peace; one that goes leaves its own to the others.
func TestBalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const hooks = 60
		for i := range hooks {
			w.put(func(h *webhook.Webhook) { h.Name = fmt.Sprint("w", i) })
		}
		var nodes [3]*Manager
		var stops [3]func()
		start := func(i int) {
			s := w.local.Session(fmt.Sprint(i))
			cursors, err := coord.NewCursors(coord.CursorsOptions{Registers: s, Prefix: webhook.CursorPrefix})
			if err != nil {
				t.Fatal(err)
			}
			opt := w.opt
			opt.Leases, opt.Cursors, opt.Members, opt.Node = s, cursors, s, fmt.Sprint(i)
			if nodes[i], err = New(opt); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var group sync.WaitGroup
			group.Go(func() { _ = nodes[i].Run(ctx) })
			stops[i] = func() { cancel(); group.Wait(); w.local.Cut(s) }
		}
		leads := func() (n []int) {
			for _, m := range nodes {
				if m != nil {
					n = append(n, len(m.Running()))
				}
			}
			return n
		}
		start(0)
		time.Sleep(time.Second)
		w.want("alone", leads(), []int{60})
		start(1)
		start(2)
		time.Sleep(10 * time.Minute)
		before := fmt.Sprint(leads())
		for i, n := range leads() {
			if n < 14 || n > 22 {
				t.Errorf("node %d leads %d of %d", i, n, hooks)
			}
		}
		time.Sleep(10 * time.Minute)
		w.want("no more moves", leads(), before)
		stops[1]()
		nodes[1] = nil
		time.Sleep(10 * time.Minute)
		w.want("nodes", len(leads()), 2)
		if n := leads(); n[0]+n[1] != hooks || n[0] < 27 || n[1] < 27 {
			t.Errorf("two nodes lead %v", n)
		}
		stops[0]()
		stops[2]()
	})
}

// TestLives removes, makes and moves a webhook over and over: after Stop no call of an earlier life comes any more, and each life delivers what lies after its
// start.
func TestLives(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) { lives(w, rand.New(rand.NewPCG(seed, 11))) })
		})
	}
}

func lives(w *world, rnd *rand.Rand) {
	w.consumer.set(func(ctx context.Context, _ call, n int) deliver.Outcome {
		hub.Sleep(ctx, 7*time.Millisecond)
		if n%3 == 1 {
			return status(500)
		}
		return accepted
	})
	h := w.put(nil)
	all := w.adds(1)
	for life := range 60 {
		for range rnd.IntN(4) {
			all = append(all, w.adds(1)...)
		}
		if rnd.IntN(3) == 0 {
			w.hooks.remove("w")
			if rnd.IntN(2) == 0 {
				if err := w.m.Stop(w.t.Context(), "w"); err != nil {
					w.t.Fatal(err)
				}
				if w.m.sessionOf("w") != nil {
					w.t.Fatal("what was removed runs")
				}
				before := len(w.consumer.all())
				time.Sleep(time.Duration(rnd.IntN(2)) * time.Second)
				w.want("calls", len(w.consumer.all()), before)
				if err := w.cursors.Delete(w.t.Context(), "w"); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		h.Born, h.Start, h.ParallelCalls = fmt.Sprint(life), all[rnd.IntN(len(all))], 1+rnd.IntN(3)
		h.CallbackURL = "http://consumer/" + h.Born
		w.hooks.put(h)
		if err := w.m.Stop(w.t.Context(), "w"); err != nil {
			w.t.Fatal(err)
		}
		before := len(w.consumer.all())
		time.Sleep(time.Duration(rnd.IntN(50)) * time.Millisecond)
		for _, c := range w.consumer.all()[before:] {
			if c.url != h.CallbackURL {
				w.t.Errorf("a call of another life: %s in %s", c.url, h.CallbackURL)
			}
		}
	}
	time.Sleep(10 * time.Minute)
	seen := map[string]bool{}
	for _, c := range w.consumer.all() {
		if c.url == h.CallbackURL {
			if c.path <= h.Start {
				w.t.Errorf("%s lies before the start %s", c.path, h.Start)
			}
			seen[c.path] = true
		}
	}
	for _, p := range all {
		if p > h.Start && !seen[p] {
			w.t.Errorf("%s was left out", p)
		}
	}
	w.want("cursor", w.live().Cursor, all[len(all)-1])
}
