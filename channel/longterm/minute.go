package longterm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
)

// How a minute is confirmed.
//
//  1. The items become a zip in a spool.
//  2. It is put, if nothing has that name. If something has: identical bytes are as good; if it holds all our items, so is that; else the union of both is put,
//     provided that what was read is still there, and again from the start of 2 if not. A minute never loses an item, whoever writes at the same time.
//  3. The zip is read back: byte for byte the spool, or, if somebody added to it since, item for item by checksum.
//  4. The index is made of what the zip in the bucket holds, put in the same manner and read back.
//
// Whatever fails, and if the process dies at any point, doing it all again is right: a put that failed may have happened, then step 2 finds it. A reader sees
// the minute from 2 on; it reads the zip only.

const (
	zipMemory  = 1 << 20 // bytes of a zip that are not worth a temporary file
	mergeTries = 16      // times that somebody else may be quicker
)

// PutMinute stores the items of one minute of a channel as its zip and index, durably, and returns how many there were, once both have been read back and
// hold every one. The items must come in the order of their keys and lie in the minute; one key twice is one item. Nothing is written for no items. Items that
// the zip has already stay in it. Conflict: an item is there with other content, which nobody but a person can judge. After any other error, or a crash,
// call it again.
func (s *Store) PutMinute(ctx context.Context, ch *hub.Channel, minute time.Time, items iter.Seq2[hub.Sealed, error]) (n int, err error) {
	minute = hub.WindowAt(minute, hub.Minute).Start
	ours := s.spool(zipMemory)
	defer ours.close()
	if n, err = s.pack(ctx, ours, minute, items); err != nil || n == 0 {
		return 0, err
	}
	name := zipName(ch, minute)
	if err := s.putZip(ctx, name, minute, ours); err != nil {
		return 0, fmt.Errorf("store %s: %w", name, err)
	}
	if err := s.putIndex(ctx, ch, minute); err != nil {
		return 0, fmt.Errorf("store %s: %w", indexName(ch, minute), err)
	}
	return n, nil
}

// pack writes the zip of items.
func (s *Store) pack(ctx context.Context, to io.Writer, minute time.Time, items iter.Seq2[hub.Sealed, error]) (n int, err error) {
	z := s.zipWriter(to)
	defer z.Abort()
	var body []byte
	var last hub.Key
	for item, err := range items {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, fmt.Errorf("read the items of a minute: %w", err)
		}
		if n > 0 && item.Key == last {
			continue
		}
		if n > 0 && item.Key.Less(last) || !hub.WindowAt(item.Key.Time(), hub.Minute).Start.Equal(minute) {
			return 0, fmt.Errorf("pack the minute %s: item %s is out of order", minuteText(minute), item.Key)
		}
		env, opened, err := s.open(body[:0], item)
		if err != nil {
			return 0, err
		}
		body = opened
		if err := z.item(item.Key, metaOf(env.Meta), body); err != nil {
			return 0, fmt.Errorf("pack item %s: %w", item.Key, err)
		}
		last = item.Key
		n++
	}
	return n, z.Close()
}

// putZip is steps 2 and 3. ours is closed by the caller.
func (s *Store) putZip(ctx context.Context, name string, minute time.Time, ours *spool) error {
	next, opt := ours, bucket.PutOptions{IfAbsent: true, ContentType: "application/zip"}
	defer func() {
		if next != ours {
			next.close()
		}
	}()
	for range mergeTries {
		put, err := s.bucket.Put(ctx, name, next.reader(), next.size, opt)
		if err != nil && !hub.Is(err, hub.Conflict) {
			return err
		}
		same, version, err := s.sameBytes(ctx, name, next)
		if err == nil && same {
			return nil
		}
		if hub.Is(err, hub.NotFound) { // removed behind our back
			opt.IfAbsent, opt.IfMatch = true, ""
			continue
		}
		if err != nil {
			return err
		}
		if put.Version == version {
			return corrupt("what was read back is not what was written")
		}
		// Something else is there: it has all of ours, or it shall.
		merged, version, err := s.mergeZips(ctx, name, minute, ours)
		if hub.Is(err, hub.Conflict) && !errors.Is(err, errOtherContent) || hub.Is(err, hub.NotFound) {
			continue
		}
		if err != nil || merged == nil {
			return err
		}
		if next != ours {
			next.close()
		}
		next = merged
		opt.IfAbsent, opt.IfMatch = false, version
	}
	return hub.E(hub.Unavailable, "others write %s all the time", name)
}

// sameBytes reads an object and compares it with a spool.
func (s *Store) sameBytes(ctx context.Context, name string, with *spool) (same bool, version string, err error) {
	body, info, err := s.bucket.Get(ctx, name, 0, -1, "")
	if err != nil {
		return false, "", err
	}
	defer body.Close()
	if info.Size != with.size {
		return false, info.Version, nil
	}
	sum := crc32.New(s.table)
	n, err := io.Copy(sum, body)
	if err == nil && n != info.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return false, "", fmt.Errorf("read back %s: %w", name, err)
	}
	return sum.Sum32() == with.digest, info.Version, nil
}

// errOtherContent is in the chain of the Conflict of two contents under one key.
var errOtherContent = errors.New("two contents under one key")

// mergeZips compares the zip in the bucket with ours. If it holds every item of ours, merged is nil, and every one of its items has been read. Otherwise
// merged is the zip of the union, and version that of the object it was made with.
func (s *Store) mergeZips(ctx context.Context, name string, minute time.Time, ours *spool) (merged *spool, version string, err error) {
	there, err := s.current(ctx, name, minute)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if errors.Is(err, ErrCorrupt) { // it may be the directory that is wrong here, and right there
			s.cache.drop(name)
		}
	}()
	mine, err := loadDirectory(ctx, ours, minute)
	if err != nil {
		return nil, "", err
	}
	news, err := s.compare(ctx, there, mine, ours)
	if err != nil {
		return nil, "", err
	}
	if !news {
		all := s.allRefs(ctx, there, s.object(there))
		return nil, there.version, s.each(ctx, all, there, ours, func(*entry, itemMeta, []byte) error { return nil })
	}
	both := merge(s.allRefs(ctx, there, s.object(there)), s.allRefs(ctx, mine, ours), false)
	merged = s.spool(zipMemory)
	if err := s.union(ctx, merged, both, there, ours); err != nil {
		merged.close()
		return nil, "", err
	}
	return merged, there.version, nil
}

// compare reports whether mine holds items that there does not. An item that both hold must be the same.
func (s *Store) compare(ctx context.Context, there, mine *directory, ours *spool) (news bool, err error) {
	next, stop := iter.Pull2(there.walk(ctx, s.object(there), hub.MinKey, hub.MaxKey, false))
	defer stop()
	t, err, ok := next()
	for m, mineErr := range mine.walk(ctx, ours, hub.MinKey, hub.MaxKey, false) {
		if mineErr != nil {
			return false, mineErr
		}
		for ok && err == nil && t.key.Less(m.key) {
			t, err, ok = next()
		}
		if ok && err != nil {
			return false, err
		}
		if !ok || t.key != m.key {
			news = true
		} else if t.crc != m.crc || t.size != m.size {
			return false, hub.E(hub.Conflict, "item %s is in long-term storage with other content", m.key).Because(errOtherContent)
		}
	}
	return news, nil
}

func (s *Store) allRefs(ctx context.Context, d *directory, r ranger) iter.Seq2[ref, error] {
	return func(yield func(ref, error) bool) {
		for e, err := range d.walk(ctx, r, hub.MinKey, hub.MaxKey, false) {
			if !yield(ref{key: e.key, zip: d, entry: e}, err) || err != nil {
				return
			}
		}
	}
}

// union writes the zip of refs: those of there from the bucket, all others from our spool. Each is unpacked and checked on the way.
func (s *Store) union(ctx context.Context, to io.Writer, refs iter.Seq2[ref, error], there *directory, ours *spool) error {
	z := s.zipWriter(to)
	defer z.Abort()
	if err := s.each(ctx, refs, there, ours, func(e *entry, m itemMeta, body []byte) error { return z.item(e.key, m, body) }); err != nil {
		return err
	}
	return z.Close()
}

func (s *Store) each(ctx context.Context, refs iter.Seq2[ref, error], there *directory, ours *spool, do func(*entry, itemMeta, []byte) error) error {
	inBucket, inSpool := &ahead{r: s.object(there)}, &ahead{r: ours}
	var mem scratch
	for r, err := range refs {
		if err != nil {
			return err
		}
		from := inSpool
		if r.zip == there {
			from = inBucket
		}
		packed, err := from.data(ctx, &r.entry)
		if err != nil {
			return err
		}
		if mem.body, err = s.inflater.unpack(mem.body[:0], &r.entry.zentry, packed); err != nil {
			return err
		}
		m, err := mem.meta.read(r.entry.meta)
		if err != nil {
			return err
		}
		if err := do(&r.entry, m, mem.body); err != nil {
			return err
		}
	}
	return nil
}

// ahead reads entries that lie one behind the other by large ranges.
type ahead struct {
	r     ranger
	begin int64
	buf   []byte
}

const aheadBytes = 1 << 20

// data returns the packed data of an entry, valid until the next call.
func (a *ahead) data(ctx context.Context, e *entry) ([]byte, error) {
	need := e.span()
	for range 2 {
		if off := e.offset - a.begin; off >= 0 && off <= int64(len(a.buf)) {
			b := a.buf[off:]
			at, err := e.localData(b)
			if err == nil && int64(len(b)-at) >= e.packed {
				return b[at : int64(at)+e.packed], nil
			}
			if err != nil && !errors.Is(err, errShort) {
				return nil, err
			}
		}
		if e.offset > a.r.length() {
			break
		}
		n := min(max(need+1<<16, aheadBytes), a.r.length()-e.offset)
		buf, err := fetch(ctx, a.r, e.offset, n)
		if err != nil {
			return nil, err
		}
		a.begin, a.buf = e.offset, buf
	}
	return nil, corrupt("entry %s is cut off", e.name)
}

// putIndex is step 4. The old index is looked at before the zip: were it the other way round, a zip that grows in between could be followed by an index that
// knows nothing of it.
func (s *Store) putIndex(ctx context.Context, ch *hub.Channel, minute time.Time) error {
	name, opt := indexName(ch, minute), bucket.PutOptions{IfAbsent: true, ContentType: "application/json"}
	for range mergeTries {
		text, err := s.indexText(ctx, ch, minute)
		if err != nil {
			return err
		}
		done, err := s.tryIndex(ctx, name, text, opt)
		if done || err != nil {
			return err
		}
		info, err := s.bucket.Stat(ctx, name)
		if err != nil && !hub.Is(err, hub.NotFound) {
			return err
		}
		opt.IfAbsent, opt.IfMatch = err != nil, info.Version
	}
	return hub.E(hub.Unavailable, "others write %s all the time", name)
}

// tryIndex puts an index and reads it back; the text is closed. Not done: something else is there.
func (s *Store) tryIndex(ctx context.Context, name string, text *spool, opt bucket.PutOptions) (done bool, err error) {
	defer text.close()
	put, err := s.bucket.Put(ctx, name, text.reader(), text.size, opt)
	if err != nil && !hub.Is(err, hub.Conflict) {
		return false, err
	}
	same, version, err := s.sameBytes(ctx, name, text)
	switch {
	case hub.Is(err, hub.NotFound):
		return false, nil
	case err != nil || same:
		return same, err
	case put.Version == version:
		return false, corrupt("what was read back is not what was written")
	}
	return false, nil
}

// indexText is the index of the zip in the bucket (spec 04 §4.2).
func (s *Store) indexText(ctx context.Context, ch *hub.Channel, minute time.Time) (*spool, error) {
	d, err := s.current(ctx, zipName(ch, minute), minute)
	if err != nil {
		return nil, err
	}
	text := s.spool(zipMemory)
	line := append([]byte(`{"id":"`), minuteText(minute)...)
	line = append(line, `","items":[`...)
	first := true
	for e, err := range d.walk(ctx, s.object(d), hub.MinKey, hub.MaxKey, false) {
		if err == nil {
			if !first {
				line = append(line, ',')
			}
			first = false
			line = appendJSONText(line, e.name)
			if len(line) > 16<<10 {
				_, err = text.Write(line)
				line = line[:0]
			}
		}
		if err != nil {
			text.close()
			return nil, err
		}
	}
	if _, err := text.Write(append(line, "]}"...)); err != nil {
		text.close()
		return nil, err
	}
	return text, nil
}

// PutSingle is Write for the archiver: it stores one item as a SINGLE object unless that is there already, reads back what is there and returns once that
// is the item. An object that can not be read is replaced. Conflict: it is there with other content.
func (s *Store) PutSingle(ctx context.Context, ch *hub.Channel, item hub.Sealed) error {
	data, opt, err := s.single(item)
	if err != nil {
		return err
	}
	name := singleName(ch, item.Key)
	opt.IfAbsent = true
	for range mergeTries {
		_, err := s.bucket.Put(ctx, name, bytes.NewReader(data), int64(len(data)), opt)
		if err != nil && !hub.Is(err, hub.Conflict) {
			return fmt.Errorf("store an item: %w", err)
		}
		version, err := s.confirmSingle(ctx, ch, name, item, data)
		switch {
		case err == nil:
			return nil
		case hub.Is(err, hub.NotFound):
			opt.IfAbsent, opt.IfMatch = true, ""
		case errors.Is(err, ErrCorrupt) && version != "" && version != opt.IfMatch:
			opt.IfAbsent, opt.IfMatch = false, version
		default:
			return fmt.Errorf("store an item: %w", err)
		}
	}
	return hub.E(hub.Unavailable, "others write %s all the time", name)
}

// confirmSingle reads an object back: it must be the bytes that were written, or others that hold the same item.
func (s *Store) confirmSingle(ctx context.Context, ch *hub.Channel, name string, item hub.Sealed, data []byte) (version string, err error) {
	body, info, err := s.bucket.Get(ctx, name, 0, -1, "")
	if err != nil {
		return "", err
	}
	defer body.Close()
	if info.Size == int64(len(data)) {
		there := make([]byte, len(data))
		if _, err := io.ReadFull(body, there); err != nil {
			return "", fmt.Errorf("read back %s: %w", name, err)
		}
		if bytes.Equal(there, data) {
			return info.Version, nil
		}
	}
	stored, err := s.readSingle(ctx, ch, item.Key)
	if err != nil {
		return info.Version, err
	}
	have, payload, err := s.open(nil, stored)
	if err != nil {
		return info.Version, err
	}
	want, expected, err := s.open(nil, item)
	if err != nil {
		return "", err
	}
	if have.ContentType != want.ContentType || have.Large != want.Large || !bytes.Equal(payload, expected) {
		return info.Version, hub.E(hub.Conflict, "item %s is in long-term storage with other content", item.Key).Because(errOtherContent)
	}
	return info.Version, nil
}

// MinuteKeys yields the keys that the zip of a minute holds, in order; none if there is no zip.
func (s *Store) MinuteKeys(ctx context.Context, ch *hub.Channel, minute time.Time) iter.Seq2[hub.Key, error] {
	w := hub.WindowAt(minute, hub.Minute)
	return func(yield func(hub.Key, error) bool) {
		for r, err := range s.batchRefs(ctx, ch, hub.Query{From: w.From(), To: w.To()}) {
			if err != nil {
				err = fmt.Errorf("read the keys of a minute: %w", err)
			}
			if !yield(r.key, err) {
				return
			}
		}
	}
}

// MinuteDigest returns the number of a minute's distinct keys in one layout, hub.Single or hub.Batch, and the sum of their digests, as Spoke does. The zip of
// a minute tells both without its items being read.
func (s *Store) MinuteDigest(ctx context.Context, ch *hub.Channel, layout hub.Storage, minute time.Time) (count int, digest uint64, err error) {
	w := hub.WindowAt(minute, hub.Minute)
	if layout == hub.Batch {
		d, err := s.current(ctx, zipName(ch, w.Start), w.Start)
		if hub.Is(err, hub.NotFound) {
			return 0, 0, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read the digest of a minute: %w", err)
		}
		return d.count, d.digest, nil
	}
	for r, err := range s.singleRefs(ctx, ch, hub.Query{From: w.From(), To: w.To()}) {
		if err != nil {
			return 0, 0, fmt.Errorf("read the digest of a minute: %w", err)
		}
		count++
		digest += r.key.Digest()
	}
	return count, digest, nil
}
