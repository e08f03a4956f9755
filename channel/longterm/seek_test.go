package longterm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
)

// TestSparseSeeks: ENGINE §6 bounds the listings that a seek over ten empty years costs.
func TestSparseSeeks(t *testing.T) {
	now := at("2026-11-20T09:41:12.345Z")
	for _, c := range []struct {
		name          string
		count         int           // of items, ten years back
		every         time.Duration // between them
		batch, single int64         // listings, at most
	}{
		{name: "one item", count: 1, batch: 9, single: 16},
		{name: "a dense year", count: 1500, every: 5 * time.Hour, batch: 9, single: 16},
		{name: "a dense day", count: 1440, every: time.Minute, batch: 9, single: 16},
		{name: "a dense second", count: 990, every: time.Millisecond, batch: 9, single: 16},
	} {
		w := newWorld(t)
		end := at("2016-11-19T23:59:59.999Z")
		var items []hub.Sealed
		for i := range c.count {
			items = append(items, w.item(hub.NewKey(end.Add(-time.Duration(c.count-1-i)*c.every), "aaaaaa"), "", "x"))
		}
		newest := items[len(items)-1].Key
		w.put(both, items...)
		for _, q := range []hub.Query{
			{From: hub.MinKey, To: hub.Last(now), Limit: 1, Reverse: true},
			{From: hub.MinKey, To: hub.First(now.Truncate(24 * time.Hour)), Limit: 1, Reverse: true},
			{From: hub.MinKey, To: hub.MaxKey, Limit: 1, Reverse: true},
			{From: hub.First(end.Add(-time.Hour)), To: hub.First(now), Limit: 1, Reverse: true},
		} {
			for _, ch := range []*hub.Channel{batch, single} {
				w.lists.Store(0)
				if keys := w.keys(ch, q); !slices.Equal(keys, []hub.Key{newest}) {
					t.Errorf("%s, %s: %v", c.name, ch.Storage, keys)
				}
				most := map[hub.Storage]int64{hub.Batch: c.batch, hub.Single: c.single}[ch.Storage]
				if n := w.lists.Load(); n > most {
					t.Errorf("%s, %s, %+v: %d listings, at most %d", c.name, ch.Storage, q, n, most)
				}
			}
		}
		// Going forward is one listing.
		for _, ch := range []*hub.Channel{batch, single} {
			w.lists.Store(0)
			if keys := w.keys(ch, hub.Query{From: hub.First(at("2006-01-01T00:00:00.000Z")), To: hub.MaxKey, Limit: 1}); !slices.Equal(keys, []hub.Key{items[0].Key}) {
				t.Errorf("%s, %s: %v", c.name, ch.Storage, keys)
			}
			if n := w.lists.Load(); n != 1 {
				t.Errorf("%s, %s: %d listings forward", c.name, ch.Storage, n)
			}
		}
	}
}

// TestEmptyHistory: nothing is found at the cost of a few listings too.
func TestEmptyHistory(t *testing.T) {
	w := newWorld(t)
	w.put(&hub.Channel{Name: "ordersBatch", Storage: hub.Both}, w.item(key("2021-03-04T05:06:07.089Z", "a"), "", ""))
	for _, ch := range []*hub.Channel{batch, single} {
		w.lists.Store(0)
		if keys := w.keys(ch, hub.Query{From: hub.MinKey, To: hub.MaxKey, Limit: 10, Reverse: true}); len(keys) != 0 || w.lists.Load() > 9 {
			t.Errorf("%s: %v, %d listings", ch.Storage, keys, w.lists.Load())
		}
	}
}

// TestSparseMany: a hundred items, one a month, do not cost three listings each.
func TestSparseMany(t *testing.T) {
	w := newWorld(t)
	var items []hub.Sealed
	for i := range 120 {
		items = append(items, w.item(hub.NewKey(time.Date(2012, time.Month(i), 17, 3, i%60, 5, 0, time.UTC), "aaaaaa"), "", "x"))
	}
	w.put(both, items...)
	for _, ch := range []*hub.Channel{batch, single} {
		w.lists.Store(0)
		if keys := w.keys(ch, hub.Query{From: hub.MinKey, To: hub.MaxKey, Limit: 100, Reverse: true}); len(keys) != 100 || keys[0] != items[119].Key || keys[99] != items[20].Key {
			t.Errorf("%s: %d keys", ch.Storage, len(keys))
		}
		if n := w.lists.Load(); n > 100 {
			t.Errorf("%s: %d listings", ch.Storage, n)
		}
	}
}

// TestQueriesAgainstModel compares with a filtered, sorted list, over all layouts, tiers and directions. What is in both layouts comes once.
func TestQueriesAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	w := newWorld(t)
	start := at("2019-12-31T20:00:00.000Z").UnixMilli()
	spread := []int64{1, 1000, 60_000, 3_600_000, 86_400_000, 30 * 86_400_000}
	ms, model := start, map[hub.Key]string{}
	var items []hub.Sealed
	for i := range 700 {
		ms += r.Int64N(2 * spread[min(r.IntN(8), 5)])
		if r.IntN(40) == 0 {
			ms += r.Int64N(200 * 86_400_000)
		}
		k := hub.KeyAt(ms, fmt.Sprintf("%c%05d", hub.Alphabet[r.IntN(62)], i))
		if _, ok := model[k]; ok || len(items) > 0 && !items[len(items)-1].Key.Less(k) {
			continue
		}
		model[k] = fmt.Sprint("body of ", k)
		items = append(items, w.item(k, "text/plain", model[k]))
	}
	w.putMinutes(batch, items...)
	w.put(single, items...)
	// BOTH with holes on each side: the union counts.
	w.putMinutes(&hub.Channel{Name: "holes", Storage: hub.Batch}, items[:500]...)
	w.put(&hub.Channel{Name: "holes", Storage: hub.Single}, items[100:]...)
	// What belongs to others, or to nobody.
	other := &hub.Channel{Name: "ordersBatch", Storage: hub.Single}
	w.put(other, items[:20]...)
	for _, name := range []string{"orders/readme", "orders/2020/readme", "orders/0/1/2", "ordersBatch/items/2020/01/01/00/xx", "ordersBatch/items/2020", "orders/large/2020/01/01/00/00/00/000/x",
		"orders/20200101", "orders/2020/1/1/0/0/0/0/x", "ordersBatch/items/2020/01/01/00/00/x", "orders", "orders/zzz"} {
		if _, err := w.bucket.Put(ctx, name, strings.NewReader(""), 0, bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	channels := []*hub.Channel{single, batch, both, {Name: "holes", Storage: hub.Both}}
	tiers := []hub.Tier{hub.AllTiers, hub.LongTerm, hub.LongTermSingle, hub.LongTermBatch, hub.Cache}
	fence := func() hub.Key {
		k := items[r.IntN(len(items))].Key
		switch r.IntN(7) {
		case 0:
			return hub.First(k.Time().Truncate(time.Minute))
		case 1:
			return hub.First(k.Time().Truncate([]time.Duration{time.Second, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour}[r.IntN(4)]))
		case 2:
			return k.After()
		case 3:
			return hub.Last(k.Time())
		case 4:
			return []hub.Key{hub.MinKey, hub.MaxKey, {}}[r.IntN(3)]
		case 5:
			return hub.First(k.Time().Add(time.Duration(r.Int64N(int64(24 * time.Hour)))))
		}
		return k
	}
	for range 400 {
		ch, tier := channels[r.IntN(len(channels))], tiers[r.IntN(len(tiers))]
		q := hub.Query{Channel: ch.Name, From: fence(), To: fence(), Limit: []int{0, 0, 1, 2, 10, 100}[r.IntN(6)], Reverse: r.IntN(2) == 0, Tier: tier}
		if q.To.Less(q.From) && r.IntN(8) > 0 {
			q.From, q.To = q.To, q.From
		}
		visible := items
		if ch.Name == "holes" && tier == hub.LongTermBatch {
			visible = items[:500]
		} else if ch.Name == "holes" && tier == hub.LongTermSingle {
			visible = items[100:]
		}
		if tier == hub.Cache || tier == hub.LongTermSingle && ch.Storage == hub.Batch || tier == hub.LongTermBatch && ch.Storage == hub.Single {
			visible = nil
		}
		var want []hub.Key
		for _, i := range visible {
			if !i.Key.Less(q.From) && i.Key.Less(q.To) {
				want = append(want, i.Key)
			}
		}
		if q.Reverse {
			slices.Reverse(want)
		}
		if q.Limit > 0 && len(want) > q.Limit {
			want = want[:q.Limit]
		}
		if have := w.keys(ch, q); !slices.Equal(have, want) {
			t.Fatalf("%s %+v\nhave %d %v\nwant %d %v", ch.Storage, q, len(have), have, len(want), want)
		}
		if r.IntN(3) == 0 {
			keys, bodies := w.items(ch, q)
			if !slices.Equal(keys, want) {
				t.Fatalf("items of %s %+v\nhave %d\nwant %d", ch.Storage, q, len(keys), len(want))
			}
			for i, k := range keys {
				if bodies[i] != model[k] {
					t.Fatalf("%v has %q", k, bodies[i])
				}
			}
		}
	}
	w.noTemps()
}

// TestBigMinute has a directory that is not kept in memory, and items that are read in several groups.
func TestBigMinute(t *testing.T) {
	w := newWorld(t)
	start := at("2021-03-04T05:06:00.000Z").UnixMilli()
	r := rand.New(rand.NewPCG(5, 5))
	var items []hub.Sealed
	for i := range 20000 {
		items = append(items, w.item(hub.KeyAt(start+int64(i*3), fmt.Sprintf("%06d", i)), "application/json", fmt.Sprint(i, string(jsonBody(r, 300)))))
	}
	w.putMinutes(batch, items...)
	all := hub.Query{From: hub.MinKey, To: hub.MaxKey}
	for _, reverse := range []bool{false, true} {
		all.Reverse = reverse
		keys, bodies := w.items(batch, all)
		if reverse {
			slices.Reverse(keys)
			slices.Reverse(bodies)
		}
		if len(keys) != len(items) {
			t.Fatal(len(keys))
		}
		for i := range keys {
			if keys[i] != items[i].Key || bodies[i][:len(fmt.Sprint(i))] != fmt.Sprint(i) {
				t.Fatal(i, keys[i])
			}
		}
	}
	// One item costs one read of a part of the directory and one of the item, once the zip is known.
	for range 50 {
		i := r.IntN(len(items))
		w.gets.Store(0)
		w.failing(func(c mem.Call) mem.Fault {
			if c.Verb == mem.List || c.Verb == mem.Stat {
				t.Errorf("%+v", c)
			}
			return mem.Fault{}
		})
		item, err := w.store.Read(ctx, batch, items[i].Key)
		if err != nil {
			t.Fatal(err)
		}
		if _, body := w.open(item); body[:len(fmt.Sprint(i))] != fmt.Sprint(i) {
			t.Errorf("%d: %.20q", i, body)
		}
		if n := w.gets.Load(); n > 2 {
			t.Errorf("%d reads for one item", n)
		}
		w.healthy()
	}
	count, digest, err := w.store.MinuteDigest(ctx, batch, hub.Batch, at("2021-03-04T05:06:00.000Z"))
	want := uint64(0)
	for _, i := range items {
		want += i.Key.Digest()
	}
	if count != len(items) || digest != want || err != nil {
		t.Errorf("%d, %x, %v; want %x", count, digest, err, want)
	}
	n := 0
	for k, err := range w.store.MinuteKeys(ctx, batch, at("2021-03-04T05:06:30.000Z")) {
		if err != nil || k != items[n].Key {
			t.Fatal(n, k, err)
		}
		n++
	}
	if n != len(items) {
		t.Error(n)
	}
}
