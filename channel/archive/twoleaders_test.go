package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/channel/longterm"
	"timehub/e2e/s3proc"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/dir"
	"timehub/hub/bucket/s3"
	"timehub/hub/coord/local"
	"timehub/hub/disk"
)

// TestTwoArchivers: two nodes that both believe to lead, for the whole time, put the same objects, each once, into a real store.
func TestTwoArchivers(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) bucket.Bucket{
		"directory": func(t *testing.T) bucket.Bucket {
			d, err := disk.OpenDir(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			b, err := dir.New(dir.Options{Disk: d, Folder: "bucket"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = b.Close(), d.Close() })
			return b
		},
		"S3": func(t *testing.T) bucket.Bucket {
			server := s3proc.Start(t, s3proc.Versity, "../..")
			if err := os.Mkdir(filepath.Join(server.Dir, "two"), 0o755); err != nil {
				t.Fatal(err)
			}
			b, err := s3.New(t.Context(), s3.Options{Bucket: "two", Endpoint: server.URL, PathStyle: true, AccessKey: s3proc.User, SecretKey: s3proc.Secret})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) { twoArchivers(t, open(t)) })
	}
}

func twoArchivers(t *testing.T, b bucket.Bucket) {
	const minutes, items = 5, 40
	w := newWorld(t)
	temp, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer temp.Close()
	if w.long, err = longterm.New(longterm.Options{Bucket: b, Sealer: w.sealer, Temp: temp}); err != nil {
		t.Fatal(err)
	}
	w.channel("c", hub.Both)
	begin := time.Now().Truncate(time.Minute).Add(-time.Hour)
	for m := range minutes {
		for i := range items {
			w.put("c", hub.NewKey(begin.Add(time.Duration(m)*time.Minute+time.Duration(i)*time.Second), "hash00"), fmt.Sprint(m, " ", i))
		}
	}
	var nodes []*node
	for range 2 {
		w.store = local.NewMemory() // a coordinator of its own each: both hold every lease
		nodes = append(nodes, w.start(verifying))
	}
	last := hub.First(begin.Add(minutes * time.Minute))
	for _, n := range nodes {
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if at, known := n.Archived("c"); known && !at.Less(last) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("an archiver does not get to its end")
			}
		}
	}
	for _, n := range nodes {
		n.cancel()
		<-n.ended
		if n.err != nil {
			t.Error(n.err)
		}
	}
	w.whole("c")
	var names []string
	for opt := (bucket.ListOptions{}); ; {
		page, err := b.List(t.Context(), opt)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.Blobs {
			names = append(names, i.Name)
		}
		if opt.After = page.Next; opt.After == "" {
			break
		}
	}
	count := func(prefix string) int {
		return len(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, prefix) }))
	}
	if s, z, x := count("c/2"), count("cBatch/items/2"), count("cBatch/index/2"); s != minutes*items || z != minutes || x != minutes || len(names) != s+z+x {
		t.Errorf("%d items, %d zips, %d indexes, %d objects in all", s, z, x, len(names))
	}
}
