package run

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
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
	if word := greedy(reflect.ValueOf(query)); word != "" {
		return nil, hub.E(hub.Invalid, "orderBy uses %s: nothing may be used there that can run or grow without end; name the member to order by", word)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, hub.E(hub.Invalid, "orderBy cannot be used: %v", err)
	}
	return &order{jq: code, limit: jqTime}, nil
}

// greedy finds the first thing in an expression that can take any amount of time or memory for a small item; "" if there is none. The time of one
// evaluation is bounded too, but not within some of these.
func greedy(v reflect.Value) (word string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		switch x := v.Interface().(type) {
		case *gojq.FuncDef:
			return "def"
		case *gojq.Reduce:
			return "reduce"
		case *gojq.Foreach:
			return "foreach"
		case *gojq.Func:
			switch x.Name {
			case "range", "repeat", "recurse", "recurse_down", "while", "until", "limit", "splits", "combinations", "walk", "gsub",
				"scan", "input", "inputs", "debug", "stderr", "halt", "halt_error":
				return x.Name
			}
		}
		return greedy(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if word = greedy(v.Field(i)); word != "" {
				return word
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if word = greedy(v.Index(i)); word != "" {
				return word
			}
		}
	case reflect.Int:
		if op, ok := v.Interface().(gojq.Operator); ok && (op == gojq.OpMul || op == gojq.OpUpdateMul) {
			return "*"
		}
	}
	return word
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
	return string(appendValue(nil, v))
}

func cut(s string) string {
	if len(s) > maxValue {
		return strings.Clone(s[:maxValue])
	}
	return s
}

// appendValue appends the beginning of a value as JSON, as far as it tells groups apart: a small expression can make a value whose text is without end.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		b = strconv.AppendQuote(b, cut(v))
	case []any:
		b = append(b, '[')
		for i := 0; i < len(v) && len(b) < maxValue; i++ {
			b = append(appendValue(b, v[i]), ',')
		}
		b = append(b, ']')
	case map[string]any:
		if len(v) > maxValue {
			return append(b, '{')
		}
		b = append(b, '{')
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if len(b) >= maxValue {
				break
			}
			b = append(appendValue(append(strconv.AppendQuote(b, cut(name)), ':'), v[name]), ',')
		}
		b = append(b, '}')
	default:
		if text, err := gojq.Marshal(v); err == nil { // null, a truth value, a number
			b = append(b, text...)
		}
	}
	return b[:min(len(b), maxValue)]
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
		if !hub.Sleep(s.ctx, pause) {
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
