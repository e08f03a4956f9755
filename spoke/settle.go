package spoke

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// named is a record as a settlement knows it.
type named struct {
	Channel string `json:"channel"`
	Key     string `json:"key"`
}

// held is what a disk has of a stream above a mark: answered only by one that refuses the stream, so that it cannot become more.
type held struct {
	Node  string      `json:"node"`
	Disk  string      `json:"disk"`
	Low   hub.Mark    `json:"low"`
	Keys  []named     `json:"keys"`
	Given []named     `json:"given"` // names of keys that were given up
	Sent  []named     `json:"sent"`  // what came with keys of its own, about then or later: it is never given up
	Done  bool        `json:"done"`  // the stream is complete there
	Floor frame.Floor `json:"floor"` // of its log, when Keys were read
}

const (
	settlePause  = 200 * time.Millisecond
	refuseTime   = 2 * time.Second
	sentTime     = time.Millisecond // for a member to look for a replicated item, and to fetch it
	convergeTime = 3 * time.Second  // for those who answered to come up to the highest low among them
)

// leader is one attempt to close a stream.
type leader struct {
	c       *cluster
	s       roster.Stream
	forced  bool            // it may be closed by force
	answers map[string]held // by node
	base    hub.Mark
	floor   hub.Key // the highest of theirs
	set     []named
	have    map[named][]string // nodes that hold a record
	sentBy  map[named][]string // nodes that hold what was replicated: whoever stores the set has all of it
	state   roster.Settlement
}

// nodes are those of both lists.
func (c *cluster) nodes() (list []string) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return listed(c.rec)
}

func listed(rec roster.Roster) (list []string) {
	for _, d := range rec.Disks {
		list = append(list, d.Node)
	}
	if rec.Next != nil {
		for _, d := range rec.Next.Disks {
			if !slices.Contains(list, d.Node) {
				list = append(list, d.Node)
			}
		}
	}
	return list
}

// gather lets everybody refuse the stream, until enough have and stand at one low, or time is up; then it knows base and set.
func (l *leader) gather(ctx context.Context) error {
	c := l.c
	for began := time.Now(); ; {
		l.askAll(ctx)
		l.state = l.refused()
		top := l.span()
		c.n.mu.Lock()
		enough := c.rec.Enough(l.state)
		if l.forced && !enough && time.Since(began) > convergeTime {
			l.state.Forced = true
			enough = c.rec.Enough(l.state)
		}
		c.n.mu.Unlock()
		if enough && (l.base == top || time.Since(began) > convergeTime) {
			break
		}
		if !enough && time.Since(began) > convergeTime {
			return l.tooFew()
		}
		if !hub.Sleep(ctx, settlePause) {
			return context.Cause(ctx)
		}
	}
	return l.collect(ctx)
}

// tooFew says which disks of the list are missing, and what can be done about each.
func (l *leader) tooFew() error {
	c := l.c
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	disks := slices.Clone(c.rec.Disks)
	if c.rec.Next != nil && c.rec.Next.Decided {
		for _, d := range c.rec.Next.Disks {
			if !slices.ContainsFunc(disks, func(x roster.Disk) bool { return x.ID == d.ID }) {
				disks = append(disks, d)
			}
		}
	}
	var missing []string
	here, gone := 0, 0
	for _, d := range disks {
		switch a, ok := l.answers[d.Node]; {
		case ok && a.Disk == d.ID:
			here++
		case ok:
			gone++
			missing = append(missing, fmt.Sprintf("disk %s of %s is gone, that node runs on disk %s", d.ID, d.Node, a.Disk))
		default:
			missing = append(missing, fmt.Sprintf("%s with disk %s does not answer", d.Node, d.ID))
		}
	}
	todo := "start the nodes that do not answer"
	if gone > 0 {
		todo += ", and bring back the data directories that are gone: too many are, and what only they had cannot be known (docs/operations.md, \"Disks that are gone\")"
	}
	if c.rec.Forcible() == nil {
		todo += "; or `hub node close --force`, if they are dead"
	}
	return fmt.Errorf("%d of the %d disks on the list can be asked, which is too few: %s; %s", here, len(disks), strings.Join(missing, "; "), todo)
}

// refused is what is known of who refuses the stream.
func (l *leader) refused() roster.Settlement {
	s := roster.Settlement{Stream: l.s, Refused: map[string]bool{}, Wrote: map[string]bool{}}
	for _, a := range l.answers {
		s.Refused[a.Disk] = true
	}
	return s
}

// askAll asks every member at the same time to refuse the stream. Once enough have, it waits for nobody who is slow or silent.
func (l *leader) askAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, refuseTime)
	defer cancel()
	var mu sync.Mutex // guards l.answers
	var wg sync.WaitGroup
	for _, node := range l.c.nodes() {
		wg.Go(func() {
			low, disk, err := l.c.askRefuse(ctx, node, l.s)
			if err != nil {
				l.c.n.log.Debug("a member does not answer the one who closes an incarnation", "peer", node, "stream", l.s, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			l.answers[node] = held{Node: node, Disk: disk, Low: low}
			state := l.refused()
			l.c.n.mu.Lock()
			enough := l.c.rec.Enough(state)
			l.c.n.mu.Unlock()
			if enough {
				time.AfterFunc(settlePause, cancel)
			}
		})
	}
	wg.Wait()
}

// span finds the base, and returns the highest low.
func (l *leader) span() (top hub.Mark) {
	first := true
	for _, a := range l.answers {
		if first || a.Low < l.base {
			l.base = a.Low
		}
		top, first = max(top, a.Low), false
	}
	return top
}

// collect learns what those who answered hold above the base. One who cannot tell, because its disk is damaged or it is gone again, counts as silent: the rest goes on if it is
// enough.
func (l *leader) collect(ctx context.Context) error {
	for {
		node, err := l.ask(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		l.c.n.log.Warn("a member refuses an incarnation and cannot tell what it holds of it", "peer", node, "stream", l.s, "err", err)
		delete(l.answers, node)
		forced := l.state.Forced
		l.state = l.refused()
		l.state.Forced = forced
		l.c.n.mu.Lock()
		enough := l.c.rec.Enough(l.state)
		l.c.n.mu.Unlock()
		if !enough {
			return err
		}
		l.span()
	}
}

// ask is one round of questions; with an error comes the node that cannot tell.
func (l *leader) ask(ctx context.Context) (string, error) {
	l.have, l.sentBy, l.floor = map[named][]string{}, map[named][]string{}, hub.Key{}
	given := map[named]bool{}
	for node, a := range l.answers {
		h, err := l.c.askHeld(ctx, node, l.s, l.base)
		if err == nil && h.Disk != a.Disk {
			err = fmt.Errorf("disk %s refused it, and that node runs on disk %s now", a.Disk, h.Disk)
		}
		if err != nil {
			return node, err
		}
		if f := keyOf(h.Floor); l.floor.Less(f) {
			l.floor = f
		}
		for _, k := range h.Keys {
			l.have[k] = append(l.have[k], node)
		}
		for _, k := range h.Sent {
			l.sentBy[k] = append(l.sentBy[k], node)
		}
		for _, k := range h.Given {
			given[k] = true
		}
	}
	l.set = nil
	for k := range l.have {
		if !given[k] {
			l.set = append(l.set, k)
		}
	}
	slices.SortFunc(l.set, compareNamed)
	return "", nil
}

func compareNamed(a, b named) int {
	switch {
	case a.Key != b.Key:
		if a.Key < b.Key {
			return -1
		}
		return 1
	case a.Channel < b.Channel:
		return -1
	case a.Channel > b.Channel:
		return 1
	}
	return 0
}

// write lets everybody who has what is below the base store the set. Once enough have, it waits for nobody who is slow.
func (l *leader) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime+time.Duration(len(l.sentBy))*sentTime)
	defer cancel()
	var mu sync.Mutex // guards l.state.Wrote and wrong
	var wrong error
	var wg sync.WaitGroup
	for _, node := range l.c.nodes() {
		wg.Go(func() {
			err := l.c.askStore(ctx, node, l)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				wrong = errors.Join(wrong, err)
				return
			}
			l.state.Wrote[node] = true
			l.c.n.mu.Lock()
			_, enough := l.c.rec.Close(l.state, roster.Closing{})
			l.c.n.mu.Unlock()
			if enough {
				time.AfterFunc(settlePause, cancel)
			}
		})
	}
	wg.Wait()
	if len(l.state.Wrote) == 0 {
		return wrong
	}
	return nil
}

// record puts base and set on record: the first leader wins.
func (l *leader) record(ctx context.Context) error {
	c := l.c
	end := ending{Base: l.base, Keys: l.set}
	if len(l.sentBy) > 0 {
		for node := range l.state.Wrote {
			if disk := l.answers[node].Disk; disk != "" {
				end.Holders = append(end.Holders, disk)
			}
		}
		slices.Sort(end.Holders)
	}
	if l.base < hub.MarkAt(l.floor.Millis()+1) {
		f := floorOf(l.floor)
		end.Floor = &f
	}
	text, err := c.putEnding(ctx, l.s, end)
	if err != nil {
		return err
	}
	for {
		b, version, err := c.opt.Coordinator.Get(ctx, listRegister)
		if err != nil {
			return err
		}
		rec, err := roster.Parse(b)
		if err != nil {
			return err
		}
		bare := len(l.set) == 0 && len(end.Holders) == 0 && end.Floor == nil && rec.Dropped > 0 // older programs look for a register, and do not read such a list
		next, ok := rec.Close(l.state, roster.Closing{Base: l.base, Count: len(l.set), Digest: digestOf(l.set), Bare: bare})
		if !ok {
			c.dropPieces(ctx, l.s, text)
			if i, listed := rec.Find(l.s); !listed || i.Closed != nil {
				poke(c.nudge)
				return nil
			}
			return errors.New("too few members hold the set")
		}
		if b, err = next.Encode(); err != nil {
			return err
		}
		changes := []coord.Change{{Name: listRegister, Value: b, Version: version}, {Name: closedPrefix + l.s.String(), Value: text, Any: true}}
		if bare {
			changes = changes[:1]
		}
		_, err = c.opt.Coordinator.Update(ctx, changes)
		if hub.Is(err, hub.Conflict) {
			continue
		}
		if err == nil && l.state.Forced {
			c.n.log.Error("an incarnation is closed by force: what members have who did not answer will be late", "stream", l.s, "base", l.base.Key(), "set", len(l.set),
				"answered", slices.Sorted(maps.Keys(l.answers)))
		} else if err == nil {
			c.n.log.Info("an incarnation is closed", "stream", l.s, "base", l.base.Key(), "set", len(l.set))
		}
		if err == nil {
			poke(c.nudge)
		}
		return err
	}
}

func digestOf(keys []named) (sum uint64) {
	for _, k := range keys {
		if key, err := hub.ParseKey(k.Key); err == nil {
			sum += key.Digest()
		}
	}
	return sum
}

// refuse makes durable that nothing of a stream is taken any more, and returns the low of it. The own incarnation ends by it.
func (c *cluster) refuse(ctx context.Context, s spokelog.Stream) (hub.Mark, error) {
	n := c.n
	n.mu.Lock()
	st := c.streams[s]
	if st == nil {
		n.mu.Unlock()
		return 0, hub.E(hub.Unavailable, "the stream %d.%d is not known here yet", s.Ordinal, s.Incarnation)
	}
	st.refused = true
	waiting := c.stop(s)
	if st.in != nil {
		_ = st.in.conn.Close()
	}
	n.mu.Unlock()
	for _, r := range waiting {
		r.answer(errGivenUp)
	}
	for { // what was enqueued before
		n.mu.Lock()
		done := st.outstanding == 0
		n.mu.Unlock()
		if done {
			break
		}
		if !hub.Sleep(ctx, time.Millisecond) {
			return 0, context.Cause(ctx)
		}
	}
	n.mu.Lock()
	promised := st.promised && st.kept >= st.low
	n.mu.Unlock()
	if !promised {
		if err := c.save(ctx, nil, nil); err != nil {
			return 0, err
		}
		poke(c.nudge)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return st.low, nil
}

// holds lists what this disk has of a refused stream above a mark. Replicated items have no place in the order of marks: of them, what was written about then or later.
func (c *cluster) holds(ctx context.Context, s spokelog.Stream, from spokelog.From) (held, error) {
	h := held{Node: c.opt.Node, Disk: c.n.Identity().ID}
	seen, given, sent := map[named]bool{}, map[named]bool{}, map[named]bool{}
	c.n.mu.Lock()
	if i, ok := c.rec.Find(recordOf(s)); ok { // it minted nothing below: a disk that has applied no low of it need not look through its whole log
		from.Above = max(from.Above, i.Above)
	}
	c.n.mu.Unlock()
	from.Lost = func(channel string, key hub.Key) { seen[named{channel, key.String()}] = true }
	for r, err := range c.n.store.Stream(ctx, s, from) {
		if err != nil {
			return h, err
		}
		k := named{r.Channel, r.Key.String()}
		switch m, _ := hub.MarkOf(r.Key); {
		case r.Flags&spokelog.Complete != 0: // whoever goes on with the channel writes one again
			continue
		case r.Flags&spokelog.Replicated != 0:
			sent[k] = true
			continue
		case m <= from.Above:
			continue
		}
		if r.Flags&spokelog.GivenUp != 0 {
			given[k] = true
		} else {
			seen[k] = true
		}
	}
	if !from.Lenient { // what is outside of the set is given up as a whole
		torn := c.torn(s)
		maps.DeleteFunc(seen, func(k named, _ bool) bool { return torn(k) })
	}
	h.Floor = floorOf(c.n.store.Floor()) // what the visit did not see any more lies below it
	for k := range seen {
		h.Keys = append(h.Keys, k)
	}
	for k := range given {
		h.Given = append(h.Given, k)
	}
	for k := range sent {
		h.Sent = append(h.Sent, k)
	}
	c.n.mu.Lock()
	if st := c.streams[s]; st != nil {
		h.Low, h.Done = st.low, st.complete
	}
	c.n.mu.Unlock()
	return h, nil
}
