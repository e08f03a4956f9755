// Package stream pushes new items to clients that hold a connection open: websockets (spec 03 §5) and server-sent events (spec 03 §6), of a channel or
// of the channels of a tag.
//
// Each connection is one follower (channel/feed) and a goroutine: that of its request, or for sockets, which outlive theirs, one of Run's and a second one that reads. What a client does
// not take is not kept anywhere: a connection that is behind reads further behind, from the log or from long-term storage, and holds a page of keys
// and the item that it sends. A client that has been up to date, and then keeps messages waiting for a while without being it again, cannot keep up: its
// socket is told what it missed, or closed with a reason (?slow=).
//
// A connection ends with its client, with its channel, and when the hub goes away. It never ends a feed of others.
package stream

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/semaphore"

	"timehub/channel"
	"timehub/channel/feed"
	"timehub/hub"
	"timehub/hub/metrics"
	"timehub/hub/web"
)

// Channels is what this package needs of the query layer; channel.Service is it.
type Channels interface {
	Keys(ctx context.Context, q hub.Query) (hub.Page, error)
	Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error]
	Channel(ctx context.Context, name string) (*hub.Channel, error)
	// Now is the cursor of those who want what is written from now on.
	Now(ctx context.Context) (hub.Key, error)
	// Parse, Body and Open open what Items yields.
	Parse(ch *hub.Channel, item hub.Sealed) (channel.Found, error)
	Body(dst []byte, f channel.Found) ([]byte, error)
	Open(ctx context.Context, f channel.Found, offset, n int64) (io.ReadCloser, error)
}

// Options are the parts of a Server. Channels and Feeds are required.
type Options struct {
	Channels Channels
	Feeds    *feed.Shared
	Stopping context.Context // ends when the hub goes away; nil: never

	Ping     time.Duration // between two pings of a socket; one that says nothing to three of them is dead. 0: 30 s
	Beat     time.Duration // between two heartbeats of events; 0: 1 s
	Patience time.Duration // for how long the client of a socket that was up to date may keep messages waiting until it is again; 0: 30 s
	// Stall is for how long one message of a socket may be on its way; 0: 5 min. Its client has to read again before it can be told anything, so it gets
	// more time than Patience. One of events has no more than a minute: there is nothing to tell it.
	Stall time.Duration

	Metrics metrics.Registry
	Log     *slog.Logger
}

const (
	pageKeys     = 128       // keys in the hands of one connection
	bodyBudget   = 128 << 20 // bytes of bodies that all connections together are sending, beyond small ones
	smallBody    = 64 << 10  // bodies up to here are not counted
	kernelBuffer = 256 << 10 // bytes on their way to one socket
	clientFrame  = 64 << 10  // the longest message that a client may send, for nothing
	closeGrace   = 2 * time.Second
	retryMillis  = 2000 // what event sources are told to wait before they come back
	writeBuffer  = 2 << 10
	readBuffer   = 512
	tooSlow      = websocket.CloseTryAgainLater // 1013
	channelEnded = 4404
)

// Server serves websockets and events. Safe for concurrent use; Run must run, once.
type Server struct {
	opt      Options
	upgrader websocket.Upgrader
	budget   *semaphore.Weighted
	bodies   sync.Pool // *[]byte
	meters   meters

	staying  context.Context // ends when the hub goes away
	leaveAll context.CancelFunc
	jobs     chan func()
	ended    chan struct{} // closed when Run takes no more jobs

	mu    sync.Mutex // guards conns
	conns map[*conn]struct{}
}

// conn is one connection as Run sees it.
type conn struct {
	kind  kind
	nudge chan struct{} // holds one token: time for a heartbeat or a ping
	every int           // beats between two nudges
	phase int
}

type kind uint8

const (
	sockets kind = iota
	events
	kinds
)

func (k kind) String() string { return [...]string{"ws", "events"}[k] }

type meters struct {
	open  [kinds]metrics.Gauge
	count [kinds]atomic.Int64
	sent  [kinds]metrics.Counter
	slow  [kinds]metrics.Counter
}

func (m *meters) init(r metrics.Registry) {
	open := r.Gauge(metrics.StreamOpen, "", "kind")
	sent, slow := r.Counter(metrics.StreamMessages, "", "kind"), r.Counter(metrics.StreamSlow, "", "kind")
	for k := range kinds {
		m.open[k], m.sent[k], m.slow[k] = open.With(k.String()), sent.With(k.String()), slow.With(k.String())
		m.open[k].Set(0)
	}
}

// New checks the options.
func New(o Options) (*Server, error) {
	if o.Channels == nil || o.Feeds == nil {
		return nil, errors.New("stream.New needs Channels and Feeds")
	}
	if o.Stopping == nil {
		o.Stopping = context.Background()
	}
	for d, def := range map[*time.Duration]time.Duration{&o.Ping: 30 * time.Second, &o.Beat: time.Second, &o.Patience: 30 * time.Second, &o.Stall: 5 * time.Minute} {
		if *d <= 0 {
			*d = def
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o, budget: semaphore.NewWeighted(bodyBudget), conns: map[*conn]struct{}{}, jobs: make(chan func()), ended: make(chan struct{})}
	s.staying, s.leaveAll = context.WithCancel(o.Stopping)
	s.upgrader = s.newUpgrader()
	s.meters.init(metrics.OrDiscard(o.Metrics))
	return s, nil
}

// Verbs are the handlers that channel/rest mounts.
func (s *Server) Verbs() map[hub.Verb]web.Handler {
	return map[hub.Verb]web.Handler{hub.Websocket: s.socket, hub.Events: s.events}
}

// Run gives connections their heartbeats and pings until ctx ends, by one ticker for all of them, and goes on with sockets when the requests that opened
// them are done. When ctx ends they are told that the hub goes away, and it waits for the last of them.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(s.opt.Beat)
	defer tick.Stop()
	var open sync.WaitGroup
	defer open.Wait()
	for beat := 0; ; {
		select {
		case <-ctx.Done():
			close(s.ended)
			s.leaveAll()
			s.settle()
			return nil
		case job := <-s.jobs:
			open.Go(job)
		case <-tick.C:
			s.beat(beat)
			beat++
		}
	}
}

// hand lets Run go on with a socket, so that all that belongs to its request is given back. Too late for that, the request goes on with it.
func (s *Server) hand(job func()) {
	select {
	case s.jobs <- job:
	case <-s.ended:
		job()
	}
}

// settle waits until no connection is left, but not for long.
func (s *Server) settle() {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for limit := time.Now().Add(2 * closeGrace); time.Now().Before(limit); <-look.C {
		s.mu.Lock()
		left := len(s.conns)
		s.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

func (s *Server) beat(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if (n+c.phase)%c.every != 0 {
			continue
		}
		select {
		case c.nudge <- struct{}{}:
		default:
		}
	}
}

// enter registers a connection; leave ends that.
func (s *Server) enter(k kind, every int) *conn {
	c := &conn{kind: k, nudge: make(chan struct{}, 1), every: max(every, 1)}
	open := s.meters.count[k].Add(1)
	c.phase = int(open) // not all at once
	s.meters.open[k].Set(float64(open))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return c
}

func (s *Server) leave(c *conn) {
	s.meters.open[c.kind].Set(float64(s.meters.count[c.kind].Add(-1)))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// errGone is why connections end when the hub does.
var errGone = errors.New("the hub is going away")

// until derives the context of a connection: it ends with parent, or with errGone when the hub goes away; last is then called too.
func (s *Server) until(parent context.Context, last func()) (ctx context.Context, cancel context.CancelCauseFunc, done func()) {
	ctx, cancel = context.WithCancelCause(parent)
	stop := context.AfterFunc(s.staying, func() {
		cancel(errGone)
		last()
	})
	return ctx, cancel, func() { stop(); cancel(nil) }
}
