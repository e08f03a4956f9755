package channel

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"timehub/hub"
)

// keys makes keys of numbers: 7 is millisecond 7.
func keys(text string) []hub.Key {
	var all []hub.Key
	for f := range strings.FieldsSeq(text) {
		var ms int64
		var hash string
		if n, _ := fmt.Sscanf(f, "%d%s", &ms, &hash); n == 0 {
			panic(f)
		}
		all = append(all, hub.KeyAt(ms, hash))
	}
	return all
}

func show(all []hub.Key) string {
	var b strings.Builder
	for _, k := range all {
		fmt.Fprintf(&b, " %d%s", k.Millis(), k.Hash())
	}
	return strings.TrimSpace(b.String())
}

func TestMergeKeys(t *testing.T) {
	for _, c := range []struct {
		a, b    string
		reverse bool
		limit   int
		want    string
		more    bool
	}{
		{"", "", false, 0, "", false},
		{"1 2 3", "", false, 0, "1 2 3", false},
		{"", "1 2 3", false, 2, "1 2", true},
		{"1 3 5", "2 4", false, 0, "1 2 3 4 5", false},
		{"1 2 3", "1 2 3", false, 0, "1 2 3", false},
		{"1 2 3", "1 2 3", false, 3, "1 2 3", false},
		{"1 2 3", "1 2 4", false, 3, "1 2 3", true},
		{"5 3 1", "4 3 2", true, 0, "5 4 3 2 1", false},
		{"5 3 1", "4 3 2", true, 3, "5 4 3", true},
		{"1a 1b", "1B 1~", false, 0, "1B 1a 1b 1~", false},
		{"1 2", "3 4", false, 2, "1 2", true},
		{"3 4", "1 2", false, 4, "1 2 3 4", false},
	} {
		a, b := keys(c.a), keys(c.b)
		got, more := mergeKeys(a, b, c.reverse, c.limit)
		if show(got) != c.want || more != c.more {
			t.Errorf("mergeKeys(%q, %q, %v, %d) = %q %v, want %q %v", c.a, c.b, c.reverse, c.limit, show(got), more, c.want, c.more)
		}
		if show(a) != c.a || show(b) != c.b {
			t.Errorf("mergeKeys(%q, %q) changed its arguments", c.a, c.b)
		}
	}
}

// sequence yields items whose data is name; a key of millisecond 666 is an error.
func sequence(text, name string, started *bool) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		if started != nil {
			*started = true
		}
		for _, k := range keys(text) {
			if k.Millis() == 666 {
				yield(hub.Sealed{}, errors.New("broken "+name))
				return
			}
			if !yield(hub.Sealed{Key: k, Data: []byte(name)}, nil) {
				return
			}
		}
	}
}

func TestMergeItems(t *testing.T) {
	for _, c := range []struct {
		a, b    string
		late    string
		reverse bool
		take    int
		want    string
		started bool
	}{
		{a: "1 3 5", b: "2 4", want: "1a 2b 3a 4b 5a", started: true},
		{a: "1 2 3", b: "2 3 4", want: "1a 2a 3a 4b", started: true},
		{a: "", b: "1 2", want: "1b 2b", started: true},
		{a: "1 2", b: "", want: "1a 2a", started: true},
		{a: "1 666", b: "2", want: "1a broken a", started: true},
		{a: "1 3", b: "2 666", want: "1a 2b broken b", started: true},
		{a: "9 8 7", b: "6 5", late: "7", reverse: true, take: 2, want: "9a 8a", started: false},
		{a: "9 8 7", b: "6 5", late: "7", reverse: true, take: 5, want: "9a 8a 7a 6b 5b", started: true},
		{a: "9 8 7", b: "6 5", late: "7", reverse: true, take: 3, want: "9a 8a 7a", started: false},
		{a: "9 8 4", b: "6 5", late: "7", reverse: true, want: "9a 8a 6b 5b 4a", started: true},
		{a: "", b: "6 5", late: "7", reverse: true, want: "6b 5b", started: true},
		{a: "9 666", b: "6 5", late: "7", reverse: true, want: "9a broken a", started: false},
	} {
		var started bool
		b := source{items: sequence(c.b, "b", &started)}
		if c.late != "" {
			b.late = &keys(c.late)[0]
		}
		var got []string
		for i, err := range mergeItems(source{items: sequence(c.a, "a", nil)}, b, c.reverse) {
			if err != nil {
				got = append(got, err.Error())
				break
			}
			got = append(got, fmt.Sprintf("%d%s", i.Key.Millis(), i.Data))
			if len(got) == c.take {
				break
			}
		}
		if s := strings.Join(got, " "); s != c.want || started != c.started {
			t.Errorf("%+v: got %q, started %v", c, s, started)
		}
	}
}

func TestMergeItemsWithout(t *testing.T) {
	for range mergeItems(source{}, source{}, false) {
		t.Error("nothing yields something")
	}
	n := 0
	for range mergeItems(source{}, source{items: sequence("1 2", "b", nil)}, false) {
		n++
	}
	for range mergeItems(source{items: sequence("1 2", "a", nil)}, source{}, false) {
		n++
	}
	if n != 4 {
		t.Errorf("one source alone yields %d of 4", n)
	}
}

func TestUnion(t *testing.T) {
	a, b := &hub.Channel{Name: "a"}, &hub.Channel{Name: "B"}
	answers := []Answer{{Page: hub.Page{Keys: keys("1 2 5"), Silent: 1}}, {Page: hub.Page{Keys: keys("2 3"), More: true}}}
	for _, c := range []struct {
		q    Search
		want string
	}{
		{Search{Kind: InWindow}, "a1 B2 a2 B3 a5"},
		{Search{Kind: Earliest, N: 3}, "a1 B2 a2"},
		{Search{Kind: Next, N: 9}, "a1 B2 a2 B3 a5"},
		{Search{Kind: Latest, N: 2}, "B3 a5"},
		{Search{Kind: Previous, N: 4}, "B2 a2 B3 a5"},
	} {
		got := union([]*hub.Channel{a, b}, answers, c.q, TagAnswer{})
		var s []string
		for _, h := range got.Hits {
			s = append(s, h.Channel.Name+show([]hub.Key{h.Key}))
		}
		if strings.Join(s, " ") != c.want || !got.More || got.Silent != 1 {
			t.Errorf("%+v: %v, more %v, silent %d; want %s", c.q, s, got.More, got.Silent, c.want)
		}
	}
}

func TestMergeTagged(t *testing.T) {
	a, b := &hub.Channel{Name: "a"}, &hub.Channel{Name: "b"}
	for _, c := range []struct {
		a, b  string
		order hub.Order
		want  string
	}{
		{"1 3", "1 2", hub.Ascending, "1a 1b 2b 3a"},
		{"3 1", "2 1", hub.Descending, "3a 2b 1b 1a"},
		{"", "2", hub.Ascending, "2b"},
		{"1 666", "2", hub.Ascending, "1a broken a"},
		{"666", "2", hub.Ascending, "broken a"},
	} {
		streams := []tagStream{{a, sequence(c.a, "a", nil)}, {b, sequence(c.b, "b", nil)}}
		var got []string
		for i, err := range mergeTagged(streams, c.order) {
			if err != nil {
				got = append(got, err.Error())
				continue
			}
			got = append(got, fmt.Sprintf("%d%s", i.Key.Millis(), i.Channel.Name))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: got %q", c, s)
		}
	}
	for range mergeTagged(slices.Repeat([]tagStream{{a, sequence("1 2 3", "a", nil)}}, 3), hub.Ascending) {
		break // a consumer that stops must leave nothing running
	}
}
