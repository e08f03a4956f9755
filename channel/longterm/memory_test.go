package longterm_test

import (
	"fmt"
	"io"
	"runtime"
	"testing"

	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/bucket/dir"
)

// TestMemory: what it takes to archive a minute, and to write a zip, does not depend on the number of items.
func TestMemory(t *testing.T) {
	w := newWorld(t)
	blobs, err := dir.New(dir.Options{Disk: w.temp})
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	s := w.over(blobs)
	const count = 200_000
	start := at("2021-03-04T05:06:00.000Z").UnixMilli()
	data := w.item(hub.Key{}, "application/json", fmt.Sprintf("%0300d", 7)).Data
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := heap(), uint64(0)
	items := func(yield func(hub.Sealed, error) bool) {
		for i := range count {
			if i == count-1 {
				most = heap()
			}
			if !yield(hub.Sealed{Key: hub.KeyAt(start+int64(i/4), fmt.Sprintf("%06d", i)), Data: data}, nil) {
				return
			}
		}
	}
	if n, err := s.PutMinute(ctx, batch, at("2021-03-04T05:06:00.000Z"), items); n != count || err != nil {
		t.Fatal(n, err)
	}
	after := heap()
	t.Logf("heap %d, while packing +%d KiB, afterwards +%d KiB", before, int64(most-before)>>10, int64(after-before)>>10)
	// The directory of the zip is over 20 MB.
	if int64(most-before) > 8<<20 || int64(after-before) > 8<<20 {
		t.Errorf("the heap grew from %d to %d to %d", before, most, after)
	}
	z := longterm.NewZipWriter(io.Discard, longterm.ZipOptions{Temp: w.temp, Folder: "tmp"})
	for item := range items {
		if err := z.Add(item.Key, "application/json", nil); err != nil {
			t.Fatal(err)
		}
	}
	if int64(most-before) > 8<<20 {
		t.Errorf("the heap grew from %d to %d", before, most)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w.noTemps()
	runtime.KeepAlive(s)
}
