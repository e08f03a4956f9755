package channel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"timehub/channel"
	"timehub/hub"
)

// TestChanged: who is told of changes hears of each when it is durable, also of one that changed nothing, and of none that was refused.
func TestChanged(t *testing.T) {
	var told []string
	var fail error
	var h *house
	describe := func(ch *hub.Channel) string {
		if ch == nil {
			return "nothing"
		}
		return fmt.Sprint(ch.Name, ch.Tags)
	}
	h = open(t, func(o *channel.Options) {
		o.Changed = func(ctx context.Context, before, after *hub.Channel) error {
			if _, err := h.Fresh(ctx, "orders"); (err == nil) != (after != nil) {
				t.Errorf("told before it was durable: %v", err)
			}
			told = append(told, describe(before)+" → "+describe(after))
			return fail
		}
	})
	want := func(lines ...string) {
		t.Helper()
		if !slices.Equal(told, lines) {
			t.Errorf("told %q, want %q", told, lines)
		}
		told = nil
	}
	patch := func(body string) channel.ChannelPatch {
		p, err := channel.ParsePatch([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	h.put("Orders", `{"tags":["a"]}`)
	want("nothing → Orders[a]")
	h.put("orders", `{"tags":["a"]}`)
	want("Orders[a] → Orders[a]")
	if _, err := h.PatchChannel(ctx, "orders", patch(`{"tags":[]}`), channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	want("Orders[a] → Orders[]")
	for _, err := range []error{
		func() error { _, err := h.CreateChannel(ctx, patch(`{"name":"orders"}`), channel.Caller{}); return err }(),
		func() error {
			_, _, err := h.PutChannel(ctx, "orders", patch(`{"ttlDays":-1}`), channel.Caller{})
			return err
		}(),
		func() error { _, err := h.PatchChannel(ctx, "none", patch(`{}`), channel.Caller{}); return err }(),
		h.DeleteChannel(ctx, "none", channel.Caller{}),
	} {
		if err == nil {
			t.Error("no error")
		}
	}
	want()
	fail = errors.New("made by the test")
	if err := h.DeleteChannel(ctx, "orders", channel.Caller{}); !errors.Is(err, fail) {
		t.Errorf("the error of who was told is not the answer: %v", err)
	}
	want("Orders[] → nothing")
	if _, err := h.CreateChannel(ctx, patch(`{"name":"orders","tags":["b"]}`), channel.Caller{}); !errors.Is(err, fail) {
		t.Errorf("%v", err)
	}
	want("nothing → orders[b]")
}
