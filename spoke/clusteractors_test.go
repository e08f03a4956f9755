package spoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// Those who use the nodes of a simWorld: writers, readers, followers, a source that is replicated, an archiver. What they see goes to the judge.

const (
	replica  = "r" // the channel that has a source
	feedLate = 4 * time.Second
)

var liveChannels = []string{"a", "b"}

// simCoordinator is a session as a process sees it that may be frozen: calls take their time, also on the way back.
type simCoordinator struct {
	*local.Coordinator
	n *simNode
}

func (c *simCoordinator) way(ctx context.Context) {
	if d := c.n.w.calls; d > 0 {
		hub.Sleep(ctx, rand.N(d))
	}
	c.n.wait(ctx.Done())
}

func (c *simCoordinator) Get(ctx context.Context, name string) ([]byte, uint64, error) {
	c.way(ctx)
	defer c.way(ctx)
	return c.Coordinator.Get(ctx, name)
}

func (c *simCoordinator) Set(ctx context.Context, name string, value []byte, version uint64) (uint64, error) {
	c.way(ctx)
	defer c.way(ctx)
	return c.Coordinator.Set(ctx, name, value, version)
}

func (c *simCoordinator) Update(ctx context.Context, changes []coord.Change) ([]uint64, error) {
	c.way(ctx)
	defer c.way(ctx)
	ended := c.n.w.judge.closing(changes)
	versions, err := c.Coordinator.Update(ctx, changes)
	ended(err)
	return versions, err
}

func (c *simCoordinator) Join(ctx context.Context, group, name string, value []byte) error {
	c.way(ctx)
	defer c.way(ctx)
	return c.Coordinator.Join(ctx, group, name, value)
}

func (c *simCoordinator) Replace(ctx context.Context, group, name string, old, value []byte) error {
	c.way(ctx)
	defer c.way(ctx)
	return c.Coordinator.Replace(ctx, group, name, old, value)
}

func (c *simCoordinator) List(ctx context.Context, group string) ([]coord.Member, uint64, error) {
	c.way(ctx)
	defer c.way(ctx)
	return c.Coordinator.List(ctx, group)
}

// archive is long-term storage, and how far it is. It is right whatever happens.
type archive struct {
	mu     sync.Mutex
	keys   map[string][]hub.Key
	data   map[string]map[hub.Key]string
	cursor map[string]hub.Key
}

func newArchive() *archive {
	return &archive{keys: map[string][]hub.Key{}, data: map[string]map[hub.Key]string{}, cursor: map[string]hub.Key{}}
}

func (a *archive) archived(channel string) (hub.Key, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.cursor[channel]; ok {
		return k, true
	}
	return hub.MinKey, true
}

func (a *archive) has(channel string, key hub.Key) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.data[channel][key]
	return ok
}

// confirm is what the sweep asks about a late item: long-term storage has it, or is given it.
func (n *simNode) confirm(channel string, key hub.Key) bool {
	w := n.w
	if w.past.has(channel, key) {
		return true
	}
	node, life := w.current(n)
	if node == nil {
		return false
	}
	item, err := node.Read(context.Background(), channel, key)
	if _, now := w.current(n); err != nil || now != life {
		return false
	}
	w.past.take(channel, []hub.Sealed{{Key: key, Data: bytes.Clone(item.Data)}}, hub.MinKey)
	return true
}

// take stores what follows the cursor, and moves it.
func (a *archive) take(channel string, items []hub.Sealed, upTo hub.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.data[channel] == nil {
		a.data[channel] = map[hub.Key]string{}
	}
	for _, item := range items {
		if _, ok := a.data[channel][item.Key]; !ok {
			a.keys[channel], a.data[channel][item.Key] = append(a.keys[channel], item.Key), string(item.Data)
		}
	}
	slices.SortFunc(a.keys[channel], hub.Key.Compare)
	if a.cursor[channel].Less(upTo) {
		a.cursor[channel] = upTo
	}
}

// with adds to the keys of a node those that lie below its floor: what the layer above reads from long-term storage.
func (a *archive) with(channel string, keys []hub.Key, from, to, floor hub.Key) []hub.Key {
	if floor.Less(to) {
		to = floor
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	all := slices.Clone(keys)
	for _, k := range a.keys[channel] {
		if !k.Less(from) && k.Less(to) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, hub.Key.Compare)
	return slices.Compact(all)
}

// stableKeys is a stable answer as the layers above spoke give it: with what was swept, and of a replica up to its marker.
func (w *simWorld) stableKeys(node *Node, ch string, from hub.Key) (hub.Page, error) {
	q := hub.Query{Channel: ch, From: from, To: hub.MaxKey, Stable: true}
	if ch == replica {
		if _, err := node.Horizon(context.Background()); err != nil {
			return hub.Page{}, err
		}
		if marker, ok := node.Complete(ch); ok && from.Less(marker) {
			q.To = marker.After()
		} else {
			return hub.Page{Horizon: hub.MinKey}, nil
		}
	}
	page, err := node.Keys(context.Background(), q)
	if err != nil {
		return page, err
	}
	if ch == replica {
		page.Horizon = hub.KeyAt(q.To.Millis(), strings.TrimSuffix(q.To.Hash(), "\x00"))
	}
	page.Keys = w.past.with(ch, page.Keys, from, page.Horizon.After(), node.Floor(ch))
	return page, nil
}

// people are those who use one node: they stay with it.
func (w *simWorld) people(n *simNode) {
	for i := range 2 {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), 2))
		w.actors.Go(func() { w.writer(n, i, rng) })
	}
	seed := w.rng.Uint64()
	w.actors.Go(func() { w.reader(n, rand.New(rand.NewPCG(seed, 3))) })
	for _, ch := range []string{"a", replica} {
		w.actors.Go(func() { w.follower(n, ch, rand.New(rand.NewPCG(seed, 4))) })
	}
}

// crowd are those who go from node to node.
func (w *simWorld) crowd() {
	seed := w.rng.Uint64()
	for i := range 2 {
		w.actors.Go(func() { w.hopper(i, rand.New(rand.NewPCG(seed, uint64(5+i)))) })
	}
	if w.traits.replica {
		w.actors.Go(func() { w.source(rand.New(rand.NewPCG(seed, 8))) })
	}
	w.actors.Go(func() { w.archiver(rand.New(rand.NewPCG(seed, 9))) })
}

// rest waits a while; false: it is over.
func (w *simWorld) rest(d time.Duration) bool {
	select {
	case <-w.over:
		return false
	case <-time.After(d):
		return true
	}
}

// some is any node that runs.
func (w *simWorld) some(rng *rand.Rand) (*simNode, *Node, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.nodes) == 0 {
		return nil, nil, 0
	}
	n := w.nodes[rng.IntN(len(w.nodes))]
	return n, n.node, n.life
}

// simLoad is what a writer sends.
type simLoad struct {
	ch   string
	data []string
}

func someLoad(id string, rng *rand.Rand) simLoad {
	l := simLoad{ch: liveChannels[rng.IntN(2)]}
	parts := 1
	if rng.IntN(5) == 0 {
		parts = 2 + rng.IntN(4)
	}
	fill := ""
	if rng.IntN(10) == 0 {
		fill = strings.Repeat("x", rng.IntN(20_000))
	}
	for range parts {
		l.data = append(l.data, fmt.Sprintf("%s of %d %s", id, parts, fill))
	}
	return l
}

// send writes a simLoad to a node and tells the judge. The last key is zero if nothing was minted.
func (w *simWorld) send(n *simNode, node *Node, life int, l simLoad, rng *rand.Rand) (key, last hub.Key, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	if rng.IntN(30) == 0 {
		cancel() // a client that goes away
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(rng.IntN(20))*time.Millisecond)
	}
	defer cancel()
	began := time.Now()
	w.judge.offers(l.ch, l.data...)
	var keys []hub.Key
	if len(l.data) == 1 {
		key, err = node.Write(ctx, l.ch, []byte(l.data[0]))
		keys = append(keys, key)
	} else {
		sealed := make([][]byte, len(l.data))
		for i := range sealed {
			sealed[i] = bytes.Clone([]byte(l.data[i]))
		}
		key, err = node.WriteBulk(ctx, l.ch, sealed)
		for i := range sealed {
			keys = append(keys, hub.BulkKey(key, i))
		}
	}
	if err != nil && !hub.Is(err, hub.Unavailable) && !hub.Is(err, hub.Full) && !errors.Is(err, context.DeadlineExceeded) {
		w.judge.fail("%s: a write ended with %v", n.name, err)
	}
	if key == (hub.Key{}) {
		w.judge.refused()
		return key, key, err
	}
	_, now := w.current(n)
	w.judge.wrote(n.name, l.ch, keys, l.data, err, now == life, began)
	return keys[0], keys[len(keys)-1], err
}

// writer writes items and bulks to one node, one after the other: its keys rise.
func (w *simWorld) writer(n *simNode, number int, rng *rand.Rand) {
	last := hub.MinKey
	for i := 0; w.rest(time.Duration(rng.IntN(600)) * time.Millisecond); i++ {
		node, life := w.current(n)
		if node == nil {
			continue
		}
		key, end, _ := w.send(n, node, life, someLoad(fmt.Sprintf("%s/%d/%d", n.name, number, i), rng), rng)
		if key.IsZero() {
			continue
		}
		if !last.Less(key) {
			w.judge.fail("%s gave %v after %v", n.name, key, last)
		}
		last = end
	}
}

// hopper writes to any node, and says after which key: its keys rise, too.
func (w *simWorld) hopper(number int, rng *rand.Rand) {
	last := hub.MinKey
	for i := 0; w.rest(time.Duration(rng.IntN(600)) * time.Millisecond); i++ {
		n, node, life := w.some(rng)
		if node == nil {
			continue
		}
		if !last.IsZero() && last != hub.MinKey {
			if err := node.After(context.Background(), last); err != nil {
				continue // ahead of its clock, or it is on its way down
			}
		}
		key, end, err := w.send(n, node, life, someLoad(fmt.Sprintf("hop/%d/%d", number, i), rng), rng)
		if key.IsZero() {
			continue
		}
		if !last.Less(key) {
			w.judge.fail("%s gave %v after %v, which was sent with Hub-After", n.name, key, last)
		}
		if err == nil {
			last = end
		}
	}
}

// reader asks one node.
func (w *simWorld) reader(n *simNode, rng *rand.Rand) {
	for w.rest(time.Duration(rng.IntN(600)) * time.Millisecond) {
		node, life := w.current(n)
		if node == nil {
			continue
		}
		ch := []string{"a", "b", replica}[rng.IntN(3)]
		same := func() bool { _, now := w.current(n); return now == life }
		switch rng.IntN(6) {
		case 0, 1, 2:
			page, err := w.stableKeys(node, ch, hub.MinKey)
			if !same() || !w.bearable(n, "a stable read", err) || err != nil {
				continue
			}
			w.judge.answer(n.name, ch, page, true)
			if len(page.Keys) > 0 {
				w.readItem(n, node, life, ch, page.Keys[rng.IntN(len(page.Keys))], rng)
			}
		case 3:
			if ch != replica {
				w.readWindow(n, node, life, ch, rng)
			}
		case 4:
			w.readUnstable(n, node, life, ch, rng)
		case 5:
			if k, ok := w.judge.someAcked(ch, rng); ok {
				w.readItem(n, node, life, ch, k, rng)
			}
		}
	}
}

// bearable reports whether an error is one that a reader may see.
func (w *simWorld) bearable(n *simNode, what string, err error) bool {
	if err != nil && !hub.Is(err, hub.Unavailable) && !hub.Is(err, hub.Internal) {
		w.judge.fail("%s: %s ended with %v", n.name, what, err)
	}
	return err == nil || hub.Is(err, hub.Unavailable) || hub.Is(err, hub.Internal)
}

// readItem reads what was acknowledged, or shown as stable: it is there, or not known to be.
func (w *simWorld) readItem(n *simNode, node *Node, life int, ch string, k hub.Key, _ *rand.Rand) {
	item, err := node.Read(context.Background(), ch, k)
	if _, now := w.current(n); now != life {
		return
	}
	if hub.Is(err, hub.NotFound) && k.Less(node.Floor(ch)) { // as the layers above do it
		if w.past.has(ch, k) {
			return
		}
		if ch == replica {
			item, err = node.ReadElsewhere(context.Background(), ch, k)
		}
	}
	if _, now := w.current(n); now != life {
		return
	}
	if hub.Is(err, hub.NotFound) {
		w.whereIs(ch, k)
	}
	w.judge.item(n.name, ch, k, item, err)
}

// whereIs tells the story of an item that is missing somewhere.
func (w *simWorld) whereIs(ch string, k hub.Key) {
	cursor, _ := w.past.archived(ch)
	w.note("%v of %s: archived %v, up to %v", k, ch, w.past.has(ch, k), cursor)
	for _, n := range w.living() {
		if node, _ := w.current(n); node != nil {
			_, err := node.store.Get(context.Background(), ch, k)
			h, known := node.Horizon(context.Background())
			w.note("   %s: %v; floor %v, horizon %v %v", n.name, err, node.store.Floor(), h, known)
		}
	}
}

// readWindow asks for some stable keys before or after one.
func (w *simWorld) readWindow(n *simNode, node *Node, life int, ch string, rng *rand.Rand) {
	floor := node.Floor(ch)
	q := hub.Query{Channel: ch, From: hub.MinKey, To: hub.MaxKey, Stable: true, Limit: 1 + rng.IntN(8), Reverse: rng.IntN(2) == 0}
	if k, ok := w.judge.someAcked(ch, rng); ok {
		switch rng.IntN(3) {
		case 0:
			q.From = k.After()
		case 1:
			q.To = k
		}
	}
	if q.From.Less(floor) {
		q.From = floor
	}
	page, err := node.Keys(context.Background(), q)
	if _, now := w.current(n); now != life || !w.bearable(n, "a search", err) || err != nil || q.From.Less(node.Floor(ch)) {
		return
	}
	w.judge.window(n.name, q, page)
}

// readUnstable asks for everything: what was acknowledged before is there, or the answer says that it may lack something.
func (w *simWorld) readUnstable(n *simNode, node *Node, life int, ch string, rng *rand.Rand) {
	q := hub.Query{Channel: ch, From: hub.MinKey, To: hub.MaxKey, Reverse: rng.IntN(2) == 0, Keyed: ch == replica}
	if rng.IntN(2) == 0 {
		q.From = hub.KeyAt(time.Now().Add(-5*time.Second).UnixMilli(), "")
	}
	known := w.judge.ackedSoFar(ch)
	page, err := node.Keys(context.Background(), q)
	if _, now := w.current(n); now != life || !w.bearable(n, "an unstable read", err) || err != nil {
		return
	}
	if q.Reverse {
		slices.Reverse(page.Keys)
	}
	page.Keys = w.past.with(ch, page.Keys, q.From, q.To, node.Floor(ch))
	w.judge.unstable(n.name, q, page, known)
}

// follower follows a channel on one node, from the first item on: it gets each once, in order, and is woken for it.
func (w *simWorld) follower(n *simNode, ch string, rng *rand.Rand) {
	cursor := hub.MinKey
	for w.rest(time.Duration(rng.IntN(500)) * time.Millisecond) {
		if node, life := w.current(n); node != nil {
			cursor = w.follow(n, node, life, ch, cursor)
		}
	}
}

// follow is one life of a feed.
func (w *simWorld) follow(n *simNode, node *Node, life int, ch string, cursor hub.Key) hub.Key {
	wake, stop := node.Watch(ch)
	defer stop()
	woken := true
	for {
		page, err := w.stableKeys(node, ch, cursor.After())
		if _, now := w.current(n); now != life || err != nil {
			return cursor
		}
		if len(page.Keys) > 0 {
			if !woken { // what it was late for may have come in this moment
				select {
				case <-wake:
				case <-time.After(feedLate):
					if _, now := w.current(n); now == life {
						w.judge.fail("%s has shown %v of %s and did not wake who follows it", n.name, page.Keys, ch)
					}
					return cursor
				}
			}
			w.judge.fed(n.name, ch, cursor, page)
			cursor = page.Keys[len(page.Keys)-1]
		}
		woken = true
		select {
		case <-wake:
		case <-time.After(feedLate):
			woken = false
		case <-w.over:
			return cursor
		}
		if _, now := w.current(n); now != life {
			return cursor
		}
	}
}

// source replicates a channel: it writes items with keys of their own through one node, then another one, until they are complete. As a follower does that moves to
// another node, it begins again there after what that one has complete.
func (w *simWorld) source(rng *rand.Rand) {
	var n *simNode
	var node *Node
	life := 0
	var at hub.Key // complete up to
	var all []hub.Sealed
	first := hub.KeyAt(time.Now().UnixMilli(), "") // before anything else
	for {
		if _, node, _ := w.some(rng); node != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			err := node.WriteComplete(ctx, replica, first)
			cancel()
			if err == nil {
				at = first
				break
			}
		}
		if !w.rest(200 * time.Millisecond) {
			return
		}
	}
	for i := 0; w.rest(time.Duration(rng.IntN(1200)) * time.Millisecond); i++ {
		var items []hub.Sealed
		ms := max(time.Now().UnixMilli()-int64(rng.IntN(300)), at.Millis()+1)
		for j := range 1 + rng.IntN(3) {
			items = append(items, hub.Sealed{Key: hub.KeyAt(ms+int64(j), "s0urce"), Data: fmt.Appendf(nil, "source/%d/%d of 1 ", i, j)})
		}
		upTo := items[len(items)-1].Key
		all = append(all, items...)
		w.judge.sends(replica, items)
		for at.Less(upTo) {
			if rng.IntN(8) > 0 && n != nil {
				if now, is := w.current(n); now == nil || is != life {
					n = nil
				}
			} else {
				n = nil
			}
			todo := items
			if n == nil {
				if n, node, life = w.some(rng); node != nil {
					marker, _ := node.Marker(replica)
					first := slices.IndexFunc(all, func(s hub.Sealed) bool { return marker.Less(s.Key) })
					if first < 0 { // it is complete there already, and that was not heard here
						first = len(all) - 1
					}
					todo = all[first:]
				}
			}
			if node != nil && w.replicate(n, node, life, todo, upTo) {
				at = upTo
				continue
			}
			if n = nil; !w.rest(200 * time.Millisecond) {
				return
			}
		}
	}
}

// replicate writes items of a source and completes them.
func (w *simWorld) replicate(n *simNode, node *Node, life int, items []hub.Sealed, upTo hub.Key) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := node.WriteKeyed(ctx, replica, items...)
	if _, is := w.current(n); err != nil || is != life {
		return false
	}
	w.judge.took(replica, items)
	err = node.WriteComplete(ctx, replica, upTo)
	_, is := w.current(n)
	return err == nil && is == life
}

// archiver moves what is stable to long-term storage, by whatever node; now and then it stands still for long.
func (w *simWorld) archiver(rng *rand.Rand) {
	for w.rest(time.Duration(rng.IntN(3000)) * time.Millisecond) {
		if rng.IntN(15) == 0 && !w.rest(time.Duration(rng.IntN(30))*time.Second) {
			return
		}
		n, node, life := w.some(rng)
		if node == nil {
			continue
		}
		for _, ch := range []string{"a", "b", replica} {
			cursor, _ := w.past.archived(ch)
			page, err := w.stableKeys(node, ch, cursor.After())
			if err != nil {
				continue
			}
			var items []hub.Sealed
			for _, k := range page.Keys {
				var item hub.Sealed
				if item, err = node.Read(context.Background(), ch, k); err != nil {
					if _, now := w.current(n); now == life {
						w.judge.item(n.name, ch, k, item, err)
					}
					break
				}
				items = append(items, hub.Sealed{Key: k, Data: bytes.Clone(item.Data)})
			}
			if _, now := w.current(n); err == nil && now == life {
				w.judge.archived(n.name, ch, cursor, page)
				w.past.take(ch, items, page.Horizon)
			}
		}
	}
}
