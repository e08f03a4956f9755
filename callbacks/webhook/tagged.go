package webhook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
)

// Prototypes (spec 03 §4). A prototype and the instances of it are documents of their own, tied by the name of the prototype; Revision tells whether an instance
// was copied from the prototype as it is now. An instance is made, changed and removed before the request is answered that causes it, and all of them are
// looked at when a node starts and from time to time, so that what was cut short heals.

// instancePrefix begins the names of instances.
const instancePrefix = "TAGWH_"

// nextPrototype is next for prototypes. What is drawn here does not make a difference by itself.
func (s *Service) nextPrototype(ctx context.Context, now, w *Webhook) (*Webhook, error) {
	if err := sameSource(now, w, ""); err != nil {
		return nil, err
	}
	if now != nil && *w == *now {
		return now, nil
	}
	w.Revision = newBorn()
	if now == nil || now.Tag() != w.Tag() {
		all, err := s.prototypes(ctx, w.Tag())
		if err != nil {
			return nil, err
		}
		w.Further = slices.ContainsFunc(all, func(o *Webhook) bool { return o.Name != w.Name && !o.Further })
	}
	if now == nil {
		w.Born = newBorn()
	}
	return w, nil
}

// prototypes are those of a tag, those with the plain names first, then by name. "": of every tag.
func (s *Service) prototypes(ctx context.Context, tag string) ([]*Webhook, error) {
	return s.choose(ctx, func(w *Webhook) bool { return w.IsPrototype() && (tag == "" || w.Tag() == tag) })
}

// instances are those of a prototype, by name.
func (s *Service) instances(ctx context.Context, prototype string) ([]*Webhook, error) {
	return s.choose(ctx, func(w *Webhook) bool { return w.Prototype == prototype })
}

func (s *Service) choose(ctx context.Context, which func(*Webhook) bool) ([]*Webhook, error) {
	all, err := s.opt.Catalog.Cached(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the webhooks: %w", err)
	}
	chosen := slices.DeleteFunc(all, func(w *Webhook) bool { return !which(w) })
	slices.SortFunc(chosen, byName)
	slices.SortStableFunc(chosen, func(a, b *Webhook) int { return bit(a.Further) - bit(b.Further) })
	return chosen, nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// takeTags waits for the right to change instances.
func (s *Service) takeTags() (giveBack func()) {
	<-s.tags
	return func() { s.tags <- struct{}{} }
}

// upsertAll brings every instance of a prototype up to date after a PUT with this patch, and removes those of another tag.
func (s *Service) upsertAll(ctx context.Context, prototype string, p Patch) error {
	defer s.takeTags()()
	proto, err := s.opt.Catalog.Fresh(ctx, prototype)
	switch {
	case hub.Is(err, hub.NotFound) || err == nil && !proto.IsPrototype():
		return nil
	case err != nil:
		return explain(err, prototype)
	}
	channels, err := s.opt.Channels.TagChannels(ctx, proto.Tag())
	if err != nil {
		return err
	}
	old, err := s.instances(ctx, proto.Name)
	if err != nil {
		return err
	}
	var wrong []error
	for _, i := range old {
		if i.ManagedByTag != proto.Tag() || !slices.ContainsFunc(channels, func(ch *hub.Channel) bool { return strings.EqualFold(ch.Name, i.ChannelName()) }) {
			wrong = append(wrong, s.removeInstance(ctx, i))
		}
	}
	wrong = append(wrong, each(channels, func(ch *hub.Channel) error { return s.upsert(ctx, proto, ch, p) }))
	return errors.Join(wrong...)
}

// each calls f for all of a list, several at the same time, and returns all errors.
func each[T any](list []T, f func(T) error) error {
	wrong := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(16)
	for i, v := range list {
		g.Go(func() error { wrong[i] = f(v); return nil })
	}
	_ = g.Wait() // they are in wrong
	return errors.Join(wrong...)
}

func (s *Service) removeInstances(ctx context.Context, prototype string) error {
	defer s.takeTags()()
	all, err := s.instances(ctx, prototype)
	if err != nil {
		return err
	}
	return each(all, func(i *Webhook) error { return s.removeInstance(ctx, i) })
}

func (s *Service) removeInstance(ctx context.Context, i *Webhook) error {
	_, err := s.remove(ctx, i.Name, func(now *Webhook) bool { return now.Prototype == i.Prototype })
	return err
}

// upsert makes the instance of a prototype for a channel, or brings it up to date. p is the patch by which the prototype was changed just now, if any: it may
// pause, and give a position.
func (s *Service) upsert(ctx context.Context, proto *Webhook, ch *hub.Channel, p Patch) error {
	if w, err := s.instanceFor(ctx, proto, ch); err != nil {
		return err
	} else if w != nil {
		taken, err := s.copyTo(ctx, w.Name, proto, ch, p)
		if err != nil || !taken {
			return err
		}
	}
	for _, name := range instanceNames(proto, ch) {
		if taken, err := s.copyTo(ctx, name, proto, ch, p); err != nil || !taken {
			return err
		}
	}
	return hub.E(hub.Conflict, "webhook %s can have no instance for channel %s: the names for it are taken", proto.Name, ch.Name)
}

// instanceFor is the instance that there is; nil: none.
func (s *Service) instanceFor(ctx context.Context, proto *Webhook, ch *hub.Channel) (*Webhook, error) {
	all, err := s.instances(ctx, proto.Name)
	for _, w := range all {
		if strings.EqualFold(w.ChannelName(), ch.Name) {
			return w, nil
		}
	}
	return nil, err
}

// instanceNames are the names that an instance may have, the best first. Another webhook may have one of them: the parts of a name can be read in two ways.
func instanceNames(proto *Webhook, ch *hub.Channel) []string {
	plain := instancePrefix + strings.ReplaceAll(proto.Tag(), ":", "_") + "_" + ch.Name
	suffixed := plain + "_" + proto.Name
	names := []string{suffixed, suffixed + "_2", suffixed + "_3"}
	if !proto.Further {
		names = append([]string{plain}, names...)
	}
	return names
}

// copyTo makes or changes one instance. taken: another webhook has the name.
func (s *Service) copyTo(ctx context.Context, name string, proto *Webhook, ch *hub.Channel, p Patch) (taken bool, err error) {
	defer s.turns.take(name)()
	moved := false
	_, err = s.opt.Catalog.Update(ctx, name, func(now *Webhook) (*Webhook, error) {
		moved = false
		if taken = now != nil && (now.Prototype != proto.Name || !strings.EqualFold(now.ChannelName(), ch.Name)); taken {
			return now, nil
		}
		next, err := s.instance(ctx, now, name, proto, ch, p)
		if err == nil && now == nil {
			s.forget(name)
		}
		moved = err == nil && now != nil && next.Born != now.Born
		return next, err
	})
	if err != nil || taken {
		return taken, wrap("make webhook %s: %w", name, err)
	}
	if moved {
		return false, s.stop(ctx, name)
	}
	return false, nil
}

// instance is the instance of a prototype for a channel; now is what there is of it.
func (s *Service) instance(ctx context.Context, now *Webhook, name string, proto *Webhook, ch *hub.Channel, p Patch) (*Webhook, error) {
	w := *proto
	base, _, _ := strings.Cut(proto.TagURL, "/tag/")
	w.Name, w.ChannelURL, w.TagURL = name, base+"/channel/"+ch.Name, ""
	w.ManagedByTag, w.Prototype, w.Further = proto.Tag(), proto.Name, false
	if now != nil {
		asked := p.StartItem.Present || p.Paused.Present && now.Paused != proto.Paused
		if now.Revision == proto.Revision && now.ChannelURL == w.ChannelURL && !asked {
			return now, nil // whatever a person has changed of it since
		}
		w.Born, w.Start = now.Born, now.Start
		if !p.Paused.Present {
			w.Paused, w.PausedReason = now.Paused, now.PausedReason
		}
	}
	p.ChannelURL = Said(w.ChannelURL)
	start, err := s.position(ctx, now, &w, p)
	if err == nil && start == "" && now == nil {
		start, err = s.now(ctx, &w)
	}
	if err != nil {
		return nil, err
	}
	if start != "" {
		w.Born, w.Start = newBorn(), start
	}
	if now != nil && w == *now {
		return now, nil
	}
	return &w, nil
}

// ChannelChanged brings the instances for one channel up to date, after its configuration was written: before and after are what it was and is, nil if there was or is
// none. It costs nothing that is worth saying if the channel has no tag with a prototype.
func (s *Service) ChannelChanged(ctx context.Context, before, after *hub.Channel) error {
	var protos []*Webhook
	if after != nil {
		all, err := s.prototypes(ctx, "")
		if err != nil {
			return err
		}
		protos = slices.DeleteFunc(all, func(w *Webhook) bool { return !after.HasTag(w.Tag()) })
	}
	name := nameOf(before, after)
	gone, err := s.choose(ctx, func(w *Webhook) bool {
		return w.Prototype != "" && strings.EqualFold(w.ChannelName(), name) && (after == nil || !after.HasTag(w.ManagedByTag))
	})
	if err != nil || len(protos)+len(gone) == 0 {
		return err
	}
	defer s.takeTags()()
	var wrong []error
	for _, i := range gone {
		wrong = append(wrong, s.removeInstance(ctx, i))
	}
	for _, proto := range protos {
		wrong = append(wrong, s.upsert(ctx, proto, after, Patch{}))
	}
	return errors.Join(wrong...)
}

func nameOf(before, after *hub.Channel) string {
	if after == nil {
		after = before
	}
	return after.Name
}

// Run keeps instances as they should be, whatever was cut short on any node, until ctx ends. It returns nil.
func (s *Service) Run(ctx context.Context) error {
	for {
		if err := s.Reconcile(ctx); err != nil && ctx.Err() == nil {
			s.opt.Log.Warn("the webhooks of tags could not be brought up to date; trying again later", "err", err)
		}
		if !hub.Sleep(ctx, s.opt.Reconcile*3/4+rand.N(s.opt.Reconcile/2)) {
			return nil
		}
	}
}

// Reconcile makes the instances that are missing, brings those up to date that are not, and removes those whose prototype, channel or tag is gone, or that
// are there twice.
func (s *Service) Reconcile(ctx context.Context) error {
	all, err := s.List(ctx) // before the channels: an instance in it was made for a channel that had the tag by then
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(w *Webhook) bool { return w.IsPrototype() || w.Prototype != "" }) {
		return nil
	}
	channels, err := s.opt.Channels.Channels(ctx)
	if err != nil {
		return err
	}
	byID := map[string]*hub.Channel{}
	for _, ch := range channels {
		byID[hub.ChannelID(ch.Name)] = ch
	}
	defer s.takeTags()()
	var wrong []error
	seen := map[string]bool{}
	for _, w := range all {
		if w.Prototype == "" {
			continue
		}
		id := hub.ChannelID(w.ChannelName())
		pair := w.Prototype + "/" + id
		if seen[pair] { // two nodes have each made one, under names of which one was taken at first
			wrong = append(wrong, s.removeInstance(ctx, w))
			continue
		}
		seen[pair] = true
		wrong = append(wrong, s.removeStray(ctx, w, byID[id]))
	}
	for _, w := range all {
		if !w.IsPrototype() {
			continue
		}
		tagged := slices.DeleteFunc(slices.Clone(channels), func(ch *hub.Channel) bool { return !ch.HasTag(w.Tag()) })
		wrong = append(wrong, each(tagged, func(ch *hub.Channel) error { return s.mend(ctx, w.Name, ch) }))
	}
	return errors.Join(wrong...)
}

// removeStray removes an instance that nothing asks for.
func (s *Service) removeStray(ctx context.Context, i *Webhook, ch *hub.Channel) error {
	proto, err := s.opt.Catalog.Fresh(ctx, i.Prototype)
	if err != nil && !hub.Is(err, hub.NotFound) {
		return err
	}
	if err == nil && proto.IsPrototype() && proto.Tag() == i.ManagedByTag && ch != nil && ch.HasTag(i.ManagedByTag) {
		return nil
	}
	return s.removeInstance(ctx, i)
}

// mend makes what is missing, unless prototype or tag have gone meanwhile.
func (s *Service) mend(ctx context.Context, prototype string, seen *hub.Channel) error {
	proto, err := s.opt.Catalog.Get(ctx, prototype)
	if err != nil || !proto.IsPrototype() {
		return nil
	}
	ch, err := s.opt.Channels.Channel(ctx, seen.Name)
	if err != nil || !ch.HasTag(proto.Tag()) {
		return nil
	}
	return s.upsert(ctx, proto, ch, Patch{})
}
