package spoke

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/hub/metrics"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// Cluster makes a Node one of several (ENGINE §4).
type Cluster struct {
	Node        string            // host:port at which the others reach Handler; required
	Coordinator coord.Coordinator // required
	Rule        roster.Rule       // spoke.quorum; "": half. The list on record keeps the one with which it was begun
	Dial        func(ctx context.Context, network, address string) (net.Conn, error)
	Beat        time.Duration // a stream says something at least this often; 0: 20 ms
	// ForceAfter (cluster.force_close_seconds): with an even number of nodes and Half, an incarnation that could not be closed for so long is closed by the
	// half that is left (ENGINE §4); what differs on those who come later is late. 0: only when an operator says so.
	ForceAfter time.Duration
	RepairRate int64 // bytes a second that are copied from the others at most, by a node that lags behind; 0: no limit

	given func(channel string, keys []hub.Key) // a test is told which keys are given up; under mu
	room  int                                  // see inboundRoom; a test says less
}

const (
	listRegister = "spoke/list"
	closedPrefix = "spoke/closed/"
	settlePrefix = "spoke/settle/"
	memberGroup  = "spoke"
	learnEvery   = time.Second
	defaultBeat  = 20 * time.Millisecond
	callTime     = 10 * time.Second
	peerPause    = 100 * time.Millisecond // before a peer is connected to again
)

// cluster is what a Node knows of the others. Its fields below mu are guarded by Node.mu.
type cluster struct {
	n       *Node
	opt     Cluster
	http    *http.Client
	nudge   chan struct{} // one token: look at the list
	work    chan struct{} // one token: something may be repaired or completed
	closing chan struct{} // one token: something may be closed
	meet    chan struct{} // one token: there is somebody on the list whose clock is not known
	tell    chan struct{} // one token: the horizon has passed what nobody was told of
	damage  chan struct{} // one token: a damaged record was found
	listed  chan struct{} // one token: the list is another one

	visits sync.WaitGroup // streams of peers that are being taken
	saving chan struct{}  // holds a token while nobody writes the state file; never waited for under Node.mu

	over     bool                            // nothing is taken from peers any more
	guests   map[net.Conn]context.CancelFunc // on which their streams come
	rec      roster.Roster                   // as last read; durable here
	known    bool                            // a list was read, by this start or an earlier one
	current  bool                            // and that worked when it was tried last
	fresh    bool                            // this disk has never written: it answers nothing
	streams  map[spokelog.Stream]*peerStream
	open     bool        // the own incarnation takes writes
	own      *peerStream // that incarnation, as long as it does; the positions below are its
	floor    hub.Mark    // no stable answer below
	lastH    hub.Mark
	pos      uint64 // of the last batch of the own stream
	ownPos   uint64 // up to here the own disk is done
	quorum   uint64 // up to here enough disks have it
	tails    map[*tail]struct{}
	acked    map[string]uint64 // by disk
	mended   []holeMark
	healedAt hub.Mark // above everything that can have lain in a hole
	cargoes  uint64   // numbers given
	loads    map[*cargo]*loading
	waiting  waiting
	stirred  uint64      // counts what came into it
	waiters  []posWaiter // for records that nobody's decision waits for
	present  map[string]roster.Stream
	clocks   map[string]reading // of the others, by node
	strayed  bool               // that the own clock is out of the guard was said
	// Since the start, enough clocks of others were known to trust the own one as far as it is within the guard.
	sureOfClock bool
	why         map[string]string // the last stream to a node ended by this; absent while one runs
	members     roster.Sessions
	evenSince   time.Time // that the number of nodes is even; learning is held
	evenSaid    bool
	isReached   bool                     // a member has found this disk at this node's address
	notReached  string                   // why it is not to join before one has
	unclosed    map[roster.Stream]string // why it could not be closed when that was tried last
	ill         illness

	swept     hub.Key // what others had swept, of the time above the horizon here, when they were asked for it
	late      *lateBook
	meters    meters
	large     bool               // that the list is, was said
	restless  bool               // that this node has to wait for an incarnation was said
	idle      time.Time          // since then it has had none
	marked    map[string]*marked // replicated channels
	heldBack  map[string]*marked // those of them of which something is still to count
	lateSeen  map[string]int64   // how far the lists of late items of others were copied, by disk; durable
	lateTaken map[string]int64   // how far the own one was, by node
	notes     map[string]noted   // of the others, by node
}

// peerStream is an incarnation on record, as this disk has it.
type peerStream struct {
	low         hub.Mark // applied
	refused     bool
	promised    bool      // the refusal is durable
	kept        hub.Mark  // the low of a refused stream that is durable
	holed       bool      // something of it may have lain in a hole of the log, and is not here again
	complete    bool      // closed, and all of it is here: its low is dropped
	settled     bool      // and that is durable
	outstanding int       // batches of it that were enqueued and are not synced
	sentAsked   time.Time // when others were asked what it has replicated
	sets        int       // sets of it that are being stored for somebody who closes it, and what else does not come in its own order
	patched     bool      // something of it was lost while this node runs, and copied: of what was replicated, it may have less than before
	in          *inbound
}

// meters count what a cluster does. A hub alone shows them, too, so that they are there when it becomes one of several.
type meters struct {
	late            metrics.Counter
	repaired, bytes metrics.Counter // copied because this node lagged behind
	lost            metrics.Counter // items that this disk had lost, as a comparison with another one showed
	list            metrics.Gauge   // bytes of the list
}

func newMeters(r metrics.Registry) meters {
	r = metrics.OrDiscard(r)
	return meters{r.Counter(metrics.LateItems, ""), r.Counter(metrics.RepairRecords, ""), r.Counter(metrics.RepairBytes, ""), r.Counter(metrics.RepairLost, ""),
		r.Gauge(metrics.ListBytes, "")}
}

func newCluster(n *Node, opt Cluster, m meters) (*cluster, error) {
	if opt.Node == "" || opt.Coordinator == nil {
		return nil, errors.New("spoke: a Cluster needs Node and Coordinator")
	}
	opt.Beat = cmp.Or(opt.Beat, defaultBeat)
	opt.Rule = cmp.Or(opt.Rule, roster.Half)
	opt.room = cmp.Or(opt.room, inboundRoom)
	if opt.Dial == nil {
		opt.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	c := &cluster{
		meters: m,
		n:      n, opt: opt, nudge: make(chan struct{}, 1), work: make(chan struct{}, 1), closing: make(chan struct{}, 1), meet: make(chan struct{}, 1), tell: make(chan struct{}, 1), damage: make(chan struct{}, 1), listed: make(chan struct{}, 1), fresh: true,
		http:   &http.Client{Transport: &http.Transport{DialContext: opt.Dial, MaxIdleConnsPerHost: 4, IdleConnTimeout: 20 * time.Second}},
		saving: make(chan struct{}, 1), guests: map[net.Conn]context.CancelFunc{}, streams: map[spokelog.Stream]*peerStream{}, tails: map[*tail]struct{}{}, acked: map[string]uint64{}, why: map[string]string{},
		loads: map[*cargo]*loading{}, unclosed: map[roster.Stream]string{},
	}
	c.saving <- struct{}{}
	var err error
	if c.late, err = openLate(n.opt.Disk); err != nil {
		return nil, err
	}
	_, count := c.late.state()
	c.meters.late.Add(int64(count))
	c.idle = time.Now()
	if err := c.load(); err != nil {
		return nil, errors.Join(err, c.late.close())
	}
	c.hurt()
	c.loadMarkers()
	return c, c.waitForStored(context.Background())
}

// Run is the life of a node among others.
func (c *cluster) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.keepLearning(ctx) })
	g.Go(func() error { return c.keepSending(ctx) })
	g.Go(func() error { return c.keepWorking(ctx) })
	g.Go(func() error { return c.keepSettling(ctx) })
	g.Go(func() error { return c.keepClocks(ctx) })
	g.Go(func() error { return c.keepTelling(ctx) })
	g.Go(func() error { return c.keepDropping(ctx) })
	g.Go(func() error { return c.keepMending(ctx) })
	g.Go(func() error { return c.keepNamed(ctx) })
	g.Go(func() error { return c.keepWell(ctx) })
	err := g.Wait()
	c.n.mu.Lock()
	c.over = true
	for conn, cancel := range c.guests {
		cancel()
		_ = conn.Close()
	}
	c.n.mu.Unlock()
	c.visits.Wait()
	c.http.CloseIdleConnections()
	return err
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// streamOf and recordOf translate between the words of the log and those of the record.
func streamOf(s roster.Stream) spokelog.Stream {
	return spokelog.Stream{Ordinal: s.Ordinal, Incarnation: s.Incarnation}
}

func recordOf(s spokelog.Stream) roster.Stream {
	return roster.Stream{Ordinal: s.Ordinal, Incarnation: s.Incarnation}
}

// ownLow: everything of the own stream at or below it is decided. It moves the clock, so that nothing is minted at or below it. Under mu.
func (n *Node) ownLow() hub.Mark {
	if low, busy := n.flight.low(); busy {
		return low
	}
	if n.stands() {
		return n.minter.Last()
	}
	if n.minter.Peek() < n.limit {
		m := n.minter.Now()
		n.ahead(m)
		return m
	}
	poke(n.kick)
	return n.minter.Last()
}

// horizon is the smallest low over the incarnations that are not complete here; ok is false while it has not reached the floor. What it has passed is told to who
// follows, whatever has moved it: nobody is shown what a follower does not hear of. Under mu.
func (c *cluster) horizon() (h hub.Mark, ok bool) {
	if h, ok = c.lowest(); ok && c.waiting.has(h) {
		poke(c.tell)
	}
	return h, ok
}

// lowest is horizon for who tells it to those who follow. Under mu.
func (c *cluster) lowest() (h hub.Mark, ok bool) {
	const none = hub.Mark(1<<63 - 1)
	h = none
	for id, s := range c.streams {
		switch {
		case s.complete:
		case c.open && id == c.n.stream:
			h = min(h, c.n.ownLow())
		default:
			h = min(h, s.low)
		}
	}
	if h == none {
		h = c.lastH
	}
	c.lastH = h
	return h, !c.fresh && h >= c.floor
}

// stable is Node.Horizon among others.
func (c *cluster) stable(ctx context.Context) (hub.Mark, error) {
	n := c.n
	for {
		n.mu.Lock()
		h, ok := c.horizon()
		if !ok {
			n.mu.Unlock()
			e := hub.E(hub.Unavailable, "this node has not yet caught up with what it has shown before: ask another one, or try again")
			e.RetryAfter = time.Second
			return 0, e
		}
		if h < n.limit {
			n.minter.Raise(h)
			n.ahead(h)
			n.mu.Unlock()
			return h, nil
		}
		n.mu.Unlock()
		if err := n.raise(ctx, h); err != nil {
			return 0, unavailable(err)
		}
	}
}

// lows is what is logged with the next group: what was applied before it. What becomes this group goes to the others, too. Under mu.
func (c *cluster) lows() []spokelog.Low {
	for t := range c.tails {
		if len(t.queue) > 0 || t.broken {
			poke(t.wake)
		}
	}
	list := make([]spokelog.Low, 0, len(c.streams))
	for id, s := range c.streams {
		low := s.low
		if c.open && id == c.n.stream {
			low = c.n.lowOfFlight()
			s.low = max(s.low, low)
		}
		if !s.complete {
			list = append(list, spokelog.Low{Stream: id, Epoch: c.rec.Epoch, Mark: low})
		}
	}
	slices.SortFunc(list, func(a, b spokelog.Low) int {
		return cmp.Or(cmp.Compare(a.Stream.Ordinal, b.Stream.Ordinal), cmp.Compare(a.Stream.Incarnation, b.Stream.Incarnation))
	})
	return list
}

// lowOfFlight is the own low without moving the clock. Under mu.
func (n *Node) lowOfFlight() hub.Mark {
	if low, busy := n.flight.low(); busy {
		return low
	}
	return n.minter.Last()
}

// writable says why nothing can be minted now; nil if it can. Under mu.
func (c *cluster) writable() error {
	if err := c.standing(); err != nil {
		return err
	}
	if !c.open {
		if err := c.n.store.Refusing(); err != nil { // which may be why
			return err
		}
		return tryAgain("this node does not write now: it has not been taken up among those that write, or is leaving them")
	}
	up := map[string]bool{c.n.identity.ID: true}
	for t := range c.tails {
		up[t.disk] = up[t.disk] || t.live
	}
	if !c.rec.Committed(up) {
		return tryAgain("too few nodes can be reached to store anything safely")
	}
	return nil
}

// retryHint ends what a client is told that may come again.
const retryHint = ": try again, or ask another node"

func tryAgain(why string) error {
	e := hub.E(hub.Unavailable, "%s"+retryHint, why)
	e.RetryAfter = time.Second
	return e
}

// await notes a record that is stored; inOrder: behind everything that its stream has brought before. Under mu.
func (c *cluster) await(r *spokelog.Record, inOrder bool) {
	switch {
	case r.Flags&spokelog.GivenUp != 0:
		return
	case r.Flags&spokelog.Complete != 0:
		c.takeMarker(r, inOrder)
		return
	case r.Flags&spokelog.Replicated != 0:
		c.waiting.tell(r.Channel)
		return
	}
	c.stirred++
	if len(c.waiting.heap) == 0 { // it was quiet: the others wait for this node's low now
		for t := range c.tails {
			poke(t.wake)
		}
	}
	m, _ := hub.MarkOf(r.Key)
	c.waiting.add(m, r.Channel)
}

// passed returns the channels of which the horizon has passed a record since it was asked last. Under mu.
func (c *cluster) passed() (channels []string) { return c.passedBy(farStep) }

func (c *cluster) passedBy(step int64) (channels []string) {
	h, ok := c.lowest()
	if !ok {
		return nil
	}
	channels = c.waiting.passed(h, step)
	c.waiting.told(channels, h, c.n.minter.Last())
	return append(channels, c.settleMarkers(h)...)
}

// decide finds out what enough disks have, and decides what was waiting for it. Under mu.
func (c *cluster) decide() {
	at := func(disk string) uint64 {
		if disk == c.n.identity.ID {
			return c.ownPos
		}
		return c.acked[disk]
	}
	pos := c.ownPos
	lists := [][]roster.Disk{c.rec.Disks}
	if c.rec.Next != nil {
		lists = append(lists, c.rec.Next.Disks)
		if c.rec.Next.Decided {
			lists = lists[1:]
		}
	}
	for _, list := range lists {
		positions := make([]uint64, len(list))
		for i, d := range list {
			positions[i] = at(d.ID)
		}
		slices.Sort(positions)
		if w := c.rec.Rule.Write(len(list)); w <= len(list) && len(list) > 0 {
			pos = min(pos, positions[len(list)-w])
		}
	}
	if pos <= c.quorum {
		return
	}
	c.quorum = pos
	c.n.flight.each(func(r *request) bool {
		switch {
		case r.state == undecided && r.pos <= pos && r.onDisk:
			r.state = committed
			r.answer(nil)
		case r.state == givingUp && r.namePos > 0 && r.namePos <= pos:
			r.state = givenUp
			if c.opt.given != nil {
				c.opt.given(r.channel, r.keys())
			}
		}
		return r.pos <= pos
	})
	c.n.pass()
	c.waiters = slices.DeleteFunc(c.waiters, func(w posWaiter) bool {
		if w.pos <= pos {
			w.done <- w.err
		}
		return w.pos <= pos
	})
}
