package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"timehub/e2e/memnet"
	"timehub/hub"
	hubclient "timehub/hub/client"
)

const (
	consumerIP   = "10.0.2.1"
	answerTime   = 2 * time.Second // that a webhook waits
	writtenLater = time.Second     // a cursor is on record so soon after a call; ten ticks
)

// hook is a webhook with its consumer, who judges what comes: everything at least once, in the order of the keys, and again only where something happened that
// may have cost the hub the memory of it (docs/callbacks.md, "Order, and what can be seen twice").
type hook struct {
	w        *world
	name     string
	channel  string
	parallel int

	mu      sync.Mutex // held for computing only
	rng     *rand.Rand
	mood    mood
	done    map[hub.Key]time.Time // when 2xx was given first
	open    map[hub.Key]int       // called, and never given 2xx: how often
	highest hub.Key               // of those done
	calls   int
	repeats int
}

// mood is how a consumer behaves: how often it fails, hangs, or gives an answer that gets lost.
type mood struct {
	fails, hangs, loses float64
	slow                time.Duration
}

// openHooks makes the consumers and the webhooks.
func (w *world) openHooks(c *client) {
	w.consumers = &consumers{host: w.wire.Host(consumerIP)}
	mux := http.NewServeMux()
	for i := range w.conf.hooks {
		h := &hook{
			w: w, name: fmt.Sprint("hook", i), channel: fmt.Sprint("ch", i), parallel: []int{1, 1, 3}[w.rng.IntN(3)], rng: w.roll(), done: map[hub.Key]time.Time{}, open: map[hub.Key]int{},
		}
		w.hooks = append(w.hooks, h)
		mux.HandleFunc("/"+h.name, h.serve)
	}
	if err := w.consumers.open(mux); err != nil {
		w.ledger.Wrong("%v", err)
		return
	}
	for _, h := range w.hooks {
		_, err := c.Client.PutWebhook(w.over, h.name, map[string]any{
			"callbackUrl": "http://" + consumerIP + ":80/" + h.name, "channelUrl": w.machines[0].url() + "/channel/" + h.channel, "parallelCalls": h.parallel,
			"callbackTimeoutSeconds": int(answerTime / time.Second),
		})
		if err != nil {
			w.ledger.Wrong("make a webhook: %v", err)
		}
		w.note("%s follows %s, %d at a time", h.name, h.channel, h.parallel)
	}
}

// consumers is their server.
type consumers struct {
	host   *memnet.Host
	server *http.Server
	ended  chan struct{}
}

func (c *consumers) open(h http.Handler) error {
	l, err := c.host.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	c.server, c.ended = &http.Server{Handler: h}, make(chan struct{})
	go func() { defer close(c.ended); _ = c.server.Serve(l) }()
	return nil
}

func (c *consumers) close() {
	if c != nil && c.server != nil {
		_ = c.server.Close()
		<-c.ended
		c.host.Kill()
	}
}

// serve is a call.
func (h *hook) serve(w http.ResponseWriter, r *http.Request) {
	key, err := h.read(r)
	if err != nil {
		if r.Context().Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			h.w.ledger.Wrong("%s is sent: %v", h.name, err)
		}
		return
	}
	m := h.called(key)
	if m.slow > 0 {
		time.Sleep(m.slow)
	}
	if r.Context().Err() != nil {
		return // it was broken off
	}
	switch {
	case m.hangs > 0:
		<-r.Context().Done()
		return
	case m.fails > 0:
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h.finish(key)
	if m.loses > 0 {
		panic(http.ErrAbortHandler)
	}
}

func (h *hook) read(r *http.Request) (hub.Key, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return hub.Key{}, io.ErrUnexpectedEOF
	}
	var d struct {
		Name, Type string
		URIs       []string
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return hub.Key{}, fmt.Errorf("%w: %.200s", err, body)
	}
	if d.Name != h.name || d.Type != "item" || len(d.URIs) != 1 {
		return hub.Key{}, fmt.Errorf("%.200s", body)
	}
	return hubclient.KeyOf(d.URIs[0])
}

// called judges that a call was made, and decides what becomes of it.
func (h *hook) called(key hub.Key) (m mood) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	if at, ok := h.done[key]; ok {
		h.repeats++
		if !h.w.unrest.around(at) {
			h.w.ledger.Wrong("%s: %v is called again, %v after its 2xx, and nothing had happened", h.name, key, time.Since(at))
		}
	} else {
		h.first(key)
		h.open[key]++
	}
	h.w.ledger.Note("%s: call %d of %v", h.name, h.open[key], key)
	roll := func(p float64) float64 {
		if h.rng.Float64() < p {
			return 1
		}
		return 0
	}
	m = mood{fails: roll(h.mood.fails), hangs: roll(h.mood.hangs), loses: roll(h.mood.loses)}
	if h.mood.slow > 0 {
		m.slow = time.Duration(h.rng.Int64N(int64(h.mood.slow)))
	}
	return m
}

// first judges the order of a call of what was never done. mu is held.
func (h *hook) first(key hub.Key) {
	if h.parallel > 1 {
		return
	}
	if key.Less(h.highest) {
		h.w.ledger.Wrong("%s: %v is called after %v", h.name, key, h.highest)
	}
	for k := range h.open {
		if k.Less(key) {
			h.w.ledger.Wrong("%s: %v is called, and %v has never been answered 2xx", h.name, key, k)
		}
	}
}

// finish notes that 2xx is given.
func (h *hook) finish(key hub.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.done[key]; ok {
		return
	}
	h.done[key] = time.Now()
	delete(h.open, key)
	if h.highest.Less(key) {
		h.highest = key
	}
	if h.mood.loses > 0 || h.mood.slow >= answerTime/2 { // the hub may never hear of it
		h.w.unrest.point()
	}
}

// feel changes how the consumer behaves.
func (h *hook) feel(m mood) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mood = m
}

// missing says what of a channel was not delivered.
func (h *hook) missing(keys []hub.Key) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		if _, ok := h.done[k]; !ok {
			return fmt.Sprintf("%s was never called for %v, of %d items; %d calls, %d done", h.name, k, len(keys), h.calls, len(h.done))
		}
	}
	return ""
}

// unrest remembers when something happened that may cost a hub the memory of a call that was answered.
type unrest struct {
	mu    sync.Mutex // held for computing only
	spans [][2]time.Time
	open  time.Time // since when it lasts; zero: it does not
}

// point notes something that happens now.
func (u *unrest) point() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if n := len(u.spans); n > 0 && now.Sub(u.spans[n-1][1]) < writtenLater {
		u.spans[n-1][1] = now
		return
	}
	u.spans = append(u.spans, [2]time.Time{now, now})
}

func (u *unrest) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open.IsZero() {
		u.open = time.Now()
	}
}

func (u *unrest) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.open.IsZero() {
		u.spans = append(u.spans, [2]time.Time{u.open, time.Now()})
		u.open = time.Time{}
	}
}

// around reports whether something happened so near to an instant that what was done then may be forgotten.
func (u *unrest) around(t time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.open.IsZero() && u.open.Before(t.Add(sessionTime+writtenLater)) {
		return true
	}
	for _, s := range u.spans {
		if !s[1].Before(t.Add(-sessionTime-writtenLater)) && !s[0].After(t.Add(sessionTime+writtenLater)) {
			return true
		}
	}
	return false
}

// watchCursors sees that the places of webhooks and of the archiver never go back, and that nobody writes under an older fence than was written before.
func (w *world) watchCursors() {
	session := w.store.Session("the judge")
	for _, prefix := range []string{"webhook", "archive/archived", "archive/verified"} {
		wake, stop := session.Watch(prefix)
		w.lives.Go(func() {
			defer stop()
			seen := map[string]place{}
			for {
				select {
				case <-wake:
				case <-w.closed:
					return
				}
				w.cursors(session, prefix, seen)
			}
		})
	}
}

type place struct {
	Version    int    `json:"version"`
	Key        string `json:"key"`
	Fence      uint64 `json:"fence"`
	Generation uint64 `json:"generation"`
}

func (w *world) cursors(session registers, prefix string, seen map[string]place) {
	names, _ := session.Names(context.Background(), prefix)
	for _, name := range names {
		b, _, err := session.Get(context.Background(), name)
		if err != nil {
			continue
		}
		var p place
		if err := json.Unmarshal(b, &p); err != nil {
			w.ledger.Wrong("the cursor %s: %v", name, err)
		}
		if o, ok := seen[name]; ok && o.Generation == p.Generation && (p.Key < o.Key || p.Fence < o.Fence) {
			w.ledger.Wrong("the cursor %s went from %v under %d to %v under %d", name, o.Key, o.Fence, p.Key, p.Fence)
		}
		seen[name] = p
	}
}

type registers interface {
	Names(ctx context.Context, prefix string) ([]string, error)
	Get(ctx context.Context, name string) ([]byte, uint64, error)
}
