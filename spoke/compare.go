package spoke

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/web"
	spokelog "timehub/spoke/log"
)

// Minutes are compared by count and digest (ENGINE §4, Repair). Below the horizon, and above what was swept, all disks hold the same of a channel that is not replicated; if they
// do not, one of them has lost something without noticing it, and gets it from another before anybody asks whether long-term storage has all of the minute.

const minutePath = "/internal/spoke/minute"

// account is what a disk holds of a minute.
type account struct {
	Final  bool   `json:"final"` // everything that was committed in it is there: the horizon has passed it, and no part of it was swept
	Count  int    `json:"count"`
	Digest uint64 `json:"digest,string"`
}

// accountOf counts a minute here.
func (c *cluster) accountOf(ctx context.Context, channel string, w hub.Window) (t account, err error) {
	d, err := c.n.store.Minute(ctx, channel, w.Start)
	if err != nil {
		return t, err
	}
	_, replicated := c.n.store.Complete(channel)
	floor := c.n.store.Floor() // after the counting: what was swept meanwhile is not missing
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	h, ok := c.horizon()
	t = account{Count: d.Count, Digest: d.Sum}
	t.Final = ok && c.noHole() && !replicated && !w.From().Less(floor) && !h.Key().Less(w.To())
	return t, nil
}

// compare brings a minute here up to what the other nodes with a session hold of it, and lets those who lack something then do the same. It is best effort: who does not answer
// is left out.
func (c *cluster) compare(ctx context.Context, channel string, w hub.Window) {
	mine, err := c.accountOf(ctx, channel, w)
	if err != nil || !mine.Final {
		return
	}
	others := c.accounts(ctx, channel, w)
	maps.DeleteFunc(others, func(_ string, t account) bool { return !t.Final })
	differ := false
	for node, theirs := range others {
		if theirs != mine {
			differ = true
			c.copyMinute(ctx, node, channel, w)
		}
	}
	if !differ {
		return
	}
	if mine, err = c.accountOf(ctx, channel, w); err != nil {
		return
	}
	q := minuteQuery(channel, w)
	q.Set("from", c.opt.Node)
	for node, theirs := range others {
		if theirs == mine {
			continue
		}
		if err := c.ask(ctx, http.MethodPost, node, minutePath, q, nil, &theirs); err != nil {
			c.n.log.Warn("a member could not be told to compare a minute", "peer", node, "channel", channel, "minute", w.String(), "err", err)
		}
	}
}

// accounts asks the other nodes that have a session how much they hold of a minute.
func (c *cluster) accounts(ctx context.Context, channel string, w hub.Window) map[string]account {
	c.n.mu.Lock()
	nodes := slices.DeleteFunc(listed(c.rec), func(node string) bool { return node == c.opt.Node || !c.members[node] })
	c.n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	var mu sync.Mutex // guards all
	all := map[string]account{}
	var wg sync.WaitGroup
	for _, node := range nodes {
		wg.Go(func() {
			var theirs account
			if err := c.ask(ctx, http.MethodGet, node, minutePath, minuteQuery(channel, w), nil, &theirs); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[node] = theirs
		})
	}
	wg.Wait()
	return all
}

// copyMinute stores what another node shows in a minute and this one does not even hold.
func (c *cluster) copyMinute(ctx context.Context, node, channel string, w hub.Window) {
	q := hub.Query{Channel: channel, From: w.From(), To: w.To(), Limit: keysChunk}
	for {
		a, theirs, err := c.askKeys(ctx, node, q)
		if err == nil && len(theirs) > 0 {
			err = c.copyKeys(ctx, node, channel, q.From, theirs)
		}
		if err != nil {
			c.n.log.Warn("a minute that differs could not be copied", "peer", node, "channel", channel, "minute", w.String(), "err", err)
			return
		}
		if !a.More || len(theirs) == 0 {
			return
		}
		q.From = theirs[len(theirs)-1].After()
	}
}

// copyKeys stores those of another node's keys, of which from is at or below the first, that are not here. They come late: whatever has passed them has not seen them.
func (c *cluster) copyKeys(ctx context.Context, node, channel string, from hub.Key, theirs []hub.Key) error {
	mine, _, err := c.n.store.Keys(ctx, channel, from, theirs[len(theirs)-1].After(), 0, false)
	if err != nil {
		return err
	}
	for _, k := range theirs {
		if _, here := slices.BinarySearchFunc(mine, k, hub.Key.Compare); here {
			continue
		}
		if _, err := c.n.store.Held(ctx, channel, k); err == nil {
			c.n.log.Error("an item is given up here and shown by another node", "peer", node, "channel", channel, "key", k)
			continue
		}
		asked := c.newCensus()
		r, err := c.askRead(ctx, node, channel, k, &asked, peerTime)
		if err != nil {
			return err
		}
		if r == nil { // it was swept meanwhile
			continue
		}
		r.Flags |= spokelog.Late
		if err := c.storeOf(ctx, []spokelog.Record{*r}); err != nil {
			return err
		}
		c.meters.lost.Add(1)
		c.n.log.Error("this disk had lost an item without noticing it; it was copied from another node", "peer", node, "channel", channel, "key", k)
	}
	return nil
}

// serveMinute tells how much this disk holds of a minute, or, with POST, brings it up to what another node of the cluster holds.
func (c *cluster) serveMinute(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	ms, err := strconv.ParseInt(q.Get("minute"), 10, 64)
	if err != nil || q.Get("channel") == "" {
		return hub.E(hub.Invalid, "the digest of a minute needs channel, and minute in milliseconds")
	}
	from := q.Get("from")
	if r.Method == http.MethodPost && (from == c.opt.Node || !slices.Contains(c.nodes(), from)) {
		return hub.E(hub.Invalid, "from must be another node of this cluster")
	}
	window := hub.WindowAt(time.UnixMilli(ms).UTC(), hub.Minute)
	t, err := c.accountOf(r.Context(), q.Get("channel"), window)
	if err != nil {
		return unavailable(err)
	}
	if r.Method == http.MethodPost && t.Final {
		c.copyMinute(r.Context(), from, q.Get("channel"), window)
	}
	return web.JSON(w, http.StatusOK, t)
}

func minuteQuery(channel string, w hub.Window) url.Values {
	return url.Values{"channel": {channel}, "minute": {strconv.FormatInt(w.Start.UnixMilli(), 10)}}
}
