package fleet

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/e2e/sim"
	hubclient "timehub/hub/client"
	"timehub/spoke/roster"
)

func (w *world) any() *machine { return w.machines[w.rng.IntN(len(w.machines))] }

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

// Fault is a kind of what may happen.
type Fault int

// The faults, and what ends some of them.
const (
	PowerCut Fault = iota
	Kill
	Stop
	Start
	OneWay  // from one node to another nothing gets through
	Island  // a node is cut off from the others
	Mend    // the lines
	Slow    // line
	Session // of a node ends
	Away    // the coordinator is
	Deaf    // it does not hear, or its answers get lost
	Back    // it is well, and all have sessions
	Clock   // is off
	Clocks  // are right
	Bucket  // long-term storage fails or lies
	Well    // it does not
	Disk    // fails or is slow
	All     // nodes lose power
	Mood    // of the consumers of webhooks
	Steal   // a lease, from a node that does not notice
	Deliver // nothing: a node and the consumers do not reach each other
	Member  // joins, leaves, comes back
	Lose    // a disk
	Flip    // bytes on a disk
	Rot     // of what is read from long-term storage
	faults
)

// fault chooses what happens next.
func (w *world) fault() Fault {
	if only := w.flavor.Only; len(only) > 0 {
		return only[w.rng.IntN(len(only))]
	}
	often := [faults]int{Start: 5, Mend: 2, Back: 2, Mood: 2}
	sum := 0
	for _, n := range often {
		sum += max(1, n)
	}
	at := w.rng.IntN(sum)
	for f, n := range often {
		if at -= max(1, n); at < 0 {
			return Fault(f)
		}
	}
	return Start
}

// step is one fault, or the end of one.
func (w *world) step() {
	m, o := w.any(), w.any()
	switch f := w.fault(); f {
	case PowerCut:
		m.kill(memdisk.PowerCut)
	case Kill:
		m.kill(memdisk.ProcessKill)
	case Stop:
		m.stop()
	case Start:
		for _, m := range w.machines {
			if p, _ := m.current(); p == nil && !m.left && w.rng.IntN(3) > 0 {
				m.start()
			}
		}
	case All:
		w.note("everybody dies")
		for _, m := range w.machines {
			m.kill(memdisk.PowerCut)
		}
	case OneWay, Island, Mend, Slow, Deliver:
		w.troubleLine(f, m, o)
	case Session, Away, Deaf, Back, Steal:
		w.troubleCoordinator(f, m)
	case Clock:
		d := w.upTo(30*time.Second) - 15*time.Second
		if w.rng.IntN(3) > 0 {
			d /= 50
		}
		w.note("the clock of %s is off by %v", m.ip, d)
		m.skew.Store(int64(d))
	case Clocks:
		for _, m := range w.machines {
			m.skew.Store(0)
		}
		w.note("all clocks are right")
	case Bucket:
		w.troubleBucket()
	case Well:
		w.cure()
	case Disk:
		w.troubleDisk(m)
	case Mood:
		w.moods()
	case Member:
		w.joinOrLeave(m)
	case Lose:
		w.lose(m)
	case Flip:
		w.flip(m)
	case Rot:
		w.rot()
	}
}

func (w *world) troubleLine(f Fault, m, o *machine) {
	switch f {
	case OneWay:
		w.note("%s does not reach %s", m.ip, o.ip)
		w.line(m, o, memnet.Line{Cut: true})
	case Island:
		w.note("%s is cut off from the others", m.ip)
		for _, o := range w.machines {
			w.line(m, o, memnet.Line{Cut: true})
			w.line(o, m, memnet.Line{Cut: true})
		}
	case Mend:
		w.note("lines are mended")
		w.mendLines()
	case Slow:
		d := w.upTo(300 * time.Millisecond)
		w.note("%s reaches %s in %v", m.ip, o.ip, d)
		w.line(m, o, memnet.Line{Delay: d})
	case Deliver:
		w.note("%s and the consumers of webhooks do not reach each other", m.ip)
		w.unrest.point()
		w.wire.SetLine(m.ip, consumerIP, memnet.Line{Cut: true})
		w.wire.SetLine(consumerIP, m.ip, memnet.Line{Cut: true})
	}
}

func (w *world) troubleCoordinator(f Fault, m *machine) {
	switch f {
	case Session:
		if p, _ := m.current(); p != nil {
			w.note("%s loses its session", m.ip)
			w.store.Cut(p.seat.Coordinator)
			w.unrest.point()
		}
	case Away:
		w.goAway()
	case Deaf:
		p := w.rng.Float64() * 0.5
		w.note("the coordinator is deaf, %.2f", p)
		w.deaf.Store(math.Float64bits(p))
		w.unrest.begin()
	case Back:
		w.deaf.Store(0)
		w.comeBack()
	case Steal:
		w.steal()
	}
}

func (w *world) line(a, b *machine, l memnet.Line) {
	if a != b {
		w.wire.SetLine(a.ip, b.ip, l)
	}
}

func (w *world) mendLines() {
	w.unrest.point() // calls that were held up by a line get through now, also those of the dead
	for _, a := range w.machines {
		for _, b := range w.machines {
			w.line(a, b, memnet.Line{})
		}
		w.wire.SetLine(a.ip, consumerIP, memnet.Line{})
		w.wire.SetLine(consumerIP, a.ip, memnet.Line{})
	}
}

func (w *world) cure() {
	if w.sick.Swap(nil) != nil {
		w.ill = time.Now()
		w.note("long-term storage is well")
	}
}

func (w *world) troubleBucket() {
	s := &sim.StoreTrouble{Before: w.rng.Float64() * w.rng.Float64(), After: w.rng.Float64() * w.rng.Float64(), Late: w.upTo(8 * time.Second)}
	if w.rng.IntN(3) == 0 {
		s.Before = 1
	}
	w.note("long-term storage is sick: %+v", *s)
	w.sick.Store(s)
}

// troubleDisk lets the next syncs or writes fail, of the log or of what is beside it.
func (w *world) troubleDisk(m *machine) {
	p, _ := m.current()
	if p == nil {
		return
	}
	name := []string{"spoke/*", "spoke/*", "cluster*", "clock", "*"}[w.rng.IntN(5)]
	ops := []memdisk.Op{memdisk.OpSync, memdisk.OpSync, memdisk.OpWrite, memdisk.OpWrite | memdisk.OpSync}[w.rng.IntN(4)]
	r := memdisk.Rule{Ops: ops, Name: name, Times: 1 + w.rng.IntN(3), Fault: memdisk.Fault{Err: io.ErrShortWrite, Effect: memdisk.Effect(w.rng.IntN(3))}}
	if w.rng.IntN(3) == 0 {
		r.Fault = memdisk.Fault{Delay: w.upTo(4 * time.Second)}
	}
	w.note("%s: the next %d of %v of %q: %v, effect %d, delay %v", m.ip, r.Times, r.Ops, r.Name, r.Fault.Err, r.Fault.Effect, r.Fault.Delay)
	m.strange++
	p.disk.Inject(r)
}

// moods changes how the consumers of webhooks behave.
func (w *world) moods() {
	for _, h := range w.hooks {
		var m mood
		switch w.rng.IntN(6) {
		case 0:
			m.fails = w.rng.Float64()
		case 1:
			m.fails = 1
		case 2:
			m.slow = w.upTo(4 * time.Second)
		case 3:
			m.loses = w.rng.Float64()
		case 4:
			m.hangs = w.rng.Float64() / 2
		}
		w.note("the consumer of %s: %+v", h.name, m)
		h.feel(m)
	}
}

// steal takes a lease from a node that does not notice, as one that slept.
func (w *world) steal() {
	names := []string{"archive/lease/archiver", "spoke/settle"}
	for _, h := range w.hooks {
		names = append(names, "webhook/"+h.name, "webhook/"+h.name)
	}
	name := names[w.rng.IntN(len(names))]
	w.note("the lease %s is taken by somebody else", name)
	w.unrest.point()
	tell := w.store.Steal(name)
	w.lives.Go(func() {
		time.Sleep(leaseTime)
		tell()
		w.unrest.point()
	})
}

// list is the list on record.
func (w *world) list() (roster.Roster, bool) {
	s := w.store.Session("reader")
	defer w.store.Cut(s)
	b, _, err := s.Get(context.Background(), "spoke/list")
	if err != nil {
		return roster.Roster{}, false
	}
	r, err := roster.Parse(b)
	if err != nil {
		w.ledger.Wrong("%v", err)
	}
	return r, err == nil
}

// joinOrLeave adds a node, or takes one off, or calls one back.
func (w *world) joinOrLeave(m *machine) {
	switch {
	case m.left:
		w.note("%s is called back", m.ip)
		if err := w.operate(func(ctx context.Context, c *hubclient.Client) error { return c.ReturnNode(ctx, m.name()) }); err == nil {
			m.left = false
			m.start()
		}
	case len(w.machines) < w.conf.most && w.rng.IntN(2) == 0:
		w.note("another node joins")
		w.add()
	case !w.sparesWithout(m):
		w.note("%s stays: of those beside it too many disks were damaged", m.ip)
	default:
		err := w.operate(func(ctx context.Context, c *hubclient.Client) error { return c.RemoveNode(ctx, m.name()) })
		w.note("%s is decommissioned: %v", m.ip, err)
	}
}

// operate does what only a caller on the machine of a node may, at any of them.
func (w *world) operate(f func(context.Context, *hubclient.Client) error) error {
	p, _ := w.any().current()
	if p == nil {
		return errGone
	}
	transport := &http.Transport{DialContext: p.host.Dial, DisableKeepAlives: true}
	c, err := hubclient.New(hubclient.Options{URL: "http://localhost:80", Tries: 1, Transport: transport})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	return f(ctx, c)
}

// lose replaces the disk of a node by an empty one, if no acknowledged item can be lost by it.
func (w *world) lose(m *machine) {
	if p, _ := m.current(); p == nil || !w.spare(m) {
		return
	}
	m.kill(memdisk.PowerCut)
	m.disk = w.newDisk()
	w.note("%s has lost its disk", m.ip)
}

// spare reports whether no acknowledged item can be lost if what is on the disk of a node is, and counts that as lost then.
func (w *world) spare(m *machine) bool {
	r, ok := w.list()
	if !ok || r.Next != nil || m.left {
		return false
	}
	d, ok := r.Member(m.name())
	if !ok || d.ID != m.diskID() {
		return false
	}
	gone := 1 // the disk itself; one that was damaged before counts anew, as there may be fewer beside it now
	for _, o := range r.Disks {
		if slices.Contains(r.Leaving, o.Node) {
			return false // then fewer stay than it takes
		}
		if w.lost[o.ID] && o.ID != d.ID {
			gone++
		}
	}
	if gone >= r.Rule.Write(len(r.Disks)) {
		return false
	}
	w.lost[d.ID] = true
	return true
}

// sparesWithout reports whether the disks that were damaged or lost are fewer than it takes, also if a node was not there any more: or what is left would wait
// for an operator.
func (w *world) sparesWithout(m *machine) bool {
	r, ok := w.list()
	if !ok || len(r.Disks) < 2 {
		return true // then the node is told that it cannot go
	}
	gone := 0
	for _, o := range r.Disks {
		if w.lost[o.ID] && o.Node != m.name() {
			gone++
		}
	}
	return gone < r.Rule.Write(len(r.Disks)-1)
}

// diskID is the identity of the disk that is in the machine.
func (m *machine) diskID() string {
	f, err := m.disk.Open("disk", false)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 1<<10)
	n, _ := f.ReadAt(b, 0)
	var id struct{ ID string }
	_ = json.Unmarshal(b[:n], &id) // one that cannot be read is none on the list
	return id.ID
}
