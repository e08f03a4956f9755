package channel

import (
	"context"
	"io"

	"timehub/hub"
	"timehub/hub/seal"
)

// Found is an item that was read.
type Found struct {
	Channel *hub.Channel
	Key     hub.Key
	// Meta describes the item; for a large one ContentType and Size are those of its body, Digest is that of its index: it serves as a tag, not as
	// a check of the bytes.
	Meta seal.Meta
	// Envelope holds the stored bytes of an item that is not large; a body with codec Zstd can be sent to who accepts zstd as it is.
	Envelope seal.Envelope
	body     hub.Key // of a large item: the key of its body
}

// GetOptions choose the store.
type GetOptions struct {
	RemoteOnly bool // long-term storage only
}

// Get reads one item, whatever the horizon (spec 02 §3.1). NotFound if there is none, or it is older than the TTL time less 15 minutes.
func (s *Service) Get(ctx context.Context, ch *hub.Channel, key hub.Key, opt GetOptions) (Found, error) {
	return Found{}, errUnwritten
}

// Parse makes a Found of what Items or Stream yielded.
func (s *Service) Parse(ch *hub.Channel, item hub.Sealed) (Found, error) {
	return Found{}, errUnwritten
}

// Body appends the body of an item that is not large to dst, having checked it against its digest.
func (s *Service) Body(dst []byte, f Found) ([]byte, error) { return dst, errUnwritten }

// Open reads n bytes (n < 0: the rest) of the body from offset, for large items and others alike.
func (s *Service) Open(ctx context.Context, f Found, offset, n int64) (io.ReadCloser, error) {
	return nil, errUnwritten
}
