package node

import (
	"testing"
	"time"
)

func TestBacklog(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	var b backlog
	if b.since(at(0)) != 0 {
		t.Error("nothing was ever written")
	}
	b.note(at(10), 1000) // there at the start
	b.note(at(20), 1500)
	b.note(at(30), 900) // swept
	b.note(at(40), 1400)
	for _, c := range []struct {
		t    int
		want int64
	}{{5, 1400}, {11, 1000}, {21, 500}, {31, 500}, {41, 0}} {
		if got := b.since(at(c.t)); got != c.want {
			t.Errorf("since %d: %d, want %d", c.t, got, c.want)
		}
	}
	for i := range 2 * maxGrowth {
		b.note(at(100+i), 1400)
	}
	if len(b.points) > maxGrowth {
		t.Errorf("%d points", len(b.points))
	}
}
