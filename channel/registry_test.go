package channel_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/bucket/mem"
	"timehub/hub/catalog"
)

func patch(t *testing.T, body string) channel.ChannelPatch {
	t.Helper()
	p, err := channel.ParsePatch([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func names(all []*hub.Channel) string {
	var s []string
	for _, c := range all {
		s = append(s, c.Name)
	}
	return strings.Join(s, " ")
}

// TestTrim: what maxItems has removed is in no answer, whatever the stores still hold, and does not come back.
func TestTrim(t *testing.T) {
	h := open(t)
	ch := h.put("c", `{"maxItems":2}`)
	var keys []hub.Key
	for i := range 4 {
		keys = append(keys, h.insert(ch, fmt.Sprint(i)))
	}
	shown := func() string {
		t.Helper()
		ch, err := h.Channel(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		var s strings.Builder
		for _, k := range keys {
			if body := h.read(ch, k, channel.GetOptions{}); !strings.HasPrefix(body, "!") {
				s.WriteString(body)
			}
		}
		p, err := h.Keys(ctx, hub.Query{Channel: "c", From: hub.MinKey, To: hub.MaxKey})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(s.String(), " ", len(p.Keys))
	}
	trim := func(ch *hub.Channel, below hub.Key, want bool) {
		t.Helper()
		if done, err := h.Trim(ctx, ch, below); err != nil || done != want {
			t.Errorf("trim: %v %v", done, err)
		}
	}
	if s := shown(); s != "0123 4" {
		t.Error(s)
	}
	trim(ch, keys[2], true)
	if s := shown(); s != "23 2" {
		t.Error(s)
	}
	trim(ch, keys[1], true) // a job that slept
	if s := shown(); s != "23 2" {
		t.Error(s)
	}
	more := h.put("c", `{"maxItems":4}`)
	trim(ch, keys[3], false) // it keeps more now
	if s := shown(); s != "23 2" {
		t.Error(s)
	}
	trim(more, keys[3], true)
	if s := shown(); s != "3 1" {
		t.Error(s)
	}
	if err := h.DeleteChannel(ctx, "c", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	trim(more, keys[3], false)
	h.clock.Add(time.Minute)
	again := h.put("c", `{"maxItems":4}`)
	trim(more, keys[3], false)
	if again.Trimmed != "" {
		t.Errorf("a new channel begins with %s", again.Trimmed)
	}
}

func TestChannelsByName(t *testing.T) {
	h := open(t)
	h.put("beans", ``)
	h.put("Orders-EU", ``)
	for _, name := range []string{"orders-eu", "ORDERS-EU", "Orders-EU"} {
		for _, get := range []func() (*hub.Channel, error){
			func() (*hub.Channel, error) { return h.Channel(ctx, name) },
			func() (*hub.Channel, error) { return h.Fresh(ctx, name) },
		} {
			if ch, err := get(); err != nil || ch.Name != "Orders-EU" {
				t.Errorf("%s: %v %v", name, ch, err)
			}
		}
	}
	h.put("ORDERS-EU", `{"description":"again"}`)
	all, err := h.Channels(ctx)
	if err != nil || names(all) != "Orders-EU beans" {
		t.Errorf("%s %v", names(all), err)
	}
	for _, name := range []string{"nobody", "", "..", "a/b", "x\x00", strings.Repeat("y", 10000)} {
		for _, f := range []func() error{
			func() error { _, err := h.Channel(ctx, name); return err },
			func() error { _, err := h.Fresh(ctx, name); return err },
			func() error {
				_, err := h.PatchChannel(ctx, name, channel.ChannelPatch{Empty: true}, channel.Caller{})
				return err
			},
			func() error { return h.DeleteChannel(ctx, name, channel.Caller{}) },
		} {
			err := f()
			wantErr(t, err, hub.NotFound, "not found")
			if len(err.Error()) > 200 {
				t.Errorf("a long echo: %d bytes", len(err.Error()))
			}
		}
	}
	var e *hub.Error
	if _, err := h.Channel(ctx, "nobody"); !errors.As(err, &e) || e.Msg != "channel nobody not found" {
		t.Errorf("%v", err)
	}
}

func TestCreateChannel(t *testing.T) {
	h := open(t)
	create := func(body string) (*hub.Channel, error) { return h.CreateChannel(ctx, patch(t, body), channel.Caller{}) }
	ch, err := create(`{"name":"  Orders ","ttlDays":"14","creationDate":"2000-01-01"}`)
	if err != nil || ch.Name != "Orders" || ch.TTLDays != 14 || ch.CreationDate.Year() != 2026 || ch.CreationDate.Nanosecond()%1e6 != 0 {
		t.Errorf("%+v %v", ch, err)
	}
	_, err = create(`{"name":"oRDERS","ttlDays":1,"maxItems":1}`)
	wantErr(t, err, hub.Conflict, "Orders") // before the rules about limits
	_, err = create(`{}`)
	wantErr(t, err, hub.Invalid, "Channel name")
	_, err = create(`{"name":null}`)
	wantErr(t, err, hub.Invalid, "Channel name")
	_, err = create(`{"name":" "}`)
	wantErr(t, err, hub.Invalid, "Channel name")
	_, err = create(``)
	wantErr(t, err, hub.Invalid, "expected")
	_, err = create(`{"name":"x","mutableTime":"2030-01-01"}`)
	wantErr(t, err, hub.Invalid, "future")
	if _, err = h.Channel(ctx, "x"); !hub.Is(err, hub.NotFound) {
		t.Errorf("a refused channel exists: %v", err)
	}
	h.catalog.Fail(hub.E(hub.Unavailable, "away"))
	_, err = create(`{"name":"y"}`)
	wantErr(t, err, hub.Unavailable, "")
	_, err = h.Channels(ctx)
	wantErr(t, err, hub.Unavailable, "")
	wantErr(t, h.RefreshChannels(ctx), hub.Unavailable, "")
	if _, err = h.Channel(ctx, "orders"); err != nil {
		t.Errorf("memory goes on answering: %v", err)
	}
}

func TestPutAndPatch(t *testing.T) {
	h := open(t)
	ch, created, err := h.PutChannel(ctx, "X", channel.ChannelPatch{Empty: true}, channel.Caller{})
	if err != nil || !created || ch.TTLDays != 120 || ch.Storage != hub.Batch {
		t.Errorf("%+v %v %v", ch, created, err)
	}
	writes := h.catalog.Writes()
	for _, body := range []string{``, `{}`, `{"name":"other","ttlDays":"120","tags":[],"storage":"batch","description":null}`} {
		if ch, created, err = h.PutChannel(ctx, "x", patch(t, body), channel.Caller{}); err != nil || created || ch.Name != "X" {
			t.Errorf("%q: %+v %v %v", body, ch, created, err)
		}
	}
	if h.catalog.Writes() != writes {
		t.Error("nothing changed, and something was written")
	}
	if ch, err = h.PatchChannel(ctx, "x", patch(t, `{"description":"new"}`), channel.Caller{}); err != nil || ch.Description != "new" || h.catalog.Writes() != writes+1 {
		t.Errorf("%+v %v, %d writes", ch, err, h.catalog.Writes()-writes)
	}
	if now, err := h.Channel(ctx, "x"); err != nil || now.Description != "new" {
		t.Errorf("%+v %v", now, err)
	}
	_, err = h.PatchChannel(ctx, "x", channel.ChannelPatch{Empty: true}, channel.Caller{})
	wantErr(t, err, hub.Invalid, "expected")
	_, _, err = h.PutChannel(ctx, "a b", channel.ChannelPatch{}, channel.Caller{})
	wantErr(t, err, hub.Invalid, "a b")
	_, _, err = h.PutChannel(ctx, strings.Repeat("n", 49), channel.ChannelPatch{}, channel.Caller{})
	wantErr(t, err, hub.Invalid, "longer")
	_, _, err = h.PutChannel(ctx, "x", patch(t, `{"ttlDays":"-1"}`), channel.Caller{})
	wantErr(t, err, hub.Invalid, "ttlDays")
}

func TestProtectedChannels(t *testing.T) {
	h := open(t, func(o *channel.Options) { o.ProtectChannels = true })
	_, _, err := h.PutChannel(ctx, "x", channel.ChannelPatch{}, channel.Caller{})
	wantErr(t, err, hub.Invalid, "owner")
	h.put("open", `{"protect":false}`)
	ch := h.put("x", `{"owner":"me","tags":["a"]}`)
	if !ch.Protect {
		t.Error("not protected by default")
	}
	_, err = h.PatchChannel(ctx, "x", patch(t, `{"tags":[]}`), channel.Caller{})
	wantErr(t, err, hub.Forbidden, "tag")
	_, _, err = h.PutChannel(ctx, "x", patch(t, `{"ttlDays":1}`), channel.Caller{})
	wantErr(t, err, hub.Forbidden, "ttlDays")
	if _, err = h.PatchChannel(ctx, "x", patch(t, `{"tags":[]}`), channel.Caller{Local: true}); err != nil {
		t.Errorf("localhost: %v", err)
	}
	for _, name := range []string{"x", "open"} {
		wantErr(t, h.DeleteChannel(ctx, name, channel.Caller{}), hub.Forbidden, "localhost")
		wantErr(t, h.DeleteChannel(ctx, name, channel.Caller{Internal: true}), hub.Forbidden, "localhost")
		if err := h.DeleteChannel(ctx, name, channel.Caller{Local: true}); err != nil {
			t.Error(err)
		}
	}

	h = open(t)
	h.put("x", `{"owner":"me","protect":true}`)
	h.put("y", `{"owner":"me","protect":true}`)
	wantErr(t, h.DeleteChannel(ctx, "x", channel.Caller{}), hub.Forbidden, "localhost")
	if err := errors.Join(h.DeleteChannel(ctx, "x", channel.Caller{Internal: true}), h.DeleteChannel(ctx, "y", channel.Caller{Local: true})); err != nil {
		t.Error(err)
	}
}

func TestDeleteAndUseTheNameAgain(t *testing.T) {
	h := open(t)
	ch := h.put("Orders", `{"tags":["t"]}`)
	old := h.insert(ch, "old")
	h.long.Archive(ch, h.short.All("Orders")...)
	if err := h.DeleteChannel(ctx, "orders", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	_, err := h.Channel(ctx, "Orders")
	wantErr(t, err, hub.NotFound, "")
	wantErr(t, h.DeleteChannel(ctx, "orders", channel.Caller{}), hub.NotFound, "channel orders not found")
	if all, err := h.Channels(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v %v", all, err)
	}
	if tags, err := h.Tags(ctx); err != nil || len(tags) != 0 {
		t.Errorf("%v %v", tags, err)
	}
	remains, err := h.Remains(ctx)
	if err != nil || len(remains) != 1 || remains[0].Channel.Name != "Orders" || remains[0].Until <= old.Millis() {
		t.Fatalf("%+v %v", remains, err)
	}
	straggler := h.insert(ch, "from a node that has not heard of it")

	ch, created, err := h.PutChannel(ctx, "Orders", channel.ChannelPatch{}, channel.Caller{})
	if err != nil || !created || ch.Since <= straggler.Millis() || len(ch.Tags) != 0 {
		t.Fatalf("%+v %v %v", ch, created, err)
	}
	everything := channel.Search{Kind: channel.Earliest, N: 9, Stable: true}
	if got := h.find(ch, everything); got != "" {
		t.Errorf("items of the deleted channel: %q", got)
	}
	young := h.insert(ch, "young") // at once
	if got := h.find(ch, everything); got != "young" {
		t.Errorf("%q", got)
	}
	for _, k := range []hub.Key{old, straggler} {
		if got := h.read(ch, k, channel.GetOptions{}); got != "! not found" {
			t.Errorf("read %q", got)
		}
	}
	if got := h.read(ch, young, channel.GetOptions{}); got != "young" {
		t.Errorf("read %q", got)
	}
	if err := h.Cleaned(ctx, remains[0]); err != nil {
		t.Fatal(err)
	}
	again, err := h.Remains(ctx)
	if err != nil || len(again) != 1 || again[0].Until != ch.Since || again[0].Until > young.Millis() {
		t.Errorf("what came after the clean-up had looked: %+v %v", again, err)
	}
	_, err = h.PatchChannel(ctx, "Orders", patch(t, `{"mutableTime":"2025-01-01","ttlDays":0,"storage":"SINGLE"}`), channel.Caller{})
	wantErr(t, err, hub.Conflict, "cleaned up")
	if err := h.Cleaned(ctx, again[0]); err != nil {
		t.Fatal(err)
	}
	if again, err = h.Remains(ctx); err != nil || len(again) != 0 {
		t.Errorf("%+v %v", again, err)
	}
	ch, err = h.PatchChannel(ctx, "Orders", patch(t, `{"mutableTime":"2025-01-01","ttlDays":0,"storage":"SINGLE"}`), channel.Caller{})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.find(ch, channel.Search{Kind: channel.Earliest, N: 9, Epoch: hub.AllEpochs, Tier: hub.Cache}); got != "young" {
		t.Errorf("the log still hides what is older: %q", got)
	}
}

func TestDeletedHistoricalName(t *testing.T) {
	h := open(t)
	ch := h.put("old", `{"mutableTime":"2025-01-01"}`)
	past := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	k := h.insertAt(ch, past, "h", "first life")
	if err := h.DeleteChannel(ctx, "old", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	historical := patch(t, `{"mutableTime":"2025-01-01"}`)
	_, _, err := h.PutChannel(ctx, "OLD", historical, channel.Caller{})
	wantErr(t, err, hub.Conflict, "try again later")
	ordinary := h.put("old", ``)
	if got := h.find(ordinary, channel.Search{Kind: channel.Earliest, N: 9, Epoch: hub.AllEpochs}) + h.read(ordinary, k, channel.GetOptions{}); got != "! not found" {
		t.Errorf("%q", got)
	}
	if err := h.DeleteChannel(ctx, "old", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	remains, err := h.Remains(ctx)
	if err != nil || len(remains) != 1 {
		t.Fatalf("%+v %v", remains, err)
	}
	if err := h.long.Delete(ctx, &remains[0].Channel, k); err != nil {
		t.Fatal(err)
	}
	if err := h.Cleaned(ctx, remains[0]); err != nil {
		t.Fatal(err)
	}
	ch = h.put("old", `{"mutableTime":"2025-01-01"}`)
	h.insertAt(ch, past, "h2", "second-life")
	if got := h.find(ch, channel.Search{Kind: channel.Earliest, N: 9, Epoch: hub.Mutable}); got != "second-life" {
		t.Errorf("%q", got)
	}
}

func TestAnotherSpellingOfADeletedName(t *testing.T) {
	h := open(t)
	h.put("orders", ``)
	if err := h.DeleteChannel(ctx, "orders", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	if ch := h.put("ORDERS", ``); ch.Name != "ORDERS" {
		t.Errorf("%+v", ch)
	}
	if err := h.DeleteChannel(ctx, "orders", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	remains, err := h.Remains(ctx)
	if err != nil || len(remains) != 2 || remains[0].Channel.Name != "ORDERS" || remains[1].Channel.Name != "orders" {
		t.Errorf("%+v %v", remains, err)
	}
	for _, r := range remains {
		if err := h.Cleaned(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Cleaned(ctx, remains[0]); err != nil {
		t.Errorf("cleaned twice: %v", err)
	}
	if remains, err = h.Remains(ctx); err != nil || len(remains) != 0 {
		t.Errorf("%+v %v", remains, err)
	}
}

func TestFenceWaitsForTheHorizon(t *testing.T) {
	h := open(t)
	ch := h.put("x", ``)
	k := h.insert(ch, "a")
	if err := h.DeleteChannel(ctx, "x", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	h.short.Hold(&k)
	done := make(chan *hub.Channel)
	go func() {
		ch, _, err := h.PutChannel(ctx, "x", channel.ChannelPatch{}, channel.Caller{})
		if err != nil {
			t.Error(err)
		}
		done <- ch
	}()
	select {
	case <-done:
		t.Error("the channel was made while older writes may be undecided")
	case <-time.After(50 * time.Millisecond):
	}
	h.short.Hold(nil)
	if ch := <-done; ch != nil && ch.Since <= k.Millis() {
		t.Errorf("since %d, an old key %d", ch.Since, k.Millis())
	}
	h.short.Fail(hub.E(hub.Unavailable, "away"))
	if err := h.DeleteChannel(ctx, "x", channel.Caller{}); err != nil {
		t.Errorf("deleting needs no store: %v", err)
	}
	_, _, err := h.PutChannel(ctx, "x", channel.ChannelPatch{}, channel.Caller{})
	wantErr(t, err, hub.Unavailable, "")
}

func TestCreateRace(t *testing.T) {
	h := open(t)
	c, err := catalog.Open[channel.Document](ctx, catalog.Options{Bucket: mem.New(mem.Options{}), Prefix: ".hub/channels/"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := channel.New(channel.Options{Short: h.short, Long: h.long, Catalog: c, Clock: h.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var won int
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := s.CreateChannel(ctx, channel.ChannelPatch{Name: channel.Said("Race"), Description: channel.Said(fmt.Sprint(i))}, channel.Caller{})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !hub.Is(err, hub.Conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d creators of one name", won)
	}
	if err := s.DeleteChannel(ctx, "race", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	if ch, created, err := s.PutChannel(ctx, "race", channel.ChannelPatch{}, channel.Caller{}); err != nil || !created || ch.Since == 0 {
		t.Errorf("%+v %v %v", ch, created, err)
	}
	if ch, err := s.Fresh(ctx, "RACE"); err != nil || ch.Name != "race" {
		t.Errorf("%+v %v", ch, err)
	}
}

// ahead is a store of which other nodes may have minted so far ahead.
type ahead struct {
	channel.ShortTerm
	by time.Duration
}

func (a ahead) Ahead() time.Duration { return a.by }

// What other nodes have written to a channel, with clocks that are ahead, is not in the next channel of its name.
func TestNameAgainAmongOthers(t *testing.T) {
	h := open(t)
	h2 := open(t, func(o *channel.Options) {
		o.Short, o.Catalog, o.Clock = ahead{h.short, 50 * time.Millisecond}, h.catalog, h.clock.Now
	})
	h2.put("Orders", "{}")
	far := hub.KeyAt(h.clock.Now().Add(49*time.Millisecond).UnixMilli(), "00000a")
	if err := h2.DeleteChannel(ctx, "Orders", channel.Caller{}); err != nil {
		t.Fatal(err)
	}
	ch, _, err := h2.PutChannel(ctx, "Orders", channel.ChannelPatch{}, channel.Caller{})
	if err != nil || ch.Since <= far.Millis() {
		t.Errorf("since %v, %v was written before; %v", ch.Since, far.Millis(), err)
	}
}
