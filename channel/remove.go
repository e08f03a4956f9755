package channel

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"timehub/hub"
)

// maxGone is how many deleted keys of the log a channel remembers (its document must stay small); they are forgotten when the log has let go of them.
const maxGone = 2000

// DeleteChannel hides a channel at once and leaves its items to the clean-up (ENGINE §6). NotFound says `channel <name> not found`; Forbidden if the
// channel or all channels are protected and the caller is not local.
func (s *Service) DeleteChannel(ctx context.Context, name string, by Caller) error {
	if !nameRule(name) {
		return noChannel(name)
	}
	var before *hub.Channel
	_, err := s.opt.Catalog.Update(ctx, hub.ChannelID(name), func(now *Document) (*Document, error) {
		if now == nil || now.Channel == nil {
			return nil, noChannel(name)
		}
		before = now.Channel
		if !by.Local && (s.opt.ProtectChannels || now.Channel.Protect && !by.Internal) {
			return nil, hub.E(hub.Forbidden, "channel %s is protected: only localhost may delete it", now.Channel.Name)
		}
		return buried(now, s.opt.Clock().UnixMilli()), nil
	})
	if err != nil {
		return fmt.Errorf("delete a channel: %w", err)
	}
	return s.changed(ctx, before, nil)
}

// buried is the document after the deletion of its channel. What was acknowledged by now lies below Until; what still arrives from a node that has not
// heard of the deletion is taken in when the name is used again (create).
func buried(now *Document, ms int64) *Document {
	r := Remains{Channel: *now.Channel.Clone(), Until: max(ms+1, now.Fence+1)}
	next := &Document{Fence: r.Until}
	next.Remains = slices.DeleteFunc(slices.Clone(now.Remains), func(o Remains) bool { return o.Channel.Name == r.Channel.Name })
	next.Remains = append(next.Remains, r)
	return next
}

// Trim hides what lies below a key of a channel that keeps a number of items, for good and on all nodes: before it is removed from long-term storage, as logs
// hold it for different times. false: the channel, as ch has it, is not there any more, or keeps more items now.
func (s *Service) Trim(ctx context.Context, ch *hub.Channel, below hub.Key) (bool, error) {
	done := false
	_, err := s.opt.Catalog.Update(ctx, hub.ChannelID(ch.Name), func(now *Document) (*Document, error) {
		done = now != nil && now.Channel != nil && now.Channel.Since == ch.Since && now.Channel.MaxItems == ch.MaxItems
		if !done || !now.Channel.Lowest().Less(below) {
			return now, nil
		}
		next := *now
		next.Channel = now.Channel.Clone()
		next.Channel.Trimmed = below.String()
		return &next, nil
	})
	if err != nil {
		return false, fmt.Errorf("hide what is over the limits of channel %s: %w", ch.Name, err)
	}
	return done, nil
}

// Remains lists what deleted channels have left behind, for the clean-up, read from the store.
func (s *Service) Remains(ctx context.Context) ([]Remains, error) {
	docs, err := s.opt.Catalog.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list what deleted channels left behind: %w", err)
	}
	var all []Remains
	for _, d := range docs {
		all = append(all, d.Remains...)
	}
	slices.SortFunc(all, func(a, b Remains) int { return strings.Compare(a.Channel.Name, b.Channel.Name) })
	return all, nil
}

// Cleaned tells that nothing is left of r in long-term storage; from then on a historical channel may take the name. It does nothing if r has changed
// meanwhile: then the clean-up has to look again.
func (s *Service) Cleaned(ctx context.Context, r Remains) error {
	_, err := s.opt.Catalog.Update(ctx, hub.ChannelID(r.Channel.Name), func(now *Document) (*Document, error) {
		if now == nil {
			return nil, nil
		}
		next := *now
		next.Remains = slices.DeleteFunc(slices.Clone(now.Remains), func(o Remains) bool {
			return o.Channel.Name == r.Channel.Name && o.Until == r.Until
		})
		if len(next.Remains) == len(now.Remains) {
			return now, nil
		}
		return &next, nil
	})
	if err != nil {
		return fmt.Errorf("note that a deleted channel is cleaned up: %w", err)
	}
	return nil
}

// DeleteAt removes a mutable item; when it returns nil the item is in no answer any more, whether it was there or not. NotAllowed if the key is not
// mutable (spec 02 §4.4).
func (s *Service) DeleteAt(ctx context.Context, ch *hub.Channel, key hub.Key) error {
	if !mutable(ch, key) {
		return hub.E(hub.NotAllowed, "item %s of channel %s cannot be deleted: only items at or before the mutableTime of a historical channel can", key, ch.Name)
	}
	if key.Millis() >= s.opt.Clock().Add(-logReach).UnixMilli() {
		if err := s.forget(ctx, ch, key); err != nil {
			return err
		}
	}
	if err := s.opt.Long.Delete(ctx, ch, key); err != nil {
		return fmt.Errorf("delete an item: %w", err)
	}
	return nil
}

// forget hides an item that was written before its channel became historical and is still in the log, which cannot delete. It comes before the
// deletion in long-term storage: the archiver reads through this service and so cannot bring the item back.
func (s *Service) forget(ctx context.Context, ch *hub.Channel, key hub.Key) error {
	_, err := s.opt.Short.Read(ctx, ch.Name, key)
	if hub.Is(err, hub.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the item to delete: %w", err)
	}
	oldest := hub.First(s.opt.Clock().Add(-logReach)).String()
	_, err = s.opt.Catalog.Update(ctx, hub.ChannelID(ch.Name), func(now *Document) (*Document, error) {
		if now == nil || now.Channel == nil {
			return nil, noChannel(ch.Name)
		}
		text := key.String()
		gone := slices.DeleteFunc(slices.Clone(now.Gone), func(k string) bool { return k < oldest })
		at, found := slices.BinarySearch(gone, text)
		if found {
			return now, nil
		}
		if len(gone) >= maxGone {
			e := hub.E(hub.Unavailable, "%d items of channel %s were deleted soon after they were written; no more until the log has let go of them", maxGone, ch.Name)
			e.RetryAfter = time.Hour
			return nil, e
		}
		next := *now
		next.Gone = slices.Insert(gone, at, text)
		return &next, nil
	})
	if err != nil {
		return fmt.Errorf("delete an item of the log: %w", err)
	}
	return nil
}
