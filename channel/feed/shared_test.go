package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
)

// house holds several channels, and says what changes.
type house struct {
	rule hub.Horizon

	mu      sync.Mutex // guards the rest
	rooms   map[string]*source
	configs map[string]*hub.Channel
	listens [2]map[chan struct{}]map[string]bool // of configurations, of keys
}

func newHouse(rule hub.Horizon) *house {
	h := &house{rule: rule, rooms: map[string]*source{}, configs: map[string]*hub.Channel{}}
	for i := range h.listens {
		h.listens[i] = map[chan struct{}]map[string]bool{}
	}
	return h
}

func (h *house) tell(kind int, name string) {
	for w, names := range h.listens[kind] {
		names[name] = true
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (h *house) news(kind int) News {
	return func() (<-chan struct{}, func() []string, func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		w, names := make(chan struct{}, 1), map[string]bool{}
		h.listens[kind][w] = names
		drain := func() (all []string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			for n := range names {
				all = append(all, n)
			}
			clear(names)
			return all
		}
		return w, drain, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.listens[kind], w)
		}
	}
}

// set makes, changes or, with tags nil, removes a channel.
func (h *house) set(name string, tags ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := hub.ChannelID(name)
	old := h.configs[id]
	switch {
	case tags == nil:
		delete(h.configs, id)
		delete(h.rooms, id)
	case old == nil:
		h.configs[id] = &hub.Channel{Name: name, CreationDate: time.Now(), Tags: tags, Since: time.Now().UnixMilli()}
		h.rooms[id] = newSource(h.rule)
	default:
		c := *old
		c.Tags = tags
		h.configs[id] = &c
	}
	h.tell(0, id)
}

func (h *house) room(name string) *source {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rooms[hub.ChannelID(name)]
}

// insert adds a key in a millisecond that no horizon has shown yet.
func (h *house) insert(name, hash string) hub.Key {
	time.Sleep(time.Millisecond)
	k := h.room(name).now(hash)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell(1, name)
	return k
}

func (h *house) Channel(_ context.Context, name string) (*hub.Channel, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.configs[hub.ChannelID(name)]; c != nil {
		return c, nil
	}
	return nil, hub.E(hub.NotFound, "channel %s not found", name)
}

func (h *house) TagChannels(_ context.Context, tag string) (all []*hub.Channel, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.configs {
		if c.HasTag(tag) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *hub.Channel) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (h *house) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	if s := h.room(q.Channel); s != nil {
		return s.Keys(ctx, q)
	}
	return hub.Page{}, hub.E(hub.NotFound, "no %s", q.Channel)
}

func (h *house) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return h.room(q.Channel).Items(ctx, q)
}

func (h *house) Horizon(ctx context.Context, name string) (hub.Key, error) {
	if s := h.room(name); s != nil {
		return s.Horizon(ctx, name)
	}
	return newSource(h.rule).cut(), nil // as the query layer: that of the node
}

func (h *house) Watch(name string) (<-chan struct{}, func()) {
	if s := h.room(name); s != nil {
		return s.Watch(name)
	}
	return make(chan struct{}), func() {}
}

// open runs a Shared for the rest of the bubble.
func (h *house) open(t *testing.T) *Shared {
	t.Helper()
	s, err := NewShared(SharedOptions{Source: h, Channels: h, Horizon: h.rule, Configs: h.news(0), Keys: h.news(1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return s
}

// gather follows until it has seen n keys, or the end.
func gather(ctx context.Context, f *Feed, n int, pause time.Duration) (got []hub.Key, err error) {
	for len(got) < n {
		keys, err := f.Next(ctx)
		if err != nil {
			return got, err
		}
		got = append(got, keys...)
		time.Sleep(pause)
	}
	return got, nil
}

// TestSharedAll: all of many followers, quick and slow, get everything in order, once, wherever they begin.
func TestSharedAll(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("Orders", "x")
				s := h.open(t)
				src := h.room("orders")
				for i := range 700 { // more than a ring
					src.now(fmt.Sprintf("%06d", i))
					if i%50 == 0 {
						time.Sleep(time.Millisecond)
					}
				}
				const more = 3000
				var wg sync.WaitGroup
				for i := range 40 {
					begin := i % 4 * 200
					f, err := s.Follow([]string{"orders", "ORDERS"}[i%2], hub.Key{}, 1+i*7, nil)
					if err != nil {
						t.Fatal(err)
					}
					if begin > 0 {
						f.Seek(src.keys[begin-1])
					}
					wg.Go(func() {
						defer f.Close()
						got, err := gather(t.Context(), f, 700+more-begin, time.Duration(i%8)*3*time.Millisecond)
						if err != nil || !slices.Equal(got, src.keys[begin:]) {
							t.Errorf("follower %d got %d keys, %v", i, len(got), err)
						}
					})
				}
				for i := 0; i < more; {
					time.Sleep(time.Millisecond + rand.N(20*time.Millisecond))
					var burst []hub.Key
					for n := min(1+rand.N(8), more-i); n > 0; n-- {
						burst = append(burst, hub.NewKey(time.Now(), fmt.Sprintf("%06d", i)))
						i++
					}
					src.insert(burst...)
				}
				wg.Wait()
				if len(s.tails) != 0 || len(src.watchers) != 0 {
					t.Errorf("%d tails, %d watches are left", len(s.tails), len(src.watchers))
				}
			})
		})
	}
}

// TestSharedCost: many followers ask as often as one, and a day without items costs nothing.
func TestSharedCost(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("c", "x")
				s := h.open(t)
				src := h.room("c")
				const followers, items = 200, 50
				var wg sync.WaitGroup
				ctx, stop := context.WithCancel(t.Context())
				for range followers {
					f, err := s.Follow("c", hub.Key{}, 0, nil)
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						defer f.Close()
						if _, err := gather(ctx, f, items, 0); err != nil {
							t.Error(err)
						}
						_, err := f.Next(ctx)
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				before := src.count()
				for i := range items {
					time.Sleep(10 * time.Second)
					src.now(fmt.Sprint(i))
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if n := src.count() - before; n > items*6 {
					t.Errorf("%d calls for %d items", n, items)
				}
				before = src.count()
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if n := src.count() - before; n > 2 {
					t.Errorf("%d calls in a day without items", n)
				}
				stop()
				wg.Wait()
			})
		})
	}
}

// TestSharedEnds: everybody who follows a channel learns that it was deleted, also when one of its name was made at once; a failure of the leader's
// client is nobody else's.
func TestSharedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(auto)
		h.set("c", "x")
		s := h.open(t)
		for round, again := range []bool{false, true} {
			var wg sync.WaitGroup
			for range 5 {
				f, err := s.Follow("c", hub.Key{}, 0, nil)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					defer f.Close()
					if _, err := f.Next(t.Context()); !hub.Is(err, hub.NotFound) {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			synctest.Wait()
			time.Sleep(time.Second)
			h.set("c", "y") // a change is no end
			synctest.Wait()
			h.set("c")
			if again {
				h.set("C", "x")
			}
			wg.Wait()
			h.set("c", "x")
		}
		if _, err := s.Follow("nope", hub.Key{}, 0, nil); !hub.Is(err, hub.NotFound) {
			t.Errorf("a channel that is not there: %v", err)
		}
		if len(s.tails) != 0 {
			t.Error("tails are left")
		}
		// The leader leaves: another takes over.
		one, _ := s.Follow("c", hub.Key{}, 0, nil)
		two, _ := s.Follow("c", hub.Key{}, 0, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := one.Next(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if keys, err := two.Next(t.Context()); err != nil || len(keys) != 1 {
				t.Error(keys, err)
			}
		})
		synctest.Wait()
		h.insert("c", "a")
		cancel() // perhaps with the wake-up in its hands
		wg.Wait()
		one.Close()
		two.Close()
	})
}

// TestNudge: a feed that waits comes back for a nudge and misses nothing for it, leader or not.
func TestNudge(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("c", "x")
				s := h.open(t)
				src := h.room("c")
				var wg sync.WaitGroup
				for range 7 {
					nudge := make(chan struct{}, 1)
					f, err := s.Follow("c", hub.Key{}, 3, nudge)
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						defer f.Close()
						got := 0
						for got < 100 {
							timer := time.AfterFunc(rand.N(time.Second), func() {
								select {
								case nudge <- struct{}{}:
								default:
								}
							})
							keys, err := f.Next(t.Context())
							timer.Stop()
							if err != nil {
								t.Error(err)
								return
							}
							got += len(keys)
						}
						if f.Position() != src.keys[99] {
							t.Error("missed something")
						}
					})
				}
				for i := range 100 {
					time.Sleep(time.Millisecond + rand.N(700*time.Millisecond))
					src.now(fmt.Sprintf("%06d", i))
				}
				wg.Wait()
			})
		})
	}
}

// TestTag follows channels that come and go.
func TestTag(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("a", "cafe")
				h.set("b", "cafe", "bar")
				h.set("z", "bar")
				s := h.open(t)
				f, err := s.Tag(TagOptions{Tag: "cafe", After: Hit{Key: hub.First(time.Now())}, Limit: 3})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				var want, got []Hit
				add := func(name, hash string, mine bool) {
					if k := h.insert(name, hash); mine {
						want = append(want, Hit{name, k})
					}
				}
				take := func() {
					t.Helper()
					for len(got) < len(want) {
						hits, err := f.Next(t.Context())
						if err != nil || len(hits) > 3 {
							t.Fatal(hits, err)
						}
						got = append(got, hits...)
					}
					if !slices.Equal(got, want) {
						t.Fatalf("got %v\nwant %v", got, want)
					}
				}
				for i := range 20 {
					add([]string{"a", "b", "z"}[i%3], fmt.Sprintf("%03d", i), i%3 < 2)
					time.Sleep(time.Duration(i) * 40 * time.Millisecond)
				}
				take()
				h.set("z", "cafe") // joins in
				add("z", "x", true)
				add("a", "y", true)
				take()
				time.Sleep(time.Second)
				h.set("b", "bar") // leaves
				add("b", "1", false)
				add("a", "2", true)
				take()
				h.set("a") // is deleted
				time.Sleep(time.Second)
				add("z", "3", true)
				take()
				h.set("a", "cafe") // another one
				add("a", "4", true)
				take()
				h.set("a")
				h.set("z")
				time.AfterFunc(time.Hour, func() { h.set("n", "cafe"); add("n", "5", true) })
				hits, err := f.Next(t.Context())
				synctest.Wait()
				if err != nil || !slices.Equal(hits, want[len(want)-1:]) {
					t.Errorf("after an hour without channels: %v, %v", hits, err)
				}
			})
		})
	}
}

// TestTagOrder: under concurrent writes to all channels, the order of a tag is never broken, and a second follower can go on anywhere.
func TestTagOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(auto)
		names := []string{"a", "b", "c", "d", "e"}
		for _, n := range names {
			h.set(n, "t")
		}
		s := h.open(t)
		begin := Hit{Key: hub.First(time.Now())}
		var want []Hit
		for i := range 400 {
			n := names[rand.N(len(names))]
			want = append(want, Hit{n, h.room(n).now(fmt.Sprintf("%06d", i))})
			if i%10 == 0 {
				k := hub.NewKey(time.Now(), fmt.Sprintf("%06d", i)) // one key in two channels
				other := names[(slices.Index(names, n)+1)%len(names)]
				h.room(other).insert(k)
				want = append(want, Hit{other, k})
			}
			if rand.N(3) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		slices.SortFunc(want, Hit.Compare)
		time.Sleep(time.Millisecond)
		for _, from := range []int{0, 1, 10, 11, 12, 200, len(want) - 1} {
			for _, limit := range []int{1, 2, 17, 1000} {
				after := begin
				if from > 0 {
					after = want[from-1]
				}
				f, err := s.Tag(TagOptions{Tag: "t", After: after, Limit: limit})
				if err != nil {
					t.Fatal(err)
				}
				var got []Hit
				for len(got) < len(want)-from {
					hits, err := f.Next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, hits...)
				}
				f.Close()
				if !slices.Equal(got, want[from:]) {
					t.Fatalf("from %d, limit %d: not in order", from, limit)
				}
			}
		}
	})
}

// TestWait is what long-polling does.
func TestWait(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("c", "t")
				s := h.open(t)
				late := time.Duration(rule.Seconds) * time.Second
				type waiter func(context.Context, string, hub.Key) (hub.Key, error)
				for i, w := range []struct {
					wait waiter
					name string
					late time.Duration
				}{{s.Wait, "C", late}, {s.WaitTag, "t", late}, {s.WaitAny, "c", 0}} {
					time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
					after := hub.First(time.Now())
					began := time.Now()
					var k hub.Key
					time.AfterFunc(30*time.Second-time.Millisecond, func() { k = h.insert("c", "a") })
					got, err := w.wait(t.Context(), w.name, after)
					synctest.Wait()
					if d := time.Since(began); err != nil || got != k || d != 30*time.Second+w.late {
						t.Errorf("%d: %v, %v after %v", i, got, err, d)
					}
					if got, err := w.wait(t.Context(), w.name, after); err != nil || got != k {
						t.Errorf("%d: again: %v, %v", i, got, err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if _, err := w.wait(ctx, w.name, k); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%d: in time: %v", i, err)
					}
					cancel()
				}
				time.AfterFunc(time.Second, func() { h.set("c") })
				var wg sync.WaitGroup
				for _, w := range []waiter{s.Wait, s.WaitAny} {
					wg.Go(func() {
						if _, err := w(t.Context(), "c", hub.First(time.Now())); !hub.Is(err, hub.NotFound) {
							t.Errorf("deleted: %v", err)
						}
					})
				}
				wg.Wait()
				if len(s.tails)+len(s.tags) != 0 {
					t.Error("something is left")
				}
			})
		})
	}
}

// TestSharedFuture: one who waits for tomorrow keeps nobody from today.
func TestSharedFuture(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				h.set("c", "x")
				s := h.open(t)
				tomorrow := time.Now().Add(24 * time.Hour)
				var wg sync.WaitGroup
				for i := range 6 {
					after, want := hub.Key{}, 100
					if i%2 == 0 {
						after, want = hub.First(tomorrow), 50
					}
					f, err := s.Follow("c", after, 0, nil)
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						defer f.Close()
						got, err := gather(t.Context(), f, want, 0)
						if err != nil || len(got) != want || want == 50 && got[0].Time().Before(tomorrow) {
							t.Errorf("%d: %d keys from %v, %v", i, len(got), got[0], err)
						}
					})
					synctest.Wait()
				}
				for i := range 100 {
					if i == 50 {
						time.Sleep(time.Until(tomorrow))
					}
					h.insert("c", fmt.Sprintf("%06d", i))
				}
				wg.Wait()
			})
		})
	}
}

// TestIdleMemory: ten thousand feeds that wait, each with its goroutine, on one channel and on as many, take less than 20 KiB each.
func TestIdleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 20,000 goroutines")
	}
	h := newHouse(auto)
	s, err := NewShared(SharedOptions{Source: h, Channels: h, Horizon: h.rule})
	if err != nil {
		t.Fatal(err)
	}
	const feeds, budget = 10_000, 20 << 10
	name := func(i int) string { return fmt.Sprintf("c%d", i) }
	for i := range feeds {
		h.set(name(i), "x")
	}
	for _, c := range []struct {
		what string
		of   func(int) string
	}{{"one channel", func(int) string { return "c0" }}, {"a channel each", name}} {
		used := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapInuse + m.StackInuse
		}
		before := used()
		ctx, stop := context.WithCancel(t.Context())
		var wg, waiting sync.WaitGroup
		waiting.Add(feeds)
		for i := range feeds {
			wg.Go(func() {
				f, err := s.Follow(c.of(i), hub.Key{}, 0, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				waiting.Done()
				if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
		time.Sleep(100 * time.Millisecond)
		per := (int64(used()) - int64(before)) / feeds
		t.Logf("%s: %d bytes a feed", c.what, per)
		if per > budget {
			t.Errorf("%s: %d bytes a feed", c.what, per)
		}
		stop()
		wg.Wait()
	}
}
