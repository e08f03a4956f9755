package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"timehub/e2e/memnet"
	"timehub/e2e/sim"
	"timehub/hub"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord/local"
)

// world is one seed. Its own goroutine changes it.
type world struct {
	flavor    Flavor
	seed      uint64
	rng       *rand.Rand // of the world's goroutine
	conf      config
	ledger    *sim.Ledger
	wire      *memnet.Net
	store     *local.Store
	blobs     *mem.Bucket
	machines  []*machine // read by others under mu
	log       *slog.Logger
	played    Played
	start     time.Time
	hooks     []*hook
	consumers *consumers
	followers []*follower
	unrest    unrest
	closed    chan struct{}   // at the end
	lost      map[string]bool // disks
	rough     atomic.Bool     // something may be wrong, or was a moment ago
	absence   int             // of the coordinator; rises
	doors     sync.Mutex      // of sessions: held for computing only

	away   atomic.Bool   // the coordinator is
	deaf   atomic.Uint64 // how often it does not hear: the bits of a float64
	sick   atomic.Pointer[sim.StoreTrouble]
	ill    time.Time   // when it was sick last
	rotten atomic.Bool // it gave other bytes than it has

	over   context.Context // ends when everybody is to go home
	people sync.WaitGroup
	lives  sync.WaitGroup // processes, and what ends them

	mu    sync.Mutex // held for computing only
	dice  *rand.Rand // of everybody
	count int        // of clients
}

// draw is a number from 0 to 1, for whoever has no dice.
func (w *world) draw() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dice.Float64()
}

func (w *world) chance(p float64) bool { return p > 0 && w.draw() < p }

// roll makes dice for somebody.
func (w *world) roll() *rand.Rand { return rand.New(rand.NewPCG(w.rng.Uint64(), 3)) }

// Play lets a hub of several nodes live through everything that a seed has for it. It must be called inside a bubble.
func Play(seed uint64, f Flavor, log *slog.Logger) Played {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &world{
		flavor: f, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), dice: rand.New(rand.NewPCG(seed, 2)), log: log, wire: memnet.New(), store: local.NewMemory(),
		start: time.Now(), closed: make(chan struct{}), lost: map[string]bool{},
	}
	w.conf = newConfig(w.rng)
	w.conf.focus(f)
	w.ledger = sim.NewClusterLedger(w.conf.names())
	w.tellLimits()
	w.blobs = mem.New(mem.Options{Fault: w.bucketFault, Complain: func(text string) { w.ledger.Wrong("%s", text) }})
	w.note("seed %d: %+v", seed, w.conf)
	begin := time.Now()
	over, goHome := context.WithCancel(context.Background())
	w.over = over
	w.rough.Store(true)
	w.watchCursors()
	for range w.conf.nodes {
		w.add()
	}
	w.begin()
	if w.fine() {
		w.settle()
		w.live()
	}
	if w.fine() {
		w.heal()
	}
	goHome()
	w.people.Wait()
	if w.fine() {
		w.converge()
	}
	for _, m := range w.machines {
		m.stop()
	}
	w.consumers.close()
	close(w.closed)
	w.lives.Wait()
	time.Sleep(lastMoments)
	if w.fine() {
		w.ledger.Finish()
	}
	w.played.Verdict = w.ledger.Verdict()
	w.ledger.Sum(&w.played.Played)
	w.played.Virtual = time.Since(begin)
	return w.played
}

// lastMoments are what a request gets that a process was busy with when it died. Whatever runs then, the bubble complains about.
const lastMoments = 2 * time.Minute

// note puts what happens to the nodes into the history, where the judge shows it whenever it was.
func (w *world) note(format string, args ...any) { w.ledger.Note("** "+format, args...) }

func (w *world) fine() bool {
	select {
	case <-w.ledger.Broken():
		return false
	default:
		return true
	}
}

// add makes a machine and starts a node there.
func (w *world) add() *machine {
	m := &machine{w: w, ip: fmt.Sprintf("10.0.0.%d", len(w.machines)+1), disk: w.newDisk()}
	m.skew.Store(w.rng.Int64N(int64(150*time.Millisecond)) - int64(75*time.Millisecond))
	w.mu.Lock()
	w.machines = append(w.machines[:len(w.machines):len(w.machines)], m)
	w.mu.Unlock()
	m.start()
	return m
}

// all lists the machines, for whoever is not the world.
func (w *world) all() []*machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.machines
}

// eventually waits until a question is answered with nothing, and complains if that takes too long.
func (w *world) eventually(limit time.Duration, question func() string) bool {
	var why string
	for begin := time.Now(); time.Since(begin) < limit && w.fine(); {
		if why = question(); why == "" {
			return true
		}
		time.Sleep(200 * time.Millisecond)
		for _, m := range w.machines {
			m.notice()
		}
	}
	w.ledger.Wrong("not within %v: %s", limit, why)
	return false
}

// begin waits until all nodes are up, and makes the channels.
func (w *world) begin() {
	if !w.eventually(2*time.Minute, w.down) {
		return
	}
	c := w.client("10.0.1.250")
	defer c.close()
	c.move(w.machines[0])
	for i, name := range w.conf.names() {
		members := w.conf.limits[name].members(w.conf.channels[name], tags[i%len(tags)])
		if _, err := c.Client.PutChannel(w.over, name, members); err != nil {
			w.ledger.Wrong("make a channel: %v", err)
		}
	}
	w.eventually(5*time.Second, func() string {
		for _, m := range w.machines {
			c.move(m)
			for name := range w.conf.channels {
				if _, err := c.Client.Channel(w.over, name); err != nil {
					return fmt.Sprintf("%s does not know %s: %v", m.ip, name, err)
				}
			}
		}
		return ""
	})
	w.openHooks(c)
}

// down says which node that should be up is not.
func (w *world) down() string {
	for _, m := range w.machines {
		if !m.up() && !m.left {
			return m.ip + " is not up"
		}
	}
	return ""
}

// live lets things happen.
func (w *world) live() {
	for range w.conf.steps {
		if !w.fine() {
			return
		}
		if !w.flavor.Mild {
			w.step()
			w.played.Faults++
		}
		w.pass(w.conf.stretch * time.Duration(w.rng.Int64N(1+w.rng.Int64N(int64(6*time.Second)))))
	}
}

// pass lets some time go by, and sees what happens to the processes.
func (w *world) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		time.Sleep(min(d, time.Second))
		for _, m := range w.machines {
			m.notice()
		}
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.note("faults end")
	w.mendLines()
	w.cure()
	w.deaf.Store(0)
	w.comeBack()
	for _, h := range w.hooks {
		h.feel(mood{})
	}
	for _, m := range w.machines {
		m.notice()
		m.skew.Store(0)
		m.start()
	}
	w.eventually(5*time.Minute, func() string {
		for _, m := range w.machines {
			if p, _ := m.current(); p == nil && !m.left {
				m.start()
			}
		}
		return w.down()
	})
	w.pass(5 * time.Second)
}

// converge demands that all nodes agree, and that long-term storage becomes whole.
func (w *world) converge() {
	moment := hub.KeyAt(time.Now().Add(-time.Second).UnixMilli(), "")
	c := w.client("10.0.1.251")
	defer c.close()
	w.rough.Store(false)
	w.eventually(2*time.Minute, func() string {
		for _, m := range w.machines {
			if m.left {
				continue
			}
			c.move(m)
			h, err := c.horizon()
			if err != nil || h.Less(moment) {
				return fmt.Sprintf("the horizon of %s stays at %v: %v", m.ip, h, err)
			}
		}
		return ""
	})
	w.everything(c, hub.AllTiers)
	if w.fine() {
		w.exam()
	}
	w.told(c)
	w.newest(c, false)
	if w.conf.long && w.fine() {
		w.note("until long-term storage is whole")
		w.pass(8 * time.Minute) // longer than the longest pause between two attempts, and than a round of the verifier
		w.everything(c, hub.AllTiers)
		w.archived(c)
		w.newest(c, true)
		w.age(c)
	}
}

// told demands that callbacks have seen everything.
func (w *world) told(c *client) {
	c.move(w.first())
	keys := map[string][]hub.Key{}
	for _, name := range w.conf.names() {
		list, err := w.stableKeys(c, name)
		if err != nil {
			return
		}
		keys[name] = list
	}
	for _, f := range w.followers {
		f.whole(keys[f.channel])
	}
	for _, h := range w.hooks {
		w.eventually(4*time.Minute, func() string { return h.missing(keys[h.channel]) })
		w.played.Calls += h.calls
		w.played.Repeats += h.repeats
	}
	for _, f := range w.followers {
		w.played.Heard += len(f.heard)
	}
}

// first is a machine that is there.
func (w *world) first() *machine {
	for _, m := range w.machines {
		if !m.left {
			return m
		}
	}
	return w.machines[0]
}

// archived demands that long-term storage holds each item in the layout of its channel.
func (w *world) archived(c *client) {
	c.move(w.first())
	for name, storage := range w.conf.channels {
		for _, a := range sim.InLongTerm(name, storage) {
			if _, err := c.ask(a); err != nil {
				w.ledger.Wrong("%v of %s cannot be read: %v", a.Tier, name, err)
			}
		}
	}
}

// everything asks every node for everything, in several ways.
func (w *world) everything(c *client, tier hub.Tier) {
	for _, m := range w.machines {
		if m.left {
			continue
		}
		c.move(m)
		for _, name := range w.conf.names() {
			for _, stable := range []bool{true, false} {
				for _, bodies := range []bool{true, false} {
					if !w.fine() {
						return
					}
					a := sim.Ask{Channel: name, Kind: sim.Earliest, N: 10_000, Stable: stable, Bodies: bodies, Tier: tier}
					if ans, err := c.ask(a); err != nil || ans.Silent {
						w.ledger.Wrong("nothing is wrong any more, and %s answers %v, silent %v", m.ip, err, ans.Silent)
					}
				}
			}
		}
	}
}
