package dir_test

import (
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
