package coord_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// registers counts writes and can fail, before or after they have their effect.
type registers struct {
	coord.Registers

	mu      sync.Mutex // guards the rest
	updates int
	changes int
	before  error
	after   error
}

func (r *registers) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	r.mu.Lock()
	r.updates++
	r.changes += len(changes)
	before, after := r.before, r.after
	r.mu.Unlock()
	if before != nil {
		return nil, before
	}
	v, err := r.Registers.Update(ctx, changes)
	if after != nil {
		return nil, after
	}
	return v, err
}

func (r *registers) set(before, after error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before, r.after = before, after
}

func (r *registers) count() (updates, changes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.updates, r.changes
}

// bubble runs test with cursors that are being written, over memory.
func bubble(t *testing.T, test func(t *testing.T, r *registers, s *coord.Cursors, stop func() error)) {
	synctest.Test(t, func(t *testing.T) {
		r := &registers{Registers: local.NewMemory().Session("a")}
		s, err := coord.NewCursors(coord.CursorsOptions{Registers: r, Prefix: "c"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		var once sync.Once
		stop := func() (err error) {
			once.Do(func() { cancel(); err = <-ended })
			return err
		}
		defer stop()
		test(t, r, s, stop)
	})
}

func open(t *testing.T, s *coord.Cursors, name string) *coord.Cursor {
	t.Helper()
	c, err := s.Open(t.Context(), name, 1)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func move(t *testing.T, c *coord.Cursor, n int64) {
	t.Helper()
	if err := c.Move(hub.KeyAt(n, "h"), nil); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, s *coord.Cursors, name string, want int64) {
	t.Helper()
	if p, err := s.Get(context.Background(), name); err != nil || p.Key != hub.KeyAt(want, "h") {
		t.Fatalf("cursor %s is stored as %v, %v; want %d", name, p.Key, err, want)
	}
}

func TestCursorsShareWrites(t *testing.T) {
	bubble(t, func(t *testing.T, r *registers, s *coord.Cursors, stop func() error) {
		var all []*coord.Cursor
		for i := range 500 {
			all = append(all, open(t, s, fmt.Sprint("x", i)))
		}
		opened := r.updatesSoFar()
		for n := range int64(50) { // five ticks of moves
			for _, c := range all {
				move(t, c, n+1)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		updates, _ := r.count()
		if n := updates - opened; n < 4 || n > 7 {
			t.Errorf("25,000 moves in half a second took %d writes", n)
		}
		for i := range all {
			stored(t, s, fmt.Sprint("x", i), 50)
		}
		before, _ := r.count()
		time.Sleep(24 * time.Hour)
		if after, _ := r.count(); after != before {
			t.Errorf("%d writes in a day without moves", after-before)
		}
		move(t, all[0], 99)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		stored(t, s, "x0", 99)
	})
}

func (r *registers) updatesSoFar() int {
	n, _ := r.count()
	return n
}

// TestCursorsSurviveTrouble: an hour without a coordinator, and writes whose replies are lost, lose no move and wrong nobody.
func TestCursorsSurviveTrouble(t *testing.T) {
	unavailable := hub.E(hub.Unavailable, "gone")
	for name, set := range map[string]func(r *registers, err error){
		"not written": func(r *registers, err error) { r.set(err, nil) },
		"reply lost":  func(r *registers, err error) { r.set(nil, err) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *registers, s *coord.Cursors, stop func() error) {
				x, y := open(t, s, "x"), open(t, s, "y")
				set(r, unavailable)
				for n := range int64(360) {
					move(t, x, n+1)
					move(t, y, 2*n+1)
					time.Sleep(10 * time.Second)
				}
				if updates, _ := r.count(); updates > 1500 {
					t.Errorf("%d attempts in an hour", updates)
				}
				set(r, nil)
				time.Sleep(10 * time.Second)
				stored(t, s, "x", 360)
				stored(t, s, "y", 719)
				select {
				case <-x.Lost():
					t.Fatal(x.Move(hub.KeyAt(1000, "h"), nil))
				default:
				}
				move(t, x, 1000)
				set(r, unavailable)
				if err := stop(); !errors.Is(err, unavailable) {
					t.Fatalf("stop without a coordinator: %v", err)
				}
			})
		})
	}
}

// TestLoadWritesNothing: a cursor that never moves is never written, and a leader before us may have gone further.
func TestLoadWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *registers, s *coord.Cursors, stop func() error) {
		old := open(t, s, "x")
		move(t, old, 5)
		time.Sleep(time.Second)
		theirs, err := coord.NewCursors(coord.CursorsOptions{Registers: r, Prefix: "c"})
		if err != nil {
			t.Fatal(err)
		}
		before, _ := r.count()
		x, err := theirs.Load(t.Context(), "x", 7)
		if err != nil || x.Position().Key != hub.KeyAt(5, "h") {
			t.Fatalf("%v, %v", x, err)
		}
		if after, _ := r.count(); after != before {
			t.Fatal("a load wrote")
		}
		move(t, old, 9)
		time.Sleep(time.Second)
		move(t, x, 6) // behind what the old leader did meanwhile
		if err := theirs.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		stored(t, s, "x", 9)
		if x.Position().Key != hub.KeyAt(9, "h") {
			t.Fatalf("stands at %v", x.Position().Key)
		}
		move(t, old, 20)
		time.Sleep(time.Second)
		if err := old.Move(hub.KeyAt(30, "h"), nil); !errors.Is(err, coord.ErrFenced) {
			t.Fatalf("the old leader still moves: %v", err)
		}
		stored(t, s, "x", 9)
	})
}

func TestUnreadableCursor(t *testing.T) {
	session := local.NewMemory().Session("a")
	s, err := coord.NewCursors(coord.CursorsOptions{Registers: session, Prefix: "c"})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"text": "hello", "empty": "", "newer": `{"version":2}`, "key": `{"version":1,"key":"yesterday"}`, "null": "null",
	} {
		if _, err := session.Set(t.Context(), "c/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), name, 1); err == nil {
			t.Errorf("%s: opened", name)
		}
		if v, _, _ := session.Get(t.Context(), "c/"+name); string(v) != value {
			t.Errorf("%s: overwritten with %q", name, v)
		}
	}
	for _, p := range []string{"", "a//b"} {
		if _, err := coord.NewCursors(coord.CursorsOptions{Registers: session, Prefix: p}); err == nil {
			t.Errorf("prefix %q was accepted", p)
		}
	}
}

// TestPositionGolden fixes the form that other versions of the program find in the coordinator.
func TestPositionGolden(t *testing.T) {
	session := local.NewMemory().Session("a")
	s, _ := coord.NewCursors(coord.CursorsOptions{Registers: session, Prefix: "c"})
	var got string
	for i, k := range []hub.Key{
		{}, hub.KeyAt(1_700_000_000_123, "aZ3k9Q"), hub.KeyAt(0, "\xff\xfe"), hub.MaxKey, hub.MinKey, hub.KeyAt(5, "a").After(),
	} {
		if _, err := s.Open(t.Context(), "x", uint64(i)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Reset(t.Context(), "x", k, nil); err != nil {
			t.Fatal(err)
		}
		c, err := s.Open(t.Context(), "x", uint64(i))
		if err != nil || c.Position().Key != k {
			t.Fatalf("%v comes back as %v", k, err)
		}
		if err := c.Move(k, []byte("payload")); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		v, _, _ := session.Get(t.Context(), "c/x")
		got += string(v) + "\n"
	}
	want, err := os.ReadFile("testdata/position.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestMoveFunc: the place is asked for when it is written, once per write; what moves meanwhile is written by the next one; a place behind is not.
func TestMoveFunc(t *testing.T) {
	session := local.NewMemory().Session("a")
	s, err := coord.NewCursors(coord.CursorsOptions{Registers: session, Prefix: "c"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Load(t.Context(), "x", 1)
	if err != nil {
		t.Fatal(err)
	}
	at, asked, again := hub.KeyAt(10, "a"), 0, false
	var ask func() (hub.Key, []byte)
	ask = func() (hub.Key, []byte) {
		asked++
		if again {
			again = false
			if err := c.MoveFunc(ask); err != nil { // no lock is held
				t.Error(err)
			}
		}
		return at, []byte{byte(asked)}
	}
	stored := func() coord.Position {
		t.Helper()
		p, err := s.Get(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for range 3 {
		if err := c.MoveFunc(ask); err != nil {
			t.Fatal(err)
		}
	}
	if !stored().Key.IsZero() || asked != 0 {
		t.Fatal("asked before the write")
	}
	again = true
	for range 3 {
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if p := stored(); p.Key != at || asked != 2 || string(p.Payload) != "\x02" {
		t.Fatalf("asked %d times, stored %v", asked, p)
	}
	at = hub.KeyAt(9, "a")
	if err := c.MoveFunc(ask); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := stored(); p.Key != hub.KeyAt(10, "a") || string(p.Payload) != "\x02" {
		t.Fatalf("went back: %v", p)
	}

	lost := make(chan error, 2)
	c.AfterLost(func(why error) { lost <- why })
	if _, err := s.Reset(t.Context(), "x", hub.KeyAt(1, "a"), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; !errors.Is(err, coord.ErrReset) {
		t.Fatal(err)
	}
	c.AfterLost(func(why error) { lost <- why })
	<-lost
	if err := c.MoveFunc(ask); !errors.Is(err, coord.ErrReset) {
		t.Fatalf("a lost cursor moved: %v", err)
	}
}
