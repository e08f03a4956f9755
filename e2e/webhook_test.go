package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/hubproc"
)

// quick makes repetitions come soon.
const quick = "webhook.retry.first_millis=5"

// putHook makes or changes a webhook; members go beside the addresses.
func putHook(t *testing.T, hub *hubproc.Hub, status int, name, channel, callback, members string) {
	t.Helper()
	body := fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": %q%s}`, callback, hub.URL+"/channel/"+channel, members)
	must(t, status, "PUT", hub.URL+"/webhook/"+name, []byte(body), "Content-Type", "application/json")
}

// insertEach inserts items one by one and returns their keys.
func insertEach(t *testing.T, hub *hubproc.Hub, channel string, bodies ...string) (keys []string) {
	t.Helper()
	for _, b := range bodies {
		r := must(t, 201, "POST", hub.URL+"/channel/"+channel, []byte(b), "Content-Type", "text/plain")
		keys = append(keys, keyOf(r.header.Get("Location")))
	}
	return keys
}

func numbered(n int) (bodies []string) {
	for i := range n {
		bodies = append(bodies, fmt.Sprint("item ", i))
	}
	return bodies
}

// paths are those of all deliveries, in their order.
func (c *consumer) paths() (paths []string) {
	for _, d := range c.all() {
		paths = append(paths, d.path)
	}
	return paths
}

// gets waits until the consumer has taken exactly these, in this order.
func (c *consumer) gets(t *testing.T, keys []string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d deliveries", len(keys)), func() bool { return len(c.all()) >= len(keys) })
	if got := c.paths(); !slices.Equal(got, keys) {
		t.Fatalf("%d deliveries, want %d: %v", len(got), len(keys), got)
	}
}

// TestWebhookPooled: a consumer that closes connections while they are pooled sees each item once, and no attempt has failed.
func TestWebhookPooled(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "pooled", `{}`)
	var number atomic.Int64
	to := newConsumer(t, func(w http.ResponseWriter, _ *http.Request, _ string, take func()) {
		take()
		if number.Add(1)%2 == 0 {
			return // by net/http, which keeps the connection
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		time.Sleep(time.Millisecond)
		conn.Close()
	})
	putHook(t, hub, 201, "pooled", "pooled", to.URL, "")
	keys := insertEach(t, hub, "pooled", numbered(300)...)
	to.gets(t, keys)
	if s := hookStatus(t, hub.URL, "pooled"); len(s.Errors) != 0 || to.called() != len(keys) {
		t.Errorf("%d calls for %d items, errors %q", to.called(), len(keys), s.Errors)
	}
}

// TestWebhookAgain: a webhook that is deleted and made again is a new one, which begins now.
func TestWebhookAgain(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "again", `{}`)
	deaf := newConsumer(t, func(w http.ResponseWriter, _ *http.Request, _ string, _ func()) { w.WriteHeader(503) })
	to := newConsumer(t, nil)
	for round := range 5 {
		before := len(to.all())
		putHook(t, hub, 201, "again", "again", deaf.URL, "")
		insertEach(t, hub, "again", numbered(20)...)
		eventually(t, "an error line", func() bool { return len(hookStatus(t, hub.URL, "again").Errors) > 0 })
		must(t, 202, "DELETE", hub.URL+"/webhook/again", nil)
		must(t, 404, "GET", hub.URL+"/webhook/again", nil)
		putHook(t, hub, 201, "again", "again", to.URL, "")
		if s := hookStatus(t, hub.URL, "again"); len(s.Errors) != 0 || len(s.InFlight) != 0 {
			t.Errorf("a new webhook has the past of another: %+v", s)
		}
		keys := insertEach(t, hub, "again", numbered(20)...)
		if round%2 == 1 {
			hub.Kill()
			client.CloseIdleConnections()
			if err := hub.Start(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the new items", func() bool {
			got, _ := firsts(to.all()[before:])
			return len(got) >= len(keys)
		})
		got, again := firsts(to.all()[before:])
		if !slices.Equal(got, keys) || len(again) > 0 && round%2 == 0 {
			t.Fatalf("round %d: %v, want %v, %d twice", round, got, keys, len(again))
		}
		settled(t, hub, "again", keys[len(keys)-1])
		must(t, 202, "DELETE", hub.URL+"/webhook/again", nil)
	}
}

// TestWebhookPause: nothing is called while a webhook is paused, also not after a restart, and nothing is missed or doubled when it goes on.
func TestWebhookPause(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "pause", `{}`)
	to := newConsumer(t, nil)
	putHook(t, hub, 201, "pause", "pause", to.URL, "")
	keys := insertEach(t, hub, "pause", numbered(50)...)
	to.gets(t, keys)
	putHook(t, hub, 200, "pause", "pause", to.URL, `, "paused": true`)
	keys = append(keys, insertEach(t, hub, "pause", numbered(50)...)...)
	if err := hub.Stop(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	keys = append(keys, insertEach(t, hub, "pause", numbered(50)...)...)
	time.Sleep(300 * time.Millisecond) // long enough for a mistake to show
	if n := len(to.all()); n != 50 || !hookStatus(t, hub.URL, "pause").Paused {
		t.Errorf("%d deliveries while it is paused", n)
	}
	putHook(t, hub, 200, "pause", "pause", to.URL, `, "paused": false`)
	to.gets(t, keys)
	settled(t, hub, "pause", keys[len(keys)-1])
}

// TestWebhookGone: who answers 410 is called no more, and the status says why.
func TestWebhookGone(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "gone", `{}`)
	var back atomic.Bool
	to := newConsumer(t, func(w http.ResponseWriter, _ *http.Request, _ string, take func()) {
		if !back.Load() {
			w.WriteHeader(http.StatusGone)
			return
		}
		take()
	})
	putHook(t, hub, 201, "gone", "gone", to.URL, "")
	keys := insertEach(t, hub, "gone", numbered(10)...)
	eventually(t, "the pause", func() bool { return hookStatus(t, hub.URL, "gone").Paused })
	time.Sleep(200 * time.Millisecond)
	if n := to.called(); n != 1 {
		t.Errorf("%d calls", n)
	}
	if s := hookStatus(t, hub.URL, "gone"); !strings.Contains(s.PausedReason, "410") {
		t.Errorf("the reason is %q", s.PausedReason)
	}
	back.Store(true)
	putHook(t, hub, 200, "gone", "gone", to.URL, `, "paused": false`)
	to.gets(t, keys)
	if s := hookStatus(t, hub.URL, "gone"); s.Paused || s.PausedReason != "" {
		t.Errorf("%+v", s)
	}
}

// TestWebhookTags: each channel of a tag has an instance, made and removed with the tag, which delivers.
func TestWebhookTags(t *testing.T) {
	hub := start(t)
	to := newConsumer(t, nil)
	putChannel(t, hub.URL, "tagged-a", `{"tags": ["printers"]}`)
	putChannel(t, hub.URL, "tagged-b", `{}`)
	must(t, 201, "PUT", hub.URL+"/webhook/all", []byte(fmt.Sprintf(`{"callbackUrl": %q, "tagUrl": "%s/tag/printers"}`, to.URL, hub.URL)),
		"Content-Type", "application/json")
	must(t, 200, "GET", hub.URL+"/webhook/TAGWH_printers_tagged-a", nil)
	must(t, 404, "GET", hub.URL+"/webhook/TAGWH_printers_tagged-b", nil)
	keys := insertEach(t, hub, "tagged-a", numbered(5)...)
	to.gets(t, keys)
	must(t, 201, "PUT", hub.URL+"/channel/tagged-b", []byte(`{"tags": ["printers"]}`), "Content-Type", "application/json")
	putChannel(t, hub.URL, "tagged-c", `{"tags": ["printers"]}`)
	keys = append(keys, insertEach(t, hub, "tagged-b", "b")...)
	to.gets(t, keys)
	keys = append(keys, insertEach(t, hub, "tagged-c", "c")...)
	to.gets(t, keys)
	for _, d := range to.all()[5:] {
		if !strings.Contains(string(d.body), `"name":"TAGWH_printers_tagged-`) {
			t.Errorf("%s", d.body)
		}
	}
	must(t, 201, "PUT", hub.URL+"/channel/tagged-a", []byte(`{"tags": []}`), "Content-Type", "application/json")
	must(t, 404, "GET", hub.URL+"/webhook/TAGWH_printers_tagged-a", nil)
	must(t, 202, "DELETE", hub.URL+"/channel/tagged-b", nil)
	must(t, 404, "GET", hub.URL+"/webhook/TAGWH_printers_tagged-b", nil)
	must(t, 202, "DELETE", hub.URL+"/webhook/all", nil)
	must(t, 404, "GET", hub.URL+"/webhook/TAGWH_printers_tagged-c", nil)
	insertEach(t, hub, "tagged-a", "nobody is told of this")
	insertEach(t, hub, "tagged-c", "nor of this")
	time.Sleep(200 * time.Millisecond)
	to.gets(t, keys)
}

// TestWebhookErrorChannel: what is given up is told there, with the cause; a killed hub tells it at least once.
func TestWebhookErrorChannel(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "failing", `{}`)
	to := newConsumer(t, func(w http.ResponseWriter, _ *http.Request, path string, take func()) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 503 Paper Jam\r\nContent-Length: 0\r\n\r\n")
	})
	putHook(t, hub, 201, "failing", "failing", to.URL, fmt.Sprintf(`, "maxAttempts": 3, "errorChannelUrl": "%s/channel/failing-errors"`, hub.URL))
	must(t, 200, "GET", hub.URL+"/channel/failing-errors", nil)
	keys := insertEach(t, hub, "failing", numbered(4)...)
	settled(t, hub, "failing", keys[3])
	if n := to.called(); n != 12 {
		t.Errorf("%d calls", n)
	}
	errorItems := func() (found []map[string]any) {
		for _, i := range readAll(t, hub.URL, "failing-errors", "") {
			var v map[string]any
			if err := json.Unmarshal(i.body, &v); err != nil || i.contentType != "application/json" {
				t.Fatalf("%s: %v", i.body, err)
			}
			found = append(found, v)
		}
		return found
	}
	found := errorItems()
	if len(found) != 4 {
		t.Fatalf("%d error items", len(found))
	}
	for n, v := range found {
		want := map[string]any{
			"webhookUrl": hub.URL + "/webhook/failing", "failedItemUrl": hub.URL + "/channel/failing/" + keys[n], "callbackUrl": to.URL,
			"numberOfAttempts": 3.0, "lastAttemptError": "max attempts reached (3)", "lastDeliveryError": "503 Paper Jam", "lastAttemptTime": v["lastAttemptTime"],
		}
		if fmt.Sprint(v) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", v, want)
		}
	}
	s := hookStatus(t, hub.URL, "failing")
	if len(s.Errors) != 10 || !strings.HasSuffix(s.Errors[9], " "+keys[3]+" max attempts reached (3)") || !strings.HasSuffix(s.Errors[8], " "+keys[3]+" 503 Paper Jam") {
		t.Errorf("%q", s.Errors)
	}
	insertEach(t, hub, "failing", numbered(30)...)
	hub.Kill()
	client.CloseIdleConnections()
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "34 different error items", func() bool {
		failed := map[any]bool{}
		for _, v := range errorItems() {
			failed[v["failedItemUrl"]] = true
		}
		return len(failed) == 34
	})
}

// TestWebhookUnreachable: nobody listens, or no such host; the error lines say who was tried, and everything arrives when somebody listens.
func TestWebhookUnreachable(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "unreachable", `{}`)
	addr, err := hubproc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	putHook(t, hub, 201, "nobody", "unreachable", "http://user:s3cret@"+addr+"/", "")
	putHook(t, hub, 201, "nothing", "unreachable", "http://nothing.invalid/", "")
	putHook(t, hub, 201, "mailto", "unreachable", "mailto:printer@example.com", "")
	keys := insertEach(t, hub, "unreachable", numbered(3)...)
	for name, want := range map[string]string{
		"nobody": "connect " + addr + ": connection refused", "nothing": "lookup nothing.invalid: ", "mailto": `its scheme is "mailto"`,
	} {
		var lines []string
		eventually(t, "an error line of "+name, func() bool { lines = hookStatus(t, hub.URL, name).Errors; return len(lines) > 0 })
		if _, text, _ := strings.Cut(lines[0], " "+keys[0]+" "); !strings.Contains(text, want) || strings.Contains(text, "s3cret") {
			t.Errorf("%s: %q", name, lines[0])
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip(err) // somebody else took the address
	}
	c := &consumer{}
	server := &http.Server{Handler: c}
	defer server.Close()
	go server.Serve(l) // ended by Close
	c.gets(t, keys)
	if _, password, _ := (&http.Request{Header: c.all()[0].header}).BasicAuth(); password != "s3cret" {
		t.Error("the consumer got no password")
	}
	if strings.Contains(hub.Log(), "s3cret") {
		t.Error("the password is in the log")
	}
}

// TestWebhookSignature: signed calls can be verified with both secrets while they are exchanged, an attempt has a time of its own, all attempts one id, and
// nobody can read the secrets.
func TestWebhookSignature(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "signed", `{}`)
	secret := func(key string) string { return "whsec_" + base64.StdEncoding.EncodeToString([]byte(key)) }
	first, second := "the first key, 24 bytes.", "the second key, 24 bytes"
	var refused atomic.Int64
	ids := make(chan string, 100)
	to := newConsumer(t, func(w http.ResponseWriter, r *http.Request, _ string, take func()) {
		ids <- r.Header.Get("webhook-id")
		if refused.Add(1) == 1 {
			w.WriteHeader(500)
			return
		}
		take()
	})
	signedBy := func(d delivery, key string) bool {
		mac := hmac.New(sha256.New, []byte(key))
		fmt.Fprintf(mac, "%s.%s.%s", d.header.Get("webhook-id"), d.header.Get("webhook-timestamp"), d.body)
		return slices.Contains(strings.Fields(d.header.Get("webhook-signature")), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	put := func(status int, members string) string {
		body := fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": "%s/channel/signed"%s}`, to.URL, hub.URL, members)
		return string(must(t, status, "PUT", hub.URL+"/webhook/signed", []byte(body), "Content-Type", "application/json").body)
	}
	said := put(201, fmt.Sprintf(`, "secret": %q`, secret(first)))
	keys := insertEach(t, hub, "signed", "one")
	to.gets(t, keys)
	if a, b := <-ids, <-ids; a != b || a == "" {
		t.Errorf("two attempts have the ids %q and %q", a, b)
	}
	said += put(200, fmt.Sprintf(`, "secret": %q, "previousSecret": %q`, secret(second), secret(first)))
	keys = append(keys, insertEach(t, hub, "signed", "two")...)
	to.gets(t, keys)
	all := to.all()
	for n, want := range [][2]bool{{true, false}, {true, true}} {
		if got := [2]bool{signedBy(all[n], first), signedBy(all[n], second)}; got != want {
			t.Errorf("delivery %d: signed by the first and second key: %v", n, got)
		}
	}
	for _, url := range []string{"/webhook/signed", "/group/signed", "/webhook", "/webhook/signed/attempts"} {
		said += string(must(t, 200, "GET", hub.URL+url, nil).body)
	}
	for _, key := range []string{first, second} {
		if strings.Contains(said+hub.Log(), strings.TrimPrefix(secret(key), "whsec_")) {
			t.Error("a secret is shown")
		}
	}
}

// TestWebhookPayloads: the three payloads as they arrive, of items and of seconds.
func TestWebhookPayloads(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "payloads", `{}`)
	to := map[string]*consumer{}
	for _, payload := range []string{"uris", "items", "cloudevents"} {
		for _, batch := range []string{"SINGLE", "SECOND"} {
			c := newConsumer(t, nil)
			to[payload+" "+batch] = c
			putHook(t, hub, 201, payload+"-"+batch, "payloads", c.URL, fmt.Sprintf(`, "payload": %q, "batch": %q`, payload, batch))
		}
	}
	key := insertEach(t, hub, "payloads", "Grüße")[0]
	url := hub.URL + "/channel/payloads/" + key
	has := func(c *consumer, part string) func() bool {
		return func() bool {
			return slices.ContainsFunc(c.all(), func(d delivery) bool { return strings.Contains(string(d.body), part) })
		}
	}
	for name, part := range map[string]string{
		"uris SINGLE": `{"name":"uris-SINGLE","uris":["` + url + `"],"type":"item"}`,
		"uris SECOND": `"uris":["` + url + `"],"type":"items"}`,
		"items SINGLE": `{"name":"items-SINGLE","uris":["` + url + `"],"items":[{"key":"` + key + `","url":"` + url +
			`","contentType":"text/plain","body":"Grüße"}],"type":"item"}`,
		"items SECOND":       `"items":[{"key":"` + key + `","url":"` + url + `","contentType":"text/plain","body":"Grüße"}],"type":"items"}`,
		"cloudevents SINGLE": "Grüße",
		"cloudevents SECOND": `"datacontenttype":"text/plain","data":"Grüße"}]`,
	} {
		eventually(t, name, has(to[name], part))
	}
	event := to["cloudevents SINGLE"].all()[0]
	for name, want := range map[string]string{
		"Ce-Id": key, "Ce-Source": hub.URL + "/channel/payloads", "Ce-Specversion": "1.0", "Ce-Subject": key, "Ce-Type": "timehub.item",
		"Content-Type": "text/plain", "Hub-Node": event.header.Get("Hub-Node"),
	} {
		if got := event.header.Get(name); got != want || want == "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if string(event.body) != "Grüße" {
		t.Errorf("%q", event.body)
	}
	if d := to["uris SINGLE"].all()[0]; d.header.Get("Content-Type") != "application/json" || !strings.Contains(d.header.Get("Hub-Node"), ":") {
		t.Errorf("%v", d.header)
	}
}

// TestWebhookStops: a hub that is stopped and started again, again and again, calls for nothing twice and skips nothing.
func TestWebhookStops(t *testing.T) {
	for _, parallel := range []int{1, 8} {
		t.Run(fmt.Sprint(parallel), func(t *testing.T) {
			hub := start(t, "--set", "app.shutdown_delay_seconds=0")
			putChannel(t, hub.URL, "stops", `{}`)
			to := newConsumer(t, func(_ http.ResponseWriter, _ *http.Request, _ string, take func()) {
				time.Sleep(5 * time.Millisecond)
				take()
			})
			putHook(t, hub, 201, "stops", "stops", to.URL, fmt.Sprintf(`, "parallelCalls": %d`, parallel))
			var keys []string
			for range 4 {
				keys = append(keys, insertEach(t, hub, "stops", numbered(60*parallel)...)...)
				if err := hub.Stop(time.Minute); err != nil {
					t.Fatal(err)
				}
				client.CloseIdleConnections()
				if err := hub.Start(); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the last item", func() bool { return len(to.all()) >= len(keys) })
			settled(t, hub, "stops", keys[len(keys)-1])
			got, again := firsts(to.all())
			if slices.Sort(got); !slices.Equal(got, keys) || len(again) > 0 {
				t.Errorf("%d of %d items came, %d twice", len(got), len(keys), len(again))
			}
		})
	}
}

// TestWebhookPeriods: each second is called exactly once, in order, with all its items, also around kills, where it may come again with the same ones.
func TestWebhookPeriods(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "periods", `{}`)
	var calls atomic.Int64
	to := newConsumer(t, func(w http.ResponseWriter, _ *http.Request, _ string, take func()) {
		if calls.Add(1)%3 == 0 {
			w.WriteHeader(500)
			return
		}
		take()
	})
	putHook(t, hub, 201, "periods", "periods", to.URL, `, "batch": "SECOND"`)
	var keys []string
	for round := range 4 {
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			keys = append(keys, insertEach(t, hub, "periods", "x")...)
		}
		if round%2 == 0 {
			hub.Kill()
			client.CloseIdleConnections()
			if err := hub.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := keys[len(keys)-1][:len("2006/01/02/15/04/05")]
	eventually(t, "the last second", func() bool {
		return slices.ContainsFunc(to.all(), func(d delivery) bool { return d.path >= last })
	})
	bodies := map[string]string{}
	var came []string
	before := ""
	for _, d := range to.all() {
		if body, again := bodies[d.path]; again {
			if body != string(d.body) {
				t.Errorf("%s came again with other content", d.path)
			}
			continue
		}
		bodies[d.path] = string(d.body)
		if before != "" {
			next, err := time.Parse("2006/01/02/15/04/05", before)
			if err != nil {
				t.Fatal(err)
			}
			if want := next.Add(time.Second).Format("2006/01/02/15/04/05"); d.path != want {
				t.Errorf("%s came after %s", d.path, before)
			}
		}
		before = d.path
		var p struct {
			URIs []string `json:"uris"`
			Type string   `json:"type"`
		}
		if err := json.Unmarshal(d.body, &p); err != nil || (p.Type == "heartbeat") != (len(p.URIs) == 0) {
			t.Errorf("%s: %v", d.body, err)
		}
		for _, u := range p.URIs {
			if !strings.HasPrefix(keyOf(u), d.path) {
				t.Errorf("%s is in the call for %s", u, d.path)
			}
			came = append(came, keyOf(u))
		}
	}
	if came = came[:min(len(came), len(keys))]; !slices.Equal(came, keys) {
		t.Errorf("%d of %d items came", len(came), len(keys))
	}
}
