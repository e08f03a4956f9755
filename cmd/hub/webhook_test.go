package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeHub answers for webhooks and the few things beside them that the commands ask for.
type fakeHub struct {
	t        *testing.T
	mu       sync.Mutex
	webhooks map[string]map[string]any
	puts     []string // bodies
	replays  []string
	queries  []string // of attempts
	earliest string   // key; "": the channel is empty
	url      string
}

func newFakeHub(t *testing.T) *fakeHub {
	f := &fakeHub{t: t, webhooks: map[string]map[string]any{}}
	answer := func(w http.ResponseWriter, status int, v any) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v) //nolint:errcheck // the other side would notice
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /webhook", func(w http.ResponseWriter, r *http.Request) {
		entries := []map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(f.webhooks)) {
			entries = append(entries, map[string]string{"name": name})
		}
		answer(w, 200, map[string]any{"_links": map[string]any{"webhooks": entries}})
	})
	mux.HandleFunc("/webhook/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		doc, known := f.webhooks[name]
		switch {
		case r.Method == "PUT":
			members := map[string]any{}
			if err := json.NewDecoder(r.Body).Decode(&members); err != nil {
				answer(w, 400, map[string]string{"error": err.Error()})
				return
			}
			text, _ := json.Marshal(members)
			f.puts = append(f.puts, string(text))
			if !known {
				doc = map[string]any{"name": name, "batch": "SINGLE", "paused": false}
			}
			maps.Copy(doc, members)
			delete(doc, "secret")
			f.webhooks[name] = doc
			if doc["callbackUrl"] == nil {
				answer(w, 400, map[string]string{"error": "callbackUrl is required"})
				return
			}
			answer(w, 200, doc)
		case !known:
			w.WriteHeader(404)
		case r.Method == "DELETE":
			delete(f.webhooks, name)
			w.WriteHeader(202)
		default:
			answer(w, 200, doc)
		}
	})
	mux.HandleFunc("GET /webhook/{name}/attempts", func(w http.ResponseWriter, r *http.Request) {
		if f.webhooks[r.PathValue("name")] == nil {
			w.WriteHeader(404)
			return
		}
		f.queries = append(f.queries, r.URL.RawQuery)
		answer(w, 200, map[string]any{"attempts": []map[string]any{
			{"time": "2026-11-21T00:00:02.000Z", "key": "2026/11/21/00/00/00/000/a", "number": 2, "status": 503, "reason": "Busy", "latencyMillis": 12,
				"answer": "one\ntwo\x1b[31m " + strings.Repeat("x", 100), "replay": true},
			{"time": "2026-11-21T00:00:00.000Z", "key": "2026/11/21/00/00/00/000/a", "number": 1, "status": 0, "error": "lookup nothing: no such host"},
		}})
	})
	mux.HandleFunc("POST /webhook/{name}/replay", func(w http.ResponseWriter, r *http.Request) {
		if f.webhooks[r.PathValue("name")] == nil {
			w.WriteHeader(404)
			return
		}
		var v any
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			t.Error(err)
		}
		text, _ := json.Marshal(v)
		f.replays = append(f.replays, string(text))
		answer(w, 202, map[string]int{"queued": 7})
	})
	mux.HandleFunc("GET /internal/time/millis", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, time.Date(2026, 11, 21, 1, 2, 3, 4e6, time.UTC).UnixMilli())
	})
	mux.HandleFunc("GET /channel/beans", func(w http.ResponseWriter, r *http.Request) { answer(w, 200, map[string]string{"name": "beans"}) })
	mux.HandleFunc("GET /channel/beans/earliest/1", func(w http.ResponseWriter, r *http.Request) {
		if f.earliest == "" {
			w.WriteHeader(404)
			return
		}
		answer(w, 200, map[string]any{"_links": map[string]any{"uris": []string{f.url + "/channel/beans/" + f.earliest}}})
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// Each flag is the member that it should be, and no other one is sent.
func TestWebhookMembers(t *testing.T) {
	f := newFakeHub(t)
	f.earliest = "2026/11/20/07/08/09/010/abc"
	c := cli{t, f.url}
	file := write(t, "secret", "whsec_abc\n")
	at := f.url + "/channel/beans/"
	for i, want := range []struct {
		args []string
		body string
	}{
		{[]string{"--callback", "http://x/cb", "--channel", "beans"}, `{"callbackUrl":"http://x/cb","channelUrl":"` + f.url + `/channel/beans"}`},
		{[]string{"--callback", "x", "--channel", "http://public/channel/beans"}, `{"callbackUrl":"x","channelUrl":"http://public/channel/beans"}`},
		{[]string{"--callback", "x", "--tag", "eu"}, `{"callbackUrl":"x","tagUrl":"` + f.url + `/tag/eu"}`},
		{[]string{"--callback", "x", "--batch", "MINUTE", "--parallel", "4", "--order-by", ".id", "--payload", "items", "--heartbeat", "--paused", "--fast-forward"},
			`{"batch":"MINUTE","callbackUrl":"x","fastForwardable":true,"heartbeat":true,"orderBy":".id","parallelCalls":4,"paused":true,"payload":"items"}`},
		{[]string{"--callback", "x", "--ttl", "6h", "--max-wait", "5", "--timeout", "2m", "--max-attempts", "9", "--error-channel", "failed"},
			`{"callbackTimeoutSeconds":120,"callbackUrl":"x","errorChannelUrl":"` + f.url + `/channel/failed","maxAttempts":9,"maxWaitMinutes":5,"ttlMinutes":360}`},
		{[]string{"--callback", "x", "--secret", "@" + file, "--previous-secret", "old"}, `{"callbackUrl":"x","previousSecret":"old","secret":"whsec_abc"}`},
		{[]string{"--set", "callbackUrl=7", "--set", "parallelCalls=2", "--set", "heartbeat=maybe", "--set", "orderBy=.a=1"},
			`{"callbackUrl":"7","heartbeat":"maybe","orderBy":".a=1","parallelCalls":2}`},
		{[]string{"--callback", "x", "--channel", "beans", "--start", "now"}, `{"callbackUrl":"x","channelUrl":"` + f.url + `/channel/beans"}`},
		{[]string{"--callback", "x", "--channel", "beans", "--start", "previous"}, `{"callbackUrl":"x","channelUrl":"` + f.url + `/channel/beans","startItem":"previous"}`},
		{[]string{"--callback", "x", "--channel", "beans", "--start", "http://any/channel/beans/2026/11/20/07/08"}, `{"callbackUrl":"x","channelUrl":"` + f.url + `/channel/beans","startItem":"http://any/channel/beans/2026/11/20/07/08"}`},
		{[]string{"--callback", "x", "--channel", "beans", "--start", "earliest"}, `{"callbackUrl":"x","channelUrl":"` + f.url + `/channel/beans","startItem":"` + at + `2026/11/20/07/08/09/010/0"}`},
		{[]string{"--callback", "x", "--channel", "beans", "--start", "2026/11/20/07"}, `{"callbackUrl":"x","channelUrl":"` + f.url + `/channel/beans","startItem":"` + at + `2026/11/20/07/00/00/000/0"}`},
		{[]string{"--callback", "x", "--channel", "beans", "--start", "2026/11/20/07/08/09/010/abc"}, `{"callbackUrl":"x","channelUrl":"` + f.url + `/channel/beans","startItem":"` + at + `2026/11/20/07/08/09/010/abc"}`},
	} {
		c.ok(append([]string{"webhook", "create", fmt.Sprint("w", i)}, want.args...)...)
		if got := f.puts[len(f.puts)-1]; got != want.body {
			t.Errorf("%v:\n%s\n%s", want.args, got, want.body)
		}
	}
	for _, want := range []struct {
		args []string
		body string
	}{
		{[]string{"--start", "now"}, `{"startItem":"` + at + `2026/11/21/01/02/03/004/0"}`},
		{[]string{"--start", "previous"}, `{"channelUrl":"` + f.url + `/channel/beans","startItem":"previous"}`},
		{[]string{"--paused=false"}, `{"paused":false}`},
		{[]string{"--secret", ""}, `{"secret":""}`},
	} {
		c.ok(append([]string{"webhook", "set", "w0"}, want.args...)...)
		if got := f.puts[len(f.puts)-1]; got != want.body {
			t.Errorf("set %v:\n%s\n%s", want.args, got, want.body)
		}
	}
	f.earliest = ""
	c.ok("webhook", "create", "empty", "--callback", "x", "--channel", "beans", "--start", "earliest")
	if got := f.puts[len(f.puts)-1]; strings.Contains(got, "startItem") {
		t.Errorf("earliest of an empty channel: %s", got)
	}
	c.ok("webhook", "set", "w0", "--start", "earliest")
	if got := f.puts[len(f.puts)-1]; got != `{"startItem":"`+at+`2026/11/21/01/02/03/004/0"}` {
		t.Errorf("earliest of an empty channel: %s", got)
	}
}

func TestWebhookCommands(t *testing.T) {
	f := newFakeHub(t)
	c := cli{t, f.url}
	if got := c.ok("webhook", "ls"); got != "" {
		t.Errorf("%q", got)
	}
	if got := c.ok("webhook", "ls", "-l", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("%q", got)
	}
	out := c.ok("webhook", "create", "printer", "--callback", "http://x/cb", "--channel", "orders", "--secret", "s3cret")
	if !strings.Contains(out, "callbackUrl") || strings.Contains(out, "s3cret") {
		t.Error(out)
	}
	f.webhooks["printer"]["itemsBehind"] = 12
	f.webhooks["printer"]["stableTime"] = map[string]any{"iso8601": "2026-11-21T00:00:00.000Z", "millis": 1}
	f.webhooks["printer"]["errors"] = []string{"2026-11-21T00:00:00.000Z a 503 Busy", "2026-11-21T00:00:01.000Z b 503 Busy"}
	f.webhooks["printer"]["inFlight"] = []string{"http://h/channel/orders/2026/11/21/00/00/00/000/b"}
	f.webhooks["tagged"] = map[string]any{"name": "tagged", "tagUrl": "http://x/tag/eu", "callbackUrl": "http://y", "batch": "MINUTE", "itemsBehind": nil}
	want := `NAME     OF      BATCH   STATE      BEHIND    CALLBACK
printer  orders  SINGLE  failing    12 items  http://x/cb
tagged   tag eu  MINUTE  prototype  -         http://y
`
	if diff := cmp.Diff(want, c.ok("webhook", "ls", "-l")); diff != "" {
		t.Error(diff)
	}
	if got := c.ok("webhook", "ls"); got != "printer\ntagged\n" {
		t.Error(got)
	}
	text := c.ok("webhook", "get", "printer")
	for _, line := range []string{"stableTime   2026-11-21T00:00:00.000Z\n", "             2026-11-21T00:00:01.000Z b 503 Busy\n", "paused       false\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(c.ok("webhook", "get", "printer", "--json")), &doc); err != nil || doc["itemsBehind"] != 12.0 {
		t.Errorf("%v, %v", doc, err)
	}
	c.ok("webhook", "pause", "printer", "tagged")
	if f.webhooks["printer"]["paused"] != true || f.webhooks["tagged"]["paused"] != true || f.puts[len(f.puts)-1] != `{"paused":true}` {
		t.Errorf("%v", f.puts)
	}
	if got := c.ok("webhook", "resume", "printer", "--json"); !strings.Contains(got, `"resumed"`) || f.webhooks["printer"]["paused"] != false {
		t.Error(got)
	}
	puts := len(f.puts)
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"create", "printer", "--callback", "x", "--channel", "y"}, exitRefused, "hub webhook set printer"},
		{[]string{"get", "none"}, exitNotFound, "no webhook none"},
		{[]string{"set", "none", "--paused"}, exitNotFound, "no webhook none"},
		{[]string{"set", "printer"}, exitUsage, "nothing to set"},
		{[]string{"set", "printer", "--set", "pause=true"}, exitUsage, "no member \"pause\""},
		{[]string{"set", "printer", "--set", "paused"}, exitUsage, "member=value"},
		{[]string{"set", "printer", "--ttl", "90s"}, exitUsage, "whole number of minutes"},
		{[]string{"set", "printer", "--timeout", "long"}, exitUsage, "whole number of seconds"},
		{[]string{"set", "printer", "--secret", "@/no/such/file"}, exitUsage, "/no/such/file"},
		{[]string{"set", "tagged", "--start", "2026/11/20"}, exitUsage, "--channel"},
		{[]string{"set", "printer", "--channel", "beans", "--start", "tomorrow"}, exitUsage, "no place to begin"},
		{[]string{"pause", "none"}, exitNotFound, "no webhook none"},
		{[]string{"rm", "none"}, exitNotFound, "no webhook none"},
		{[]string{"attempts", "none"}, exitNotFound, "no webhook none"},
		{[]string{"replay", "none", "--failed"}, exitNotFound, "no webhook none"},
		{[]string{"replay", "printer"}, exitUsage, "want one of"},
		{[]string{"replay", "printer", "--failed", "--item", "x"}, exitUsage, "want one of"},
		{[]string{"replay", "printer", "--from", "2026/11/20"}, exitUsage, "want one of"},
		{[]string{"fly"}, exitUsage, "webhook fly"},
	} {
		if code, _, stderr := c.run("", append([]string{"webhook"}, bad.args...)...); code != bad.code || !strings.Contains(stderr, bad.says) {
			t.Errorf("%v: exit %d, %s", bad.args, code, stderr)
		}
	}
	if len(f.puts) != puts {
		t.Errorf("something was put: %v", f.puts[puts:])
	}
	if code, _, stderr := c.run("", "webhook", "create", "bare", "--channel", "orders"); code != exitRefused || !strings.Contains(stderr, "callbackUrl is required") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	c.ok("webhook", "rm", "printer", "tagged")
	if got := c.ok("webhook", "ls"); strings.Contains(got, "printer") || strings.Contains(got, "tagged") {
		t.Error(got)
	}
}

func TestReplayAndAttempts(t *testing.T) {
	f := newFakeHub(t)
	f.webhooks["w"] = map[string]any{"name": "w", "callbackUrl": "x"}
	c := cli{t, f.url}
	for _, args := range [][]string{{"--item", "http://h/channel/x/k"}, {"--from", "2026/11/20", "--to", "2026-11-21T00:00:00.5Z"}, {"--failed"}} {
		if got := c.ok(append([]string{"webhook", "replay", "w"}, args...)...); got != "7 queued\n" {
			t.Errorf("%v: %q", args, got)
		}
	}
	if diff := cmp.Diff([]string{`{"item":"http://h/channel/x/k"}`, `{"from":"2026/11/20","to":"2026/11/21/00/00/00/500"}`, `{"failed":true}`}, f.replays); diff != "" {
		t.Error(diff)
	}
	if got := c.ok("webhook", "replay", "w", "--failed", "--json"); !strings.Contains(got, `"queued": 7`) {
		t.Error(got)
	}
	want := `TIME                      ITEM                       TRY         STATUS    MILLIS  ANSWER
2026-11-21T00:00:02.000Z  2026/11/21/00/00/00/000/a  2 (replay)  503 Busy  12      one two [31m ` + strings.Repeat("x", 47) + `…
2026-11-21T00:00:00.000Z  2026/11/21/00/00/00/000/a  1           none      0       lookup nothing: no such host
`
	if diff := cmp.Diff(want, c.ok("webhook", "attempts", "w", "--key", "a/b", "--status", "failed")); diff != "" {
		t.Error(diff)
	}
	if got := f.queries[0]; got != "key=a%2Fb&status=failed" {
		t.Error(got)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(c.ok("webhook", "attempts", "w", "-n", "1", "--json")), &all); err != nil || len(all) != 1 || all[0]["status"] != 503.0 {
		t.Errorf("%v, %v", all, err)
	}
}

// The commands against a real hub: what they say is what it does.
func TestWebhookLife(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans")
	put := func(body string) string {
		t.Helper()
		code, out, stderr := c.run(body, "put", "beans", "-")
		if code != exitOK {
			t.Fatal(stderr)
		}
		return strings.TrimSpace(out)
	}
	first, second := put("1"), put("2")
	p := newProgram(t)
	calls := func(n int) {
		t.Helper()
		until(t, fmt.Sprintf("call %d", n), func() bool { return len(p.got()) >= n })
		if got := p.got(); len(got) != n {
			t.Fatalf("%d calls, want %d: %q", len(got), n, got)
		}
	}
	c.ok("webhook", "create", "w", "--callback", p.url, "--channel", "beans", "--start", "earliest", "--secret", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "--parallel", "2", "--ttl", "1h",
		"--order-by", ".id", "--max-wait", "5m", "--timeout", "3", "--max-attempts", "7", "--error-channel", "failed")
	calls(2)
	text := c.ok("webhook", "get", "w")
	for _, line := range []string{"ttlMinutes 60", "maxWaitMinutes 5", "callbackTimeoutSeconds 3", "maxAttempts 7", "parallelCalls 2", "orderBy .id", "errorChannelUrl " + c.url + "/channel/failed"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "whsec") || p.headers[0].Get("Webhook-Signature") == "" {
		t.Errorf("%s\n%v", text, p.headers[0])
	}
	c.ok("webhook", "pause", "w")
	put("3")
	if got := c.ok("webhook", "ls", "-l"); !strings.Contains(got, "paused") || len(p.got()) != 2 {
		t.Errorf("%s, %d calls", got, len(p.got()))
	}
	c.ok("webhook", "resume", "w")
	calls(3)
	if got := c.ok("webhook", "replay", "w", "--item", second); got != "1 queued\n" {
		t.Error(got)
	}
	calls(4)
	if got := p.got()[3]; !strings.Contains(got, second) {
		t.Error(got)
	}
	until(t, "the attempts", func() bool { return strings.Count(c.ok("webhook", "attempts", "w"), "\n") == 5 })
	if got := c.ok("webhook", "attempts", "w", "--key", second); strings.Count(got, "200 OK") != 2 || strings.Count(got, "(replay)") != 1 {
		t.Error(got)
	}
	c.ok("webhook", "set", "w", "--start", first)
	calls(6)
	p.mu.Lock()
	p.answers = []int{410}
	p.mu.Unlock()
	put("4")
	until(t, "the pause", func() bool { return strings.Contains(c.ok("webhook", "ls", "-l"), "paused") })
	if got := c.ok("webhook", "get", "w"); !strings.Contains(got, "410") {
		t.Error(got)
	}
	c.ok("webhook", "resume", "w")
	calls(8)
	if got := c.ok("webhook", "attempts", "w", "--status", "failed"); strings.Count(got, "410 Gone") != 1 {
		t.Error(got)
	}
	c.ok("webhook", "rm", "w")
	if got := c.ok("webhook", "ls"); got != "" {
		t.Error(got)
	}
}
