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

// appendFloor is the content of the file floor.
func appendFloor(b []byte, k hub.Key) []byte {
	b = le.AppendUint64(b, floorMagic)
	b = le.AppendUint64(b, version)
	b = le.AppendUint64(b, uint64(k.Millis()))
	b = append(b, byte(len(k.Hash())))
	b = append(b, k.Hash()...)
	return le.AppendUint32(b, crcOf(b))
}

func parseFloor(b []byte) (hub.Key, error) {
	if len(b) < 29 || le.Uint64(b) != floorMagic || le.Uint32(b[len(b)-4:]) != crcOf(b[:len(b)-4]) {
		return hub.Key{}, errFormat
	}
	if v := le.Uint64(b[8:]); v > version {
		return hub.Key{}, errVersion{v}
	}
	if len(b) != 29+int(b[24]) {
		return hub.Key{}, errFormat
	}
	return hub.KeyAt(int64(le.Uint64(b[16:])), string(b[25:len(b)-4])), nil
}

// writeFloor replaces the file floor; when it returns nil, the new one survives a crash.
func writeFloor(d disk.Disk, dir string, k hub.Key) error {
	temp := dir + "/" + floorTemp
	if err := d.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old %s: %w", temp, err)
	}
	f, err := d.Create(temp)
	if err != nil {
		return fmt.Errorf("create %s: %w", temp, err)
	}
	_, err = f.Write(appendFloor(nil, k))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	if err := d.Rename(temp, dir+"/"+floorFile); err != nil {
		return fmt.Errorf("rename %s: %w", temp, err)
	}
	if err := d.SyncDir(dir); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// readFloor returns the floor on the disk; an error that is fs.ErrNotExist if there is none, errFormat if it is damaged.
func readFloor(d disk.Disk, dir string) (hub.Key, error) {
	name := dir + "/" + floorFile
	f, err := d.Open(name, false)
	if err != nil {
		return hub.Key{}, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	b := make([]byte, 512)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return hub.Key{}, fmt.Errorf("read %s: %w", name, err)
	}
	k, err := parseFloor(b[:n])
	if err != nil {
		return k, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil
}
