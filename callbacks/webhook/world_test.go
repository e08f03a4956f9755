package webhook

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/hub"
	"timehub/hub/bucket/mem"
	"timehub/hub/catalog"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// world is a Service over a real catalog and real cursors in memory, and channels that the test makes up.
type world struct {
	t        *testing.T
	bucket   *mem.Bucket
	session  coord.Coordinator
	catalog  *catalog.Catalog[Webhook]
	cursors  *coord.Cursors
	channels *channels
	runs     *runs
	diary    *diary
	svc      *Service
}

var testTime = time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC)

func newWorld(t *testing.T, edit func(*Options)) *world {
	t.Helper()
	w := &world{t: t, bucket: mem.New(mem.Options{}), session: local.NewMemory().Session("a")}
	w.channels = &channels{now: testTime, all: map[string]*hub.Channel{}, keys: map[string][]hub.Key{}}
	w.runs, w.diary = &runs{live: map[string]Live{}}, &diary{failed: map[string][]string{}}
	w.node(edit)
	return w
}

// node makes another node's service over the same store.
func (w *world) node(edit func(*Options)) *Service {
	w.t.Helper()
	var err error
	if w.catalog, err = catalog.Open[Webhook](w.t.Context(), catalog.Options{Bucket: w.bucket, Prefix: ".hub/webhooks/"}); err != nil {
		w.t.Fatal(err)
	}
	if w.cursors, err = coord.NewCursors(coord.CursorsOptions{Registers: w.session, Prefix: CursorPrefix}); err != nil {
		w.t.Fatal(err)
	}
	o := Options{
		Catalog: w.catalog, Cursors: w.cursors, Channels: w.channels, MakeChannel: w.channels.make, Runs: w.runs, Attempts: w.diary,
		Clock: func() time.Time { return w.channels.time() },
		Rules: Rules{CheckOrder: func(text string) error {
			if strings.HasPrefix(text, ".") {
				return nil
			}
			return hub.E(hub.Invalid, "orderBy is no jq expression")
		}},
	}
	if edit != nil {
		edit(&o)
	}
	if w.svc, err = New(o); err != nil {
		w.t.Fatal(err)
	}
	return w.svc
}

// put puts a body and returns what came of it.
func (w *world) put(name, body string) (*Webhook, bool, error) {
	w.t.Helper()
	p, err := ParsePatch([]byte(body))
	if err != nil {
		return nil, false, err
	}
	return w.svc.Put(w.t.Context(), name, p)
}

func (w *world) mustPut(name, body string) *Webhook {
	w.t.Helper()
	h, _, err := w.put(name, body)
	if err != nil {
		w.t.Fatalf("PUT %s %s: %v", name, body, err)
	}
	return h
}

func (w *world) status(name string) Status {
	w.t.Helper()
	s, err := w.svc.Status(w.t.Context(), name)
	if err != nil {
		w.t.Fatalf("status of %s: %v", name, err)
	}
	return s
}

// moved is what a leader does: it stands at a place with a state of the present life.
func (w *world) moved(name string, at hub.Key, s State) {
	w.t.Helper()
	h, err := w.svc.Get(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Born = h.Born
	payload, err := s.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.cursors.Reset(w.t.Context(), name, at, payload); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) names() []string {
	w.t.Helper()
	all, err := w.svc.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, h := range all {
		names = append(names, h.Name)
	}
	return names
}

// channels are made up by the test.
type channels struct {
	mu   sync.Mutex
	now  time.Time
	all  map[string]*hub.Channel // by hub.ChannelID
	keys map[string][]hub.Key    // ascending
	made []string
	fail error
}

func (c *channels) time() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *channels) add(name string, tags ...string) *hub.Channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := &hub.Channel{Name: name, Tags: tags}
	c.all[hub.ChannelID(name)] = ch
	return ch
}

func (c *channels) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, hub.ChannelID(name))
}

func (c *channels) insert(name string, keys ...hub.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[hub.ChannelID(name)] = append(c.keys[hub.ChannelID(name)], keys...)
}

func (c *channels) make(_ context.Context, name string) error {
	c.add(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, name)
	return nil
}

func (c *channels) Channel(_ context.Context, name string) (*hub.Channel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.all[hub.ChannelID(name)]; ch != nil {
		return ch, nil
	}
	return nil, hub.E(hub.NotFound, "channel %s not found", name)
}

func (c *channels) Channels(context.Context) ([]*hub.Channel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*hub.Channel
	for _, ch := range c.all {
		all = append(all, ch)
	}
	return all, c.fail
}

func (c *channels) TagChannels(ctx context.Context, tag string) ([]*hub.Channel, error) {
	all, err := c.Channels(ctx)
	return slices.DeleteFunc(all, func(ch *hub.Channel) bool { return !ch.HasTag(tag) }), err
}

func (c *channels) Keys(_ context.Context, q hub.Query) (hub.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var p hub.Page
	all := slices.Clone(c.keys[hub.ChannelID(q.Channel)])
	if q.Reverse {
		slices.Reverse(all)
	}
	for _, k := range all {
		if !k.Less(q.From) && k.Less(q.To) && (q.Limit == 0 || len(p.Keys) < q.Limit) {
			p.Keys = append(p.Keys, k)
		}
	}
	return p, c.fail
}

func (c *channels) Stable(context.Context, *hub.Channel) (now, stable time.Time, err error) {
	t := c.time()
	return t, t.Add(-2 * time.Second).Truncate(time.Second), nil
}

func (c *channels) Now(context.Context) (hub.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return hub.NewKey(c.now, "initial"), c.fail
}

// runs stands for those who deliver.
type runs struct {
	mu      sync.Mutex
	live    map[string]Live
	stopped []string
	ranges  []Range
	fail    error
	stop    func() // called by Stop
}

func (r *runs) Live(_ context.Context, name string) (Live, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.live[name]
	return l, ok
}

func (r *runs) Replay(_ context.Context, _ string, x Range) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ranges = append(r.ranges, x)
	return max(1, len(x.Keys)), r.fail
}

func (r *runs) Stop(_ context.Context, name string) error {
	r.mu.Lock()
	r.stopped = append(r.stopped, name)
	stop := r.stop
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
	return r.fail
}

type diary struct {
	mu      sync.Mutex
	failed  map[string][]string
	removed []string
}

func (d *diary) Failed(name string) ([]string, error) { return d.failed[name], nil }

func (d *diary) Remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removed = append(d.removed, name)
}

var errTest = errors.New("made by the test")
