package run

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
)

// TestPeriods: one call per closed period, in order, with its items or as a heartbeat, none twice and none left out.
func TestPeriods(t *testing.T) {
	for _, batch := range []string{"second", "MINUTE"} {
		t.Run(batch, func(t *testing.T) {
			inWorld(t, func(w *world) {
				h := w.put(func(h *webhook.Webhook) { h.Batch = batch })
				unit := h.Unit()
				items := map[string][]string{}
				began := time.Now()
				for i := range 10 {
					if i%3 != 1 {
						for range i {
							p := w.store.add("c", "{}").String()
							k, _ := hub.ParseKey(p)
							at := hub.WindowAt(k.Time(), unit).String()
							items[at] = append(items[at], p)
							time.Sleep(time.Millisecond)
						}
					}
					time.Sleep(unit.Duration())
				}
				calls := w.consumer.all()
				if len(calls) < 10 || len(calls) > 11 {
					t.Fatalf("%d calls", len(calls))
				}
				at := hub.WindowAt(began, unit)
				for _, c := range calls {
					w.want("period", c.path, at)
					w.want("items of "+c.path, c.uris, items[c.path])
					kind := "items"
					if len(c.uris) == 0 {
						kind = "heartbeat"
					}
					w.want("kind", c.kind, kind)
					if late := c.at.Sub(at.End()); late < 0 || late > 100*time.Millisecond {
						t.Errorf("%s was called %v after its end", c.path, late)
					}
					at = at.Next()
				}
				l := w.live()
				w.want("last", l.State.Last, calls[len(calls)-1].path)
				w.want("cursor", l.Cursor, at.From())
			})
		})
	}
}

// TestPeriodFromItem: with an item as the cursor, the first period is that of the item, with the later ones only; a period as the cursor of a webhook for
// items means what comes after its end.
func TestPeriodFromItem(t *testing.T) {
	inWorld(t, func(w *world) {
		paths := w.adds(4)
		time.Sleep(5 * time.Second)
		w.put(func(h *webhook.Webhook) { h.Batch, h.Start = "SECOND", paths[1] })
		time.Sleep(10 * time.Millisecond)
		calls := w.consumer.all()
		w.want("calls", len(calls), 5)
		w.want("first", calls[0].uris, paths[2:])
		w.want("second", calls[1].kind, "heartbeat")
	})
	inWorld(t, func(w *world) {
		w.adds(3)
		time.Sleep(2 * time.Second)
		later := w.adds(2)
		k, _ := hub.ParseKey(later[0])
		start := hub.WindowAt(k.Time(), hub.Second).Previous().String()
		w.put(func(h *webhook.Webhook) { h.Start = start })
		synctest.Wait()
		w.want("calls", w.consumer.paths(), later)
	})
}

// TestPeriodRetry: a period that fails is called again with the same items, also after a restart; its age counts from its end.
func TestPeriodRetry(t *testing.T) {
	inWorld(t, func(w *world) {
		paths := w.adds(3)
		w.put(func(h *webhook.Webhook) { h.Batch, h.Start, h.TTLMinutes = "MINUTE", paths[0], 10 })
		w.consumer.set(always(status(500)))
		time.Sleep(90 * time.Second)
		w.stop()
		l := w.live()
		w.want("in flight", len(l.State.InFlight), 1)
		w.want("path", l.State.InFlight[0].Path, "2000/01/01/00/00")
		w.consumer.set(nil)
		w.start()
		synctest.Wait()
		calls := w.consumer.all()
		if len(calls) < 3 {
			t.Fatal("not called again")
		}
		for _, c := range calls {
			w.want("items", c.uris, paths[1:])
		}
		w.want("number", w.diary.list()[len(w.diary.list())-1].Number, len(calls))
	})
}

// TestPeriodsParallel: with parallelCalls, periods that hang hold up others no more than items do.
func TestPeriodsParallel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.Batch, h.ParallelCalls = "SECOND", 3 })
		first := ""
		w.consumer.set(func(ctx context.Context, c call, n int) deliver.Outcome {
			w.mu.Lock()
			if first == "" {
				first = c.path
			}
			hangs := first == c.path
			w.mu.Unlock()
			if hangs {
				hub.Sleep(ctx, 100*time.Second)
			}
			return accepted
		})
		time.Sleep(8500 * time.Millisecond)
		l := w.live()
		w.want("in flight", len(l.State.InFlight), 1)
		w.want("finished", len(l.State.Finished), 7)
		w.stop() // breaks off the one
		w.start()
		time.Sleep(30 * time.Second)
		paths := w.consumer.paths()
		w.want("twice", w.consumer.count(first), 2)
		slices.Sort(paths)
		if n := len(slices.Compact(paths)); n != len(w.consumer.all())-1 {
			t.Errorf("%d calls for %d periods", len(w.consumer.all()), n)
		}
	})
}

// TestSilence: a long silence is called for second by second, and costs a few looks at the store; what it ends with is not overlooked.
func TestSilence(t *testing.T) {
	inWorld(t, func(w *world) {
		start := hub.WindowAt(time.Now(), hub.Second).Previous().String()
		time.Sleep(time.Hour)
		paths := w.adds(2)
		time.Sleep(time.Hour)
		before := w.store.asked()
		w.put(func(h *webhook.Webhook) { h.Batch, h.Start = "SECOND", start })
		time.Sleep(900 * time.Millisecond)
		if n := w.store.asked() - before; n > 20 {
			t.Errorf("%d queries", n)
		}
		w.want("calls", len(w.consumer.all()), 7200)
		w.want("items", w.consumer.all()[3600].uris, paths)
	})
}

// TestFastForward: more than four minutes behind, whole minutes come; from the minute that is not over on, seconds.
func TestFastForward(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(30 * time.Second)
		paths := w.adds(2)
		start := hub.WindowAt(time.Now(), hub.Second).Previous().String()
		time.Sleep(5*time.Minute - 10*time.Second)
		w.put(func(h *webhook.Webhook) { h.Batch, h.FastForwardable, h.Start = "SECOND", true, start })
		time.Sleep(10 * time.Millisecond)
		var got []string
		for _, c := range w.consumer.all() {
			got = append(got, strings.TrimPrefix(c.path, "2000/01/01/00/"))
		}
		want := []string{"00", "01", "02", "03", "04"}
		for i := range 20 {
			want = append(want, fmt.Sprintf("05/%02d", i))
		}
		w.want("calls", got, want)
		w.want("items", w.consumer.all()[0].uris, paths)
	})
	inWorld(t, func(w *world) { // not so far behind, or not wanted
		start := hub.WindowAt(time.Now(), hub.Second).Previous().String()
		time.Sleep(3 * time.Minute)
		w.put(func(h *webhook.Webhook) { h.Batch, h.FastForwardable, h.Start = "SECOND", true, start })
		time.Sleep(10 * time.Millisecond)
		w.want("calls", len(w.consumer.all()), 180)
	})
}

// TestPeriodChannelGone: a webhook for periods ends its heartbeats with its channel.
func TestPeriodChannelGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.Batch = "SECOND" })
		time.Sleep(5 * time.Second)
		w.store.drop("c")
		synctest.Wait()
		before := len(w.consumer.all())
		time.Sleep(time.Hour)
		w.want("calls", len(w.consumer.all()), before)
		w.store.create("c")
		time.Sleep(time.Second)
		if n := len(w.consumer.all()) - before; n < 3599 {
			t.Errorf("%d heartbeats after an hour", n)
		}
	})
}

// TestBatchChanged: a webhook that was for items, with some of them done, becomes one for periods, and back, and leaves out nothing.
func TestBatchChanged(t *testing.T) {
	inWorld(t, func(w *world) {
		h := w.put(func(h *webhook.Webhook) { h.ParallelCalls = 4 })
		var stuck atomic.Pointer[string]
		stuck.Store(new(string))
		w.consumer.set(func(_ context.Context, c call, _ int) deliver.Outcome {
			if c.path == *stuck.Load() {
				return status(500)
			}
			return accepted
		})
		paths := w.adds(1)
		stuck.Store(&paths[0])
		paths = append(paths, w.adds(5)...)
		time.Sleep(3 * time.Second)
		h.Batch = "SECOND"
		w.hooks.put(h)
		time.Sleep(time.Second)
		seen := map[string]bool{}
		for _, c := range w.consumer.all() {
			for _, u := range c.uris {
				if c.kind == "items" {
					seen[u] = true
				}
			}
		}
		for _, p := range paths {
			if !seen[p] {
				t.Errorf("%s was left out", p)
			}
		}
		h.Batch = "SINGLE"
		w.hooks.put(h)
		more := w.adds(3)
		synctest.Wait()
		all := w.consumer.paths()
		w.want("calls", all[len(all)-3:], more)
	})
}

// TestReplay: what is asked for comes once more beside what is new, marked, with its own attempts; what is left of it survives a restart.
func TestReplay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		paths := w.adds(10)
		synctest.Wait()
		to, _ := hub.ParseKey(paths[8])
		w.consumer.set(func(_ context.Context, c call, n int) deliver.Outcome {
			if c.path == paths[6] && n < 3 {
				return status(503)
			}
			return accepted
		})
		for _, r := range []webhook.Range{{Keys: []string{paths[9], paths[1]}}, {From: paths[4], To: to.String()}} {
			if n, err := w.m.Replay(w.t.Context(), "w", r); err != nil || n < 1 {
				t.Fatal(n, err)
			}
		}
		synctest.Wait()
		w.want("calls", w.consumer.paths()[10:], []string{paths[9], paths[1], paths[4], paths[5], paths[6]})
		l := w.live()
		w.want("cursor", l.Cursor, paths[9])
		w.want("in flight", l.State.InFlight, []webhook.Flight{{Path: paths[6], Attempts: 1}})
		w.stop()
		w.start()
		fresh := w.adds(2)
		time.Sleep(time.Minute)
		got := w.consumer.paths()[15:]
		for _, p := range []string{paths[6], paths[7], fresh[0], fresh[1]} {
			if !slices.Contains(got, p) {
				t.Errorf("%s is missing in %v", p, got)
			}
		}
		if slices.Contains(got, paths[8]) || slices.Contains(got, paths[9]) {
			t.Error("more than was asked for:", got)
		}
		l = w.live()
		w.want("left", len(l.State.Replay), 0)
		w.want("cursor", l.Cursor, fresh[1])
		again, number := 0, 0
		for _, a := range w.diary.list() {
			if a.Replay {
				again++
			}
			if a.Path == paths[6] {
				number = a.Number
			}
		}
		w.want("marked", again, 8)
		w.want("number", number, 3)
		before := len(w.consumer.all())
		w.stop()
		w.start()
		time.Sleep(time.Minute)
		w.want("calls", len(w.consumer.all()), before)
	})
}

// TestReplayFails: what is delivered again and fails holds up nothing new, also with parallelCalls 1, and comes through in the end; ttlMinutes counts from when it
// began.
func TestReplayFails(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.TTLMinutes = 10 })
		old := w.adds(2)
		time.Sleep(time.Hour)
		var open atomic.Bool
		w.consumer.set(func(ctx context.Context, c call, _ int) deliver.Outcome {
			hub.Sleep(ctx, 10*time.Millisecond)
			if c.path == old[0] && !open.Load() || c.path == old[1] {
				return status(503)
			}
			return accepted
		})
		if _, err := w.m.Replay(w.t.Context(), "w", webhook.Range{Keys: old}); err != nil {
			t.Fatal(err)
		}
		for range 300 { // a consumer that is never idle
			w.adds(30)
		}
		w.want("at the same time", w.consumer.atOnce(), 1)
		if n := w.consumer.count(old[0]); n < 3 {
			t.Errorf("%d attempts", n)
		}
		time.Sleep(5 * time.Minute)
		l := w.live()
		w.want("in flight", l.State.InFlight, []webhook.Flight{{Path: old[0], Attempts: w.consumer.count(old[0]) - 1}})
		w.want("cursor", l.Cursor, w.store.items["c"][9001].key)
		open.Store(true)
		time.Sleep(2 * time.Minute)
		w.stop()
		w.start()
		time.Sleep(15 * time.Minute)
		l = w.live()
		w.want("left", fmt.Sprint(l.State.InFlight, l.State.Replay), "[] []")
		last := l.State.Errors[len(l.State.Errors)-1]
		w.want("given up", last.Path+" "+last.Text[:21], old[1]+" is before webhook ttl")
		w.want("workers", w.m.sessionOf("w").ledger.workers, 0)
	})
}

// TestReplayPaused: what is asked of a paused webhook waits for it.
func TestReplayPaused(t *testing.T) {
	inWorld(t, func(w *world) {
		h := w.put(nil)
		paths := w.adds(3)
		synctest.Wait()
		h.Paused = true
		w.hooks.put(h)
		synctest.Wait()
		if _, err := w.m.Replay(w.t.Context(), "w", webhook.Range{Keys: paths[:2]}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.want("calls", len(w.consumer.all()), 3)
		h.Paused = false
		w.hooks.put(h)
		synctest.Wait()
		w.want("calls", w.consumer.paths()[3:], paths[:2])
	})
}

// TestReplayPeriods: of a webhook for periods, the periods of what is asked for.
func TestReplayPeriods(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.Batch = "SECOND" })
		paths := w.adds(1)
		time.Sleep(3 * time.Second)
		paths = append(paths, w.adds(2)...)
		time.Sleep(1500 * time.Millisecond)
		before := len(w.consumer.all())
		k, _ := hub.ParseKey(paths[0])
		for _, r := range []webhook.Range{{Keys: []string{"2000/01/01/00/00/01", paths[1]}}, {From: k.String()}} {
			if _, err := w.m.Replay(w.t.Context(), "w", r); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		w.want("calls", w.consumer.paths()[before:], []string{"2000/01/01/00/00/01", "2000/01/01/00/00/03", "2000/01/01/00/00/00", "2000/01/01/00/00/03"})
		w.want("items", w.consumer.all()[before+1].uris, paths[1:])
	})
}

// TestReplayBounds: nobody can queue without end, and what cannot be understood ends nothing.
func TestReplayBounds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		w.consumer.set(slow(time.Hour, accepted))
		w.adds(1)
		synctest.Wait()
		var err error
		n := 0
		for ; err == nil; n++ {
			_, err = w.m.Replay(w.t.Context(), "w", webhook.Range{From: "nonsense"})
		}
		if n != maxRanges+1 || !hub.Is(err, hub.TooMany) {
			t.Errorf("%d ranges, then %v", n, err)
		}
		if _, err := w.m.Replay(w.t.Context(), "other", webhook.Range{}); !hub.Is(err, hub.NotFound) {
			t.Errorf("an unknown webhook: %v", err)
		}
		w.consumer.set(nil)
		time.Sleep(2 * time.Hour)
		w.want("left", len(w.live().State.Replay), 0)
		p := w.adds(1)
		synctest.Wait()
		w.want("cursor", w.live().Cursor, p[0])
	})
}

// TestPayloadItems: bodies go along; of what is gone or too great, the address.
func TestPayloadItems(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.Payload, h.Start = webhook.Items, hub.KeyAt(0, "x").String() })
		w.store.add("c", `{"a":1}`)
		synctest.Wait()
		w.store.add("c", strings.Repeat("x", deliver.MaxInline+1))
		synctest.Wait()
		calls := w.consumer.all()
		if !strings.Contains(calls[0].body, `"body":"{\"a\":1}"`) || len(calls) != 2 || len(calls[1].body) > 1000 {
			t.Errorf("%.300s", calls[0].body)
		}
	})
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.Payload, h.Batch = webhook.Items, "SECOND" })
		w.store.add("c", `{"a":1}`)
		w.store.add("c", `{"a":2}`)
		time.Sleep(2 * time.Second)
		c := w.consumer.all()[0]
		if !strings.Contains(c.body, `{\"a\":1}`) || !strings.Contains(c.body, `{\"a\":2}`) || len(c.uris) != 2 {
			t.Errorf("%.600s", c.body)
		}
	})
}

// TestGreatBodies: great bodies wait for one another, also those of an item that fails, and none is forgotten.
func TestGreatBodies(t *testing.T) {
	inWorld(t, func(w *world) {
		w.stop()
		w.opt.Memory = 1 // what two bodies of the greatest size take
		w.start()
		w.put(func(h *webhook.Webhook) { h.Payload, h.ParallelCalls = webhook.Items, 8 })
		w.consumer.set(func(ctx context.Context, _ call, n int) deliver.Outcome {
			hub.Sleep(ctx, time.Second)
			if n == 0 {
				return status(500)
			}
			return accepted
		})
		for range 6 {
			w.store.add("c", strings.Repeat("x", deliver.MaxInline))
		}
		time.Sleep(time.Minute)
		w.want("most", w.consumer.atOnce(), 1)
		w.want("calls", len(w.consumer.all()), 12)
		w.want("left", len(w.live().State.InFlight), 0)
		if !w.m.memory.TryAcquire(w.m.opt.Memory) {
			t.Error("some memory was not given back")
		}
	})
}
