package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord/local"
)

type thing struct {
	Name string `json:"name"`
	N    int    `json:"n,omitempty"`
}

// faults is a hook that can be changed while the bucket is in use.
type faults struct {
	mu    sync.Mutex
	f     func(mem.Call) mem.Fault
	calls map[mem.Verb]int
}

func (f *faults) hook(c mem.Call) mem.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[mem.Verb]int{}
	}
	f.calls[c.Verb]++
	if f.f == nil {
		return mem.Fault{}
	}
	return f.f(c)
}

func (f *faults) set(hook func(mem.Call) mem.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f = hook
}

func (f *faults) count(v mem.Verb) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[v]
}

func newBucket() (*mem.Bucket, *faults) {
	f := &faults{}
	return mem.New(mem.Options{Fault: f.hook}), f
}

func open(t *testing.T, b bucket.Bucket, change ...func(*Options)) *Catalog[thing] {
	t.Helper()
	o := Options{Bucket: b, Prefix: ".hub/things/"}
	for _, f := range change {
		f(&o)
	}
	c, err := Open[thing](t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func want(t *testing.T, c *Catalog[thing], id string, n int) {
	t.Helper()
	v, err := c.Get(t.Context(), id)
	if err != nil || v.N != n {
		t.Fatalf("%s is %+v, %v; want %d", id, v, err, n)
	}
}

func none(t *testing.T, err error, what string) {
	t.Helper()
	if !hub.Is(err, hub.NotFound) {
		t.Fatalf("%s: error %v, want not found", what, err)
	}
}

func set(n int) func(*thing) (*thing, error) {
	return func(*thing) (*thing, error) { return &thing{Name: "x", N: n}, nil }
}

func put(t *testing.T, b bucket.Bucket, name, text string) {
	t.Helper()
	if _, err := b.Put(t.Context(), name, strings.NewReader(text), int64(len(text)), bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestLife(t *testing.T) {
	b, f := newBucket()
	c := open(t, b)
	_, err := c.Get(t.Context(), "x")
	none(t, err, "before")
	if err := c.Create(t.Context(), "x", &thing{"x", 1}); err != nil {
		t.Fatal(err)
	}
	want(t, c, "x", 1)
	if err := c.Create(t.Context(), "x", &thing{"x", 2}); !hub.Is(err, hub.Conflict) {
		t.Fatalf("made twice: %v", err)
	}
	v, err := c.Update(t.Context(), "x", func(now *thing) (*thing, error) { return &thing{now.Name, now.N + 1}, nil })
	if err != nil || v.N != 2 {
		t.Fatalf("%+v, %v", v, err)
	}
	want(t, c, "x", 2)
	puts := f.count(mem.Put)
	if v, err = c.Update(t.Context(), "x", func(now *thing) (*thing, error) { return now, nil }); err != nil || v.N != 2 {
		t.Fatalf("%+v, %v", v, err)
	}
	refused := errors.New("no")
	if _, err = c.Update(t.Context(), "x", func(*thing) (*thing, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if f.count(mem.Put) != puts {
		t.Fatal("something was written for nothing")
	}
	if all, err := open(t, b).List(t.Context()); err != nil || len(all) != 1 || all[0].N != 2 {
		t.Fatalf("another node lists %v, %v", all, err)
	}
	if err := errors.Join(c.Delete(t.Context(), "x"), c.Delete(t.Context(), "x"), c.Delete(t.Context(), "never")); err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(t.Context(), "x")
	none(t, err, "after")
	_, err = open(t, b).Fresh(t.Context(), "x")
	none(t, err, "after, fresh")
	if err := c.Create(t.Context(), "x", &thing{"x", 3}); err != nil {
		t.Fatal(err)
	}
	want(t, c, "x", 3)
	if _, err := c.Fresh(t.Context(), ""); !hub.Is(err, hub.Invalid) {
		t.Fatalf("no id: %v", err)
	}
	if err := c.Create(t.Context(), strings.Repeat("x", 401), &thing{}); !hub.Is(err, hub.Invalid) {
		t.Fatalf("a long id: %v", err)
	}
	if err := c.Create(t.Context(), "huge", &thing{Name: strings.Repeat("x", maxDocument)}); !hub.Is(err, hub.TooLarge) {
		t.Fatalf("a huge value: %v", err)
	}
}

func TestOptions(t *testing.T) {
	b, f := newBucket()
	for _, o := range []Options{{}, {Bucket: b}, {Bucket: b, Prefix: "x"}, {Bucket: b, Prefix: "x/", Registers: local.NewMemory().Session("a")}} {
		if _, err := Open[thing](t.Context(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	f.set(func(mem.Call) mem.Fault { return mem.Fault{Before: hub.E(hub.Unavailable, "gone")} })
	if _, err := Open[thing](t.Context(), Options{Bucket: b, Prefix: "x/"}); !hub.Is(err, hub.Unavailable) {
		t.Errorf("opened without a bucket: %v", err)
	}
}

// TestRace: writers on several nodes lose no step.
func TestRace(t *testing.T) {
	b, _ := newBucket()
	var wg sync.WaitGroup
	const nodes, steps = 4, 25
	for range nodes {
		c := open(t, b)
		for range 2 {
			wg.Go(func() {
				for range steps {
					if _, err := c.Update(t.Context(), "x", func(now *thing) (*thing, error) {
						n := 0
						if now != nil {
							n = now.N
						}
						return &thing{"x", n + 1}, nil
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	c := open(t, b)
	want(t, c, "x", nodes*2*steps)
}

// TestLostReplies: what failed but happened counts as done, once; what failed and did not happen is tried again; what stays unknown is said to be.
func TestLostReplies(t *testing.T) {
	gone := hub.E(hub.Unavailable, "gone")
	for name, test := range map[string]struct {
		fault    mem.Fault
		failures int
		err      hub.Kind // 0: none
		n        int      // the value afterwards; 0: none
	}{
		"not persisted, once":   {mem.Fault{Before: gone}, 1, 0, 1},
		"persisted, once":       {mem.Fault{After: gone}, 1, 0, 1},
		"not persisted, always": {mem.Fault{Before: gone}, 100, hub.Unavailable, 0},
		"persisted, always":     {mem.Fault{After: gone}, 100, 0, 1},
		"time-out, persisted":   {mem.Fault{After: context.DeadlineExceeded}, 2, 0, 1},
		"disk full":             {mem.Fault{Before: hub.E(hub.Full, "full")}, 100, hub.Full, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, f := newBucket()
				c := open(t, b)
				left := test.failures
				f.set(func(call mem.Call) mem.Fault {
					if call.Verb != mem.Put || left == 0 {
						return mem.Fault{}
					}
					left--
					return test.fault
				})
				err := c.Create(t.Context(), "x", &thing{"x", 1})
				if test.err == 0 && err != nil || test.err != 0 && !hub.Is(err, test.err) {
					t.Fatalf("error %v, want %v", err, test.err)
				}
				f.set(nil)
				v, err := c.Fresh(t.Context(), "x")
				switch {
				case test.n == 0:
					none(t, err, "afterwards")
				case err != nil || v.N != test.n:
					t.Fatalf("afterwards %+v, %v", v, err)
				default:
					want(t, c, "x", test.n)
				}
			})
		})
	}
}

// TestLostReplyOvertaken: our write went in, its reply was lost, and somebody else changed the document before we looked. It must not be made twice.
func TestLostReplyOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newBucket()
		mine, theirs := open(t, b), open(t, b)
		first := true
		f.set(func(call mem.Call) mem.Fault {
			if call.Verb == mem.Put && first {
				first = false
				return mem.Fault{After: hub.E(hub.Unavailable, "gone"), Late: 50 * time.Millisecond}
			}
			return mem.Fault{}
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(10 * time.Millisecond)
			if _, err := theirs.Update(t.Context(), "x", func(now *thing) (*thing, error) { return &thing{"x", now.N + 100}, nil }); err != nil {
				t.Error(err)
			}
		}()
		if err := mine.Create(t.Context(), "x", &thing{"x", 1}); err != nil {
			t.Fatal(err)
		}
		<-done
		want(t, mine, "x", 101)
	})
}

// TestLateRefresh: a slow look at the bucket does not bring back what was there before a change.
func TestLateRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newBucket()
		c, other := open(t, b), open(t, b)
		if err := other.Create(t.Context(), "x", &thing{"x", 1}); err != nil {
			t.Fatal(err)
		}
		f.set(func(call mem.Call) mem.Fault {
			if call.Verb == mem.List || call.Verb == mem.Get {
				return mem.Fault{Late: time.Minute}
			}
			return mem.Fault{}
		})
		done := make(chan error)
		go func() { done <- c.Refresh(t.Context()) }() // lists x, then reads it, answered a minute later each
		time.Sleep(90 * time.Second)                   // the read has happened
		f.set(nil)
		if _, err := c.Update(t.Context(), "x", set(2)); err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), "y", &thing{"y", 5}); err != nil { // not in the listing
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want(t, c, "x", 2)
		want(t, c, "y", 5)
	})
}

func TestUnusableDocuments(t *testing.T) {
	b, _ := newBucket()
	bad := map[string]string{
		"empty": "", "text": "hello", "null": "null", "list": "[]", "none": `{"version":1,"sequence":1}`, "zero": `{"value":{"name":"x"}}`,
		"type": `{"version":1,"value":{"name":7}}`, "newer": `{"version":2,"value":{"name":"x","n":1}}`, "newer2": `{"version":9,"sequence":"changed","value":3}`,
		"deep": strings.Repeat("[", 20000), "cut": `{"version":1,"value":{"name":"x"`, "big": `{"version":1,"value":{"name":"` + strings.Repeat("x", maxDocument) + `"}}`,
		"value": `{"version":1,"value":null}`,
	}
	for id, text := range bad {
		put(t, b, ".hub/things/"+id+".json", text)
	}
	put(t, b, ".hub/things/good.json", `{"version":1,"value":{"name":"good","n":7},"comment":"made by hand"}`)
	for _, stray := range []string{"README.txt", "a/b.json", ".json", "%zz.json", "%41.json", "x.json.bak"} {
		put(t, b, ".hub/things/"+stray, "stray")
	}
	c := open(t, b)
	want(t, c, "good", 7)
	all, err := c.List(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d documents, %v", len(all), err)
	}
	broken := c.Broken()
	for id, text := range bad {
		if broken[id] == nil {
			t.Errorf("%s is not reported", id)
		}
		if _, err := c.Get(t.Context(), id); err == nil || hub.Is(err, hub.NotFound) {
			t.Errorf("%s: get %v", id, err)
		}
		for what, err := range map[string]error{"create": c.Create(t.Context(), id, &thing{"x", 1}), "delete": c.Delete(t.Context(), id)} {
			if err == nil {
				t.Errorf("%s: %s was allowed", id, what)
			}
		}
		r, _, err := b.Get(t.Context(), ".hub/things/"+id+".json", 0, -1, "")
		if err != nil {
			t.Fatal(err)
		}
		now := make([]byte, len(text)+1)
		if n, _ := r.Read(now); string(now[:n]) != text {
			t.Errorf("%s was overwritten", id)
		}
		r.Close()
	}
	if len(broken) != len(bad) {
		t.Errorf("%d documents are reported", len(broken))
	}
	if !strings.Contains(broken["newer"].Error(), "newer version") {
		t.Error(broken["newer"])
	}
	// Somebody repairs one, somebody removes one.
	put(t, b, ".hub/things/text.json", `{"version":1,"value":{"name":"text","n":8}}`)
	if err := b.Delete(t.Context(), ".hub/things/cut.json", ".hub/things/good.json"); err != nil {
		t.Fatal(err)
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, c, "text", 8)
	_, err = c.Get(t.Context(), "good")
	none(t, err, "removed by hand")
	if _, err := c.Update(t.Context(), "text", set(9)); err != nil {
		t.Fatal(err)
	}
	want(t, c, "text", 9)
}

func TestNames(t *testing.T) {
	b, _ := newBucket()
	c := open(t, b)
	ids := []string{"plain", "Upper", "with space", "../../etc", ".hidden", "..", "a/b", "%41", "ünï", "nul\x00", "\xff\xfe", "a.b", "x.json", "CON"}
	for i, id := range ids {
		if err := c.Create(t.Context(), id, &thing{id, i}); err != nil {
			t.Fatalf("%q: %v", id, err)
		}
	}
	again := open(t, b)
	for i, id := range ids {
		want(t, again, id, i)
	}
	if all, _ := again.Cached(t.Context()); len(all) != len(ids) {
		t.Errorf("%d documents", len(all))
	}
}

// TestNodes: a change on one node shows up on the others soon, with one read of one document; lost news are found by the poll; idle nodes do nothing else.
func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newBucket()
		store := local.NewMemory()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var all []*Catalog[thing]
		var sessions []*local.Coordinator
		for i := range 3 {
			session := store.Session(fmt.Sprint(i))
			c := open(t, b, func(o *Options) { o.Registers, o.Register = session, "catalog/things" })
			wg.Go(func() { _ = c.Run(ctx) })
			all, sessions = append(all, c), append(sessions, session)
		}
		defer func() { stop(); wg.Wait() }()
		for i := range 100 {
			if err := all[0].Create(t.Context(), fmt.Sprint("x", i), &thing{"x", i}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		wake, drain, unfollow := all[1].Watch()
		defer unfollow()
		lists, gets := f.count(mem.List), f.count(mem.Get)
		if _, err := all[0].Update(t.Context(), "x7", set(700)); err != nil {
			t.Fatal(err)
		}
		<-wake
		if ids := drain(); !slices.Equal(ids, []string{"x7"}) {
			t.Errorf("changed: %q", ids)
		}
		synctest.Wait()
		want(t, all[1], "x7", 700)
		want(t, all[2], "x7", 700)
		if l, g := f.count(mem.List)-lists, f.count(mem.Get)-gets; l != 0 || g > 3 {
			t.Errorf("one change took %d listings and %d reads", l, g)
		}
		// More changes than the register remembers, while a node is cut off.
		store.Cut(sessions[2])
		for i := range newsLength + 50 {
			if _, err := all[0].Update(t.Context(), "x8", set(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := all[1].Delete(t.Context(), "x9"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		want(t, all[1], "x8", newsLength+49)
		want(t, all[2], "x9", 9)
		time.Sleep(10 * time.Minute) // the poll
		want(t, all[2], "x8", newsLength+49)
		_, err := all[2].Get(t.Context(), "x9")
		none(t, err, "deleted elsewhere")
		store.Mend(sessions[2])
		time.Sleep(time.Second)

		lists, gets = f.count(mem.List), f.count(mem.Get)
		time.Sleep(24 * time.Hour)
		if l, g := f.count(mem.List)-lists, f.count(mem.Get)-gets; l > 3*24*16 || g != 0 {
			t.Errorf("a quiet day took %d listings and %d reads", l, g)
		}
	})
}

// TestToldLater: changes that were made while the coordinator could not be reached are known to the others soon after it can, and not only with the next poll.
func TestToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBucket()
		store := local.NewMemory()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer func() { stop(); wg.Wait() }()
		var all []*Catalog[thing]
		var sessions []*local.Coordinator
		for i := range 2 {
			session := store.Session(fmt.Sprint(i))
			c := open(t, b, func(o *Options) { o.Registers, o.Register, o.Poll = session, "catalog/things", 24*time.Hour })
			wg.Go(func() { _ = c.Run(ctx) })
			all, sessions = append(all, c), append(sessions, session)
		}
		time.Sleep(time.Second)
		store.Cut(sessions[0])
		for i := range newsLength + 10 {
			if err := all[0].Create(t.Context(), fmt.Sprint("x", i), &thing{"x", i}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		_, err := all[1].Get(t.Context(), "x3")
		none(t, err, "nobody was told")
		store.Mend(sessions[0])
		time.Sleep(5 * time.Second)
		want(t, all[1], "x3", 3)
		want(t, all[1], fmt.Sprint("x", newsLength+9), newsLength+9)
	})
}

// TestDeaf: while nobody can reach the coordinator, what one node changes is known to the others within seconds, and made only once.
func TestDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newBucket()
		store := local.NewMemory()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer func() { stop(); wg.Wait() }()
		var all []*Catalog[thing]
		var sessions []*local.Coordinator
		for i := range 2 {
			session := store.Session(fmt.Sprint(i))
			c := open(t, b, func(o *Options) {
				o.Registers, o.Register, o.Poll, o.Deaf = session, "catalog/things", 24*time.Hour, 2*time.Second
			})
			wg.Go(func() { _ = c.Run(ctx) })
			all, sessions = append(all, c), append(sessions, session)
		}
		time.Sleep(time.Second)
		for _, s := range sessions {
			store.Cut(s)
		}
		if err := all[0].Create(t.Context(), "x", &thing{"x", 1}); err != nil {
			t.Fatal(err)
		}
		if err := all[1].Create(t.Context(), "x", &thing{"x", 2}); !hub.Is(err, hub.Conflict) {
			t.Error(err)
		}
		if err := all[0].Create(t.Context(), "y", &thing{"y", 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		want(t, all[1], "y", 1)
		if err := all[0].Delete(t.Context(), "y"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		_, err := all[1].Get(t.Context(), "y")
		none(t, err, "deleted elsewhere")
		for _, s := range sessions {
			store.Mend(s)
		}
		time.Sleep(10 * time.Second)
		lists := f.count(mem.List)
		time.Sleep(time.Hour)
		if n := f.count(mem.List) - lists; n > 0 {
			t.Errorf("%d listings in an hour in which the register could be read", n)
		}
	})
}

// TestMany: ten thousand documents are there in a moment, read several at a time.
func TestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := newBucket()
		const n = 10000
		for i := range n {
			put(t, b, fmt.Sprintf(".hub/things/x%05d.json", i), fmt.Sprintf(`{"version":1,"value":{"name":"x","n":%d}}`, i))
		}
		f.set(func(mem.Call) mem.Fault { return mem.Fault{Delay: 20 * time.Millisecond} })
		began := time.Now()
		c := open(t, b)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("took %v of virtual time", d)
		}
		want(t, c, "x09999", 9999)
		gets, lists := f.count(mem.Get), f.count(mem.List)
		if all, err := c.List(t.Context()); err != nil || len(all) != n {
			t.Fatalf("%d, %v", len(all), err)
		}
		if looks := f.count(mem.List) - lists; looks != 1 { // in a directory each of them is a look at all
			t.Errorf("%d listings of a store that gives all at once", looks)
		}
		if f.count(mem.Get) != gets {
			t.Error("unchanged documents were read again")
		}
	})
	b, _ := newBucket()
	c := open(t, b)
	if err := c.Create(t.Context(), "x", &thing{"x", 1}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Get(context.Background(), "x") }); n > 0 {
		t.Errorf("a look into memory allocates %v times", n)
	}
}

func TestGolden(t *testing.T) {
	h := head{Writes: []string{"0123456789abcdef"}, Sequence: 41}
	got := ""
	for _, v := range []*thing{{"orders", 3}, nil} {
		b, err := encode(h.following("fedcba9876543210", 1_700_000_000_000, v == nil), v)
		if err != nil {
			t.Fatal(err)
		}
		got += string(b)
	}
	file, err := os.ReadFile("testdata/document.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(file) {
		t.Errorf("got\n%swant\n%s", got, file)
	}
	for range 20 {
		h = h.following("x", 0, false)
	}
	if len(h.Writes) != history || h.Sequence != 61 {
		t.Errorf("%+v", h)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "null", `{"version":1,"value":{"name":"x"}}`, `{"version":1,"deleted":true}`, `{"version":2}`, `{"version":1e9}`, "[[[["} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, v, err := decode[thing](b)
		if err != nil || v == nil {
			return
		}
		out, err := encode(h, v)
		if err != nil {
			return
		}
		if _, w, err := decode[thing](out); err != nil || *w != *v {
			t.Fatalf("%q comes back as %+v, %v", out, w, err)
		}
	})
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "x", "../x", "%", "%4", "ü", ".", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if back, ok := unescape(e); !ok || back != s {
			t.Fatalf("%q became %q and %q", s, e, back)
		}
		if strings.HasPrefix(e, ".") || strings.ContainsAny(e, "/\x00") {
			t.Fatalf("%q became %q", s, e)
		}
		unescape(s)
	})
}
