// Package catalog keeps small named JSON documents, such as the configurations of channels and webhooks, in a bucket, and all of them in the memory of
// every node. Reading costs a look in a map; a change is one conditional put; the other nodes learn of it through a register of the coordinator. While that
// cannot be read they look into the bucket every few seconds (Options.Deaf), and from time to time in any case.
//
// A document x lies under {prefix}x.json in an envelope with a version, a sequence number and the random ids of its last writes: a writer whose reply was
// lost knows its own work by them. A deleted document stays as an empty envelope, because a bucket cannot delete on a condition: whoever creates
// it again does so on the condition that nobody else was faster.
//
// A document that cannot be read, or that a newer version of the program wrote, is reported and never overwritten; the others are served.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/coord"
)

// Options are the parts of a Catalog.
type Options struct {
	Bucket    bucket.Bucket   // required
	Prefix    string          // required: ".hub/channels/", ends with a slash
	Registers coord.Registers // nil: other nodes learn of changes from the poll only
	Register  string          // the name of the register; required with Registers
	Poll      time.Duration   // between two full looks; 0: 5 minutes. Varied by a quarter
	Deaf      time.Duration   // between two looks at the register, and between two full looks while it cannot be read; 0: it is taken to be readable
	Parallel  int             // documents read at the same time; 0: 32
	Clock     hub.Clock       // nil: time.Now
	Log       *slog.Logger
}

// Catalog is a set of documents with values of type T. Values that it hands out are shared: nobody changes them. All methods are safe for
// concurrent use.
type Catalog[T any] struct {
	opt  Options
	news *news // nil without Registers

	mu        sync.Mutex // guards what follows, for moments only
	entries   map[string]*entry[T]
	tick      uint64 // counts changes of entries
	followers map[*follower]struct{}
}

// entry is one document as it was last seen. It is never changed, only replaced.
type entry[T any] struct {
	value   *T // nil: deleted, or err is set
	err     error
	version string // of the blob
	head    head
	tick    uint64
}

// Open returns a Catalog that holds every document of the bucket. It fails if the bucket cannot be listed or a document not be fetched, not if one
// cannot be understood: see Broken.
func Open[T any](ctx context.Context, o Options) (*Catalog[T], error) {
	switch {
	case o.Bucket == nil:
		return nil, errors.New("a catalog needs a Bucket")
	case len(o.Prefix) < 2 || !strings.HasSuffix(o.Prefix, "/"):
		return nil, fmt.Errorf("the prefix of a catalog is %q: it must be a folder that ends with a slash", o.Prefix)
	}
	if o.Poll <= 0 {
		o.Poll = 5 * time.Minute
	}
	if o.Parallel <= 0 {
		o.Parallel = 32
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Catalog[T]{opt: o, entries: map[string]*entry[T]{}, followers: map[*follower]struct{}{}}
	if o.Registers != nil {
		if err := coord.CheckName(o.Register); err != nil {
			return nil, fmt.Errorf("the register of a catalog: %w", err)
		}
		c.news = newNews(o.Registers, o.Register, o.Log)
	}
	if err := c.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("open the catalog %s: %w", o.Prefix, err)
	}
	return c, nil
}

// Run follows what other nodes change until ctx ends. It returns nil.
func (c *Catalog[T]) Run(ctx context.Context) error {
	var wake <-chan struct{}
	var listen <-chan time.Time // the register wakes nobody when it can no longer be read
	if c.news != nil {
		w, stop := c.opt.Registers.Watch(c.opt.Register)
		defer stop()
		wake = w
		if c.opt.Deaf > 0 {
			ticker := time.NewTicker(c.opt.Deaf)
			defer ticker.Stop()
			listen = ticker.C
		}
		var telling sync.WaitGroup
		defer telling.Wait()
		telling.Go(func() { c.news.run(ctx) })
	}
	poll := time.NewTimer(around(c.opt.Poll))
	defer poll.Stop()
	for {
		var err error
		pause := c.opt.Poll
		select {
		case <-ctx.Done():
			return nil
		case <-listen:
			_ = c.catchUp(ctx) // said by the poll, if it fails too; tried again in any case
			continue
		case <-poll.C:
			err = c.Refresh(ctx)
		case <-wake:
			err = c.catchUp(ctx)
		}
		if err != nil && ctx.Err() == nil {
			c.opt.Log.Warn("catalog not brought up to date; trying again", "prefix", c.opt.Prefix, "err", err)
			pause = min(pause, 10*time.Second)
		}
		poll.Reset(around(pause))
	}
}

// around varies a pause, so that nodes do not look all at once.
func around(pause time.Duration) time.Duration { return pause*3/4 + rand.N(pause/2) }

// catchUp reads what the register names, or everything if it names too little or cannot be read.
func (c *Catalog[T]) catchUp(ctx context.Context) error {
	changes, whole, err := c.news.read(ctx)
	if err != nil {
		return c.Refresh(ctx)
	}
	if !whole {
		if err := c.Refresh(ctx); err != nil {
			c.news.forget()
			return err
		}
		return nil
	}
	for _, ch := range changes {
		if c.knows(ch) {
			continue
		}
		if _, err := c.fresh(ctx, ch.ID); err != nil && !hub.Is(err, hub.NotFound) {
			c.news.forget()
			return err
		}
	}
	return nil
}

func (c *Catalog[T]) knows(ch change) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[ch.ID]
	return e != nil && e.head.wrote(ch.Write)
}

// Get answers from memory: NotFound if there is no document of that id.
func (c *Catalog[T]) Get(_ context.Context, id string) (*T, error) {
	c.mu.Lock()
	e := c.entries[id]
	c.mu.Unlock()
	return answer(e, id)
}

func answer[T any](e *entry[T], id string) (*T, error) {
	switch {
	case e == nil || e.value == nil && e.err == nil:
		return nil, hub.E(hub.NotFound, "there is no document %q", id)
	case e.err != nil:
		return nil, e.err
	}
	return e.value, nil
}

// Cached lists the documents in memory, in no particular order. Those that cannot be read are left out: see Broken.
func (c *Catalog[T]) Cached(context.Context) ([]*T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*T, 0, len(c.entries))
	for _, e := range c.entries {
		if e.value != nil {
			all = append(all, e.value)
		}
	}
	return all, nil
}

// List is Cached after a Refresh: every change that had returned before List was called is in it.
func (c *Catalog[T]) List(ctx context.Context) ([]*T, error) {
	if err := c.Refresh(ctx); err != nil {
		return nil, err
	}
	return c.Cached(ctx)
}

// Broken returns the documents that cannot be used, by id, and why.
func (c *Catalog[T]) Broken() map[string]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	broken := map[string]error{}
	for id, e := range c.entries {
		if e.err != nil {
			broken[id] = e.err
		}
	}
	return broken
}

// Watch tells a follower in this process what changes in memory: wake holds one token, drain returns the ids that changed since it was called last, each
// once. stop ends it. What was there before is not told.
func (c *Catalog[T]) Watch() (wake <-chan struct{}, drain func() []string, stop func()) {
	f := &follower{wake: make(chan struct{}, 1), changed: map[string]struct{}{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.followers[f] = struct{}{}
	drain = func() []string {
		c.mu.Lock()
		defer c.mu.Unlock()
		ids := make([]string, 0, len(f.changed))
		for id := range f.changed {
			ids = append(ids, id)
		}
		clear(f.changed)
		return ids
	}
	stop = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.followers, f)
	}
	return f.wake, drain, stop
}

// follower is one Watch.
type follower struct {
	wake    chan struct{}
	changed map[string]struct{}
}

// keep puts what was seen of a document into memory, unless something newer is there; nil means that there was none. began is the tick at which the
// look began: a document of which nothing was found may have been made since. It returns what memory holds now.
func (c *Catalog[T]) keep(id string, e *entry[T], began uint64) *entry[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.entries[id]
	switch {
	case e == nil && (old == nil || old.tick > began):
		return old
	case e != nil && old != nil && (e.version == old.version || e.head.Sequence < old.head.Sequence && old.tick > began):
		return old
	}
	c.tick++
	if e == nil {
		delete(c.entries, id)
	} else {
		e.tick = c.tick
		c.entries[id] = e
	}
	for f := range c.followers {
		f.changed[id] = struct{}{}
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	return e
}

func (c *Catalog[T]) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tick
}
