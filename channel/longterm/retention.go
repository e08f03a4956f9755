package longterm

import (
	"context"
	"fmt"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
)

// largeMargin is the most that may lie between the key of a large body and that of its item, which is minted once the body is stored (spec 01 §1.6). Within it
// a body below a limit may belong to an item above it.
const largeMargin = 24 * time.Hour

// DeleteBefore removes what a channel has below key: items, and the zips and indexes of minutes that end at or before it. A minute that key lies within stays
// whole; its older items are for the query layer to hide. Large bodies go a day later than their items, for their keys are older. Only names that parse as the channel's own are touched. It returns the number of
// objects removed. It works through the names in order, page by page, removing as it goes: after an error or a crash, call it again.
func (s *Store) DeleteBefore(ctx context.Context, ch *hub.Channel, key hub.Key) (int, error) {
	return s.deleteBefore(ctx, ch, key, hub.KeyAt(max(key.Millis()-largeMargin.Milliseconds(), hub.MinKey.Millis()), key.Hash()))
}

func (s *Store) deleteBefore(ctx context.Context, ch *hub.Channel, key, body hub.Key) (int, error) {
	total := 0
	minute := minuteText(key.Time()) // zips of earlier minutes go
	for _, part := range []struct {
		root, end string
		own       func(rest string) bool
	}{
		{singleRoot(ch), key.String(), isKey},
		// Indexes before zips: others find a zip by its index.
		{indexRoot(ch), minute, isMinute},
		{zipRoot(ch), minute, isMinute},
		// Bodies last: until then an item that is still there can be read.
		{largeRoot(ch), body.String(), isKey},
	} {
		n, err := s.deletePart(ctx, part.root, part.end, part.own)
		total += n
		if err != nil {
			return total, fmt.Errorf("delete what channel %s has before %s: %w", ch.Name, key, err)
		}
	}
	return total, nil
}

// DeleteAll is DeleteBefore for a channel that was deleted, bodies included; a zero key means everything. Nothing at or above the key is touched.
func (s *Store) DeleteAll(ctx context.Context, ch *hub.Channel, before hub.Key) (int, error) {
	if before.IsZero() {
		before = hub.MaxKey
	}
	n, err := s.deleteBefore(ctx, ch, before, before)
	if err != nil || before != hub.MaxKey {
		return n, err
	}
	for _, root := range []string{indexRoot(ch), zipRoot(ch)} { // the last minute of all
		m, err := s.deletePart(ctx, root, "~", isMinute)
		if n += m; err != nil {
			return n, fmt.Errorf("delete what channel %s has: %w", ch.Name, err)
		}
	}
	return n, nil
}

func isKey(rest string) bool {
	_, ok := keyOf([]byte(rest))
	return ok
}

func isMinute(rest string) bool {
	_, ok := parseMinute(rest)
	return ok
}

func (s *Store) deletePart(ctx context.Context, root, end string, own func(rest string) bool) (total int, err error) {
	opt := bucket.ListOptions{Prefix: root}
	for {
		page, err := s.bucket.List(ctx, opt)
		if err != nil {
			return total, err
		}
		var names []string
		past := false
		for _, i := range page.Blobs {
			rest := i.Name[len(root):]
			if past = rest >= end; past {
				break
			}
			if own(rest) {
				names = append(names, i.Name)
			}
		}
		if len(names) > 0 {
			if err := s.bucket.Delete(ctx, names...); err != nil {
				return total, err
			}
			total += len(names)
			for _, name := range names {
				s.cache.drop(name)
			}
		}
		if past || page.Next == "" {
			return total, nil
		}
		opt.After = page.Next
	}
}

// Empty reports whether a channel has nothing in long-term storage. It costs a few listings.
func (s *Store) Empty(ctx context.Context, ch *hub.Channel) (bool, error) {
	for _, part := range []struct {
		root string
		own  func(string) bool
	}{{singleRoot(ch), isKey}, {zipRoot(ch), isMinute}, {indexRoot(ch), isMinute}, {largeRoot(ch), isKey}} {
		for i, err := range s.blobs(ctx, span{root: part.root, hi: "~"}, false) {
			if err != nil {
				return false, fmt.Errorf("look whether channel %s has anything: %w", ch.Name, err)
			}
			if part.own(i.Name[len(part.root):]) {
				return false, nil
			}
		}
	}
	return true, nil
}
