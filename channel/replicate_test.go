package channel_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/channel/channeltest"
	"timehub/hub"
)

const from = `{"replicationSource":"http://else/channel/x"}`

// mirror is a service with one replicated channel.
func mirror(t *testing.T, config string, change ...func(*channel.Options)) (*house, *hub.Channel) {
	t.Helper()
	h := open(t, append([]func(*channel.Options){func(o *channel.Options) { o.Replicas = o.Short.(*channeltest.Short) }}, change...)...)
	return h, h.put("Mirror", config)
}

// ago is a key of some seconds before the clock.
func (h *house) ago(seconds int, hash string) hub.Key {
	return hub.NewKey(h.clock.Now().Add(-time.Duration(seconds)*time.Second), hash)
}

func (h *house) replicate(ch *hub.Channel, body string, keys ...hub.Key) {
	h.t.Helper()
	var items []channel.Replica
	for _, k := range keys {
		items = append(items, channel.Replica{Key: k, ContentType: "text/plain", Body: []byte(body)})
	}
	if err := h.Replicate(ctx, ch, items...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) complete(ch *hub.Channel, upTo hub.Key) {
	h.t.Helper()
	if err := h.Complete(ctx, ch, upTo); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) found(ch *hub.Channel, q channel.Search) (keys []hub.Key, horizon hub.Key) {
	h.t.Helper()
	a, err := h.Find(ctx, ch, q)
	if err != nil {
		h.t.Fatal(err)
	}
	return a.Keys, a.Horizon
}

// TestReplicatedReads: the marker is the end of what is stable; searches by direction end there also when they ask for more (spec 01 §5).
func TestReplicatedReads(t *testing.T) {
	for _, horizon := range []hub.Horizon{{Auto: true}, {Seconds: 5}} {
		h, ch := mirror(t, from, func(o *channel.Options) { o.Horizon = horizon })
		a, b := h.ago(2, "aaaaaa"), h.ago(1, "bbbbbb")
		if _, _, _, err := h.BeginReplica(ctx, ch, false, hub.Key{}); err != nil {
			t.Fatal(err)
		}
		h.replicate(ch, "x", a, b)
		if keys, _ := h.found(ch, channel.Search{Kind: channel.Latest, N: 10}); len(keys) != 0 {
			t.Errorf("nothing is complete, and %v are shown", keys)
		}
		h.complete(ch, a)
		for _, q := range []channel.Search{
			{Kind: channel.Latest, N: 10}, {Kind: channel.Latest, N: 10, Stable: true}, {Kind: channel.Earliest, N: 10}, {Kind: channel.Next, N: 10, Key: h.ago(9, "0")},
			{Kind: channel.Previous, N: 10, Key: h.ago(0, "0")}, {Kind: channel.InWindow, Window: hub.WindowAt(a.Time(), hub.Day), Stable: true},
		} {
			if keys, upTo := h.found(ch, q); len(keys) != 1 || keys[0] != a || upTo != a {
				t.Errorf("%+v: %v up to %v", q, keys, upTo)
			}
		}
		if keys, _ := h.found(ch, channel.Search{Kind: channel.InWindow, Window: hub.WindowAt(a.Time(), hub.Day)}); len(keys) != 2 {
			t.Errorf("an unstable window shows %v", keys)
		}
		if got := h.read(ch, b, channel.GetOptions{}); got != "x" {
			t.Errorf("the item itself: %s", got)
		}
		if k, err := h.Horizon(ctx, "mirror"); err != nil || k != a {
			t.Errorf("horizon %v, %v", k, err)
		}
		if _, stable, err := h.Stable(ctx, ch); err != nil || !stable.Equal(a.Time()) {
			t.Errorf("stable %v, %v", stable, err)
		}
		// The source's clock is ahead.
		c := h.ago(-60, "cccccc")
		h.replicate(ch, "x", c)
		h.complete(ch, c)
		if keys, upTo := h.found(ch, channel.Search{Kind: channel.Latest, N: 10, Stable: true}); len(keys) != 3 || upTo != c {
			t.Errorf("%v up to %v", keys, upTo)
		}
		other := h.put("Other", `{"tags":["t"]}`)
		h.put("Mirror", `{"tags":["t"]}`)
		h.insert(other, "y")
		tagged, err := h.FindTagged(ctx, "t", channel.Search{Kind: channel.Latest, N: 10})
		if err != nil || len(tagged.Hits) != 4 {
			t.Errorf("%+v, %v", tagged.Hits, err)
		}
	}
}

// TestReplicateTwice: what is there is not written again, in whichever store it is.
func TestReplicateTwice(t *testing.T) {
	h, ch := mirror(t, `{"replicationSource":"http://else/channel/x","storage":"SINGLE"}`)
	a, b, c := h.ago(30, "aaaaaa"), h.ago(20, "bbbbbb"), h.ago(10, "cccccc")
	h.replicate(ch, "first", a, b, c)
	h.complete(ch, c)
	for _, item := range h.short.All("Mirror") { // archived, and swept
		if err := h.long.Write(ctx, ch, item); err != nil {
			t.Fatal(err)
		}
	}
	h.short.Sweep("Mirror", h.ago(15, "0"))
	h.replicate(ch, "second", a, b, c, h.ago(5, "dddddd"))
	if n := len(h.short.All("Mirror")); n != 2 {
		t.Errorf("the short-term store has %d items, want c and d", n)
	}
	for k, want := range map[hub.Key]string{a: "first", b: "first", c: "first"} {
		if got := h.read(ch, k, channel.GetOptions{}); got != want {
			t.Errorf("%v: %s", k, got)
		}
	}
	missing, err := h.Missing(ctx, ch, []hub.Key{a, h.ago(25, "xxxxxx"), c, h.ago(1, "yyyyyy")})
	if err != nil || len(missing) != 2 {
		t.Errorf("missing: %v, %v", missing, err)
	}
	// Older than everything, when another source is named.
	old := h.ago(4000, "oooooo")
	h.replicate(ch, "old", old)
	if keys, _ := h.found(ch, channel.Search{Kind: channel.Earliest, N: 1, Stable: true}); len(keys) != 1 || keys[0] != old {
		t.Errorf("earliest is %v", keys)
	}
}

func TestReplicateRules(t *testing.T) {
	h, ch := mirror(t, from)
	k := h.ago(1, "aaaaaa")
	for _, hash := range []string{"", "~ZZ", "a b", "a/b", "..", strings.Repeat("x", 129)} {
		err := h.Replicate(ctx, ch, channel.Replica{Key: hub.KeyAt(k.Millis(), hash), Body: []byte("x")})
		wantErr(t, err, hub.Invalid, "hash")
	}
	plain := h.put("Plain", `{}`)
	wantErr(t, h.Replicate(ctx, plain, channel.Replica{Key: k}), hub.Conflict, "not replicated")
	h.put("Mirror", `{"replicationSource":"http://else/channel/y"}`)
	wantErr(t, h.Replicate(ctx, ch, channel.Replica{Key: k}), hub.Conflict, "not replicated")
	wantErr(t, h.Complete(ctx, ch, k), hub.Conflict, "not replicated")
	if err := h.DeleteChannel(ctx, "Mirror", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, h.Replicate(ctx, ch, channel.Replica{Key: k}), hub.NotFound, "")
	if n := len(h.short.All("Mirror")); n != 0 {
		t.Errorf("%d items", n)
	}
	for _, want := range []hub.Kind{hub.Full, hub.Unavailable} {
		h, ch := mirror(t, from)
		h.short.Fail(hub.E(want, "no"))
		wantErr(t, h.Replicate(ctx, ch, channel.Replica{Key: k}), want, "")
		wantErr(t, h.Complete(ctx, ch, k), want, "")
	}
}

// TestReplicateLarge: the body goes to long-term storage under the item's own key; one that ends too early leaves nothing, and never replaces a whole one.
func TestReplicateLarge(t *testing.T) {
	h, ch := mirror(t, from, func(o *channel.Options) { o.LargeBytes, o.MaxItemBytes = 100, 400 })
	body := strings.Repeat("0123456789", 30)
	a, b, c := h.ago(3, "aaaaaa"), h.ago(2, "bbbbbb"), h.ago(1, "cccccc")
	for n, it := range []channel.Replica{
		{Key: a, ContentType: "text/x", Body: []byte(body)}, {Key: b, Reader: strings.NewReader(body), Size: 300}, {Key: c, Reader: strings.NewReader(body), Size: -1},
	} {
		if err := h.Replicate(ctx, ch, it); err != nil {
			t.Fatal(err)
		}
		f, err := h.Get(ctx, ch, it.Key, channel.GetOptions{})
		if err != nil || !f.Meta.Large || f.Meta.Size != 300 || f.Meta.ContentType != it.ContentType || h.read(ch, it.Key, channel.GetOptions{}) != body {
			t.Errorf("%d: %+v, %v", n, f.Meta, err)
		}
	}
	broken := errors.New("the line broke")
	for name, it := range map[string]channel.Replica{
		"short": {Key: b, Reader: strings.NewReader(body[:100]), Size: 300}, "long": {Key: h.ago(0, "dddddd"), Reader: strings.NewReader(body), Size: 299},
		"cut":     {Key: h.ago(0, "ffffff"), Reader: strings.NewReader(body[:100]), Size: 300},
		"endless": {Key: h.ago(0, "gggggg"), Reader: io.MultiReader(strings.NewReader(body), strings.NewReader(body)), Size: -1},
		"great":   {Key: h.ago(0, "hhhhhh"), Reader: strings.NewReader(body + body), Size: 600},
		"broken":  {Key: h.ago(0, "eeeeee"), Reader: io.MultiReader(strings.NewReader(body), badReader{broken}), Size: -1},
	} {
		err := h.Replicate(ctx, ch, it)
		if it.Key == b && err != nil || it.Key != b && err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := h.read(ch, b, channel.GetOptions{}); got != body || len(h.short.All("Mirror")) != 3 {
		t.Errorf("%d bytes, %d items", len(got), len(h.short.All("Mirror")))
	}
}

type badReader struct{ err error }

func (b badReader) Read([]byte) (int, error) { return 0, b.err }

// TestBeginReplica: where the marker begins.
func TestBeginReplica(t *testing.T) {
	h, ch := mirror(t, from)
	oldest := hub.First(h.clock.Now().AddDate(0, 0, -120))
	begin := func(ch *hub.Channel, resumed bool, archived hub.Key) (hub.Key, bool) {
		t.Helper()
		marker, o, fresh, err := h.BeginReplica(ctx, ch, resumed, archived)
		if now, ok := h.short.Complete(ch.Name); err != nil || !ok || now != marker || o.Less(oldest) {
			t.Fatalf("%v: marker %v, oldest %v", err, now, o)
		}
		return marker, fresh
	}
	if marker, fresh := begin(ch, false, hub.Key{}); marker.Time().After(h.clock.Now().AddDate(0, 0, -119)) || !fresh {
		t.Errorf("a pure target begins at %v", marker)
	}
	h.complete(ch, h.ago(100, "x"))
	if marker, fresh := begin(ch, true, hub.Key{}); marker != h.ago(100, "x") || fresh {
		t.Errorf("resumed at %v", marker)
	}
	before := h.clock.Now().Add(-time.Second)
	if marker, _ := begin(ch, false, hub.Key{}); marker.Time().Before(before) {
		t.Errorf("a target of which nobody knows anything goes on at %v", marker)
	}
	for name, f := range map[string]func(ch *hub.Channel) hub.Key{
		"empty":       func(*hub.Channel) hub.Key { return hub.Key{} },
		"with items":  func(ch *hub.Channel) hub.Key { h.insert(ch, "own"); return hub.Key{} },
		"with a past": func(*hub.Channel) hub.Key { return h.ago(1, "x") },
	} {
		plain := h.put("Plain"+name[len(name)-3:], `{}`)
		archived := f(plain)
		plain = h.put(plain.Name, from)
		if plain.Lives != 1 {
			t.Errorf("%s: lives %d", name, plain.Lives)
		}
		if marker, _ := begin(plain, false, archived); marker.Time().Before(before) != (name == "empty") {
			t.Errorf("%s: begins at %v", name, marker)
		}
	}
	h.short.Fail(hub.E(hub.Unavailable, "no"))
	_, _, _, err := h.BeginReplica(ctx, h.put("New", from), false, hub.Key{})
	wantErr(t, err, hub.Unavailable, "")
}

// TestLiveAgain: a channel whose source was cleared takes inserts, all of them above what was replicated, and goes on showing what it has.
func TestLiveAgain(t *testing.T) {
	h, ch := mirror(t, from)
	a := h.ago(5, "aaaaaa")
	h.replicate(ch, "a", a)
	h.complete(ch, a)
	ch = h.put("Mirror", `{"replicationSource":""}`)
	if ch.Replicated() || ch.LiveFrom != a.Millis()+1 || ch.HasTag(hub.ReplicatedTag) {
		t.Fatalf("%+v", ch)
	}
	own := h.insert(ch, "own")
	if keys, _ := h.found(ch, channel.Search{Kind: channel.Latest, N: 5, Stable: true}); fmt.Sprint(keys) != fmt.Sprint([]hub.Key{a, own}) {
		t.Errorf("%v", keys)
	}
	ch = h.put("Mirror", from)
	if ch.Lives != 1 {
		t.Errorf("lives %d", ch.Lives)
	}
	if keys, _ := h.found(ch, channel.Search{Kind: channel.Latest, N: 5, Stable: true}); len(keys) != 2 {
		t.Errorf("before its follower has begun it shows %v", keys)
	}
	if _, _, _, err := h.BeginReplica(ctx, ch, false, hub.Key{}); err != nil {
		t.Fatal(err)
	}
	if keys, _ := h.found(ch, channel.Search{Kind: channel.Latest, N: 5, Stable: true}); len(keys) != 2 {
		t.Errorf("when its follower has begun it shows %v", keys)
	}
	// The source was a minute ahead.
	b := h.ago(-60, "bbbbbb")
	h.replicate(ch, "b", b)
	h.complete(ch, b)
	ch = h.put("Mirror", `{"replicationSource":null}`)
	_, err := h.Insert(ctx, ch, channel.Upload{Body: []byte("x")})
	wantErr(t, err, hub.Unavailable, "ahead")
	var e *hub.Error
	if !errors.As(err, &e) || e.RetryAfter < 59*time.Second || e.RetryAfter > 65*time.Second {
		t.Errorf("%v", err)
	}
	_, err = h.InsertBulk(ctx, ch, "", time.Time{}, []channel.Part{{Body: []byte("x")}})
	wantErr(t, err, hub.Unavailable, "ahead")
	if keys, upTo := h.found(ch, channel.Search{Kind: channel.Latest, N: 5, Stable: true}); len(keys) != 3 || upTo != b {
		t.Errorf("%v up to %v", keys, upTo)
	}
	h.clock.Add(70 * time.Second)
	if own = h.insert(ch, "own"); !b.Less(own) {
		t.Errorf("%v was minted after %v", own, b)
	}
	if keys, upTo := h.found(ch, channel.Search{Kind: channel.Latest, N: 5, Stable: true}); len(keys) != 4 || upTo.Less(own) {
		t.Errorf("%v up to %v", keys, upTo)
	}
}
