package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"timehub/channel/archive"
	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/e2e/sim"
	"timehub/hub"
	"timehub/node"
)

// machine is a place for a node: an address with the disk and the process that are there at the moment. It is changed by the goroutine of the world only; mu
// guards what others look at.
type machine struct {
	w       *world
	ip      string
	disk    *memdisk.Disk
	skew    atomic.Int64 // of its clock
	left    bool         // it was decommissioned
	strange int          // faults of its disk that may end a process or keep it from starting

	mu   sync.Mutex
	life int
	now  *process // nil: none
}

// process is a life of a node.
type process struct {
	*machine
	number int
	node   *node.Node
	host   *memnet.Host
	disk   *memdisk.Disk
	seat   *seat
	dead   chan struct{} // closed when it is killed: then it has no effect on anything any more
	asked  atomic.Bool   // to stop
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of Run; read after ended
}

func (m *machine) name() string { return m.ip + ":80" }
func (m *machine) url() string  { return "http://" + m.name() }

// current is the process that is there, and the number of its life.
func (m *machine) current() (*process, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now, m.life
}

func (m *machine) clock() time.Time { return time.Now().Add(time.Duration(m.skew.Load())).Round(0) }

// newDisk is an empty disk, on which a sync takes its time.
func (w *world) newDisk() *memdisk.Disk {
	delays := [...]time.Duration{0, 0, time.Millisecond, 10 * time.Millisecond}
	delay := delays[w.rng.IntN(len(delays))]
	return memdisk.New(memdisk.Options{Seed: w.rng.Uint64(), Hook: func(c memdisk.Call) memdisk.Fault {
		if c.Op == memdisk.OpSync {
			return memdisk.Fault{Delay: delay}
		}
		return memdisk.Fault{}
	}})
}

// start begins a life, unless one goes on. Whether it comes up is seen later.
func (m *machine) start() {
	w := m.w
	if p, _ := m.current(); p != nil {
		return
	}
	cfg, _, err := node.Load(node.Sources{Listen: m.name(), Set: w.conf.set})
	if err != nil {
		w.ledger.Wrong("the configuration: %v", err)
		return
	}
	m.life++
	p := &process{machine: m, number: m.life, host: w.wire.Host(m.ip), disk: m.disk, dead: make(chan struct{}), ended: make(chan struct{})}
	p.seat = &seat{world: w, dead: p.dead, Coordinator: w.store.Session(fmt.Sprintf("%s life %d", m.ip, m.life))}
	if w.away.Load() {
		w.store.Cut(p.seat.Coordinator)
	}
	r := rand.New(rand.NewPCG(w.rng.Uint64(), 1))
	var mu sync.Mutex
	env := node.Env{
		Clock: m.clock, Disk: p.disk, Listen: p.host.Listen, Dial: p.host.Dial, Bucket: sim.Mortal{Bucket: w.blobs, Dead: p.dead}, Coordinator: p.seat, Log: w.log.With("node", m.ip), Host: m.ip,
		Rand: func() uint64 {
			mu.Lock()
			defer mu.Unlock()
			return r.Uint64()
		},
	}
	env.Seams.Jobs = func(o *archive.Options) { o.RetainEvery = retainEvery }
	if w.flavor.Env != nil {
		w.flavor.Env(m.ip, &env)
	}
	w.note("%s starts, life %d", m.ip, m.life)
	if p.node, err = node.New(cfg, env); err != nil {
		w.note("%s does not start: %v", m.ip, err)
		if m.strange == 0 {
			w.ledger.Wrong("%s does not start: %v", m.ip, err)
		}
		w.store.Cut(p.seat.Coordinator)
		p.host.Kill()
		m.disk = p.disk.Restart(memdisk.ProcessKill, 0)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	w.lives.Go(func() {
		p.err = p.node.Run(ctx)
		cancel()
		close(p.ended)
	})
	m.mu.Lock()
	m.now = p
	m.mu.Unlock()
	w.played.Lives++
}

// kill ends the process in the middle of whatever it does. Its session ends when the coordinator notices.
func (m *machine) kill(how memdisk.Death) {
	p := m.leave()
	if p == nil {
		return
	}
	w := m.w
	w.note("%s dies: %v", m.ip, how)
	w.unrest.point()
	close(p.dead)
	p.host.Kill()
	m.disk = p.disk.Restart(how, w.rng.Uint64())
	p.cancel()
	after := time.Duration(w.rng.Int64N(int64(sessionTime)))
	w.lives.Go(func() {
		time.Sleep(after)
		w.store.Cut(p.seat.Coordinator)
		p.awaitEnd()
	})
}

// leave makes the machine one without a process.
func (m *machine) leave() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.now
	m.now = nil
	return p
}

// stop ends the process in order, and waits for it.
func (m *machine) stop() {
	p := m.leave()
	if p == nil {
		return
	}
	w := m.w
	w.note("%s is stopped", m.ip)
	p.asked.Store(true)
	p.cancel()
	p.awaitEnd()
	if p.err != nil && m.strange == 0 && !strings.Contains(p.err.Error(), "coordinator") { // with which it could not speak a last time
		w.ledger.Wrong("%s stopped with: %v", m.ip, p.err)
	}
	w.note("%s has stopped: %v", m.ip, p.err)
	close(p.dead)
	p.host.Kill()
	m.disk = p.disk.Restart(memdisk.ProcessKill, w.rng.Uint64())
}

// patience is how long a node may take to end: all its parts one after the other, at their longest.
const patience = 5 * time.Minute

func (p *process) awaitEnd() {
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.w.ledger.Wrong("%s does not end within %v", p.ip, patience)
		<-p.ended
	}
}

// notice looks whether the process has ended by itself, and whether it had a reason.
func (m *machine) notice() {
	p, _ := m.current()
	if p == nil {
		return
	}
	select {
	case <-p.ended:
	default:
		return
	}
	m.leave()
	w := m.w
	w.note("%s has ended: %v", m.ip, p.err)
	w.unrest.point()
	if p.err != nil && strings.Contains(p.err.Error(), "was decommissioned") {
		m.left = true
	} else if !w.excused(p) {
		w.ledger.Wrong("%s ended by itself: %v", m.ip, p.err)
	}
	close(p.dead)
	w.store.Cut(p.seat.Coordinator)
	p.host.Kill()
	m.disk = p.disk.Restart(memdisk.ProcessKill, w.rng.Uint64())
}

// excused reports whether a process had a reason to end by itself: its disk, or at the start, long-term storage.
func (w *world) excused(p *process) bool {
	select {
	case <-p.node.Ready():
		return p.strange > 0
	default:
		return p.strange > 0 || w.sick.Load() != nil || time.Since(w.ill) < time.Minute
	}
}

// up reports whether the node says that it is healthy.
func (m *machine) up() bool {
	p, _ := m.current()
	if p == nil {
		return false
	}
	select {
	case <-p.node.Ready():
		return true
	default:
		return false
	}
}

var errGone = hub.E(hub.Unavailable, "the process is dead")
