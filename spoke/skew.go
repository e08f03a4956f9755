package spoke

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/web"
	"timehub/spoke/roster"
)

const (
	clockPath  = "/internal/spoke/clock"
	clockEvery = time.Second
)

// reading is the clock of another member, as it was seen last.
type reading struct {
	millis int64
	at     time.Time // when, by the monotonic clock
}

// noted is what a member said last of its disk and of the list of late items there.
type noted struct {
	disk    string
	late    int64
	horizon hub.Mark // as applied
}

func (r reading) now() int64 { return r.millis + time.Since(r.at).Milliseconds() }

// clockAnswer is what a member says of its clock.
type clockAnswer struct {
	Clock   int64    `json:"clock"`
	Disk    string   `json:"disk"`
	Late    int64    `json:"late"`    // how long the list of late items is there
	Horizon hub.Mark `json:"horizon"` // of which everything that was decided is there
}

// askClocks asks nodes for their clocks. Once enough says so, if it is not nil, it does not wait long for the rest.
func (c *cluster) askClocks(ctx context.Context, nodes []string, enough func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, node := range nodes {
		if node != c.opt.Node {
			wg.Go(func() {
				c.readClock(ctx, node)
				if enough != nil && enough() {
					time.AfterFunc(settlePause, cancel)
				}
			})
		}
	}
	wg.Wait()
}

// meetClocks asks for the clocks of a list that was read, before anything of it counts, unless so many are known that this node is not alone with its own:
// one that starts with a wrong clock would move its position there, and nobody could write until the time has come.
func (c *cluster) meetClocks(ctx context.Context, rec roster.Roster) {
	c.n.mu.Lock()
	sure := c.sureOfClock
	c.n.mu.Unlock()
	if sure {
		return
	}
	enough := func() bool {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		return c.enoughClocks(rec)
	}
	c.askClocks(ctx, listed(rec), enough)
	known := enough()
	c.n.mu.Lock()
	c.sureOfClock = ctx.Err() == nil && known
	c.n.mu.Unlock()
}

// enoughClocks reports whether the clocks of so many members are known, of both lists, as are needed to write anything anyhow. The own one counts for a list that this node is
// on: to one who joins or comes back it says nothing. Under mu.
func (c *cluster) enoughClocks(rec roster.Roster) bool {
	lists := [][]roster.Disk{rec.Disks}
	if rec.Next != nil {
		lists = append(lists, rec.Next.Disks)
	}
	for _, list := range lists {
		known := 0
		for _, d := range list {
			if _, heard := c.clocks[d.Node]; heard || d.Node == c.opt.Node {
				known++
			}
		}
		if len(list) > 0 && known < rec.Rule.Write(len(list)) {
			return false
		}
	}
	return true
}

// standing says why clock, bound and low stand still; nil: they do not (ENGINE §4). Under mu.
func (c *cluster) standing() error {
	if !c.sureOfClock {
		return tryAgain("this node does not know yet whether its clock is right")
	}
	if off, out := c.astray(); out {
		return astrayError(off)
	}
	return nil
}

// keepClocks asks the others for their clocks, every second and when somebody is new. An answer that took more than half the guard tells too little.
func (c *cluster) keepClocks(ctx context.Context) error {
	for {
		c.askClocks(ctx, c.nodes(), nil)
		c.n.mu.Lock()
		now := listed(c.rec)
		for node := range c.clocks {
			if c.known && !slices.Contains(now, node) {
				delete(c.clocks, node)
			}
		}
		for node := range c.notes {
			if c.known && !slices.Contains(now, node) {
				delete(c.notes, node)
			}
		}
		off, astray := c.astray()
		said := c.strayed
		c.strayed = astray
		c.n.mu.Unlock()
		switch {
		case astray && !said:
			c.n.log.Error("the clock of this machine is out of the guard: nothing is written here, and all horizons wait, until it is set right", "ms", off)
		case said && !astray:
			c.n.log.Info("the clock of this machine is right again")
		}
		timer := time.NewTimer(clockEvery)
		select {
		case <-ctx.Done():
		case <-c.meet:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (c *cluster) readClock(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	began := time.Now()
	c.n.mu.Lock()
	disk := c.notes[node].disk
	q := url.Values{"node": {c.opt.Node}, "disk": {disk}, "late": {strconv.FormatInt(c.lateSeen[disk], 10)}}
	c.n.mu.Unlock()
	var a clockAnswer
	err := c.ask(ctx, http.MethodGet, node, clockPath, q, nil, &a)
	took := time.Since(began)
	if err != nil {
		return
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.notes == nil {
		c.notes = map[string]noted{}
	}
	c.notes[node] = noted{a.Disk, a.Late, a.Horizon}
	if a.Late > c.lateSeen[a.Disk] {
		poke(c.work)
	}
	if took > c.n.opt.ClockGuard/2 {
		return
	}
	if c.clocks == nil {
		c.clocks = map[string]reading{}
	}
	c.clocks[node] = reading{a.Clock + took.Milliseconds()/2, time.Now()}
}

// serveClock tells the clock, and how many late items are known here. The one who asks tells how far it has copied those.
func (c *cluster) serveClock(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	taken, err := strconv.ParseInt(q.Get("late"), 10, 64)
	size, _ := c.late.state()
	c.n.mu.Lock()
	h, _ := c.horizon()
	a := clockAnswer{c.n.minter.Wall(), c.n.identity.ID, size, h}
	if err == nil && q.Get("disk") == a.Disk {
		if c.lateTaken == nil {
			c.lateTaken = map[string]int64{}
		}
		c.lateTaken[q.Get("node")] = taken
	}
	c.n.mu.Unlock()
	return web.JSON(w, http.StatusOK, a)
}

// nameSpread reports whether the horizons of all members were beyond a key when they were heard of last: then each that has its record has its name as well. Of one that is
// silent since the start, nothing is known.
func (c *cluster) nameSpread(key hub.Key) bool {
	m, _ := hub.MarkOf(key)
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	disks := c.rec.Disks
	if c.rec.Next != nil {
		disks = slices.Concat(disks, c.rec.Next.Disks)
	}
	for _, d := range disks {
		at := noted{disk: c.n.identity.ID}
		if d.ID == at.disk {
			at.horizon, _ = c.horizon()
		} else {
			at = c.notes[d.Node]
		}
		if at.disk != d.ID || at.horizon < m {
			return false
		}
	}
	return c.known
}

// median is the middle of the clocks of all members, silent ones as last seen, this one included. Under mu.
func (c *cluster) median() int64 {
	if len(c.clocks) == 0 {
		return c.n.minter.Wall()
	}
	var room [9]int64
	all := append(room[:0], c.n.minter.Wall())
	for _, r := range c.clocks {
		all = append(all, r.now())
	}
	slices.Sort(all)
	m := len(all) / 2
	if len(all)%2 == 1 {
		return all[m]
	}
	return all[m-1] + (all[m]-all[m-1])/2
}

// astray reports whether the clock of this machine is further from the median than the guard allows, and by how many ms it is off. Then clock, bound and
// low stand still (ENGINE §4). Under mu.
func (c *cluster) astray() (off int64, out bool) {
	off = c.n.minter.Wall() - c.median()
	guard := c.n.opt.ClockGuard.Milliseconds()
	return off, off > guard || off < -guard
}

// wall is the time by the clocks, of all members if there are several. Under mu.
func (n *Node) wall() int64 {
	if n.cluster == nil {
		return n.minter.Wall()
	}
	return n.cluster.median()
}

// stands reports whether the clock must not be moved by the time of this machine. Under mu.
func (n *Node) stands() bool {
	return n.cluster != nil && n.cluster.standing() != nil
}

func astrayError(off int64) error {
	e := hub.E(hub.Unavailable, "the clock of this node is %d ms off those of the others, more than app.clock_guard allows: ask another node; its operator has to set it right", off)
	e.RetryAfter = time.Second
	return e
}
