package roster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"timehub/hub"
)

var update = flag.Bool("update", false, "write golden files")

// many is a list with all its parts.
func many() Roster {
	r := New(Majority)
	r.Epoch, r.Ordinals = 7, 4
	for i := range 3 {
		d := Disk{ID: fmt.Sprint("disk", i), Ordinal: uint16(i + 1), Node: fmt.Sprintf("10.0.0.%d:8081", i+1)}
		r.Disks = append(r.Disks, d)
		for n := range uint32(3) {
			s := Incarnation{Stream: Stream{d.Ordinal, n + 1}, Disk: d.ID, Node: d.Node, Above: hub.MarkAt(1000 * int64(n))}
			if n < 2 {
				s.Closed = &Closing{Base: s.Above + 5, Count: 2, Digest: 1 << 60, Forced: i == 1 && n == 0}
			}
			r.Streams = append(r.Streams, s)
		}
	}
	r.Leaving = []string{"10.0.0.9:8081"}
	return r
}

// told is what all disks of a list say if they need nothing.
func told(r Roster) (list []Spent) {
	for i, d := range r.Disks {
		s := Spent{Disk: d.ID, Floor: hub.KeyAt(5000+int64(i), "00a\x00"), Streams: map[Stream]bool{}}
		for _, i := range r.Streams {
			s.Streams[i.Stream] = i.Closed != nil
		}
		list = append(list, s)
	}
	return list
}

// TestFormat: what is on record is read by the next program, and lists of which something was dropped not by those that do not know the floor.
func TestFormat(t *testing.T) {
	first := many()
	last := first.clone()
	last.Streams[1].Closed.Bare = true
	last, _ = last.Drop(told(last))
	last.Next = &Change{Epoch: 8, Disks: last.Disks, Stream: &Stream{3, 4}, Acked: []Answer{{"10.0.0.1:8081", "disk0"}}, Top: hub.MarkAt(9000), Decided: true, Caught: []string{"disk0"}}
	for name, r := range map[string]Roster{"list-1": first, "list-2": last} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(want)) != string(b) {
			t.Errorf("%s, %v:\n%s\nwant\n%s", name, err, b, want)
		}
		again, err := Parse(want)
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := again.Encode(); string(text) != string(b) {
			t.Errorf("%s is read as\n%s", name, text)
		}
	}
	b, _ := last.Encode()
	if !strings.HasPrefix(string(b), `{"version":2,`) {
		t.Errorf("a list with a floor is %.20s: a program that does not know it would read it", b)
	}
	if _, err := Parse([]byte(strings.Replace(string(b), `"version":2`, `"version":3`, 1))); err == nil {
		t.Error("a list of version 3 was read")
	}
}

// TestDrop: each reason to keep a stream.
func TestDrop(t *testing.T) {
	r := many()
	after, gone := r.Drop(told(r))
	if want := "[1.1 1.2 2.2 3.1 3.2]"; fmt.Sprint(gone) != want { // 2.1 was closed by force, the third of each is open
		t.Errorf("gone: %v, want %s", gone, want)
	}
	if after.Dropped != 5 || after.Floor.Key() != hub.KeyAt(5000, "00a\x00") || len(r.Streams) != 9 {
		t.Errorf("%d dropped, floor %v, %d before", after.Dropped, after.Floor, len(r.Streams))
	}
	none := func(why string, r Roster, told []Spent) {
		t.Helper()
		if _, gone := r.Drop(told); len(gone) > 0 {
			t.Errorf("%s: %v are gone", why, gone)
		}
	}
	none("one disk is silent", r, told(r)[1:])
	needs := told(r)
	clear(needs[2].Streams)
	none("one disk needs all", r, needs)
	changing := r.clone()
	changing.Next = &Change{Epoch: 8, Disks: r.Disks}
	none("the list is being changed", changing, told(r))
	for i := range after.Streams { // the last of each disk stays, though it is closed
		after.Streams[i].Closed = &Closing{}
	}
	again, gone := after.Drop(told(after))
	if want := "[2.1]"; fmt.Sprint(gone) != want { // which is not forced any more
		t.Errorf("gone: %v, want %s", gone, want)
	}
	if _, ok := again.Propose(Me{Node: "10.0.0.1:8081", Disk: "disk0"}, 3); ok {
		t.Error("an incarnation was used twice")
	}
	if _, ok := again.Propose(Me{Node: "10.0.0.1:8081", Disk: "disk0"}, 2); ok {
		t.Error("an incarnation from before was used")
	}
	if _, ok := again.Propose(Me{Node: "10.0.0.1:8081", Disk: "disk0"}, 4); !ok {
		t.Error("the next incarnation is refused")
	}
	low := told(again)
	low[0].Floor = hub.KeyAt(1, "")
	again.Streams = append(again.Streams, Incarnation{Stream: Stream{1, 9}, Disk: "disk0"})
	if last, gone := again.Drop(low); len(gone) == 0 || last.Floor.Key() != after.Floor.Key() {
		t.Errorf("the floor went back to %v", last.Floor)
	}
}
