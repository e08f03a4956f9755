package replicate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/client"
)

const (
	batchItems = 500
	batchBytes = 1 << 20
	// indexType is the type of what the original puts into bulk answers instead of a large item (spec 01 §1.6).
	indexType = "application/hub"
)

// round reads what comes after the cursor, as far as one list goes. more: there is more at the source.
func (f *follower) round(ctx context.Context, hold bool) (more bool, err error) {
	keys, upTo, more, err := f.list(ctx, hold)
	if err != nil {
		return false, err
	}
	var first hub.Key
	if len(keys) > 0 {
		first = keys[0]
	}
	f.expired(first, upTo)
	if len(keys) > 0 {
		if more {
			f.show(func(s *Status) { s.State = Catching })
		}
		if err := f.take(ctx, keys); err != nil {
			return false, err
		}
		if err := f.moveTo(ctx, keys[len(keys)-1]); err != nil {
			return false, err
		}
	}
	if !upTo.IsZero() {
		err = f.moveTo(ctx, upTo)
	}
	return more, err
}

// take brings the items of ascending keys here. When it fails, what came before the failure is written and the cursor stands there.
func (f *follower) take(ctx context.Context, keys []hub.Key) error {
	missing := keys
	if !f.marker.Less(keys[0]) {
		var err error
		if missing, err = f.r.opt.Channels.Missing(ctx, f.ch, keys); err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
	}
	b := &batch{f: f}
	err := b.bulk(ctx, keys)
	if err == nil {
		return b.flush(ctx)
	}
	if ctx.Err() != nil {
		return err
	}
	// Whatever is whole is kept, so that a link that breaks again and again gets on all the same.
	return errors.Join(err, b.flush(ctx))
}

// batch gathers items for one write.
type batch struct {
	f     *follower
	items []channel.Replica
	bytes int
	last  hub.Key // everything up to it is in the batch or was written; zero: nothing is
}

// bulk reads keys in one answer. Its parts must be these keys, in their order; what it leaves out is asked for singly.
func (b *batch) bulk(ctx context.Context, keys []hub.Key) error {
	f := b.f
	next := 0
	for item, err := range f.source.ItemsAfter(ctx, f.name, f.at, len(keys), client.Query{}) {
		if err != nil {
			if next == 0 && noBulk(err) {
				break
			}
			return fmt.Errorf("read items in bulk: %w", err)
		}
		at := next
		for at < len(keys) && keys[at].Less(item.Key) {
			at++
		}
		if at == len(keys) || keys[at] != item.Key {
			return fmt.Errorf("read items in bulk: %w: %s was not in the list before", errWrong, item.Key)
		}
		for ; next < at; next++ {
			if err := b.single(ctx, keys[next]); err != nil {
				return err
			}
		}
		if err := b.part(ctx, item); err != nil {
			return err
		}
		next = at + 1
	}
	for ; next < len(keys); next++ {
		if err := b.single(ctx, keys[next]); err != nil {
			return err
		}
	}
	return nil
}

// noBulk tells errors that say that a source does not answer in bulk from those of the way to it.
func noBulk(err error) bool {
	switch hub.KindOf(err) {
	case hub.Unavailable, hub.Timeout, hub.Canceled:
		return false
	}
	var line net.Error
	return !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errStalled) && !errors.As(err, &line)
}

// part takes one item out of a bulk answer.
func (b *batch) part(ctx context.Context, item *hub.Item) error {
	body, whole, release, err := b.read(ctx, item.Body, -1)
	if err != nil {
		return fmt.Errorf("read item %s in bulk: %w", item.Key, err)
	}
	defer release()
	if whole && item.ContentType == indexType && isIndex(body) { // of a large item, or an item that looks like one: ask for itself
		return b.single(ctx, item.Key)
	}
	r := channel.Replica{Key: item.Key, ContentType: item.ContentType, Body: body}
	if !whole {
		r.Reader, r.Body, r.Size = io.MultiReader(bytes.NewReader(body), item.Body), nil, -1
	}
	return b.add(ctx, r)
}

func isIndex(body []byte) bool {
	var x struct {
		Key  *string `json:"key"`
		Size *int64  `json:"size"`
	}
	return json.Unmarshal(body, &x) == nil && x.Key != nil && x.Size != nil
}

// single reads one item by its address. Only the source's own word that there is none lets it be left out.
func (b *batch) single(ctx context.Context, key hub.Key) error {
	f := b.f
	item, header, err := f.source.GetItem(ctx, f.name, key)
	switch {
	case hub.Is(err, hub.NotFound):
		b.last = key
		return nil
	case err != nil:
		return fmt.Errorf("read item %s: %w", key, err)
	}
	defer item.Body.Close()
	if err := checkItem(key, header); err != nil {
		return err
	}
	limit := item.Size
	if item.Large {
		return b.add(ctx, channel.Replica{Key: key, ContentType: item.ContentType, Reader: item.Body, Size: item.Size})
	}
	body, whole, release, err := b.read(ctx, item.Body, limit)
	if err != nil {
		return fmt.Errorf("read item %s: %w", key, err)
	}
	defer release()
	r := channel.Replica{Key: key, ContentType: item.ContentType, Body: body}
	if !whole {
		r.Reader, r.Body, r.Size = io.MultiReader(bytes.NewReader(body), item.Body), nil, item.Size
	}
	return b.add(ctx, r)
}

// checkItem refuses answers that are no items: the page of a proxy, for one.
func checkItem(key hub.Key, header http.Header) error {
	if created := header.Get("Creation-Date"); created != hub.ISO(key.Time()) {
		return fmt.Errorf("read item %s: %w: the Creation-Date is %q", key, errWrong, created)
	}
	return nil
}

// read reads a body as far as it may be in memory; whole tells that this was all. size is what it should have, -1 if that is not known. Bodies greater than a batch
// take their memory from what all followers share; release gives it back, after the item was added.
func (b *batch) read(ctx context.Context, from io.Reader, size int64) (body []byte, whole bool, release func(), err error) {
	release = func() {}
	body, err = io.ReadAll(io.LimitReader(from, batchBytes))
	if err != nil {
		return nil, false, release, err
	}
	whole = len(body) < batchBytes
	if !whole {
		if err := b.flush(ctx); err != nil {
			return nil, false, release, err
		}
		large := b.f.r.opt.LargeBytes
		if err := b.f.r.memory.Acquire(ctx, large); err != nil {
			return nil, false, release, err
		}
		release = func() { b.f.r.memory.Release(large) }
		rest, err := io.ReadAll(io.LimitReader(from, large-batchBytes))
		if err != nil {
			return nil, false, release, err
		}
		body = append(body, rest...)
		whole = int64(len(body)) < large
	}
	if size >= 0 && (whole && int64(len(body)) != size || int64(len(body)) > size) {
		return nil, false, release, fmt.Errorf("%w: %d bytes, X-Item-Length said %d", errWrong, len(body), size)
	}
	return body, whole, release, nil
}

// add puts an item into the batch; one that streams, or fills it, is written before add returns.
func (b *batch) add(ctx context.Context, r channel.Replica) error {
	if r.Reader != nil {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	b.items = append(b.items, r)
	b.bytes += len(r.Body)
	b.last = r.Key
	if r.Reader != nil || len(b.items) >= batchItems || b.bytes >= batchBytes {
		return b.flush(ctx)
	}
	return nil
}

// flush writes what was gathered and moves marker and cursor to its end.
func (b *batch) flush(ctx context.Context) error {
	if b.last.IsZero() {
		return nil
	}
	f := b.f
	items, bytes, last := b.items, b.bytes, b.last
	b.items, b.bytes, b.last = nil, 0, hub.Key{}
	if len(items) > 0 {
		if err := f.r.opt.Channels.Replicate(ctx, f.ch, items...); err != nil {
			return err
		}
		f.state.Items += int64(len(items))
		f.state.LastItem = items[len(items)-1].Key.String()
		f.show(func(s *Status) { s.Items, s.LastItem = f.state.Items, f.state.LastItem })
		f.r.meters.items.With(f.ch.Name).Add(int64(len(items)))
		f.r.meters.bytes.With(f.ch.Name).Add(int64(bytes))
	}
	return f.moveTo(ctx, last)
}
