package channel_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"timehub/channel"
	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/bucket/mem"
	"timehub/hub/disk"
	"timehub/hub/seal"
)

// TestAgainstAModel does random things to a channel and compares what every kind of search finds with a plain list: over stores in memory and over the
// real long-term store.
func TestAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		for _, storage := range []string{"SINGLE", "BATCH", "BOTH", "historical"} {
			real := seed%4 == 0
			t.Run(fmt.Sprintf("%s/%d", storage, seed), func(t *testing.T) {
				t.Parallel()
				newModel(t, storage, seed, real).run()
			})
		}
	}
}

type model struct {
	*house
	r       *rand.Rand
	ch      *hub.Channel
	items   map[hub.Key]string
	archive func(...hub.Sealed)
	done    hub.Key // archived up to
}

func newModel(t *testing.T, storage string, seed uint64, real bool) *model {
	m := &model{r: rand.New(rand.NewPCG(seed, 7)), items: map[hub.Key]string{}}
	var store *longterm.Store
	m.house = open(t, func(o *channel.Options) {
		if !real {
			return
		}
		temp, err := disk.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := temp.Close(); err != nil {
				t.Error(err)
			}
		})
		o.Sealer = seal.New(seal.Options{})
		store, err = longterm.New(longterm.Options{Bucket: mem.New(mem.Options{}), Sealer: o.Sealer, Temp: temp})
		if err != nil {
			t.Fatal(err)
		}
		o.Long = store
	})
	config := `{"storage":"` + storage + `"}`
	if storage == "historical" {
		config = `{"mutableTime":"2026-01-02"}`
	}
	m.ch = m.put("x", config)
	m.archive = func(items ...hub.Sealed) {
		if !real {
			m.long.Archive(m.ch, items...)
			return
		}
		m.archiveReally(store, items)
	}
	return m
}

func (m *model) archiveReally(store *longterm.Store, items []hub.Sealed) {
	m.t.Helper()
	minutes := map[time.Time][]hub.Sealed{}
	for _, i := range items {
		if m.ch.Storage.Singles() {
			if err := store.PutSingle(ctx, m.ch, i); err != nil {
				m.t.Fatal(err)
			}
		}
		at := i.Key.Time().Truncate(time.Minute)
		minutes[at] = append(minutes[at], i)
	}
	if !m.ch.Storage.Batches() {
		return
	}
	for at, list := range minutes {
		var seq iter.Seq2[hub.Sealed, error] = func(yield func(hub.Sealed, error) bool) {
			for _, i := range list {
				if !yield(i, nil) {
					return
				}
			}
		}
		if _, err := store.PutMinute(ctx, m.ch, at, seq); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *model) run() {
	for range 60 {
		m.step()
		m.clock.Add(time.Duration(m.r.IntN(20000)) * time.Millisecond)
	}
	for range 60 {
		m.ask()
	}
}

func (m *model) step() {
	switch n := m.r.IntN(10); {
	case n < 4:
		body := fmt.Sprint("item", len(m.items))
		m.items[m.insert(m.ch, body)] = body
	case n < 6:
		var parts []channel.Part
		for i := range 1 + m.r.IntN(4) {
			parts = append(parts, channel.Part{Body: []byte(fmt.Sprint("part", len(m.items)+i))})
		}
		k, err := m.InsertBulk(ctx, m.ch, "", time.Time{}, parts)
		if err != nil {
			m.t.Fatal(err)
		}
		for i, p := range parts {
			m.items[hub.BulkKey(k, i)] = string(p.Body)
		}
	case n < 8 && m.ch.Historical():
		at := m.ch.MutableTime.Add(-time.Duration(m.r.IntN(50)) * time.Hour)
		body := fmt.Sprint("old", len(m.items))
		m.items[m.insertAt(m.ch, at, fmt.Sprint("h", m.r.IntN(3)), body)] = body
	case n < 9:
		all := m.short.All("x")
		all = slices.DeleteFunc(all, func(i hub.Sealed) bool { return !m.done.Less(i.Key) && !m.done.IsZero() })
		if len(all) > 0 {
			cut := 1 + m.r.IntN(len(all))
			m.archive(all[:cut]...)
			m.done = all[cut-1].Key
		}
	case !m.done.IsZero():
		if keys := m.short.All("x"); len(keys) > 0 && m.r.IntN(2) == 0 {
			floor := keys[m.r.IntN(len(keys))].Key
			if m.done.Less(floor) {
				floor = m.done.After()
			}
			m.short.Sweep("x", floor)
		} else {
			m.short.SetFloor("x", later(m.short.Floor("x"), m.done.After())) // pinned
		}
	}
	if m.ch.Historical() && m.r.IntN(20) == 0 {
		for k := range m.items {
			if !m.ch.MutableTime.Before(k.Time()) {
				if err := m.DeleteAt(ctx, m.ch, k); err != nil {
					m.t.Fatal(err)
				}
				delete(m.items, k)
				break
			}
		}
	}
}

func later(a, b hub.Key) hub.Key {
	if a.Less(b) {
		return b
	}
	return a
}

// sorted lists the keys of an epoch.
func (m *model) sorted(e hub.Epoch) []hub.Key {
	var keys []hub.Key
	for k := range m.items {
		mutable := m.ch.Historical() && !m.ch.MutableTime.Before(k.Time())
		if e == hub.AllEpochs || !m.ch.Historical() || mutable == (e == hub.Mutable) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, hub.Key.Compare)
	return keys
}

func (m *model) ask() {
	m.t.Helper()
	everything := m.sorted(hub.AllEpochs)
	at := hub.NewKey(m.clock.Now().Add(-time.Duration(m.r.IntN(1200))*time.Second), fmt.Sprint(m.r.IntN(10)))
	if len(everything) > 0 && m.r.IntN(3) > 0 {
		at = everything[m.r.IntN(len(everything))]
	}
	q := channel.Search{
		Kind: channel.Kind(m.r.IntN(5)), Key: at, N: 1 + m.r.IntN(12), Inclusive: m.r.IntN(2) == 0, Stable: m.r.IntN(2) == 0,
		Epoch: hub.Epoch(m.r.IntN(3)), Window: hub.WindowAt(at.Time(), hub.Unit(1+m.r.IntN(4))),
	}
	want := m.sorted(q.Epoch)
	want = slices.DeleteFunc(want, func(k hub.Key) bool {
		switch q.Kind {
		case channel.InWindow:
			return k.Less(q.Window.From()) || !k.Less(q.Window.To())
		case channel.Next:
			return k.Less(at) || k == at && !q.Inclusive
		case channel.Previous:
			return at.Less(k) || k == at && !q.Inclusive
		}
		return false
	})
	if q.Kind == channel.Latest || q.Kind == channel.Previous {
		want = want[max(0, len(want)-q.N):]
	} else if q.Kind != channel.InWindow {
		want = want[:min(q.N, len(want))]
	}
	a, err := m.Find(ctx, m.ch, q)
	if err != nil {
		m.t.Fatal(err)
	}
	if !slices.Equal(a.Keys, want) {
		m.t.Fatalf("%+v:\n got %v\nwant %v", q, a.Keys, want)
	}
	for _, order := range []hub.Order{hub.Ascending, hub.Descending} {
		_, items, err := m.Stream(ctx, m.ch, q, order)
		if err != nil {
			m.t.Fatal(err)
		}
		var got []hub.Key
		for i, err := range items {
			if err != nil {
				m.t.Fatal(err)
			}
			f, err := m.Parse(m.ch, i)
			if err != nil {
				m.t.Fatal(err)
			}
			if b, err := m.Body(nil, f); err != nil || string(b) != m.items[i.Key] {
				m.t.Fatalf("item %s: %q %v, want %q", i.Key, b, err, m.items[i.Key])
			}
			got = append(got, i.Key)
		}
		if order == hub.Descending {
			slices.Reverse(got)
		}
		if !slices.Equal(got, want) {
			m.t.Fatalf("items of %+v, order %v:\n got %v\nwant %v", q, order, got, want)
		}
	}
	if len(want) > 0 {
		k := want[m.r.IntN(len(want))]
		if got := m.read(m.ch, k, channel.GetOptions{}); got != m.items[k] {
			m.t.Fatalf("read %s: %q, want %q", k, got, m.items[k])
		}
	}
}
