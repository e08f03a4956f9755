package webhook

import (
	"context"
	"slices"
	"strings"

	"timehub/hub"
)

// Again says what is to be delivered again: exactly one of Item, From with To, and Failed.
type Again struct {
	Item     string // URL of an item of the channel, or its key path; a minute or second of a webhook that delivers these
	From, To string // From ≤ key < To: URLs or time paths of items or periods, of which the start is meant. "" of To: up to what is done
	Failed   bool   // what the attempts that are remembered know as failed
}

// Replay delivers something again, beside what is new, and returns how many deliveries that is at least. It is durable when it returns nil. Errors: NotFound if
// there is no such webhook or nobody runs it, Invalid.
func (s *Service) Replay(ctx context.Context, name string, what Again) (queued int, err error) {
	w, err := s.Get(ctx, name)
	switch {
	case err != nil:
		return 0, err
	case w.IsPrototype():
		return 0, hub.E(hub.Invalid, "webhook %s is a prototype: replay its instances", name)
	}
	r, err := s.replayRange(ctx, w, what)
	if err != nil || len(r.Keys) == 0 && r.From == "" {
		return 0, err
	}
	if s.opt.Runs == nil {
		return 0, hub.E(hub.Unavailable, "webhooks do not run on this node: nothing can be delivered again")
	}
	queued, err = s.opt.Runs.Replay(ctx, name, r)
	return queued, wrap("deliver again for webhook %s: %w", name, err)
}

func (s *Service) replayRange(ctx context.Context, w *Webhook, what Again) (Range, error) {
	one := 0
	for _, given := range []bool{what.Item != "", what.From != "" || what.To != "", what.Failed} {
		if given {
			one++
		}
	}
	switch {
	case one != 1:
		return Range{}, hub.E(hub.Invalid, "say what to deliver again: exactly one of item, from (with to), and failed")
	case what.Failed:
		if s.opt.Attempts == nil {
			return Range{}, nil
		}
		keys, err := s.opt.Attempts.Failed(w.Name)
		slices.Sort(keys)
		return Range{Keys: keys}, err
	case what.Item != "":
		path, err := w.itemPath(what.Item)
		if err == nil {
			err = s.exists(ctx, w, path)
		}
		return Range{Keys: []string{path}}, err
	}
	return s.fromTo(ctx, w, what)
}

// pathIn is the time path in a URL of the webhook's channel, or the text itself.
func (w *Webhook) pathIn(member, text string) (string, error) {
	if !strings.Contains(text, "/channel/") {
		return strings.Trim(text, "/"), nil
	}
	name, path, _ := strings.Cut(strings.TrimSuffix(channelOf(text), "/"), "/")
	if !strings.EqualFold(name, w.ChannelName()) {
		return "", hub.E(hub.Invalid, "%s is of channel %s: it must be of %s, which webhook %s follows", member, clip(name), w.ChannelName(), w.Name)
	}
	return path, nil
}

// itemPath is the path of one delivery.
func (w *Webhook) itemPath(text string) (string, error) {
	path, err := w.pathIn("item", text)
	if err != nil {
		return "", err
	}
	p, err := hub.ParsePath(path)
	if err == nil && p.Verb == hub.NoVerb {
		switch {
		case p.Unit == hub.ItemUnit && w.Unit() == 0:
			return p.Key().String(), nil
		case p.Unit == hub.ItemUnit:
			return hub.WindowAt(p.Start, w.Unit()).String(), nil
		case p.Unit == w.Unit():
			return p.Window().String(), nil
		}
	}
	return "", hub.E(hub.Invalid, "item is %q: it must be the URL or the key of an item of channel %s", shown(text), w.ChannelName())
}

// exists is nil if the channel has the item; periods always exist.
func (s *Service) exists(ctx context.Context, w *Webhook, path string) error {
	if w.Unit() != 0 {
		return nil
	}
	k, err := hub.ParseKey(path)
	if err != nil {
		return err
	}
	page, err := s.opt.Channels.Keys(ctx, hub.Query{Channel: w.ChannelName(), From: k, To: k.After(), Limit: 1})
	if err == nil && len(page.Keys) == 0 {
		err = hub.E(hub.NotFound, "channel %s has no item %s", w.ChannelName(), clip(path))
	}
	return err
}

// fromTo is a range that lies within what is done: what is above the cursor will be delivered anyhow.
func (s *Service) fromTo(ctx context.Context, w *Webhook, what Again) (Range, error) {
	if what.From == "" {
		return Range{}, hub.E(hub.Invalid, "from is missing: give the time path or the item URL at which to begin")
	}
	from, err := w.fence("from", what.From)
	if err != nil {
		return Range{}, err
	}
	at, _, err := s.stands(ctx, w)
	if err != nil {
		return Range{}, err
	}
	to := at.After()
	if what.To != "" {
		if to, err = w.fence("to", what.To); err != nil {
			return Range{}, err
		}
		if to.Less(from) {
			return Range{}, hub.E(hub.Invalid, "to is before from: from is the first to be delivered, to the first that is not")
		}
		if at.Less(to) {
			to = at.After()
		}
	}
	if !from.Less(to) {
		return Range{}, nil
	}
	return Range{From: from.String(), To: to.String()}, nil
}

// fence is the key that a time path stands for: an item's, or the start of a period.
func (w *Webhook) fence(member, text string) (hub.Key, error) {
	path, err := w.pathIn(member, text)
	if err != nil {
		return hub.Key{}, err
	}
	p, err := hub.ParsePath(path)
	switch {
	case err != nil || p.Verb != hub.NoVerb:
		return hub.Key{}, hub.E(hub.Invalid, "%s is %q: it must be a time path, such as 2021/03/04/05, or the URL of an item or a period", member, shown(text))
	case p.Unit == hub.ItemUnit:
		return p.Key(), nil
	}
	return hub.First(p.Start), nil
}
