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
	bulkChunk    = 128 << 10 // sealed parts share pieces of memory of this size
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
	if ch.LiveFrom > now.UnixMilli() {
		if err := s.untilLive(ctx, ch); err != nil {
			return hub.Key{}, err
		}
	}
	sealed, used := s.sealParts(parts, creator, now)
	key, err := s.opt.Short.WriteBulk(ctx, ch.Name, sealed)
	if err != nil {
		return hub.Key{}, fmt.Errorf("write a bulk: %w", err) // the store may go on reading the memory
	}
	for _, chunk := range used {
		s.chunks.Put(chunk)
	}
	s.meters.inserted(bulkInsert, ch.Name, int64(len(parts)), size, s.opt.Clock().Sub(began))
	return key, nil
}

// sealParts seals every part into pieces of memory, most of them from the pool; used are those that can go back to it.
func (s *Service) sealParts(parts []Part, creator string, now time.Time) (sealed [][]byte, used []*[bulkChunk]byte) {
	sealed = make([][]byte, len(parts))
	var free []byte // the rest of the piece at hand: no length, some capacity
	for i, p := range parts {
		if room := len(p.Body) + len(p.ContentType) + len(creator) + sealOverhead; cap(free) < room {
			if room > bulkChunk {
				free = make([]byte, 0, room)
			} else {
				chunk, ok := s.chunks.Get().(*[bulkChunk]byte)
				if !ok {
					chunk = new([bulkChunk]byte)
				}
				used = append(used, chunk)
				free = chunk[:0]
			}
		}
		m := seal.Meta{ContentType: p.ContentType, Creator: creator, Created: now.UnixMilli()}
		out := s.opt.Sealer.Seal(free, m, p.Body)
		sealed[i] = out[:len(out):len(out)]
		if len(out) <= cap(free) && &out[0] == &free[:1][0] {
			free = free[len(out):len(out):cap(free)]
		} // else Seal has found memory of its own
	}
	return sealed, used
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
