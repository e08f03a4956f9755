package catalog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
)

const (
	putAttempts = 4                      // of one put whose outcome is not known
	putPause    = 100 * time.Millisecond // before the second, doubled each time
)

// Create makes a document; Conflict if there is one.
func (c *Catalog[T]) Create(ctx context.Context, id string, v *T) error {
	_, err := c.Update(ctx, id, func(now *T) (*T, error) {
		if now != nil {
			return nil, hub.E(hub.Conflict, "there is a document %q already", id)
		}
		return v, nil
	})
	return err
}

// Delete removes a document; one that is not there is no error.
func (c *Catalog[T]) Delete(ctx context.Context, id string) error {
	_, err := c.Update(ctx, id, func(*T) (*T, error) { return nil, nil })
	return err
}

// Update changes a document in one conditional step. change gets the present value, nil if there is none, must not alter it, and is called again when
// somebody else was first. It returns the new value; nil deletes the document; the very pointer that it was given writes nothing; an error ends the
// update and is returned. When Update returns the new value, the change is durable and Get sees it. A document that cannot be read is not changed.
//
// An error of kind Unavailable means that nothing is known: the change may have happened, or still happen. Before it gives up, Update tries for some
// seconds to find out.
func (c *Catalog[T]) Update(ctx context.Context, id string, change func(now *T) (*T, error)) (*T, error) {
	name, err := c.name(id)
	if err != nil {
		return nil, err
	}
	for {
		now, err := c.fresh(ctx, id)
		if err != nil {
			return nil, err
		}
		if now == nil {
			now = &entry[T]{}
		}
		if now.err != nil {
			return nil, now.err
		}
		next, err := change(now.value)
		if err != nil {
			return nil, err
		}
		if next == now.value {
			return next, nil
		}
		written, err := c.write(ctx, id, name, now, next)
		if err != nil {
			return nil, err
		}
		if written {
			return next, nil
		}
		if err := pause(ctx, rand.N(20*time.Millisecond)); err != nil {
			return nil, err
		}
	}
}

// write puts the successor of now; false: somebody else was first. When a put fails and nobody knows what became of it, the same bytes are put again:
// then either they are there now, or the condition fails because they were, or because of somebody else, which the ids of the writes tell apart.
func (c *Catalog[T]) write(ctx context.Context, id, name string, now *entry[T], next *T) (written bool, err error) {
	write := fmt.Sprintf("%016x", rand.Uint64())
	e := &entry[T]{value: next, head: now.head.following(write, c.opt.Clock().UnixMilli(), next == nil)}
	body, err := encode(e.head, next)
	if err != nil {
		return false, err
	}
	opt := bucket.PutOptions{IfMatch: now.version, IfAbsent: now.version == "", ContentType: "application/json"}
	began := c.now()
	wait := putPause
	for attempt := 1; ; attempt++ {
		info, err := c.opt.Bucket.Put(ctx, name, bytes.NewReader(body), int64(len(body)), opt)
		switch {
		case err == nil:
			e.version = info.Version
			c.keep(id, e, began)
			c.tell(ctx, id, write)
			return true, nil
		case hub.Is(err, hub.Conflict), hub.Is(err, hub.NotFound) && opt.IfMatch != "":
			return c.mine(ctx, id, write)
		case hub.Is(err, hub.Invalid), hub.Is(err, hub.Full), hub.Is(err, hub.TooLarge):
			return false, fmt.Errorf("write document %s: %w", name, err)
		}
		if attempt < putAttempts {
			if pause(ctx, wait/2+rand.N(wait)) == nil {
				wait *= 2
				continue
			}
		}
		if found, err2 := c.mine(ctx, id, write); err2 == nil && found {
			return true, nil
		}
		return false, fmt.Errorf("write document %s: %w", name, err)
	}
}

// mine reads the document again and reports whether a write went in.
func (c *Catalog[T]) mine(ctx context.Context, id, write string) (bool, error) {
	e, err := c.fresh(ctx, id)
	if err != nil {
		return false, err
	}
	if e == nil || !e.head.wrote(write) {
		return false, nil
	}
	c.tell(ctx, id, write)
	return true, nil
}

// tell lets the other nodes know. A failure is no failure of the change: they look by themselves from time to time.
func (c *Catalog[T]) tell(ctx context.Context, id, write string) {
	if c.news == nil {
		return
	}
	c.news.tell(ctx, change{id, write})
}

func pause(ctx context.Context, d time.Duration) error {
	if !hub.Sleep(ctx, d) {
		return context.Cause(ctx)
	}
	return nil
}
