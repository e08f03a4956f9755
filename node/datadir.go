package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
)

// Names in the data directory that belong to the node; the others belong to their rooms (disk and clock and spoke/ to spoke, bucket/ to the bucket,
// coord.db to the coordinator).
const (
	lockFile   = "lock"
	formatFile = "format"
	tempDir    = "tmp" // bodies and zips on their way; emptied at each start
	coordFile  = "coord.db"
	bucketDir  = "bucket"

	dataFormat = 1
	formatWord = "timehub data format "
)

// A process that was killed holds its lock until its last write has ended, which takes a moment on a slow disk: who starts the next one at once is not to be refused for that.
const (
	claimTries = 30
	claimPause = 100 * time.Millisecond
)

// claim takes a data directory for this process, waiting 3 s for one that is ending: nobody else may use it, its format is one that we know, what a dead process left in tmp is gone.
// Each error is a sentence for the person who started the hub.
func claim(d disk.Disk, now time.Time) (release func() error, err error) {
	note := fmt.Sprintf("process %d since %s", os.Getpid(), hub.ISO(now))
	release, err = d.Lock(lockFile, note)
	for tries := 0; errors.Is(err, disk.ErrLocked) && tries < claimTries; tries++ {
		time.Sleep(claimPause)
		release, err = d.Lock(lockFile, note)
	}
	if errors.Is(err, disk.ErrLocked) {
		_, holder, _ := strings.Cut(err.Error(), disk.ErrLocked.Error()+" by ")
		if holder == "" {
			holder = "a process that left no note"
		}
		return nil, hub.E(hub.Conflict, "the data directory %s is in use by another hub: %s; stop it, or name another directory with --data", d.Path("."), holder)
	}
	if err != nil {
		return nil, fmt.Errorf("take the data directory: %w", err)
	}
	err = checkFormat(d)
	if err == nil {
		err = cleanTemp(d)
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// checkFormat refuses a directory that a newer hub has written, and marks one that has no mark yet.
func checkFormat(d disk.Disk) error {
	text, err := readSmall(d, formatFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := checkUnused(d); err != nil {
			return err
		}
		return writeFormat(d)
	}
	if err != nil {
		return fmt.Errorf("read the format of the data directory: %w", err)
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(text), formatWord)
	version, err := strconv.Atoi(number)
	if !ok || err != nil {
		return hub.E(hub.Invalid, "%s does not say which format the data directory has: restore the file, or name another directory with --data", d.Path(formatFile))
	}
	if version > dataFormat {
		return hub.E(hub.Invalid, "the data directory %s was written by a newer hub: its format is %d, this hub knows %d; start the newer hub", d.Path("."), version, dataFormat)
	}
	return nil
}

// checkUnused refuses a directory without a mark that has names in it which a hub uses: they are somebody else's, a home's tmp for one, which would be
// emptied, or those of a hub that has lost its mark. The mark is the first thing that a hub writes.
func checkUnused(d disk.Disk) error {
	for _, name := range [...]string{tempDir, bucketDir, coordFile, "spoke", "clock", "disk"} {
		_, err := d.Stat(name)
		switch {
		case err == nil:
			return hub.E(hub.Invalid, "%s is there, but %s, which would say that it is a hub's, is not: name another directory with --data, or restore that file", d.Path(name), d.Path(formatFile))
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look into the data directory: %w", err)
		}
	}
	return nil
}

// writeFormat marks the directory: the whole mark survives a crash, or none.
func writeFormat(d disk.Disk) error {
	const fresh = formatFile + ".new"
	err := d.RemoveAll(fresh)
	var f disk.File
	if err == nil {
		f, err = d.Create(fresh)
	}
	if err == nil {
		_, err = io.WriteString(f, formatWord+strconv.Itoa(dataFormat)+"\n")
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = d.Rename(fresh, formatFile)
	}
	if err == nil {
		err = d.SyncDir(".")
	}
	if err != nil {
		return fmt.Errorf("mark the data directory: %w", err)
	}
	return nil
}

func cleanTemp(d disk.Disk) error {
	if err := d.RemoveAll(tempDir); err != nil {
		return fmt.Errorf("empty %s: %w", d.Path(tempDir), err)
	}
	if err := d.MkdirAll(tempDir); err != nil {
		return fmt.Errorf("make %s: %w", d.Path(tempDir), err)
	}
	return nil
}

// readSmall reads a file of up to 4 KiB.
func readSmall(d disk.Disk, name string) (string, error) {
	f, err := d.Open(name, false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	return string(text), err
}
