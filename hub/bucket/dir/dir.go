package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/disk"
)

// Options are for New.
type Options struct {
	Disk   disk.Disk // must be set
	Folder string    // of the bucket on Disk; "": "bucket"
}

// Bucket is a bucket.Bucket in a folder.
type Bucket struct {
	disk    disk.Disk
	folder  string // of everything
	blobs   string // of the blobs
	tmp     string // of this Bucket's temporary files
	release func() error
	serial  atomic.Uint64 // of temporary files
	turn    chan struct{} // holds a token while a goroutine of this process has the lock file, or tries for it
	syncs   rounds
	doubts  doubts
	buffers sync.Pool // *[copySize]byte
}

const (
	copySize   = 64 << 10
	shortPause = time.Millisecond
	longPause  = 16 * time.Millisecond
	lockTries  = 500 // of a name that nobody else has
)

// New opens a bucket, making its folder if need be, and removes temporary files that were left by processes that died.
func New(opt Options) (*Bucket, error) {
	if opt.Disk == nil {
		return nil, errors.New("bucket/dir: no disk")
	}
	if opt.Folder == "" {
		opt.Folder = "bucket"
	}
	id := fmt.Sprintf("%016x", rand.Uint64())
	b := &Bucket{
		disk: opt.Disk, folder: opt.Folder, blobs: opt.Folder + "/blobs", tmp: opt.Folder + "/tmp/" + id, turn: make(chan struct{}, 1),
		doubts:  doubts{folders: map[string]int{}, making: map[*making]struct{}{}},
		buffers: sync.Pool{New: func() any { return new([copySize]byte) }},
	}
	b.syncs = rounds{sync: b.syncFolder, open: map[string]*round{}, busy: map[string]*round{}}
	if err := errors.Join(b.disk.MkdirAll(b.blobs), b.disk.MkdirAll(opt.Folder+"/tmp")); err != nil {
		return nil, failed("open the store", err)
	}
	// The lock comes before the folder, or another process could take the folder for a dead one's.
	release, err := b.disk.Lock(b.tmp+".lock", "")
	for tries := 0; errors.Is(err, disk.ErrLocked) && tries < lockTries; tries++ { // another process looks whether it is a dead one's
		time.Sleep(longPause)
		release, err = b.disk.Lock(b.tmp+".lock", "")
	}
	if err != nil {
		return nil, failed("open the store", err)
	}
	b.release = release
	if err := b.disk.MkdirAll(b.tmp); err != nil {
		return nil, failed("open the store", errors.Join(err, b.Close()))
	}
	if err := b.removeStale(); err != nil {
		return nil, failed("open the store", errors.Join(err, b.Close()))
	}
	return b, nil
}

// removeStale removes the temporary files of Buckets that are not open any more: whoever has one open holds its lock.
func (b *Bucket) removeStale() error {
	all, err := b.disk.List(b.folder + "/tmp")
	if err != nil {
		return err
	}
	for _, i := range all {
		id := strings.TrimSuffix(b.folder+"/tmp/"+i.Name, ".lock")
		if id == b.tmp {
			continue
		}
		unlock, err := b.disk.Lock(id+".lock", "")
		if errors.Is(err, disk.ErrLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(b.disk.RemoveAll(id), b.disk.RemoveAll(id+".lock"), unlock()); err != nil {
			return err
		}
	}
	return nil
}

// Close removes the temporary files of this Bucket. No call may be under way or follow.
func (b *Bucket) Close() error {
	err := errors.Join(b.disk.RemoveAll(b.tmp), b.disk.RemoveAll(b.tmp+".lock"))
	return errors.Join(err, b.release())
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, name string) (bucket.Info, error) {
	if err := begin(ctx, name); err != nil {
		return bucket.Info{}, err
	}
	i, err := b.disk.Stat(b.fileOf(name))
	if err != nil {
		return bucket.Info{}, b.missing(name, err)
	}
	return info(name, i), nil
}

// Get implements bucket.Bucket. The body is read from the file that was found, also when the name gets another one meanwhile.
func (b *Bucket) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	if err := begin(ctx, name); err != nil {
		return nil, bucket.Info{}, err
	}
	f, i, err := b.open(ctx, name)
	if err != nil {
		return nil, bucket.Info{}, b.missing(name, err)
	}
	found := info(name, i)
	if ifMatch != "" && found.Version != ifMatch {
		f.Close()
		return nil, bucket.Info{}, hub.E(hub.Conflict, "%s is not there in version %s", name, ifMatch)
	}
	length, err := bucket.Section(name, offset, n, i.Size)
	if err != nil {
		f.Close()
		return nil, bucket.Info{}, err
	}
	return &body{ctx: ctx, file: f, at: offset, left: length}, found, nil
}

// open returns a file and its description. A name may get another file between the two calls, so they are made until both agree.
func (b *Bucket) open(ctx context.Context, name string) (disk.File, disk.Info, error) {
	path := b.fileOf(name)
	i, err := b.disk.Stat(path)
	for err == nil {
		var f disk.File
		if f, err = b.disk.Open(path, false); err != nil {
			break
		}
		var again disk.Info
		if again, err = b.disk.Stat(path); err == nil && version(again) == version(i) {
			return f, i, nil
		}
		f.Close()
		i = again
		if err == nil {
			err = ctx.Err()
		}
	}
	return nil, disk.Info{}, err
}

// body reads a section of a file; it sees its context end.
type body struct {
	ctx      context.Context
	file     disk.File
	at, left int64
}

func (r *body) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.file.ReadAt(p, r.at)
	r.at, r.left = r.at+int64(n), r.left-int64(n)
	if err == io.EOF {
		err = nil
		if n == 0 && len(p) > 0 {
			return 0, io.ErrUnexpectedEOF // the file is shorter than it was: somebody else writes here
		}
	}
	return n, err
}

func (r *body) Close() error { return r.file.Close() }

// begin is the beginning of every call on a name.
func begin(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return bucket.CheckName(name)
}

func info(name string, i disk.Info) bucket.Info {
	return bucket.Info{Name: name, Size: i.Size, Version: version(i), Modified: i.ModTime.UTC()}
}

func version(i disk.Info) string { return fmt.Sprintf("%x-%x-%x", i.ID, i.Size, i.ModTime.UnixNano()) }

func (b *Bucket) missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hub.E(hub.NotFound, "%s is not stored", name)
	}
	return failed("read "+name, err)
}

// failed gives an error of the disk its kind.
func failed(what string, err error) error {
	var known *hub.Error
	var body fault
	switch {
	case errors.As(err, &body):
		return fmt.Errorf("%s: %w", what, err)
	case err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, disk.ErrFull):
		return hub.E(hub.Full, "no space is left in long-term storage").Because(fmt.Errorf("%s: %w", what, err))
	}
	return hub.E(hub.Unavailable, "long-term storage can not be used now").Because(fmt.Errorf("%s: %w", what, err))
}
