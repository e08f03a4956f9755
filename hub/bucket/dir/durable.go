package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/disk"
)

// How a Put becomes durable, and why in this order:
//
//  1. The body goes to a temporary file in the same file system. It fails or dies here: the name never knew.
//  2. The file is synced. Renaming first could leave, after a crash, a name that stands for an empty or torn file.
//  3. The folder is made.
//  4. Under the lock: look at the name, judge the conditions, rename, read the new version. Conditions are only true as long as nobody else can change what
//     the name stands for, so unconditional puts and deletes take the lock too. Rename and not link: a second name and its removal would change the file's
//     identity, hence the version, after others could have seen it. The lock is a file lock, for several processes, behind a channel, for this one; it
//     is held for a few calls that write nothing to the disk.
//  5. The folder is made again. This is nearly always one look. Had a delete removed it as empty after 3 and another put made it again, that put's sync of
//     the parent may still be under way, and ours must not be answered before it. With our file in it the folder can not go any more.
//  6. The folder is synced: now the name survives a crash. Puts into one folder that wait at the same time share one sync. If one that began earlier
//     failed, it may have lost the renames of all who came before its end, for good: their own sync, though it goes well, does not bring them back.
//     So a failed sync fails everybody who has changed a name in its folder, or on the way to it, and was not answered yet (doubts.go).
//
// Readers may see the blob from 4 on. A crash before 6 can take that back, but not after the Put was answered.
//
// Assumptions: (a) rename is atomic; (b) the sync of a file and then of its folder make content and name durable; (c) the mount's file locks work between
// all its users; (d) a file's inode, size and times together are not repeated under one name. Of (d) little is missing: it would take a replacement of a
// replacement of the same length within one tick of the file system's clock, and somebody who holds the version of the first.
//
// Known holes. A delete whose sync failed, tried again, can be answered although a crash would bring the blob back. If the sync fails that was to make the
// name of a new folder durable and another put is in the folder already, so that it can not be made anew, both fail, but later puts into it do not.
// Processes that share a mount do not tell each other about syncs that failed, nor about folders that they removed: if one removes a folder that became
// empty, a second makes it again, a third puts into it and the machine with the disk crashes before the second has synced the parent, the third's
// answered put is lost.

// Put implements bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	if err := begin(ctx, name); err != nil {
		return bucket.Info{}, err
	}
	if err := opt.Check(); err != nil {
		return bucket.Info{}, err
	}
	temp := fmt.Sprintf("%s/%d", b.tmp, b.serial.Add(1))
	err := b.spool(ctx, temp, body, size)
	var put disk.Info
	if err == nil {
		put, err = b.install(ctx, temp, name, opt)
	}
	if err != nil {
		b.disk.Remove(temp) // if it is still there; what can not be removed now is at the next start
		return bucket.Info{}, failed("put "+name, err)
	}
	return info(name, put), nil
}

// spool writes and syncs a temporary file.
func (b *Bucket) spool(ctx context.Context, temp string, body io.Reader, size int64) error {
	f, err := b.disk.Create(temp)
	if err != nil {
		return err
	}
	if err := b.fill(ctx, f, body, size); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func (b *Bucket) fill(ctx context.Context, f disk.File, body io.Reader, size int64) error {
	buffer := b.buffers.Get().(*[copySize]byte)
	defer b.buffers.Put(buffer)
	total := int64(0)
	for {
		n, err := body.Read(buffer[:])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n > 0 {
			if total += int64(n); size >= 0 && total > size {
				return fault{fmt.Errorf("the body is longer than the %d bytes that were announced", size)}
			}
			if _, err := f.Write(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && size >= 0 && total < size:
			return fault{fmt.Errorf("the body ends after %d of %d bytes: %w", total, size, io.ErrUnexpectedEOF)}
		case err == io.EOF:
			return nil
		case err != nil:
			return fault{fmt.Errorf("read the body: %w", err)}
		}
	}
}

// installTries is how often a Put may lose its folder to deletes. It is not without a bound, for if somebody removed the temporary file it would never end.
const installTries = 1000

// install gives a synced file its name, durably.
func (b *Bucket) install(ctx context.Context, temp, name string, opt bucket.PutOptions) (disk.Info, error) {
	target := b.fileOf(name)
	folder := path.Dir(target)
	for try := 0; ; try++ {
		seen := b.doubts.count(folder)
		err := b.makeFolder(folder)
		var put disk.Info
		if err == nil {
			put, err = b.rename(ctx, temp, target, name, opt)
		}
		if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil && try < installTries {
			continue // a delete found the folder empty and was quicker
		}
		switch {
		case hub.Is(err, hub.Conflict):
			// Whoever put what is there may be, or have died, between 4 and 6, and a Conflict says that it is durable.
			if unsettled := b.settle(ctx, target, folder, seen); unsettled != nil {
				return disk.Info{}, unsettled // and no Conflict
			}
			return disk.Info{}, err
		case err != nil:
			b.prune(folder) // a folder that was made, but not durably, is to be made anew
			return disk.Info{}, err
		}
		return put, b.settle(ctx, "", folder, seen)
	}
}

// settle makes the names in a folder durable: steps 5 and 6. target, if not "", is a file that somebody else has renamed; seen is what doubts.count said
// before the call's own changes.
func (b *Bucket) settle(ctx context.Context, target, folder string, seen int) error {
	if err := b.makeFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted again: by a call that came later
		return err
	}
	if target != "" && b.doubts.has(folder) {
		if err := b.rewrite(ctx, target); err != nil {
			return err
		}
	}
	if err := b.syncs.do(ctx, folder); err != nil {
		return err
	}
	return b.believe(ctx, folder, seen)
}

// errSpoiled fails a call whose own sync went well.
var errSpoiled = errors.New("another sync of the folder failed meanwhile, and the names that it lost no later one writes")

// believe says whether a sync of the folder that went well made the changes durable that were made since doubts.count said seen. It did not if another
// sync failed between them and it.
func (b *Bucket) believe(ctx context.Context, folder string, seen int) error {
	if err := b.doubts.settled(ctx, folder); err != nil {
		return err
	}
	if b.doubts.count(folder) != seen {
		return fmt.Errorf("sync %s: %w", folder, errSpoiled)
	}
	return nil
}

// syncFolder is for rounds: a failure is known to all before the next sync of the folder begins.
func (b *Bucket) syncFolder(folder string) error {
	err := b.disk.SyncDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.doubts.add(folder)
	}
	return err
}

// makeFolder makes a folder and its parents durable. It may sync any of the parents.
func (b *Bucket) makeFolder(folder string) error {
	end := b.doubts.begin(folder)
	err := b.disk.MkdirAll(folder)
	var above []string
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		for p := path.Dir(folder); strings.HasPrefix(p, b.blobs); p = path.Dir(p) {
			above = append(above, p)
		}
	}
	end(above)
	return err
}

// rewrite renames a copy of a file over it. After a failed sync of a folder, one that succeeds proves nothing of the names that were changed before: on Linux
// they count as written. A new rename is a new change.
func (b *Bucket) rewrite(ctx context.Context, target string) error {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	temp := fmt.Sprintf("%s/%d", b.tmp, b.serial.Add(1))
	err = func() error {
		f, err := b.disk.Open(target, false)
		if err != nil {
			return err
		}
		defer f.Close()
		size, err := f.Size()
		if err != nil {
			return err
		}
		if err := b.spool(ctx, temp, io.NewSectionReader(f, 0, size), size); err != nil {
			return err
		}
		return b.disk.Rename(temp, target)
	}()
	if err = errors.Join(err, unlock()); errors.Is(err, fs.ErrNotExist) {
		err = nil // deleted
	}
	if err != nil {
		b.disk.Remove(temp)
	}
	return err
}

func (b *Bucket) rename(ctx context.Context, temp, target, name string, opt bucket.PutOptions) (put disk.Info, err error) {
	unlock, err := b.lock(ctx)
	if err != nil {
		return put, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if opt.IfAbsent || opt.IfMatch != "" {
		there, err := b.disk.Stat(target)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return put, err
		case err == nil && opt.IfAbsent:
			return put, hub.E(hub.Conflict, "%s is there already", name)
		case opt.IfMatch != "" && (err != nil || version(there) != opt.IfMatch):
			return put, hub.E(hub.Conflict, "%s is not there in version %s", name, opt.IfMatch)
		}
	}
	if err := b.disk.Rename(temp, target); err != nil {
		return put, err
	}
	return b.disk.Stat(target)
}

// lock takes the lock file. The goroutines of this process take turns by a channel, so only other processes are waited for with pauses.
func (b *Bucket) lock(ctx context.Context) (unlock func() error, err error) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pause := shortPause
	for {
		release, err := b.disk.Lock(b.folder+"/lock", "")
		if err == nil {
			return func() error {
				defer func() { <-b.turn }()
				return release()
			}, nil
		}
		if errors.Is(err, disk.ErrLocked) {
			err = sleep(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, longPause)
		}
		if err != nil {
			<-b.turn
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if !hub.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// deleteRun is how many names go under one lock.
const deleteRun = 64

// Delete implements bucket.Bucket. Folders that become empty go too.
func (b *Bucket) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := bucket.CheckName(name); err != nil {
			return err
		}
	}
	for run := range slices.Chunk(names, deleteRun) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.remove(ctx, run); err != nil {
			return failed("delete", err)
		}
	}
	return ctx.Err()
}

func (b *Bucket) remove(ctx context.Context, names []string) (err error) {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	seen := map[string]int{}
	folders := map[string]bool{}
	for _, name := range names {
		target := b.fileOf(name)
		for p := path.Dir(target); strings.HasPrefix(p, b.blobs); p = path.Dir(p) {
			if _, known := seen[p]; !known {
				seen[p] = b.doubts.count(p)
			}
		}
		if err = b.disk.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		err = nil
		folders[path.Dir(target)] = true // of a name that is not there too: who removed it may not have synced yet
	}
	if err := errors.Join(err, unlock()); err != nil {
		return err
	}
	touched := map[string]bool{}
	for folder := range folders {
		touched[b.prune(folder)] = true
	}
	for folder := range touched {
		if err := b.syncs.do(ctx, folder); err != nil {
			return err
		}
		if err := b.believe(ctx, folder, seen[folder]); err != nil {
			return err
		}
	}
	return nil
}

// prune removes a folder and its parents as long as they are empty and returns the first that stays.
func (b *Bucket) prune(folder string) string {
	for strings.HasPrefix(folder, b.blobs+"/") {
		if err := b.disk.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break // not empty, as a rule; any other reason costs an empty folder at most
		}
		folder = path.Dir(folder)
	}
	return folder
}

// Clean removes folders that were left empty, by a put that failed or a process that died. They cost nothing but a look in listings, so calling it is
// never urgent. It reads the whole tree.
func (b *Bucket) Clean(ctx context.Context) error {
	return failed("clean", b.clean(ctx, b.blobs))
}

func (b *Bucket) clean(ctx context.Context, folder string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, err := b.disk.List(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, i := range all {
		if i.Dir {
			if err := b.clean(ctx, folder+"/"+i.Name); err != nil {
				return err
			}
		}
	}
	if folder != b.blobs {
		b.disk.Remove(folder) // fails unless it is empty
	}
	return nil
}

// fault is a failure of the body, not of the store.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }

// rounds lets those who want a folder synced at the same time share one sync. A sync that has begun before a change may miss it, so a caller joins the
// round that has not begun; there is at most one of those and one under way for each folder.
type rounds struct {
	sync func(folder string) error

	mu   sync.Mutex // guards the maps; never held during a sync
	open map[string]*round
	busy map[string]*round
}

type round struct {
	done chan struct{}
	err  error // once done is closed
}

// do returns when a sync of the folder that began after the call has ended. A folder that is gone needs none: whoever removed it syncs the parent.
func (r *rounds) do(ctx context.Context, folder string) error {
	r.mu.Lock()
	mine, joined := r.open[folder]
	var before *round
	if !joined {
		mine = &round{done: make(chan struct{})}
		r.open[folder], before = mine, r.busy[folder]
	}
	r.mu.Unlock()
	if joined {
		select {
		case <-mine.done:
			return mine.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// The first of a round does it for all, so it does not give up before they have their answer.
	if before != nil {
		<-before.done
	}
	r.mu.Lock()
	delete(r.open, folder)
	r.busy[folder] = mine
	r.mu.Unlock()
	if err := r.sync(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		mine.err = err
	}
	r.mu.Lock()
	if r.busy[folder] == mine {
		delete(r.busy, folder)
	}
	r.mu.Unlock()
	close(mine.done)
	return mine.err
}
