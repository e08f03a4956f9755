package replicate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
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
	"timehub/hub/coord"
	"timehub/hub/coord/local"
)

// source is a hub as far as replication sees one: one channel, the public interface, and all the ways in which it can answer badly.
type source struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex // guards what follows
	items    []sourceItem
	ttlDays  int64
	maxItems int64
	events   bool // answers /events
	original bool // knows no Hub-Horizon and no wait
	known    bool
	bad      func(w http.ResponseWriter, r *http.Request) bool // answers instead
	requests map[string]int
	news     chan struct{} // closed when something changes
}

type sourceItem struct {
	key         hub.Key
	contentType string
	body        []byte
	large       bool
	gone        bool // listed, and 404 when asked for
}

var epoch = time.Now().Add(-48 * time.Hour).UTC().Truncate(time.Second)

// keyAt is the key of the nth item of a source.
func keyAt(n int) hub.Key {
	return hub.NewKey(epoch.Add(time.Duration(n)*time.Second), fmt.Sprintf("%06d", n))
}

func newSource(t *testing.T) *source {
	s := &source{t: t, events: true, known: true, requests: map[string]int{}, news: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *source) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.news)
	s.news = make(chan struct{})
}

// add appends n items.
func (s *source) add(n int) {
	s.change(func() {
		for range n {
			i := len(s.items)
			s.items = append(s.items, sourceItem{key: keyAt(i), contentType: []string{"text/plain", "", "application/json"}[i%3], body: []byte(strings.Repeat(fmt.Sprint("item ", i, "\r\n"), i%7))})
		}
	})
}

func (s *source) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[what]
}

func (s *source) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	bad := s.bad
	kind := kindOf(r)
	s.requests[kind]++
	s.mu.Unlock()
	if bad != nil && bad(w, r) {
		return
	}
	s.mu.Lock()
	items, events, original, known, news := slices.Clone(s.items), s.events, s.original, s.known, s.news
	doc := map[string]any{"name": "src", "ttlDays": s.ttlDays, "maxItems": s.maxItems}
	s.mu.Unlock()
	w.Header().Set("Server", "Hub/test")
	if !known {
		http.Error(w, "src", http.StatusNotFound)
		return
	}
	rest := strings.TrimPrefix(r.URL.Path, "/channel/src")
	switch kind {
	case "channel":
		json.NewEncoder(w).Encode(doc)
	case "time":
		fmt.Fprintf(w, `{"stable":{"millis":%d}}`, horizon(len(items)).Millis()+1)
	case "events":
		if !events {
			http.NotFound(w, r)
			return
		}
		s.stream(w, r)
	case "earliest":
		s.list(w, items[:min(1, len(items))], len(items), original)
	case "list", "bulk":
		after, n := asked(s.t, rest)
		all := following(items, after, n)
		if kind == "bulk" {
			s.bulk(w, all)
			return
		}
		if wait := r.URL.Query().Get("wait"); wait != "" && len(all) == 0 && !original {
			select {
			case <-news:
			case <-r.Context().Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		s.list(w, all, len(items), original)
	case "item":
		key, err := hub.ParseKey(strings.TrimPrefix(rest, "/"))
		i := slices.IndexFunc(items, func(i sourceItem) bool { return i.key == key && !i.gone })
		if err != nil || i < 0 {
			http.Error(w, "no item", http.StatusNotFound)
			return
		}
		s.item(w, items[i])
	default:
		s.t.Errorf("asked for %s %s, which replication must not", r.Method, r.URL)
	}
}

func kindOf(r *http.Request) string {
	rest := strings.TrimPrefix(r.URL.Path, "/channel/src")
	switch {
	case r.Method != http.MethodGet || rest == r.URL.Path:
		return "forbidden"
	case rest == "":
		return "channel"
	case rest == "/time" || rest == "/events":
		return rest[1:]
	case strings.HasPrefix(rest, "/earliest/"):
		return "earliest"
	case strings.Contains(rest, "/next/") && r.URL.Query().Get("bulk") == "true":
		return "bulk"
	case strings.Contains(rest, "/next/"):
		return "list"
	}
	return "item"
}

// asked reads /{key}/next/{n}.
func asked(t *testing.T, rest string) (hub.Key, int) {
	path, number, _ := strings.Cut(rest, "/next/")
	key, err := hub.ParseKey(strings.TrimPrefix(path, "/"))
	n, err2 := strconv.Atoi(number)
	if err != nil || err2 != nil {
		t.Errorf("asked for %q", rest)
	}
	return key, n
}

func following(items []sourceItem, after hub.Key, n int) (all []sourceItem) {
	for _, i := range items {
		if after.Less(i.key) && len(all) < n {
			all = append(all, i)
		}
	}
	return all
}

// horizon is the key up to which a source with n items is stable: the next one comes above it.
func horizon(n int) hub.Key { return hub.Last(keyAt(n).Time().Add(-time.Millisecond)) }

func (s *source) list(w http.ResponseWriter, items []sourceItem, all int, original bool) {
	if !original {
		w.Header().Set("Hub-Horizon", horizon(all).String())
	}
	uris := []string{}
	for _, i := range items {
		uris = append(uris, s.URL+"/channel/src/"+i.key.String())
	}
	json.NewEncoder(w).Encode(map[string]any{"_links": map[string]any{"uris": uris}})
}

// mark is the boundary of the original.
const mark = "||||||~~~~~~||||||~~~~~~||||||~~~~~~||||||~~~~~~||||||~~~~~~||||||"

func (s *source) bulk(w http.ResponseWriter, items []sourceItem) {
	w.Header().Set("Content-Type", "multipart/mixed;boundary="+mark)
	w.Write(s.parts(items))
}

func (s *source) parts(items []sourceItem) []byte {
	var b bytes.Buffer
	for _, i := range items {
		if i.gone {
			continue
		}
		fmt.Fprintf(&b, "--%s\r\n", mark)
		body, kind := i.body, i.contentType
		if i.large { // as the original does
			body, kind = fmt.Appendf(nil, `{"key":"2001/01/01/01/01/01/001/abcdef","size":%d}`, len(i.body)), "application/hub"
		}
		if kind != "" {
			fmt.Fprintf(&b, "Content-Type: %s\r\n", kind)
		}
		fmt.Fprintf(&b, "Content-Key: %s/channel/src/%s\r\nCreation-Date: %s\r\n\r\n%s\r\n", s.URL, i.key, hub.ISO(i.key.Time()), body)
	}
	fmt.Fprintf(&b, "--%s--", mark)
	return b.Bytes()
}

func (s *source) item(w http.ResponseWriter, i sourceItem) {
	if i.contentType != "" {
		w.Header().Set("Content-Type", i.contentType)
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	w.Header().Set("Creation-Date", hub.ISO(i.key.Time()))
	w.Header().Set("X-Item-Length", strconv.Itoa(len(i.body)))
	if i.large {
		w.Header().Set("X-LargeItem", "true")
	}
	w.Write(i.body)
}

// stream is /events.
func (s *source) stream(w http.ResponseWriter, r *http.Request) {
	var at hub.Key
	if id := r.Header.Get("Last-Event-Id"); id != "" {
		_, path, _ := strings.Cut(id, "/channel/src/")
		at, _ = hub.ParseKey(path)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		s.mu.Lock()
		all, news := following(s.items, at, 1<<20), s.news
		s.mu.Unlock()
		for _, i := range all {
			fmt.Fprintf(w, "event: %s\nid: %s/channel/src/%s\ndata: %s\n\n", i.contentType, s.URL, i.key, strings.ReplaceAll(string(i.body), "\n", "\ndata: "))
			at = i.key
		}
		fmt.Fprint(w, ": \n\n")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-news:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// target is the side of channel.Service, in memory, with its promises.
type target struct {
	t *testing.T

	mu       sync.Mutex // guards what follows
	channels map[string]*hub.Channel
	items    map[string]map[hub.Key]sourceItem
	order    map[string][]hub.Key
	markers  map[string]hub.Key
	fail     error
	changed  []string
	wake     chan struct{}
	store    *local.Store
	page     int
	writes   int
}

func newTarget(t *testing.T) *target {
	return &target{
		t: t, channels: map[string]*hub.Channel{}, items: map[string]map[hub.Key]sourceItem{}, order: map[string][]hub.Key{}, markers: map[string]hub.Key{},
		wake: make(chan struct{}, 1), store: local.NewMemory(), page: 20,
	}
}

// put makes or changes a channel; source "": none. gone removes it.
func (g *target) put(name, source string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ch := &hub.Channel{Name: name}
	if old := g.channels[name]; old != nil {
		ch = old.Clone()
	}
	if ch.ReplicationSource == "" && source != "" && g.channels[name] != nil {
		ch.Lives++
	}
	ch.ReplicationSource = source
	g.channels[name] = ch
	g.tell(name)
}

func (g *target) remove(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.channels, name)
	g.tell(name)
}

func (g *target) tell(name string) {
	g.changed = append(g.changed, name)
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *target) watch() (<-chan struct{}, func() []string, func()) {
	return g.wake, func() []string {
		g.mu.Lock()
		defer g.mu.Unlock()
		all := g.changed
		g.changed = nil
		return all
	}, func() {}
}

func (g *target) Channel(_ context.Context, name string) (*hub.Channel, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch := g.channels[name]; ch != nil {
		return ch, nil
	}
	return nil, hub.E(hub.NotFound, "no channel %s", name)
}

func (g *target) Channels(context.Context) (all []*hub.Channel, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ch := range g.channels {
		all = append(all, ch)
	}
	return all, nil
}

var oldest = hub.First(epoch.Add(-time.Hour))

func (g *target) BeginReplica(_ context.Context, ch *hub.Channel, resumed bool, _ hub.Key) (marker, old hub.Key, fresh bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	marker, ok := g.markers[ch.Name]
	if !ok {
		g.markers[ch.Name] = oldest
	}
	return g.markers[ch.Name], oldest, !ok, nil
}

func (g *target) still(ch *hub.Channel) error {
	if now := g.channels[ch.Name]; now == nil || now.ReplicationSource != ch.ReplicationSource {
		return hub.E(hub.Conflict, "not any more")
	}
	return g.fail
}

func (g *target) Missing(_ context.Context, ch *hub.Channel, keys []hub.Key) (missing []hub.Key, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		if _, ok := g.items[ch.Name][k]; !ok {
			missing = append(missing, k)
		}
	}
	return missing, nil
}

func (g *target) Replicate(_ context.Context, ch *hub.Channel, items ...channel.Replica) error {
	var read []sourceItem
	for _, r := range items {
		i := sourceItem{key: r.Key, contentType: r.ContentType, body: r.Body}
		if r.Reader != nil {
			body, err := io.ReadAll(r.Reader)
			if err != nil {
				return err
			}
			if r.Size >= 0 && int64(len(body)) != r.Size {
				return fmt.Errorf("%d bytes of %d", len(body), r.Size)
			}
			i.body, i.large = body, true
		}
		read = append(read, i)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.still(ch); err != nil {
		return err
	}
	g.writes++
	if g.items[ch.Name] == nil {
		g.items[ch.Name] = map[hub.Key]sourceItem{}
	}
	for _, i := range read {
		if _, ok := g.items[ch.Name][i.key]; !ok {
			g.items[ch.Name][i.key] = i
			g.order[ch.Name] = append(g.order[ch.Name], i.key)
		}
	}
	return nil
}

func (g *target) Complete(_ context.Context, ch *hub.Channel, upTo hub.Key) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.still(ch); err != nil {
		return err
	}
	if g.markers[ch.Name].Less(upTo) {
		g.markers[ch.Name] = upTo
	}
	return nil
}

// start runs a Replicator; stop ends it.
func (g *target) start(change ...func(*Options)) (r *Replicator, stop func()) {
	g.t.Helper()
	session := g.store.Session("node")
	o := Options{
		Channels: g, Watch: g.watch, Leases: session, Registers: session, Page: g.page, RetryMin: 2 * time.Millisecond, RetryMax: 20 * time.Millisecond,
		RestMin: 5 * time.Millisecond, RestMax: 20 * time.Millisecond, LargeBytes: 3 << 20, StallAfter: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	r, err := New(o)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	outer, end := context.WithCancel(context.Background())
	var group, sessions sync.WaitGroup
	sessions.Go(func() { session.Run(outer) })
	group.Go(func() {
		if err := r.Run(ctx); err != nil {
			g.t.Errorf("Run: %v", err)
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); group.Wait(); end(); sessions.Wait() }) }
	g.t.Cleanup(stop)
	return r, stop
}

// forget removes a cursor behind the back of a Replicator that has stopped.
func (g *target) forget(name string) {
	g.t.Helper()
	session := g.store.Session("somebody")
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { session.Run(ctx) })
	defer group.Wait()
	defer cancel()
	var err error
	g.eventually("the cursor is removed", func() bool {
		_, err = session.Update(ctx, []coord.Change{{Name: cursorPrefix + "/" + name, Any: true}})
		return err == nil
	})
}

// check says what is wrong with what the target has: it must be the beginning of the source, without what is gone there.
func (g *target) check(name string, s *source) (have, want int) {
	g.t.Helper()
	s.mu.Lock()
	all := slices.DeleteFunc(slices.Clone(s.items), func(i sourceItem) bool { return i.gone })
	s.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	order := g.order[name]
	if len(order) > len(all) {
		g.t.Fatalf("%s has %d items, the source %d", name, len(order), len(all))
	}
	for n, k := range order {
		if k != all[n].key {
			g.t.Fatalf("item %d of %s is %s, want %s", n, name, k, all[n].key)
		}
		if got := g.items[name][k]; !bytes.Equal(got.body, all[n].body) || got.contentType != all[n].contentType && all[n].contentType+got.contentType != "application/octet-stream" || got.large != all[n].large {
			g.t.Fatalf("item %s of %s: %d bytes of %q (large %v), want %d of %q", k, name, len(got.body), got.contentType, got.large, len(all[n].body), all[n].contentType)
		}
	}
	if marker := g.markers[name]; len(order) < len(all) && !marker.Less(all[len(order)].key) {
		g.t.Fatalf("%s is complete up to %s without %s", name, marker, all[len(order)].key)
	}
	return len(order), len(all)
}

// equal waits until the target has everything.
func (g *target) equal(name string, s *source) {
	g.t.Helper()
	g.eventually("the target gets equal", func() bool {
		have, want := g.check(name, s)
		return have == want
	})
}

func (g *target) eventually(what string, f func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("never: %s", what)
		}
	}
}

func (g *target) status(r *Replicator, name string) Status {
	g.t.Helper()
	ch, err := g.Channel(g.t.Context(), name)
	if err != nil {
		g.t.Fatal(err)
	}
	s, _ := r.Status(g.t.Context(), ch)
	return s
}
