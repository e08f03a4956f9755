package dir_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/buckettest"
	"timehub/hub/bucket/dir"
	"timehub/hub/disk"
)

func TestAcceptanceInMemory(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return openOn(t, memdisk.New(memdisk.Options{})) })
}

// TestCrashes cuts the power, or kills the process and then cuts the power, at random calls under concurrent writers. What was answered is there, what was
// not may be; nothing is there in part. With some runs, syncs of folders fail before.
func TestCrashes(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	first := rand.Uint64()
	for i := range uint64(rounds) {
		if crashRound(t, first+i); t.Failed() {
			t.Fatalf("seed %d", first+i)
		}
	}
}

// owner writes one name. Its fields say what may be found there after a crash: the last content that was confirmed, or any that was tried since.
type owner struct {
	name     string
	r        *rand.Rand
	possible []string // "" is: nothing
	serial   int
}

func crashRound(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	d := memdisk.New(memdisk.Options{Seed: seed})
	failing := seed%3 == 0
	if failing {
		d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Name: "bucket/blobs/*", Skip: 2 + r.IntN(20), Times: 1 + r.IntN(4),
			Fault: memdisk.Fault{Err: errBroken, Effect: memdisk.Effect(r.IntN(3))}})
	}
	names := []string{"a", "a/b", "a/c", "d/e/f/g/h/i/j/k", "d/e/f/g/h/i/l", "d"}
	var owners []*owner
	for i, name := range names {
		owners = append(owners, &owner{name: name, r: rand.New(rand.NewPCG(seed, uint64(i)+1)), possible: []string{""}})
	}
	for generation := range 4 {
		b, err := dir.New(dir.Options{Disk: d})
		if err != nil {
			t.Fatal(err)
		}
		check(t, b, owners)
		if t.Failed() {
			return
		}
		d.CrashAt(memdisk.Changes, 1+r.IntN(150), memdisk.Effect(r.IntN(3)))
		var wg sync.WaitGroup
		for _, o := range owners {
			wg.Go(func() {
				for o.step(t, b, !failing) {
				}
			})
		}
		wg.Wait()
		how := memdisk.PowerCut
		if generation%2 == 1 && !failing { // a doubt dies with its process: durable.go
			how = memdisk.ProcessKill
		}
		d = d.Restart(how, seed+uint64(generation))
	}
}

// step does one thing to the name; false when the disk is dead.
func (o *owner) step(t *testing.T, b *dir.Bucket, deletes bool) bool {
	ctx := context.Background()
	o.serial++
	text := fmt.Sprintf("%s %d %s", o.name, o.serial, strings.Repeat("x", o.r.IntN(9000)))
	switch action := o.r.IntN(10); {
	case action < 2 && deletes:
		err := b.Delete(ctx, o.name)
		return o.note("", err)
	case action < 5:
		_, err := put(b, o.name, text, bucket.PutOptions{})
		return o.note(text, err)
	case action < 8:
		_, err := put(b, o.name, text, bucket.PutOptions{IfAbsent: true})
		if !hub.Is(err, hub.Conflict) {
			return o.note(text, err)
		}
		// What is there is durable from now on.
		have, _, err := content(b, o.name)
		if err != nil {
			return !errors.Is(err, memdisk.ErrKilled)
		}
		return o.note(have, nil)
	default:
		_, version, err := content(b, o.name)
		if err != nil {
			return !errors.Is(err, memdisk.ErrKilled)
		}
		_, err = put(b, o.name, text, bucket.PutOptions{IfMatch: version})
		if hub.Is(err, hub.Conflict) {
			t.Errorf("%s: nobody else writes, and yet: %v", o.name, err)
		}
		return o.note(text, err)
	}
}

func (o *owner) note(text string, err error) bool {
	if err == nil {
		o.possible = []string{text}
		return true
	}
	o.possible = append(o.possible, text)
	return !errors.Is(err, memdisk.ErrKilled)
}

func content(b *dir.Bucket, name string) (text, version string, err error) {
	body, info, err := b.Get(context.Background(), name, 0, -1, "")
	if err != nil {
		return "", "", err
	}
	defer body.Close()
	data := make([]byte, info.Size)
	for n := 0; n < len(data) && err == nil; {
		var m int
		m, err = body.Read(data[n:])
		n += m
	}
	return string(data), info.Version, err
}

func check(t *testing.T, b *dir.Bucket, owners []*owner) {
	t.Helper()
	var there []string
	for _, o := range owners {
		have, _, err := content(b, o.name)
		if hub.Is(err, hub.NotFound) {
			have, err = "", nil
		} else {
			there = append(there, o.name)
		}
		if err != nil {
			t.Errorf("%s: %v", o.name, err)
		}
		if !slices.Contains(o.possible, have) {
			t.Errorf("%s is %.30q (%d bytes), possible are %d, the last that was confirmed %.30q", o.name, have, len(have), len(o.possible), o.possible[0])
		}
	}
	slices.Sort(there)
	page, err := b.List(context.Background(), bucket.ListOptions{})
	var listed []string
	for _, i := range page.Blobs {
		listed = append(listed, i.Name)
	}
	if err != nil || !slices.Equal(listed, there) {
		t.Errorf("listed %q, %v; there are %q", listed, err, there)
	}
}

// stays checks that a blob survives a power cut, whatever the seed.
func stays(t *testing.T, d *memdisk.Disk, name, want string) {
	t.Helper()
	for seed := range uint64(40) {
		b := openOn(t, d.Fork(memdisk.PowerCut, seed))
		if have := read(t, b, name); have != want {
			t.Errorf("seed %d: %q, want %q", seed, have, want)
		}
	}
}

// TestConflictMeansDurable: a process dies between the rename and the sync; the next one finds the blob in its way and relies on it.
func TestConflictMeansDurable(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	b := openOn(t, d)
	d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Name: "bucket/blobs/a", Times: 1, Fault: memdisk.Fault{Crash: true}})
	if _, err := put(b, "a/b", "x", bucket.PutOptions{}); !errors.Is(err, memdisk.ErrKilled) {
		t.Fatal(err)
	}
	d = d.Restart(memdisk.ProcessKill, 1)
	b = openOn(t, d)
	if have := read(t, b, "a/b"); have != "x" {
		t.Fatalf("%q: the crash came too early", have)
	}
	if _, err := put(b, "a/b", "x", bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Conflict) {
		t.Fatal(err)
	}
	stays(t, d, "a/b", "x")
}

// TestFailedSyncs: after a sync that failed, one that succeeds proves nothing; trying again must help all the same.
func TestFailedSyncs(t *testing.T) {
	for _, folder := range []string{"bucket/blobs/a", "bucket/blobs"} { // after the rename; when the folder was made
		for _, effect := range []memdisk.Effect{memdisk.None, memdisk.All, memdisk.Part} {
			for _, again := range []bucket.PutOptions{{}, {IfAbsent: true}} {
				d := memdisk.New(memdisk.Options{})
				b := openOn(t, d)
				d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Name: folder, Times: 1, Fault: memdisk.Fault{Err: errBroken, Effect: effect}})
				if _, err := put(b, "a/b", "x", bucket.PutOptions{}); !hub.Is(err, hub.Unavailable) {
					t.Fatal(err)
				}
				if _, err := put(b, "a/b", "x", again); err != nil && !hub.Is(err, hub.Conflict) {
					t.Fatal(err)
				}
				stays(t, d, "a/b", "x")
			}
		}
	}
}

// TestFailedSyncIsNoConflict: a Conflict says that what is there is durable; without its sync it can not be said.
func TestFailedSyncIsNoConflict(t *testing.T) {
	d := memdisk.New(memdisk.Options{})
	b := openOn(t, d)
	d.Inject(memdisk.Rule{Ops: memdisk.OpSyncDir, Name: "bucket/blobs/a", Times: 2, Fault: memdisk.Fault{Err: errBroken}})
	for range 2 {
		if _, err := put(b, "a/b", "x", bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Unavailable) {
			t.Fatal(err)
		}
	}
	if _, err := put(b, "a/b", "x", bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Conflict) {
		t.Fatal(err)
	}
	stays(t, d, "a/b", "x")
}

// late is a disk on which MkdirAll of a folder, when it fails, returns only after the next sync of the parent.
type late struct {
	disk.Disk
	folder string
	synced chan struct{}
}

func (l *late) MkdirAll(name string) error {
	err := l.Disk.MkdirAll(name)
	if err != nil && name == l.folder {
		<-l.synced
	}
	return err
}

func (l *late) SyncDir(name string) error {
	err := l.Disk.SyncDir(name)
	if err == nil && name == path.Dir(l.folder) {
		select {
		case l.synced <- struct{}{}:
		default:
		}
	}
	return err
}

// TestFailedSyncsOfOthers: somebody's sync fails and takes along the change of another, whose own sync then goes well. The other must hear of it.
func TestFailedSyncsOfOthers(t *testing.T) {
	remove := func(b *dir.Bucket) error { return b.Delete(context.Background(), "a/b") }
	replace := func(b *dir.Bucket) error { _, err := put(b, "a/b", "new", bucket.PutOptions{}); return err }
	for _, test := range []struct {
		how    string
		first  string // whose sync of the folder "a" fails
		second func(*dir.Bucket) error
		want   string // for readers, before the power cut
	}{
		{"put, put", "a/c", replace, "new"},
		{"put, delete", "a/c", remove, ""},
		{"folder, put", "a/d/e", replace, "new"},
		{"folder, delete", "a/d/e", remove, ""},
	} {
		t.Run(test.how, func(t *testing.T) {
			var b *dir.Bucket
			var armed atomic.Bool
			second := make(chan error, 1)
			d := memdisk.New(memdisk.Options{Hook: func(c memdisk.Call) memdisk.Fault {
				if c.Op != memdisk.OpSyncDir || c.Name != "bucket/blobs/a" || !armed.CompareAndSwap(true, false) {
					return memdisk.Fault{}
				}
				go func() { second <- test.second(b) }()
				for read(t, b, "a/b") != test.want {
					time.Sleep(time.Millisecond)
				}
				return memdisk.Fault{Err: errBroken}
			}})
			l := &late{d, "bucket/blobs/a/d", make(chan struct{}, 1)}
			b = openOn(t, l)
			for _, name := range []string{"a/a", "a/b"} {
				if _, err := put(b, name, "old", bucket.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			<-l.synced
			armed.Store(true)
			if _, err := put(b, test.first, "x", bucket.PutOptions{}); !hub.Is(err, hub.Unavailable) {
				t.Fatal(err)
			}
			if err := <-second; !hub.Is(err, hub.Unavailable) {
				t.Errorf("the change that was lost was answered: %v", err)
				stays(t, d, "a/b", test.want) // shows that it was
			}
			if err := replace(b); err != nil {
				t.Fatal(err)
			}
			stays(t, d, "a/b", "new")
		})
	}
}
