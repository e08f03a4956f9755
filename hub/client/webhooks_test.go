package client

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"timehub/hub"
)

func TestWebhooks(t *testing.T) {
	var asked, body string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		asked, body = r.Method+" "+r.URL.RequestURI(), string(text)
		switch {
		case r.URL.Path == "/webhook":
			io.WriteString(w, `{"_links": {"self": {"href": "x"}, "webhooks": [{"name": "b", "href": "x"}, {"name": "a", "href": "x"}]}}`)
		case strings.HasSuffix(r.URL.Path, "/attempts"):
			io.WriteString(w, `{"_links": {}, "attempts": [{"time": "2026-11-21T00:00:00.000Z", "key": "2026/11/21/00/00/00/000/a", "number": 2, "status": 503,
				"reason": "Service Unavailable", "latencyMillis": 12, "answer": "no", "replay": true}]}`)
		case strings.HasSuffix(r.URL.Path, "/replay"):
			w.WriteHeader(202)
			io.WriteString(w, `{"queued": 7}`)
		case strings.HasSuffix(r.URL.Path, "/none"):
			w.WriteHeader(404)
		case r.Method == "DELETE":
			w.WriteHeader(202)
		default:
			io.WriteString(w, `{"name": "a", "callbackUrl": "http://c/", "paused": true, "inFlight": ["u"], "lagMillis": null, "itemsBehind": 3, "more": 1}`)
		}
	})
	want := func(method, text string, err error) {
		t.Helper()
		if err != nil || asked != method || body != text {
			t.Errorf("%s %s, %v; want %s %s", asked, body, err, method, text)
		}
	}
	names, err := c.Webhooks(t.Context())
	want("GET /webhook", "", err)
	if strings.Join(names, " ") != "a b" {
		t.Errorf("%v", names)
	}
	w, err := c.Webhook(t.Context(), "a")
	want("GET /webhook/a", "", err)
	if !w.Paused || w.LagMillis != nil || w.ItemsBehind == nil || *w.ItemsBehind != 3 || len(w.InFlight) != 1 || !strings.Contains(string(w.Document), `"more"`) {
		t.Errorf("%+v", w)
	}
	w, err = c.PutWebhook(t.Context(), "a", map[string]any{"paused": true})
	want("PUT /webhook/a", `{"paused":true}`, err)
	if w.Name != "a" {
		t.Errorf("%+v", w)
	}
	want("DELETE /webhook/a", "", c.DeleteWebhook(t.Context(), "a"))
	if err := c.DeleteWebhook(t.Context(), "none"); !hub.Is(err, hub.NotFound) {
		t.Errorf("%v", err)
	}
	list, err := c.Attempts(t.Context(), "a", "2026/11/21/00/00/00/000/a", "5xx")
	want("GET /webhook/a/attempts?key=2026%2F11%2F21%2F00%2F00%2F00%2F000%2Fa&status=5xx", "", err)
	if diff := cmp.Diff([]Attempt{{"2026-11-21T00:00:00.000Z", "2026/11/21/00/00/00/000/a", 2, 503, "Service Unavailable", "", 12, "no", true}}, list); diff != "" {
		t.Error(diff)
	}
	n, err := c.ReplayWebhook(t.Context(), "a", Replay{From: "2026/11/21", To: "2026/11/22"})
	want("POST /webhook/a/replay", `{"from":"2026/11/21","to":"2026/11/22"}`, err)
	if n != 7 {
		t.Errorf("%d queued", n)
	}
	for wait, text := range map[time.Duration]string{0: "", time.Millisecond: "", 1500 * time.Millisecond: "?wait=1", time.Hour: "?wait=60"} {
		_, _ = c.After(t.Context(), "x", key(t, keyText), 5, Query{Wait: wait})
		want("GET /channel/x/"+keyText+"/next/5"+text, "", nil)
	}
}
