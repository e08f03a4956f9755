package internalapi

import (
	"context"
	"strings"
	"testing"
	"time"

	"timehub/hub"
)

type fakeWebhooks struct{ stopped string }

func (*fakeWebhooks) Webhooks(context.Context) ([]Webhook, error) {
	channel := "http://hub.example/channel/orders"
	hook := func(name string) Webhook {
		return Webhook{Name: name, CallbackURL: "http://printer.example/cb", ChannelURL: &channel, ParallelCalls: 1, Batch: "SINGLE", MaxWaitMinutes: 1}
	}
	proto := hook("proto")
	proto.ChannelURL = nil
	return []Webhook{hook("gone"), hook("new"), hook("old"), proto}, nil
}

func (*fakeWebhooks) WebhookState(_ context.Context, name string) (WebhookState, error) {
	switch name {
	case "old":
		return WebhookState{ChannelLatest: "latest", LastCompleted: "last", At: time.Date(2021, 3, 1, 0, 0, 0, 0, time.UTC), Errors: []string{"503"}}, nil
	case "new":
		return WebhookState{At: time.Date(2021, 3, 4, 5, 6, 0, 0, time.UTC)}, nil
	}
	return WebhookState{}, hub.E(hub.NotFound, "webhook %s not found", name)
}

func (*fakeWebhooks) RunningWebhooks() []RunningWebhook {
	return []RunningWebhook{{Name: "old", Since: time.UnixMilli(1614834367089), Last: "2021/03/04/05/06", At: time.UnixMilli(1614834420000)}}
}

func (*fakeWebhooks) RunWebhook(_ context.Context, name string) (bool, error) {
	return name == "old", nil
}

func (f *fakeWebhooks) StopWebhook(_ context.Context, name string) error {
	if name == "forbidden" {
		return hub.E(hub.Forbidden, "not here")
	}
	f.stopped += name
	return nil
}

func TestWebhooks(t *testing.T) {
	f := &fakeWebhooks{}
	b := start(t, func(o *Options) { o.Webhooks = f })
	compact := func(s string) string { return strings.Join(strings.Fields(s), "") }
	for _, c := range []struct {
		method, path string
		status       int
		want         string // in the body, white space aside; "": an empty body
	}{
		{"GET", "/internal", 200, `/internal/webhook"`},
		{"GET", "/internal/webhook", 200, `/internal/webhook/stale/60"`},
		{"GET", "/internal/webhook/configs", 200, `{"name":"new","callbackUrl":"http://printer.example/cb","channelUrl":"http://hub.example/channel/orders","parallelCalls":1,"paused":false,"batch":"SINGLE","heartbeat":false,"ttlMinutes":0,"maxWaitMinutes":1}`},
		{"GET", "/internal/webhook/configs", 200, `{"name":"proto","callbackUrl":"http://printer.example/cb","channelUrl":null,`},
		{"GET", "/internal/webhook/errors", 200, `"webhooks":[{"name":"old","href":"http://hub.example/webhook/old","callbackUrl":"http://printer.example/cb","channelUrl":"http://hub.example/channel/orders","channelLatest":"latest","lastCompleted":"last","errors":["503"]}]}`},
		{"GET", "/internal/webhook/stale/60", 200, `"staleminutes":60,"stalecutoff":"2021-03-04T04:06:07.089Z","uris":[{"lastupdate":"1970-01-01T00:00:00.000Z","uri":"http://hub.example/webhook/proto"},{"lastupdate":"2021-03-01T00:00:00.000Z","uri":"http://hub.example/webhook/old"}]}}`},
		{"GET", "/internal/webhook/stale/0", 200, `/webhook/new`},
		{"GET", "/internal/webhook/stale/x", 404, `error`},
		{"GET", "/internal/webhook/running", 200, `{"node-1:8080":{"old":{"startTimeMillis":1614834367089,"lastUpdatedUrl":"2021/03/04/05/06","lastUpdatedMillis":1614834420000,"hasLeadership":true,"executorState":"ACTIVE"}}}`},
		{"GET", "/internal/webhook/count", 200, `1`},
		{"PUT", "/internal/webhook/run/old", 200, ``}, {"PUT", "/internal/webhook/run/new", 400, `error`},
		{"PUT", "/internal/webhook/stop/old", 200, ``}, {"PUT", "/internal/webhook/stop/forbidden", 403, `error`},
	} {
		status, body, _ := b.call(t, c.method, c.path, "")
		if status != c.status || !strings.Contains(compact(body), c.want) || c.want == "" && body != "" {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, compact(body))
		}
	}
	if f.stopped != "old" {
		t.Errorf("stopped %q", f.stopped)
	}
}
