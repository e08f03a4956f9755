package webhook

import (
	"encoding/base64"
	"strings"
	"testing"

	"timehub/hub"
	"timehub/hub/catalog"
	"timehub/hub/coord"
)

const minimal = `"callbackUrl":"http://printer.example/cb","channelUrl":"http://hub.example/channel/orders"`

func key(bytes int) string { return base64.StdEncoding.EncodeToString(make([]byte, bytes)) }

// TestRules: every rule of a new webhook. An empty want: it is fine; else the kind is Invalid and the text has all words.
func TestRules(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{` + minimal + `}`, ""},
		{``, "expected object"}, {"  \n", "expected"}, {`null`, "expected object"}, {`[]`, "expected object"}, {`"x"`, "expected object"}, {`5`, "expected"},
		{`{callbackUrl:"x"}`, "expected double quotes"}, {`{'callbackUrl':'x'}`, "expected"}, {`{"a":1,}`, "expected"}, {`{"a":1} x`, "expected"},
		{`{"a":"` + "\xff" + `"}`, "expected UTF-8"}, {strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100), "expected levels"},
		{`{` + minimal + `,"name":5,"tag":[],"lastCompleted":{},"unknown":{"a":[1]}}`, ""},

		{`{"channelUrl":"http://hub.example/channel/orders"}`, "callbackUrl missing"},
		{`{"callbackUrl":"","channelUrl":"http://h/channel/a"}`, "callbackUrl missing"},
		{`{"callbackUrl":null,"channelUrl":"http://h/channel/a"}`, "callbackUrl missing"},
		{`{"callbackUrl":7,"channelUrl":"http://h/channel/a"}`, "callbackUrl string"},
		{`{"callbackUrl":"not a url","channelUrl":"http://h/channel/a"}`, "callbackUrl valid URL"},
		{`{"callbackUrl":"http://","channelUrl":"http://h/channel/a"}`, "callbackUrl host"},
		{`{"callbackUrl":"http:///cb","channelUrl":"http://h/channel/a"}`, "callbackUrl host"},
		{`{"callbackUrl":"http://:80/","channelUrl":"http://h/channel/a"}`, "callbackUrl host"},
		{`{"callbackUrl":"http://h:99999/","channelUrl":"http://h/channel/a"}`, "callbackUrl port"},
		{`{"callbackUrl":"http://[::1","channelUrl":"http://h/channel/a"}`, "callbackUrl valid"},
		{`{"callbackUrl":"http://h/%zz","channelUrl":"http://h/channel/a"}`, "callbackUrl valid"},
		{`{"callbackUrl":"http://h/\n","channelUrl":"http://h/channel/a"}`, "callbackUrl percent-encoded"},
		{`{"callbackUrl":"http://h/` + strings.Repeat("x", maxURL) + `","channelUrl":"http://h/channel/a"}`, "callbackUrl at most"},
		{`{"callbackUrl":"ftp://h/x","channelUrl":"http://h/channel/a"}`, ""}, // the scheme is not enforced
		{`{"callbackUrl":"http://localhost:8080/x","channelUrl":"http://h/channel/a"}`, ""},

		{`{"callbackUrl":"http://h/"}`, "channelUrl missing"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/bad/orders"}`, "channelUrl /channel/orders"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/channel/"}`, "channelUrl"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/channel/a b"}`, "channelUrl"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/channel/a/2021"}`, "channelUrl"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/x?y=/channel/a"}`, "channelUrl"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/deep/channel/a/"}`, ""},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/channel/a","tagUrl":"http://h/tag/a"}`, "channelUrl tagUrl both"},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/channel/a","tagUrl":""}`, ""},
		{`{"callbackUrl":"http://h/","tagUrl":"http://h/tag/a:b-c"}`, ""},
		{`{"callbackUrl":"http://h/","tagUrl":"http://h/tag/"}`, "tagUrl"},
		{`{"callbackUrl":"http://h/","tagUrl":"http://h/tag/a_b"}`, "tagUrl"},
		{`{"callbackUrl":"http://h/","tagUrl":"http://h/tags/a"}`, "tagUrl"},

		{`{` + minimal + `,"parallelCalls":0}`, "parallelCalls 1 or more"}, {`{` + minimal + `,"parallelCalls":"2"}`, "parallelCalls integer"},
		{`{` + minimal + `,"parallelCalls":1.5}`, "parallelCalls integer"}, {`{` + minimal + `,"parallelCalls":-1}`, "parallelCalls"},
		{`{` + minimal + `,"parallelCalls":99999999999}`, "parallelCalls"}, {`{` + minimal + `,"parallelCalls":2e0}`, ""},
		{`{` + minimal + `,"parallelCalls":null}`, ""},
		{`{` + minimal + `,"ttlMinutes":-1}`, "ttlMinutes"}, {`{` + minimal + `,"maxWaitMinutes":0}`, "maxWaitMinutes"}, {`{` + minimal + `,"maxAttempts":-1}`, "maxAttempts"},
		{`{` + minimal + `,"callbackTimeoutSeconds":0}`, "callbackTimeoutSeconds 1 1800"}, {`{` + minimal + `,"callbackTimeoutSeconds":1801}`, "callbackTimeoutSeconds"},
		{`{` + minimal + `,"callbackTimeoutSeconds":"x"}`, "callbackTimeoutSeconds"}, {`{` + minimal + `,"callbackTimeoutSeconds":1800}`, ""},
		{`{` + minimal + `,"paused":"true"}`, "paused true or false"}, {`{` + minimal + `,"fastForwardable":1}`, "fastForwardable"},

		{`{` + minimal + `,"batch":"hourly"}`, "batch SINGLE"}, {`{` + minimal + `,"batch":""}`, "batch"}, {`{` + minimal + `,"batch":"minute"}`, ""},
		{`{` + minimal + `,"batch":"MINUTE","heartbeat":false}`, ""}, {`{` + minimal + `,"heartbeat":true}`, "heartbeat SINGLE"},
		{`{` + minimal + `,"heartbeat":true,"batch":"single"}`, "heartbeat"}, {`{` + minimal + `,"heartbeat":true,"batch":"second"}`, ""},

		{`{` + minimal + `,"errorChannelUrl":"http://h/oops"}`, "errorChannelUrl"}, {`{` + minimal + `,"errorChannelUrl":"http://h/channel/e"}`, ""},
		{`{"callbackUrl":"http://h/","channelUrl":"http://h/channel/a","errorChannelUrl":"http://other/channel/A"}`, "errorChannelUrl follows another"},
		{`{"callbackUrl":"http://h/","tagUrl":"http://h/tag/a","errorChannelUrl":"http://other/channel/A"}`, ""},
		{`{` + minimal + `,"errorChannelUrl":""}`, ""}, {`{` + minimal + `,"errorChannelUrl":null}`, ""},
		{`{` + minimal + `,"payload":"xml"}`, "payload cloudevents"}, {`{` + minimal + `,"payload":"items"}`, ""}, {`{` + minimal + `,"payload":""}`, ""},
		{`{` + minimal + `,"orderBy":"(("}`, "orderBy"}, {`{` + minimal + `,"orderBy":".id"}`, ""}, {`{` + minimal + `,"orderBy":".` + strings.Repeat("x", maxOrderBy) + `"}`, "orderBy at most"},
		{`{` + minimal + `,"secret":"whsec_` + key(24) + `"}`, ""}, {`{` + minimal + `,"secret":"` + key(64) + `"}`, ""},
		{`{` + minimal + `,"secret":"whsec_` + key(23) + `"}`, "secret whsec_"}, {`{` + minimal + `,"secret":"whsec_` + key(65) + `"}`, "secret"},
		{`{` + minimal + `,"secret":"hunter2!"}`, "secret whsec_"}, {`{` + minimal + `,"secret":{"a":"hunter2"}}`, "secret string"},
		{`{` + minimal + `,"previousSecret":"whsec_` + key(24) + `"}`, "previousSecret"},
		{`{` + minimal + `,"secret":"` + key(32) + `","previousSecret":"whsec_` + key(24) + `"}`, ""},
	} {
		w := newWorld(t, nil)
		_, created, err := w.put("printer", c.body)
		if c.want == "" {
			if err != nil || !created {
				t.Errorf("%s: created %v, %v", c.body, created, err)
			}
			continue
		}
		if !hub.Is(err, hub.Invalid) {
			t.Errorf("%s: %v, want an error of kind invalid", c.body, err)
			continue
		}
		for word := range strings.FieldsSeq(c.want) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%.200s: the error does not say %q: %v", c.body, word, err)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the secret: %v", err)
		}
		if len(w.names()) > 0 || len(w.channels.made) > 0 {
			t.Errorf("%s: refused, but something was made", c.body)
		}
	}
}

func TestDefaults(t *testing.T) {
	w := newWorld(t, nil)
	h := w.mustPut("printer", `{"callbackUrl":"http://printer.example/cb","channelUrl":"http://hub.example/channel/orders/"}`)
	h2 := *h
	h2.Born, h2.Start = "", ""
	if want := (Webhook{Name: "printer", CallbackURL: "http://printer.example/cb", ChannelURL: "http://hub.example/channel/orders", ParallelCalls: 1,
		Batch: "SINGLE", MaxWaitMinutes: 1, CallbackTimeoutSeconds: 120}); h2 != want {
		t.Errorf("got %+v, want %+v", h2, want)
	}
	if h.Born == "" || h.ChannelName() != "orders" {
		t.Errorf("born %q, channel %q", h.Born, h.ChannelName())
	}
}

func TestInstallationRules(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Rules = Rules{MinTimeout: 5, MaxTimeout: 10, DefaultTimeout: 7, Cluster: true} })
	if h := w.mustPut("a", `{`+minimal+`}`); h.CallbackTimeoutSeconds != 7 {
		t.Errorf("default time-out %d", h.CallbackTimeoutSeconds)
	}
	for _, body := range []string{
		`{` + minimal + `,"callbackTimeoutSeconds":4}`, `{` + minimal + `,"callbackTimeoutSeconds":11}`, `{` + minimal + `,"orderBy":".id"}`,
		`{"callbackUrl":"http://user:secret@LocalHost:8080/x","channelUrl":"http://h/channel/a"}`,
	} {
		if _, _, err := w.put("b", body); !hub.Is(err, hub.Invalid) || strings.Contains(err.Error(), "user") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestOptions(t *testing.T) {
	c := &channels{}
	for _, o := range []Options{
		{}, {Cursors: (*coord.Cursors)(nil), Channels: c},
		{Catalog: (*catalog.Catalog[Webhook])(nil), Cursors: (*coord.Cursors)(nil), Channels: c, Rules: Rules{DefaultTimeout: 2000}},
		{Catalog: (*catalog.Catalog[Webhook])(nil), Cursors: (*coord.Cursors)(nil), Channels: c, Rules: Rules{MinTimeout: 200}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("made of %+v", o)
		}
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"a", "A-b_9", strings.Repeat("x", 128)} {
		w.mustPut(name, `{`+minimal+`}`)
	}
	for _, name := range []string{"", "a b", "ä", "a.b", "a/b", "a:b", strings.Repeat("x", 129)} {
		if _, _, err := w.put(name, `{`+minimal+`}`); !hub.Is(err, hub.Invalid) {
			t.Errorf("PUT %q: %v", name, err)
		}
		if _, err := w.svc.Get(t.Context(), name); !hub.Is(err, hub.NotFound) {
			t.Errorf("GET %q: %v", name, err)
		}
		if err := w.svc.Delete(t.Context(), name); !hub.Is(err, hub.NotFound) {
			t.Errorf("DELETE %q: %v", name, err)
		}
	}
	if _, err := w.svc.Get(t.Context(), "a-B_9"); !hub.Is(err, hub.NotFound) {
		t.Errorf("names are case-sensitive, but: %v", err)
	}
}

// TestMerge: absent members keep what is stored, null brings the default back, and heartbeat follows batch.
func TestMerge(t *testing.T) {
	w := newWorld(t, nil)
	secret := "whsec_" + key(32)
	w.mustPut("p", `{`+minimal+`,"parallelCalls":3,"ttlMinutes":9,"maxAttempts":4,"errorChannelUrl":"http://hub.example/channel/e","secret":"`+secret+`","orderBy":".id","payload":"items","paused":true}`)
	h := w.mustPut("p", `{"callbackUrl":"http://other.example/"}`)
	if h.ParallelCalls != 3 || h.TTLMinutes != 9 || h.MaxAttempts != 4 || h.ErrorChannelURL == "" || h.Secret != secret || h.OrderBy != ".id" || h.Payload != Items || !h.Paused {
		t.Errorf("a partial body changed more than it says: %+v", h)
	}
	h = w.mustPut("p", `{"parallelCalls":null,"ttlMinutes":null,"maxAttempts":null,"errorChannelUrl":null,"secret":null,"orderBy":"","payload":null,"paused":null,"tagUrl":null}`)
	if h.ParallelCalls != 1 || h.TTLMinutes != 0 || h.MaxAttempts != 0 || h.ErrorChannelURL != "" || h.Secret != "" || h.OrderBy != "" || h.Payload != "" || h.Paused {
		t.Errorf("null does not bring the defaults back: %+v", h)
	}
	if h = w.mustPut("p", `{"batch":"Minute"}`); h.Batch != "Minute" || !h.Heartbeat || h.Unit() != hub.Minute {
		t.Errorf("batch %q, heartbeat %v", h.Batch, h.Heartbeat)
	}
	if h = w.mustPut("p", `{"batch":"SINGLE"}`); h.Heartbeat {
		t.Error("heartbeat stays when batch becomes SINGLE")
	}
	if _, _, err := w.put("p", `{"channelUrl":null}`); !hub.Is(err, hub.Invalid) {
		t.Errorf("channelUrl null: %v", err)
	}
	if _, _, err := w.put("p", `{"callbackUrl":null}`); !hub.Is(err, hub.Invalid) {
		t.Errorf("callbackUrl null: %v", err)
	}
}

func FuzzParsePatch(f *testing.F) {
	for _, s := range []string{"", "{}", `{` + minimal + `}`, `{"parallelCalls":1e999}`, `{"parallelCalls":-0}`, `{"startItem":"previous","paused":null}`, `{"secret":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePatch(b)
		if err != nil {
			if !hub.Is(err, hub.Invalid) {
				t.Fatalf("kind %v", hub.KindOf(err))
			}
			return
		}
		if w, err := (Rules{}).filled().merge(nil, "x", p); err == nil && (w.ParallelCalls < 1 || w.CallbackURL == "" || w.IsPrototype() == (w.ChannelName() != "")) {
			t.Fatalf("%s makes %+v", b, w)
		} else if err != nil && !hub.Is(err, hub.Invalid) {
			t.Fatalf("kind %v", hub.KindOf(err))
		}
	})
}
