package channel

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
)

// Tagged is a hit in one of a tag's channels.
type Tagged struct {
	Channel *hub.Channel
	Key     hub.Key
}

// compareTagged orders the hits of a tag: by key, then by display name (spec 01 §1.5).
func compareTagged(a, b Tagged) int {
	return cmp.Or(a.Key.Compare(b.Key), strings.Compare(a.Channel.Name, b.Channel.Name))
}

// TagAnswer is what a Search found in the channels of a tag: Hits ascend by key, then display name; Page.Keys is nil. Start is the smallest of the
// channels' starts.
type TagAnswer struct {
	Answer
	Hits []Tagged
}

// TaggedItem is an item of one of a tag's channels.
type TaggedItem struct {
	Channel *hub.Channel
	hub.Sealed
}

// TagChannels lists the channels that carry a tag, sorted by display name, from this node's memory. An unknown tag is empty.
func (s *Service) TagChannels(ctx context.Context, tag string) ([]*hub.Channel, error) {
	all, err := s.cached(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(ch *hub.Channel) bool { return !ch.HasTag(tag) }), nil
}

// Tags lists all tags, the built-in ones too, sorted.
func (s *Service) Tags(ctx context.Context) ([]string, error) {
	all, err := s.cached(ctx)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, ch := range all {
		tags = append(tags, ch.Tags...)
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// FindTagged runs a search on all channels of a tag, several at a time, and cuts the union to N. An unknown tag is empty.
func (s *Service) FindTagged(ctx context.Context, tag string, q Search) (TagAnswer, error) {
	channels, err := s.TagChannels(ctx, tag)
	if err != nil {
		return TagAnswer{}, err
	}
	f, err := s.frame(ctx, q.Stable)
	if err != nil {
		return TagAnswer{}, err
	}
	return s.findTagged(ctx, channels, s.clamp(q), f)
}

func (s *Service) findTagged(ctx context.Context, channels []*hub.Channel, q Search, f frame) (TagAnswer, error) {
	answers := make([]Answer, len(channels))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.opt.TagParallel)
	for i, ch := range channels {
		g.Go(func() error {
			a, err := s.find(gctx, ch, q, f)
			if err != nil {
				return fmt.Errorf("search channel %s: %w", ch.Name, err)
			}
			answers[i] = a
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return TagAnswer{}, err
	}
	return union(channels, answers, q, s.tagHeader(channels, q, f)), nil
}

func (s *Service) tagHeader(channels []*hub.Channel, q Search, f frame) TagAnswer {
	a := TagAnswer{Answer: Answer{Page: hub.Page{Horizon: f.cut}, Start: q.Key, Now: f.now, Until: f.until(q.Stable)}}
	for i, ch := range channels {
		a.Horizon = earlier(a.Horizon, s.frameOf(ch, f).cut)
		if start := q.start(ch, f.now, s.opt.Birthday); i == 0 || start.Less(a.Start) {
			a.Start = start
		}
	}
	return a
}

// union merges the answers of channels into one, the N nearest to the start of the search. It is pure.
func union(channels []*hub.Channel, answers []Answer, q Search, into TagAnswer) TagAnswer {
	for i, a := range answers {
		into.Silent = max(into.Silent, a.Silent)
		into.More = into.More || a.More
		for _, k := range a.Keys {
			into.Hits = append(into.Hits, Tagged{channels[i], k})
		}
	}
	slices.SortFunc(into.Hits, compareTagged)
	if over := len(into.Hits) - q.N; q.Kind != InWindow && q.N > 0 && over > 0 {
		into.More = true
		if q.query("").Reverse {
			into.Hits = slices.Clone(into.Hits[over:])
		} else {
			into.Hits = slices.Clone(into.Hits[:q.N])
		}
	}
	return into
}

// StreamTagged is Stream for a tag; TagAnswer.Hits is nil for a window.
func (s *Service) StreamTagged(ctx context.Context, tag string, q Search, order hub.Order) (TagAnswer, iter.Seq2[TaggedItem, error], error) {
	channels, err := s.TagChannels(ctx, tag)
	if err != nil {
		return TagAnswer{}, nil, err
	}
	f, err := s.frame(ctx, q.Stable)
	if err != nil {
		return TagAnswer{}, nil, err
	}
	q = s.clamp(q)
	streams := make([]tagStream, 0, len(channels))
	if q.Kind == InWindow {
		a := s.tagHeader(channels, q, f)
		for _, ch := range channels {
			h := q.query(ch.Name)
			h.Reverse = bool(order)
			if !q.Stable && q.Tier.Short() {
				silent := s.silent(ctx, ch, h)
				a.Silent, h.Partial = max(a.Silent, silent), silent > 0
			}
			streams = append(streams, tagStream{ch, s.items(ctx, ch, h, f)})
		}
		return a, mergeTagged(streams, order), nil
	}
	a, err := s.findTagged(ctx, channels, q, f)
	if err != nil {
		return TagAnswer{}, nil, err
	}
	keys := map[*hub.Channel][]hub.Key{}
	for _, h := range a.Hits {
		keys[h.Channel] = append(keys[h.Channel], h.Key)
	}
	for _, ch := range channels {
		if len(keys[ch]) > 0 {
			streams = append(streams, tagStream{ch, s.itemsOf(ctx, ch, q, hub.Page{Keys: keys[ch], Silent: a.Silent}, order, f)})
		}
	}
	return a, mergeTagged(streams, order), nil
}

// tagStream are the items of one channel.
type tagStream struct {
	ch    *hub.Channel
	items iter.Seq2[hub.Sealed, error]
}

// mergeTagged merges the items of channels into the order of a tag. Only the next item of each channel is held.
func mergeTagged(streams []tagStream, order hub.Order) iter.Seq2[TaggedItem, error] {
	return func(yield func(TaggedItem, error) bool) {
		var open []*tagHead
		defer func() {
			for _, t := range open {
				t.close()
			}
		}()
		for _, st := range streams {
			t := &tagHead{head: head{source: source{items: st.items}}, ch: st.ch}
			open = append(open, t)
			if t.pull(); t.err != nil {
				yield(TaggedItem{}, t.err)
				return
			}
		}
		heads := slices.DeleteFunc(slices.Clone(open), func(t *tagHead) bool { return t.done })
		for len(heads) > 0 {
			i := nearest(heads, order)
			t := heads[i]
			if !yield(TaggedItem{t.ch, t.take()}, nil) {
				return
			}
			if t.pull(); t.err != nil {
				yield(TaggedItem{}, t.err)
				return
			}
			if t.done {
				heads = slices.Delete(heads, i, i+1)
			}
		}
	}
}

type tagHead struct {
	head
	ch *hub.Channel
}

// nearest is a plain scan: tags have few channels, and the items between two scans cost more.
func nearest(heads []*tagHead, order hub.Order) int {
	best := 0
	for i, t := range heads[1:] {
		c := compareTagged(Tagged{t.ch, t.item.Key}, Tagged{heads[best].ch, heads[best].item.Key})
		if order == hub.Descending {
			c = -c
		}
		if c < 0 {
			best = i + 1
		}
	}
	return best
}

// GetTagged reads the item of the first channel of a tag, by display name, that has the key.
func (s *Service) GetTagged(ctx context.Context, tag string, key hub.Key, opt GetOptions) (Found, error) {
	channels, err := s.TagChannels(ctx, tag)
	if err != nil {
		return Found{}, err
	}
	for _, ch := range channels {
		found, err := s.Get(ctx, ch, key, opt)
		if !hub.Is(err, hub.NotFound) {
			return found, err
		}
	}
	return Found{}, hub.E(hub.NotFound, "no channel with the tag %q has an item %s", tag, key)
}
