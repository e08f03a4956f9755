package spoke

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

func TestClockOutOfGuard(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	want := map[hub.Key]string{}
	n := w.nodes[2]
	n.kill()
	var shift atomic.Int64
	n.clock = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	n.start()
	for _, c := range w.nodes {
		want[c.write("x", c.address)] = c.address
	}
	for _, c := range w.nodes {
		c.waitFor("x", want)
	}
	known := func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.cluster.clocks) == 2
	}
	w.until("it knows the clocks of the others", known)

	shift.Store(int64(time.Hour)) // somebody sets the clock
	if _, err := n.Write(t.Context(), "x", []byte("from the future")); !hub.Is(err, hub.Unavailable) {
		t.Fatalf("a clock an hour ahead: %v", err)
	}
	if _, err := n.Now(t.Context()); !hub.Is(err, hub.Unavailable) {
		t.Errorf("it says what time it is: %v", err)
	}
	if err := n.Status().Refusing; !hub.Is(err, hub.Unavailable) {
		t.Errorf("its status says of writes: %v", err)
	}
	if err := n.After(t.Context(), hub.KeyAt(time.Now().Add(time.Minute).UnixMilli(), "000abc")); !hub.Is(err, hub.Invalid) {
		t.Errorf("it goes by its own clock: %v", err)
	}
	n.mu.Lock()
	before := n.minter.Last()
	n.mu.Unlock()
	for _, c := range w.nodes[:2] { // they write on; the horizon waits for the clock that stands
		k := c.write("x", "b"+c.address)
		want[k] = "b" + c.address
		h, err := c.Horizon(t.Context())
		n.mu.Lock()
		stands := n.minter.Last().Key() // the lows of the others move it, up to its bound
		n.mu.Unlock()
		if err == nil && stands.Less(h) {
			t.Errorf("the horizon %s has passed what the standing clock may still write below: %s", h, stands)
		}
	}
	time.Sleep(1200 * time.Millisecond) // it looks at clocks, beats, and learns
	n.mu.Lock()
	last, limit := n.minter.Last(), n.limit
	n.mu.Unlock()
	if ahead := max(last, limit).Millis() - time.Now().UnixMilli(); ahead > DefaultClockGuard.Milliseconds() {
		t.Errorf("clock and bound are %d ms ahead", ahead)
	}
	if last < before {
		t.Errorf("the clock went back")
	}

	shift.Store(0)
	want[n.write("x", "right again")] = "right again"
	if err := n.Status().Refusing; err != nil {
		t.Errorf("its status still says of writes: %v", err)
	}
	for _, c := range w.nodes {
		c.waitFor("x", want)
	}
}

func TestMedian(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UnixMilli()
		for _, c := range []struct {
			others []int64 // ahead of us, in ms
			off    int64
		}{
			{nil, 0}, {[]int64{0}, 0}, {[]int64{400}, -200}, {[]int64{2000}, -1000}, {[]int64{0, 90_000}, 0}, {[]int64{9000, 9010}, -9000},
			{[]int64{-9000, 9000}, 0}, {[]int64{-700, -700, -700}, 700}, {[]int64{-700, -700, 0}, 350}, {[]int64{1, 2, 3, 4}, -2}, {[]int64{1000}, -500}, {[]int64{1002}, -501},
		} {
			n := &Node{minter: hub.NewMinter(time.Now, 0, 1, nil)}
			n.opt.ClockGuard = 500 * time.Millisecond
			n.cluster = &cluster{n: n, clocks: map[string]reading{}}
			for i, o := range c.others {
				n.cluster.clocks[string(rune('a'+i))] = reading{now + o - 10_000, time.Now().Add(-10 * time.Second)} // silent for a while
			}
			if off, out := n.cluster.astray(); off != c.off || out != (c.off > 500 || c.off < -500) {
				t.Errorf("%v: %d, %v; want %d", c.others, off, out, c.off)
			}
		}
	})
}
