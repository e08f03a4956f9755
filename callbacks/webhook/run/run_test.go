package run

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
)

// TestOrder: with parallelCalls 1, one item after the other, each once, what is new at once.
func TestOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		w.adds(3) // from before
		time.Sleep(time.Millisecond)
		w.put(nil)
		paths := w.adds(100)
		synctest.Wait()
		w.want("calls", w.consumer.paths(), paths)
		for i, c := range w.consumer.all() {
			if c.at.Sub(w.consumer.all()[0].at) != time.Duration(i)*time.Millisecond {
				t.Fatal("late")
			}
		}
		w.consumer.set(slow(time.Second, accepted))
		paths = append(paths, w.adds(50)...)
		time.Sleep(time.Minute)
		w.want("calls", w.consumer.paths(), paths)
		w.want("at the same time", w.consumer.atOnce(), 1)
		l := w.live()
		w.want("cursor", l.Cursor, paths[len(paths)-1])
		w.want("last", l.State.Last, paths[len(paths)-1])
		w.stop()
		w.want("stored", w.live(), l)
	})
}

// TestRetry: pauses double up to maxWaitMinutes, jitter only shortens, each failure is a line, nobody overtakes.
func TestRetry(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(nil)
		w.consumer.set(func(_ context.Context, _ call, n int) deliver.Outcome {
			if n < 8 {
				return status(503)
			}
			return accepted
		})
		paths := w.adds(1)
		w.adds(1)
		time.Sleep(3 * time.Second)
		l := w.live().State
		w.want("in flight", l.InFlight, []webhook.Flight{{Path: paths[0], Attempts: len(l.Errors)}})
		time.Sleep(time.Hour)
		calls := w.consumer.all()
		w.want("calls", len(calls), 18)
		most := []time.Duration{2, 4, 8, 16, 32, 60, 60, 60}
		for i, m := range most {
			d := calls[i+1].at.Sub(calls[i].at)
			if m *= time.Second; d > m || d < m/2 {
				t.Errorf("pause %d was %v", i, d)
			}
			w.want("path", calls[i].path, paths[0])
		}
		l = w.live().State
		w.want("lines", len(l.Errors), 10)
		w.want("text", l.Errors[9].Text, "503 Said So")
		w.want("in flight", len(l.InFlight), 0)
		time.Sleep(25 * time.Hour)
		w.want("lines", len(w.live().State.Errors), 0)
	})
}

// TestChannelGone: a webhook whose channel is missing waits without a stir, begins when it appears, and waits again when it was deleted.
func TestChannelGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(func(h *webhook.Webhook) { h.ChannelURL = "http://hub/channel/later" })
		before := w.store.asked()
		time.Sleep(time.Hour)
		w.want("queries", w.store.asked(), before)
		w.store.create("later")
		time.Sleep(time.Millisecond)
		k := w.store.add("later", "{}")
		synctest.Wait()
		w.want("calls", w.consumer.paths(), []string{k.String()})

		w.consumer.set(slow(time.Hour, accepted))
		time.Sleep(time.Millisecond)
		w.store.add("later", "{}")
		synctest.Wait()
		w.store.drop("later")
		time.Sleep(time.Minute)
		w.want("running", w.consumer.now(), 0)
		before = w.store.asked()
		time.Sleep(time.Hour)
		w.want("queries", w.store.asked(), before)
		w.hooks.remove("w")
		synctest.Wait()
		w.m.mu.Lock()
		defer w.m.mu.Unlock()
		w.want("hooks", len(w.m.hooks), 0)
	})
}
