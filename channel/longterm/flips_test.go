package longterm_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
)

// TestFlippedBits: whatever bit of an object is another one, lists show what was there or fail, and so do items.
func TestFlippedBits(t *testing.T) {
	w := newWorld(t)
	items := goldenItems(w)
	w.put(both, items...)
	all := hub.Query{Channel: both.Name, From: hub.MinKey, To: hub.MaxKey, Epoch: hub.AllEpochs}
	for name, tier := range map[string]hub.Tier{"ordersBatch/items/2021/03/04/05/06": hub.LongTermBatch, "orders/" + items[2].Key.String(): hub.LongTermSingle} {
		q := all
		q.Tier = tier
		keys, err := w.store.Keys(ctx, both, q)
		if err != nil {
			t.Fatal(err)
		}
		var whole [][]byte
		for i, err := range w.store.Items(ctx, both, q) {
			if err != nil {
				t.Fatal(err)
			}
			whole = append(whole, i.Data)
		}
		blob := w.bucket.Dump()[name]
		refused := 0
		step, looked := 1, 0
		if testing.Short() {
			step = 11
		}
		for bit := 0; bit < 8*len(blob); bit += step {
			looked++
			hurt := bytes.Clone(blob)
			hurt[bit/8] ^= 1 << (bit % 8)
			w.replace(name, hurt)
			s := w.over(w.bucket) // which has nothing in memory
			if p, err := s.Keys(ctx, both, q); err == nil && !slices.Equal(p.Keys, keys.Keys) {
				t.Fatalf("bit %d of %s is another one, and the keys are %v", bit, name, p.Keys)
			}
			n := 0
			for i, err := range s.Items(ctx, both, q) {
				if err != nil {
					refused++
					n = len(whole)
					break
				}
				if n >= len(whole) || i.Key != keys.Keys[n] || !bytes.Equal(i.Data, whole[n]) {
					t.Fatalf("bit %d of %s is another one, and item %d is %v %q", bit, name, n, i.Key, i.Data)
				}
				n++
			}
			if n != len(whole) {
				t.Fatalf("bit %d of %s is another one, and there are %d items", bit, name, n)
			}
		}
		w.replace(name, blob)
		if refused < looked/8 {
			t.Errorf("%s: %d of %d flipped bits were noticed", name, refused, looked)
		}
	}
}

// replace stores other bytes under a name, as a medium that fails would.
func (w *world) replace(name string, data []byte) {
	w.t.Helper()
	info, err := w.bucket.Stat(ctx, name)
	if err == nil {
		_, err = w.bucket.Put(ctx, name, bytes.NewReader(data), int64(len(data)), bucket.PutOptions{Meta: info.Meta})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestFlippedWhileRead: an answer that is wrong once is refused, and the next one is right: nothing wrong is remembered, of zips without a checksum of their
// directory too.
func TestFlippedWhileRead(t *testing.T) {
	old, err := os.ReadFile("testdata/batch-without-sum.zip.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range [][]byte{nil, old} {
		w := newWorld(t)
		items := goldenItems(w)
		w.put(batch, items...)
		if other != nil {
			w.replace("ordersBatch/items/2021/03/04/05/06", other)
		}
		q := hub.Query{Channel: batch.Name, From: hub.MinKey, To: hub.MaxKey, Epoch: hub.AllEpochs}
		step := int64(1)
		if testing.Short() {
			step = 11
		}
		for flip := int64(0); flip < 1500; flip += step {
			w.store = w.over(w.bucket) // which has nothing in memory
			w.failing(func(c mem.Call) (f mem.Fault) {
				if c.Verb == mem.Get {
					f.Flip = 1 + flip
				}
				return f
			})
			for i, err := range w.store.Items(ctx, batch, q) {
				if n := slices.IndexFunc(items, func(o hub.Sealed) bool { return o.Key == i.Key }); err == nil && other == nil && n < 0 {
					t.Fatalf("flip %d: an item %v", flip, i.Key)
				}
			}
			w.healthy()
			n, err := w.count(q)
			if err != nil && other != nil { // what was remembered wrong is forgotten now
				n, err = w.count(q)
			}
			if err != nil || n != len(items) {
				t.Fatalf("flip %d: nothing is wrong any more, and of %d items there are %d: %v", flip, len(items), n, err)
			}
		}
	}
}

func (w *world) count(q hub.Query) (n int, err error) {
	for _, err = range w.store.Items(ctx, batch, q) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// TestFlippedWindow: a long directory is read again part by part; each part is what it was when it was read first, or the answer fails.
func TestFlippedWindow(t *testing.T) {
	w := newWorld(t)
	start := time.Date(2021, 3, 4, 5, 6, 0, 0, time.UTC)
	var items []hub.Sealed
	for i := range 6000 {
		items = append(items, w.item(hub.KeyAt(start.UnixMilli()+int64(i), "abcdef"), strings.Repeat("x", 20), "y"))
	}
	w.put(batch, items...)
	q := hub.Query{Channel: batch.Name, From: hub.MinKey, To: hub.MaxKey, Epoch: hub.AllEpochs}
	if n := len(w.keys(batch, q)); n != len(items) {
		t.Fatalf("%d keys", n)
	}
	refused := 0
	for flip := range int64(200) {
		w.failing(func(c mem.Call) (f mem.Fault) {
			if c.Verb == mem.Get {
				f.Flip = 1 + flip*997
			}
			return f
		})
		p, err := w.store.Keys(ctx, batch, q)
		if err != nil {
			refused++
			continue
		}
		for i, k := range p.Keys {
			if k != items[i].Key {
				t.Fatalf("flip %d: key %d is %v", flip, i, k)
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d of 200 flips were noticed", refused)
	}
}
