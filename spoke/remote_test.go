package spoke

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// plant puts a record on this node's disk alone.
func (c *clusterNode) plant(channel string, key hub.Key, data string) {
	c.w.t.Helper()
	c.mu.Lock()
	own := c.stream
	c.mu.Unlock()
	if err := c.cluster.store(c.w.t.Context(), []spokelog.Record{{Channel: channel, Key: key, Stream: own, Data: []byte(data)}}); err != nil {
		c.w.t.Fatal(err)
	}
}

// begun waits until all nodes are on the list in force, write, and give stable answers, and returns a key that lies above every horizon for the time of a test.
func (w *clusterWorld) begun() (soon func(i int) hub.Key) {
	w.t.Helper()
	want := map[hub.Key]string{}
	for _, n := range w.nodes {
		want[n.write("begin", n.address)] = n.address
	}
	for _, n := range w.nodes {
		n.waitFor("begin", want)
		w.until("the last change of the list is in force", func() bool { // until then the list of before counts too
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.cluster.rec.Next == nil && len(n.cluster.rec.Disks) == len(w.nodes)
		})
	}
	later := time.Now().Add(time.Hour).UnixMilli()
	return func(i int) hub.Key { return hub.KeyAt(later+int64(i), "000aaa") }
}

func TestReadFromOthers(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	soon := w.begun()
	a, b := w.nodes[0], w.nodes[1]
	a.plant("x", soon(1), "only there")
	for _, n := range w.nodes {
		if item, err := n.Read(t.Context(), "x", soon(1)); err != nil || string(item.Data) != "only there" || item.Key != soon(1) {
			t.Errorf("%s: %q, %v", n.address, item.Data, err)
		}
		if _, err := n.Read(t.Context(), "x", soon(2)); !hub.Is(err, hub.NotFound) {
			t.Errorf("%s reads what is not there: %v", n.address, err)
		}
	}
	w.nodes[2].kill()
	if _, err := b.Read(t.Context(), "x", soon(2)); !hub.Is(err, hub.NotFound) {
		t.Errorf("two of three know enough: %v", err)
	}
	past := hub.KeyAt(time.Now().Add(-time.Minute).UnixMilli(), "000aaa")
	a.kill()
	if _, err := b.Read(t.Context(), "x", soon(1)); !hub.Is(err, hub.Unavailable) {
		t.Errorf("one of three cannot know: %v", err)
	}
	if _, err := b.Read(t.Context(), "x", past); !hub.Is(err, hub.NotFound) {
		t.Errorf("what lies below the horizon is known here: %v", err)
	}
}

func TestReadBelowFloorAsksNobody(t *testing.T) {
	w := newClusterWorld(t, 2, roster.Half)
	w.begun()
	w.nodes[1].kill()
	if _, err := w.nodes[0].Read(t.Context(), "x", hub.KeyAt(1000, "000aaa")); !hub.Is(err, hub.NotFound) {
		t.Error(err)
	}
}

func TestUnstableAsksAll(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	soon := w.begun()
	var all []hub.Key
	first := w.nodes[0].write("x", "committed")
	all = append(all, first)
	for i := range 9 {
		w.nodes[i%3].plant("x", soon(i), fmt.Sprint(i))
		if i%2 == 0 { // some are on two disks
			w.nodes[(i+1)%3].plant("x", soon(i), fmt.Sprint(i))
		}
		all = append(all, soon(i))
	}
	query := hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey}
	check := func(n *clusterNode, q hub.Query, want []hub.Key, more bool) {
		t.Helper()
		page, err := n.Keys(t.Context(), q)
		if err != nil || !slices.Equal(page.Keys, want) || page.More != more || page.Silent != 0 {
			t.Errorf("%+v: %v, more %v, silent %d, %v; want %v", q, page.Keys, page.More, page.Silent, err, want)
		}
		var items []hub.Key
		for item, err := range n.Items(t.Context(), q) {
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.Index(all, item.Key); i > 0 && string(item.Data) != fmt.Sprint(i-1) {
				t.Errorf("%s is %q", item.Key, item.Data)
			}
			items = append(items, item.Key)
		}
		if !slices.Equal(items, want) {
			t.Errorf("items of %+v: %v, want %v", q, items, want)
		}
	}
	down := slices.Clone(all)
	slices.Reverse(down)
	for _, n := range w.nodes {
		w.until("the first key is below the horizon", func() bool {
			h, err := n.Horizon(t.Context())
			return err == nil && first.Less(h)
		})
		check(n, query, all, false)
		for limit := 1; limit < len(all); limit++ {
			q := query
			q.Limit = limit
			check(n, q, all[:limit], true)
			q.Reverse = true
			check(n, q, down[:limit], true)
		}
		q := query
		q.From, q.To = soon(2), soon(5)
		check(n, q, all[3:6], false)
		q.Reverse = true
		check(n, q, []hub.Key{soon(4), soon(3), soon(2)}, false)
		q.Stable = true
		if page, err := n.Keys(t.Context(), q); err != nil || len(page.Keys) > 0 {
			t.Errorf("a stable answer shows what is not decided: %v, %v", page.Keys, err)
		}
	}
	w.nodes[2].kill()
	if page, err := w.nodes[0].Keys(t.Context(), query); err != nil || page.Silent != 0 {
		t.Errorf("two of three: %d silent, %v", page.Silent, err)
	}
	w.nodes[1].kill()
	page, err := w.nodes[0].Keys(t.Context(), query)
	if err != nil || page.Silent != 2 || !slices.Contains(page.Keys, first) {
		t.Errorf("one of three: %v, %d silent, %v", page.Keys, page.Silent, err)
	}
	for _, partial := range []bool{false, true} {
		q, items := query, 0
		q.Partial = partial
		var failed error
		for _, err := range w.nodes[0].Items(t.Context(), q) {
			if err != nil {
				failed = err
				break
			}
			items++
		}
		if partial != (failed == nil) || !partial && !hub.Is(failed, hub.Unavailable) || partial && items == 0 {
			t.Errorf("one of three, partial %v: %d items, %v", partial, items, failed)
		}
	}
}

func TestUnstableWithoutSession(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	w.begun()
	n := w.nodes[0]
	query := hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey}
	if page, err := n.Keys(t.Context(), query); err != nil || page.Silent != 0 {
		t.Fatal(page, err)
	}
	w.store.Cut(n.session)
	w.until("the answer says that it may not be whole", func() bool {
		page, err := n.Keys(t.Context(), query)
		return err == nil && page.Silent > 0
	})
	w.store.Mend(n.session)
	w.until("the answer is whole again", func() bool {
		page, err := n.Keys(t.Context(), query)
		return err == nil && page.Silent == 0
	})
}

// spoil overwrites a part of some data wherever the log of this node has it.
func (c *clusterNode) spoil(data string) {
	t := c.w.t
	t.Helper()
	found := false
	entries, err := c.disk.List(spokelog.DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := spokelog.DefaultDir + "/" + e.Name
		f, err := c.disk.Open(name, false)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, e.Size)
		_, _ = f.ReadAt(b, 0)
		_ = f.Close()
		if at := bytes.Index(b, []byte(data)); at >= 0 {
			found = true
			if err := c.disk.Damage(name, int64(at)+5, []byte("@@@")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatal("the log does not hold it")
	}
}

func TestDamageIsRepaired(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	w.begun()
	a := w.nodes[0]
	one, two := strings.Repeat("first item ", 2000), strings.Repeat("second item ", 2000)
	want := map[hub.Key]string{a.write("x", one): one, a.write("x", two): two}
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
	check := func() {
		t.Helper()
		count := 0
		for item, err := range a.Items(t.Context(), hub.Query{Channel: "x", From: hub.MinKey, To: hub.MaxKey, Stable: true}) {
			if count++; err != nil || string(item.Data) != want[item.Key] {
				t.Errorf("%s: %d bytes, %v", item.Key, len(item.Data), err)
			}
		}
		if count != 2 {
			t.Errorf("%d items", count)
		}
	}
	a.spoil(one)
	a.waitFor("x", want) // by Read
	a.spoil(two)
	check() // by Items
	w.nodes[1].kill()
	w.nodes[2].kill()
	for k, data := range want { // now from the own disk alone
		if item, err := a.Read(t.Context(), "x", k); err != nil || string(item.Data) != data {
			t.Errorf("%s: %d bytes, %v", k, len(item.Data), err)
		}
	}
	check()
}

func TestDamageThatNobodyCanRepair(t *testing.T) {
	w := newClusterWorld(t, 2, roster.Half)
	w.begun()
	data := strings.Repeat("alone with it ", 2000)
	key := w.nodes[0].write("x", data)
	w.nodes[0].waitFor("x", map[hub.Key]string{key: data})
	w.nodes[1].kill()
	w.nodes[0].spoil(data)
	if _, err := w.nodes[0].Read(t.Context(), "x", key); !hub.Is(err, hub.Unavailable) {
		t.Errorf("it is there, and cannot be read: %v", err)
	}
}

// TestWholeByBothLists: a question may take seconds. Those who were enough by the list that is in force at its end need not have been by that of its beginning, and an item may
// have come to one of them after he had answered.
func TestWholeByBothLists(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	want := map[hub.Key]string{}
	for _, n := range w.nodes {
		want[n.write("x", "item")] = "item"
	}
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
	c := w.nodes[0].cluster
	var s census
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // the third one's list has to be in force
		s = c.newCensus()
		for _, n := range w.nodes[:2] {
			s.add(n.Identity().ID, 0)
		}
		if ok, _ := c.whole(s); ok && len(s.list.Disks) == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("two of three are not enough")
		}
	}
	before := s.list
	before.Disks = nil
	for _, d := range s.list.Disks {
		if d.ID != w.nodes[1].Identity().ID { // who came while the question was on its way
			before.Disks = append(before.Disks, d)
		}
	}
	s.list = before
	if ok, _ := c.whole(s); ok {
		t.Error("one of the two who were on the list when the first was asked is enough")
	}
}
