package longterm

import (
	"context"
	"fmt"
	"iter"
	"time"

	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/bucket"
)

// ref is where an item lies: in a zip, or in an object of its own.
type ref struct {
	key    hub.Key
	zip    *directory // nil: single
	entry  entry
	single bucket.Info
}

// size is what reading it costs.
func (r *ref) size() int64 {
	if r.zip != nil {
		return max(r.entry.packed, r.entry.size)
	}
	return r.single.Size
}

const (
	directoriesAtOnce = 8
	itemsAtOnce       = 16
	groupBytes        = 4 << 20 // of items that are read together
)

// Keys answers a query from the layouts of the channel's storage that q.Tier takes in. Page.Horizon is not set: long-term knows none.
func (s *Store) Keys(ctx context.Context, ch *hub.Channel, q hub.Query) (hub.Page, error) {
	var page hub.Page
	for r, err := range s.refs(ctx, ch, q) {
		if err != nil {
			return hub.Page{}, fmt.Errorf("find keys in long-term storage: %w", err)
		}
		page.Keys = append(page.Keys, r.key)
		if q.Limit > 0 && len(page.Keys) == q.Limit {
			page.More = true
			break
		}
	}
	return page, nil
}

// Items is Keys with the items. An item that is deleted meanwhile is left out. After an error nothing follows.
func (s *Store) Items(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		var mem scratch
		var group []ref
		var size int64
		left, most := q.Limit, 1
		// flush reads a group; groups grow, so that one item is not waited for longer than need be.
		flush := func() bool {
			ok := s.readGroup(ctx, ch, group, &mem, yield)
			group, size, most = group[:0], 0, min(most*4, 4096)
			return ok
		}
		for r, err := range s.refs(ctx, ch, q) {
			if err != nil {
				if flush() {
					yield(hub.Sealed{}, fmt.Errorf("find items in long-term storage: %w", err))
				}
				return
			}
			group = append(group, r)
			size += r.size()
			left--
			if left == 0 {
				break
			}
			if (len(group) >= most || size >= groupBytes) && !flush() {
				return
			}
		}
		flush()
	}
}

// readGroup yields the items of refs, those that lie together in a zip after one read, single ones read at the same time.
func (s *Store) readGroup(ctx context.Context, ch *hub.Channel, all []ref, mem *scratch, yield func(hub.Sealed, error) bool) bool {
	for len(all) > 0 {
		n := 1
		if d := all[0].zip; d != nil {
			begin, end := all[0].entry.offset, all[0].entry.offset
			for ; n < len(all) && all[n].zip == d; n++ {
				e := &all[n].entry
				if begin, end = min(begin, e.offset), max(end, e.offset); end-begin > groupBytes {
					break
				}
			}
			if !s.readZip(ctx, ch, all[:n], mem, yield) {
				return false
			}
		} else {
			for n < len(all) && n < itemsAtOnce && all[n].zip == nil {
				n++
			}
			if !s.readSingles(ctx, ch, all[:n], yield) {
				return false
			}
		}
		all = all[n:]
	}
	return true
}

func (s *Store) readZip(ctx context.Context, ch *hub.Channel, all []ref, mem *scratch, yield func(hub.Sealed, error) bool) bool {
	entries := make([]entry, len(all))
	for i := range all {
		entries[i] = all[i].entry
	}
	done := 0
	for item, err := range s.entries(ctx, s.object(all[0].zip), entries, mem) {
		if hub.Is(err, hub.Conflict) || hub.Is(err, hub.NotFound) {
			break // replaced or deleted meanwhile: one by one, then
		}
		done++
		if err != nil {
			err = fmt.Errorf("read %s: %w", all[0].zip.name, err)
		}
		if !yield(item, err) || err != nil {
			return false
		}
	}
	for _, r := range all[done:] {
		item, err := s.readBatch(ctx, ch, r.key)
		if hub.Is(err, hub.NotFound) {
			continue
		}
		if !yield(item, err) || err != nil {
			return false
		}
	}
	return true
}

func (s *Store) readSingles(ctx context.Context, ch *hub.Channel, all []ref, yield func(hub.Sealed, error) bool) bool {
	items := make([]hub.Sealed, len(all))
	errs := make([]error, len(all))
	var g errgroup.Group
	for i := range all {
		g.Go(func() error {
			items[i], errs[i] = s.readSingle(ctx, ch, all[i].key)
			return nil
		})
	}
	g.Wait()
	for i, err := range errs {
		if hub.Is(err, hub.NotFound) {
			continue
		}
		if !yield(items[i], err) || err != nil {
			return false
		}
	}
	return true
}

// refs finds the items of a query in the order of its search, each once: if a key lies in both layouts, the zip's counts.
func (s *Store) refs(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[ref, error] {
	batches := (ch.Storage.Batches() || ch.Mixed) && q.Tier.Long() && q.Tier != hub.LongTermSingle
	singles := (ch.Storage.Singles() || ch.Mixed) && q.Tier.Long() && q.Tier != hub.LongTermBatch
	switch {
	case !q.From.Less(q.To):
		return func(func(ref, error) bool) {}
	case batches && singles:
		return merge(s.batchRefs(ctx, ch, q), s.singleRefs(ctx, ch, q), q.Reverse)
	case batches:
		return s.batchRefs(ctx, ch, q)
	case singles:
		return s.singleRefs(ctx, ch, q)
	}
	return func(func(ref, error) bool) {}
}

// merge is the union of two sorted sequences. The first error ends it.
func merge(first, second iter.Seq2[ref, error], reverse bool) iter.Seq2[ref, error] {
	return func(yield func(ref, error) bool) {
		nextA, stopA := iter.Pull2(first)
		defer stopA()
		nextB, stopB := iter.Pull2(second)
		defer stopB()
		a, errA, okA := nextA()
		b, errB, okB := nextB()
		for okA || okB {
			if okA && errA != nil || okB && errB != nil {
				if errA == nil {
					errA = errB
				}
				yield(ref{}, errA)
				return
			}
			c := -1 // which comes first
			switch {
			case !okA:
				c = 1
			case okB:
				if c = a.key.Compare(b.key); reverse {
					c = -c
				}
			}
			out := a
			if c > 0 {
				out = b
			}
			if !yield(out, nil) {
				return
			}
			if c <= 0 {
				a, errA, okA = nextA()
			}
			if c >= 0 {
				b, errB, okB = nextB()
			}
		}
	}
}

func (s *Store) singleRefs(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[ref, error] {
	return func(yield func(ref, error) bool) {
		root := singleRoot(ch)
		for i, err := range s.blobs(ctx, span{root: root, lo: q.From.String(), hi: q.To.String(), limit: q.Limit}, q.Reverse) {
			if err != nil {
				yield(ref{}, err)
				return
			}
			key, ok := keyOf([]byte(i.Name[len(root):]))
			if ok && !yield(ref{key: key, single: i}, nil) {
				return
			}
		}
	}
}

func (s *Store) batchRefs(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[ref, error] {
	return func(yield func(ref, error) bool) {
		for d, err := range s.directories(ctx, ch, q) {
			if err != nil {
				yield(ref{}, err)
				return
			}
			if !s.zipRefs(ctx, d, q, yield) {
				return
			}
		}
	}
}

// zipRefs yields the items of one zip. If it is replaced while its directory is read, it goes on in the new one: a minute only grows, so nothing that was
// yielded is lost, and what came below is left to the next query.
func (s *Store) zipRefs(ctx context.Context, d *directory, q hub.Query, yield func(ref, error) bool) bool {
	from, to := q.From, q.To
	for try := 0; ; try++ {
		again := false
		for e, err := range d.walk(ctx, s.object(d), from, to, q.Reverse) {
			if hub.Is(err, hub.Conflict) && try < rereads {
				again = true
				break
			}
			if err != nil {
				yield(ref{}, fmt.Errorf("read the directory of %s: %w", d.name, err))
				return false
			}
			if !yield(ref{key: e.key, zip: d, entry: e}, nil) {
				return false
			}
			if from = e.key.After(); q.Reverse {
				from, to = q.From, e.key
			}
		}
		if !again {
			return true
		}
		minute, _ := parseMinute(d.name[len(d.name)-len("2006/01/02/15/04"):])
		var err error
		if d, err = s.current(ctx, d.name, minute); hub.Is(err, hub.NotFound) {
			return true
		} else if err != nil {
			yield(ref{}, err)
			return false
		}
	}
}

// directories yields those of the zips that a query may find something in, in its order, a few of them loaded at the same time.
func (s *Store) directories(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[*directory, error] {
	return func(yield func(*directory, error) bool) {
		root := zipRoot(ch)
		sp := span{root: root, lo: minuteText(q.From.Time()), hi: minuteText(q.To.Time()), minutes: true, limit: q.Limit}
		if q.To != hub.First(q.To.Time().Truncate(time.Minute)) {
			sp.hi += "~" // the minute of To is asked for too
		}
		var group []bucket.Info
		most := 1
		flush := func() bool {
			all, err := s.loadAll(ctx, group, root)
			for _, d := range all {
				if d != nil && !yield(d, nil) {
					return false
				}
			}
			group, most = group[:0], min(2*most, directoriesAtOnce)
			return err == nil || yield(nil, err) && false
		}
		for i, err := range s.blobs(ctx, sp, q.Reverse) {
			if err != nil {
				if flush() {
					yield(nil, err)
				}
				return
			}
			if _, ok := parseMinute(i.Name[len(root):]); !ok {
				continue
			}
			if group = append(group, i); len(group) >= most && !flush() {
				return
			}
		}
		flush()
	}
}

// loadAll loads directories; nil stands for one whose object is gone. With an error, those before the first that failed are returned.
func (s *Store) loadAll(ctx context.Context, infos []bucket.Info, root string) ([]*directory, error) {
	all := make([]*directory, len(infos))
	errs := make([]error, len(infos))
	var g errgroup.Group
	for n, i := range infos {
		g.Go(func() error {
			minute, _ := parseMinute(i.Name[len(root):])
			all[n], errs[n] = s.directory(ctx, i, minute)
			if hub.Is(errs[n], hub.Conflict) {
				all[n], errs[n] = s.current(ctx, i.Name, minute)
			}
			if hub.Is(errs[n], hub.NotFound) {
				all[n], errs[n] = nil, nil
			}
			return nil
		})
	}
	g.Wait()
	for n, err := range errs {
		if err != nil {
			return all[:n], err
		}
	}
	return all, nil
}
