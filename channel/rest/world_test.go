package rest

import (
	"bytes"
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// world is the face over a real service and stores in memory, at a time of the test's choice.
type world struct {
	t     testing.TB
	now   time.Time
	short *memShort
	long  *memLong
	svc   *channel.Service
	h     *Handlers
	rt    *web.Router
}

var testTime = time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC)

func newWorld(t testing.TB, edit func(*channel.Options, *Options)) *world {
	t.Helper()
	w := &world{t: t, now: testTime}
	clock := func() time.Time { return w.now }
	w.short = &memShort{items: map[string][]hub.Sealed{}, minter: hub.NewMinter(clock, 0, 7, func() uint32 { return 3 })}
	w.long = &memLong{items: map[string][]hub.Sealed{}, large: map[string][]byte{}}
	so := channel.Options{Short: w.short, Long: w.long, Catalog: &memCatalog{docs: map[string]*channel.Document{}}, Clock: clock, Horizon: hub.Horizon{Auto: true}}
	ro := Options{Clock: clock}
	if edit != nil {
		edit(&so, &ro)
	}
	var err error
	if w.svc, err = channel.New(so); err != nil {
		t.Fatal(err)
	}
	ro.Service = w.svc
	if w.h, err = New(ro); err != nil {
		t.Fatal(err)
	}
	if w.rt, err = web.New(web.Options{Node: "n1:8080"}); err != nil {
		t.Fatal(err)
	}
	w.h.Mount(w.rt)
	return w
}

// reply is an answer.
type reply struct {
	code   int
	header http.Header
	body   string
}

func (r reply) location() string { return r.header.Get("Location") }

// do sends a request; headers are "Name: value".
func (w *world) do(method, target, body string, headers ...string) reply {
	w.t.Helper()
	r := httptest.NewRequest(method, "http://hub.example"+target, strings.NewReader(body))
	r.RequestURI = target
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Add(name, strings.TrimSpace(value))
		if name == "Host" {
			r.Host = strings.TrimSpace(value)
		}
	}
	rec := httptest.NewRecorder()
	w.rt.ServeHTTP(rec, r)
	h, n := rec.Header(), rec.Body.Len()
	if n <= 2<<10 && method != http.MethodHead && rec.Code != http.StatusNotModified && !rec.Flushed && h["Content-Length"] == nil && h["Content-Encoding"] == nil {
		h.Set("Content-Length", strconv.Itoa(n)) // as net/http does; TestItemLengths sees to it that it does
	}
	return reply{rec.Code, rec.Header(), rec.Body.String()}
}

func (w *world) get(target string, headers ...string) reply {
	w.t.Helper()
	return w.do("GET", target, "", headers...)
}

// put makes a channel.
func (w *world) put(name, doc string) {
	w.t.Helper()
	if r := w.do("PUT", "/channel/"+name, doc); r.code != 201 {
		w.t.Fatalf("PUT %s: %d %s", name, r.code, r.body)
	}
}

// post inserts an item one second after the last one and returns its path below {hub}.
func (w *world) post(name, body string, headers ...string) string {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	r := w.do("POST", "/channel/"+name, body, headers...)
	if r.code != 201 {
		w.t.Fatalf("POST %s: %d %s", name, r.code, r.body)
	}
	return strings.TrimPrefix(r.location(), "http://hub.example")
}

// want checks status and, if given, what the body contains.
func (w *world) want(r reply, code int, contains ...string) reply {
	w.t.Helper()
	if r.code != code {
		w.t.Errorf("status %d, want %d: %s", r.code, code, r.body)
	}
	for _, c := range contains {
		if !strings.Contains(r.body, c) {
			w.t.Errorf("body lacks %q: %s", c, r.body)
		}
	}
	return r
}

type memShort struct {
	mu     sync.Mutex
	items  map[string][]hub.Sealed // sorted
	minter *hub.Minter
	fail   error
	cut    int // items after which a stream fails, if fail is set too
	slow   time.Duration
}

// wait is what a write takes; it ends with its context.
func (m *memShort) wait(ctx context.Context) error {
	if m.slow == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(m.slow):
		return nil
	}
}

func (m *memShort) put(channel string, items ...hub.Sealed) {
	for _, it := range items {
		it.Data = bytes.Clone(it.Data)
		m.items[channel] = insertSorted(m.items[channel], it)
	}
}

func insertSorted(all []hub.Sealed, it hub.Sealed) []hub.Sealed {
	i, found := slices.BinarySearchFunc(all, it.Key, func(s hub.Sealed, k hub.Key) int { return s.Key.Compare(k) })
	if found {
		all[i] = it
		return all
	}
	return slices.Insert(all, i, it)
}

func (m *memShort) Write(ctx context.Context, channel string, sealed []byte) (hub.Key, error) {
	if err := m.wait(ctx); err != nil {
		return hub.Key{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return hub.Key{}, m.fail
	}
	_, key := m.minter.Mint()
	m.put(channel, hub.Sealed{Key: key, Data: sealed})
	return key, nil
}

func (m *memShort) WriteBulk(ctx context.Context, channel string, sealed [][]byte) (hub.Key, error) {
	if err := m.wait(ctx); err != nil {
		return hub.Key{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return hub.Key{}, m.fail
	}
	_, key := m.minter.Mint()
	for i, s := range sealed {
		m.put(channel, hub.Sealed{Key: hub.BulkKey(key, i), Data: s})
	}
	return key, nil
}

func (m *memShort) WriteKeyed(_ context.Context, channel string, items ...hub.Sealed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(channel, items...)
	return m.fail
}

func (m *memShort) Now(context.Context) (hub.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ms := m.minter.Peek().Millis()
	m.minter.Raise(hub.MarkAt(ms+1) - 1)
	return hub.KeyAt(ms, "initial"), m.fail
}

func (m *memShort) Read(_ context.Context, channel string, key hub.Key) (hub.Sealed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return read(m.items[channel], key)
}

func read(all []hub.Sealed, key hub.Key) (hub.Sealed, error) {
	i, found := slices.BinarySearchFunc(all, key, func(s hub.Sealed, k hub.Key) int { return s.Key.Compare(k) })
	if !found {
		return hub.Sealed{}, hub.E(hub.NotFound, "no item %s", key)
	}
	return all[i], nil
}

func selectItems(all []hub.Sealed, q hub.Query) (out []hub.Sealed, more bool) {
	for _, it := range all {
		if !it.Key.Less(q.From) && it.Key.Less(q.To) {
			out = append(out, it)
		}
	}
	if q.Reverse {
		slices.Reverse(out)
	}
	if q.Limit > 0 && len(out) > q.Limit {
		return out[:q.Limit], true
	}
	return out, false
}

func page(items []hub.Sealed, more bool) hub.Page {
	p := hub.Page{More: more}
	for _, it := range items {
		p.Keys = append(p.Keys, it.Key)
	}
	return p
}

func (m *memShort) Keys(_ context.Context, q hub.Query) (hub.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := page(selectItems(m.items[q.Channel], q))
	p.Horizon = m.minter.Now().Key()
	return p, m.fail
}

func (m *memShort) Items(_ context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	items, _ := selectItems(m.items[q.Channel], q)
	return func(yield func(hub.Sealed, error) bool) {
		for i, it := range items {
			if m.fail != nil && i == m.cut {
				yield(hub.Sealed{}, m.fail)
				return
			}
			if !yield(it, nil) {
				return
			}
		}
	}
}

func (m *memShort) Horizon(context.Context) (hub.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.minter.Now().Key(), nil
}

func (m *memShort) Floor(string) hub.Key { return hub.MinKey }

func (m *memShort) Watch(string) (<-chan struct{}, func()) { return make(chan struct{}, 1), func() {} }

type memLong struct {
	mu    sync.Mutex
	items map[string][]hub.Sealed
	large map[string][]byte
}

func (m *memLong) Write(_ context.Context, ch *hub.Channel, item hub.Sealed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	item.Data = bytes.Clone(item.Data)
	m.items[ch.Name] = insertSorted(m.items[ch.Name], item)
	return nil
}

func (m *memLong) Read(_ context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return read(m.items[ch.Name], key)
}

func (m *memLong) Keys(_ context.Context, ch *hub.Channel, q hub.Query) (hub.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return page(selectItems(m.items[ch.Name], q)), nil
}

func (m *memLong) Items(_ context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[hub.Sealed, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	items, _ := selectItems(m.items[ch.Name], q)
	return func(yield func(hub.Sealed, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}
}

func (m *memLong) Delete(_ context.Context, ch *hub.Channel, keys ...hub.Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items[ch.Name] = slices.DeleteFunc(m.items[ch.Name], func(s hub.Sealed) bool { return slices.Contains(keys, s.Key) })
	return nil
}

func (m *memLong) WriteLarge(_ context.Context, ch *hub.Channel, key hub.Key, _ string, body io.Reader) (int64, error) {
	b, err := io.ReadAll(body)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.large[ch.Name+"/"+key.String()] = b
	return int64(len(b)), err
}

func (m *memLong) ReadLarge(_ context.Context, ch *hub.Channel, key hub.Key, offset, n int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.large[ch.Name+"/"+key.String()]
	if !ok {
		return nil, hub.E(hub.NotFound, "no large body %s", key)
	}
	b = b[min(offset, int64(len(b))):]
	if n >= 0 && n < int64(len(b)) {
		b = b[:n]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

type memCatalog struct {
	mu   sync.Mutex
	docs map[string]*channel.Document
}

func (m *memCatalog) Get(_ context.Context, id string) (*channel.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.docs[id]; d != nil {
		return d, nil
	}
	return nil, hub.E(hub.NotFound, "no document %s", id)
}

func (m *memCatalog) Fresh(ctx context.Context, id string) (*channel.Document, error) {
	return m.Get(ctx, id)
}

func (m *memCatalog) List(context.Context) ([]*channel.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*channel.Document
	for _, d := range m.docs {
		all = append(all, d)
	}
	return all, nil
}

func (m *memCatalog) Cached(ctx context.Context) ([]*channel.Document, error) { return m.List(ctx) }

func (m *memCatalog) Update(_ context.Context, id string, change func(*channel.Document) (*channel.Document, error)) (*channel.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := change(m.docs[id])
	if err != nil {
		return nil, err
	}
	if d == nil {
		delete(m.docs, id)
	} else {
		m.docs[id] = d
	}
	return d, nil
}

func (m *memCatalog) Refresh(context.Context) error { return nil }
