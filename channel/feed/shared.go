package feed

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"timehub/hub"
)

// Channels knows the configurations, in this node's memory; channel.Service is it.
type Channels interface {
	// Channel finds a channel by its name in any spelling: NotFound if there is none.
	Channel(ctx context.Context, name string) (*hub.Channel, error)
	// TagChannels lists the channels that carry a tag now, by display name.
	TagChannels(ctx context.Context, tag string) ([]*hub.Channel, error)
}

// News tells a follower what has changed: wake holds one token, drain returns the names that changed since it was called last, stop ends it.
type News func() (wake <-chan struct{}, drain func() []string, stop func())

// SharedOptions are the parts of a Shared. Source and Channels are required.
type SharedOptions struct {
	Source   Source
	Channels Channels
	Horizon  hub.Horizon // the rule by which Source cuts stable answers
	Clock    hub.Clock   // nil: time.Now
	Configs  News        // configurations that changed, by hub.ChannelID; nil: no feed learns of a deletion before the channel's next key
	Keys     News        // channels with a new key that the horizon has reached, by display name; nil: tags cannot be followed
	Log      *slog.Logger
}

// Shared is what the feeds of one node have in common: the newest keys of each channel that is followed, which the first follower to notice reads for
// all; and the news of configurations, so that feeds end with their channel and those of a tag take in the channels that carry it now. A thousand
// followers of one channel cost one query for each new key; one who is slow holds up nobody: it is just not the one who reads, and when the newest keys
// are not enough for it, it asks the store by itself. Safe for concurrent use; Run must run.
type Shared struct {
	opt SharedOptions

	mu    sync.Mutex // guards what follows, and refs of each tail
	tails map[string]*tail
	tags  map[*Tag]struct{}
}

// NewShared checks the options.
func NewShared(o SharedOptions) (*Shared, error) {
	if o.Source == nil || o.Channels == nil {
		return nil, errors.New("feed.NewShared needs a Source and Channels")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Shared{opt: o, tails: map[string]*tail{}, tags: map[*Tag]struct{}{}}, nil
}

// Run tells feeds of news until ctx ends.
func (s *Shared) Run(ctx context.Context) error {
	configs, changed, stopConfigs := listen(s.opt.Configs)
	defer stopConfigs()
	keys, written, stopKeys := listen(s.opt.Keys)
	defer stopKeys()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-configs:
			for _, id := range changed() {
				s.changed(ctx, id)
			}
		case <-keys:
			s.written(written())
		}
	}
}

func listen(n News) (<-chan struct{}, func() []string, func()) {
	if n == nil {
		return nil, func() []string { return nil }, func() {}
	}
	return n()
}

// changed is told that a configuration was made, changed or removed.
func (s *Shared) changed(ctx context.Context, id string) {
	s.mu.Lock()
	t := s.tails[id]
	for tag := range s.tags {
		tag.reconsider()
	}
	s.mu.Unlock()
	if t != nil {
		s.verify(ctx, t)
	}
}

// verify ends the feeds of a channel that is not there any more, or is another one of the same name.
func (s *Shared) verify(ctx context.Context, t *tail) {
	now, err := s.opt.Channels.Channel(ctx, t.id)
	if err != nil && !hub.Is(err, hub.NotFound) {
		return
	}
	if err == nil && same(now, t.channel) {
		return
	}
	t.fail(hub.E(hub.NotFound, "channel %s was deleted", t.channel.Name))
	s.forget(t)
}

// forget lets those who come later begin anew.
func (s *Shared) forget(t *tail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tails[t.id] == t {
		delete(s.tails, t.id)
	}
}

// same tells whether two configurations are of one channel, not of one that was deleted and made again.
func same(a, b *hub.Channel) bool {
	return a.Name == b.Name && a.CreationDate.Equal(b.CreationDate) && a.Since == b.Since
}

// written wakes the followers of tags.
func (s *Shared) written(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tag := range s.tags {
		tag.written(names)
	}
}

// join finds or makes the tail of a channel.
func (s *Shared) join(name string) (*tail, error) {
	ctx := context.Background() // the answer comes from memory
	ch, err := s.opt.Channels.Channel(ctx, name)
	if err != nil {
		return nil, err
	}
	id := hub.ChannelID(ch.Name)
	s.mu.Lock()
	t := s.tails[id]
	if t == nil {
		t = newTail(id, ch)
		t.wake, t.stop = s.opt.Source.Watch(ch.Name)
		s.tails[id] = t
	}
	t.refs++
	s.mu.Unlock()
	s.verify(ctx, t) // it may have gone before it was known here
	return t, nil
}

func (s *Shared) leave(t *tail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.refs--; t.refs > 0 {
		return
	}
	t.stop()
	if s.tails[t.id] == t {
		delete(s.tails, t.id)
	}
}
