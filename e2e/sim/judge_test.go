package sim

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"timehub/hub"
)

func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	key := func(n int) hub.Key { return hub.KeyAt(int64(n), "") }
	for range 200 {
		var s spans
		var in [100]bool
		for range 20 {
			a, b := r.IntN(100), r.IntN(100)
			s = s.with(span{key(a), key(b)})
			for i := a; i < b; i++ {
				in[i] = true
			}
			for i, want := range in {
				if s.has(key(i)) != want {
					t.Fatalf("%v has %d: %v", s, i, !want)
				}
			}
			for i := 1; i < len(s); i++ {
				if !s[i-1].to.Less(s[i].from) {
					t.Fatalf("%v: ranges touch", s)
				}
			}
		}
	}
}

func TestBodies(t *testing.T) {
	for _, size := range []int{0, 1, 7, 100, 5000} {
		b := body(17, 4, size)
		if id, part, ok := owner(b); !ok || id != 17 || part != 4 || len(b) < size {
			t.Errorf("size %d: %d %d %v, %d bytes", size, id, part, ok, len(b))
		}
	}
	for _, bad := range []string{"", "x", "1|", "1.|", ".2|", "a.b|"} {
		if _, _, ok := owner([]byte(bad)); ok {
			t.Errorf("%q has an owner", bad)
		}
	}
}

// game is a ledger with one channel.
type game struct {
	*Ledger
}

func k(ms int64) hub.Key { return hub.KeyAt(ms, "00000a") }

func (g game) write(ms int64, f Fate) {
	w := g.Writing("a", false, false, 20)
	key := hub.Key{}
	if ms > 0 {
		key = k(ms)
	}
	g.Wrote(w, key, f, nil)
}

func (g game) bulk(ms int64, parts int) {
	g.Wrote(g.Writing("a", true, false, make([]int, parts)...), k(ms), Acknowledged, nil)
}

// all tells of an answer to a question for everything.
func (g game) all(stable bool, horizon int64, keys ...hub.Key) {
	h := hub.Last(k(horizon).Time())
	g.Answered(g.Asking(Ask{Channel: "a", From: hub.MinKey, To: hub.MaxKey, Stable: stable}), Answer{Keys: keys, Horizon: h, Top: h, Floor: hub.MinKey})
}

func (g game) horizon(ms int64) {
	_, _ = g.Horizon(func() (hub.Key, error) { return hub.Last(k(ms).Time()), nil })
}

// TestJudge: what is right passes, and each broken promise is named.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		play func(g game)
		want string // "": nothing is wrong
	}{
		"all is well": {func(g game) {
			g.write(1, Acknowledged)
			g.write(2, Doubtful)
			g.write(3, Refused)
			g.bulk(4, 2)
			g.all(true, 5, k(1), hub.BulkKey(k(4), 0), hub.BulkKey(k(4), 1))
			g.Begin("")
			g.write(6, Acknowledged)
			g.all(false, 0, k(1), hub.BulkKey(k(4), 0), hub.BulkKey(k(4), 1), k(6))
		}, ""},
		"a doubtful write may show up in the next life": {func(g game) {
			g.write(2, Doubtful)
			g.all(true, 1)
			g.Begin("")
			g.all(true, 3, k(2))
		}, ""},
		"but not if the horizon had passed it": {func(g game) {
			g.write(2, Doubtful)
			g.horizon(2)
			g.Begin("")
			g.all(true, 3, k(2))
		}, "whose failure was on record"},
		"nor in the same life":     {func(g game) { g.write(2, Doubtful); g.all(true, 3, k(2)) }, "answered 503 is in a stable answer of the same life"},
		"an unstable answer may":   {func(g game) { g.write(2, Doubtful); g.all(false, 0, k(2)) }, ""},
		"lost":                     {func(g game) { g.write(1, Acknowledged); g.all(false, 0) }, "missing"},
		"lost from stable answers": {func(g game) { g.write(1, Acknowledged); g.all(true, 1) }, "missing"},
		"above the horizon":        {func(g game) { g.write(2, Acknowledged); g.all(true, 1) }, ""},
		"refused, and there":       {func(g game) { g.write(1, Refused); g.all(false, 0, k(1)) }, "refused shows up"},
		"seen, then refused": {func(g game) {
			w := g.Writing("a", false, false, 1)
			g.all(true, 1, k(1))
			g.Wrote(w, k(1), Refused, nil)
		}, "refused is in a stable answer"},
		"acknowledged too late": {func(g game) {
			w := g.Writing("a", false, false, 1)
			g.all(true, 5)
			g.Wrote(w, k(1), Acknowledged, nil)
		}, "does not hold it"},
		"stable answers differ":        {func(g game) { g.all(true, 5); g.all(true, 6, k(1)) }, "does not hold it"},
		"stable answers differ, later": {func(g game) { g.all(true, 5, k(1)); g.all(true, 6) }, "missing"},
		"an unstable one differs":      {func(g game) { g.all(true, 5, k(1)); g.all(false, 0) }, "missing"},
		"half a bulk":                  {func(g game) { g.bulk(1, 2); g.all(false, 0, hub.BulkKey(k(1), 0)) }, "missing"},
		"half a bulk that nobody promised": {func(g game) {
			g.Wrote(g.Writing("a", true, false, 1, 1), k(1), Unknown, nil)
			g.all(false, 0, hub.BulkKey(k(1), 0))
		}, "part 0 of a bulk is there, part 1 is not"},
		"the horizon goes back":         {func(g game) { g.horizon(5); g.Begin(""); g.horizon(4) }, "horizon went back"},
		"an answer's horizon goes back": {func(g game) { g.horizon(5); g.all(true, 4) }, "horizon went back"},
		"keys do not rise":              {func(g game) { g.write(5, Acknowledged); g.write(4, Acknowledged) }, "had been seen before it began"},
		"a key below a horizon":         {func(g game) { g.horizon(5); g.write(5, Acknowledged) }, "had been seen before it began"},
		"a key twice": {func(g game) {
			v, w := g.Writing("a", false, false, 1), g.Writing("a", false, false, 1)
			g.Wrote(v, k(5), Acknowledged, nil)
			g.Wrote(w, k(5), Acknowledged, nil)
		}, "the same key"},
		"wrong order":         {func(g game) { g.all(false, 0, k(2), k(1)) }, "comes after"},
		"twice in one answer": {func(g game) { g.all(false, 0, k(2), k(2)) }, "comes after"},
		"above its horizon":   {func(g game) { g.all(true, 1, k(2)) }, "above the horizon"},
		"nobody's key":        {func(g game) { g.all(true, 5, k(2)); g.Finish() }, "nobody knows"},
		"lives out of order": {func(g game) {
			w := g.Writing("a", false, false, 1)
			g.Begin("")
			g.write(5, Acknowledged)
			g.Wrote(w, k(6), Unknown, nil)
			g.Finish()
		}, "of life 0"},
		"cannot be read": {func(g game) { g.write(1, Acknowledged); g.Read(g.Reading("a", k(1)), nil, hub.MinKey) }, "cannot be read"},
		"other bytes": {func(g game) {
			g.write(1, Acknowledged)
			g.Read(g.Reading("a", k(1)), append(body(0, 0, 19), 'x'), hub.MinKey)
		}, "other bytes"},
		"nobody's bytes":       {func(g game) { g.Read(g.Reading("a", k(1)), []byte("?"), hub.MinKey) }, "nobody wrote"},
		"swept and archived":   {func(g game) { g.write(1, Acknowledged); g.Archived("a", k(1)); g.swept(k(1).After()) }, ""},
		"swept, not archived":  {func(g game) { g.write(1, Acknowledged); g.swept(k(1).After()) }, "missing"},
		"archived, not swept":  {func(g game) { g.write(1, Acknowledged); g.Archived("a", k(1)); g.swept(k(1)) }, "missing"},
		"more than asked for":  {func(g game) { g.latest(1, k(2), k(1)) }, "were asked for"},
		"a page":               {func(g game) { g.write(1, Acknowledged); g.write(2, Acknowledged); g.latest(1, k(2)) }, ""},
		"a page with a hole":   {func(g game) { g.write(1, Acknowledged); g.write(2, Acknowledged); g.latest(1, k(1)) }, "missing"},
		"a page that is short": {func(g game) { g.write(1, Acknowledged); g.write(2, Acknowledged); g.latest(5, k(2)) }, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := game{NewLedger([]string{"a"}, nil)}
				c.play(g)
				first, _, _ := strings.Cut(g.Verdict(), "\n")
				if c.want == "" && first != "" || !strings.Contains(first, c.want) {
					t.Errorf("%q, want %q", first, c.want)
				}
			})
		})
	}
}

func (g game) swept(floor hub.Key) {
	g.Answered(g.Asking(Ask{Channel: "a", From: hub.MinKey, To: hub.MaxKey}), Answer{Floor: floor})
}

func (g game) latest(n int, keys ...hub.Key) {
	g.Answered(g.Asking(Ask{Channel: "a", Kind: Latest, N: n}), Answer{Keys: keys, Floor: hub.MinKey})
}
