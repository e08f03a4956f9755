package log

import (
	"fmt"
	"io"
	"math"
	"slices"

	"timehub/hub"
	"timehub/hub/disk"
)

// A footer is a row of pages behind the data, each with a CRC of its own, so that a look-up checks what it reads and reads little. The last page, the
// trailer, says where the sections are. FORMAT.md has the table.
const (
	pageSize    = 4096
	pagePayload = 4064 // 127 entries
	perPage     = pagePayload / entrySize

	dirRowSize    = 32 + 2*entrySize
	minuteRowSize = 32
	trailerHead   = 96 // bytes of the trailer before the table of sections
)

// The sections of a footer, in their order.
const (
	secEntries   = iota // entries by (channel, key)
	secHashes           // arena of the long hashes
	secFences           // the first entry of each page of entries
	secMinutes          // digests by (channel, minute)
	secNames            // names of the channels
	secDirectory        // a row for each channel, by (hash, name)
	secFilter           // the hashes of the rows of the directory
	secLows             // what the groups of the segment said, the latest of each stream
	sections
)

// section is where a part of the footer lies: its first page and how many bytes of payload it has.
type section struct {
	page  uint32
	bytes uint64
}

// trailer is the last page of a sealed segment.
type trailer struct {
	seq, salt    uint64
	length       int64 // of the data
	minMs, maxMs int64
	closed       int64 // ms
	bytes        int64 // of all records
	records      uint32
	pages        uint32 // of the footer, the trailer included
	flags        Flags
	last         hub.Key
	sections     [sections]section
}

func (t *trailer) append(b []byte) []byte {
	b = le.AppendUint64(b, footMagic)
	b = le.AppendUint64(b, version)
	for _, v := range [...]uint64{t.seq, t.salt, uint64(t.length), uint64(t.minMs), uint64(t.maxMs), uint64(t.closed), uint64(t.bytes)} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, t.records)
	b = le.AppendUint32(b, t.pages)
	b = append(b, byte(t.flags), byte(len(t.last.Hash())), sections, 0, 0, 0, 0, 0)
	b = le.AppendUint64(b, uint64(t.last.Millis()))
	for _, s := range t.sections {
		b = le.AppendUint32(b, s.page)
		b = le.AppendUint64(b, s.bytes)
	}
	return append(b, t.last.Hash()...)
}

// parseTrailer reads the payload of a trailer whose page was checked.
func parseTrailer(b []byte) (*trailer, error) {
	if len(b) < trailerHead+sections*12 || le.Uint64(b) != footMagic {
		return nil, errFormat
	}
	if v := le.Uint64(b[8:]); v > version {
		return nil, errVersion{v}
	}
	at := func(i int) int64 { return int64(le.Uint64(b[16+8*i:])) }
	t := &trailer{
		seq: uint64(at(0)), salt: uint64(at(1)), length: at(2), minMs: at(3), maxMs: at(4), closed: at(5), bytes: at(6),
		records: le.Uint32(b[72:]), pages: le.Uint32(b[76:]), flags: Flags(b[80]),
	}
	if b[82] != sections || t.length < dataStart || t.length > maxSegment || t.pages == 0 {
		return nil, errFormat
	}
	for i := range t.sections {
		s := section{le.Uint32(b[trailerHead+12*i:]), le.Uint64(b[trailerHead+12*i+4:])}
		if s.bytes > math.MaxUint32 || uint64(s.page)+pagesOf(s.bytes) > uint64(t.pages-1) {
			return nil, errFormat
		}
		t.sections[i] = s
	}
	rest := b[trailerHead+12*sections:]
	if len(rest) < int(b[81]) {
		return nil, errFormat
	}
	t.last = keyOf(int64(le.Uint64(b[88:])), rest[:b[81]])
	n := t.count(secDirectory, dirRowSize)
	if n < 0 || t.count(secFilter, 4) != n || t.count(secEntries, entrySize) != int(t.records) || t.count(secMinutes, minuteRowSize) < 0 ||
		t.count(secLows, lowSize) < 0 || t.count(secFences, entrySize) != int(pagesOf(t.sections[secEntries].bytes)) {
		return nil, errFormat
	}
	return t, nil
}

func pagesOf(bytes uint64) uint64 { return (bytes + pagePayload - 1) / pagePayload }

// count is the number of rows of a section; -1 if its length is odd.
func (t *trailer) count(sec, size int) int {
	if t.sections[sec].bytes%uint64(size) != 0 {
		return -1
	}
	return int(t.sections[sec].bytes / uint64(size))
}

// footerStart is where the footer of a segment begins.
func footerStart(length int64) int64 { return (length + pageSize - 1) / pageSize * pageSize }

// sealPage fills in what follows the payload of a page.
func sealPage(p []byte, seq, salt uint64, page uint32) {
	le.PutUint64(p[pagePayload:], salt)
	le.PutUint64(p[pagePayload+8:], seq)
	le.PutUint32(p[pagePayload+16:], page)
	clear(p[pagePayload+20 : pageSize-4])
	le.PutUint32(p[pageSize-4:], crcOf(p[:pageSize-4]))
}

func pageValid(p []byte, seq, salt uint64, page uint32) bool {
	return le.Uint32(p[pageSize-4:]) == crcOf(p[:pageSize-4]) && le.Uint64(p[pagePayload:]) == salt && le.Uint64(p[pagePayload+8:]) == seq &&
		le.Uint32(p[pagePayload+16:]) == page
}

// dirRow is the row of a channel in the directory of a footer.
type dirRow struct {
	name        string
	start       int // first entry
	count       int
	minutes     int // first row of its minutes
	minuteCount int
	bytes       int64
	flags       Flags
	first, last entry
}

// minuteRow is the digest of a channel's minute. When flags has anything but MoreFollows, keys may lie elsewhere too, and the row is no sum.
type minuteRow struct {
	minute int64 // ms / 60,000, rounded down
	count  uint32
	flags  Flags
	sum    uint64
}

func (m minuteRow) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(m.minute))
	b = le.AppendUint32(b, m.count)
	b = le.AppendUint32(b, uint32(m.flags))
	b = le.AppendUint64(b, m.sum)
	return le.AppendUint64(b, 0)
}

func parseMinuteRow(b []byte) minuteRow {
	return minuteRow{minute: int64(le.Uint64(b)), count: le.Uint32(b[8:]), flags: Flags(b[12]), sum: le.Uint64(b[16:])}
}

func minuteOf(ms int64) int64 {
	m := ms / 60_000
	if ms%60_000 < 0 {
		m--
	}
	return m
}

// channelHash orders the directory of a footer.
func channelHash[T string | []byte](name T) uint32 { return crcOf([]byte(name)) }

// pageWriter writes the pages of a footer one behind the other.
type pageWriter struct {
	w         io.WriterAt
	off       int64
	seq, salt uint64
	page      uint32 // number of the page being filled
	buf       []byte // whole pages that wait to be written, then the one being filled
	fill      int    // bytes of payload in it
	t         trailer
	err       error
}

const pagesAtOnce = 32

func newPageWriter(w io.WriterAt, off int64, seq, salt uint64) *pageWriter {
	return &pageWriter{w: w, off: off, seq: seq, salt: salt, buf: make([]byte, 0, pagesAtOnce*pageSize)}
}

// begin starts a section on a fresh page.
func (p *pageWriter) begin(sec int) {
	if p.fill > 0 {
		p.flushPage()
	}
	p.t.sections[sec].page = p.page
}

// write appends payload to the section sec.
func (p *pageWriter) write(sec int, b []byte) {
	p.t.sections[sec].bytes += uint64(len(b))
	p.put(b)
}

func (p *pageWriter) put(b []byte) {
	for len(b) > 0 {
		n := min(len(b), pagePayload-p.fill)
		p.buf = append(p.buf, b[:n]...)
		b = b[n:]
		if p.fill += n; p.fill == pagePayload {
			p.flushPage()
		}
	}
}

func (p *pageWriter) flushPage() {
	at := len(p.buf) - p.fill
	p.buf = append(p.buf, make([]byte, pageSize-p.fill)...)
	sealPage(p.buf[at:], p.seq, p.salt, p.page)
	p.page++
	p.fill = 0
	if len(p.buf) >= pagesAtOnce*pageSize {
		p.flush()
	}
}

func (p *pageWriter) flush() {
	if p.err == nil && len(p.buf) > 0 {
		_, p.err = p.w.WriteAt(p.buf, p.off)
	}
	p.off += int64(len(p.buf))
	p.buf = p.buf[:0]
}

// finish syncs the pages, then writes and syncs the trailer: who sees a trailer can rely on the pages. It returns the end of the file.
func (p *pageWriter) finish(sync func() error) (int64, error) {
	if p.fill > 0 {
		p.flushPage()
	}
	p.flush()
	if p.err == nil {
		p.err = sync()
	}
	p.t.pages = p.page + 1
	p.put(p.t.append(nil))
	p.flushPage()
	p.flush()
	if p.err == nil {
		p.err = sync()
	}
	return p.off, p.err
}

// writeFooter writes the footer of a segment from its index, which nobody changes any more, and syncs it. It returns what is needed of it in memory.
func writeFooter(f disk.File, s *segment, length int64) (*footer, int64, error) {
	m := s.mem
	p := newPageWriter(f, footerStart(length), s.seq, s.salt)
	p.t = trailer{
		seq: s.seq, salt: s.salt, length: length, minMs: s.minMs, maxMs: s.maxMs, closed: s.closed, bytes: m.bytes,
		records: uint32(m.count), flags: m.flags, last: s.last,
	}
	b := footerBuilder{p: p, m: m}
	for _, c := range m.channels {
		b.order = append(b.order, hashedChannel{channelHash(c.name), c})
	}
	slices.SortFunc(b.order, hashedChannel.compare)
	p.begin(secEntries)
	for _, c := range b.order {
		b.channel(c)
	}
	b.blob(secHashes, m.arena)
	b.blob(secFences, b.fences)
	b.blob(secMinutes, b.minutes)
	b.blob(secNames, b.names)
	b.blob(secDirectory, b.directory)
	filter := make([]uint32, len(b.order))
	var raw []byte
	for i, c := range b.order {
		filter[i] = c.hash
		raw = le.AppendUint32(raw, c.hash)
	}
	b.blob(secFilter, raw)
	b.blob(secLows, lowsBytes(m.lows))
	end, err := p.finish(f.Sync)
	if err != nil {
		return nil, end, fmt.Errorf("write the footer of %s: %w", s.name, err)
	}
	return &footer{trailer: p.t, filter: filter}, end, nil
}
