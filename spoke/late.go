package spoke

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"timehub/hub"
	"timehub/hub/web"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

const (
	latePath  = "/internal/spoke/late"
	lateBatch = 1 << 20 // bytes of records that are flagged at once
	latePages = 64      // read from one member before the others have their turn

	bulkDigits = 6 // at the end of a key, the number of a part of a bulk
)

// latePage is a piece of a member's list of late items.
type latePage struct {
	Disk  string     `json:"disk"`
	Items []LateItem `json:"items"`
	Next  int64      `json:"next"`
}

// finishForced takes over the end of a stream that was closed by fewer members than would know everything (ENGINE §4). Whatever is here and not in the set stays,
// since it may have been acknowledged; what of the set is new here although answers have passed it is taken in. Both are late: named, kept until long-term
// storage has each of them, and copied by the others.
func (c *cluster) finishForced(ctx context.Context, i roster.Incarnation, end ending, low hub.Mark) error {
	s := streamOf(i.Stream)
	h, err := c.holds(ctx, s, spokelog.From{Above: max(end.Base, 1), Lenient: true})
	if err != nil {
		return err
	}
	given, inSet := map[named]bool{}, map[named]bool{}
	for _, k := range h.Given {
		given[k] = true
	}
	var late []LateItem
	name := func(k named, why string) {
		late = append(late, LateItem{Channel: k.Channel, Key: k.Key, Stream: i.Stream.String(), Why: why, Node: c.opt.Node, Found: c.n.opt.Clock().UTC()})
	}
	for _, k := range end.Keys {
		inSet[k] = true
		key, err := hub.ParseKey(k.Key)
		if err != nil {
			return err
		}
		if _, err := c.n.store.Get(ctx, k.Channel, key); err == nil {
			continue
		}
		switch m, _ := hub.MarkOf(key); {
		case given[k]:
			name(k, LateGivenUp)
		case m <= end.Base && !c.tells(k.Channel, key): // it was replicated
		case m <= low:
			name(k, LatePassed)
		}
	}
	keys := end.Keys
	for _, k := range slices.Concat(h.Keys, h.Sent) {
		if !inSet[k] && !given[k] {
			name(k, LateOutside)
			keys = append(keys[:len(keys):len(keys)], k)
		}
	}
	slices.SortFunc(late, func(a, b LateItem) int { return compareNamed(a.named(), b.named()) }) // a bulk is not torn apart by the pages of the list
	if err := c.nameLate(late); err != nil {
		return err
	}
	return c.flagLate(ctx, s, keys, source{})
}

func (i LateItem) named() named { return named{i.Channel, i.Key} }

// bulkOf is what the keys of all parts of a bulk begin with: six characters of their hashes, before six digits.
func bulkOf(k named) (bulk named, ok bool) {
	at := len(k.Key) - bulkDigits
	if at <= strings.LastIndexByte(k.Key, '/')+1 {
		return named{}, false
	}
	return named{k.Channel, k.Key[:at]}, true
}

// together reports whether two keys are parts of one bulk, which shows as a whole.
func together(a, b named) bool {
	x, ok := bulkOf(a)
	y, _ := bulkOf(b)
	return ok && x == y
}

// nameLate puts items on the list.
func (c *cluster) nameLate(items []LateItem) error {
	fresh, err := c.late.add(items)
	if err != nil || len(fresh) == 0 {
		return err
	}
	c.meters.late.Add(int64(len(fresh)))
	why := map[string]int{}
	for _, i := range fresh {
		why[i.Why]++
	}
	c.n.log.Error("items are late because a closing was forced: answers of the nodes may have differed in them; `hub node late` names them", "items", len(fresh),
		LateOutside, why[LateOutside], LatePassed, why[LatePassed], LateGivenUp, why[LateGivenUp], "first", fresh[0].Key, "channel", fresh[0].Channel)
	return nil
}

// flagLate makes sure that records are here with the flag by which they are not evicted before long-term storage has each of them, wherever the archiver is. What
// is not here is fetched, from a member if one is named; there, what has gone to long-term storage since is left out.
func (c *cluster) flagLate(ctx context.Context, s spokelog.Stream, keys []named, from source) error {
	var batch []spokelog.Record
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := c.store(ctx, batch); err != nil {
			return err
		}
		batch, size = nil, 0
		return nil
	}
	keys = slices.SortedFunc(slices.Values(keys), compareNamed)
	for i, k := range keys {
		if size >= lateBatch && !together(keys[i-1], k) { // horizons may have passed them: what is stored shows
			if err := flush(); err != nil {
				return err
			}
		}
		key, err := hub.ParseKey(k.Key)
		if err != nil {
			return err
		}
		flags, err := c.n.store.Flags(ctx, k.Channel, key)
		if err != nil {
			return err
		}
		if flags&spokelog.Late != 0 {
			continue
		}
		data, err := c.lateData(ctx, k, key, from)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		batch = append(batch, spokelog.Record{Channel: k.Channel, Key: key, Stream: s, Flags: spokelog.Late | spokelog.Taken, Data: data})
		size += len(data) + 64
	}
	return flush()
}

// lateData reads a record here, or at the others; nil: it cannot be had any more.
func (c *cluster) lateData(ctx context.Context, k named, key hub.Key, from source) (data []byte, elsewhere error) {
	mine, err := c.n.store.Held(ctx, k.Channel, key)
	if err == nil {
		return mine.Data, nil
	}
	if from.node != "" {
		data, elsewhere = c.askItem(ctx, from, k)
	} else {
		data, elsewhere = c.fetch(ctx, k, nil, map[string]bool{})
	}
	switch {
	case elsewhere == nil:
		return data, nil
	case from.node != "" && hub.Is(elsewhere, hub.NotFound):
		return nil, nil
	case c.sweptElsewhere(ctx, k, key):
		return nil, nil
	case errors.Is(err, spokelog.ErrDamaged):
		c.n.log.Error("a late item is damaged on this disk, and nobody who answers has it", "channel", k.Channel, "key", k.Key)
		return nil, nil
	}
	return nil, elsewhere
}

// sweptElsewhere reports whether a record of a forced set has gone to long-term storage: a half of the disks had it then, more than the other half lack it now, and
// none lets go of it before.
func (c *cluster) sweptElsewhere(ctx context.Context, k named, key hub.Key) bool {
	if !key.Less(c.n.store.Floor()) {
		return false
	}
	c.n.mu.Lock()
	disks := c.rec.Disks
	half := c.rec.Rule.Write(len(disks))
	c.n.mu.Unlock()
	lacking := 1
	for _, d := range disks {
		if d.Node == c.opt.Node {
			continue
		}
		if _, err := c.askItem(ctx, source{d.Node, d.ID}, k); hub.Is(err, hub.NotFound) {
			lacking++
		}
	}
	return lacking > half
}

// copyLate takes over what the others have found to be late.
func (c *cluster) copyLate(ctx context.Context) {
	type list struct {
		source
		from int64
	}
	var todo []list
	c.n.mu.Lock()
	for node, r := range c.notes {
		if r.late > c.lateSeen[r.disk] {
			todo = append(todo, list{source{node, r.disk}, c.lateSeen[r.disk]})
		}
	}
	c.n.mu.Unlock()
	for _, t := range todo {
		if err := c.copyLateFrom(ctx, t.node, t.disk, t.from); err != nil && ctx.Err() == nil {
			c.n.log.Warn("late items of another node could not be copied; trying again", "peer", t.node, "err", err)
		}
	}
}

func (c *cluster) copyLateFrom(ctx context.Context, node, disk string, from int64) error {
	for range latePages {
		var p latePage
		if err := c.ask(ctx, http.MethodGet, node, latePath, url.Values{"from": {strconv.FormatInt(from, 10)}}, nil, &p); err != nil {
			return err
		}
		if p.Disk != disk || p.Next <= from {
			return nil
		}
		if err := c.nameLate(p.Items); err != nil {
			return err
		}
		for i := 0; i < len(p.Items); {
			var keys []named
			first := p.Items[i].Stream
			for ; i < len(p.Items) && p.Items[i].Stream == first; i++ {
				keys = append(keys, p.Items[i].named())
			}
			s, err := roster.ParseStream(first)
			if err != nil {
				return err
			}
			if err := c.flagLate(ctx, streamOf(s), keys, source{node, disk}); err != nil {
				return err
			}
		}
		from = p.Next
		c.n.mu.Lock()
		if c.lateSeen == nil {
			c.lateSeen = map[string]int64{}
		}
		c.lateSeen[disk] = from
		c.n.mu.Unlock()
		if err := c.save(ctx, nil, nil); err != nil {
			return err
		}
	}
	poke(c.work)
	return nil
}

func (c *cluster) serveLate(w http.ResponseWriter, r *http.Request) error {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		return hub.E(hub.Invalid, "from must be a number")
	}
	p := latePage{Disk: c.n.Identity().ID}
	if p.Items, p.Next, err = c.late.page(from, 0); err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, p)
}

// handedOver reports whether this disk owes nobody on the coming list a late item. Under mu.
func (c *cluster) handedOver(next []roster.Disk) bool {
	for _, i := range c.rec.Streams {
		if s := c.streams[streamOf(i.Stream)]; i.Closed != nil && i.Closed.Forced && s != nil && !s.complete {
			return false
		}
	}
	size, _ := c.late.state()
	for _, d := range next {
		if c.members[d.Node] && c.lateTaken[d.Node] < size {
			return false
		}
	}
	return true
}

// mayRemove is asked before a segment of the log goes. A member that was away while a closing was forced may have records that were never archived although the
// archiver has passed them; they are flagged when the closing is finished here. The cursors were read before: if no forced closing is open here now, none was then.
func (c *cluster) mayRemove(ctx context.Context) error {
	b, _, err := c.opt.Coordinator.Get(ctx, listRegister)
	if err != nil {
		return err
	}
	rec, err := roster.Parse(b)
	if err != nil {
		return err
	}
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for _, i := range rec.Streams {
		if s := c.streams[streamOf(i.Stream)]; i.Closed != nil && i.Closed.Forced && (s == nil || !s.settled) {
			return hub.E(hub.Unavailable, "the incarnation %s was closed by force, and that is not finished here", i.Stream)
		}
	}
	return nil
}

// Late lists late items as this disk knows them, in the order in which it learned of them, from a position on: 0, or next of the call before. next is 0 at the
// end. A limit of 0 is 1,000. On a hub that is alone there are none.
func (n *Node) Late(from int64, limit int) (items []LateItem, count int, next int64, err error) {
	if n.cluster == nil {
		return nil, 0, 0, nil
	}
	if limit <= 0 {
		limit = 1000
	}
	size, count := n.cluster.late.state()
	items, next, err = n.cluster.late.page(from, limit)
	if next >= size || next <= from {
		next = 0
	}
	return items, count, next, err
}
