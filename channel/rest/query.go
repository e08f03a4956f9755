package rest

import (
	"context"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/web"
)

// asked is a query as it was sent: what is looked for, where, and how the answer shall look.
type asked struct {
	channel.Search
	order hub.Order
	bulk  bool
	place place
}

// place is what a query runs on: a channel, or the channels of a tag.
type place struct {
	svc  *channel.Service
	ch   *hub.Channel // nil: a tag
	name string       // of the channel as the path spells it
	tag  string
	base string
}

// ask reads what all queries have in common.
func (h *Handlers) ask(r *http.Request) (asked, error) {
	a := asked{Search: channel.Search{Stable: true}}
	a.place = place{svc: h.svc, base: web.Base(r), name: web.Param(r, "channel"), tag: web.Param(r, "tag")}
	if r.URL.RawQuery != "" {
		q := web.Params(r)
		var err error
		if a.Epoch, err = hub.ParseEpoch(q.Get("epoch")); err != nil {
			return a, err
		}
		if a.Tier, err = hub.ParseTier(q.Get("location")); err != nil {
			return a, err
		}
		a.order = hub.ParseOrder(q.Get("order"))
		a.Stable = web.Bool(r, "stable", true)
		a.Inclusive = web.Bool(r, "inclusive", false)
		a.bulk = web.Bool(r, "bulk", false) || web.Bool(r, "batch", false)
		if a.place.tag == "" {
			a.place.tag = q.Get("tag")
		}
	}
	if a.place.tag == "" {
		var err error
		if a.place.ch, err = h.channel(r); err != nil {
			return a, err
		}
	}
	if seen := r.Header.Get("Hub-Horizon"); seen != "" && a.Stable {
		if err := h.await(r.Context(), seen, a.place.name); err != nil {
			return a, err
		}
	}
	web.TraceOf(r.Context()).Step("query read")
	return a, nil
}

const (
	awaitLimit = time.Second
	awaitPause = 5 * time.Millisecond
)

// await waits until the horizon has reached one that the client saw elsewhere (ENGINE §5).
func (h *Handlers) await(ctx context.Context, seen, name string) error {
	want, err := hub.ParseKey(seen)
	if err != nil {
		return hub.E(hub.Invalid, "Hub-Horizon must be a key as an answer showed it: %s", clip(seen))
	}
	ctx, cancel := context.WithTimeout(ctx, awaitLimit)
	defer cancel()
	for {
		now, err := h.svc.Horizon(ctx, name)
		if err == nil && !now.Less(want) {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			e := hub.E(hub.Unavailable, "this hub is not yet as far as %s (Hub-Horizon): try again", clip(seen))
			e.RetryAfter = awaitLimit
			return e
		case <-time.After(awaitPause):
		}
	}
}

// tagged reports whether the query runs on a tag.
func (p place) tagged() bool { return p.ch == nil }

// root is the address under which the time paths of the place lie.
func (p place) root() string {
	if p.tagged() {
		return p.base + "/tag/" + escapeTag(p.tag)
	}
	return p.base + "/channel/" + p.name
}

// listing is what was found.
type listing struct {
	channel.Answer
	place place
	hits  []channel.Tagged // of a tag; of a channel Keys holds it
}

func (a *asked) find(ctx context.Context) (listing, error) {
	l := listing{place: a.place}
	var err error
	if a.place.tagged() {
		var t channel.TagAnswer
		t, err = a.place.svc.FindTagged(ctx, a.place.tag, a.Search)
		l.Answer, l.hits = t.Answer, t.Hits
	} else {
		l.Answer, err = a.place.svc.Find(ctx, a.place.ch, a.Search)
	}
	if t := web.TraceOf(ctx); t != nil {
		t.Step("found %d keys up to %s, %d stores silent", l.len(), hub.ISO(l.Until), l.Silent)
	}
	return l, err
}

func (l *listing) len() int { return len(l.Keys) + len(l.hits) }

func (l *listing) key(i int) hub.Key {
	if l.hits != nil {
		return l.hits[i].Key
	}
	return l.Keys[i]
}

func (l *listing) first() hub.Key { return l.key(0) }
func (l *listing) last() hub.Key  { return l.key(l.len() - 1) }

// appendURI appends the address of the i-th item as lists show it.
func (l *listing) appendURI(b []byte, i int) []byte {
	p := &l.place
	b = append(append(b, p.base...), "/channel/"...)
	if l.hits == nil {
		b = append(append(b, p.name...), '/')
		return appendKey(b, l.Keys[i])
	}
	b = append(append(b, l.hits[i].Channel.Name...), '/')
	b = appendKey(b, l.hits[i].Key)
	return append(append(b, "?tag="...), escapeTag(p.tag)...)
}

// lister writes a list of links while it grows.
type lister struct {
	doc
	w   http.ResponseWriter
	err error
}

// listChunk is how much of a list is gathered before it is written.
const listChunk = 32 << 10

// uris appends the array of n addresses.
func (l *lister) uris(n int, order hub.Order, at func(b []byte, i int) []byte) {
	l.member("uris")
	l.b = append(l.b, '[')
	for i := range n {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = append(l.b, "\n      \""...)
		if order == hub.Descending {
			i = n - 1 - i
		}
		l.b = append(at(l.b, i), '"')
		if len(l.b) > listChunk {
			if l.err = l.flush(); l.err != nil {
				return
			}
		}
	}
	if n > 0 {
		l.b = append(l.b, "\n    "...)
	}
	l.b = append(l.b, ']')
}

// flush writes what has gathered.
func (l *lister) flush() error {
	if l.err != nil {
		return l.err
	}
	_, err := l.w.Write(l.b)
	l.b = l.b[:0]
	return err
}

// links are the neighbours of an answer; "" is left out.
type links struct{ next, previous string }

// list answers with the JSON of a list of items.
func (h *Handlers) list(w http.ResponseWriter, r *http.Request, found listing, to links, order hub.Order) error {
	buf := h.buffer()
	defer h.giveBack(buf)
	showHorizon(w, found.Page)
	l := lister{w: w, doc: doc{b: *buf}}
	l.begins(r, to)
	l.uris(found.len(), order, found.appendURI)
	return l.ends(r, buf)
}

// begins writes the header of the answer, self, next and previous.
func (l *lister) begins(r *http.Request, to links) {
	l.w.Header()["Content-Type"] = []string{"application/json"}
	l.open()
	l.link("self", web.URI(r))
	if to.next != "" {
		l.link("next", to.next)
	}
	if to.previous != "" {
		l.link("previous", to.previous)
	}
}

// ends completes the document and gives its buffer back to buf. A cut connection is not told: there is nobody to tell.
func (l *lister) ends(r *http.Request, buf *[]byte) error {
	l.close()
	l.b = web.TraceOf(r.Context()).AppendMembers(l.b)
	l.done()
	_ = l.flush()
	*buf = l.b
	return nil
}

// showHorizon says up to where the answer can never change, and how many stores stayed silent.
func showHorizon(w http.ResponseWriter, p hub.Page) {
	if !p.Horizon.IsZero() {
		w.Header()["Hub-Horizon"] = []string{string(appendKey(nil, p.Horizon))}
	}
	if p.Silent > 0 {
		w.Header()["Hub-Silent"] = []string{strconv.Itoa(p.Silent)}
	}
}

// stream runs the query for a bulk read.
func (a *asked) stream(ctx context.Context) (listing, iter.Seq2[channel.TaggedItem, error], error) {
	l := listing{place: a.place}
	if a.place.tagged() {
		t, items, err := a.place.svc.StreamTagged(ctx, a.place.tag, a.Search, a.order)
		l.Answer, l.hits = t.Answer, t.Hits
		return l, items, err
	}
	answer, items, err := a.place.svc.Stream(ctx, a.place.ch, a.Search, a.order)
	l.Answer = answer
	if err != nil {
		return l, nil, err
	}
	return l, func(yield func(channel.TaggedItem, error) bool) {
		for item, err := range items {
			if !yield(channel.TaggedItem{Channel: a.place.ch, Sealed: item}, err) {
				return
			}
		}
	}, nil
}

// produces is the negotiation of queries: a tag's have only JSON to declare (spec 02 §1.5, §6).
func produces(r *http.Request) error {
	if strings.HasPrefix(web.Path(r), "/tag/") {
		return web.Produces(r, "application/json")
	}
	return web.Produces(r, "application/json", "multipart/*", "application/zip")
}
