package longterm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/disk"
	"timehub/hub/seal"
)

var ctx = context.Background()

// world is a store over a bucket in memory whose calls are counted and can fail.
type world struct {
	t      testing.TB
	bucket *mem.Bucket
	store  *longterm.Store
	sealer *seal.Sealer
	temp   *disk.Dir
	lists  atomic.Int64
	gets   atomic.Int64
	fault  atomic.Pointer[func(mem.Call) mem.Fault]
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, sealer: seal.New(seal.Options{})}
	w.bucket = mem.New(mem.Options{Fault: func(c mem.Call) mem.Fault {
		switch c.Verb {
		case mem.List:
			w.lists.Add(1)
		case mem.Get:
			w.gets.Add(1)
		}
		if f := w.fault.Load(); f != nil {
			return (*f)(c)
		}
		return mem.Fault{}
	}})
	w.store = w.over(w.bucket)
	return w
}

func (w *world) over(b bucket.Bucket) *longterm.Store {
	var err error
	if w.temp == nil {
		if w.temp, err = disk.OpenDir(w.t.TempDir()); err != nil {
			w.t.Fatal(err)
		}
	}
	s, err := longterm.New(longterm.Options{Bucket: b, Sealer: w.sealer, Temp: w.temp})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) failing(f func(mem.Call) mem.Fault) { w.fault.Store(&f) }
func (w *world) healthy()                           { w.fault.Store(nil) }

func (w *world) noTemps() {
	w.t.Helper()
	all, err := w.temp.List("tmp")
	if err != nil || len(all) != 0 {
		w.t.Errorf("temporary files: %v, %v", all, err)
	}
}

func (w *world) item(k hub.Key, kind, body string) hub.Sealed {
	return hub.Sealed{Key: k, Data: w.sealer.Seal(nil, seal.Meta{ContentType: kind, Created: k.Millis()}, []byte(body))}
}

// open checks that an item opens and returns its content type and body.
func (w *world) open(item hub.Sealed) (seal.Meta, string) {
	w.t.Helper()
	e, err := seal.Parse(item.Data)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := w.sealer.Open(nil, e)
	if err != nil {
		w.t.Fatal(err)
	}
	return e.Meta, string(body)
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02T15:04:05.000Z", text)
	if err != nil {
		panic(err)
	}
	return t
}

func key(text, hash string) hub.Key { return hub.NewKey(at(text), hash) }

func seq(items ...hub.Sealed) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		for _, i := range items {
			if !yield(i, nil) {
				return
			}
		}
	}
}

var (
	single = &hub.Channel{Name: "orders", Storage: hub.Single}
	batch  = &hub.Channel{Name: "orders", Storage: hub.Batch}
	both   = &hub.Channel{Name: "orders", Storage: hub.Both}
)

// put stores items in the layouts of a channel, as the archiver does.
func (w *world) put(ch *hub.Channel, items ...hub.Sealed) {
	w.t.Helper()
	if ch.Storage.Singles() {
		for _, i := range items {
			if err := w.store.PutSingle(ctx, ch, i); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	if ch.Storage.Batches() {
		w.putMinutes(ch, items...)
	}
}

func (w *world) putMinutes(ch *hub.Channel, items ...hub.Sealed) {
	w.t.Helper()
	for len(items) > 0 {
		m := items[0].Key.Time().Truncate(time.Minute)
		n := 0
		for n < len(items) && items[n].Key.Time().Truncate(time.Minute).Equal(m) {
			n++
		}
		if have, err := w.store.PutMinute(ctx, ch, m, seq(items[:n]...)); err != nil || have != n {
			w.t.Fatalf("PutMinute: %d, %v", have, err)
		}
		items = items[n:]
	}
}

func (w *world) keys(ch *hub.Channel, q hub.Query) []hub.Key {
	w.t.Helper()
	p, err := w.store.Keys(ctx, ch, q)
	if err != nil {
		w.t.Fatalf("keys %+v: %v", q, err)
	}
	return p.Keys
}

func (w *world) items(ch *hub.Channel, q hub.Query) (keys []hub.Key, bodies []string) {
	w.t.Helper()
	for i, err := range w.store.Items(ctx, ch, q) {
		if err != nil {
			w.t.Fatalf("items %+v: %v", q, err)
		}
		_, body := w.open(i)
		keys, bodies = append(keys, i.Key), append(bodies, body)
	}
	return keys, bodies
}

func TestWriteAndRead(t *testing.T) {
	for _, ch := range []*hub.Channel{single, batch, both} {
		w := newWorld(t)
		var items []hub.Sealed
		kinds := []string{"", "text/plain", "application/json; charset=\"utf-8\"", "application/hub", "x/ä\x01\"\\"}
		for i, kind := range kinds {
			k := key("2021-03-04T05:06:07.089Z", fmt.Sprintf("aZ3k9%d", i))
			items = append(items, w.item(k, kind, strings.Repeat("body ", i*1000)))
		}
		w.put(ch, items...)
		for i, item := range items {
			got, err := w.store.Read(ctx, ch, item.Key)
			if err != nil {
				t.Fatal(err)
			}
			m, body := w.open(got)
			if got.Key != item.Key || m.ContentType != kinds[i] || body != strings.Repeat("body ", i*1000) || m.Large || m.Created != item.Key.Millis() {
				t.Errorf("%s: item %d came back as %+v, %d bytes", ch.Storage, i, m, len(body))
			}
		}
		for _, k := range []hub.Key{key("2021-03-04T05:06:07.089Z", "aZ3k99"), key("2021-03-04T05:06:07.088Z", "aZ3k91"), key("2021-03-05T05:06:07.089Z", "x"),
			key("2021-03-04T05:06:07.089Z", ".."), key("2021-03-04T05:06:07.089Z", "\x00"), key("2021-03-04T05:06:07.089Z", "")} {
			if _, err := w.store.Read(ctx, ch, k); !hub.Is(err, hub.NotFound) {
				t.Errorf("%s: read %q: %v", ch.Storage, k, err)
			}
		}
		keys, bodies := w.items(ch, hub.Query{From: hub.MinKey, To: hub.MaxKey})
		if len(keys) != len(items) || bodies[2] != strings.Repeat("body ", 2000) {
			t.Errorf("%s: %v", ch.Storage, keys)
		}
		w.noTemps()
	}
}

func TestReadsAfterAStorageChange(t *testing.T) {
	w := newWorld(t)
	a, b := w.item(key("2021-03-04T05:06:07.089Z", "a"), "", "A"), w.item(key("2021-03-04T05:07:07.089Z", "b"), "", "B")
	w.put(single, a)
	w.put(batch, b)
	for _, ch := range []*hub.Channel{single, batch, both} {
		for _, i := range []hub.Sealed{a, b} {
			if _, err := w.store.Read(ctx, ch, i.Key); err != nil {
				t.Errorf("%s: %v", ch.Storage, err)
			}
		}
	}
	all := hub.Query{From: hub.MinKey, To: hub.MaxKey}
	for _, storage := range []hub.Storage{hub.Single, hub.Batch, hub.Both} {
		changed := &hub.Channel{Name: "orders", Storage: storage, Mixed: true}
		if got := w.keys(changed, all); !slices.Equal(got, []hub.Key{a.Key, b.Key}) {
			t.Errorf("%s after a change: %v", storage, got)
		}
		q := all
		q.Tier = hub.LongTermBatch
		if got := w.keys(changed, q); !slices.Equal(got, []hub.Key{b.Key}) {
			t.Errorf("%s after a change, batches only: %v", storage, got)
		}
	}
}

func TestWriteReplaces(t *testing.T) {
	w := newWorld(t)
	k := key("2021-03-04T05:06:07.089Z", "a")
	for _, body := range []string{"one", "two"} {
		if err := w.store.Write(ctx, single, w.item(k, "text/plain", body)); err != nil {
			t.Fatal(err)
		}
		if i, err := w.store.Read(ctx, single, k); err != nil {
			t.Fatal(err)
		} else if _, have := w.open(i); have != body {
			t.Errorf("have %q", have)
		}
	}
	if err := w.store.Write(ctx, single, w.item(key("2021-03-04T05:06:07.089Z", ".."), "", "x")); !hub.Is(err, hub.Invalid) {
		t.Errorf("a hash that can not be stored: %v", err)
	}
	info, err := w.bucket.Stat(ctx, "orders/"+k.String())
	if err != nil || info.Meta["type"] != "text/plain" || info.Meta["compressed"] != "true" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestLarge(t *testing.T) {
	for _, ch := range []*hub.Channel{single, batch, both} {
		w := newWorld(t)
		k1, k2 := key("2021-03-04T05:06:07.089Z", "body00"), key("2021-03-04T05:06:09.001Z", "index0")
		n, err := w.store.WriteLarge(ctx, ch, k1, "video/mp4", strings.NewReader("0123456789"))
		if n != 10 || err != nil {
			t.Fatal(n, err)
		}
		text := fmt.Sprintf(`{"key":%q,"size":10,"content-type":"video/mp4"}`, k1)
		w.put(ch, hub.Sealed{Key: k2, Data: w.sealer.Seal(nil, seal.Meta{ContentType: "video/mp4", Large: true}, []byte(text))})
		i, err := w.store.Read(ctx, ch, k2)
		if err != nil {
			t.Fatal(err)
		}
		if m, body := w.open(i); !m.Large || m.ContentType != "video/mp4" || body != text {
			t.Errorf("%+v, %q", m, body)
		}
		body, err := w.store.ReadLarge(ctx, ch, k1, 3, 4)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(body); string(b) != "3456" {
			t.Errorf("%q", b)
		}
		body.Close()
		if keys := w.keys(ch, hub.Query{From: hub.MinKey, To: hub.MaxKey}); !slices.Equal(keys, []hub.Key{k2}) {
			t.Errorf("%v", keys)
		}
		if _, err := w.store.ReadLarge(ctx, ch, k1, 10, 1); !hub.Is(err, hub.RangeInvalid) {
			t.Error(err)
		}
		if _, err := w.store.ReadLarge(ctx, ch, k2, 0, 1); !hub.Is(err, hub.NotFound) {
			t.Error(err)
		}
		broken := errors.New("gone")
		if _, err := w.store.WriteLarge(ctx, ch, k2, "", io.MultiReader(strings.NewReader("x"), errReader{broken})); !errors.Is(err, broken) {
			t.Error(err)
		}
		if ch.Storage.Singles() {
			if err := w.store.Delete(ctx, ch, k2, key("2021-03-04T05:06:07.089Z", "never")); err != nil {
				t.Fatal(err)
			}
			for name := range w.bucket.Dump() {
				if !strings.HasPrefix(name, "ordersBatch/") {
					t.Errorf("%s is left", name)
				}
			}
		}
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// TestWhatTheOriginalWrote reads objects in the forms of spec 04 §4.2.
func TestWhatTheOriginalWrote(t *testing.T) {
	w := newWorld(t)
	put := func(name string, data []byte, meta map[string]string) {
		if _, err := w.bucket.Put(ctx, name, bytes.NewReader(data), int64(len(data)), bucket.PutOptions{Meta: meta}); err != nil {
			t.Fatal(err)
		}
	}
	raw := key("2016-03-04T05:06:07.089Z", "legacy")
	put("orders/"+raw.String(), []byte("raw bytes"), map[string]string{"type": "none"})
	index := key("2016-03-04T05:06:07.089Z", "index0")
	text := `{"key":"2016/03/04/05/06/05/000/body00","size":10,"content-type":"video/mp4"}`
	put("orders/"+index.String(), legacySingle(t, `{"contentType":"application/hub"}`, text), map[string]string{"type": "application/hub", "compressed": "true"})
	plain := key("2016-03-04T05:06:07.089Z", "plain0")
	put("orders/"+plain.String(), legacySingle(t, `{}`, "hello"), map[string]string{"type": "none", "compressed": "true"})
	for k, want := range map[hub.Key]seal.Meta{
		raw:   {Created: raw.Millis(), Size: 9},
		index: {Created: raw.Millis(), Size: int64(len(text)), ContentType: "video/mp4", Large: true},
		plain: {Created: raw.Millis(), Size: 5},
	} {
		i, err := w.store.Read(ctx, single, k)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := w.open(i)
		if m.Digest = 0; m != want {
			t.Errorf("%v: have %+v, want %+v", k, m, want)
		}
	}
	a, b, c := "2016/03/04/05/06/07/089/aaaaaa", "2016/03/04/05/06/07/089/bbbbbb", "2016/03/04/05/06/59/999/zzzzzz"
	for i, order := range [][]string{{a, b, c}, {c, a, b}, {b, a, a, c}} {
		w.store = w.over(w.bucket)
		put("ordersBatch/items/2016/03/04/05/06", legacyZip(t, order...), nil)
		keys, bodies := w.items(batch, hub.Query{From: hub.MinKey, To: hub.MaxKey})
		if len(keys) != 3 || keys[0].String() != a || bodies[0] != "body of "+a || bodies[2] != "body of "+c {
			t.Errorf("%d: %v, %q", i, keys, bodies)
		}
		if keys := w.keys(batch, hub.Query{From: keys[1], To: hub.MaxKey, Reverse: true, Limit: 2}); len(keys) != 2 || keys[0].String() != c || keys[1].String() != b {
			t.Errorf("%d: %v", i, keys)
		}
		k, _ := hub.ParseKey(b)
		item, err := w.store.Read(ctx, batch, k)
		if err != nil {
			t.Fatal(err)
		}
		if m, body := w.open(item); m.ContentType != "text/plain" || body != "body of "+b {
			t.Errorf("%d: %+v, %q", i, m, body)
		}
	}
	// A minute of the original grows like one of ours, and is ours then.
	more := w.item(key("2016-03-04T05:06:08.000Z", "new000"), "text/plain", "new")
	w.putMinutes(batch, more)
	if keys, bodies := w.items(batch, hub.Query{From: hub.MinKey, To: hub.MaxKey}); len(keys) != 4 || bodies[2] != "new" || bodies[3] != "body of "+c {
		t.Errorf("%v, %q", keys, bodies)
	}
}
