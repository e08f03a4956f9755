package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

const (
	floorFile = "floor"
	floorTemp = "floor.tmp"
)

// syncDir makes the names in the folder durable. After a failure, names made before may never become durable: who needs one compares dirFailures.
func (l *Log) syncDir() error {
	err := l.opt.Disk.SyncDir(l.opt.Dir)
	if err != nil {
		l.mu.Lock()
		l.dirFailures++
		l.mu.Unlock()
		return fmt.Errorf("sync the folder %s: %w", l.opt.Dir, err)
	}
	return nil
}

// dirState is the number of times that syncDir has failed.
func (l *Log) dirState() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirFailures
}

// syncName is syncDir for names that were made since dirState said before: it fails too if another call has failed in between.
func (l *Log) syncName(before int) error {
	if err := l.syncDir(); err != nil {
		return err
	}
	if l.dirState() != before {
		return errors.New("the folder could not be synced in between")
	}
	return nil
}

// RaiseFloor moves the floor up to a key: from now on the log promises nothing below it. Durable when it returns nil; a key at or below the floor changes nothing.
func (l *Log) RaiseFloor(to hub.Key) error {
	<-l.flooring
	defer func() { l.flooring <- struct{}{} }()
	l.mu.Lock()
	floor := l.floor
	if floor.Less(to) {
		floor = to
	}
	state := format.FloorState{Floor: floor, Dead: slices.Clone(l.dead)}
	stale := l.floor.Less(floor) || !l.buried && len(l.dead) > 0 || !l.floored
	l.mu.Unlock()
	if stale {
		if err := l.writeFloor(state); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.floor = floor
	l.buried = len(l.dead) == len(state.Dead)
	l.floored = true
	l.mu.Unlock()
	return nil
}

// writeFloor replaces the file floor; when it returns nil, the new one survives a crash.
func (l *Log) writeFloor(s format.FloorState) error {
	d := l.opt.Disk
	temp := l.opt.Dir + "/" + floorTemp
	if err := d.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old %s: %w", temp, err)
	}
	before := l.dirState()
	f, err := d.Create(temp)
	if err != nil {
		return fmt.Errorf("create %s: %w", temp, err)
	}
	_, err = f.Write(s.Append(nil))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	if err := d.Rename(temp, l.opt.Dir+"/"+floorFile); err != nil {
		return fmt.Errorf("rename %s: %w", temp, err)
	}
	return l.syncName(before)
}

// readFloor returns the floor on the disk; an error that is fs.ErrNotExist if there is none, errFormat if it is damaged.
func readFloor(d disk.Disk, dir string) (s format.FloorState, err error) {
	name := dir + "/" + floorFile
	f, err := d.Open(name, false)
	if err != nil {
		return s, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	b := make([]byte, 512+8*format.MaxDead)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return s, fmt.Errorf("read %s: %w", name, err)
	}
	if s, err = format.ParseFloor(b[:n]); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}
