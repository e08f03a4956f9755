package log

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/log/format"
)

func mark(channel string, k hub.Key) Record { return Record{Channel: channel, Key: k, Flags: Complete} }

// A marker is told by Complete and seen by nobody else, also where an item has its key.
func TestMarkersAreNoItems(t *testing.T) {
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		opt := Options{Disk: d, MinFree: -1, Clock: func() time.Time { return time.UnixMilli(t0) }}
		check := func(l *testLog, want Record) {
			t.Helper()
			if upTo, ok := l.Complete("a"); !ok || upTo != key(9, strings.Repeat("z", 200)) {
				t.Errorf("a: %v, %v", upTo, ok)
			}
			if upTo, ok := l.Complete("b"); !ok || upTo != key(3, "") {
				t.Errorf("b: %v, %v", upTo, ok)
			}
			if upTo, ok := l.Complete("c"); ok {
				t.Errorf("c: %v", upTo)
			}
			l.has(t, want)
			if r, err := l.Get(t.Context(), "b", key(3, "")); !hub.Is(err, hub.NotFound) {
				t.Errorf("%+v, %v", r, err)
			}
			all, err := l.Channels(t.Context())
			if err != nil || len(all) != 1 || all["a"] != (Range{First: want.Key, Last: want.Key, Count: 1}) {
				t.Errorf("%+v, %v", all, err)
			}
			var sum Digest
			sum.Add(want.Key)
			if got, err := l.Minute(t.Context(), "a", want.Key.Time()); err != nil || got != sum {
				t.Errorf("%+v, %v", got, err)
			}
			if s := l.Status(); s.Records != 1 || len(s.Holes) > 0 {
				t.Errorf("%+v", s)
			}
		}
		item := rec("a", 5, "data")
		l := mem(t, opt)
		if upTo, ok := l.Complete("a"); ok {
			t.Errorf("an empty log is complete up to %v", upTo)
		}
		l.mustPut(item, mark("a", item.Key)) // one request
		l.mustPut(mark("a", key(9, strings.Repeat("z", 200))))
		l.mustPut(mark("a", key(7, "older"))) // changes nothing
		l.mustPut(mark("b", key(3, "")))
		check(l, item)
		for _, r := range []Record{{Channel: "a", Flags: Complete, Data: []byte("x")}, {Channel: "a", Flags: Complete | GivenUp}} {
			if err := l.put(r); !hub.Is(err, hub.Internal) {
				t.Errorf("%+v was taken: %v", r, err)
			}
		}
		killed := d.Restart(memdisk.PowerCut, 3)
		l.stop()
		scanned := mem(t, Options{Disk: killed, MinFree: -1, Clock: opt.Clock})
		check(scanned, item)
		scanned.stop()
		l = mem(t, Options{Disk: killed, MinFree: -1, Clock: opt.Clock}) // by the footer that stop has written
		if !sealed(l) {
			t.Error("there is no footer")
		}
		check(l, item)
		l.stop()
	})
}

func sealed(l *testLog) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segs[0].foot != nil
}

// The last marker of a channel outlives its segment, for as long as the channel is there; that costs no more than one record a segment.
func TestMarkersOutliveTheirSegments(t *testing.T) {
	for _, mode := range []SyncMode{Always, Interval, Never} {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			gone := false
			opt := Options{Disk: d, MinFree: -1, TTL: time.Minute, Sync: mode, Archived: func(ch string) (hub.Key, bool) { return hub.MaxKey, ch != "b" || !gone }}
			l := mem(t, opt)
			now := hub.NewKey(time.Now(), "000000")
			l.mustPut(Record{Channel: "a", Key: now, Data: []byte("x")}, mark("a", now), mark("b", now), mark("c", now))
			for i := range 5 {
				time.Sleep(3 * time.Minute)
				l.mustPut(mark("c", hub.NewKey(time.Now(), "")))
				time.Sleep(3 * time.Minute) // past the TTL
				gone = i == 4
				if err := l.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
				l.has(t) // the item went
				next := d.Restart(memdisk.PowerCut, uint64(i))
				l.stop()
				opt.Disk, d = next, next
				l = mem(t, opt)
				upTo, ok := l.Complete("a")
				if !ok || upTo != now {
					t.Fatalf("%v: a after sweep %d: %v, %v", mode, i, upTo, ok)
				}
				if upTo, ok = l.Complete("b"); ok == gone {
					t.Fatalf("%v: b after sweep %d: %v, %v", mode, i, upTo, ok)
				}
				if n := l.Status().Segments; n > 3 {
					t.Errorf("%v: %d segments after sweep %d", mode, n, i)
				}
			}
			l.stop()
		})
	}
}

// What a sweep copies is on the disk before the old place goes, whatever spoke.sync says.
func TestCarriedIsDurable(t *testing.T) {
	for _, mode := range []SyncMode{Interval, Never} {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			var archived hub.Key
			opt := Options{Disk: d, MinFree: -1, TTL: time.Second, Sync: mode, Archived: func(string) (hub.Key, bool) { return archived, true }}
			l := mem(t, opt)
			for i := range 20 {
				archived = hub.NewKey(time.Now(), fmt.Sprintf("%06d", i-3))
				l.mustPut(Record{Channel: "a", Key: hub.NewKey(time.Now(), fmt.Sprintf("%06d", i)), Data: []byte("data")})
			}
			time.Sleep(3 * time.Minute)
			l.mustPut(Record{Channel: "b", Key: hub.NewKey(time.Now(), "000000")})
			time.Sleep(3 * time.Minute)
			before := l.Status()
			if err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := l.Status(); after.Carried != 3 || after.Swept == before.Swept {
				t.Fatalf("%+v", after)
			}
			for seed := range uint64(10) {
				again := mem(t, Options{Disk: d.Fork(memdisk.PowerCut, seed), MinFree: -1})
				if keys, _ := again.keys("a", hub.MinKey, hub.MaxKey, 0, false); len(keys) != 3 {
					t.Errorf("%v: %d keys are left", mode, len(keys))
				}
				again.stop()
			}
			l.stop()
		})
	}
}

// A section of markers that is not right is noticed; one that is comes back.
func TestMarkerSection(t *testing.T) {
	m := format.NewIndex()
	want := map[string]hub.Key{}
	for i := range 200 { // more than a page
		name, k := fmt.Sprintf("channel%d", i), key(i, strings.Repeat("h", i))
		m.AddComplete(name, k)
		m.AddComplete(name, key(i-1, "zzz"))
		want[name] = k
	}
	bubble(t, func(t *testing.T, d *memdisk.Disk) {
		f, err := d.Create("seg")
		if err != nil {
			t.Fatal(err)
		}
		_, end, err := format.WriteFooter(f, m, format.Trailer{Seq: 1, Salt: 2, Length: 5000})
		if err != nil {
			t.Fatal(err)
		}
		foot, _, err := format.OpenFooter(f, end, 1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := foot.Complete(f)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d of %d: %v", len(got), len(want), err)
		}
		if _, err := f.WriteAt([]byte{1}, end-2*format.PageSize+100); err != nil { // its last page
			t.Fatal(err)
		}
		if got, err := foot.Complete(f); err == nil {
			t.Errorf("%d markers of a damaged page", len(got))
		}
	})
}

// TestGoldenMarkers holds the bytes of markers still, and flips each of them: a marker that is damaged is absent or older, never another one.
func TestGoldenMarkers(t *testing.T) {
	d := openDir(t)
	const salt = 0x1122334455667788
	opt := Options{Disk: d, Clock: func() time.Time { return time.UnixMilli(t0) }, Salt: func() uint64 { return salt }}
	l, _ := start(t, opt)
	stream := Stream{Ordinal: 3, Incarnation: 7}
	older, newer := key(1, "abc123"), key(60_000, strings.Repeat("long", 6))
	l.mustPut(rec("x", 5, "item"), Record{Channel: "orders", Key: older, Stream: stream, Flags: Complete | Replicated})
	l.mustPut(Record{Channel: "orders", Key: newer, Stream: stream, Flags: Complete | Replicated}, Record{Channel: "x", Key: key(5, ""), Flags: Complete})
	l.stop()
	name := d.Path(segmentName(DefaultDir, 1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	end := format.DataStart
	for n := format.GroupNeed(b[end:], salt); n > 0; n = format.GroupNeed(b[end:], salt) {
		g, err := format.ParseGroup(b[end:], salt)
		if err != nil {
			t.Fatal(err)
		}
		end += int(g.Length)
	}
	golden(t, "markers", b[format.DataStart:end])
	golden(t, "markers-footer", b[len(b)-2*format.PageSize:])
	l, _ = start(t, opt) // a successor, which fixes the length
	l.mustPut(rec("y", 100_000, "successor"))
	l.stop()
	step := 11
	if testing.Short() {
		step = 53
	}
	for i := 0; i < len(b); i += step {
		if i > 600 && i%format.PageSize > 300 && i%format.PageSize < format.PageSize-40 && i%37 != 0 {
			continue // mostly zeros
		}
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		if err := os.WriteFile(name, c, 0o644); err != nil {
			t.Fatal(err)
		}
		l, _, err := Open(t.Context(), Options{Disk: d})
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := l.Complete("orders"); ok && at != newer && at != older || i >= end && at != newer {
			t.Fatalf("bit %d of byte %d: orders is complete up to %v", i%8, i, at)
		}
		if at, ok := l.Complete("x"); ok && at != key(5, "") {
			t.Fatalf("bit %d of byte %d: x is complete up to %v", i%8, i, at)
		}
		l.Close()
	}
}
