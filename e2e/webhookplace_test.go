package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"timehub/e2e/hubproc"
)

// hookPlace is a part of what GET /webhook/{name} says.
type hookPlace struct {
	LastCompleted string `json:"lastCompleted"`
	MaxAttempts   int    `json:"maxAttempts"`
	Paused        bool   `json:"paused"`
}

func placeOf(t *testing.T, hub *hubproc.Hub, name string) (s hookPlace) {
	t.Helper()
	if err := json.Unmarshal(must(t, 200, "GET", hub.URL+"/webhook/"+name, nil).body, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWebhookPlaceSurvives: where a webhook begins, and where a person has put it, is on disk when the request is answered; so are the instances of a tag.
// The hub is killed at once each time.
func TestWebhookPlaceSurvives(t *testing.T) {
	hub := start(t)
	again := func() {
		t.Helper()
		hub.Kill()
		if err := hub.Start(); err != nil {
			t.Fatal(err)
		}
	}
	putChannel(t, hub.URL, "place", `{"tags":["places"]}`)
	must(t, 201, "PUT", hub.URL+"/webhook/place", fmt.Appendf(nil, `{"callbackUrl": "http://127.0.0.1:9/", "channelUrl": "%s/channel/place", "paused": true}`, hub.URL),
		"Content-Type", "application/json")
	began := placeOf(t, hub, "place").LastCompleted
	again()
	if got := placeOf(t, hub, "place").LastCompleted; got != began || !strings.HasSuffix(got, "/initial") {
		t.Errorf("it began at %s and stands at %s", began, got)
	}
	moved := hub.URL + "/channel/place/2020/01/02/03/04"
	must(t, 202, "PUT", hub.URL+"/webhook/place/updateCursor", []byte(moved), "Content-Type", "text/plain")
	again()
	if got := placeOf(t, hub, "place").LastCompleted; !strings.HasSuffix(got, "/channel/place/2020/01/02/03/04") {
		t.Errorf("it was moved to %s and stands at %s", moved, got)
	}
	must(t, 202, "DELETE", hub.URL+"/webhook/place", nil)
	again()
	must(t, 404, "GET", hub.URL+"/webhook/place", nil)

	must(t, 201, "PUT", hub.URL+"/webhook/places", []byte(`{"callbackUrl": "http://127.0.0.1:9/", "tagUrl": "http://hub.example/tag/places", "maxAttempts": 3}`), "Content-Type", "application/json")
	again()
	if got := placeOf(t, hub, "TAGWH_places_place").MaxAttempts; got != 3 {
		t.Errorf("the instance has maxAttempts %d", got)
	}
}

// TestWebhookManyAtOnce: many clients make, change and delete one webhook. Each answer is one of those that make sense, as many were made as deleted, and in
// the end there is what the last one asked for.
func TestWebhookManyAtOnce(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "crowd", `{}`)
	body := fmt.Sprintf(`{"callbackUrl": "http://127.0.0.1:9/", "channelUrl": "%s/channel/crowd"}`, hub.URL)
	var mu sync.Mutex
	answers := map[string]int{}
	ask := func(method, body string) {
		req, err := http.NewRequest(method, hub.URL+"/webhook/crowd", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
		mu.Lock()
		defer mu.Unlock()
		answers[fmt.Sprint(method, resp.StatusCode)]++
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 15 {
				ask("PUT", body)
				ask("GET", "")
				ask("DELETE", "")
			}
		})
	}
	wg.Wait()
	for a := range answers {
		if !strings.Contains(" PUT200 PUT201 GET200 GET404 DELETE202 DELETE404 ", " "+a+" ") {
			t.Errorf("%d answers %s", answers[a], a)
		}
	}
	if answers["PUT201"] != answers["DELETE202"] || answers["PUT201"] == 0 {
		t.Errorf("made %d times, deleted %d times", answers["PUT201"], answers["DELETE202"])
	}
	must(t, 404, "GET", hub.URL+"/webhook/crowd", nil)
	must(t, 201, "PUT", hub.URL+"/webhook/crowd", []byte(body), "Content-Type", "application/json")
	must(t, 200, "GET", hub.URL+"/webhook/crowd", nil)
}
