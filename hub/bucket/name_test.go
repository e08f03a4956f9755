package bucket

import (
	"strings"
	"testing"

	"timehub/hub"
)

func TestCheckName(t *testing.T) {
	good := []string{"a", "a/b", ".hub/channel/x", "orders/2021/03/04/05/06/07/089/aZ3k9Q", "…", "a b", "a..b", "..a", "a.", "~", strings.Repeat("x", 1024), "a\\b", "%2f"}
	bad := []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/..", "../a", "a\x00b", "a\n", "\x7f", "a\u0085", "\xff", strings.Repeat("x", 1025)}
	for _, name := range good {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range bad {
		if err := CheckName(name); !hub.Is(err, hub.Invalid) {
			t.Errorf("%q: want Invalid, have %v", name, err)
		}
	}
}

func TestSection(t *testing.T) {
	for _, c := range []struct {
		offset, n, size, want int64
		bad                   bool
	}{
		{0, -1, 0, 0, false}, {0, 5, 0, 0, false}, {1, 1, 0, 0, true}, {0, -1, 9, 9, false}, {3, -1, 9, 6, false}, {3, 2, 9, 2, false},
		{8, 5, 9, 1, false}, {9, 1, 9, 0, true}, {-1, 1, 9, 0, true}, {3, 0, 9, 0, false}, {3, 1 << 62, 9, 6, false},
	} {
		have, err := Section("x", c.offset, c.n, c.size)
		if have != c.want || hub.Is(err, hub.RangeInvalid) != c.bad {
			t.Errorf("%+v: have %d, %v", c, have, err)
		}
	}
}
