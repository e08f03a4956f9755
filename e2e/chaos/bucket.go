package chaos

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// archived waits until everything below the minute of the last items is in the bucket, as files of the S3 server, and writes down what is there. Nothing
// of the hub is used to read it: docs/formats.md says what lies where.
func (r *Run) archived() {
	r.t.Helper()
	layouts := []struct {
		channel string
		read    func(channel, below string) ([]Item, error)
	}{{channelBatch, r.batches}, {channelSingle, r.singles}, {channelBoth, r.batches}, {channelBoth, r.singles}}
	for _, l := range layouts {
		last, err := keyTime(r.marker[l.channel])
		if err != nil {
			r.t.Fatal(err)
		}
		below := last.Format("2006/01/02/15/04") // of the minute that is not over nobody promises anything
		op := Op{Proc: "bucket", Kind: Stored, Channel: l.channel, Node: -1, Begin: r.rec.Now(), Result: OK, Hi: below}
		var want []string
		for _, it := range r.final[l.channel] {
			if it.Key < below {
				want = append(want, it.Key)
			}
		}
		for deadline := time.Now().Add(2*time.Minute + r.opt.Hold); ; time.Sleep(500 * time.Millisecond) {
			if op.Items, err = l.read(l.channel, below); err != nil {
				r.t.Fatalf("read the bucket: %v", err)
			}
			if len(op.Items) >= len(want) || time.Now().After(deadline) { // the judge says what is missing
				break
			}
		}
		op.End = r.rec.Now()
		r.rec.Add(op)
	}
}

// batches reads the zips of a channel's minutes.
func (r *Run) batches(channel, below string) (items []Item, err error) {
	root := filepath.Join(r.s.Bucket, channel+"Batch", "items")
	err = files(root, func(name, path string) error {
		if name >= below {
			return nil
		}
		z, err := zip.OpenReader(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		for _, f := range z.File {
			it, err := r.entry(channel, f.Name, f, string(f.Extra))
			if err != nil {
				return fmt.Errorf("%s: %s: %w", path, f.Name, err)
			}
			items = append(items, it)
		}
		return nil
	})
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return items, err
}

// singles reads the objects of a channel's items.
func (r *Run) singles(channel, below string) (items []Item, err error) {
	err = files(filepath.Join(r.s.Bucket, channel), func(name, path string) error {
		if !strings.HasPrefix(name, "20") || name >= below {
			return nil
		}
		z, err := zip.OpenReader(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		var meta []byte
		for _, f := range z.File {
			switch f.Name {
			case "meta":
				if meta, err = content(f); err != nil {
					return err
				}
			case "payload":
				it, err := r.entry(channel, name, f, string(meta))
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				items = append(items, it)
			}
		}
		return nil
	})
	return items, err
}

func content(f *zip.File) ([]byte, error) {
	in, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

// entry reads an item, or what a large one refers to.
func (r *Run) entry(channel, key string, f *zip.File, meta string) (Item, error) {
	b, err := content(f)
	if err == nil && strings.Contains(meta, `"large":true`) {
		var index struct {
			Key string `json:"key"`
		}
		if err := json.Unmarshal(b, &index); err != nil {
			return Item{}, err
		}
		b, err = os.ReadFile(filepath.Join(r.s.Bucket, channel, "large", index.Key))
	}
	if err != nil {
		return Item{}, err
	}
	return seen(key, b), nil
}

// files calls do with each file below a folder, by its name from there; none if there is no folder.
func files(root string, do func(name, path string) error) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return do(filepath.ToSlash(name), path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
