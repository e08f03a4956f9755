package log

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"timehub/hub"
)

// BenchmarkAppend is 64 writers with one record of 400 bytes a batch; BenchmarkBare is the least that any log must do: the same bytes in groups,
// written and synced.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			l, _ := start(b, Options{Disk: openDir(b)})
			data := make([]byte, 400)
			var ms atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			var mu sync.Mutex
			var n atomic.Int64
			for range writers {
				wg.Go(func() {
					done := make(chan error, 1)
					var recs [1]Record
					batch := Batch{Records: recs[:], Done: func(err error) { done <- err }}
					for n.Add(1) <= int64(b.N) {
						mu.Lock()
						recs[0] = Record{Channel: "channel", Key: hub.KeyAt(t0+ms.Add(1), "abc123"), Data: data}
						err := l.Enqueue(&batch)
						mu.Unlock()
						if err == nil {
							err = <-done
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkBare(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			d := openDir(b)
			f, err := d.Create("bare")
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			group := make([]byte, 440*writers)
			b.ResetTimer()
			for i := 0; i < b.N; i += writers {
				if _, err := f.Write(group); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// filled is a log with n records of one channel, 350 bytes each, 1 ms apart.
func filled(b *testing.B, n int) *testLog {
	l, _ := start(b, Options{Disk: openDir(b), Sync: Never})
	data := make([]byte, 350)
	for i := 0; i < n; {
		var recs []Record
		for ; i < n && len(recs) < 1000; i++ {
			recs = append(recs, Record{Channel: "channel", Key: key(i, "abc123"), Data: data})
		}
		l.mustPut(recs...)
	}
	l.sealAll()
	return l
}

func BenchmarkRead(b *testing.B) {
	const n = 600_000
	l := filled(b, n)
	ctx := b.Context()
	b.Run("Items", func(b *testing.B) {
		left := b.N
		for left > 0 {
			for _, err := range l.Items(ctx, "channel", hub.MinKey, hub.MaxKey, left, false) {
				if err != nil {
					b.Fatal(err)
				}
				left--
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		for i := range b.N {
			if _, err := l.Get(ctx, "channel", key(i*7919%n, "abc123")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("GetActive", func(b *testing.B) {
		for i := range b.N {
			if _, err := l.Get(ctx, "channel", key(n-1-i%10_000, "abc123")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Latest", func(b *testing.B) {
		for range b.N {
			if k, _, err := l.Keys(ctx, "channel", hub.MinKey, hub.MaxKey, 1, true); err != nil || len(k) != 1 {
				b.Fatal(err)
			}
		}
	})
	b.Run("Next100", func(b *testing.B) {
		for i := range b.N {
			if k, _, err := l.Keys(ctx, "channel", key(i*7919%(n-200), ""), hub.MaxKey, 100, false); err != nil || len(k) != 100 {
				b.Fatal(err)
			}
		}
	})
	b.Run("Open", func(b *testing.B) {
		l.stop()
		opt := l.opt
		for range b.N {
			o, r, err := Open(ctx, opt)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(r.Scanned), "scanned")
			o.Close()
		}
	})
}

// BenchmarkOpenTail is a start after a kill: one segment of 64 MiB without a footer.
func BenchmarkOpenTail(b *testing.B) {
	l, _ := start(b, Options{Disk: openDir(b), Sync: Never})
	data := make([]byte, 1024)
	for i := 0; i < 60_000; i += 1000 {
		var recs []Record
		for k := range 1000 {
			recs = append(recs, Record{Channel: "channel", Key: key(i+k, "abc123"), Data: data})
		}
		l.mustPut(recs...)
	}
	for b.Loop() {
		o, r, err := Open(b.Context(), l.opt)
		if err != nil || r.Records != 60_000 || r.Scanned != 1 {
			b.Fatal(r, err)
		}
		o.Close()
	}
}
