package attempts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"timehub/hub/disk"
)

// A segment is a head and records, each a frame: length of what follows the frame (4 bytes), its CRC-32C (4 bytes), both little-endian, then that many
// bytes. The head holds the magic, the version and the name of the webhook; a record one attempt. A frame that is cut off or fails its sum ends the
// segment: what a crash tore was the last thing written.
const (
	magic     = "hubcalls"
	version   = 1
	frameSize = 8
	maxFrame  = 16 << 10
	maxFile   = 8 << 20 // no segment of ours is greater
)

const flagReplay = 1

// errVersion means a file that another version wrote; it is left alone.
var errVersion = errors.New("this version does not know the format")

// errTorn means a file that has no whole head.
var errTorn = errors.New("the head is not whole")

// appendFrame appends what fill appends, as a frame.
func appendFrame(b []byte, fill func([]byte) []byte) []byte {
	at := len(b)
	b = fill(append(b, make([]byte, frameSize)...))
	content := b[at+frameSize:]
	binary.LittleEndian.PutUint32(b[at:], uint32(len(content)))
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// nextFrame cuts a frame off.
func nextFrame(b []byte) (content, rest []byte, ok bool) {
	if len(b) < frameSize {
		return nil, b, false
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > maxFrame || n > len(b)-frameSize {
		return nil, b, false
	}
	content = b[frameSize : frameSize+n]
	if crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, b, false
	}
	return content, b[frameSize+n:], true
}

func appendHead(b []byte, name string) []byte {
	return appendFrame(b, func(b []byte) []byte {
		return append(append(append(b, magic...), version), name...)
	})
}

// parseHead returns the name of the webhook.
func parseHead(b []byte) (name string, rest []byte, err error) {
	content, rest, ok := nextFrame(b)
	if !ok || len(content) < len(magic)+1 || !bytes.HasPrefix(content, []byte(magic)) {
		return "", nil, errTorn
	}
	if v := content[len(magic)]; v != version {
		return "", nil, fmt.Errorf("version %d: %w", v, errVersion)
	}
	return string(content[len(magic)+1:]), rest, nil
}

func appendAttempt(b []byte, a Attempt) []byte {
	return appendFrame(b, func(b []byte) []byte {
		b = binary.AppendVarint(b, a.Time.UnixMilli())
		b = binary.AppendUvarint(b, uint64(a.Number))
		b = binary.AppendUvarint(b, uint64(a.Status))
		b = binary.AppendUvarint(b, uint64(a.Latency.Microseconds()))
		flags := byte(0)
		if a.Replay {
			flags |= flagReplay
		}
		b = append(b, flags)
		for _, s := range []string{a.Path, a.Reason, a.Error, string(a.Answer)} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
		return b
	})
}

// parseAttempt reads the content of a record. What a later version adds at the end is left alone.
func parseAttempt(b []byte) (a Attempt, ok bool) {
	r := reader{b: b}
	ms := r.varint()
	a.Number, a.Status = int(r.uvarint()), int(r.uvarint())
	a.Latency = time.Duration(r.uvarint()) * time.Microsecond
	a.Replay = r.byte()&flagReplay != 0
	a.Path, a.Reason, a.Error = string(r.bytes()), string(r.bytes()), string(r.bytes())
	a.Answer = bytes.Clone(r.bytes())
	a.Time = time.UnixMilli(ms).UTC()
	return a.cut(), !r.bad
}

// reader takes fields off the front; bad says that one was not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	return took(r, v, n)
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	return took(r, v, n)
}

func took[T int64 | uint64](r *reader, v T, n int) T {
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

// parseSegment reads a segment as far as it is whole: size is where that ends. each is called for every attempt, in the order in which they were written.
func parseSegment(b []byte, each func(Attempt)) (name string, size int64, err error) {
	name, rest, err := parseHead(b)
	if err != nil {
		return "", 0, err
	}
	for {
		content, after, ok := nextFrame(rest)
		if !ok {
			break
		}
		a, ok := parseAttempt(content)
		if !ok {
			break
		}
		each(a)
		rest = after
	}
	return name, int64(len(b) - len(rest)), nil
}

// readFile reads the first limit bytes of a file, or all there are.
func readFile(d disk.Disk, name string, limit int64) ([]byte, error) {
	f, err := d.Open(name, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, limit))
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}
