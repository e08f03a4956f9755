package channeltest

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"timehub/channel"
	"timehub/hub"
)

var (
	_ channel.ShortTerm = (*Short)(nil)
	_ channel.LongTerm  = (*Long)(nil)
	_ channel.Catalog   = (*Catalog)(nil)
)

// Catalog keeps documents in memory. Each write goes through JSON, as in the real one.
type Catalog struct {
	mu     sync.Mutex
	docs   map[string]*channel.Document
	fail   error
	writes int
}

// NewCatalog returns an empty catalog.
func NewCatalog() *Catalog { return &Catalog{docs: map[string]*channel.Document{}} }

// Fail lets every call but Get and Cached fail with err from now on; nil: no more.
func (c *Catalog) Fail(err error) { c.mu.Lock(); c.fail = err; c.mu.Unlock() }

// Writes is how many documents were written or removed so far.
func (c *Catalog) Writes() int { c.mu.Lock(); defer c.mu.Unlock(); return c.writes }

// Get returns a document.
func (c *Catalog) Get(_ context.Context, id string) (*channel.Document, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.docs[id]; d != nil {
		return d, nil
	}
	return nil, errNone
}

var errNone = hub.E(hub.NotFound, "no such document")

// Fresh is Get, and fails if told to.
func (c *Catalog) Fresh(ctx context.Context, id string) (*channel.Document, error) {
	if err := c.Refresh(ctx); err != nil {
		return nil, err
	}
	return c.Get(ctx, id)
}

// List returns all documents, and fails if told to.
func (c *Catalog) List(ctx context.Context) ([]*channel.Document, error) {
	if err := c.Refresh(ctx); err != nil {
		return nil, err
	}
	return c.Cached(ctx)
}

// Cached returns all documents.
func (c *Catalog) Cached(context.Context) ([]*channel.Document, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*channel.Document
	for _, d := range c.docs {
		all = append(all, d)
	}
	return all, nil
}

// Update changes a document.
func (c *Catalog) Update(_ context.Context, id string, change func(*channel.Document) (*channel.Document, error)) (*channel.Document, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, c.fail
	}
	old := c.docs[id]
	next, err := change(old)
	if err != nil || next == old {
		return next, err
	}
	c.writes++
	if next == nil {
		delete(c.docs, id)
		return nil, nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	stored := new(channel.Document)
	if err := json.Unmarshal(text, stored); err != nil {
		return nil, err
	}
	c.docs[id] = stored
	return stored, nil
}

// Refresh does nothing, or fails if told to.
func (c *Catalog) Refresh(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail
}

// Clock is a clock for tests. The zero Clock stands at the zero time.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at 2026-01-02T03:04:05Z.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

// Now is the time.
func (c *Clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

// Tick moves the clock on by a millisecond and returns the time.
func (c *Clock) Tick() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

// Set puts the clock to a time.
func (c *Clock) Set(t time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.now = t }
