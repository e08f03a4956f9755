package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

// Catalog keeps the webhooks by name; hub/catalog.Catalog[Webhook] is it.
type Catalog interface {
	// Get answers from the node's memory, Fresh from the store: NotFound if there is none.
	Get(ctx context.Context, id string) (*Webhook, error)
	Fresh(ctx context.Context, id string) (*Webhook, error)
	// List reads all from the store; Cached lists those in memory. Both are in no particular order.
	List(ctx context.Context) ([]*Webhook, error)
	Cached(ctx context.Context) ([]*Webhook, error)
	// Broken are those in memory that cannot be used, by name, and why.
	Broken() map[string]error
	// Update changes a webhook in one conditional step; see catalog.Catalog.
	Update(ctx context.Context, id string, change func(now *Webhook) (*Webhook, error)) (*Webhook, error)
}

// Cursors are the cursors of webhooks, by name; coord.Cursors with CursorPrefix is it.
type Cursors interface {
	Get(ctx context.Context, name string) (coord.Position, error)
	Delete(ctx context.Context, name string) error
}

// Channels is what webhooks need to know of channels; channel.Service is it.
type Channels interface {
	// Channel finds a channel by its name in any spelling: NotFound if there is none.
	Channel(ctx context.Context, name string) (*hub.Channel, error)
	// Channels lists all channels, read from the store.
	Channels(ctx context.Context) ([]*hub.Channel, error)
	// TagChannels lists the channels of a tag, from memory.
	TagChannels(ctx context.Context, tag string) ([]*hub.Channel, error)
	Keys(ctx context.Context, q hub.Query) (hub.Page, error)
	// Stable is the clock, and the instant up to which stable answers of the channel reach.
	Stable(ctx context.Context, ch *hub.Channel) (now, stable time.Time, err error)
	// Now is where somebody begins who wants what is written from now on.
	Now(ctx context.Context) (hub.Key, error)
}

// Attempts are the last calls of webhooks; attempts.Store is it.
type Attempts interface {
	// Failed are the paths whose newest attempt failed, ascending.
	Failed(name string) ([]string, error)
	Remove(name string)
}

// Options are the parts of a Service. Catalog, Cursors and Channels are required.
type Options struct {
	Catalog  Catalog
	Cursors  Cursors
	Channels Channels
	// MakeChannel makes a channel with default settings, unless there is one of the name: for errorChannelUrl. nil: nothing is made.
	MakeChannel func(ctx context.Context, name string) error
	Runs        Runs     // nil: nothing runs here
	Attempts    Attempts // nil: none are remembered
	Rules       Rules
	Reconcile   time.Duration // between two looks at the instances of prototypes; 0: 5 minutes. Varied by a quarter
	Clock       hub.Clock     // nil: time.Now
	Log         *slog.Logger
}

// Service makes, changes, shows and removes webhooks. Its methods are safe for concurrent use; it starts nothing.
type Service struct {
	opt   Options
	turns turns         // of names: who changes a webhook and clears up behind it
	tags  chan struct{} // one token: who changes instances of prototypes takes it
}

// New checks the options and returns a Service.
func New(o Options) (*Service, error) {
	if o.Catalog == nil || o.Cursors == nil || o.Channels == nil {
		return nil, errors.New("webhook.New needs a Catalog, Cursors and Channels")
	}
	o.Rules = o.Rules.filled()
	if err := o.Rules.check(); err != nil {
		return nil, err
	}
	if o.Reconcile <= 0 {
		o.Reconcile = 5 * time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{opt: o, turns: turns{waiting: map[string]*turn{}}, tags: make(chan struct{}, 1)}
	s.tags <- struct{}{}
	return s, nil
}

// Get returns a webhook: NotFound if there is none. It is shared: do not change it.
func (s *Service) Get(ctx context.Context, name string) (*Webhook, error) {
	if !nameRule(name) {
		return nil, noWebhook(name)
	}
	w, err := s.opt.Catalog.Get(ctx, name)
	if hub.Is(err, hub.NotFound) { // perhaps another node has just made it
		w, err = s.opt.Catalog.Fresh(ctx, name)
	}
	return w, explain(err, name)
}

func explain(err error, name string) error {
	switch {
	case err == nil:
		return nil
	case hub.Is(err, hub.NotFound):
		return noWebhook(name)
	}
	return fmt.Errorf("read webhook %s: %w", name, err)
}

func noWebhook(name string) error { return hub.E(hub.NotFound, "webhook %s not found", clip(name)) }

// List returns all webhooks, read from the store, sorted by name.
func (s *Service) List(ctx context.Context) ([]*Webhook, error) {
	all, err := s.opt.Catalog.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the webhooks: %w", err)
	}
	slices.SortFunc(all, byName)
	return all, nil
}

// Names are those of all webhooks, read from the store, sorted; those whose configuration cannot be read are among them.
func (s *Service) Names(ctx context.Context) ([]string, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, w := range all {
		names[i] = w.Name
	}
	for name := range s.opt.Catalog.Broken() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func byName(a, b *Webhook) int { return cmp.Compare(a.Name, b.Name) }

// Put makes a webhook, or merges p into one (spec 03 §1.1, §1.3). When it returns, the webhook and its place are durable, a loop that ran for another place
// has stopped, and a prototype has its instances. Errors: Invalid, NotFound (previous of an unknown channel), Conflict (another channel).
func (s *Service) Put(ctx context.Context, name string, p Patch) (w *Webhook, created bool, err error) {
	if !nameRule(name) {
		return nil, false, CheckName(name)
	}
	if err := s.makeErrorChannel(ctx, name, p); err != nil {
		return nil, false, err
	}
	if w, created, err = s.putOne(ctx, name, p); err == nil && w.IsPrototype() {
		err = s.upsertAll(ctx, name, p)
	}
	return w, created, err
}

func (s *Service) putOne(ctx context.Context, name string, p Patch) (w *Webhook, created bool, err error) {
	defer s.turns.take(name)()
	moved := false
	w, err = s.opt.Catalog.Update(ctx, name, func(now *Webhook) (*Webhook, error) {
		created = now == nil
		next, err := s.next(ctx, now, name, p)
		if err == nil && created {
			s.forget(name) // what a deletion that was cut short may have left
		}
		moved = err == nil && !created && next.Born != now.Born
		return next, err
	})
	if err != nil {
		return nil, false, fmt.Errorf("change webhook %s: %w", name, err)
	}
	if moved {
		err = s.stop(ctx, name)
	}
	return w, created, err
}

// next is the webhook that a patch makes of now, or now itself if that changes nothing.
func (s *Service) next(ctx context.Context, now *Webhook, name string, p Patch) (*Webhook, error) {
	if now == nil {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	w, err := s.opt.Rules.merge(now, name, p)
	if err != nil {
		return nil, err
	}
	if w.IsPrototype() {
		return s.nextPrototype(ctx, now, w)
	}
	start, err := s.position(ctx, now, w, p)
	if err != nil {
		return nil, err
	}
	if err := sameSource(now, w, start); err != nil {
		return nil, err
	}
	if start == "" && now == nil {
		if start, err = s.now(ctx, w); err != nil {
			return nil, err
		}
	}
	if start != "" {
		w.Born, w.Start = newBorn(), start
	}
	if now != nil && *w == *now {
		return now, nil
	}
	return w, nil
}

// newBorn draws a name for a life.
func newBorn() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// makeErrorChannel makes the channel of an errorChannelUrl that is new or has changed, if the patch is a valid one. It comes first: a webhook that cannot
// have its error channel is not made.
func (s *Service) makeErrorChannel(ctx context.Context, name string, p Patch) error {
	if p.ErrorChannelURL.Value == "" || s.opt.MakeChannel == nil {
		return nil
	}
	now, err := s.opt.Catalog.Fresh(ctx, name)
	if err != nil && !hub.Is(err, hub.NotFound) {
		return explain(err, name)
	}
	if now != nil && now.ErrorChannelURL == p.ErrorChannelURL.Value {
		return nil
	}
	if _, err := s.next(ctx, now, name, p); err != nil {
		return err
	}
	channel := channelOf(p.ErrorChannelURL.Value)
	if _, err := s.opt.Channels.Channel(ctx, channel); err == nil || !hub.Is(err, hub.NotFound) {
		return err
	}
	return s.opt.MakeChannel(ctx, channel)
}

// Delete removes a webhook with its cursor, what is in flight, error lines and attempts, and a prototype with its instances: NotFound if there is none. When it
// returns, its loop has stopped.
func (s *Service) Delete(ctx context.Context, name string) error {
	w, err := s.remove(ctx, name, func(*Webhook) bool { return true })
	if err != nil {
		return err
	}
	if w == nil {
		return noWebhook(name)
	}
	if w.IsPrototype() {
		return s.removeInstances(ctx, name)
	}
	return nil
}

// remove deletes a webhook if it is still one that is to go, and returns what it was; nil: there is none such.
func (s *Service) remove(ctx context.Context, name string, which func(*Webhook) bool) (was *Webhook, err error) {
	if !nameRule(name) {
		return nil, nil
	}
	defer s.turns.take(name)()
	_, err = s.opt.Catalog.Update(ctx, name, func(now *Webhook) (*Webhook, error) {
		if was = now; now == nil || !which(now) {
			was = nil
			return now, nil
		}
		return nil, nil
	})
	if err != nil || was == nil {
		return nil, wrap("delete webhook %s: %w", name, err)
	}
	if err := s.stop(ctx, name); err != nil {
		return nil, err
	}
	if err := s.opt.Cursors.Delete(ctx, name); err != nil { // it means nothing any more (Webhook.At): it only takes room
		s.opt.Log.Warn("the cursor of a deleted webhook was left behind", "webhook", name, "err", err)
	}
	s.forget(name)
	return was, nil
}

func wrap(format, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format, name, err)
}

func (s *Service) stop(ctx context.Context, name string) error {
	if s.opt.Runs == nil {
		return nil
	}
	return wrap("stop webhook %s: %w", name, s.opt.Runs.Stop(ctx, name))
}

func (s *Service) forget(name string) {
	if s.opt.Attempts != nil {
		s.opt.Attempts.Remove(name)
	}
}

// MoveCursor puts a webhook to a position, forward or back, and clears what is in flight and the error lines (spec 03 §1.4). position is the URL of an item,
// minute or second of any channel. Invalid if it is none, NotFound if there is no such webhook or it is a prototype.
func (s *Service) MoveCursor(ctx context.Context, name, position string) error {
	path, ok := positionOf(position)
	if !ok {
		return hub.E(hub.Invalid, "the cursor is %q: it must be the URL of an item, a minute or a second of a channel", shown(position))
	}
	if !nameRule(name) {
		return noWebhook(name)
	}
	defer s.turns.take(name)()
	_, err := s.opt.Catalog.Update(ctx, name, func(now *Webhook) (*Webhook, error) {
		switch {
		case now == nil:
			return nil, noWebhook(name)
		case now.IsPrototype():
			return nil, hub.E(hub.NotFound, "webhook %s is a prototype, which has no cursor: its instances have", name)
		}
		next := *now
		next.Born, next.Start = newBorn(), path
		return &next, nil
	})
	if err != nil {
		return fmt.Errorf("move the cursor of webhook %s: %w", name, err)
	}
	return s.stop(ctx, name)
}

// PauseByHub pauses a webhook because its consumer asked for that, with the reason that the status shows, if it is still in the life of that name; else it
// does nothing.
func (s *Service) PauseByHub(ctx context.Context, name, born, reason string) error {
	_, err := s.opt.Catalog.Update(ctx, name, func(now *Webhook) (*Webhook, error) {
		if now == nil || now.Born != born || now.Paused {
			return now, nil
		}
		next := *now
		next.Paused, next.PausedReason = true, reason
		return &next, nil
	})
	return wrap("pause webhook %s: %w", name, err)
}
