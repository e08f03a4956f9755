package spoke

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/coord/local"
	"timehub/hub/web"
	"timehub/spoke/roster"
)

// clusterWorld is several nodes in one process, on disks in memory and loopback connections, with one coordinator.
type clusterWorld struct {
	t     *testing.T
	store *local.Store
	rule  roster.Rule
	nodes []*clusterNode
}

type clusterNode struct {
	*Node
	w       *clusterWorld
	address string
	listen  string // where it really is; "": there
	disk    *memdisk.Disk
	session *local.Coordinator
	clock   hub.Clock // nil: time.Now
	server  *http.Server
	stop    func()
}

func newClusterWorld(t *testing.T, n int, rule roster.Rule) *clusterWorld {
	return newClusterWorldAt(t, n, rule, nil)
}

// newClusterWorldAt gives all nodes one clock; nil: time.Now.
func newClusterWorldAt(t *testing.T, n int, rule roster.Rule, clock hub.Clock) *clusterWorld {
	w := &clusterWorld{t: t, store: local.NewMemory(), rule: rule}
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := &clusterNode{w: w, address: l.Addr().String(), disk: memdisk.New(memdisk.Options{}), clock: clock}
		_ = l.Close()
		w.nodes = append(w.nodes, c)
		c.start()
	}
	t.Cleanup(func() {
		for _, c := range w.nodes {
			c.kill()
		}
	})
	return w
}

func (c *clusterNode) start() {
	t := c.w.t
	t.Helper()
	c.session = c.w.store.Session(c.address)
	clock := c.clock
	if clock == nil {
		clock = time.Now
	}
	n, _, err := Open(t.Context(), Options{
		Disk: c.disk, Clock: clock, Cluster: &Cluster{Node: c.address, Coordinator: c.session, Rule: c.w.rule},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Node = n
	rt, err := web.New(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n.Add(rt)
	var l net.Listener
	for range 100 {
		if l, err = net.Listen("tcp", cmp.Or(c.listen, c.address)); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.server = &http.Server{Handler: rt}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.server.Serve(l) })
	wg.Go(func() { _ = c.session.Run(ctx) })
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("%s: %v", c.address, err)
		}
	})
	c.stop = func() {
		_ = c.server.Close()
		c.w.store.Cut(c.session)
		cancel()
		wg.Wait()
		_ = n.Close()
	}
}

// kill ends the node at once: its disk forgets what was not synced.
func (c *clusterNode) kill() {
	if c.Node == nil {
		return
	}
	next := c.disk.Fork(memdisk.PowerCut, 1)
	c.stop()
	c.Node, c.disk = nil, next
}

func (c *clusterNode) write(channel, data string) hub.Key {
	c.w.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		k, err := c.Write(c.w.t.Context(), channel, []byte(data))
		if err == nil {
			return k
		}
		if !hub.Is(err, hub.Unavailable) || time.Now().After(deadline) {
			c.w.t.Fatalf("%s: %v", c.address, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitFor waits until the node's stable answer has all keys.
func (c *clusterNode) waitFor(channel string, want map[hub.Key]string) {
	t := c.w.t
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		page, err := c.Keys(t.Context(), hub.Query{Channel: channel, From: hub.MinKey, To: hub.MaxKey, Stable: true})
		have := map[hub.Key]bool{}
		for _, k := range page.Keys {
			have[k] = true
		}
		missing := 0
		for k := range want {
			if !have[k] {
				missing++
			}
		}
		if err == nil && missing == 0 {
			for k, data := range want {
				item, err := c.Read(t.Context(), channel, k)
				if err != nil || string(item.Data) != data {
					t.Fatalf("%s: %s: %q, %v", c.address, k, item.Data, err)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			c.mu.Lock()
			lows := map[string]string{}
			for id, s := range c.cluster.streams {
				lows[recordOf(id).String()] = fmt.Sprint(s.low.Key(), " refused ", s.refused, " complete ", s.complete, " in ", s.in != nil)
			}
			rec, _ := c.cluster.rec.Encode()
			c.mu.Unlock()
			t.Fatalf("%s: %d of %d keys are missing, horizon %v, %v\nstreams %v\nlist %s", c.address, missing, len(want), page.Horizon, err, lows, rec)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestThreeNodes(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	want := map[hub.Key]string{}
	for i := range 30 {
		data := fmt.Sprint("item ", i)
		want[w.nodes[i%3].write("x", data)] = data
	}
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
}

func TestNodeDiesAndReturns(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	want := map[hub.Key]string{}
	put := func(n *clusterNode, count int) {
		t.Helper()
		for range count {
			data := fmt.Sprint("item ", len(want))
			want[n.write("x", data)] = data
		}
	}
	for _, n := range w.nodes {
		put(n, 10)
	}
	w.nodes[1].kill()
	put(w.nodes[0], 20)
	put(w.nodes[2], 20)
	w.nodes[0].waitFor("x", want)
	w.nodes[2].waitFor("x", want)
	w.nodes[1].start()
	put(w.nodes[0], 5)
	put(w.nodes[1], 5)
	for _, n := range w.nodes {
		n.waitFor("x", want)
	}
}

func TestAllDie(t *testing.T) {
	for _, rule := range []roster.Rule{roster.Half, roster.Majority} {
		for n := 1; n <= 5; n++ {
			t.Run(fmt.Sprint(rule, n), func(t *testing.T) {
				w := newClusterWorld(t, n, rule)
				want := map[hub.Key]string{}
				for range 3 {
					for _, n := range w.nodes {
						data := fmt.Sprint("item ", len(want))
						want[n.write("x", data)] = data
					}
					for _, n := range w.nodes {
						n.kill()
					}
					for _, n := range w.nodes {
						n.start()
					}
				}
				for _, n := range w.nodes {
					n.waitFor("x", want)
				}
			})
		}
	}
}

// TestLateSet: whoever comes with another set for a stream that is closed brings nothing to a disk that has completed it: there it would be alone.
func TestLateSet(t *testing.T) {
	w := newClusterWorld(t, 3, roster.Half)
	want := map[hub.Key]string{}
	for i, c := range w.nodes {
		data := fmt.Sprint("item ", i)
		want[c.write("c", data)] = data
	}
	w.nodes[2].kill()
	first := w.nodes[0].cluster
	var closed roster.Incarnation
	for deadline := time.Now().Add(3 * time.Minute); closed.Closed == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the incarnation of the dead node is not closed")
		}
		first.n.mu.Lock()
		for _, i := range first.rec.Streams {
			if st := first.streams[streamOf(i.Stream)]; i.Closed != nil && st != nil && st.complete {
				closed = i
			}
		}
		first.n.mu.Unlock()
	}
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "late") }))
	defer stranger.Close()
	key := closed.Closed.Base.Key()
	late := named{"c", hub.KeyAt(key.Millis()+1, "AAAAAA").String()}
	have := map[named][]string{late: {strings.TrimPrefix(stranger.URL, "http://")}}
	for i, by := range []int{1, 0} { // over the wire, and from the leader to itself
		err := w.nodes[by].cluster.askStore(t.Context(), w.nodes[0].address, &leader{s: closed.Stream, base: closed.Closed.Base, set: []named{late}, have: have})
		if !hub.Is(err, hub.Conflict) {
			t.Errorf("%d: a late set is answered with %v", i, err)
		}
	}
	w.nodes[0].waitFor("c", want)
	lateKey, err := hub.ParseKey(late.Key)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.nodes[0].store.Get(t.Context(), "c", lateKey); !hub.Is(err, hub.NotFound) {
		t.Errorf("the late item is there: %q %v", r.Data, err)
	}
}
