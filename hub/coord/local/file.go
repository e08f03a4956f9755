package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"timehub/hub"
)

// The file holds two buckets: "registers" maps names to 8 bytes of version, 4 bytes of CRC-32C over name,
// version and value, and the value; "meta" holds "format" and "reserved", 8 bytes each. All numbers are big endian.
const (
	fileFormat = 1
	recordHead = 12
)

var (
	registersBucket = []byte("registers")
	metaBucket      = []byte("meta")
	formatKey       = []byte("format")
	reservedKey     = []byte("reserved")
)

// lockTimeout is how long Open waits for another process to let go of the file: one that is just ending.
const lockTimeout = 2 * time.Second

// file keeps the registers on disk. A nil file keeps nothing. Calls are made one at a time.
type file struct{ db *bbolt.DB }

// Open opens the file at path, or makes it. It fails with Unavailable if another process has it open, and with a sentence that names the file if it is
// damaged or was written by a newer version; nothing is changed then.
func Open(path string) (*Store, error) {
	s := NewMemory()
	f, err := openFile(path, s)
	if err != nil {
		return nil, err
	}
	s.file = f
	s.revision = s.reserved + revisionBlock // epochs of members that left were not reserved one by one: stay clear of them
	return s, nil
}

func openFile(path string, s *Store) (f *file, err error) {
	if err := create(path); err != nil {
		return nil, fmt.Errorf("create coordination file %s: %w", path, err)
	}
	// A damaged database makes bbolt panic, or read beyond the end of its memory map.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var db *bbolt.DB
	var handle *os.File // bbolt would leave it open, and locked, when it panics
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("coordination file %s is damaged: %v", path, r)
		}
		switch {
		case err == nil:
		case db != nil:
			_ = db.Close()
		case handle != nil:
			_ = syscall.Flock(int(handle.Fd()), syscall.LOCK_UN) // the memory map that bbolt leaves behind would keep the lock
			_ = handle.Close()
		}
	}()
	opener := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		handle = f
		return f, err
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, OpenFile: opener})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, hub.E(hub.Unavailable, "coordination file %s is in use by another process", path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("coordination file %s is damaged, or no such file at all: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("open coordination file %s: %w", path, err)
	}
	if err := load(db, s); err != nil {
		return nil, fmt.Errorf("read coordination file %s: %w", path, err)
	}
	return &file{db}, nil
}

// create makes the file under another name first: a crash in the middle leaves no half of a database under the real one.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(temp, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		if _, err = tx.CreateBucketIfNotExists(registersBucket); err != nil {
			return err
		}
		return errors.Join(meta.Put(formatKey, u64(fileFormat)), meta.Put(reservedKey, u64(revisionBlock)))
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Link(temp, path); err != nil && !errors.Is(err, os.ErrExist) { // another process may just have made it
		return err
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// load reads everything into memory and checks it on the way. (bbolt's own Check reads in a goroutine, in which a fault could not be caught.)
func load(db *bbolt.DB, s *Store) error {
	return db.View(func(tx *bbolt.Tx) error {
		meta, registers := tx.Bucket(metaBucket), tx.Bucket(registersBucket)
		if meta == nil || registers == nil {
			return errors.New("it is a database of something else")
		}
		format, ok := readU64(meta.Get(formatKey))
		if !ok || format != fileFormat {
			return fmt.Errorf("its format is %d, this program knows %d", format, fileFormat)
		}
		if s.reserved, ok = readU64(meta.Get(reservedKey)); !ok {
			return errors.New("it is damaged: no reservation of versions")
		}
		return registers.ForEach(func(name, b []byte) error {
			r, ok := decode(name, b)
			if !ok || r.version > s.reserved {
				return fmt.Errorf("it is damaged: register %q", name)
			}
			s.registers[string(name)] = r
			return nil
		})
	})
}

// write makes changes and the reservation durable, all or none.
func (f *file) write(changed map[string]register, reserved uint64) (err error) {
	if f == nil {
		return nil
	}
	err = f.db.Update(func(tx *bbolt.Tx) error {
		registers := tx.Bucket(registersBucket)
		for name, r := range changed {
			var err error
			if r.version == 0 {
				err = registers.Delete([]byte(name))
			} else {
				err = registers.Put([]byte(name), encode([]byte(name), r))
			}
			if err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(reservedKey, u64(reserved))
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return errClosed()
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return hub.E(hub.Full, "no space for the coordination file").Because(err)
	}
	return hub.E(hub.Unavailable, "the coordination file could not be written").Because(err)
}

func (f *file) close() error {
	if f == nil {
		return nil
	}
	return f.db.Close()
}

func encode(name []byte, r register) []byte {
	b := make([]byte, recordHead, recordHead+len(r.value))
	binary.BigEndian.PutUint64(b, r.version)
	b = append(b, r.value...)
	binary.BigEndian.PutUint32(b[8:], sum(name, b))
	return b
}

func decode(name, b []byte) (register, bool) {
	if len(b) < recordHead || binary.BigEndian.Uint32(b[8:]) != sum(name, b) {
		return register{}, false
	}
	r := register{append([]byte{}, b[recordHead:]...), binary.BigEndian.Uint64(b)}
	return r, r.version > 0
}

// sum is the CRC-32C of a record without its own four bytes.
func sum(name, b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Checksum(name, table)
	return crc32.Update(crc32.Update(crc, table, b[:8]), table, b[recordHead:])
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func readU64(b []byte) (uint64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}
