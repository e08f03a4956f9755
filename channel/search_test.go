package channel_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/channel/channeltest"
	"timehub/hub"
)

// filled has ten items 0…9, one a second; of those 0–5 are archived, 0–3 only there; the floor is at 4.
func filled(t *testing.T, config string) (*house, *hub.Channel, []hub.Key) {
	t.Helper()
	h := open(t)
	ch := h.put("x", config)
	var keys []hub.Key
	for i := range 10 {
		keys = append(keys, h.insert(ch, fmt.Sprint(i)))
		h.clock.Add(time.Second)
	}
	h.long.Archive(ch, h.short.All("x")[:6]...)
	h.short.Sweep("x", keys[4])
	return h, ch, keys
}

func TestSearches(t *testing.T) {
	h, ch, k := filled(t, ``)
	before, after := hub.First(k[0].Time().Add(-time.Hour)), hub.Last(k[9].Time().Add(time.Hour))
	second := hub.WindowAt(k[5].Time(), hub.Second)
	for _, c := range []struct {
		q    channel.Search
		want string
		long bool // whether long-term storage may be asked
	}{
		{channel.Search{Kind: channel.Latest, N: 1}, "9", false},
		{channel.Search{Kind: channel.Latest, N: 6}, "4 5 6 7 8 9", false},
		{channel.Search{Kind: channel.Latest, N: 7}, "3 4 5 6 7 8 9", true},
		{channel.Search{Kind: channel.Latest, N: 100}, "0 1 2 3 4 5 6 7 8 9", true},
		{channel.Search{Kind: channel.Latest, N: 0}, "", false},
		{channel.Search{Kind: channel.Latest, N: -5}, "", false},
		{channel.Search{Kind: channel.Earliest, N: 3}, "0 1 2", true},
		{channel.Search{Kind: channel.Earliest, N: 5}, "0 1 2 3 4", true},
		{channel.Search{Kind: channel.Earliest, N: 100}, "0 1 2 3 4 5 6 7 8 9", true},
		{channel.Search{Kind: channel.Next, Key: k[4], N: 3}, "5 6 7", false},
		{channel.Search{Kind: channel.Next, Key: k[4], N: 3, Inclusive: true}, "4 5 6", false},
		{channel.Search{Kind: channel.Next, Key: k[2], N: 3}, "3 4 5", true},
		{channel.Search{Kind: channel.Next, Key: k[8], N: 3, Inclusive: true}, "8 9", false},
		{channel.Search{Kind: channel.Next, Key: k[9], N: 3}, "", false},
		{channel.Search{Kind: channel.Next, Key: after, N: 3}, "", false},
		{channel.Search{Kind: channel.Next, Key: before, N: 2, Inclusive: true}, "0 1", true},
		{channel.Search{Kind: channel.Next, Key: k[4], N: 0}, "", false},
		{channel.Search{Kind: channel.Previous, Key: k[9], N: 3}, "6 7 8", false},
		{channel.Search{Kind: channel.Previous, Key: k[9], N: 3, Inclusive: true}, "7 8 9", false},
		{channel.Search{Kind: channel.Previous, Key: k[5], N: 3}, "2 3 4", true},
		{channel.Search{Kind: channel.Previous, Key: k[2], N: 3}, "0 1", true},
		{channel.Search{Kind: channel.Previous, Key: k[0], N: 3}, "", true},
		{channel.Search{Kind: channel.Previous, Key: before, N: 3}, "", true},
		{channel.Search{Kind: channel.Previous, Key: after, N: 2, Inclusive: true}, "8 9", false},
		{channel.Search{Kind: channel.InWindow, Window: second}, "5", false},
		{channel.Search{Kind: channel.InWindow, Window: second.Next()}, "6", false},
		{channel.Search{Kind: channel.InWindow, Window: hub.WindowAt(k[5].Time(), hub.Day)}, "0 1 2 3 4 5 6 7 8 9", true},
		{channel.Search{Kind: channel.InWindow, Window: hub.WindowAt(before.Time(), hub.Minute)}, "", true},
		{channel.Search{Kind: channel.Latest, N: 9, Tier: hub.Cache}, "4 5 6 7 8 9", false},
		{channel.Search{Kind: channel.Latest, N: 9, Tier: hub.CacheRead}, "", false},
		{channel.Search{Kind: channel.Latest, N: 9, Tier: hub.LongTerm}, "0 1 2 3 4 5", true},
		{channel.Search{Kind: channel.Latest, N: 2, Tier: hub.LongTermBatch}, "4 5", true},
		{channel.Search{Kind: channel.Latest, N: 2, Tier: hub.LongTermSingle}, "", true},
		{channel.Search{Kind: channel.Next, Key: k[3], N: 9, Tier: hub.CacheWrite}, "4 5 6 7 8 9", false},
	} {
		for _, stable := range []bool{false, true} {
			c.q.Stable = stable
			asked := h.long.Asked()
			if got := h.find(ch, c.q); got != c.want {
				t.Errorf("%+v: %q, want %q", c.q, got, c.want)
			}
			if !c.long && h.long.Asked() != asked {
				t.Errorf("%+v: long-term storage was asked", c.q)
			}
		}
	}
}

func TestClampedCount(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.MaxCount = 3 })
	ch := h.put("x", ``)
	for i := range 5 {
		h.insert(ch, fmt.Sprint(i))
	}
	for _, kind := range []channel.Kind{channel.Latest, channel.Earliest} {
		if got := h.find(ch, channel.Search{Kind: kind, N: 1e9}); len(strings.Fields(got)) != 3 {
			t.Errorf("%v: %q", kind, got)
		}
	}
}

func TestPinnedItemsBelowTheFloor(t *testing.T) {
	h, ch, k := filled(t, ``)
	h.short.SetFloor("x", k[8]) // the log still has 4–7, of which 6 and 7 are nowhere else
	for want, q := range map[string]channel.Search{
		"0 1 2 3 4 5 6 7 8 9": {Kind: channel.Earliest, N: 100},
		"3 4 5":               {Kind: channel.Next, Key: k[2], N: 3},
		"5 6 7 8":             {Kind: channel.Next, Key: k[4], N: 4},
		"5 6 7":               {Kind: channel.Previous, Key: k[8], N: 3},
		"2 3 4 5 6 7 8 9":     {Kind: channel.Latest, N: 8},
	} {
		if got := h.find(ch, q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
}

func TestFailingStores(t *testing.T) {
	h, ch, k := filled(t, ``)
	away := hub.E(hub.Unavailable, "away")
	h.long.Fail(away)
	for q, want := range map[channel.Search]string{
		{Kind: channel.Latest, N: 3}:                  "7 8 9",
		{Kind: channel.Latest, N: 9}:                  "! unavailable",
		{Kind: channel.Earliest, N: 1}:                "! unavailable",
		{Kind: channel.Next, Key: k[1], N: 2}:         "! unavailable",
		{Kind: channel.Next, Key: k[5], N: 2}:         "6 7",
		{Kind: channel.Latest, N: 9, Tier: hub.Cache}: "4 5 6 7 8 9",
	} {
		if got := h.find(ch, q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	if got := h.bodies(ch, h.Items(ctx, hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey, Reverse: true, Limit: 99})); got != "9 8 7 6 5 4 ! unavailable" {
		t.Errorf("items: %q", got)
	}
	if got := h.read(ch, k[5], channel.GetOptions{}); got != "5" {
		t.Errorf("an item of the log: %q", got)
	}
	if got := h.read(ch, k[0], channel.GetOptions{}); got != "! unavailable" {
		t.Errorf("an item of long-term storage: %q", got)
	}
	h.long.Fail(nil)
	h.short.Fail(away)
	for _, q := range []channel.Search{{Kind: channel.Latest, N: 3}, {Kind: channel.Earliest, N: 1}, {Kind: channel.Earliest, N: 1, Stable: true}, {Kind: channel.InWindow, Window: hub.WindowAt(k[0].Time(), hub.Day)}} {
		if got := h.find(ch, q); got != "! unavailable" {
			t.Errorf("%+v: %q", q, got)
		}
	}
	if got := h.find(ch, channel.Search{Kind: channel.Earliest, N: 2, Tier: hub.LongTerm}); got != "0 1" {
		t.Errorf("long-term storage alone: %q", got)
	}
	if got := h.read(ch, k[0], channel.GetOptions{}); got != "0" {
		t.Errorf("an item of long-term storage while the log is away: %q", got)
	}
	if got := h.read(ch, k[3], channel.GetOptions{}) + h.read(ch, hub.NewKey(k[3].Time(), "no"), channel.GetOptions{}); got != "3! unavailable" {
		t.Errorf("nobody can say that it is not there: %q", got)
	}
	if got := h.read(ch, k[9], channel.GetOptions{}); got != "! unavailable" {
		t.Errorf("an item of the log while it is away: %q", got)
	}
}

func TestStable(t *testing.T) {
	h, ch, k := filled(t, ``)
	h.short.Hold(&k[6])
	for q, want := range map[channel.Search]string{
		{Kind: channel.Latest, N: 2, Stable: true}:                                                          "5 6",
		{Kind: channel.Latest, N: 2}:                                                                        "8 9",
		{Kind: channel.Next, Key: k[5], N: 9, Stable: true}:                                                 "6",
		{Kind: channel.Next, Key: k[7], N: 9, Stable: true}:                                                 "",
		{Kind: channel.Previous, Key: k[9], N: 2, Stable: true}:                                             "5 6",
		{Kind: channel.InWindow, Window: hub.WindowAt(k[0].Time(), hub.Day), Stable: true}:                  "0 1 2 3 4 5 6",
		{Kind: channel.InWindow, Window: hub.WindowAt(k[0].Time(), hub.Day), Stable: true, Tier: hub.Cache}: "4 5 6",
	} {
		if got := h.find(ch, q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	a, err := h.Find(ctx, ch, channel.Search{Kind: channel.Latest, N: 1, Stable: true})
	if err != nil || a.Horizon != k[6] || !a.Until.Equal(k[6].Time()) {
		t.Errorf("%+v %v", a, err)
	}
	if a, err = h.Find(ctx, ch, channel.Search{Kind: channel.Latest, N: 1}); err != nil || !a.Until.Equal(a.Now) || a.Horizon != k[6] {
		t.Errorf("%+v %v", a, err)
	}
	now, stable, err := h.Stable(ctx, ch)
	if err != nil || !stable.Equal(k[6].Time()) || !now.Equal(h.clock.Now()) {
		t.Errorf("%v %v %v", now, stable, err)
	}
	if hz, err := h.Horizon(ctx, "X"); err != nil || hz != k[6] {
		t.Errorf("%v %v", hz, err)
	}
}

func TestFixedHorizon(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.Horizon = hub.Horizon{Seconds: 5} })
	ch := h.put("x", ``)
	k := h.insert(ch, "a")
	latest := channel.Search{Kind: channel.Latest, N: 1, Stable: true}
	if got := h.find(ch, latest); got != "" {
		t.Errorf("at once: %q", got)
	}
	if got := h.read(ch, k, channel.GetOptions{}); got != "a" {
		t.Errorf("an item is readable at once: %q", got)
	}
	h.clock.Set(k.Time().Truncate(time.Second).Add(6*time.Second - 20*time.Millisecond))
	if got := h.find(ch, latest); got != "" {
		t.Errorf("before the whole second: %q", got)
	}
	h.clock.Set(k.Time().Truncate(time.Second).Add(6 * time.Second))
	if got := h.find(ch, latest); got != "a" {
		t.Errorf("6 s later: %q", got)
	}
	now, stable, err := h.Stable(ctx, ch)
	if err != nil || stable.Nanosecond() != 0 || now.Sub(stable) < 5*time.Second || now.Sub(stable) >= 6*time.Second {
		t.Errorf("%v %v %v", now, stable, err)
	}
}

func TestRetention(t *testing.T) {
	h, ch, k := filled(t, `{"ttlDays":1}`)
	h.clock.Set(k[3].Time().AddDate(0, 0, 1).Add(-100 * time.Millisecond)) // the store moves it on by some milliseconds
	if got := h.find(ch, channel.Search{Kind: channel.Earliest, N: 100}); got != "3 4 5 6 7 8 9" {
		t.Errorf("just before the TTL: %q", got)
	}
	h.clock.Add(200 * time.Millisecond)
	if got := h.find(ch, channel.Search{Kind: channel.Earliest, N: 100}); got != "4 5 6 7 8 9" {
		t.Errorf("past the TTL: %q", got)
	}
	if got := h.read(ch, k[3], channel.GetOptions{}); got != "3" {
		t.Errorf("an item in its grace: %q", got)
	}
	a, err := h.Find(ctx, ch, channel.Search{Kind: channel.Next, Key: k[0], N: 1})
	oldest := ch.OldestAllowed(h.clock.Now(), time.Time{})
	if err != nil || a.Start.Hash() != "0" || a.Start.Time().After(oldest.Add(time.Second)) || a.Start.Time().Before(k[3].Time()) || len(a.Keys) != 1 || a.Keys[0] != k[4] {
		t.Errorf("the start is not moved: %v %v", a, err)
	}
	if a, err = h.Find(ctx, ch, channel.Search{Kind: channel.Previous, Key: k[6], N: 5}); err != nil || a.Start != k[6] || len(a.Keys) != 2 {
		t.Errorf("%v %v", a, err)
	}
	if a, err = h.Find(ctx, ch, channel.Search{Kind: channel.Previous, Key: k[1], N: 5}); err != nil || a.Start.Hash() != "0" || len(a.Keys) != 0 {
		t.Errorf("%v %v", a, err)
	}
	if got := h.find(ch, channel.Search{Kind: channel.InWindow, Window: hub.WindowAt(k[0].Time(), hub.Second)}); got != "" {
		t.Errorf("a window past the TTL: %q", got)
	}
}

func TestEpochs(t *testing.T) {
	h := open(t)
	ch := h.put("x", `{"mutableTime":"2026-01-01"}`)
	when := func(day int) time.Time { return time.Date(2020, 1, day, 0, 0, 0, 0, time.UTC) }
	k1, k2, k3 := h.insertAt(ch, when(1), "a", "1"), h.insertAt(ch, when(2), "a", "2"), h.insertAt(ch, ch.MutableTime, "a", "3")
	ancient := h.insertAt(ch, time.Date(12, 1, 1, 0, 0, 0, 0, time.UTC), "a", "0")
	k4, k5 := h.insert(ch, "4"), h.insert(ch, "5")
	check := func(label string, asks map[channel.Search]string) {
		t.Helper()
		for q, want := range asks {
			for _, q.Stable = range []bool{true, false} {
				if got := h.find(ch, q); got != want {
					t.Errorf("%s: %+v: %q, want %q", label, q, got, want)
				}
			}
		}
	}
	year := hub.WindowAt(when(1), hub.Day)
	asks := map[channel.Search]string{
		{Kind: channel.Earliest, N: 9}:                                         "4 5",
		{Kind: channel.Latest, N: 9}:                                           "4 5",
		{Kind: channel.Latest, N: 1, Epoch: hub.Mutable}:                       "3",
		{Kind: channel.Latest, N: 9, Epoch: hub.Mutable}:                       "0 1 2 3",
		{Kind: channel.Earliest, N: 2, Epoch: hub.Mutable}:                     "0 1",
		{Kind: channel.Latest, N: 1, Epoch: hub.AllEpochs}:                     "5",
		{Kind: channel.Latest, N: 3, Epoch: hub.AllEpochs}:                     "3 4 5",
		{Kind: channel.Earliest, N: 5, Epoch: hub.AllEpochs}:                   "0 1 2 3 4",
		{Kind: channel.Earliest, N: 9, Epoch: hub.AllEpochs}:                   "0 1 2 3 4 5",
		{Kind: channel.Next, Key: k1, N: 2, Epoch: hub.Mutable}:                "2 3",
		{Kind: channel.Next, Key: k1, N: 9, Epoch: hub.Mutable}:                "2 3",
		{Kind: channel.Next, Key: k2, N: 2, Epoch: hub.AllEpochs}:              "3 4",
		{Kind: channel.Next, Key: k1, N: 9}:                                    "4 5",
		{Kind: channel.Previous, Key: k5, N: 2, Epoch: hub.AllEpochs}:          "3 4",
		{Kind: channel.Previous, Key: k5, N: 2}:                                "4",
		{Kind: channel.Previous, Key: k2, N: 9, Epoch: hub.Mutable}:            "0 1",
		{Kind: channel.InWindow, Window: year}:                                 "",
		{Kind: channel.InWindow, Window: year, Epoch: hub.Mutable}:             "1",
		{Kind: channel.InWindow, Window: year, Epoch: hub.AllEpochs}:           "1",
		{Kind: channel.Latest, N: 9, Epoch: hub.AllEpochs, Tier: hub.Cache}:    "4 5",
		{Kind: channel.Latest, N: 9, Epoch: hub.AllEpochs, Tier: hub.LongTerm}: "0 1 2 3",
	}
	check("as made", asks)
	if h.read(ch, ancient, channel.GetOptions{}) != "0" || h.read(ch, k4, channel.GetOptions{}) != "4" {
		t.Error("items of both epochs")
	}
	a, err := h.Find(ctx, ch, channel.Search{Kind: channel.Next, Key: k1, N: 1})
	if err != nil || a.Start != hub.NewKey(ch.MutableTime.Add(time.Millisecond), "0") {
		t.Errorf("immutable start %v %v", a.Start, err)
	}
	if a, err = h.Find(ctx, ch, channel.Search{Kind: channel.Next, Key: ancient, N: 1, Epoch: hub.AllEpochs}); err != nil || a.Start != ancient {
		t.Errorf("start over all epochs %v %v", a.Start, err)
	}

	// Moved back, what lies between becomes immutable, wherever it lies.
	ch = h.put("x", `{"mutableTime":"2020-01-01"}`)
	h.short.SetFloor("x", hub.MinKey)
	check("moved back", map[channel.Search]string{
		{Kind: channel.Earliest, N: 9}:                     "2 3 4 5",
		{Kind: channel.Latest, N: 3}:                       "3 4 5",
		{Kind: channel.Next, Key: k2, N: 1}:                "3",
		{Kind: channel.Latest, N: 9, Epoch: hub.Mutable}:   "0 1",
		{Kind: channel.Latest, N: 9, Epoch: hub.AllEpochs}: "0 1 2 3 4 5",
	})
	if h.read(ch, k3, channel.GetOptions{}) != "3" {
		t.Error("an item between")
	}
	wantErr(t, h.DeleteAt(ctx, ch, k3), hub.NotAllowed, "")
	ch = h.put("x", `{"mutableTime":""}`) // gets 120 days
	check("cleared", map[channel.Search]string{{Kind: channel.Earliest, N: 9}: "3 4 5", {Kind: channel.Latest, N: 9, Epoch: hub.Mutable}: "3 4 5"})
}

func TestItemsThatBecameMutable(t *testing.T) {
	h := open(t)
	ch := h.put("x", ``)
	var k []hub.Key
	for i := range 5 {
		k = append(k, h.insert(ch, fmt.Sprint(i)))
		h.clock.Add(time.Second)
	}
	ch = h.put("x", `{"mutableTime":"`+hub.ISO(k[3].Time())+`","ttlDays":0,"storage":"SINGLE"}`)
	mutable := channel.Search{Kind: channel.Latest, N: 9, Epoch: hub.Mutable}
	if got := h.find(ch, mutable); got != "0 1 2 3" {
		t.Errorf("in the log alone: %q", got)
	}
	h.long.Archive(ch, h.short.All("x")[:2]...)
	h.insertAt(ch, k[2].Time(), k[2].Hash(), "new")
	if got := h.find(ch, mutable); got != "0 1 new 3" {
		t.Errorf("long-term storage is right where both have a key: %q", got)
	}
	if got := h.read(ch, k[2], channel.GetOptions{}) + h.read(ch, k[3], channel.GetOptions{}); got != "new3" {
		t.Errorf("read: %q", got)
	}
	for i := range 3 {
		if err := h.DeleteAt(ctx, ch, k[i]); err != nil {
			t.Fatal(err)
		}
		if got := h.read(ch, k[i], channel.GetOptions{}); got != "! not found" {
			t.Errorf("deleted, but in the log: %q", got)
		}
	}
	for q, want := range map[channel.Search]string{
		mutable: "3",
		{Kind: channel.Latest, N: 1, Epoch: hub.Mutable}:     "3",
		{Kind: channel.Earliest, N: 1, Epoch: hub.Mutable}:   "3",
		{Kind: channel.Earliest, N: 2, Epoch: hub.AllEpochs}: "3 4",
		{Kind: channel.Latest, N: 9}:                         "4",
	} {
		if got := h.find(ch, q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	h.insertAt(ch, k[0].Time(), k[0].Hash(), "back")
	if got := h.find(ch, mutable) + " " + h.read(ch, k[0], channel.GetOptions{}); got != "back 3 back" {
		t.Errorf("written again: %q", got)
	}
}

func TestTags(t *testing.T) {
	h := open(t)
	b := h.put("b", `{"tags":["t","u"]}`)
	a := h.put("A", `{"tags":["t"]}`)
	h.put("c", `{"tags":["T"],"mutableTime":"2020-01-01"}`)
	var first hub.Key
	for i := range 6 {
		ch := a
		if i%2 == 1 {
			ch = b
		}
		if k := h.insert(ch, fmt.Sprint(i)); i == 0 {
			first = k
		}
		h.clock.Add(time.Second)
	}
	// The same key in both channels.
	twin := hub.KeyAt(h.clock.Now().UnixMilli(), "twin")
	sealed := func(s string) hub.Sealed { return hub.Sealed{Key: twin, Data: h.short.All("b")[0].Data} }
	if err := h.short.WriteKeyed(ctx, "b", sealed("b")); err != nil {
		t.Fatal(err)
	}
	if err := h.short.WriteKeyed(ctx, "A", sealed("a")); err != nil {
		t.Fatal(err)
	}
	h.clock.Add(time.Second)

	if tags, err := h.Tags(ctx); err != nil || fmt.Sprint(tags) != "[T historical t u]" {
		t.Errorf("%v %v", tags, err)
	}
	list, err := h.TagChannels(ctx, "t")
	if err != nil || len(list) != 2 || list[0].Name != "A" || list[1].Name != "b" {
		t.Errorf("%v %v", list, err)
	}
	show := func(q channel.Search) string {
		t.Helper()
		ans, err := h.FindTagged(ctx, "t", q)
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, hit := range ans.Hits {
			s = append(s, hit.Channel.Name+hit.Key.Hash()[:2]+fmt.Sprint(hit.Key.Time().Sub(first.Time()).Round(time.Second).Seconds()))
		}
		for _, order := range []hub.Order{hub.Ascending, hub.Descending} {
			head, items, err := h.StreamTagged(ctx, "t", q, order)
			if err != nil {
				t.Fatal(err)
			}
			var got []channel.Tagged
			for i, err := range items {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, channel.Tagged{Channel: i.Channel, Key: i.Key})
			}
			if len(got) != len(ans.Hits) || (q.Kind != channel.InWindow) != (len(head.Hits) == len(got) && len(got) > 0) && len(got) > 0 {
				t.Errorf("%+v: %d items, %d hits", q, len(got), len(ans.Hits))
				continue
			}
			for i := range got {
				at := i
				if order == hub.Descending {
					at = len(got) - 1 - i
				}
				if got[i] != ans.Hits[at] {
					t.Errorf("%+v, order %v: item %d is %v, want %v", q, order, i, got[i], ans.Hits[at])
				}
			}
		}
		return strings.Join(s, " ")
	}
	for q, want := range map[channel.Search]string{
		{Kind: channel.Earliest, N: 2}:                                         "A000 b001",
		{Kind: channel.Latest, N: 3}:                                           "b005 Atw6 btw6",
		{Kind: channel.Latest, N: 1}:                                           "btw6",
		{Kind: channel.Latest, N: 0}:                                           "",
		{Kind: channel.Next, Key: first, N: 2}:                                 "b001 A002",
		{Kind: channel.Previous, Key: twin, N: 2}:                              "A004 b005",
		{Kind: channel.Previous, Key: twin, N: 1, Inclusive: true}:             "btw6",
		{Kind: channel.InWindow, Window: hub.WindowAt(first.Time(), hub.Hour)}: "A000 b001 A002 b003 A004 b005 Atw6 btw6",
	} {
		if got := show(q); got != want {
			t.Errorf("%+v: %s, want %s", q, got, want)
		}
	}
	if ans, err := h.FindTagged(ctx, "nobody", channel.Search{Kind: channel.Latest, N: 5}); err != nil || len(ans.Hits) != 0 {
		t.Errorf("an unknown tag: %v %v", ans, err)
	}
	f, err := h.GetTagged(ctx, "t", twin, channel.GetOptions{})
	if err != nil || f.Channel.Name != "A" {
		t.Errorf("%+v %v", f, err)
	}
	_, err = h.GetTagged(ctx, "u", first, channel.GetOptions{})
	wantErr(t, err, hub.NotFound, "tag")
	h.short.Fail(hub.E(hub.Unavailable, "away"))
	_, err = h.FindTagged(ctx, "t", channel.Search{Kind: channel.Latest, N: 5})
	wantErr(t, err, hub.Unavailable, "")
	_, err = h.GetTagged(ctx, "t", twin, channel.GetOptions{})
	wantErr(t, err, hub.Unavailable, "")
}

func TestQueriesByName(t *testing.T) {
	h, _, k := filled(t, ``)
	page, err := h.Keys(ctx, hub.Query{Channel: "X", From: k[6], To: hub.MaxKey, Limit: 2, Stable: true})
	if err != nil || len(page.Keys) != 2 || page.Keys[0] != k[6] || !page.More || page.Horizon.Less(k[9]) {
		t.Errorf("%+v %v", page, err)
	}
	if page, err = h.Keys(ctx, hub.Query{Channel: "x", From: k[8], To: hub.MaxKey, Limit: 2}); err != nil || len(page.Keys) != 2 || page.More {
		t.Errorf("%+v %v", page, err)
	}
	_, err = h.Keys(ctx, hub.Query{Channel: "nobody", To: hub.MaxKey})
	wantErr(t, err, hub.NotFound, "nobody not found")
	for _, err := range h.Items(ctx, hub.Query{Channel: "nobody", To: hub.MaxKey}) {
		wantErr(t, err, hub.NotFound, "nobody not found")
	}
	wake, stop := h.Watch("X")
	defer stop()
	ch, _ := h.Channel(ctx, "x")
	h.insert(ch, "new")
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		t.Error("no wake-up")
	}
}

// swept is a short-term store that is swept in the moment in which it is asked.
type swept struct {
	*channeltest.Short
	at   hub.Key
	long *channeltest.Long
	ch   *hub.Channel
}

func (s *swept) sweep() {
	if !s.at.IsZero() {
		s.long.Archive(s.ch, s.Short.All(s.ch.Name)...)
		s.Sweep(s.ch.Name, s.at)
		s.at = hub.Key{}
	}
}

func (s *swept) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	s.sweep()
	return s.Short.Keys(ctx, q)
}

func (s *swept) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		s.sweep()
		s.Short.Items(ctx, q)(yield)
	}
}

func (s *swept) Read(ctx context.Context, ch string, k hub.Key) (hub.Sealed, error) {
	s.sweep()
	return s.Short.Read(ctx, ch, k)
}

func TestSweepDuringAQuery(t *testing.T) {
	var s *swept
	h := open(t, func(o *channel.Options) { s = &swept{Short: o.Short.(*channeltest.Short)}; o.Short = s })
	s.long, s.ch = h.long, h.put("x", ``)
	var k []hub.Key
	for i := range 9 {
		k = append(k, h.insert(s.ch, fmt.Sprint(i)))
	}
	sweeps := 0
	for _, q := range []hub.Query{
		{From: hub.MinKey, To: hub.MaxKey},
		{From: hub.MinKey, To: hub.MaxKey, Reverse: true},
		{From: hub.MinKey, To: hub.MaxKey, Reverse: true, Limit: 9},
		{From: hub.MinKey, To: hub.MaxKey, Limit: 9},
		{From: k[0], To: k[8].After()},
		{From: k[0], To: k[8].After(), Reverse: true, Limit: 12},
	} {
		q.Channel = "x"
		for _, at := range []hub.Key{k[1], k[5], hub.MaxKey} {
			for _, items := range []bool{true, false} {
				h.short.Sweep("x", hub.MinKey)
				if err := h.short.WriteKeyed(ctx, "x", h.long.Both(s.ch)...); err != nil {
					t.Fatal(err)
				}
				h.short.SetFloor("x", k[0])
				s.at = at
				n := 0
				if items {
					for _, err := range h.Items(ctx, q) {
						if err != nil {
							t.Fatal(err)
						}
						n++
					}
				} else {
					page, err := h.Keys(ctx, q)
					if err != nil {
						t.Fatal(err)
					}
					n = len(page.Keys)
				}
				sweeps++
				if n != 9 || !s.at.IsZero() {
					t.Errorf("%+v, swept to %s, items %v: %d of 9", q, at, items, n)
				}
			}
		}
	}
	h.short.Sweep("x", hub.MinKey)
	if err := h.short.WriteKeyed(ctx, "x", h.long.Both(s.ch)...); err != nil {
		t.Fatal(err)
	}
	s.at = hub.MaxKey
	if got := h.read(s.ch, k[4], channel.GetOptions{}); got != "4" {
		t.Errorf("read %q", got)
	}
	if sweeps != 36 {
		t.Error(sweeps)
	}
}

func TestDamagedItems(t *testing.T) {
	h, ch, k := filled(t, ``) // 4 and 5 are in both stores, 6–9 in the log only
	damaged := errors.New("bad checksum")
	h.short.Break(k[5], damaged)
	all := hub.Query{Channel: "x", From: k[4], To: hub.MaxKey}
	down := all
	down.Reverse, down.Limit = true, 6
	if got := h.bodies(ch, h.Items(ctx, all)) + " / " + h.bodies(ch, h.Items(ctx, down)); got != "4 5 6 7 8 9 / 9 8 7 6 5 4" {
		t.Errorf("items %q", got)
	}
	if got := h.read(ch, k[5], channel.GetOptions{}); got != "5" {
		t.Errorf("read %q", got)
	}
	h.short.Break(k[7], damaged)
	if got := h.bodies(ch, h.Items(ctx, all)) + " / " + h.bodies(ch, h.Items(ctx, down)); got != "4 5 6 ! unavailable / 9 8 ! unavailable" {
		t.Errorf("items %q", got)
	}
	all.Tier = hub.Cache
	if got := h.bodies(ch, h.Items(ctx, all)); got != "4 ! unavailable" {
		t.Errorf("the log alone: %q", got)
	}
}

// A clock that is set back does not take back what was shown as stable, in this start of the hub or in the next one.
func TestFixedHorizonDoesNotGoBack(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.Horizon = hub.Horizon{Seconds: 5} })
	ch := h.put("x", `{}`)
	var shown hub.Key
	look := func(h *house) {
		t.Helper()
		k, err := h.Horizon(ctx, "x")
		if err != nil || k.Less(shown) {
			t.Fatalf("the horizon went back from %v to %v, %v", shown, k, err)
		}
		shown = k
	}
	for range 10 {
		h.insert(ch, "a")
		h.clock.Add(time.Second)
		look(h)
	}
	now := h.clock.Now()
	h.clock.Set(now.Add(-3 * time.Second))
	look(h)
	again := open(t, func(o *channel.Options) {
		o.Horizon, o.Short, o.Catalog, o.Clock = hub.Horizon{Seconds: 5}, h.short, h.catalog, h.clock.Now
	})
	again.clock = h.clock
	held := hub.Last(now) // the clock of the store survives a start
	h.short.Hold(&held)
	look(again)
	h.clock.Set(now.Add(time.Minute))
	h.short.Hold(nil)
	before := shown
	if look(again); !before.Less(shown) {
		t.Errorf("the horizon stays at %v", shown)
	}
}

// An answer with bodies says at its head how many stores are silent, or it ends with an error: what it lacks is never left out without a word.
func TestStreamOfSilentStores(t *testing.T) {
	h, ch, keys := filled(t, `{"tags": ["t"]}`)
	for _, q := range []channel.Search{
		{Kind: channel.Latest, N: 3}, {Kind: channel.InWindow, Window: hub.WindowAt(keys[7].Time(), hub.Second)},
	} {
		stream := func() (silent int, read func() (int, error)) {
			t.Helper()
			a, items, err := h.Stream(t.Context(), ch, q, hub.Ascending)
			b, tagged, err2 := h.StreamTagged(t.Context(), "t", q, hub.Ascending)
			if err = errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if a.Silent != b.Silent {
				t.Errorf("%+v: %d stores are silent, by its tag %d", q, a.Silent, b.Silent)
			}
			return a.Silent, func() (n int, failed error) {
				for _, err := range items {
					if err != nil {
						failed = err
						break
					}
					n++
				}
				m := 0
				for _, err := range tagged {
					if (err == nil) == (failed != nil) {
						t.Errorf("%+v: %v, by its tag %v", q, failed, err)
					}
					m++
				}
				if failed == nil && m != n {
					t.Errorf("%+v: %d items, by its tag %d", q, n, m)
				}
				return n, failed
			}
		}
		h.short.Hush(0)
		silent, read := stream()
		if n, err := read(); silent != 0 || n == 0 || err != nil {
			t.Errorf("%+v: all answer: %d are silent, %d items, %v", q, silent, n, err)
		}
		_, read = stream()
		h.short.Hush(2)
		if n, err := read(); n != 0 || !hub.Is(err, hub.Unavailable) {
			t.Errorf("%+v: they fell silent behind the head: %d items, %v", q, n, err)
		}
		silent, read = stream()
		if n, err := read(); silent != 2 || n == 0 || err != nil {
			t.Errorf("%+v: the head says it: %d are silent, %d items, %v", q, silent, n, err)
		}
	}
}
