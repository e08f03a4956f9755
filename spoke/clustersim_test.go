package spoke

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/hub"
	"timehub/hub/coord/local"
	"timehub/hub/web"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// The search for counter-examples on real nodes: whole nodes on disks and connections in memory, in virtual time. A seed makes a cluster and a schedule of
// faults; the judge (clusterjudge_test.go) sees answers only. Goroutines are not scheduled by the seed: one that failed may need several runs to fail again.
var (
	simSeeds   = flag.Int("cluster.seeds", 6, "random schedules to play")
	simSeed    = flag.Uint64("cluster.seed", 0, "play this one only")
	simSteps   = flag.Int("cluster.steps", 50, "faults of a schedule")
	simMutants = flag.Int("cluster.mutants", 60, "schedules to play until a broken rule has to be noticed")
	simTrace   = flag.Bool("cluster.trace", false, "print the history of each schedule")
)

// simWorld is one schedule. Its main goroutine changes it; mu guards what others look at.
type simWorld struct {
	t      *testing.T
	rng    *rand.Rand
	store  *local.Store
	rule   roster.Rule
	broken string // a rule that is broken on purpose
	tune   func(*Options)
	judge  *judge
	nodes  []*simNode
	over   chan struct{} // closed when writers and readers are to end
	actors sync.WaitGroup
	pumps  sync.WaitGroup
	doors  []net.Listener

	mu    sync.Mutex
	links map[[2]string]*link
}

// simNode is a name with the disk and the process that it has at the moment.
type simNode struct {
	w       *simWorld
	name    string
	net     *memnet.Net
	skew    time.Duration
	disk    *memdisk.Disk
	session *local.Coordinator
	cut     bool // the session is
	stop    func()

	// guarded by w.mu
	life int // rises with each start and end
	node *Node
}

// link is one direction between two nodes.
type link struct {
	open  chan struct{} // closed while bytes pass
	delay time.Duration
}

func newSim(t *testing.T, seed uint64, broken string) *simWorld {
	w := &simWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), store: local.NewMemory(), rule: roster.Half, broken: broken, judge: newJudge(), over: make(chan struct{}),
		links: map[[2]string]*link{},
	}
	if w.rng.IntN(2) == 0 {
		w.rule = roster.Majority
	}
	return w
}

func (w *simWorld) note(format string, args ...any) { w.judge.note(format, args...) }

// add makes a node with an empty disk and starts it.
func (w *simWorld) add() {
	n := &simNode{w: w, name: fmt.Sprintf("n%d:80", len(w.nodes)), net: memnet.New(), skew: time.Duration(w.rng.IntN(200)-100) * time.Millisecond}
	n.disk = w.newDisk()
	for _, m := range w.nodes {
		w.connect(n, m)
		w.connect(m, n)
	}
	w.nodes = append(w.nodes, n)
	n.start()
	for i := range 2 {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), 2))
		w.actors.Go(func() { w.writer(n, i, rng) })
	}
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 3))
	w.actors.Go(func() { w.reader(n, rng) })
}

// newDisk is an empty disk, on which a sync takes its time.
func (w *simWorld) newDisk() *memdisk.Disk {
	delays := [...]time.Duration{0, 2 * time.Millisecond, 40 * time.Millisecond}
	delay := delays[w.rng.IntN(len(delays))]
	return memdisk.New(memdisk.Options{Seed: w.rng.Uint64(), Hook: func(c memdisk.Call) memdisk.Fault {
		if c.Op == memdisk.OpSync {
			return memdisk.Fault{Delay: delay}
		}
		return memdisk.Fault{}
	}})
}

// connect lets a reach b: bytes pass two links.
func (w *simWorld) connect(a, b *simNode) {
	l, err := a.net.Listen("tcp", b.name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.doors = append(w.doors, l)
	there, back := [2]string{a.name, b.name}, [2]string{b.name, a.name}
	w.mu.Lock()
	for _, k := range [][2]string{there, back} {
		if w.links[k] == nil {
			open := make(chan struct{})
			close(open)
			w.links[k] = &link{open: open}
		}
	}
	w.mu.Unlock()
	w.pumps.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			w.pumps.Go(func() {
				w.pass(there)
				far, err := b.net.Dial(context.Background(), "tcp", "self:80")
				if err != nil {
					_ = near.Close()
					return
				}
				w.pumps.Go(func() { w.pump(far, near, there) })
				w.pump(near, far, back)
			})
		}
	})
}

// pass waits until a link is open, and as long as bytes take.
func (w *simWorld) pass(k [2]string) {
	w.mu.Lock()
	open, delay := w.links[k].open, w.links[k].delay
	w.mu.Unlock()
	<-open
	if delay > 0 {
		time.Sleep(delay)
	}
}

// pump carries one direction of a connection; an end passes like bytes.
func (w *simWorld) pump(to, from net.Conn, k [2]string) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		w.pass(k)
		if n > 0 {
			if _, e := to.Write(b[:n]); e != nil {
				err = e
			}
		}
		if err != nil {
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}

func (w *simWorld) setLink(a, b *simNode, open bool, delay time.Duration) {
	if a == b {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.links[[2]string{a.name, b.name}]
	is := true
	select {
	case <-l.open:
	default:
		is = false
	}
	switch {
	case open && !is:
		close(l.open)
	case !open && is:
		l.open = make(chan struct{})
	}
	l.delay = delay
}

func (n *simNode) start() {
	w := n.w
	n.session, n.cut = w.store.Session(n.name), false
	segments := spokelog.Options{SegmentRecords: 40 + w.rng.IntN(400), MinFree: -1}
	if w.broken == "no fsync" {
		segments.Sync = spokelog.Never
	}
	cl := &Cluster{
		Node: n.name, Coordinator: n.session, Rule: w.rule, Beat: 50 * time.Millisecond, Dial: n.net.Dial, broken: w.broken,
	}
	skew := n.skew
	opt := Options{Disk: n.disk, Clock: func() time.Time { return time.Now().Add(skew) }, Cluster: cl, Segments: segments, WriteTimeout: 2 * time.Second}
	if w.tune != nil {
		w.tune(&opt)
	}
	node, _, err := Open(context.Background(), opt)
	if err != nil {
		w.store.Cut(n.session)
		n.disk = n.disk.Restart(memdisk.ProcessKill, 0)
		if !errors.Is(err, io.ErrShortWrite) {
			w.judge.fail("%s does not start: %v", n.name, err)
		}
		return
	}
	rt, err := web.New(web.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	node.Add(rt)
	l, err := n.net.Listen("tcp", "self:80")
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: rt}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	session, disk := n.session, n.disk
	wg.Go(func() { _ = server.Serve(l) })
	wg.Go(func() { _ = session.Run(ctx) })
	wg.Go(func() {
		if err := node.Run(ctx); err != nil && !errors.Is(err, memdisk.ErrKilled) {
			select {
			case <-disk.Dead():
			default:
				w.judge.fail("%s: Run: %v", n.name, err)
			}
		}
	})
	w.mu.Lock()
	n.life++
	n.node = node
	w.mu.Unlock()
	n.stop = func() {
		w.store.Cut(session)
		cancel()
		_ = server.Close()
		n.net.Cut()
		ended := make(chan struct{})
		go func() { wg.Wait(); _ = node.Close(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			b := make([]byte, 4<<20)
			w.t.Fatalf("%s does not end\n%s\n%s", n.name, w.judge.story(), b[:runtime.Stack(b, true)])
		}
	}
}

// end ends the process, with the disk as it is then.
func (n *simNode) end(how string) {
	w := n.w
	w.mu.Lock()
	if n.node == nil {
		w.mu.Unlock()
		return
	}
	n.node = nil
	n.life++
	w.mu.Unlock()
	seed := w.rng.Uint64()
	disk := n.disk
	w.note("%s: %s", n.name, how)
	switch how {
	case "power":
		n.disk = disk.Restart(memdisk.PowerCut, seed)
		n.net.Cut()
	case "kill":
		n.disk = disk.Restart(memdisk.ProcessKill, seed)
		n.net.Cut()
	}
	n.stop()
	if how == "stop" {
		n.disk = disk.Restart(memdisk.ProcessKill, seed)
	}
}

func (w *simWorld) current(n *simNode) (*Node, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n.node, n.life
}

// list is the list on record.
func (w *simWorld) list() roster.Roster {
	s := w.store.Session("reader")
	defer w.store.Cut(s)
	b, _, err := s.Get(context.Background(), listRegister)
	if err != nil {
		return roster.New(w.rule)
	}
	r, err := roster.Parse(b)
	if err != nil {
		w.judge.fail("%v", err)
	}
	return r
}

// lose replaces the disk of a node by an empty one, if no acknowledged item can be lost by it.
func (w *simWorld) lose(n *simNode) {
	r := w.list()
	d, ok := r.Member(n.name)
	if !ok || r.Next != nil {
		return
	}
	node, _ := w.current(n)
	if node == nil || node.Identity().ID != d.ID {
		return
	}
	gone := 1
	for _, d := range r.Disks {
		if w.judge.lostDisks[d.ID] {
			gone++
		}
	}
	if gone >= r.Rule.Write(len(r.Disks)) {
		return
	}
	w.judge.lostDisks[d.ID] = true
	n.end("power")
	n.disk = w.newDisk()
	w.note("%s lost its disk", n.name)
}

func (w *simWorld) any() *simNode { return w.nodes[w.rng.IntN(len(w.nodes))] }

// step is one fault, or the end of one.
func (w *simWorld) step(members int) {
	n, m := w.any(), w.any()
	switch w.rng.IntN(16) {
	case 0:
		n.end("power")
	case 1:
		n.end("kill")
	case 2:
		n.end("stop")
	case 3, 4, 5, 6:
		for _, n := range w.nodes {
			if node, _ := w.current(n); node == nil && w.rng.IntN(3) > 0 {
				w.note("%s starts", n.name)
				n.start()
			}
		}
	case 7:
		w.note("%s does not reach %s", n.name, m.name)
		w.setLink(n, m, false, 0)
	case 8:
		w.note("%s is cut off", n.name)
		for _, m := range w.nodes {
			w.setLink(n, m, false, 0)
			w.setLink(m, n, false, 0)
		}
	case 9, 10:
		w.note("links are mended")
		for _, n := range w.nodes {
			for _, m := range w.nodes {
				w.setLink(n, m, true, 0)
			}
		}
	case 11:
		d := time.Duration(w.rng.IntN(300)) * time.Millisecond
		w.note("%s reaches %s in %v", n.name, m.name, d)
		w.setLink(n, m, true, d)
	case 12:
		if !n.cut {
			w.note("%s loses its session", n.name)
			n.cut = true
			w.store.Cut(n.session)
		}
	case 13:
		w.mend()
	case 14:
		if w.rng.IntN(2) == 0 {
			w.lose(n)
		} else if len(w.nodes) < members {
			w.note("another node joins")
			w.add()
		}
	case 15:
		switch w.rng.IntN(4) {
		case 0:
			w.note("the coordinator is away")
			for _, n := range w.nodes {
				if node, _ := w.current(n); node != nil && !n.cut {
					n.cut = true
					w.store.Cut(n.session)
				}
			}
		case 1:
			w.note("everybody dies")
			for _, n := range w.nodes {
				n.end("power")
			}
		default:
			what := []string{"spoke/*", "cluster*", "clock", "*"}[w.rng.IntN(4)]
			w.note("%s: the next syncs of %s fail", n.name, what)
			n.disk.Inject(memdisk.Rule{Ops: memdisk.OpSync, Name: what, Times: 1 + w.rng.IntN(2), Fault: memdisk.Fault{Err: io.ErrShortWrite, Effect: memdisk.Effect(w.rng.IntN(3))}})
		}
	}
}

func (w *simWorld) mend() {
	w.note("sessions are mended")
	for _, n := range w.nodes {
		if node, _ := w.current(n); node != nil && n.cut {
			n.cut = false
			w.store.Mend(n.session)
		}
	}
}

// play is a whole schedule.
func (w *simWorld) play(steps int) {
	first := 1 + w.rng.IntN(5)
	members := max(first, 1+w.rng.IntN(5))
	w.note("%d nodes, up to %d, %s", first, members, w.rule)
	for range first {
		w.add()
		if w.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
		}
	}
	time.Sleep(2 * time.Second)
	for range steps {
		if w.judge.failed() {
			break
		}
		w.step(members)
		time.Sleep(time.Duration(w.rng.IntN(1+w.rng.IntN(3000))) * time.Millisecond)
	}
	w.heal()
	close(w.over)
	for _, n := range w.nodes {
		n.end("stop")
	}
	w.actors.Wait()
	for _, l := range w.doors {
		_ = l.Close()
	}
	for _, n := range w.nodes {
		n.net.Cut()
	}
	w.pumps.Wait()
}

// heal ends all faults and demands progress and equality; some stay dead, as many as may be.
func (w *simWorld) heal() {
	if w.judge.failed() {
		w.openLinks()
		return
	}
	w.note("faults end")
	w.openLinks()
	w.mend()
	r := w.list()
	dead := map[*simNode]bool{}
	if spare := len(r.Disks) - max(r.Rule.Write(len(r.Disks)), r.Rule.Read(len(r.Disks))); r.Next == nil && spare > 0 && w.rng.IntN(3) == 0 {
		for _, d := range r.Disks {
			if w.judge.lostDisks[d.ID] {
				spare = 0
			}
		}
		for range spare {
			n := w.any()
			n.end("power")
			dead[n] = true
		}
	}
	for _, n := range w.nodes {
		for range 10 { // injected faults may be left
			if node, _ := w.current(n); node == nil && !dead[n] {
				w.note("%s starts", n.name)
				n.start()
			}
		}
	}
	moment := hub.KeyAt(time.Now().UnixMilli(), "")
	var channels = []string{"a", "b"}
	var why string
	for range 300 {
		time.Sleep(500 * time.Millisecond)
		if w.judge.failed() {
			return
		}
		if why = w.behind(moment, channels); why == "" {
			break
		}
	}
	if why != "" {
		w.judge.fail("after the faults: %s\n%s", why, w.dump())
		return
	}
	for _, n := range w.nodes {
		if node, _ := w.current(n); node != nil {
			for _, ch := range channels {
				w.judge.bytes(node, ch)
			}
		}
	}
}

func (w *simWorld) openLinks() {
	for _, n := range w.nodes {
		for _, m := range w.nodes {
			w.setLink(n, m, true, 0)
		}
	}
}

// behind says which live node's horizon has not passed a moment.
func (w *simWorld) behind(moment hub.Key, channels []string) string {
	for _, n := range w.nodes {
		node, _ := w.current(n)
		if node == nil {
			continue
		}
		for _, ch := range channels {
			page, err := node.Keys(context.Background(), hub.Query{Channel: ch, From: hub.MinKey, To: hub.MaxKey, Stable: true})
			if err != nil {
				return fmt.Sprintf("%s answers %v", n.name, err)
			}
			if page.Horizon.Less(moment) {
				return fmt.Sprintf("the horizon of %s stays at %v", n.name, page.Horizon)
			}
			if now, _ := w.current(n); now == node {
				w.judge.answer(n.name, ch, page, false)
			}
		}
	}
	return ""
}

// dump is what the nodes know.
func (w *simWorld) dump() string {
	s := ""
	rec, _ := w.list().Encode()
	s += "list " + string(rec) + "\n"
	for _, n := range w.nodes {
		node, _ := w.current(n)
		if node == nil {
			s += n.name + " is dead\n"
			continue
		}
		c := node.cluster
		node.mu.Lock()
		h, ok := c.horizon()
		s += fmt.Sprintf("%s disk %s %d.%d: open %v own %v fresh %v floor %v horizon %v %v pos %d own %d quorum %d epoch %d flight %d\n", n.name, node.identity.ID[:6], node.stream.Ordinal,
			node.identity.Incarnation, c.open, recordOf(node.stream), c.fresh, c.floor.Key(), h.Key(), ok, c.pos, c.ownPos, c.quorum, c.rec.Epoch, len(node.flight.queue)-node.flight.head)
		var ids []spokelog.Stream
		for id := range c.streams {
			ids = append(ids, id)
		}
		slices.SortFunc(ids, func(a, b spokelog.Stream) int {
			return int(a.Ordinal)*1000 + int(a.Incarnation) - int(b.Ordinal)*1000 - int(b.Incarnation)
		})
		for _, id := range ids {
			if st := c.streams[id]; !st.complete {
				s += fmt.Sprintf("   %v low %v refused %v outstanding %d in %v\n", recordOf(id), st.low.Key(), st.refused, st.outstanding, st.in != nil)
			}
		}
		for t := range c.tails {
			s += fmt.Sprintf("   tail %s pos %d queue %d broken %v acked %d\n", t.disk[:6], t.pos, len(t.queue), t.broken, c.acked[t.disk])
		}
		node.mu.Unlock()
	}
	return s
}

// runSim plays a schedule and returns what the judge has against it.
func runSim(t *testing.T, seed uint64, broken string, steps int) (verdict string) {
	synctest.Test(t, func(t *testing.T) {
		w := newSim(t, seed, broken)
		w.play(steps)
		verdict = w.judge.verdict()
		if *simTrace {
			t.Log(w.judge.story())
		}
	})
	return verdict
}

func TestClusterAtRandom(t *testing.T) {
	seeds := []uint64{*simSeed}
	if *simSeed == 0 {
		seeds = nil
		base := rand.Uint64N(1 << 40)
		for i := range *simSeeds {
			seeds = append(seeds, base+uint64(i))
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			if bad := runSim(t, seed, "", *simSteps); bad != "" {
				t.Fatalf("-cluster.seed=%d: %s", seed, bad)
			}
		})
	}
}

// Rules that are broken on purpose have to be noticed, or the search sees nothing.
func TestClusterSearchNotices(t *testing.T) {
	if testing.Short() {
		t.Skip("a search")
	}
	for _, broken := range []string{"no fsync", "low before sync"} {
		t.Run(broken, func(t *testing.T) {
			for seed := range uint64(*simMutants) {
				if bad := runSim(t, seed+1, broken, *simSteps); bad != "" {
					first, _, _ := strings.Cut(bad, "\n")
					t.Logf("seed %d: %s", seed+1, first)
					return
				}
			}
			t.Errorf("not noticed in %d schedules", *simMutants)
		})
	}
}
