// Package mem is a bucket in memory, for unit tests and simulations. It keeps Meta, versions are digests of the content as S3's are, and a hook decides of
// each call whether it is late, fails before it has an effect ("failed and did not persist"), fails after it ("failed but persisted") or answers with a body
// that breaks off. The order of calls that touch one name is never changed by a fault.
//
// It also watches: told which names are immutable, it complains when the content under one of them changes.
//
// Nothing here holds a mutex while it waits or reads a body, so a bucket can be shared by the nodes of a synctest bubble and outlive each of them.
package mem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
)

// Verb names a method of the bucket.
type Verb string

// The verbs.
const (
	Put    Verb = "put"
	Get    Verb = "get"
	Stat   Verb = "stat"
	List   Verb = "list"
	Delete Verb = "delete"
)

// Call is what the fault hook is told of a call.
type Call struct {
	Verb    Verb
	Name    string // the prefix for List; Delete asks once for each name
	Options bucket.PutOptions
	Size    int64 // of a Put's body, which has been read by then
}

// Fault is what shall happen to a call. The zero value is: nothing.
type Fault struct {
	Delay  time.Duration // before the effect
	Before error         // the call fails and has no effect
	After  error         // the call has its effect and fails
	Late   time.Duration // after the effect, before the answer
	// Cut, if positive, lets the body of a Get break off with io.ErrUnexpectedEOF after so many bytes.
	Cut int64
	// Flip, if positive, lets the Flip-th byte of the body of a Get be another, counted around its end: a body of three bytes and 4 is the first one.
	Flip int64
}

// Options are for New.
type Options struct {
	Fault func(Call) Fault // nil: no faults; called without any lock held, from many goroutines
	Clock hub.Clock        // nil: time.Now
	// Immutable tells the names whose content must never change once written; deleting them is allowed.
	Immutable func(name string) bool
	// Complain is called with a sentence when an immutable blob was changed; nil: panic.
	Complain func(string)
}

// Bucket is a bucket.Bucket in memory.
type Bucket struct {
	opt Options

	mu    sync.Mutex // guards the fields below; never held across a hook
	blobs map[string]*blob
	names []string // sorted
}

type blob struct {
	info bucket.Info
	data []byte // never changed
}

// New returns an empty bucket.
func New(opt Options) *Bucket {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Complain == nil {
		opt.Complain = func(s string) { panic("bucket/mem: " + s) }
	}
	return &Bucket{opt: opt, blobs: map[string]*blob{}}
}

// ask consults the hook and waits as it says. An error is the call's answer before any effect.
func (b *Bucket) ask(ctx context.Context, c Call) (Fault, error) {
	if err := ctx.Err(); err != nil {
		return Fault{}, err
	}
	if b.opt.Fault == nil {
		return Fault{}, nil
	}
	f := b.opt.Fault(c)
	if err := wait(ctx, f.Delay); err != nil {
		return f, err
	}
	return f, f.Before
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	if !hub.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// answer ends a call that has had its effect.
func (f Fault) answer(ctx context.Context) error {
	if f.Late > 0 {
		if err := wait(ctx, f.Late); err != nil {
			return err
		}
	}
	return f.After
}

// Put implements bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	if err := bucket.CheckName(name); err != nil {
		return bucket.Info{}, err
	}
	if err := opt.Check(); err != nil {
		return bucket.Info{}, err
	}
	data, err := read(ctx, body, size)
	if err != nil {
		return bucket.Info{}, fmt.Errorf("read the body of %s: %w", name, err)
	}
	f, err := b.ask(ctx, Call{Put, name, opt, int64(len(data))})
	if err != nil {
		return bucket.Info{}, err
	}
	sum := sha256.Sum256(data)
	n := &blob{data: data, info: bucket.Info{
		Name: name, Size: int64(len(data)), Version: hex.EncodeToString(sum[:12]), Modified: b.opt.Clock().UTC(), Meta: meta(opt.Meta),
	}}
	old, err := b.replace(n, opt)
	if err != nil {
		return bucket.Info{}, err
	}
	if old != nil && old.info.Version != n.info.Version && b.opt.Immutable != nil && b.opt.Immutable(name) {
		b.opt.Complain(fmt.Sprintf("the immutable blob %s was changed (%d bytes, then %d)", name, old.info.Size, n.info.Size))
	}
	return clone(n.info), f.answer(ctx)
}

// read takes the whole body, in steps, so that ctx is seen.
func read(ctx context.Context, body io.Reader, size int64) ([]byte, error) {
	if size >= 0 {
		body = io.LimitReader(body, size+1)
	}
	var buf bytes.Buffer
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, err := io.CopyN(&buf, body, 64<<10)
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	if size >= 0 && int64(buf.Len()) != size {
		return nil, fmt.Errorf("%w: the body has not the %d bytes that were announced", io.ErrUnexpectedEOF, size)
	}
	return buf.Bytes(), nil
}

func (b *Bucket) replace(n *blob, opt bucket.PutOptions) (old *blob, err error) {
	name := n.info.Name
	b.mu.Lock()
	defer b.mu.Unlock()
	old = b.blobs[name]
	switch {
	case opt.IfAbsent && old != nil:
		return nil, hub.E(hub.Conflict, "%s is there already", name)
	case opt.IfMatch != "" && (old == nil || old.info.Version != opt.IfMatch):
		return nil, hub.E(hub.Conflict, "%s is not there in version %s", name, opt.IfMatch)
	}
	b.blobs[name] = n
	if old == nil {
		i := sort.SearchStrings(b.names, name)
		b.names = slices.Insert(b.names, i, name)
	}
	return old, nil
}

// Get implements bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, bucket.Info, error) {
	found, f, err := b.find(ctx, Get, name)
	if err != nil {
		return nil, bucket.Info{}, err
	}
	if ifMatch != "" && found.info.Version != ifMatch {
		return nil, bucket.Info{}, hub.E(hub.Conflict, "%s is not there in version %s", name, ifMatch)
	}
	length, err := bucket.Section(name, offset, n, found.info.Size)
	if err != nil {
		return nil, bucket.Info{}, err
	}
	data := found.data[offset : offset+length]
	if f.Flip > 0 && length > 0 {
		data = bytes.Clone(data)
		data[(f.Flip-1)%length] ^= 1 << (f.Flip % 8)
	}
	body := io.Reader(bytes.NewReader(data))
	if f.Cut > 0 && f.Cut < length {
		body = io.MultiReader(io.LimitReader(body, f.Cut), broken{})
	}
	return &reader{ctx, body}, clone(found.info), nil
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, name string) (bucket.Info, error) {
	found, _, err := b.find(ctx, Stat, name)
	if err != nil {
		return bucket.Info{}, err
	}
	return clone(found.info), nil
}

func (b *Bucket) find(ctx context.Context, verb Verb, name string) (*blob, Fault, error) {
	if err := bucket.CheckName(name); err != nil {
		return nil, Fault{}, err
	}
	f, err := b.ask(ctx, Call{Verb: verb, Name: name})
	if err != nil {
		return nil, f, err
	}
	b.mu.Lock()
	found := b.blobs[name]
	b.mu.Unlock()
	if err := f.answer(ctx); err != nil {
		return nil, f, err
	}
	if found == nil {
		return nil, f, hub.E(hub.NotFound, "%s is not stored", name)
	}
	return found, f, nil
}

// List implements bucket.Bucket.
func (b *Bucket) List(ctx context.Context, opt bucket.ListOptions) (bucket.Listing, error) {
	opt, err := opt.Normal()
	if err != nil {
		return bucket.Listing{}, err
	}
	f, err := b.ask(ctx, Call{Verb: List, Name: opt.Prefix})
	if err != nil {
		return bucket.Listing{}, err
	}
	return b.list(opt), f.answer(ctx)
}

func (b *Bucket) list(opt bucket.ListOptions) bucket.Listing {
	b.mu.Lock()
	defer b.mu.Unlock()
	var page bucket.Listing
	last := ""
	for i := sort.SearchStrings(b.names, max(opt.Prefix, opt.After)); i < len(b.names); i++ {
		name := b.names[i]
		if !strings.HasPrefix(name, opt.Prefix) {
			break
		}
		entry, group := name, false
		if opt.Delimiter != "" {
			if at := strings.Index(name[len(opt.Prefix):], opt.Delimiter); at >= 0 {
				entry, group = name[:len(opt.Prefix)+at+1], true
			}
		}
		if entry <= opt.After || group && entry == last {
			continue
		}
		if len(page.Blobs)+len(page.Prefixes) == opt.Max {
			page.Next = last
			break
		}
		last = entry
		if group {
			page.Prefixes = append(page.Prefixes, entry)
			i = sort.SearchStrings(b.names, entry[:len(entry)-1]+"0") - 1 // '0' follows '/': on to the first name outside the group
			continue
		}
		info := b.blobs[name].info
		info.Meta = nil
		page.Blobs = append(page.Blobs, info)
	}
	return page
}

// Delete implements bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := bucket.CheckName(name); err != nil {
			return err
		}
	}
	for _, name := range names {
		f, err := b.ask(ctx, Call{Verb: Delete, Name: name})
		if err != nil {
			return err
		}
		b.remove(name)
		if err := f.answer(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *Bucket) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blobs[name]; ok {
		delete(b.blobs, name)
		i := sort.SearchStrings(b.names, name)
		b.names = slices.Delete(b.names, i, i+1)
	}
}

// Dump returns the content of every blob, for assertions. The bytes must not be changed.
func (b *Bucket) Dump() map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string][]byte, len(b.blobs))
	for name, blob := range b.blobs {
		all[name] = blob.data
	}
	return all
}

// reader sees its context end.
type reader struct {
	ctx  context.Context
	body io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.body.Read(p)
}

func (r *reader) Close() error { return nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func meta(in map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[strings.ToLower(k)] = v
	}
	return out
}

func clone(i bucket.Info) bucket.Info {
	i.Meta = maps.Clone(i.Meta)
	return i
}
