package dir

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"timehub/hub/bucket"
	"timehub/hub/disk"
)

// entry is what a folder holds: a blob, or a folder whose blobs all begin with name.
type entry struct {
	name string // whole, unescaped; of a folder with a slash at the end
	path string // of a folder: where it lies on disk, below the root of the disk
	blob disk.Info
}

// entries returns what a folder holds in the order of whole names, which is the order of a walk that visits each folder at its name with a slash:
// "a" < "a-b" < "a/…" < "a0". Pieces of long segments are taken in, so nobody else has to know of them. What is not ours is left out.
func (b *Bucket) entries(folder, prefix string) ([]entry, error) {
	all, err := b.gather(nil, folder, prefix, "")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y entry) int { return strings.Compare(x.name, y.name) })
	return all, nil
}

func (b *Bucket) gather(all []entry, folder, prefix, begun string) ([]entry, error) {
	infos, err := b.disk.List(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil // nothing there, or removed a moment ago
	}
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		switch {
		case i.Dir && strings.HasSuffix(i.Name, more):
			if all, err = b.gather(all, folder+"/"+i.Name, prefix, begun+strings.TrimSuffix(i.Name, more)); err != nil {
				return nil, err
			}
		case i.Dir:
			segment, ok := unescape(begun + i.Name)
			if name := prefix + segment; ok && b.folderOf(name+"/") == folder+"/"+i.Name {
				all = append(all, entry{name: name + "/", path: folder + "/" + i.Name})
			}
		default:
			text, ok := unescape(begun + strings.TrimSuffix(i.Name, suffix))
			if name := prefix + text; ok && b.fileOf(name) == folder+"/"+i.Name && bucket.CheckName(name) == nil {
				all = append(all, entry{name: name, blob: i})
			}
		}
	}
	return all, nil
}

// fileOf is the path of a blob's file, folderOf that of the folder in which names with a prefix lie that ends with a slash.
func (b *Bucket) fileOf(name string) string {
	folder, file := diskName(name)
	if folder == "" {
		return b.blobs + "/" + file
	}
	return b.blobs + "/" + folder + "/" + file
}

func (b *Bucket) folderOf(prefix string) string {
	folders, _ := split(prefix)
	return strings.Join(append([]string{b.blobs}, folders...), "/")
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// lister collects one page.
type lister struct {
	*bucket.Listing
	b     *Bucket
	ctx   context.Context
	opt   bucket.ListOptions
	count int
	last  string
}

// List implements bucket.Bucket. It reads the folders on the way to Prefix and After and those that the page comes from, no others.
func (b *Bucket) List(ctx context.Context, opt bucket.ListOptions) (bucket.Listing, error) {
	opt, err := opt.Normal()
	if err != nil {
		return bucket.Listing{}, err
	}
	var page bucket.Listing
	// The folder to begin with is named by the whole segments of the prefix, as far as segments are folders.
	root := opt.Prefix[:strings.LastIndexByte(opt.Prefix, '/')+1]
	if root != "" && bucket.CheckName(strings.TrimSuffix(root, "/")) != nil {
		return page, ctx.Err() // no name begins like that
	}
	for strings.Count(root, "/") > maxFolders {
		root = root[:strings.LastIndexByte(root[:len(root)-1], '/')+1]
	}
	l := &lister{&page, b, ctx, opt, 0, ""}
	if err := l.walk(b.folderOf(root), root); err != nil && err != errEnough {
		return bucket.Listing{}, failed("list "+opt.Prefix, err)
	}
	return page, ctx.Err()
}

func (l *lister) walk(folder, prefix string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	all, err := l.b.entries(folder, prefix)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.path != "" {
			err = l.folder(e)
		} else if strings.HasPrefix(e.name, l.opt.Prefix) {
			err = l.blob(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// folder goes into a folder unless nothing that it can hold is asked for.
func (l *lister) folder(e entry) error {
	inside := strings.HasPrefix(e.name, l.opt.Prefix)
	switch {
	case !inside && !strings.HasPrefix(l.opt.Prefix, e.name):
		return nil
	case e.name < l.opt.After && !strings.HasPrefix(l.opt.After, e.name):
		return nil
	case l.opt.Delimiter == "" || !inside || e.name == l.opt.Prefix:
		return l.walk(e.path, e.name)
	case e.name <= l.opt.After:
		return nil
	}
	// All names below are rolled up into this one; a folder that was left empty is nothing.
	holds, err := l.b.holdsBlob(e)
	if err != nil || !holds {
		return err
	}
	return l.group(e.name)
}

func (l *lister) blob(e entry) error {
	if l.opt.Delimiter != "" {
		if at := strings.Index(e.name[len(l.opt.Prefix):], l.opt.Delimiter); at >= 0 {
			return l.group(e.name[:len(l.opt.Prefix)+at+1])
		}
	}
	if e.name <= l.opt.After {
		return nil
	}
	if err := l.count1(e.name); err != nil {
		return err
	}
	l.Blobs = append(l.Blobs, info(e.name, e.blob))
	return nil
}

func (l *lister) group(name string) error {
	if name <= l.opt.After || name == l.last {
		return nil
	}
	if err := l.count1(name); err != nil {
		return err
	}
	l.Prefixes = append(l.Prefixes, name)
	return nil
}

// count1 makes room for an entry; a full page ends here, knowing that there is more.
func (l *lister) count1(name string) error {
	if l.count == l.opt.Max {
		l.Next = l.last
		return errEnough
	}
	l.count++
	l.last = name
	return nil
}

// holdsBlob looks for any blob below a folder.
func (b *Bucket) holdsBlob(e entry) (bool, error) {
	all, err := b.entries(e.path, e.name)
	if err != nil {
		return false, err
	}
	for _, below := range all {
		if below.path == "" {
			return true, nil
		}
	}
	for _, below := range all {
		if holds, err := b.holdsBlob(below); holds || err != nil {
			return holds, err
		}
	}
	return false, nil
}
