package coordtest

import (
	"errors"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

func cursors(t *testing.T, r coord.Registers) *coord.Cursors {
	t.Helper()
	return must[*coord.Cursors](t)(coord.NewCursors(coord.CursorsOptions{Registers: r, Prefix: "cursors/test"}))
}

func key(n int64) hub.Key { return hub.KeyAt(1_700_000_000_000+n, "abc123") }

func at(t *testing.T, s *coord.Cursors, name string, want hub.Key) coord.Position {
	t.Helper()
	p := must[coord.Position](t)(s.Get(t.Context(), name))
	if p.Key != want {
		t.Fatalf("cursor %s stands at %v, want %v", name, p.Key, want)
	}
	return p
}

func testCursor(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	mine, theirs := cursors(t, c), cursors(t, d)
	a := must[*coord.Cursor](t)(mine.Open(t.Context(), "a", 3))
	b := must[*coord.Cursor](t)(mine.Load(t.Context(), "b", 3))
	if !a.Position().Key.IsZero() {
		t.Fatalf("a new cursor stands at %v", a.Position().Key)
	}
	ok(t, a.Move(key(5), []byte("five")))
	ok(t, b.Move(key(7), nil))
	at(t, theirs, "a", hub.Key{})
	ok(t, mine.Flush(t.Context()))
	if p := at(t, theirs, "a", key(5)); string(p.Payload) != "five" || p.Fence != 3 {
		t.Fatalf("position %+v", p)
	}
	at(t, theirs, "b", key(7))
	ok(t, a.Move(key(4), []byte("four"))) // back: ignored
	ok(t, a.Move(key(5), []byte("5")))    // the payload alone
	ok(t, mine.Flush(t.Context()))
	if p := at(t, theirs, "a", key(5)); string(p.Payload) != "5" {
		t.Fatalf("payload %q", p.Payload)
	}
	wantKind(t, a.Move(key(9), make([]byte, coord.MaxPayload+1)), hub.TooLarge, "a payload over the limit")
	ok(t, a.Move(key(8), make([]byte, coord.MaxPayload)))
	ok(t, mine.Flush(t.Context()))
	at(t, theirs, "a", key(8))
}

// testCursorFence: a leader that does not know that it has lost its lease cannot move the cursor any more.
func testCursorFence(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	oldS, newS := cursors(t, c), cursors(t, d)
	stale := must[*coord.Cursor](t)(oldS.Open(t.Context(), "x", 1))
	ok(t, stale.Move(key(1), nil))
	ok(t, oldS.Flush(t.Context()))
	other := must[*coord.Cursor](t)(oldS.Open(t.Context(), "y", 1))

	fresh := must[*coord.Cursor](t)(newS.Open(t.Context(), "x", 2))
	if fresh.Position().Key != key(1) {
		t.Fatalf("the new leader begins at %v", fresh.Position().Key)
	}
	ok(t, stale.Move(key(9), nil))
	ok(t, other.Move(key(3), nil))
	ok(t, oldS.Flush(t.Context()))
	woken(t, stale.Lost(), "a fenced cursor")
	if err := stale.Move(key(10), nil); !errors.Is(err, coord.ErrFenced) || !hub.Is(err, hub.Conflict) {
		t.Fatalf("a stale leader's move: %v", err)
	}
	at(t, newS, "x", key(1))
	at(t, newS, "y", key(3)) // the other cursor of the same write went through
	if _, err := oldS.Open(t.Context(), "x", 1); !errors.Is(err, coord.ErrFenced) {
		t.Fatalf("a stale leader opens: %v", err)
	}
	ok(t, fresh.Move(key(2), nil))
	ok(t, newS.Flush(t.Context()))
	at(t, oldS, "x", key(2))
}

func testCursorReset(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	mine, person := cursors(t, c), cursors(t, d)
	x := must[*coord.Cursor](t)(mine.Open(t.Context(), "x", 1))
	ok(t, x.Move(key(100), []byte("p")))
	ok(t, mine.Flush(t.Context()))
	wake, stop := c.Watch("cursors/test/x")
	defer stop()
	drain(wake)
	if g := must[uint64](t)(person.Reset(t.Context(), "x", key(10), nil)); g != 1 {
		t.Fatalf("generation %d", g)
	}
	woken(t, wake, "a cursor was reset")
	ok(t, x.Move(key(101), nil))
	ok(t, mine.Flush(t.Context()))
	if err := x.Move(key(102), nil); !errors.Is(err, coord.ErrReset) {
		t.Fatalf("move after a reset: %v", err)
	}
	if p := at(t, person, "x", key(10)); len(p.Payload) != 0 || p.Generation != 1 {
		t.Fatalf("position %+v", p)
	}
	x = must[*coord.Cursor](t)(mine.Open(t.Context(), "x", 1))
	must[uint64](t)(mine.Reset(t.Context(), "x", key(5), nil))
	woken(t, x.Lost(), "a reset on the same node")
	ok(t, person.Delete(t.Context(), "x"))
	at(t, mine, "x", hub.Key{})
}

func testCursorRestart(t *testing.T, w World) {
	if w.Restart == nil {
		t.Skip("this world cannot start again")
	}
	s := cursors(t, w.Open(t))
	x := must[*coord.Cursor](t)(s.Open(t.Context(), "x", 1))
	ok(t, x.Move(key(1), []byte("a")))
	ok(t, s.Flush(t.Context()))
	ok(t, x.Move(key(2), nil)) // not written
	w.Restart(t)
	s = cursors(t, w.Open(t))
	x = must[*coord.Cursor](t)(s.Open(t.Context(), "x", 2))
	if p := x.Position(); p.Key != key(1) || string(p.Payload) != "a" || p.Fence != 2 {
		t.Fatalf("position %+v", p)
	}
	select {
	case <-x.Lost():
		t.Fatal("lost")
	case <-time.After(quiet):
	}
}
