package hub

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// stepping is a clock that a test sets.
type stepping struct{ now time.Time }

func (s *stepping) clock() time.Time { return s.now }

func TestMintRisesStrictly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	c := &stepping{time.UnixMilli(1614834367089)}
	m := NewMinter(c.clock, 0, 0, rnd.Uint32)
	last := Key{}
	for i := range 200_000 {
		switch rnd.IntN(1000) {
		case 0:
			c.now = c.now.Add(time.Duration(rnd.IntN(5)) * time.Millisecond)
		case 1:
			c.now = c.now.Add(-time.Duration(rnd.IntN(50)) * time.Millisecond) // somebody sets the clock back
		}
		mark, k := m.Mint()
		if !last.Less(k) {
			t.Fatalf("mint %d: %v after %v", i, k, last)
		}
		if got, ok := MarkOf(k); !ok || got != mark {
			t.Fatalf("MarkOf(%v) = %d, want %d", k, got, mark)
		}
		if f := mark.Key(); !k.Less(f) || !BulkKey(k, MaxBulk).Less(f) {
			t.Fatalf("the fence of %v lies below it", k)
		}
		last = BulkKey(k, 999_999)
	}
}

func TestCounterOverflowsIntoTheNextMillisecond(t *testing.T) {
	c := &stepping{time.UnixMilli(1000)}
	m := NewMinter(c.clock, MarkAt(1000)+counterLimit-2, 61, func() uint32 { return 61 })
	_, a := m.Mint()
	_, b := m.Mint()
	if a != KeyAt(1000, "zzz0zz") || b != KeyAt(1001, "0000zz") {
		t.Errorf("%v, %v", a, b)
	}
	if o, ok := Ordinal(b); !ok || o != 61 {
		t.Errorf("ordinal %d %v", o, ok)
	}
}

func TestNothingIsMintedAtOrBelowAHorizon(t *testing.T) {
	c := &stepping{time.UnixMilli(1614834367089)}
	m := NewMinter(c.clock, 0, 0, rand.Uint32)
	for range 1000 {
		h := m.Now().Key()
		c.now = c.now.Add(time.Duration(rand.IntN(3)-1) * time.Millisecond)
		if _, k := m.Mint(); !h.Less(k) {
			t.Fatalf("minted %v at or below the horizon %v", k, h)
		}
	}
}

func TestStartsAboveTheBound(t *testing.T) {
	c := &stepping{time.UnixMilli(1000)}
	m := NewMinter(c.clock, MarkAt(5000), 0, rand.Uint32)
	if _, k := m.Mint(); k.Millis() != 5000 {
		t.Errorf("%v", k)
	}
	if MarkAt(-1).Millis() != -1 || (MarkAt(-1)+5).Millis() != -1 || MarkAt(0).Millis() != 0 {
		t.Error("Millis of marks before the epoch")
	}
}

func TestBulkKeysSort(t *testing.T) {
	k := KeyAt(5, "abc123")
	last := k
	for _, i := range []int{0, 1, 9, 10, 99, 12345, MaxBulk} {
		if b := BulkKey(k, i); !last.Less(b) || len(b.Hash()) != 12 {
			t.Errorf("part %d: %v after %v", i, b, last)
		} else {
			last = b
		}
	}
}

func TestHorizonCut(t *testing.T) {
	now := time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC)
	store := NewKey(now, "~")
	if k, at := (Horizon{Auto: true}).Cut(store, now); k != store || !at.Equal(now) {
		t.Errorf("auto: %v %v", k, at)
	}
	want := time.Date(2021, 3, 4, 5, 6, 2, 0, time.UTC)
	if k, at := (Horizon{Seconds: 5}).Cut(store, now); k != Last(want) || !at.Equal(want) {
		t.Errorf("5 s: %v %v", k, at)
	}
	held := NewKey(want.Add(-time.Minute), "x") // a node that waits for a silent member
	if k, at := (Horizon{Seconds: 5}).Cut(held, now); k != held || !at.Equal(held.Time()) {
		t.Errorf("held: %v %v", k, at)
	}
}

// TestSleep: it waits, unless ctx ends first.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !Sleep(t.Context(), time.Hour) || time.Since(began) != time.Hour {
			t.Errorf("slept for %v", time.Since(began))
		}
		if !Sleep(t.Context(), 0) || !Sleep(t.Context(), -time.Second) || time.Since(began) != time.Hour {
			t.Errorf("slept for nothing, and woke after %v", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if Sleep(ctx, time.Hour) || time.Since(began) != time.Hour+time.Minute {
			t.Errorf("ended after %v", time.Since(began))
		}
		if Sleep(ctx, time.Hour) {
			t.Error("slept after the end")
		}
	})
}
