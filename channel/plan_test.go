package channel

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"timehub/hub"
)

// Times in this table are milliseconds after base; the clock stands at 1,000,000.
var base = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

func at(ms int64) hub.Key { return hub.KeyAt(base.UnixMilli()+ms, "") }

func showSpan(s span) string {
	if s.empty() {
		return "-"
	}
	name := func(k hub.Key) string {
		switch {
		case k == hub.MinKey:
			return "min"
		case k == hub.MaxKey:
			return "max"
		}
		return fmt.Sprint(k.Millis()-base.UnixMilli()) + strings.ReplaceAll(k.Hash(), "\x00", "+")
	}
	return name(s.from) + ".." + name(s.to)
}

func TestPlan(t *testing.T) {
	now := base.Add(1000 * time.Second)
	day := int64(24 * 3600 * 1000)
	ordinary := &hub.Channel{Name: "o", TTLDays: 1}
	born := &hub.Channel{Name: "b", TTLDays: 1, Since: base.UnixMilli() + 100}
	historical := &hub.Channel{Name: "h", MutableTime: base.Add(500 * time.Second)}
	again := &hub.Channel{Name: "a", MutableTime: base.Add(500 * time.Second), Since: base.UnixMilli() + 700_000}
	moved := &hub.Channel{Name: "m", MutableTime: base.Add(100 * time.Second), Backfilled: base.UnixMilli() + 900_000}
	trimmed := &hub.Channel{Name: "t", TTLDays: 1, Trimmed: hub.KeyAt(base.UnixMilli()+350_000, "x").String()}
	all := hub.Query{From: hub.MinKey, To: hub.MaxKey}
	with := func(q hub.Query, f func(*hub.Query)) hub.Query { f(&q); return q }
	for _, c := range []struct {
		name  string
		ch    *hub.Channel
		q     hub.Query
		floor int64
		want  string // short|long of each leg
	}{
		{"everything reaches below the floor", ordinary, all, 400_000, fmt.Sprintf("%d..max|%d..400000", 1000_000-day, 1000_000-day)},
		{"above the floor long-term storage is not asked", ordinary, with(all, func(q *hub.Query) { q.From = at(400_000) }), 400_000, "400000..max|-"},
		{"a window across the floor", ordinary, with(all, func(q *hub.Query) { q.From, q.To = at(300_000), at(500_000) }), 400_000, "300000..500000|300000..400000"},
		{"a window below the floor", ordinary, with(all, func(q *hub.Query) { q.From, q.To = at(300_000), at(310_000) }), 400_000, "300000..310000|300000..310000"},
		{"stable ends at the cut", ordinary, with(all, func(q *hub.Query) { q.From, q.Stable = at(900_000), true }), 400_000, "900000..990000~+|-"},
		{"nothing above the cut", ordinary, with(all, func(q *hub.Query) { q.From, q.Stable = at(995_000), true }), 400_000, ""},
		{"epochs mean nothing to ordinary channels", ordinary, with(all, func(q *hub.Query) { q.From, q.Epoch = at(900_000), hub.Mutable }), 0, "900000..max|-"},
		{"the cache alone", ordinary, with(all, func(q *hub.Query) { q.Tier = hub.CacheWrite }), 400_000, fmt.Sprintf("%d..max|-", 1000_000-day)},
		{"the read cache is empty", ordinary, with(all, func(q *hub.Query) { q.Tier = hub.CacheRead }), 400_000, ""},
		{"long-term storage alone has all that is archived", ordinary, with(all, func(q *hub.Query) { q.Tier = hub.LongTermBatch }), 400_000, fmt.Sprintf("-|%d..max", 1000_000-day)},
		{"keys of a deleted channel are hidden", born, all, 400_000, "100..max|100..400000"},
		{"what maxItems has removed is hidden", trimmed, all, 400_000, "350000x..max|350000x..400000"},
		{"but not from the archiver", trimmed, with(all, func(q *hub.Query) { q.Tier = hub.CacheWrite }), 400_000, fmt.Sprintf("%d..max|-", 1000_000-day)},
		{"what may still be seen of it", trimmed, with(all, func(q *hub.Query) { q.From, q.To = at(300_000), at(360_000) }), 400_000, "350000x..360000|350000x..360000"},
		{"nothing of it", trimmed, with(all, func(q *hub.Query) { q.To = at(350_000) }), 400_000, ""},
		{"an empty range", ordinary, hub.Query{From: at(5), To: at(5)}, 0, ""},
		{"the zero key as start", ordinary, hub.Query{To: at(300_000)}, 0, fmt.Sprintf("%d..300000|%d..0", 1000_000-day, 1000_000-day)},

		{"immutable: above the mutable time", historical, all, 400_000, "500001..max|-"},
		{"immutable: below the floor too", historical, all, 600_000, "500001..max|500001..600000"},
		{"mutable", historical, with(all, func(q *hub.Query) { q.Epoch = hub.Mutable }), 400_000, fmt.Sprintf("%d..500001|min..500001", 1000_000-7*day)},
		{"mutable, floor above", historical, with(all, func(q *hub.Query) { q.Epoch = hub.Mutable }), 600_000, fmt.Sprintf("%d..500001|min..500001", 1000_000-7*day)},
		{"both epochs", historical, with(all, func(q *hub.Query) { q.Epoch = hub.AllEpochs }), 400_000, fmt.Sprintf("%d..500001|min..500001 500001..max|-", 1000_000-7*day)},
		{"mutable in the log alone", historical, with(all, func(q *hub.Query) { q.Epoch, q.Tier = hub.Mutable, hub.Cache }), 400_000, fmt.Sprintf("%d..500001|-", 1000_000-7*day)},
		{"a historical name used again", again, with(all, func(q *hub.Query) { q.Epoch = hub.AllEpochs }), 0, "-|min..500001 700000..max|-"},
		{"moved back: what was mutable is in long-term storage", moved, all, 400_000, "100001..max|100001..900001"},
		{"cleared: the same", &hub.Channel{TTLDays: 1, Backfilled: base.UnixMilli() + 900_000}, with(all, func(q *hub.Query) { q.From = at(800_000) }), 0, "800000..max|800000..900001"},
	} {
		v := view{frame: frame{now: now, cut: hub.KeyAt(base.UnixMilli()+990_000, "~")}, ch: c.ch, birthday: time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC), floor: at(c.floor)}
		var got []string
		for _, l := range plan(c.q, v) {
			got = append(got, showSpan(l.short)+"|"+showSpan(l.long))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
}

func TestReadable(t *testing.T) {
	now := base
	birthday := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	key := func(d time.Duration) hub.Key { return hub.NewKey(now.Add(d), "x") }
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		ch   hub.Channel
		key  hub.Key
		want bool
	}{
		{"young", hub.Channel{TTLDays: 1}, key(-time.Hour), true},
		{"just at the TTL", hub.Channel{TTLDays: 1}, key(-day), true},
		{"within the grace", hub.Channel{TTLDays: 1}, key(-day - 15*time.Minute), true},
		{"past the grace", hub.Channel{TTLDays: 1}, key(-day - 15*time.Minute - time.Millisecond), false},
		{"no TTL, after the birthday", hub.Channel{MaxItems: 1}, hub.NewKey(birthday, "x"), true},
		{"no TTL, before the birthday, within the grace", hub.Channel{MaxItems: 1}, hub.NewKey(birthday.Add(-15*time.Minute), "x"), true},
		{"no TTL, before the birthday", hub.Channel{MaxItems: 1}, hub.NewKey(birthday.Add(-16*time.Minute), "x"), false},
		{"of a deleted channel: no grace", hub.Channel{TTLDays: 1, Since: now.UnixMilli()}, key(-time.Millisecond), false},
		{"of the channel itself", hub.Channel{TTLDays: 1, Since: now.UnixMilli()}, key(0), true},
		{"removed by maxItems: no grace", hub.Channel{MaxItems: 1, Trimmed: key(0).String()}, key(-time.Millisecond), false},
		{"kept by maxItems", hub.Channel{MaxItems: 1, Trimmed: key(0).String()}, key(0), true},
		{"historical: any age", hub.Channel{MutableTime: now}, hub.KeyAt(-6e13, "x"), true},
		{"historical, immutable, of a deleted channel", hub.Channel{MutableTime: now.Add(-time.Hour), Since: now.UnixMilli()}, key(-time.Minute), false},
		{"historical, mutable, used again", hub.Channel{MutableTime: now.Add(-time.Hour), Since: now.UnixMilli()}, key(-2 * time.Hour), true},
	} {
		if got := readable(&c.ch, c.key, now, birthday); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestSearchQuery(t *testing.T) {
	k := at(5)
	w := hub.Window{Start: base, Unit: hub.Minute}
	for _, c := range []struct {
		q    Search
		want hub.Query
	}{
		{Search{Kind: InWindow, Window: w, N: 7}, hub.Query{From: w.From(), To: w.To()}},
		{Search{Kind: Next, Key: k, N: 7}, hub.Query{From: k.After(), To: hub.MaxKey, Limit: 7}},
		{Search{Kind: Next, Key: k, N: 7, Inclusive: true}, hub.Query{From: k, To: hub.MaxKey, Limit: 7}},
		{Search{Kind: Previous, Key: k, N: 7}, hub.Query{From: hub.MinKey, To: k, Limit: 7, Reverse: true}},
		{Search{Kind: Previous, Key: k, N: 7, Inclusive: true}, hub.Query{From: hub.MinKey, To: k.After(), Limit: 7, Reverse: true}},
		{Search{Kind: Latest, N: 1, Stable: true}, hub.Query{From: hub.MinKey, To: hub.MaxKey, Limit: 1, Reverse: true, Stable: true}},
		{Search{Kind: Earliest, N: 2, Epoch: hub.AllEpochs, Tier: hub.LongTerm}, hub.Query{From: hub.MinKey, To: hub.MaxKey, Limit: 2, Epoch: hub.AllEpochs, Tier: hub.LongTerm}},
	} {
		c.want.Channel = "x"
		if got := c.q.query("x"); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.q, got, c.want)
		}
	}
}
