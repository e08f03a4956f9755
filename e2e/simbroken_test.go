package e2e

import (
	"context"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/e2e/sim"
	"timehub/hub"
	"timehub/hub/disk"
	"timehub/spoke"
	spokelog "timehub/spoke/log"
	"timehub/spoke/log/format"
)

// TestSimNoticesBrokenHubs: the judge of the simulation is worth nothing if it does not notice hubs that break their promises.
func TestSimNoticesBrokenHubs(t *testing.T) {
	for name, c := range map[string]struct {
		hub   sim.Short
		seeds uint64 // within which it has to be noticed
	}{
		"syncs of segments do nothing": {sim.Short{Disk: onFiles(func(name string, f disk.File) disk.File {
			if strings.HasSuffix(name, ".seg") {
				return unsynced{f}
			}
			return f
		})}, 20},
		"folders are never synced":                       {sim.Short{Disk: func(d disk.Disk) disk.Disk { return noSyncDir{d} }}, 40},
		"writes are acknowledged before they are synced": {sim.Short{Tune: func(o *spoke.Options) { o.Segments.Sync = spokelog.Interval }}, 40},
		"the clock file is not written": {sim.Short{Disk: onFiles(func(name string, f disk.File) disk.File {
			if name == "clock" {
				return unwritten{f}
			}
			return f
		})}, 40},
		"the clock file is not synced": {sim.Short{Disk: onFiles(func(name string, f disk.File) disk.File {
			if name == "clock" {
				return unsynced{f}
			}
			return f
		})}, 100},
		"the horizon ignores what is in flight":  {sim.Short{Wrap: func(s channel.ShortTerm) channel.ShortTerm { return hasty{s} }}, 20},
		"names of given-up keys are not written": {sim.Short{Disk: onFiles(func(_ string, f disk.File) disk.File { return &nameless{File: f} })}, 400},
		"what is not archived is swept": {sim.Short{Tune: func(o *spoke.Options) {
			o.Archived = func(string) (hub.Key, bool) { return hub.MaxKey, true }
		}}, 20},
		"a write that failed is sent again":    {sim.Short{Wrap: func(s channel.ShortTerm) channel.ShortTerm { return insistent{s} }}, 60},
		"a late answer hides what was refused": {sim.Short{Wrap: func(s channel.ShortTerm) channel.ShortTerm { return gloomy{s} }}, 40},
		"pages lack their last key":            {sim.Short{Wrap: func(s channel.ShortTerm) channel.ShortTerm { return stingy{s} }}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range c.seeds {
				if p := play(t, seed, c.hub); p.Verdict != "" {
					first, _, _ := strings.Cut(p.Verdict, "\n")
					t.Logf("noticed with seed %d: %.200s", seed, first)
					return
				}
			}
			t.Errorf("not noticed within %d seeds", c.seeds)
		})
	}
}

// onFiles is a disk of which every file is wrapped.
func onFiles(wrap func(name string, f disk.File) disk.File) func(disk.Disk) disk.Disk {
	return func(d disk.Disk) disk.Disk { return wrapped{d, wrap} }
}

type wrapped struct {
	disk.Disk
	wrap func(name string, f disk.File) disk.File
}

func (d wrapped) Create(name string) (disk.File, error) {
	f, err := d.Disk.Create(name)
	if err != nil {
		return nil, err
	}
	return d.wrap(name, f), nil
}

func (d wrapped) Open(name string, write bool) (disk.File, error) {
	f, err := d.Disk.Open(name, write)
	if err != nil {
		return nil, err
	}
	return d.wrap(name, f), nil
}

type unsynced struct{ disk.File }

func (unsynced) Sync() error { return nil }

type unwritten struct{ disk.File }

func (unwritten) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

type noSyncDir struct{ disk.Disk }

func (noSyncDir) SyncDir(string) error { return nil }

// nameless is a segment in which the names of given-up keys are written as those of another channel.
type nameless struct {
	disk.File
	salt uint64
}

func (f *nameless) WriteAt(p []byte, off int64) (int, error) {
	if h, err := format.ParseHead(p); err == nil && off == 0 {
		f.salt = h.Salt
	}
	at := 0
	if off == format.HeadSize { // the link comes first
		at = format.DataStart - format.HeadSize
	}
	if at < len(p) {
		if g, err := format.ParseGroup(p[at:], f.salt); err == nil && at+int(g.Length) <= len(p) {
			p = append([]byte(nil), p...)
			unname(p[at:], g)
		}
	}
	return f.File.WriteAt(p, off)
}

func unname(p []byte, g format.Group) {
	n := g
	n.Records, n.Sum = 0, 0
	for off := format.GroupHead + int(g.Lows)*format.LowSize; off < int(g.Length); {
		r, err := format.ParseRecord(p[off:])
		if err != nil {
			return
		}
		name := string(r.Channel)
		if r.Flags&format.GivenUp != 0 {
			name = strings.Repeat("?", len(name))
		}
		b, crc := format.AppendRecord(nil, &format.Record{Channel: name, Key: hub.KeyAt(r.Millis, string(r.Hash)), Stream: r.Stream, Data: r.Data}, r.Flags)
		copy(p[off:], b)
		n.Add(crc)
		off += r.Size
	}
	n.Put(p)
}

// hasty takes the clock for the horizon.
type hasty struct{ channel.ShortTerm }

func (h hasty) Horizon(ctx context.Context) (hub.Key, error) {
	k, err := h.ShortTerm.Horizon(ctx)
	if p, e := h.ShortTerm.Keys(ctx, hub.Query{Channel: "a", From: hub.MinKey, To: hub.MaxKey, Reverse: true, Limit: 1}); e == nil && len(p.Keys) == 1 && k.Less(p.Keys[0]) {
		k = p.Keys[0]
	}
	if now := hub.Last(time.Now()); k.Less(now) {
		k = now
	}
	return k, err
}

func (h hasty) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	k, err := h.Horizon(ctx)
	if err != nil {
		return hub.Page{}, err
	}
	if q.Stable && k.Less(q.To) {
		q.To = k.After()
	}
	q.Stable = false
	p, err := h.ShortTerm.Keys(ctx, q)
	p.Horizon = k
	return p, err
}

func (h hasty) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	q.Stable = false
	return h.ShortTerm.Items(ctx, q)
}

// insistent sends again what was answered 503.
type insistent struct{ channel.ShortTerm }

func (h insistent) Write(ctx context.Context, channel string, sealed []byte) (k hub.Key, err error) {
	for range 3 {
		if k, err = h.ShortTerm.Write(ctx, channel, sealed); !hub.Is(err, hub.Unavailable) {
			break
		}
	}
	return k, err
}

// gloomy says of a write that nothing was stored, when nothing is known.
type gloomy struct{ channel.ShortTerm }

func (h gloomy) Write(ctx context.Context, channel string, sealed []byte) (hub.Key, error) {
	k, err := h.ShortTerm.Write(ctx, channel, sealed)
	if hub.Is(err, hub.Unavailable) {
		err = hub.E(hub.Unavailable, "nothing was stored")
	}
	return k, err
}

// stingy forgets a key of long pages.
type stingy struct{ channel.ShortTerm }

func (h stingy) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	if q.Limit < 30 {
		return h.ShortTerm.Keys(ctx, q)
	}
	q.Limit++
	p, err := h.ShortTerm.Keys(ctx, q)
	if n := len(p.Keys); n == q.Limit {
		p.Keys = slices.Delete(p.Keys, n/2, n/2+1)
		p.More = true
	}
	return p, err
}
