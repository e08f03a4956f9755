package longterm

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
)

// cache keeps the directories that were used last.
type cache struct {
	limit int64 // of the sum of costs

	mu   sync.Mutex // guards the fields below
	used int64
	list *list.List               // of *directory, the last used in front
	by   map[string]*list.Element // by name of the object
}

func newCache(limit int64) cache {
	return cache{limit: limit, list: list.New(), by: map[string]*list.Element{}}
}

// get returns the directory of an object in a version, in any version if that is "".
func (c *cache) get(name, version string) (*directory, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[name]
	if !ok {
		return nil, false
	}
	d := e.Value.(*directory)
	if version != "" && d.version != version {
		return nil, false
	}
	c.list.MoveToFront(e)
	return d, true
}

func (c *cache) put(d *directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(d.name)
	if d.cost() > c.limit/2 {
		return
	}
	c.by[d.name] = c.list.PushFront(d)
	c.used += d.cost()
	for c.used > c.limit {
		c.remove(c.list.Back().Value.(*directory).name)
	}
}

func (c *cache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(name)
}

// remove needs the mutex.
func (c *cache) remove(name string) {
	if e, ok := c.by[name]; ok {
		c.used -= e.Value.(*directory).cost()
		c.list.Remove(e)
		delete(c.by, name)
	}
}

// object is the version that a directory belongs to.
func (s *Store) object(d *directory) object {
	return object{s.bucket, d.name, d.version, d.size}
}

// directory returns the directory of an object as a listing or a Stat described it.
func (s *Store) directory(ctx context.Context, info bucket.Info, minute time.Time) (*directory, error) {
	if d, ok := s.cache.get(info.Name, info.Version); ok {
		return d, nil
	}
	d, err := loadDirectory(ctx, object{s.bucket, info.Name, info.Version, info.Size}, minute)
	if err != nil {
		return nil, fmt.Errorf("read the directory of %s: %w", info.Name, err)
	}
	d.name, d.version = info.Name, info.Version
	s.cache.put(d)
	return d, nil
}

// rereads is how often a read begins again because the object was replaced meanwhile.
const rereads = 8

// current returns the directory of an object as it is now. NotFound if there is none.
func (s *Store) current(ctx context.Context, name string, minute time.Time) (*directory, error) {
	for try := 0; ; try++ {
		info, err := s.bucket.Stat(ctx, name)
		if err != nil {
			return nil, err
		}
		d, err := s.directory(ctx, info, minute)
		if hub.Is(err, hub.Conflict) && try < rereads {
			continue
		}
		return d, err
	}
}

// readBatch finds an item in the zip of its minute. A directory that is cached spares the look at the object: the read says which version it means.
func (s *Store) readBatch(ctx context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error) {
	minute := hub.WindowAt(key.Time(), hub.Minute).Start
	name := zipName(ch, minute)
	if d, ok := s.cache.get(name, ""); ok {
		item, err := s.readFrom(ctx, d, key)
		if err == nil || !hub.Is(err, hub.NotFound) && !hub.Is(err, hub.Conflict) {
			return item, err
		}
	}
	for try := 0; ; try++ {
		d, err := s.current(ctx, name, minute)
		if hub.Is(err, hub.NotFound) {
			s.cache.drop(name)
		}
		if err != nil {
			return hub.Sealed{}, err
		}
		item, err := s.readFrom(ctx, d, key)
		if hub.Is(err, hub.Conflict) && try < rereads {
			continue
		}
		return item, err
	}
}

func (s *Store) readFrom(ctx context.Context, d *directory, key hub.Key) (hub.Sealed, error) {
	e, ok, err := d.find(ctx, s.object(d), key)
	if err != nil {
		return hub.Sealed{}, err
	}
	if !ok {
		return hub.Sealed{}, hub.E(hub.NotFound, "no item %s", key)
	}
	var scratch scratch
	for item, err := range s.entries(ctx, s.object(d), []entry{e}, &scratch) {
		return item, err
	}
	return hub.Sealed{}, errors.New("an entry was not read") // cannot happen: one item or one error comes out
}

// scratch is memory that a reader uses again for item after item.
type scratch struct {
	body []byte
	meta metaReader
}

// entries yields the items of entries of one zip, in the order given, after one read of the range that they span: the caller sees to it that this is not
// too much. Items of damaged entries are errors.
func (s *Store) entries(ctx context.Context, r ranger, all []entry, mem *scratch) func(yield func(hub.Sealed, error) bool) {
	return func(yield func(hub.Sealed, error) bool) {
		begin, end := reach(all)
		end = min(end, r.length())
		if begin > end {
			yield(hub.Sealed{}, corrupt("an entry begins after the end of its zip"))
			return
		}
		data, err := fetch(ctx, r, begin, end-begin)
		if err != nil {
			yield(hub.Sealed{}, err)
			return
		}
		for i := range all {
			item, err := s.entry(ctx, r, &all[i], data[min(all[i].offset, end)-begin:], mem)
			if o, ok := r.(object); ok && errors.Is(err, ErrCorrupt) { // it may be the directory that is wrong here, and right there
				s.cache.drop(o.name)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// reach is the range that entries span.
func reach(all []entry) (begin, end int64) {
	begin = all[0].offset
	for i := range all {
		begin = min(begin, all[i].offset)
		end = max(end, all[i].offset+all[i].span())
	}
	return begin, end
}

// entry makes an item of an entry whose bytes b begins with; what is missing there is read.
func (s *Store) entry(ctx context.Context, r ranger, e *entry, b []byte, mem *scratch) (hub.Sealed, error) {
	at, err := e.localData(b)
	if errors.Is(err, errShort) || err == nil && int64(len(b)-at) < e.packed {
		// A longer extra field than ours. The greatest that there can be, then.
		n := min(lenLocal+int64(len(e.name))+1<<16+e.packed, r.length()-e.offset)
		if b, err = fetch(ctx, r, e.offset, n); err == nil {
			at, err = e.localData(b)
		}
		if err == nil && int64(len(b)-at) < e.packed {
			err = errShort
		}
	}
	if err != nil {
		return hub.Sealed{}, errors.Join(err, shortIsCorrupt(err))
	}
	if mem.body, err = s.inflater.unpack(mem.body[:0], &e.zentry, b[at:int64(at)+e.packed]); err != nil {
		return hub.Sealed{}, err
	}
	m, err := mem.meta.read(e.meta)
	if err != nil {
		return hub.Sealed{}, err
	}
	return s.sealed(e.key, m, mem.body), nil
}
