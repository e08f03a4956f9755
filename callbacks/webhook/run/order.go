package run

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/channel/feed"
	"timehub/hub"
)

// order finds the value of items by which their order is kept. Its zero value puts all items into one group.
type order struct {
	jq          *gojq.Code
	contentType bool
	limit       time.Duration // for one item
	timeouts    int           // one after the other
}

const (
	headerPrefix = "header:"
	jqTime       = 2 * time.Second // far more than any sensible expression needs, also on a busy machine: who runs into it loses its place
	maxTimeouts  = 5               // one after the other: then the expression is not asked any more
	maxValue     = 1 << 10         // bytes of a value that tells groups apart; of longer ones, the beginning does
)

// CheckOrderBy returns an error of kind Invalid, for the person who sent it, unless an orderBy can be used.
func CheckOrderBy(text string) error {
	_, err := parseOrder(text)
	return err
}

func parseOrder(text string) (*order, error) {
	if len(text) >= len(headerPrefix) && strings.EqualFold(text[:len(headerPrefix)], headerPrefix) {
		if name := strings.TrimSpace(text[len(headerPrefix):]); !strings.EqualFold(name, "Content-Type") {
			return nil, hub.E(hub.Invalid, "orderBy names the header %q: items have no other header than Content-Type", name)
		}
		return &order{contentType: true}, nil
	}
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, hub.E(hub.Invalid, "orderBy is no jq expression: %v", err)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, hub.E(hub.Invalid, "orderBy cannot be used: %v", err)
	}
	return &order{jq: code, limit: jqTime}, nil
}

// newOrder is what a webhook needs; nil if order is kept anyway, or there is none to be kept.
func newOrder(w *webhook.Webhook) (*order, error) {
	if w.OrderBy == "" || w.ParallelCalls <= 1 || w.Unit() != hub.NoUnit {
		return nil, nil
	}
	return parseOrder(w.OrderBy)
}

// value is the group of an item; "" is that of items without a value.
func (o *order) value(ctx context.Context, item *deliver.Item) string {
	switch {
	case o.contentType:
		return cut(strings.ToLower(item.ContentType))
	case o.jq == nil || item.Omitted:
		return ""
	}
	var doc any
	if err := json.Unmarshal(item.Body, &doc); err != nil {
		return ""
	}
	inner, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	v, ok := o.jq.RunWithContext(inner, doc).Next()
	if inner.Err() == nil {
		o.timeouts = 0
	} else if o.timeouts++; o.timeouts == maxTimeouts && ctx.Err() == nil {
		o.jq = nil
	}
	if _, failed := v.(error); !ok || failed || v == nil {
		return ""
	}
	b, err := gojq.Marshal(v)
	if err != nil {
		return ""
	}
	return cut(string(b))
}

func cut(s string) string {
	if len(s) > maxValue {
		return strings.Clone(s[:maxValue])
	}
	return s
}

// lanes are the groups of entries, which ascend; nil if there are none.
func (s *session) lanes(entries []*entry) ([]string, error) {
	if s.order == nil || !s.ledger.ordered() {
		return nil, nil
	}
	keys := make([]hub.Key, len(entries))
	for i, e := range entries {
		keys[i] = e.key
	}
	values := make([]string, len(keys))
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		err := s.readValues(keys, values)
		if err == nil {
			return values, nil
		}
		s.opt.Log.Warn("the values that items are ordered by cannot be read; trying again", "webhook", s.w.Name, "err", err)
		if !rest(s.ctx, pause) {
			return nil, context.Cause(s.ctx)
		}
	}
}

func (s *session) readValues(keys []hub.Key, values []string) error {
	if s.order.jq == nil && !s.order.contentType {
		return nil
	}
	i := 0
	for sealed, err := range feed.Items(s.ctx, s.opt.Source, s.channel.Name, keys) {
		switch {
		case hub.Is(err, hub.NotFound) && !sealed.Key.IsZero():
			values[i] = ""
		case err != nil:
			return fmt.Errorf("read items to be ordered: %w", err)
		default:
			item, err := s.unseal(sealed)
			if err != nil {
				return err
			}
			values[i] = s.order.value(s.ctx, item)
			if s.order.timeouts == maxTimeouts {
				s.order.timeouts = 0
				s.opt.Log.Error("orderBy does not end; all items are one group from now on", "webhook", s.w.Name)
			}
		}
		i++
	}
	return nil
}
