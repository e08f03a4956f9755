package log

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/spoke/log/format"
)

// mending is a log of one sealed segment in which a record and a name are damaged; wakes counts the calls of Options.Damaged.
func mending(t *testing.T, opt Options) (l *testLog, item, name Record, wakes *int) {
	d := openDir(t)
	opt.Disk = d
	s := Stream{Ordinal: 3, Incarnation: 7}
	l, _ = start(t, opt)
	for i := range 9 {
		l.mustPut(Record{Channel: "x", Key: key(i, fmt.Sprintf("%03d03a", i)), Stream: s, Data: fmt.Appendf(nil, "item number %03d", i)})
	}
	item = Record{Channel: "x", Key: key(4, "00403a"), Stream: s, Data: []byte("item number 004")}
	name = Record{Channel: "given", Key: key(20, "02003a"), Stream: s, Flags: GivenUp}
	l.mustPut(name)
	l.stop()
	file := d.Path(segmentName(DefaultDir, 1))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("item number 004"))] ^= 1
	b[bytes.Index(b, []byte("02003a"))] ^= 1 // the records lie before the footer
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	wakes = new(int)
	opt.Damaged = func() { *wakes++ }
	opt.StreamOf = func(k hub.Key) (Stream, bool) {
		o, ok := hub.Ordinal(k)
		return Stream{Ordinal: o, Incarnation: 7}, ok
	}
	l, _ = start(t, opt)
	return l, item, name, wakes
}

// A visit asks for what it needs, knows names by the index alone, passes over what concerns others, and goes on when the record is there again or is known to be lost.
func TestMending(t *testing.T) {
	for _, lost := range []bool{false, true} {
		l, item, name, wakes := mending(t, Options{})
		visit := func(from From) (seen map[hub.Key]Flags, err error) {
			seen = map[hub.Key]Flags{}
			for r, e := range l.Stream(t.Context(), item.Stream, from) {
				if e != nil {
					return seen, e
				}
				seen[r.Key] = r.Flags
			}
			return seen, nil
		}
		m, _ := hub.MarkOf(item.Key)
		if seen, err := visit(From{Above: m}); err != nil || len(seen) != 5 || seen[name.Key] != GivenUp {
			t.Errorf("above it: %v, %v", seen, err)
		}
		if _, err := visit(From{Above: 1}); !errors.Is(err, ErrDamaged) {
			t.Errorf("a record is lost, and the visit says %v", err)
		}
		told := 0
		if seen, err := visit(From{Above: 1, Lenient: true, Lost: func(ch string, k hub.Key) {
			if told++; ch != "x" || k != item.Key {
				t.Errorf("%s %v is lost", ch, k)
			}
		}}); err != nil || len(seen) != 9 || told != 1 {
			t.Errorf("lenient: %v, %v, told %d", seen, err, told)
		}
		for r, err := range l.Stream(t.Context(), Stream{Ordinal: 4, Incarnation: 1}, From{Above: 1}) {
			t.Errorf("another stream: %v, %v", r.Key, err)
		}
		list := l.Broken()
		if len(list) != 1 || list[0].Key != item.Key || list[0].Channel != "x" || *wakes == 0 {
			t.Fatalf("%+v, %d calls", list, *wakes)
		}
		if l.Mend(t.Context(), list[0]) {
			t.Error("it is not mended")
		}
		want := 10
		if lost {
			l.Lost(list[0])
			want = 9
		} else {
			l.mustPut(item)
			if !l.Mend(t.Context(), list[0]) {
				t.Error("it is mended")
			}
		}
		if seen, err := visit(From{Above: 1}); err != nil || len(seen) != want {
			t.Errorf("lost %v: %v, %v", lost, seen, err)
		}
		if list := l.Broken(); len(list) > 0 {
			t.Errorf("%+v", list)
		}
		l.stop()
	}
}

// A segment with a damaged record that is still needed stays until that is mended or known to be lost, and the name that nobody can read is kept.
func TestSweepWaitsForMending(t *testing.T) {
	for _, lost := range []bool{false, true} {
		opt := Options{
			NameSpread: func(hub.Key) bool { return false },
			Archived:   func(ch string) (hub.Key, bool) { return key(3, "00303~"), true },
		}
		l, item, name, _ := mending(t, opt)
		for i := range 20 { // what is needed is less than half
			l.mustPut(Record{Channel: "y", Key: key(-i-1, fmt.Sprintf("%03d03a", i)), Stream: item.Stream, Data: make([]byte, 100)})
		}
		needs := func() error {
			l.mu.Lock()
			s := l.segs[0]
			s.pin()
			l.mu.Unlock()
			defer l.unpin(s)
			need, _, err := l.needed(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return l.carry(t.Context(), s, need)
		}
		if err := needs(); !errors.Is(err, ErrDamaged) {
			t.Fatalf("what is damaged is left behind: %v", err)
		}
		list := l.Broken()
		if len(list) != 1 || list[0].Key != item.Key {
			t.Fatalf("%+v", list)
		}
		if lost {
			l.Lost(list[0])
		} else {
			l.mustPut(item)
		}
		if err := needs(); err != nil {
			t.Error(err)
		}
		named := false
		for r, err := range l.Stream(t.Context(), name.Stream, From{Above: 1}) {
			if err != nil {
				t.Error(err)
			}
			named = named || r.Key == name.Key && r.Flags&^MoreFollows == GivenUp|Carried
		}
		if !named {
			t.Error("the name is not carried")
		}
		l.stop()
	}
}

// A sweep may be the first to find that the index of a segment is damaged, and records with it. It leaves the segment until somebody has mended that; then the floor lies above
// what was lost, too. Where nobody can mend it, it goes at once.
func TestSweepFindsTheDamage(t *testing.T) {
	for _, alone := range []bool{false, true} {
		bubble(t, func(t *testing.T, d *memdisk.Disk) {
			began := time.Now()
			opt := Options{Disk: d, MinFree: -1, TTL: time.Minute, Clock: func() time.Time { return time.UnixMilli(t0).Add(time.Since(began)) }, Archived: func(string) (hub.Key, bool) { return hub.MaxKey, true }}
			if !alone {
				opt.Damaged = func() {}
			}
			l := mem(t, opt)
			last := rec("a", 19, strings.Repeat("data", 100))
			for i := range 20 {
				l.mustPut(rec("a", i, strings.Repeat("data", 100)))
			}
			l.stop()
			l = mem(t, opt)
			l.mustPut(rec("b", 0, "in another segment"))
			infos, err := d.List(DefaultDir)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Damage(DefaultDir+"/"+infos[0].Name, format.PageSize, make([]byte, infos[0].Size-2*format.PageSize)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if err := l.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			hollow := l.Hollow()
			if alone != (len(hollow) == 0) || alone == l.Floor().Less(last.Key) {
				t.Errorf("alone %v: %d segments have lost something, the floor is %v", alone, len(hollow), l.Floor())
			}
			if len(hollow) > 0 {
				l.Mended(hollow[0].Holes)
				if err := l.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if !last.Key.Less(l.Floor()) || l.Status().Swept == 0 {
				t.Errorf("alone %v: the floor is %v, the last item was %v; %+v", alone, l.Floor(), last.Key, l.Status())
			}
			l.stop()
		})
	}
}
