package spoke

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/spoke/roster"
)

// peerTime is how long another node may take to answer a reader or an operator.
const peerTime = 2 * time.Second

// View is the cluster as one node sees it, for operators.
type View struct {
	Node     string       `json:"node"` // that answers
	Epoch    uint64       `json:"epoch"`
	Quorum   roster.Rule  `json:"quorum"`
	Changing string       `json:"changing,omitempty"` // "announced" or "decided": a change of the list on its way
	Horizon  hub.Key      `json:"-"`                  // of the node that answers
	Caught   bool         `json:"caught"`             // it gives stable answers
	Disks    []DiskView   `json:"disks"`              // of the list in force and of the one on its way, by ordinal
	Open     []StreamView `json:"open"`               // incarnations that are not closed
	Left     []string     `json:"left"`               // nodes that were decommissioned and must not start before Return
}

// DiskView is one disk on the list.
type DiskView struct {
	roster.Disk
	Joining bool   `json:"joining,omitempty"` // on the list that is on its way only
	Leaving bool   `json:"leaving,omitempty"`
	Session bool   `json:"session"`         // its node has a session with the coordinator
	Answers bool   `json:"answers"`         // its node answers, with this disk
	Whole   bool   `json:"whole"`           // it gives stable answers, and holds every closed incarnation
	Skew    int64  `json:"skew"`            // of its clock against the asked one, in ms, as far as a question shows it
	Lag     int64  `json:"lag"`             // ms from the clock of the asked node back to the horizon of the disk
	Late    int    `json:"late"`            // items that it knows to be late: see Node.Late
	Epoch   uint64 `json:"epoch"`           // that it knows
	Error   string `json:"error,omitempty"` // why it does not answer
}

// StreamView is an incarnation that is open.
type StreamView struct {
	roster.Stream
	Node string   `json:"node"`
	Low  hub.Mark `json:"low"` // as applied on the asked node
	Lag  int64    `json:"lag"` // ms from its clock back to that
}

// Members asks every node on the list how it stands; those that do not answer within 2 s are shown as silent. On a single hub it is NotFound.
func (n *Node) Members(ctx context.Context) (View, error) {
	c := n.cluster
	if c == nil {
		return View{}, hub.E(hub.NotFound, "this hub is alone: there is no cluster")
	}
	return c.view(ctx), nil
}

func (c *cluster) view(ctx context.Context) View {
	n := c.n
	n.mu.Lock()
	rec, sessions, wall := c.rec, c.members, n.minter.Wall()
	v := View{Node: c.opt.Node, Epoch: rec.Epoch, Quorum: rec.Rule, Left: []string{}, Disks: []DiskView{}, Open: []StreamView{}}
	h, ok := c.horizon()
	v.Horizon, v.Caught = h.Key(), ok
	for _, i := range rec.Streams {
		s := c.streams[streamOf(i.Stream)]
		if i.Closed != nil || s == nil {
			continue
		}
		low := s.low
		if c.open && streamOf(i.Stream) == n.stream {
			low = n.lowOfFlight()
		}
		v.Open = append(v.Open, StreamView{Stream: i.Stream, Node: i.Node, Low: low, Lag: wall - low.Millis()})
	}
	n.mu.Unlock()
	for _, d := range rec.Disks {
		v.Disks = append(v.Disks, DiskView{Disk: d})
	}
	if rec.Next != nil {
		v.Changing = "announced"
		if rec.Next.Decided {
			v.Changing = "decided"
		}
		for _, d := range rec.Next.Disks {
			if !slices.ContainsFunc(rec.Disks, func(x roster.Disk) bool { return x.ID == d.ID }) {
				v.Disks = append(v.Disks, DiskView{Disk: d, Joining: true})
			}
		}
	}
	for _, node := range rec.Leaving {
		if rec.Left(node) {
			v.Left = append(v.Left, node)
		}
	}
	slices.Sort(v.Left)
	var wg sync.WaitGroup
	for i := range v.Disks {
		d := &v.Disks[i]
		d.Session, d.Leaving = sessions[d.Node], slices.Contains(rec.Leaving, d.Node)
		wg.Go(func() { c.look(ctx, d, wall) })
	}
	wg.Wait()
	slices.SortFunc(v.Disks, func(a, b DiskView) int { return int(a.Ordinal) - int(b.Ordinal) })
	return v
}

// look asks a node about its disk.
func (c *cluster) look(ctx context.Context, d *DiskView, wall int64) {
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	began := time.Now()
	state, err := c.stateOf(ctx, d.Node)
	switch {
	case err != nil:
		d.Error = "it does not answer"
		if hub.KindOf(err) != hub.Internal && !errors.Is(err, context.DeadlineExceeded) {
			d.Error = err.Error()
		}
	case state.Disk != d.ID:
		d.Error = "it runs on another disk now"
	default:
		d.Answers, d.Whole, d.Epoch, d.Late = true, state.Whole, state.Epoch, state.Late
		d.Skew = state.Clock - wall - time.Since(began).Milliseconds()/2
		d.Lag = wall - state.Horizon.Millis()
	}
}

// stateOf is askState for any node of the list, this one included.
func (c *cluster) stateOf(ctx context.Context, node string) (peerState, error) {
	if node == c.opt.Node {
		return c.state(), nil
	}
	return c.askState(ctx, node)
}

// Leave begins the decommissioning of a node (host:port; "" is this one): its incarnations are closed, then it is taken off the list; until then it
// answers readers. It is a Conflict while something else is being changed, or when those who stay do not hold enough (ENGINE §4). A node that has left
// does not join again before Return, even if it is started anew.
func (n *Node) Leave(ctx context.Context, node string) error {
	c := n.cluster
	if c == nil {
		return hub.E(hub.Conflict, "this hub is alone: it cannot leave")
	}
	if node == "" {
		node = c.opt.Node
	}
	whole := 0
	for _, d := range c.view(ctx).Disks {
		if d.Node != node && d.Whole && !d.Joining {
			whole++
		}
	}
	return c.change(ctx, func(r roster.Roster) (roster.Roster, error) { return r.Leave(node, whole) })
}

// Return lets a node that was decommissioned join again. Conflict: it has not left yet. NotFound: it was never decommissioned.
func (n *Node) Return(ctx context.Context, node string) error {
	c := n.cluster
	if c == nil {
		return hub.E(hub.NotFound, "this hub is alone: nobody was decommissioned")
	}
	return c.change(ctx, func(r roster.Roster) (roster.Roster, error) {
		if !slices.Contains(r.Leaving, node) {
			return r, hub.E(hub.NotFound, "%s was not decommissioned", node)
		}
		return r.Return(node)
	})
}

// CloseOpen closes what a node (host:port), or an incarnation (ordinal.number), has left open, at once and not when somebody comes to it; it returns when
// that is on record. Conflict: its owner lives and has a session, or nothing of it is open. Unavailable: too few members answer.
//
// With an even number of nodes and Half, force closes it with n−W members (ENGINE §4) when no more answer; otherwise it is a Conflict. What a member has
// then that comes later, and what it goes on to acknowledge if it lives and is only cut off, is late: see Late.
func (n *Node) CloseOpen(ctx context.Context, what string, force bool) error {
	c := n.cluster
	if c == nil {
		return hub.E(hub.Conflict, "this hub is alone: nothing of others is open")
	}
	if force {
		n.mu.Lock()
		err := c.rec.Forcible()
		n.mu.Unlock()
		if err != nil {
			return err
		}
	}
	found := false
	for _, s := range c.closable() {
		n.mu.Lock()
		i, _ := c.rec.Find(s)
		n.mu.Unlock()
		if s.String() != what && !strings.EqualFold(i.Node, what) {
			continue
		}
		found = true
		if err := c.settle(ctx, s, force); err != nil {
			return hub.E(hub.Unavailable, "the incarnation %s cannot be closed now: %v", s, err).Because(err)
		}
	}
	if !found {
		return hub.E(hub.Conflict, "nothing of %s is open that may be closed: a node that has a session writes on", what)
	}
	return nil
}

// change changes the list on record by compare-and-set, and takes in the result.
func (c *cluster) change(ctx context.Context, how func(roster.Roster) (roster.Roster, error)) error {
	for {
		b, version, err := c.opt.Coordinator.Get(ctx, listRegister)
		if err != nil {
			return unavailable(err)
		}
		rec, err := roster.Parse(b)
		if err != nil {
			return err
		}
		next, err := how(rec)
		if err != nil {
			return err
		}
		if b, err = next.Encode(); err != nil {
			return err
		}
		_, err = c.opt.Coordinator.Set(ctx, listRegister, b, version)
		if hub.Is(err, hub.Conflict) {
			continue
		}
		if err != nil {
			return unavailable(err)
		}
		poke(c.nudge)
		return nil
	}
}
