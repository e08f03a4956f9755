package replicate

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"timehub/hub"
)

var update = flag.Bool("update", false, "write the golden files")

// TestStateFormat: the payload of a cursor is a format that older and newer hubs read.
func TestStateFormat(t *testing.T) {
	const golden = "testdata/state.golden"
	s := state{
		Source: "http://other.example/channel/orders", Since: 1614834367089, Lives: 2, Begun: true, Items: 17, LastItem: keyText, Error: "the source sent nothing for 30s",
		ErrorTime: "2021-03-04T05:06:07.089Z", Gone: []Range{{From: keyText, To: "2021/03/06/00/00/00/012/00000h"}},
	}
	if *update {
		if err := os.WriteFile(golden, append(s.encode(), '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.encode()) + "\n"; got != string(want) {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := parseState(want); !reflect.DeepEqual(got, s) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{"", "null", "[]", `{"source":5}`, `{"source":"x","gone":{}}`} {
		if got := parseState([]byte(bad)); got.of(&hub.Channel{}) {
			t.Errorf("%q is the state of something: %+v", bad, got)
		}
	}
}

const keyText = "2021/03/04/05/06/07/089/aZ3k9Q"

func TestLag(t *testing.T) {
	now := time.UnixMilli(5000)
	for k, want := range map[hub.Key]int64{{}: 0, hub.KeyAt(1000, "x"): 4000, hub.KeyAt(9000, "x"): 0} {
		if got := lag(now, k); got != want {
			t.Errorf("%v: %d", k, got)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"source":"http://x/channel/y","gone":[{"from":"a","to":"b"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := parseState(in)
		if again := parseState(s.encode()); again.Source != s.Source || len(again.Gone) != len(s.Gone) {
			t.Errorf("%+v is read as %+v", s, again)
		}
	})
}

func FuzzSplitSource(f *testing.F) {
	for _, s := range []string{"http://h/channel/a", "https://[::1]:8080/x/channel/b%2f/", "//", "http://h/channel/%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		base, name, err := splitSource(in)
		if err != nil {
			return
		}
		if name == "" || strings.HasSuffix(base, "/") || !strings.HasPrefix(base, "http") {
			t.Errorf("%q: %q %q", in, base, name)
		}
	})
}
