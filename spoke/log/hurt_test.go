package log

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"timehub/hub"
)

// Whoever visits a stream gets all of it or an error: what is damaged in a segment with a footer is read where the log has it again.
func TestStreamOverDamage(t *testing.T) {
	d := openDir(t)
	s := Stream{Ordinal: 3, Incarnation: 7}
	item := func(i int) Record {
		return Record{Channel: "x", Key: key(i, fmt.Sprintf("%06d", i)), Stream: s, Data: fmt.Appendf(nil, "item number %03d", i)}
	}
	opt := Options{Disk: d}
	l, _ := start(t, opt)
	for i := range 20 {
		l.mustPut(item(i))
	}
	l.stop() // with a footer
	name := d.Path(segmentName(DefaultDir, 1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("item number 007"))] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	visit := func(l *testLog, from From) (seen map[hub.Key]bool, err error) {
		seen = map[hub.Key]bool{}
		for r, e := range l.Stream(t.Context(), s, from) {
			if e != nil {
				return seen, e
			}
			seen[r.Key] = true
		}
		return seen, nil
	}
	l, _ = start(t, opt)
	if _, err := visit(l, From{Above: 1}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a record is lost, and the visit says %v", err)
	}
	if seen, err := visit(l, From{Above: 1, Lenient: true}); err != nil || len(seen) != 19 {
		t.Errorf("lenient: %d records, %v", len(seen), err)
	}
	l.mustPut(item(7)) // as another disk has it
	if seen, err := visit(l, From{Above: 1}); err != nil || len(seen) != 20 {
		t.Errorf("mended: %d records, %v", len(seen), err)
	}
	l.stop()
}

// A hole that was found when the log was opened stops a visit until somebody says that it is mended; the lows before it still hold.
func TestHurt(t *testing.T) {
	d := openDir(t)
	s := Stream{Ordinal: 3, Incarnation: 7}
	mark := hub.Mark(100)
	opt := Options{Disk: d, Lows: func() []Low { return []Low{{Stream: s, Epoch: 1, Mark: mark}} }}
	l, _ := start(t, opt)
	l.mustPut(Record{Channel: "x", Key: key(1, "000001"), Stream: s, Data: []byte("before")})
	l.stop()
	mark = 200
	l, _ = start(t, opt)
	l.mustPut(Record{Channel: "x", Key: key(2, "000002"), Stream: s, Data: []byte("it is lost")})
	l.mustPut(Record{Channel: "x", Key: key(3, "000003"), Stream: s, Data: []byte("after")})
	l.stop()
	name := d.Path(segmentName(DefaultDir, 2))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("it is lost"))] ^= 1
	if err := os.WriteFile(name, b[:bytes.Index(b, []byte("after"))+5], 0o644); err != nil { // without a footer
		t.Fatal(err)
	}
	l, found := start(t, opt)
	h, hurt := l.Hurt()
	if !hurt || len(h.Holes) != 1 || len(found.Holes) != 1 || h.Before[s] != 100 || !h.After[s] {
		t.Fatalf("%+v, %v", h, hurt)
	}
	for _, err := range l.Stream(t.Context(), s, From{Above: 1}) {
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
			hurt = false
		}
	}
	if hurt {
		t.Error("the visit says nothing of the hole")
	}
	l.Mended(h.Holes)
	if _, hurt := l.Hurt(); hurt {
		t.Error("it was mended")
	}
	for _, err := range l.Stream(t.Context(), s, From{Above: 1}) {
		if err != nil {
			t.Error(err)
		}
	}
	l.stop()
	opt.Mended = func(o Hole) bool { return o == h.Holes[0] }
	l, _ = start(t, opt)
	if _, hurt := l.Hurt(); hurt {
		t.Error("it was mended by an earlier start")
	}
	l.stop()
}
