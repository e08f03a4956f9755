package roster

import (
	"flag"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"

	"timehub/hub"
)

// This is the model of the cluster protocol (ENGINE §4 and §5), with the list on record kept by this package: one seed gives a cluster, a schedule of some
// hundred actions, and a set of nodes that stay dead. After every action an oracle looks at what all nodes would answer; when faults have ended, it demands
// progress and equality. What it leaves out is listed in the design.

var (
	modelSeeds = flag.Uint64("model.seeds", 25, "seeds that the model plays")
	modelFrom  = flag.Uint64("model.from", 1, "the first of them")
	modelTries = flag.Uint64("model.tries", 500, "seeds that are played with a broken rule")
	modelTrace = flag.Bool("model.trace", false, "print what happens")
)

func TestModel(t *testing.T) {
	for _, mode := range []config{{}, {force: true}, {sweep: true}, {force: true, sweep: true}} {
		var sum result
		for seed := *modelFrom; seed < *modelFrom+*modelSeeds; seed++ {
			mode.trace = *modelTrace
			c := of(seed, mode)
			res := run(c, schedule(seed, c), int(seed))
			if res.bad != "" {
				t.Fatalf("seed %d n=%d half=%v force=%v sweep=%v: %s", seed, c.n, c.half, c.force, c.sweep, res.bad)
			}
			sum = result{"", sum.minted + res.minted, sum.done + res.done, sum.late + res.late, sum.closed + res.closed, sum.forced + res.forced,
				sum.dropped + res.dropped, sum.epochs + res.epochs}
		}
		t.Logf("%d seeds: %d keys committed, %d late, %d incarnations closed, %d of them by force, %d dropped, %d epochs", *modelSeeds, sum.done, sum.late, sum.closed,
			sum.forced, sum.dropped, sum.epochs)
	}
}

// TestMutants: each broken rule has to be caught, or the model proves nothing. The search begins near the first seed that showed it; a rule of the model that is
// not here lies outside this package, or takes longer.
func TestMutants(t *testing.T) {
	for bug, from := range mutants {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			for seed := max(1, from); seed < from+*modelTries; seed++ {
				c := of(seed, config{bug: bug, force: strings.HasPrefix(bug, "late-"), sweep: strings.HasPrefix(bug, "sweep-")})
				if res := run(c, schedule(seed, c), int(seed)); res.bad != "" {
					t.Logf("seed %d: %s", seed, res.bad)
					return
				}
			}
			t.Error("not caught")
		})
	}
}

// mutants are the rules that can be broken, with a seed at which to begin.
var mutants = map[string]uint64{
	"given-up-without-quorum": 1, "only-the-returner-gives-up": 1, "low-at-undecided": 1, "starts-at-own-clock": 1, "unknown-epoch-repaired": 359500,
	"lost-disk-counts": 1, "new-list-at-once": 3100, "settle-by-old-list": 1650, "change-before-caught-up": 240, "change-without-closing": 154000, "horizon-not-held": 1,
	"set-without-what-is-below": 430, "leaver-reads-on": 1776480, "low-runs-out-of-guard": 6150, "refusal-not-told": 1, "reads-without-session": 17500,
	"horizon-ignores-silent": 1, "low-dropped-unsettled": 1, "settle-with-too-few": 1, "settle-not-written": 1150, "union-keeps-given-up": 1,
	"stale-leader-overwrites": 1, "fence-forgotten": 65250, "fence-lets-group-through": 300, "returner-keeps-unsettled": 1, "mints-before-acknowledged": 1,
	"sweep-drop-what-i-have": 1, "sweep-drop-while-held": 1, "sweep-floor-is-archived": 1, "sweep-floor-not-raised": 1, "sweep-closing-without-floor": 1, "late-not-copied": 1, "late-not-flagged": 1, "late-given-up": 1,
	"given-up-not-named": 1, "commit-after-giving-up": 1, "mint-below-low": 1, "bound": 1, "ack-before-sync": 150, "low-before-sync": 1, "repair-skips": 1,
}

// set is a set of small ids: keys, disks, streams or nodes.
type set = uint64

const (
	guard      = 5  // app.clock_guard, in ticks
	boundAhead = 3  // how far the file `clock` runs ahead of need
	maxNodes   = 7  // slots; a cluster has at most 5 members
	maxMembers = 5  //
	maxKeys    = 60 // minted in one run
	maxStreams = 40 // incarnations in one run
	maxDisks   = 16 // data directories in one run
)

func bit(i int) set         { return 1 << uint(i) }
func has(s set, i int) bool { return s&bit(i) != 0 }

// config chooses the cluster and, for the checks of the checker, one broken rule.
type config struct {
	n     int
	half  bool
	sweep bool // with an archiver, sweeps, and decommissioned nodes that come back
	force bool // operators may close with n-W members (even n and half only)
	bug   string
	wild  bool // one clock at a time may be far out of guard
	steps int
	trace bool
}

// w and r are the quorums of a list of members.
func (c config) w(list set) int { return c.rule().Write(bits.OnesCount64(list)) }
func (c config) r(list set) int { return c.rule().Read(bits.OnesCount64(list)) }

func (c config) rule() Rule {
	if c.half {
		return Half
	}
	return Majority
}

// entry is one element of a stream: a record, or the name of a given-up key.
type entry struct {
	key  int
	give bool
}

type kind uint8

const (
	frame kind = iota
	ack
	nack
	refusal
)

// message travels on a link: a frame, its acknowledgement, "I stand at pos, go on from there", or "this incarnation is over".
type message struct {
	kind    kind
	stream  int
	pos     int
	disk    int
	epoch   int
	low     int64
	entries []entry
}

// disk is what survives a kill: groups that were synced, and small files.
type disk struct {
	id, node  int
	has, gave set               // records and names of given-up keys
	low       [maxStreams]int64 // of each stream, as applied here
	pos       [maxStreams]int   // entries of each stream held here
	known     set               // streams on the list as known here
	closed    set               // streams known to be closed on record
	complete  set               // closed streams whose final set is held: their low is dropped
	fenced    set               // streams whose further frames are refused
	epoch     int
	list      set // disks of the list in force
	next      set // disks of the list that is coming, or 0
	decided   bool
	bound     int64
	late      set
	floor     int64 // what lies below is read from long-term storage, too
	read      bool  // it has read a list
	lost      bool
	fresh     bool // has not started an incarnation: answers nothing
}

// node is one process.
type node struct {
	id      int
	up, out bool // out: not on the list any more
	life    int
	d       *disk
	clock   int64
	skew    int64
	floor   int64 // no stable answer below it: the bound found at start
	lastH   int64
	stream  int // own open incarnation, or -1
	pending int // proposed, not yet in force, or -1
	written []entry
	synced  int // entries of written on the own disk
	trim    int // entries forgotten by the sender
	minted  set
	giving  set // timed out, the name is on its way
	done    set // decided
	acks    [maxDisks]int
	sent    [maxNodes]int
	pend    []message // received, not synced
	told    []Spent   // of toldOf, the list at that time
	toldOf  string
}

type streamInfo struct {
	node, ordinal int
	id            Stream
	keys          set
}

// task is one leader of settle/; it goes on although its lease may be lost.
type task struct {
	leader, life, stream int
	replied, wrote       set
	union, names         set
	base, floor          int64
	set                  set
	writing, over        bool
	forced               bool
}

type world struct {
	cfg          config
	now          int64
	nodes        []*node
	disks        []*disk
	streams      []streamInfo
	keyTime      []int64
	keyStream    []int
	rec          Roster
	ends         [maxStreams]set // what the sets on record hold
	bases        [maxStreams]int64
	coordUp      bool
	coordCut     set
	session      set
	seen         set // nodes that have read the register in their present session
	tasks        []*task
	down         [maxNodes]set // down[a] has b: a cannot reach b
	wire         [maxNodes][maxNodes][]message
	incarnations int
	archived     set               // keys in long-term storage
	cursor       int64             // the archiver has passed it
	floors       [maxStreams]int64 // of those who closed a stream
	ended        int               // streams closed
	forced       int               // of them by too few
	dropped      int

	// the oracle
	committed, finalGiven, late set
	odd                         set // keys on which stable answers differed (forced closing only)
	topMint                     [maxStreams]int64
	topOfNode                   [maxNodes]int64 // highest committed key
	shown                       [maxNodes]int64
	gH                          int64
	gA                          set
	bad                         string
}

func (w *world) is(bug string) bool { return w.cfg.bug == bug }

func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

func (w *world) note(format string, args ...any) {
	if w.cfg.trace {
		fmt.Printf("  "+format+"\n", args...)
	}
}

// upTo returns the keys of keys at or below t.
func (w *world) upTo(keys set, t int64) set {
	var out set
	for k := keys; k != 0; k &= k - 1 {
		if i := bits.TrailingZeros64(k); w.keyTime[i] <= t {
			out |= bit(i)
		}
	}
	return out
}

func newWorld(cfg config) *world {
	w := &world{cfg: cfg, now: 10, coordUp: true, rec: New(cfg.rule()), incarnations: 1}
	for i := range maxNodes {
		w.nodes = append(w.nodes, &node{id: i, stream: -1, pending: -1})
	}
	for i := range cfg.n {
		n := w.nodes[i]
		n.up, n.d = true, w.newDisk(i)
		w.rec.Disks = append(w.rec.Disks, Disk{ID: diskName(n.d.id), Ordinal: uint16(i + 1), Node: nodeName(i)})
	}
	w.rec.Ordinals = uint16(cfg.n + 1)
	for i := range cfg.n {
		n := w.nodes[i]
		id := Stream{uint16(i + 1), 1}
		w.rec.Streams = append(w.rec.Streams, Incarnation{Stream: id, Disk: diskName(n.d.id), Node: nodeName(i)})
		n.stream = w.newStream(i, id)
		w.session |= bit(i)
		w.seen |= bit(i)
	}
	for i := range cfg.n {
		d := w.nodes[i].d
		d.fresh, d.read = false, true
		d.known, d.list = w.listed(), w.list()
	}
	return w
}

func nodeName(i int) string { return fmt.Sprint("n", i) }
func diskName(i int) string { return fmt.Sprint("d", i) }

func number(name string) int {
	var i int
	_, _ = fmt.Sscanf(name[1:], "%d", &i)
	return i
}

func disksOf(list []Disk) (out set) {
	for _, d := range list {
		out |= bit(number(d.ID))
	}
	return out
}

func names(disks set) map[string]bool {
	out := map[string]bool{}
	for ; disks != 0; disks &= disks - 1 {
		out[diskName(bits.TrailingZeros64(disks))] = true
	}
	return out
}

func (w *world) nodesOf(disks set) map[string]bool {
	out := map[string]bool{}
	for ; disks != 0; disks &= disks - 1 {
		out[nodeName(w.disks[bits.TrailingZeros64(disks)].node)] = true
	}
	return out
}

// list, coming, listed, leaving and closed read the record.
func (w *world) list() set { return disksOf(w.rec.Disks) }

func (w *world) coming() set {
	if w.rec.Next == nil {
		return 0
	}
	return disksOf(w.rec.Next.Disks)
}

func (w *world) listed() (out set) {
	for _, i := range w.rec.Streams {
		out |= bit(w.index(i.Stream))
	}
	return out
}

func (w *world) leaving() (out set) {
	for _, n := range w.rec.Leaving {
		out |= bit(number(n))
	}
	return out
}

func (w *world) closed(s int) *Closing {
	i, _ := w.rec.Find(w.streams[s].id)
	return i.Closed
}

func (w *world) index(id Stream) int {
	for s, i := range w.streams {
		if i.id == id {
			return s
		}
	}
	panic("no such stream")
}

func (w *world) sessions() Sessions {
	out := Sessions{}
	for i := range w.nodes {
		out[nodeName(i)] = has(w.session, i)
	}
	return out
}

// present is the stream that a node's session names.
func (w *world) present(node string) Stream {
	n := w.nodes[number(node)]
	if s := max(n.stream, n.pending); s >= 0 {
		return w.streams[s].id
	}
	return Stream{}
}

// view is the list as a node knows it.
func (w *world) view(n *node) Roster {
	disks := func(list set) (out []Disk) {
		for l := list; l != 0; l &= l - 1 {
			d := w.disks[bits.TrailingZeros64(l)]
			out = append(out, Disk{ID: diskName(d.id), Node: nodeName(d.node)})
		}
		return out
	}
	r := Roster{Rule: w.cfg.rule(), Disks: disks(n.d.list)}
	if n.d.next != 0 {
		r.Next = &Change{Disks: disks(n.d.next), Decided: n.d.decided}
	}
	return r
}

func (w *world) me(n *node) Me {
	return Me{
		Node: nodeName(n.id), Disk: diskName(n.d.id), Clock: hub.Mark(n.clock), Horizon: hub.Mark(w.horizon(n)), Done: n.d.known&^n.d.complete == 0,
		Writing: n.stream >= 0 || n.pending >= 0, Epoch: uint64(n.d.epoch),
	}
}

func (w *world) newDisk(node int) *disk {
	d := &disk{id: len(w.disks), node: node, fresh: true}
	w.disks = append(w.disks, d)
	return d
}

func (w *world) newStream(node int, id Stream) int {
	s := len(w.streams)
	w.streams = append(w.streams, streamInfo{node: node, ordinal: int(id.Ordinal), id: id})
	return s
}

func (w *world) reach(a, b int) bool { return a == b || !has(w.down[a], b) }

// call says whether a can ask b and hear its answer.
func (w *world) call(a, b int) bool {
	return w.nodes[a].up && w.nodes[b].up && w.reach(a, b) && w.reach(b, a)
}

// coord says whether n can use the coordinator.
func (w *world) coord(n *node) bool {
	return n.up && w.coordUp && !has(w.coordCut, n.id) && has(w.session, n.id)
}

func (w *world) endSession(i int) {
	w.session &^= bit(i)
	w.seen &^= bit(i)
}

func (w *world) push(a, b int, m message) {
	if w.reach(a, b) && len(w.wire[a][b]) < 12 {
		w.wire[a][b] = append(w.wire[a][b], m)
	}
}

// inGuard: the wall clock agrees with more than half of the members, as they were last seen.
func (w *world) inGuard(n *node) bool {
	all, near := 0, 0
	for _, m := range w.nodes {
		if m.d != nil && !m.out {
			all++
			if d := n.skew - m.skew; d <= guard && d >= -guard {
				near++
			}
		}
	}
	return 2*near > all
}

// read is the hybrid clock without a step; out of guard it stands still.
func (w *world) read(n *node) int64 {
	if t := w.now + n.skew; t > n.clock && (w.inGuard(n) || w.is("low-runs-out-of-guard")) {
		return t
	}
	return n.clock
}

// move moves the clock, keeping the bound on disk above it.
func (w *world) move(n *node, t int64) {
	n.clock = max(n.clock, t)
	if n.clock > n.d.bound && !w.is("bound") {
		n.d.bound = n.clock + boundAhead
	}
}

// ownLow: everything of the own stream at or below it is decided.
func (w *world) ownLow(n *node) int64 {
	l := n.clock
	for k := n.minted &^ n.done; k != 0; k &= k - 1 {
		t := w.keyTime[bits.TrailingZeros64(k)] - 1
		if w.is("low-at-undecided") {
			t++
		}
		l = min(l, t)
	}
	return l
}

// horizon is the smallest low over the streams that are not finished here.
func (w *world) horizon(n *node) int64 {
	const none = int64(1) << 60
	h := none
	for s := n.d.known &^ n.d.complete; s != 0; s &= s - 1 {
		i := bits.TrailingZeros64(s)
		l := n.d.low[i]
		if i == n.stream {
			l = w.ownLow(n)
		} else if w.is("horizon-ignores-silent") && !has(w.session, w.streams[i].node) {
			continue
		}
		h = min(h, l)
	}
	if h == none {
		return n.lastH
	}
	n.lastH = h
	return h
}

// stable is the stable answer of n: every item up to its horizon.
func (w *world) stable(n *node) (int64, set) {
	h := w.horizon(n)
	return h, w.upTo(w.shows(n), h)
}

// shows is what people see on a node: what its disk has, and below its floor what is in long-term storage.
func (w *world) shows(n *node) set { return n.d.shows() | w.upTo(w.archived, n.d.floor-1) }

// shows is what people see of a disk: what is late outweighs its name.
func (d *disk) shows() set { return d.has &^ (d.gave &^ d.late) }

func (w *world) mint(n *node) {
	if !n.up || n.stream < 0 || len(w.keyTime) >= maxKeys || !w.inGuard(n) || has(w.leaving(), n.id) {
		return
	}
	t := max(n.clock+1, w.read(n))
	if w.is("mint-below-low") {
		t = max(w.topMint[w.streams[n.stream].ordinal]+1, w.now+n.skew)
	}
	w.move(n, t)
	k, s := len(w.keyTime), &w.streams[n.stream]
	w.keyTime, w.keyStream = append(w.keyTime, t), append(w.keyStream, n.stream)
	s.keys |= bit(k)
	n.minted |= bit(k)
	n.written = append(n.written, entry{key: k})
	w.note("node %d mints key %d at %d in stream %d", n.id, k, t, n.stream)
	if t <= w.topMint[s.ordinal] || t <= w.topOfNode[n.id] {
		w.fail("key order: node %d minted %d at or below an earlier key", n.id, t)
	}
	w.topMint[s.ordinal] = t
}

// giveUp is the time-out of one undecided key.
func (w *world) giveUp(n *node, pick int) {
	open := n.minted &^ n.done &^ n.giving
	if !n.up || n.stream < 0 || open == 0 {
		return
	}
	for range pick % bits.OnesCount64(open) {
		open &= open - 1
	}
	k := bits.TrailingZeros64(open)
	n.giving |= bit(k)
	w.note("node %d gives up key %d", n.id, k)
	switch w.cfg.bug {
	case "given-up-not-named":
		n.done |= bit(k)
		n.d.gave |= bit(k)
		return
	case "given-up-without-quorum": // as the text had it
		n.done |= bit(k)
	}
	n.written = append(n.written, entry{key: k, give: true})
}

func (w *world) send(n *node, to int) {
	p := w.nodes[to]
	if !n.up || n.stream < 0 || p == n || p.d == nil {
		return
	}
	w.move(n, w.read(n))
	from := max(n.sent[to], n.trim)
	w.push(n.id, to, message{kind: frame, stream: n.stream, pos: from, epoch: n.d.epoch, low: w.ownLow(n), entries: n.written[from:]})
	n.sent[to] = len(n.written)
}

func (w *world) deliver(a, b int) {
	q := w.wire[a][b]
	if len(q) == 0 {
		return
	}
	m, p := q[0], w.nodes[b]
	w.wire[a][b] = q[1:]
	if !p.up {
		return
	}
	switch m.kind {
	case ack:
		if m.stream == p.stream {
			p.acks[m.disk] = max(p.acks[m.disk], m.pos)
			w.decide(p)
		}
	case nack:
		if m.stream == p.stream {
			p.sent[a] = min(m.pos, len(p.written))
		}
	case refusal: // the writer stops this incarnation by itself; it is settled, another one follows
		if !w.is("refusal-not-told") {
			w.stop(p, m.stream)
		}
	case frame:
		w.receive(p, a, m)
	}
}

// receive takes a frame into the next group, or says where it stands.
func (w *world) receive(p *node, from int, m message) {
	d, s := p.d, m.stream
	if has(d.fenced|d.closed, s) {
		w.push(p.id, from, message{kind: refusal, stream: s})
		return
	}
	at := d.pos[s]
	for _, f := range p.pend {
		if f.stream == s {
			at += len(f.entries)
		}
	}
	late := m.low > w.read(p)+guard
	for _, e := range m.entries {
		late = late || w.keyTime[e.key] > w.read(p)+guard
	}
	if late || !has(d.known, s) || m.epoch > d.epoch && !w.is("unknown-epoch-applied") || m.pos > at {
		w.push(p.id, from, message{kind: nack, stream: s, pos: at})
		return
	}
	m.entries = m.entries[min(at-m.pos, len(m.entries)):]
	p.pend = append(p.pend, m)
	if w.is("ack-before-sync") {
		w.push(p.id, from, message{kind: ack, stream: s, pos: at + len(m.entries), disk: d.id})
	}
	if w.is("low-before-sync") {
		d.low[s] = max(d.low[s], m.low)
	}
}

// sync ends a group: what was received and what was minted here is on disk.
func (w *world) sync(n *node) {
	if !n.up {
		return
	}
	for _, m := range n.pend {
		s := m.stream
		if has(n.d.fenced|n.d.closed, s) && !w.is("fence-lets-group-through") {
			continue
		}
		w.store(n.d, m.entries)
		n.d.pos[s] += len(m.entries)
		n.d.low[s] = max(n.d.low[s], m.low)
		w.move(n, m.low)
		w.push(n.id, w.streams[s].node, message{kind: ack, stream: s, pos: n.d.pos[s], disk: n.d.id})
	}
	n.pend = nil
	if n.stream >= 0 {
		w.store(n.d, n.written[n.synced:])
		n.synced = len(n.written)
		n.d.pos[n.stream] = n.synced
		w.decide(n)
		n.d.low[n.stream] = max(n.d.low[n.stream], w.ownLow(n))
	}
}

func (w *world) store(d *disk, entries []entry) {
	for _, e := range entries {
		if e.give {
			d.gave |= bit(e.key)
		} else {
			d.has |= bit(e.key)
		}
	}
}

// quorum: enough disks have synced entry i of n's stream.
func (w *world) quorum(n *node, at int) bool {
	if n.synced <= at {
		return false
	}
	synced := bit(n.d.id)
	for d := range n.acks {
		if n.acks[d] > at {
			synced |= bit(d)
		}
	}
	r := w.view(n)
	if r.Next != nil && w.is("new-list-at-once") {
		r.Next.Decided = true
	}
	return r.Committed(names(synced))
}

// decide: committed, or given up when the name is on W disks; `low` passes neither before.
func (w *world) decide(n *node) {
	for i, e := range n.written {
		b := bit(e.key)
		if !e.give && (n.done|n.giving)&b != 0 && !w.is("commit-after-giving-up") || e.give && (n.done&b != 0) || !w.quorum(n, i) {
			continue
		}
		if !e.give && (n.done&b == 0 || w.is("commit-after-giving-up")) && !has(w.committed, e.key) {
			w.commit(e.key, n.id)
		} else if e.give {
			w.finalGiven |= b
		}
		n.done |= b
	}
}

func (w *world) kill(n *node) {
	if n.up {
		n.up = false
		n.life++
		w.note("node %d dies", n.id)
		if w.is("fence-forgotten") {
			n.d.fenced = 0
		}
	}
}

// start: from the disk alone. empty: the data directory is gone, the node id is not.
func (w *world) start(n *node, empty bool) {
	if n.up || n.d == nil || n.out {
		return
	}
	if empty {
		old := n.d
		old.lost = true
		if n.d = w.newDisk(n.id); w.is("lost-disk-counts") { // the same identity, nothing on it
			w.disks = w.disks[:len(w.disks)-1]
			*n.d = disk{id: old.id, node: n.id, list: old.list, epoch: old.epoch, known: old.known}
			w.disks[old.id] = n.d
		}
		n.d.floor = w.now
		w.note("node %d starts with an empty disk", n.id)
	} else {
		w.note("node %d starts", n.id)
	}
	*n = node{id: n.id, up: true, life: n.life, d: n.d, skew: n.skew, clock: n.d.bound, floor: n.d.bound, stream: -1, pending: -1}
	if w.is("horizon-not-held") {
		n.floor = 0
	}
	w.endSession(n.id)
}

// repair: p takes from q what it has missed: the final set of a closed stream, or a longer prefix of an open one.
func (w *world) repair(p, q *node) {
	if p == q || p.d == nil || q.d == nil || !w.call(p.id, q.id) || q.d.epoch > p.d.epoch && !w.is("unknown-epoch-repaired") {
		return
	}
	for k := p.d.known & q.d.known &^ p.d.complete; k != 0; k &= k - 1 {
		s := bits.TrailingZeros64(k)
		keys := w.streams[s].keys
		low, pos := q.d.low[s], q.d.pos[s]
		if s == p.stream {
			continue
		}
		if s == q.stream {
			low, pos = w.ownLow(q), q.synced
		}
		if has(p.d.closed, s) {
			w.raise(p, p.d.low[s], q.d.floor)
			p.d.has |= q.d.has & w.ends[s]
		}
		if has(q.d.complete, s) {
			low = max(low, w.bases[s])
		}
		if low > p.d.low[s] {
			p.drop(s)
			w.raise(p, p.d.low[s], q.d.floor)
			if !w.is("repair-skips") {
				p.d.has |= q.d.has & keys
				p.d.gave |= q.d.gave & keys
			}
			p.d.low[s], p.d.pos[s] = low, max(pos, p.d.pos[s])
			w.move(p, low)
		}
		w.finish(p, s)
	}
	if !w.is("late-not-copied") {
		p.d.late |= q.d.late
		p.d.has |= q.d.has & q.d.late
	}
}

// raise: whoever copies a stream from a mark below the floor of the other one misses what was swept there.
func (w *world) raise(p *node, low, floor int64) {
	if low < floor && !w.is("sweep-floor-not-raised") {
		p.d.floor = max(p.d.floor, floor)
	}
}

// drop forgets unsynced frames of a stream.
func (p *node) drop(s int) {
	var keep []message
	for _, m := range p.pend {
		if m.stream != s {
			keep = append(keep, m)
		}
	}
	p.pend = keep
}

// closable: see Roster.Closable.
func (w *world) closable(s int) bool { return w.rec.Closable(w.streams[s].id, w.sessions(), w.present) }

// lead starts a leader of settle/ for stream s on n. Several may run at once: leases get lost.
func (w *world) lead(n *node, s int, forced bool) {
	if w.coord(n) && has(n.d.known, s) && w.closable(s) && len(w.tasks) < 24 {
		w.note("node %d closes stream %d of node %d (forced %v)", n.id, s, w.streams[s].node, forced)
		even := bits.OnesCount64(n.d.list)%2 == 0
		w.tasks = append(w.tasks, &task{leader: n.id, life: n.life, stream: s, base: 1 << 60, forced: forced && w.cfg.force && w.cfg.half && even})
	}
}

func (w *world) settlement(t *task) Settlement {
	s := Settlement{Stream: w.streams[t.stream].id, Refused: names(t.replied), Wrote: w.nodesOf(t.wrote), Forced: t.forced}
	if w.is("settle-with-too-few") {
		for id := range names(w.list() &^ t.replied) {
			s.Refused[id] = true
			break
		}
	}
	return s
}

// seenBy is the list by which a leader settles.
func (w *world) seenBy(r Roster) Roster {
	if w.is("settle-by-old-list") {
		r.Next = nil
	}
	return r
}

// settle is one step of a leader: one call to p, or the record.
func (w *world) settle(t *task, p *node) {
	n := w.nodes[t.leader]
	if t.over || !n.up || n.life != t.life {
		t.over = true
		return
	}
	s, keys := t.stream, w.streams[t.stream].keys
	if t.writing && w.record(t, n) || p.d == nil || !w.call(n.id, p.id) || !has(p.d.known, s) {
		return
	}
	if has(p.d.closed, s) && !w.is("stale-leader-overwrites") {
		t.over = true
		return
	}
	if t.writing {
		if p.d.low[s] >= t.base || w.is("set-without-what-is-below") { // otherwise it has to be repaired first
			p.d.has |= t.set
			t.wrote |= bit(p.d.id)
		}
		return
	}
	w.refuse(p, s)
	t.replied |= bit(p.d.id)
	t.union |= p.d.has & keys
	t.names |= p.d.gave & keys
	t.base = min(t.base, p.d.low[s])
	t.floor = max(t.floor, p.d.floor)
	if w.is("set-without-what-is-below") {
		t.base = p.d.low[s]
		for r := t.replied; r != 0; r &= r - 1 {
			t.base = max(t.base, w.disks[bits.TrailingZeros64(r)].low[s])
		}
	}
	if w.seenBy(w.view(n)).Enough(w.settlement(t)) {
		t.writing = true
		t.set = t.union &^ t.names
		if w.is("union-keeps-given-up") {
			t.set = t.union
		}
		t.set &^= w.upTo(keys, t.base)
	}
}

// refuse is durable: no frame of s is taken any more, an unsynced one is dropped; the owner stops.
func (w *world) refuse(p *node, s int) {
	p.d.fenced |= bit(s)
	if !w.is("fence-lets-group-through") {
		p.drop(s)
	}
	w.stop(p, s)
}

func (w *world) stop(p *node, s int) {
	if p.stream == s {
		p.d.low[s] = max(p.d.low[s], w.ownLow(p))
		p.stream, p.written, p.synced, p.trim = -1, nil, 0, 0
		p.minted, p.giving, p.done = 0, 0, 0
		p.acks, p.sent = [maxDisks]int{}, [maxNodes]int{}
	}
}

// record puts the set on record by compare-and-set: the first leader wins.
func (w *world) record(t *task, n *node) bool {
	if !w.coord(n) {
		return false
	}
	if !has(w.listed(), t.stream) {
		t.over = true
		return true
	}
	if w.closed(t.stream) != nil && !w.is("stale-leader-overwrites") {
		t.over = true
		return true
	}
	r := w.seenBy(w.rec)
	if w.is("stale-leader-overwrites") {
		r = r.clone()
		for i := range r.Streams {
			if r.Streams[i].Stream == w.streams[t.stream].id {
				r.Streams[i].Closed = nil
			}
		}
	}
	s := w.settlement(t)
	if w.is("settle-not-written") {
		s.Wrote = w.nodesOf(w.list() | w.coming())
	}
	t.over = !r.Enough(s) // the list has changed under this leader
	after, ok := r.Close(s, Closing{Base: hub.Mark(t.base)})
	if ok {
		w.note("stream %d is closed: base %d set %b", t.stream, t.base, t.set)
		w.rec.Streams = after.Streams
		w.ended++
		if t.forced {
			w.forced++
		}
		w.ends[t.stream], w.bases[t.stream], w.floors[t.stream] = t.set, t.base, t.floor
		t.over = true
	}
	return ok
}

// finish drops the low of a closed stream once everything of it is here.
func (w *world) finish(p *node, s int) {
	if !has(p.d.closed, s) || has(p.d.complete, s) {
		return
	}
	if w.closed(s) == nil {
		return
	}
	base, end := w.bases[s], w.ends[s]
	if !w.is("sweep-closing-without-floor") { // what those who closed it had swept is not in the set, and is given up here
		w.raise(p, base, w.floors[s])
	}
	swept := w.upTo(w.archived, p.d.floor-1)
	if w.is("sweep-floor-is-archived") { // as the code had it: a new disk has a floor, and nothing below it need be archived
		swept = w.upTo(end, p.d.floor-1)
	}
	if keys := w.streams[s].keys; p.d.low[s] >= base && end&^p.d.has&^swept == 0 {
		w.adopt(p, s, w.upTo(keys&p.d.has&^p.d.gave&^p.d.late, base)|end&p.d.has)
	}
}

// adopt makes final the content of a closed stream; what is not in it is given up, by everyone. After a forced closing it is late instead, and
// the others copy it.
func (w *world) adopt(p *node, s int, content set) {
	keys := w.streams[s].keys
	mine := p.d.has & keys &^ p.d.gave
	extra := mine &^ content &^ w.upTo(keys, w.bases[s])
	if w.closed(s).Forced && !w.is("late-given-up") {
		p.d.complete |= bit(s)
		p.d.late |= extra | w.upTo(content&^mine, p.d.low[s]) | content&p.d.gave
		if w.is("late-not-flagged") {
			p.d.late &^= extra
		}
		p.d.has |= content
		p.d.gave &^= content
		return
	}
	p.d.complete |= bit(s)
	own := w.streams[s].node == p.id
	if own && w.is("returner-keeps-unsettled") || !own && w.is("only-the-returner-gives-up") { // the latter: as the text had it
		content |= extra
	}
	content |= keys & p.d.late & p.d.has
	p.d.gave = p.d.gave&^content | keys&p.d.has&^content
	p.d.has = p.d.has&^keys | content
}

// learn reads the record: lists, incarnations, closings; and acknowledges a coming list.
func (w *world) learn(n *node) {
	if !w.coord(n) || n.out {
		return
	}
	d := n.d
	w.seen |= bit(n.id)
	h := w.horizon(n)
	listed := w.listed()
	if f := w.rec.Floor; f != nil && !w.is("sweep-floor-not-learned") {
		d.floor = max(d.floor, f.Millis)
	}
	if w.list() != 0 && !has(w.list()|w.coming(), d.id) && !w.is("sweep-vanished-kept") { // what was dropped may have been more, or less, than is here: long-term storage has it
		for k := d.known &^ listed &^ d.complete; k != 0; k &= k - 1 {
			s := bits.TrailingZeros64(k)
			w.refuse(n, s)
			for o := d.has & w.streams[s].keys &^ d.late; o != 0; o &= o - 1 {
				if i := bits.TrailingZeros64(o); w.keyTime[i] > d.low[s] {
					d.gave |= bit(i)
				}
			}
		}
	}
	d.known &= listed
	for k := listed &^ d.known; k != 0; k &= k - 1 {
		s := bits.TrailingZeros64(k)
		if d.read {
			d.low[s] = min(h, n.clock) // nothing of s can lie at or below it
		}
		if c := w.rec.Next; c != nil && c.Stream != nil && w.index(*c.Stream) == s && !c.Decided && d.read {
			d.low[s] = n.clock
		}
	}
	d.known |= listed
	d.read = true
	d.epoch, d.list, d.next, d.decided = int(w.rec.Epoch), w.list(), 0, false
	if c := w.rec.Next; c != nil {
		d.epoch, d.next = int(c.Epoch), disksOf(c.Disks)
		w.answer(n)
		d.decided = w.rec.Next == nil || w.rec.Next.Decided
	}
	if p := n.pending; p >= 0 && n.stream < 0 {
		if c := w.rec.Next; c == nil || c.Stream == nil || w.index(*c.Stream) != p || c.Decided {
			w.begin(n, p)
		}
	}
	for k := d.known &^ d.complete; k != 0; k &= k - 1 {
		s := bits.TrailingZeros64(k)
		if w.closed(s) != nil {
			d.closed |= bit(s)
			w.refuse(n, s)
			w.finish(n, s)
		} else if w.is("low-dropped-unsettled") && w.closable(s) {
			d.complete |= bit(s)
		}
	}
	w.dropStreams(n)
	w.propose(n)
	if w.rec.Next == nil && n.pending < 0 && n.stream < 0 && w.rec.Left(nodeName(n.id)) {
		n.out = true
	}
}

// dropStreams forgets streams of which every disk has told this node, since the list was changed last, that it needs nothing.
func (w *world) dropStreams(n *node) {
	if len(n.told) > 0 && n.toldOf == fmt.Sprint(w.rec) {
		after, gone := w.rec.Drop(n.told)
		if len(gone) > 0 {
			w.dropped += len(gone)
			w.rec = after
			w.note("node %d drops %v, floor %v", n.id, gone, after.Floor.Millis)
		}
	}
	n.told = nil
	if len(w.rec.Droppable(func(Stream) bool { return true })) == 0 {
		return
	}
	n.toldOf = fmt.Sprint(w.rec)
	for l := w.list(); l != 0; l &= l - 1 {
		d := w.disks[bits.TrailingZeros64(l)]
		m := w.nodes[d.node]
		told := Spent{Disk: diskName(d.id), Floor: hub.KeyAt(d.floor, ""), Streams: map[Stream]bool{}}
		if w.is("sweep-drop-what-i-have") {
			d, m = n.d, n
		}
		if m.d != d || !w.call(n.id, m.id) {
			n.told = nil
			return
		}
		for s := range w.streams {
			held := (d.has|d.gave)&w.streams[s].keys != 0 && !w.is("sweep-drop-while-held")
			told.Streams[w.streams[s].id] = !held && (has(d.complete, s) || w.is("sweep-drop-incomplete"))
		}
		n.told = append(n.told, told)
	}
}

// archive moves the archiver, which runs on a node, to its horizon. What is late is put into long-term storage one by one.
func (w *world) archive(n *node) {
	if !w.coord(n) || n.out || !n.d.read || n.d.fresh {
		return
	}
	h, a := w.stable(n)
	if h >= n.floor {
		w.archived |= a
		w.cursor = max(w.cursor, h)
	}
	w.archived |= n.d.late & n.d.has
}

// sweep removes what is archived, up to a time. Names stay until everybody has passed them; late items until each is archived.
func (w *world) sweep(n *node, t int64) {
	if !w.coord(n) || n.out || !n.d.read {
		return
	}
	for s := range w.streams {
		if has(w.listed(), s) && w.closed(s) != nil && w.closed(s).Forced && !has(n.d.complete, s) {
			return
		}
	}
	spread := t
	for l := w.list() | w.coming(); l != 0; l &= l - 1 {
		if m := w.nodes[w.disks[bits.TrailingZeros64(l)].node]; m.d != nil {
			spread = min(spread, w.horizon(m))
		}
	}
	old := w.upTo(n.d.has, t) &^ (n.d.late &^ w.archived)
	n.d.has &^= old
	n.d.gave &^= w.upTo(n.d.gave, spread) &^ n.d.has
	n.d.floor = max(n.d.floor, t+1)
	w.note("node %d sweeps up to %d: %b", n.id, t, old)
}

// comeBack calls a decommissioned node back, with the disk that it had.
func (w *world) comeBack(n *node) {
	after, err := w.rec.Return(nodeName(n.id))
	if n.d == nil || !w.coordUp || err != nil || !w.rec.Left(nodeName(n.id)) || bits.OnesCount64(w.list()) >= maxMembers {
		return
	}
	w.rec, n.out = after, false
	w.kill(n)
	w.start(n, false)
	w.session |= bit(n.id)
	w.note("node %d is called back", n.id)
}

// answer acknowledges a coming list, says that this disk has caught up with it, and moves it on.
func (w *world) answer(n *node) {
	me := w.me(n)
	w.rec, _ = w.rec.Answer(me)
	w.rec, _ = w.rec.Catch(me)
	r, c := w.rec, w.rec.Next
	if w.is("change-without-closing") && !c.Decided {
		r = r.clone()
		for i := range r.Streams {
			if r.Streams[i].Closed == nil && *c.Stream != r.Streams[i].Stream {
				r.Streams[i].Closed = &Closing{}
			}
		}
	}
	if w.is("change-before-caught-up") && c.Decided {
		r = r.clone()
		for _, d := range c.Disks {
			r.Next.Caught = append(r.Next.Caught, d.ID)
		}
	}
	after, _ := r.Advance(w.sessions())
	for i := range after.Streams { // only the mutant differs
		after.Streams[i].Closed = w.rec.Streams[i].Closed
	}
	if w.rec.Epoch != after.Epoch {
		w.note("epoch %d is in force, disks %b", after.Epoch, disksOf(after.Disks))
	}
	w.rec = after
}

// begin opens the incarnation that was waited for.
func (w *world) begin(n *node, p int) {
	n.pending = -1
	i, _ := w.rec.Find(w.streams[p].id)
	if !w.is("starts-at-own-clock") {
		w.move(n, int64(i.Above))
	}
	if i.Closed == nil && !has(n.d.fenced, p) {
		n.stream = p
		if n.d.fresh {
			n.floor, n.d.fresh = n.clock, false
		}
		w.note("node %d starts stream %d", n.id, p)
	}
}

// propose asks for a new incarnation, a join, a replaced disk, or a decommission; one at a time.
func (w *world) propose(n *node) {
	if w.rec.Next != nil || !w.coord(n) || len(w.streams) >= maxStreams {
		return
	}
	w.incarnations++
	after, ok := w.rec.Propose(w.me(n), uint32(w.incarnations))
	if !ok {
		return
	}
	w.rec = after
	if c := after.Next; c.Stream != nil {
		n.pending = w.newStream(n.id, *c.Stream)
		w.note("epoch %d: stream %d of node %d, disks %b", c.Epoch, n.pending, n.id, disksOf(c.Disks))
		if w.is("mints-before-acknowledged") {
			n.stream, n.pending = n.pending, -1
		}
	}
}

// commit is the moment of the 201.
func (w *world) commit(k, node int) {
	w.committed |= bit(k)
	w.topOfNode[node] = max(w.topOfNode[node], w.keyTime[k])
	w.note("key %d is committed", k)
	if w.keyTime[k] <= w.gH && !has(w.gA, k) {
		w.differ(bit(k), "key %d at %d committed below the shown horizon %d", k, w.keyTime[k], w.gH)
	}
}

// differ: a forced closing may make answers differ in items that must end up flagged late.
func (w *world) differ(keys set, format string, args ...any) {
	if w.cfg.force {
		w.odd |= keys
		return
	}
	w.fail(format, args...)
}

// check asks every live node for its stable answer, without moving its clock.
func (w *world) check() {
	for _, n := range w.nodes {
		if !n.up || n.out || !n.d.read {
			continue
		}
		h, a := w.stable(n)
		if d := (a ^ w.gA) & w.upTo(a|w.gA, min(h, w.gH)); d != 0 {
			w.differ(d, "stable answers differ: node %d at %d, keys %b, horizon %d before", n.id, h, d, w.gH)
		}
		if d := w.upTo(w.committed, h) &^ a; d != 0 {
			w.differ(d, "stable answer lacks committed keys %b: node %d at %d", d, n.id, h)
		}
		if d := a & w.finalGiven; d != 0 {
			w.differ(d, "given-up keys %b in a stable answer of node %d", d, n.id)
		}
		if h > w.gH {
			w.gH, w.gA = h, a
		}
		if h >= n.floor && !n.d.fresh {
			if h < w.shown[n.id] {
				w.fail("horizon of node %d retreats from %d to %d", n.id, w.shown[n.id], h)
			}
			w.shown[n.id] = h
		}
	}
}

// unstable: with R answers of each list in force, nothing acknowledged may be missing.
func (w *world) unstable(n *node) {
	if !n.up || n.out || !has(w.seen, n.id) && !w.is("reads-without-session") || !has(n.d.list, n.d.id) ||
		n.d.next != 0 && !has(n.d.next, n.d.id) && !w.is("leaver-reads-on") {
		return
	}
	var got, items set
	for _, m := range w.nodes {
		if m.d != nil && w.call(n.id, m.id) {
			got |= bit(m.d.id)
			items |= m.d.has | w.archived
		}
	}
	if !w.view(n).Whole(names(got)) {
		return
	}
	if d := w.committed &^ items; d != 0 {
		w.differ(d, "unstable answer lacks committed keys %b: node %d", d, n.id)
	}
}

// heal ends all faults, keeps `dead` nodes down, and demands progress and equality.
func (w *world) heal(dead int) {
	w.coordUp, w.coordCut, w.down = true, 0, [maxNodes]set{}
	w.note("faults end")
	list := w.list() | w.coming()
	spare := bits.OnesCount64(w.list()) - max(w.cfg.r(w.list()), w.cfg.w(w.list()))
	if w.rec.Next != nil || w.leaving() != 0 {
		spare = 0
	}
	for l := list; l != 0; l &= l - 1 { // lost disks count as dead
		if w.disks[bits.TrailingZeros64(l)].lost {
			spare--
		}
	}
	for i := range w.nodes {
		n := w.nodes[(i+dead)%maxNodes]
		n.skew = 0
		if n.d == nil {
			continue
		}
		if dead%3 == 0 && spare > 0 && has(w.list(), n.d.id) {
			spare--
			w.kill(n)
			w.endSession(n.id)
			continue
		}
		w.start(n, false)
	}
	goal := w.now + 40
	rounds := 60
	if w.cfg.sweep {
		rounds = 90
	}
	for i := range rounds {
		w.now += 3
		if w.cfg.sweep && i < 60 {
			w.turn(i, dead)
		}
		for _, n := range w.nodes {
			if n.up && !n.out {
				w.session |= bit(n.id)
				w.round(n)
			}
		}
		w.check()
		if w.bad != "" {
			return
		}
	}
	w.final(goal)
}

// turn is what happens after the faults where logs are swept: restarts, sweeps, and nodes that come.
func (w *world) turn(i, dead int) {
	n := w.nodes[(i/2+dead)%w.members()]
	switch live := n.up && !n.out; {
	case live && i%7 == 0 && i < 40 && len(w.streams) < maxStreams-6:
		w.kill(n)
		w.start(n, false)
	case live && i%3 == 1:
		w.archive(n)
		w.sweep(n, w.cursor-int64(i%4))
	case i == 30:
		w.join()
	case i >= 36:
		w.comeBack(n)
	}
}

// round lets one node do everything it can.
func (w *world) round(n *node) {
	w.move(n, w.read(n))
	w.learn(n)
	for s := range w.streams {
		if w.closable(s) {
			w.lead(n, s, false)
		}
	}
	for _, m := range w.nodes {
		w.repair(n, m)
		w.send(n, m.id)
	}
	w.sync(n)
	for _, m := range w.nodes {
		for range len(w.wire[n.id][m.id]) + 1 {
			w.deliver(n.id, m.id)
			w.deliver(m.id, n.id)
		}
		w.sync(m)
	}
	w.mint(n)
	live := w.tasks[:0]
	for _, t := range w.tasks {
		for _, m := range w.nodes {
			w.settle(t, m)
		}
		if !t.over {
			live = append(live, t)
		}
	}
	w.tasks = live
}

func (w *world) final(goal int64) {
	for i := range w.tasks {
		w.tasks[i].over = true
	}
	var late set
	for _, n := range w.nodes {
		if n.up && !n.out {
			late |= n.d.late
		}
	}
	low, first := int64(1)<<60, true
	var items set
	for _, n := range w.nodes {
		if n.up && !n.out {
			h, _ := w.stable(n)
			low = min(low, h)
			if h < goal || h < n.floor {
				w.fail("liveness: horizon of node %d stays at %d, goal %d, floor %d", n.id, h, goal, n.floor)
			}
		}
	}
	for _, n := range w.nodes {
		if !n.up || n.out {
			continue
		}
		a := w.upTo(n.d.has&^n.d.gave|w.upTo(w.archived, n.d.floor-1), low) &^ late
		if !first && a != items {
			w.fail("after healing node %d holds other keys: %b", n.id, a^items)
		}
		items, first = a, false
		if d := w.committed & w.upTo(w.committed, low) &^ (a | late); d != 0 {
			w.fail("committed keys %b are lost on node %d", d, n.id)
		}
		if d := w.committed & late &^ n.d.has &^ w.archived; d != 0 {
			w.fail("late keys %b are lost on node %d", d, n.id)
		}
	}
	if d := w.odd &^ late; d != 0 {
		w.fail("keys %b differed and are not flagged late", d)
	}
	w.late = late
}

type action struct{ op, a, b, c uint8 }

type result struct {
	bad                string
	minted, done, late int
	closed, forced     int
	dropped            int
	epochs             int
}

// weights: how often each action is drawn.
var weights = []struct {
	name   string
	weight int
}{
	{"mint", 12}, {"send", 22}, {"deliver", 36}, {"sync", 16}, {"tick", 6}, {"give up", 4}, {"kill", 2}, {"start", 4},
	{"lose disk", 1}, {"cut", 3}, {"mend", 6}, {"skew", 2}, {"coordinator", 1}, {"expire", 2}, {"learn", 14}, {"lead", 6},
	{"settle", 16}, {"repair", 5}, {"trim", 2}, {"join", 1}, {"leave", 1}, {"read", 4}, {"session", 5}, {"resend", 2}, {"cut off", 1},
	{"archive", 0}, {"sweep", 0}, {"come back", 0},
}

// profiles change the mixture: as above, a fixed list of members, many changes of it, long absences, and members that the coordinator cannot reach.
var profiles = []map[string]int{
	{},
	{"join": 0, "leave": 0, "lose disk": 0},
	{"join": 4, "leave": 3, "lose disk": 3, "learn": 30, "settle": 30, "repair": 10},
	{"cut": 8, "mend": 3, "cut off": 4, "expire": 4, "session": 8, "give up": 8},
	{"cut": 1, "cut off": 4, "expire": 6, "session": 2, "join": 3, "learn": 40, "send": 50, "deliver": 90, "sync": 30, "kill": 1, "lose disk": 0, "settle": 40, "lead": 10, "coordinator": 0},
}

// sweeping are the weights of what a schedule with sweeps has beside.
var sweeping = map[string]int{"archive": 6, "sweep": 6, "come back": 2, "leave": 2, "join": 2}

func schedule(seed uint64, c config) []action {
	r := rand.New(rand.NewPCG(seed, 7))
	profile, total, share := profiles[seed/64%uint64(len(profiles))], 0, make([]int, len(weights))
	for i, x := range weights {
		share[i] = x.weight
		if v, ok := profile[x.name]; ok {
			share[i] = v
		}
		if c.sweep {
			share[i] = max(share[i], sweeping[x.name])
		}
		total += share[i]
	}
	out := make([]action, c.steps)
	for i := range out {
		p, op := r.IntN(total), 0
		for p >= share[op] {
			p -= share[op]
			op++
		}
		u := r.Uint32()
		out[i] = action{uint8(op), uint8(u), uint8(u >> 8), uint8(u >> 16)}
	}
	return out
}

func (w *world) members() int {
	m := w.cfg.n
	for m < maxNodes && w.nodes[m].d != nil {
		m++
	}
	return m
}

func (w *world) step(x action) {
	m := w.members()
	n, p, c := w.nodes[int(x.a)%m], w.nodes[int(x.b)%m], int(x.c)
	switch weights[x.op].name {
	case "mint":
		w.mint(n)
	case "send":
		w.send(n, p.id)
	case "deliver":
		w.deliver(n.id, p.id)
	case "sync":
		w.sync(n)
	case "tick":
		w.now += 1 + int64(c%3)
	case "give up":
		w.giveUp(n, c)
	case "kill":
		w.kill(n)
	case "start":
		w.start(n, false)
	case "lose disk":
		w.loseDisk(n)
	case "cut":
		w.down[n.id] |= bit(p.id)
		w.wire[n.id][p.id] = nil
		if c%2 == 0 {
			w.down[p.id] |= bit(n.id)
			w.wire[p.id][n.id] = nil
		}
	case "mend":
		w.down[n.id], w.down[p.id] = 0, 0
	case "skew":
		n.skew = int64(c%7) - 3
		if c > 200 {
			n.skew = int64(c) - 228
			if w.cfg.wild && !w.strays(n) {
				n.skew *= 20
			}
		}
	case "coordinator":
		w.coordUp = !w.coordUp || c%2 == 0
	case "expire":
		if w.coordUp {
			w.endSession(n.id)
		}
	case "learn":
		w.learn(n)
	case "lead":
		if len(w.streams) > 0 {
			for i := range w.streams {
				if s := (i + c) % len(w.streams); w.closable(s) {
					w.lead(n, s, x.b%4 == 0)
					break
				}
			}
		}
	case "settle":
		if len(w.tasks) > 0 {
			w.settle(w.tasks[len(w.tasks)-1-int(x.a)%min(len(w.tasks), 3)], p)
		}
	case "repair":
		w.repair(n, p)
	case "trim":
		for n.trim < n.synced && has(n.done, n.written[n.trim].key) {
			n.trim++
		}
	case "join":
		w.join()
	case "leave":
		w.leave(n)
	case "read":
		if n.up {
			w.move(n, w.read(n))
			w.unstable(n)
		}
	case "session":
		if n.up && w.coordUp {
			w.session |= bit(n.id)
			w.coordCut &^= bit(n.id)
		}
	case "resend":
		n.sent[p.id] = n.trim
	case "cut off":
		w.coordCut |= bit(n.id)
	case "archive":
		w.archive(n)
	case "sweep":
		w.sweep(n, w.cursor-int64(c%4))
	case "come back":
		w.comeBack(n)
	}
}

// strays: another clock than n's is far out.
func (w *world) strays(n *node) bool {
	for _, m := range w.nodes {
		if m != n && (m.skew > guard || m.skew < -guard) {
			return true
		}
	}
	return false
}

// spareDisks: how many more data directories the promise allows to be lost now.
func (w *world) spareDisks(list set) int {
	spare := w.cfg.w(list) - 1
	for l := list; l != 0; l &= l - 1 {
		if w.disks[bits.TrailingZeros64(l)].lost {
			spare--
		}
	}
	return spare
}

// workable: how many more disks of list could go before neither writes nor settling were possible.
func (w *world) workable(list set) int {
	spare := bits.OnesCount64(list) - max(w.cfg.w(list), w.cfg.r(list))
	for l := list; l != 0; l &= l - 1 {
		if w.disks[bits.TrailingZeros64(l)].lost {
			spare--
		}
	}
	return spare
}

func (w *world) loseDisk(n *node) {
	if n.d == nil || n.out || w.cfg.force || w.leaving()&^w.gone() != 0 || len(w.disks) >= maxDisks || len(w.streams) > maxStreams-6 || !has(w.list(), n.d.id) {
		return
	}
	if w.spareDisks(w.list()) < 1 || w.rec.Next != nil && (w.spareDisks(w.coming()) < 1 || w.workable(w.coming()) < 1) {
		return
	}
	w.kill(n)
	w.start(n, true)
}

func (w *world) join() {
	if m := w.members(); m < maxNodes && len(w.disks) < maxDisks && w.coordUp && bits.OnesCount64(w.list()) < maxMembers {
		w.nodes[m].d = w.newDisk(m)
		w.nodes[m].d.floor = w.now
		w.start(w.nodes[m], false)
		w.session |= bit(m)
	}
}

// leave is the operator's decommission; refused when the rest would have lost too many disks.
func (w *world) leave(n *node) {
	if !w.coordUp || w.cfg.force || n.d == nil || !has(w.list(), n.d.id) {
		return
	}
	whole := 0
	for l := w.list() &^ bit(n.d.id); l != 0; l &= l - 1 {
		if !w.disks[bits.TrailingZeros64(l)].lost {
			whole++
		}
	}
	if after, err := w.rec.Leave(nodeName(n.id), whole); err == nil {
		w.rec = after
	}
}

// gone returns the nodes that have left.
func (w *world) gone() set {
	var g set
	for _, n := range w.nodes {
		if n.d != nil && w.rec.Left(nodeName(n.id)) {
			g |= bit(n.id)
		}
	}
	return g
}

func run(cfg config, plan []action, dead int) (res result) {
	w := newWorld(cfg)
	for _, x := range plan {
		w.step(x)
		w.check()
		if w.bad != "" || len(w.streams) > maxStreams-6 {
			break
		}
	}
	if w.bad == "" {
		w.heal(dead)
	}
	return result{w.bad, len(w.keyTime), bits.OnesCount64(w.committed), bits.OnesCount64(w.late), w.ended, w.forced, w.dropped, int(w.rec.Epoch)}
}

// of derives the cluster from the seed: n = 1..5, both modes.
func of(seed uint64, cfg config) config {
	cfg.n = []int{3, 4, 2, 5, 3, 2, 4, 1}[seed%8]
	cfg.half = seed/8%2 == 0
	if cfg.force {
		cfg.n, cfg.half = 2+2*int(seed%2), true
	}
	cfg.wild = seed/64%uint64(len(profiles)) == 1 && cfg.n > 1
	cfg.steps = 120 + int(seed/16%4)*140
	return cfg
}
