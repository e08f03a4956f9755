package run

import (
	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/seal"
)

// greatBody is from which size on a body is read again for each attempt, and counts (Options.Memory) while it is in a call.
const greatBody = 64 << 10

// message makes the call for an entry. What it returns may be kept until the entry is done, unless release is not nil: then that is to be called when the
// call has ended, and the message is of no use any more.
func (s *session) message(e *entry) (m deliver.Message, release func(), err error) {
	inline := s.w.Payload == webhook.Items || s.w.Payload == webhook.CloudEvents
	if e.window.Unit != hub.NoUnit {
		var items deliver.Items
		if inline {
			items = s.periodItems(e)
		}
		m, err = deliver.PeriodMessage(s.w, e.window, s.periodKeys(e), items)
		return m, nil, err
	}
	if !inline {
		m, err = deliver.ItemMessage(s.w, e.key, nil)
		return m, nil, err
	}
	item, release, err := s.item(e.key)
	if err != nil {
		return m, nil, err
	}
	if m, err = deliver.ItemMessage(s.w, e.key, item); err != nil && release != nil {
		release()
		release = nil
	}
	return m, release, err
}

// item reads an item with its body.
func (s *session) item(key hub.Key) (item *deliver.Item, release func(), err error) {
	item = &deliver.Item{Key: key, Omitted: true}
	for sealed, err := range feed.Items(s.calls, s.opt.Source, s.channel.Name, []hub.Key{key}) {
		switch {
		case hub.Is(err, hub.NotFound) && sealed.Key == key: // it has expired, or was deleted: there is only its address
		case err != nil:
			return nil, nil, err
		default:
			env, err := seal.Parse(sealed.Data)
			if err != nil {
				return nil, nil, err
			}
			if !env.Large && env.Size > greatBody && env.Size <= deliver.MaxInline {
				if err := s.memory.Acquire(s.ctx, 2*env.Size); err != nil { // the body, and the call made of it
					return nil, nil, err
				}
				release = func() { s.memory.Release(2 * env.Size) }
			}
			if item, err = s.unseal(sealed); err != nil {
				if release != nil {
					release()
				}
				return nil, nil, err
			}
		}
	}
	return item, release, nil
}

// unseal opens an item. One that is greater than what goes inline is left out.
func (s *session) unseal(sealed hub.Sealed) (*deliver.Item, error) {
	env, err := seal.Parse(sealed.Data)
	if err != nil {
		return nil, err
	}
	item := &deliver.Item{Key: sealed.Key, ContentType: env.ContentType}
	if env.Large || env.Size > deliver.MaxInline {
		item.Omitted = true
		return item, nil
	}
	item.Body, err = s.opt.Sealer.Open(nil, env)
	return item, err
}

// pageSize is how many keys of a period are read at once.
const pageSize = 1000

func (s *session) periodQuery(e *entry, after hub.Key) hub.Query {
	from := e.window.From()
	if !after.IsZero() && from.Less(after.After()) {
		from = after.After()
	}
	return hub.Query{Channel: s.channel.Name, From: from, To: e.window.To(), Stable: true}
}

// periodKeys are the keys of a period, page by page, from the store each time.
func (s *session) periodKeys(e *entry) deliver.Keys {
	return func(yield func(hub.Key, error) bool) {
		for after := e.after; !e.empty; {
			q := s.periodQuery(e, after)
			q.Limit = pageSize
			page, err := s.opt.Source.Keys(s.calls, q)
			if err == nil && page.Silent > 0 {
				err = hub.E(hub.Unavailable, "%d stores did not answer", page.Silent)
			}
			if err != nil {
				yield(hub.Key{}, err)
				return
			}
			for _, k := range page.Keys {
				if !yield(k, nil) {
					return
				}
				after = k
			}
			if len(page.Keys) < q.Limit && !page.More || len(page.Keys) == 0 {
				return
			}
		}
	}
}

// periodItems are the items of a period, one at a time, from the store each time.
func (s *session) periodItems(e *entry) deliver.Items {
	return func(yield func(*deliver.Item, error) bool) {
		if e.empty {
			return
		}
		for sealed, err := range s.opt.Source.Items(s.calls, s.periodQuery(e, e.after)) {
			var item *deliver.Item
			if err == nil {
				item, err = s.unseal(sealed)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}
