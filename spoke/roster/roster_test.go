package roster

import "testing"

func TestRule(t *testing.T) {
	for _, c := range []struct {
		rule    Rule
		n, w, r int
	}{{Half, 1, 1, 1}, {Half, 2, 1, 2}, {Half, 3, 2, 2}, {Half, 4, 2, 3}, {Half, 5, 3, 3}, {Majority, 1, 1, 1}, {Majority, 2, 2, 1}, {Majority, 3, 2, 2}, {Majority, 4, 3, 2}, {Majority, 5, 3, 3}} {
		if w, r := c.rule.Write(c.n), c.rule.Read(c.n); w != c.w || r != c.r {
			t.Errorf("%s of %d: W %d R %d, want %d %d", c.rule, c.n, w, r, c.w, c.r)
		}
		if c.rule.Write(c.n)+c.rule.Read(c.n) <= c.n {
			t.Errorf("%s of %d: writers and readers need not meet", c.rule, c.n)
		}
	}
}
