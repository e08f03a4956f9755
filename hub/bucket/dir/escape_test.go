package dir

import (
	"strings"
	"testing"

	"timehub/hub/bucket"
)

// TestDiskNames pins the layout: people have data in it.
func TestDiskNames(t *testing.T) {
	long := strings.Repeat("x", 199)
	for _, c := range []struct{ name, want string }{
		{"a", "a.blob"},
		{"a/b", "a/b.blob"},
		{"a.blob", "a.blob.blob"},
		{"a.blob/b", "a%2eblob/b.blob"},
		{".hub/channel/orders", ".hub/channel/orders.blob"},
		{"Orders-EU/2021/03/04/05/06/07/089/aZ3k9Q", "!orders-!e!u/2021/03/04/05/06/07/089;a!z3k9!q.blob"},
		{"Orders-EU/large/2021/03/04/05/06/07/089/aZ3k9Q", "!orders-!e!u/large/2021/03/04/05/06/07;089;a!z3k9!q.blob"},
		{"ordersBatch/items/2021/03/04/05/06", "orders!batch/items/2021/03/04/05/06.blob"},
		{"a b;%!é", "a%20b%3b%25%21%c3%a9.blob"},
		{long + "yz", long + "y%/z.blob"},
		{long + " z/x", long + "%/%20z/x.blob"},
		{long + "Zz", long + "%/!zz.blob"},
	} {
		folder, file := diskName(c.name)
		if have := strings.TrimPrefix(folder+"/"+file, "/"); have != c.want {
			t.Errorf("%q\nhave %q\nwant %q", c.name, have, c.want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"a", "aZ3k9Q", "a/b", "%", "!", "é", ".blob", strings.Repeat("A", 301), strings.Repeat("é", 100), "a;b", "x/\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		e := escape(name)
		back, ok := unescape(e)
		if !ok || back != name {
			t.Fatalf("%q became %q became %q", name, e, back)
		}
		pieces := cut(e)
		if strings.Join(pieces, "") != e {
			t.Fatalf("pieces %q of %q", pieces, e)
		}
		for i, p := range pieces {
			if _, ok := unescape(p); !ok || len(p) > maxPiece || len(p) < maxPiece-2 && i < len(pieces)-1 {
				t.Fatalf("piece %q of %q", p, e)
			}
		}
		if other, ok := unescape(name); ok { // whatever is found on disk is read as one text, or not at all
			if back := escape(other); back != name && !strings.Contains(name, "%") {
				t.Fatalf("%q and %q both stand for %q", name, back, other)
			}
		}
		if bucket.CheckName(name) != nil {
			return
		}
		folder, file := diskName(name)
		if strings.Count(folder, "/") > 60 || strings.ToLower(folder+file) != folder+file || strings.Contains("/"+folder+"/", "//") && folder != "" {
			t.Fatalf("%q lies in %q, %q", name, folder, file)
		}
		for part := range strings.SplitSeq(folder+"/"+file, "/") {
			if len(part) > 210 || part == "." || part == ".." {
				t.Fatalf("%q has part %q", name, part)
			}
		}
	})
}
