package longterm

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"

	"timehub/hub/disk"
)

// spool holds bytes that are written once and then read: in memory, or in a temporary file once they are more than that. The zero value with memory set
// is ready; it must be closed. Not for concurrent writing.
type spool struct {
	disk   disk.Disk // nil: memory only
	folder string
	memory int
	sum    *crc32.Table // not nil: digest is kept

	size   int64
	digest uint32 // CRC of all bytes, with sum
	buf    []byte
	name   string
	file   disk.File
}

func (s *spool) Write(p []byte) (int, error) {
	if s.sum != nil {
		s.digest = crc32.Update(s.digest, s.sum, p)
	}
	s.size += int64(len(p))
	s.buf = append(s.buf, p...)
	if len(s.buf) <= s.memory || s.disk == nil {
		return len(p), nil
	}
	if s.file == nil {
		name := fmt.Sprintf("%s/longterm-%016x", s.folder, rand.Uint64())
		f, err := s.disk.Create(name)
		if err != nil {
			return 0, fmt.Errorf("make a temporary file: %w", err)
		}
		s.name, s.file = name, f
	}
	if _, err := s.file.Write(s.buf); err != nil {
		return 0, fmt.Errorf("write a temporary file: %w", err)
	}
	s.buf = s.buf[:0]
	return len(p), nil
}

// ReadAt reads what has been written; no Write may follow or run meanwhile.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file == nil {
		return bytes.NewReader(s.buf).ReadAt(p, off)
	}
	// The file holds all but what is still in buf.
	onDisk := s.size - int64(len(s.buf))
	n := 0
	if off < onDisk {
		want := p[:min(int64(len(p)), onDisk-off)]
		var err error
		if n, err = s.file.ReadAt(want, off); n < len(want) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		off += int64(n)
	}
	if n == len(p) {
		return n, nil
	}
	m, err := bytes.NewReader(s.buf).ReadAt(p[n:], off-onDisk)
	return n + m, err
}

// reader reads everything from the start; it can seek, so a store can begin again.
func (s *spool) reader() *io.SectionReader { return io.NewSectionReader(s, 0, s.size) }

func (s *spool) close() error {
	var err error
	if s.file != nil {
		err = errors.Join(s.file.Close(), s.disk.Remove(s.name))
		s.file = nil
	}
	s.buf, s.size = nil, 0
	return err
}
