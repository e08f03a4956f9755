package longterm

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"iter"
	"slices"
	"sort"
	"time"

	"timehub/hub"
)

// directory is the central directory of a batch zip as far as it is kept: of a large one only where to look. It never changes.
type directory struct {
	name, version  string // of the object; name "" for one of our own spools
	size           int64  // of the object
	offset, length int64  // of the directory in it
	count          int    // distinct keys
	digest         uint64 // sum of their digests
	fences         []fence
	raw            []byte  // the directory itself, if it is short
	entries        []entry // instead, if it is not sorted by key: all of it, sorted
}

// fence is a place in the directory where an entry begins, and its key. What follows up to the next one is read again of a long directory: sum is its CRC.
type fence struct {
	key hub.Key
	at  int64
	sum uint32
}

// entry is a zip's entry under its key.
type entry struct {
	key hub.Key
	zentry
}

const (
	fenceEvery  = 16 << 10  // bytes of the directory between two fences
	rawMost     = 256 << 10 // bytes of a directory that is kept whole
	windowMost  = 256 << 10 // bytes that are read at once when a directory is walked
	unsortedMax = 1 << 20   // entries of a directory that is not sorted: others' work, and all in memory
)

// cost is the memory that a directory holds, roughly.
func (d *directory) cost() int64 {
	return 256 + int64(len(d.raw)) + int64(len(d.fences))*48 + int64(len(d.entries))*200
}

// loadDirectory reads the directory of a zip. minute is that of the object: a key outside it is damage.
func loadDirectory(ctx context.Context, r ranger, minute time.Time) (*directory, error) {
	end, tail, err := readEnd(ctx, r)
	if err != nil {
		return nil, err
	}
	d := &directory{size: r.length(), offset: end.offset, length: end.length}
	b := builder{d: d, minute: minute, sorted: true, table: crc32.MakeTable(crc32.Castagnoli)}
	if begin := d.size - int64(len(tail)); end.offset >= begin {
		raw := tail[end.offset-begin : end.offset-begin+end.length]
		d.raw = slices.Clone(raw)
		err = b.parse(d.raw, true)
	} else {
		err = b.stream(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if end.summed && b.sum != end.sum {
		return nil, corrupt("the directory does not match its checksum")
	}
	if b.total != end.entries && (end.exact || b.total&0xffff != end.entries) {
		return nil, corrupt("the directory has %d entries, its end says %d", b.total, end.entries)
	}
	if !b.sorted {
		if err := b.unsorted(ctx, r); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// builder walks a directory once.
type builder struct {
	d      *directory
	minute time.Time
	sorted bool
	total  uint64
	at     int64 // in the directory
	fenced int64 // where the last fence is
	last   hub.Key
	have   bool
	table  *crc32.Table
	sum    uint32 // of what was parsed
}

func (b *builder) stream(ctx context.Context, r ranger) error {
	body, err := r.ranged(ctx, b.d.offset, b.d.length)
	if err != nil {
		return err
	}
	defer body.Close()
	buf := make([]byte, 0, windowMost)
	for left := b.d.length; left > 0 || len(buf) > 0; {
		n := min(left, int64(cap(buf)-len(buf)))
		if n == 0 {
			return corrupt("an entry of the directory does not end")
		}
		if _, err := io.ReadFull(body, buf[len(buf):len(buf)+int(n)]); err != nil {
			return err
		}
		buf, left = buf[:len(buf)+int(n)], left-n
		if b.d.length <= rawMost {
			b.d.raw = append(b.d.raw, buf[len(buf)-int(n):]...)
		}
		before := b.at
		if err := b.parse(buf, left == 0); err != nil {
			return err
		}
		buf = append(buf[:0], buf[b.at-before:]...)
	}
	return nil
}

// parse takes in the whole entries of p; last: p must not end within one.
func (b *builder) parse(p []byte, last bool) error {
	for len(p) > 0 {
		e, n, err := parseCentral(p)
		if errors.Is(err, errShort) && !last {
			return nil
		}
		if err != nil {
			return errors.Join(err, shortIsCorrupt(err))
		}
		if err := b.add(e); err != nil {
			return err
		}
		b.sum = crc32.Update(b.sum, b.table, p[:n])
		if i := len(b.d.fences) - 1; i >= 0 {
			b.d.fences[i].sum = crc32.Update(b.d.fences[i].sum, b.table, p[:n])
		}
		p = p[n:]
		b.at += int64(n)
	}
	return nil
}

func shortIsCorrupt(err error) error {
	if errors.Is(err, errShort) {
		return corrupt("an entry is cut off")
	}
	return nil
}

func (b *builder) add(e zentry) error {
	b.total++
	key, ok := keyOf(e.name)
	if !ok {
		return nil // somebody put something beside the items
	}
	if e.offset > b.d.offset || e.packed > b.d.offset-e.offset {
		return corrupt("entry %s lies outside", e.name)
	}
	if !key.Time().Truncate(time.Minute).Equal(b.minute) {
		return corrupt("entry %s does not belong to the minute %s", e.name, minuteText(b.minute))
	}
	if b.have && !b.last.Less(key) {
		b.sorted = false
	}
	if len(b.d.fences) == 0 || b.at-b.fenced >= fenceEvery {
		b.d.fences = append(b.d.fences, fence{key: key, at: b.at})
		b.fenced = b.at
	}
	b.last, b.have = key, true
	b.d.count++
	b.d.digest += key.Digest()
	return nil
}

// unsorted reads a directory again that another program wrote in another order, or with a key twice (the first counts).
func (b *builder) unsorted(ctx context.Context, r ranger) error {
	if b.total > unsortedMax {
		return corrupt("the directory is not sorted and has %d entries", b.total)
	}
	raw, err := fetch(ctx, r, b.d.offset, b.d.length)
	if err != nil {
		return err
	}
	if crc32.Checksum(raw, b.table) != b.sum {
		return corrupt("the directory was read twice, and differs")
	}
	d := b.d
	d.raw, d.fences, d.count, d.digest = nil, nil, 0, 0
	for len(raw) > 0 {
		e, n, err := parseCentral(raw)
		if err != nil {
			return errors.Join(err, shortIsCorrupt(err))
		}
		raw = raw[n:]
		if key, ok := keyOf(e.name); ok {
			e.name, e.meta = slices.Clone(e.name), slices.Clone(e.meta)
			d.entries = append(d.entries, entry{key, e})
		}
	}
	slices.SortStableFunc(d.entries, func(x, y entry) int { return x.key.Compare(y.key) })
	d.entries = slices.CompactFunc(d.entries, func(x, y entry) bool { return x.key == y.key })
	for _, e := range d.entries {
		d.count++
		d.digest += e.key.Digest()
	}
	return nil
}

// keyOf reads the name of an entry, which must be a key in canonical form.
func keyOf(name []byte) (hub.Key, bool) {
	k, err := hub.ParseKey(string(name))
	if err != nil || k.Hash() == "" {
		return k, false
	}
	var text [64]byte
	return k, string(k.AppendTo(text[:0])) == string(name)
}

// walk yields the entries with from ≤ key < to, newest first with reverse. What name and meta alias is never written again.
func (d *directory) walk(ctx context.Context, r ranger, from, to hub.Key, reverse bool) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		if d.entries != nil {
			d.walkUnsorted(from, to, reverse, yield)
			return
		}
		// Fences first ≤ i < last enclose everything that is asked for.
		first := max(sort.Search(len(d.fences), func(i int) bool { return from.Less(d.fences[i].key) })-1, 0)
		last := sort.Search(len(d.fences), func(i int) bool { return !d.fences[i].key.Less(to) })
		var found []entry
		for step := 1; first < last; step = min(2*step, windowMost/fenceEvery) {
			i, j := first, min(first+step, last)
			if reverse {
				i, j = max(last-step, first), last
			}
			window, err := d.window(ctx, r, i, j)
			if err == nil {
				found, err = parseWindow(found[:0], window, from, to)
			}
			if err != nil {
				yield(entry{}, err)
				return
			}
			if reverse {
				last = i
				slices.Reverse(found)
			} else {
				first = j
			}
			for _, e := range found {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

func (d *directory) walkUnsorted(from, to hub.Key, reverse bool, yield func(entry, error) bool) {
	n := len(d.entries)
	for i := range n {
		if reverse {
			i = n - 1 - i
		}
		if e := d.entries[i]; !e.key.Less(from) && e.key.Less(to) && !yield(e, nil) {
			return
		}
	}
}

// window is the part of the directory from fence i up to fence j.
func (d *directory) window(ctx context.Context, r ranger, i, j int) ([]byte, error) {
	begin, end := d.fences[i].at, d.length
	if j < len(d.fences) {
		end = d.fences[j].at
	}
	if d.raw != nil {
		return d.raw[begin:end], nil
	}
	b, err := fetch(ctx, r, d.offset+begin, end-begin)
	if err != nil {
		return nil, err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	for ; i < j; i++ {
		from, to := d.fences[i].at-begin, end-begin
		if i+1 < len(d.fences) {
			to = d.fences[i+1].at - begin
		}
		if crc32.Checksum(b[from:to], table) != d.fences[i].sum {
			return nil, corrupt("a part of the directory is not what it was")
		}
	}
	return b, nil
}

func parseWindow(found []entry, window []byte, from, to hub.Key) ([]entry, error) {
	for len(window) > 0 {
		e, n, err := parseCentral(window)
		if err != nil {
			return nil, errors.Join(err, shortIsCorrupt(err))
		}
		window = window[n:]
		if key, ok := keyOf(e.name); ok && !key.Less(from) && key.Less(to) {
			found = append(found, entry{key, e})
		}
	}
	return found, nil
}

// find looks for one key.
func (d *directory) find(ctx context.Context, r ranger, key hub.Key) (entry, bool, error) {
	for e, err := range d.walk(ctx, r, key, key.After(), false) {
		return e, err == nil, err
	}
	return entry{}, false, nil
}
