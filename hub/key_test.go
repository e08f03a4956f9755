package hub

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKeyText(t *testing.T) {
	at := time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC)
	k := NewKey(at.Add(999*time.Microsecond), "aZ3k9Q")
	if got := k.String(); got != "2021/03/04/05/06/07/089/aZ3k9Q" {
		t.Errorf("String: %s", got)
	}
	if back, err := ParseKey(k.String()); err != nil || back != k {
		t.Errorf("ParseKey: %v, %v", back, err)
	}
	if !k.Time().Equal(at) || k.Millis() != 1614834367089 || k.Hash() != "aZ3k9Q" {
		t.Errorf("parts: %v %d %s", k.Time(), k.Millis(), k.Hash())
	}
}

func TestParseKey(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"2021/03/04/05/06/07/089/", "2021/03/04/05/06/07/089/"},
		{"2021-03-04T05:06:07.089Zhash", "2021/03/04/05/06/07/089/hash"},
		{"0000/01/01/00/00/00/000/x", "0000/01/01/00/00/00/000/x"},
		{"9999/12/31/23/59/59/999/~", "9999/12/31/23/59/59/999/~"},
		{"2020/02/29/00/00/00/000/a/b", "2020/02/29/00/00/00/000/a/b"},
		{"", ""}, {"2021/03/04/05/06/07/089", ""}, {"2021/3/4/5/6/7/89/abcdefghijk", ""}, {"2021/02/29/00/00/00/000/x", ""},
		{"2021/13/01/00/00/00/000/x", ""}, {"2021/00/01/00/00/00/000/x", ""}, {"2021/01/00/00/00/00/000/x", ""},
		{"2021/01/01/24/00/00/000/x", ""}, {"2021/01/01/00/60/00/000/x", ""}, {"+021/01/01/00/00/00/000/x", ""},
	} {
		k, err := ParseKey(c.in)
		if c.want == "" {
			if !Is(err, Invalid) {
				t.Errorf("%q: %v, %v", c.in, k, err)
			}
		} else if err != nil || k.String() != c.want {
			t.Errorf("%q: %v, %v", c.in, k, err)
		}
	}
}

func TestKeyOrder(t *testing.T) {
	at := time.UnixMilli(1614834367089)
	ordered := []Key{
		{}, KeyAt(1, "none"), First(at), NewKey(at, "0"), NewKey(at, "00000"), NewKey(at, "000000"), NewKey(at, "000000").After(),
		NewKey(at, "000000000000"), NewKey(at, "A"), NewKey(at, "a"), NewKey(at, "z"), NewKey(at, "~"), Last(at), First(at.Add(time.Millisecond)), MaxKey,
	}
	if !slices.IsSortedFunc(ordered, Key.Compare) {
		t.Error("not sorted")
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := a.Compare(b); (got < 0) != (i < j) || (got > 0) != (i > j) || a.Less(b) != (i < j) {
				t.Errorf("%v against %v: %d", a, b, got)
			}
		}
	}
	if !MinKey.Less(KeyAt(-1, "")) {
		t.Error("MinKey is not the least")
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"2021/03/04/05/06/07/089/aZ3k9Q", "2021-03-04T05:06:07.089Zx", "", strings.Repeat("9", 30), "0000/01/01/00/00/00/000/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil {
			return
		}
		if back, err := ParseKey(k.String()); err != nil || back != k {
			t.Fatalf("%q → %v → %v, %v", s, k, back, err)
		}
	})
}

func BenchmarkKeyString(b *testing.B) {
	k := NewKey(time.Now(), "aZ3k9Q")
	buf := make([]byte, 0, 64)
	for b.Loop() {
		buf = k.AppendTo(buf[:0])
	}
}
