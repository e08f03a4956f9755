package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke"
	spokelog "timehub/spoke/log"
)

// Short is the flavor that drives the short-term store alone, without HTTP; the archiver is the simulation's own.
type Short struct {
	// What breaks the hub on purpose, to see whether the judge notices. nil: nothing.
	Disk func(disk.Disk) disk.Disk
	Tune func(*spoke.Options)
	Wrap func(channel.ShortTerm) channel.ShortTerm
}

// shortHub is a life of a spoke.Node.
type shortHub struct {
	store channel.ShortTerm
	node  *spoke.Node
}

// Stage implements Flavor.
func (f Short) Stage(*rand.Rand, *Config, *Ledger) Stage { return f }

// Open implements Stage.
func (f Short) Open(ctx context.Context, s *Site) (Hub, error) {
	opt := spoke.Options{
		Disk: s.Disk, Clock: s.Clock, Random: s.Random32, WriteTimeout: s.Config.WriteTimeout, SweepEvery: s.Config.SweepEvery, Log: s.Log,
		Archived: s.Archived,
		Segments: spokelog.Options{
			SegmentBytes: s.Config.SegmentBytes, SegmentRecords: s.Config.SegmentRecords, SegmentAge: s.Config.SegmentAge, TTL: s.Config.TTL,
			MinFree: s.Config.MinFree,
		},
	}
	if f.Disk != nil {
		opt.Disk = f.Disk(opt.Disk)
	}
	if f.Tune != nil {
		f.Tune(&opt)
	}
	n, found, err := spoke.Open(ctx, opt)
	if err != nil {
		return nil, err
	}
	if len(found.Holes) > 0 {
		return nil, errors.Join(n.Close(), fmt.Errorf("damage without a cause: %+v", found.Holes))
	}
	h := &shortHub{store: n, node: n}
	if f.Wrap != nil {
		h.store = f.Wrap(n)
	}
	return h, nil
}

// Put implements Hub.
func (h *shortHub) Put(ctx context.Context, channel string, body []byte) (hub.Key, Fate, error) {
	k, err := h.store.Write(ctx, channel, body)
	return k, fate(err), err
}

// PutBulk implements Hub.
func (h *shortHub) PutBulk(ctx context.Context, channel string, bodies [][]byte) (hub.Key, Fate, error) {
	k, err := h.store.WriteBulk(ctx, channel, bodies)
	return k, fate(err), err
}

// PutKeyed implements Keyed.
func (h *shortHub) PutKeyed(ctx context.Context, channel string, key hub.Key, body []byte) (Fate, error) {
	err := h.store.WriteKeyed(ctx, channel, hub.Sealed{Key: key, Data: body})
	return fate(err), err
}

// Mark implements Marked.
func (h *shortHub) Mark(ctx context.Context, channel string, upTo hub.Key) error {
	return h.node.WriteComplete(ctx, channel, upTo)
}

// Marker implements Marked.
func (h *shortHub) Marker(channel string) (hub.Key, bool) { return h.node.Complete(channel) }

// Now implements Now.
func (h *shortHub) Now(ctx context.Context) (hub.Key, error) { return h.store.Now(ctx) }

// fate reads the promise out of an error.
func fate(err error) Fate {
	switch {
	case err == nil:
		return Acknowledged
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unknown
	case hub.Is(err, hub.Unavailable) && strings.Contains(err.Error(), "may show up or not"):
		return Doubtful
	default:
		return Refused
	}
}

// Get implements Hub.
func (h *shortHub) Get(ctx context.Context, channel string, key hub.Key) ([]byte, hub.Key, error) {
	s, err := h.store.Read(ctx, channel, key)
	return s.Data, h.store.Floor(channel), err
}

// Ask implements Hub. The iteration of items does not say its horizon, so that is asked for before and after.
func (h *shortHub) Ask(ctx context.Context, a Ask) (ans Answer, err error) {
	q := a.query()
	if !a.Bodies {
		p, err := h.store.Keys(ctx, q)
		if err == nil && p.More != (q.Limit > 0 && len(p.Keys) == q.Limit) && (p.More || q.Limit == 0) {
			err = fmt.Errorf("the page says More %v with %d keys of %d", p.More, len(p.Keys), q.Limit)
		}
		return Answer{Keys: p.Keys, Horizon: p.Horizon, Top: p.Horizon, Floor: h.store.Floor(a.Channel)}, err
	}
	if ans.Horizon, err = h.store.Horizon(ctx); err != nil {
		return ans, err
	}
	for s, err := range h.store.Items(ctx, q) {
		if err != nil {
			return ans, err
		}
		ans.Keys, ans.Bodies = append(ans.Keys, s.Key), append(ans.Bodies, s.Data)
	}
	ans.Floor = h.store.Floor(a.Channel)
	ans.Top, err = h.store.Horizon(ctx)
	return ans, err
}

// Horizon implements Hub.
func (h *shortHub) Horizon(ctx context.Context) (hub.Key, error) { return h.store.Horizon(ctx) }

// Run implements Hub.
func (h *shortHub) Run(ctx context.Context, ready func()) error {
	ready()
	return h.node.Run(ctx)
}

// Look implements Hub.
func (h *shortHub) Look() error {
	if s := h.node.Status(); len(s.Holes) > 0 || s.Damaged > 0 {
		return fmt.Errorf("damage without a cause: %+v", s)
	}
	return nil
}

// Minute compares the digest that the store has of a minute with its keys.
func (h *shortHub) Minute(ctx context.Context, channel string, minute time.Time) (count int, digest uint64, err error) {
	return h.node.Minute(ctx, channel, minute)
}

// Refusing says why writes are refused; nil: they are not.
func (h *shortHub) Refusing() error { return h.node.Status().Refusing }

// Close implements Hub.
func (h *shortHub) Close() error { return h.node.Close() }
