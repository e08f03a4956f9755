package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/itchyny/gojq"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
	"timehub/hub/coord"
)

func always(o deliver.Outcome) func(context.Context, call, int) deliver.Outcome {
	return func(context.Context, call, int) deliver.Outcome { return o }
}

// TestMaxAttempts: exactly N calls, no pause after the last, then the error channel is told, and the next one is called.
func TestMaxAttempts(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.MaxAttempts, h.ErrorChannelURL = 3, "http://hub/channel/errors" })
		w.consumer.set(always(status(503)))
		w.tell = func(n int) error {
			if n < 3 {
				return hub.E(hub.Unavailable, "not now")
			}
			return nil
		}
		began := time.Now()
		paths := w.adds(2)
		time.Sleep(time.Minute)
		w.want("calls", w.consumer.paths(), []string{paths[0], paths[0], paths[0], paths[1], paths[1], paths[1]})
		calls := w.consumer.all()
		if d := calls[3].at.Sub(calls[2].at); d > time.Second {
			t.Errorf("paused %v after the last attempt", d)
		}
		l := w.live()
		w.want("cursor", l.Cursor, paths[1])
		w.want("lines", len(l.State.Errors), 8)
		last := l.State.Errors[3]
		w.want("line", last.Path+" "+last.Text, paths[0]+" max attempts reached (3)")
		w.want("errors", len(w.errors), 2)
		channel, body, _ := strings.Cut(w.errors[0], " ")
		w.want("channel", channel, "errors")
		at := hub.ISO(time.UnixMilli(last.Time))
		w.want("body", body, `{"webhookUrl":"http://hub/webhook/w","failedItemUrl":"http://hub/channel/c/`+paths[0]+`","callbackUrl":"http://consumer/",`+
			`"numberOfAttempts":3,"lastAttemptTime":"`+at+`","lastAttemptError":"max attempts reached (3)","lastDeliveryError":"503 Said So"}`)
		if time.UnixMilli(last.Time).Sub(began) > 10*time.Second {
			t.Error("given up late")
		}
	})
}

// TestErrorChannelGone: who cannot be told does not hold up the rest.
func TestErrorChannelGone(t *testing.T) {
	for name, why := range map[string]error{"gone": hub.E(hub.NotFound, "no such channel"), "down": hub.E(hub.Unavailable, "down")} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put(func(h *webhook.Webhook) { h.MaxAttempts, h.ErrorChannelURL = 1, "http://hub/channel/errors" })
				w.tell = func(int) error { return why }
				w.consumer.set(always(status(500)))
				paths := w.adds(2)
				time.Sleep(30 * time.Second)
				if name == "down" {
					w.want("in flight", w.live().State.InFlight, []webhook.Flight{{Path: paths[0], Attempts: 1}})
				}
				time.Sleep(3 * time.Minute)
				w.want("calls", w.consumer.paths(), paths)
				w.want("cursor", w.live().Cursor, paths[1])
			})
		})
	}
}

// TestTTL: what is too old for the webhook or the channel is given up before it is called, also between two attempts.
func TestTTL(t *testing.T) {
	inWorld(t, func(w *world) {
		old := w.adds(1)
		time.Sleep(90 * time.Second)
		start := hub.KeyAt(0, "x").String()
		w.put(func(h *webhook.Webhook) {
			h.TTLMinutes, h.Start, h.ErrorChannelURL = 1, start, "http://hub/channel/errors"
		})
		young := w.adds(1)
		synctest.Wait()
		w.want("calls", w.consumer.paths(), young)
		w.consumer.set(always(status(500)))
		third := w.adds(1)
		time.Sleep(3 * time.Minute)
		l := w.live()
		w.want("cursor", l.Cursor, third[0])
		first, last := l.State.Errors[0], l.State.Errors[len(l.State.Errors)-1]
		w.want("first", first.Path+" "+first.Text[:24], old[0]+" is before webhook ttl 20")
		w.want("last", last.Path+" "+last.Text[:21], third[0]+" is before webhook ttl")
		var said failure
		_, body, _ := strings.Cut(w.errors[0], " ")
		if err := json.Unmarshal([]byte(body), &said); err != nil || said.NumberOfAttempts != 0 || said.LastDeliveryError != "" || said.LastAttemptError != first.Text {
			t.Errorf("the error channel was told %s", body)
		}

		w.hooks.remove("w")
		w.put(func(h *webhook.Webhook) { h.Start, h.Born = start, "2" })
		w.store.lock.Lock()
		ch := w.store.channels["c"].Clone()
		ch.TTLDays = 1
		w.store.channels["c"] = ch
		w.store.lock.Unlock()
		w.store.tell("c")
		time.Sleep(25 * time.Hour)
		l = w.live()
		w.want("cursor", l.Cursor, third[0])
	})
}

// TestChannelAnew: what was in flight of a channel that was deleted is given up when a channel of that name is there again; its items are not called for.
func TestChannelAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.ParallelCalls = 2 })
		w.consumer.set(always(status(500)))
		old := w.adds(1)
		time.Sleep(10 * time.Second)
		w.store.drop("c")
		time.Sleep(time.Second)
		before := len(w.consumer.all())
		w.consumer.set(nil)
		w.store.lock.Lock()
		w.store.channels["c"] = &hub.Channel{Name: "c", CreationDate: time.Now(), Since: time.Now().UnixMilli()}
		w.store.lock.Unlock()
		w.store.tell("c")
		synctest.Wait()
		fresh := w.adds(1)
		synctest.Wait()
		w.want("calls", w.consumer.paths()[before:], fresh)
		l := w.live()
		last := l.State.Errors[len(l.State.Errors)-1]
		w.want("given up", last.Path+" "+last.Text[:21], old[0]+" is before channel ttl")
		w.want("cursor", l.Cursor, fresh[0])
	})
}

// TestEndless: numbers without measure mean for ever, not the opposite.
func TestEndless(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) {
			h.MaxWaitMinutes, h.TTLMinutes, h.MaxAttempts = math.MaxInt, math.MaxInt, math.MaxInt
		})
		w.consumer.set(always(status(500)))
		w.adds(1)
		time.Sleep(20 * 365 * 24 * time.Hour)
		calls := w.consumer.all()
		if n := len(calls); n < 25 || n > 60 {
			t.Errorf("%d calls in twenty years", n)
		}
	})
}

// TestRetryAfter: what the consumer asks for holds, up to maxWaitMinutes.
func TestRetryAfter(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.MaxWaitMinutes = 2 })
		asked := []time.Duration{7 * time.Second, time.Hour, time.Second}
		w.consumer.set(func(_ context.Context, _ call, n int) deliver.Outcome {
			if n == len(asked) {
				return accepted
			}
			o := status(429)
			o.RetryAfter = asked[n]
			return o
		})
		w.adds(1)
		time.Sleep(time.Hour)
		calls := w.consumer.all()
		w.want("calls", len(calls), 4)
		for i, d := range []time.Duration{7 * time.Second, 2 * time.Minute, time.Second} {
			w.want("pause", calls[i+1].at.Sub(calls[i].at), d)
		}
	})
}

// TestGone: 410 pauses with a reason, keeps the item in flight, and resuming goes on with it.
func TestGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		w.consumer.set(always(status(410)))
		paths := w.adds(2)
		time.Sleep(time.Hour)
		w.want("calls", w.consumer.paths(), paths[:1])
		h, _ := w.hooks.Get(w.t.Context(), "w")
		w.want("paused", fmt.Sprint(h.Paused, " ", h.PausedReason), "true the consumer answered 410 Said So")
		l := w.live().State
		w.want("in flight", l.InFlight, []webhook.Flight{{Path: paths[0], Attempts: 1}})
		w.want("lines", len(l.Errors), 1)
		w.consumer.set(nil)
		n := *h
		n.Paused, n.PausedReason = false, ""
		w.hooks.put(n)
		synctest.Wait()
		w.want("calls", w.consumer.paths(), []string{paths[0], paths[0], paths[1]})
		w.want("number", w.diary.list()[1].Number, 2)
	})
}

// TestGoneCannotPause: 410 is a failure like others while the webhook cannot be paused.
func TestGoneCannotPause(t *testing.T) {
	inWorld(t, func(w *world) {
		w.stop()
		w.opt.Pause = func(context.Context, string, string, string) error { return errors.New("the catalog is away") }
		w.start()
		w.put(nil)
		w.consumer.set(func(_ context.Context, _ call, n int) deliver.Outcome { return status([]int{410, 410, 200}[n]) })
		w.adds(1)
		time.Sleep(time.Minute)
		w.want("calls", len(w.consumer.all()), 3)
	})
}

// TestPause: no calls while paused, none lost; a call on its way may end.
func TestPause(t *testing.T) {
	inWorld(t, func(w *world) {
		h := w.put(nil)
		w.consumer.set(slow(2*time.Second, accepted))
		paths := w.adds(1)
		synctest.Wait()
		h.Paused = true
		w.hooks.put(h)
		time.Sleep(time.Minute)
		paths = append(paths, w.adds(3)...)
		time.Sleep(time.Hour)
		w.want("calls", w.consumer.paths(), paths[:1])
		w.want("cursor", w.live().Cursor, paths[0])
		h.Paused = false
		w.hooks.put(h)
		time.Sleep(time.Minute)
		w.want("calls", w.consumer.paths(), paths)
	})
}

// TestChange: new settings hold at once, also when the old consumer hangs or is waited for.
func TestChange(t *testing.T) {
	for name, answer := range map[string]func(context.Context, call, int) deliver.Outcome{
		"hangs": slow(time.Hour, accepted), "fails": always(status(500)),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				h := w.put(func(h *webhook.Webhook) { h.MaxWaitMinutes = 100 })
				w.consumer.set(func(ctx context.Context, c call, n int) deliver.Outcome {
					if c.url != "http://other/" {
						return answer(ctx, c, n)
					}
					return accepted
				})
				paths := w.adds(2)
				time.Sleep(10 * time.Minute)
				h.CallbackURL = "http://other/"
				w.hooks.put(h)
				time.Sleep(6 * time.Second)
				l := w.live()
				w.want("cursor", l.Cursor, paths[1])
				calls := w.consumer.all()
				w.want("paths", []string{calls[len(calls)-2].path, calls[len(calls)-1].path}, paths)
			})
		})
	}
}

// TestRestart: what is in flight, and its attempts, survive a stop of the node.
func TestRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.MaxAttempts, h.MaxWaitMinutes = 6, 10 })
		w.consumer.set(always(status(500)))
		paths := w.adds(1)
		for len(w.consumer.all()) < 4 {
			time.Sleep(time.Second)
		}
		w.stop()
		w.start()
		w.want("in flight", w.live().State.InFlight, []webhook.Flight{{Path: paths[0], Attempts: 5}}) // called again at once
		time.Sleep(time.Hour)
		w.want("calls", len(w.consumer.all()), 6)
		w.want("cursor", w.live().Cursor, paths[0])
		for i, a := range w.diary.list() {
			w.want("number", a.Number, i+1)
		}
	})
}

// TestStopGrace: a call that ends soon counts; one that does not is broken off and made again.
func TestStopGrace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		w.consumer.set(slow(3*time.Second, accepted))
		paths := w.adds(2)
		synctest.Wait()
		w.stop()
		w.want("cursor", w.live().Cursor, paths[0])
		w.want("calls", len(w.consumer.all()), 1)
		w.consumer.set(slow(time.Hour, accepted))
		w.start()
		began := time.Now()
		time.Sleep(time.Second)
		w.stop()
		if d := time.Since(began); d > 7*time.Second {
			t.Errorf("the stop took %v", d)
		}
		w.want("in flight", w.live().State.InFlight, []webhook.Flight{{Path: paths[1]}})
		w.want("failures", len(w.live().State.Errors), 0)
		w.consumer.set(nil)
		w.start()
		w.want("calls", w.consumer.paths(), []string{paths[0], paths[1], paths[1]})
	})
}

// TestMoved: a webhook that is put elsewhere while a call is on its way goes on there, and Stop tells when the old life is over.
func TestMoved(t *testing.T) {
	inWorld(t, func(w *world) {
		h := w.put(nil)
		paths := w.adds(5)
		synctest.Wait()
		newest := paths[4]
		w.consumer.set(func(ctx context.Context, c call, _ int) deliver.Outcome {
			if c.path > newest {
				hub.Sleep(ctx, time.Hour)
			}
			return accepted
		})
		paths = append(paths, w.adds(1)...)
		synctest.Wait()
		h.Born, h.Start = "2", paths[1]
		w.hooks.put(h)
		if err := w.m.Stop(w.t.Context(), "w"); err != nil {
			t.Fatal(err)
		}
		if l, ok := w.m.Live(w.t.Context(), "w"); ok && l.Born == "1" {
			t.Error("the old life goes on")
		}
		synctest.Wait()
		w.want("calls", w.consumer.paths(), append(slices.Clone(paths), paths[2:]...))
		w.want("cursor", w.live().Cursor, paths[4])
		h.Born, h.Start = "3", paths[3]
		w.hooks.put(h)
		synctest.Wait()
		w.stop()
		w.want("stored", w.live().Cursor, paths[4])
		w.want("born", w.live().Born, "3")
	})
}

// TestFenced: a leader whose lease was taken without its notice writes nothing any more, and the other one calls for what was not written.
func TestFenced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		w.adds(3)
		time.Sleep(time.Second)
		w.consumer.set(slow(30*time.Second, accepted))
		paths := w.adds(1)
		time.Sleep(time.Second)
		w.local.Steal("webhook/w")
		other := w.local.Session("other")
		lease, err := other.Acquire(w.t.Context(), "webhook/w")
		if err != nil {
			t.Fatal(err)
		}
		cursors, err := coord.NewCursors(coord.CursorsOptions{Registers: other, Prefix: webhook.CursorPrefix})
		if err != nil {
			t.Fatal(err)
		}
		c, err := cursors.Open(w.t.Context(), "w", lease.Fence())
		if err != nil {
			t.Fatal(err)
		}
		state, err := webhook.ParseState(c.Position().Payload)
		w.want("in flight", state.InFlight, []webhook.Flight{{Path: paths[0]}})
		w.want("error", err, nil)
		w.consumer.set(nil)
		before := c.Position()
		w.store.add("c", "{}")
		time.Sleep(time.Minute)
		after, err := cursors.Get(w.t.Context(), "w")
		if err != nil || after.Key != before.Key || after.Fence != lease.Fence() {
			t.Errorf("the old leader wrote: %v, %v", after, err)
		}
		if err := lease.Release(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.want("last", w.live().Cursor, w.store.items["c"][4].key)
	})
}

// TestQueryFailure: a store that fails for a while delays, and nothing else.
func TestQueryFailure(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		fail := func(err error) { w.store.lock.Lock(); w.store.fail = err; w.store.lock.Unlock() }
		fail(hub.E(hub.Unavailable, "no"))
		paths := w.adds(3)
		time.Sleep(10 * time.Second)
		w.want("calls", len(w.consumer.all()), 0)
		fail(nil)
		time.Sleep(10 * time.Second)
		w.want("calls", w.consumer.paths(), paths)
	})
}

// TestParallel: up to parallelCalls at the same time; one that fails holds up nobody until 1,000 are done above the cursor.
func TestParallel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.ParallelCalls = 4 })
		paths := w.adds(1)
		stuck := paths[0]
		var open atomic.Bool
		w.consumer.set(func(_ context.Context, c call, _ int) deliver.Outcome {
			if c.path == stuck && !open.Load() {
				return status(500)
			}
			return accepted
		})
		synctest.Wait()
		w.want("calls", len(w.consumer.all()), 1)
		for range 3000 {
			paths = append(paths, w.store.add("c", "{}").String())
		}
		time.Sleep(time.Minute)
		l := w.live()
		w.want("in flight", len(l.State.InFlight), 1)
		w.want("finished", len(l.State.Finished), webhook.MaxFinished-1)
		if l.Cursor.String() >= stuck {
			t.Error("the cursor has passed an item that is not done")
		}
		if b, err := l.State.Encode(); err != nil || len(b) > coord.MaxPayload {
			t.Errorf("the state has %d bytes, %v", len(b), err)
		}
		w.stop()
		w.start()
		open.Store(true)
		time.Sleep(2 * time.Minute)
		l = w.live()
		w.want("finished", len(l.State.Finished), 0)
		w.want("cursor", l.Cursor, paths[len(paths)-1])
		w.want("each once but the one", len(w.consumer.all())-w.consumer.count(stuck), 3000)
		for i, p := range paths { // begun in the order of the keys
			if i > 0 && w.consumer.count(p) != 1 {
				t.Fatal(p, w.consumer.count(p))
			}
		}
	})
}

// TestAtTheSameTime: parallelCalls calls run at once, no more.
func TestAtTheSameTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.ParallelCalls = 7 })
		w.consumer.set(slow(time.Second, accepted))
		for range 70 {
			w.store.add("c", "{}")
		}
		time.Sleep(9500 * time.Millisecond)
		w.want("running", w.consumer.now(), 7)
		time.Sleep(time.Second)
		w.want("most", w.consumer.atOnce(), 7)
		w.want("calls", len(w.consumer.all()), 70)
		w.want("cursor", w.live().Cursor, w.store.items["c"][69].key)
	})
}

// TestOrderBy: per value in order, others at the same time; one value that is stuck holds up the others only when 1,000 wait.
func TestOrderBy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.ParallelCalls, h.OrderBy = 4, ".v" })
		group := map[string]string{}
		add := func(v int) string {
			body := fmt.Sprintf(`{"v":%d}`, v)
			switch v {
			case 5:
				body = `{"v":null}`
			case 6:
				body = "no json"
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			k := w.store.add("c", body).String()
			group[k] = body
			if v >= 5 {
				group[k] = "none"
			}
			return k
		}
		var done []string
		running := map[string]bool{}
		open := make(chan struct{})
		w.consumer.set(func(ctx context.Context, c call, _ int) deliver.Outcome {
			w.mu.Lock()
			g := group[c.path]
			if running[g] {
				t.Errorf("two of %s at the same time", g)
			}
			running[g] = true
			w.mu.Unlock()
			if g == `{"v":0}` {
				<-open
			}
			hub.Sleep(ctx, time.Millisecond)
			w.mu.Lock()
			done = append(done, c.path)
			delete(running, g)
			w.mu.Unlock()
			return accepted
		})
		var all []string
		for i := range 700 {
			all = append(all, add(i%7))
		}
		count := func() int { w.mu.Lock(); defer w.mu.Unlock(); return len(done) }
		time.Sleep(time.Minute)
		w.want("done of others", count(), 600)
		for i := range 5000 {
			all = append(all, add(i%7))
		}
		time.Sleep(time.Minute)
		if n := count(); n < 800 || n > 1000 {
			t.Errorf("%d done while one value is stuck", n)
		}
		close(open)
		time.Sleep(time.Minute)
		w.want("calls", count(), len(all))
		w.mu.Lock()
		defer w.mu.Unlock()
		last := map[string]string{}
		for _, p := range done {
			if g := group[p]; p <= last[g] {
				t.Fatalf("%s of %s after %s", p, g, last[g])
			}
			last[group[p]] = p
		}
		w.want("cursor", w.live().Cursor, all[len(all)-1])
		s := w.m.sessionOf("w")
		w.want("lanes", len(s.ledger.lanes), 0)
	})
}

// TestOrderByRestart: items that waited for others of their value come too, in their order, when the node was stopped between; also when the webhook has
// no orderBy any more.
func TestOrderByRestart(t *testing.T) {
	for _, orderBy := range []string{".v", ""} {
		inWorld(t, func(w *world) {
			h := w.put(func(h *webhook.Webhook) { h.ParallelCalls, h.OrderBy = 4, ".v" })
			first := ""
			w.consumer.set(func(_ context.Context, c call, _ int) deliver.Outcome {
				if c.path == first {
					return status(500)
				}
				return accepted
			})
			var all []string
			w.consumer.mu.Lock() // nobody is answered before
			for i := range 20 {
				all = append(all, w.store.add("c", fmt.Sprintf(`{"v":%d}`, i%2)).String())
			}
			first = all[0]
			w.consumer.mu.Unlock()
			time.Sleep(10 * time.Second)
			w.want("finished", len(w.live().State.Finished), 10)
			w.stop()
			w.consumer.set(nil)
			h.OrderBy = orderBy
			w.hooks.put(h)
			before := len(w.consumer.all())
			w.start()
			time.Sleep(time.Second)
			var want []string
			for i := 0; i < len(all); i += 2 {
				want = append(want, all[i])
			}
			got := w.consumer.paths()[before:]
			if h.OrderBy == "" {
				slices.Sort(got)
			}
			w.want("calls", got, want)
			w.want("cursor", w.live().Cursor, all[19])
		})
	}
}

func TestOrderValues(t *testing.T) {
	for expression, want := range map[string]string{
		".a":       `"x"`,
		".b.c":     `[1,2.5,]`,
		".missing": "",
		".a.b":     "",
		"empty":    "",
		"error":    "",
		".a, .b":   `"x"`,
		"[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]|[.,.]": "long",
		"header:content-type":              "text/x",
		"Header: Content-Type":             "text/x",
		"$ENV.PATH":                        "",
		`"\(.a)-\(.b.c[0])"`:               `"x-1"`,
		"if .a == \"x\" then 1 else 2 end": "1",
	} {
		o, err := parseOrder(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		got := o.value(t.Context(), &deliver.Item{ContentType: "Text/X", Body: []byte(`{"a":"x","b":{"c":[1,2.5]}}`)})
		if want == "long" {
			if len(got) != maxValue {
				t.Errorf("a long value has %d bytes", len(got))
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
	}
	for _, wrong := range []string{".a[", "header:X-Other", "header:", "foo(1)", "import \"a\" as a; .", "$x", "input", "def f: f; f", "[range(1e12)]|length", `"x" * 1e9`, "[limit(300; repeat(.a))]", "reduce .[] as $x (.; .)", `.a |= "\("x"*3)"`} {
		if err := CheckOrderBy(wrong); !hub.Is(err, hub.Invalid) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// TestOrderTime: an expression that does not end is broken off, and after a few items it is not asked any more.
func TestOrderTime(t *testing.T) {
	query, err := gojq.Parse("[range(1e12)] | length")
	if err != nil {
		t.Fatal(err)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		t.Fatal(err)
	}
	o := &order{jq: code, limit: 10 * time.Millisecond}
	for i := range maxTimeouts + 3 {
		if v := o.value(t.Context(), &deliver.Item{Body: []byte("{}")}); v != "" {
			t.Errorf("item %d has the value %q", i, v)
		}
	}
	if o.jq != nil {
		t.Error("it is still asked")
	}
}
