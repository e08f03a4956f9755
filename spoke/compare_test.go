package spoke

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// lateClock is ten minutes late until it is told otherwise.
type lateClock struct{ right atomic.Bool }

func (c *lateClock) now() time.Time {
	if c.right.Load() {
		return time.Now()
	}
	return time.Now().Add(-10 * time.Minute)
}

func (c *lateClock) overtake() { c.right.Store(true) }

// caughtUp waits until the horizons of all nodes have passed the last minutes.
func caughtUp(t *testing.T, w *clusterWorld) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		all := true
		for _, n := range w.nodes {
			h, err := n.Horizon(t.Context())
			all = all && err == nil && time.Since(h.Time()) < time.Minute
		}
		switch {
		case all:
			return
		case time.Now().After(deadline):
			t.Fatal("the horizons do not follow the clock")
		}
	}
}

// TestLostMinute: an item that some disks have lost without noticing it is copied from one that has it when its minute is compared, and comes late there.
func TestLostMinute(t *testing.T) {
	var late lateClock
	w := newClusterWorldAt(t, 3, roster.Half, late.now)
	want := map[hub.Key]string{}
	for i, n := range w.nodes {
		data := fmt.Sprint("item ", i)
		want[n.write("x", data)] = data
	}
	late.overtake()
	old := hub.KeyAt(time.Now().Add(-3*time.Minute).UnixMilli(), "LOST01")
	minute := old.Time().Truncate(time.Minute)
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
	caughtUp(t, w)
	has := w.nodes[0].cluster
	if err := has.store(t.Context(), []spokelog.Record{{Channel: "x", Key: old, Stream: has.n.stream, Data: []byte("kept by one")}}); err != nil {
		t.Fatal(err)
	}
	want[old] = "kept by one"
	if count, _, err := w.nodes[1].Minute(t.Context(), "x", minute); err != nil || count != 1 {
		t.Fatalf("%d items in the minute, %v", count, err)
	}
	for i, n := range w.nodes {
		n.waitFor("x", want)
		flags, err := n.store.Flags(t.Context(), "x", old)
		if late := flags&spokelog.Late != 0; err != nil || late != (i > 0) {
			t.Errorf("%s: flags %v, %v", n.address, flags, err)
		}
	}
}

// TestLeaveTheRest: a minute that is not over, one that was swept, a replicated channel, and a key that was given up are nobody's loss.
func TestLeaveTheRest(t *testing.T) {
	var late lateClock
	w := newClusterWorldAt(t, 3, roster.Half, late.now)
	want := map[hub.Key]string{}
	for _, n := range w.nodes {
		want[n.write("x", "item")] = "item"
	}
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
	late.overtake()
	has, other := w.nodes[0].cluster, w.nodes[1].cluster
	caughtUp(t, w)
	put := func(c *cluster, r spokelog.Record) {
		t.Helper()
		r.Stream = c.n.stream
		if err := c.store(t.Context(), []spokelog.Record{r}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(c *cluster, channel string, at hub.Key) int {
		t.Helper()
		n, _, err := c.n.Minute(t.Context(), channel, at.Time())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	now, old := time.Now().UnixMilli(), time.Now().Add(-3*time.Minute).UnixMilli()

	ahead := hub.KeyAt(now+120_000, "AHEAD1")
	put(has, spokelog.Record{Channel: "ahead", Key: ahead, Data: []byte("a")})
	if n := count(other, "ahead", ahead); n != 0 {
		t.Errorf("%d items were copied of a minute that is not over", n)
	}

	given := hub.KeyAt(old, "GIVEN1")
	put(has, spokelog.Record{Channel: "given", Key: given, Data: []byte("a")})
	put(other, spokelog.Record{Channel: "given", Key: given, Data: []byte("a")})
	put(other, spokelog.Record{Channel: "given", Key: given, Flags: spokelog.GivenUp})
	if n := count(other, "given", given); n != 0 {
		t.Errorf("%d keys that were given up are shown", n)
	}

	swept := hub.KeyAt(old, "SWEPT1")
	put(has, spokelog.Record{Channel: "swept", Key: swept, Data: []byte("a")})
	if err := other.n.store.RaiseFloor(hub.KeyAt(old+1, "")); err != nil {
		t.Fatal(err)
	}
	if n := count(other, "swept", swept); n != 0 {
		t.Errorf("%d items were copied of a minute that was swept", n)
	}
}

// TestMinuteDoor: what is no minute, and who is no member, is refused.
func TestMinuteDoor(t *testing.T) {
	w := newClusterWorld(t, 2, roster.Half)
	w.nodes[0].write("x", "item")
	c := w.nodes[0].cluster
	minute := fmt.Sprint(time.Now().Add(-3 * time.Minute).UnixMilli())
	for _, q := range []map[string][]string{
		{"channel": {"x"}},
		{"minute": {minute}},
		{"channel": {"x"}, "minute": {"soon"}},
		{"channel": {"x"}, "minute": {minute}, "from": {"127.0.0.1:1"}},
		{"channel": {"x"}, "minute": {minute}, "from": {w.nodes[1].address}}, // itself
	} {
		var got account
		if err := c.ask(t.Context(), http.MethodPost, w.nodes[1].address, minutePath, q, nil, &got); !hub.Is(err, hub.Invalid) {
			t.Errorf("%v: %+v, %v", q, got, err)
		}
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, free := &pace{rate: 1_000_000}, &pace{}
		began := time.Now()
		for range 100 {
			if !free.wait(t.Context(), 1_000_000) {
				t.Fatal("not on")
			}
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("no limit took %s", d)
		}
		for range 20 {
			if !p.wait(t.Context(), 100_000) {
				t.Fatal("not on")
			}
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("2 MB at 1 MB/s took %s", d)
		}
		time.Sleep(time.Minute) // is not made up for
		began = time.Now()
		for range 10 {
			p.wait(t.Context(), 1_000_000)
		}
		if d := time.Since(began); d < 9*time.Second {
			t.Errorf("10 MB after a pause took %s", d)
		}
	})
}
