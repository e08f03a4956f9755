package channel

import (
	"context"

	"timehub/hub"
)

// Document is what the catalog keeps of one channel name: the channel, if there is one, and what deleted ones of that name have left behind. Both are
// in one document because a deletion has to hide the channel and to remember its remains in one step.
type Document struct {
	Channel *hub.Channel `json:"channel,omitempty"` // nil: there is none of this name
	Remains []Remains    `json:"remains,omitempty"`
	// Gone are mutable keys that were deleted while the short-term store still held them (DESIGN.md, "Deleting what the log still holds").
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

// Channel returns a channel's configuration by its name in any spelling, from this node's memory. It allocates nothing for a name in lower case. The
// channel is shared: do not change it. NotFound if there is none.
func (s *Service) Channel(ctx context.Context, name string) (*hub.Channel, error) {
	return nil, errUnwritten
}

// Fresh is Channel, read from the store.
func (s *Service) Fresh(ctx context.Context, name string) (*hub.Channel, error) {
	return nil, errUnwritten
}

// Channels lists all channels, read from the store, sorted by display name in byte order.
func (s *Service) Channels(ctx context.Context) ([]*hub.Channel, error) { return nil, errUnwritten }

// CreateChannel makes the channel that p.Name names (spec 02 §2.3). Invalid for a rule of spec 01 §3.3, Conflict if the name exists in any spelling.
func (s *Service) CreateChannel(ctx context.Context, p ChannelPatch, by Caller) (*hub.Channel, error) {
	return nil, errUnwritten
}

// PutChannel makes the channel or merges p into it (spec 01 §3.4). Forbidden for a rule of protection. If nothing changes, nothing is written.
func (s *Service) PutChannel(ctx context.Context, name string, p ChannelPatch, by Caller) (ch *hub.Channel, created bool, err error) {
	return nil, false, errUnwritten
}

// PatchChannel merges p into an existing channel; NotFound if there is none.
func (s *Service) PatchChannel(ctx context.Context, name string, p ChannelPatch, by Caller) (*hub.Channel, error) {
	return nil, errUnwritten
}

// DeleteChannel hides a channel at once and leaves its items to the clean-up (ENGINE §6). NotFound says `channel <name> not found`; Forbidden if the
// channel or all channels are protected and the caller is not local.
func (s *Service) DeleteChannel(ctx context.Context, name string, by Caller) error {
	return errUnwritten
}

// RefreshChannels brings this node's memory of the configurations up to date.
func (s *Service) RefreshChannels(ctx context.Context) error { return s.opt.Catalog.Refresh(ctx) }

// Remains lists what deleted channels have left behind, for the clean-up.
func (s *Service) Remains(ctx context.Context) ([]Remains, error) { return nil, errUnwritten }

// Cleaned tells that nothing is left of r; from then on a historical channel may take the name.
func (s *Service) Cleaned(ctx context.Context, r Remains) error { return errUnwritten }

// TagChannels lists the channels that carry a tag, sorted by display name, from this node's memory. An unknown tag is empty.
func (s *Service) TagChannels(ctx context.Context, tag string) ([]*hub.Channel, error) {
	return nil, errUnwritten
}

// Tags lists all tags, the built-in ones too, sorted.
func (s *Service) Tags(ctx context.Context) ([]string, error) { return nil, errUnwritten }

var errUnwritten = hub.E(hub.Unavailable, "not yet")
