package spoke

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"timehub/hub"
	"timehub/hub/web"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

const (
	refusePath  = "/internal/spoke/refuse"
	heldPath    = "/internal/spoke/held"
	setPath     = "/internal/spoke/set"
	itemPath    = "/internal/spoke/item"
	statePath   = "/internal/spoke/state"
	recordsPath = "/internal/spoke/records"
	maxAnswer   = 1 << 30
)

// peerState is what a node tells of its disk.
type peerState struct {
	Node  string              `json:"node"`
	Disk  string              `json:"disk"`
	Epoch uint64              `json:"epoch"`
	Lows  map[string]hub.Mark `json:"lows"` // by stream
	// The wall clock in ms; the horizon as applied; and whether stable answers are given and every closed incarnation is complete.
	Clock   int64    `json:"clock"`
	Horizon hub.Mark `json:"horizon"`
	Whole   bool     `json:"whole"`
	// Floor is that of its log.
	Floor frame.Floor `json:"floor"`
	Late  int         `json:"late"` // items that are known to be late
}

// refusal answers the one who closes a stream.
type refusal struct {
	Disk string   `json:"disk"`
	Low  hub.Mark `json:"low"`
}

// storeOrder asks to store a set.
type storeOrder struct {
	Stream roster.Stream       `json:"stream"`
	Base   hub.Mark            `json:"base"`
	Keys   []named             `json:"keys"`
	Sent   []named             `json:"sent"` // what was replicated: it is not on record
	Have   map[string][]string `json:"have"` // nodes that hold a record, by channel/key
}

// Add puts the doors for the other nodes into a router. They are for nodes of the same cluster only: whoever mounts them keeps others out.
func (n *Node) Add(rt *web.Router) {
	c := n.cluster
	if c == nil {
		return
	}
	rt.Handle(http.MethodGet, streamPath, c.serveStream)
	rt.Handle(http.MethodPost, refusePath, func(w http.ResponseWriter, r *http.Request) error {
		s, err := streamIn(r)
		if err != nil {
			return err
		}
		low, err := c.answerRefusal(r.Context(), s)
		if err != nil {
			return err
		}
		return web.JSON(w, http.StatusOK, refusal{n.Identity().ID, low})
	})
	rt.Handle(http.MethodGet, heldPath, func(w http.ResponseWriter, r *http.Request) error {
		s, err := streamIn(r)
		if err != nil {
			return err
		}
		above, err := markIn(r)
		if err != nil {
			return err
		}
		if _, err := c.answerRefusal(r.Context(), s); err != nil {
			return err
		}
		h, err := c.holds(r.Context(), s, spokelog.From{Above: max(above, 1)})
		if err != nil {
			return err
		}
		return web.JSON(w, http.StatusOK, h)
	})
	rt.Handle(http.MethodPost, setPath, c.serveSet)
	rt.Handle(http.MethodGet, itemPath, c.onDisk(c.serveItem))
	rt.Handle(http.MethodGet, statePath, func(w http.ResponseWriter, r *http.Request) error { return web.JSON(w, http.StatusOK, c.state()) })
	rt.Handle(http.MethodGet, reachPath, c.serveReach)
	rt.Handle(http.MethodGet, recordsPath, c.onDisk(c.serveRecords))
	rt.Handle(http.MethodGet, readPath, c.serveRead)
	rt.Handle(http.MethodGet, keysPath, c.serveKeys)
	rt.Handle(http.MethodGet, clockPath, c.serveClock)
	rt.Handle(http.MethodGet, latePath, c.serveLate)
	rt.Handle(http.MethodGet, minutePath, c.serveMinute)
	rt.Handle(http.MethodPost, minutePath, c.serveMinute)
	rt.Handle(http.MethodGet, spentPath, c.serveSpent)
	rt.Handle(http.MethodPost, unknownPath, c.onDisk(c.serveUnknown))
}

// source is a node with the disk that it had when it said what it has. When it has lost that disk, and runs on an empty one, what it then has not got means nothing.
type source struct{ node, disk string }

func (of source) query(q url.Values) url.Values {
	q.Set("disk", of.disk)
	return q
}

// onDisk answers only who asks this disk.
func (c *cluster) onDisk(h web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		own := c.n.Identity().ID
		if disk := r.URL.Query().Get("disk"); disk != "" && disk != own { // older programs do not say
			return hub.E(hub.Conflict, "this node runs on disk %s now, not on %s", own, disk)
		}
		return h(w, r)
	}
}

func streamIn(r *http.Request) (spokelog.Stream, error) {
	q := r.URL.Query()
	ordinal, err1 := strconv.ParseUint(q.Get("ordinal"), 10, 16)
	incarnation, err2 := strconv.ParseUint(q.Get("incarnation"), 10, 32)
	if errors.Join(err1, err2) != nil {
		return spokelog.Stream{}, hub.E(hub.Invalid, "ordinal and incarnation must be numbers")
	}
	return spokelog.Stream{Ordinal: uint16(ordinal), Incarnation: uint32(incarnation)}, nil
}

func markIn(r *http.Request) (hub.Mark, error) {
	m, err := strconv.ParseInt(r.URL.Query().Get("above"), 10, 64)
	if err != nil {
		return 0, hub.E(hub.Invalid, "above must be a number")
	}
	return hub.Mark(m), nil
}

func streamQuery(s roster.Stream) url.Values {
	return url.Values{"ordinal": {strconv.Itoa(int(s.Ordinal))}, "incarnation": {strconv.FormatUint(uint64(s.Incarnation), 10)}}
}

// state is what this disk has applied.
func (c *cluster) state() peerState {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	p := peerState{Node: c.opt.Node, Disk: n.identity.ID, Epoch: c.epoch(), Lows: map[string]hub.Mark{}, Clock: n.minter.Wall()}
	p.Horizon, p.Whole = c.horizon()
	p.Floor = floorOf(n.store.Floor())
	_, p.Late = c.late.state()
	for id, s := range c.streams {
		low := s.low
		if i, ok := c.rec.Find(recordOf(id)); ok && i.Closed != nil && !s.complete {
			p.Whole = false
		}
		switch {
		case c.open && id == n.stream:
			low = c.loggedLow()
		case s.complete:
			if i, ok := c.rec.Find(recordOf(id)); ok && i.Closed != nil {
				low = max(low, i.Closed.Base)
			}
		}
		p.Lows[recordOf(id).String()] = low
	}
	return p
}

// loggedLow is the low of the own stream that the log has: whoever copies the stream up to it from here, and later resumes there, has missed nothing. The low
// of this moment would not do: what was enqueued before it need not be in the log yet, and a stream that resumes there leaves it out. Under mu.
func (c *cluster) loggedLow() hub.Mark {
	for _, low := range c.n.store.Lows() {
		if low.Stream == c.n.stream {
			return low.Mark
		}
	}
	return 0
}

// serveSet stores the set of a stream that is being closed: 409 while something below its base is missing, and once it is closed.
func (c *cluster) serveSet(w http.ResponseWriter, r *http.Request) error {
	var o storeOrder
	if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(&o); err != nil {
		return hub.E(hub.Invalid, "the order cannot be read: %v", err)
	}
	low, err := c.takeSet(r.Context(), o)
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, refusal{c.n.Identity().ID, low})
}

// serveItem gives one record's bytes, if this disk has them, also of a key that was given up here: who asks has a set that says otherwise.
func (c *cluster) serveItem(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	key, err := hub.ParseKey(q.Get("key"))
	if err != nil {
		return err
	}
	rec, err := c.n.store.Held(r.Context(), q.Get("channel"), key)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err = w.Write(rec.Data)
	return err
}

// serveRecords sends what this disk has of a stream above a mark, as frames; an empty one ends it.
func (c *cluster) serveRecords(w http.ResponseWriter, r *http.Request) error {
	s, err := streamIn(r)
	if err != nil {
		return err
	}
	above, err := markIn(r)
	if err != nil {
		return err
	}
	c.n.mu.Lock()
	err = c.vouches(s)
	c.n.mu.Unlock()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	send := func(records []spokelog.Record) error {
		_, err := w.Write(frame.Append(nil, &frame.Frame{Again: true, Records: records}))
		return err
	}
	sendWhole := func(records []spokelog.Record) error {
		torn := c.torn(s) // as a bulk was read before
		records = slices.DeleteFunc(records, func(r spokelog.Record) bool {
			return r.Flags&spokelog.GivenUp == 0 && torn(named{r.Channel, r.Key.String()})
		})
		if len(records) == 0 {
			return nil
		}
		return send(records)
	}
	from := spokelog.From{Above: max(above, 1), Floor: func(k hub.Key) { // if it does not get through, the rest does not either
		_, _ = w.Write(frame.AppendJSON(nil, frame.KindFloor, floorOf(k)))
	}}
	if err := inPieces(c.n.store.Stream(r.Context(), s, from), sendWhole); err != nil {
		return err
	}
	return send(nil)
}

// ask calls another node. into gets the JSON of the answer, unless it is nil.
func (c *cluster) ask(ctx context.Context, method, node, path string, q url.Values, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := c.call(ctx, method, node, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into)
}

func (c *cluster) call(ctx context.Context, method, node, path string, q url.Values, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+node+path+"?"+q.Encode(), r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		return nil, hub.E(web.KindOf(resp.StatusCode), "%s answers %s: %s", node, resp.Status, text)
	}
	return resp, nil
}

func (c *cluster) askRefuse(ctx context.Context, node string, s roster.Stream) (hub.Mark, string, error) {
	if node == c.opt.Node {
		low, err := c.answerRefusal(ctx, streamOf(s))
		return low, c.n.Identity().ID, err
	}
	var a refusal
	err := c.ask(ctx, http.MethodPost, node, refusePath, streamQuery(s), nil, &a)
	return a.Low, a.Disk, err
}

func (c *cluster) askHeld(ctx context.Context, node string, s roster.Stream, above hub.Mark) (held, error) {
	if node == c.opt.Node {
		return c.holds(ctx, streamOf(s), spokelog.From{Above: max(above, 1)})
	}
	q := streamQuery(s)
	q.Set("above", strconv.FormatInt(int64(above), 10))
	var h held
	err := c.ask(ctx, http.MethodGet, node, heldPath, q, nil, &h)
	return h, err
}

// askStore lets a node store the set of a stream that is being closed, and what was replicated.
func (c *cluster) askStore(ctx context.Context, node string, l *leader) error {
	o := storeOrder{Stream: l.s, Base: l.base, Keys: l.set, Have: map[string][]string{}}
	for k, nodes := range l.have {
		o.Have[k.Channel+"/"+k.Key] = nodes
	}
	for k, nodes := range l.sentBy {
		if len(nodes) < len(l.answers) { // not all who answered have it
			o.Sent = append(o.Sent, k)
			o.Have[k.Channel+"/"+k.Key] = nodes
		}
	}
	if node == c.opt.Node {
		_, err := c.takeSet(ctx, o)
		return err
	}
	resp, err := c.call(ctx, http.MethodPost, node, setPath, nil, o)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *cluster) askState(ctx context.Context, node string) (peerState, error) {
	var p peerState
	err := c.ask(ctx, http.MethodGet, node, statePath, nil, nil, &p)
	return p, err
}

// fetch gets a record's bytes from one of the nodes, or from any. Those that turn out to be silent are noted, and not asked again: each question to a machine
// that is gone takes seconds.
func (c *cluster) fetch(ctx context.Context, k named, nodes []string, silent map[string]bool) ([]byte, error) {
	if len(nodes) == 0 {
		nodes = c.nodes()
	}
	var wrong error
	for _, node := range nodes {
		if node == c.opt.Node {
			continue
		}
		if silent[node] {
			wrong = errors.Join(wrong, fmt.Errorf("%s does not answer", node))
			continue
		}
		data, err := c.askItem(ctx, source{node: node}, k)
		if err == nil {
			return data, nil
		}
		silent[node] = hub.KindOf(err) == hub.Internal // no answer at all
		wrong = errors.Join(wrong, err)
	}
	return nil, fmt.Errorf("fetch %s of channel %s: %w", k.Key, k.Channel, errors.Join(wrong, errors.New("nobody who answers has it")))
}

func (c *cluster) askItem(ctx context.Context, of source, k named) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := c.call(ctx, http.MethodGet, of.node, itemPath, of.query(url.Values{"channel": {k.Channel}, "key": {k.Key}}), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// askRecords reads what another disk has of a stream above a mark, and takes in its floor first; upTo is how far it has the stream.
func (c *cluster) askRecords(ctx context.Context, of source, s spokelog.Stream, above, upTo hub.Mark, take func([]spokelog.Record) error) error {
	q := streamQuery(recordOf(s))
	q.Set("above", strconv.FormatInt(int64(above), 10))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(callTime, cancel) // it may take long as long as something comes
	defer quiet.Stop()
	resp, err := c.call(ctx, http.MethodGet, of.node, recordsPath, of.query(q), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	br := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		k, payload, err := frame.Read(br, frame.MaxFrame)
		if err != nil {
			return err
		}
		quiet.Stop() // what is done with it may take its time
		switch k {
		case frame.KindFrame:
		case frame.KindFloor:
			var f frame.Floor
			if err := frame.ParseJSON(payload, &f); err != nil {
				return err
			}
			if err := c.raised(ctx, of, s, keyOf(f), above, upTo); err != nil {
				return err
			}
			quiet.Reset(callTime)
			continue
		default:
			return frame.ErrInvalid
		}
		f, err := frame.Parse(payload)
		if err != nil || len(f.Records) == 0 {
			return err
		}
		if err := take(f.Records); err != nil {
			return err
		}
		quiet.Reset(callTime)
	}
}
