package channel

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/seal"
)

const (
	// readGrace is how long after the TTL time a single item can still be read (spec 01 §5).
	readGrace = 15 * time.Minute
	// logReach is how far back the short-term store may hold items that became mutable after they were written (DESIGN.md).
	logReach = 7 * 24 * time.Hour
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
	large    hub.Key // of a large item: the key of its body
	sum      string  // and its checksum; "": it has none
}

// GetOptions choose the store.
type GetOptions struct {
	RemoteOnly bool // long-term storage only
}

// Get reads one item, whatever the horizon (spec 02 §3.1). NotFound if there is none, it is older than the TTL time less 15 minutes, or
// maxItems has removed it.
func (s *Service) Get(ctx context.Context, ch *hub.Channel, key hub.Key, opt GetOptions) (Found, error) {
	now := s.opt.Clock()
	if !readable(ch, key, now, s.opt.Birthday) {
		return Found{}, noItem(ch, key)
	}
	var item hub.Sealed
	var err error
	switch {
	case opt.RemoteOnly:
		item, err = s.opt.Long.Read(ctx, ch, key)
	case mutable(ch, key):
		item, err = s.readMutable(ctx, ch, key, now)
	default:
		item, err = s.readImmutable(ctx, ch, key)
		if store, ok := s.opt.Short.(Elsewhere); ok && ch.Replicated() && hub.Is(err, hub.NotFound) { // it came with an old key, and may not be here yet
			item, err = store.ReadElsewhere(ctx, ch.Name, key)
		}
	}
	if hub.Is(err, hub.NotFound) {
		return Found{}, noItem(ch, key)
	}
	if err != nil {
		return Found{}, fmt.Errorf("read an item: %w", err)
	}
	return s.Parse(ch, item)
}

func noItem(ch *hub.Channel, key hub.Key) error {
	return hub.E(hub.NotFound, "channel %s has no item %s", ch.Name, key)
}

// readable is the rule of age for single items (spec 02 §3.6): a quarter of an hour of grace; none for what belongs to a deleted channel, or
// what maxItems has removed.
func readable(ch *hub.Channel, key hub.Key, now, birthday time.Time) bool {
	if mutable(ch, key) {
		return true
	}
	if key.Millis() < ch.Since || key.Less(ch.Lowest()) {
		return false
	}
	if ch.Historical() {
		return true
	}
	c := *ch
	c.Since = 0
	return key.Millis() >= c.OldestAllowed(now, birthday).Add(-readGrace).UnixMilli()
}

// readImmutable asks the short-term store and, below what that surely holds, long-term storage: also if the short-term store cannot read what it has.
func (s *Service) readImmutable(ctx context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error) {
	item, err := s.opt.Short.Read(ctx, ch.Name, key)
	missing := hub.Is(err, hub.NotFound)
	if err == nil || missing && !key.Less(s.below(ch)) {
		return item, err
	}
	item, longErr := s.opt.Long.Read(ctx, ch, key)
	if longErr != nil && !missing {
		return item, err // it may be where the short-term store could not look
	}
	return item, longErr
}

// readMutable asks long-term storage, where historical inserts go. An item that was written before its channel became historical may still be in
// the short-term store only.
func (s *Service) readMutable(ctx context.Context, ch *hub.Channel, key hub.Key, now time.Time) (hub.Sealed, error) {
	item, err := s.opt.Long.Read(ctx, ch, key)
	if !hub.Is(err, hub.NotFound) || key.Millis() < max(now.Add(-logReach).UnixMilli(), ch.Since) || s.gone(ctx, ch).has(key) {
		return item, err
	}
	return s.opt.Short.Read(ctx, ch.Name, key)
}

// goneKeys are the sorted texts of Document.Gone.
type goneKeys []string

func (g goneKeys) has(key hub.Key) bool {
	if len(g) == 0 {
		return false
	}
	_, found := slices.BinarySearch(g, key.String())
	return found
}

// gone lists the keys that were deleted while the short-term store holds them.
func (s *Service) gone(ctx context.Context, ch *hub.Channel) goneKeys {
	if !ch.Historical() {
		return nil
	}
	doc, err := s.opt.Catalog.Get(ctx, hub.ChannelID(ch.Name))
	if err != nil {
		return nil // the channel was deleted in this moment: the caller's view of it is from before that
	}
	return doc.Gone
}

// Parse makes a Found of what Items or Stream yielded.
func (s *Service) Parse(ch *hub.Channel, item hub.Sealed) (Found, error) {
	e, err := seal.Parse(item.Data)
	if err != nil {
		return Found{}, fmt.Errorf("read item %s of %s: %w", item.Key, ch.Name, err)
	}
	f := Found{Channel: ch, Key: item.Key, Meta: e.Meta, Envelope: e}
	if !e.Large {
		return f, nil
	}
	text, err := s.opt.Sealer.Open(nil, e)
	if err != nil {
		return Found{}, fmt.Errorf("read item %s of %s: %w", item.Key, ch.Name, err)
	}
	body, x, err := parseIndex(text)
	if err != nil {
		return Found{}, fmt.Errorf("item %s of %s: %w", item.Key, ch.Name, err)
	}
	f.sum, f.large, f.Meta.Size, f.Meta.ContentType = x.Sum, body, x.Size, x.ContentType
	f.Envelope = seal.Envelope{}
	return f, nil
}

// Body appends the body of an item that is not large to dst, having checked it against its digest.
func (s *Service) Body(dst []byte, f Found) ([]byte, error) {
	if f.Meta.Large {
		return dst, hub.E(hub.Internal, "item %s of %s is large: its body has to be opened", f.Key, f.Channel.Name)
	}
	return s.opt.Sealer.Open(dst, f.Envelope)
}

// Open reads n bytes (n < 0: the rest) of the body from offset, for large items and others alike. An offset beyond the body is RangeInvalid. A body that is
// read whole is compared with its checksum: if it is damaged, reading fails before its last bytes. A part of a large body has no checksum.
func (s *Service) Open(ctx context.Context, f Found, offset, n int64) (io.ReadCloser, error) {
	if offset < 0 || offset > f.Meta.Size {
		return nil, hub.E(hub.RangeInvalid, "byte %d is not in an item of %d bytes", offset, f.Meta.Size)
	}
	if n < 0 || n > f.Meta.Size-offset {
		n = f.Meta.Size - offset
	}
	if f.Meta.Large {
		if n == 0 {
			return io.NopCloser(bytes.NewReader(nil)), nil
		}
		body, err := s.opt.Long.ReadLarge(ctx, f.Channel, f.large, offset, n)
		if err != nil {
			return nil, fmt.Errorf("read the body of a large item: %w", err)
		}
		if f.sum != "" && n == f.Meta.Size {
			body = &checked{from: body, sum: newBodySum(), want: f.sum, left: n}
		}
		return body, nil
	}
	body, err := s.Body(nil, f)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(body[offset : offset+n])), nil
}
