package longterm_test

import (
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/seal"
)

func jsonBody(r *rand.Rand, n int) []byte {
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, `{"date":"2001/%02d/%02d %02d:%02d","delay":%d,"distance":%d,"origin":"%c%c%c","destination":"SAT"},`,
			r.IntN(12), r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(100), r.IntN(3000), 'A'+r.IntN(26), 'A'+r.IntN(26), 'A'+r.IntN(26))
	}
	return b[:n]
}

func BenchmarkZipWriter(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	body := jsonBody(r, 1024)
	z := longterm.NewZipWriter(io.Discard, longterm.ZipOptions{})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := z.Add(hub.KeyAt(1614834367089+int64(i), "aZ3k9Q"), "application/json", body); err != nil {
			b.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPutMinute is all that archiving costs, into a bucket in memory: open, pack, put, read back, index.
func BenchmarkPutMinute(b *testing.B) {
	w := newWorld(b)
	r := rand.New(rand.NewPCG(1, 2))
	start := at("2021-03-04T05:06:00.000Z")
	const n = 20000
	items := make([]hub.Sealed, n)
	for i := range items {
		items[i] = hub.Sealed{Key: hub.KeyAt(start.UnixMilli()+int64(i*3), "aZ3k9Q"), Data: w.sealer.Seal(nil, seal.Meta{ContentType: "application/json"}, jsonBody(r, 1024))}
	}
	b.ReportAllocs()
	minute := start
	for b.Loop() {
		shift := minute.Sub(start).Milliseconds()
		moved := func(yield func(hub.Sealed, error) bool) {
			for _, i := range items {
				if !yield(hub.Sealed{Key: hub.KeyAt(i.Key.Millis()+shift, i.Key.Hash()), Data: i.Data}, nil) {
					return
				}
			}
		}
		if _, err := w.store.PutMinute(ctx, batch, minute, iter.Seq2[hub.Sealed, error](moved)); err != nil {
			b.Fatal(err)
		}
		minute = minute.Add(time.Minute)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

func BenchmarkItems(b *testing.B) {
	w := newWorld(b)
	r := rand.New(rand.NewPCG(1, 2))
	start := at("2021-03-04T05:06:00.000Z")
	var items []hub.Sealed
	for i := range 50000 {
		items = append(items, hub.Sealed{Key: hub.KeyAt(start.UnixMilli()+int64(i), "aZ3k9Q"), Data: w.sealer.Seal(nil, seal.Meta{}, jsonBody(r, 1024))})
	}
	w.putMinutes(batch, items...)
	b.SetBytes(int64(len(items)) * 1024)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range w.store.Items(ctx, batch, hub.Query{From: hub.MinKey, To: hub.MaxKey}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != len(items) {
			b.Fatal(n)
		}
	}
}
