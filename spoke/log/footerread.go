package log

import (
	"fmt"
	"io"
	"slices"
	"sort"
)

// footer is what is kept in memory of a sealed segment's footer; the rest is read when it is needed.
type footer struct {
	trailer
	filter []uint32 // hashes of the channels, in the order of the directory
}

// errFooter is in the chain of the error for a footer that cannot be read: the segment has to be scanned.
type errFooter struct{ err error }

func (e errFooter) Error() string { return "the footer cannot be read: " + e.err.Error() }
func (e errFooter) Unwrap() error { return e.err }

// openFooter reads the trailer at the end of a file of size bytes and the filter. lows are those of the segment.
func openFooter(r io.ReaderAt, size int64, seq uint64) (*footer, []Low, error) {
	if size < dataStart+pageSize {
		return nil, nil, errFooter{errShort}
	}
	page := make([]byte, pageSize)
	if _, err := r.ReadAt(page, size-pageSize); err != nil {
		return nil, nil, errFooter{err}
	}
	salt, number := le.Uint64(page[pagePayload:]), le.Uint32(page[pagePayload+16:])
	if !pageValid(page, seq, salt, number) {
		return nil, nil, errFooter{errFormat}
	}
	t, err := parseTrailer(page[:pagePayload])
	if err != nil {
		return nil, nil, errFooter{err}
	}
	if t.seq != seq || t.salt != salt || t.pages != number+1 || footerStart(t.length)+int64(t.pages)*pageSize != size {
		return nil, nil, errFooter{errFormat}
	}
	f := &footer{trailer: *t}
	raw, err := f.read(r, secFilter, 0, int(t.sections[secFilter].bytes))
	if err != nil {
		return nil, nil, err
	}
	f.filter = make([]uint32, len(raw)/4)
	for i := range f.filter {
		f.filter[i] = le.Uint32(raw[4*i:])
	}
	if !slices.IsSorted(f.filter) {
		return nil, nil, errFooter{errFormat}
	}
	raw, err = f.read(r, secLows, 0, int(t.sections[secLows].bytes))
	if err != nil {
		return nil, nil, err
	}
	var lows []Low
	for ; len(raw) >= lowSize; raw = raw[lowSize:] {
		lows = append(lows, parseLow(raw))
	}
	return f, lows, nil
}

// read returns n bytes of a section from off on, every page of them checked.
func (f *footer) read(r io.ReaderAt, sec int, off, n int) ([]byte, error) {
	s := f.sections[sec]
	if off < 0 || n < 0 || uint64(off)+uint64(n) > s.bytes {
		return nil, errFooter{errFormat}
	}
	if n == 0 {
		return nil, nil
	}
	first, last := off/pagePayload, (off+n-1)/pagePayload
	buf := make([]byte, (last-first+1)*pageSize)
	at := footerStart(f.length) + (int64(s.page)+int64(first))*pageSize
	if got, err := r.ReadAt(buf, at); got < len(buf) {
		return nil, errFooter{fmt.Errorf("read %d bytes at %d: %w", len(buf), at, err)}
	}
	for i := range last - first + 1 {
		p := buf[i*pageSize:][:pageSize]
		if !pageValid(p, f.seq, f.salt, s.page+uint32(first+i)) {
			return nil, errFooter{errFormat}
		}
		if i > 0 {
			copy(buf[i*pagePayload:], p[:pagePayload])
		}
	}
	return buf[off-first*pagePayload:][:n], nil
}

// mayHold reports whether the filter has the channel; at is the first row of the directory with its hash.
func (f *footer) mayHold(hash uint32) (at int, ok bool) {
	return slices.BinarySearch(f.filter, hash)
}

// row finds a channel in the directory; nil if it is not there.
func (f *footer) row(r io.ReaderAt, channel string, hash uint32) (*dirRow, error) {
	i, ok := f.mayHold(hash)
	for ; ok && i < len(f.filter) && f.filter[i] == hash; i++ {
		raw, err := f.read(r, secDirectory, i*dirRowSize, dirRowSize)
		if err != nil {
			return nil, err
		}
		name, err := f.read(r, secNames, int(le.Uint32(raw)), int(raw[4]))
		if err != nil {
			return nil, err
		}
		if string(name) == channel {
			return f.parseRow(raw, channel)
		}
	}
	return nil, nil
}

// rows calls visit for each row of the directory.
func (f *footer) rows(r io.ReaderAt, visit func(*dirRow) error) error {
	names, err := f.read(r, secNames, 0, int(f.sections[secNames].bytes))
	if err != nil {
		return err
	}
	const atOnce = 1024
	for i := 0; i < len(f.filter); i += atOnce {
		n := min(atOnce, len(f.filter)-i)
		raw, err := f.read(r, secDirectory, i*dirRowSize, n*dirRowSize)
		if err != nil {
			return err
		}
		for ; len(raw) > 0; raw = raw[dirRowSize:] {
			at, size := int(le.Uint32(raw)), int(raw[4])
			if at+size > len(names) {
				return errFooter{errFormat}
			}
			row, err := f.parseRow(raw, string(names[at:at+size]))
			if err != nil {
				return err
			}
			if err := visit(row); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *footer) parseRow(b []byte, name string) (*dirRow, error) {
	d := &dirRow{
		name: name, flags: Flags(b[5]), start: int(le.Uint32(b[8:])), count: int(le.Uint32(b[12:])),
		minutes: int(le.Uint32(b[16:])), minuteCount: int(le.Uint32(b[20:])), bytes: int64(le.Uint64(b[24:])),
		first: parseEntry(b[32:]), last: parseEntry(b[32+entrySize:]),
	}
	if d.count < 1 || d.start+d.count > int(f.records) || d.minutes+d.minuteCount > f.count(secMinutes, minuteRowSize) {
		return nil, errFooter{errFormat}
	}
	return d, nil
}

// hash returns the hash of an entry, from the arena if it is long.
func (f *footer) hash(r io.ReaderAt, e *entry) ([]byte, error) {
	if at, ok := e.long(); ok {
		return f.read(r, secHashes, int(at), int(e.hlen))
	}
	return e.hash[:e.hlen], nil
}

// lower is the position, among all entries, of the first one of a channel at or above the bound: start+count if there is none. It costs one page, and
// the fences when they are not in the cache.
func (f *footer) lower(r io.ReaderAt, cache *cache, d *dirRow, b bound) (int, error) {
	end := d.start + d.count
	p0, p1 := d.start/perPage, (end-1)/perPage
	page := p0
	if p1 > p0 { // the last page of the channel that begins below the bound; the first page may begin in another channel
		fences, err := cache.fences(f, r)
		if err != nil {
			return 0, err
		}
		i, err := f.search(r, fences, p0+1, p1+1, b)
		if err != nil {
			return 0, err
		}
		page = i - 1
	}
	from, to := max(d.start, page*perPage), min(end, (page+1)*perPage)
	raw, err := f.entriesAt(r, from, to)
	if err != nil {
		return 0, err
	}
	i, err := f.search(r, raw, 0, to-from, b)
	return from + i, err
}

// search returns the first of the entries from ≤ i < to in raw at or above the bound.
func (f *footer) search(r io.ReaderAt, raw []byte, from, to int, b bound) (int, error) {
	var err error
	i := sort.Search(to-from, func(i int) bool {
		e := parseEntry(raw[(from+i)*entrySize:])
		hash, herr := f.hash(r, &e)
		if herr != nil {
			err = herr
		}
		return b.compare(e.ms, hash) >= 0
	})
	return from + i, err
}

// entriesAt reads the entries from ≤ i < to.
func (f *footer) entriesAt(r io.ReaderAt, from, to int) ([]byte, error) {
	return f.read(r, secEntries, from*entrySize, (to-from)*entrySize)
}

// minute finds the digest of a channel's minute.
func (f *footer) minute(r io.ReaderAt, d *dirRow, minute int64) (row minuteRow, ok bool, err error) {
	raw, err := f.read(r, secMinutes, d.minutes*minuteRowSize, d.minuteCount*minuteRowSize)
	if err != nil {
		return row, false, err
	}
	i := sort.Search(d.minuteCount, func(i int) bool { return parseMinuteRow(raw[i*minuteRowSize:]).minute >= minute })
	if i == d.minuteCount {
		return row, false, nil
	}
	row = parseMinuteRow(raw[i*minuteRowSize:])
	return row, row.minute == minute, nil
}
