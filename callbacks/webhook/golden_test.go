package webhook

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden fixes the forms that other versions of the program find in the bucket and in the coordinator; every member is set.
func TestGolden(t *testing.T) {
	w := &Webhook{
		Name: "printer", CallbackURL: "http://printer.example/cb", ChannelURL: "http://hub.example/channel/orders", TagURL: "http://hub.example/tag/t",
		ParallelCalls: 2, Paused: true, PausedReason: "410", Batch: "Minute", Heartbeat: true, TTLMinutes: 3, MaxWaitMinutes: 4, CallbackTimeoutSeconds: 5,
		MaxAttempts: 6, ErrorChannelURL: "http://hub.example/channel/e", FastForwardable: true, SecondaryMetricsReporting: true, ManagedByTag: "t",
		Prototype: "p", Revision: "r", Further: true, OrderBy: ".id", Payload: Items, Secret: "s1", PreviousSecret: "s2", Born: "b", Start: "2014/01/13/10/42",
	}
	s := &State{
		Born: "b", Last: "l", Finished: []string{"f"}, InFlight: []Flight{{Path: "i", Attempts: 2}}, Errors: []Line{{Time: 1, Path: "p", Text: "t"}},
		Replay: []Range{{From: "a", To: "b", Keys: []string{"k"}}},
	}
	for file, v := range map[string]any{"testdata/webhook.golden": w, "testdata/state.golden": s} {
		for i, f := 0, reflect.ValueOf(v).Elem(); i < f.NumField(); i++ {
			if f.Field(i).IsZero() {
				t.Errorf("%s says nothing of %s", file, f.Type().Field(i).Name)
			}
		}
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
		}
		back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := json.Unmarshal(want, back); err != nil || !reflect.DeepEqual(back, v) {
			t.Errorf("%s comes back as %+v, %v", file, back, err)
		}
	}
}
