package webhook

import (
	"context"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"timehub/hub"
)

// maxPath bounds the path of a position.
const maxPath = 1000

// previousItem is the startItem that stands for the place before the latest item.
const previousItem = "previous"

// before1980 is the time from which on a position can be given to a webhook that exists (spec 03 §1.3).
var before1980 = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// positionOf reads the path that the URL of an item, minute or second ends in; ok is false for anything else.
func positionOf(text string) (path string, ok bool) {
	_, rest, found := strings.Cut(text, "/channel/")
	if !found {
		return "", false
	}
	if _, path, found = strings.Cut(rest, "/"); !found {
		return "", false
	}
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	path = strings.TrimSuffix(path, "/")
	if w, err := hub.ParseWindow(path); err == nil {
		return w.String(), true
	}
	if u, err := url.PathUnescape(path); err == nil {
		path = u
	}
	k, err := hub.ParseKey(path)
	if err != nil || k.Hash() == "" || len(path) > maxPath || !utf8.ValidString(path) || strings.ContainsFunc(k.Hash(), badInHash) {
		return "", false
	}
	return k.String(), true
}

// badInHash finds what no hash of an address has: a slash, and what cannot be shown.
func badInHash(r rune) bool { return r == '/' || unicode.IsControl(r) }

// now is where a webhook begins that nobody gave a position (spec 03 §1.3).
func (s *Service) now(ctx context.Context, w *Webhook) (string, error) {
	k, err := s.opt.Channels.Now(ctx)
	if err != nil {
		return "", err
	}
	if unit := w.Unit(); unit != 0 {
		return hub.WindowAt(k.Time(), unit).Previous().String(), nil
	}
	return k.String(), nil
}

// position is what the startItem of a patch means for the webhook that it makes of now; "" if it says nothing. Errors: Invalid, NotFound.
func (s *Service) position(ctx context.Context, now, w *Webhook, p Patch) (string, error) {
	if !p.StartItem.Present || p.StartItem.Null {
		return "", nil
	}
	var path string
	if strings.EqualFold(p.StartItem.Value, previousItem) {
		if p.ChannelURL.Value == "" {
			return "", hub.E(hub.Invalid, "startItem is previous: it needs the channelUrl in the same body")
		}
		var err error
		if path, err = s.beforeLatest(ctx, w); path == "" {
			return "", err
		}
	} else {
		var ok bool
		if path, ok = positionOf(p.StartItem.Value); !ok {
			return "", nil
		}
	}
	if k, err := CursorAt(path); err != nil || now != nil && k.Time().Before(before1980) {
		return "", err
	}
	return path, nil
}

// beforeLatest is the place before the latest stable item of the webhook's channel; "" if it has none. For single items that is the item before it; minutes
// and seconds begin with the one that holds the latest, or at most with the one before.
func (s *Service) beforeLatest(ctx context.Context, w *Webhook) (string, error) {
	ch, err := s.opt.Channels.Channel(ctx, w.ChannelName())
	if err != nil {
		return "", err
	}
	page, err := s.newest(ctx, ch, 2)
	if err != nil || len(page) == 0 {
		return "", err
	}
	before := hub.KeyAt(page[0].Millis()-1, "A") // spec 01 §1.2
	if len(page) == 2 && (w.Unit() == 0 || before.Less(page[1])) {
		before = page[1]
	}
	return before.String(), nil
}

// newest are the n newest stable keys of a channel, the newest first.
func (s *Service) newest(ctx context.Context, ch *hub.Channel, n int) ([]hub.Key, error) {
	page, err := s.opt.Channels.Keys(ctx, hub.Query{Channel: ch.Name, From: hub.MinKey, To: hub.MaxKey, Limit: n, Reverse: true, Stable: true})
	if err == nil && page.Silent > 0 {
		err = hub.E(hub.Unavailable, "the latest item of channel %s is not known for sure: a store did not answer", ch.Name)
	}
	return page.Keys, err
}
