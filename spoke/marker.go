package spoke

import (
	"slices"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// A marker says up to which key a replicated channel is complete (ENGINE §7). It travels in the stream of whoever writes it, behind the items that the same
// stream has brought; what another stream brought before may still be on its way to this disk. So a marker counts at once only if it goes on from one of the same stream that
// counts already. The first one of a stream is held back until the horizon has passed every clock at which something can have been written before it came: twice the guard
// above the clock here. The horizon only gets there when all that other streams have brought until then is here.
//
// A marker tells by its flags what it is:
//
//	Complete|Replicated  it goes on: its writer knows of no newer one than its own last one
//	Complete             its writer has seen one of another stream, or has written none in this incarnation
//	Complete|Late        the first one of a channel: what comes at or below it is late, and all the rest is minted here
const (
	goesOn   = spokelog.Complete | spokelog.Replicated
	beginsAt = spokelog.Complete
	founds   = spokelog.Complete | spokelog.Late
)

// marked is how far a channel is complete on this disk. Guarded by Node.mu.
type marked struct {
	counted hub.Key         // as it is told
	unsure  bool            // nothing stable is said of the channel before the horizon is at since
	since   hub.Mark        // 0: not known, as the clock here is wrong
	writer  spokelog.Stream // whose marker counted last
	held    []heldMarker

	own   spokelog.Stream // the incarnation that wrote the marker ownAt here, and knows that it is stored
	ownAt hub.Key
}

// heldMarker waits until the horizon has passed a mark.
type heldMarker struct {
	stream spokelog.Stream
	upTo   hub.Key
	until  hub.Mark // 0: not known
}

// loadMarkers takes over what was stored before this start. It may have been told, and is not taken back; but what it relies on may not be here yet: nothing stable is said of
// these channels before the horizon has passed twice the guard above the clock as it stood. Nobody else runs yet.
func (c *cluster) loadMarkers() {
	c.marked, c.heldBack = map[string]*marked{}, map[string]*marked{}
	for channel, upTo := range c.n.store.Markers() {
		m := &marked{counted: upTo, unsure: true, since: c.n.minter.Last() + c.guards()}
		c.marked[channel], c.heldBack[channel] = m, m
	}
}

func (c *cluster) guards() hub.Mark { return hub.MarkAt(2 * c.n.opt.ClockGuard.Milliseconds()) }

// fence lies above everything that any node can have minted, or written in its stream, until now; 0 while nobody can tell. Under mu.
func (c *cluster) fence() hub.Mark {
	if c.n.stands() {
		return 0
	}
	return max(c.n.minter.Peek(), c.n.minter.Last()) + c.guards()
}

// takeMarker notes a marker that is stored. inOrder: it came behind everything that its stream had brought before. Under mu.
func (c *cluster) takeMarker(r *spokelog.Record, inOrder bool) {
	m := c.marked[r.Channel]
	if m == nil {
		c.firstMarker(r, inOrder)
		return
	}
	i := slices.IndexFunc(m.held, func(h heldMarker) bool { return h.stream == r.Stream })
	follows := inOrder && r.Flags&goesOn == goesOn
	switch {
	case !m.counted.Less(r.Key):
		return
	case follows && m.writer == r.Stream && i < 0:
		m.counted = r.Key
		c.waiting.tell(r.Channel)
		return
	case m.unsure:
		m.counted, m.writer, m.since, m.held = r.Key, r.Stream, c.fence(), nil
		return
	case i < 0:
		m.held = append(m.held, heldMarker{r.Stream, r.Key, c.fence()})
	default:
		if !follows {
			m.held[i].until = c.fence()
		}
		if m.held[i].upTo.Less(r.Key) {
			m.held[i].upTo = r.Key
		}
	}
	c.heldBack[r.Channel] = m
}

// firstMarker takes the first marker of a channel that this disk hears of. If it is the first one of all, nothing that was replicated counts below it: up to it the channel shows what it would
// without, as the horizon says. Otherwise nobody can tell what is missing here before the horizon has passed. Under mu.
func (c *cluster) firstMarker(r *spokelog.Record, inOrder bool) {
	m := &marked{counted: r.Key, writer: r.Stream}
	c.marked[r.Channel] = m
	c.waiting.tell(r.Channel)
	mark, ok := hub.MarkOf(r.Key)
	h, whole := c.lowest()
	switch {
	case !inOrder || !whole || r.Flags&founds != founds:
		m.unsure, m.since = true, c.fence()
	case ok && mark > h:
		m.counted, m.held = h.Key(), []heldMarker{{r.Stream, r.Key, mark}}
	}
	if m.unsure || len(m.held) > 0 {
		c.heldBack[r.Channel] = m
	}
}

// letCount lets those markers count that the horizon h has passed; moved tells that there is more to be said now. Under mu.
func (c *cluster) letCount(m *marked, h hub.Mark) (moved bool) {
	if m.unsure && m.since > 0 && m.since <= h {
		m.unsure, moved = false, true
	}
	m.held = slices.DeleteFunc(m.held, func(held heldMarker) bool {
		if held.until == 0 || held.until > h {
			return false
		}
		if m.counted.Less(held.upTo) {
			m.counted, m.writer, moved = held.upTo, held.stream, true
		}
		return true
	})
	if m.unsure && m.since == 0 {
		m.since = c.fence()
	}
	for i := range m.held {
		if m.held[i].until == 0 {
			m.held[i].until = c.fence()
		}
	}
	return moved
}

// settleMarkers returns the channels of which there is more to be said now that the horizon is at h. Under mu.
func (c *cluster) settleMarkers(h hub.Mark) (channels []string) {
	for channel, m := range c.heldBack {
		if c.letCount(m, h) {
			channels = append(channels, channel)
		}
		if len(m.held) == 0 && !m.unsure {
			delete(c.heldBack, channel)
		}
	}
	return channels
}

// completeTo is Node.Complete among others; raw is the highest marker in the log. sure is false as long as nothing stable can be said of the channel.
func (c *cluster) completeTo(channel string, raw hub.Key) (upTo hub.Key, sure bool) {
	c.n.mu.Lock()
	m := c.marked[channel]
	if m == nil { // in a part of the log that could not be read at first
		m = &marked{counted: raw, unsure: true, since: c.fence()}
		c.marked[channel], c.heldBack[channel] = m, m
	}
	moved := false
	if len(m.held) > 0 || m.unsure {
		h, ok := c.horizon()
		moved = ok && c.letCount(m, h)
	}
	upTo, sure = m.counted, !m.unsure
	c.n.mu.Unlock()
	if moved {
		c.n.board.notify(channel)
	}
	return upTo, sure
}

// markerFlags says what the next marker of a channel is, if raw is the highest one in the log.
func (c *cluster) markerFlags(channel string, raw hub.Key, known bool) spokelog.Flags {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	m := c.marked[channel]
	switch {
	case !known:
		return founds
	case m != nil && m.own == c.n.stream && m.ownAt == raw:
		return goesOn
	}
	return beginsAt
}

// wroteMarker notes a marker of the own stream that is stored.
func (c *cluster) wroteMarker(channel string, upTo hub.Key) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if m := c.marked[channel]; m != nil {
		m.own, m.ownAt = c.n.stream, upTo
	}
}

// tells reports whether a key of a replicated channel lies below what this node has told of it.
func (c *cluster) tells(channel string, key hub.Key) bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	m := c.marked[channel]
	return m != nil && !m.unsure && !m.counted.Less(key)
}

// forgetMarkers forgets channels of which the log knows nothing any more.
func (c *cluster) forgetMarkers() {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for channel, m := range c.marked {
		if _, ok := c.n.store.Complete(channel); !ok && len(m.held) == 0 {
			delete(c.marked, channel)
		}
	}
}
