package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// written is an item that was acknowledged, for readers to ask for.
type written struct{ channel, key string }

// pool remembers some of what was acknowledged.
type pool struct {
	mu   sync.Mutex // guards what follows
	ring [512]written
	n    int
}

func (p *pool) add(w written) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring[p.n%len(p.ring)] = w
	p.n++
}

// count is how many items were acknowledged.
func (p *pool) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// pick is one of them, mostly a late one.
func (p *pool) pick(rng *rand.Rand) (written, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		return written{}, false
	}
	back := rng.IntN(min(p.n, len(p.ring)))
	if rng.IntN(2) == 0 {
		back = min(back, 3)
	}
	return p.ring[(p.n-1-back)%len(p.ring)], true
}

// writer writes items, one request at a time, to a node until that one does not take them. It never sends a body twice: what may have failed is
// tried again as something new.
type writer struct {
	*client
	channels []string
	pool     *pool
	pace     time.Duration // between requests
	ordered  bool          // it wants its keys to rise over all nodes, and says so by Hub-After
	large    int           // of so many requests one is a large item; 0: none

	at   int
	next int
	last string // the last key
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		begin := time.Now()
		if w.rng.IntN(100) == 0 { // or all of them gather at the node that was hurt longest ago
			w.at = w.rng.IntN(len(w.hubs))
		}
		n := 1
		if w.rng.IntN(4) == 0 {
			n = 2 + w.rng.IntN(15)
		}
		if w.write(ctx, w.channels[w.rng.IntN(len(w.channels))], n) != OK {
			w.at = (w.at + 1) % len(w.hubs)
			pause(ctx, 50*time.Millisecond)
		}
		pause(ctx, w.pace*time.Duration(n)-time.Since(begin))
	}
}

// size is mostly small.
func (w *writer) size(n int) int {
	switch {
	case n == 1 && w.large > 0 && w.rng.IntN(w.large) == 0:
		return 1<<20 + w.rng.IntN(1<<20)
	case w.rng.IntN(60) == 0:
		return 50_000 + w.rng.IntN(100_000)
	default:
		return w.rng.IntN(1200)
	}
}

// write sends a request with n items.
func (w *writer) write(ctx context.Context, channel string, n int) Result {
	op := Op{Kind: Post, Channel: channel, Node: w.at, Path: "/channel/" + channel}
	bodies := make([][]byte, n)
	for i := range bodies {
		bodies[i] = makeBody(fmt.Sprintf("%s-%06d", w.proc, w.next), w.size(n))
		op.Items = append(op.Items, seen("", bodies[i]))
		w.next++
	}
	body, contentType := bodies[0], "text/plain"
	if n > 1 {
		op.Kind, op.Path = Bulk, op.Path+"/bulk"
		body, contentType = bulkBody(bodies)
	}
	if w.ordered {
		op.After = w.last
	}
	// The end of the run breaks no request off: that would only make unknowns of them.
	a, err := w.ask(context.WithoutCancel(ctx), &op, "POST", body, "Content-Type", contentType)
	if err == nil && op.Result == OK {
		w.keys(&op, a)
	}
	w.rec.Add(op)
	return op.Result
}

// keys notes under which keys the items of a request are.
func (w *writer) keys(op *Op, a answer) {
	keys := []Item{{Key: keyOf(a.header.Get("Location"))}}
	if op.Kind == Bulk {
		var err error
		if keys, err = a.keys(); err != nil || len(keys) != len(op.Items) {
			op.Status, op.Error = -1, fmt.Sprintf("the answer has %d keys for %d items, %v", len(keys), len(op.Items), err)
			return
		}
	}
	for i := range keys {
		op.Items[i].Key = keys[i].Key
		w.pool.add(written{op.Channel, keys[i].Key})
	}
	w.last = keys[len(keys)-1].Key
}
