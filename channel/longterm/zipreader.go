package longterm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"sync"

	"github.com/klauspost/compress/flate"
)

// ErrCorrupt is in the chain of every error about a stored object that is not what it should be.
var ErrCorrupt = errors.New("damaged object in long-term storage")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// ranger is something of a fixed length that is read by ranges: a version of an object, or a spool.
type ranger interface {
	// ranged returns exactly n bytes from offset, or fails when they have been read.
	ranged(ctx context.Context, offset, n int64) (io.ReadCloser, error)
	length() int64
}

// fetch reads a range into memory.
func fetch(ctx context.Context, r ranger, offset, n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	body, err := r.ranged(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(body, b)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("read bytes %d to %d: %w", offset, offset+n, err)
	}
	return b, nil
}

// zipEnd is what the end of a zip says.
type zipEnd struct {
	entries        uint64
	exact          bool // entries is whole, not cut to 16 bits
	offset, length int64
	sum            uint32 // of the directory
	summed         bool   // sum is known
}

const (
	tailFirst = 64 << 10 // what is read of an unknown zip at first: most often the whole central directory
	tailMost  = lenEnd + math.MaxUint16 + lenLocator64 + lenEnd64
)

// readEnd finds the central directory. tail is the end of the zip, as much as was read.
func readEnd(ctx context.Context, r ranger) (end zipEnd, tail []byte, err error) {
	size := r.length()
	tail, err = fetch(ctx, r, size-min(size, tailFirst), min(size, tailFirst))
	if err != nil {
		return end, nil, err
	}
	at := findEnd(tail)
	if at < lenLocator64+lenEnd64 && int64(len(tail)) < size { // a long comment
		if tail, err = fetch(ctx, r, size-min(size, tailMost), min(size, tailMost)); err != nil {
			return end, nil, err
		}
		at = findEnd(tail)
	}
	if at < 0 {
		return end, nil, corrupt("no zip: its end is missing")
	}
	le := binary.LittleEndian
	e := tail[at:]
	if le.Uint16(e[4:]) != 0 && le.Uint16(e[4:]) != math.MaxUint16 {
		return end, nil, corrupt("a zip of several disks")
	}
	end = zipEnd{entries: uint64(le.Uint16(e[10:])), length: int64(le.Uint32(e[12:])), offset: int64(le.Uint32(e[16:]))}
	stop := size - int64(len(tail)) + int64(at) // where the directory ends at the latest
	switch loc := at - lenLocator64; {
	case loc >= 0 && le.Uint32(tail[loc:]) == sigLocator64:
		where := int64(le.Uint64(tail[loc+8:]))
		if where < 0 || where > stop-lenLocator64-lenEnd64 {
			return end, nil, corrupt("the zip64 end lies outside")
		}
		e, err := fetch(ctx, r, where, lenEnd64)
		if err != nil {
			return end, nil, err
		}
		if le.Uint32(e) != sigEnd64 {
			return end, nil, corrupt("the zip64 end is missing")
		}
		end = zipEnd{entries: le.Uint64(e[32:]), exact: true, length: int64(le.Uint64(e[40:])), offset: int64(le.Uint64(e[48:]))}
		stop = where
	case end.offset != stop-end.length && end.offset == (stop-end.length)&math.MaxUint32:
		end.offset = stop - end.length // a writer without zip64 that went beyond 4 GiB
	}
	end.sum, end.summed = sumOf(tail[at+lenEnd:])
	if end.offset < 0 || end.length < 0 || end.offset > stop || end.length > stop-end.offset || end.exact && end.entries > uint64(end.length)/lenCentral {
		return end, nil, corrupt("the directory of the zip lies outside: %d bytes at %d of %d", end.length, end.offset, size)
	}
	return end, tail, nil
}

// sumOf reads the checksum of the central directory out of a comment.
func sumOf(comment []byte) (uint32, bool) {
	digits, ok := bytes.CutPrefix(comment, []byte(sumPrefix))
	if !ok || len(digits) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 16, 32)
	return uint32(n), err == nil
}

// findEnd returns where the end record begins whose comment reaches to the last byte; -1 if there is none.
func findEnd(tail []byte) int {
	for at := len(tail) - lenEnd; at >= 0 && at >= len(tail)-lenEnd-math.MaxUint16; at-- {
		if binary.LittleEndian.Uint32(tail[at:]) == sigEnd && at+lenEnd+int(binary.LittleEndian.Uint16(tail[at+20:])) == len(tail) {
			return at
		}
	}
	return -1
}

// zentry is an entry of a central directory. name and meta may alias what it was read from.
type zentry struct {
	name                 []byte
	meta                 []byte // JSON; nil if there is none
	method               uint16
	crc                  uint32
	packed, size, offset int64
}

var errShort = errors.New("the buffer ends before the entry")

// parseCentral reads the entry at the start of b and returns its length there; errShort if b does not hold all of it.
func parseCentral(b []byte) (e zentry, n int, err error) {
	if len(b) < lenCentral {
		return e, 0, errShort
	}
	le := binary.LittleEndian
	if le.Uint32(b) != sigCentral {
		return e, 0, corrupt("no entry where the directory of the zip has one")
	}
	name, extra, comment := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
	n = lenCentral + name + extra + comment
	if len(b) < n {
		return e, 0, errShort
	}
	e = zentry{
		name: b[lenCentral : lenCentral+name], method: le.Uint16(b[10:]), crc: le.Uint32(b[16:]),
		packed: int64(le.Uint32(b[20:])), size: int64(le.Uint32(b[24:])), offset: int64(le.Uint32(b[42:])),
	}
	if le.Uint16(b[8:])&1 != 0 {
		return e, 0, corrupt("an encrypted entry")
	}
	if e.method != methodDeflate && e.method != methodStored {
		return e, 0, corrupt("an entry with compression method %d", e.method)
	}
	if err := e.extras(b[lenCentral+name : lenCentral+name+extra]); err != nil {
		return e, 0, err
	}
	return e, n, nil
}

// extras reads the extra field: blocks, or the bare JSON that the original writes.
func (e *zentry) extras(x []byte) error {
	le := binary.LittleEndian
	if len(x) > 0 && x[0] == '{' {
		// With zip64 the original's library may have put a block before or behind the JSON.
		end := bytes.LastIndexByte(x, '}') + 1
		e.meta, x = x[:end], x[end:]
	}
	for len(x) >= 4 {
		id, n := le.Uint16(x), int(le.Uint16(x[2:]))
		if n > len(x)-4 {
			return nil // padding of others: not ours to judge, and nothing that was needed
		}
		block := x[4 : 4+n]
		x = x[4+n:]
		switch id {
		case blockMeta:
			e.meta = block
		case blockZip64:
			for _, field := range [...]*int64{&e.size, &e.packed, &e.offset} {
				if *field == math.MaxUint32 && len(block) >= 8 {
					*field = int64(le.Uint64(block))
					block = block[8:]
				}
			}
		}
		if len(x) > 0 && x[0] == '{' && e.meta == nil {
			e.meta = x
			break
		}
	}
	if e.size < 0 || e.packed < 0 || e.offset < 0 {
		return corrupt("an entry with an impossible size or place")
	}
	return nil
}

// span is a guess of how many bytes from e.offset on hold header and data: what is written here fits exactly or nearly.
func (e *zentry) span() int64 {
	return lenLocal + int64(len(e.name)) + int64(len(e.meta)) + 32 + e.packed
}

// localData checks the local header at the start of b against the entry and returns where the data begins; errShort if b does not reach there.
func (e *zentry) localData(b []byte) (int, error) {
	if len(b) < lenLocal {
		return 0, errShort
	}
	le := binary.LittleEndian
	name, extra := int(le.Uint16(b[26:])), int(le.Uint16(b[28:]))
	if le.Uint32(b) != sigLocal || le.Uint16(b[8:]) != e.method || name != len(e.name) {
		return 0, corrupt("entry %s is not where the directory says", e.name)
	}
	if len(b) < lenLocal+name+extra {
		return 0, errShort
	}
	if string(b[lenLocal:lenLocal+name]) != string(e.name) {
		return 0, corrupt("entry %s has another name in place", e.name)
	}
	// The directory's meta has no checksum; that in place tells whether it was damaged.
	if x := b[lenLocal+name : lenLocal+name+extra]; extra > 0 && x[0] == '{' && !bytes.Equal(x[:bytes.LastIndexByte(x, '}')+1], e.meta) {
		return 0, corrupt("entry %s has other meta in place", e.name)
	}
	return lenLocal + name + extra, nil
}

// maxRatio is more than deflate can reach: a longer result was announced by somebody who lies.
const maxRatio = 1040

// inflater unpacks entries; safe for concurrent use.
type inflater struct {
	limit int64 // of one entry's size
	pool  sync.Pool
}

// unpack appends the data of an entry to dst. It allocates no more than the data can hold.
func (f *inflater) unpack(dst []byte, e *zentry, packed []byte) ([]byte, error) {
	if e.size > f.limit {
		return dst, corrupt("entry %s of %d bytes is over the limit of %d", e.name, e.size, f.limit)
	}
	at := len(dst)
	if e.method == methodStored {
		if int64(len(packed)) != e.size {
			return dst, corrupt("entry %s has %d bytes, the directory says %d", e.name, len(packed), e.size)
		}
		dst = append(dst, packed...)
	} else {
		if e.size > int64(len(packed))*maxRatio+64 {
			return dst, corrupt("entry %s can not have %d bytes", e.name, e.size)
		}
		if free := int64(cap(dst) - at); free < e.size {
			grown := make([]byte, at, int64(at)+e.size)
			copy(grown, dst)
			dst = grown
		}
		if err := f.inflate(dst[at:int64(at)+e.size], packed); err != nil {
			return dst[:at], fmt.Errorf("%w: entry %s: %w", ErrCorrupt, e.name, err)
		}
		dst = dst[:int64(at)+e.size]
	}
	if crc32.ChecksumIEEE(dst[at:]) != e.crc {
		return dst[:at], corrupt("entry %s does not match its checksum", e.name)
	}
	return dst, nil
}

// inflate fills dst, exactly.
func (f *inflater) inflate(dst, packed []byte) error {
	in, _ := f.pool.Get().(*inflaterState)
	if in == nil {
		in = &inflaterState{}
		in.flate = flate.NewReader(&in.bytes)
	}
	defer f.pool.Put(in)
	in.bytes.Reset(packed)
	if err := in.flate.(flate.Resetter).Reset(&in.bytes, nil); err != nil {
		return err
	}
	if _, err := io.ReadFull(in.flate, dst); err != nil {
		return err
	}
	if n, err := in.flate.Read(in.one[:]); n != 0 || err != io.EOF {
		return errors.New("the data goes on")
	}
	return nil
}

type inflaterState struct {
	bytes bytes.Reader
	flate io.ReadCloser
	one   [1]byte
}
