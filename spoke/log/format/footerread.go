package format

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
)

// Footer is what is kept in memory of a sealed segment's footer; the rest is read when it is needed.
type Footer struct {
	Trailer
	Holes  []Damage
	filter []uint32 // hashes of the channels, in the order of the directory
}

// FooterError is in the chain of the error for a footer that cannot be read: the segment has to be scanned.
type FooterError struct {
	err  error
	Read bool // a read failed: the footer itself may be good
}

func (e FooterError) Error() string { return "the footer cannot be read: " + e.err.Error() }
func (e FooterError) Unwrap() error { return e.err }

// footerRead is the error of a read that gave too little.
func footerRead(err error) FooterError {
	return FooterError{err: err, Read: err != nil && !errors.Is(err, io.EOF)}
}

// OpenFooter reads the trailer at the end of a file of size bytes and the filter. lows are those of the segment.
func OpenFooter(r io.ReaderAt, size int64, seq uint64) (*Footer, []Low, error) {
	if size < DataStart+PageSize {
		return nil, nil, FooterError{err: errShort}
	}
	page := make([]byte, PageSize)
	if n, err := r.ReadAt(page, size-PageSize); n < len(page) {
		return nil, nil, footerRead(err)
	}
	salt, number := le.Uint64(page[PagePayload:]), le.Uint32(page[PagePayload+16:])
	if !pageValid(page, seq, salt, number) {
		return nil, nil, FooterError{err: ErrFormat}
	}
	t, err := parseTrailer(page[:PagePayload])
	if err != nil {
		return nil, nil, FooterError{err: err}
	}
	if t.Seq != seq || t.Salt != salt || t.pages != number+1 || FooterStart(t.Length)+int64(t.pages)*PageSize != size {
		return nil, nil, FooterError{err: ErrFormat}
	}
	f := &Footer{Trailer: *t}
	raw, err := f.Read(r, secFilter, 0, int(t.Sections[secFilter].Bytes))
	if err != nil {
		return nil, nil, err
	}
	f.filter = make([]uint32, len(raw)/4)
	for i := range f.filter {
		f.filter[i] = le.Uint32(raw[4*i:])
	}
	if !slices.IsSorted(f.filter) {
		return nil, nil, FooterError{err: ErrFormat}
	}
	raw, err = f.Read(r, secHoles, 0, int(t.Sections[secHoles].Bytes))
	if err != nil {
		return nil, nil, err
	}
	for ; len(raw) >= holeRowSize; raw = raw[holeRowSize:] {
		f.Holes = append(f.Holes, parseDamage(raw))
	}
	raw, err = f.Read(r, secLows, 0, int(t.Sections[secLows].Bytes))
	if err != nil {
		return nil, nil, err
	}
	var lows []Low
	for ; len(raw) >= LowSize; raw = raw[LowSize:] {
		lows = append(lows, parseLow(raw))
	}
	return f, lows, nil
}

// Read returns n bytes of a section from off on, every page of them checked.
func (f *Footer) Read(r io.ReaderAt, sec int, off, n int) ([]byte, error) {
	s := f.Sections[sec]
	if off < 0 || n < 0 || uint64(off)+uint64(n) > s.Bytes {
		return nil, FooterError{err: ErrFormat}
	}
	if n == 0 {
		return nil, nil
	}
	first, last := off/PagePayload, (off+n-1)/PagePayload
	buf := make([]byte, (last-first+1)*PageSize)
	at := FooterStart(f.Length) + (int64(s.page)+int64(first))*PageSize
	if got, err := r.ReadAt(buf, at); got < len(buf) {
		return nil, footerRead(fmt.Errorf("read %d bytes at %d: %w", len(buf), at, err))
	}
	for i := range last - first + 1 {
		p := buf[i*PageSize:][:PageSize]
		if !pageValid(p, f.Seq, f.Salt, s.page+uint32(first+i)) {
			return nil, FooterError{err: ErrFormat}
		}
		if i > 0 {
			copy(buf[i*PagePayload:], p[:PagePayload])
		}
	}
	return buf[off-first*PagePayload:][:n], nil
}

// MayHold reports whether the filter has the channel; at is the first row of the directory with its hash.
func (f *Footer) MayHold(hash uint32) (at int, ok bool) {
	return slices.BinarySearch(f.filter, hash)
}

// Row finds a channel in the directory; nil if it is not there.
func (f *Footer) Row(r io.ReaderAt, channel string, hash uint32) (*DirRow, error) {
	i, ok := f.MayHold(hash)
	for ; ok && i < len(f.filter) && f.filter[i] == hash; i++ {
		raw, err := f.Read(r, secDirectory, i*dirRowSize, dirRowSize)
		if err != nil {
			return nil, err
		}
		name, err := f.Read(r, secNames, int(le.Uint32(raw)), int(raw[4]))
		if err != nil {
			return nil, err
		}
		if string(name) == channel {
			return f.parseRow(raw, channel)
		}
	}
	return nil, nil
}

// Rows calls visit for each row of the directory.
func (f *Footer) Rows(r io.ReaderAt, visit func(*DirRow) error) error {
	names, err := f.Read(r, secNames, 0, int(f.Sections[secNames].Bytes))
	if err != nil {
		return err
	}
	const atOnce = 1024
	for i := 0; i < len(f.filter); i += atOnce {
		n := min(atOnce, len(f.filter)-i)
		raw, err := f.Read(r, secDirectory, i*dirRowSize, n*dirRowSize)
		if err != nil {
			return err
		}
		for ; len(raw) > 0; raw = raw[dirRowSize:] {
			at, size := int(le.Uint32(raw)), int(raw[4])
			if at+size > len(names) {
				return FooterError{err: ErrFormat}
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

func (f *Footer) parseRow(b []byte, name string) (*DirRow, error) {
	d := &DirRow{
		Name: name, Flags: Flags(b[5]), Start: int(le.Uint32(b[8:])), Count: int(le.Uint32(b[12:])),
		minutes: int(le.Uint32(b[16:])), minuteCount: int(le.Uint32(b[20:])), Bytes: int64(le.Uint64(b[24:])),
		First: ParseEntry(b[32:]), Last: ParseEntry(b[32+EntrySize:]),
	}
	if d.Count < 1 || d.Start+d.Count > int(f.Records) || d.minutes+d.minuteCount > f.count(secMinutes, minuteRowSize) {
		return nil, FooterError{err: ErrFormat}
	}
	return d, nil
}

// Hash returns the hash of an entry, from the arena if it is long.
func (f *Footer) Hash(r io.ReaderAt, e *Entry) ([]byte, error) {
	if at, ok := e.long(); ok {
		return f.Read(r, secHashes, int(at), int(e.HashLen))
	}
	return e.Hash[:e.HashLen], nil
}

// Lower is the position, among all entries, of the first one of a channel at or above the bound: start+count if there is none. It costs one page, and
// the fences (see Fences), for which it asks if it needs them.
func (f *Footer) Lower(r io.ReaderAt, fences func() ([]byte, error), d *DirRow, b Bound) (int, error) {
	end := d.Start + d.Count
	p0, p1 := d.Start/PerPage, (end-1)/PerPage
	page := p0
	if p1 > p0 { // the last page of the channel that begins below the bound; the first page may begin in another channel
		first, err := fences()
		if err != nil {
			return 0, err
		}
		i, err := f.search(r, first, p0+1, p1+1, b)
		if err != nil {
			return 0, err
		}
		page = i - 1
	}
	from, to := max(d.Start, page*PerPage), min(end, (page+1)*PerPage)
	raw, err := f.EntriesAt(r, from, to)
	if err != nil {
		return 0, err
	}
	i, err := f.search(r, raw, 0, to-from, b)
	return from + i, err
}

// Fences reads the first entries of all pages of entries; Lower wants them.
func (f *Footer) Fences(r io.ReaderAt) ([]byte, error) {
	return f.Read(r, SecFences, 0, int(f.Sections[SecFences].Bytes))
}

// search returns the first of the entries from ≤ i < to in raw at or above the bound.
func (f *Footer) search(r io.ReaderAt, raw []byte, from, to int, b Bound) (int, error) {
	var err error
	i := sort.Search(to-from, func(i int) bool {
		e := ParseEntry(raw[(from+i)*EntrySize:])
		hash, herr := f.Hash(r, &e)
		if herr != nil {
			err = herr
		}
		return b.Compare(e.Millis, hash) >= 0
	})
	return from + i, err
}

// EntriesAt reads the entries from ≤ i < to.
func (f *Footer) EntriesAt(r io.ReaderAt, from, to int) ([]byte, error) {
	return f.Read(r, secEntries, from*EntrySize, (to-from)*EntrySize)
}

// Minute finds the digest of a channel's minute.
func (f *Footer) Minute(r io.ReaderAt, d *DirRow, minute int64) (row minuteRow, ok bool, err error) {
	raw, err := f.Read(r, secMinutes, d.minutes*minuteRowSize, d.minuteCount*minuteRowSize)
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
