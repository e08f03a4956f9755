//go:build clockcontrol

package main

import (
	"testing"
	"time"
)

func TestMoveWall(t *testing.T) {
	begin := time.Now()
	for _, by := range []time.Duration{0, 10 * time.Minute, -time.Hour, 200 * time.Millisecond, -48 * time.Hour} {
		moved := moveWall(begin, by)
		if got := moved.Round(0).Sub(begin.Round(0)); got != by {
			t.Errorf("%v: the wall clock moved by %v", by, got)
		}
		if got := moved.Sub(begin); got != 0 {
			t.Errorf("%v: the monotonic clock moved by %v", by, got)
		}
	}
	c := &wrongClock{}
	if err := c.obey("freeze"); err != nil {
		t.Fatal(err)
	}
	a := c.now()
	time.Sleep(5 * time.Millisecond)
	b := c.now()
	if a.UnixNano() != b.UnixNano() || b.Sub(a) < 5*time.Millisecond {
		t.Errorf("a frozen clock goes from %v to %v, with %v between them", a, b, b.Sub(a))
	}
	if c.obey("set tomorrow") == nil || c.obey("stop") == nil {
		t.Error("it obeys anything")
	}
}
