package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
)

// source is one channel in memory. Its horizon follows the clock, less lag, unless it is held.
type source struct {
	rule hub.Horizon

	mu       sync.Mutex // guards the rest
	keys     []hub.Key
	gone     map[hub.Key]bool
	lag      time.Duration
	shown    hub.Key       // the highest horizon that was told
	ahead    time.Duration // how far Horizon is before what answers reach
	silent   int           // answers that are not whole
	failures []error
	calls    int
	watchers map[chan struct{}]bool
}

func newSource(rule hub.Horizon) *source {
	return &source{rule: rule, watchers: map[chan struct{}]bool{}, gone: map[hub.Key]bool{}}
}

func (s *source) cut() hub.Key {
	now := time.Now()
	k, _ := s.rule.Cut(hub.Last(now.Add(-s.lag)), now)
	if s.shown.Less(k) {
		s.shown = k
	}
	return k
}

// insert adds a key of this moment and wakes, as Spoke does.
func (s *source) insert(keys ...hub.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		i, found := slices.BinarySearchFunc(s.keys, k, hub.Key.Compare)
		if !found {
			s.keys = slices.Insert(s.keys, i, k)
		}
	}
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// now inserts a key of this moment, or of the next millisecond that no horizon has shown yet: no hub mints below one.
func (s *source) now(hash string) hub.Key {
	for {
		now := time.Now()
		k := hub.NewKey(now, hash)
		s.mu.Lock()
		above := s.shown.Less(k)
		s.mu.Unlock()
		if above {
			s.insert(k)
			return k
		}
		time.Sleep(now.Truncate(time.Millisecond).Add(time.Millisecond).Sub(now))
	}
}

func (s *source) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if len(s.failures) > 0 {
		err := s.failures[0]
		s.failures = s.failures[1:]
		return hub.Page{}, err
	}
	p := hub.Page{Horizon: s.cut()}
	to := q.To
	if q.Stable && p.Horizon.Less(to) {
		to = p.Horizon.After()
	}
	for _, k := range s.keys {
		if !k.Less(q.From) && k.Less(to) {
			p.Keys = append(p.Keys, k)
		}
	}
	if q.Reverse {
		slices.Reverse(p.Keys)
	}
	if q.Limit > 0 && len(p.Keys) > q.Limit {
		p.Keys, p.More = p.Keys[:q.Limit], true
	}
	if s.silent > 0 && len(p.Keys) > 0 {
		s.silent--
		return hub.Page{Keys: p.Keys[max(1, len(p.Keys)-1):], Silent: 1, Horizon: p.Horizon}, nil
	}
	return p, nil
}

func (s *source) Items(_ context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		s.mu.Lock()
		var found []hub.Key
		for _, k := range s.keys {
			if !k.Less(q.From) && k.Less(q.To) && !s.gone[k] {
				found = append(found, k)
			}
		}
		s.mu.Unlock()
		for _, k := range found {
			if !yield(hub.Sealed{Key: k, Data: []byte(k.String())}, nil) {
				return
			}
		}
	}
}

func (s *source) Horizon(context.Context, string) (hub.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	s.lag -= s.ahead
	defer func() { s.lag += s.ahead }()
	return s.cut(), nil
}

func (s *source) Watch(string) (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = true
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

var (
	auto  = hub.Horizon{Auto: true}
	fixed = hub.Horizon{Seconds: 5}
)

func follow(t *testing.T, s *source, after hub.Key, change ...func(*Options)) *Feed {
	t.Helper()
	o := Options{Source: s, Channel: "c", After: after, Horizon: s.rule}
	for _, f := range change {
		f(&o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func next(t *testing.T, f *Feed, want ...hub.Key) {
	t.Helper()
	got, err := f.Next(t.Context())
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v: next is %v, %v; want %v", time.Now(), got, err, want)
	}
	if f.Position() != want[len(want)-1] {
		t.Fatalf("position %v", f.Position())
	}
}

func TestNextAuto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(auto)
		a := s.now("a")
		f := follow(t, s, hub.Key{})
		next(t, f, a)
		began, calls := time.Now(), s.count()
		var b hub.Key
		time.AfterFunc(24*time.Hour, func() { b = s.now("b") })
		got, err := f.Next(t.Context())
		synctest.Wait()
		if err != nil || !slices.Equal(got, []hub.Key{b}) {
			t.Fatalf("%v, %v", got, err)
		}
		if d := time.Since(began); d != 24*time.Hour {
			t.Errorf("delivered after %v", d)
		}
		if n := s.count() - calls; n > 2 {
			t.Errorf("%d calls in a day without items", n)
		}
	})
}

// TestNextFixed: an item comes out in the very moment in which it becomes stable, after one sleep.
func TestNextFixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ms := range []time.Duration{0, 1, 400, 999} {
			s := newSource(fixed)
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second + ms*time.Millisecond)))
			began := time.Now()
			k := s.now("a")
			f := follow(t, s, hub.Key{})
			next(t, f, k)
			want := 5 * time.Second
			if ms > 0 {
				want += time.Second - ms*time.Millisecond
			}
			if d := time.Since(began); d != want {
				t.Errorf("a key at .%03d was delivered after %v, want %v", ms, d, want)
			}
			if n := s.count(); n > 4 {
				t.Errorf("%d calls", n)
			}
		}
	})
}

// TestFixedFlow: under a steady flow everything comes, in order, once, never early.
func TestFixedFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(fixed)
		f := follow(t, s, hub.Key{}, func(o *Options) { o.Limit = 7 })
		const n = 500
		done := make(chan struct{})
		go func() {
			for i := range n {
				s.now(fmt.Sprintf("%06d", i))
				time.Sleep(rand.N(300 * time.Millisecond))
			}
			close(done)
		}()
		var got []hub.Key
		for len(got) < n {
			keys, err := f.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) > 7 {
				t.Fatalf("%d keys at once", len(keys))
			}
			for _, k := range keys {
				if age := time.Since(k.Time()); age < 5*time.Second || age > 6*time.Second+time.Millisecond {
					t.Fatalf("delivered at the age of %v", age)
				}
			}
			got = append(got, keys...)
		}
		<-done
		if !slices.Equal(got, s.keys) {
			t.Error("not what was written")
		}
	})
}

// TestNotWhole: an answer in which a store was silent is never used, and failures pass.
func TestNotWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(auto)
		a, b, c := hub.KeyAt(1, "a"), hub.KeyAt(2, "b"), hub.KeyAt(3, "c")
		s.insert(a, b, c)
		s.silent = 50
		for range 20 {
			s.failures = append(s.failures, hub.E(hub.Unavailable, "gone"), errors.New("broken"), context.DeadlineExceeded)
		}
		f := follow(t, s, hub.Key{})
		began := time.Now()
		next(t, f, a, b, c)
		if d := time.Since(began); d < time.Minute || d > 20*time.Minute {
			t.Errorf("110 bad answers took %v", d)
		}
		if n := s.count(); n != 111 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(auto)
		f := follow(t, s, hub.Key{})
		for _, kind := range []hub.Kind{hub.NotFound, hub.Invalid, hub.Forbidden} {
			s.failures = []error{hub.E(kind, "no")}
			if _, err := f.Next(t.Context()); !hub.Is(err, kind) {
				t.Errorf("%v: %v", kind, err)
			}
		}
		gone := errors.New("lease lost")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if _, err := f.Next(ctx); !errors.Is(err, gone) {
			t.Errorf("canceled while idle: %v", err)
		}
		ctx, cancel2 := context.WithTimeout(t.Context(), time.Second)
		defer cancel2()
		s.failures = slices.Repeat([]error{errors.New("broken")}, 100)
		if _, err := f.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("canceled while failing: %v", err)
		}
		f.Close()
		if len(s.watchers) != 0 {
			t.Error("a watch is left")
		}
		for _, o := range []Options{{}, {Source: s}, {Channel: "c"}} {
			if _, err := New(o); err == nil {
				t.Error("accepted")
			}
		}
	})
}

// TestLag: when a store's horizon is behind the clock, the feed waits for it without turning in circles.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(fixed)
		s.lag = time.Hour
		k := s.now("a")
		f := follow(t, s, hub.Key{})
		time.AfterFunc(time.Minute, func() {
			s.mu.Lock()
			s.lag = 0
			s.mu.Unlock()
			s.insert() // the wake-up of a horizon that moved
		})
		began := time.Now()
		next(t, f, k)
		if d := time.Since(began); d != time.Minute {
			t.Errorf("delivered after %v", d)
		}
		if n := s.count(); n > 300 {
			t.Errorf("%d calls in a minute", n)
		}
	})
}

func TestItems(t *testing.T) {
	s := newSource(auto)
	var keys []hub.Key
	for i := range int64(10) {
		keys = append(keys, hub.KeyAt(i, "h"))
	}
	s.insert(keys...)
	s.insert(hub.KeyAt(4, "i")) // came up between: not asked for
	s.gone[keys[0]], s.gone[keys[5]], s.gone[keys[9]] = true, true, true
	f := follow(t, s, hub.Key{})
	var got []hub.Key
	for item, err := range f.Items(t.Context(), keys) {
		if s.gone[item.Key] != hub.Is(err, hub.NotFound) || err == nil && string(item.Data) != item.Key.String() {
			t.Errorf("%v: %q, %v", item.Key, item.Data, err)
		}
		got = append(got, item.Key)
	}
	if !slices.Equal(got, keys) {
		t.Errorf("items %v", got)
	}
	for range f.Items(t.Context(), nil) {
		t.Error("an item of nothing")
	}
}

func window(t *testing.T, f *Feed, unit hub.Unit, empty bool, want time.Time, keys ...hub.Key) {
	t.Helper()
	c, err := f.NextWindow(t.Context(), unit, empty)
	if err != nil || !c.Start.Equal(want) || c.Unit != unit {
		t.Fatalf("%v: window %v, %v; want %v", time.Now(), c, err, want)
	}
	var got []hub.Key
	for k, err := range f.Keys(t.Context(), c.After, c.To()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, k)
	}
	if !slices.Equal(got, keys) {
		t.Fatalf("window %v holds %v, want %v", c, got, keys)
	}
	if f.Position() != c.To() {
		t.Fatalf("position %v", f.Position())
	}
}

func TestWindows(t *testing.T) {
	type follower func(*testing.T, *house, hub.Key) *Feed
	alone := func(t *testing.T, h *house, after hub.Key) *Feed {
		return follow(t, h.room("c"), after, func(o *Options) { o.Limit = 2 })
	}
	shared := func(t *testing.T, h *house, after hub.Key) *Feed {
		f, err := h.open(t).Follow("c", after, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Close)
		return f
	}
	for _, c := range []struct {
		name   string
		rule   hub.Horizon
		follow follower
	}{{"auto", auto, alone}, {"fixed", fixed, alone}, {"auto, shared", auto, shared}, {"fixed, shared", fixed, shared}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rule := c.rule
				late := time.Duration(rule.Seconds) * time.Second
				start := time.Now().Truncate(time.Hour).Add(time.Hour)
				time.Sleep(time.Until(start.Add(10 * time.Second)))
				h := newHouse(rule)
				h.set("c", "x")
				s := h.room("c")
				var keys []hub.Key
				for i := range 5 { // at :10, :20 … :50
					keys = append(keys, s.now(fmt.Sprint(i)))
					time.Sleep(10 * time.Second)
				}
				f := c.follow(t, h, keys[0])
				window(t, f, hub.Minute, false, start, keys[1:]...)
				if d := time.Since(start); d != time.Minute+late {
					t.Errorf("the minute was closed after %v", d)
				}
				// Quiet for three hours: no window, no call.
				var k hub.Key
				calls := s.count()
				time.AfterFunc(3*time.Hour, func() { calls = s.count() - calls; k = s.now("x") })
				c, err := f.NextWindow(t.Context(), hub.Second, false)
				synctest.Wait()
				if err != nil || !c.Start.Equal(k.Time().Truncate(time.Second)) {
					t.Fatalf("%v, %v", c, err)
				}
				if calls > 3 {
					t.Errorf("%d calls in quiet hours", calls)
				}
				// With empty windows: one after the other.
				at := c.End()
				for i := range 10 {
					window(t, f, hub.Second, true, at.Add(time.Duration(i)*time.Second))
				}
				if d := time.Since(at); d != 10*time.Second+late {
					t.Errorf("ten seconds took %v", d)
				}
				window(t, f, hub.Minute, true, f.Position().Time().Truncate(time.Minute))
				if f.Seek(hub.Key{}); true {
					if _, err := f.NextWindow(t.Context(), hub.Minute, true); !hub.Is(err, hub.Invalid) {
						t.Errorf("from the beginning of time: %v", err)
					}
				}
				window(t, f, hub.Minute, false, start, keys...)
				if _, err := f.NextWindow(t.Context(), hub.ItemUnit, false); !hub.Is(err, hub.Invalid) {
					t.Errorf("by items: %v", err)
				}
			})
		})
	}
}

// TestWindowSteady: every key lies in exactly one window, and windows never come early.
func TestWindowSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(fixed)
		f := follow(t, s, hub.Key{})
		const n = 400
		done := make(chan struct{})
		go func() {
			for i := range n {
				s.now(fmt.Sprintf("%06d", i))
				time.Sleep(rand.N(20 * time.Second))
			}
			close(done)
		}()
		var got []hub.Key
		for len(got) < n {
			c, err := f.NextWindow(t.Context(), hub.Minute, false)
			if err != nil {
				t.Fatal(err)
			}
			if age := time.Since(c.End()); age < 5*time.Second || age > 6*time.Second {
				t.Fatalf("closed at the age of %v", age)
			}
			for k, err := range f.Keys(t.Context(), c.After, c.To()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, k)
			}
		}
		<-done
		if !slices.Equal(got, s.keys) {
			t.Error("not what was written")
		}
	})
}

func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(fixed)
		ctx := t.Context()
		try := func(what string, want hub.Key, got hub.Key, err error) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("%s: %v, %v; want %v", what, got, err, want)
			}
		}
		h := s.cut()
		k, err := Now(ctx, s, "c")
		try("now", h, k, err)
		k, err = Last(ctx, s, "c", 3)
		try("last of nothing", h, k, err)
		k, err = Earliest(ctx, s, "c")
		try("earliest of nothing", h, k, err)
		var keys []hub.Key
		for i := range int64(5) {
			keys = append(keys, hub.KeyAt(1000*i, "h"))
		}
		s.insert(keys...)
		s.now("pending")
		k, err = Last(ctx, s, "c", 1)
		try("the last one", keys[3], k, err)
		k, err = Last(ctx, s, "c", 9)
		try("more than there are", hub.KeyAt(0, ""), k, err)
		k, err = Last(ctx, s, "c", 0)
		try("none", h, k, err)
		k, err = Earliest(ctx, s, "c")
		try("earliest", hub.KeyAt(0, ""), k, err)
		s.silent = 2
		if _, err := Last(ctx, s, "c", 1); !hub.Is(err, hub.Unavailable) {
			t.Errorf("not whole: %v", err)
		}
		if _, err := Earliest(ctx, s, "c"); !hub.Is(err, hub.Unavailable) {
			t.Errorf("not whole: %v", err)
		}
		f := follow(t, s, At(keys[2].Time()))
		next(t, f, keys[2:]...)
	})
}

// TestTenThousandIdle: what idle feeds cost.
func TestTenThousandIdle(t *testing.T) {
	const n = 10000
	for name, rule := range map[string]hub.Horizon{"auto": auto, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := func() uint64 {
					var m runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&m)
					return m.HeapAlloc + m.StackInuse
				}
				s := newSource(rule)
				ctx, cancel := context.WithCancel(t.Context())
				before := memory()
				var wg sync.WaitGroup
				for range n {
					f := follow(t, s, hub.Key{})
					wg.Go(func() { _, _ = f.Next(ctx) })
				}
				synctest.Wait()
				if each := int64(memory()-before) / n; each > 20<<10 {
					t.Errorf("%d bytes each", each)
				} else {
					t.Logf("%d bytes each", each)
				}
				calls := s.count()
				time.Sleep(24 * time.Hour)
				if s.count() != calls {
					t.Errorf("%d calls in a quiet day", s.count()-calls)
				}
				cancel()
				wg.Wait()
			})
		})
	}
}
