package zk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/zkproc"
	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/coord/coordtest"
)

const sessionTime = 500 * time.Millisecond

// lasting is a session that outlives a machine which stands still for a while: of tests that call everything once.
func lasting(o *Options) { o.Session = 20 * time.Second }

// link is the way of one node to the servers, which can be cut.
type link struct {
	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[net.Conn]struct{}
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut {
		return nil, io.ErrClosedPipe
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = struct{}{}
	return conn, nil
}

func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if cut {
		for c := range l.conns {
			_ = c.Close()
		}
		clear(l.conns)
	}
}

// node runs a coordinator until the test ends, or stop is called.
type node struct {
	*Coordinator
	link *link
	stop func()
}

// run begins a session.
func run(t *testing.T, servers []string, root string, change ...func(*Options)) *node {
	t.Helper()
	n := launch(t, servers, root, change...)
	for deadline := time.Now().Add(60 * time.Second); ; {
		_, err := n.connection(t.Context())
		if err == nil {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// done does something until ZooKeeper answers. What an answer that came too late did is found done.
func done(t *testing.T, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := f()
		if err == nil || hub.Is(err, hub.Conflict) {
			return
		}
		if !hub.Is(err, hub.Unavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// launch is run without waiting for the session.
func launch(t *testing.T, servers []string, root string, change ...func(*Options)) *node {
	t.Helper()
	n := &node{link: &link{conns: map[net.Conn]struct{}{}}}
	o := Options{Servers: servers, Root: root, Session: sessionTime, Name: t.Name(), Dial: n.link.dial}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	n.Coordinator = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

var roots atomic.Int64

func newRoot() string { return fmt.Sprintf("/hub-%d", roots.Add(1)) }

func TestAgreement(t *testing.T) {
	agree(t, zkproc.Start(t, zkproc.Options{})[0])
}

// TestAgreementElsewhere: the same over TLS, with places of their own for some of the names.
func TestAgreementElsewhere(t *testing.T) {
	t.Parallel()
	server := zkproc.Start(t, zkproc.Options{TLS: true})[0]
	cfg, err := server.TLS.Config()
	if err != nil {
		t.Fatal(err)
	}
	agree(t, server, func(o *Options) {
		o.TLS = cfg
		o.Names = Names{
			Registers: map[string]string{"cursors/test": "Cursors", "p/a": "deep/place", "p/a/x": "elsewhere/x", "x": "X"},
			Leases:    map[string]string{"job": "OneJob", "another": "Others/jobs"},
			Groups:    map[string]string{"spoke": "SpokeCluster"},
		}
	})
}

// TestStrangers: a server that the authority does not vouch for, or that speaks no TLS, is not talked to; one that wants a certificate talks to nobody without.
func TestStrangers(t *testing.T) {
	t.Parallel()
	secure, plain := zkproc.Start(t, zkproc.Options{TLS: true})[0], zkproc.Start(t, zkproc.Options{})[0]
	other := zkproc.Start(t, zkproc.Options{TLS: true})[0]
	good, err := secure.TLS.Config()
	if err != nil {
		t.Fatal(err)
	}
	nameless := good.Clone()
	nameless.Certificates = nil
	for what, c := range map[string]struct {
		address string
		tls     *tls.Config
	}{
		"another authority": {other.Address, good}, "no certificate": {secure.Address, nameless}, "a plain server": {plain.Address, good},
		"a plain client": {secure.Address, nil},
	} {
		n := launch(t, []string{c.address}, newRoot(), func(o *Options) { o.TLS = c.tls })
		if _, err := n.Set(t.Context(), "x", nil, 0); !hub.Is(err, hub.Unavailable) {
			t.Errorf("%s: %v", what, err)
		} else if what == "another authority" && !strings.Contains(fmt.Sprint(errors.Unwrap(err)), "certificate") {
			t.Errorf("%s: why is not told: %v", what, errors.Unwrap(err))
		}
	}
	n := run(t, []string{secure.Address}, newRoot(), lasting, func(o *Options) { o.TLS = good })
	done(t, func() error { _, err := n.Set(t.Context(), "x", nil, 0); return err })
}

// TestPlaces: things lie where Names say, and the lease tells who waits for it.
func TestPlaces(t *testing.T) {
	t.Parallel()
	server := zkproc.Start(t, zkproc.Options{})[0]
	root := newRoot()
	c := run(t, []string{server.Address}, root, lasting, func(o *Options) {
		o.Name = "node-7:80"
		o.Names = Names{
			Registers: map[string]string{"webhook": "GroupLastCompleted"}, Leases: map[string]string{"webhook": "WebhookLeader"},
			Groups: map[string]string{"nodes": "HubCluster"},
		}
	})
	var l coord.Lease
	done(t, func() error { _, err := c.Set(t.Context(), "webhook/a", []byte("1"), 0); return err })
	done(t, func() (err error) { l, err = c.Acquire(t.Context(), "webhook/a"); return err })
	done(t, func() error { return c.Join(t.Context(), "nodes", "node-7:80", nil) })
	conn, err := c.connection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/GroupLastCompleted/a", "/HubCluster/node-7:80", "/WebhookLeader/a/" + l.(*lease).node} {
		if ok, err := conn.exists(root + p); !ok || err != nil {
			t.Errorf("%s: %v %v", p, ok, err)
		}
	}
	if who, _, err := conn.Get(root + "/WebhookLeader/a/" + l.(*lease).node); err != nil || string(who) != "node-7:80" {
		t.Errorf("the lease is held by %q, %v", who, err)
	}
	for _, n := range []Names{
		{Registers: map[string]string{"a": "b", "c": "b"}}, {Registers: map[string]string{"a": "b"}, Leases: map[string]string{"a": "b/c"}},
		{Groups: map[string]string{"a": "members"}}, {Groups: map[string]string{"a": ""}}, {Leases: map[string]string{"/": "a"}},
	} {
		if _, err := New(Options{Servers: []string{"x:1"}, Root: "/r", Names: n}); err == nil {
			t.Errorf("%+v was taken", n)
		}
	}
}

// agree runs the suite against a server.
func agree(t *testing.T, server *zkproc.Server, change ...func(*Options)) {
	coordtest.Run(t, func(t *testing.T) coordtest.World {
		root := newRoot()
		// What the suite calls without a second try must not lose its session to a busy machine.
		change := append([]func(*Options){lasting}, change...)
		if strings.HasSuffix(t.Name(), "Loss") { // it is waited for
			change = append(change, func(o *Options) { o.Session = 5 * time.Second })
		}
		var mu sync.Mutex // guards open
		var open []*node
		find := func(c coord.Coordinator) *node {
			mu.Lock()
			defer mu.Unlock()
			for _, n := range open {
				if n.Coordinator == c {
					return n
				}
			}
			t.Fatal("not one of this world")
			return nil
		}
		return coordtest.World{
			Open: func(t *testing.T) coord.Coordinator {
				n := run(t, []string{server.Address}, root, change...)
				mu.Lock()
				defer mu.Unlock()
				open = append(open, n)
				return n.Coordinator
			},
			Cut:  func(c coord.Coordinator) { find(c).link.set(true) },
			Mend: func(c coord.Coordinator) { find(c).link.set(false) },
			Restart: func(t *testing.T) {
				mu.Lock()
				defer mu.Unlock()
				for _, n := range open {
					n.stop()
				}
				open = nil
				server.Kill()
				server.Run(t)
				server.Wait(t)
			},
		}
	})
}

// TestFrozen: an ensemble that says nothing costs the leases, in time, by this process's own clock; when it goes on, all goes on.
func TestFrozen(t *testing.T) {
	t.Parallel()
	const sessionTime = 9 * time.Second // a third of it is what the machine may be late
	server := zkproc.Start(t, zkproc.Options{})[0]
	c := run(t, []string{server.Address}, newRoot(), func(o *Options) { o.Session = sessionTime })
	l, err := c.Acquire(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if g := c.Granted(); g != sessionTime {
		t.Errorf("the session was given %v", g)
	}
	began := time.Now()
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	<-l.Lost()
	if d := time.Since(began); d > sessionTime {
		t.Errorf("the lease was lost after %v only", d)
	}
	if _, err := c.Set(t.Context(), "x", nil, 0); !hub.Is(err, hub.Unavailable) {
		t.Errorf("a write to a frozen ensemble: %v", err)
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	var second coord.Lease
	for second == nil {
		if second, err = c.Acquire(t.Context(), "job"); err != nil && !hub.Is(err, hub.Unavailable) {
			t.Fatal(err)
		}
	}
	if second.Fence() <= l.Fence() {
		t.Errorf("fence %d after %d", second.Fence(), l.Fence())
	}
}

// TestBlip: a connection that breaks and comes back within the session costs nothing.
func TestBlip(t *testing.T) {
	server := zkproc.Start(t, zkproc.Options{Tick: time.Second})[0]
	n := &node{link: &link{conns: map[net.Conn]struct{}{}}}
	c, err := New(Options{Servers: []string{server.Address}, Root: newRoot(), Session: 6 * time.Second, Dial: n.link.dial})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	l, err := c.Acquire(ctx, "job")
	if err != nil {
		t.Fatal(err)
	}
	wake, stop := c.Watch("a")
	defer stop()
	<-wake
	for i := range 3 {
		n.link.set(true)
		n.link.set(false)
		for {
			if _, err = c.Update(ctx, []coord.Change{{Name: "a/b", Value: []byte{byte(i)}, Any: true}}); err == nil {
				break
			}
			if !hub.Is(err, hub.Unavailable) {
				t.Fatal(err)
			}
		}
		select {
		case <-wake:
		case <-time.After(time.Minute):
			t.Fatal("not woken")
		}
	}
	select {
	case <-l.Lost():
		t.Error("the lease was lost")
	default:
	}
}

// TestSameList: a group in which nothing changes costs two requests each time it is listed, however many are in it, and no more are made beside when that is often;
// a member that another session changes is seen at once.
func TestSameList(t *testing.T) {
	t.Parallel()
	server, root := zkproc.Start(t, zkproc.Options{})[0], newRoot()
	c, d := run(t, []string{server.Address}, root, lasting), run(t, []string{server.Address}, root, lasting)
	ctx := t.Context()
	for i := range 20 {
		done(t, func() error { return d.Join(ctx, "all", fmt.Sprint("node-", i), []byte("1")) })
	}
	requests := func() (n int) {
		text, err := server.Ask("mntr")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "zk_packets_received" {
				n, _ = strconv.Atoi(f[1])
			}
		}
		return n
	}
	before, epoch := 0, uint64(0)
	const times = 200
	for i := range times {
		if i == 1 { // the first one reads all
			before = requests()
		}
		list, e, err := c.List(ctx, "all")
		if err != nil || len(list) != 20 {
			t.Fatal(list, err)
		}
		epoch = e
		list[0].Name = "not mine to keep"
	}
	if n := requests() - before; before == 0 || n > 3*times {
		t.Errorf("%d requests for %d lists of the same", n, times)
	}
	if err := d.Join(ctx, "all", "node-7", []byte("2")); err != nil {
		t.Fatal(err)
	}
	list, e, err := c.List(ctx, "all")
	i := slices.IndexFunc(list, func(m coord.Member) bool { return m.Name == "node-7" })
	if err != nil || i < 0 || string(list[i].Value) != "2" || e <= epoch || list[0].Name != "node-0" {
		t.Errorf("%v, epoch %d after %d, %v", list, e, epoch, err)
	}
}

// TestOrphans: an Acquire that was given up leaves nothing in the queue, whenever its call arrives.
func TestOrphans(t *testing.T) {
	server := zkproc.Start(t, zkproc.Options{})[0]
	root := newRoot()
	c, d := run(t, []string{server.Address}, root, lasting), run(t, []string{server.Address}, root, lasting)
	done(t, func() error { _, err := c.Set(t.Context(), "warm", nil, 0); return err })
	for i := range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*100)*time.Microsecond)
		if l, err := c.Acquire(ctx, "job"); err == nil {
			_ = l.Release(t.Context())
		}
		cancel()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := d.Acquire(ctx, "job")
	if err != nil {
		t.Fatalf("somebody who gave up stands in the way: %v", err)
	}
	_ = l.Release(t.Context())
}

// TestEnsemble: the death of any server, the leader among them, loses no write, and nobody sees an older value after a newer one was written.
func TestEnsemble(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers")
	}
	servers := zkproc.Start(t, zkproc.Options{Servers: 3, Tick: 200 * time.Millisecond})
	addresses := []string{servers[0].Address, servers[1].Address, servers[2].Address}
	root := newRoot()
	nodes := []*node{run(t, addresses, root), run(t, addresses, root), run(t, addresses, root)}
	value := byte(0)
	step := func() {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); ; {
			w, r := nodes[int(value)%3], nodes[int(value+1)%3]
			_, version, err := w.Get(t.Context(), "n")
			if err == nil || hub.Is(err, hub.NotFound) {
				_, err = w.Set(t.Context(), "n", []byte{value}, version)
			}
			if err == nil {
				var got []byte
				if got, _, err = r.Get(t.Context(), "n"); err == nil {
					if got[0] != value {
						t.Fatalf("%d was read after %d had been written", got[0], value)
					}
					value++
					return
				}
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	for range 10 {
		step()
	}
	for _, leader := range []bool{true, false} {
		for i, s := range servers {
			if s.Leads() == leader {
				s.Kill()
				for range 10 {
					step()
				}
				servers[i].Run(t)
				servers[i].Wait(t)
				break
			}
		}
	}
	for range 10 {
		step()
	}
}
