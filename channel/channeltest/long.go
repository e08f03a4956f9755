package channeltest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"

	"timehub/hub"
)

// Long is a long-term store in memory. What Write stores is a single object; Archive stores as the archiver would.
type Long struct {
	// BodyOf reads the key of its body from a large item, for Delete; nil: bodies lie under the keys of their items.
	BodyOf func(item hub.Sealed) (key string, large bool)

	mu     sync.Mutex
	single map[string][]hub.Sealed
	batch  map[string][]hub.Sealed
	large  map[string][]byte
	fail   error
	asked  int

	failWrite error
}

// NewLong returns an empty store.
func NewLong() *Long {
	return &Long{single: map[string][]hub.Sealed{}, batch: map[string][]hub.Sealed{}, large: map[string][]byte{}}
}

// FailWrite lets Write fail with err from now on; nil: no more.
func (l *Long) FailWrite(err error) { l.mu.Lock(); l.failWrite = err; l.mu.Unlock() }

// Fail lets every call fail with err from now on; nil: no more.
func (l *Long) Fail(err error) { l.mu.Lock(); l.fail = err; l.mu.Unlock() }

// Asked is how many reads and queries were asked so far.
func (l *Long) Asked() int { l.mu.Lock(); defer l.mu.Unlock(); return l.asked }

// Large is how many bodies of large items there are.
func (l *Long) Large() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.large) }

// All lists the single items of a channel.
func (l *Long) All(channel string) []hub.Sealed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.single[channel])
}

// Both lists the items that the layouts of the channel hold.
func (l *Long) Both(ch *hub.Channel) []hub.Sealed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.layouts(ch, hub.AllTiers)
}

// Archive stores items in the layouts of the channel.
func (l *Long) Archive(ch *hub.Channel, items ...hub.Sealed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range items {
		if ch.Storage.Singles() {
			put(l.single, ch.Name, i)
		}
		if ch.Storage.Batches() {
			put(l.batch, ch.Name, i)
		}
	}
}

func put(into map[string][]hub.Sealed, channel string, i hub.Sealed) {
	all := into[channel]
	i.Data = slices.Clone(i.Data)
	at, found := slices.BinarySearchFunc(all, i.Key, func(a hub.Sealed, k hub.Key) int { return a.Key.Compare(k) })
	if found {
		all[at] = i
		return
	}
	into[channel] = slices.Insert(all, at, i)
}

func (l *Long) state(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return l.fail
}

// Write stores one item as a single object.
func (l *Long) Write(ctx context.Context, ch *hub.Channel, item hub.Sealed) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.state(ctx), l.failWrite); err != nil {
		return err
	}
	put(l.single, ch.Name, item)
	return nil
}

// Read returns one item.
func (l *Long) Read(ctx context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if err := l.state(ctx); err != nil {
		return hub.Sealed{}, err
	}
	return find(l.layouts(ch, hub.AllTiers), key)
}

// layouts is what the channel's storage and the tier have in common, sorted.
func (l *Long) layouts(ch *hub.Channel, t hub.Tier) []hub.Sealed {
	both := map[string][]hub.Sealed{}
	if ch.Storage.Singles() && t.Long() && t != hub.LongTermBatch {
		for _, i := range l.single[ch.Name] {
			put(both, ch.Name, i)
		}
	}
	if ch.Storage.Batches() && t.Long() && t != hub.LongTermSingle {
		for _, i := range l.batch[ch.Name] {
			put(both, ch.Name, i)
		}
	}
	return both[ch.Name]
}

// Keys answers a query.
func (l *Long) Keys(ctx context.Context, ch *hub.Channel, q hub.Query) (hub.Page, error) {
	hits, more, err := l.query(ctx, ch, q)
	return hub.Page{Keys: keysOf(hits), More: more}, err
}

// Items answers a query.
func (l *Long) Items(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		hits, _, err := l.query(ctx, ch, q)
		each(ctx, hits, err, yield)
	}
}

func (l *Long) query(ctx context.Context, ch *hub.Channel, q hub.Query) ([]hub.Sealed, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if err := l.state(ctx); err != nil {
		return nil, false, err
	}
	hits, more := choose(l.layouts(ch, q.Tier), q)
	return hits, more, nil
}

// Hurt flips the bits of mask in byte at of every large body.
func (l *Long) Hurt(at int, mask byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, body := range l.large {
		body = bytes.Clone(body)
		body[at] ^= mask
		l.large[name] = body
	}
}

// Delete removes single items and large bodies.
func (l *Long) Delete(ctx context.Context, ch *hub.Channel, keys ...hub.Key) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.state(ctx); err != nil {
		return err
	}
	for _, k := range keys {
		if body, ok := l.body(ch, k); ok {
			delete(l.large, body)
		}
		l.single[ch.Name] = slices.DeleteFunc(l.single[ch.Name], func(i hub.Sealed) bool { return i.Key == k })
		delete(l.large, ch.Name+"/"+k.String())
	}
	return nil
}

// body is the name of the body of a large item, which its index has.
func (l *Long) body(ch *hub.Channel, key hub.Key) (string, bool) {
	item, err := find(l.single[ch.Name], key)
	if err != nil || l.BodyOf == nil {
		return "", false
	}
	at, ok := l.BodyOf(item)
	return ch.Name + "/" + at, ok
}

// WriteLarge stores the body of a large item.
func (l *Long) WriteLarge(ctx context.Context, ch *hub.Channel, key hub.Key, _ string, body io.Reader) (int64, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return int64(len(data)), err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.state(ctx); err != nil {
		return 0, err
	}
	l.large[ch.Name+"/"+key.String()] = data
	return int64(len(data)), nil
}

// ReadLarge reads a part of such a body.
func (l *Long) ReadLarge(ctx context.Context, ch *hub.Channel, key hub.Key, offset, n int64) (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if err := l.state(ctx); err != nil {
		return nil, err
	}
	data, ok := l.large[ch.Name+"/"+key.String()]
	if !ok {
		return nil, hub.E(hub.NotFound, "no large body %s", key)
	}
	if offset > int64(len(data)) {
		return nil, hub.E(hub.RangeInvalid, "offset %d of %d", offset, len(data))
	}
	data = data[offset:]
	if n >= 0 && n < int64(len(data)) {
		data = data[:n]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}
