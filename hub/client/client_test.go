package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"timehub/hub"
	"timehub/hub/web"
)

const keyText = "2021/03/04/05/06/07/089/aZ3k9Q"

// serve runs a handler as a hub.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(Options{URL: s.URL + "/", Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func key(t *testing.T, s string) hub.Key {
	t.Helper()
	k, err := hub.ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Every status comes back as the kind that the hub had.
func TestErrorsCrossTheHop(t *testing.T) {
	for _, k := range hub.Kinds() {
		status := web.Status(k)
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			io.WriteString(w, `{"error": "the reason"}`)
		})
		err := c.DeleteChannel(t.Context(), "x")
		var e *hub.Error
		if !errors.As(err, &e) || web.Status(e.Kind) != status || e.Msg != "the reason" || e.RetryAfter != 7*time.Second {
			t.Errorf("%s: %v", k, err)
		}
	}
	for body, want := range map[string]string{"": "Not Found", " orders \n": "orders", `{"x": 1}`: `{"x": 1}`, `{"error": ""}`: "Not Found"} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404); io.WriteString(w, body) })
		if _, err := c.Channel(t.Context(), "x"); !hub.Is(err, hub.NotFound) || err.Error() != want {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// TestNoDocument: what no hub answers is refused with a text that says what it was, and takes no more memory than was allowed.
func TestNoDocument(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://sso.example/login")
		w.WriteHeader(302)
	})
	if _, err := c.Channel(t.Context(), "x"); !hub.Is(err, hub.Unavailable) || !strings.Contains(err.Error(), "sso.example/login") {
		t.Error(err)
	}
	c = serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1<<10)); err != nil {
				return
			}
		}
	})
	c.opt.MaxDocument = 10 << 10
	if _, err := c.Channel(t.Context(), "x"); !hub.Is(err, hub.Unavailable) || !strings.Contains(err.Error(), "more than 10240 bytes") {
		t.Error(err)
	}
	c = serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"name": "x"}`+strings.Repeat(" ", 7))
	})
	c.opt.MaxDocument = 20 // as long as may be
	if ch, err := c.Channel(t.Context(), "x"); err != nil || ch.Name != "x" {
		t.Error(ch, err)
	}
}

func TestRepetition(t *testing.T) {
	var calls atomic.Int32
	fails := func(n int32, status int) http.HandlerFunc {
		calls.Store(0)
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if calls.Add(1) <= n {
				w.WriteHeader(status)
				return
			}
			w.Header().Set("Location", "http://h/channel/x/"+keyText)
			w.WriteHeader(201)
			fmt.Fprintf(w, `{"name": "x", "owner": %q}`, body)
		}
	}
	for name, c := range map[string]struct {
		fails  int32
		status int
		call   func(c *Client) error
		calls  int32
		ok     bool
	}{
		"a put is repeated with its body": {3, 503, func(c *Client) error {
			ch, err := c.PutChannel(context.Background(), "x", map[string]int{"ttlDays": 3})
			if err == nil && ch.Owner != `{"ttlDays":3}` {
				err = fmt.Errorf("the body was %s", ch.Owner)
			}
			return err
		}, 4, true},
		"not for ever":              {100, 500, func(c *Client) error { _, err := c.Channels(context.Background()); return err }, 5, false},
		"not what cannot succeed":   {1, 400, func(c *Client) error { return c.DeleteChannel(context.Background(), "x") }, 1, false},
		"a full disk is not pushed": {1, 507, func(c *Client) error { return c.DeleteChannel(context.Background(), "x") }, 1, false},
		"an insert is never repeated": {1, 503, func(c *Client) error {
			_, err := c.Insert(context.Background(), "x", Upload{Body: strings.NewReader("a"), Size: 1})
			return err
		}, 1, false},
		"a historical one with its hash is": {1, 503, func(c *Client) error {
			_, err := c.InsertAt(context.Background(), "x", hub.KeyAt(1, "abcdef"), Upload{Body: strings.NewReader("a"), Size: 1})
			return err
		}, 2, true},
		"but not without one": {1, 503, func(c *Client) error {
			_, err := c.InsertAt(context.Background(), "x", hub.KeyAt(1, ""), Upload{Body: strings.NewReader("a"), Size: 1})
			return err
		}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, fails(c.fails, c.status))
			err := c.call(client)
			if calls.Load() != c.calls || (err == nil) != c.ok {
				t.Errorf("%d calls, %v; want %d", calls.Load(), err, c.calls)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	c, err := New(Options{URL: "http://127.0.0.1:1", Tries: 2, Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Channels(t.Context())
	if !hub.Is(err, hub.Unavailable) || !strings.HasPrefix(err.Error(), "the hub at http://127.0.0.1:1 does not answer: ") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Channels(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for _, url := range []string{"", "localhost:8080", "ftp://x", "http://", "http://x?a=b", "http://x#f", "::"} {
		if _, err := New(Options{URL: url}); !hub.Is(err, hub.Invalid) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestItems(t *testing.T) {
	body := strings.Repeat("0123456789", 1000)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.EscapedPath() {
		case "POST /channel/a%20b":
			got, _ := io.ReadAll(r.Body)
			if r.Header.Get("Content-Type") != "text/css" || string(got) != body || r.ContentLength != int64(len(body)) {
				w.WriteHeader(400)
				return
			}
			w.Header().Set("Location", "http://hub/channel/a%20b/"+keyText)
			w.WriteHeader(201)
		case "POST /channel/x/2021/03/04/05/06/07/089/a%2Fb":
			w.Header().Set("Location", "http://hub"+r.URL.EscapedPath())
			w.WriteHeader(201)
		case "GET /channel/x/latest":
			w.Header().Set("Location", "http://"+r.Host+"/channel/x/"+keyText)
			w.WriteHeader(303)
		case "GET /channel/x/" + keyText:
			w.Header().Set("Content-Type", "text/css")
			w.Header().Set("X-Item-Length", "10000")
			w.(http.Flusher).Flush()
			io.WriteString(w, body)
		case "GET /channel/x/loop":
			w.Header().Set("Location", "http://"+r.Host+"/channel/x/loop")
			w.WriteHeader(303)
		default:
			w.WriteHeader(404)
		}
	})
	k, err := c.Insert(t.Context(), "a b", Upload{ContentType: "text/css", Body: strings.NewReader(body), Size: int64(len(body))})
	if err != nil || k != key(t, keyText) {
		t.Errorf("%v, %v", k, err)
	}
	odd := hub.NewKey(k.Time(), "a/b")
	if k, err := c.InsertAt(t.Context(), "x", odd, Upload{Body: strings.NewReader(""), Size: 0}); err != nil || k != odd {
		t.Errorf("%v, %v", k, err)
	}
	it, err := c.GetURL(t.Context(), "/channel/x/latest")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(it.Body)
	it.Body.Close()
	if err != nil || string(got) != body || it.Key != key(t, keyText) || it.ContentType != "text/css" || it.Size != 10000 {
		t.Errorf("%+v, %d bytes, %v", it, len(got), err)
	}
	if _, err := c.GetURL(t.Context(), "/channel/x/loop"); !hub.Is(err, hub.Invalid) {
		t.Errorf("a loop of redirects: %v", err)
	}
	if _, err := c.Get(t.Context(), "x", hub.KeyAt(5, "zzz")); !hub.Is(err, hub.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestQueries(t *testing.T) {
	var seen string
	answer := `{"_links": {"uris": ["http://h/channel/x/` + keyText + `?tag=a"], "next": {"href": "http://h/n"}, "previous": {"href": "http://h/p"}}}`
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.URL.RequestURI()
		if strings.Contains(seen, "/empty/") || strings.Contains(seen, "/none") {
			w.WriteHeader(404)
			return
		}
		if seen == "/channel/empty?cached=false" {
			io.WriteString(w, `{"name": "empty"}`)
			return
		}
		w.Header().Set("Hub-Horizon", "2021/03/04/05/06/08/000/00a~")
		io.WriteString(w, answer)
	})
	at := key(t, keyText)
	for want, call := range map[string]func() (Page, error){
		"/channel/x/2021/03/04/05/06": func() (Page, error) {
			return c.Window(t.Context(), "x", hub.WindowAt(at.Time(), hub.Minute), Query{})
		},
		"/channel/x/" + keyText + "/next/9?stable=false": func() (Page, error) { return c.After(t.Context(), "x", at, 9, Query{Unstable: true}) },
		"/channel/x/2021/03/04/05/06/07/089/0/previous/9?epoch=ALL": func() (Page, error) {
			return c.Before(t.Context(), "x", hub.First(at.Time()), 9, Query{Epoch: hub.AllEpochs})
		},
		"/channel/x/latest/5?order=descending":     func() (Page, error) { return c.Latest(t.Context(), "x", 5, Query{Order: hub.Descending}) },
		"/channel/x/earliest/5?location=LONG_TERM": func() (Page, error) { return c.Earliest(t.Context(), "x", 5, Query{Tier: hub.LongTerm}) },
	} {
		p, err := call()
		if err != nil || seen != want || len(p.Keys) != 1 || p.Keys[0] != at || p.Next != "http://h/n" || p.Previous != "http://h/p" || p.Horizon.Hash() != "00a~" {
			t.Errorf("%s, want %s: %+v, %v", seen, want, p, err)
		}
	}
	if p, err := c.Latest(t.Context(), "empty", 3, Query{}); err != nil || len(p.Keys) != 0 {
		t.Errorf("an empty channel: %v, %v", p, err)
	}
	if _, err := c.Latest(t.Context(), "none", 3, Query{}); !hub.Is(err, hub.NotFound) {
		t.Errorf("no channel: %v", err)
	}
}

func TestBulkInsert(t *testing.T) {
	var got []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if r.URL.Path == "/channel/no/bulk" { // answers before it has read
			w.WriteHeader(404)
			return
		}
		mr := multipart.NewReader(r.Body, params["boundary"])
		for {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				w.WriteHeader(400)
				io.WriteString(w, err.Error())
				return
			}
			body, _ := io.ReadAll(p)
			got = append(got, p.Header.Get("Content-Type")+"="+string(body))
		}
		w.WriteHeader(201)
		io.WriteString(w, `{"_links": {"uris": ["http://h/channel/x/`+keyText+`000000", "http://h/channel/x/`+keyText+`000001"]}}`)
	})
	keys, err := c.InsertBulk(t.Context(), "x", func(yield func(Part) bool) {
		_ = yield(Part{ContentType: "a/b\r\nX: y", Body: []byte("1\r\n2")}) && yield(Part{Body: []byte{}}) && yield(Part{Body: bytes.Repeat([]byte("x"), 100000)})
	})
	if err != nil || len(keys) != 2 || keys[1].Hash() != "aZ3k9Q000001" {
		t.Errorf("%v, %v", keys, err)
	}
	if len(got) != 3 || got[0] != "a/b  X: y=1\r\n2" || got[1] != "=" || len(got[2]) != 100001 {
		t.Errorf("%.100q", got)
	}
	_, err = c.InsertBulk(t.Context(), "no", func(yield func(Part) bool) {
		for yield(Part{Body: make([]byte, 1<<20)}) {
		}
	})
	if !hub.Is(err, hub.NotFound) && !hub.Is(err, hub.Unavailable) { // a server may break off while we still send
		t.Errorf("%v", err)
	}
}

func TestBulkRead(t *testing.T) {
	const boundary = "||||||~~~~~~||||||~~~~~~||||||~~~~~~||||||~~~~~~||||||~~~~~~||||||"
	part := func(hash, body string) string {
		return "--" + boundary + "\r\nContent-Type: text/css\r\nContent-Key: http://h/channel/x/2021/03/04/05/06/07/089/" + hash +
			"\r\nCreation-Date: 2021-03-04T05:06:07.089Z\r\n\r\n" + body + "\r\n"
	}
	answers := map[string]string{
		"empty": "--" + boundary + "--",
		"two":   part("a", "1\r\n") + part("b", "") + "--" + boundary + "--",
		"cut":   part("a", "1") + part("b", "2")[:150],
		"unend": part("a", "1"),
		"nokey": "--" + boundary + "\r\n\r\n1\r\n--" + boundary + "--",
	}
	var accept, query string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		accept, query = r.Header.Get("Accept"), r.URL.RawQuery
		name := strings.Split(r.URL.Path, "/")[3]
		if r.Header.Get("Accept") == "application/zip" && name != "cut" {
			w.Header().Set("Content-Type", "application/zip")
			io.WriteString(w, "PK")
			return
		}
		w.Header().Set("Content-Type", "multipart/mixed;boundary="+boundary)
		io.WriteString(w, answers[name])
	})
	read := func(path string) (items []string, err error) {
		for it, err := range c.Items(t.Context(), "x", path, Query{Unstable: true}) {
			if err != nil {
				return items, err
			}
			body, err := io.ReadAll(it.Body)
			if err != nil {
				return items, err
			}
			items = append(items, it.Key.Hash()+"="+string(body))
		}
		return items, nil
	}
	if got, err := read("empty"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	got, err := read("two")
	if err != nil || fmt.Sprintf("%q", got) != `["a=1\r\n" "b="]` || accept != "multipart/mixed" || query != "bulk=true&stable=false" {
		t.Errorf("%q, %v, %s, %s", got, err, accept, query)
	}
	for _, path := range []string{"cut", "unend", "nokey"} {
		if _, err := read(path); err == nil {
			t.Errorf("%s: half an answer passes for a whole one", path)
		}
	}
	for range c.Items(t.Context(), "x", "two", Query{}) {
		break
	}
	z, err := c.Zip(t.Context(), "x", "two", Query{})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(z); string(text) != "PK" || z.Close() != nil {
		t.Errorf("%q", text)
	}
	if _, err := c.Zip(t.Context(), "x", "cut", Query{}); err == nil {
		t.Error("what is no zip passes for one")
	}
}

func TestHealthAndChannels(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
			w.WriteHeader(520)
			io.WriteString(w, `{"healthy": false, "description": "SHUTTING DOWN"}`)
		case "/channel":
			if r.Method == "POST" {
				w.WriteHeader(409)
				return
			}
			io.WriteString(w, `{"_links": {"channels": [{"name": "a"}, {"name": "b"}]}}`)
		default:
			io.WriteString(w, `{"name": "a", "mutableTime": "2020-01-01T00:00:00.000Z", "more": 1}`)
		}
	})
	if ok, text, err := c.Health(t.Context()); ok || text != "SHUTTING DOWN" || err != nil {
		t.Errorf("%v %q %v", ok, text, err)
	}
	if names, err := c.Channels(t.Context()); err != nil || strings.Join(names, " ") != "a b" {
		t.Errorf("%v, %v", names, err)
	}
	if ch, err := c.PatchChannel(t.Context(), "a", map[string]string{"owner": "me"}); err != nil || !ch.Historical() || !strings.Contains(string(ch.Document), `"more"`) {
		t.Errorf("%+v, %v", ch, err)
	}
	if _, err := c.CreateChannel(t.Context(), map[string]string{"name": "a"}); !hub.Is(err, hub.Conflict) {
		t.Errorf("%v", err)
	}
}

func TestKeyOf(t *testing.T) {
	for address, want := range map[string]string{
		"http://h/channel/x/" + keyText:                 keyText,
		"http://h/channel/x/" + keyText + "?tag=a/b":    keyText,
		"/channel/x/2021/03/04/05/06/07/089/a%2Fb":      "2021/03/04/05/06/07/089/a/b",
		"http://h/channel/x/2021/03/04/05/06/07/089":    "",
		"http://h/channel/x/2021/13/04/05/06/07/089/a":  "",
		"http://h/channel/x/2021/03/04/05/06/07/089/a/": keyText[:24] + "a",
		"": "",
	} {
		k, err := KeyOf(address)
		if (err == nil) != (want != "") || err == nil && k.String() != want {
			t.Errorf("%s: %v, %v", address, k, err)
		}
	}
}

// The nodes of a cluster, and that whoever changes them says localhost to a hub on the own machine, also where that is not the address of localhost.
func TestNodes(t *testing.T) {
	var asked []string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host[:strings.IndexByte(r.Host, ':')]+" "+r.RequestURI)
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `{"spokeCluster": [{"server": "a:1"}], "decommissioned": {"withinSpokeTTL": [], "doNotStart": [{"server": "b:1"}]},
				"detail": {"epoch": 3, "disks": [{"id": "d", "ordinal": 1, "node": "a:1", "session": true, "answers": true, "whole": true, "skew": -2, "lag": 20}]}}`)
		}
	}))
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	defer s.Close()
	c, err := New(Options{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := c.Cluster(t.Context())
	want := Node{Node: "a:1", Disk: "d", Session: true, Answers: true, Whole: true, Skew: -2, Lag: 20}
	if err != nil || len(cl.Nodes) != 1 || cl.Nodes[0] != want || len(cl.Members) != 1 || len(cl.Left) != 1 || len(cl.Leaving) != 0 {
		t.Errorf("%+v, %v", cl, err)
	}
	for _, err := range []error{c.RemoveNode(t.Context(), "a:1"), c.RemoveNode(t.Context(), ""), c.ReturnNode(t.Context(), "b:1"), c.CloseNode(t.Context(), "1.2", false), c.CloseNode(t.Context(), "a:1", true)} {
		if err != nil {
			t.Error(err)
		}
	}
	if want := []string{"GET 127.0.0.2 /internal/cluster", "POST localhost /internal/cluster/decommission?node=a%3A1", "POST localhost /internal/cluster/decommission",
		"POST localhost /internal/cluster/recommission/b:1", "POST localhost /internal/cluster/close/1.2", "POST localhost /internal/cluster/close/a:1?force=true"}; !slices.Equal(asked, want) {
		t.Errorf("asked: %q", asked)
	}
}
