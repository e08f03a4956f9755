package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tale is a history that keeps every promise: two hubs, a channel with twelve items of a writer, of which the last three are a bulk, and everybody who
// looks at it. Item n is written in second n.
type tale struct {
	h     *History
	items []Item
}

const telling = "tale"

func sec(n float64) int64 { return int64(n * float64(time.Second)) }

func newTale() *tale {
	start := time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC)
	k := &tale{h: &History{Start: start, Hubs: 2}}
	for n := range 12 {
		when := min(n, 9)
		key := start.Add(time.Duration(when)*time.Second).Format("2006/01/02/15/04/05/000") + fmt.Sprintf("/AAA%02d", n)
		k.items = append(k.items, seen(key, makeBody(fmt.Sprintf("w-%06d", n), 10)))
	}
	add := func(op Op) {
		op.Channel, op.Result = telling, OK
		k.h.Ops = append(k.h.Ops, op)
	}
	for n := range 9 {
		add(Op{Proc: "w", Kind: Post, Node: n % 2, Begin: sec(float64(n)), End: sec(float64(n) + 0.1), Status: 201, Items: k.items[n : n+1]})
	}
	add(Op{Proc: "w", Kind: Bulk, Node: 1, Begin: sec(9), End: sec(9.2), Status: 201, Items: k.items[9:]})
	for node := range 2 {
		add(Op{Proc: "final", Kind: Final, Node: node, Begin: sec(20), End: sec(21), Items: k.items})
		add(Op{Proc: "final", Kind: Walk, Node: node, Begin: sec(20), End: sec(21), Items: k.items})
	}
	// An early stable answer, an unstable one, a stable one of everything, one item.
	add(Op{Proc: "r", Kind: List, Node: 0, Begin: sec(5), End: sec(5.1), Stable: true, Horizon: k.items[4].Key, Hi: after(k.items[4].Key), Items: k.items[:5]})
	add(Op{Proc: "r", Kind: List, Node: 0, Begin: sec(6.5), End: sec(6.6), Hi: beyond, Items: k.items[:7]})
	add(Op{Proc: "r", Kind: List, Node: 0, Begin: sec(15), End: sec(15.1), Stable: true, Seen: k.items[4].Key, Horizon: k.items[11].Key, Hi: after(k.items[11].Key), Items: k.items})
	add(Op{Proc: "r", Kind: Get, Node: 1, Begin: sec(7), End: sec(7.1), Status: 200, Items: k.items[3:4]})
	add(Op{Proc: "bucket", Kind: Stored, Node: -1, Begin: sec(22), End: sec(23), Hi: beyond, Items: k.items})
	add(Op{Proc: "sse", Kind: Follow, Node: 0, Begin: sec(1), End: sec(5), Lo: after(k.items[0].Key), Items: k.items[1:4]})
	add(Op{Proc: "sse", Kind: Follow, Node: 1, Begin: sec(5), End: sec(12), Items: k.items[4:]})
	for n := range 12 {
		add(Op{Proc: "hook", Kind: Deliver, Node: 0, Begin: sec(10 + float64(n)/10), End: sec(10.05 + float64(n)/10), Items: k.items[n : n+1]})
	}
	k.h.Ops = append(k.h.Ops, Op{Proc: "nemesis", Kind: Hurt, Node: -1, Path: "kill-one hub 0", Begin: sec(3), End: sec(3.5), Result: OK})
	for i := range k.h.Ops { // each may be changed without the others
		k.h.Ops[i].Items = slices.Clone(k.h.Ops[i].Items)
	}
	return k
}

// op is the n-th operation of a kind.
func (k *tale) op(kind Kind, n int) *Op {
	for i := range k.h.Ops {
		if k.h.Ops[i].Kind == kind {
			if n--; n < 0 {
				return &k.h.Ops[i]
			}
		}
	}
	panic("no such operation")
}

func without(items []Item, n int) []Item { return slices.Delete(slices.Clone(items), n, n+1) }

func TestJudgeGood(t *testing.T) {
	v := Judge(newTale().h)
	if !v.Good() {
		t.Errorf("a good history: %v", v)
	}
	if v.Acked != 12 || v.Answers != 4 || v.Followed != 11 || v.Delivered != 12 || v.Stored != 12 || v.Faults["kill-one"] != 1 || v.Again != 0 {
		t.Errorf("it is counted as %+v", v)
	}
}

// TestJudge: a history that breaks one promise is noticed, by the rule that it breaks.
func TestJudge(t *testing.T) {
	everywhere := func(k *tale, change func([]Item) []Item) { // in everything that is read at the end
		for i := range k.h.Ops {
			if op := &k.h.Ops[i]; op.Kind == Final || op.Kind == Walk || op.Kind == Stored {
				op.Items = change(op.Items)
			}
		}
	}
	late := Item{Key: "2026/03/04/05/06/04/500/BBB01", ID: "w-000003"}
	cases := map[string]struct {
		rule string
		harm func(k *tale)
	}{
		"an item is lost":                   {"lost", func(k *tale) { everywhere(k, func(i []Item) []Item { return without(i, 5) }) }},
		"an item is lost on one node":       {"one order", func(k *tale) { k.op(Final, 1).Items = without(k.items, 5) }},
		"the last item is lost on one node": {"one order", func(k *tale) { k.op(Final, 1).Items = k.items[:11] }},
		"a walk leaves an item out":         {"one order", func(k *tale) { k.op(Walk, 0).Items = without(k.items, 2) }},
		"a walk finds an item twice":        {"one order", func(k *tale) { k.op(Walk, 0).Items = slices.Insert(slices.Clone(k.items), 2, k.items[2]) }},
		"a node is not asked at the end":    {"final read", func(k *tale) { k.op(Final, 1).Result = Unknown }},
		"an item is there twice": {"doubled", func(k *tale) {
			everywhere(k, func(i []Item) []Item { return slices.Insert(slices.Clone(i), 5, Item{late.Key, i[3].ID, i[3].Sum}) })
		}},
		"an item is under another key": {"doubled", func(k *tale) { everywhere(k, func(i []Item) []Item { i = slices.Clone(i); i[3].Key += "x"; return i }) }},
		"two items changed places": {"order", func(k *tale) {
			everywhere(k, func(i []Item) []Item { i = slices.Clone(i); i[3], i[4] = i[4], i[3]; return i })
		}},
		"nodes have different orders": {"one order", func(k *tale) { i := k.op(Final, 1).Items; i[3], i[4] = i[4], i[3] }},
		"nobody sent it": {"phantom", func(k *tale) {
			everywhere(k, func(i []Item) []Item { return slices.Insert(slices.Clone(i), 5, Item{late.Key, "x-1", "00"}) })
		}},
		"it has other bytes": {"bytes", func(k *tale) { everywhere(k, func(i []Item) []Item { i = slices.Clone(i); i[3].Sum = "00"; return i }) }},
		"it is another one's bytes": {"bytes", func(k *tale) {
			everywhere(k, func(i []Item) []Item {
				i = slices.Clone(i)
				i[3], i[4] = Item{i[3].Key, i[4].ID, i[4].Sum}, Item{i[4].Key, i[3].ID, i[3].Sum}
				return i
			})
		}},
		"a refused item is there": {"refused", func(k *tale) { k.op(Post, 3).Result = Fail }},
		"an unknown item was seen and is gone": {"lost", func(k *tale) {
			k.op(Post, 3).Result = Unknown
			k.op(Post, 3).Items[0].Key = ""
			everywhere(k, func(i []Item) []Item { return without(i, 3) })
		}},
		"half a bulk": {"bulk", func(k *tale) {
			k.op(Bulk, 0).Result = Unknown
			everywhere(k, func(i []Item) []Item { return without(i, 10) })
		}},
		"the first part of a bulk is not there": {"bulk", func(k *tale) {
			k.op(Bulk, 0).Result = Unknown
			everywhere(k, func(i []Item) []Item { return without(i, 9) })
		}},
		"a stable answer lacks an item":       {"stable", func(k *tale) { k.op(List, 0).Items = without(k.items[:5], 2) }},
		"a stable answer lacks its last item": {"stable", func(k *tale) { k.op(List, 0).Items = k.items[:4] }},
		"a stable answer holds what is gone": {"lost", func(k *tale) {
			k.op(List, 0).Items = slices.Insert(slices.Clone(k.items[:5]), 4, Item{Key: "2026/03/04/05/06/03/500/BBB01"})
		}},
		"an answer is out of order":                {"order", func(k *tale) { i := k.op(List, 1).Items; i[3], i[4] = i[4], i[3] }},
		"an answer is out of range":                {"range", func(k *tale) { k.op(List, 1).Hi = k.items[5].Key }},
		"a whole answer lacks an acknowledged one": {"incomplete", func(k *tale) { k.op(List, 1).Items = k.items[:6] }},
		"an acknowledged item is 404":              {"read your write", func(k *tale) { k.op(Get, 0).Result, k.op(Get, 0).Status = Fail, 404 }},
		"an item is read with other bytes":         {"bytes", func(k *tale) { k.op(Get, 0).Items[0].Sum = "00" }},
		"a horizon goes back":                      {"horizon", func(k *tale) { k.op(List, 2).Horizon, k.op(List, 2).Seen = k.items[3].Key, "" }},
		"a horizon is below what was brought":      {"horizon", func(k *tale) { k.op(List, 2).Seen = beyond }},
		"keys of one client fall":                  {"key", func(k *tale) { k.op(Post, 4).Items[0].Key = k.items[0].Key + "0" }},
		"a key is not above Hub-After":             {"key", func(k *tale) { k.op(Post, 4).After = k.items[4].Key }},
		"a key is from another time":               {"key", func(k *tale) { k.op(Post, 4).Begin, k.op(Post, 4).End = sec(8), sec(8.1) }},
		"the bucket lacks an item":                 {"archive", func(k *tale) { k.op(Stored, 0).Items = without(k.items, 4) }},
		"the bucket has an item twice":             {"doubled", func(k *tale) { k.op(Stored, 0).Items = append(slices.Clone(k.items), k.items[2]) }},
		"a follower misses an item":                {"follow", func(k *tale) { k.op(Follow, 1).Items = k.items[5:] }},
		"a follower misses the end":                {"follow", func(k *tale) { k.op(Follow, 1).Items = k.items[4:11] }},
		"a follower is told twice":                 {"follow", func(k *tale) { k.op(Follow, 1).Items = k.items[3:] }},
		"a webhook leaves an item out":             {"webhook", func(k *tale) { k.op(Deliver, 11).Result = Fail }},
		"a webhook goes on before it was taken":    {"webhook order", func(k *tale) { k.op(Deliver, 5).End = sec(19) }},
		"a webhook calls out of order":             {"webhook order", func(k *tale) { a, b := k.op(Deliver, 5), k.op(Deliver, 6); a.Items, b.Items = b.Items, a.Items }},
		"a webhook repeats without need": {"webhook again", func(k *tale) {
			op := *k.op(Deliver, 5)
			op.Begin, op.End = sec(100), sec(101)
			k.h.Ops = append(k.h.Ops, op)
		}},
		"a webhook repeats too much after a fault": {"webhook again", func(k *tale) {
			for n := range 3 {
				k.op(Deliver, n).Begin, k.op(Deliver, n).End = sec(4+float64(n)/10), sec(4.05+float64(n)/10)
			}
			op := *k.op(Deliver, 2)
			op.Begin, op.End = sec(12), sec(13)
			k.h.Ops = append(k.h.Ops, op)
		}},
		"an answer is 500": {"status", func(k *tale) { k.op(List, 1).Status, k.op(List, 1).Result = 500, Fail }},
		"a write is answered 500": {"status", func(k *tale) {
			k.h.Ops = append(k.h.Ops, Op{Proc: "v", Kind: Post, Channel: telling, Status: 500, Result: Unknown, Items: []Item{{ID: "v-1", Sum: "0"}}})
		}},
	}
	for what, c := range cases {
		k := newTale()
		c.harm(k)
		v := Judge(k.h)
		if v.Broken[c.rule] == 0 {
			t.Errorf("%s: the judge found %v, not %q", what, v.Broken, c.rule)
		} else if v.Good() || !strings.Contains(v.String(), c.rule+": ") {
			t.Errorf("%s: it is not told: %v", what, v)
		}
	}
}

// TestJudgeAllows: what is not known may be there or not; an answer that says so may lack items; around a fault a webhook may repeat.
func TestJudgeAllows(t *testing.T) {
	for what, change := range map[string]func(k *tale){
		"an unknown item is there": func(k *tale) { k.op(Post, 3).Result = Unknown; k.op(Post, 3).Items[0].Key = "" },
		"an unknown bulk is there": func(k *tale) { k.op(Bulk, 0).Result = Unknown },
		"an unknown item is not there": func(k *tale) {
			k.h.Ops = append(k.h.Ops, Op{Proc: "v", Kind: Post, Channel: telling, Result: Unknown, Items: []Item{{ID: "v-1", Sum: "0"}}})
		},
		"an honest answer lacks an item":      func(k *tale) { k.op(List, 1).Items, k.op(List, 1).Silent = k.items[:3], true },
		"an answer to a question that failed": func(k *tale) { k.op(List, 1).Result, k.op(List, 1).Status, k.op(List, 1).Items = Unknown, 503, nil },
		"a webhook repeats after a fault": func(k *tale) {
			op := *k.op(Deliver, 8)
			op.Begin, op.End = sec(12), sec(13)
			k.h.Ops = append(k.h.Ops, op)
		},
		"a webhook repeats once more what it could not write down before the next fault": func(k *tale) {
			for _, again := range []struct {
				n  int
				at float64
			}{{8, 15.5}, {9, 16}, {8, 19}} {
				op := *k.op(Deliver, again.n)
				op.Begin, op.End = sec(again.at), sec(again.at+0.05)
				k.h.Ops = append(k.h.Ops, op)
			}
		},
		"a webhook repeats what was not answered": func(k *tale) {
			op := *k.op(Deliver, 11)
			op.Begin, op.End = sec(100), sec(101)
			k.op(Deliver, 11).Silent = true
			k.h.Ops = append(k.h.Ops, op)
		},
		"an unstable answer shows what is given up": func(k *tale) {
			k.h.Ops = append(k.h.Ops, Op{Proc: "v", Kind: Post, Channel: telling, Result: Unknown, Items: []Item{{ID: "v-1", Sum: "0"}}})
			k.op(List, 1).Items = append(k.op(List, 1).Items, Item{Key: "2026/03/04/05/06/06/500/BBB01", ID: "v-1", Sum: "0"})
		},
		"another node gives a lower key": func(k *tale) { k.op(Post, 4).Node = 7 },
	} {
		k := newTale()
		change(k)
		if v := Judge(k.h); !v.Good() {
			t.Errorf("%s: %v", what, v)
		}
	}
}

// TestLoad: what was written down is read as it was.
func TestLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	rec, err := NewRecorder(dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	k := newTale()
	for _, op := range k.h.Ops {
		rec.Add(op)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.Start = k.h.Start
	got, _ := json.Marshal(Judge(h))
	want, _ := json.Marshal(Judge(k.h))
	if string(got) != string(want) || len(h.Ops) != len(k.h.Ops) || h.Hubs != 2 {
		t.Errorf("read: %s, written: %s", got, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "w.jsonl"), []byte("{\"proc\": \"w\"}\n{\"pro"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a history that was cut is read")
	}
}

func TestBody(t *testing.T) {
	a, b := makeBody("w-1", 1000), makeBody("w-2", 1000)
	if len(a) != 1004 || seen("k", a).ID != "w-1" || seen("k", a) != seen("k", makeBody("w-1", 1000)) || seen("k", a).Sum == seen("k", b).Sum {
		t.Errorf("%.80s", a)
	}
}

// TestNarrow: what an answer with a limit claims to be whole about.
func TestNarrow(t *testing.T) {
	items := []Item{{Key: "b"}, {Key: "c"}, {Key: "d"}}
	for what, c := range map[string]struct {
		op        Op
		n         int
		backwards bool
		lo, hi    string
	}{
		"as many as asked for, the last":      {Op{Path: "latest/3", Items: items}, 3, true, "b", "z"},
		"as many as asked for, the first":     {Op{Path: "earliest/3", Items: items}, 3, false, "a", after("d")},
		"fewer":                               {Op{Path: "latest/4?stable=false", Items: items}, 4, true, "a", "z"},
		"fewer bodies, stable":                {Op{Path: "latest/4?bulk=true", Stable: true, Items: items}, 4, true, "a", "z"},
		"fewer bodies, unstable":              {Op{Path: "latest/4?stable=false&bulk=true", Items: items}, 4, true, "b", "z"},
		"fewer bodies, unstable, the first":   {Op{Path: "earliest/4?stable=false&bulk=true", Items: items}, 4, false, "a", after("d")},
		"no body, unstable, claims all there": {Op{Path: "latest/4?stable=false&bulk=true"}, 4, true, "a", "z"},
	} {
		c.op.Lo, c.op.Hi = "a", "z"
		if narrow(&c.op, c.n, c.backwards); c.op.Lo != c.lo || c.op.Hi != c.hi {
			t.Errorf("%s: from %q to %q, want %q to %q", what, c.op.Lo, c.op.Hi, c.lo, c.hi)
		}
	}
}
