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
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/hub"
	"timehub/hub/coord/local"
	"timehub/hub/disk"
	"timehub/hub/web"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// The search for counter-examples on real nodes: whole nodes on disks and connections in memory, in virtual time. A seed makes a cluster, its work and a
// schedule of faults (clusterfaults_test.go, clusteractors_test.go); the judge (clusterjudge_test.go) sees answers only. Goroutines are not scheduled by the
// seed: one that failed may need several runs to fail again.
var (
	simSeeds   = flag.Int("cluster.seeds", 10, "random schedules to play")
	simFrom    = flag.Uint64("cluster.from", 0, "the first of them; 0: any")
	simSeed    = flag.Uint64("cluster.seed", 0, "play this one only")
	simAgain   = flag.Int("cluster.again", 1, "how often each is played")
	simFirst   = flag.Bool("cluster.first", false, "end with the first that fails")
	simSteps   = flag.Int("cluster.steps", 50, "faults of a schedule")
	simPlain   = flag.Bool("cluster.plain", false, "without what a seed draws: sweeping, forced closings, damage, a replica")
	simReplica = flag.Bool("cluster.replica", false, "with a channel that has a source, in all schedules but those with forced closings")
	simTTL     = flag.Duration("cluster.ttl", 0, "after which what is archived is swept; 0: as the seed says")
	simDamage  = flag.Bool("cluster.damage", false, "with damaged segments, in all schedules but those with forced closings")
	simForce   = flag.Bool("cluster.force", false, "with closings that are forced, always: an even number of nodes, and half")
	simTrace   = flag.Bool("cluster.trace", false, "print the history of each schedule")
)

const (
	simGuard   = DefaultClockGuard
	simSession = 4 * time.Second // a node that is frozen longer has lost its session
)

// simWorld is one schedule. Its main goroutine changes it; mu guards what others look at.
type simWorld struct {
	t      *testing.T
	rng    *rand.Rand
	store  *local.Store
	rule   roster.Rule
	tune   func(*Options)
	judge  *judge
	past   *archive
	nodes  []*simNode
	over   chan struct{} // closed when writers and readers are to end
	actors sync.WaitGroup
	pumps  sync.WaitGroup
	doors  []net.Listener
	calls  time.Duration // what a call of the coordinator takes at most
	traits traits

	mu    sync.Mutex
	links map[[2]string]*link
}

// traits are what some schedules have and others have not.
type traits struct {
	ttl                     time.Duration // after which what is archived is swept
	replica, damage, forced bool
	forceAfter              time.Duration // nodes force closings by themselves
}

// draw says what a seed has: of its own random numbers, so that the rest of the schedule is the same with it and without.
func (w *simWorld) draw(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 10))
	one := func(of int) bool { return rng.IntN(of) == 0 && !*simPlain }
	t := &w.traits
	if one(3) {
		t.ttl = 15 * time.Second
	}
	t.forced = one(6)
	if *simTTL > 0 {
		t.ttl = *simTTL
	}
	t.forced = t.forced || *simForce
	if t.forced {
		w.rule = roster.Half
		if rng.IntN(2) == 0 {
			t.forceAfter = time.Duration(2+rng.IntN(15)) * time.Second
		}
		w.judge.forcible = true
	}
	t.damage = (one(4) || *simDamage) && !t.forced // with both, what is lost on one side may be lost
	t.replica = (one(3) || *simReplica) && !t.forced
}

// simNode is a name with the disk and the process that it has at the moment.
type simNode struct {
	w       *simWorld
	name    string
	net     *memnet.Net
	skew    atomic.Int64 // of its clock, in ns
	disk    *memdisk.Disk
	session *local.Coordinator
	gate    *gate // between the process and the coordinator
	cut     bool  // the session is
	small   bool  // the disk is full
	out     bool  // it was decommissioned, and its process is not to start before it is called back
	stop    func()

	// guarded by w.mu
	life  int // rises with each start and end
	node  *Node
	awake chan struct{} // closed while the process runs
}

// link is one direction between two nodes.
type link struct {
	open  chan struct{} // closed while bytes pass
	delay time.Duration
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func newSim(t *testing.T, seed uint64) *simWorld {
	w := &simWorld{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), store: local.NewMemory(), rule: roster.Half, judge: newJudge(), past: newArchive(), over: make(chan struct{}),
		links: map[[2]string]*link{},
	}
	w.judge.past, w.traits.ttl = w.past, time.Hour
	if w.rng.IntN(2) == 0 {
		w.rule = roster.Majority
	}
	w.calls = []time.Duration{0, 5 * time.Millisecond, 50 * time.Millisecond}[w.rng.IntN(3)]
	return w
}

func (w *simWorld) note(format string, args ...any) { w.judge.note(format, args...) }

// add makes a node with an empty disk and starts it.
func (w *simWorld) add() *simNode {
	n := &simNode{w: w, name: fmt.Sprintf("n%d:80", len(w.nodes)), net: memnet.New(), awake: closedChannel()}
	n.setSkew(w.smallSkew())
	n.disk = w.newDisk(n)
	for _, m := range w.nodes {
		w.connect(n, m)
		w.connect(m, n)
	}
	w.mu.Lock()
	w.nodes = append(w.nodes, n)
	w.mu.Unlock()
	n.start()
	return n
}

func (w *simWorld) smallSkew() time.Duration {
	return time.Duration(w.rng.IntN(200)-100) * time.Millisecond
}

func (n *simNode) setSkew(d time.Duration) { n.skew.Store(int64(d)) }

func (n *simNode) clock() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

// newDisk is an empty disk, on which a sync takes its time. While its process is frozen, nothing happens on it.
func (w *simWorld) newDisk(n *simNode) *memdisk.Disk {
	delays := [...]time.Duration{0, 2 * time.Millisecond, 40 * time.Millisecond}
	delay := delays[w.rng.IntN(len(delays))]
	return memdisk.New(memdisk.Options{Seed: w.rng.Uint64(), Hook: func(c memdisk.Call) memdisk.Fault {
		n.wait(nil)
		if c.Op == memdisk.OpSync {
			return memdisk.Fault{Delay: delay}
		}
		return memdisk.Fault{}
	}})
}

// wait is where everything of a frozen process stands.
func (n *simNode) wait(done <-chan struct{}) {
	n.w.mu.Lock()
	awake := n.awake
	n.w.mu.Unlock()
	select {
	case <-awake:
	case <-done:
	}
}

// freeze stops a process, or lets it go on.
func (n *simNode) freeze(frozen bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	is := true
	select {
	case <-n.awake:
		is = false
	default:
	}
	switch {
	case frozen && !is:
		n.awake = make(chan struct{})
	case !frozen && is:
		close(n.awake)
	}
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
			w.links[k] = &link{open: closedChannel()}
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
				w.pass(there, a, b)
				far, err := b.net.Dial(context.Background(), "tcp", "self:80")
				if err != nil {
					_ = near.Close()
					return
				}
				w.pumps.Go(func() { w.pump(far, near, there, a, b) })
				w.pump(near, far, back, b, a)
			})
		}
	})
}

// pass waits until a link is open, and as long as bytes take.
func (w *simWorld) pass(k [2]string, from, to *simNode) {
	w.mu.Lock()
	open, delay := w.links[k].open, w.links[k].delay
	w.mu.Unlock()
	from.wait(nil)
	<-open
	if delay > 0 {
		time.Sleep(delay)
	}
	to.wait(nil)
}

// pump carries one direction of a connection; an end passes like bytes.
func (w *simWorld) pump(to, from net.Conn, k [2]string, a, b *simNode) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.pass(k, a, b)
		if n > 0 {
			if _, e := to.Write(buf[:n]); e != nil {
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

func (n *simNode) options() Options {
	w := n.w
	archived := w.past.archived
	if breaks("swept-before-archived") {
		archived = func(string) (hub.Key, bool) { return hub.MaxKey, true }
	}
	mode := spokelog.Always
	if breaks("no-fsync") {
		mode = spokelog.Never
	}
	n.gate = &gate{Coordinator: &simCoordinator{n.session, n}}
	return Options{
		Disk: n.disk, Clock: n.clock, Log: w.judge.logger(n.name), WriteTimeout: 2 * time.Second, SweepEvery: 3 * time.Second, Archived: archived,
		Segments: spokelog.Options{
			Sync:           mode,
			SegmentRecords: 40 + w.rng.IntN(400), SegmentAge: 5 * time.Second, TTL: w.traits.ttl, MinFree: 64 << 10, LateConfirmed: n.confirm,
		},
		Cluster: &Cluster{
			Node: n.name, Coordinator: n.gate, Rule: w.rule, Beat: 50 * time.Millisecond, Dial: n.net.Dial, given: w.judge.gaveUp,
			ForceAfter: w.traits.forceAfter,
		},
	}
}

func (n *simNode) start() {
	w := n.w
	n.freeze(false)
	n.session, n.cut = w.store.Session(n.name), false
	opt := n.options()
	if w.tune != nil {
		w.tune(&opt)
	}
	node, found, err := Open(context.Background(), opt)
	if err != nil {
		w.store.Cut(n.session)
		n.disk = n.disk.Restart(memdisk.ProcessKill, 0)
		if !errors.Is(err, errFault) && !errors.Is(err, memdisk.ErrKilled) && !errors.Is(err, disk.ErrFull) {
			w.judge.fail("%s does not start: %v", n.name, err)
		}
		return
	}
	for _, h := range found.Holes {
		w.note("%s starts with a hole: %v", n.name, h)
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
	session, medium := n.session, n.disk
	wg.Go(func() { _ = server.Serve(l) })
	wg.Go(func() { _ = session.Run(ctx) })
	wg.Go(func() {
		if err := node.Run(ctx); err != nil && !errors.Is(err, memdisk.ErrKilled) {
			select {
			case <-medium.Dead():
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

// errFault is what a disk says that does not do as it is told.
var errFault = fmt.Errorf("the disk has a fault: %w", io.ErrShortWrite)

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
	medium := n.disk
	w.note("%s: %s", n.name, how)
	switch how {
	case "power":
		n.disk = medium.Restart(memdisk.PowerCut, seed)
		n.net.Cut()
	case "kill":
		n.disk = medium.Restart(memdisk.ProcessKill, seed)
		n.net.Cut()
	}
	n.freeze(false)
	n.stop()
	if how == "stop" {
		n.disk = medium.Restart(memdisk.ProcessKill, seed)
	}
}

func (w *simWorld) current(n *simNode) (*Node, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n.node, n.life
}

// living lists the nodes that run.
func (w *simWorld) living() (list []*simNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.node != nil {
			list = append(list, n)
		}
	}
	return list
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

// play is a whole schedule.
func (w *simWorld) play(steps int) {
	first := 1 + w.rng.IntN(5)
	members := max(first, 1+w.rng.IntN(5))
	if w.traits.forced {
		first = 2 + first/3*2
		members = max(first, members)
	}
	w.note("%d nodes, up to %d, %s, %+v", first, members, w.rule, w.traits)
	for range first {
		w.people(w.add())
		if w.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
		}
	}
	w.crowd()
	time.Sleep(2 * time.Second)
	for range steps {
		if w.judge.failed() {
			break
		}
		w.step(members)
		time.Sleep(time.Duration(w.rng.IntN(1+w.rng.IntN(3000))) * time.Millisecond)
		w.bury()
	}
	w.heal()
	w.finish()
}

// finish ends everything.
func (w *simWorld) finish() {
	w.judge.counts.dropped = int(w.list().Dropped)
	close(w.over)
	w.endFaults()
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

// runSim plays a schedule and returns what the judge has against it.
func runSim(t *testing.T, seed uint64, steps int) (verdict string, counts tally) {
	synctest.Test(t, func(t *testing.T) {
		w := newSim(t, seed)
		w.draw(seed)
		w.play(steps)
		verdict, counts = w.judge.verdict(), w.judge.counts
		if *simTrace {
			t.Log(w.judge.story())
		}
	})
	return verdict, counts
}

func TestClusterAtRandom(t *testing.T) {
	from, seeds := *simFrom, *simSeeds
	switch {
	case *simSeed != 0:
		from, seeds = *simSeed, 1
	case from == 0:
		from = rand.Uint64N(1 << 40)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a quarter of the time goes into collecting what schedules let fall
	var mu sync.Mutex
	var all tally
	var failed atomic.Bool
	began, played := time.Now(), 0
	t.Run("seeds", func(t *testing.T) {
		room := make(chan struct{}, runtime.GOMAXPROCS(0))
		for seed := from; seed < from+uint64(seeds); seed++ {
			for range *simAgain {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					t.Parallel()
					room <- struct{}{}
					defer func() { <-room }()
					if *simFirst && failed.Load() {
						return
					}
					bad, counts := runSim(t, seed, *simSteps)
					mu.Lock()
					all.add(counts)
					played++
					mu.Unlock()
					if bad != "" {
						failed.Store(true)
						t.Fatalf("repeat it with: go test ./spoke -run TestClusterAtRandom -cluster.seed=%d -cluster.again=20\n%s", seed, bad)
					}
				})
			}
		}
	})
	took := time.Since(began)
	t.Logf("%d schedules in %v, %.1f a second: %v", played, took.Round(time.Millisecond), float64(played)/took.Seconds(), all)
}
