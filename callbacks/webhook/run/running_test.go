package run

import (
	"context"
	"testing"
	"time"

	"timehub/callbacks/webhook"
)

// TestRunning: what runs here is listed; who yields runs it again when nobody else wants to, without a call too many.
func TestRunning(t *testing.T) {
	inWorld(t, func(w *world) {
		w.want("running", len(w.m.Running()), 0)
		began := time.Now()
		w.put(func(*webhook.Webhook) {})
		paths := w.adds(2)
		time.Sleep(time.Second)
		list := w.m.Running()
		if len(list) != 1 || list[0].Name != "w" || list[0].Last != paths[1] || list[0].Since.Before(began) {
			t.Fatalf("%+v", list)
		}
		if !w.m.Runs(w.t.Context(), "w") {
			t.Error("it does not run")
		}
		old := w.m.sessionOf("w")
		if err := w.m.Yield(w.t.Context(), "w"); err != nil {
			t.Fatal(err)
		}
		if w.m.sessionOf("w") == old {
			t.Error("it goes on")
		}
		if !w.m.Runs(w.t.Context(), "w") {
			t.Error("it does not run again")
		}
		paths = append(paths, w.adds(1)...)
		time.Sleep(time.Second)
		w.want("calls", w.consumer.paths(), paths)

		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if w.m.Runs(ctx, "none") {
			t.Error("what does not exist runs")
		}
		if err := w.m.Yield(w.t.Context(), "none"); err != nil {
			t.Error(err)
		}
	})
}
