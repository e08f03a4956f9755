package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
	"timehub/hub/seal"
)

// follower is what somebody who watches holds.
type follower struct {
	wake    chan struct{}
	changed map[string]struct{}
}

// news tells followers of changed names.
type news struct {
	mu  sync.Mutex
	all map[*follower]struct{}
}

func (n *news) watch() (<-chan struct{}, func() []string, func()) {
	f := &follower{wake: make(chan struct{}, 1), changed: map[string]struct{}{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[*follower]struct{}{}
	}
	n.all[f] = struct{}{}
	drain := func() (names []string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for name := range f.changed {
			names = append(names, name)
		}
		clear(f.changed)
		return names
	}
	return f.wake, drain, func() { n.mu.Lock(); defer n.mu.Unlock(); delete(n.all, f) }
}

func (n *news) tell(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.all {
		f.changed[name] = struct{}{}
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// hooks are the stored webhooks.
type hooks struct {
	news
	lock sync.Mutex
	docs map[string]*webhook.Webhook
}

func (h *hooks) Get(_ context.Context, name string) (*webhook.Webhook, error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if w := h.docs[name]; w != nil {
		return w, nil
	}
	return nil, hub.E(hub.NotFound, "no webhook %s", name)
}

func (h *hooks) Cached(context.Context) (all []*webhook.Webhook, err error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	for _, w := range h.docs {
		all = append(all, w)
	}
	return all, nil
}

func (h *hooks) Watch() (<-chan struct{}, func() []string, func()) { return h.watch() }

func (h *hooks) put(w webhook.Webhook) {
	h.lock.Lock()
	h.docs[w.Name] = &w
	h.lock.Unlock()
	h.tell(w.Name)
}

func (h *hooks) remove(name string) {
	h.lock.Lock()
	delete(h.docs, name)
	h.lock.Unlock()
	h.tell(name)
}

// item is a stored one.
type item struct {
	key         hub.Key
	contentType string
	body        string
}

// store is a hub's channels, stable up to now.
type store struct {
	news
	lock     sync.Mutex
	channels map[string]*hub.Channel
	items    map[string][]item
	watches  map[string]map[chan struct{}]struct{}
	fail     error
	queries  int
	sealer   *seal.Sealer
}

func newStore(names ...string) *store {
	s := &store{channels: map[string]*hub.Channel{}, items: map[string][]item{}, watches: map[string]map[chan struct{}]struct{}{}, sealer: seal.New(seal.Options{})}
	for _, n := range names {
		s.create(n)
	}
	return s
}

func (s *store) create(name string) {
	s.lock.Lock()
	s.channels[name] = &hub.Channel{Name: name, CreationDate: time.Now()}
	s.lock.Unlock()
	s.tell(hub.ChannelID(name))
}

func (s *store) drop(name string) {
	s.lock.Lock()
	delete(s.channels, name)
	delete(s.items, name)
	s.lock.Unlock()
	s.tell(hub.ChannelID(name))
}

func (s *store) Channel(_ context.Context, name string) (*hub.Channel, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if c := s.channels[name]; c != nil {
		return c, nil
	}
	return nil, hub.E(hub.NotFound, "no channel %s", name)
}

// add inserts an item now. Keys of one millisecond are numbered.
func (s *store) add(channel, body string) hub.Key {
	s.lock.Lock()
	defer s.lock.Unlock()
	all := s.items[channel]
	ms, n := time.Now().UnixMilli(), 0
	if len(all) > 0 {
		if last := all[len(all)-1].key; last.Millis() >= ms {
			_, _ = fmt.Sscanf(last.Hash(), "%06d", &n)
			ms = last.Millis()
			n++
		}
	}
	k := hub.KeyAt(ms, fmt.Sprintf("%06d", n))
	s.items[channel] = append(all, item{k, "application/json", body})
	for w := range s.watches[channel] {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return k
}

func (s *store) find(q hub.Query) ([]item, bool, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.queries++
	switch {
	case s.fail != nil:
		return nil, false, s.fail
	case s.channels[q.Channel] == nil:
		return nil, false, hub.E(hub.NotFound, "no channel %s", q.Channel)
	}
	all := s.items[q.Channel]
	at := func(k hub.Key) int {
		n, _ := slices.BinarySearchFunc(all, k, func(i item, k hub.Key) int { return i.key.Compare(k) })
		return n
	}
	found := all[at(q.From):max(at(q.From), at(q.To))]
	more := q.Limit > 0 && len(found) > q.Limit
	if more {
		found = found[:q.Limit]
	}
	return slices.Clone(found), more, nil
}

func (s *store) Keys(ctx context.Context, q hub.Query) (hub.Page, error) {
	found, more, err := s.find(q)
	h, _ := s.Horizon(ctx, q.Channel)
	page := hub.Page{More: more, Horizon: h}
	for _, i := range found {
		page.Keys = append(page.Keys, i.key)
	}
	return page, err
}

func (s *store) Items(_ context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		found, _, err := s.find(q)
		if err != nil {
			yield(hub.Sealed{}, err)
			return
		}
		for _, i := range found {
			if !yield(hub.Sealed{Key: i.key, Data: s.sealer.Seal(nil, seal.Meta{ContentType: i.contentType}, []byte(i.body))}, nil) {
				return
			}
		}
	}
}

func (s *store) Horizon(context.Context, string) (hub.Key, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	return hub.Last(time.Now()), s.fail
}

func (s *store) Watch(channel string) (<-chan struct{}, func()) {
	w := make(chan struct{}, 1)
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.watches[channel] == nil {
		s.watches[channel] = map[chan struct{}]struct{}{}
	}
	s.watches[channel][w] = struct{}{}
	return w, func() { s.lock.Lock(); defer s.lock.Unlock(); delete(s.watches[channel], w) }
}

// call is one that arrived at the consumer.
type call struct {
	at   time.Time
	hook string
	path string // of the item, or the period
	uris []string
	kind string
	url  string
	body string
}

// consumer answers calls. answer is asked with the number of calls for the path before.
type consumer struct {
	mu      sync.Mutex
	calls   []call
	times   map[string]int
	running int
	most    int
	answer  func(ctx context.Context, c call, n int) deliver.Outcome
}

var accepted = deliver.Outcome{Status: 200, Reason: "OK"}

func status(n int) deliver.Outcome { return deliver.Outcome{Status: n, Reason: "Said So"} }

func (c *consumer) Post(ctx context.Context, w *webhook.Webhook, m deliver.Message) deliver.Outcome {
	var b bytes.Buffer
	if err := m.WriteBody(&b); err != nil {
		return deliver.Outcome{Err: err}
	}
	var doc struct {
		ID   string
		URIs []string
		Type string
	}
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		panic(err)
	}
	k := call{at: time.Now(), hook: w.Name, path: doc.ID, kind: doc.Type, url: w.CallbackURL, body: b.String()}
	for _, u := range doc.URIs {
		k.uris = append(k.uris, strings.TrimPrefix(u, w.ChannelURL+"/"))
	}
	if k.path == "" {
		k.path = k.uris[0]
	}
	c.mu.Lock()
	n := c.times[k.path]
	c.times[k.path]++
	c.calls = append(c.calls, k)
	c.running++
	c.most = max(c.most, c.running)
	answer := c.answer
	c.mu.Unlock()
	o := accepted
	if answer != nil {
		o = answer(ctx, k, n)
	}
	if ctx.Err() != nil {
		o = deliver.Outcome{Err: context.Cause(ctx)}
	}
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	return o
}

func (c *consumer) set(answer func(ctx context.Context, k call, n int) deliver.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func (c *consumer) all() []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// paths are the paths of all calls.
func (c *consumer) paths() (all []string) {
	for _, k := range c.all() {
		all = append(all, k.path)
	}
	return all
}

// slow takes d, or until ctx ends.
func slow(d time.Duration, o deliver.Outcome) func(context.Context, call, int) deliver.Outcome {
	return func(ctx context.Context, _ call, _ int) deliver.Outcome {
		hub.Sleep(ctx, d)
		return o
	}
}

type diary struct {
	mu  sync.Mutex
	all []attempts.Attempt
}

func (d *diary) Add(_ string, a attempts.Attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, a)
}
func (d *diary) Remove(string) {}

// world is a hub around a Manager, in a bubble.
type world struct {
	t        *testing.T
	hooks    *hooks
	store    *store
	consumer *consumer
	session  *local.Coordinator
	local    *local.Store
	cursors  *coord.Cursors
	diary    *diary
	mu       sync.Mutex
	errors   []string // items of the error channel
	tell     func(n int) error
	told     int
	opt      Options
	m        *Manager
	stop     func()
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, hooks: &hooks{docs: map[string]*webhook.Webhook{}}, store: newStore("c"), consumer: &consumer{times: map[string]int{}},
		local: local.NewMemory(), diary: &diary{},
	}
	w.session = w.local.Session("n")
	w.opt = Options{
		Webhooks: w.hooks, Source: w.store, Channels: w.store, ChannelNews: w.store.watch, Caller: w.consumer, Attempts: w.diary,
		Horizon: hub.Horizon{Auto: true}, Birthday: time.Unix(0, 0),
		Pause: func(_ context.Context, name, born, reason string) error {
			h, err := w.hooks.Get(t.Context(), name)
			if err != nil || h.Born != born {
				return err
			}
			n := *h
			n.Paused, n.PausedReason = true, reason
			w.hooks.put(n)
			return nil
		},
		ErrorItem: func(_ context.Context, channel string, body []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.told++; w.tell != nil {
				if err := w.tell(w.told); err != nil {
					return err
				}
			}
			w.errors = append(w.errors, channel+" "+string(body))
			return nil
		},
	}
	return w
}

// start runs a Manager. Its cursors are new: it knows what was written only.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.opt.Leases = w.session
	if w.cursors, err = coord.NewCursors(coord.CursorsOptions{Registers: w.session, Prefix: webhook.CursorPrefix}); err != nil {
		w.t.Fatal(err)
	}
	w.opt.Cursors = w.cursors
	if w.m, err = New(w.opt); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	m := w.m
	go func() { over <- m.Run(ctx) }()
	w.stop = func() {
		w.t.Helper()
		cancel()
		if err := <-over; err != nil {
			w.t.Errorf("the manager ended with %v", err)
		}
		if m.loops.Wait(); len(m.hooks) != 0 || len(m.absent) != 0 {
			w.t.Errorf("left behind: %v, %v", m.hooks, m.absent)
		}
		w.stop = func() {}
	}
	synctest.Wait()
}

// put stores a webhook that begins now.
func (w *world) put(change func(h *webhook.Webhook)) webhook.Webhook {
	h := webhook.Webhook{
		Name: "w", CallbackURL: "http://consumer/", ChannelURL: "http://hub/channel/c", ParallelCalls: 1, Batch: "SINGLE", MaxWaitMinutes: 1,
		CallbackTimeoutSeconds: 120, Born: "1", Start: hub.NewKey(time.Now(), "initial").String(),
	}
	if change != nil {
		change(&h)
	}
	if u := h.Unit(); u != hub.NoUnit && strings.HasSuffix(h.Start, "initial") {
		h.Start = hub.WindowAt(time.Now(), u).Previous().String()
	}
	w.hooks.put(h)
	time.Sleep(time.Millisecond) // items of this millisecond may lie below the start
	return h
}

// live is where the webhook stands, by the loop, or else by the cursor.
func (w *world) live() webhook.Live {
	w.t.Helper()
	if l, ok := w.m.Live(w.t.Context(), "w"); ok {
		return l
	}
	h, err := w.hooks.Get(w.t.Context(), "w")
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.cursors.Get(w.t.Context(), "w")
	if err != nil {
		w.t.Fatal(err)
	}
	key, s, _, err := h.At(p)
	if err != nil {
		w.t.Fatal(err)
	}
	return webhook.Live{Born: s.Born, Cursor: key, State: s}
}

// adds inserts n items, a moment apart, and returns their paths.
func (w *world) adds(n int) (paths []string) {
	for i := range n {
		time.Sleep(time.Millisecond)
		paths = append(paths, w.store.add("c", fmt.Sprintf(`{"n":%d}`, i)).String())
	}
	return paths
}

func (w *world) want(what string, got, want any) {
	w.t.Helper()
	if g, x := fmt.Sprint(got), fmt.Sprint(want); g != x {
		w.t.Fatalf("%s: got\n%.2000s\nwant\n%.2000s", what, g, x)
	}
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan struct{})
		go func() { defer close(over); _ = w.session.Run(ctx) }()
		w.start()
		defer func() { w.stop(); cancel(); <-over }()
		fn(w)
	})
}

// now is how many calls run, atOnce how many ever did at the same time.
func (c *consumer) now() int    { c.mu.Lock(); defer c.mu.Unlock(); return c.running }
func (c *consumer) atOnce() int { c.mu.Lock(); defer c.mu.Unlock(); return c.most }

// count is how often a path was called.
func (c *consumer) count(path string) int { c.mu.Lock(); defer c.mu.Unlock(); return c.times[path] }

func (s *store) asked() int { s.lock.Lock(); defer s.lock.Unlock(); return s.queries }

func (d *diary) list() []attempts.Attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}
