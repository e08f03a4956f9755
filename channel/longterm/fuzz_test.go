package longterm_test

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/seal"
)

// FuzzZipReader: any bytes give items that match their checksums, or an error; never a panic, never more memory than they can hold.
func FuzzZipReader(f *testing.F) {
	golden, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(golden) == 0 {
		f.Fatal(golden, err)
	}
	for _, path := range golden {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{})
	f.Add(legacyZip(f, "2021/03/04/05/06/07/089/bbbbbb", "2021/03/04/05/06/07/089/aaaaaa"))
	f.Add(legacySingle(f, "{}", "x"))
	w := newWorld(f)
	const name, one = "ordersBatch/items/2021/03/04/05/06", "orders/2021/03/04/05/06/07/089/aZ3k9Q"
	f.Fuzz(func(t *testing.T, data []byte) {
		b := mem.New(mem.Options{})
		for _, n := range []string{name, one} {
			if _, err := b.Put(ctx, n, bytes.NewReader(data), -1, bucket.PutOptions{Meta: map[string]string{"compressed": "true"}}); err != nil {
				t.Fatal(err)
			}
		}
		s, err := longterm.New(longterm.Options{Bucket: b, Sealer: w.sealer, Temp: w.temp, MaxItem: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		var last hub.Key
		n := 0
		for item, err := range s.Items(ctx, batch, hub.Query{From: hub.MinKey, To: hub.MaxKey}) {
			if err != nil {
				break
			}
			if n++; n > 1 && !last.Less(item.Key) {
				t.Fatalf("%v after %v", item.Key, last)
			}
			last = item.Key
			if _, err := seal.Parse(item.Data); err != nil {
				t.Fatal(err)
			}
		}
		_, singleErr := s.Read(ctx, single, hub.KeyAt(1614834367089, "aZ3k9Q"))
		if z, err := zip.NewReader(bytes.NewReader(data), int64(len(data))); singleErr == nil && (err != nil || len(z.File) == 0) && n == 0 {
			t.Fatalf("an item was read from what Go calls no zip: %v", err)
		}
	})
}
