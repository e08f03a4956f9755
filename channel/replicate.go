package channel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"timehub/hub"
	"timehub/hub/seal"
)

// What a replicated channel is made of (ENGINE §7). Its items bring the source's keys through ShortTerm.WriteKeyed; a marker that is written after them says
// up to which key the source was read, and takes the place of the horizon in every answer. The archiver goes up to the marker and no further; keys
// at or below it (a source that was exchanged for one with older items) are flagged late and confirmed one by one. So no item depends on a race
// between the two.

const (
	// liveMargin is added to the last replicated key when that lies ahead of the clock: what is still being written lies close above it.
	liveMargin = 2 * time.Second
	// liveWait is how long an insert waits for LiveFrom before it is told to come again.
	liveWait = 3 * time.Second
	liveAsk  = 5 * time.Second
)

// Replica is one item of a replication source. Its body is either Body, or Reader, which streams and makes the item a large one.
type Replica struct {
	Key         hub.Key
	ContentType string
	Body        []byte
	Reader      io.Reader
	Size        int64 // of Reader; -1: not known
}

// Replicate writes items of the channel's source under the source's keys: durable when it returns nil, in the order given. An item that is there already is
// not written again, in whichever store it is. Conflict: ch is no longer how the channel is configured, and nothing was written; Invalid: a key that
// cannot be stored.
func (s *Service) Replicate(ctx context.Context, ch *hub.Channel, items ...Replica) error {
	if err := s.stillReplicates(ctx, ch); err != nil {
		return err
	}
	if len(items) == 0 {
		return nil
	}
	for _, it := range items {
		if !storable(it.Key.Hash()) {
			return hub.E(hub.Invalid, "key %s cannot be stored: its hash must be 1 to %d letters, digits or any of -._~!$&'()*+,;=:@ , not begin with ~ , and not be . or ..",
				it.Key, maxHash)
		}
	}
	known, err := s.knownLate(ctx, ch, items)
	if err != nil {
		return err
	}
	batch := make([]hub.Sealed, 0, len(items))
	for _, it := range items {
		if known[it.Key] {
			continue
		}
		if it.Reader != nil { // look before so much is moved
			if _, err := s.opt.Short.Read(ctx, ch.Name, it.Key); err == nil {
				continue
			}
		}
		sealed, err := s.sealReplica(ctx, ch, &it)
		if err != nil {
			return err
		}
		if mutable(ch, it.Key) {
			if err := s.opt.Long.Write(ctx, ch, sealed); err != nil {
				return fmt.Errorf("write a replicated historical item: %w", err)
			}
			continue
		}
		batch = append(batch, sealed)
	}
	if len(batch) == 0 {
		return nil
	}
	if err := s.opt.Short.WriteKeyed(ctx, ch.Name, batch...); err != nil {
		return fmt.Errorf("write replicated items: %w", err)
	}
	return nil
}

// stillReplicates compares a channel with what it is now.
func (s *Service) stillReplicates(ctx context.Context, ch *hub.Channel) error {
	now, err := s.Channel(ctx, ch.Name)
	if err != nil {
		return err
	}
	if !ch.Replicated() || now.Name != ch.Name || now.Since != ch.Since || now.ReplicationSource != ch.ReplicationSource || now.Lives != ch.Lives {
		return hub.E(hub.Conflict, "channel %s is not replicated from %s any more", ch.Name, ch.ReplicationSource)
	}
	return nil
}

// knownLate lists which of the items that lie at or below the marker are there, wherever. Above the marker nothing can be in long-term storage.
func (s *Service) knownLate(ctx context.Context, ch *hub.Channel, items []Replica) (map[hub.Key]bool, error) {
	upTo, ok := s.marker(ch.Name)
	var first, last hub.Key
	for _, it := range items {
		if ok && !upTo.Less(it.Key) || mutable(ch, it.Key) {
			if first.IsZero() || it.Key.Less(first) {
				first = it.Key
			}
			last = later(last, it.Key)
		}
	}
	if last.IsZero() {
		return nil, nil
	}
	page, err := s.keys(ctx, ch, hub.Query{Channel: ch.Name, From: first, To: last.After(), Epoch: hub.AllEpochs}, frame{now: s.opt.Clock().UTC()})
	if err != nil {
		return nil, fmt.Errorf("look which replicated items are there: %w", err)
	}
	known := make(map[hub.Key]bool, len(page.Keys))
	for _, k := range page.Keys {
		known[k] = true
	}
	return known, nil
}

// sealReplica makes the envelope of an item; the body of a large one is stored first.
func (s *Service) sealReplica(ctx context.Context, ch *hub.Channel, it *Replica) (hub.Sealed, error) {
	m := seal.Meta{ContentType: it.ContentType, Created: it.Key.Millis()}
	body := it.Body
	if it.Reader != nil || int64(len(body)) >= s.opt.LargeBytes {
		var err error
		if body, err = s.storeReplica(ctx, ch, it); err != nil {
			return hub.Sealed{}, err
		}
		m.Large = true
	}
	return hub.Sealed{Key: it.Key, Data: s.opt.Sealer.Seal(nil, m, body)}, nil
}

// storeReplica stores the body of a large item under the item's own key (spec 01 §1.6) and returns the text of its index. A body that ends too early fails
// before it is stored, so that it never replaces a whole one.
func (s *Service) storeReplica(ctx context.Context, ch *hub.Channel, it *Replica) ([]byte, error) {
	from, size := it.Reader, it.Size
	if from == nil {
		from, size = bytes.NewReader(it.Body), int64(len(it.Body))
	}
	if size > s.opt.MaxItemBytes {
		return nil, errTooLargeHere
	}
	sum := newBodySum()
	exact := &exactReader{r: from, left: size, known: size >= 0, room: s.opt.MaxItemBytes}
	n, err := s.opt.Long.WriteLarge(ctx, ch, it.Key, it.ContentType, io.TeeReader(exact, sum))
	if err != nil {
		return nil, fmt.Errorf("store the body of a large item: %w", err)
	}
	text, err := json.Marshal(index{Key: it.Key.String(), Size: n, ContentType: it.ContentType, Sum: sumText(sum)})
	if err != nil {
		return nil, fmt.Errorf("make the index of a large item: %w", err)
	}
	return text, nil
}

// errTooLargeHere: nothing after such an item is replicated, until it may be stored here or is gone there.
var errTooLargeHere = hub.E(hub.TooLarge, "the source has an item of more bytes than one may have here (app.maxItemSizeMB)")

// exactReader fails unless its source has just the bytes that were announced, and never gives more than there is room for.
type exactReader struct {
	r     io.Reader
	left  int64
	known bool
	room  int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	e.room -= int64(n)
	switch {
	case e.room < 0:
		return n, errTooLargeHere
	case !e.known:
	case e.left < 0:
		return n, errors.New("the body is longer than it was said to be")
	case err == io.EOF && e.left > 0:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// BeginReplica readies a channel for its source and returns its marker and the oldest key that it can show. resumed: the caller has followed a source for
// this channel, and it has not been an ordinary channel since. archived is how far the archiver is.
//
// Without a marker, one is written before anything else. In a channel that never was anything but a target it stands at oldest, so that all that comes is
// in order, for feeds and the archiver too; or, if its log was lost, at what is archived. In one with items of its own, or that was archived by the clock, it stands at the horizon, so that
// nothing which was shown is hidden, and what comes below is late. fresh tells that it was written now.
func (s *Service) BeginReplica(ctx context.Context, ch *hub.Channel, resumed bool, archived hub.Key) (marker, oldest hub.Key, fresh bool, err error) {
	oldest = hub.First(ch.OldestAllowed(s.opt.Clock(), s.opt.Birthday))
	marker, ok := s.marker(ch.Name)
	if ok && resumed {
		if err := s.opt.Replicas.WriteComplete(ctx, ch.Name, marker); err != nil { // for nodes that have not heard it from whoever wrote it
			return marker, oldest, false, fmt.Errorf("write the marker of channel %s again: %w", ch.Name, err)
		}
		return marker, oldest, false, nil
	}
	lived := ok || ch.Lives > 0 && !archived.IsZero()
	if !lived {
		page, err := s.opt.Short.Keys(ctx, hub.Query{Channel: ch.Name, From: hub.MinKey, To: hub.MaxKey, Limit: 1})
		if err != nil {
			return marker, oldest, false, fmt.Errorf("look whether a channel is empty: %w", err)
		}
		lived = len(page.Keys) > 0
	}
	upTo := later(oldest, archived) // archived: the log was lost, and the marker with it
	if lived {
		horizon, err := s.opt.Short.Horizon(ctx)
		if err != nil {
			return marker, oldest, false, fmt.Errorf("read the horizon: %w", err)
		}
		upTo = later(horizon, upTo)
	}
	if err := s.Complete(ctx, ch, upTo); err != nil {
		return marker, oldest, false, err
	}
	marker, _ = s.marker(ch.Name)
	return marker, oldest, !ok, nil
}

// Missing lists which keys of ascending ones the channel does not have, as far as that can be: above the marker nothing was looked for.
func (s *Service) Missing(ctx context.Context, ch *hub.Channel, keys []hub.Key) ([]hub.Key, error) {
	items := make([]Replica, len(keys))
	for i, k := range keys {
		items[i].Key = k
	}
	known, err := s.knownLate(ctx, ch, items)
	if err != nil || len(known) == 0 {
		return keys, err
	}
	var missing []hub.Key
	for _, k := range keys {
		if !known[k] {
			missing = append(missing, k)
		}
	}
	return missing, nil
}

// Complete moves the marker of a replicated channel: everything of its source up to a key was given to Replicate, which has returned. Conflict as there.
// A marker never moves back.
func (s *Service) Complete(ctx context.Context, ch *hub.Channel, upTo hub.Key) error {
	if err := s.stillReplicates(ctx, ch); err != nil {
		return err
	}
	if s.opt.Replicas == nil {
		return hub.E(hub.Unavailable, "this hub keeps no markers")
	}
	if now, ok := s.marker(ch.Name); ok && !now.Less(upTo) {
		return nil
	}
	if err := s.opt.Replicas.WriteComplete(ctx, ch.Name, upTo); err != nil {
		return fmt.Errorf("write the marker of channel %s: %w", ch.Name, err)
	}
	return nil
}

// Marker is the key up to which a channel holds everything of its source; false: nobody has said so yet.
func (s *Service) Marker(channel string) (hub.Key, bool) { return s.complete(channel) }

// marker is how far whoever replicates a channel has come.
func (s *Service) marker(channel string) (hub.Key, bool) {
	if s.opt.Replicas == nil {
		return hub.Key{}, false
	}
	return s.opt.Replicas.Marker(channel)
}

// complete is how far a replicated channel is shown.
func (s *Service) complete(channel string) (hub.Key, bool) {
	if s.opt.Replicas == nil {
		return hub.Key{}, false
	}
	return s.opt.Replicas.Complete(channel)
}

// liveFrom is the millisecond from which on a channel that was a target takes inserts: all that was replicated lies before it.
func (s *Service) liveFrom(ctx context.Context, ch *hub.Channel) int64 {
	ctx, cancel := context.WithTimeout(ctx, liveAsk)
	defer cancel()
	last, _ := s.marker(ch.Name)
	page, err := s.opt.Short.Keys(ctx, hub.Query{Channel: ch.Name, From: hub.MinKey, To: hub.MaxKey, Limit: 1, Reverse: true})
	if err != nil {
		s.opt.Log.Warn("the last replicated item of a channel is not known; its marker has to do", "channel", ch.Name, "err", err)
	} else if len(page.Keys) > 0 {
		last = later(last, page.Keys[0])
	}
	if last.IsZero() {
		return 0
	}
	if from := last.Millis() + 1; from <= s.opt.Clock().UnixMilli() {
		return from
	}
	return last.Millis() + liveMargin.Milliseconds()
}

// untilLive waits, for a moment, until the clock has passed what was replicated into a channel; else Unavailable, with the time to wait.
func (s *Service) untilLive(ctx context.Context, ch *hub.Channel) error {
	left := time.UnixMilli(ch.LiveFrom).Sub(s.opt.Clock())
	if left > liveWait {
		e := hub.E(hub.Unavailable, "channel %s was replicated from a hub whose clock is ahead: it takes inserts from %s on, so that their keys lie above the items it has",
			ch.Name, hub.ISO(time.UnixMilli(ch.LiveFrom)))
		e.RetryAfter = left
		return e
	}
	if left <= 0 {
		return nil
	}
	if !hub.Sleep(ctx, left) {
		return ctx.Err()
	}
	return nil
}
