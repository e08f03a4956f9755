// Package node is one hub process: it knows every room, chooses the implementations (parts.go), lays out the URL space (routes.go), and owns
// everything long-lived in one group that starts in order and stops in reverse (lifecycle.go). A whole hub can be run in a test: New with a Config
// and an Env, then Run.
//
// The order of a start: the listener, which answers /health with "Starting up..."; coordination; Spoke, which recovers its log and has the others back; what
// lies in long-term storage; the public routes, and with them health; the jobs. A stop is the same backwards: jobs give back their leases, health says SHUTTING DOWN while a load balancer notices, no
// more requests are accepted and those in flight are finished, Spoke has everything that was acknowledged on disk, the listener closes.
//
// Config is a table of properties with one value each, gathered from a file, the environment and flags (properties.go, config.go).
package node

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/coord"
	"timehub/hub/disk"
	"timehub/internalapi"
)

// Env is the world outside a node. The zero value is the real one.
type Env struct {
	Clock       hub.Clock                                                            // nil: time.Now
	Rand        func() uint64                                                        // draws hashes; safe for concurrent use. nil: the runtime's
	Disk        disk.Disk                                                            // the data directory; nil: the folder data.dir
	Listen      func(network, address string) (net.Listener, error)                  // nil: net.Listen
	Dial        func(ctx context.Context, network, address string) (net.Conn, error) // reaches other hubs and consumers; nil: TCP
	Bucket      bucket.Bucket                                                        // long-term storage; nil: the folder bucket of data.dir
	Coordinator coord.Coordinator                                                    // nil: coord.db of data.dir. Required with a Disk that is no folder
	Log         *slog.Logger                                                         // nil: nothing
	Version     string                                                               // "": local
	Seams       Seams
	Host        string // for Hub-Node; "": the name of the host
}

// Node is one hub. Run it once.
type Node struct {
	cfg     Config
	env     Env
	log     *slog.Logger
	disk    disk.Disk
	release func() error
	started time.Time

	state   atomic.Uint32 // internalapi.State
	ready   chan struct{} // closed when the node is healthy
	drained chan struct{} // closed when no more requests are accepted
	ended   chan struct{} // closed when Run has returned

	stopping sync.Once
	stop     chan struct{} // closed by Shutdown

	listening chan struct{} // closed when address is set
	address   string
	handler   atomic.Pointer[http.Handler]

	waits waits // for what the start waits
	parts parts
}

// New checks the configuration and takes the data directory: it fails, with a sentence for the person who starts the hub, when another process has it
// and keeps it for 3 s, when it was written by a newer hub, when it cannot be written. Nothing runs before Run. A node that is never run is closed with Close.
func New(cfg Config, env Env) (*Node, error) {
	if cfg.settings == nil {
		return nil, errors.New("node.New needs a Config from Load or Defaults")
	}
	fillEnv(&env)
	n := &Node{
		cfg: cfg, env: env, log: env.Log, disk: env.Disk, started: env.Clock(),
		ready: make(chan struct{}), drained: make(chan struct{}), stop: make(chan struct{}), listening: make(chan struct{}),
		ended: make(chan struct{}),
	}
	if n.disk == nil {
		d, err := disk.OpenDir(cfg.Text("data.dir"))
		if err != nil {
			return nil, err
		}
		n.disk = d
	}
	var err error
	n.release, err = claim(n.disk, n.started)
	if err != nil {
		return nil, errors.Join(err, n.closeDisk())
	}
	return n, nil
}

func fillEnv(env *Env) {
	if env.Clock == nil {
		env.Clock = time.Now
	}
	if env.Rand == nil {
		env.Rand = rand.Uint64
	}
	if env.Listen == nil {
		env.Listen = net.Listen
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if env.Host == "" {
		env.Host, _ = os.Hostname()
	}
	if env.Host == "" {
		env.Host = "localhost"
	}
}

func (e *Env) random32() uint32 { return uint32(e.Rand() >> 32) }
func (e *Env) random64() uint64 { return e.Rand() }

// closeDisk closes a data directory that we opened ourselves.
func (n *Node) closeDisk() error {
	if c, ok := n.disk.(interface{ Close() error }); ok && n.env.Disk == nil {
		return c.Close()
	}
	return nil
}

// Close gives the data directory back. Run does it by itself.
func (n *Node) Close() error { return errors.Join(n.release(), n.closeDisk()) }

// Run serves until ctx ends or Shutdown is called, then stops in order. It returns nil after an orderly end, what went wrong otherwise. A part that
// fails ends the node.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(whenClosed{n.stop}, cancel)
	defer unhook()

	g := &group{log: n.log}
	n.add(g)
	turn, begin := context.WithCancel(context.WithoutCancel(ctx)) // ends when it is this node's turn to stop
	defer begin()
	waited := make(chan struct{})
	unwait := context.AfterFunc(ctx, func() {
		defer close(waited)
		n.awaitTurn(turn)
		begin()
	})
	err := g.run(turn, n.up)
	begin()
	if !unwait() {
		<-waited
	}
	return errors.Join(err, n.parts.close(), n.Close())
}

// up says that the node is healthy.
func (n *Node) up() {
	n.parts.life.started.Add(1)
	n.log.Info("the hub is up", "address", n.address, "data", n.disk.Path("."), "took", time.Since(n.started).Round(time.Millisecond))
	close(n.ready)
}

// Ready is closed when the node is healthy.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Address is where the node listens, host:port. It waits until that is known, or ctx ends.
func (n *Node) Address(ctx context.Context) (string, error) {
	select {
	case <-n.listening:
		return n.address, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Shutdown begins an orderly stop and returns when requests are no longer accepted, or ctx ends. Calling it again is harmless.
func (n *Node) Shutdown(ctx context.Context) error {
	n.stopping.Do(func() { close(n.stop) })
	select {
	case <-n.drained:
		return nil
	case <-n.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// State is what /health says.
func (n *Node) State() internalapi.State { return internalapi.State(n.state.Load()) }

// name is the node's name for others: the text of Hub-Node. In a cluster it is the one by which they know it, if there is one: processes on one machine,
// and containers, may share the name of the host.
func (n *Node) name() string {
	if n.cfg.Cluster() && n.cfg.Text("cluster.address") != "" {
		return n.cfg.Text("cluster.address")
	}
	_, port, err := net.SplitHostPort(n.address)
	if err != nil {
		port = strconv.FormatInt(n.cfg.Int("http.bind_port"), 10)
	}
	host := n.env.Host
	if bound, _, err := net.SplitHostPort(n.address); n.cfg.Cluster() && err == nil && bound != "" && !net.ParseIP(bound).IsUnspecified() {
		host = bound // as clusterAddress: machines that were cloned have one name
	}
	return net.JoinHostPort(host, port)
}

// whenClosed makes a context of a channel, for AfterFunc.
type whenClosed struct{ done chan struct{} }

func (w whenClosed) Deadline() (time.Time, bool) { return time.Time{}, false }
func (w whenClosed) Done() <-chan struct{}       { return w.done }
func (w whenClosed) Value(any) any               { return nil }

func (w whenClosed) Err() error {
	select {
	case <-w.done:
		return context.Canceled
	default:
		return nil
	}
}
