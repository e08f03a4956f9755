// Package rest is the public HTTP face of channels, items and tags (spec 02 §2–§6): it turns requests into calls of channel.Service and answers into
// the documented JSON, multipart and zip.
//
// One catch-all under a channel and one under a tag take every time path; hub.ParsePath reads it, and what it found decides the handler (route.go).
// Handlers return errors; hub/web answers them. No handler knows a store, decides what is visible, or formats a key in its own way.
//
// Lists of links are appended by hand to pooled buffers and written as they grow: a day may hold millions of keys. A golden test compares them with
// encoding/json. Bodies of items are bounded one by one and in total; those that are not small lie on the disk while they arrive.
//
// Websockets and events belong to another room: it hands its handlers in as Options.Verbs.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/disk"
	"timehub/hub/web"
)

// Options are for New. Service is required.
type Options struct {
	Service *channel.Service
	// Verbs are the handlers of ws and events, for /channel/{c}/ws as for time paths, and for tags. They find the path in web.Found: a hub.Path, or
	// nil without one. A verb that is missing is 404.
	Verbs map[hub.Verb]web.Handler

	// Temp is where bodies lie that are not small, under names that begin with TempDir; nil: in memory, within InFlight.
	Temp    disk.Disk
	TempDir string // "": tmp; it is made when first needed

	MaxBulkBytes int64 // app.maxPayloadSizeMB × 3 MiB: the limit of a bulk's body; 0: 120 MiB
	InFlight     int64 // bytes of bodies in memory at the same time, above that 503; 0: 256 MiB
	Small        int64 // bodies up to here are kept in memory while they arrive; 0: 4 MiB

	Clock  hub.Clock // nil: time.Now
	Waiter Waiter    // holds requests for items that are still to come (?wait=); nil: nobody waits
	// Stopping ends when the hub goes away, and with it what waits; nil: never.
	Stopping context.Context
	// Replication says how the replication of a channel stands, as a value for JSON; false: nothing is known. nil: nothing ever is.
	Replication func(ctx context.Context, ch *hub.Channel) (any, bool)
	Source      *http.Client // asks a replication source for its latest item (spec 02 §2.7); nil: nobody is asked
	Log         *slog.Logger
}

// Handlers are the face. They are safe for concurrent use.
type Handlers struct {
	opt     Options
	svc     *channel.Service
	paths   table
	flight  budget
	hot     hot
	answers sync.Pool // *[]byte: answers being made
	// *[]byte: bodies that arrive, up to smallBody and up to keepBuffer
	bodies, bigBodies sync.Pool
}

// New checks the options and returns the face; Mount makes it reachable.
func New(opt Options) (*Handlers, error) {
	if opt.Service == nil {
		return nil, errors.New("rest: Options.Service is missing")
	}
	if opt.MaxBulkBytes < 0 || opt.InFlight < 0 || opt.Small < 0 {
		return nil, errors.New("rest: a limit is negative")
	}
	if opt.TempDir == "" {
		opt.TempDir = "tmp"
	}
	if opt.MaxBulkBytes == 0 {
		opt.MaxBulkBytes = 120 << 20
	}
	if opt.InFlight == 0 {
		opt.InFlight = 256 << 20
	}
	if opt.Small == 0 {
		opt.Small = 4 << 20
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handlers{opt: opt, svc: opt.Service}
	h.flight.max = opt.InFlight
	h.paths = h.newTable()
	return h, nil
}

// Mount adds the routes of spec 02 §11 that belong to channels and tags.
func (h *Handlers) Mount(rt *web.Router) {
	rt.Handle("GET", "/", web.JSONOnly(h.root))
	rt.Handle("GET", "/channel", web.JSONOnly(h.listChannels))
	rt.Handle("POST", "/channel", web.JSONOnly(h.createChannel))
	rt.Handle("GET", "/channel/{channel}", web.JSONOnly(h.getChannel))
	rt.Handle("PUT", "/channel/{channel}", web.JSONOnly(h.putChannel))
	rt.Handle("PATCH", "/channel/{channel}", web.JSONOnly(h.patchChannel))
	rt.Handle("POST", "/channel/{channel}", web.JSONOnly(h.insert))
	rt.Handle("DELETE", "/channel/{channel}", h.deleteChannel)
	rt.Handle("POST", "/channel/{channel}/bulk", web.JSONOnly(h.insertBulk))
	rt.Handle("GET", "/channel/{channel}/status", web.JSONOnly(h.status))
	rt.Handle("POST", "/provider", h.provide)
	rt.Handle("POST", "/provider/bulk", h.provideBulk)
	rt.Handle("GET", "/tag", web.JSONOnly(h.listTags))
	rt.Handle("GET", "/tag/{tag}", web.JSONOnly(h.getTag))
	for _, under := range []string{"/channel/{channel}", "/tag/{tag}"} {
		rt.Handle("GET", under+"/latest", h.end(channel.Latest))
		rt.Handle("GET", under+"/earliest", h.end(channel.Earliest))
		rt.Handle("GET", under+"/latest/{n}", h.endList(channel.Latest))
		rt.Handle("GET", under+"/earliest/{n}", h.endList(channel.Earliest))
		rt.Handle("GET", under+"/time", web.JSONOnly(h.times))
		rt.Handle("GET", under+"/time/{unit}", h.timeRedirect)
		rt.Resolve(under+"/{path...}", h.resolve)
	}
	for verb, handler := range h.opt.Verbs {
		rt.Handle("GET", "/channel/{channel}/"+string(verb), handler)
		rt.Handle("GET", "/tag/{tag}/"+string(verb), handler)
	}
}

// resolve says what a time path under a channel or tag is. The grammar of paths is hub.ParsePath's; which methods go with them is spec 02 §11.
func (h *Handlers) resolve(r *http.Request, rest string) (web.Methods, any, error) {
	p, err := hub.ParsePath(rest)
	if err != nil {
		return nil, nil, err
	}
	tagged := web.Param(r, "tag") != ""
	m := h.paths.methods(p, tagged)
	if m == nil {
		return nil, nil, hub.E(hub.NotFound, "no such path: %s", web.Path(r))
	}
	return m, p, nil
}

// table holds the methods of every sort of time path, made once.
type table struct {
	verbs                                                map[hub.Verb]web.Methods
	item, taggedItem, moment, period, one, many, seconds web.Methods
}

func (h *Handlers) newTable() table {
	t := table{
		item:       web.Methods{"GET": h.item, "POST": web.JSONOnly(h.insertAt), "DELETE": h.deleteAt},
		taggedItem: web.Methods{"GET": h.taggedItem},
		moment:     web.Methods{"GET": h.toSecond, "POST": web.JSONOnly(h.insertAt)},
		period:     web.Methods{"GET": h.period},
		one:        web.Methods{"GET": h.neighbour},
		many:       web.Methods{"GET": h.neighbours},
		seconds:    web.Methods{"GET": web.JSONOnly(h.seconds)},
		verbs:      map[hub.Verb]web.Methods{},
	}
	for verb, handler := range h.opt.Verbs {
		t.verbs[verb] = web.Methods{"GET": handler}
	}
	return t
}

// methods is nil for a path that spec 02 §11 does not have.
func (t *table) methods(p hub.Path, tagged bool) web.Methods {
	switch p.Verb {
	case hub.Websocket, hub.Events:
		return t.verbs[p.Verb]
	case hub.Next, hub.Previous:
		switch {
		case p.Unit == hub.Second && tagged:
			return nil
		case p.Unit == hub.Second:
			return t.seconds
		case p.HasN:
			return t.many
		}
		return t.one
	}
	switch {
	case p.Unit == hub.ItemUnit && tagged:
		return t.taggedItem
	case p.Unit == hub.ItemUnit:
		return t.item
	case p.Unit == hub.Millisecond && tagged:
		return nil
	case p.Unit == hub.Millisecond:
		return t.moment
	}
	return t.period
}

// channel is the configuration of the channel in the path.
func (h *Handlers) channel(r *http.Request) (*hub.Channel, error) {
	return h.svc.Channel(r.Context(), web.Param(r, "channel"))
}

// buffer lends a buffer for an answer; giveBack takes it home unless it has grown large.
func (h *Handlers) buffer() *[]byte { return lend(&h.answers) }

func lend(p *sync.Pool) *[]byte {
	if b, _ := p.Get().(*[]byte); b != nil {
		*b = (*b)[:0]
		return b
	}
	b := make([]byte, 0, 4<<10)
	return &b
}

const (
	keepBuffer = 1 << 20   // buffers of bodies up to here wait for the next request
	keepAnswer = 256 << 10 // buffers of answers
)

func (h *Handlers) giveBack(b *[]byte) { giveBack(&h.answers, b, keepAnswer) }

func giveBack(p *sync.Pool, b *[]byte, most int) {
	if cap(*b) <= most {
		p.Put(b)
	}
}

// boundary draws the boundary of a multipart answer: one that no stored item can know.
func boundary() string {
	b := make([]byte, 0, 48)
	b = append(b, "hub-"...)
	for range 40 {
		b = append(b, hub.Alphabet[rand.IntN(len(hub.Alphabet))])
	}
	return string(b)
}
