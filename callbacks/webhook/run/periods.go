package run

import (
	"context"
	"slices"
	"time"

	"timehub/callbacks/webhook"
	"timehub/channel/feed"
	"timehub/hub"
)

// farBehind is when a fastForwardable webhook takes whole minutes (spec 03 §3.3).
const farBehind = 4 * time.Minute

// followPeriods delivers each second or minute that is closed, one by one, also empty ones.
func (s *session) followPeriods(unit hub.Unit) error {
	f, err := feed.New(feed.Options{Source: s.opt.Source, Channel: s.channel.Name, After: s.ledger.top(), Horizon: s.opt.Horizon, Clock: s.opt.Clock, Log: s.opt.Log})
	if err != nil {
		return err
	}
	defer f.Close()
	fast, quiet := false, hub.Key{}
	for {
		step := unit
		if unit == hub.Second && s.w.FastForwardable {
			if fast = s.behind(f.Position(), fast); fast {
				step = hub.Minute
			}
		}
		c, err := f.NextWindow(s.ctx, step, true)
		if err != nil {
			return err
		}
		e := &entry{key: c.To(), after: c.After, window: c.Window, empty: s.empty(c, &quiet)}
		if err := s.admit([]*entry{e}, nil); err != nil {
			return err
		}
	}
}

// empty reports whether a period is known to hold nothing. quiet is a key below which nothing follows: a long silence costs one look for the next key, not one
// for each of its seconds.
func (s *session) empty(c feed.Closed, quiet *hub.Key) bool {
	if quiet.Less(c.To()) {
		page, err := s.opt.Source.Keys(s.ctx, hub.Query{Channel: s.channel.Name, From: c.After.After(), To: hub.MaxKey, Limit: 1, Stable: true})
		switch {
		case err != nil || page.Silent > 0:
			return false // the call finds out
		case len(page.Keys) > 0:
			*quiet = page.Keys[0]
		default:
			*quiet = page.Horizon
		}
	}
	return !quiet.Less(c.To())
}

// behind reports whether whole minutes are due: from the moment when the webhook is far behind until it has caught up, that is, until the minute that it
// stands in is not over.
func (s *session) behind(at hub.Key, already bool) bool {
	h, err := s.opt.Source.Horizon(s.ctx, s.channel.Name)
	if err != nil {
		return false // the feed will find out
	}
	if already {
		return !h.Less(hub.WindowAt(at.Time(), hub.Minute).To())
	}
	return h.Time().Sub(at.Time()) > farBehind
}

// resume puts back what was done or in flight above the cursor when the last session ended. Between these there may be keys that nobody had begun with:
// those that waited for others of their value (orderBy).
func (s *session) resume(state webhook.State) error {
	known := map[string]*entry{}
	top := hub.Key{}
	add := func(path string, st entryState, tries int) {
		e := s.entryOf(path)
		switch {
		case e == nil:
			return
		case !s.ledger.cursor.Less(e.key): // it is delivered again
			s.ledger.flewAgain = webhook.Flight{Path: path, Attempts: tries}
			return
		}
		e.state, e.tries, e.flew = st, tries, st != done
		if e.window.Unit != hub.NoUnit {
			if e.after = e.window.From(); e.after.Less(s.ledger.cursor) {
				e.after = s.ledger.cursor
			}
		}
		known[path] = e
		if top.Less(e.key) {
			top = e.key
		}
	}
	for _, path := range state.Finished {
		add(path, done, 0)
	}
	for _, f := range state.InFlight {
		add(f.Path, waits, f.Attempts)
	}
	if len(known) == 0 {
		return nil
	}
	if s.w.Unit() == hub.NoUnit {
		if err := s.between(known, top); err != nil {
			return err
		}
	}
	all := make([]*entry, 0, len(known))
	for path, e := range known {
		if e.why = lastWhy(state.Errors, path); e.tries == 0 {
			e.why = ""
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return a.key.Compare(b.key) })
	lanes, err := s.lanes(all)
	if err != nil {
		return err
	}
	s.ledger.resume(all, lanes)
	return nil
}

// entryOf is the entry that a path of a State stands for; nil if the webhook does not deliver such a thing any more, since its batch was changed: then
// nothing of it is done.
func (s *session) entryOf(path string) *entry {
	unit := s.w.Unit()
	if w, err := hub.ParseWindow(path); err == nil {
		if unit == hub.NoUnit || unit == hub.Minute && w.Unit == hub.Second {
			return nil
		}
		return &entry{key: w.To(), window: w}
	}
	key, err := hub.ParseKey(path)
	if err != nil || unit != hub.NoUnit {
		return nil
	}
	return &entry{key: key}
}

// between adds the keys from the cursor to top that are not known yet.
func (s *session) between(known map[string]*entry, top hub.Key) error {
	f, err := feed.New(feed.Options{Source: s.opt.Source, Channel: s.channel.Name, Horizon: s.opt.Horizon, Clock: s.opt.Clock, Limit: batch, Log: s.opt.Log})
	if err != nil {
		return err
	}
	defer f.Close()
	for key, err := range f.Keys(s.ctx, s.ledger.cursor, top) {
		if err != nil {
			return err
		}
		if path := key.String(); known[path] == nil {
			known[path] = &entry{key: key}
		}
	}
	return context.Cause(s.ctx)
}

// lastWhy is the text of the newest failure of a path that is still remembered.
func lastWhy(lines []webhook.Line, path string) string {
	for _, l := range slices.Backward(lines) {
		if l.Path == path {
			return l.Text
		}
	}
	return ""
}
