package dir_test

import (
	"fmt"
	"strings"
	"testing"

	"timehub/hub/bucket"
	"timehub/hub/bucket/buckettest"
	"timehub/hub/bucket/dir"
	"timehub/hub/disk"
)

var _ bucket.Bucket = (*dir.Bucket)(nil)

func open(t testing.TB, at string) *dir.Bucket {
	d, err := disk.OpenDir(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	b, err := dir.New(dir.Options{Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestAcceptance(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return open(t, t.TempDir()) })
}

// Whoever asks for many names at once gets them from one look at the folder: for each page it is read as a whole.
func TestManyAtOnce(t *testing.T) {
	b := open(t, t.TempDir())
	const n = bucket.MaxPage + 500
	for i := range n {
		if _, err := b.Put(t.Context(), fmt.Sprintf("docs/%d.json", i), strings.NewReader("x"), 1, bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := b.List(t.Context(), bucket.ListOptions{Prefix: "docs/", Max: 1 << 20})
	if err != nil || len(page.Blobs) != n || page.Next != "" {
		t.Errorf("%d blobs, next %q, %v", len(page.Blobs), page.Next, err)
	}
	page, err = b.List(t.Context(), bucket.ListOptions{Prefix: "docs/", Max: n - 1})
	if err != nil || len(page.Blobs) != n-1 || page.Next == "" {
		t.Errorf("%d blobs, next %q, %v", len(page.Blobs), page.Next, err)
	}
}
