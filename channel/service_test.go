package channel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/channel/channeltest"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/catalog"
	"timehub/hub/seal"
)

var (
	_ channel.Catalog = (*catalog.Catalog[channel.Document])(nil)
	_ feed.Source     = (*channel.Service)(nil)
)

// house is a service over stores in memory.
type house struct {
	*channel.Service
	t       *testing.T
	clock   *channeltest.Clock
	short   *channeltest.Short
	long    *channeltest.Long
	catalog *channeltest.Catalog
}

func open(t *testing.T, change ...func(*channel.Options)) *house {
	t.Helper()
	clock := channeltest.NewClock()
	h := &house{t: t, clock: clock, short: channeltest.NewShort(clock.Tick), long: channeltest.NewLong(), catalog: channeltest.NewCatalog()}
	opt := channel.Options{Short: h.short, Long: h.long, Catalog: h.catalog, Clock: clock.Now, Horizon: hub.Horizon{Auto: true}}
	for _, f := range change {
		f(&opt)
	}
	var err error
	if h.Service, err = channel.New(opt); err != nil {
		t.Fatal(err)
	}
	h.long.BodyOf = h.bodyOf
	return h
}

// bodyOf reads the key of the body out of a large item.
func (h *house) bodyOf(item hub.Sealed) (string, bool) {
	e, err := seal.Parse(item.Data)
	if err != nil || !e.Large {
		return "", false
	}
	text, err := h.Sealer().Open(nil, e)
	var index struct{ Key string }
	if err != nil || json.Unmarshal(text, &index) != nil {
		return "", false
	}
	return index.Key, true
}

var ctx = context.Background()

func (h *house) put(name, body string) *hub.Channel {
	h.t.Helper()
	p, err := channel.ParsePatch([]byte(body))
	if err != nil {
		h.t.Fatal(err)
	}
	ch, _, err := h.PutChannel(ctx, name, p, channel.Caller{})
	if err != nil {
		h.t.Fatal(err)
	}
	return ch
}

func (h *house) insert(ch *hub.Channel, body string) hub.Key {
	h.t.Helper()
	k, err := h.Insert(ctx, ch, channel.Upload{ContentType: "text/plain", Body: []byte(body)})
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

func (h *house) insertAt(ch *hub.Channel, at time.Time, hash, body string) hub.Key {
	h.t.Helper()
	k, err := h.InsertAt(ctx, ch, at, hash, channel.Upload{Body: []byte(body)})
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

// read is the body of an item, or the kind of the error.
func (h *house) read(ch *hub.Channel, k hub.Key, opt channel.GetOptions) string {
	h.t.Helper()
	f, err := h.Get(ctx, ch, k, opt)
	if err != nil {
		return "! " + hub.KindOf(err).String()
	}
	r, err := h.Open(ctx, f, 0, -1)
	if err != nil {
		return "! " + hub.KindOf(err).String()
	}
	b, err := io.ReadAll(r)
	if err != nil {
		h.t.Fatal(err)
	}
	if int64(len(b)) != f.Meta.Size {
		h.t.Errorf("item %s: %d bytes, Meta says %d", k, len(b), f.Meta.Size)
	}
	return string(b)
}

// bodies joins the bodies that a sequence of items yields.
func (h *house) bodies(ch *hub.Channel, seq func(func(hub.Sealed, error) bool)) string {
	h.t.Helper()
	var all []string
	for i, err := range seq {
		if err != nil {
			all = append(all, "! "+hub.KindOf(err).String())
			break
		}
		f, err := h.Parse(ch, i)
		if err != nil {
			h.t.Fatal(err)
		}
		b, err := h.Body(nil, f)
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return strings.Join(all, " ")
}

// find is what a search finds, as bodies, streamed, after having compared that with the keys.
func (h *house) find(ch *hub.Channel, q channel.Search) string {
	h.t.Helper()
	a, err := h.Find(ctx, ch, q)
	if err != nil {
		return "! " + hub.KindOf(err).String()
	}
	for i, k := range a.Keys {
		if i > 0 && !a.Keys[i-1].Less(k) {
			h.t.Errorf("%+v: keys do not ascend: %v", q, a.Keys)
		}
	}
	_, items, err := h.Stream(ctx, ch, q, hub.Ascending)
	if err != nil {
		h.t.Fatal(err)
	}
	up := h.bodies(ch, items)
	if n := len(strings.Fields(up)); n != len(a.Keys) {
		h.t.Errorf("%+v: %d keys, %d items", q, len(a.Keys), n)
	}
	_, items, err = h.Stream(ctx, ch, q, hub.Descending)
	if err != nil {
		h.t.Fatal(err)
	}
	down := strings.Fields(h.bodies(ch, items))
	for i, j := 0, len(down)-1; i < j; i, j = i+1, j-1 {
		down[i], down[j] = down[j], down[i]
	}
	if s := strings.Join(down, " "); s != up {
		h.t.Errorf("%+v: descending, turned round: %s; ascending: %s", q, s, up)
	}
	return up
}

func wantErr(t *testing.T, err error, k hub.Kind, text string) {
	t.Helper()
	if !hub.Is(err, k) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v (%v), want %v with %q", err, hub.KindOf(err), k, text)
	}
}

func TestNew(t *testing.T) {
	if _, err := channel.New(channel.Options{}); err == nil {
		t.Error("no stores, no error")
	}
	if _, err := channel.New(channel.Options{Short: channeltest.NewShort(nil), Long: channeltest.NewLong(), Catalog: channeltest.NewCatalog(), MaxCount: -1}); err == nil {
		t.Error("a negative limit, no error")
	}
	h := open(t)
	if h.MaxItemBytes() != 1<<30 || h.LargeBytes() != 40<<20 || h.MaxParts() != hub.MaxBulk || h.MaxCount() != 10000 || h.Sealer() == nil {
		t.Error("defaults")
	}
}

func TestInsertAndGet(t *testing.T) {
	h := open(t)
	ch := h.put("Orders", ``)
	k := h.insert(ch, strings.Repeat("body ", 100))
	f, err := h.Get(ctx, ch, k, channel.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Meta.ContentType != "text/plain" || f.Meta.Size != 500 || f.Envelope.Codec != seal.Zstd || f.Meta.Large || f.Key != k || f.Channel != ch {
		t.Errorf("%+v", f)
	}
	if f.Meta.Created == 0 {
		t.Error("no time of creation")
	}
	if got := h.read(ch, k, channel.GetOptions{}); got != strings.Repeat("body ", 100) {
		t.Errorf("read %q", got)
	}
	for _, r := range []struct {
		offset, n int64
		want      string
	}{{0, 4, "body"}, {5, 4, "body"}, {495, -1, "body "}, {498, 100, "y "}, {500, -1, ""}} {
		body, err := h.Open(ctx, f, r.offset, r.n)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(body); string(b) != r.want {
			t.Errorf("range %+v: %q", r, b)
		}
	}
	_, err = h.Open(ctx, f, 501, -1)
	wantErr(t, err, hub.RangeInvalid, "501")
	if got := h.read(ch, hub.NewKey(k.Time(), "other"), channel.GetOptions{}); got != "! not found" {
		t.Errorf("another hash: %q", got)
	}
	if got := h.read(ch, k, channel.GetOptions{RemoteOnly: true}); got != "! not found" {
		t.Errorf("not archived yet: %q", got)
	}
	h.long.Archive(ch, h.short.All("Orders")...)
	h.short.Sweep("Orders", hub.MaxKey)
	if got := h.read(ch, k, channel.GetOptions{}); !strings.HasPrefix(got, "body") {
		t.Errorf("archived: %q", got)
	}
	if h.read(ch, k, channel.GetOptions{RemoteOnly: true}) == "! not found" {
		t.Error("archived, remote only: not found")
	}
}

func TestInsertRules(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.MaxItemBytes = 10; o.MaxParts = 2 })
	ch := h.put("x", `{"allowZeroBytes":false}`)
	_, err := h.Insert(ctx, ch, channel.Upload{})
	wantErr(t, err, hub.Invalid, "empty")
	_, err = h.Insert(ctx, ch, channel.Upload{Reader: strings.NewReader("")})
	wantErr(t, err, hub.Invalid, "empty")
	_, err = h.Insert(ctx, ch, channel.Upload{Body: make([]byte, 11)})
	wantErr(t, err, hub.TooLarge, "10 bytes")
	if _, err = h.Insert(ctx, ch, channel.Upload{Body: make([]byte, 10)}); err != nil {
		t.Error(err)
	}
	_, err = h.Insert(ctx, ch, channel.Upload{Reader: strings.NewReader("abc"), Size: 5})
	wantErr(t, err, hub.Invalid, "3 of 5")
	k, err := h.Insert(ctx, ch, channel.Upload{Reader: strings.NewReader("abcde"), Size: 5})
	if err != nil || h.read(ch, k, channel.GetOptions{}) != "abcde" {
		t.Errorf("by reader: %v", err)
	}
	_, err = h.InsertBulk(ctx, ch, "", time.Time{}, nil)
	wantErr(t, err, hub.Invalid, "no item")
	_, err = h.InsertBulk(ctx, ch, "", time.Time{}, make([]channel.Part, 3))
	wantErr(t, err, hub.TooLarge, "2 items")
	_, err = h.InsertBulk(ctx, ch, "", time.Time{}, []channel.Part{{Body: make([]byte, 11)}})
	wantErr(t, err, hub.TooLarge, "part 0")

	replica := h.put("Mirror", `{"replicationSource":"http://else/channel/x"}`)
	for _, f := range []func() error{
		func() error { _, err := h.Insert(ctx, replica, channel.Upload{Body: []byte("b")}); return err },
		func() error { _, err := h.InsertBulk(ctx, replica, "", time.Time{}, []channel.Part{{}}); return err },
		func() error { _, err := h.InsertAt(ctx, replica, h.clock.Now(), "", channel.Upload{}); return err },
	} {
		var e *hub.Error
		if err := f(); !errors.As(err, &e) || e.Kind != hub.Forbidden || !e.Verbatim || e.Msg != "Mirror cannot modified while replicating" {
			t.Errorf("replicated: %v", err)
		}
	}
	if n := len(h.short.All("x")) + len(h.short.All("Mirror")); n != 2 {
		t.Errorf("%d items were stored, want 2", n)
	}
	for _, want := range []error{hub.E(hub.Unavailable, "no quorum"), hub.E(hub.Full, "no space")} {
		h.short.Fail(want)
		_, err = h.Insert(ctx, ch, channel.Upload{Body: []byte("b")})
		wantErr(t, err, hub.KindOf(want), "")
		_, err = h.InsertBulk(ctx, ch, "", time.Time{}, []channel.Part{{Body: []byte("b")}})
		wantErr(t, err, hub.KindOf(want), "")
	}
}

// keeper is a store that fails and goes on reading the memory that it was given.
type keeper struct {
	*channeltest.Short
	kept [][]byte
	fail bool
}

func (k *keeper) Write(ctx context.Context, ch string, sealed []byte) (hub.Key, error) {
	if k.fail {
		k.kept = append(k.kept, sealed)
		return hub.Key{}, hub.E(hub.Unavailable, "no quorum")
	}
	return k.Short.Write(ctx, ch, sealed)
}

func TestMemoryOfAFailedWriteIsNotUsedAgain(t *testing.T) {
	k := &keeper{fail: true}
	h := open(t, func(o *channel.Options) { k.Short = o.Short.(*channeltest.Short); o.Short = k })
	ch := h.put("x", ``)
	if _, err := h.Insert(ctx, ch, channel.Upload{Body: []byte("first")}); err == nil {
		t.Fatal("no error")
	}
	was := bytes.Clone(k.kept[0])
	k.fail = false
	for i := range 100 {
		h.insert(ch, fmt.Sprint("another ", i))
	}
	if !bytes.Equal(was, k.kept[0]) {
		t.Error("the store's memory was written to")
	}
}

func TestInsertBulk(t *testing.T) {
	h := open(t)
	ch := h.put("x", ``)
	var parts []channel.Part
	for i := range 500 {
		parts = append(parts, channel.Part{ContentType: "text/plain", Body: bytes.Repeat([]byte(fmt.Sprint(i, " ")), i*3)})
	}
	noise := make([]byte, 300<<10) // larger than a piece of memory, and not compressible
	for i := range noise {
		noise[i] = byte(i * i >> 7 * 31)
	}
	parts[7].Body = noise
	k, err := h.InsertBulk(ctx, ch, "me", time.Time{}, parts)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		f, err := h.Get(ctx, ch, hub.BulkKey(k, i), channel.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := h.Body(nil, f)
		if err != nil || !bytes.Equal(b, p.Body) || f.Meta.ContentType != "text/plain" || f.Meta.Creator != "me" {
			t.Fatalf("part %d: %d bytes, %v", i, len(b), err)
		}
	}
	if n := len(h.short.All("x")); n != 500 {
		t.Errorf("%d items", n)
	}
}

func TestLarge(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.LargeBytes = 100 })
	ch := h.put("x", ``)
	body := strings.Repeat("0123456789", 30)
	for _, u := range []channel.Upload{
		{ContentType: "video/x", Reader: strings.NewReader(body), Size: 300},
		{ContentType: "video/x", Body: []byte(body)},
	} {
		k, err := h.Insert(ctx, ch, u)
		if err != nil {
			t.Fatal(err)
		}
		f, err := h.Get(ctx, ch, k, channel.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !f.Meta.Large || f.Meta.Size != 300 || f.Meta.ContentType != "video/x" {
			t.Errorf("%+v", f.Meta)
		}
		if got := h.read(ch, k, channel.GetOptions{}); got != body {
			t.Errorf("read %d bytes", len(got))
		}
		r, err := h.Open(ctx, f, 295, 3)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(r); string(b) != "567" {
			t.Errorf("range %q", b)
		}
		if _, err := h.Body(nil, f); err == nil {
			t.Error("Body of a large item")
		}
	}
	// An item of the index's content type is an item like any other.
	k, err := h.Insert(ctx, ch, channel.Upload{ContentType: "application/hub", Body: []byte(`{"key":"2021/01/01/00/00/00/000/abcdef","size":1}`)})
	if err != nil || !strings.HasPrefix(h.read(ch, k, channel.GetOptions{}), `{"key"`) {
		t.Errorf("application/hub: %v", err)
	}

	bodies := h.long.Large()
	for _, size := range []int64{299, 301} {
		_, err = h.Insert(ctx, ch, channel.Upload{Reader: strings.NewReader(body), Size: size})
		wantErr(t, err, hub.Invalid, fmt.Sprint("of ", size))
	}
	h.short.Fail(hub.E(hub.Full, "no space"))
	_, err = h.Insert(ctx, ch, channel.Upload{Body: []byte(body)})
	wantErr(t, err, hub.Full, "")
	if h.long.Large() != bodies {
		t.Errorf("%d bodies without an item stay behind", h.long.Large()-bodies)
	}
	h.short.Fail(nil)
	h.short.Lose(hub.E(hub.Unavailable, "no answer"))
	if _, err = h.Insert(ctx, ch, channel.Upload{Body: []byte(body)}); err == nil {
		t.Error("no error")
	}
	h.short.Lose(nil)
	all := h.short.All("x")
	if got := h.read(ch, all[len(all)-1].Key, channel.GetOptions{}); got != body {
		t.Errorf("a lost write that happened has lost its body: %q", got)
	}
	h.long.Fail(hub.E(hub.Unavailable, "bucket away"))
	_, err = h.Insert(ctx, ch, channel.Upload{Body: []byte(body)})
	wantErr(t, err, hub.Unavailable, "")
	h.insert(ch, "small ones do not need the bucket")
}

func TestHistorical(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.LargeBytes = 150 })
	plain := h.put("plain", ``)
	past := time.Date(1999, 12, 31, 23, 59, 59, 1e6, time.UTC)
	_, err := h.InsertAt(ctx, plain, past, "h1", channel.Upload{})
	var e *hub.Error
	if !errors.As(err, &e) || !e.Verbatim || e.Kind != hub.Forbidden || e.Msg != "historical inserts require a mutableTime on the channel." {
		t.Errorf("%v", err)
	}
	ch := h.put("old", `{"mutableTime":"2025-01-01T00:00:00.500Z","allowZeroBytes":false}`)
	_, err = h.InsertAt(ctx, ch, ch.MutableTime.Add(time.Millisecond), "h1", channel.Upload{Body: []byte("b")})
	wantErr(t, err, hub.Invalid, "after the mutableTime")
	_, err = h.InsertAt(ctx, ch, past, "h1", channel.Upload{})
	wantErr(t, err, hub.Invalid, "empty")
	for _, hash := range []string{".", "..", "a/b", "a%b", "~a", "ä", "a b", "\x00", strings.Repeat("x", 129), "a?b", "a#b", `a"b`} {
		_, err = h.InsertAt(ctx, ch, past, hash, channel.Upload{Body: []byte("b")})
		wantErr(t, err, hub.Invalid, "hash")
	}
	for _, hash := range []string{"h1", "a.b", "x-1", "a~", "-._!$&'()*+,;=:@", strings.Repeat("x", 128), "..."} {
		k := h.insertAt(ch, past, hash, hash)
		if k.Hash() != hash || h.read(ch, k, channel.GetOptions{}) != hash {
			t.Errorf("hash %q: key %s", hash, k)
		}
	}
	edge := h.insertAt(ch, ch.MutableTime, "edge", "edge")
	if h.read(ch, edge, channel.GetOptions{}) != "edge" {
		t.Error("at the mutable time")
	}
	h.insertAt(ch, past, "h1", "again")
	if got := h.read(ch, hub.NewKey(past, "h1"), channel.GetOptions{}); got != "again" {
		t.Errorf("overwritten: %q", got)
	}
	if n := len(h.short.All("old")); n != 0 {
		t.Errorf("%d historical items in the short-term store", n)
	}
	k := h.insertAt(ch, past, "big", strings.Repeat("x", 200))
	if got := h.read(ch, k, channel.GetOptions{}); len(got) != 200 {
		t.Errorf("large: %q", got)
	}
	replace := func(hash, body string) {
		t.Helper()
		if got := h.read(ch, h.insertAt(ch, past, hash, body), channel.GetOptions{}); got != body {
			t.Errorf("replaced: %.20q", got)
		}
	}
	tag := func() uint32 {
		f, err := h.Get(ctx, ch, k, channel.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return f.Meta.Digest
	}
	before := tag()
	replace("big", strings.Repeat("y", 200))
	if tag() == before {
		t.Error("another body of the same size has the same digest: caches would keep the old one")
	}
	for _, why := range []error{hub.E(hub.Full, "full"), errors.New("lost")} { // the new body is stored, its index is not
		h.long.FailWrite(why)
		if _, err := h.InsertAt(ctx, ch, past, "big", channel.Upload{Body: []byte(strings.Repeat("z", 300))}); err == nil {
			t.Error("a write that failed was acknowledged")
		}
		h.long.FailWrite(nil)
		if got := h.read(ch, k, channel.GetOptions{}); got != strings.Repeat("y", 200) {
			t.Errorf("a replacement that failed (%v) has changed the item: %.20q", why, got)
		}
	}
	if n := h.long.Large(); n != 2 { // of the second failure nothing is known: the index may show up
		t.Errorf("%d bodies", n)
	}
	replace("big", "small")
	replace("big", strings.Repeat("z", 300))
	if err := h.DeleteAt(ctx, ch, k); err != nil || h.long.Large() != 1 {
		t.Errorf("delete of a large one: %v, %d bodies", err, h.long.Large())
	}

	for _, k := range []hub.Key{edge, hub.NewKey(past, "h1"), hub.NewKey(past, "never")} {
		if err := h.DeleteAt(ctx, ch, k); err != nil {
			t.Error(err)
		}
		if got := h.read(ch, k, channel.GetOptions{}); got != "! not found" {
			t.Errorf("deleted: %q", got)
		}
	}
	live := h.insert(ch, "live")
	wantErr(t, h.DeleteAt(ctx, ch, live), hub.NotAllowed, "mutableTime")
	wantErr(t, h.DeleteAt(ctx, plain, edge), hub.NotAllowed, "mutableTime")
	h.long.Fail(hub.E(hub.Unavailable, "bucket away"))
	_, err = h.InsertAt(ctx, ch, past, "z", channel.Upload{Body: []byte("b")})
	wantErr(t, err, hub.Unavailable, "")
	_, err = h.InsertAt(ctx, ch, past, "", channel.Upload{Body: []byte("b")})
	wantErr(t, err, hub.Unavailable, "")
	wantErr(t, h.DeleteAt(ctx, ch, edge), hub.Unavailable, "")
}

func TestDrawnHash(t *testing.T) {
	draws := []uint64{5, 5, 5, 62, 62, 7}
	h := open(t, func(o *channel.Options) {
		o.Random = func() uint64 { d := draws[0]; draws = draws[1:]; return d }
	})
	ch := h.put("old", `{"mutableTime":"2025-01-01"}`)
	past := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	a, b, c := h.insertAt(ch, past, "", "a"), h.insertAt(ch, past, "", "b"), h.insertAt(ch, past, "", "c")
	if a.Hash() != "500000" || b.Hash() != "010000" || c.Hash() != "700000" {
		t.Errorf("drawn %s %s %s", a.Hash(), b.Hash(), c.Hash())
	}
}

func TestInsertAllocatesLittle(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.Short = &sink{} })
	h.put("x", ``)
	body := bytes.Repeat([]byte("flight 4711 "), 85)
	n := testing.AllocsPerRun(500, func() {
		ch, err := h.Channel(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Insert(ctx, ch, channel.Upload{ContentType: "application/json", Body: body}); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 {
		t.Errorf("%v allocations for an insert", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = h.Channel(ctx, "x") }); n != 0 {
		t.Errorf("%v allocations for a look-up", n)
	}
}

// sink is a store that costs nothing.
type sink struct{ *channeltest.Short }

func (*sink) Write(context.Context, string, []byte) (hub.Key, error) {
	return hub.KeyAt(1, "000000"), nil
}

func (*sink) WriteBulk(context.Context, string, [][]byte) (hub.Key, error) {
	return hub.KeyAt(1, "000000"), nil
}
