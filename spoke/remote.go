package spoke

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/web"
	"timehub/spoke/frame"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

const (
	readPath    = "/internal/spoke/read"
	keysPath    = "/internal/spoke/keys"
	diskHeader  = "Hub-Disk"
	floorHeader = "Hub-Floor"
	// damageHeader: the disk has the record, and cannot read it.
	damageHeader = "Hub-Damaged"
	sureTime     = peerTime / 4
	epochWaits   = time.Second // for the list, when somebody knows a newer one
)

// census is who has answered a question.
type census struct {
	disks map[string]bool
	epoch uint64        // the highest that any of them knows
	list  roster.Roster // as it was here when the first was asked
	// damaged are disks that have what was asked for, and cannot read it: they do not count.
	damaged map[string]bool
}

func (c *cluster) newCensus() census {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return census{disks: map[string]bool{}, list: c.rec, damaged: map[string]bool{}}
}

func (s *census) add(disk string, epoch uint64) {
	s.disks[disk] = true
	s.epoch = max(s.epoch, epoch)
}

// whole reports whether those who have answered meet every committed record (ENGINE §4: R of each list in force), and everybody who may have decided another
// list meanwhile: max(W, R) of each, none of whom knows an epoch that is not known here. newer says that one does. A question may take seconds: the list as it was before counts
// as well, since what is in force by now may have been brought to somebody after he had answered.
func (c *cluster) whole(s census) (ok, newer bool) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if s.epoch > c.epoch() {
		return false, true
	}
	before := s.list.Whole(s.disks) && s.list.Met(s.disks)
	return c.known && before && c.rec.Whole(s.disks) && c.rec.Met(s.disks), false
}

// catchUp waits until the list of an epoch is known here.
func (c *cluster) catchUp(ctx context.Context, epoch uint64) bool {
	for began := time.Now(); time.Since(began) < epochWaits; {
		c.n.mu.Lock()
		known := epoch <= c.epoch()
		c.n.mu.Unlock()
		if known {
			return true
		}
		poke(c.nudge)
		if !hub.Sleep(ctx, 5*time.Millisecond) {
			return false
		}
	}
	return false
}

// final reports whether this disk alone can tell what is stored under a minted key: all that was committed at or below the horizon is here.
func (c *cluster) final(key hub.Key) bool {
	c.n.mu.Lock()
	h, ok := c.horizon()
	c.n.mu.Unlock()
	return ok && !h.Key().Less(key)
}

// read gets an item that this disk has not, or not whole; own is what it said. Where too few others answer to be sure that there is none, that is
// Unavailable.
func (c *cluster) read(ctx context.Context, channel string, key hub.Key, own error) (hub.Sealed, error) {
	n := c.n
	missing, damaged := hub.Is(own, hub.NotFound), errors.Is(own, spokelog.ErrDamaged)
	_, replicated := n.store.Complete(channel)
	switch {
	case !missing && !damaged && !hub.Is(own, hub.Unavailable), missing && replicated && key.Less(n.store.Floor()):
		return hub.Sealed{}, own
	case missing && !replicated && c.final(key): // it may have come while we looked
		r, err := n.store.Get(ctx, channel, key)
		return hub.Sealed{Key: key, Data: r.Data}, err
	}
	return c.readOfAll(ctx, channel, key, own)
}

// ReadElsewhere implements channel.Elsewhere: what is replicated may be on its way to this node although it is older than anything that this node has
// promised to hold.
func (n *Node) ReadElsewhere(ctx context.Context, channel string, key hub.Key) (hub.Sealed, error) {
	r, err := n.store.Get(ctx, channel, key)
	if err == nil || n.cluster == nil {
		return hub.Sealed{Key: key, Data: r.Data}, err
	}
	return n.cluster.readOfAll(ctx, channel, key, err)
}

// readOfAll asks the others for an item; own is what this disk said.
func (c *cluster) readOfAll(ctx context.Context, channel string, key hub.Key, own error) (hub.Sealed, error) {
	missing, damaged := hub.Is(own, hub.NotFound), errors.Is(own, spokelog.ErrDamaged)
	for {
		r, found, asked := c.readElsewhere(ctx, channel, key, missing)
		if found {
			if damaged {
				c.repairItem(ctx, r)
			}
			return hub.Sealed{Key: key, Data: r.Data}, nil
		}
		whole, newer := c.whole(asked)
		switch {
		case newer && c.catchUp(ctx, asked.epoch):
			continue
		case ctx.Err() != nil:
			return hub.Sealed{}, ctx.Err()
		case missing && whole:
			return hub.Sealed{}, own
		case missing:
			return hub.Sealed{}, tryAgain("the item is not on this node, and too few others answer to be sure that there is none")
		case damaged:
			return hub.Sealed{}, hub.E(hub.Unavailable, "the item is damaged on this disk, and no other node that answers has it").Because(own)
		}
		return hub.Sealed{}, own
	}
}

// readElsewhere asks the others in random order until one has the record. missing: this disk counts as an answer. Once those who have answered are enough, only what is
// not committed can be found, and the rest is not waited for long.
func (c *cluster) readElsewhere(ctx context.Context, channel string, key hub.Key, missing bool) (r spokelog.Record, found bool, asked census) {
	asked = c.newCensus()
	if missing && c.counts() {
		asked.add(c.n.Identity().ID, 0)
	}
	nodes := c.nodes()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	for _, node := range nodes {
		if node == c.opt.Node {
			continue
		}
		limit := peerTime
		if whole, _ := c.whole(asked); whole && missing {
			limit = sureTime
		}
		r, err := c.askRead(ctx, node, channel, key, &asked, limit)
		if err == nil && r != nil {
			return *r, true, asked
		}
	}
	return spokelog.Record{}, false, asked
}

// repairItem writes a record that was damaged here to the own log again, as another disk has it.
func (c *cluster) repairItem(ctx context.Context, r spokelog.Record) {
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	if err := c.store(ctx, []spokelog.Record{r}); err != nil {
		c.n.log.Error("a damaged item could not be written again", "key", r.Key.String(), "channel", r.Channel, "err", err)
		return
	}
	c.n.log.Warn("a damaged item was written again as another node has it", "key", r.Key.String(), "channel", r.Channel)
}

// askRead asks one node for a record; nil: it has none. Whoever answers is counted.
func (c *cluster) askRead(ctx context.Context, node, channel string, key hub.Key, asked *census, limit time.Duration) (*spokelog.Record, error) {
	return c.askRecord(ctx, node, channel, key, false, asked, limit)
}

// askRecord is askRead; with hidden, a record of a key that was given up there is one, too.
func (c *cluster) askRecord(ctx context.Context, node, channel string, key hub.Key, hidden bool, asked *census, limit time.Duration) (*spokelog.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	q := url.Values{"channel": {channel}, "key": {keyText(key)}}
	if hidden {
		q.Set("hidden", "true")
	}
	resp, err := c.call(ctx, http.MethodGet, node, readPath, q, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	k, payload, err := frame.Read(bufio.NewReader(resp.Body), frame.MaxFrame)
	if err != nil {
		return nil, err
	}
	f, err := frame.Parse(payload)
	if err != nil || k != frame.KindFrame || len(f.Records) > 1 {
		return nil, errors.Join(frame.ErrInvalid, err)
	}
	if len(f.Records) == 1 {
		if r := &f.Records[0]; r.Key == key && r.Channel == channel {
			return r, nil
		}
		return nil, frame.ErrInvalid
	}
	if resp.Header.Get(damageHeader) != "" {
		asked.damaged[resp.Header.Get(diskHeader)] = true
		return nil, nil
	}
	asked.add(resp.Header.Get(diskHeader), f.Epoch)
	text, err := url.QueryUnescape(resp.Header.Get(floorHeader))
	if err != nil {
		return nil, err
	}
	if floor, err := parseKeyText(text); err == nil && key.Less(floor) && !hidden {
		c.hear(floor)
	}
	return nil, nil
}

// hear is told up to where another log was swept that was asked for more. What this disk has not caught up with is then in long-term storage, if it is anywhere: it
// counts as swept here, too.
func (c *cluster) hear(floor hub.Key) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if h, ok := c.horizon(); (!ok || h.Key().Less(floor)) && c.swept.Less(floor) {
		c.swept = floor
	}
}

// serveRead gives one record as a frame, or a frame without any if this disk has none.
func (c *cluster) serveRead(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	key, err := parseKeyText(q.Get("key"))
	if err != nil {
		return err
	}
	get := c.n.store.Get
	if q.Get("hidden") == "true" {
		get = c.n.store.Held
	}
	rec, err := get(r.Context(), q.Get("channel"), key)
	f := frame.Frame{}
	switch {
	case errors.Is(err, spokelog.ErrDamaged) && q.Get("hidden") == "true":
		w.Header().Set(damageHeader, "true")
	case err == nil:
		rec.Flags &^= spokelog.MoreFollows
		f.Records = []spokelog.Record{rec}
	case !hub.Is(err, hub.NotFound):
		return unavailable(err)
	case !c.counts():
		return errHole()
	}
	c.n.mu.Lock()
	f.Epoch = c.epoch()
	disk := c.n.identity.ID
	c.n.mu.Unlock()
	w.Header().Set(diskHeader, disk)
	w.Header().Set(floorHeader, url.QueryEscape(keyText(c.n.store.Floor())))
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err = w.Write(frame.Append(nil, &f))
	return err
}

// keysAnswer is what a disk has of a window.
type keysAnswer struct {
	Disk  string   `json:"disk"`
	Epoch uint64   `json:"epoch"`
	Keys  []string `json:"keys"`
	More  bool     `json:"more"`
	// Floor is that of the log once it had been looked at.
	Floor frame.Floor `json:"floor"`
}

// serveKeys lists the keys that this disk has in a window, whatever the horizon.
func (c *cluster) serveKeys(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	from, err1 := parseKeyText(q.Get("from"))
	to, err2 := parseKeyText(q.Get("to"))
	limit, err3 := strconv.Atoi(q.Get("limit"))
	if err := errors.Join(err1, err2, err3); err != nil || limit <= 0 {
		return hub.E(hub.Invalid, "a window of keys needs from, to and a limit above 0: %v", err)
	}
	keys, more, err := c.n.store.Keys(r.Context(), q.Get("channel"), from, to, limit, q.Get("reverse") == "true")
	if err != nil {
		return unavailable(err)
	}
	a := keysAnswer{Keys: make([]string, len(keys)), More: more, Floor: floorOf(c.n.store.Floor())}
	for i, k := range keys {
		a.Keys[i] = k.String()
	}
	c.n.mu.Lock()
	if a.Epoch = c.epoch(); c.noHole() { // what it has counts, that it has no more does not
		a.Disk = c.n.identity.ID
	}
	c.n.mu.Unlock()
	return web.JSON(w, http.StatusOK, a)
}

func (c *cluster) askKeys(ctx context.Context, node string, q hub.Query) (a keysAnswer, keys []hub.Key, err error) {
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	err = c.ask(ctx, http.MethodGet, node, keysPath, url.Values{
		"channel": {q.Channel}, "from": {keyText(q.From)}, "to": {keyText(q.To)},
		"limit": {strconv.Itoa(q.Limit)}, "reverse": {strconv.FormatBool(q.Reverse)},
	}, nil, &a)
	if err != nil {
		return a, nil, err
	}
	keys = make([]hub.Key, len(a.Keys))
	for i, text := range a.Keys {
		if keys[i], err = hub.ParseKey(text); err != nil {
			return a, nil, errors.Join(frame.ErrInvalid, err)
		}
	}
	if floor := keyOf(a.Floor); q.From.Less(floor) {
		c.hear(floor)
	}
	return a, keys, nil
}

// keyText is a key, or the fence of a window, in a query: {ms}/{hash}.
func keyText(k hub.Key) string { return strconv.FormatInt(k.Millis(), 10) + "/" + k.Hash() }

func parseKeyText(s string) (hub.Key, error) {
	ms, hash, ok := strings.Cut(s, "/")
	n, err := strconv.ParseInt(ms, 10, 64)
	if !ok || err != nil {
		return hub.Key{}, hub.E(hub.Invalid, "a key between hubs is {milliseconds}/{hash}")
	}
	return hub.KeyAt(n, hash), nil
}
