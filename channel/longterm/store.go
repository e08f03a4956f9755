package longterm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/disk"
	"timehub/hub/seal"
)

// Options are for New.
type Options struct {
	Bucket bucket.Bucket // must be set
	Sealer *seal.Sealer  // must be set
	// Temp takes zips on their way to the bucket, as files in Folder whose names begin with "longterm-". Must be set.
	Temp   disk.Disk
	Folder string // "": "tmp"; made by New
	// MaxItem bounds the bytes of one item that is read, against damaged or hostile objects. 0: 1 GiB and 1 MiB.
	MaxItem int64
	// Cache bounds the memory for directories of batch zips, in bytes. 0: 16 MiB.
	Cache int64
}

// Store is the long-term tier: channel.LongTerm, and what the archive jobs need. It is safe for concurrent use.
type Store struct {
	bucket   bucket.Bucket
	sealer   *seal.Sealer
	temp     disk.Disk
	folder   string
	inflater inflater
	cache    cache
	table    *crc32.Table // Castagnoli
	deflate  sync.Pool    // *flate.Writer
}

// New returns a Store.
func New(opt Options) (*Store, error) {
	if opt.Bucket == nil || opt.Sealer == nil || opt.Temp == nil {
		return nil, errors.New("longterm: Bucket, Sealer and Temp must be set")
	}
	if opt.Folder == "" {
		opt.Folder = "tmp"
	}
	if opt.MaxItem <= 0 {
		opt.MaxItem = 1<<30 + 1<<20
	}
	if opt.Cache <= 0 {
		opt.Cache = 16 << 20
	}
	if err := opt.Temp.MkdirAll(opt.Folder); err != nil {
		return nil, fmt.Errorf("make the folder of temporary files: %w", err)
	}
	return &Store{
		bucket: opt.Bucket, sealer: opt.Sealer, temp: opt.Temp, folder: opt.Folder,
		inflater: inflater{limit: opt.MaxItem}, cache: newCache(opt.Cache), table: crc32.MakeTable(crc32.Castagnoli),
	}, nil
}

// The names of spec 04 §4.1.
func singleRoot(ch *hub.Channel) string             { return ch.Name + "/" }
func largeRoot(ch *hub.Channel) string              { return ch.Name + "/large/" }
func zipRoot(ch *hub.Channel) string                { return ch.Name + "Batch/items/" }
func indexRoot(ch *hub.Channel) string              { return ch.Name + "Batch/index/" }
func singleName(ch *hub.Channel, k hub.Key) string  { return singleRoot(ch) + k.String() }
func largeName(ch *hub.Channel, k hub.Key) string   { return largeRoot(ch) + k.String() }
func zipName(ch *hub.Channel, m time.Time) string   { return zipRoot(ch) + minuteText(m) }
func indexName(ch *hub.Channel, m time.Time) string { return indexRoot(ch) + minuteText(m) }
func minuteText(t time.Time) string                 { return hub.WindowAt(t, hub.Minute).String() }
func (s *Store) spool(memory int) *spool {
	return &spool{disk: s.temp, folder: s.folder, memory: memory, sum: s.table}
}
func (s *Store) zipWriter(w io.Writer) *ZipWriter {
	return newZipWriter(w, ZipOptions{Temp: s.temp, Folder: s.folder, Sum: s.table}, &s.deflate)
}

// parseMinute reads the rest of a name below zipRoot or indexRoot.
func parseMinute(rest string) (time.Time, bool) {
	if len(rest) != len("2006/01/02/15/04") {
		return time.Time{}, false
	}
	w, err := hub.ParseWindow(rest)
	return w.Start, err == nil && w.Unit == hub.Minute
}

// object is one version of an object in the bucket.
type object struct {
	bucket        bucket.Bucket
	name, version string
	size          int64
}

func (o object) length() int64 { return o.size }

func (o object) ranged(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	body, _, err := o.bucket.Get(ctx, o.name, offset, n, o.version)
	if err != nil {
		return nil, err
	}
	return &exact{body, n}, nil
}

// exact is a body that fails if it ends early.
type exact struct {
	io.ReadCloser
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// ranged and length make a spool a ranger.
func (s *spool) length() int64 { return s.size }

func (s *spool) ranged(_ context.Context, offset, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s, offset, n)), nil
}

// Write stores one item durably as a SINGLE object, replacing one of the same key.
func (s *Store) Write(ctx context.Context, ch *hub.Channel, item hub.Sealed) error {
	data, opt, err := s.single(item)
	if err != nil {
		return err
	}
	if _, err := s.bucket.Put(ctx, singleName(ch, item.Key), bytes.NewReader(data), int64(len(data)), opt); err != nil {
		return fmt.Errorf("store an item: %w", err)
	}
	return nil
}

// single is the object of an item: spec 04 §1.
func (s *Store) single(item hub.Sealed) ([]byte, bucket.PutOptions, error) {
	env, body, err := s.open(nil, item)
	if err != nil {
		return nil, bucket.PutOptions{}, err
	}
	meta := metaOf(env.Meta)
	var b bytes.Buffer
	z := newZipWriter(&b, ZipOptions{Comment: strconv.FormatInt(env.Size, 10)}, &s.deflate)
	err = errors.Join(z.plain("meta", item.Key.Millis(), appendMeta(nil, meta)), z.plain("payload", item.Key.Millis(), body), z.Close())
	if err != nil {
		return nil, bucket.PutOptions{}, fmt.Errorf("make the object of an item: %w", err)
	}
	kind := meta.ContentType
	if kind == "" {
		kind = "none"
	}
	return b.Bytes(), bucket.PutOptions{ContentType: meta.ContentType, Meta: map[string]string{"type": kind, "compressed": "true"}}, nil
}

// open opens a sealed item into dst.
func (s *Store) open(dst []byte, item hub.Sealed) (seal.Envelope, []byte, error) {
	env, err := seal.Parse(item.Data)
	if err != nil {
		return env, dst, fmt.Errorf("read item %s: %w", item.Key, err)
	}
	body, err := s.sealer.Open(dst, env)
	if err != nil {
		return env, dst, fmt.Errorf("open item %s: %w", item.Key, err)
	}
	return env, body, nil
}

// sealed makes an item of what an object says of it.
func (s *Store) sealed(key hub.Key, m itemMeta, body []byte) hub.Sealed {
	meta := m.sealMeta(key, body)
	dst := make([]byte, 0, 48+len(meta.ContentType)+len(meta.Creator)+len(body))
	return hub.Sealed{Key: key, Data: s.sealer.SealRaw(dst, meta, body)}
}

// Read finds one item: in the layouts of the channel's storage first, then in the other, for a storage can be changed. NotFound if there is none.
func (s *Store) Read(ctx context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error) {
	first, second := s.readBatch, s.readSingle
	if !ch.Storage.Batches() {
		first, second = second, first
	}
	item, err := first(ctx, ch, key)
	if hub.Is(err, hub.NotFound) {
		item, err = second(ctx, ch, key)
	}
	if err != nil {
		return hub.Sealed{}, fmt.Errorf("read an item: %w", err)
	}
	return item, nil
}

func (s *Store) readSingle(ctx context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error) {
	name := singleName(ch, key)
	if bucket.CheckName(name) != nil {
		return hub.Sealed{}, hub.E(hub.NotFound, "no item %s", key) // a key that no store could hold
	}
	body, info, err := s.bucket.Get(ctx, name, 0, -1, "")
	if err != nil {
		return hub.Sealed{}, err
	}
	defer body.Close()
	limit := s.inflater.limit
	if info.Size > limit+limit/1000+1<<16 { // what deflate can add to a body that it can not shrink
		return hub.Sealed{}, corrupt("%s has %d bytes", name, info.Size)
	}
	data := make([]byte, info.Size)
	if _, err := io.ReadFull(body, data); err != nil {
		return hub.Sealed{}, fmt.Errorf("read %s: %w", name, err)
	}
	if info.Meta != nil && info.Meta["compressed"] != "true" {
		kind := info.Meta["type"] // an old object of the original's: the bare payload
		if kind == "none" {
			kind = ""
		}
		return s.sealed(key, itemMeta{ContentType: kind}, data), nil
	}
	m, payload, err := s.parseSingle(ctx, data)
	if err != nil {
		return hub.Sealed{}, fmt.Errorf("%s: %w", name, err)
	}
	return s.sealed(key, m, payload), nil
}

// parseSingle reads a SINGLE object.
func (s *Store) parseSingle(ctx context.Context, data []byte) (m itemMeta, payload []byte, err error) {
	r := memory(data)
	end, _, err := readEnd(ctx, r)
	if err != nil {
		return m, nil, err
	}
	dir := data[end.offset : end.offset+end.length]
	found := map[string][]byte{}
	for len(dir) > 0 {
		e, n, err := parseCentral(dir)
		if err != nil {
			return m, nil, errors.Join(err, shortIsCorrupt(err))
		}
		dir = dir[n:]
		if found[string(e.name)], err = s.unpackAt(data, &e); err != nil {
			return m, nil, err
		}
	}
	text, ok1 := found["meta"]
	payload, ok2 := found["payload"]
	if !ok1 || !ok2 || len(found) != 2 {
		return m, nil, corrupt("not an entry meta and an entry payload")
	}
	m, err = new(metaReader).read(text)
	return m, payload, err
}

// unpackAt unpacks an entry of a zip in memory.
func (s *Store) unpackAt(data []byte, e *zentry) ([]byte, error) {
	if e.offset > int64(len(data)) {
		return nil, corrupt("entry %s lies outside", e.name)
	}
	b := data[e.offset:]
	at, err := e.localData(b)
	if err != nil {
		return nil, errors.Join(err, shortIsCorrupt(err))
	}
	if e.packed > int64(len(b)-at) {
		return nil, corrupt("entry %s is cut off", e.name)
	}
	return s.inflater.unpack(nil, e, b[at:int64(at)+e.packed])
}

// memory is a ranger over bytes.
type memory []byte

func (m memory) length() int64 { return int64(len(m)) }

func (m memory) ranged(_ context.Context, offset, n int64) (io.ReadCloser, error) {
	if offset < 0 || n < 0 || offset > int64(len(m)) || n > int64(len(m))-offset {
		return nil, corrupt("bytes %d to %d of %d", offset, offset+n, len(m))
	}
	return io.NopCloser(bytes.NewReader(m[offset : offset+n])), nil
}

// deleteSniff is the size up to which Delete looks whether an object is the index of a large item.
const deleteSniff = 4 << 10

// Delete removes single items and their large bodies, durably; a key that does not exist is no error. The bodies go first: if the process dies in between,
// doing it again finds the rest.
func (s *Store) Delete(ctx context.Context, ch *hub.Channel, keys ...hub.Key) error {
	var bodies, items []string
	for _, key := range keys {
		name := singleName(ch, key)
		if bucket.CheckName(name) != nil {
			continue
		}
		items = append(items, name)
		bodies = append(bodies, largeName(ch, key))
		info, err := s.bucket.Stat(ctx, name)
		if hub.Is(err, hub.NotFound) || err == nil && info.Size > deleteSniff {
			continue
		}
		if err != nil {
			return fmt.Errorf("delete an item: %w", err)
		}
		if body, ok, err := s.largeBody(ctx, ch, key); err != nil {
			return fmt.Errorf("delete an item: %w", err)
		} else if ok {
			bodies = append(bodies, body)
		}
	}
	for _, names := range [][]string{bodies, items} {
		if err := s.bucket.Delete(ctx, names...); err != nil {
			return fmt.Errorf("delete an item: %w", err)
		}
	}
	return nil
}

// largeBody is the name of the body of a large item that lies under another key than its index.
func (s *Store) largeBody(ctx context.Context, ch *hub.Channel, key hub.Key) (string, bool, error) {
	item, err := s.readSingle(ctx, ch, key)
	if errors.Is(err, ErrCorrupt) || hub.Is(err, hub.NotFound) {
		return "", false, nil // what can not be read can be deleted all the same
	}
	if err != nil {
		return "", false, err
	}
	env, body, err := s.open(nil, item)
	if err != nil || !env.Large {
		return "", false, err
	}
	x, ok := parseLarge(body)
	if !ok {
		return "", false, nil
	}
	at, err := hub.ParseKey(x.Key)
	if err != nil || bucket.CheckName(largeName(ch, at)) != nil {
		return "", false, nil
	}
	return largeName(ch, at), true, nil
}

// WriteLarge stores the body of a large item before its index item is written (spec 01 §1.6). It reads body once and returns the bytes it took.
func (s *Store) WriteLarge(ctx context.Context, ch *hub.Channel, key hub.Key, contentType string, body io.Reader) (int64, error) {
	kind := contentType
	if kind == "" {
		kind = "none"
	}
	n := &counted{r: body}
	info, err := s.bucket.Put(ctx, largeName(ch, key), n, -1, bucket.PutOptions{ContentType: contentType, Meta: map[string]string{"type": kind}})
	if err != nil {
		return n.n, fmt.Errorf("store a large body: %w", err)
	}
	if info.Size != n.n {
		return n.n, fmt.Errorf("store a large body: %d bytes of %d arrived", info.Size, n.n)
	}
	return n.n, nil
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadLarge reads n bytes (n < 0: the rest) of such a body from offset.
func (s *Store) ReadLarge(ctx context.Context, ch *hub.Channel, key hub.Key, offset, n int64) (io.ReadCloser, error) {
	body, _, err := s.bucket.Get(ctx, largeName(ch, key), offset, n, "")
	if err != nil {
		return nil, fmt.Errorf("read a large body: %w", err)
	}
	return body, nil
}
