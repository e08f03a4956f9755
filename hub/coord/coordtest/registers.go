package coordtest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"timehub/hub"
	"timehub/hub/coord"
)

func testNames(t *testing.T, w World) {
	c := w.Open(t)
	for _, bad := range []string{"", "/a", "a/", "a//b", "a b", "a/../b", ".", "ä", "a\x00", strings.Repeat("x", 600)} {
		_, err := c.Set(t.Context(), bad, []byte("v"), 0)
		wantKind(t, err, hub.Invalid, "set "+strconv.Quote(bad))
		_, _, err = c.Get(t.Context(), bad)
		wantKind(t, err, hub.Invalid, "get "+strconv.Quote(bad))
		_, err = c.Acquire(t.Context(), bad)
		wantKind(t, err, hub.Invalid, "acquire "+strconv.Quote(bad))
		wantKind(t, c.Join(t.Context(), "g", bad, nil), hub.Invalid, "join "+strconv.Quote(bad))
	}
	for _, good := range []string{"a", "a/b", "A-z_0.9:@/x..y", "1/2/3/4/5/6"} {
		must[uint64](t)(c.Set(t.Context(), good, []byte(good), 0))
		get(t, c, good, good)
	}
}

func testValues(t *testing.T, w World) {
	c := w.Open(t)
	must[uint64](t)(c.Set(t.Context(), "empty", nil, 0))
	get(t, c, "empty", "")
	big := bytes.Repeat([]byte{0, 255, 'x'}, coord.MaxValue/3)
	v := must[uint64](t)(c.Set(t.Context(), "big", big, 0))
	get(t, c, "big", string(big))
	_, err := c.Set(t.Context(), "big", make([]byte, coord.MaxValue+1), v)
	wantKind(t, err, hub.TooLarge, "a value over the limit")
	get(t, c, "big", string(big))

	mine := []byte("abc")
	must[uint64](t)(c.Set(t.Context(), "mine", mine, 0))
	mine[0] = 'X'
	get(t, c, "mine", "abc")
	seen, _, _ := c.Get(t.Context(), "mine")
	seen[0] = 'Y'
	get(t, c, "mine", "abc")
}

func testVersions(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	absent(t, c, "x")
	_, err := c.Set(t.Context(), "x", []byte("1"), 7)
	wantKind(t, err, hub.Conflict, "a version of nothing")
	v1 := must[uint64](t)(c.Set(t.Context(), "x", []byte("1"), 0))
	_, err = d.Set(t.Context(), "x", []byte("2"), 0)
	wantKind(t, err, hub.Conflict, "made twice")
	if v := get(t, d, "x", "1"); v != v1 {
		t.Fatalf("another session sees version %d, not %d", v, v1)
	}
	v2 := must[uint64](t)(d.Set(t.Context(), "x", []byte("1"), v1))
	if v2 <= v1 {
		t.Fatalf("version %d after %d", v2, v1)
	}
	_, err = c.Set(t.Context(), "x", []byte("3"), v1)
	wantKind(t, err, hub.Conflict, "an old version")
	wantKind(t, c.Delete(t.Context(), "x", v1), hub.Conflict, "delete an old version")
	ok(t, c.Delete(t.Context(), "x", v2))
	absent(t, d, "x")
	wantKind(t, c.Delete(t.Context(), "x", v2), hub.Conflict, "delete twice")
	v3 := must[uint64](t)(c.Set(t.Context(), "x", []byte("4"), 0))
	if v3 <= v2 {
		t.Fatalf("version %d after a delete of %d", v3, v2)
	}
}

func testUpdate(t *testing.T, w World) {
	c := w.Open(t)
	a := must[uint64](t)(c.Set(t.Context(), "a", []byte("a1"), 0))
	b := must[uint64](t)(c.Set(t.Context(), "b", []byte("b1"), 0))
	_, err := c.Update(t.Context(), []coord.Change{{Name: "a", Value: []byte("a2"), Version: a}, {Name: "b", Value: []byte("b2"), Version: b + 100}})
	wantKind(t, err, hub.Conflict, "one of two versions is old")
	get(t, c, "a", "a1")
	_, err = c.Update(t.Context(), []coord.Change{{Name: "a", Value: []byte("a2"), Any: true}, {Name: "a", Value: []byte("a3"), Any: true}})
	wantKind(t, err, hub.Invalid, "a name twice")

	versions := must[[]uint64](t)(c.Update(t.Context(), []coord.Change{
		{Name: "a", Value: []byte("a2"), Version: a}, {Name: "b", Version: b}, {Name: "new", Value: []byte{}, Version: 0},
		{Name: "any", Value: []byte("x"), Any: true}, {Name: "not/there", Any: true},
	}))
	if v := get(t, c, "a", "a2"); len(versions) != 5 || v != versions[0] || v <= a {
		t.Fatalf("versions %v, register has %d", versions, v)
	}
	absent(t, c, "b")
	get(t, c, "new", "")
	get(t, c, "any", "x")
	if versions, err := c.Update(t.Context(), nil); err != nil || len(versions) != 0 {
		t.Fatalf("nothing to do: %v, %v", versions, err)
	}
}

func testListing(t *testing.T, w World) {
	c := w.Open(t)
	for _, name := range []string{"p/b", "p/a", "p/a/x", "pq", "p", "q/z"} {
		must[uint64](t)(c.Set(t.Context(), name, []byte("v"), 0))
	}
	for prefix, want := range map[string][]string{
		"p": {"p/a", "p/a/x", "p/b"}, "p/a": {"p/a/x"}, "nothing": nil, "": {"p", "p/a", "p/a/x", "p/b", "pq", "q/z"},
	} {
		if got := must[[]string](t)(c.Names(t.Context(), prefix)); !slices.Equal(got, want) {
			t.Errorf("names below %q: %q, want %q", prefix, got, want)
		}
	}
}

func testWatch(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	must[uint64](t)(d.Set(t.Context(), "dir/x", []byte("0"), 0))
	one, stopOne := c.Watch("dir/x")
	all, stopAll := c.Watch("dir")
	defer stopAll()
	woken(t, one, "the start of a watch")
	woken(t, all, "the start of a watch")
	drain(one)
	drain(all)

	v := get(t, d, "dir/x", "0")
	must[uint64](t)(d.Set(t.Context(), "dir/x", []byte("1"), v))
	woken(t, one, "a change")
	woken(t, all, "a change below")
	drain(one)
	drain(all)
	must[uint64](t)(d.Set(t.Context(), "dir/y", []byte("1"), 0))
	woken(t, all, "a new register below")
	asleep(t, one, "a change of a neighbour")
	drain(all)
	must[uint64](t)(d.Set(t.Context(), "dirx", []byte("1"), 0))
	asleep(t, all, "a change of a longer name")

	for range 10 { // tokens do not pile up
		v = get(t, d, "dir/x", string(must2(d, "dir/x", t)))
		must[uint64](t)(d.Set(t.Context(), "dir/x", []byte("n"), v))
	}
	woken(t, one, "many changes")
	ok(t, d.Delete(t.Context(), "dir/x", get(t, d, "dir/x", "n")))
	woken(t, one, "a delete")
	drain(one)
	stopOne()
	stopOne()
	must[uint64](t)(d.Set(t.Context(), "dir/x", []byte("2"), 0))
	asleep(t, one, "a watch that was stopped")
}

func must2(c coord.Coordinator, name string, t *testing.T) []byte {
	t.Helper()
	v, _, err := c.Get(t.Context(), name)
	ok(t, err)
	return v
}

// testCounting lets several sessions raise one number by compare-and-set: no step may be lost.
func testCounting(t *testing.T, w World) {
	const sessions, steps = 4, 25
	var wg sync.WaitGroup
	first := w.Open(t)
	must[uint64](t)(first.Set(t.Context(), "n", []byte("0"), 0))
	for range sessions {
		c := w.Open(t)
		wg.Go(func() {
			for done := 0; done < steps; {
				b, version, err := c.Get(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(b))
				switch _, err = c.Set(t.Context(), "n", []byte(strconv.Itoa(n+1)), version); {
				case err == nil:
					done++
				case !hub.Is(err, hub.Conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	get(t, first, "n", strconv.Itoa(sessions*steps))
}

func testMembers(t *testing.T, w World) {
	c, d := w.Open(t), w.Open(t)
	list := func(want ...string) uint64 {
		t.Helper()
		members, epoch, err := c.List(t.Context(), "spoke")
		ok(t, err)
		var got []string
		for _, m := range members {
			got = append(got, m.Name+"="+string(m.Value))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("members %q, want %q", got, want)
		}
		return epoch
	}
	e0 := list()
	wake, stop := c.WatchMembers("spoke")
	defer stop()
	drain(wake)
	ok(t, d.Join(t.Context(), "spoke", "two", []byte("2")))
	woken(t, wake, "a member joined")
	ok(t, c.Join(t.Context(), "spoke", "one", []byte("1")))
	e1 := list("one=1", "two=2")
	wantKind(t, c.Join(t.Context(), "spoke", "two", nil), hub.Conflict, "a name taken by another session")
	ok(t, d.Join(t.Context(), "spoke", "two", []byte("II")))
	e2 := list("one=1", "two=II")
	wantKind(t, c.Replace(t.Context(), "spoke", "two", []byte("2"), []byte("c")), hub.Conflict, "a value that was replaced meanwhile")
	wantKind(t, c.Replace(t.Context(), "spoke", "three", nil, []byte("c")), hub.Conflict, "a name that nobody holds")
	drain(wake)
	ok(t, c.Replace(t.Context(), "spoke", "two", []byte("II"), []byte("c")))
	woken(t, wake, "a member was replaced")
	e3 := list("one=1", "two=c")
	ok(t, d.Leave(t.Context(), "spoke", "three"))
	wantKind(t, d.Join(t.Context(), "spoke", "two", nil), hub.Conflict, "a name taken over by another session")
	ok(t, d.Replace(t.Context(), "spoke", "two", []byte("c"), []byte("d")))
	drain(wake)
	ok(t, d.Leave(t.Context(), "spoke", "two"))
	ok(t, d.Leave(t.Context(), "spoke", "two"))
	woken(t, wake, "a member left")
	e4 := list("one=1")
	if e0 >= e1 || e1 >= e2 || e2 >= e3 || e3 >= e4 {
		t.Fatalf("epochs %d %d %d %d %d do not rise", e0, e1, e2, e3, e4)
	}
}
