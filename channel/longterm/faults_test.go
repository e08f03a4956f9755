package longterm_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
)

var errAway = hub.E(hub.Unavailable, "the store is away")

// minuteItems are n items of one minute.
func minuteItems(w *world, n int) []hub.Sealed {
	start := at("2021-03-04T05:06:00.000Z").UnixMilli()
	var items []hub.Sealed
	for i := range n {
		items = append(items, w.item(hub.KeyAt(start+int64(i*100), "aZ3k9Q"), "text/plain", fmt.Sprint("item ", i)))
	}
	return items
}

// holds checks that the minute holds exactly these items, in zip and index.
func holds(t *testing.T, w *world, ch *hub.Channel, items []hub.Sealed) {
	t.Helper()
	keys, bodies := w.items(&hub.Channel{Name: ch.Name, Storage: hub.Batch}, hub.Query{From: hub.MinKey, To: hub.MaxKey})
	if len(keys) != len(items) {
		t.Fatalf("%d items, want %d", len(keys), len(items))
	}
	var index []string
	for i := range items {
		if _, body := w.open(items[i]); keys[i] != items[i].Key || bodies[i] != body {
			t.Fatalf("item %d is %v, %q", i, keys[i], bodies[i])
		}
		index = append(index, `"`+keys[i].String()+`"`)
	}
	want := `{"id":"2021/03/04/05/06","items":[` + strings.Join(index, ",") + `]}`
	if have := string(w.bucket.Dump()[ch.Name+"Batch/index/2021/03/04/05/06"]); have != want {
		t.Fatalf("index %s\nwant %s", have, want)
	}
}

// TestPutMinuteFailsAnywhere lets each call to the bucket fail: without effect, with it, or with a body that breaks off, while the minute is new, complete, or to
// be extended. What was there stays there; doing it again makes it whole; an error is never taken for success.
func TestPutMinuteFailsAnywhere(t *testing.T) {
	minute := at("2021-03-04T05:06:00.000Z")
	for before := range 4 {
		for _, fault := range []mem.Fault{{Before: errAway}, {After: errAway}, {Cut: 10}} {
			for n := 1; ; n++ {
				w := newWorld(t)
				items := minuteItems(w, 6)
				old := [][]hub.Sealed{nil, items, items[:4], {items[1], items[5]}}[before]
				if old != nil {
					w.putMinutes(batch, old...)
				}
				w.store = w.over(w.bucket) // nothing cached
				var calls int
				w.failing(func(mem.Call) mem.Fault {
					if calls++; calls == n {
						return fault
					}
					return mem.Fault{}
				})
				have, err := w.store.PutMinute(ctx, batch, minute, seq(items[2:]...))
				w.healthy()
				w.noTemps()
				if calls < n { // a run without failure
					if err != nil || have != 4 {
						t.Fatalf("%d: %d, %v", before, have, err)
					}
					if n < 5 {
						t.Fatalf("%d: only %d calls", before, calls)
					}
					break
				}
				if err == nil && have != 4 {
					t.Fatalf("%d, call %d: %d items", before, n, have)
				}
				if err == nil { // Cut does not touch every call
					holds(t, w, batch, union(old, items[2:]))
				} else if kind := hub.KindOf(err); kind != hub.Unavailable && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%d, call %d: %v", before, n, err)
				}
				for _, i := range old { // nothing lost
					if _, err := w.store.Read(ctx, batch, i.Key); err != nil {
						t.Fatalf("%d, call %d: %v", before, n, err)
					}
				}
				w.store = w.over(w.bucket)
				if have, err := w.store.PutMinute(ctx, batch, minute, seq(items[2:]...)); err != nil || have != 4 {
					t.Fatalf("%d, after call %d: %d, %v", before, n, have, err)
				}
				holds(t, w, batch, union(old, items[2:]))
			}
		}
	}
}

func union(a, b []hub.Sealed) []hub.Sealed {
	all := append(slices.Clone(a), b...)
	slices.SortStableFunc(all, func(x, y hub.Sealed) int { return x.Key.Compare(y.Key) })
	return slices.CompactFunc(all, func(x, y hub.Sealed) bool { return x.Key == y.Key })
}

// TestWritersOfOneMinute: whoever writes at the same time, the minute holds everything, and so does its index.
func TestWritersOfOneMinute(t *testing.T) {
	for round := range 5 {
		w := newWorld(t)
		r := rand.New(rand.NewPCG(uint64(round), 1))
		var mu sync.Mutex
		w.failing(func(mem.Call) mem.Fault {
			mu.Lock()
			defer mu.Unlock()
			return mem.Fault{Delay: time.Duration(r.IntN(300)) * time.Microsecond, Late: time.Duration(r.IntN(300)) * time.Microsecond}
		})
		items := minuteItems(w, 40)
		var wg sync.WaitGroup
		for p := range 5 {
			own := w.over(w.bucket)
			wg.Go(func() {
				var mine []hub.Sealed
				for i := range items {
					if i%5 == p || i%7 == 0 {
						mine = append(mine, items[i])
					}
				}
				if _, err := own.PutMinute(ctx, batch, items[0].Key.Time(), seq(mine...)); err != nil {
					t.Error(err)
				}
			})
		}
		// A reader meanwhile sees no error and no item twice.
		wg.Go(func() {
			for range 20 {
				var last hub.Key
				for i, err := range w.store.Items(ctx, batch, hub.Query{From: hub.MinKey, To: hub.MaxKey}) {
					if err != nil || i.Key.Compare(last) <= 0 {
						t.Errorf("%v after %v, %v", i.Key, last, err)
						return
					}
					last = i.Key
				}
			}
		})
		wg.Wait()
		holds(t, w, batch, items)
	}
}

func TestPutMinuteRefuses(t *testing.T) {
	w := newWorld(t)
	items := minuteItems(w, 5)
	minute := items[0].Key.Time()
	stop := errors.New("spoke is away")
	for name, bad := range map[string]func(func(hub.Sealed, error) bool){
		"disorder":   seq(items[1], items[0]),
		"other time": seq(items[0], w.item(key("2021-03-04T05:07:00.000Z", "a"), "", "")),
		"earlier":    seq(w.item(key("2021-03-04T05:05:59.999Z", "a"), "", "")),
		"damaged":    seq(items[0], hub.Sealed{Key: items[1].Key, Data: append(slices.Clone(items[1].Data[:20]), 'x')}),
		"cut":        seq(items[0], hub.Sealed{Key: items[1].Key}),
		"error": func(yield func(hub.Sealed, error) bool) {
			_ = yield(items[0], nil) && yield(hub.Sealed{}, stop)
		},
	} {
		if n, err := w.store.PutMinute(ctx, batch, minute, bad); err == nil || n != 0 || name == "error" && !errors.Is(err, stop) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	if n, err := w.store.PutMinute(ctx, batch, minute, seq()); n != 0 || err != nil {
		t.Error(n, err)
	}
	if left := w.bucket.Dump(); len(left) != 0 {
		t.Errorf("%v", left)
	}
	if n, err := w.store.PutMinute(ctx, batch, minute, seq(items[0], items[0], items[1])); n != 2 || err != nil {
		t.Error(n, err)
	}
	// The same key with other content: a person has to look.
	if _, err := w.store.PutMinute(ctx, batch, minute, seq(items[0], w.item(items[1].Key, "text/plain", "other"))); !hub.Is(err, hub.Conflict) {
		t.Error(err)
	}
	holds(t, w, batch, items[:2])
	w.noTemps()
}

func TestPutSingle(t *testing.T) {
	item := func(w *world, body string) hub.Sealed {
		return w.item(key("2021-03-04T05:06:07.089Z", "aaaaaa"), "text/plain", body)
	}
	name := "orders/2021/03/04/05/06/07/089/aaaaaa"
	for _, fault := range []mem.Fault{{Before: errAway}, {After: errAway}, {Cut: 5}} {
		for n := 1; n <= 3; n++ {
			w := newWorld(t)
			calls := 0
			w.failing(func(mem.Call) mem.Fault {
				if calls++; calls == n {
					return fault
				}
				return mem.Fault{}
			})
			err := w.store.PutSingle(ctx, single, item(w, "one"))
			w.healthy()
			if err == nil && calls >= n && fault.Cut == 0 {
				t.Errorf("call %d failed unnoticed", n)
			}
			if err := w.store.PutSingle(ctx, single, item(w, "one")); err != nil {
				t.Errorf("again after call %d: %v", n, err)
			}
			if _, err := w.store.Read(ctx, single, item(w, "").Key); err != nil {
				t.Error(err)
			}
		}
	}
	w := newWorld(t)
	put := func(data []byte) {
		if _, err := w.bucket.Put(ctx, name, bytes.NewReader(data), int64(len(data)), bucket.PutOptions{Meta: map[string]string{"compressed": "true"}}); err != nil {
			t.Fatal(err)
		}
	}
	put(legacySingle(t, `{"contentType":"text/plain"}`, "one")) // the original's bytes, the same item
	if err := w.store.PutSingle(ctx, single, item(w, "one")); err != nil {
		t.Error(err)
	}
	if err := w.store.PutSingle(ctx, single, item(w, "two")); !hub.Is(err, hub.Conflict) {
		t.Error(err)
	}
	put([]byte("damaged")) // is mended
	if err := w.store.PutSingle(ctx, single, item(w, "one")); err != nil {
		t.Error(err)
	}
	if _, err := w.store.Read(ctx, single, item(w, "").Key); err != nil {
		t.Error(err)
	}
}

// TestQueriesFail: an error of the bucket is an error of the query, never a shorter answer.
func TestQueriesFail(t *testing.T) {
	w := newWorld(t)
	items := minuteItems(w, 30)
	w.put(both, items...)
	for _, reverse := range []bool{false, true} {
		for _, ch := range []*hub.Channel{single, batch, both} {
			q := hub.Query{From: hub.MinKey, To: hub.MaxKey, Reverse: reverse}
			for n := 1; ; n++ {
				w.store = w.over(w.bucket)
				var mu sync.Mutex
				calls := 0
				w.failing(func(mem.Call) mem.Fault {
					mu.Lock()
					defer mu.Unlock()
					if calls++; calls == n {
						return mem.Fault{Before: errAway}
					}
					return mem.Fault{}
				})
				got := 0
				var failed error
				for item, err := range w.store.Items(ctx, ch, q) {
					if failed != nil {
						t.Fatal("something follows an error")
					}
					if failed = err; err == nil {
						want := items[got]
						if reverse {
							want = items[len(items)-1-got]
						}
						if item.Key != want.Key {
							t.Fatalf("%v, want %v", item.Key, want.Key)
						}
						got++
					}
				}
				hit := calls >= n
				w.healthy()
				if !hit {
					if failed != nil || got != len(items) {
						t.Fatal(got, failed)
					}
					break
				}
				if !hub.Is(failed, hub.Unavailable) {
					t.Fatalf("%s, call %d: %d items, %v", ch.Storage, n, got, failed)
				}
			}
			w.failing(func(mem.Call) mem.Fault { return mem.Fault{Before: errAway} })
			w.store = w.over(w.bucket)
			if _, err := w.store.Keys(ctx, ch, q); !hub.Is(err, hub.Unavailable) {
				t.Error(err)
			}
			if _, err := w.store.Read(ctx, ch, items[0].Key); !hub.Is(err, hub.Unavailable) {
				t.Error(err)
			}
			w.healthy()
		}
	}
}

// TestDamage flips, cuts and lengthens stored zips at random: what comes out is right or an error.
func TestDamage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 9))
	w := newWorld(t)
	items := minuteItems(w, 12)
	bodies := map[hub.Key]string{}
	for _, i := range items {
		_, bodies[i.Key] = w.open(i)
	}
	w.put(both, items...)
	blobs := w.bucket.Dump()
	detected := 0
	for range 1500 {
		ch := []*hub.Channel{single, batch}[r.IntN(2)]
		i := items[r.IntN(len(items))]
		name := "ordersBatch/items/2021/03/04/05/06"
		if ch == single {
			name = "orders/" + i.Key.String()
		}
		data := slices.Clone(blobs[name])
		switch r.IntN(4) {
		case 0:
			data = data[:r.IntN(len(data))]
		case 1:
			data = append(data, byte(r.IntN(256)))
		default:
			for range 1 + r.IntN(3) {
				data[r.IntN(len(data))] ^= 1 << r.IntN(8)
			}
		}
		damaged := mem.New(mem.Options{})
		if _, err := damaged.Put(ctx, name, bytes.NewReader(data), -1, bucket.PutOptions{Meta: map[string]string{"compressed": "true"}}); err != nil {
			t.Fatal(err)
		}
		s := w.over(damaged)
		check := func(item hub.Sealed, err error) {
			if err != nil {
				detected++
				if !errors.Is(err, longterm.ErrCorrupt) && !hub.Is(err, hub.NotFound) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("an error of its own: %v", err)
				}
				return
			}
			if m, body := w.open(item); body != bodies[item.Key] || m.ContentType != "text/plain" {
				t.Errorf("%v came out as %+v %q", item.Key, m, body)
			}
		}
		check(s.Read(ctx, ch, i.Key))
		for item, err := range s.Items(ctx, ch, hub.Query{From: hub.MinKey, To: hub.MaxKey}) {
			check(item, err)
		}
	}
	if detected < 500 {
		t.Errorf("only %d injuries were detected", detected)
	}
}

// TestBomb: a small object that claims to be large costs nothing.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	z := longterm.NewZipWriter(&b, longterm.ZipOptions{})
	k := key("2021-03-04T05:06:07.089Z", "aaaaaa")
	if err := z.AddFrom(k, "", io.LimitReader(zeros{}, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if _, err := w.bucket.Put(ctx, "ordersBatch/items/2021/03/04/05/06", &b, -1, bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Read(ctx, batch, k); err != nil {
		t.Error(err)
	}
	s, err := longterm.New(longterm.Options{Bucket: w.bucket, Sealer: w.sealer, Temp: w.temp, MaxItem: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(ctx, batch, k); !errors.Is(err, longterm.ErrCorrupt) {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestRetention(t *testing.T) {
	w := newWorld(t)
	var items []hub.Sealed
	for i := range 50 {
		items = append(items, w.item(hub.KeyAt(at("2021-03-04T05:00:00.000Z").UnixMilli()+int64(i)*20_000, "aaaaaa"), "", "x"))
	}
	others := []*hub.Channel{{Name: "ordersBatch", Storage: hub.Both}, {Name: "order", Storage: hub.Both}, {Name: "orders-", Storage: hub.Both}, {Name: "large", Storage: hub.Both}}
	for _, ch := range append(others, both) {
		w.put(ch, items...)
		for _, i := range items {
			if _, err := w.store.WriteLarge(ctx, ch, i.Key, "", strings.NewReader("large")); err != nil {
				t.Fatal(err)
			}
		}
	}
	foreign := []string{"orders/2021/03/readme", "orders/large/readme", "ordersBatch/items/readme", "ordersBatch/index/2021/03/04/05/00/x", ".hub/orders"}
	for _, name := range foreign {
		if _, err := w.bucket.Put(ctx, name, strings.NewReader("x"), 1, bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	before := w.bucket.Dump()
	limit := items[20].Key // 05:06:40
	n, err := w.store.DeleteBefore(ctx, both, limit)
	if err != nil || n != 20+6+6 {
		t.Errorf("%d objects, %v", n, err)
	}
	for name := range before {
		_, there := w.bucket.Dump()[name]
		gone := false
		for _, i := range items[:20] {
			gone = gone || name == "orders/"+i.Key.String()
			if m := i.Key.Time().Truncate(time.Minute); m.Before(limit.Time().Truncate(time.Minute)) {
				gone = gone || name == "ordersBatch/items/"+i.Key.String()[:16] || name == "ordersBatch/index/"+i.Key.String()[:16]
			}
		}
		if there == gone {
			t.Errorf("%s: there %v, should be gone %v", name, there, gone)
		}
	}
	if n, err := w.store.DeleteBefore(ctx, both, limit); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	if empty, err := w.store.Empty(ctx, both); empty || err != nil {
		t.Error(empty, err)
	}
	// Bodies may belong to younger items for a day.
	if n, err := w.store.DeleteBefore(ctx, both, hub.First(limit.Time().Add(24*time.Hour))); err != nil || n != 30+11+11+20 {
		t.Errorf("a day later: %d, %v", n, err)
	}
	w.put(both, items[40:]...)
	if n, err := w.store.DeleteAll(ctx, both, items[45].Key); err != nil || n != 5+2+2+25 {
		t.Errorf("below the start of a new channel: %d, %v", n, err)
	}
	// An interrupted clean-up is taken up again.
	for try := 0; ; try++ {
		calls := 0
		w.failing(func(c mem.Call) mem.Fault {
			if calls++; calls > 25 {
				return mem.Fault{After: errAway}
			}
			return mem.Fault{}
		})
		_, err := w.store.DeleteAll(ctx, both, hub.Key{})
		w.healthy()
		if err == nil {
			break
		}
		if !hub.Is(err, hub.Unavailable) || try > 20 {
			t.Fatal(try, err)
		}
	}
	if empty, err := w.store.Empty(ctx, both); !empty || err != nil {
		t.Error(empty, err)
	}
	left := w.bucket.Dump()
	for _, name := range foreign {
		if _, ok := left[name]; !ok {
			t.Errorf("%s is gone", name)
		}
	}
	for _, ch := range others {
		if keys, _ := w.items(ch, hub.Query{From: hub.MinKey, To: hub.MaxKey}); len(keys) != len(items) {
			t.Errorf("%s has %d items", ch.Name, len(keys))
		}
	}
	for name := range left {
		if strings.HasPrefix(name, "orders/2") && !slices.Contains(foreign, name) {
			t.Errorf("%s is left", name)
		}
	}
}
