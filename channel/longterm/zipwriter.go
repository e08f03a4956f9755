package longterm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"

	"timehub/hub"
	"timehub/hub/disk"
)

// The parts of a zip (APPNOTE 4.3), little-endian throughout.
const (
	sigLocal      = 0x04034b50
	sigDescriptor = 0x08074b50
	sigCentral    = 0x02014b50
	sigEnd        = 0x06054b50
	sigEnd64      = 0x06064b50
	sigLocator64  = 0x07064b50

	lenLocal     = 30
	lenCentral   = 46
	lenEnd       = 22
	lenEnd64     = 56
	lenLocator64 = 20

	methodStored  = 0
	methodDeflate = 8
	// sizes follow the data; names are UTF-8
	entryFlags = 1<<3 | 1<<11

	blockZip64 = 0x0001
	blockMeta  = 0x4855 // "UH" on disk: the meta JSON as a block that readers of the central directory take
	deflating  = 1      // the level: part of the format, for two writers of one minute write the same bytes
	maxEntry   = math.MaxUint32 - 1
	maxMeta    = math.MaxUint16 - 64
)

// ZipOptions are for NewZipWriter.
type ZipOptions struct {
	// Temp takes the central directory once it is longer than Memory, in a file in Folder, which must exist. nil: it stays in memory.
	Temp    disk.Disk
	Folder  string
	Memory  int    // bytes; 0: 256 KiB
	Comment string // of the archive
	// Sum, instead of Comment, lets the comment be the CRC of the central directory in this polynomial: a zip has checksums of its entries only, and who
	// lists them without reading them would take a flipped bit of a name for another name.
	Sum *crc32.Table
}

// sumPrefix begins the comment of an archive that has the checksum of its central directory; eight hexadecimal digits follow.
const sumPrefix = "crc32c="

// ZipWriter writes a zip to a stream. What it keeps in memory does not depend on the number of entries. Each local header carries the JSON of spec 02 §3.7
// as its extra field, as readers of the original's streams expect; the central directory carries it in a block of its own, because Python and Java refuse
// an archive whose central extra fields are not made of blocks. Not for concurrent use.
type ZipWriter struct {
	out     *bufio.Writer
	at      int64
	central spool
	entries uint64
	comment string
	deflate *flate.Writer
	pool    *sync.Pool                    // where deflate goes afterwards; may be nil
	buf     []byte                        // the name of the entry at hand
	entry   []byte                        // its part of the central directory
	fixed   [lenEnd64 + lenLocator64]byte // a record at hand
	meta    metaText
	err     error
}

// NewZipWriter returns a writer onto w. It must be ended with Close or Abort.
func NewZipWriter(w io.Writer, opt ZipOptions) *ZipWriter {
	return newZipWriter(w, opt, nil)
}

func newZipWriter(w io.Writer, opt ZipOptions, pool *sync.Pool) *ZipWriter {
	if opt.Memory <= 0 {
		opt.Memory = 256 << 10
	}
	z := &ZipWriter{out: bufio.NewWriterSize(w, 32<<10), comment: opt.Comment, pool: pool}
	z.central = spool{disk: opt.Temp, folder: opt.Folder, memory: opt.Memory, sum: opt.Sum}
	if pool != nil {
		z.deflate, _ = pool.Get().(*flate.Writer)
	}
	if z.deflate == nil {
		z.deflate, z.err = flate.NewWriter(nil, deflating)
	}
	return z
}

// Add writes one item. The content type goes into its JSON; "" leaves it out. TooLarge: more than zip entries or headers can hold. Any error is final.
func (z *ZipWriter) Add(key hub.Key, contentType string, body []byte) error {
	return z.item(key, itemMeta{ContentType: contentType}, body)
}

// AddFrom is Add for a body that is read.
func (z *ZipWriter) AddFrom(key hub.Key, contentType string, body io.Reader) error {
	z.header(key, itemMeta{ContentType: contentType})
	return z.stream(key.Millis(), body)
}

func (z *ZipWriter) item(key hub.Key, m itemMeta, body []byte) error {
	z.header(key, m)
	return z.add(key.Millis(), body)
}

// header prepares buf: the name, and the meta JSON behind it in z.meta.
func (z *ZipWriter) header(key hub.Key, m itemMeta) {
	z.buf = key.AppendTo(z.buf[:0])
	z.meta.set(m)
}

// plain writes an entry that is no item: of a SINGLE object.
func (z *ZipWriter) plain(name string, ms int64, body []byte) error {
	z.buf = append(z.buf[:0], name...)
	z.meta.text = z.meta.text[:0]
	return z.add(ms, body)
}

func (z *ZipWriter) add(ms int64, body []byte) error {
	if z.err != nil {
		return z.err
	}
	if int64(len(body)) > maxEntry {
		z.err = hub.E(hub.TooLarge, "an item of %d bytes does not fit into a zip", len(body))
		return z.err
	}
	e := z.begin(ms)
	if z.err == nil {
		e.crc = crc32.ChecksumIEEE(body)
		_, z.err = z.deflate.Write(body)
	}
	return z.end(e, int64(len(body)))
}

func (z *ZipWriter) stream(ms int64, body io.Reader) error {
	if z.err != nil {
		return z.err
	}
	e := z.begin(ms)
	size := int64(0)
	if z.err == nil {
		sum := crc32.NewIEEE()
		size, z.err = io.Copy(io.MultiWriter(z.deflate, sum), io.LimitReader(body, maxEntry+1))
		e.crc = sum.Sum32()
	}
	return z.end(e, size)
}

// begun is an entry between its local header and its end.
type begun struct {
	offset, data int64
	crc          uint32
	date         uint32
}

// begin writes the local header of the entry whose name is in buf.
func (z *ZipWriter) begin(ms int64) begun {
	e := begun{offset: z.at, date: dosTime(ms)}
	name, meta := len(z.buf), z.meta.text
	if z.err == nil && (name > math.MaxUint16 || len(meta) > maxMeta) {
		z.err = hub.E(hub.TooLarge, "the key or the content type of an item does not fit into a zip: %d and %d bytes", name, len(meta))
	}
	h := z.record(lenLocal)
	le := binary.LittleEndian
	le.PutUint32(h[0:], sigLocal)
	le.PutUint16(h[4:], 20)
	le.PutUint16(h[6:], entryFlags)
	le.PutUint16(h[8:], methodDeflate)
	le.PutUint32(h[10:], e.date)
	le.PutUint16(h[26:], uint16(name))
	le.PutUint16(h[28:], uint16(len(meta)))
	z.write(h)
	z.write(z.buf)
	z.write(meta)
	e.data = z.at
	z.deflate.Reset((*counter)(z))
	return e
}

// record returns zeroed memory for a record of n bytes, valid until the next one.
func (z *ZipWriter) record(n int) []byte {
	clear(z.fixed[:n])
	return z.fixed[:n]
}

// counter is the ZipWriter as the compressor sees it.
type counter ZipWriter

func (c *counter) Write(p []byte) (int, error) {
	z := (*ZipWriter)(c)
	z.write(p)
	return len(p), z.err
}

func (z *ZipWriter) write(p []byte) {
	if z.err == nil {
		_, z.err = z.out.Write(p)
		z.at += int64(len(p))
	}
}

// end writes the descriptor and the entry of the central directory.
func (z *ZipWriter) end(e begun, size int64) error {
	if z.err == nil {
		z.err = z.deflate.Close()
	}
	packed := z.at - e.data
	if z.err == nil && (size > maxEntry || packed > maxEntry) {
		z.err = hub.E(hub.TooLarge, "an item of %d bytes does not fit into a zip", size)
	}
	if z.err != nil {
		return z.err
	}
	le := binary.LittleEndian
	d := z.record(16)
	le.PutUint32(d[0:], sigDescriptor)
	le.PutUint32(d[4:], e.crc)
	le.PutUint32(d[8:], uint32(packed))
	le.PutUint32(d[12:], uint32(size))
	z.write(d)

	far := e.offset >= math.MaxUint32
	extra := 0
	if far {
		extra += 12
	}
	if len(z.meta.text) > 0 {
		extra += 4 + len(z.meta.text)
	}
	h := append(z.entry[:0], make([]byte, lenCentral)...)
	version := uint16(20)
	if far {
		version = 45
	}
	le.PutUint32(h[0:], sigCentral)
	le.PutUint16(h[4:], version)
	le.PutUint16(h[6:], version)
	le.PutUint16(h[8:], entryFlags)
	le.PutUint16(h[10:], methodDeflate)
	le.PutUint32(h[12:], e.date)
	le.PutUint32(h[16:], e.crc)
	le.PutUint32(h[20:], uint32(packed))
	le.PutUint32(h[24:], uint32(size))
	le.PutUint16(h[28:], uint16(len(z.buf)))
	le.PutUint16(h[30:], uint16(extra))
	le.PutUint32(h[42:], uint32(min(e.offset, math.MaxUint32)))
	all := append(h, z.buf...)
	if far {
		all = le.AppendUint16(all, blockZip64)
		all = le.AppendUint16(all, 8)
		all = le.AppendUint64(all, uint64(e.offset))
	}
	if len(z.meta.text) > 0 {
		all = le.AppendUint16(all, blockMeta)
		all = le.AppendUint16(all, uint16(len(z.meta.text)))
		all = append(all, z.meta.text...)
	}
	z.entry = all
	if z.err == nil {
		_, z.err = z.central.Write(all)
	}
	z.entries++
	return z.err
}

// Close writes the central directory and flushes. The stream itself stays open.
func (z *ZipWriter) Close() error {
	start, length := z.at, z.central.size
	if z.err == nil {
		_, z.err = io.Copy((*counter)(z), z.central.reader())
	}
	if z.central.sum != nil {
		z.comment = fmt.Sprintf(sumPrefix+"%08x", z.central.digest)
	}
	le := binary.LittleEndian
	if z.entries >= math.MaxUint16 || start >= math.MaxUint32 || length >= math.MaxUint32 {
		e := z.record(lenEnd64 + lenLocator64)
		le.PutUint32(e[0:], sigEnd64)
		le.PutUint64(e[4:], lenEnd64-12)
		le.PutUint16(e[12:], 45)
		le.PutUint16(e[14:], 45)
		le.PutUint64(e[24:], z.entries)
		le.PutUint64(e[32:], z.entries)
		le.PutUint64(e[40:], uint64(length))
		le.PutUint64(e[48:], uint64(start))
		le.PutUint32(e[56:], sigLocator64)
		le.PutUint64(e[64:], uint64(start+length))
		le.PutUint32(e[72:], 1)
		z.write(e)
	}
	e := z.record(lenEnd)
	le.PutUint32(e[0:], sigEnd)
	le.PutUint16(e[8:], uint16(min(z.entries, math.MaxUint16)))
	le.PutUint16(e[10:], uint16(min(z.entries, math.MaxUint16)))
	le.PutUint32(e[12:], uint32(min(length, math.MaxUint32)))
	le.PutUint32(e[16:], uint32(min(start, math.MaxUint32)))
	le.PutUint16(e[20:], uint16(len(z.comment)))
	z.write(e)
	z.write([]byte(z.comment))
	if z.err == nil {
		z.err = z.out.Flush()
	}
	err := z.err
	z.Abort()
	if err != nil {
		return fmt.Errorf("write a zip: %w", err)
	}
	return nil
}

var errAborted = errors.New("the zip was aborted")

// Abort frees what the writer holds, without ending the zip. After Close it does nothing.
func (z *ZipWriter) Abort() {
	z.central.close()
	if z.pool != nil && z.deflate != nil {
		z.pool.Put(z.deflate)
	}
	z.deflate = nil
	if z.err == nil {
		z.err = errAborted
	}
}

// dosTime is an instant as zip headers hold it: time in the lower, date in the upper half, two seconds exact, years 1980 to 2107.
func dosTime(ms int64) uint32 {
	t := time.UnixMilli(ms).UTC()
	switch year := t.Year(); {
	case year < 1980:
		return 1<<21 | 1<<16
	case year > 2107:
		return 127<<25 | 12<<21 | 31<<16 | 23<<11 | 59<<5 | 29
	}
	date := (t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()
	return uint32(date)<<16 | uint32(t.Hour()<<11|t.Minute()<<5|t.Second()/2)
}
