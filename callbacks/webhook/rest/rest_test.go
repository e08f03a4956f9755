package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	"timehub/hub/catalog"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
	"timehub/hub/web"
)

var update = flag.Bool("update", false, "write the golden files")

var testTime = time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC)

// world is the face over a real service, a real catalog and real cursors in memory, and one channel that is called Orders and has the tag cafe.
type world struct {
	t       *testing.T
	bucket  *mem.Bucket
	cursors *coord.Cursors
	svc     *webhook.Service
	diary   diary
	rt      *web.Router
}

func newWorld(t *testing.T, readOnly bool) *world {
	t.Helper()
	w := &world{t: t, bucket: mem.New(mem.Options{})}
	c, err := catalog.Open[webhook.Webhook](t.Context(), catalog.Options{Bucket: w.bucket, Prefix: ".hub/webhooks/"})
	if err != nil {
		t.Fatal(err)
	}
	if w.cursors, err = coord.NewCursors(coord.CursorsOptions{Registers: local.NewMemory().Session("a"), Prefix: webhook.CursorPrefix}); err != nil {
		t.Fatal(err)
	}
	w.svc, err = webhook.New(webhook.Options{Catalog: c, Cursors: w.cursors, Channels: channels{}, Runs: runs{}, Clock: func() time.Time { return testTime }})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Options{Service: w.svc, Attempts: &w.diary, ReadOnly: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	if w.rt, err = web.New(web.Options{Node: "n1:8080"}); err != nil {
		t.Fatal(err)
	}
	h.Mount(w.rt)
	return w
}

func (w *world) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, "http://hub.example"+target, strings.NewReader(body))
	r.RequestURI = target
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	w.rt.ServeHTTP(rec, r)
	return rec
}

func (w *world) want(rec *httptest.ResponseRecorder, code int, words ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	if rec.Code != code {
		w.t.Errorf("status %d, want %d: %s", rec.Code, code, rec.Body)
	}
	for _, word := range words {
		if !strings.Contains(rec.Body.String(), word) {
			w.t.Errorf("the body does not say %q: %s", word, rec.Body)
		}
	}
	return rec
}

// golden compares a whole answer with testdata/name.golden.
func golden(t *testing.T, name string, r *httptest.ResponseRecorder) {
	t.Helper()
	if got := r.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: Content-Type %q", name, got)
	}
	if !json.Valid(r.Body.Bytes()) {
		t.Errorf("%s is no JSON", name)
	}
	file, got := filepath.Join("testdata", name+".golden"), append(bytes.Clone(r.Body.Bytes()), '\n')
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

const minimal = `{"callbackUrl":"http://printer.example/cb","channelUrl":"http://hub.example/channel/orders"}`

func TestGoldenAnswers(t *testing.T) {
	w := newWorld(t, false)
	golden(t, "list-none", w.want(w.do("GET", "/webhook", ""), 200))
	rec := w.want(w.do("PUT", "/webhook/printer", `{"callbackUrl":"http://printer.example/cb?a=1&b=2","channelUrl":"http://hub.example/channel/orders/",
		"parallelCalls":2,"callbackTimeoutSeconds":30,"maxAttempts":5,"errorChannelUrl":"http://hub.example/channel/printer-errors"}`), 201)
	if l := rec.Header().Get("Location"); l != "http://hub.example/webhook/printer" {
		t.Errorf("Location %q", l)
	}
	golden(t, "put", rec)
	golden(t, "status-new", w.want(w.do("GET", "/webhook/printer", ""), 200))
	w.stands("printer", key(10, "aa"), webhook.State{
		Last: key(40, "dd").String(), Finished: []string{key(40, "dd").String()},
		InFlight: []webhook.Flight{{Path: key(20, "bb").String(), Attempts: 1}, {Path: key(30, "cc").String()}},
		Errors:   []webhook.Line{{Time: testTime.UnixMilli(), Path: key(20, "bb").String(), Text: "503 Service Unavailable"}},
	})
	golden(t, "status", w.want(w.do("GET", "/webhook/printer", ""), 200))
	golden(t, "errors", w.want(w.do("GET", "/webhook/printer/errors", ""), 200))
	golden(t, "lastCompleted", w.want(w.do("GET", "/webhook/printer/lastCompleted", ""), 200))

	golden(t, "put-all", w.want(w.do("PUT", "/group/all", `{"callbackUrl":"http://printer.example/cb","channelUrl":"https://far.example/x/channel/none","batch":"Minute",
		"ttlMinutes":7,"maxWaitMinutes":3,"fastForwardable":true,"secondaryMetricsReporting":true,"paused":true,"payload":"cloudevents",
		"secret":"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}`), 201))
	golden(t, "status-all", w.want(w.do("GET", "/group/all", ""), 200))
	golden(t, "put-prototype", w.want(w.do("PUT", "/webhook/proto", `{"callbackUrl":"http://printer.example/cb","tagUrl":"http://hub.example/tag/cafe"}`), 201))
	golden(t, "status-prototype", w.want(w.do("GET", "/webhook/proto", ""), 200))
	golden(t, "status-instance", w.want(w.do("GET", "/webhook/TAGWH_cafe_Orders", ""), 200))
	golden(t, "errors-prototype", w.want(w.do("GET", "/webhook/proto/errors", ""), 200))
	golden(t, "lastCompleted-prototype", w.want(w.do("GET", "/webhook/proto/lastCompleted", ""), 200))
	golden(t, "list", w.want(w.do("GET", "/webhook?x=1", ""), 200))
	golden(t, "list-groups", w.want(w.do("GET", "/group", ""), 200))

	golden(t, "attempts-none", w.want(w.do("GET", "/webhook/printer/attempts", ""), 200))
	w.diary = diary{all: []attempts.Attempt{
		{Time: testTime, Path: key(20, "bb").String(), Number: 2, Status: 503, Reason: "Service Unavailable", Latency: 12500 * time.Microsecond, Answer: []byte("no \"paper\" <left>\n\xff")},
		{Time: testTime, Path: key(20, "bb").String(), Number: 1, Error: "lookup nothing: no such host", Replay: true},
	}}
	golden(t, "attempts", w.want(w.do("GET", "/webhook/printer/attempts?status=failed", ""), 200))
	golden(t, "replay", w.want(w.do("POST", "/webhook/printer/replay", `{"item":"http://hub.example/channel/orders/`+key(20, "bb").String()+`"}`), 202))
}

// TestSecrets: what goes in never comes out.
func TestSecrets(t *testing.T) {
	w := newWorld(t, false)
	const one, two = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "whsec_MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
	body := strings.TrimSuffix(minimal, "}") + `,"secret":"` + one + `","previousSecret":"` + two + `"}`
	for _, rec := range []*httptest.ResponseRecorder{
		w.want(w.do("PUT", "/webhook/p", body), 201, `"signed": true`), w.want(w.do("GET", "/webhook/p", ""), 200, `"signed": true`),
		w.do("GET", "/webhook", ""), w.do("GET", "/webhook/p/errors", ""), w.do("GET", "/webhook/p/attempts", ""),
	} {
		if s := rec.Body.String(); strings.Contains(s, one[:8]) || strings.Contains(s, two[6:14]) {
			t.Errorf("a secret is shown: %s", s)
		}
	}
}

func TestStatuses(t *testing.T) {
	w := newWorld(t, false)
	w.want(w.do("PUT", "/webhook/p", minimal), 201)
	w.want(w.do("PUT", "/webhook/p", minimal), 200)
	w.want(w.do("PUT", "/group/p", minimal), 200, "http://hub.example/group/p")
	w.want(w.do("PUT", "/webhook/p", strings.Replace(minimal, "orders", "beans", 1)), 409, `{"error"`)
	w.want(w.do("PUT", "/webhook/p", minimal, "Content-Type: text/plain"), 415)
	w.want(w.do("PUT", "/webhook/p", minimal, "Accept: text/html"), 406)
	w.want(w.do("PUT", "/webhook/p", strings.Repeat(" ", maxDocument+1)), 413)
	for _, bad := range []string{"", " ", "{", "[]", "null", `{"callbackUrl"}`, `{callbackUrl:"x"}`} {
		w.want(w.do("PUT", "/webhook/p", bad), 400, `{"error": "`, "expected")
	}
	w.want(w.do("PUT", "/webhook/a.b", minimal), 400, "error")
	for _, path := range []string{"/webhook/none", "/group/none", "/webhook/none/errors", "/webhook/none/lastCompleted", "/webhook/none/attempts", "/webhook/a%20b"} {
		w.want(w.do("GET", path, ""), 404)
	}
	for _, path := range []string{"/group/p/errors", "/group/p/lastCompleted", "/group/p/attempts", "/webhook/p/x", "/webhook/p/errors/x"} {
		w.want(w.do("GET", path, ""), 404)
	}
	w.want(w.do("PUT", "/group/p/updateCursor", "http://h/channel/orders/2014/01/13/10/42"), 404)
	w.want(w.do("POST", "/webhook/p", minimal), 405)
	w.want(w.do("PATCH", "/webhook/p", minimal), 405)

	w.want(w.do("PUT", "/webhook/p/updateCursor", " http://h/channel/orders/2014/01/13/10/42\n", "Content-Type: text/plain; charset=utf-8"), 202)
	w.want(w.do("GET", "/webhook/p", ""), 200, "orders/2014/01/13/10/42")
	w.want(w.do("PUT", "/webhook/p/updateCursor", "http://h/orders/2014/01/13/10/42"), 400)
	w.want(w.do("PUT", "/webhook/p/updateCursor", ""), 400)
	w.want(w.do("PUT", "/webhook/none/updateCursor", "http://h/channel/orders/2014/01/13/10/42"), 404)
	w.want(w.do("PUT", "/webhook/p/updateCursor", "{}", "Content-Type: application/json"), 415)

	for _, bad := range []string{"", "{}", `{"item":5}`, `{"failed":"yes"}`, `{"failed":false}`, `{"item":"x","failed":true}`, `{"from":"x"}`, `[]`} {
		w.want(w.do("POST", "/webhook/p/replay", bad), 400, "error")
	}
	w.want(w.do("POST", "/webhook/none/replay", `{"failed":true}`), 404)
	w.want(w.do("POST", "/webhook/p/replay", `{"failed":true}`), 202, `"queued": 0`)
	w.want(w.do("POST", "/webhook/p/replay", `{"from":"2014/01/13","to":"2014/01/13/10"}`), 202, `"queued": 1`)

	w.want(w.do("DELETE", "/group/p", ""), 202)
	w.want(w.do("DELETE", "/webhook/p", ""), 404)
	w.want(w.do("GET", "/webhook/p", ""), 404)
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t, true)
	w.want(w.do("PUT", "/webhook/p", minimal), 403)
	w.want(w.do("PUT", "/group/p", minimal), 201)
	w.want(w.do("GET", "/webhook/p", ""), 200)
	w.want(w.do("PUT", "/webhook/p/updateCursor", "http://h/channel/orders/2014/01/13/10/42"), 403)
	w.want(w.do("POST", "/webhook/p/replay", `{"failed":true}`), 403)
	w.want(w.do("DELETE", "/webhook/p", ""), 403)
	w.want(w.do("DELETE", "/webhook/none", ""), 403)
}

func TestAttemptFilters(t *testing.T) {
	w := newWorld(t, false)
	w.want(w.do("PUT", "/webhook/p", minimal), 201)
	w.diary = diary{all: []attempts.Attempt{
		{Path: "2021/03/04/05/06/07/089/a", Status: 200}, {Path: "2021/03/04/05/06/07/089/b", Status: 404}, {Path: "2021/03/04/05/06/08/000/c", Status: 503},
		{Path: "2021/03/04/05/07/08/000/d", Error: "refused"}, {Path: "2021/03/04/05/07/08/000/e", Status: 200, Error: "the answer was cut"},
	}}
	for query, want := range map[string]string{
		"": "abcde", "?status=": "abcde", "?status=200": "ae", "?status=404": "b", "?status=4xx": "b", "?status=5XX": "c", "?status=failed": "bcde", "?status=ok": "a", "?status=0": "d",
		"?key=2021/3/4/5/6/7/89/b": "b", "?key=2021/03/04/05/06": "abc", "?key=http://h/channel/orders/2021/03/04/05/06/07": "ab", "?key=2021/03/04/05/06&status=failed": "bc",
		"?key=2020/03/04/05/06": "", "?other=x": "abcde",
	} {
		var got struct{ Attempts []struct{ Key string } }
		rec := w.want(w.do("GET", "/webhook/p/attempts"+query, ""), 200)
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		var letters string
		for _, a := range got.Attempts {
			letters += a.Key[len(a.Key)-1:]
		}
		if letters != want {
			t.Errorf("%q: %s, want %s", query, letters, want)
		}
	}
	for _, query := range []string{"?status=bad", "?status=6xx", "?status=99", "?status=1000", "?status=-1", "?key=x", "?key=2021/13/04", "?key=2021/03/04/05/06/07/089", "?key=2021/03/04/next/5"} {
		w.want(w.do("GET", "/webhook/p/attempts"+query, ""), 400, "error")
	}
}

func TestReadable(t *testing.T) {
	for in, want := range map[string]string{"": "", "abc": "abc", "abcä": "abcä", "abc\xc3": "abc", "abc\xf0\x9f\x98": "abc", "a\xffbcde": "a\ufffdbcde", "abcd\xff": "abcd\ufffd"} {
		if got := readable([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func key(ms int64, hash string) hub.Key { return hub.KeyAt(testTime.UnixMilli()+ms, hash) }

func (w *world) stands(name string, at hub.Key, s webhook.State) {
	w.t.Helper()
	h, err := w.svc.Get(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Born = h.Born
	payload, err := s.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.cursors.Reset(w.t.Context(), name, at, payload); err != nil {
		w.t.Fatal(err)
	}
}

type diary struct{ all []attempts.Attempt }

func (d *diary) List(_ string, f attempts.Filter) ([]attempts.Attempt, error) {
	return slices.DeleteFunc(slices.Clone(d.all), func(a attempts.Attempt) bool {
		return f.Path != "" && !strings.HasPrefix(a.Path, f.Path) || f.Status != 0 && a.Status != f.Status || f.Silent && a.Status != 0 || f.Failed && a.OK()
	}), nil
}

type runs struct{}

func (runs) Live(context.Context, string) (webhook.Live, bool) { return webhook.Live{}, false }
func (runs) Stop(context.Context, string) error                { return nil }
func (runs) Replay(_ context.Context, _ string, r webhook.Range) (int, error) {
	return max(1, len(r.Keys)), nil
}

type channels struct{}

var orders = &hub.Channel{Name: "Orders", Tags: []string{"cafe"}}

func (channels) Channel(_ context.Context, name string) (*hub.Channel, error) {
	if hub.ChannelID(name) == "orders" {
		return orders, nil
	}
	return nil, hub.E(hub.NotFound, "channel %s not found", name)
}

func (channels) Channels(context.Context) ([]*hub.Channel, error) { return []*hub.Channel{orders}, nil }

func (channels) TagChannels(_ context.Context, tag string) ([]*hub.Channel, error) {
	if tag == "cafe" {
		return []*hub.Channel{orders}, nil
	}
	return nil, nil
}

// Keys are those of 10, 20, 30 and 40 ms after the test's time.
func (channels) Keys(_ context.Context, q hub.Query) (hub.Page, error) {
	var p hub.Page
	all := []hub.Key{key(10, "aa"), key(20, "bb"), key(30, "cc"), key(40, "dd")}
	if q.Reverse {
		slices.Reverse(all)
	}
	for _, k := range all {
		if !k.Less(q.From) && k.Less(q.To) && len(p.Keys) < q.Limit {
			p.Keys = append(p.Keys, k)
		}
	}
	return p, nil
}

func (channels) Stable(context.Context, *hub.Channel) (now, stable time.Time, err error) {
	return testTime, testTime.Add(time.Second).Truncate(time.Second), nil
}

func (channels) Now(context.Context) (hub.Key, error) { return hub.NewKey(testTime, "initial"), nil }

func TestNewChecks(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("made without a service")
	}
}

// TestDamaged: a webhook whose configuration cannot be read is in the list, and whoever asks for it, or wants to change it, is told what is wrong.
func TestDamaged(t *testing.T) {
	w := newWorld(t, false)
	w.want(w.do("PUT", "/webhook/whole", `{"callbackUrl":"http://h/","channelUrl":"http://h/channel/orders"}`, "Content-Type: application/json"), 201)
	const text = `{"version":1,"value":{"name":7`
	if _, err := w.bucket.Put(t.Context(), ".hub/webhooks/harmed.json", strings.NewReader(text), int64(len(text)), bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", "/webhook", ""), 200, `"harmed"`, `"whole"`)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		w.want(w.do(method, "/webhook/harmed", `{"paused":true}`, "Content-Type: application/json"), 503, ".hub/webhooks/harmed.json", "damaged", "operator")
	}
	w.want(w.do("GET", "/webhook/whole", ""), 200)
	if err := w.bucket.Delete(t.Context(), ".hub/webhooks/harmed.json"); err != nil {
		t.Fatal(err)
	}
	if r := w.do("GET", "/webhook", ""); strings.Contains(r.Body.String(), "harmed") {
		t.Errorf("what was removed is listed: %s", r.Body)
	}
	w.want(w.do("GET", "/webhook/harmed", ""), 404)
}
