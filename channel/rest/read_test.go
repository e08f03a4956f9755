package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// uris are the addresses of a list, without {hub}.
func (w *world) uris(r reply) []string {
	w.t.Helper()
	var doc struct {
		Links struct {
			URIs []string `json:"uris"`
		} `json:"_links"`
	}
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil {
		w.t.Fatalf("%v: %s", err, r.body)
	}
	for i, u := range doc.Links.URIs {
		doc.Links.URIs[i] = strings.TrimPrefix(u, "http://hub.example")
	}
	return doc.Links.URIs
}

func (w *world) wantURIs(r reply, want ...string) {
	w.t.Helper()
	w.want(r, 200)
	if got := w.uris(r); strings.Join(got, " ") != strings.Join(want, " ") {
		w.t.Errorf("uris %q, want %q", got, want)
	}
}

func TestQueries(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, _ *Options) { so.MaxCount = 4 })
	w.put("x", "")
	var p []string
	for i := range 6 {
		p = append(p, w.post("x", fmt.Sprint(i)))
	}
	w.now = w.now.Add(10 * time.Second)
	const ch = "/channel/x"
	w.wantURIs(w.get(ch+"/2021/03/04/05/06/08"), p[0])
	w.wantURIs(w.get(ch+"/2021/03/04"), p...)
	w.wantURIs(w.get(ch+"/2021/03/04/05?order=Desc"), p[5], p[4], p[3], p[2], p[1], p[0])
	w.wantURIs(w.get(ch + "/2021/03/04/04"))
	w.wantURIs(w.get(p[1]+"/next/2"), p[2], p[3])
	w.wantURIs(w.get(p[1]+"/n/2?order=d"), p[3], p[2])
	w.wantURIs(w.get(p[4]+"/previous/2"), p[2], p[3])
	w.wantURIs(w.get(p[4]+"/p/2"), p[2], p[3])
	w.wantURIs(w.get(p[4]+"/%7c/2"), p[2], p[3])
	w.wantURIs(w.get(p[1]+"/next/2?inclusive=true"), p[1], p[2])
	w.wantURIs(w.get(p[4]+"/previous/2?inclusive=TRUE"), p[3], p[4])
	w.wantURIs(w.get(ch+"/2021/03/04/05/06/08/000/~/next/1?inclusive=true"), p[0])
	w.wantURIs(w.get(p[0]+"/next/1000000000"), p[1], p[2], p[3], p[4])
	w.wantURIs(w.get(p[0] + "/next/0"))
	w.wantURIs(w.get(p[0] + "/next/-5"))
	w.wantURIs(w.get(ch+"/latest/2"), p[4], p[5])
	w.wantURIs(w.get(ch + "/latest/0"))
	w.wantURIs(w.get(ch+"/earliest/2?order=desc"), p[1], p[0])
	w.wantURIs(w.get(ch+"/2021/03/04?location=CACHE_WRITE"), p...)
	w.wantURIs(w.get(ch+"/0000/01/01/00/00/02/previous/3"), ch+"/0000/01/01/00/00/00", ch+"/0000/01/01/00/00/01")
	w.wantURIs(w.get(ch + "/0000/01/01/00/00/00/previous/3"))
	w.wantURIs(w.get(ch+"/0000/01/01/00/00/00/next/2"), ch+"/0000/01/01/00/00/00", ch+"/0000/01/01/00/00/01")
	w.wantURIs(w.get(ch+"/2021/03/04/05/06/22/next/4"), ch+"/2021/03/04/05/06/22", ch+"/2021/03/04/05/06/23")
	w.wantURIs(w.get(ch + "/2021/03/04?location=LONG_TERM"))
	w.wantURIs(w.get(ch + "/2021/03/04?location=CACHE_READ"))

	see := func(target, location string) {
		t.Helper()
		r := w.want(w.get(target, "Accept: image/png"), 303)
		if got := strings.TrimPrefix(r.location(), "http://hub.example"); got != location || r.body != "" {
			t.Errorf("%s: Location %q, want %q", target, got, location)
		}
	}
	see(p[0]+"/next?stable=false&trace=true", p[1])
	see(p[1]+"/previous", p[0])
	see(ch+"/latest?x=y", p[5])
	see(ch+"/earliest", p[0])
	see(ch+"/2021/3/4/5/6/8/89?order=d&x=%7e", ch+"/2021/3/4/5/6/8?order=d&x=%7e")
	see(ch+"/time/minute?stable=true&a=b", ch+"/2021/03/04/05/06?stable=true&a=b")
	see("/channel/nobody/time/day", "/channel/nobody/2021/03/04")
	see("/tag/some/time/hour", "/tag/some/2021/03/04/05")
	for target, code := range map[string]int{
		p[5] + "/next": 404, p[0] + "/previous": 404, ch + "/earliest/0": 404, ch + "/latest/x": 404, ch + "/time/year": 404, ch + "/time/second/1": 404,
		ch + "/2021/03/04?epoch=mutable": 400, ch + "/2021/03/04?location=MOON": 400, ch + "/latest?epoch=X": 400, p[0] + "/next?location=X": 400,
		ch + "/2021/03/04/05/06/08/next": 404, ch + "/2021/03/04/05/06/next/3": 404, "/channel/nobody/2021/03/04": 404, "/channel/nobody/latest": 404,
		"/channel/nobody/time": 404, "/channel/nobody/status": 404, "/tag/none/latest": 404, "/tag/none/latest/2": 404, "/tag/none/earliest": 404,
		"/tag/none/2021/03/04/05/06/08/089/abc": 404, "/tag/none/2021/03/04/05/06/08/next/3": 404, "/tag/none/2021/03/04/05/06/08/089": 404,
	} {
		if r := w.get(target); r.code != code {
			t.Errorf("%s: %d, want %d: %s", target, r.code, code, r.body)
		}
	}
}

func TestStableAnswers(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, _ *Options) { so.Horizon = hub.Horizon{Seconds: 5} })
	w.put("x", "")
	first := w.post("x", "1")
	w.now = w.now.Add(10 * time.Second)
	second := w.post("x", "2")
	w.wantURIs(w.get("/channel/x/2021/03/04"), first)
	w.wantURIs(w.get("/channel/x/2021/03/04?stable=false"), first, second)
	if got := w.get("/channel/x/latest").location(); !strings.HasSuffix(got, first) {
		t.Errorf("latest %q", got)
	}
	if got := w.get("/channel/x/latest?stable=false").location(); !strings.HasSuffix(got, second) {
		t.Errorf("latest?stable=false %q", got)
	}
	w.want(w.get(second), 200)
	r := w.get("/channel/x/2021/03/04/05/06/08")
	if !strings.Contains(r.body, `"next"`) || r.header.Get("Hub-Horizon") == "" {
		t.Errorf("%v %s", r.header, r.body)
	}
	if r := w.get("/channel/x/2021/03/04/05/06/13"); strings.Contains(r.body, `"next"`) {
		t.Errorf("a next window that ends at the stable instant is linked: %s", r.body)
	}
	horizon := r.header.Get("Hub-Horizon")
	w.want(w.get("/channel/x/latest", "Hub-Horizon: "+horizon), 303)
	if r := w.want(w.get("/channel/x/latest", "Hub-Horizon: 2021/03/04/06/00/00/000/abc"), 503); r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.want(w.get("/channel/x/latest", "Hub-Horizon: soon"), 400)
}

func TestEpochs(t *testing.T) {
	w := newWorld(t, nil)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	r := w.want(w.do("POST", "/channel/old/2020/05/05/01/02/03/004/abc", "x"), 201)
	mutable := strings.TrimPrefix(r.location(), "http://hub.example")
	live := w.post("old", "y")
	w.wantURIs(w.get("/channel/old/latest/5"), live)
	w.wantURIs(w.get("/channel/old/latest/5?epoch=MUTABLE"), mutable)
	w.wantURIs(w.get("/channel/old/latest/5?epoch=ALL"), mutable, live)
	w.wantURIs(w.get("/channel/old/2020/05/05?epoch=MUTABLE"), mutable)
	w.wantURIs(w.get("/channel/old/2020/05/05"))
	w.wantURIs(w.get("/channel/old/0001/01/01/00/00/00/000/a/next/2?epoch=ALL"), mutable, live)
}

type readPart struct{ contentType, key, date, body string }

func (w *world) parts(r reply) []readPart {
	w.t.Helper()
	_, params, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil {
		w.t.Fatalf("%v: %q", err, r.header.Get("Content-Type"))
	}
	if !strings.HasPrefix(r.body, "--"+params["boundary"]) || !strings.HasSuffix(r.body, "--"+params["boundary"]+"--") {
		w.t.Errorf("preamble or epilogue: %q", r.body)
	}
	var out []readPart
	m := multipart.NewReader(strings.NewReader(r.body), params["boundary"])
	for {
		p, err := m.NextRawPart()
		if err == io.EOF {
			return out
		}
		if err != nil {
			w.t.Fatalf("%v: %q", err, r.body)
		}
		b, _ := io.ReadAll(p)
		out = append(out, readPart{p.Header.Get("Content-Type"), strings.TrimPrefix(p.Header.Get("Content-Key"), "http://hub.example"), p.Header.Get("Creation-Date"), string(b)})
	}
}

func TestBulkReads(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, _ *Options) { so.LargeBytes = 3 << 20 })
	w.put("x", `{"tags":["t"]}`)
	w.put("y", `{"tags":["t"]}`)
	big := strings.Repeat("big ", 300000)
	large := strings.Repeat("large ", 600000)
	a := w.post("x", "one", "Content-Type: text/plain; charset=utf-8")
	b := w.post("X", "\x00\r\n--\xff")
	c := w.post("y", "other", "Content-Type: a/b")
	d := w.post("x", big)
	e := w.post("x", large, "Content-Type: text/csv")
	w.now = w.now.Add(time.Minute)
	at := func(i int) string { return hub.ISO(testTime.Add(time.Duration(i) * time.Second)) }
	want := []readPart{{"text/plain; charset=utf-8", a, at(1), "one"}, {"", strings.Replace(b, "X", "x", 1), at(2), "\x00\r\n--\xff"}, {"", d, at(4), big}, {"text/csv", e, at(5), large}}
	check := func(r reply, want []readPart) {
		t.Helper()
		w.want(r, 200)
		got := w.parts(r)
		if len(got) != len(want) {
			t.Fatalf("%d parts, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("part %d is %.200q, want %.200q", i, got[i], want[i])
			}
		}
	}
	r := w.get("/channel/x/2021/03/04/05/06?bulk=true&x=%7e")
	check(r, want)
	if got := r.header.Values("Link"); len(got) != 2 || got[0] != `<http://hub.example/channel/x/2021/03/04/05/07?bulk=true&x=%7e>;rel="next"` || !strings.HasSuffix(got[1], `/05/05?bulk=true&x=%7e>;rel="previous"`) {
		t.Errorf("Link %q", got)
	}
	if r.header.Get("Hub-Horizon") == "" {
		t.Error("no Hub-Horizon")
	}
	check(w.get("/channel/x/2021/03/04/05/06?batch=TRUE&order=d"), []readPart{want[3], want[2], want[1], want[0]})
	r = w.get(a + "/next/2?bulk=true")
	check(r, want[1:3])
	if got := r.header.Values("Link"); len(got) != 2 || !strings.Contains(got[0], want[2].key+`/next/2?bulk=true>;rel="next"`) || !strings.Contains(got[1], want[1].key+`/previous/2?bulk=true>;rel="previous"`) {
		t.Errorf("Link %q", got)
	}
	check(w.get(a+"/previous/2?bulk=true"), nil)
	if got := w.get(a + "/previous/2?bulk=true"); got.header["Link"] != nil {
		t.Errorf("Link of nothing: %q", got.header["Link"])
	}
	r = w.get("/channel/x/latest/1?bulk=true")
	check(r, want[3:])
	if r.header["Link"] != nil {
		t.Errorf("Link of latest: %q", r.header["Link"])
	}
	check(w.get("/channel/x/earliest/1?bulk=true"), want[:1])
	check(w.get("/channel/x/2021/03/04/04?bulk=true"), nil)
	check(w.get("/channel/x/latest/0?bulk=true"), nil)
	tagged := []readPart{want[0], {"", strings.Replace(b, "X", "x", 1), at(2), "\x00\r\n--\xff"}, {"a/b", c, at(3), "other"}}
	r = w.get("/tag/t/2021/03/04/05/06/09?bulk=true&stable=false")
	check(r, tagged[1:2])
	if got := r.header.Get("Link"); got != `<http://hub.example/tag/t/2021/03/04/05/06/10?bulk=true&stable=false>;rel="next"` {
		t.Errorf("Link %q", got)
	}
	check(w.get("/tag/t/earliest/3?bulk=true"), tagged)
	check(w.get("/channel/nobody/earliest/3?bulk=true&tag=t"), tagged)
	w.want(w.get("/channel/x/earliest/0?bulk=true"), 404)
	w.put("empty", "")
	w.want(w.get("/channel/empty/latest/3?bulk=true"), 404)
	w.want(w.get("/channel/empty/earliest/3?bulk=true", "Accept: application/zip"), 404)
	w.want(w.get("/channel/nobody/2021/03/04?bulk=true"), 404)
	w.want(w.get("/tag/t/2021/03/04?bulk=true", "Accept: application/zip"), 406)
	w.want(w.get("/channel/x/2021/03/04?bulk=true", "Accept: image/png"), 406)
	if head := w.want(w.do("HEAD", "/channel/x/2021/03/04/05/06?bulk=true", ""), 200); head.body != "" || !strings.HasPrefix(head.header.Get("Content-Type"), "multipart/mixed") {
		t.Errorf("HEAD: %v", head.header)
	}
}

func TestAFailingStoreBreaksABulkAnswerOff(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	for range 10 {
		w.post("x", strings.Repeat("x", 100000))
	}
	w.short.fail, w.short.cut = errors.New("the disk went away"), 5
	s := httptest.NewServer(w.rt)
	resp, err := http.Get(s.URL + "/channel/x/2021/03/04?bulk=true")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks like a whole one")
	}
	s.Close() // waits for the handler, which reads what is changed now
	w.short.cut = 0
	w.want(w.get("/channel/x/2021/03/04?bulk=true"), 500, "500 Internal error")
	w.short.fail = hub.E(hub.Unavailable, "a hole")
	w.want(w.get("/channel/x/2021/03/04"), 503, "a hole")
}

func TestTraces(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	p := w.post("x", "1")
	for _, target := range []string{"/channel/x/2021/03/04?trace=true", "/channel/x/latest/1?trace=true", p + "/next/1?trace=TRUE", "/channel/x/2021/03/04/05/06/07/next/2?trace=true", "/channel/x/status?trace=true", "/tag/t/2021/03/04?trace=true"} {
		r := w.want(w.get(target), 200)
		var doc struct {
			First, ID, Start string
			Millis           *int64
			Trace            []string
		}
		if err := web.Decode([]byte(r.body), &doc); err != nil || doc.First != "GET http://hub.example"+target || len(doc.ID) != 36 || doc.Millis == nil || len(doc.Trace) == 0 {
			t.Errorf("%s: %v %s", target, err, r.body)
		}
	}
	if r := w.get("/channel/x/2021/03/04?trace=yes"); strings.Contains(r.body, "trace\":") {
		t.Error("traced without being asked")
	}
}

func TestTagItems(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", `{"tags":["a:b"]}`)
	p := w.post("x", "body", "Content-Type: text/plain")
	key := strings.TrimPrefix(p, "/channel/x")
	r := w.want(w.get("/tag/a:b"+key), 200)
	if r.body != "body" || r.header.Get("Content-Type") != "text/plain" || r.header.Get("Creation-Date") == "" || len(r.header.Values("Link")) != 2 || r.header.Get("X-Item-Length") != "" {
		t.Errorf("%v", r.header)
	}
	if got := r.header.Get("Link"); got != "<http://hub.example/tag/a:b"+key+`/previous>;rel="previous"` {
		t.Errorf("Link %q", got)
	}
	w.want(w.get("/tag/a:b"+key, "Accept: image/png"), 406)
	if got := w.get("/tag/a:b/latest").location(); got != "http://hub.example"+p+"?tag=a:b" {
		t.Errorf("latest %q", got)
	}
	if got := w.get("/tag/a:b/2021/03/04/05/06/00/000/0/next?stable=false").location(); got != "http://hub.example"+p+"?tag=a:b&stable=false" {
		t.Errorf("next %q", got)
	}
	odd := w.want(w.get("/tag/%22%3C%26%3D"), 200)
	if !json.Valid([]byte(odd.body)) || strings.ContainsAny(odd.body, "<&") {
		t.Errorf("%s", odd.body)
	}
}

func TestChannelRequests(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, _ *Options) {})
	w.put("Mine", `{"owner":"me"}`)
	for _, c := range []struct {
		method, target, body string
		headers              string
		code                 int
		contains, location   string
	}{
		{"POST", "/channel", `{"name":"New"}`, "", 201, `"name": "New"`, "/channel/New"},
		{"POST", "/channel", `{"name":"new"}`, "", 409, "error", ""},
		{"POST", "/channel", ``, "", 400, "expected", ""},
		{"POST", "/channel", `{"owner":"x"}`, "", 400, "error", ""},
		{"POST", "/channel", `{"name" "x"}`, "", 400, "invalid JSON at byte 9: expected", ""},
		{"POST", "/channel", `{"name":"x"}`, "Content-Type: application/x-www-form-urlencoded", 415, "application/json", ""},
		{"PUT", "/channel/mine", `{"ttlDays":5}`, "Content-Type: application/json;charset=utf-8", 201, `"href": "http://hub.example/channel/mine"`, "/channel/Mine"},
		{"PUT", "/channel/mine", ``, "", 201, `"ttlDays": 5`, "/channel/Mine"},
		{"PUT", "/channel/mine", `[]`, "", 400, "object", ""},
		{"PUT", "/channel/mine", `{"tags":"x"}`, "", 400, "tags", ""},
		{"PUT", "/channel/mine", strings.Repeat("[", 5000), "", 400, "expected", ""},
		{"PUT", "/channel/mine", strings.Repeat(" ", maxDocument+1), "", 413, "", ""},
		{"PUT", "/channel/b@d", ``, "", 400, "b@d", ""},
		{"PUT", "/channel/mine", `x`, "Content-Type: text/plain", 415, "", ""},
		{"PATCH", "/channel/mine", `{"ttlDays":6}`, "", 200, `"ttlDays": 6`, ""},
		{"PATCH", "/channel/mine", ``, "", 400, "expected", ""},
		{"PATCH", "/channel/nobody", `{"ttlDays":6}`, "", 404, "", ""},
		{"GET", "/channel/mine?cached=false", ``, "", 200, `"ttlDays": 6`, ""},
		{"GET", "/channel/nobody", ``, "", 404, "nobody", ""},
		{"DELETE", "/channel/nobody", ``, "", 404, "=channel nobody not found", ""},
		{"DELETE", "/channel/a%3Cb%3E", ``, "", 404, "=channel a&lt;b&gt; not found", ""},
		{"DELETE", "/channel/mine", ``, "", 202, "", ""},
		{"GET", "/channel/mine", ``, "", 404, "", ""},
		{"POST", "/channel/New", `x`, "Accept: text/html", 406, "", ""},
	} {
		var headers []string
		if c.headers != "" {
			headers = []string{c.headers}
		}
		r := w.do(c.method, c.target, c.body, headers...)
		if exact, ok := strings.CutPrefix(c.contains, "="); ok && r.body == exact {
			c.contains = ""
		}
		if r.code != c.code || !strings.Contains(r.body, c.contains) || strings.TrimPrefix(r.location(), "http://hub.example") != c.location {
			t.Errorf("%s %s %.40q: %d %q %s", c.method, c.target, c.body, r.code, r.location(), r.body)
		}
		if c.code == 202 && r.body != "" {
			t.Errorf("body of 202: %q", r.body)
		}
	}
	if r := w.get("/channel/New", "X-Forwarded-Proto: https"); !strings.Contains(r.body, `"wss://hub.example/channel/New/ws"`) {
		t.Errorf("%s", r.body)
	}
	w.wantURIs(w.get("/channel/New/2021/03/04"))
}

func TestStatusAsksTheSource(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/channel/src/latest", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", "http://other.example/channel/src/2021/03/04/05/06/07/089/abc")
		rw.WriteHeader(303)
	})
	source := httptest.NewServer(mux)
	defer source.Close()
	w := newWorld(t, func(_ *channel.Options, ro *Options) { ro.Source = source.Client() })
	w.put("a", `{"replicationSource":"`+source.URL+`/channel/src/"}`)
	w.put("b", `{"replicationSource":"`+source.URL+`/channel/gone"}`)
	w.want(w.get("/channel/a/status"), 200, `"href": "http://other.example/channel/src/2021/03/04/05/06/07/089/abc"`)
	r := w.want(w.get("/channel/b/status"), 200, `"href": "`+source.URL+`/channel/gone/latest"`)
	if strings.Count(r.body, emptyMessage) != 3 || !json.Valid([]byte(r.body)) {
		t.Errorf("%s", r.body)
	}
}

func TestVerbsOfOthers(t *testing.T) {
	seen := ""
	w := newWorld(t, func(_ *channel.Options, ro *Options) {
		ro.Verbs = map[hub.Verb]web.Handler{hub.Events: func(rw http.ResponseWriter, r *http.Request) error {
			p, ok := web.Found(r).(hub.Path)
			seen = fmt.Sprint(web.Param(r, "channel"), web.Param(r, "tag"), " ", p.Hash, " ", ok)
			return nil
		}}
	})
	for target, want := range map[string]string{"/channel/x/events": "x  false", "/tag/t/events": "t  false", "/channel/x/2021/03/04/05/06/07/089/abc/events": "x abc true"} {
		w.want(w.get(target), 200)
		if seen != want {
			t.Errorf("%s: %q, want %q", target, seen, want)
		}
	}
	w.want(w.get("/channel/x/ws"), 404)
	w.want(w.get("/channel/x/2021/03/04/05/06/07/089/abc/ws"), 404)
}

func TestLongLists(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	var body strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&body, "--b\r\n\r\n%d\r\n", i)
	}
	body.WriteString("--b--")
	r := w.want(w.do("POST", "/channel/x/bulk", body.String(), "Content-Type: multipart/mixed;boundary=b"), 201)
	if n := len(w.uris(r)); n != 5000 {
		t.Errorf("%d uris of the bulk", n)
	}
	for _, order := range []string{"a", "d"} {
		got := w.uris(w.get("/channel/x/2021/03/04?order=" + order))
		if len(got) != 5000 || (order == "a") != strings.HasSuffix(got[0], "000000") {
			t.Errorf("order %s: %d uris, the first %s", order, len(got), got[0])
		}
	}
	if got := w.parts(w.get("/channel/x/2021/03/04?bulk=true")); len(got) != 5000 || got[4999].body != "4999" {
		t.Errorf("%d parts", len(got))
	}
}
