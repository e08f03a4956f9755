package log

import (
	"context"
	"fmt"
	"testing"

	"timehub/hub"
)

// TestSeveral: a batch of several requests keeps where each of them ends; another one is one request.
func TestSeveral(t *testing.T) {
	for _, several := range []bool{true, false} {
		l, _ := start(t, Options{Disk: openDir(t)})
		stream := Stream{Ordinal: 1, Incarnation: 1}
		done := make(chan error, 1)
		var records []Record
		for i, flags := range []Flags{MoreFollows, 0, 0, MoreFollows} {
			records = append(records, Record{Channel: "channel", Key: hub.KeyAt(t0+int64(i), "abc123"), Stream: stream, Flags: flags, Data: []byte("x")})
		}
		if err := l.Enqueue(&Batch{Records: records, Several: several, Done: func(err error) { done <- err }}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		var follows []bool
		for r, err := range l.Stream(t.Context(), stream, From{Above: 1}) {
			if err != nil {
				t.Fatal(err)
			}
			follows = append(follows, r.Flags&MoreFollows != 0)
		}
		want := "[true true true false]"
		if several {
			want = "[true false false false]"
		}
		if fmt.Sprint(follows) != want {
			t.Errorf("several %v: %v, want %s", several, follows, want)
		}
	}
}

// TestLeaveVisit: whoever leaves a visit while its context ends is told nothing more, as when a line breaks because its node is on its way down. One who stays is told why it ended.
func TestLeaveVisit(t *testing.T) {
	l, _ := start(t, Options{Disk: openDir(t)})
	for i := range 3 {
		l.mustPut(rec("channel", i, "x"))
	}
	visit := func(stays bool) (records, failed int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, err := range l.Stream(ctx, Stream{Ordinal: 3, Incarnation: 7}, From{Above: 1}) {
			if cancel(); err != nil {
				failed++
			} else {
				records++
			}
			if !stays {
				break
			}
		}
		return records, failed
	}
	if records, failed := visit(false); records != 1 || failed != 0 {
		t.Errorf("one who leaves got %d records and %d errors, want 1 and none", records, failed)
	}
	if records, failed := visit(true); records != 1 || failed != 1 {
		t.Errorf("one who stays got %d records and %d errors, want 1 and 1", records, failed)
	}
}
