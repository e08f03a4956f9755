package feed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
)

// replica lets a channel follow another one, so far behind.
func (h *house) replica(name string, behind time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := hub.ChannelID(name)
	c := *h.configs[id]
	c.ReplicationSource = "http://source/channel/" + name
	h.configs[id] = &c
	h.tell(0, id)
	h.rooms[id].behind(behind)
}

func (s *source) behind(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = d
}

func tagged(t *testing.T, s *Shared, tag string, after hub.Key) *Tag {
	t.Helper()
	f, err := s.Tag(TagOptions{Tag: tag, After: Hit{Key: after}, Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// holds takes the next window and checks what it is and holds, twice.
func (t *Tag) holds(tt *testing.T, unit hub.Unit, empty bool, start time.Time, want ...Hit) {
	tt.Helper()
	c, err := t.NextWindow(tt.Context(), unit, empty)
	if err != nil || !c.Start.Equal(start) || c.Unit != unit {
		tt.Fatalf("%v: window %v, %v; want %v", time.Now(), c, err, start)
	}
	for range 2 {
		if got := t.collect(tt, c); !slices.Equal(got, want) {
			tt.Fatalf("window %v holds %v\nwant %v", c, got, want)
		}
	}
	if t.Position() != (Hit{Key: c.To()}) {
		tt.Fatalf("position %v", t.Position())
	}
}

func (t *Tag) collect(tt *testing.T, c TagClosed) (got []Hit) {
	tt.Helper()
	for h, err := range t.Keys(tt.Context(), c) {
		if err != nil {
			tt.Fatal(err)
		}
		got = append(got, h)
	}
	return got
}

// nextMinute sleeps until the next minute begins, and returns it.
func nextMinute() time.Time {
	m := time.Now().Truncate(time.Minute).Add(time.Minute)
	time.Sleep(time.Until(m))
	return m
}

// TestTagWindows follows channels that come and go, by minutes: through what was there before into what is written now.
func TestTagWindows(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late := time.Duration(rule.Seconds) * time.Second
				h := newHouse(rule)
				h.set("a", "cafe")
				h.set("b", "cafe", "bar")
				h.set("z", "bar")
				s := h.open(t)
				one := nextMinute()
				var first []Hit
				for i := range 9 {
					n := []string{"a", "b", "z"}[i%3]
					if k := h.insert(n, fmt.Sprint(i)); n != "z" {
						first = append(first, Hit{n, k})
					}
				}
				both := hub.NewKey(time.Now(), "both") // one key in two channels
				h.room("b").insert(both)
				h.room("a").insert(both)
				first = append(first, Hit{"a", both}, Hit{"b", both})
				third := nextMinute().Add(time.Minute)
				time.Sleep(time.Until(third))
				k := h.insert("b", "10")
				time.Sleep(time.Hour)

				f := tagged(t, s, "cafe", first[0].Key)
				began := time.Now()
				f.holds(t, hub.Minute, false, one, first[1:]...)
				f.holds(t, hub.Minute, false, third, Hit{"b", k})
				if time.Since(began) != 0 {
					t.Errorf("history took %v", time.Since(began))
				}

				// Live: z joins in, b leaves, while the window is open; what counts is who has the tag when it is closed.
				m := nextMinute()
				ka := h.insert("a", "1")
				h.insert("b", "2")
				kz := h.insert("z", "3")
				time.AfterFunc(30*time.Second, func() { h.set("z", "cafe"); h.set("b", "bar") })
				f.holds(t, hub.Minute, false, m, Hit{"a", ka}, Hit{"z", kz})
				if d := time.Since(m); d != time.Minute+late {
					t.Errorf("closed after %v", d)
				}

				// a is deleted while its key is waited for, and another one of its name comes up.
				m = nextMinute()
				h.insert("a", "4")
				kz = h.insert("z", "5")
				time.AfterFunc(20*time.Second, func() { h.set("a"); h.set("A", "cafe"); ka = h.insert("A", "6") })
				time.AfterFunc(21*time.Second, func() { h.set("z", "cafe", "more") })
				c, err := f.NextWindow(t.Context(), hub.Minute, false)
				synctest.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if got := f.collect(t, c); !slices.Equal(got, []Hit{{"z", kz}, {"A", ka}}) || !c.Start.Equal(m) {
					t.Errorf("%v holds %v", c, got)
				}
				h.set("z") // deleted after its window was closed: drops out
				if got := f.collect(t, c); !slices.Equal(got, []Hit{{"A", ka}}) {
					t.Errorf("without z, %v holds %v", c, got)
				}

				// An hour without channels.
				h.set("a")
				var kn hub.Key
				time.AfterFunc(time.Hour, func() { h.set("n", "cafe"); kn = h.insert("n", "7") })
				c, err = f.NextWindow(t.Context(), hub.Second, false)
				synctest.Wait()
				if got := f.collect(t, c); err != nil || !slices.Equal(got, []Hit{{"n", kn}}) {
					t.Errorf("after an hour: %v holds %v, %v", c, got, err)
				}
				// Each window, with keys or without, and also when nobody carries the tag.
				at := c.End()
				for i := range 90 {
					if i == 30 {
						h.set("n")
					}
					f.holds(t, hub.Second, true, at.Add(time.Duration(i)*time.Second))
				}
				if d := time.Since(at); d != 90*time.Second+late {
					t.Errorf("ninety seconds took %v", d)
				}
			})
		})
	}
}

// TestTagWindowsReplica: a replica that lags holds up the windows, and nothing of it is missed; one that loses the tag does not.
func TestTagWindowsReplica(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				for _, n := range []string{"a", "b", "r"} {
					h.set(n, "t")
				}
				s := h.open(t)
				for _, empty := range []bool{false, true} {
					h.replica("r", time.Hour)
					m := nextMinute()
					f := tagged(t, s, "t", hub.First(m))
					ka := h.insert("a", "a")
					time.Sleep(2 * time.Minute)
					kr := hub.KeyAt(ka.Millis()-1, "r") // comes late, below what is there
					time.AfterFunc(10*time.Minute, func() { h.room("r").insert(kr) })
					calls := h.room("a").count() + h.room("b").count() + h.room("r").count()
					time.AfterFunc(20*time.Minute, func() {
						calls = h.room("a").count() + h.room("b").count() + h.room("r").count() - calls
						h.room("r").behind(0)
					})
					began := time.Now()
					f.holds(t, hub.Minute, empty, m, Hit{"r", kr}, Hit{"a", ka})
					synctest.Wait()
					if d := time.Since(began); d < 20*time.Minute || d > 20*time.Minute+2*time.Second {
						t.Errorf("the replica was waited for %v", d)
					}
					if calls > 4000 {
						t.Errorf("%d calls in twenty minutes", calls)
					}
					// Another follower, and this time it loses the tag.
					h.room("r").behind(time.Hour)
					m = nextMinute()
					f = tagged(t, s, "t", hub.First(m))
					kb := h.insert("b", "b")
					time.AfterFunc(5*time.Minute, func() { h.set("r", "no") })
					f.holds(t, hub.Minute, empty, m, Hit{"b", kb})
					if d := time.Since(m); d != 5*time.Minute+time.Millisecond {
						t.Errorf("without the replica it came after %v", d)
					}
					h.set("r", "t")
				}
			})
		})
	}
}

// TestTagWindowsSteady: under a flow of keys into channels of which one lags, by seconds and minutes, with failures and stores that do not answer,
// every key comes in the window that it lies in, once, and windows come one after the other.
func TestTagWindowsSteady(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		for _, empty := range []bool{false, true} {
			t.Run(fmt.Sprint(name, empty), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHouse(rule)
					names := []string{"a", "b", "c", "d", "r"}
					for _, n := range names {
						h.set(n, "t")
					}
					h.replica("r", 3*time.Second)
					s := h.open(t)
					f := tagged(t, s, "t", hub.First(time.Now()))
					const n = 1000
					var want, got []Hit
					done := make(chan struct{})
					go func() {
						defer close(done)
						for i := range n {
							name := names[rand.N(len(names))]
							room := h.room(name)
							if rand.N(50) == 0 {
								room.mu.Lock()
								room.failures = append(room.failures, errors.New("broken"), context.DeadlineExceeded)
								room.silent += 2
								room.mu.Unlock()
							}
							want = append(want, Hit{name, h.insert(name, fmt.Sprintf("%06d", i))})
							if rand.N(4) == 0 {
								time.Sleep(rand.N(3 * time.Second))
							}
						}
					}()
					var last hub.Window
					for len(got) < n {
						unit := []hub.Unit{hub.Second, hub.Minute}[len(got)/250%2]
						c, err := f.NextWindow(t.Context(), unit, empty)
						if err != nil {
							t.Fatal(err)
						}
						if age := time.Since(c.End()); age < time.Duration(rule.Seconds)*time.Second || age < 3*time.Second-time.Millisecond {
							t.Fatalf("%v came at %v", c, time.Now())
						}
						if !last.Start.IsZero() && c.Unit == last.Unit && (c.Start.Before(last.End()) || empty && !c.Start.Equal(last.End())) {
							t.Fatalf("%v after %v", c.Window, last)
						}
						last = c.Window
						hits := f.collect(t, c)
						if !empty && len(hits) == 0 {
							t.Errorf("%v holds nothing", c.Window)
						}
						for _, k := range hits {
							if k.Key.Less(c.From()) || !k.Key.Less(c.To()) {
								t.Errorf("%v holds %v", c.Window, k)
							}
						}
						got = append(got, hits...)
					}
					<-done
					slices.SortFunc(want, Hit.Compare)
					if !slices.Equal(got, want) {
						t.Error("not what was written, or not in order")
					}
				})
			})
		}
	}
}

// TestTagWindowsIdle: channels without keys cost nothing.
func TestTagWindowsIdle(t *testing.T) {
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(rule)
				for _, n := range []string{"a", "b", "r"} {
					h.set(n, "t")
				}
				h.replica("r", time.Hour)
				s := h.open(t)
				f := tagged(t, s, "t", hub.Key{})
				count := func() int { return h.room("a").count() + h.room("b").count() + h.room("r").count() }
				calls := 0
				time.AfterFunc(time.Second, func() { calls = count() })
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				if _, err := f.NextWindow(ctx, hub.Second, false); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				synctest.Wait()
				if n := count() - calls; n != 0 {
					t.Errorf("%d calls in a quiet day", n)
				}
			})
		})
	}
}

// TestTagWindowsAsk: what cannot be asked for, the end of ctx, and a change between keys and windows.
func TestTagWindowsAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(auto)
		h.set("a", "t")
		h.set("r", "t")
		h.replica("r", time.Minute)
		s := h.open(t)
		f := tagged(t, s, "t", hub.Key{})
		if _, err := f.NextWindow(t.Context(), hub.Minute, true); !hub.Is(err, hub.Invalid) {
			t.Errorf("from the beginning of time: %v", err)
		}
		if _, err := f.NextWindow(t.Context(), hub.ItemUnit, false); !hub.Is(err, hub.Invalid) {
			t.Errorf("by items: %v", err)
		}
		gone := errors.New("lease lost")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if _, err := f.NextWindow(ctx, hub.Minute, false); !errors.Is(err, gone) {
			t.Errorf("canceled: %v", err)
		}
		h.room("a").failures = slices.Repeat([]error{errors.New("broken")}, 5)
		m := nextMinute()
		kr := h.insert("r", "r")
		k1 := h.insert("a", "1")
		if hits, err := f.Next(t.Context()); err != nil || !slices.Equal(hits, []Hit{{"a", k1}}) {
			t.Fatal(hits, err)
		}
		k2 := h.insert("a", "2")
		f.holds(t, hub.Minute, false, m, Hit{"r", kr}, Hit{"a", k2})
		k3 := h.insert("a", "3")
		if hits, err := f.Next(t.Context()); err != nil || !slices.Equal(hits, []Hit{{"a", k3}}) {
			t.Fatal(hits, err)
		}
		// A replica still owes keys of a minute that lies behind the cursor: they come, and what came already does not.
		h.room("r").behind(2 * time.Minute)
		nextMinute()
		kr = h.insert("r", "r2")
		nextMinute()
		k4 := h.insert("a", "4")
		if hits, err := f.Next(t.Context()); err != nil || !slices.Equal(hits, []Hit{{"a", k4}}) {
			t.Fatal(hits, err)
		}
		time.AfterFunc(3*time.Minute, func() { h.mu.Lock(); defer h.mu.Unlock(); h.tell(1, "r") }) // its horizon has moved
		c, err := f.NextWindow(t.Context(), hub.Minute, false)
		if got := f.collect(t, c); err != nil || !slices.Equal(got, []Hit{{"r", kr}}) || f.Position() != (Hit{"a", k4}) {
			t.Fatalf("%v holds %v, %v; at %v", c, got, err, f.Position())
		}
		k5 := h.insert("a", "5")
		if hits, err := f.Next(t.Context()); err != nil || !slices.Equal(hits, []Hit{{"a", k5}}) {
			t.Fatal(hits, err)
		}
		h.room("r").behind(0)
		nextMinute()
		// Answers that reach less far than the horizon was said to be close nothing.
		h.room("a").ahead = time.Minute
		h.room("a").behind(time.Minute)
		h.room("r").ahead = time.Minute
		h.room("r").behind(time.Minute)
		time.AfterFunc(3*time.Minute, func() { h.room("a").behind(0); h.room("r").behind(0) })
		m = nextMinute()
		k6 := h.insert("a", "6")
		tagged(t, s, "t", hub.First(m)).holds(t, hub.Minute, true, m, Hit{"a", k6})
		h.room("a").ahead, h.room("r").ahead = 0, 0
		// A window whose keys cannot be read is asked for until ctx ends.
		f.holds(t, hub.Minute, false, m, Hit{"a", k6})
		if c, err = f.NextWindow(t.Context(), hub.Minute, true); err != nil || len(c.After) != 0 {
			t.Fatal(c, err)
		}
		k7 := h.insert("a", "7")
		if c, err = f.NextWindow(t.Context(), hub.Second, false); err != nil {
			t.Fatal(err)
		}
		h.room("a").failures = slices.Repeat([]error{errors.New("broken")}, 5)
		if got := f.collect(t, c); !slices.Equal(got, []Hit{{"a", k7}}) {
			t.Errorf("after failures: %v", got)
		}
		h.room("a").silent = 1000
		ctx2, cancel2 := context.WithTimeout(t.Context(), time.Minute)
		defer cancel2()
		n := 0
		for _, err := range f.Keys(ctx2, c) {
			if n++; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("silent: %v", err)
			}
		}
		if n != 1 {
			t.Errorf("%d answers of a silent store", n)
		}
	})
}

// TestTagBacksOff: a store that does not answer is asked less and less often.
func TestTagBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(auto)
		h.set("a", "t")
		h.set("b", "t")
		s := h.open(t)
		h.room("a").failures = slices.Repeat([]error{errors.New("broken")}, 100_000)
		for what, next := range map[string]func(context.Context, *Tag) error{
			"keys":    func(ctx context.Context, f *Tag) error { _, err := f.Next(ctx); return err },
			"windows": func(ctx context.Context, f *Tag) error { _, err := f.NextWindow(ctx, hub.Minute, false); return err },
		} {
			f := tagged(t, s, "t", hub.Key{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			calls := h.room("a").count()
			if err := next(ctx, f); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
			if n := h.room("a").count() - calls; n > 3600 || n < 500 {
				t.Errorf("%s: %d calls in an hour", what, n)
			}
			cancel()
		}
	})
}
