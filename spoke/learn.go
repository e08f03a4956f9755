package spoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// evenPatience is how long the number of nodes may be even before the log says what that means.
const evenPatience = 10 * time.Second

// member is what a node's session says of it.
type member struct {
	Disk   string        `json:"disk"`
	Stream roster.Stream `json:"stream"` // that it writes, or waits for
}

// keepLearning looks at the list whenever it may have changed, and at least every second.
func (c *cluster) keepLearning(ctx context.Context) error {
	list, stop := c.opt.Coordinator.Watch(listRegister)
	defer stop()
	sessions, stop2 := c.opt.Coordinator.WatchMembers(memberGroup)
	defer stop2()
	failing, kind := false, hub.Kind(0)
	for {
		err := c.learn(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (!failing || hub.KindOf(err) != kind): // for another reason than before
			kind = hub.KindOf(err)
			c.n.log.Warn("this node cannot follow the list of members; what is known of it stays in force", "err", err)
		case err == nil && failing:
			c.n.log.Info("this node follows the list of members again")
		}
		failing = err != nil
		c.n.mu.Lock()
		c.current = !failing && !c.ill.gone
		c.n.mu.Unlock()
		if failing && !hub.Sleep(ctx, peerPause) { // what was done before it failed may wake this very watch: the session's word of an incarnation that the list does not take
			return nil
		}
		timer := time.NewTimer(learnEvery)
		select {
		case <-ctx.Done():
		case <-list:
		case <-sessions:
		case <-c.nudge:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// learn reads the list, makes it durable here, and moves it on as far as that is this node's to do.
func (c *cluster) learn(ctx context.Context) error {
	for range 20 { // others change it too
		again, err := c.learnOnce(ctx)
		if err != nil {
			return err
		}
		if !again {
			break
		}
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	c.warnOfEven()
	poke(c.work)
	poke(c.closing)
	c.moved()
	return nil
}

// warnOfEven says once that half of the nodes can be too few, when it has been so for a while: of three that are started together, two are there first. learning is held.
func (c *cluster) warnOfEven() {
	c.n.mu.Lock()
	nodes, even := len(c.rec.Disks), c.open && c.rec.Next == nil && c.rec.Forcible() == nil
	c.n.mu.Unlock()
	switch now := time.Now(); {
	case !even:
		c.evenSince, c.evenSaid = time.Time{}, false
	case c.evenSince.IsZero():
		c.evenSince = now
	case !c.evenSaid && now.Sub(c.evenSince) >= evenPatience:
		c.evenSaid = true
		c.n.log.Warn("the number of nodes is even and spoke.quorum=half: when half of them are gone, writes go on, and stable answers, callbacks and archiving wait until "+
			"one is back or an operator forces a closing (hub node close --force); spoke.quorum=majority, or one node more, would not", "nodes", nodes)
	}
}

func (c *cluster) learnOnce(ctx context.Context) (again bool, err error) {
	rec, version := roster.New(c.opt.Rule), uint64(0)
	b, v, err := c.opt.Coordinator.Get(ctx, listRegister)
	switch {
	case err == nil:
		if rec, err = roster.Parse(b); err != nil {
			return false, err
		}
		version = v
	case !hub.Is(err, hub.NotFound):
		return false, err
	}
	if c.older(rec) {
		return false, errors.New("the coordinator gave an older list than before")
	}
	// The sessions are read after the list, or a joiner that came in between would look as if it had died.
	if err := c.join(ctx, rec); err != nil {
		return false, err
	}
	c.meetClocks(ctx, rec)
	clock, err := c.adopt(ctx, rec)
	if err != nil {
		return false, err
	}
	next, err := c.steps(ctx, rec, clock)
	if err != nil || next == nil {
		return false, err
	}
	if b, err = next.Encode(); err != nil {
		return false, err
	}
	if err := c.announce(ctx, rec, *next); err != nil {
		return false, err
	}
	_, err = c.opt.Coordinator.Set(ctx, listRegister, b, version)
	switch {
	case err == nil && acks(*next, c.opt.Node) && !acks(rec, c.opt.Node):
		c.answered(*next, clock)
	case err != nil && !hub.Is(err, hub.Conflict):
		return false, err
	}
	return true, nil
}

func acks(rec roster.Roster, node string) bool {
	return rec.Next != nil && slices.ContainsFunc(rec.Next.Acked, func(a roster.Answer) bool { return a.Node == node })
}

// announce lets this node's session name an incarnation before the list does: otherwise it would look like one that its owner has left.
func (c *cluster) announce(ctx context.Context, rec, next roster.Roster) error {
	if rec.Next != nil || next.Next == nil || next.Next.Stream == nil {
		return nil
	}
	if i, ok := next.Find(*next.Next.Stream); !ok || i.Node != c.opt.Node {
		return nil
	}
	if !c.mayJoin() {
		return errors.New("this node is not to be one of the others now")
	}
	text, err := json.Marshal(member{Disk: c.n.Identity().ID, Stream: *next.Next.Stream})
	if err != nil {
		return err
	}
	return c.opt.Coordinator.Join(ctx, memberGroup, c.opt.Node, text)
}

// older reports whether a list is from before the one that is known.
func (c *cluster) older(rec roster.Roster) bool {
	epoch := rec.Epoch
	if rec.Next != nil {
		epoch = rec.Next.Epoch
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.known && (epoch < c.epoch() || rec.Dropped < c.rec.Dropped)
}

// join makes this node's session say what it writes by the list that was just read, and reads those of the others.
func (c *cluster) join(ctx context.Context, rec roster.Roster) error {
	list, _, err := c.opt.Coordinator.List(ctx, memberGroup)
	if err != nil {
		return err
	}
	c.n.mu.Lock()
	mine := member{Disk: c.n.identity.ID, Stream: c.ownIn(rec)}
	c.n.mu.Unlock()
	text, err := json.Marshal(mine)
	if err != nil {
		return err
	}
	sessions, present, err := c.sessionsOf(list, mine.Stream)
	if err != nil {
		return err
	}
	own := slices.IndexFunc(list, func(m coord.Member) bool { return m.Name == c.opt.Node })
	if c.mayJoin() && (own < 0 || string(list[own].Value) != string(text)) {
		err := c.opt.Coordinator.Join(ctx, memberGroup, c.opt.Node, text)
		if own >= 0 && hub.Is(err, hub.Conflict) && c.fromBefore(list[own].Value) {
			err = c.opt.Coordinator.Replace(ctx, memberGroup, c.opt.Node, list[own].Value, text)
		}
		if err != nil {
			return err
		}
	}
	c.n.mu.Lock()
	c.members, c.present = sessions, present
	c.n.mu.Unlock()
	return nil
}

// fromBefore reports whether a session is that of a process that had this disk before this one. It is dead, though its session lasts a little longer: a disk is
// open in one process at a time.
func (c *cluster) fromBefore(value []byte) bool {
	var m member
	if json.Unmarshal(value, &m) != nil {
		return false
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return m.Disk == c.n.identity.ID && m.Stream.Incarnation < c.n.identity.Incarnation
}

// sessionsOf reads who has a session, and which stream it names; for this node, that is what it will name.
func (c *cluster) sessionsOf(list []coord.Member, mine roster.Stream) (roster.Sessions, map[string]roster.Stream, error) {
	sessions, present := roster.Sessions{c.opt.Node: true}, map[string]roster.Stream{c.opt.Node: mine}
	for _, m := range list {
		var other member
		if m.Name == c.opt.Node {
			continue
		}
		if err := json.Unmarshal(m.Value, &other); err != nil {
			return nil, nil, fmt.Errorf("read the session of %s: %w", m.Name, err)
		}
		sessions[m.Name], present[m.Name] = true, other.Stream
	}
	return sessions, present, nil
}

// ownRecord is the incarnation that this process writes or waits for; zero if there is none on the list. Under mu.
func (c *cluster) ownRecord() roster.Stream { return c.ownIn(c.rec) }

func (c *cluster) ownIn(rec roster.Roster) roster.Stream {
	for _, i := range rec.Streams {
		if i.Disk == c.n.identity.ID && i.Incarnation == c.n.identity.Incarnation && i.Closed == nil {
			if s := c.streams[streamOf(i.Stream)]; s == nil || !s.refused {
				return i.Stream
			}
		}
	}
	return roster.Stream{}
}

// adopt takes in a list that was read: new streams, the epoch, the ends of streams. It is durable before it counts here. clock is where this node's clock
// stands then, and not before: a stream that begins above the answers to an announced change must not begin below the low that it was given here.
func (c *cluster) adopt(ctx context.Context, rec roster.Roster) (clock hub.Mark, err error) {
	n := c.n
	if clock, err = c.clock(ctx); err != nil {
		return 0, err
	}
	n.mu.Lock()
	old, err1 := c.rec.Encode()
	now, err2 := rec.Encode()
	same := c.known && string(old) == string(now)
	n.mu.Unlock()
	if err := errors.Join(err1, err2); err != nil || same {
		return clock, err
	}
	if err := c.comeAfter(ctx, rec); err != nil {
		return 0, err
	}
	if err := c.save(ctx, &rec, func() { c.install(rec) }); err != nil {
		return 0, err
	}
	return c.clock(ctx)
}

// install lets a list count here. Under mu.
func (c *cluster) install(rec roster.Roster) {
	h, _ := c.horizon()
	for id, s := range c.streams {
		if _, ok := rec.Find(recordOf(id)); !ok { // its change was withdrawn before it could mint anything, or nobody needs it any more
			if s.in != nil {
				_ = s.in.conn.Close()
			}
			delete(c.streams, id)
		}
	}
	for _, i := range rec.Streams {
		id := streamOf(i.Stream)
		if c.streams[id] != nil {
			continue
		}
		s := &peerStream{}
		if c.known { // it mints above the clocks of those who answered; what is shown here came from them
			if s.low = min(h, c.n.minter.Last()); s.low < h {
				c.waiting.again()
			}
		}
		c.streams[id] = s
	}
	c.rec, c.known = rec, true
	poke(c.listed)
	for _, node := range listed(rec) { // until its clock is known, the own one may be set without being noticed
		if _, known := c.clocks[node]; !known && node != c.opt.Node {
			poke(c.meet)
		}
	}
	c.decide()
}

// answered: the record has this node's answer to a change, with its clock. The incarnation that comes with it mints above.
func (c *cluster) answered(rec roster.Roster, clock hub.Mark) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if rec.Next == nil || rec.Next.Stream == nil {
		return
	}
	if s := c.streams[streamOf(*rec.Next.Stream)]; s != nil && !s.complete {
		s.low = max(s.low, clock)
	}
}

// clock moves the clock to now and returns it.
func (c *cluster) clock(ctx context.Context) (hub.Mark, error) {
	n := c.n
	for {
		n.mu.Lock()
		next := n.minter.Peek()
		if n.stands() {
			m := n.minter.Last()
			n.mu.Unlock()
			return m, nil
		}
		if next < n.limit {
			m := n.minter.Now()
			n.ahead(m)
			n.mu.Unlock()
			return m, nil
		}
		n.mu.Unlock()
		if err := n.raise(ctx, next); err != nil {
			return 0, clockStuck(err)
		}
	}
}

// steps is the list as this node would have it; nil if there is nothing to do.
func (c *cluster) steps(ctx context.Context, rec roster.Roster, clock hub.Mark) (*roster.Roster, error) {
	n := c.n
	n.mu.Lock()
	h, _ := c.horizon()
	own := c.ownRecord()
	done := true
	for _, s := range c.streams {
		done = done && s.complete
	}
	me := roster.Me{
		Node: c.opt.Node, Disk: n.identity.ID, Clock: clock, Horizon: h, Done: done, Writing: c.open || own != roster.Stream{}, Epoch: rec.Epoch,
	}
	sessions := c.members
	owes := rec.Next != nil && rec.Next.Stream == nil && slices.Contains(rec.Leaving, c.opt.Node) && !c.handedOver(rec.Next.Disks)
	n.mu.Unlock()
	if rec.Next != nil {
		me.Epoch = rec.Next.Epoch
	}
	next, changed := rec, false
	for _, step := range []func(roster.Roster) (roster.Roster, bool){
		func(r roster.Roster) (roster.Roster, bool) {
			if owes {
				return r, false
			}
			return r.Answer(me)
		},
		func(r roster.Roster) (roster.Roster, bool) { return r.Catch(me) },
		func(r roster.Roster) (roster.Roster, bool) { return r.Advance(sessions) },
		func(r roster.Roster) (roster.Roster, bool) { return r.Withdraw(sessions) },
	} {
		var did bool
		next, did = step(next)
		changed = changed || did
	}
	n.mu.Lock()
	stands := n.stands()
	n.mu.Unlock()
	if !changed && next.Next == nil && !rec.Left(c.opt.Node) && !stands && c.reached(ctx, rec) { // with a wrong clock it would only be in the way
		var err error
		if next, changed, err = c.propose(next, me); err != nil {
			return nil, err
		}
	}
	if !changed {
		return nil, nil
	}
	return &next, nil
}

// propose asks for the next change, with an incarnation that was never used.
func (c *cluster) propose(rec roster.Roster, me roster.Me) (roster.Roster, bool, error) {
	n := c.n
	b, err := rec.Encode()
	if err != nil {
		return rec, false, err
	}
	c.sized(len(b), len(rec.Streams))
	next, ok := rec.Propose(me, n.identity.Incarnation)
	if me.Writing || ok && next.Next.Stream == nil { // nothing to begin, or the removal of a node
		return next, ok, nil
	}
	if !c.calm(rec, len(b)) {
		return rec, false, nil
	}
	if ok {
		return next, ok, nil
	}
	if !rec.Used(me.Disk, n.identity.Incarnation) {
		return rec, false, nil
	}
	id, err := begin(n.opt.Disk) // the one before was refused: it is over
	if err != nil {
		return rec, false, err
	}
	n.mu.Lock()
	n.identity = id
	n.mu.Unlock()
	next, ok = rec.Propose(me, id.Incarnation)
	return next, ok, nil
}

// begin opens the incarnation that this node waited for, once its change is decided. c.learning is held.
func (c *cluster) begin(ctx context.Context) error {
	n := c.n
	n.mu.Lock()
	own := c.ownRecord()
	i, listed := c.rec.Find(own)
	wait := c.rec.Next != nil && c.rec.Next.Stream != nil && *c.rec.Next.Stream == own && !c.rec.Next.Decided
	ready := listed && !c.open && !wait
	rec := c.rec
	if rec.Next != nil {
		rec.Disks = rec.Next.Disks
	}
	n.mu.Unlock()
	if !ready {
		return nil
	}
	if err := n.raise(ctx, i.Above+1); err != nil {
		return clockStuck(err)
	}
	n.mu.Lock()
	n.minter.Raise(i.Above)
	n.minter.SetOrdinal(i.Ordinal)
	n.stream = streamOf(own)
	c.pos, c.ownPos, c.quorum, c.acked, c.open, c.own = 0, 0, 0, map[string]uint64{}, true, c.streams[n.stream]
	c.own.low = max(c.own.low, i.Above)
	fresh := c.fresh
	if fresh {
		c.fresh, c.floor = false, n.minter.Last()
	}
	n.mu.Unlock()
	n.log.Info("this node writes", "stream", own, "epoch", c.rec.Epoch)
	if rec.Rule != c.opt.Rule {
		n.log.Warn("spoke.quorum is not what this cluster began with; that counts on all nodes", "here", c.opt.Rule, "cluster", rec.Rule)
	}
	if fresh {
		return c.save(ctx, nil, nil)
	}
	return nil
}

// stop ends the own incarnation: what is not decided stays undecided until it is settled. Under mu; the writers are answered by the caller.
func (c *cluster) stop(s spokelog.Stream) (waiting []*request) {
	n := c.n
	if !c.open || s != n.stream {
		return nil
	}
	c.own.low = max(c.own.low, n.lowOfFlight())
	c.open, c.own, c.idle = false, nil, time.Now()
	n.flight.each(func(r *request) bool {
		waiting = append(waiting, r)
		return true
	})
	n.flight, n.unnamed = flight{}, nil
	for t := range c.tails {
		close(t.stopped)
	}
	clear(c.tails)
	for _, w := range c.waiters {
		w.done <- errGivenUp
	}
	c.waiters = nil
	return waiting
}
