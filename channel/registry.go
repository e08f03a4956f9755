package channel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"timehub/hub"
)

// Document is what the catalog keeps of one channel name: the channel, if there is one, and what deleted ones of that name have left behind. Both are
// in one document because a deletion has to hide the channel and to remember its remains in one step.
type Document struct {
	Channel *hub.Channel `json:"channel,omitempty"` // nil: there is none of this name
	// Fence is the Until of the last deletion; 0: there was none, or the log holds nothing of it any more. A new channel of the name begins after it.
	Fence   int64     `json:"fence,omitempty"`
	Remains []Remains `json:"remains,omitempty"`
	// Gone are mutable keys, sorted, that were deleted while the short-term store still held them (DESIGN.md, "Mutable items in the log").
	Gone []string `json:"gone,omitempty"`
}

// Remains are the items of a deleted channel that the clean-up has still to remove: those of Channel.Name with a key before the millisecond Until.
type Remains struct {
	Channel hub.Channel `json:"channel"` // as it was
	Until   int64       `json:"until"`   // ms since the Unix epoch; a key at or after it is never touched
}

// Caller is who asks for a change of a configuration, as far as the rules of spec 01 §3.6 care.
type Caller struct {
	Local    bool // a local caller by the rule of spec 01 §3.6
	Internal bool // asks through /internal: the channel's own protect does not keep it from deleting (spec 05 §3)
}

// fenceWait is how long the creation of a channel waits for the horizon to pass what a deleted channel of the name has written.
const fenceWait = 10 * time.Second

var errFence = errors.New("the name needs a fence")

// Channel returns a channel's configuration by its name in any spelling, from this node's memory. It allocates nothing for a name in lower case. The
// channel is shared: do not change it. NotFound if there is none.
func (s *Service) Channel(ctx context.Context, name string) (*hub.Channel, error) {
	doc, err := s.opt.Catalog.Get(ctx, hub.ChannelID(name))
	return s.found(doc, err, name)
}

// Fresh is Channel, read from the store.
func (s *Service) Fresh(ctx context.Context, name string) (*hub.Channel, error) {
	if !nameRule(name) {
		return nil, noChannel(name)
	}
	doc, err := s.opt.Catalog.Fresh(ctx, hub.ChannelID(name))
	return s.found(doc, err, name)
}

func (s *Service) found(doc *Document, err error, name string) (*hub.Channel, error) {
	switch {
	case err == nil && doc.Channel != nil:
		return doc.Channel, nil
	case err == nil || hub.Is(err, hub.NotFound):
		return nil, noChannel(name)
	}
	return nil, fmt.Errorf("read the configuration of a channel: %w", err)
}

func noChannel(name string) error {
	return hub.E(hub.NotFound, "channel %s not found", clip([]byte(name)))
}

// Channels lists all channels, read from the store, sorted by display name in byte order.
func (s *Service) Channels(ctx context.Context) ([]*hub.Channel, error) {
	docs, err := s.opt.Catalog.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the channels: %w", err)
	}
	return channelsOf(docs), nil
}

// cached is Channels from this node's memory.
func (s *Service) cached(ctx context.Context) ([]*hub.Channel, error) {
	docs, err := s.opt.Catalog.Cached(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the channels: %w", err)
	}
	return channelsOf(docs), nil
}

// Unreadable are the ids of channels whose configurations are in the store and cannot be used, sorted, as far as this node has seen them.
func (s *Service) Unreadable() []string {
	c, ok := s.opt.Catalog.(interface{ Broken() map[string]error })
	if !ok {
		return nil
	}
	return slices.Sorted(maps.Keys(c.Broken()))
}

func channelsOf(docs []*Document) []*hub.Channel {
	all := make([]*hub.Channel, 0, len(docs))
	for _, d := range docs {
		if d.Channel != nil {
			all = append(all, d.Channel)
		}
	}
	slices.SortFunc(all, func(a, b *hub.Channel) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// CreateChannel makes the channel that p.Name names (spec 02 §2.3). Invalid for a rule of spec 01 §3.3, Conflict if the name exists in any spelling, or
// if the channel is to be historical and something is left of a deleted one of that name.
func (s *Service) CreateChannel(ctx context.Context, p ChannelPatch, _ Caller) (*hub.Channel, error) {
	if p.Empty {
		return nil, hub.E(hub.Invalid, "the body is empty: expected a JSON object with at least a name")
	}
	name := strings.TrimSpace(p.Name.or(""))
	if err := checkNames(name, p); err != nil {
		return nil, err
	}
	return s.change(ctx, name, func(now *Document, fence int64) (*Document, error) {
		if now.Channel != nil {
			return nil, hub.E(hub.Conflict, "Channel name %s already exists: names are unique without regard to case", now.Channel.Name)
		}
		return s.create(now, fence, name, p)
	})
}

// PutChannel makes the channel or merges p into it (spec 01 §3.4). Forbidden for a rule of protection. If nothing changes, nothing is written.
func (s *Service) PutChannel(ctx context.Context, name string, p ChannelPatch, by Caller) (ch *hub.Channel, created bool, err error) {
	name = strings.TrimSpace(name)
	if err := checkNames(name, p); err != nil {
		return nil, false, err
	}
	ch, err = s.change(ctx, name, func(now *Document, fence int64) (*Document, error) {
		if created = now.Channel == nil; created {
			return s.create(now, fence, name, p)
		}
		return s.update(ctx, now, p, by)
	})
	return ch, created && err == nil, err
}

// PatchChannel merges p into an existing channel; NotFound if there is none.
func (s *Service) PatchChannel(ctx context.Context, name string, p ChannelPatch, by Caller) (*hub.Channel, error) {
	if !nameRule(name) {
		return nil, noChannel(name)
	}
	return s.change(ctx, name, func(now *Document, _ int64) (*Document, error) {
		switch {
		case now.Channel == nil:
			return nil, noChannel(name)
		case p.Empty:
			return nil, hub.E(hub.Invalid, "the body is empty: expected a JSON object with the members to change")
		}
		return s.update(ctx, now, p, by)
	})
}

// change runs an update of the document of a name, and tells of it. The callback gets an empty document if there is none, and answers errFence if it
// needs a fence.
func (s *Service) change(ctx context.Context, name string, f func(now *Document, fence int64) (*Document, error)) (*hub.Channel, error) {
	fence := int64(0)
	var before *hub.Channel
	for {
		doc, err := s.opt.Catalog.Update(ctx, hub.ChannelID(name), func(now *Document) (*Document, error) {
			if now == nil {
				now = &Document{}
			}
			before = now.Channel
			return f(now, fence)
		})
		switch {
		case err == nil:
			return doc.Channel, s.changed(ctx, before, doc.Channel)
		case !errors.Is(err, errFence):
			return nil, fmt.Errorf("change the configuration of a channel: %w", err)
		}
		if fence, err = s.fence(ctx); err != nil {
			return nil, err
		}
	}
}

// changed tells of a change that is durable.
func (s *Service) changed(ctx context.Context, before, after *hub.Channel) error {
	if s.opt.Changed == nil {
		return nil
	}
	if err := s.opt.Changed(ctx, before, after); err != nil {
		return fmt.Errorf("the channel is stored, but not all that follows from it: %w", err)
	}
	return nil
}

// create makes the document of a new channel. It is called again with a fence if a channel of the name was deleted.
func (s *Service) create(now *Document, fence int64, name string, p ChannelPatch) (*Document, error) {
	clock := s.opt.Clock()
	c, err := merge(blank(name, clock, s.opt.ProtectChannels), p, true, s.opt.ProtectChannels)
	if err != nil {
		return nil, err
	}
	if err := check(c, nil, clock); err != nil {
		return nil, err
	}
	next := &Document{Channel: c, Fence: now.Fence, Remains: slices.Clone(now.Remains)}
	if now.Fence == 0 && len(now.Remains) == 0 {
		return next, nil
	}
	if c.Historical() && len(now.Remains) > 0 {
		return nil, stillCleaning(name)
	}
	if fence <= now.Fence {
		return nil, errFence
	}
	c.Since, next.Fence = fence, fence
	for i := range next.Remains {
		next.Remains[i].Until = fence // what was written while it was being deleted goes too
	}
	return next, nil
}

func stillCleaning(name string) error {
	e := hub.E(hub.Conflict, "a deleted channel %s is still being cleaned up: a historical channel can take the name when that is done; try again later", name)
	e.RetryAfter = time.Minute
	return e
}

// update makes the document of a changed channel, or returns the one it was given.
func (s *Service) update(ctx context.Context, now *Document, p ChannelPatch, by Caller) (*Document, error) {
	old := now.Channel
	c, err := merge(old, p, false, s.opt.ProtectChannels)
	if err != nil {
		return nil, err
	}
	if err := check(c, old, s.opt.Clock()); err != nil {
		return nil, err
	}
	if !by.Local {
		if err := protected(old, c); err != nil {
			return nil, err
		}
	}
	if c.Historical() && !old.Historical() && len(now.Remains) > 0 {
		return nil, stillCleaning(old.Name)
	}
	equal, err := same(old, c)
	if err != nil {
		return nil, err
	}
	if equal {
		return now, nil
	}
	switch {
	case c.Replicated() && !old.Replicated():
		c.Lives++
		c.Marked = ""
		if upTo, ok := s.marker(c.Name); ok {
			c.Marked = upTo.String()
		}
	case old.Replicated() && !c.Replicated():
		c.LiveFrom = s.liveFrom(ctx, c)
	}
	next := *now
	next.Channel = c
	return &next, nil
}

// fence waits until the horizon has reached a millisecond that lies above everything written so far: what is minted later lies at or above it.
func (s *Service) fence(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, fenceWait)
	defer cancel()
	at := int64(0)
	for {
		horizon, err := s.opt.Short.Horizon(ctx)
		if err != nil {
			return 0, fmt.Errorf("read the horizon: %w", err)
		}
		if at == 0 {
			at = horizon.Millis() + 1
			if o, ok := s.opt.Short.(Others); ok && o.Ahead() > 0 { // what they have acknowledged may not be here yet
				at = max(at, s.opt.Clock().UnixMilli()) + o.Ahead().Milliseconds()
			}
		}
		if horizon.Millis() >= at {
			return at, nil
		}
		select {
		case <-ctx.Done():
			return 0, hub.E(hub.Unavailable, "a deleted channel of this name is not finished yet: try again").Because(ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// RefreshChannels brings this node's memory of the configurations up to date.
func (s *Service) RefreshChannels(ctx context.Context) error {
	if err := s.opt.Catalog.Refresh(ctx); err != nil {
		return fmt.Errorf("refresh the channels: %w", err)
	}
	return nil
}
