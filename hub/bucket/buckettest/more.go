package buckettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"timehub/hub"
	"timehub/hub/bucket"
)

func testDelete(t *testing.T, b *box) {
	ctx := context.Background()
	if err := errors.Join(b.Delete(ctx), b.Delete(ctx, "never", "was/there")); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 1200 { // more than S3 deletes in one request
		names = append(names, fmt.Sprintf("d/%04d/x", i))
		if i%100 == 0 {
			b.put(names[i], "x")
		}
	}
	b.put("d/0100", "stays")
	b.put("d/0100/y", "stays")
	if err := b.Delete(ctx, names...); err != nil {
		t.Fatal(err)
	}
	b.lists([]string{"d/0100", "d/0100/y"}, bucket.ListOptions{})
	b.lists([]string{"d/0100", "d/0100/"}, bucket.ListOptions{Prefix: "d/", Delimiter: "/"})
	if err := b.Delete(ctx, names...); err != nil {
		t.Fatal(err)
	}
	b.put(names[1], "again")
	if have := b.get(names[1]); have != "again" {
		t.Errorf("have %q", have)
	}
}

func testOrder(t *testing.T, b *box) {
	// '-' < '/' < '0': the order of whole names is not the order of a walk through folders.
	names := []string{"a", "a-", "a-/x", "a-b", "a/a", "a/a-", "a/a/a", "a/a0", "a/b", "a0", "a0/x", "b"}
	for _, i := range rand.Perm(len(names)) {
		b.put(names[i], "x")
	}
	b.lists(names, bucket.ListOptions{})
	for i := range names {
		b.lists(names[i+1:], bucket.ListOptions{After: names[i], Max: 2})
	}
	b.lists(names[4:], bucket.ListOptions{After: "a/"})
	b.lists(names[9:], bucket.ListOptions{After: "a/z"})
	b.lists(names[9:], bucket.ListOptions{After: "a/b/c/d/e/f/g/h/i/j"})
	b.lists(nil, bucket.ListOptions{After: "c"})
	b.lists(names, bucket.ListOptions{After: "A"})
}

func testDelimiter(t *testing.T, b *box) {
	for _, name := range []string{"a", "a-/x", "a/1", "a/2/x", "a/2/y", "a/2-", "a0/x", "b/c/d/e/f/g/h/i/j", "b/c/d/e/f/g/h/i/k", "b/c/d/e/f/g/h2/i"} {
		b.put(name, "x")
	}
	for _, c := range []struct {
		prefix, after string
		want          []string
	}{
		{"", "", []string{"a", "a-/", "a/", "a0/", "b/"}},
		{"a", "", []string{"a", "a-/", "a/", "a0/"}},
		{"a/", "", []string{"a/1", "a/2-", "a/2/"}},
		{"a/2", "", []string{"a/2-", "a/2/"}},
		{"a/2/", "", []string{"a/2/x", "a/2/y"}},
		{"b/c/d/e/f/g/", "", []string{"b/c/d/e/f/g/h/", "b/c/d/e/f/g/h2/"}},
		{"b/c/d/e/f/g/h/", "", []string{"b/c/d/e/f/g/h/i/"}},
		{"b/c/d/e/f/g/h/i/", "", []string{"b/c/d/e/f/g/h/i/j", "b/c/d/e/f/g/h/i/k"}},
		{"", "a/", []string{"a0/", "b/"}},
		{"", "a/1", []string{"a0/", "b/"}}, // the prefix "a/" itself is not above "a/1"
		{"", "a-", []string{"a-/", "a/", "a0/", "b/"}},
		{"a/", "a/1", []string{"a/2-", "a/2/"}},
		{"a/", "a/2/x", nil},
		{"x", "", nil}, {"a//", "", nil}, {"../", "", nil}, {"a/../", "", nil}, {"/", "", nil},
	} {
		for _, limit := range []int{0, 1, 2} {
			b.lists(c.want, bucket.ListOptions{Prefix: c.prefix, Delimiter: "/", After: c.after, Max: limit})
		}
	}
}

func testPages(t *testing.T, b *box) {
	var names []string
	for i := range 2300 {
		name := fmt.Sprintf("p/%d/%02d/%d", i/1000, i/10%100, i%10)
		names = append(names, name)
		b.put(name, "")
	}
	slices.Sort(names)
	b.lists(names, bucket.ListOptions{})
	b.lists(names, bucket.ListOptions{Max: 999})
	b.lists(names[1500:], bucket.ListOptions{After: names[1499], Max: 100})
	b.lists(names, bucket.ListOptions{Max: 100000})
	page, err := b.List(context.Background(), bucket.ListOptions{Prefix: "p/"})
	if err != nil || len(page.Blobs) > bucket.MaxPage || page.Next == "" {
		t.Errorf("%d blobs in one page, next %q, %v", len(page.Blobs), page.Next, err)
	}
	page, err = b.List(context.Background(), bucket.ListOptions{Prefix: "p/2/29/", Max: 10})
	if err != nil || len(page.Blobs) != 10 || page.Next != "" {
		t.Errorf("a page that just fits: %d blobs, next %q, %v", len(page.Blobs), page.Next, err)
	}
}

func testPrefixes(t *testing.T, b *box) {
	names := []string{"orders/2021/01/01/x", "orders/2021/01/10/x", "orders/2021/1", "ordersBatch/items/2021/01/01/00/00", "order", "orders"}
	for _, name := range names {
		b.put(name, "x")
	}
	b.lists([]string{"orders/2021/01/01/x", "orders/2021/01/10/x"}, bucket.ListOptions{Prefix: "orders/2021/0"})
	b.lists([]string{"orders/2021/01/10/x"}, bucket.ListOptions{Prefix: "orders/2021/01/1"})
	b.lists([]string{"orders/2021/01/10/x"}, bucket.ListOptions{Prefix: "orders/2021/01/10/x"})
	b.lists(nil, bucket.ListOptions{Prefix: "orders/2021/01/10/x/"})
	b.lists([]string{"ordersBatch/items/2021/01/01/00/00"}, bucket.ListOptions{Prefix: "ordersB"})
	b.lists([]string{"orders", "orders/2021/01/01/x", "orders/2021/01/10/x", "orders/2021/1", "ordersBatch/items/2021/01/01/00/00"}, bucket.ListOptions{Prefix: "orders"})
	b.lists(nil, bucket.ListOptions{Prefix: "orders/2022", After: "orders/2021"})
	b.lists(nil, bucket.ListOptions{Prefix: "orders/2021", After: "orders/2022"})
	b.lists([]string{"orders/2021/1"}, bucket.ListOptions{Prefix: "orders/2021/", After: "orders/2021/01/10/x"})
}

// testRandomListings compares with what the contract says, computed in the plainest way.
func testRandomListings(t *testing.T, b *box) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	word := func() string {
		return []string{"a", "b", "a-", "a0", "A", "é", "x;y", strings.Repeat("a", 210), "%"}[r.IntN(9)]
	}
	name := func() string {
		s := word()
		for range r.IntN(10) {
			s += "/" + word()
		}
		for len(s) > 1024 {
			s = s[:strings.LastIndexByte(s, '/')]
		}
		return s
	}
	set := map[string]bool{}
	for range 150 {
		n := name()
		set[n] = true
		b.put(n, "")
	}
	var names []string
	for n := range set {
		names = append(names, n)
	}
	slices.Sort(names)
	some := func() string {
		if r.IntN(4) == 0 {
			return ""
		}
		n := names[r.IntN(len(names))]
		n = n[:r.IntN(len(n)+1)]
		return strings.ToValidUTF8(n, "")
	}
	for range 150 {
		opt := bucket.ListOptions{Prefix: some(), After: some(), Max: r.IntN(20)}
		if r.IntN(2) == 0 {
			opt.Delimiter = "/"
		}
		var want []string
		for _, n := range names {
			if !strings.HasPrefix(n, opt.Prefix) {
				continue
			}
			if i := strings.IndexByte(n[len(opt.Prefix):], '/'); i >= 0 && opt.Delimiter != "" {
				n = n[:len(opt.Prefix)+i+1]
			}
			if n > opt.After && (len(want) == 0 || want[len(want)-1] != n) {
				want = append(want, n)
			}
		}
		b.lists(want, opt)
	}
}

// all runs n calls at once and returns their errors.
func all(n int, call func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = call(i) })
	}
	wg.Wait()
	return errs
}

func testOneWinner(t *testing.T, b *box) {
	for round := range 8 {
		name := fmt.Sprintf("w/%d", round)
		opt := bucket.PutOptions{IfAbsent: true}
		for range 3 { // first absent, then twice in the same version
			winner := -1
			for i, err := range all(16, func(i int) error {
				_, err := b.tryPut(name, fmt.Sprintf("%s by %d", opt.IfMatch, i), opt)
				return err
			}) {
				switch {
				case err == nil && winner >= 0:
					t.Fatalf("%s: %d and %d both won", name, winner, i)
				case err == nil:
					winner = i
				case !hub.Is(err, hub.Conflict):
					t.Fatalf("%s: %v", name, err)
				}
			}
			if winner < 0 {
				t.Fatalf("%s: nobody won", name)
			}
			if have, want := b.get(name), fmt.Sprintf("%s by %d", opt.IfMatch, winner); have != want {
				t.Fatalf("%s: have %q, want %q", name, have, want)
			}
			info, err := b.Stat(context.Background(), name)
			if err != nil {
				t.Fatal(err)
			}
			opt = bucket.PutOptions{IfMatch: info.Version}
		}
	}
}

// testCounter loses an increment if a conditional put is not atomic or a version is used twice.
func testCounter(t *testing.T, b *box) {
	ctx := context.Background()
	b.put("n", "0")
	const people, times = 6, 12
	for _, err := range all(people, func(int) error {
		for done := 0; done < times; {
			body, info, err := b.Get(ctx, "n", 0, -1, "")
			if err != nil {
				return err
			}
			text, err := io.ReadAll(body)
			body.Close()
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(text))
			if err != nil {
				return err
			}
			switch put, err := b.tryPut("n", strconv.Itoa(n+1), bucket.PutOptions{IfMatch: info.Version}); {
			case err == nil && put.Version == info.Version:
				return errors.New("two contents in one version")
			case err == nil:
				done++
			case !hub.Is(err, hub.Conflict):
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if have := b.get("n"); have != strconv.Itoa(people*times) {
		t.Errorf("have %s, want %d", have, people*times)
	}
}

func testReplacedWhileReading(t *testing.T, b *box) {
	ctx := context.Background()
	const size = 3 << 20
	put := func(c byte) bucket.Info {
		return b.put("x", strings.Repeat(string(c), size))
	}
	old := put('a')
	body, info, err := b.Get(ctx, "x", 0, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if info.Version != old.Version {
		t.Errorf("version %s, put said %s", info.Version, old.Version)
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(body, head); err != nil {
		t.Fatal(err)
	}
	put('b')
	rest, err := io.ReadAll(body)
	if have := string(head) + string(rest); err == nil && have != strings.Repeat("a", size) {
		t.Error("the reader did not go on with the blob that it had found, and did not fail")
	}
	oneContentEach(t, b)
}

// oneContentEach: what a Get returns and what it says of it belong together, whenever it is replaced. Another version may be seen for a moment while a
// put is under way, but none stands for two contents.
func oneContentEach(t *testing.T, b *box) {
	stop := make(chan struct{})
	content := map[string]string{} // by version
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for i := range 60 {
			text := fmt.Sprintf("%02d", i)
			content[b.put("y", text).Version] = text
		}
	})
	var seen [][2]string
	for done := false; !done; {
		select {
		case <-stop:
			done = true
		default:
		}
		body, info, err := b.Get(context.Background(), "y", 0, -1, "")
		if hub.Is(err, hub.NotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(body)
		body.Close()
		if err == nil {
			seen = append(seen, [2]string{info.Version, string(text)})
		}
	}
	wg.Wait()
	if len(content) != 60 {
		t.Errorf("%d versions of 60 contents", len(content))
	}
	for _, s := range seen {
		if first, ok := content[s[0]]; !ok {
			content[s[0]] = s[1]
		} else if first != s[1] {
			t.Fatalf("version %s stands for %q and for %q", s[0], first, s[1])
		}
	}
}

// testDeleteAgainstPut puts into folders that deletes empty at the same time.
func testDeleteAgainstPut(t *testing.T, b *box) {
	ctx := context.Background()
	for i, err := range all(8, func(i int) error {
		for j := range 25 {
			name := fmt.Sprintf("f/%d/g/%d", j%2, i)
			if _, err := b.tryPut(name, name); err != nil {
				return fmt.Errorf("put: %w", err)
			}
			if body, _, err := b.Get(ctx, name, 0, -1, ""); err != nil {
				return fmt.Errorf("get: %w", err)
			} else if text, err := io.ReadAll(body); body.Close() != nil || err != nil || string(text) != name {
				return fmt.Errorf("read %q: %w", text, err)
			}
			if err := b.Delete(ctx, name); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
			if _, err := b.List(ctx, bucket.ListOptions{Delimiter: "/"}); err != nil {
				return fmt.Errorf("list: %w", err)
			}
		}
		return nil
	}) {
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	b.lists(nil, bucket.ListOptions{})
	b.lists(nil, bucket.ListOptions{Delimiter: "/"})
}

func testCanceled(t *testing.T, b *box) {
	b.put("x", strings.Repeat("x", 1<<20))
	ctx, cancel := context.WithCancel(context.Background())
	body, _, err := b.Get(ctx, "x", 0, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, body); err == nil {
		t.Log("the body was buffered") // allowed: what has arrived may be read
	}
	_, _, getErr := b.Get(ctx, "x", 0, -1, "")
	_, putErr := b.Put(ctx, "y", strings.NewReader("y"), 1, bucket.PutOptions{})
	_, statErr := b.Stat(ctx, "x")
	_, listErr := b.List(ctx, bucket.ListOptions{})
	for i, err := range []error{getErr, putErr, statErr, listErr, b.Delete(ctx, "x")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d: want context.Canceled, have %v", i, err)
		}
	}
	// A body that ends its own request: the blob is not stored.
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	if _, err := b.Put(ctx, "z", io.MultiReader(strings.NewReader("half"), cancels{cancel}, strings.NewReader("half")), -1, bucket.PutOptions{}); err == nil {
		t.Error("a canceled put succeeded")
	}
	b.absent("z")
	b.lists([]string{"x"}, bucket.ListOptions{})
}

type cancels struct{ cancel func() }

func (c cancels) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}
