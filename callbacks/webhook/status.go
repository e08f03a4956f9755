package webhook

import (
	"context"
	"slices"
	"time"

	"timehub/hub"
)

// MaxBehind is up to where undelivered items are counted.
const MaxBehind = 10_000

// Status is where a webhook stands (spec 03 §1.2). URLs begin with its channelUrl.
type Status struct {
	*Webhook
	ChannelLatest string    // its latest stable item; "": none, or there is no such channel
	LastCompleted string    // the greatest item or period that is done
	StableTime    time.Time // of the channel
	InFlight      []string  // URLs, ascending
	Errors        []string  // lines, oldest first
	// LagMillis is from the place up to which everything is done to the latest stable item, 0 if nothing is left to do; ItemsBehind counts the stable items that
	// are not done, up to MaxBehind. Both are nil if there is no such channel.
	LagMillis   *int64
	ItemsBehind *int
}

// Ends are the lines of a webhook in the answer of lastCompleted.
type Ends struct{ Name, ChannelLatest, LastCompleted string }

// Lines are the error lines of a webhook, oldest first.
type Lines struct {
	Name  string
	Lines []string
}

// Status tells where a webhook stands: NotFound if there is none. Of a prototype, only the configuration is set.
func (s *Service) Status(ctx context.Context, name string) (Status, error) {
	w, err := s.Get(ctx, name)
	if err != nil || w.IsPrototype() {
		return Status{Webhook: w}, err
	}
	at, state, err := s.stands(ctx, w)
	if err != nil {
		return Status{}, err
	}
	st := Status{Webhook: w, Errors: s.lines(state), LastCompleted: w.url(state.Last)}
	for _, f := range state.InFlight {
		st.InFlight = append(st.InFlight, w.url(f.Path))
	}
	return st, s.measure(ctx, &st, at, state)
}

// url is the URL of a time path of the webhook's channel.
func (w *Webhook) url(path string) string { return w.ChannelURL + "/" + path }

// stands is where a webhook stands: by the word of its leader, else by what is stored. State.Last is never empty.
func (s *Service) stands(ctx context.Context, w *Webhook) (hub.Key, State, error) {
	at, state, err := s.said(ctx, w)
	if state.Last == "" {
		state.Last = at.String()
	}
	return at, state, err
}

func (s *Service) said(ctx context.Context, w *Webhook) (hub.Key, State, error) {
	if s.opt.Runs != nil {
		if live, ok := s.opt.Runs.Live(ctx, w.Name); ok && live.Born == w.Born {
			return live.Cursor, live.State, nil
		}
	}
	p, err := s.opt.Cursors.Get(ctx, w.Name)
	if err != nil {
		return hub.Key{}, State{}, wrap("read the cursor of webhook %s: %w", w.Name, err)
	}
	at, state, _, err := w.At(p)
	return at, state, err
}

// lines are the error lines that are not too old.
func (s *Service) lines(state State) []string {
	oldest := s.opt.Clock().Add(-MaxLineAge).UnixMilli()
	var all []string
	for _, l := range state.Errors {
		if l.Time >= oldest {
			all = append(all, l.String())
		}
	}
	return all[max(0, len(all)-MaxLines):]
}

// measure compares with the channel.
func (s *Service) measure(ctx context.Context, st *Status, at hub.Key, state State) error {
	ch, err := s.opt.Channels.Channel(ctx, st.ChannelName())
	missing := hub.Is(err, hub.NotFound)
	if missing {
		ch, err = &hub.Channel{Name: st.ChannelName()}, nil
	}
	if err != nil {
		return err
	}
	if _, st.StableTime, err = s.opt.Channels.Stable(ctx, ch); err != nil || missing {
		return err
	}
	newest, err := s.newest(ctx, ch, 1)
	if err != nil {
		return err
	}
	st.LagMillis, st.ItemsBehind = new(int64), new(int)
	if len(newest) == 0 {
		return nil
	}
	st.ChannelLatest = st.url(newest[0].String())
	if !at.Less(newest[0]) {
		return nil
	}
	page, err := s.opt.Channels.Keys(ctx, hub.Query{Channel: ch.Name, From: at.After(), To: hub.MaxKey, Limit: MaxBehind + len(state.Finished), Stable: true})
	if err != nil {
		return err
	}
	if *st.ItemsBehind = min(undone(page.Keys, state, st.Unit()), MaxBehind); *st.ItemsBehind > 0 {
		*st.LagMillis = newest[0].Millis() - at.Millis()
	}
	return nil
}

// undone counts the keys that are not finished, by themselves or with their period.
func undone(keys []hub.Key, state State, unit hub.Unit) int {
	if len(state.Finished) == 0 {
		return len(keys)
	}
	n := 0
	for _, k := range keys {
		path := k.String()
		if unit != 0 {
			path = hub.WindowAt(k.Time(), unit).String()
		}
		if _, done := slices.BinarySearch(state.Finished, path); !done {
			n++
		}
	}
	return n
}

// Errors are the error lines of a webhook, or of each instance of a prototype, by name: NotFound if there is no such webhook.
func (s *Service) Errors(ctx context.Context, name string) ([]Lines, error) {
	all, err := s.selfOrInstances(ctx, name)
	if err != nil {
		return nil, err
	}
	lines := make([]Lines, len(all))
	for i, w := range all {
		_, state, err := s.stands(ctx, w)
		if err != nil {
			return nil, err
		}
		lines[i] = Lines{w.Name, s.lines(state)}
	}
	return lines, nil
}

// LastCompleted is where a webhook stands, or each instance of a prototype, by name: NotFound if there is no such webhook.
func (s *Service) LastCompleted(ctx context.Context, name string) ([]Ends, error) {
	all, err := s.selfOrInstances(ctx, name)
	if err != nil {
		return nil, err
	}
	ends := make([]Ends, len(all))
	for i, w := range all {
		_, state, err := s.stands(ctx, w)
		if err != nil {
			return nil, err
		}
		ends[i] = Ends{Name: w.Name, LastCompleted: w.url(state.Last)}
		if ends[i].ChannelLatest, err = s.latestURL(ctx, w); err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// latestURL is the latest stable item of the webhook's channel; "" if there is none.
func (s *Service) latestURL(ctx context.Context, w *Webhook) (string, error) {
	ch, err := s.opt.Channels.Channel(ctx, w.ChannelName())
	if hub.Is(err, hub.NotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	newest, err := s.newest(ctx, ch, 1)
	if err != nil || len(newest) == 0 {
		return "", err
	}
	return w.url(newest[0].String()), nil
}

func (s *Service) selfOrInstances(ctx context.Context, name string) ([]*Webhook, error) {
	w, err := s.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if !w.IsPrototype() {
		return []*Webhook{w}, nil
	}
	return s.instances(ctx, name)
}
