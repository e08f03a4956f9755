package deliver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"

	"timehub/callbacks/webhook"
	"timehub/hub"
	"timehub/hub/web"
)

// MaxInline is the greatest body that goes into a payload; a greater one is read at its url.
const MaxInline = 4 << 20

const applicationJSON = "application/json"

// Item is an item as payloads carry it.
type Item struct {
	Key         hub.Key
	ContentType string // "" when the client sent none
	Body        []byte // not changed by anyone while a Message of it is in use
	Omitted     bool   // the body is greater than MaxInline, or no longer there: payloads say only where the item is
}

// omitted reports whether a payload can only say where the item is.
func (i *Item) omitted() bool { return i.Omitted || len(i.Body) > MaxInline }

// Keys are keys in ascending order; each range over them gives the same ones. An error ends them.
type Keys = iter.Seq2[hub.Key, error]

// Items are items in ascending order of their keys; each range over them gives the same ones. An error ends them. An Item is used until the next one comes.
type Items = iter.Seq2[*Item, error]

// KeyList are keys that lie in memory.
func KeyList(keys []hub.Key) Keys {
	return func(yield func(hub.Key, error) bool) {
		for _, k := range keys {
			if !yield(k, nil) {
				return
			}
		}
	}
}

// Message is what is posted, as often as need be. Post does not change it; many goroutines can post it if its Keys and Items can be ranged over by many.
type Message struct {
	id          string // the same for all attempts
	contentType string
	header      http.Header             // beside the usual ones; nil: none
	body        []byte                  // if write is nil
	write       func(w io.Writer) error // makes the same body each time
}

// ItemMessage is the call for one item (SINGLE). item is needed for the payloads items and cloudevents only; nil there counts as Omitted.
func ItemMessage(w *webhook.Webhook, key hub.Key, item *Item) (Message, error) {
	if item == nil {
		item = &Item{Key: key, Omitted: true}
	}
	if item.Key != key {
		return Message{}, fmt.Errorf("item %v was given for key %v", item.Key, key)
	}
	e := newEnvelope(w)
	m := Message{id: messageID(w, key.String()), contentType: applicationJSON}
	switch w.Payload {
	case "", webhook.URIs, webhook.Items:
		b := appendMember(nil, "{", "name", w.Name)
		b = append(e.appendURI(append(b, `,"uris":[`...), key), ']')
		if w.Payload == webhook.Items {
			b = append(e.appendItem(append(b, `,"items":[`...), item), ']')
		}
		m.body = append(b, `,"type":"item"}`...)
	case webhook.CloudEvents:
		e.binary(&m, item)
	default:
		return Message{}, unknownPayload(w)
	}
	return m, nil
}

// PeriodMessage is the call for one second or minute: a heartbeat if there are no keys. items is ranged over for the payload items and, instead of keys,
// for cloudevents; with uris it may be nil.
func PeriodMessage(w *webhook.Webhook, window hub.Window, keys Keys, items Items) (Message, error) {
	e := newEnvelope(w)
	m := Message{id: messageID(w, window.String()), contentType: applicationJSON}
	switch w.Payload {
	case "", webhook.URIs:
		m.write = func(out io.Writer) error { return e.writePeriod(out, window, keys, nil) }
	case webhook.Items:
		if items == nil {
			return Message{}, errors.New("a period with items inline needs the items")
		}
		m.write = func(out io.Writer) error { return e.writePeriod(out, window, keys, items) }
	case webhook.CloudEvents:
		if items == nil {
			return Message{}, errors.New("a period as CloudEvents needs the items")
		}
		m.contentType = "application/cloudevents-batch+json; charset=utf-8"
		m.write = func(out io.Writer) error { return e.writeEvents(out, items) }
	default:
		return Message{}, unknownPayload(w)
	}
	return m, nil
}

func unknownPayload(w *webhook.Webhook) error {
	return fmt.Errorf("webhook %s has the payload %q, which this version does not know", w.Name, w.Payload)
}

// messageID tells messages apart, for consumers that keep what they have seen: the same for every attempt. Standard Webhooks wants no dot in it.
func messageID(w *webhook.Webhook, path string) string {
	b := append([]byte(w.Name), '_')
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b = append(b, '-')
		case c|0x20 >= 'a' && c|0x20 <= 'z', c >= '0' && c <= '9', c == '_':
			b = append(b, c)
		default: // also '-', which stands for the slash
			b = fmt.Appendf(b, "%%%02X", c)
		}
	}
	return string(b)
}

// envelope is what all parts of the payloads of a webhook share.
type envelope struct {
	w      *webhook.Webhook
	prefix string // of every address: channelUrl without a final slash
	quoted []byte // prefix as the beginning of a JSON string, with a final slash
}

func newEnvelope(w *webhook.Webhook) *envelope {
	prefix := strings.TrimSuffix(w.ChannelURL, "/")
	quoted := web.AppendString(nil, prefix+"/")
	return &envelope{w: w, prefix: prefix, quoted: quoted[:len(quoted)-1]}
}

// appendURI appends the address of an item as a JSON string. The escaped form of a key needs no escape in JSON.
func (e *envelope) appendURI(b []byte, k hub.Key) []byte {
	return append(appendKeyPath(append(b, e.quoted...), k), '"')
}

// appendItem appends an item with its body: the same members as those of a websocket, and its address.
func (e *envelope) appendItem(b []byte, i *Item) []byte {
	b = appendMember(b, "{", "key", i.Key.String())
	b = e.appendURI(append(b, `,"url":`...), i.Key)
	if i.ContentType != "" {
		b = appendMember(b, ",", "contentType", i.ContentType)
	}
	switch {
	case i.omitted():
	case isPlain(i.ContentType, i.Body):
		b = web.AppendString(append(b, `,"body":`...), string(i.Body))
	default:
		b = appendBase64(append(b, `,"bodyBase64":`...), i.Body)
	}
	return append(b, '}')
}

// writePeriod writes the call for a second or minute, with items if there are any.
func (e *envelope) writePeriod(out io.Writer, window hub.Window, keys Keys, items Items) error {
	w := bufio.NewWriterSize(out, 32<<10)
	id := window.String()
	b := appendMember(nil, "{", "name", e.w.Name)
	b = appendMember(b, ",", "id", id)
	b = appendMember(b, ",", "url", e.prefix+"/"+id)
	b = appendMember(b, ",", "batchUrl", e.prefix+"/"+id+"?batch=true")
	b = appendMember(b, ",", "bulkUrl", e.prefix+"/"+id+"?bulk=true")
	b = append(b, `,"uris":[`...)
	w.Write(b) // a bufio.Writer keeps its error until Flush
	kind := "heartbeat"
	for k, err := range keys {
		if err != nil {
			return fmt.Errorf("%w: %w", ErrContent, err)
		}
		b = b[:0]
		if kind == "items" {
			b = append(b, ',')
		}
		kind = "items"
		if _, err := w.Write(e.appendURI(b, k)); err != nil {
			return err
		}
	}
	w.WriteByte(']')
	if items != nil {
		w.WriteString(`,"items":[`)
		if err := writeEach(w, items, e.appendItem); err != nil {
			return err
		}
		w.WriteByte(']')
	}
	w.Write(append(appendMember(b[:0], ",", "type", kind), '}'))
	return w.Flush()
}

// writeEach writes items, comma-separated.
func writeEach(w *bufio.Writer, items Items, appendTo func([]byte, *Item) []byte) error {
	var b []byte
	first := true
	for i, err := range items {
		if err != nil {
			return fmt.Errorf("%w: %w", ErrContent, err)
		}
		if b = b[:0]; !first {
			b = append(b, ',')
		}
		first = false
		b = appendTo(b, i)
		if _, err := w.Write(b); err != nil {
			return err
		}
		if cap(b) > 1<<20 { // one great item must not stay for the rest
			b = nil
		}
	}
	return nil
}
