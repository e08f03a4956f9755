package hub

import (
	"strings"
	"testing"
	"time"
)

func TestParsePath(t *testing.T) {
	at := func(y, mo, d, h, mi, s, ms int) time.Time {
		return time.Date(y, time.Month(mo), d, h, mi, s, ms*1e6, time.UTC)
	}
	second := at(2021, 3, 4, 5, 6, 7, 0)
	milli := at(2021, 3, 4, 5, 6, 7, 89)
	for _, c := range []struct {
		in   string
		want Path
	}{
		{"2021/03/04", Path{Unit: Day, Start: at(2021, 3, 4, 0, 0, 0, 0)}},
		{"2021/3/4", Path{Unit: Day, Start: at(2021, 3, 4, 0, 0, 0, 0)}},
		{"2021/03/04/05", Path{Unit: Hour, Start: at(2021, 3, 4, 5, 0, 0, 0)}},
		{"2021/03/04/05/06", Path{Unit: Minute, Start: at(2021, 3, 4, 5, 6, 0, 0)}},
		{"2021/03/04/05/06/07", Path{Unit: Second, Start: second}},
		{"2021/03/04/05/06/07/089", Path{Unit: Millisecond, Start: milli}},
		{"2021/3/4/5/6/7/89/x", Path{Unit: ItemUnit, Start: milli, Hash: "x"}},
		{"2021/03/04/05/06/07/089/a%2Fb", Path{Unit: ItemUnit, Start: milli, Hash: "a/b"}},
		{"2021/03/04/05/06/07/089/..%2f", Path{Unit: ItemUnit, Start: milli, Hash: "../"}},
		{"2021/03/04/05/06/07/089/next", Path{Unit: ItemUnit, Start: milli, Hash: "next"}},
		{"2021/03/04/05/06/07/089/x/next", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Next}},
		{"2021/03/04/05/06/07/089/x/n", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Next}},
		{"2021/03/04/05/06/07/089/x/nonsense/3", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Next, N: 3, HasN: true}},
		{"2021/03/04/05/06/07/089/x/previous", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Previous}},
		{"2021/03/04/05/06/07/089/x/%7C/2", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Previous, N: 2, HasN: true}},
		{"2021/03/04/05/06/07/089/x/p/-7", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Previous, N: -7, HasN: true}},
		{"2021/03/04/05/06/07/089/x/next/99999999999999999999", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Next, N: 1<<63 - 1, HasN: true}},
		{"2021/03/04/05/06/07/089/x/ws", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Websocket}},
		{"2021/03/04/05/06/07/089/x/events", Path{Unit: ItemUnit, Start: milli, Hash: "x", Verb: Events}},
		{"2021/03/04/05/06/07/next/4", Path{Unit: Second, Start: second, Verb: Next, N: 4, HasN: true}},
		{"2021/03/04/05/06/07/previous/4", Path{Unit: Second, Start: second, Verb: Previous, N: 4, HasN: true}},
		{"2021/03/04/ws", Path{Unit: Day, Start: at(2021, 3, 4, 0, 0, 0, 0), Verb: Websocket}},
		{"2020/02/29", Path{Unit: Day, Start: at(2020, 2, 29, 0, 0, 0, 0)}},
	} {
		if got, err := ParsePath(c.in); err != nil || got != c.want {
			t.Errorf("%q:\n got %+v, %v\nwant %+v", c.in, got, err, c.want)
		}
	}
}

func TestParsePathRefuses(t *testing.T) {
	for in, kind := range map[string]Kind{
		"": NotFound, "2021": NotFound, "2021/03": NotFound, "latest": NotFound, "2021/03/xx": NotFound, "2021/03/04/x": NotFound,
		"2021/03/04/": NotFound, "2021/03/04/05/06/07/089/": NotFound, "2021/03/04/next": NotFound, "2021/03/04/05/06/07/next": NotFound,
		"2021/03/04/05/06/07/089/x/y": NotFound, "2021/03/04/05/06/07/089/x/next/y": NotFound, "2021/03/04/05/06/07/089/x/next/1/2": NotFound,
		"2021/03/04/events": NotFound, "-021/03/04": NotFound, "2021/03/04/05/06/07/089/%zz": NotFound, "2021/03/04/05/06/07/089/x/next/": NotFound,
		"2021/03/04/05/06/next/4": NotFound, "2021/+3/04": NotFound, "2021/03/04/05/06/07/089/x/next/--1": NotFound,
		"2021/13/01": Invalid, "2021/0/1": Invalid, "2021/02/30": Invalid, "2021/02/29/05": Invalid, "2021/01/01/24": Invalid,
		"2021/01/01/00/60": Invalid, "2021/01/01/00/00/60": Invalid, "2021/01/01/00/00/00/1000": Invalid, "10000/01/01": Invalid,
		"2021/02/30/00/00/00/000/x/next/2": Invalid,
	} {
		if got, err := ParsePath(in); !Is(err, kind) {
			t.Errorf("%q: %+v, %v; want %v", in, got, err, kind)
		}
	}
	_, err := ParsePath("2021/02/30")
	if err == nil || !strings.Contains(err.Error(), "day 30") || !strings.Contains(err.Error(), "1 to 28") {
		t.Errorf("the message names neither field nor range: %v", err)
	}
}

func TestWindow(t *testing.T) {
	at := time.Date(2021, 12, 31, 23, 59, 59, 999e6, time.UTC)
	for u, want := range map[Unit][3]string{
		Day:    {"2021/12/31", "2022/01/01", "2021/12/30"},
		Hour:   {"2021/12/31/23", "2022/01/01/00", "2021/12/31/22"},
		Minute: {"2021/12/31/23/59", "2022/01/01/00/00", "2021/12/31/23/58"},
		Second: {"2021/12/31/23/59/59", "2022/01/01/00/00/00", "2021/12/31/23/59/58"},
	} {
		w := WindowAt(at, u)
		if got := [3]string{w.String(), w.Next().String(), w.Previous().String()}; got != want {
			t.Errorf("%v: %v", u, got)
		}
		if k := NewKey(at, "zzzzzz"); k.Less(w.From()) || !k.Less(w.To()) || Last(at).Less(w.From()) || !Last(at).Less(w.To()) {
			t.Errorf("%v does not hold its last millisecond", u)
		}
		if w.To() != w.Next().From() {
			t.Errorf("%v: a seam between windows", u)
		}
	}
	for in, ok := range map[string]bool{"2021/12/31/23/59": true, "2021/12/31/23/59/59": true, "2021/12/31/23": false, "2021/12/31/23/5": false, "": false} {
		if w, err := ParseWindow(in); (err == nil) != ok || ok && w.String() != in {
			t.Errorf("%q: %v, %v", in, w, err)
		}
	}
	if got := WindowAt(time.Date(0, 3, 4, 5, 6, 7, 0, time.UTC), Day).String(); got != "0000/03/04" {
		t.Errorf("year 0: %s", got)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"2021/03/04", "2021/3/4/5/6/7/89/x/next/5", "2021/03/04/05/06/07/next/3", "2021/13/01", "//", "2021/03/04/05/06/07/089/%2e%2e%2f/ws"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			if k := KindOf(err); k != NotFound && k != Invalid {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if p.Unit == ItemUnit {
			if k, err := ParseKey(p.Key().String()); err != nil || k != p.Key() {
				t.Fatalf("%q: key %v does not come back: %v, %v", s, p.Key(), k, err)
			}
			return
		}
		again, err := ParsePath(p.Window().String())
		if err != nil || again.Start != p.Start || again.Unit != p.Unit {
			t.Fatalf("%q: %+v, %v", s, again, err)
		}
	})
}
