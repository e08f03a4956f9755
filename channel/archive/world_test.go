package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/channel"
	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
	"timehub/hub/disk"
	"timehub/hub/seal"
)

var errDamaged = errors.New("damaged")

// world is everything around the jobs: a log, configurations, a bucket and a coordinator in memory. It outlives the jobs, which can be killed.
type world struct {
	t      *testing.T
	sealer *seal.Sealer
	bucket *mem.Bucket
	long   *longterm.Store
	store  *local.Store

	mu       sync.Mutex // guards what follows
	items    map[string][]hub.Sealed
	damaged  map[hub.Key]bool
	hidden   map[hub.Key]bool
	channels map[string]*hub.Channel // by display name
	stale    map[string]*hub.Channel // what this node's memory holds instead, until it reads afresh; nil: no such channel
	remains  []channel.Remains
	held     hub.Key // the horizon stands here; zero: it follows the clock
	markers  map[string]hub.Key
	last     time.Time
	followed map[*follower]bool
	reads    int // of the log
	fault    func(mem.Call) mem.Fault
	calls    map[mem.Verb]int
	step     func() // called at each step that changes anything

	onStep func(*node) // makes the step of the next node that starts
}

type follower struct {
	wake    chan struct{}
	changed map[string]bool
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, sealer: seal.New(seal.Options{}), store: local.NewMemory(), items: map[string][]hub.Sealed{}, damaged: map[hub.Key]bool{},
		hidden: map[hub.Key]bool{}, channels: map[string]*hub.Channel{}, markers: map[string]hub.Key{}, followed: map[*follower]bool{}, calls: map[mem.Verb]int{},
	}
	w.bucket = mem.New(mem.Options{Fault: w.hook})
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if w.long, err = longterm.New(longterm.Options{Bucket: w.bucket, Sealer: w.sealer, Temp: d}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) hook(c mem.Call) mem.Fault {
	w.mu.Lock()
	w.calls[c.Verb]++
	fault, step := w.fault, w.step
	w.mu.Unlock()
	if step != nil && (c.Verb == mem.Put || c.Verb == mem.Delete) {
		step()
	}
	if fault == nil {
		return mem.Fault{}
	}
	return fault(c)
}

func (w *world) set(fault func(mem.Call) mem.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

func (w *world) count(v mem.Verb) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[v]
}

// hide lets nobody see an item.
func (w *world) hide(k hub.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hidden[k] = true
}

// damage makes an item unreadable.
func (w *world) damage(k hub.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.damaged[k] = true
}

// readings is how often the log was read.
func (w *world) readings() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reads
}

// channel makes a configuration.
func (w *world) channel(name string, s hub.Storage, change ...func(*hub.Channel)) *hub.Channel {
	ch := &hub.Channel{Name: name, Storage: s}
	for _, f := range change {
		f(ch)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.channels[name] = ch
	return ch
}

// insert writes an item of this moment, and wakes.
func (w *world) insert(name, body string) hub.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().Truncate(time.Millisecond)
	if !w.last.Before(now) {
		now = w.last.Add(time.Millisecond)
	}
	w.last = now // the horizon: the item has to be there when the lock is let go
	k := hub.NewKey(now, "hash00")
	w.add(name, k, body)
	return k
}

// put writes an item under a key.
func (w *world) put(name string, k hub.Key, body string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(name, k, body)
}

// complete moves the marker of a replicated channel, and wakes.
func (w *world) complete(name string, upTo hub.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.markers[name] = upTo
	w.tell(name)
}

func (w *world) add(name string, k hub.Key, body string) {
	data := w.sealer.Seal(nil, seal.Meta{ContentType: "text/plain", Created: k.Millis()}, []byte(body))
	all := w.items[name]
	i, _ := slices.BinarySearchFunc(all, k, func(s hub.Sealed, k hub.Key) int { return s.Key.Compare(k) })
	w.items[name] = slices.Insert(all, i, hub.Sealed{Key: k, Data: data})
	w.tell(name)
}

func (w *world) tell(name string) {
	for f := range w.followed {
		f.changed[name] = true
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// Channels of ShortTerm.
type short struct{ *world }

func (w short) Channels(ctx context.Context) (map[string]hub.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]hub.Key{}
	for name, items := range w.items {
		all[name] = items[len(items)-1].Key
	}
	return all, ctx.Err()
}

func (w short) Changes() (<-chan struct{}, func() []string, func()) {
	f := &follower{wake: make(chan struct{}, 1), changed: map[string]bool{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followed[f] = true
	drain := func() []string {
		w.mu.Lock()
		defer w.mu.Unlock()
		var names []string
		for name := range f.changed {
			names = append(names, name)
		}
		clear(f.changed)
		return names
	}
	return f.wake, drain, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.followed, f)
	}
}

func (w short) Complete(channel string) (hub.Key, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, ok := w.markers[channel]
	return k, ok
}

func (w short) Horizon(ctx context.Context) (hub.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	if !w.held.IsZero() {
		return w.held, ctx.Err()
	}
	now := time.Now()
	if w.last.After(now) {
		now = w.last
	}
	return hub.Last(now), ctx.Err()
}

func (w short) Minute(ctx context.Context, name string, minute time.Time) (count int, digest uint64, err error) {
	m := hub.WindowAt(minute, hub.Minute)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.items[name] {
		if !i.Key.Less(m.From()) && i.Key.Less(m.To()) {
			count++
			digest += i.Key.Digest()
		}
	}
	return count, digest, ctx.Err()
}

// Keys and Items are those of Source.
type source struct{ *world }

func (w source) visible(q hub.Query) (found []hub.Sealed, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	ch := w.channels[q.Channel]
	if ch == nil {
		return nil, hub.E(hub.NotFound, "no channel %s", q.Channel)
	}
	if q.Stable && !w.held.IsZero() && w.held.Less(q.To) {
		q.To = w.held.After()
	}
	for _, i := range w.items[q.Channel] {
		if !i.Key.Less(q.From) && i.Key.Less(q.To) && !w.hidden[i.Key] && i.Key.Millis() >= ch.Since {
			found = append(found, i)
		}
	}
	if q.Reverse {
		slices.Reverse(found)
	}
	return found, nil
}

func (w source) Keys(ctx context.Context, q hub.Query) (p hub.Page, err error) {
	found, err := w.visible(q)
	for _, i := range found {
		if p.More = q.Limit > 0 && len(p.Keys) == q.Limit; p.More {
			break
		}
		p.Keys = append(p.Keys, i.Key)
	}
	return p, errors.Join(err, ctx.Err())
}

func (w source) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		found, err := w.visible(q)
		if err != nil {
			yield(hub.Sealed{}, err)
			return
		}
		for n, i := range found {
			if q.Limit > 0 && n == q.Limit {
				return
			}
			w.mu.Lock()
			bad := w.damaged[i.Key]
			w.mu.Unlock()
			if bad || ctx.Err() != nil {
				err := ctx.Err()
				if bad {
					err = fmt.Errorf("read %s: %w", i.Key, errDamaged)
				}
				yield(hub.Sealed{}, err)
				return
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

// configurations are those of Channels.
type configurations struct{ *world }

func (w configurations) Channel(ctx context.Context, name string) (*hub.Channel, error) {
	w.mu.Lock()
	old, stale := w.stale[name]
	w.mu.Unlock()
	switch {
	case !stale:
		return w.Fresh(ctx, name)
	case old == nil:
		return nil, hub.E(hub.NotFound, "channel %s not found", name)
	}
	return old, nil
}

// heard lets this node's memory hold what is.
func (w *world) heard(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stale, name)
}

func (w configurations) Fresh(_ context.Context, name string) (*hub.Channel, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stale, name)
	if ch := w.channels[name]; ch != nil {
		return ch, nil
	}
	for _, ch := range w.channels {
		if hub.ChannelID(ch.Name) == hub.ChannelID(name) {
			return ch, nil
		}
	}
	return nil, hub.E(hub.NotFound, "channel %s not found", name)
}

func (w configurations) Channels(context.Context) (all []*hub.Channel, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.channels {
		all = append(all, ch)
	}
	return all, nil
}

func (w configurations) Remains(context.Context) ([]channel.Remains, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.remains), nil
}

func (w configurations) Cleaned(_ context.Context, r channel.Remains) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remains = slices.DeleteFunc(w.remains, func(o channel.Remains) bool { return o.Channel.Name == r.Channel.Name && o.Until == r.Until })
	return nil
}

func (w configurations) Trim(_ context.Context, ch *hub.Channel, below hub.Key) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.channels[ch.Name]
	if now == nil || now.MaxItems != ch.MaxItems {
		return false, nil
	}
	next := now.Clone()
	next.Trimmed = below.String()
	w.channels[ch.Name] = next
	return true, nil
}

// registers call step at each write.
type registers struct {
	coord.Coordinator
	w *world
}

func (r registers) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	r.w.mu.Lock()
	step := r.w.step
	r.w.mu.Unlock()
	if step != nil {
		step()
	}
	return r.Coordinator.Update(ctx, changes)
}

// node is one process with jobs.
type node struct {
	*Jobs
	w       *world
	session *local.Coordinator
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error
}

// start runs jobs on the world.
func (w *world) start(change ...func(*Options)) *node {
	w.t.Helper()
	session := w.store.Session("node")
	o := Options{
		Short: short{w}, Source: source{w}, Long: w.long, Channels: configurations{w}, Leases: session, Registers: registers{session, w},
		Damaged: func(err error) bool { return errors.Is(err, errDamaged) }, VerifyEvery: -1, RetainEvery: -1, CleanEvery: -1,
	}
	for _, f := range change {
		f(&o)
	}
	j, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Jobs: j, w: w, session: session, cancel: cancel, ended: make(chan struct{})}
	if w.onStep != nil {
		w.mu.Lock()
		w.step = func() { w.onStep(n) }
		w.mu.Unlock()
	}
	go func() {
		defer close(n.ended)
		n.err = j.Run(ctx)
	}()
	return n
}

// stop ends the process in order.
func (n *node) stop() {
	n.w.t.Helper()
	n.cancel()
	<-n.ended
	n.w.store.Cut(n.session)
	if n.err != nil {
		n.w.t.Errorf("the jobs ended with %v", n.err)
	}
}

// kill ends the process as a crash would: nothing that it still wants to write gets through.
func (n *node) kill() {
	n.w.store.Cut(n.session)
	n.cancel()
	<-n.ended
}

// whole checks that long-term storage has everything that is visible, byte for byte.
func (w *world) whole(names ...string) {
	w.t.Helper()
	ctx := context.Background()
	for _, name := range names {
		w.mu.Lock()
		ch := w.channels[name]
		w.mu.Unlock()
		want, err := source{w}.visible(hub.Query{Channel: name, From: hub.MinKey, To: hub.MaxKey})
		if err != nil {
			w.t.Fatal(err)
		}
		want = slices.DeleteFunc(want, func(i hub.Sealed) bool { return w.damaged[i.Key] })
		for _, layout := range layouts(ch) {
			tier := hub.LongTermSingle
			if layout == hub.Batch {
				tier = hub.LongTermBatch
			}
			var got []hub.Sealed
			for i, err := range w.long.Items(ctx, ch, hub.Query{Channel: name, From: hub.MinKey, To: hub.MaxKey, Tier: tier}) {
				if err != nil {
					w.t.Fatal(err)
				}
				got = append(got, i)
			}
			if len(got) != len(want) {
				w.t.Fatalf("channel %s: %s holds %d items of %d", name, layout, len(got), len(want))
			}
			for n := range want {
				if got[n].Key != want[n].Key || w.body(got[n]) != w.body(want[n]) {
					w.t.Fatalf("channel %s: %s holds %s, want %s", name, layout, got[n].Key, want[n].Key)
				}
			}
		}
	}
}

func (w *world) body(i hub.Sealed) string {
	w.t.Helper()
	e, err := seal.Parse(i.Data)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := w.sealer.Open(nil, e)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (n *node) archivedTo(name string, at hub.Key) {
	n.w.t.Helper()
	if k, ok := n.Archived(name); !ok || k.Less(at) {
		n.w.t.Fatalf("channel %s is archived up to %v, %v; want at least %v", name, k, ok, at)
	}
}

// names lists the bucket.
func (w *world) names(contains string) (all []string) {
	w.t.Helper()
	for n := range w.bucket.Dump() {
		if strings.Contains(n, contains) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// bubble runs a test in virtual time, from the start of a minute.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
