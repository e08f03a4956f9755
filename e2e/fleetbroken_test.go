package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/channel"
	"timehub/channel/archive"
	"timehub/channel/feed"
	"timehub/e2e/fleet"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/coord"
	"timehub/hub/disk"
	hubnode "timehub/node"
	"timehub/spoke"
	spokelog "timehub/spoke/log"
)

// TestSimClusterNoticesBrokenHubs: the judges of several nodes are worth nothing if they do not notice hubs that break their promises. Each is played with the
// faults that can show it.
func TestSimClusterNoticesBrokenHubs(t *testing.T) {
	short := func(f func(channel.ShortTerm) channel.ShortTerm) func(string, *hubnode.Env) {
		return func(_ string, e *hubnode.Env) {
			e.Seams.Short = func(s channel.ShortTerm) channel.ShortTerm { return oneOfMany{f(s), s} }
		}
	}
	registers := func(prefix string, change func(coord.Change) coord.Change) func(string, *hubnode.Env) {
		return func(_ string, e *hubnode.Env) { e.Coordinator = meddling{e.Coordinator, prefix, change} }
	}
	jobs := func(change func(*archive.Options)) func(string, *hubnode.Env) {
		return func(_ string, e *hubnode.Env) {
			before := e.Seams.Jobs
			e.Seams.Jobs = func(o *archive.Options) { before(o); change(o) }
		}
	}
	type f = fleet.Flavor
	deaths := []fleet.Fault{fleet.Kill, fleet.Start, fleet.Start, fleet.PowerCut}
	hooks := append([]fleet.Fault{fleet.Mood, fleet.Mood, fleet.Steal, fleet.Session, fleet.Back}, deaths...)
	for name, c := range map[string]struct {
		hub   fleet.Flavor
		seeds uint64
		rare  bool   // it takes many seeds, or long ones: not in CI
		from  uint64 // the first seed, if those before it show nothing
	}{
		"syncs of segments do nothing": {f{Env: func(_ string, e *hubnode.Env) { e.Disk = onFiles(only(".seg", unsync))(e.Disk) }}, 10, false, 1},
		"acknowledged before it is safe": {f{Env: func(_ string, e *hubnode.Env) {
			e.Seams.Spoke = func(o *spoke.Options) { o.Segments.Sync = spokelog.Interval }
		}, Only: []fleet.Fault{fleet.All, fleet.Start}}, 20, false, 1},
		"what is not archived is swept": {f{Env: func(_ string, e *hubnode.Env) {
			e.Seams.Spoke = func(o *spoke.Options) {
				o.Archived = func(string) (hub.Key, bool) { return hub.MaxKey, true }
				o.Segments.LateConfirmed = func(string, hub.Key) bool { return true }
			}
		}, Only: []fleet.Fault{fleet.Bucket}, Long: true}, 10, false, 0},
		"the archiver believes what a put says": {f{Env: func(_ string, e *hubnode.Env) {
			e.Bucket = &trusting{Bucket: e.Bucket, told: map[string][]byte{}}
		}, Only: []fleet.Fault{fleet.Bucket, fleet.Well}, Long: true}, 10, false, 0},
		"what long-term storage gives is believed": {f{Env: func(_ string, e *hubnode.Env) { e.Bucket = cunning{e.Bucket} }, Only: []fleet.Fault{fleet.Mend}, Three: true, Long: true}, 20, false, 0},
		"nobody mends what is damaged on a disk":   {f{Env: func(_ string, e *hubnode.Env) { e.Dial = deafTo("/internal/spoke/re", e.Dial) }, Only: []fleet.Fault{fleet.Flip, fleet.Mend}, Three: true}, 20, false, 0},
		"more is removed than may be":              {f{Env: jobs(func(o *archive.Options) { o.Long = greedy{o.Long} }), Only: []fleet.Fault{fleet.Mend}, Three: true, Long: true, Limits: true}, 20, false, 0},
		"what need not be kept stays":              {f{Env: jobs(func(o *archive.Options) { o.RetainEvery = -1 }), Only: []fleet.Fault{fleet.Mend}, Three: true, Long: true, Limits: true}, 10, false, 0},
		"what was removed stays in logs":           {f{Env: jobs(func(o *archive.Options) { o.Channels = shameless{o.Channels} }), Only: deaths, Three: true, Long: true, Limits: true}, 20, true, 0},
		"the bucket knows no conditions":           {f{Env: func(_ string, e *hubnode.Env) { e.Bucket = careless{e.Bucket} }, Only: []fleet.Fault{fleet.Mend}, Three: true}, 60, false, 1},
		"the horizon ignores what others have":     {f{Env: short(func(s channel.ShortTerm) channel.ShortTerm { return hasty{s} }), Three: true}, 10, false, 0},
		"feeds ignore the horizon": {f{Env: func(_ string, e *hubnode.Env) {
			e.Seams.Feed = func(s feed.Source) feed.Source { return eager{s} }
		}, Only: []fleet.Fault{fleet.Slow, fleet.Island, fleet.Mend}, Three: true, Hooks: true}, 20, false, 0},
		"partial answers are called whole":    {f{Env: short(func(s channel.ShortTerm) channel.ShortTerm { return boastful{s} }), Only: []fleet.Fault{fleet.Island, fleet.OneWay, fleet.Mend}, Three: true}, 10, false, 0},
		"what others have is said to be gone": {f{Env: short(func(s channel.ShortTerm) channel.ShortTerm { return blind{s} }), Only: []fleet.Fault{fleet.Island, fleet.OneWay, fleet.Mend}, Three: true}, 10, false, 1},
		"Hub-After is ignored": {f{Env: func(_ string, e *hubnode.Env) {
			e.Seams.Short = func(s channel.ShortTerm) channel.ShortTerm { return alone{s} }
		}, Only: []fleet.Fault{fleet.OneWay, fleet.Mend}, Three: true}, 20, false, 0},
		"pages lack a key":                        {f{Env: short(func(s channel.ShortTerm) channel.ShortTerm { return stingy{s} })}, 10, false, 0},
		"cursors are written without their fence": {f{Env: registers("webhook/", always), Only: []fleet.Fault{fleet.Steal, fleet.Mood}, Three: true, Hooks: true}, 20, false, 0},
		"a call on its way counts as done":        {f{Env: registers("webhook/", forgetFlight), Only: hooks, Three: true, Hooks: true}, 20, false, 0},
		"leases are given to all":                 {f{Env: func(_ string, e *hubnode.Env) { e.Coordinator = generous{e.Coordinator} }, Only: []fleet.Fault{fleet.Mend}, Three: true, Hooks: true}, 10, false, 0},
		"nobody hears of changed configurations":  {f{Env: func(_ string, e *hubnode.Env) { e.Coordinator = silent{e.Coordinator, &sync.Map{}} }, Only: []fleet.Fault{fleet.Mend}, Three: true}, 10, false, 0},
		"what a disk promised is forgotten":       {f{Env: func(_ string, e *hubnode.Env) { e.Disk = forgotten{e.Disk} }, Only: deaths, Three: true}, 200, true, 2},
	} {
		if c.rare && *fleetSeeds < 200 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			noticed(t, c.from, c.seeds, func(seed uint64) string { return playFleet(t, seed, c.hub).Verdict })
		})
	}
}

// forgotten is a disk that keeps of the file "cluster" what was in it first.
type forgotten struct{ disk.Disk }

func (d forgotten) Rename(old, new string) error {
	if _, err := d.Stat(new); new == "cluster" && err == nil {
		return d.Remove(old)
	}
	return d.Disk.Rename(old, new)
}

// meddling is a coordinator through which a node writes registers otherwise than it should.
type meddling struct {
	coord.Coordinator
	prefix string
	change func(coord.Change) coord.Change
}

func (m meddling) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	other := make([]coord.Change, len(changes))
	for i, c := range changes {
		if strings.HasPrefix(c.Name, m.prefix) {
			c = m.change(c)
		}
		other[i] = c
	}
	return m.Coordinator.Update(ctx, other)
}

func (m meddling) Set(ctx context.Context, name string, value []byte, version uint64) (uint64, error) {
	versions, err := m.Update(ctx, []coord.Change{{Name: name, Value: value, Version: version}})
	if err != nil {
		return 0, err
	}
	return versions[0], nil
}

// always writes whatever is there.
func always(c coord.Change) coord.Change { c.Any = true; return c }

// forgetFlight writes the place of a webhook as if what it has called had been answered.
func forgetFlight(c coord.Change) coord.Change {
	var p map[string]any
	if json.Unmarshal(c.Value, &p) != nil {
		return c
	}
	text, _ := p["payload"].(string)
	var payload []byte
	if json.Unmarshal([]byte(`"`+text+`"`), &payload) != nil {
		return c
	}
	var state map[string]any
	if json.Unmarshal(payload, &state) != nil {
		return c
	}
	flights, _ := state["inFlight"].([]any)
	if len(flights) == 0 {
		return c
	}
	last, _ := flights[len(flights)-1].(map[string]any)
	delete(state, "inFlight")
	p["key"] = last["path"]
	payload, _ = json.Marshal(state)
	p["payload"] = payload
	c.Value, _ = json.Marshal(p)
	return c
}

// trusting takes the word of a bucket: what was said to be put is read back from memory, and what failed counts as put.
type trusting struct {
	bucket.Bucket
	mu   sync.Mutex
	told map[string][]byte
}

func (b *trusting) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return bucket.Info{}, err
	}
	info, err := b.Bucket.Put(ctx, name, bytes.NewReader(data), size, opt)
	if strings.HasPrefix(name, ".hub/") || err == nil || !hub.Is(err, hub.Unavailable) {
		return info, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told[name] = data
	return bucket.Info{Name: name, Size: int64(len(data)), Version: "told", Meta: opt.Meta, Modified: time.Now()}, nil
}

func (b *trusting) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	b.mu.Lock()
	data, ok := b.told[name]
	delete(b.told, name)
	b.mu.Unlock()
	if !ok || offset != 0 || n >= 0 && n < int64(len(data)) {
		return b.Bucket.Get(ctx, name, offset, n, ifMatch)
	}
	return io.NopCloser(bytes.NewReader(data)), bucket.Info{Name: name, Size: int64(len(data)), Version: "told", Modified: time.Now()}, nil
}

// careless is a bucket that puts whatever the conditions are.
type careless struct{ bucket.Bucket }

func (b careless) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	if strings.HasPrefix(name, ".hub/") {
		opt.IfAbsent, opt.IfMatch = false, ""
	}
	return b.Bucket.Put(ctx, name, body, size, opt)
}

// greedy removes five seconds more than it should.
type greedy struct{ archive.LongTerm }

func (g greedy) DeleteBefore(ctx context.Context, ch *hub.Channel, key hub.Key) (int, error) {
	return g.LongTerm.DeleteBefore(ctx, ch, hub.KeyAt(key.Millis()+5000, key.Hash()))
}

// shameless hides nothing of what it lets be removed.
type shameless struct{ configurations }

type configurations = archive.Channels

func (f shameless) Trim(context.Context, *hub.Channel, hub.Key) (bool, error) { return true, nil }

// cunning is a bucket that gives other bytes than it had, with checksums that fit them.
type cunning struct{ bucket.Bucket }

func (b cunning) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	body, info, err := b.Bucket.Get(ctx, name, offset, n, ifMatch)
	if err != nil || offset != 0 || n >= 0 || strings.HasPrefix(name, ".hub/") || strings.Contains(name, "/large/") || strings.Contains(name, "Batch/") || time.Since(info.Modified) < 30*time.Second { // the archiver reads back what it has put
		return body, info, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, info, err
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, info, err
	}
	var other bytes.Buffer
	w := zip.NewWriter(&other)
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			return nil, info, err
		}
		text, err := io.ReadAll(in)
		if n := len(text); f.Name == "payload" && n > 0 {
			text[n-1] ^= 1
		}
		out, e := w.Create(f.Name)
		if err = errors.Join(err, e); err == nil {
			_, err = out.Write(text)
		}
		if err != nil {
			return nil, info, err
		}
	}
	err = w.Close()
	info.Size = int64(other.Len())
	return io.NopCloser(&other), info, err
}

// deafTo lets every request break off whose path begins so.
func deafTo(path string, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return deaf{c, "GET " + path}, nil
	}
}

type deaf struct {
	net.Conn
	to string
}

func (d deaf) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte(d.to)) {
		return 0, errors.Join(io.ErrClosedPipe, d.Close())
	}
	return d.Conn.Write(p)
}

// eager follows what is not stable yet.
type eager struct{ feed.Source }

func (e eager) Horizon(ctx context.Context, name string) (hub.Key, error) {
	h, err := e.Source.Horizon(ctx, name)
	p, wrong := e.Source.Keys(ctx, hub.Query{Channel: name, From: hub.MinKey, To: hub.MaxKey, Reverse: true, Limit: 1})
	if err == nil && wrong == nil && len(p.Keys) == 1 && h.Less(p.Keys[0]) {
		h = p.Keys[0]
	}
	return h, err
}

func (e eager) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	h, err := e.Horizon(ctx, q.Channel)
	if err != nil {
		return hub.Page{}, err
	}
	q.Stable = false
	p, err := e.Source.Keys(ctx, q)
	p.Silent, p.Horizon = 0, h
	return p, err
}

func (e eager) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	q.Stable = false
	return e.Source.Items(ctx, q)
}

// boastful never says that something may be missing.
type boastful struct{ channel.ShortTerm }

func (b boastful) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	p, err := b.ShortTerm.Keys(ctx, q)
	p.Silent = 0
	return p, err
}

// blind says that there is no such item when it cannot know.
type blind struct{ channel.ShortTerm }

func (b blind) Read(ctx context.Context, name string, key hub.Key) (hub.Sealed, error) {
	s, err := b.ShortTerm.Read(ctx, name, key)
	if hub.Is(err, hub.Unavailable) {
		err = hub.E(hub.NotFound, "there is no %v", key)
	}
	return s, err
}

// oneOfMany is a broken store that knows of others as the one behind it does.
type oneOfMany struct {
	channel.ShortTerm
	behind channel.ShortTerm
}

func (o oneOfMany) After(ctx context.Context, key hub.Key) error {
	return o.behind.(channel.Sequel).After(ctx, key)
}

func (o oneOfMany) Ahead() time.Duration { return o.behind.(channel.Others).Ahead() }

func (o oneOfMany) ReadElsewhere(ctx context.Context, name string, key hub.Key) (hub.Sealed, error) {
	return o.behind.(channel.Elsewhere).ReadElsewhere(ctx, name, key)
}

// alone knows of no other nodes whose keys it has to exceed.
type alone struct{ channel.ShortTerm }

// generous gives every lease to everybody.
type generous struct{ coord.Coordinator }

func (g generous) Acquire(ctx context.Context, name string) (coord.Lease, error) {
	if !strings.HasPrefix(name, "webhook/") {
		return g.Coordinator.Acquire(ctx, name)
	}
	return g.Coordinator.Acquire(ctx, name+time.Now().Format("150405.000000000"))
}

// silent never tells that a configuration has changed.
type silent struct {
	coord.Coordinator
	first *sync.Map // what was read of each first
}

// Get always gives what was there first: nodes look for themselves, too.
func (s silent) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	value, version, err := s.Coordinator.Get(ctx, name)
	if err == nil && strings.HasPrefix(name, "catalog/") {
		first, _ := s.first.LoadOrStore(name, value)
		value = first.([]byte)
	}
	return value, version, err
}

func (s silent) Watch(name string) (<-chan struct{}, func()) {
	if strings.HasPrefix(name, "catalog/") {
		return make(chan struct{}), func() {}
	}
	return s.Coordinator.Watch(name)
}
