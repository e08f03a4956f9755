package e2e

import (
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/e2e/sim"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/disk"
	"timehub/spoke"
	spokelog "timehub/spoke/log"
	"timehub/spoke/log/format"
)

// TestSimNoticesBrokenHubs: the judge of the simulation is worth nothing if it does not notice hubs that break their promises.
func TestSimNoticesBrokenHubs(t *testing.T) {
	wrap := func(f func(channel.ShortTerm) channel.ShortTerm) sim.Flavor { return sim.Short{Wrap: f} }
	for name, c := range map[string]struct {
		hub   sim.Flavor
		seeds uint64 // within which it has to be noticed
	}{
		"syncs of segments do nothing":   {sim.Short{Disk: onFiles(only(".seg", unsync))}, 20},
		"folders are never synced":       {sim.Short{Disk: func(d disk.Disk) disk.Disk { return noSyncDir{d} }}, 40},
		"the clock file is not written":  {sim.Short{Disk: onFiles(only("clock", unwrite))}, 60},
		"the clock file is not synced":   {sim.Short{Disk: onFiles(only("clock", unsync))}, 200},
		"acknowledged before it is safe": {sim.Short{Tune: func(o *spoke.Options) { o.Segments.Sync = spokelog.Interval }}, 40},
		"names of given-up keys are not written": {
			sim.Short{Disk: onFiles(only(".seg", func(f disk.File) disk.File { return &nameless{File: f} }))}, 400,
		},
		"what is not archived is swept": {
			sim.Short{Tune: func(o *spoke.Options) { o.Archived = func(string) (hub.Key, bool) { return hub.MaxKey, true } }}, 20,
		},
		"the horizon ignores what is in flight":        {wrap(func(s channel.ShortTerm) channel.ShortTerm { return hasty{s} }), 20},
		"a write that failed is sent again":            {wrap(func(s channel.ShortTerm) channel.ShortTerm { return insistent{s} }), 100},
		"a doubtful write is said to be gone":          {wrap(func(s channel.ShortTerm) channel.ShortTerm { return gloomy{s} }), 100},
		"pages lack a key":                             {wrap(func(s channel.ShortTerm) channel.ShortTerm { return stingy{s} }), 20},
		"now does not move the clock":                  {wrap(func(s channel.ShortTerm) channel.ShortTerm { return standing{s} }), 40},
		"a whole hub on a disk whose syncs do nothing": {sim.Whole{Disk: onFiles(only(".seg", unsync))}, 20},
		"a whole hub whose bucket forgets":             {sim.Whole{Bucket: func(b bucket.Bucket) bucket.Bucket { return forgetful{b} }}, 20},
		"a whole hub whose bucket hides what is new":   {sim.Whole{Bucket: func(b bucket.Bucket) bucket.Bucket { return shy{b} }}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noticed(t, 0, c.seeds, func(seed uint64) string { return play(t, seed, c.hub).Verdict })
		})
	}
}

// only wraps files whose names end in a suffix.
func only(suffix string, wrap func(disk.File) disk.File) func(string, disk.File) disk.File {
	return func(name string, f disk.File) disk.File {
		if strings.HasSuffix(name, suffix) {
			return wrap(f)
		}
		return f
	}
}

func unsync(f disk.File) disk.File  { return unsynced{f} }
func unwrite(f disk.File) disk.File { return unwritten{f} }

// forgetful is a bucket that loses what was put in some minutes.
type forgetful struct{ bucket.Bucket }

func (b forgetful) lost(name string) bool {
	return strings.Contains(name, "7/") && strings.Contains(name, "/2000/")
}

func (b forgetful) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	if b.lost(name) && rand.IntN(3) == 0 {
		return nil, bucket.Info{}, hub.E(hub.NotFound, "there is no %s", name)
	}
	return b.Bucket.Get(ctx, name, offset, n, ifMatch)
}

// shy is a bucket whose listings do not show what was put in the last hour.
type shy struct{ bucket.Bucket }

func (b shy) List(ctx context.Context, opt bucket.ListOptions) (bucket.Listing, error) {
	l, err := b.Bucket.List(ctx, opt)
	l.Blobs = slices.DeleteFunc(l.Blobs, func(i bucket.Info) bool {
		return strings.Contains(i.Name, "/2000/") && time.Since(i.Modified) < time.Hour
	})
	return l, err
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

// standing returns the present millisecond and lets it go on.
type standing struct{ channel.ShortTerm }

func (s standing) Now(ctx context.Context) (hub.Key, error) {
	h, err := s.Horizon(ctx)
	return hub.KeyAt(h.Millis(), "initial"), err
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
