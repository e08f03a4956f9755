package dir_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/dir"
	"timehub/hub/disk"
)

// spy is a disk that writes down its calls and lets the one with a given number fail.
type spy struct {
	disk.Disk
	mu     sync.Mutex
	calls  []string
	failAt int  // 1: the next call; 0: never
	after  bool // the call has its effect and fails
	err    error
}

var errBroken = errors.New("broken disk")

func (s *spy) do(call string, effect func() error) error {
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.failAt--
	hit, after, failure := s.failAt == 0, s.after, s.err
	s.mu.Unlock()
	if hit && !after {
		return failure
	}
	err := effect()
	if hit {
		return failure
	}
	return err
}

func (s *spy) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls
	s.calls = nil
	return c
}

func (s *spy) Create(name string) (f disk.File, err error) {
	err = s.do("create", func() error { f, err = s.Disk.Create(name); return err })
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return &spyFile{f, s}, nil
}

func (s *spy) Rename(old, new string) error {
	return s.do("rename "+new, func() error { return s.Disk.Rename(old, new) })
}
func (s *spy) Remove(name string) error {
	return s.do("remove "+name, func() error { return s.Disk.Remove(name) })
}
func (s *spy) MkdirAll(name string) error {
	return s.do("mkdir "+name, func() error { return s.Disk.MkdirAll(name) })
}
func (s *spy) SyncDir(name string) error {
	return s.do("syncdir "+name, func() error { return s.Disk.SyncDir(name) })
}
func (s *spy) List(name string) (all []disk.Info, err error) {
	return all, s.do("list "+name, func() error { all, err = s.Disk.List(name); return err })
}

type spyFile struct {
	disk.File
	s *spy
}

func (f *spyFile) Write(p []byte) (n int, err error) {
	err = f.s.do("write", func() error { n, err = f.File.Write(p); return err })
	return n, err
}
func (f *spyFile) Sync() error { return f.s.do("sync", f.File.Sync) }

func newSpy(t testing.TB) *spy {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &spy{Disk: d, err: errBroken}
}

func openOn(t testing.TB, d disk.Disk) *dir.Bucket {
	b, err := dir.New(dir.Options{Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(b bucket.Bucket, name, text string, opt bucket.PutOptions) (bucket.Info, error) {
	return b.Put(context.Background(), name, strings.NewReader(text), int64(len(text)), opt)
}

func read(t testing.TB, b bucket.Bucket, name string) string {
	t.Helper()
	body, _, err := b.Get(context.Background(), name, 0, -1, "")
	if hub.Is(err, hub.NotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOrderOfCalls is the argument of durable.go, checked.
func TestOrderOfCalls(t *testing.T) {
	s := newSpy(t)
	b := openOn(t, s)
	s.take()
	if _, err := put(b, "a/b", "x", bucket.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	want := []string{"create", "write", "sync", "mkdir bucket/blobs/a", "rename bucket/blobs/a/b.blob", "mkdir bucket/blobs/a", "syncdir bucket/blobs/a"}
	if have := s.take(); !slices.Equal(have, want) {
		t.Errorf("put\nhave %q\nwant %q", have, want)
	}
	if _, err := put(b, "a/b", "x", bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Conflict) {
		t.Fatal(err)
	}
	want = []string{"create", "write", "sync", "mkdir bucket/blobs/a", "mkdir bucket/blobs/a", "syncdir bucket/blobs/a"} // what is there becomes durable
	if have := s.take(); len(have) != 7 || !slices.Equal(have[:6], want) {
		t.Errorf("conflict\nhave %q\nwant %q", have, want)
	}
	if err := b.Delete(context.Background(), "a/b"); err != nil {
		t.Fatal(err)
	}
	want = []string{"remove bucket/blobs/a/b.blob", "remove bucket/blobs/a", "syncdir bucket/blobs"}
	if have := s.take(); !slices.Equal(have, want) {
		t.Errorf("delete\nhave %q\nwant %q", have, want)
	}
}

// TestEveryCallFails lets each disk call of a Put fail, before and after its effect: the name stands for the old or the new blob, the error has a kind, a
// failed Put leaves nothing behind after the next start, and the next Put works.
func TestEveryCallFails(t *testing.T) {
	for _, failure := range []struct {
		err  error
		kind hub.Kind
	}{{errBroken, hub.Unavailable}, {fmt.Errorf("write: %w", disk.ErrFull), hub.Full}} {
		for _, after := range []bool{false, true} {
			for _, old := range []string{"", "old"} {
				for n := 1; ; n++ {
					s := newSpy(t)
					b := openOn(t, s)
					if old != "" {
						if _, err := put(b, "a/b", old, bucket.PutOptions{}); err != nil {
							t.Fatal(err)
						}
					}
					s.mu.Lock()
					s.failAt, s.after, s.err = n, after, failure.err
					s.mu.Unlock()
					_, err := put(b, "a/b", "new", bucket.PutOptions{})
					have := read(t, b, "a/b")
					if err == nil {
						if have != "new" || n < 6 {
							t.Fatalf("call %d: %q", n, have)
						}
						break
					}
					if !hub.Is(err, failure.kind) || have != old && have != "new" {
						t.Fatalf("call %d: %v, %q", n, err, have)
					}
					b.Close()
					b = openOn(t, s)
					if left, _ := s.Disk.List("bucket/tmp"); len(left) != 2 {
						t.Fatalf("call %d left %v", n, left)
					}
					if _, err := put(b, "a/b", "newer", bucket.PutOptions{}); err != nil || read(t, b, "a/b") != "newer" {
						t.Fatalf("call %d: then %v", n, err)
					}
				}
			}
		}
	}
}

// TestStale: temporary files of a process that died go at the next start, those of one that lives stay.
func TestStale(t *testing.T) {
	at := t.TempDir()
	living := open(t, at)
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := living.Put(context.Background(), "slow", r, -1, bucket.PutOptions{})
		done <- err
	}()
	if _, err := w.Write([]byte("hel")); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(at, "bucket", "tmp", "00dead")
	if err := errors.Join(os.Mkdir(dead, 0o755), os.WriteFile(dead+"/7", []byte("x"), 0o644), os.WriteFile(dead+".lock", nil, 0o644),
		os.MkdirAll(filepath.Join(at, "bucket", "blobs", "empty", "folder"), 0o755), os.WriteFile(filepath.Join(at, "bucket", "blobs", "README.txt"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	other := open(t, at)
	for _, name := range []string{dead, dead + ".lock"} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Write([]byte("lo")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-done; err != nil || read(t, other, "slow") != "hello" {
		t.Errorf("%v, %q", err, read(t, other, "slow"))
	}
	page, err := other.List(context.Background(), bucket.ListOptions{Delimiter: "/"})
	if err != nil || len(page.Blobs) != 1 || len(page.Prefixes) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	if err := other.Clean(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(at, "bucket", "blobs", "empty")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty folder: %v", err)
	}
	if read(t, other, "slow") != "hello" {
		t.Error("Clean removed a blob")
	}
}

// TestTwoProcesses shares a mount between two disks, as two processes do.
func TestTwoProcesses(t *testing.T) {
	at := t.TempDir()
	buckets := []*dir.Bucket{open(t, at), open(t, at)}
	var wg sync.WaitGroup
	var won atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			for j := range 20 {
				_, err := put(buckets[i%2], fmt.Sprintf("x/%d", j), "x", bucket.PutOptions{IfAbsent: true})
				if err == nil {
					won.Add(1)
				} else if !hub.Is(err, hub.Conflict) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != 20 {
		t.Errorf("%d winners of 20 names", won.Load())
	}
}

// TestWaitsForTheLock: somebody else holds the lock file for a while; a call that may not wait as long ends.
func TestWaitsForTheLock(t *testing.T) {
	s := newSpy(t)
	b := openOn(t, s)
	unlock, err := s.Disk.Lock("bucket/lock", "somebody else")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := b.Put(ctx, "x", strings.NewReader("x"), 1, bucket.PutOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	done := make(chan error)
	go func() {
		_, err := put(b, "x", "y", bucket.PutOptions{})
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || read(t, b, "x") != "y" {
		t.Errorf("%v, %q", err, read(t, b, "x"))
	}
}

// looked is a disk on which another process looks at each new lock under tmp before its owner has it, as one does that starts at the same time.
type looked struct {
	disk.Disk
	times int
}

func (l *looked) Lock(name, note string) (func() error, error) {
	if strings.Contains(name, "/tmp/") && l.times > 0 {
		l.times--
		return nil, fmt.Errorf("lock %s: %w", name, disk.ErrLocked)
	}
	return l.Disk.Lock(name, note)
}

func TestOpensWhileOthersLook(t *testing.T) {
	b, err := dir.New(dir.Options{Disk: &looked{newSpy(t).Disk, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestPagesReadWhatTheyNeed: a page from the middle of a deep tree reads the folders on its way, not those before.
func TestPagesReadWhatTheyNeed(t *testing.T) {
	s := newSpy(t)
	b := openOn(t, s)
	for day := range 10 {
		for minute := range 10 {
			if _, err := put(b, fmt.Sprintf("c/2021/01/%02d/00/%02d/00/000/x", day+1, minute), "", bucket.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.take()
	page, err := b.List(context.Background(), bucket.ListOptions{Prefix: "c/", After: "c/2021/01/09/00/05/00/000/x", Max: 2})
	if err != nil || len(page.Blobs) != 2 || page.Blobs[0].Name != "c/2021/01/09/00/06/00/000/x" {
		t.Fatalf("%+v, %v", page, err)
	}
	// c, year, month, day, hour, then for minute 5 to 8 the minute and its second
	if n := len(s.take()); n > 5+4*2 {
		t.Errorf("%d folders were read", n)
	}
}

// TestSharedSyncs: puts that wait at the same time share the sync of their folder.
func TestSharedSyncs(t *testing.T) {
	s := newSpy(t)
	b := openOn(t, s)
	s.take()
	var wg sync.WaitGroup
	const people, times = 16, 20
	for i := range people {
		wg.Go(func() {
			for j := range times {
				if _, err := put(b, fmt.Sprintf("f/%d-%d", i, j), "x", bucket.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	syncs := 0
	for _, c := range s.take() {
		if strings.HasPrefix(c, "syncdir") {
			syncs++
		}
	}
	if syncs >= people*times {
		t.Errorf("%d syncs for %d puts", syncs, people*times)
	}
	t.Logf("%d syncs for %d puts", syncs, people*times)
}

func BenchmarkPutSingle(b *testing.B) {
	store := open(b, b.TempDir())
	body := strings.Repeat("x", 600)
	var n atomic.Int64
	b.SetParallelism(8) // of 2 cores: 16 writers
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			k := hub.KeyAt(1614834367089+n.Add(1), "aZ3k9Q")
			if _, err := put(store, "orders/"+k.String(), body, bucket.PutOptions{IfAbsent: true}); err != nil {
				b.Error(err)
			}
		}
	})
}
