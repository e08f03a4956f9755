package channel

import (
	"context"
	"io"
	"time"

	"timehub/hub"
	"timehub/hub/metrics"
)

// Upload is one item to be written. Its body is either Body, or Size bytes of Reader, which is for bodies that are not held in memory.
type Upload struct {
	ContentType string // as sent; "" if none
	Creator     string
	Body        []byte // not kept, not changed
	Reader      io.Reader
	Size        int64     // with Reader only
	Began       time.Time // when the body began to arrive, for the latency metric; zero: now
}

// Part is one item of a bulk.
type Part struct {
	ContentType string
	Body        []byte
}

// Insert writes one item and returns its key when it is durable (spec 02 §4.1). Forbidden, Verbatim, on a replicated channel; Invalid for zero bytes
// where they are not allowed; TooLarge above MaxItemBytes; Unavailable or Full from the stores. An item of LargeBytes or more goes to long-term
// storage first (spec 01 §1.6); it needs a Reader or a Body alike.
func (s *Service) Insert(ctx context.Context, ch *hub.Channel, u Upload) (hub.Key, error) {
	return hub.Key{}, errUnwritten
}

// InsertBulk writes all parts or none and returns their shared key: part i is hub.BulkKey(key, i) (spec 02 §4.2). Invalid without parts, TooLarge with
// more than MaxParts. Bodies are not kept.
func (s *Service) InsertBulk(ctx context.Context, ch *hub.Channel, creator string, began time.Time, parts []Part) (hub.Key, error) {
	return hub.Key{}, errUnwritten
}

// InsertAt writes one item at an instant of the caller's choice, straight to long-term storage (spec 02 §4.3). hash "": one is drawn. Forbidden,
// Verbatim, if the channel is not historical; Invalid if the instant is after the mutable time, or if the hash cannot be stored: it must be 1 to
// 128 characters of RFC 3986 pchar other than '%', not begin with '~', and be neither "." nor "..".
func (s *Service) InsertAt(ctx context.Context, ch *hub.Channel, at time.Time, hash string, u Upload) (hub.Key, error) {
	return hub.Key{}, errUnwritten
}

// DeleteAt removes a mutable item; when it returns nil the item is in no answer any more, whether it was there or not. NotAllowed if the key is not
// mutable (spec 02 §4.4).
func (s *Service) DeleteAt(ctx context.Context, ch *hub.Channel, key hub.Key) error {
	return errUnwritten
}

type meters struct{}

func newMeters(r metrics.Registry) meters { return meters{} }
