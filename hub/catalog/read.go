package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/bucket"
)

// listMost is how many names are asked for at once: a directory is read as a whole for each page.
const listMost = 1 << 20

// Fresh answers from the bucket and brings memory up to date: NotFound if there is no document of that id.
func (c *Catalog[T]) Fresh(ctx context.Context, id string) (*T, error) {
	e, err := c.fresh(ctx, id)
	if err != nil {
		return nil, err
	}
	return answer(e, id)
}

// Look reads one document of a bucket without an open Catalog: NotFound if there is none of that id.
func Look[T any](ctx context.Context, b bucket.Bucket, prefix, id string) (*T, error) {
	c := Catalog[T]{opt: Options{Bucket: b, Prefix: prefix}}
	e, err := c.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	return answer(e, id)
}

// fresh reads one document into memory; nil if there is none.
func (c *Catalog[T]) fresh(ctx context.Context, id string) (*entry[T], error) {
	began := c.now()
	e, err := c.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	c.keep(id, e, began)
	return e, nil
}

// fetch reads one document; nil if there is none.
func (c *Catalog[T]) fetch(ctx context.Context, id string) (*entry[T], error) {
	name, err := c.name(id)
	if err != nil {
		return nil, err
	}
	r, info, err := c.opt.Bucket.Get(ctx, name, 0, -1, "")
	switch {
	case hub.Is(err, hub.NotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read document %s: %w", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read document %s: %w", name, err)
	}
	e := &entry[T]{version: info.Version}
	if e.head, e.value, err = decode[T](b); err != nil {
		e.value = nil
		e.err = hub.E(hub.Unavailable, "the document %s is damaged, or of a newer version of the hub: an operator has to put it right, or to remove it", name).Because(err)
	}
	return e, nil
}

// Refresh reads everything that has changed. On an error some of it may still be as before; what could be read is in memory.
func (c *Catalog[T]) Refresh(ctx context.Context) error {
	began := c.now()
	seen := map[string]bool{}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(c.opt.Parallel)
	failed := make(chan error, 1) // the first one
	list := bucket.ListOptions{Prefix: c.opt.Prefix, Max: listMost}
	for {
		page, err := c.opt.Bucket.List(ctx, list)
		if err != nil {
			return errors.Join(fmt.Errorf("list documents: %w", err), group.Wait())
		}
		for _, info := range page.Blobs {
			id, ok := c.id(info.Name)
			if !ok {
				continue
			}
			seen[id] = true
			if c.has(id, info.Version) {
				continue
			}
			group.Go(func() error {
				if err := c.load(inner, id, began); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
				return inner.Err()
			})
		}
		if list.After = page.Next; page.Next == "" {
			break
		}
	}
	err := group.Wait()
	select {
	case err = <-failed:
	default:
	}
	if err != nil {
		return err
	}
	c.dropUnseen(seen, began)
	return nil
}

func (c *Catalog[T]) load(ctx context.Context, id string, began uint64) error {
	e, err := c.fetch(ctx, id)
	if err != nil {
		return err
	}
	if e != nil && e.err != nil {
		c.opt.Log.Error("a document of the catalog cannot be used; the others are served", "err", e.err)
	}
	c.keep(id, e, began)
	return nil
}

func (c *Catalog[T]) has(id, version string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[id]
	return e != nil && e.version == version
}

// dropUnseen forgets documents that somebody has removed from the bucket by hand.
func (c *Catalog[T]) dropUnseen(seen map[string]bool, began uint64) {
	c.mu.Lock()
	var gone []string
	for id := range c.entries {
		if !seen[id] {
			gone = append(gone, id)
		}
	}
	c.mu.Unlock()
	for _, id := range gone {
		c.keep(id, nil, began)
	}
}
