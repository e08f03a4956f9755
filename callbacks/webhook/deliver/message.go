package deliver

import (
	"io"
	"iter"
	"net/http"

	"timehub/callbacks/webhook"
	"timehub/hub"
)

// MaxInline is the greatest body that goes into a payload; a greater one is read at its url.
const MaxInline = 4 << 20

// Item is an item as payloads carry it.
type Item struct {
	Key         hub.Key
	ContentType string // "" when the client sent none
	Body        []byte // not changed by anyone while a Message of it is in use
	Omitted     bool   // the body is greater than MaxInline, or no longer there: payloads say only where the item is
}

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

// Message is what is posted, as often as need be. It is not changed by Post and can be used by many goroutines if its Keys and Items can.
type Message struct {
	id          string // the same for all attempts
	contentType string
	header      http.Header             // beside the usual ones; nil: none
	body        []byte                  // nil: write makes it
	write       func(w io.Writer) error // makes the same body each time
}

// ItemMessage is the call for one item (SINGLE). item is needed for the payloads items and cloudevents only; nil there counts as Omitted.
func ItemMessage(w *webhook.Webhook, key hub.Key, item *Item) (Message, error) {
	panic("")
}

// PeriodMessage is the call for one second or minute: a heartbeat if there are no keys. items is ranged over for the payload items and, instead of keys,
// for cloudevents; with uris it may be nil.
func PeriodMessage(w *webhook.Webhook, window hub.Window, keys Keys, items Items) (Message, error) {
	panic("")
}
