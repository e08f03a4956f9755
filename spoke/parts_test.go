package spoke

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"timehub/e2e/memdisk"
	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// low must never pass an undecided mark, whatever the order of decisions, and everything decided in front of it must have been handed out in order.
func TestFlight(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var f flight
	var open, all []*request
	next := hub.Mark(0)
	var passed []hub.Mark
	for range 20_000 {
		if rnd.IntN(2) == 0 || len(open) == 0 {
			next += hub.Mark(1 + rnd.IntN(3))
			r := &request{mark: next}
			f.add(r)
			open, all = append(open, r), append(all, r)
		} else {
			i := rnd.IntN(min(len(open), 50))
			open[i].state = committed
			open = slices.Delete(open, i, i+1)
			f.settle(func(r *request) { passed = append(passed, r.mark) })
		}
		low, busy := f.low()
		if busy != (len(open) > 0) {
			t.Fatalf("busy %v with %d open", busy, len(open))
		}
		if busy && low != open[0].mark-1 {
			t.Fatalf("low %d, want just below %d", low, open[0].mark)
		}
	}
	for i, m := range passed {
		if all[i].mark != m {
			t.Fatalf("%d was passed in place %d, want %d", m, i, all[i].mark)
		}
	}
	if len(passed) == 0 || len(f.queue)-f.head != len(all)-len(passed) {
		t.Errorf("%d passed, %d left of %d", len(passed), len(f.queue)-f.head, len(all))
	}
}

func TestBoard(t *testing.T) {
	b := newBoard()
	wakeA, stopA := b.watch("a")
	wakeB, stopB := b.watch("b")
	wake, drain, stop := b.watchAll()
	b.notify("a")
	b.notify("a")
	b.notify("c")
	if len(wakeA) != 1 || len(wakeB) != 0 || len(wake) != 1 {
		t.Fatalf("tokens: %d %d %d", len(wakeA), len(wakeB), len(wake))
	}
	got := drain()
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "c"}) || len(drain()) != 0 {
		t.Errorf("changed: %v", got)
	}
	stopA()
	stopB()
	stop()
	b.notify("a")
	b.notify("b")
	if len(b.channels) != 0 || len(b.all) != 0 || len(wakeB) != 0 {
		t.Error("a follower that left is still on the board")
	}
}

// A clock file that cannot be read is not taken for one that holds an older position, or none.
func TestClockFileThatCannotBeRead(t *testing.T) {
	for skip := range 2 {
		d := memdisk.New(memdisk.Options{})
		b, _, _, err := openBound(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []hub.Mark{1000, 2000, 3000}[:2+skip] {
			if err := b.raise(to, spokelog.Position{}); err != nil {
				t.Fatal(err)
			}
		}
		good := d.Inject(memdisk.Rule{Ops: memdisk.OpRead, Name: clockFile, Skip: skip, Times: 1, Fault: memdisk.Fault{Err: errors.New("input/output error")}})
		if _, at, lost, err := openBound(d); err == nil {
			t.Errorf("read %d: it opened at %v, lost: %v", skip, at, lost)
		}
		good()
		if _, at, lost, err := openBound(d); err != nil || at != hub.Mark(2000+1000*skip) || lost {
			t.Errorf("read %d: then %v, lost: %v, %v", skip, at, lost, err)
		}
	}
}
