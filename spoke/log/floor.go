package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"timehub/hub"
	"timehub/hub/disk"
)

const (
	floorFile = "floor"
	floorTemp = "floor.tmp"
)

// maxDead bounds the list of floorState.
const maxDead = 4096

// floorState is the content of the file floor. dead are segments that were removed, but may come back after a crash, because the folder could not be
// synced; nothing in them counts.
type floorState struct {
	floor hub.Key
	dead  []uint64
}

func (s floorState) append(b []byte) []byte {
	b = le.AppendUint64(b, floorMagic)
	b = le.AppendUint64(b, version)
	b = le.AppendUint64(b, uint64(s.floor.Millis()))
	b = le.AppendUint32(b, uint32(len(s.dead)))
	for _, seq := range s.dead {
		b = le.AppendUint64(b, seq)
	}
	b = append(b, byte(len(s.floor.Hash())))
	b = append(b, s.floor.Hash()...)
	return le.AppendUint32(b, crcOf(b))
}

func parseFloor(b []byte) (s floorState, err error) {
	const fixed = 28 // before the list
	if len(b) < fixed+5 || le.Uint64(b) != floorMagic || le.Uint32(b[len(b)-4:]) != crcOf(b[:len(b)-4]) {
		return s, errFormat
	}
	if v := le.Uint64(b[8:]); v > version {
		return s, errVersion{v}
	}
	n := int(le.Uint32(b[24:]))
	if n > maxDead || len(b) < fixed+8*n+5 || len(b) != fixed+8*n+5+int(b[fixed+8*n]) {
		return s, errFormat
	}
	for i := range n {
		s.dead = append(s.dead, le.Uint64(b[fixed+8*i:]))
	}
	s.floor = keyOf(int64(le.Uint64(b[16:])), b[fixed+8*n+1:len(b)-4])
	return s, nil
}

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

// writeFloor replaces the file floor; when it returns nil, the new one survives a crash.
func (l *Log) writeFloor(s floorState) error {
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
	_, err = f.Write(s.append(nil))
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
func readFloor(d disk.Disk, dir string) (s floorState, err error) {
	name := dir + "/" + floorFile
	f, err := d.Open(name, false)
	if err != nil {
		return s, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	b := make([]byte, 512+8*maxDead)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return s, fmt.Errorf("read %s: %w", name, err)
	}
	if s, err = parseFloor(b[:n]); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}
