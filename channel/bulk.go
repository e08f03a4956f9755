package channel

import (
	"context"
	"fmt"
	"time"

	"timehub/hub"
	"timehub/hub/seal"
)

// Part is one item of a bulk.
type Part struct {
	ContentType string
	Body        []byte
}

const (
	bulkChunk    = 256 << 10 // sealed parts share pieces of memory of this size
	sealOverhead = 128       // more than what an envelope adds to texts and body
)

// InsertBulk writes all parts or none and returns their shared key: part i is hub.BulkKey(key, i) (spec 02 §4.2). Invalid without parts, TooLarge with
// more than MaxParts or with a part above MaxItemBytes. Bodies are not kept. Parts are never large.
func (s *Service) InsertBulk(ctx context.Context, ch *hub.Channel, creator string, began time.Time, parts []Part) (hub.Key, error) {
	now := s.opt.Clock()
	if began.IsZero() {
		began = now
	}
	size, err := s.admitBulk(ch, parts)
	if err != nil {
		return hub.Key{}, err
	}
	sealed := make([][]byte, len(parts))
	var chunk []byte
	for i, p := range parts {
		room := len(p.Body) + len(p.ContentType) + len(creator) + sealOverhead
		if cap(chunk)-len(chunk) < room {
			chunk = make([]byte, 0, max(room, bulkChunk))
		}
		m := seal.Meta{ContentType: p.ContentType, Creator: creator, Created: now.UnixMilli()}
		at := len(chunk)
		whole := s.opt.Sealer.Seal(chunk, m, p.Body)
		sealed[i] = whole[at:len(whole):len(whole)]
		chunk = whole // grown or not: a chunk that Seal left behind still holds the parts before this one
	}
	key, err := s.opt.Short.WriteBulk(ctx, ch.Name, sealed)
	if err != nil {
		return hub.Key{}, fmt.Errorf("write a bulk: %w", err)
	}
	s.meters.inserted(bulkInsert, ch.Name, int64(len(parts)), size, s.opt.Clock().Sub(began))
	return key, nil
}

func (s *Service) admitBulk(ch *hub.Channel, parts []Part) (size int64, err error) {
	switch {
	case ch.Replicated():
		return 0, replicating(ch)
	case len(parts) == 0:
		return 0, hub.E(hub.Invalid, "the multipart body holds no item: check the boundary, line ends (CRLF) and that parts are not empty")
	case len(parts) > s.opt.MaxParts:
		return 0, hub.E(hub.TooLarge, "the multipart body holds more than %d items, the most that one bulk may have (app.bulk.maxParts)", s.opt.MaxParts)
	}
	for i, p := range parts {
		if int64(len(p.Body)) > s.opt.MaxItemBytes {
			return 0, hub.E(hub.TooLarge, "part %d has more than %d bytes, the most that one item may have (app.maxItemSizeMB)", i, s.opt.MaxItemBytes)
		}
		size += int64(len(p.Body))
	}
	return size, nil
}
