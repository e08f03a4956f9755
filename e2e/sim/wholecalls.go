package sim

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/client"
)

// Talk is how people use a hub: over HTTP. It implements Service.
type Talk struct {
	Client *client.Client
	Probe  string // a channel that is there
}

// Put implements Service.
func (h *Talk) Put(ctx context.Context, channel string, body []byte) (hub.Key, Fate, error) {
	k, err := h.Client.Insert(ctx, channel, client.Upload{ContentType: "text/x-sim", Body: bytes.NewReader(body), Size: int64(len(body))})
	return k, heard(err), err
}

// PutBulk implements Service.
func (h *Talk) PutBulk(ctx context.Context, channel string, bodies [][]byte) (hub.Key, Fate, error) {
	keys, err := h.Client.InsertBulk(ctx, channel, parts(bodies))
	if err != nil {
		return hub.Key{}, heard(err), err
	}
	shared := hub.KeyAt(keys[0].Millis(), keys[0].Hash()[:6])
	for i, k := range keys {
		if k != hub.BulkKey(shared, i) || len(keys) != len(bodies) {
			return shared, Acknowledged, fmt.Errorf("part %d of %d got the key %v", i, len(bodies), k)
		}
	}
	return shared, Acknowledged, nil
}

func parts(bodies [][]byte) iter.Seq[client.Part] {
	return func(yield func(client.Part) bool) {
		for _, b := range bodies {
			if !yield(client.Part{ContentType: "text/x-sim", Body: b}) {
				return
			}
		}
	}
}

// heard reads the promise out of what a writer heard.
func heard(err error) Fate {
	switch hub.KindOf(err) {
	case hub.Unavailable:
		switch text := err.Error(); {
		case strings.Contains(text, "does not answer"):
			return Unknown
		case strings.Contains(text, "nothing of it was stored"):
			return Refused
		}
		return Doubtful
	case hub.Full, hub.NotFound, hub.Invalid, hub.TooLarge:
		return Refused
	}
	if err == nil {
		return Acknowledged
	}
	return Unknown
}

// Get implements Service.
func (h *Talk) Get(ctx context.Context, channel string, key hub.Key) ([]byte, hub.Key, error) {
	if key.Hash() == "" {
		key = hub.KeyAt(key.Millis(), "0")
	}
	item, err := h.Client.Get(ctx, channel, key)
	if err != nil {
		return nil, hub.MinKey, err
	}
	defer item.Body.Close()
	b, err := io.ReadAll(item.Body)
	return b, hub.MinKey, err
}

// Ask implements Service. Bulk reads and empty answers do not say their horizon, so that is asked for before and after.
func (h *Talk) Ask(ctx context.Context, a Ask) (ans Answer, err error) {
	ans.Floor = hub.MinKey // everything must be there, in one store or the other
	if a.Stable {
		if ans.Horizon, err = h.Horizon(ctx); err != nil {
			return ans, err
		}
	}
	q := client.Query{Unstable: !a.Stable, Tier: a.Tier}
	if a.Bodies {
		err = h.bodies(ctx, a, q, &ans)
	} else {
		err = h.keys(ctx, a, q, &ans)
	}
	if err == nil && a.Stable && ans.Top.IsZero() {
		ans.Top, err = h.Horizon(ctx)
	}
	if a.query().Reverse {
		slices.Reverse(ans.Keys)
		slices.Reverse(ans.Bodies)
	}
	return ans, err
}

func (h *Talk) keys(ctx context.Context, a Ask, q client.Query, ans *Answer) (err error) {
	var p client.Page
	switch a.Kind {
	case Range:
		p, err = h.Client.Window(ctx, a.Channel, a.Window, q)
	case Next:
		p, err = h.Client.After(ctx, a.Channel, a.Key, a.N, q)
	case Previous:
		p, err = h.Client.Before(ctx, a.Channel, a.Key, a.N, q)
	case Latest:
		p, err = h.Client.Latest(ctx, a.Channel, a.N, q)
	case Earliest:
		p, err = h.Client.Earliest(ctx, a.Channel, a.N, q)
	}
	ans.Keys = p.Keys
	if a.Stable && !p.Horizon.IsZero() {
		if p.Horizon.Less(ans.Horizon) {
			return fmt.Errorf("the horizon of an answer is %v, %v had been shown before", p.Horizon, ans.Horizon)
		}
		ans.Horizon, ans.Top = p.Horizon, p.Horizon
	}
	return err
}

func (h *Talk) bodies(ctx context.Context, a Ask, q client.Query, ans *Answer) error {
	key := a.Key
	if key.Hash() == "" {
		key = hub.KeyAt(key.Millis(), "0")
	}
	var path string
	switch a.Kind {
	case Range:
		path = a.Window.String()
	case Next, Previous:
		path = fmt.Sprintf("%v/%v/%d", key, a.Kind, a.N)
	case Latest, Earliest:
		path = fmt.Sprintf("%v/%d", a.Kind, a.N)
	}
	for item, err := range h.Client.Items(ctx, a.Channel, path, q) {
		if hub.Is(err, hub.NotFound) && (a.Kind == Latest || a.Kind == Earliest) {
			return nil // there is none
		}
		if err != nil {
			return fmt.Errorf("%s/%s: %w", a.Channel, path, err)
		}
		b, err := io.ReadAll(item.Body)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", a.Channel, path, err)
		}
		ans.Keys, ans.Bodies = append(ans.Keys, item.Key), append(ans.Bodies, b)
	}
	return nil
}

// Horizon implements Service: every list says it, also one of a second in which there is nothing.
func (h *Talk) Horizon(ctx context.Context) (hub.Key, error) {
	p, err := h.Client.Window(ctx, h.Probe, hub.WindowAt(time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC), hub.Second), client.Query{})
	if err == nil && p.Horizon.IsZero() {
		err = errors.New("a list does not say its horizon")
	}
	return p.Horizon, err
}

// damage looks into the metrics: nobody has damaged anything.
func (h *Talk) damage() error {
	resp, err := h.Client.Raw(context.Background(), "/metrics", http.Header{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, "hub_spoke_log_damaged") {
			if n, err := strconv.ParseFloat(value, 64); err != nil || n > 0 {
				return fmt.Errorf("damage without a cause: %s %s", name, value)
			}
		}
	}
	return nil
}
