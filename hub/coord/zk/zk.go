// Package zk is the coordinator of a cluster: registers, leases and members in ZooKeeper.
//
// It uses ZooKeeper for what it is good at, and trusts the driver with little: calls end with their context or a time-out although the driver knows neither; a
// lease is lost at ⅔ of the session's time-out after the last answer by this process's own monotonic clock, because the server's word comes late or never
// (a frozen ensemble, a stopped process); what a call of unknown outcome may have left behind is looked for and removed.
//
// Below Root there are:
//
//	registers/{name}      0x01 and the value; empty: there is no value. Nodes are never deleted, so that versions rise over a Delete
//	bells/{first segment} set with every change of a register below that segment, to the names changed: what a watch looks at
//	leases/{name}/…       a queue of ephemeral nodes; the first holds the lease, its creation is the fence. Slashes of names are written as ~
//	members/{group}/{name} ephemeral
//
// and, by Options.Names, some of them in places of their own. A node of a lease holds the name of the process that waits for it.
//
// A version is the zxid of the change (mzxid), a fence the zxid of the node's creation (czxid), an epoch the last zxid that changed the group. All three come
// from one counter of the ensemble, which outlives everything but the ensemble's own data.
package zk

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"timehub/hub/coord"
)

var _ coord.Coordinator = (*Coordinator)(nil)

// Options are for New.
type Options struct {
	Servers []string      // host:port; required
	Root    string        // the node below which everything lies: /hub-prod; required
	Session time.Duration // time-out that is asked for; 0: 2 s. The server may give another one, see Granted
	Name    string        // of this node, for messages
	TLS     *tls.Config   // nil: plain
	Names   Names         // what has a place of its own
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	Log     *slog.Logger
}

const defaultSession = 2 * time.Second

// Coordinator is one node's session with ZooKeeper. All methods are safe for concurrent use; they wait for a session for as long as one lasts, then they
// fail with Unavailable.
type Coordinator struct {
	opt   Options
	root  string
	id    string        // of this process: what it creates in queues begins with it
	nudge chan struct{} // one token: there is a target to be watched, or something to be removed
	tidy  chan struct{} // one token: there is something to be removed
	held  chan struct{} // one token: it has changed until when leases hold
	seen  atomic.Int64  // the zxid of the last answer: a server that is behind it is not talked to

	mu        sync.Mutex    // guards what follows, for moments only
	conn      *zk.Conn      // nil while Run does not run
	wrong     error         // why the last server could not be reached; nil: it was
	up        chan struct{} // closed while there is a connection with a session
	isUp      bool
	session   *session
	granted   time.Duration // the session's time-out as the server gave it; 0: not known yet
	connected time.Time     // when the present connection was made
	contact   time.Time     // when a request was sent that was answered: the session lived then
	leases    map[*lease]struct{}
	targets   map[string]*target
	orphans   map[orphan]struct{}
	known     map[string]zkVersion
	groups    map[string]group // as they were listed last, by path
}

// session is one session of the ensemble.
type session struct {
	id   int64
	lost chan struct{} // closed when it has ended, or counts as ended
}

// New checks the options. Nothing is connected before Run.
func New(opt Options) (*Coordinator, error) {
	if len(opt.Servers) == 0 {
		return nil, errors.New("ZooKeeper needs a list of servers: zookeeper.connection")
	}
	if !strings.HasPrefix(opt.Root, "/") || path.Clean(opt.Root) != opt.Root || opt.Root == "/" {
		return nil, fmt.Errorf("the root in ZooKeeper is %q: want a path like /hub-prod", opt.Root)
	}
	if err := opt.Names.check(); err != nil {
		return nil, err
	}
	if opt.Session <= 0 {
		opt.Session = defaultSession
	}
	if opt.Dial == nil {
		opt.Dial = (&net.Dialer{}).DialContext
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Coordinator{
		opt: opt, root: opt.Root, id: strings.ToLower(rand.Text()), nudge: make(chan struct{}, 1), tidy: make(chan struct{}, 1), held: make(chan struct{}, 1), up: make(chan struct{}),
		session: &session{lost: make(chan struct{})}, leases: map[*lease]struct{}{}, targets: map[string]*target{}, orphans: map[orphan]struct{}{},
		known: map[string]zkVersion{}, groups: map[string]group{},
	}, nil
}

// Run keeps a session until ctx ends; then it closes it, so that leases and memberships end at once. It returns nil.
func (c *Coordinator) Run(ctx context.Context) error {
	known := make(chan struct{}) // closed when c.conn is set: events may come before Connect returns
	conn, events, err := zk.Connect(c.opt.Servers, c.opt.Session, zk.WithHostProvider(&hosts{}), zk.WithDialer(c.dial), zk.WithLogger(listener{c}),
		zk.WithLogInfo(true), zk.WithEventCallback(func(e zk.Event) {
			<-known
			c.event(e)
		}))
	if err != nil {
		return fmt.Errorf("connect to ZooKeeper: %w", err)
	}
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	close(known)
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return c.fence(inner) })
	g.Go(func() error { return c.beat(inner) })
	g.Go(func() error { return c.clean(inner) })
	g.Go(func() error { return c.watchAll(inner) })
	_ = g.Wait()
	conn.Close()
	for range events { // until the driver has ended
	}
	c.mu.Lock()
	c.conn = nil
	c.down()
	c.lose()
	c.mu.Unlock()
	return nil
}

// dial connects the driver to a server, and keeps what went wrong for those who wait for a session.
func (c *Coordinator) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := c.reach(network, address, timeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = nil
	if err != nil {
		c.wrong = errors.New(err.Error()) // its text only: it is not the end of the time of anybody who waits
	}
	return conn, err
}

func (c *Coordinator) reach(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := c.opt.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if c.opt.TLS == nil {
		return newPrompt(conn, c.opt.Session, &c.seen), nil
	}
	cfg := c.opt.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address)
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS to ZooKeeper at %s: %w", address, err)
	}
	return newPrompt(secure, c.opt.Session, &c.seen), nil
}

// event hears of the driver's states, in their order.
func (c *Coordinator) event(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.State {
	case zk.StateConnected:
		c.connected = time.Now()
	case zk.StateHasSession:
		c.began(e.Server, c.conn.SessionID())
	case zk.StateExpired:
		c.seen.Store(0) // as the driver does: the next session may be with an ensemble that began anew
		c.down()
		c.lose()
		c.opt.Log.Warn("the session with ZooKeeper has expired", "server", e.Server)
	case zk.StateDisconnected:
		c.down()
	}
}

// began notes a connection with a session, which may be the one from before. mu is held.
func (c *Coordinator) began(server string, id int64) {
	c.contact = c.connected
	if id != c.session.id {
		c.lose()
		c.session = &session{id: id, lost: make(chan struct{})}
		clear(c.known)
		clear(c.groups)
		for _, t := range c.targets {
			t.all()
		}
		c.opt.Log.Info("a session with ZooKeeper has begun", "server", server, "session", fmt.Sprintf("%#x", id))
	}
	if !c.isUp {
		c.isUp = true
		close(c.up)
	}
	poke(c.nudge)
	poke(c.tidy)
}

// down notes that there is no connection with a session. mu is held.
func (c *Coordinator) down() {
	if c.isUp {
		c.isUp = false
		c.up = make(chan struct{})
	}
}

// lose ends the session as far as this process is concerned. mu is held.
func (c *Coordinator) lose() {
	for l := range c.leases {
		c.abandon(l.dir, l.node)
		l.end()
	}
	clear(c.leases)
	select {
	case <-c.session.lost:
	default:
		close(c.session.lost)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
