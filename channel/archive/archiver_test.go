package archive

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/bucket/mem"
)

func TestSingle(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Single)
		early := w.insert("c", "before the start")
		n := w.start()
		wait(time.Second)
		n.archivedTo("c", early)
		w.whole("c")
		for i := range 600 {
			w.insert("c", fmt.Sprint(i))
		}
		k := w.insert("c", "the last one")
		wait(time.Second)
		n.archivedTo("c", k)
		w.whole("c")
		if age, name := n.Oldest(); age != 0 || name != "" {
			t.Errorf("%s waits for %v", name, age)
		}
		n.stop()
		puts := w.count(mem.Put)
		n = w.start()
		wait(time.Second)
		n.archivedTo("c", k)
		n.stop()
		if w.count(mem.Put) != puts {
			t.Error("a restart archived something again")
		}
	})
}

func TestBatch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Batch)
		n := w.start()
		defer n.stop()
		for i := range 10 {
			w.insert("c", fmt.Sprint(i))
			wait(5 * time.Second)
		}
		if len(w.names("")) != 0 {
			t.Fatal("a minute was archived while it was open")
		}
		if age, name := n.Oldest(); age != 50*time.Second || name != "c" {
			t.Errorf("%s waits for %v", name, age)
		}
		k, _ := n.Archived("c")
		if k != hub.MinKey {
			t.Errorf("archived up to %v", k)
		}
		wait(11 * time.Second)
		w.whole("c")
		n.archivedTo("c", hub.First(time.Now().Truncate(time.Minute)))
		if got := w.names(""); !slices.Equal(got, []string{"cBatch/index/2000/01/01/00/00", "cBatch/items/2000/01/01/00/00"}) {
			t.Errorf("bucket: %q", got)
		}
		if age, _ := n.Oldest(); age != 0 {
			t.Errorf("something waits for %v", age)
		}
		for range 20 { // a few minutes, some of them without items
			w.insert("c", "more")
			wait(37 * time.Second)
		}
		wait(2 * time.Minute)
		w.whole("c")
	})
}

func TestBoth(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		ch := w.channel("c", hub.Both)
		n := w.start()
		var last hub.Key
		for i := range 10 {
			last = w.insert("c", fmt.Sprint(i))
			wait(5 * time.Second)
			if got := len(w.names("c/")); got != i+1 {
				t.Fatalf("%d single items after %d inserts", got, i+1)
			}
		}
		n.stop()
		puts := w.count(mem.Put)
		n = w.start()
		defer func() { n.stop() }()
		wait(time.Second)
		if w.count(mem.Put) != puts {
			t.Error("a restart put single items again")
		}
		if k, _ := n.Archived("c"); !k.Less(last) {
			t.Errorf("archived up to %v before the minute has its zip", k)
		}
		wait(time.Minute)
		w.whole("c")
		n.archivedTo("c", last)

		// The storage changes while a minute is open.
		for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both, hub.Single} {
			w.insert("c", "before "+string(s))
			wait(10 * time.Second)
			next := *ch
			next.Storage = s
			w.mu.Lock()
			w.channels["c"] = &next
			w.mu.Unlock()
			last = w.insert("c", "after "+string(s))
			wait(2 * time.Minute)
			n.archivedTo("c", last)
		}
		// Each item is in one layout at least.
		both := map[hub.Key]bool{}
		for _, l := range []hub.Storage{hub.Single, hub.Batch} {
			p, err := w.long.Keys(t.Context(), &hub.Channel{Name: "c", Storage: l}, hub.Query{Channel: "c", From: hub.MinKey, To: hub.MaxKey})
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range p.Keys {
				both[k] = true
			}
		}
		if len(both) != 18 {
			t.Errorf("%d items of 18", len(both))
		}
	})
}

var errAway = hub.E(hub.Unavailable, "the bucket is away")

// TestBucketAway: hours without a bucket lose nothing, are seen, cost few attempts, and end by themselves.
func TestBucketAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
			w.channel("c"+string(s), s)
		}
		n := w.start()
		w.set(func(mem.Call) mem.Fault { return mem.Fault{Before: errAway} })
		var last hub.Key
		const hours = 5
		for range hours * 60 {
			for name := range w.channels {
				last = w.insert(name, "x")
			}
			wait(time.Minute)
		}
		if age, _ := n.Oldest(); age < hours*time.Hour-time.Minute {
			t.Errorf("the oldest item waits for %v", age)
		}
		if k, _ := n.Archived("cSINGLE"); k != hub.MinKey {
			t.Errorf("archived up to %v", k)
		}
		if p := w.count(mem.Put); p > hours*60*1000 {
			t.Errorf("%d attempts", p)
		}
		w.set(nil)
		wait(10 * time.Minute)
		for name := range w.channels {
			n.archivedTo(name, last)
			w.whole(name)
		}
		if age, name := n.Oldest(); age != 0 {
			t.Errorf("%s waits for %v", name, age)
		}
		n.stop()
	})
}

// TestBackAgain: when long-term storage is back after hours, no channel waits longer than it takes until the first of them is tried again, also when some puts
// still fail.
func TestBackAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.start(func(o *Options) { o.Workers = 2 })
		defer n.stop()
		w.set(func(mem.Call) mem.Fault { return mem.Fault{Before: errAway} })
		last := map[string]hub.Key{}
		for i := range 30 {
			name := fmt.Sprint("c", i)
			w.channel(name, []hub.Storage{hub.Single, hub.Batch}[i%2])
			last[name] = w.insert(name, "x")
			wait(time.Second)
		}
		wait(3 * time.Hour)
		bad := 9
		w.set(func(c mem.Call) mem.Fault { // under the lock of w
			if c.Verb == mem.Put && bad > 0 {
				bad--
				return mem.Fault{Before: errAway}
			}
			return mem.Fault{}
		})
		wait(20 * time.Second)
		for name, k := range last {
			n.archivedTo(name, k)
		}
	})
}

// TestOthersFirst: one channel that gets on again lets the others be tried at once, but not one for which a person has to judge.
func TestOthersFirst(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.start()
		defer n.stop()
		s := &schedule{j: n.Jobs, states: map[string]*state{}, failing: map[*state]struct{}{}}
		for _, name := range []string{"one", "other", "judged"} {
			st := s.state(name)
			err := error(hub.E(hub.Unavailable, "away"))
			if name == "judged" {
				err = hub.E(hub.Conflict, "something else is there")
			}
			for range 10 {
				if err := s.finish(outcome{st: st, err: err}); err != nil {
					t.Fatal(err)
				}
				heap.Remove(&s.dates, st.place)
			}
			if err := s.finish(outcome{st: st, err: err}); err != nil {
				t.Fatal(err)
			}
			most := retryMax
			if name == "judged" {
				most = judgeMax
			}
			if in := time.Until(st.due); in > most*5/4 || in < most/2 {
				t.Errorf("%s is tried again in %v", name, in)
			}
		}
		heap.Remove(&s.dates, s.states["one"].place)
		if err := s.finish(outcome{st: s.states["one"]}); err != nil {
			t.Fatal(err)
		}
		if !s.states["other"].queued || s.states["other"].place >= 0 {
			t.Error("another one waits on")
		}
		if s.states["judged"].queued || s.states["judged"].place < 0 {
			t.Error("what a person has to judge is tried at once")
		}
	})
}

// TestNeighbours: a channel that cannot be archived does not keep the others from it.
func TestNeighbours(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.start(func(o *Options) { o.Workers = 2 })
		defer n.stop()
		var names []string
		for i := range 20 {
			name := fmt.Sprint("good", i)
			w.channel(name, []hub.Storage{hub.Single, hub.Batch}[i%2])
			names = append(names, name)
		}
		for i := range 20 {
			w.channel(fmt.Sprint("bad", i), []hub.Storage{hub.Single, hub.Batch}[i%2])
		}
		w.set(func(c mem.Call) mem.Fault {
			if strings.HasPrefix(c.Name, "bad") {
				return mem.Fault{Before: errAway, Delay: time.Second}
			}
			return mem.Fault{}
		})
		last := map[string]hub.Key{}
		for range 20 {
			for i := range 20 {
				w.insert(fmt.Sprint("bad", i), "x")
				name := fmt.Sprint("good", i)
				last[name] = w.insert(name, "x")
			}
			wait(30 * time.Second)
		}
		wait(90 * time.Second)
		w.whole(names...)
		for name, k := range last {
			n.archivedTo(name, k)
		}
		if _, name := n.Oldest(); !strings.HasPrefix(name, "bad") {
			t.Errorf("%q is behind", name)
		}
	})
}

// TestLostReplies: puts that fail and are there, puts that fail and are not.
func TestLostReplies(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.set(func(c mem.Call) mem.Fault {
			switch n := rand.IntN(100); {
			case n < 20 && c.Verb == mem.Put:
				return mem.Fault{After: errAway}
			case n < 30:
				return mem.Fault{Before: errAway}
			case n < 40 && c.Verb == mem.Get:
				return mem.Fault{Cut: 10}
			}
			return mem.Fault{}
		})
		var names []string
		for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
			w.channel("c"+string(s), s)
			names = append(names, "c"+string(s))
		}
		n := w.start()
		defer n.stop()
		last := map[string]hub.Key{}
		for range 30 {
			for _, name := range names {
				last[name] = w.insert(name, "x")
			}
			wait(10 * time.Second)
		}
		wait(6 * time.Hour)
		for _, name := range names {
			n.archivedTo(name, last[name])
		}
		w.set(nil)
		w.whole(names...)
	})
}

// TestDeath: the process dies at each step that changes anything, in turn; the next one brings it to its end.
func TestDeath(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			steps := 0
			for dies := 1; ; dies++ {
				if steps = dieAt(t, s, dies); steps < dies {
					break
				}
			}
			t.Logf("died at each of %d steps", steps)
			if steps < 4 {
				t.Errorf("there are %d steps only", steps)
			}
		})
	}
}

// dieAt kills the process at a step and returns the number of steps that happened until then.
func dieAt(t *testing.T, s hub.Storage, dies int) (steps int) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", s)
		var keys []hub.Key
		for i := range 4 {
			keys = append(keys, w.insert("c", fmt.Sprint(i)))
			wait(20 * time.Second)
		}
		dead := make(chan struct{})
		w.onStep = func(n *node) {
			w.mu.Lock()
			steps++
			now := steps == dies
			w.mu.Unlock()
			if now {
				w.store.Cut(n.session)
				n.cancel()
				close(dead)
			}
		}
		n := w.start()
		select {
		case <-dead:
			<-n.ended
		case <-time.After(5 * time.Minute):
			n.stop()
		}
		w.onStep = nil
		w.mu.Lock()
		w.step = nil
		w.mu.Unlock()
		n = w.start()
		wait(5 * time.Minute)
		n.archivedTo("c", keys[3])
		w.whole("c")
		n.stop()
	})
	return steps
}

// TestLeader: when the leader is cut off, the other node goes on where it was; a leader that sleeps through the loss of its lease moves no cursor any more.
func TestLeader(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Single)
		a := w.start()
		wait(time.Second)
		b := w.start()
		k1 := w.insert("c", "1")
		wait(time.Second)
		a.archivedTo("c", k1)
		b.archivedTo("c", k1) // it asks the coordinator
		puts := w.count(mem.Put)
		w.store.Cut(a.session)
		k2 := w.insert("c", "2")
		wait(time.Second)
		b.archivedTo("c", k2)
		if w.count(mem.Put) > puts+2 { // the old leader may have begun
			t.Errorf("%d puts for one item", w.count(mem.Put)-puts)
		}
		w.store.Mend(a.session)
		wait(time.Minute)
		w.store.Steal(leasePrefix + "archiver") // b believes that it leads, and a does
		wait(time.Minute)
		k3 := w.insert("c", "3")
		wait(time.Minute)
		a.archivedTo("c", k3)
		b.archivedTo("c", k3)
		w.whole("c")
		a.kill()
		k4 := w.insert("c", "4")
		wait(time.Minute)
		b.archivedTo("c", k4)
		w.whole("c")
		b.kill()
	})
}

// TestHeldHorizon: a minute whose end the clock has passed and the horizon has not stays open, at little cost.
func TestHeldHorizon(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Batch)
		w.channel("s", hub.Single)
		k := w.insert("c", "1")
		w.held = k
		n := w.start()
		defer n.stop()
		w.insert("s", "above the horizon")
		wait(time.Hour)
		if got := w.names(""); len(got) != 0 {
			t.Fatalf("archived above the horizon: %q", got)
		}
		if n := w.readings(); n > 4*3600 {
			t.Errorf("%d reads in an hour", n)
		}
		w.mu.Lock()
		w.held = hub.Key{}
		w.mu.Unlock()
		w.put("s", hub.NewKey(time.Now(), "x"), "wakes")
		wait(5 * time.Second)
		n.archivedTo("c", k)
		w.whole("c", "s")
	})
}

// TestGone: a deleted channel is needed by nobody; a new one of the name begins with its own items; another spelling is another channel.
func TestGone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Single)
		w.set(func(mem.Call) mem.Fault { return mem.Fault{Before: errAway} })
		w.insert("c", "old")
		n := w.start()
		defer n.stop()
		wait(time.Minute)
		if k, ok := n.Archived("c"); !ok || k != hub.MinKey {
			t.Fatalf("%v, %v", k, ok)
		}
		w.mu.Lock()
		delete(w.channels, "c")
		w.mu.Unlock()
		wait(5 * time.Minute)
		if _, ok := n.Archived("c"); ok {
			t.Fatal("a deleted channel is still needed")
		}
		if age, name := n.Oldest(); age != 0 {
			t.Errorf("%q waits for %v", name, age)
		}
		w.set(nil)
		w.channel("C", hub.Single)
		w.insert("C", "another spelling")
		wait(time.Minute)
		if _, ok := n.Archived("c"); ok {
			t.Fatal("the old spelling came back")
		}
		w.whole("C")
		w.mu.Lock()
		delete(w.channels, "C")
		w.mu.Unlock()
		ch := w.channel("c", hub.Single)
		ch.Since = time.Now().UnixMilli()
		k := w.insert("c", "new")
		wait(time.Minute)
		n.archivedTo("c", k)
		w.whole("c")
		if got := w.names("c/"); len(got) != 1 {
			t.Errorf("bucket: %q", got)
		}
	})
}

// TestHidden: what nobody may see is not archived and does not stay in the log for ever.
func TestHidden(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				w.insert("c", "seen")
				k := w.insert("c", "hidden")
				w.hide(k)
				n := w.start()
				wait(3 * time.Minute)
				n.archivedTo("c", k)
				w.whole("c")
				w.mu.Lock()
				k = hub.NewKey(time.Now(), "alone0") // nothing else is in its minute
				w.hidden[k] = true
				w.add("c", k, "hidden")
				w.mu.Unlock()
				wait(3 * time.Minute)
				n.archivedTo("c", k)
				w.whole("c")
				n.stop()
				n = w.start()
				defer n.stop()
				reads := w.readings()
				wait(3 * time.Hour)
				n.archivedTo("c", k)
				if w.readings() > reads+3 {
					t.Errorf("%d reads for nothing", w.readings()-reads)
				}
			})
		})
	}
}

// TestDamaged: a damaged item is left out, the others are archived.
func TestDamaged(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				var k hub.Key
				for i := range 20 {
					k = w.insert("c", fmt.Sprint(i))
					if i == 0 || i == 7 || i == 8 || i == 19 {
						w.damage(k)
					}
				}
				n := w.start()
				defer n.stop()
				wait(3 * time.Minute)
				n.archivedTo("c", k)
				w.whole("c")
			})
		})
	}
}

// TestConflict: other content under the name of an item is never overwritten, stops its channel only, and is reported; for a mutable item long-term storage
// is right.
func TestConflict(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Single)
		h := w.channel("h", hub.Single, func(c *hub.Channel) { c.MutableTime = time.Now().Add(time.Hour) })
		n := w.start()
		defer n.stop()
		other := newWorld(t)
		k := hub.NewKey(time.Now(), "taken0")
		other.put("x", k, "something else")
		for _, name := range []string{"c", "h"} {
			if err := w.long.PutSingle(t.Context(), &hub.Channel{Name: name, Storage: hub.Single}, other.items["x"][0]); err != nil {
				t.Fatal(err)
			}
			w.put(name, k, "ours")
		}
		wait(time.Hour)
		if at, _ := n.Archived("c"); !at.Less(k) {
			t.Errorf("archived up to %v", at)
		}
		if _, name := n.Oldest(); name != "c" {
			t.Errorf("%q is behind", name)
		}
		n.archivedTo("h", k)
		item, err := w.long.Read(t.Context(), h, k)
		if err != nil || w.body(item) != "something else" {
			t.Errorf("%v", err)
		}
	})
}

// TestReset: a cursor that was moved back by hand, or removed, makes the archiver begin there.
func TestReset(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Single)
		first := w.insert("c", "1")
		n := w.start()
		defer n.stop()
		wait(time.Second)
		if err := w.bucket.Delete(t.Context(), w.names("")...); err != nil {
			t.Fatal(err)
		}
		if _, err := n.archived.Reset(t.Context(), "c", hub.KeyAt(first.Millis()-1, ""), nil); err != nil {
			t.Fatal(err)
		}
		k := w.insert("c", "2")
		wait(time.Minute)
		n.archivedTo("c", k)
		w.whole("c")
	})
}

// TestReplicated: a channel whose keys come from its source is archived up to its marker, not up to the clock, and no key above that counts as archived.
func TestReplicated(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
			w.channel("r"+string(s), s, func(c *hub.Channel) { c.ReplicationSource = "http://elsewhere/channel/r" })
		}
		n := w.start(func(o *Options) { o.VerifyEvery = 10 * time.Minute })
		defer n.stop()
		base := time.Now().Add(-24 * time.Hour).Truncate(time.Minute)
		at := func(minutes int) hub.Key { return hub.NewKey(base.Add(time.Duration(minutes)*time.Minute), "000000") }
		for name := range w.channels {
			w.put(name, at(0), "x")
		}
		wait(5 * time.Minute)
		for name := range w.channels {
			if k, ok := n.Archived(name); !ok || k != hub.MinKey {
				t.Fatalf("%s counts as archived up to %v, and nobody knows its source yet", name, k)
			}
		}
		for _, minutes := range []int{1, 2, 30, 31, 60, 61} {
			for name := range w.channels {
				w.put(name, at(minutes), "x")
				w.complete(name, at(minutes))
				wait(time.Second)
				above := hub.KeyAt(at(minutes).Millis()+1, "above")
				w.put(name, above, "not complete")
				wait(time.Second)
				if k, _ := n.Archived(name); !k.Less(above) {
					t.Fatalf("%s: archived up to %v, complete up to %v", name, k, at(minutes))
				}
			}
		}
		for name := range w.channels {
			w.complete(name, at(1000))
		}
		wait(time.Minute)
		for name := range w.channels {
			w.whole(name)
			n.archivedTo(name, at(61))
		}
	})
}

// TestReplicatedSilence: a minute that the source never ended is archived all the same, and again when more of it comes.
func TestReplicatedSilence(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("r", hub.Batch, func(c *hub.Channel) { c.ReplicationSource = "http://elsewhere/channel/r" })
		n := w.start()
		defer n.stop()
		base := time.Now().Add(-time.Hour).Truncate(time.Minute)
		for i := range 3 {
			k := hub.NewKey(base.Add(time.Duration(i)*time.Second), "000000")
			w.put("r", k, fmt.Sprint(i))
			w.complete("r", k)
			wait(3 * time.Minute)
			w.whole("r")
			if at, _ := n.Archived("r"); at != k {
				t.Fatalf("archived up to %v, complete up to %v", at, k)
			}
		}
	})
}

// TestReplicatedLate: a key that comes below the marker is archived when the sweep asks for it, and only then may it go.
func TestReplicatedLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		for _, s := range []hub.Storage{hub.Single, hub.Batch} {
			w.channel("r"+string(s), s, func(c *hub.Channel) { c.ReplicationSource = "http://elsewhere/channel/r" })
		}
		n := w.start()
		defer n.stop()
		base := time.Now().Add(-time.Hour).Truncate(time.Minute)
		late := hub.NewKey(base, "late00")
		for name := range w.channels {
			w.put(name, hub.NewKey(base.Add(time.Second), "000000"), "1")
			w.complete(name, hub.NewKey(base.Add(10*time.Minute), "000000"))
		}
		wait(time.Minute)
		for name := range w.channels {
			w.put(name, late, "2")
			if !n.Confirmed(name, late) {
				t.Fatalf("%s: not confirmed", name)
			}
			w.whole(name)
		}
	})
}

// TestTenThousandIdle: what quiet channels cost.
func TestTenThousandIdle(t *testing.T) {
	channels := int64(10000)
	if testing.Short() {
		channels = 1000
	}
	bubble(t, func(t *testing.T, w *world) {
		for i := range channels {
			name := fmt.Sprint("c", i)
			w.channel(name, []hub.Storage{hub.Single, hub.Batch}[i%2])
			w.insert(name, "x")
		}
		n := w.start()
		wait(5 * time.Minute)
		w.whole("c0", "c1", "c500", "c999")
		n.stop()

		memory := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc + m.StackInuse)
		}
		before, goroutines := memory(), runtime.NumGoroutine()
		n = w.start()
		wait(5 * time.Minute)
		if each := (memory() - before) / channels; each > 2000 {
			t.Errorf("%d bytes for each channel", each)
		} else {
			t.Logf("%d bytes for each channel", each)
		}
		if more := runtime.NumGoroutine() - goroutines; more > 20 {
			t.Errorf("%d goroutines", more)
		}
		reads, puts := w.readings(), w.count(mem.Put)
		wait(24 * time.Hour)
		if w.readings() != reads || w.count(mem.Put) != puts {
			t.Errorf("%d reads and %d puts in a quiet day", w.readings()-reads, w.count(mem.Put)-puts)
		}
		n.stop()
	})
}

// TestHotBatch: a flood into an open minute does not keep the archiver busy.
func TestHotBatch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.channel("c", hub.Batch)
		n := w.start()
		defer n.stop()
		for range 3000 {
			w.insert("c", "x")
			time.Sleep(50 * time.Millisecond)
		}
		if w.readings() > 200 {
			t.Errorf("%d reads for 3,000 items in 150 seconds", w.readings())
		}
		wait(2 * time.Minute)
		w.whole("c")
	})
}

func TestOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("accepted")
	}
}

// TestNoCoordinator: cursors that cannot be written or read keep nobody from archiving for ever.
func TestNoCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.channel("c", hub.Single)
		n := w.start()
		k := w.insert("c", "1")
		wait(time.Second)
		w.store.Cut(n.session)
		k2 := w.insert("c", "2")
		wait(time.Hour)
		if at, ok := n.Archived("c"); !ok || at != hub.MinKey {
			t.Errorf("without a coordinator: %v, %v", at, ok)
		}
		w.store.Mend(n.session)
		wait(time.Minute)
		n.archivedTo("c", k)
		n.archivedTo("c", k2)
		w.whole("c")
		n.stop()
	})
}

// TestChangedMeanwhile: an item that comes while its channel is being archived is not forgotten, though nothing else ever wakes the archiver.
func TestChangedMeanwhile(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				n := w.start()
				defer n.stop()
				w.insert("c", "1")
				w.set(func(mem.Call) mem.Fault { return mem.Fault{Delay: 5 * time.Second} })
				k := hub.Key{}
				for i := range 20 { // some of them while a pass is past its reading
					wait(time.Duration(7*i) * time.Second)
					k = w.insert("c", fmt.Sprint(i))
				}
				wait(5 * time.Minute)
				n.archivedTo("c", k)
				w.whole("c")
				w.insert("c", "2")
				wait(time.Second)
				k = w.insert("c", "3")
				wait(5 * time.Minute)
				n.archivedTo("c", k)
				w.whole("c")
			})
		})
	}
}

// TestBecomesReplicated: a pass that began while its channel was an ordinary one takes nothing for archived that a source brings meanwhile.
func TestBecomesReplicated(t *testing.T) {
	for _, s := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		t.Run(string(s), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.channel("c", s)
				n := w.start()
				defer n.stop()
				var once sync.Once
				old := hub.NewKey(time.Now().Add(-time.Hour).Truncate(time.Minute), "000000")
				w.mu.Lock()
				w.step = func() {
					once.Do(func() {
						w.channel("c", s, func(c *hub.Channel) { c.ReplicationSource = "http://elsewhere/channel/c" })
						w.put("c", old, "replicated")
					})
				}
				w.mu.Unlock()
				w.insert("c", "own")
				wait(5 * time.Minute)
				if k, _ := n.Archived("c"); !k.Less(old) {
					t.Errorf("archived up to %v, and %v came from a source of which nothing is complete", k, old)
				}
				w.complete("c", hub.Last(time.Now()))
				wait(5 * time.Minute)
				w.whole("c")
			})
		})
	}
}

// TestChangeDuringAPass: what a pass reads of its state is not written while it runs, and what changes then brings another pass.
func TestChangeDuringAPass(t *testing.T) {
	n := newWorld(t).start()
	defer n.stop()
	s := &schedule{j: n.Jobs, states: map[string]*state{}, failing: map[*state]struct{}{}}
	st := s.state("c")
	was, err := hub.ParseKey("2026/11/21/13/46/52/726/00000p")
	if err != nil {
		t.Fatal(err)
	}
	st.last, st.running, s.running = was, true, 1
	s.change("c")
	if st.last != was || !st.changed || st.queued {
		t.Fatalf("during the pass: %+v", st)
	}
	if err = s.finish(outcome{st: st}); err != nil || !st.last.IsZero() || !st.queued {
		t.Fatalf("after the pass: %+v, %v", st, err)
	}
}
