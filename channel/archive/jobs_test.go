package archive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/bucket/mem"
)

func verifying(o *Options) { o.VerifyEvery = 10 * time.Minute }

// TestVerifier: what long-term storage has lost comes back; what it has is not read again and again.
func TestVerifier(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				n := w.start(verifying)
				for i := range 60 {
					w.insert("c", fmt.Sprint(i))
					wait(3 * time.Second)
				}
				wait(90 * time.Second)
				w.whole("c")
				lost := w.names("c")
				lost = slices.DeleteFunc(lost, func(n string) bool { return len(n)%2 == 0 && s == hub.Both || strings.Contains(n, "/index/") })
				if err := w.bucket.Delete(t.Context(), lost...); err != nil || len(lost) == 0 {
					t.Fatalf("%d lost, %v", len(lost), err)
				}
				wait(15 * time.Minute)
				w.whole("c")
				n.stop()
				gets, lists := w.count(mem.Get), w.count(mem.List)
				n = w.start(verifying)
				wait(24 * time.Hour)
				if g, l := w.count(mem.Get)-gets, w.count(mem.List)-lists; g > 10 || l > 10 {
					t.Errorf("%d reads and %d listings to verify nothing", g, l)
				}
				n.stop()
			})
		})
	}
}

// TestVerifierTimeout: a time-out, or a failure, is no finding. The channel is looked at again, from the same place; the others are done.
func TestVerifierTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"slow", "broken", "fine"} {
			w.channel(name, hub.Single)
		}
		n := w.start(verifying)
		defer n.stop()
		for i := range 30 {
			for name := range w.channels {
				w.insert(name, fmt.Sprint(i))
			}
			wait(6 * time.Second)
		}
		wait(time.Minute)
		if err := w.bucket.Delete(t.Context(), w.names("/00/00/")...); err != nil {
			t.Fatal(err)
		}
		w.set(func(c mem.Call) mem.Fault {
			switch {
			case strings.HasPrefix(c.Name, "slow"):
				return mem.Fault{Delay: time.Hour}
			case strings.HasPrefix(c.Name, "broken"):
				return mem.Fault{Before: errAway}
			}
			return mem.Fault{}
		})
		wait(45 * time.Minute)
		w.set(nil)
		for _, name := range []string{"slow", "broken"} {
			if p, err := n.verified.Get(t.Context(), name); err != nil || !p.Key.IsZero() {
				t.Errorf("%s counts as verified up to %v, %v", name, p.Key, err)
			}
		}
		w.whole("fine")
		wait(20 * time.Minute)
		w.whole("slow", "broken", "fine")
	})
}

// TestVerifierHistorical: digests that differ for a good reason are no loss.
func TestVerifierHistorical(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ch := w.channel("c", hub.Single, func(c *hub.Channel) { c.MutableTime = time.Now().Add(-time.Hour) })
		n := w.start(verifying)
		defer n.stop()
		k := w.insert("c", "seen")
		hidden := hub.NewKey(time.Now(), "hidden")
		w.hide(hidden)
		w.put("c", hidden, "deleted")
		other := newWorld(t)
		other.put("x", hub.KeyAt(k.Millis(), "hist00"), "historical")
		if err := w.long.PutSingle(t.Context(), ch, other.items["x"][0]); err != nil {
			t.Fatal(err)
		}
		wait(time.Hour)
		if p, err := n.verified.Get(t.Context(), "c"); err != nil || p.Key.Less(k) {
			t.Errorf("verified up to %v, %v", p.Key, err)
		}
		if got := w.names("c/"); len(got) != 2 {
			t.Errorf("bucket: %q", got)
		}
	})
}

// TestConfirmed: a key that came up late is put where it belongs before the log may let go of it.
func TestConfirmed(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				n := w.start()
				defer n.stop()
				k := w.insert("c", "1")
				wait(2 * time.Minute)
				late := hub.KeyAt(k.Millis()+5, "late00")
				w.put("c", late, "late")
				w.set(func(mem.Call) mem.Fault { return mem.Fault{Before: errAway} })
				if n.Confirmed("c", late) {
					t.Fatal("confirmed without a bucket")
				}
				w.set(nil)
				for range 2 {
					if !n.Confirmed("c", late) {
						t.Fatal("not confirmed")
					}
					w.whole("c")
				}
				if !n.Confirmed("c", k) {
					t.Error("an item that is there is not confirmed")
				}
				w.mu.Lock()
				delete(w.channels, "c")
				w.mu.Unlock()
				if !n.Confirmed("c", late) {
					t.Error("nobody needs an item of a deleted channel")
				}
			})
		})
	}
}

func TestRetention(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		day := 24 * time.Hour
		for _, s := range []hub.Storage{hub.Single, hub.Batch} {
			w.channel("ttl"+string(s), s, func(c *hub.Channel) { c.TTLDays = 10 })
			w.channel("max"+string(s), s, func(c *hub.Channel) { c.MaxItems = 7 })
			w.channel("few"+string(s), s, func(c *hub.Channel) { c.MaxItems = 100 })
			w.channel("ever"+string(s), s, func(c *hub.Channel) { c.KeepForever, c.TTLDays, c.MaxItems = true, 1, 1 })
		}
		w.channel("hist", hub.Single, func(c *hub.Channel) { c.MutableTime, c.TTLDays, c.MaxItems = time.Now().Add(10*day), 1, 1 })
		names := slices.Collect(maps.Keys(w.channels))
		n := w.start(func(o *Options) { o.RetainEvery = 6 * time.Hour })
		for range 20 {
			for _, name := range names {
				w.insert(name, "x")
			}
			wait(day)
		}
		n.stop()
		for name, ch := range w.channels {
			var got []hub.Key
			p, err := w.long.Keys(t.Context(), ch, hub.Query{Channel: name, From: hub.MinKey, To: hub.MaxKey})
			if err != nil {
				t.Fatal(err)
			}
			got = p.Keys
			var want []hub.Key
			for _, i := range w.items[name] {
				want = append(want, i.Key)
			}
			switch {
			case strings.HasPrefix(name, "ttl"):
				want = want[10:] // the youngest is a day old
			case strings.HasPrefix(name, "max"):
				want = want[13:]
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s holds %d items, want %d: %v", name, len(got), len(want), got)
			}
		}
	})
}

func TestRetentionFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, name := range []string{"bad", "good"} {
			w.channel(name, hub.Single, func(c *hub.Channel) { c.MaxItems = 2 })
		}
		n := w.start(func(o *Options) { o.RetainEvery = time.Hour })
		defer n.stop()
		for range 5 {
			w.insert("bad", "x")
			w.insert("good", "x")
		}
		wait(time.Minute)
		w.set(func(c mem.Call) mem.Fault {
			if strings.HasPrefix(c.Name, "bad") && c.Verb != mem.Put {
				return mem.Fault{After: errAway}
			}
			return mem.Fault{}
		})
		wait(3 * time.Hour)
		if got := w.names("good/"); len(got) != 2 {
			t.Errorf("bucket: %q", got)
		}
		w.set(nil)
		wait(3 * time.Hour)
		if got := w.names(""); len(got) != 4 {
			t.Errorf("bucket: %q", got)
		}
	})
}

// TestRetentionHidesFirst: what maxItems removes is hidden from everybody before the first of it is gone, and goes also if it was archived later.
func TestRetentionHidesFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ch := w.channel("c", hub.Single, func(c *hub.Channel) { c.MaxItems = 2 })
		n := w.start()
		defer n.stop()
		for range 3 {
			w.insert("c", "x")
		}
		third := w.insert("c", "x")
		wait(time.Minute)
		second := w.items["c"][2].Key
		w.set(func(c mem.Call) mem.Fault {
			if now, _ := (configurations{w}).Fresh(t.Context(), "c"); c.Verb == mem.Delete && now.Lowest() != second {
				t.Errorf("%s is removed, and all below %v is hidden", c.Name, now.Lowest())
			}
			return mem.Fault{}
		})
		if removed, err := n.Retain(t.Context(), ch); err != nil || removed != 2 {
			t.Errorf("%d objects were removed, %v", removed, err)
		}
		ch, _ = configurations{w}.Fresh(t.Context(), "c")
		if err := w.long.PutSingle(t.Context(), ch, w.items["c"][0]); err != nil {
			t.Fatal(err)
		}
		w.hide(third) // fewer than it keeps
		if removed, err := n.Retain(t.Context(), ch); err != nil || removed != 1 {
			t.Errorf("%d objects were removed, %v", removed, err)
		}
		other := ch.Clone()
		other.MaxItems = 1
		if removed, err := n.Retain(t.Context(), other); err != nil || removed != 0 { // it was changed meanwhile
			t.Errorf("%d objects were removed, %v", removed, err)
		}
	})
}

// TestRetentionCountsWhatIsStable: an item that may be given up yet pushes out none of the newest ones.
func TestRetentionCountsWhatIsStable(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ch := w.channel("c", hub.Single, func(c *hub.Channel) { c.MaxItems = 2 })
		n := w.start()
		defer n.stop()
		w.insert("c", "a")
		b := w.insert("c", "b")
		wait(time.Minute)
		w.mu.Lock()
		w.held = b
		w.mu.Unlock()
		doubtful := w.insert("c", "perhaps")
		if removed, err := n.Retain(t.Context(), ch); err != nil || removed != 0 {
			t.Errorf("%d objects were removed, %v", removed, err)
		}
		w.mu.Lock()
		w.held = doubtful
		w.mu.Unlock()
		if removed, err := n.Retain(t.Context(), ch); err != nil || removed != 1 {
			t.Errorf("%d objects were removed, %v", removed, err)
		}
	})
}

// TestRetentionClock: a clock that is days ahead of those of the others removes nothing that has not expired.
func TestRetentionClock(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ch := w.channel("c", hub.Single, func(c *hub.Channel) { c.TTLDays = 1 })
		n := w.start(func(o *Options) { o.Clock = func() time.Time { return time.Now().AddDate(0, 0, 3) } })
		defer n.stop()
		w.insert("c", "a")
		wait(time.Hour)
		if removed, err := n.Retain(t.Context(), ch); err != nil || removed != 0 {
			t.Errorf("%d objects were removed, %v", removed, err)
		}
		wait(25 * time.Hour)
		if removed, err := n.Retain(t.Context(), ch); err != nil || removed != 1 {
			t.Errorf("%d objects were removed, %v", removed, err)
		}
	})
}

// bury deletes a channel.
func (w *world) bury(name string) channel.Remains {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := channel.Remains{Channel: *w.channels[name], Until: time.Now().UnixMilli() + 1}
	w.remains = append(w.remains, r)
	delete(w.channels, name)
	return r
}

func (w *world) buried() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.remains)
}

func cleaning(o *Options) { o.CleanEvery = time.Minute }

func TestCleanUp(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				w.channel("cBatch", hub.Single) // a neighbour with a confusing name
				n := w.start(cleaning)
				for i := range 30 {
					w.insert("c", fmt.Sprint(i))
					w.insert("cBatch", fmt.Sprint(i))
					wait(7 * time.Second)
				}
				w.bury("c")
				wait(5 * time.Minute)
				if got := w.names(""); slices.ContainsFunc(got, func(n string) bool { return !strings.HasPrefix(n, "cBatch/2") }) || len(got) != 30 {
					t.Errorf("left: %q", got)
				}
				if w.buried() != 0 {
					t.Error("not noted as clean")
				}
				w.whole("cBatch")
				if p, err := n.archived.Get(t.Context(), "c"); err != nil || !p.Key.IsZero() {
					t.Errorf("a cursor is left at %v, %v", p.Key, err)
				}
				n.stop()
			})
		})
	}
}

// TestCleanUpInterrupted: whenever the process dies, the next one goes on.
func TestCleanUpInterrupted(t *testing.T) {
	for dies := 1; dies < 12; dies++ {
		bubble(t, func(t *testing.T, w *world) {
			w.channel("c", hub.Both)
			n := w.start()
			for range 6 {
				w.insert("c", "x")
				wait(30 * time.Second)
			}
			wait(time.Minute)
			n.stop()
			w.bury("c")
			steps := 0
			w.onStep = func(n *node) {
				w.mu.Lock()
				steps++
				now := steps == dies
				w.mu.Unlock()
				if now {
					w.store.Cut(n.session)
					n.cancel()
				}
			}
			n = w.start(cleaning)
			wait(10 * time.Minute)
			n.kill()
			w.onStep = nil
			w.mu.Lock()
			w.step = nil
			w.mu.Unlock()
			n = w.start(cleaning)
			wait(10 * time.Minute)
			n.stop()
			if got := w.names(""); len(got) != 0 || w.buried() != 0 {
				t.Errorf("died at step %d: left %q", dies, got)
			}
		})
	}
}

// TestCleanUpAndReuse: the clean-up never touches what the next channel of the name holds, however soon that came.
func TestCleanUpAndReuse(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		for _, gap := range []time.Duration{0, 10 * time.Second, 3 * time.Minute} {
			t.Run(fmt.Sprint(s, gap), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.channel("c", s)
					n := w.start(cleaning)
					defer n.stop()
					var old []hub.Key
					for i := range 10 {
						old = append(old, w.insert("c", fmt.Sprint("old", i)))
						wait(14 * time.Second) // deleted at 2:20
					}
					r := w.bury("c")
					wait(gap)
					next := w.channel("c", s)
					w.mu.Lock()
					next.Since = time.Now().UnixMilli() + 1
					if len(w.remains) > 0 {
						w.remains[0].Until = next.Since
					}
					w.mu.Unlock()
					wait(10 * time.Millisecond)
					for i := range 20 {
						w.insert("c", fmt.Sprint("new", i))
						wait(20 * time.Second)
					}
					wait(10 * time.Minute)
					w.whole2("c", old)
					if w.buried() != 0 {
						t.Errorf("%v is not noted as clean", r.Channel.Name)
					}
				})
			})
		}
	}
}

// whole2 is whole, but keys of gone may still be in the bucket, if they are in one minute with visible ones.
func (w *world) whole2(name string, gone []hub.Key) {
	w.t.Helper()
	w.mu.Lock()
	ch := w.channels[name]
	w.mu.Unlock()
	want, err := source{w}.visible(hub.Query{Channel: name, From: hub.MinKey, To: hub.MaxKey})
	if err != nil || len(want) == 0 {
		w.t.Fatal(err)
	}
	for _, layout := range layouts(ch) {
		there := map[hub.Key]bool{}
		for _, i := range want {
			there[i.Key] = false
		}
		p, err := w.long.Keys(context.Background(), &hub.Channel{Name: name, Storage: layout}, hub.Query{Channel: name, From: hub.MinKey, To: hub.MaxKey})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, k := range p.Keys {
			if _, new := there[k]; new {
				there[k] = true
				continue
			}
			if layout == hub.Single || !hub.WindowAt(k.Time(), hub.Minute).Start.Equal(hub.WindowAt(time.UnixMilli(ch.Since), hub.Minute).Start) {
				w.t.Errorf("%s: an old item is left: %v", layout, k)
			}
		}
		for k, ok := range there {
			if !ok {
				w.t.Errorf("%s: an item of the new channel is gone: %v", layout, k)
			}
		}
	}
}

// TestCleanUpWaits: while the horizon is held, no zip in the middle of which a channel was deleted is touched.
func TestCleanUpWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Batch)
		n := w.start(cleaning)
		defer n.stop()
		w.insert("c", "x")
		wait(2 * time.Minute)
		w.mu.Lock()
		w.held = hub.Last(time.Now())
		w.mu.Unlock()
		w.bury("c")
		wait(time.Hour)
		if len(w.names("")) != 2 || w.buried() != 1 {
			t.Error("cleaned up behind the horizon")
		}
		w.mu.Lock()
		w.held = hub.Key{}
		w.mu.Unlock()
		wait(5 * time.Minute)
		if len(w.names("")) != 0 || w.buried() != 0 {
			t.Error("not cleaned up")
		}
		synctest.Wait()
	})
}

// TestCleanUpStraggler: what an archiver still writes while the clean-up runs is removed as well.
func TestCleanUpStraggler(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ch := w.channel("c", hub.Single)
		n := w.start(cleaning)
		defer n.stop()
		k := w.insert("c", "x")
		item := w.items["c"][0]
		wait(time.Minute)
		w.bury("c")
		var once sync.Once
		w.set(func(c mem.Call) mem.Fault {
			if c.Verb == mem.Delete {
				once.Do(func() {
					item.Key = hub.KeyAt(k.Millis()-1, "late00")
					if err := w.long.PutSingle(t.Context(), ch, item); err != nil {
						t.Error(err)
					}
				})
			}
			return mem.Fault{}
		})
		wait(10 * time.Minute)
		if got := w.names(""); len(got) != 0 || w.buried() != 0 {
			t.Errorf("left: %q", got)
		}
	})
}

// TestVerifierOpenMinute: a minute that is not over does not count as verified.
func TestVerifierOpenMinute(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Single)
		n := w.start(func(o *Options) { o.VerifyEvery = 5 * time.Second })
		defer n.stop()
		w.insert("c", "1")
		wait(20 * time.Second)
		k := w.insert("c", "2")
		wait(100 * time.Millisecond)
		if err := w.bucket.Delete(t.Context(), "c/"+k.String()); err != nil {
			t.Fatal(err)
		}
		wait(2 * time.Minute)
		w.whole("c")
	})
}
