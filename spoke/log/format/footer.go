package format

import (
	"fmt"
	"io"
	"math"
	"slices"

	"timehub/hub"
)

// A footer is a row of pages behind the data, each with a CRC of its own, so that a look-up checks what it reads and reads little. The last page, the
// trailer, says where the sections are. docs/formats.md has the table.
const (
	PageSize    = 4096
	PagePayload = 4064 // 127 entries
	PerPage     = PagePayload / EntrySize

	dirRowSize    = 32 + 2*EntrySize
	minuteRowSize = 32
	holeRowSize   = 32
	trailerHead   = 96 // bytes of the trailer before the table of sections
)

// The sections of a footer, in their order.
const (
	secEntries   = iota // entries by (channel, key)
	secHashes           // arena of the long hashes
	SecFences           // the first entry of each page of entries
	secMinutes          // digests by (channel, minute)
	secNames            // names of the channels
	secDirectory        // a row for each channel, by (hash, name)
	secFilter           // the hashes of the rows of the directory
	secHoles            // what could not be read when the segment was scanned
	secLows             // what the groups of the segment said, the latest of each stream
	secComplete         // the markers of channels; a segment that has none lacks the section
	sections
)

// section is where a part of the footer lies: its first page and how many bytes of payload it has.
type section struct {
	page  uint32
	Bytes uint64
}

// Trailer is the last page of a sealed segment.
type Trailer struct {
	Seq, Salt    uint64
	Length       int64 // of the data
	MinMs, MaxMs int64
	Closed       int64 // ms
	Bytes        int64 // of all records
	Records      uint32
	pages        uint32 // of the footer, the trailer included
	Flags        Flags
	Last         hub.Key
	Sections     [sections]section
}

func (t *Trailer) append(b []byte) []byte {
	b = le.AppendUint64(b, footMagic)
	b = le.AppendUint64(b, Version)
	for _, v := range [...]uint64{t.Seq, t.Salt, uint64(t.Length), uint64(t.MinMs), uint64(t.MaxMs), uint64(t.Closed), uint64(t.Bytes)} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, t.Records)
	b = le.AppendUint32(b, t.pages)
	n := sections
	if t.Sections[secComplete].Bytes == 0 {
		n = secComplete
	}
	b = append(b, byte(t.Flags), byte(len(t.Last.Hash())), byte(n), 0, 0, 0, 0, 0)
	b = le.AppendUint64(b, uint64(t.Last.Millis()))
	for _, s := range t.Sections[:n] {
		b = le.AppendUint32(b, s.page)
		b = le.AppendUint64(b, s.Bytes)
	}
	return append(b, t.Last.Hash()...)
}

// parseTrailer reads the payload of a trailer whose page was checked.
func parseTrailer(b []byte) (*Trailer, error) {
	if len(b) < trailerHead+sections*12 || le.Uint64(b) != footMagic {
		return nil, ErrFormat
	}
	if v := le.Uint64(b[8:]); v > Version {
		return nil, VersionError{v}
	}
	at := func(i int) int64 { return int64(le.Uint64(b[16+8*i:])) }
	t := &Trailer{
		Seq: uint64(at(0)), Salt: uint64(at(1)), Length: at(2), MinMs: at(3), MaxMs: at(4), Closed: at(5), Bytes: at(6),
		Records: le.Uint32(b[72:]), pages: le.Uint32(b[76:]), Flags: Flags(b[80]),
	}
	have := int(b[82])
	if have < secComplete || have > sections || t.Length < DataStart || t.Length > MaxSegment || t.pages == 0 {
		return nil, ErrFormat
	}
	for i := range have {
		s := section{le.Uint32(b[trailerHead+12*i:]), le.Uint64(b[trailerHead+12*i+4:])}
		if s.Bytes > math.MaxUint32 || uint64(s.page)+pagesOf(s.Bytes) > uint64(t.pages-1) {
			return nil, ErrFormat
		}
		t.Sections[i] = s
	}
	rest := b[trailerHead+12*have:]
	if len(rest) < int(b[81]) {
		return nil, ErrFormat
	}
	t.Last = KeyOf(int64(le.Uint64(b[88:])), rest[:b[81]])
	n := t.count(secDirectory, dirRowSize)
	if n < 0 || t.count(secFilter, 4) != n || t.count(secEntries, EntrySize) != int(t.Records) || t.count(secMinutes, minuteRowSize) < 0 ||
		t.count(secLows, LowSize) < 0 || t.count(secHoles, holeRowSize) < 0 || t.count(SecFences, EntrySize) != int(pagesOf(t.Sections[secEntries].Bytes)) {
		return nil, ErrFormat
	}
	return t, nil
}

func pagesOf(bytes uint64) uint64 { return (bytes + PagePayload - 1) / PagePayload }

// Count is the number of rows of a section; -1 if its length is odd.
func (t *Trailer) count(sec, size int) int {
	if t.Sections[sec].Bytes%uint64(size) != 0 {
		return -1
	}
	return int(t.Sections[sec].Bytes / uint64(size))
}

// FooterStart is where the footer of a segment begins.
func FooterStart(length int64) int64 { return (length + PageSize - 1) / PageSize * PageSize }

// SealPage fills in what follows the payload of a page.
func SealPage(p []byte, seq, salt uint64, page uint32) {
	le.PutUint64(p[PagePayload:], salt)
	le.PutUint64(p[PagePayload+8:], seq)
	le.PutUint32(p[PagePayload+16:], page)
	clear(p[PagePayload+20 : PageSize-4])
	le.PutUint32(p[PageSize-4:], crcOf(p[:PageSize-4]))
}

func pageValid(p []byte, seq, salt uint64, page uint32) bool {
	return le.Uint32(p[PageSize-4:]) == crcOf(p[:PageSize-4]) && le.Uint64(p[PagePayload:]) == salt && le.Uint64(p[PagePayload+8:]) == seq &&
		le.Uint32(p[PagePayload+16:]) == page
}

// DirRow is the row of a channel in the directory of a footer.
type DirRow struct {
	Name        string
	Start       int // first entry
	Count       int
	minutes     int // first row of its minutes
	minuteCount int
	Bytes       int64
	Flags       Flags
	First, Last Entry
}

// minuteRow is the digest of a channel's minute. When flags has anything but MoreFollows, keys may lie elsewhere too, and the row is no sum.
type minuteRow struct {
	minute int64 // ms / 60,000, rounded down
	Count  uint32
	Flags  Flags
	Sum    uint64
}

func (m minuteRow) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(m.minute))
	b = le.AppendUint32(b, m.Count)
	b = le.AppendUint32(b, uint32(m.Flags))
	b = le.AppendUint64(b, m.Sum)
	return le.AppendUint64(b, 0)
}

func parseMinuteRow(b []byte) minuteRow {
	return minuteRow{minute: int64(le.Uint64(b)), Count: le.Uint32(b[8:]), Flags: Flags(b[12]), Sum: le.Uint64(b[16:])}
}

// MinuteOf is the minute that holds a millisecond, counted from the Unix epoch.
func MinuteOf(ms int64) int64 {
	m := ms / 60_000
	if ms%60_000 < 0 {
		m--
	}
	return m
}

// ChannelHash orders the directory of a footer.
func ChannelHash[T string | []byte](name T) uint32 {
	crc := ^uint32(0)
	for i := range len(name) { // names are short: a call of the library would copy them
		crc = castagnoli[byte(crc)^name[i]] ^ crc>>8
	}
	return ^crc
}

// pageWriter writes the pages of a footer one behind the other.
type pageWriter struct {
	w         io.WriterAt
	off       int64
	seq, salt uint64
	page      uint32 // number of the page being filled
	buf       []byte // whole pages that wait to be written, then the one being filled
	fill      int    // bytes of payload in it
	t         Trailer
	err       error
}

const pagesAtOnce = 32

func newPageWriter(w io.WriterAt, off int64, seq, salt uint64) *pageWriter {
	return &pageWriter{w: w, off: off, seq: seq, salt: salt, buf: make([]byte, 0, pagesAtOnce*PageSize)}
}

// begin starts a section on a fresh page.
func (p *pageWriter) begin(sec int) {
	if p.fill > 0 {
		p.flushPage()
	}
	p.t.Sections[sec].page = p.page
}

// write appends payload to the section sec.
func (p *pageWriter) write(sec int, b []byte) {
	p.t.Sections[sec].Bytes += uint64(len(b))
	p.put(b)
}

func (p *pageWriter) put(b []byte) {
	for len(b) > 0 {
		n := min(len(b), PagePayload-p.fill)
		p.buf = append(p.buf, b[:n]...)
		b = b[n:]
		if p.fill += n; p.fill == PagePayload {
			p.flushPage()
		}
	}
}

func (p *pageWriter) flushPage() {
	at := len(p.buf) - p.fill
	p.buf = append(p.buf, make([]byte, PageSize-p.fill)...)
	SealPage(p.buf[at:], p.seq, p.salt, p.page)
	p.page++
	p.fill = 0
	if len(p.buf) >= pagesAtOnce*PageSize {
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

// footerFile is what writeFooter needs of a file.
type footerFile interface {
	io.WriterAt
	Sync() error
}

// WriteFooter writes the footer of a segment from its index, which nobody changes any more, and syncs it. t has what the index does not know: sequence,
// salt, length of the data, times, last key. It returns what is needed of the footer in memory, and the end of the file.
func WriteFooter(f footerFile, m *Index, t Trailer) (*Footer, int64, error) {
	p := newPageWriter(f, FooterStart(t.Length), t.Seq, t.Salt)
	p.t = t
	p.t.Bytes, p.t.Records, p.t.Flags = m.Bytes, uint32(m.count), m.Flags
	b := footerBuilder{p: p, m: m}
	for _, c := range m.Channels {
		b.order = append(b.order, hashedChannel{ChannelHash(c.Name), c})
	}
	slices.SortFunc(b.order, hashedChannel.compare)
	p.begin(secEntries)
	for _, c := range b.order {
		b.channel(c)
	}
	b.blob(secHashes, m.Arena)
	b.blob(SecFences, b.fences)
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
	var holes []byte
	for _, d := range m.Holes {
		holes = appendDamage(holes, d)
	}
	b.blob(secHoles, holes)
	b.blob(secLows, lowsBytes(m.Lows))
	if marks := completeBytes(m.Complete); len(marks) > 0 {
		b.blob(secComplete, marks)
	}
	end, err := p.finish(f.Sync)
	if err != nil {
		return nil, end, fmt.Errorf("write the footer: %w", err)
	}
	return &Footer{Trailer: p.t, filter: filter, Holes: m.Holes}, end, nil
}
