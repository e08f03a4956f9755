package internalapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"timehub/hub"
	"timehub/hub/web"
)

type fakeChannels struct {
	refreshed int
	removed   []string
	fail      error
}

func (f *fakeChannels) RefreshChannels(context.Context) error { f.refreshed++; return f.fail }

func (f *fakeChannels) RemoveChannel(_ context.Context, name string) error {
	if name == "none" {
		return &hub.Error{Kind: hub.NotFound, Msg: "channel none not found", Verbatim: true}
	}
	f.removed = append(f.removed, name)
	return nil
}

func (f *fakeChannels) LastItems(context.Context) ([]LastItem, error) {
	at := func(s string) hub.Key { k, _ := hub.ParseKey(s + "/abcdef"); return k }
	return []LastItem{
		{"fresh", "me", at("2021/03/04/05/06/07/088")},
		{"beans", "me", at("2021/03/01/10/00/00/123")},
		{"tea", "you", at("2021/02/01/10/00/00/123")},
	}, f.fail
}

type bench struct {
	*httptest.Server
	channels fakeChannels
	state    State
	stopped  int
	options  Options
}

func start(t *testing.T, change ...func(*Options)) *bench {
	t.Helper()
	b := &bench{state: Healthy}
	begun := time.Date(2021, 3, 4, 0, 0, 0, 0, time.UTC)
	b.options = Options{
		Node: "node-1:8080", Version: "1.2.3", Started: begun, Channels: &b.channels,
		Clock:      func() time.Time { return begun.Add(5*time.Hour + 6*time.Minute + 7089*time.Millisecond) },
		State:      func() State { return b.state },
		Properties: func() map[string]string { return map[string]string{"hub.type": "test", "app.name": "hub"} },
		Shutdown:   func(context.Context) error { b.stopped++; return nil },
	}
	for _, c := range change {
		c(&b.options)
	}
	a, err := New(b.options)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := web.New(web.Options{Node: b.options.Node})
	if err != nil {
		t.Fatal(err)
	}
	a.Add(rt)
	b.Server = httptest.NewServer(rt)
	t.Cleanup(b.Close)
	return b
}

// call makes a request; host "" is one that is not local.
func (b *bench) call(t *testing.T, method, path, host string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, b.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Host = "hub.example"; host != "" {
		r.Host = host
	}
	resp, err := b.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestDocuments(t *testing.T) {
	b := start(t)
	for path, want := range map[string]string{
		"/health": `{"healthy": true, "description": "OK", "version": "1.2.3", "readOnly": false, "startTime": "2021-03-04T00:00:00.000Z", "upTimeHours": 5,
			"_links": {"metrics": {"href": "http://hub.example/health/metrics"}}}`,
		"/internal/deploy": `["node-1:8080"]`,
		"/internal/health": `{"http://node-1:8080/health": {"healthy": true, "description": "OK", "version": "1.2.3", "readOnly": false,
			"startTime": "2021-03-04T00:00:00.000Z", "upTimeHours": 5, "_links": {"metrics": {"href": "http://node-1:8080/health/metrics"}}}}`,
		"/internal/properties": `{"server": "http://node-1:8080/internal/properties", "servers": ["http://node-1:8080/internal/properties"],
			"properties": {"app.name": "hub", "hub.type": "test"}}`,
		"/internal/channel/refresh":          `{"node-1:8080": "success"}`,
		"/internal/channel/refresh?all=true": `{"node-1:8080": "success"}`,
		"/internal/channel/stale/60": `{"_links": {"self": {"href": "http://hub.example/internal/channel/stale/60"}}, "stale": {"stale minutes": 60,
			"stale cutoff": "2021-03-04T04:06:07.089Z", "uris": [
			{"last update": "2021-02-01T10:00:00.123Z", "uri": "http://hub.example/channel/tea"},
			{"last update": "2021-03-01T10:00:00.123Z", "uri": "http://hub.example/channel/beans"}]}}`,
		"/internal/channel/stale/60/me": `{"_links": {"self": {"href": "http://hub.example/internal/channel/stale/60/me"}}, "stale": {"stale minutes": 60,
			"stale cutoff": "2021-03-04T04:06:07.089Z", "uris": [{"last update": "2021-03-01T10:00:00.123Z", "uri": "http://hub.example/channel/beans"}]}}`,
	} {
		status, body, header := b.call(t, "GET", path, "")
		if status != 200 || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, status, header.Get("Content-Type"))
		}
		var got, wanted any
		if err := errors.Join(json.Unmarshal([]byte(body), &got), json.Unmarshal([]byte(want), &wanted)); err != nil {
			t.Fatal(path, err, body)
		}
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	if b.channels.refreshed != 2 {
		t.Errorf("refreshed %d times", b.channels.refreshed)
	}
}

// The help pages are free text, their links are not.
func TestHelp(t *testing.T) {
	b := start(t)
	for path, links := range map[string]map[string]string{
		"/internal": {"self": "/internal/", "channel": "/internal/channel", "cluster": "/internal/cluster", "deploy": "/internal/deploy", "health": "/internal/health",
			"properties": "/internal/properties", "shutdown": "/internal/shutdown", "time": "/internal/time"},
		"/internal/channel":  {"self": "/internal/channel", "refresh": "/internal/channel/refresh", "stale": "/internal/channel/stale/1440"},
		"/internal/time":     {"self": "/internal/time", "millis": "/internal/time/millis", "local": "/internal/time/local", "remote": "/internal/time/remote"},
		"/internal/shutdown": {"self": "/internal/shutdown", "shutdown": "", "resetLock": ""},
	} {
		_, body, _ := b.call(t, "GET", path, "")
		var d struct {
			Links map[string]struct{ Href string } `json:"_links"`
		}
		if err := json.Unmarshal([]byte(body), &d); err != nil || len(d.Links) != len(links) {
			t.Errorf("%s: %v, %s", path, err, body)
		}
		for name, href := range links {
			want := "http://hub.example" + href
			if href == "" {
				want = "http://localhost:8080" + strings.Replace("/internal/shutdown/"+name, "/shutdown/shutdown", "/shutdown", 1)
			}
			if d.Links[name].Href != want {
				t.Errorf("%s: %s is %q", path, name, d.Links[name].Href)
			}
		}
	}
	_, body, _ := b.call(t, "GET", "/internal/shutdown", "")
	var d struct {
		ShutdownLock string
		Object       struct{ ShutdownLock string }
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil || d.ShutdownLock != "none" || d.Object.ShutdownLock != "none" {
		t.Errorf("%v %s", err, body)
	}
}

func TestTexts(t *testing.T) {
	b := start(t)
	millis := strconv.FormatInt(b.options.Clock().UnixMilli(), 10)
	for path, want := range map[string]string{
		"/internal/deploy/text":               "node-1",
		"/internal/time/millis":               millis,
		"/internal/time/local":                millis,
		"/internal/channel/refresh?all=false": "node-1:8080",
	} {
		status, body, header := b.call(t, "GET", path, "")
		if status != 200 || body != want || header.Get("Content-Type") != "text/plain" {
			t.Errorf("%s: %d %q %s", path, status, body, header.Get("Content-Type"))
		}
	}
	if status, body, _ := b.call(t, "GET", "/internal/time/remote", ""); status != 500 || !strings.Contains(body, "error") {
		t.Errorf("nobody else tells the time: %d %s", status, body)
	}
	if status, body, _ := b.call(t, "GET", "/health/metrics", ""); status != 200 || !strings.Contains(body, `"openFiles": `) || strings.Contains(body, "-") {
		t.Errorf("%d %s", status, body)
	}
}

func TestHealthStates(t *testing.T) {
	b := start(t, func(o *Options) { o.Reason = func() string { return "no writes: the disk is full" } })
	for state, want := range map[State]struct {
		status int
		text   string
	}{Starting: {500, `"Starting up..."`}, Healthy: {200, `"OK, but no writes: the disk is full"`}, ShuttingDown: {520, `"SHUTTING DOWN"`}} {
		b.state = state
		status, body, _ := b.call(t, "GET", "/health", "")
		if status != want.status || !strings.Contains(body, want.text) || strings.Contains(body, `"healthy": true`) != (state == Healthy) {
			t.Errorf("%d: %d %s", state, status, body)
		}
	}
}

// The lock of a cluster is shown by name, and released.
func TestShutdownLock(t *testing.T) {
	holder := "node-2:8080"
	b := start(t, func(o *Options) {
		o.ShutdownLock = func(context.Context) (string, error) { return holder, nil }
		o.ResetLock = func(context.Context) error { holder = ""; return nil }
	})
	for _, want := range []string{"node-2:8080", "none"} {
		_, body, _ := b.call(t, "GET", "/internal/shutdown", "")
		var d struct{ ShutdownLock string }
		if err := json.Unmarshal([]byte(body), &d); err != nil || d.ShutdownLock != want {
			t.Errorf("%v %s", err, body)
		}
		if status, _, _ := b.call(t, "POST", "/internal/shutdown/resetLock", "localhost"); status != 200 {
			t.Errorf("reset: %d", status)
		}
	}
}

// Limits of a channel are applied when asked for; a failure is 400, with a sentence and nothing of the inside.
func TestMaxItems(t *testing.T) {
	var asked []string
	b := start(t, func(o *Options) {
		o.MaxItems = func(_ context.Context, channel string) error {
			if asked = append(asked, channel); channel == "broken" {
				return errors.New("inner text")
			}
			return nil
		}
	})
	for channel, want := range map[string]int{"beans": 200, "none": 200, "broken": 400} {
		status, body, _ := b.call(t, "PATCH", "/internal/max-items/"+channel, "")
		if status != want || strings.Contains(body, "inner text") {
			t.Errorf("%s: %d %s", channel, status, body)
		}
	}
	if len(asked) != 3 {
		t.Errorf("asked for %v", asked)
	}
}

// What changes the node's state or costs much is for local callers (spec 01 §3.6).
func TestGuards(t *testing.T) {
	b := start(t, func(o *Options) { o.Guarded = true })
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/shutdown", 200}, {"POST", "/internal/shutdown", 200}, {"POST", "/internal/shutdown/resetLock", 200},
		{"PUT", "/internal/time/local", 200}, {"PUT", "/internal/time/remote", 409}, {"GET", "/health/metrics/trace", 200},
		{"DELETE", "/internal/channel/beans", 202}, {"DELETE", "/internal/channel/none", 404},
	} {
		for _, host := range []string{"", "127.0.0.1:8080"} {
			if status, _, _ := b.call(t, c.method, c.path, host); status != 403 {
				t.Errorf("%s %s from %q: %d", c.method, c.path, host, status)
			}
		}
		if b.stopped > 0 && !strings.HasSuffix(c.path, "/shutdown") && len(b.channels.removed) > 0 && c.want != 404 {
			t.Errorf("%s %s did something", c.method, c.path)
		}
		if status, body, _ := b.call(t, c.method, c.path, "localhost:8080"); status != c.want {
			t.Errorf("%s %s as a local caller: %d %s", c.method, c.path, status, body)
		}
	}
	if b.stopped != 2 || len(b.channels.removed) != 1 {
		t.Errorf("%d stops, %v removed", b.stopped, b.channels.removed)
	}
	open := start(t)
	if status, _, _ := open.call(t, "DELETE", "/internal/channel/beans", ""); status != 202 {
		t.Errorf("without hub.protect.channels everybody may delete: %d", status)
	}
}

func TestRefusals(t *testing.T) {
	b := start(t)
	for path, want := range map[string]int{"/internal/channel/stale/x": 404, "/internal/channel/stale/9999999999999999999999": 200, "/internal/none": 404, "/internal/": 307} {
		b.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		if status, body, _ := b.call(t, "GET", path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	b.channels.fail = hub.E(hub.Unavailable, "the bucket is silent")
	for _, path := range []string{"/internal/channel/refresh", "/internal/channel/refresh?all=false", "/internal/channel/stale/1"} {
		if status, _, _ := b.call(t, "GET", path, ""); status != 503 {
			t.Errorf("%s: %d", path, status)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("an API without a node")
	}
	for _, without := range []*bench{start(t, func(o *Options) { o.Channels, o.Shutdown = nil, nil })} {
		for _, path := range []string{"/internal/channel/refresh", "/internal/shutdown"} {
			if status, _, _ := without.call(t, "GET", path, "localhost"); status != 404 {
				t.Errorf("%s: %d", path, status)
			}
		}
	}
}

// fakeCluster is two nodes, one of them leaving, and one that has left.
type fakeCluster struct{ calls []string }

func (f *fakeCluster) Cluster(context.Context) (ClusterState, error) {
	return ClusterState{Members: []string{"b:1", "a:1"}, Leaving: []string{"c:1"}, Left: []string{"d:1"}, Detail: map[string]int{"epoch": 7}}, nil
}

func (f *fakeCluster) Leave(_ context.Context, node string) error {
	f.calls = append(f.calls, "leave "+node)
	return nil
}

func (f *fakeCluster) Return(_ context.Context, node string) error {
	if node == "x:1" {
		return hub.E(hub.NotFound, "x:1 is unknown")
	}
	f.calls = append(f.calls, "return "+node)
	return nil
}

func (f *fakeCluster) CloseOpen(_ context.Context, what string, force bool) error {
	if force {
		what += " by force"
	}
	f.calls = append(f.calls, "close "+what)
	return nil
}

func (f *fakeCluster) LateItems(_ context.Context, from int64, limit int) (items any, count int, next int64, err error) {
	return []int64{from, int64(limit)}, 9, 70, nil
}

func TestCluster(t *testing.T) {
	f := &fakeCluster{}
	b := start(t, func(o *Options) {
		o.Cluster = f
		o.Members = func(context.Context) ([]string, error) {
			return []string{"node-0:8080", "node-1:8080", "node-2:8080"}, nil
		}
		o.Fetch = func(_ context.Context, node, path string) (int, []byte, error) {
			switch {
			case node == "node-0:8080":
				return 0, nil, errors.New("connection refused")
			case path == "/health":
				return 503, []byte(`{"healthy": false}`), nil
			case path == "/internal/channel/refresh?all=false":
				return 200, []byte(node), nil
			}
			return 200, []byte("12345"), nil
		}
	})
	_, body, _ := b.call(t, "GET", "/internal/cluster", "")
	var d struct {
		Links map[string]struct{ Href string } `json:"_links"`
		clusterText
		Detail map[string]int
		Object clusterText
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatal(err, body)
	}
	want := decommissioned{[]serverName{{"c:1"}}, []serverName{{"d:1"}}}
	for _, c := range []struct{ query, want string }{{"", `"items":[0,1000]`}, {"?from=5&limit=99999", `"items":[5,10000]`}, {"?from=x", "from is"}, {"?limit=-1", "limit is"}} {
		if _, body, _ := b.call(t, "GET", "/internal/cluster/late"+c.query, ""); !strings.Contains(strings.NewReplacer(" ", "", "\n", "").Replace(body), strings.ReplaceAll(c.want, " ", "")) {
			t.Errorf("late items %s: %s", c.query, body)
		}
	}
	if !slices.Equal(d.SpokeCluster, []serverName{{"a:1"}, {"b:1"}}) || cmp.Diff(want, d.Decommissioned) != "" || cmp.Diff(d.clusterText, d.Object) != "" || d.Detail["epoch"] != 7 {
		t.Errorf("/internal/cluster: %s", body)
	}
	if len(d.Links) != 3 || d.Links["recommission d:1"].Href != "http://localhost:8080/internal/cluster/recommission/d:1" {
		t.Errorf("links of /internal/cluster: %v", d.Links)
	}
	for path, want := range map[string]int{"decommission": 200, "decommission?node=a:1": 200, "recommission/d:1": 202, "recommission/x:1": 500, "close/1.2": 200, "close/a:1?force=true": 200, "close/a:1?force=x": 400} {
		if status, _, _ := b.call(t, "POST", "/internal/cluster/"+path, ""); status != 403 {
			t.Errorf("%s is open to everybody: %d", path, status)
		}
		if status, body, _ := b.call(t, "POST", "/internal/cluster/"+path, "localhost"); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	slices.Sort(f.calls)
	if got := []string{"close 1.2", "close a:1 by force", "leave ", "leave a:1", "return d:1"}; !slices.Equal(f.calls, got) {
		t.Errorf("calls: %q", f.calls)
	}
	if _, body, _ := b.call(t, "GET", "/internal/deploy", ""); !strings.Contains(body, "node-2:8080") {
		t.Errorf("/internal/deploy: %s", body)
	}
	var health map[string]any
	_, body, _ = b.call(t, "GET", "/internal/health", "")
	if err := json.Unmarshal([]byte(body), &health); err != nil || len(health) != 3 || !strings.Contains(fmt.Sprint(health["http://node-0:8080/health"]), "refused") {
		t.Errorf("/internal/health: %s", body)
	}
	if status, body, _ := b.call(t, "GET", "/internal/time/remote", ""); status != 200 || body != "12345" {
		t.Errorf("/internal/time/remote: %d %s", status, body)
	}
	if _, body, _ := b.call(t, "GET", "/internal/channel/refresh", ""); !strings.Contains(body, `"node-2:8080": "success"`) || strings.Contains(body, "node-0") {
		t.Errorf("refresh: %s", body)
	}
}
