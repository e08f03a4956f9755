package log

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke/log/format"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := "testdata/" + name + ".golden"
	var kept []string
	for i, line := range strings.SplitAfter(hex.Dump(got), "\n") { // lines of zeros are left out; the addresses show them
		if i == 0 || !strings.Contains(line, strings.TrimSuffix(strings.Repeat("00 ", 8), " ")+"  "+strings.TrimSuffix(strings.Repeat("00 ", 8), " ")) {
			kept = append(kept, line)
		}
	}
	text := strings.Join(kept, "") + fmt.Sprintln(len(got), "bytes")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s has changed: others may have stored it\n%s", name, text)
	}
}

// sample is a small log of fixed bytes: two channels, a bulk, a long hash, a name of a given-up key.
func sample(t testing.TB) (disk.Disk, []byte) {
	t.Helper()
	d := openDir(t)
	clock := func() time.Time { return time.UnixMilli(t0) }
	opt := Options{Disk: d, Clock: clock, Salt: func() uint64 { return 0x1122334455667788 }, Lows: func() []Low {
		return []Low{{Stream: Stream{Ordinal: 3, Incarnation: 7}, Epoch: 2, Mark: 12345}, {Stream: Stream{Ordinal: 4, Incarnation: 1}, Epoch: 1, Mark: 99}}
	}}
	l, _ := start(t, opt)
	l.mustPut(rec("orders", 1, "first"), rec("orders", 2, "second"))
	l.mustPut(Record{Channel: "x", Key: key(60_000, strings.Repeat("long", 6)), Stream: Stream{Ordinal: 4, Incarnation: 1}, Flags: Replicated, Data: []byte{0, 1, 2}})
	l.mustPut(Record{Channel: "orders", Key: key(2, "000002"), Stream: Stream{Ordinal: 3, Incarnation: 7}, Flags: GivenUp})
	l.stop()
	b, err := os.ReadFile(d.Path(segmentName(DefaultDir, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return d, b
}

func TestGolden(t *testing.T) {
	d, b := sample(t)
	golden(t, "header", b[:format.DataStart])
	end := format.DataStart
	for n := format.GroupNeed(b[end:], 0x1122334455667788); n > 0; n = format.GroupNeed(b[end:], 0x1122334455667788) {
		g, err := format.ParseGroup(b[end:], 0x1122334455667788)
		if err != nil {
			t.Fatal(err)
		}
		end += int(g.Length)
	}
	golden(t, "groups", b[format.DataStart:end])
	golden(t, "footer", b[format.FooterStart(int64(end)):])
	floor, err := os.ReadFile(d.Path(DefaultDir + "/floor"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "floor", floor)
}

func TestGoldenTaken(t *testing.T) {
	r := Record{Channel: "orders", Key: key(2, "000002"), Stream: Stream{Ordinal: 3, Incarnation: 7}, Flags: Taken, Data: []byte("second")}
	b, _ := format.AppendRecord(nil, &r, r.Flags)
	golden(t, "taken", b)
}

func TestKeyDigestIsFixed(t *testing.T) {
	for k, want := range map[hub.Key]uint64{{}: 0x7bd3144f29c0cc9e, key(1, "abc123"): 0xe939506b33cb148a} {
		if got := k.Digest(); got != want {
			t.Errorf("digest of %v = %#x, want %#x", k, got, want)
		}
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	reseal := func(b []byte, size int) {
		binary.LittleEndian.PutUint64(b[8:], format.Version+1)
		binary.LittleEndian.PutUint32(b[size-4:], crc32c(b[:size-4]))
	}
	for name, change := range map[string]func(d disk.Disk, b []byte){
		"segment": func(d disk.Disk, b []byte) {
			reseal(b[:format.HeadSize], format.HeadSize)
			os.WriteFile(d.Path(segmentName(DefaultDir, 1)), b, 0o644)
		},
		"footer": func(d disk.Disk, b []byte) {
			page := b[len(b)-format.PageSize:]
			binary.LittleEndian.PutUint64(page[8:], format.Version+1)
			format.SealPage(page, 1, 0x1122334455667788, binary.LittleEndian.Uint32(page[format.PagePayload+16:]))
			os.WriteFile(d.Path(segmentName(DefaultDir, 1)), b, 0o644)
		},
		"floor": func(d disk.Disk, b []byte) {
			name := d.Path(DefaultDir + "/floor")
			f, _ := os.ReadFile(name)
			reseal(f, len(f))
			os.WriteFile(name, f, 0o644)
		},
	} {
		d, b := sample(t)
		change(d, b)
		_, _, err := Open(t.Context(), Options{Disk: d})
		if err == nil || !strings.Contains(err.Error(), "newer version") {
			t.Errorf("%s of a newer version: %v", name, err)
		}
	}
}

// TestBitFlips changes each byte of a log, one at a time, and cuts it at each length: what is served must be right, and what is missing of a segment
// that somebody vouches for must be reported.
func TestBitFlips(t *testing.T) {
	d, _ := sample(t)
	l, _ := start(t, Options{Disk: d}) // a successor, which fixes the length
	l.mustPut(rec("y", 100_000, "successor"))
	l.stop()
	name := d.Path(segmentName(DefaultDir, 1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	collect := func(l *Log) (got map[string]string, damaged bool) {
		got = map[string]string{}
		for _, ch := range []string{"orders", "x", "y"} {
			for r, err := range l.Items(t.Context(), ch, hub.MinKey, hub.MaxKey, 0, false) {
				if errors.Is(err, ErrDamaged) {
					damaged = true
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				got[ch+r.Key.String()] = string(r.Data)
			}
		}
		s := l.Status()
		return got, damaged || len(s.Holes) > 0 || s.Damaged > 0
	}
	check := func(what string) {
		t.Helper()
		l, r, err := Open(t.Context(), Options{Disk: d})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer l.Close()
		got, reported := collect(l)
		for k, v := range got {
			if w, ok := want[k]; (!ok || w != v) && !strings.HasPrefix(k, "orders"+key(2, "").String()) {
				t.Fatalf("%s: %s is %q, want %q", what, k, v, w)
			}
		}
		if len(got) < len(want) && !reported {
			t.Fatalf("%s: %d of %d records, and nobody says so: %+v", what, len(got), len(want), r)
		}
		if k := "orders" + key(2, "000002").String(); got[k] != "" && !reported {
			t.Fatalf("%s: a given-up key is back, and nobody says so", what)
		}
	}
	l0, _, err := Open(t.Context(), Options{Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	var bad bool
	if want, bad = collect(l0); bad || len(want) != 3 {
		t.Fatalf("%v", want)
	}
	l0.Close()
	step := 1
	if testing.Short() {
		step = 13
	}
	for i := 0; i < len(b); i += step {
		if i > 600 && i%format.PageSize > 300 && i%format.PageSize < format.PageSize-40 && i%37 != 0 {
			continue // mostly zeros
		}
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		os.WriteFile(name, c, 0o644)
		check(fmt.Sprintf("bit %d of byte %d", i%8, i))
	}
	for i := 0; i < len(b); i += 1 + i/50*step {
		os.WriteFile(name, b[:i], 0o644)
		check(fmt.Sprintf("cut to %d", i))
	}
	os.Remove(name)
	if _, r, err := Open(t.Context(), Options{Disk: d}); err != nil || len(r.Holes) != 1 {
		t.Fatalf("a segment is gone: %+v, %v", r, err)
	}
}

// TestHole: a bad group followed by a valid one in the last segment is damage; with none after it, it is a torn tail.
func TestHole(t *testing.T) {
	d := openDir(t)
	opt := Options{Disk: d}
	l, _ := start(t, opt)
	for i := range 5 {
		l.mustPut(rec("a", i, strings.Repeat(fmt.Sprint(i), 100)))
	}
	name := d.Path(segmentName(DefaultDir, 1))
	b, err := os.ReadFile(name) // without a footer
	if err != nil {
		t.Fatal(err)
	}
	l.stop()
	size := (len(b) - format.DataStart) / 5
	for _, c := range []struct {
		name        string
		at          int
		keys, holes int
		cut         bool
	}{
		{"header of the third group", format.DataStart + 2*size + 20, 4, 1, false},
		{"record of the third group", format.DataStart + 2*size + format.GroupHead + 60, 4, 1, false},
		{"header of the last group", format.DataStart + 4*size + 20, 4, 0, true},
		{"record of the last group", format.DataStart + 4*size + format.GroupHead + 60, 4, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := openDir(t)
			if err := d.MkdirAll(DefaultDir); err != nil {
				t.Fatal(err)
			}
			bad := bytes.Clone(b)
			bad[c.at] ^= 4
			os.WriteFile(d.Path(segmentName(DefaultDir, 1)), bad, 0o644)
			l, r := start(t, Options{Disk: d})
			k, _ := l.keys("a", hub.MinKey, hub.MaxKey, 0, false)
			if len(k) != c.keys || len(r.Holes) != c.holes || (r.Cut > 0) != c.cut || len(l.Status().Holes) != c.holes {
				t.Fatalf("%d keys, %+v", len(k), r)
			}
			l.mustPut(rec("a", 100, "after"))
			l.stop()
			l, r = start(t, Options{Disk: d})
			if k, _ := l.keys("a", hub.MinKey, hub.MaxKey, 0, false); len(k) != c.keys+1 || r.Scanned != 0 || len(r.Holes) != c.holes {
				t.Fatalf("%d keys after a restart, %+v", len(k), r)
			}
		})
	}
}

func FuzzScan(f *testing.F) {
	_, b := sample(f)
	f.Add(b[:600], false, int64(0))
	f.Add(b[:300], true, int64(0))
	f.Add(append(bytes.Clone(b[:200]), b[format.DataStart:500]...), false, int64(0))
	f.Add(b[:300], false, int64(700))
	f.Fuzz(func(t *testing.T, b []byte, fixed bool, sure int64) {
		sure = max(0, min(sure, 1<<20))
		s := newSegment("d", 1, 0x1122334455667788)
		sc := scanInto(readerFile{bytes.NewReader(b)}, s, max(int64(len(b)), sure), fixed, sure)
		if sc.End > max(int64(len(b)), sure, format.DataStart) || sc.End < sure {
			t.Fatalf("the end is %d of %d", sc.End, len(b))
		}
		for _, c := range s.mem.Channels {
			for e := range format.MergedEntries(c, s.mem.Arena) {
				r, err := format.ParseRecord(b[e.Off:])
				if err != nil || r.Size != int(e.Size) || string(r.Channel) != c.Name || !bytes.Equal(r.Hash, e.HashIn(s.mem.Arena)) {
					t.Fatalf("entry %+v: %v", e, err)
				}
			}
		}
	})
}

// readerFile is a disk.File for readers.
type readerFile struct{ *bytes.Reader }

func (readerFile) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
func (readerFile) Write([]byte) (int, error)          { return 0, errors.ErrUnsupported }
func (readerFile) Close() error                       { return nil }
func (readerFile) Sync() error                        { return nil }
func (readerFile) Truncate(int64) error               { return nil }
func (r readerFile) Size() (int64, error)             { return r.Reader.Size(), nil }

func FuzzFooter(f *testing.F) {
	_, b := sample(f)
	f.Add(b)
	f.Add(b[len(b)-format.PageSize:])
	marked := format.NewIndex()
	marked.AddComplete("orders", key(1, "000001"))
	marked.AddComplete("x", key(2, strings.Repeat("long", 6)))
	file, err := os.Create(f.TempDir() + "/footer")
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	if _, _, err := format.WriteFooter(file, marked, format.Trailer{Seq: 1, Salt: 2, Length: format.DataStart}); err != nil {
		f.Fatal(err)
	}
	if b, err = os.ReadFile(file.Name()); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		reseal(b)
		r := bytes.NewReader(b)
		foot, _, err := format.OpenFooter(r, int64(len(b)), 1)
		if err != nil {
			return
		}
		if marks, err := foot.Complete(r); err == nil && len(marks) > len(b) {
			t.Fatalf("%d markers in %d bytes", len(marks), len(b))
		}
		fences := func() ([]byte, error) { return foot.Fences(r) }
		_ = foot.Rows(r, func(d *format.DirRow) error {
			if _, err := foot.Lower(r, fences, d, format.BoundOf(key(2, "000002"))); err != nil {
				return err
			}
			if _, _, err := foot.Minute(r, d, format.MinuteOf(t0)); err != nil {
				return err
			}
			_, err := foot.Row(r, d.Name, format.ChannelHash(d.Name))
			return err
		})
	})
}

// reseal gives all pages of a footer good CRCs, so that fuzzing gets behind them.
func reseal(b []byte) {
	for at := len(b) - format.PageSize; at >= 0; at -= format.PageSize {
		p := b[at : at+format.PageSize]
		binary.LittleEndian.PutUint32(p[format.PageSize-4:], crc32c(p[:format.PageSize-4]))
	}
}

func crc32c(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
