package channel

import (
	"context"
	"fmt"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/seal"
)

const (
	maxHash = 128
	// pchar of RFC 3986 without the percent sign: what stands in a path as it is, in a URL as in an object's name.
	hashChars = hub.Alphabet + "-._~!$&'()*+,;=:@"
)

// InsertAt writes one item at an instant of the caller's choice, straight to long-term storage (spec 02 §4.3), replacing one that has the key. hash "":
// one is drawn that no item of that instant has. Forbidden, Verbatim, if the channel is not historical; Invalid if the instant is after the mutable
// time, or if the hash cannot be stored: it must be 1 to 128 characters of RFC 3986 pchar other than '%', not begin with '~', and be neither "." nor "..".
func (s *Service) InsertAt(ctx context.Context, ch *hub.Channel, at time.Time, hash string, u Upload) (hub.Key, error) {
	now := s.opt.Clock()
	if u.Began.IsZero() {
		u.Began = now
	}
	if err := s.admitAt(ch, at, hash, &u); err != nil {
		return hub.Key{}, err
	}
	key := hub.NewKey(at, hash)
	if hash == "" {
		var err error
		if key, err = s.drawKey(ctx, ch, at); err != nil {
			return hub.Key{}, err
		}
	}
	old, replaces := hub.Key{}, false
	if hash != "" {
		old, replaces = s.bodyOf(ctx, ch, key)
	}
	if err := s.insertAt(ctx, ch, key, &u, now); err != nil {
		return hub.Key{}, err
	}
	if replaces {
		if err := s.opt.Long.Delete(context.WithoutCancel(ctx), ch, old); err != nil {
			s.opt.Log.Warn("the body of a large item that was replaced stays behind", "channel", ch.Name, "key", old.String(), "err", err)
		}
	}
	s.meters.inserted(historicalInsert, ch.Name, 1, u.size(), s.opt.Clock().Sub(u.Began))
	return key, nil
}

func (s *Service) insertAt(ctx context.Context, ch *hub.Channel, key hub.Key, u *Upload, now time.Time) error {
	m := seal.Meta{ContentType: u.ContentType, Creator: u.Creator, Created: now.UnixMilli()}
	var body []byte
	var err error
	large := u.size() >= s.opt.LargeBytes
	var at hub.Key // of a large body
	if large {
		at = hub.NewKey(key.Time(), s.drawHash()) // not the item's own: until the new index is there, the old one needs its old body
		m = s.indexMeta(u, now)
		body, err = s.storeLarge(ctx, ch, u, at)
	} else {
		body, err = u.body()
	}
	if err != nil {
		return err
	}
	if err := s.opt.Long.Write(ctx, ch, hub.Sealed{Key: key, Data: s.opt.Sealer.Seal(nil, m, body)}); err != nil {
		if large {
			s.dropLarge(ctx, ch, at, err)
		}
		return fmt.Errorf("write a historical item: %w", err)
	}
	return nil
}

// bodyOf is the key of the body of an item that is large and has to go when the item is replaced. What cannot be read can be replaced all the same.
// A body under the key of its item goes with the item: it cannot be deleted without it.
func (s *Service) bodyOf(ctx context.Context, ch *hub.Channel, key hub.Key) (body hub.Key, ok bool) {
	item, err := s.opt.Long.Read(ctx, ch, key)
	if err != nil {
		return body, false
	}
	f, err := s.Parse(ch, item)
	if err != nil || !f.Meta.Large || f.large == key {
		return body, false
	}
	return f.large, true
}

func (s *Service) admitAt(ch *hub.Channel, at time.Time, hash string, u *Upload) error {
	if !ch.Replicated() && !ch.Historical() {
		e := hub.E(hub.Forbidden, "historical inserts require a mutableTime on the channel.")
		e.Verbatim = true
		return e
	}
	if !ch.Replicated() && !mutable(ch, hub.NewKey(at, hash)) {
		return hub.E(hub.Invalid, "the time of the key, %s, is after the mutableTime of channel %s, %s: historical items lie at or before it",
			hub.ISO(at), ch.Name, hub.ISO(ch.MutableTime))
	}
	if hash != "" && !storable(hash) {
		return hub.E(hub.Invalid, "the hash of a key must be 1 to %d letters, digits or any of -._~!$&'()*+,;=:@ , not begin with ~ , and not be . or ..", maxHash)
	}
	return s.admit(ch, u)
}

// storable reports whether a caller's hash can be part of an address and of an object's name, and sorts below the fence of its millisecond.
func storable(hash string) bool {
	return hash != "" && len(hash) <= maxHash && hash != "." && hash != ".." && hash[0] != '~' && !strings.ContainsFunc(hash, unstorable)
}

func unstorable(r rune) bool {
	return !strings.ContainsRune(hashChars, r)
}

// mutable reports whether the key lies in the mutable epoch of the channel.
func mutable(ch *hub.Channel, key hub.Key) bool {
	return ch.Historical() && key.Millis() <= ch.MutableTime.UnixMilli()
}

// drawKey draws hashes until one is free. Two writers that draw the same one in the same moment are as likely as the original's collisions: 62⁻⁶.
func (s *Service) drawKey(ctx context.Context, ch *hub.Channel, at time.Time) (hub.Key, error) {
	for {
		key := hub.NewKey(at, s.drawHash())
		page, err := s.opt.Long.Keys(ctx, ch, hub.Query{
			Channel: ch.Name, From: key, To: key.After(), Limit: 1, Epoch: hub.AllEpochs, Tier: hub.LongTermSingle})
		if err != nil {
			return hub.Key{}, fmt.Errorf("look whether a drawn key is free: %w", err)
		}
		if len(page.Keys) == 0 {
			return key, nil
		}
	}
}
