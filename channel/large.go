package channel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"timehub/hub"
	"timehub/hub/seal"
)

// index is the body of a large item's index item (spec 01 §1.6).
type index struct {
	Key         string `json:"key"`
	Size        int64  `json:"size"`
	ContentType string `json:"content-type,omitempty"`
	Sum         string `json:"crc32c,omitempty"` // of the body, in hexadecimal; "": an earlier hub wrote it
}

// insertLarge stores the body in long-term storage under a key of its own, and then the index item in the normal path.
func (s *Service) insertLarge(ctx context.Context, ch *hub.Channel, u *Upload, now time.Time) (hub.Key, error) {
	body := hub.NewKey(now, s.drawHash())
	text, err := s.storeLarge(ctx, ch, u, body)
	if err != nil {
		return hub.Key{}, err
	}
	key, err := s.write(ctx, ch, s.indexMeta(u, s.opt.Clock()), text)
	if err != nil {
		s.dropLarge(ctx, ch, body, err)
		return hub.Key{}, err
	}
	return key, nil
}

func (s *Service) indexMeta(u *Upload, now time.Time) seal.Meta {
	return seal.Meta{ContentType: u.ContentType, Creator: u.Creator, Created: now.UnixMilli(), Large: true}
}

// storeLarge stores the body under a key and returns the text of its index.
func (s *Service) storeLarge(ctx context.Context, ch *hub.Channel, u *Upload, key hub.Key) ([]byte, error) {
	from := u.Reader
	if from == nil {
		from = bytes.NewReader(u.Body)
	}
	// One byte more than announced is enough to see that the announcement was wrong.
	sum := newBodySum()
	n, err := s.opt.Long.WriteLarge(ctx, ch, key, u.ContentType, io.TeeReader(io.LimitReader(from, u.size()+1), sum))
	if err != nil {
		return nil, fmt.Errorf("store the body of a large item: %w", err)
	}
	if n != u.size() {
		err := cutBody(nil, n, u.size())
		s.dropLarge(ctx, ch, key, err)
		return nil, err
	}
	text, err := json.Marshal(index{Key: key.String(), Size: n, ContentType: u.ContentType, Sum: sumText(sum)})
	if err != nil {
		return nil, fmt.Errorf("make the index of a large item: %w", err)
	}
	return text, nil
}

// dropLarge removes a body whose index was surely not written. Of an Unavailable write nothing is known: the index may show up, so its body stays;
// retention finds it if not.
func (s *Service) dropLarge(ctx context.Context, ch *hub.Channel, key hub.Key, why error) {
	switch hub.KindOf(why) {
	case hub.Invalid, hub.Full, hub.TooLarge:
	default:
		return
	}
	if err := s.opt.Long.Delete(context.WithoutCancel(ctx), ch, key); err != nil {
		s.opt.Log.Warn("a large body without an item stays behind", "channel", ch.Name, "key", key.String(), "err", err)
	}
}

// parseIndex reads the text of an index item.
func parseIndex(text []byte) (key hub.Key, x index, err error) {
	if err := json.Unmarshal(text, &x); err != nil {
		return key, x, fmt.Errorf("read the index of a large item: %w", err)
	}
	if key, err = hub.ParseKey(x.Key); err != nil {
		return key, x, fmt.Errorf("read the index of a large item: %w", err)
	}
	if x.Size < 0 {
		return key, x, fmt.Errorf("read the index of a large item: its size is %d", x.Size)
	}
	return key, x, nil
}
