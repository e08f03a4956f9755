package rest

import (
	"context"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub"
)

// sequelShort is a store that knows other nodes.
type sequelShort struct {
	*memShort
	asked []hub.Key
	err   error
}

func (s *sequelShort) After(_ context.Context, key hub.Key) error {
	s.asked = append(s.asked, key)
	return s.err
}

func TestHubAfter(t *testing.T) {
	store := &sequelShort{}
	w := newWorld(t, func(so *channel.Options, _ *Options) {
		store.memShort = so.Short.(*memShort)
		so.Short = store
	})
	w.put("x", "")
	last := hub.KeyAt(testTime.UnixMilli(), "00Aabc")
	header := "Hub-After: " + last.String()
	multi := []string{header, "Content-Type: multipart/mixed; boundary=b"}
	bulk := "--b\r\n\r\none\r\n--b--\r\n"
	for i, send := range []func() reply{
		func() reply { return w.do("POST", "/channel/x", "a", header) },
		func() reply { return w.do("POST", "/channel/x/bulk", bulk, multi...) },
		func() reply { return w.do("POST", "/provider", "a", header, "channelName: x") },
		func() reply { return w.do("POST", "/provider/bulk", bulk, append(multi, "channelName: x")...) },
	} {
		if r := send(); r.code != 200 && r.code != 201 {
			t.Errorf("%d: %d %s", i, r.code, r.body)
		}
		if len(store.asked) != i+1 || store.asked[i] != last {
			t.Fatalf("%d: asked for %v", i, store.asked)
		}
	}
	w.want(w.do("POST", "/channel/x", "a"), 201)
	w.want(w.do("POST", "/channel/x", "a", "Hub-After: yesterday"), 400)
	if len(store.asked) != 4 {
		t.Errorf("asked for %v", store.asked)
	}
	store.err = hub.E(hub.Invalid, "too far ahead")
	before := len(store.items["x"])
	if r := w.want(w.do("POST", "/channel/x", "a", header), 400); !strings.Contains(r.body, "too far ahead") || len(store.items["x"]) != before {
		t.Errorf("written all the same: %s", r.body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := w.svc.After(ctx, last); !hub.Is(err, hub.Invalid) {
		t.Error(err)
	}
}

// A store without others takes the header and has nothing to do.
func TestHubAfterAlone(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	w.want(w.do("POST", "/channel/x", "a", "Hub-After: 2021/03/04/05/06/07/089/00Aabc"), 201)
}

// silentShort has others that do not answer.
type silentShort struct{ *memShort }

func (s silentShort) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	page, err := s.memShort.Keys(ctx, q)
	if !q.Stable {
		page.Silent = 2
	}
	return page, err
}

// Whoever asks for what is not stable is told who did not answer, in bulk too.
func TestHubSilent(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, _ *Options) { so.Short = silentShort{so.Short.(*memShort)} })
	w.put("x", "")
	w.post("x", "a")
	for target, want := range map[string]string{
		"/channel/x/2021/03/04?stable=false":           "2",
		"/channel/x/2021/03/04?stable=false&bulk=true": "2",
		"/channel/x/latest/5?stable=false":             "2",
		"/channel/x/latest/5?stable=false&bulk=true":   "2",
		"/channel/x/latest?stable=false":               "2",
		"/channel/x/2021/03/04":                        "",
		"/channel/x/2021/03/04?bulk=true":              "",
		"/channel/x/latest/5":                          "",
	} {
		r := w.get(target)
		if got := r.header.Get("Hub-Silent"); got != want || r.code >= 400 {
			t.Errorf("%s: %d, Hub-Silent %q, want %q", target, r.code, got, want)
		}
	}
}
