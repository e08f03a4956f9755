package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

const emptyMessage = "channel is empty"

// sourceWait bounds how long a replication source may take to name its latest item.
const sourceWait = 3 * time.Second

// status is spec 02 §2.7.
func (h *Handlers) status(w http.ResponseWriter, r *http.Request) error {
	ch, err := h.channel(r)
	if err != nil {
		return err
	}
	self := web.Base(r) + "/channel/" + web.Param(r, "channel")
	d := doc{b: make([]byte, 0, 1024)}
	d.open()
	d.link("self", web.URI(r))
	var horizon hub.Key
	for _, end := range []struct {
		name string
		kind channel.Kind
	}{{"latest", channel.Latest}, {"earliest", channel.Earliest}} {
		found, err := h.svc.Find(r.Context(), ch, channel.Search{Kind: end.kind, N: 1, Stable: web.Bool(r, "stable", true)})
		if err != nil {
			return err
		}
		web.TraceOf(r.Context()).Step("%s: %d keys", end.name, len(found.Keys))
		horizon = found.Horizon
		if len(found.Keys) == 0 {
			d.empty(end.name, self+"/"+end.name)
			continue
		}
		d.begin(end.name)
		d.b = append(append(d.b, self...), '/')
		d.b = appendKey(d.b, found.Keys[0])
		d.end()
	}
	if ch.Replicated() {
		latest, ok := h.sourceLatest(r.Context(), ch.ReplicationSource)
		if ok {
			d.member("replicationSourceLatest")
			d.b = append(web.AppendString(append(d.b, "{\n      \"href\": "...), latest), "\n    }"...)
		} else {
			d.empty("replicationSourceLatest", latest)
		}
	}
	d.close()
	if ch.Replicated() {
		if err := h.replication(r.Context(), &d, ch); err != nil {
			return err
		}
	}
	d.b = web.TraceOf(r.Context()).AppendMembers(d.b)
	d.done()
	showHorizon(w, hub.Page{Horizon: horizon})
	web.WriteJSON(w, http.StatusOK, d.b)
	return nil
}

// replication adds what is known of the replication of a channel, beside the links.
func (h *Handlers) replication(ctx context.Context, d *doc, ch *hub.Channel) error {
	if h.opt.Replication == nil {
		return nil
	}
	status, ok := h.opt.Replication(ctx, ch)
	if !ok {
		return nil
	}
	text, err := json.MarshalIndent(status, "  ", "  ")
	if err != nil {
		return fmt.Errorf("write the state of a replication: %w", err)
	}
	d.b = append(append(d.b, ",\n  \"replication\": "...), text...)
	return nil
}

// empty adds a link that says that there is nothing behind it.
func (d *doc) empty(name, target string) {
	d.member(name)
	d.b = web.AppendString(append(d.b, "{\n      \"href\": "...), target)
	d.b = append(d.b, ",\n      \"message\": \""+emptyMessage+"\"\n    }"...)
}

// sourceLatest asks the hub that a channel is replicated from for its latest item.
func (h *Handlers) sourceLatest(ctx context.Context, source string) (string, bool) {
	target := strings.TrimRight(source, "/") + "/latest"
	if h.opt.Source == nil {
		return target, false
	}
	ctx, cancel := context.WithTimeout(ctx, sourceWait)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodHead, target, nil)
	if err != nil {
		return target, false
	}
	client := *h.opt.Source
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(q)
	if err != nil {
		return target, false
	}
	resp.Body.Close()
	if location := resp.Header.Get("Location"); resp.StatusCode == http.StatusSeeOther && location != "" {
		return location, true
	}
	return target, false
}
