// Package buckettest is the acceptance suite of hub/bucket: an implementation, or a decorator of one, is finished when it passes. It asks for what the
// contract promises and nothing else, so it runs against a directory as well as against a real S3 server.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"timehub/hub"
	"timehub/hub/bucket"
)

// Run runs the suite. open returns a bucket that is empty, at the latest when the test that it gets has run alone; it is called once for each test.
// without names tests that a server is known to fail; whoever uses it says why, and runs them elsewhere.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket, without ...string) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *box)
	}{
		{"names", testNames}, {"bad names", testBadNames}, {"ranges", testRanges}, {"missing", testMissing}, {"replace", testReplace},
		{"conditions", testConditions}, {"bodies", testBodies}, {"big", testBig}, {"meta", testMeta}, {"delete", testDelete},
		{"order", testOrder}, {"delimiter", testDelimiter}, {"pages", testPages}, {"prefixes", testPrefixes}, {"random listings", testRandomListings},
		{"one winner", testOneWinner}, {"counter", testCounter}, {"replaced while reading", testReplacedWhileReading},
		{"delete against put", testDeleteAgainstPut}, {"canceled", testCanceled},
	} {
		if !slices.Contains(without, c.name) {
			t.Run(c.name, func(t *testing.T) { c.run(t, &box{t, open(t)}) })
		}
	}
}

// box is a bucket with the calls that tests make of it.
type box struct {
	t *testing.T
	bucket.Bucket
}

func (b *box) put(name, content string, opt ...bucket.PutOptions) bucket.Info {
	b.t.Helper()
	info, err := b.tryPut(name, content, opt...)
	if err != nil {
		b.t.Fatalf("put %q: %v", name, err)
	}
	if info.Version == "" || info.Size != int64(len(content)) || info.Name != name {
		b.t.Fatalf("put %q: answered %+v", name, info)
	}
	return info
}

func (b *box) tryPut(name, content string, opt ...bucket.PutOptions) (bucket.Info, error) {
	o := bucket.PutOptions{}
	if len(opt) > 0 {
		o = opt[0]
	}
	return b.Put(context.Background(), name, strings.NewReader(content), int64(len(content)), o)
}

func (b *box) get(name string) string {
	b.t.Helper()
	body, info, err := b.Get(context.Background(), name, 0, -1, "")
	if err != nil {
		b.t.Fatalf("get %q: %v", name, err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		b.t.Fatalf("read %q: %v", name, err)
	}
	if info.Size != int64(len(data)) || info.Version == "" || info.Name != name {
		b.t.Fatalf("get %q: %d bytes, described as %+v", name, len(data), info)
	}
	return string(data)
}

func (b *box) absent(name string) {
	b.t.Helper()
	if _, err := b.Stat(context.Background(), name); !hub.Is(err, hub.NotFound) {
		b.t.Errorf("stat %q: want NotFound, have %v", name, err)
	}
	if body, _, err := b.Get(context.Background(), name, 0, -1, ""); !hub.Is(err, hub.NotFound) {
		b.t.Errorf("get %q: want NotFound, have %v", name, err)
		if err == nil {
			body.Close()
		}
	}
}

// list returns all names and rolled up prefixes in the order of one list, page by page.
func (b *box) list(opt bucket.ListOptions) []string {
	b.t.Helper()
	var all []string
	for {
		page, err := b.List(context.Background(), opt)
		if err != nil {
			b.t.Fatalf("list %+v: %v", opt, err)
		}
		limit := opt.Max
		if limit == 0 {
			limit = bucket.MaxPage
		}
		entries := slices.Clone(page.Prefixes)
		for _, i := range page.Blobs {
			entries = append(entries, i.Name)
			if i.Version == "" {
				b.t.Fatalf("list %+v: no version of %q", opt, i.Name)
			}
		}
		if len(entries) > limit {
			b.t.Fatalf("list %+v: %d entries", opt, len(entries))
		}
		if !slices.IsSorted(page.Prefixes) || !slices.IsSortedFunc(page.Blobs, func(a, c bucket.Info) int { return strings.Compare(a.Name, c.Name) }) {
			b.t.Fatalf("list %+v: not sorted", opt)
		}
		slices.Sort(entries)
		all = append(all, entries...)
		if page.Next == "" {
			return all
		}
		if len(entries) == 0 || page.Next < entries[len(entries)-1] || page.Next <= opt.After {
			b.t.Fatalf("list %+v: %d entries, next %q", opt, len(entries), page.Next)
		}
		opt.After = page.Next
	}
}

func (b *box) lists(want []string, opt bucket.ListOptions) {
	b.t.Helper()
	if have := b.list(opt); !slices.Equal(have, want) {
		b.t.Errorf("list %+v\nhave %q\nwant %q", opt, have, want)
	}
}

// nasty names are all allowed; several differ in little only, are each other's folders, or look like what a directory needs for itself.
func nasty() []string {
	long := strings.Repeat("l", 300)
	return []string{
		"a", "A", "a/b", "a/B", "a-b", "a0", "a.", "a..", "..a", ".a", "a ", " a", "a/ ", "~", "#", "a%2fb", "a%", "%", "%41", "!", "!a", "a!",
		"a;b", "a;", ";", "a/b;c", "tmp/x", "tmp", "lock", "blobs/tmp/1", "a.tmp", "a.blob", "a.blob/b", "a.blob/b.blob", ".tmp-1", "CON", "nul", "a:b",
		"a\\b", "a*?\"<>|", "ä", "a\u0308", "Ä", "日本/語", "🦊", "\u00a0", "\u2028", "\U0010ffff",
		long, long + "/x", long + "-", long + "0", strings.ToUpper(long), strings.Repeat("é", 200), strings.Repeat("é", 200) + "/a", strings.Repeat("%", 190),
		strings.Repeat("d/", 500) + "e", strings.Repeat("X", 1024), strings.Repeat("d/", 3) + "e", "1/2/3/4/5/6/7/8/9", "1/2/3/4/5/6/7", "1/2/3/4/5/6/7/8",
		"1/2/3/4/5/6/7-8", "1/2/3/4/5/6/7;8", "1/2/3/4/5/6", "orders/2021/03/04/05/06/07/089/aZ3k9Q", "orders/2021/03/04/05/06/07/089/az3k9q",
		"orders/2021/03/04/05/06/07", "orders/2021/03/04/05/06/07/089", "ordersBatch/items/2021/03/04/05/06", "ordersBatch/items/2021/03/04/05/06/x",
		"z/\u200b", "z/=", "z/&", "z/+", "z/,", "z/@", "z/'", "z/$", "z/\"",
	}
}

func testNames(t *testing.T, b *box) {
	names := nasty()
	for i, name := range names {
		b.put(name, fmt.Sprint("content ", i))
	}
	for i, name := range names {
		if have := b.get(name); have != fmt.Sprint("content ", i) {
			t.Errorf("%q: %q", name, have)
		}
	}
	sorted := slices.Sorted(slices.Values(names))
	b.lists(sorted, bucket.ListOptions{})
	b.lists(sorted, bucket.ListOptions{Max: 1})
	for i, name := range names {
		if err := b.Delete(context.Background(), name); err != nil {
			t.Fatalf("delete %q: %v", name, err)
		}
		b.absent(name)
		for j := i + 1; j < len(names); j += 7 {
			if have := b.get(names[j]); have != fmt.Sprint("content ", j) {
				t.Fatalf("%q after delete of %q: %q", names[j], name, have)
			}
		}
	}
	b.lists(nil, bucket.ListOptions{})
	b.lists(nil, bucket.ListOptions{Delimiter: "/"})
}

func testBadNames(t *testing.T, b *box) {
	for _, name := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\x00", "a\r\nb", "\x1f", "\xff\xfe", strings.Repeat("x", 1025)} {
		ctx := context.Background()
		_, err := b.tryPut(name, "x")
		_, _, getErr := b.Get(ctx, name, 0, -1, "")
		_, statErr := b.Stat(ctx, name)
		for _, err := range []error{err, getErr, statErr, b.Delete(ctx, name)} {
			if !hub.Is(err, hub.Invalid) {
				t.Errorf("%q: want Invalid, have %v", name, err)
			}
		}
	}
	if _, err := b.tryPut("a", "x", bucket.PutOptions{IfAbsent: true, IfMatch: "v"}); !hub.Is(err, hub.Invalid) {
		t.Errorf("both conditions: want Invalid, have %v", err)
	}
	if _, err := b.List(context.Background(), bucket.ListOptions{Delimiter: "-"}); !hub.Is(err, hub.Invalid) {
		t.Errorf("delimiter: want Invalid, have %v", err)
	}
	b.lists(nil, bucket.ListOptions{})
}

func testRanges(t *testing.T, b *box) {
	b.put("r/x", "0123456789")
	b.put("r/empty", "")
	for _, c := range []struct {
		name      string
		offset, n int64
		want      string
		kind      hub.Kind
	}{
		{"r/x", 0, -1, "0123456789", 0}, {"r/x", 0, 4, "0123", 0}, {"r/x", 3, 4, "3456", 0}, {"r/x", 3, -1, "3456789", 0}, {"r/x", 9, 1, "9", 0},
		{"r/x", 8, 100, "89", 0}, {"r/x", 10, 1, "", hub.RangeInvalid}, {"r/x", 11, -1, "", hub.RangeInvalid}, {"r/x", 10, -1, "", hub.RangeInvalid},
		{"r/x", -1, 4, "", hub.RangeInvalid}, {"r/empty", 0, -1, "", 0}, {"r/empty", 0, 5, "", 0}, {"r/empty", 1, 5, "", hub.RangeInvalid},
		{"r/x", 0, 0, "", 0}, {"r/x", 4, 0, "", 0},
	} {
		body, info, err := b.Get(context.Background(), c.name, c.offset, c.n, "")
		if c.kind != 0 {
			if !hub.Is(err, c.kind) {
				t.Errorf("%+v: have %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		have, err := io.ReadAll(body)
		body.Close()
		if string(have) != c.want || err != nil {
			t.Errorf("%+v: have %q, %v", c, have, err)
		}
		if want := map[string]int64{"r/x": 10}[c.name]; info.Size != want {
			t.Errorf("%+v: described as %d bytes", c, info.Size)
		}
	}
}

func testMissing(t *testing.T, b *box) {
	b.put("m/a", "x")
	for _, name := range []string{"m", "m/b", "m/a/b", "m/aa", "M/a", "m/A"} {
		b.absent(name)
	}
	b.lists(nil, bucket.ListOptions{Prefix: "n"})
	b.lists(nil, bucket.ListOptions{Prefix: "m/a/"})
}

func testReplace(t *testing.T, b *box) {
	first := b.put("x", "one")
	second := b.put("x", "two")
	third := b.put("x", "a longer one")
	if first.Version == second.Version || second.Version == third.Version || first.Version == third.Version {
		t.Errorf("versions %q, %q, %q of three contents", first.Version, second.Version, third.Version)
	}
	if have := b.get("x"); have != "a longer one" {
		t.Errorf("have %q", have)
	}
	info, err := b.Stat(context.Background(), "x")
	if err != nil || info.Version != third.Version || info.Size != third.Size || info.Name != "x" || info.Modified.IsZero() {
		t.Errorf("stat: %+v, %v; put said %+v", info, err, third)
	}
	page, err := b.List(context.Background(), bucket.ListOptions{})
	if err != nil || len(page.Blobs) != 1 || page.Blobs[0].Version != third.Version || page.Blobs[0].Size != third.Size {
		t.Errorf("list: %+v, %v; put said %+v", page, err, third)
	}
	_, _, err = b.Get(context.Background(), "x", 0, 1, second.Version)
	if !hub.Is(err, hub.Conflict) {
		t.Errorf("get of an old version: %v", err)
	}
	body, _, err := b.Get(context.Background(), "x", 2, 6, third.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if have, _ := io.ReadAll(body); string(have) != "longer" {
		t.Errorf("have %q", have)
	}
}

func testConditions(t *testing.T, b *box) {
	if _, err := b.tryPut("x", "0", bucket.PutOptions{IfMatch: "no-such-version"}); !hub.Is(err, hub.Conflict) && !hub.Is(err, hub.NotFound) {
		t.Errorf("IfMatch on nothing: %v", err)
	}
	b.absent("x")
	v1 := b.put("x", "1", bucket.PutOptions{IfAbsent: true}).Version
	if _, err := b.tryPut("x", "2", bucket.PutOptions{IfAbsent: true}); !hub.Is(err, hub.Conflict) {
		t.Errorf("IfAbsent on something: %v", err)
	}
	v2 := b.put("x", "2", bucket.PutOptions{IfMatch: v1}).Version
	if _, err := b.tryPut("x", "3", bucket.PutOptions{IfMatch: v1}); !hub.Is(err, hub.Conflict) {
		t.Errorf("IfMatch on an old version: %v", err)
	}
	if have := b.get("x"); have != "2" {
		t.Errorf("have %q", have)
	}
	b.put("x/y", "child", bucket.PutOptions{IfAbsent: true})
	if err := b.Delete(context.Background(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tryPut("x", "4", bucket.PutOptions{IfMatch: v2}); !hub.Is(err, hub.Conflict) && !hub.Is(err, hub.NotFound) {
		t.Errorf("IfMatch after a delete: %v", err)
	}
	b.put("x", "5", bucket.PutOptions{IfAbsent: true})
}

var errBody = errors.New("the body broke off")

func testBodies(t *testing.T, b *box) {
	ctx := context.Background()
	b.put("kept", "before")
	for _, name := range []string{"new", "kept"} {
		for i, c := range []struct {
			body io.Reader
			size int64
		}{
			{io.MultiReader(strings.NewReader("half"), failing{}), 8}, {io.MultiReader(strings.NewReader("half"), failing{}), -1}, {failing{}, 0},
			{io.MultiReader(bytes.NewReader(make([]byte, 6<<20)), failing{}), -1}, {strings.NewReader("abc"), 4}, {strings.NewReader("abc"), 2}, {strings.NewReader(""), 1},
			{strings.NewReader("a"), 0},
		} {
			if _, err := b.Put(ctx, name, c.body, c.size, bucket.PutOptions{}); err == nil {
				t.Errorf("body %d of %s was taken", i, name)
			} else if _, ok := c.body.(*strings.Reader); !ok && i != 2 && !errors.Is(err, errBody) {
				t.Errorf("body %d of %s: the cause is missing: %v", i, name, err)
			}
		}
	}
	b.absent("new")
	if have := b.get("kept"); have != "before" {
		t.Errorf("have %q", have)
	}
	if _, err := b.Put(ctx, "sized", iotestOne{strings.NewReader("by and by")}, 9, bucket.PutOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := b.Put(ctx, "unsized", iotestOne{strings.NewReader("by and by")}, -1, bucket.PutOptions{}); err != nil {
		t.Error(err)
	}
	if b.get("sized") != "by and by" || b.get("unsized") != "by and by" {
		t.Error("bodies that come byte by byte")
	}
	b.lists([]string{"kept", "sized", "unsized"}, bucket.ListOptions{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBody }

// iotestOne reads a byte at a time and says EOF together with the last one.
type iotestOne struct{ r *strings.Reader }

func (o iotestOne) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := o.r.Read(p[:1])
	if o.r.Len() == 0 {
		err = io.EOF
	}
	return n, err
}

func testBig(t *testing.T, b *box) {
	const size = 17<<20 + 5 // more than two parts of a multipart upload
	for _, announced := range []int64{size, -1} {
		name := fmt.Sprintf("big/%d", announced)
		if _, err := b.Put(context.Background(), name, io.LimitReader(&pattern{}, size), announced, bucket.PutOptions{IfAbsent: true}); err != nil {
			t.Fatal(err)
		}
		body, info, err := b.Get(context.Background(), name, 0, -1, "")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(&check{t: t}, body)
		body.Close()
		if n != size || info.Size != size || err != nil {
			t.Errorf("%s: %d bytes, %+v, %v", name, n, info, err)
		}
		body, _, err = b.Get(context.Background(), name, 11<<20+3, 7, info.Version)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(&check{t: t, at: 11<<20 + 3}, body); n != 7 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		body.Close()
	}
}

// pattern is endless content in which each place looks different; check is a writer that expects it.
type pattern struct{ at int64 }

func at(i int64) byte { return byte(i ^ i>>8*31 ^ i>>16*17) }

func (r *pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = at(r.at + int64(i))
	}
	r.at += int64(len(p))
	return len(p), nil
}

type check struct {
	t  *testing.T
	at int64
}

func (c *check) Write(p []byte) (int, error) {
	for i := range p {
		if p[i] != at(c.at+int64(i)) {
			return i, fmt.Errorf("byte %d is wrong", c.at+int64(i))
		}
	}
	c.at += int64(len(p))
	return len(p), nil
}

func testMeta(t *testing.T, b *box) {
	b.put("x", "1", bucket.PutOptions{ContentType: "text/plain; charset=utf-8", Meta: map[string]string{"type": "text/plain", "compressed": "true"}})
	info, err := b.Stat(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if info.Meta == nil {
		return // a store without a place for it
	}
	if info.Meta["type"] != "text/plain" || info.Meta["compressed"] != "true" {
		t.Errorf("have %v", info.Meta)
	}
	body, info, err := b.Get(context.Background(), "x", 0, -1, "")
	if err != nil || info.Meta["type"] != "text/plain" {
		t.Errorf("get: %v, %v", info.Meta, err)
	}
	body.Close()
	b.put("x", "2")
	if info, _ := b.Stat(context.Background(), "x"); info.Meta == nil || info.Meta["type"] != "" {
		t.Errorf("after a put without: %v; a store that keeps Meta says so with a map", info.Meta)
	}
}
