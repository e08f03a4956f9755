package spoke

import (
	"context"
	"errors"
	"time"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

// errGivenUp is what a writer is told about a write that was not decided in time.
var errGivenUp = hub.E(hub.Unavailable, "the write was not on enough disks in time: it may show up or not, but the same for every reader; send it again if it must be there")

// Write implements channel.Writer.
func (n *Node) Write(ctx context.Context, channel string, sealed []byte) (hub.Key, error) {
	r := &request{channel: channel, done: make(chan error, 1)}
	err := n.submit(ctx, r, [][]byte{sealed}, func(k hub.Key) []spokelog.Record {
		return []spokelog.Record{{Channel: channel, Key: k, Stream: n.stream, Data: sealed}}
	})
	return r.key, err
}

// WriteBulk implements channel.Writer.
func (n *Node) WriteBulk(ctx context.Context, channel string, sealed [][]byte) (hub.Key, error) {
	if len(sealed) == 0 || len(sealed) > hub.MaxBulk {
		return hub.Key{}, hub.E(hub.TooLarge, "a bulk of %d items: one request may hold 1 to %d", len(sealed), hub.MaxBulk)
	}
	r := &request{channel: channel, parts: len(sealed), done: make(chan error, 1)}
	err := n.submit(ctx, r, sealed, func(k hub.Key) []spokelog.Record {
		records := make([]spokelog.Record, len(sealed))
		for i, data := range sealed {
			records[i] = spokelog.Record{Channel: channel, Key: hub.BulkKey(k, i), Stream: n.stream, Flags: spokelog.MoreFollows, Data: data}
		}
		records[len(records)-1].Flags = 0
		return records
	})
	return r.key, err
}

// submit mints, registers and enqueues in one step, then waits for the decision. data is that of the records.
func (n *Node) submit(ctx context.Context, r *request, data [][]byte, records func(hub.Key) []spokelog.Record) error {
	var large *cargo
	if n.cluster != nil {
		var err error
		if large, err = n.cluster.preload(ctx, data); err != nil {
			return err
		}
	}
	if err := n.mint(ctx, r, large, records); err != nil {
		n.cluster.drop(large)
		return err
	}
	timer := time.NewTimer(n.opt.WriteTimeout)
	defer timer.Stop()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		n.giveUp(r)
		return <-r.done
	}
}

// mint gives a request its key, registers it as in flight and hands it to the log and the streams. After an error nothing of it is anywhere.
func (n *Node) mint(ctx context.Context, r *request, large *cargo, records func(hub.Key) []spokelog.Record) error {
	for {
		n.mu.Lock()
		if n.cluster != nil { // asked first: the bound does not follow a clock that may be wrong
			if err := n.cluster.writable(); err != nil {
				n.mu.Unlock()
				return err
			}
		}
		next := n.minter.Peek()
		if next < n.limit {
			break
		}
		n.mu.Unlock()
		if err := n.raise(ctx, next); err != nil {
			return clockStuck(err)
		}
	}
	defer n.mu.Unlock()
	r.mark, r.key = n.minter.Mint()
	n.flight.add(r)
	batch := records(r.key)
	err := n.store.Enqueue(&spokelog.Batch{Records: batch, Done: func(err error) { n.synced(r, err) }})
	if err == nil && n.cluster != nil {
		r.of, r.pos = n.cluster.own, n.cluster.fan(batch, large)
	}
	if err != nil { // nothing went into the stream: the mark is spent, the key was never there
		r.state = givenUp
		n.pass()
	}
	n.ahead(r.mark)
	return err
}

// unavailable gives an error without a kind the kind Unavailable.
func unavailable(err error) error {
	if hub.KindOf(err) == hub.Internal {
		return hub.E(hub.Unavailable, "try again").Because(err)
	}
	return err
}

// synced is told by the log that a request is on this disk, or surely not.
func (n *Node) synced(r *request, err error) {
	if n.cluster != nil {
		n.cluster.synced(r, err)
		return
	}
	n.mu.Lock()
	switch {
	case errors.Is(err, spokelog.ErrClosed): // the next start finds out; until then it holds low
	case err != nil:
		r.state = givenUp
	case r.state == undecided: // one disk is enough of one
		r.state, r.onDisk = committed, true
	default:
		r.onDisk = true // giving up: its name decides
	}
	var passed []string
	if r.decided() {
		passed = n.pass()
	}
	ok := r.state == committed
	n.mu.Unlock()
	for _, channel := range passed {
		n.board.notify(channel)
	}
	switch {
	case err != nil:
		r.answer(lost(err))
	case ok:
		r.answer(nil)
	}
}

// lost is what the writer is told of records that did not get into the log.
func lost(err error) error {
	if errors.Is(err, spokelog.ErrClosed) {
		return errGivenUp.Because(err)
	}
	if hub.KindOf(err) == hub.Internal {
		return hub.E(hub.Unavailable, "the disk did not take the write; nothing of it was stored, send it again").Because(err)
	}
	return err
}

// pass moves low over what is decided and returns the channels of which the horizon has passed a new key. Called under mu.
func (n *Node) pass() (channels []string) {
	n.flight.settle(func(r *request) {
		if r.state == committed && (len(channels) == 0 || channels[len(channels)-1] != r.channel) {
			channels = append(channels, r.channel)
		}
	})
	return channels
}

// giveUp answers a write that took too long, and puts its name into the stream: until that is on disk, it stays undecided and holds low (ENGINE §4). One
// that was decided in the same moment gets the answer to that, which is on its way.
func (n *Node) giveUp(r *request) {
	n.mu.Lock()
	late := r.state == undecided
	if late && n.ours(r) {
		r.state, r.gave = givingUp, time.Now()
		n.name(r)
	}
	n.mu.Unlock()
	if late {
		r.answer(errGivenUp)
	}
}

// ours reports whether the incarnation in which a request was minted takes writes; if not, settling decides. Called under mu.
func (n *Node) ours(r *request) bool {
	return n.cluster == nil || n.cluster.own != nil && n.cluster.own == r.of
}

// name enqueues the name of a key that is being given up. Called under mu.
func (n *Node) name(r *request) {
	if r.decided() || !n.ours(r) {
		return
	}
	keys := r.keys()
	records := make([]spokelog.Record, len(keys))
	for i, k := range keys {
		records[i] = spokelog.Record{Channel: r.channel, Key: k, Stream: n.stream, Flags: spokelog.GivenUp | spokelog.MoreFollows}
	}
	records[len(records)-1].Flags = spokelog.GivenUp
	pos := uint64(0)
	if n.cluster != nil {
		pos = n.cluster.pos + 1
	}
	r.namePos = 0
	err := n.store.Enqueue(&spokelog.Batch{Records: records, Done: func(err error) { n.nameSynced(r, pos, err) }})
	if err == nil {
		r.named = true
		if n.cluster != nil {
			r.namePos = n.cluster.fan(records, nil)
		}
		return
	}
	n.unnamed = append(n.unnamed, r)
	select {
	case n.renames <- struct{}{}:
	default:
	}
}

// nameSynced is told that the name of a key is on this disk, or surely not.
func (n *Node) nameSynced(r *request, pos uint64, err error) {
	if n.cluster != nil {
		n.cluster.nameSynced(r, pos, err)
		return
	}
	n.mu.Lock()
	var passed []string
	switch {
	case r.decided(), errors.Is(err, spokelog.ErrClosed): // lost before; or the next start finds out
	case err != nil:
		n.name(r)
	default:
		r.state = givenUp
		passed = n.pass()
	}
	n.mu.Unlock()
	for _, channel := range passed {
		n.board.notify(channel)
	}
}

// answer gives the writer its answer; only the first counts.
func (r *request) answer(err error) {
	select {
	case r.done <- err:
	default:
	}
}

// WriteKeyed implements channel.Writer. Keys at or below the marker of the channel, or what of it is archived, are flagged late: the archiver does not come
// there again by itself. Among several nodes, what is here above the marker may have come from a writer who died before enough disks had it: it is written again.
func (n *Node) WriteKeyed(ctx context.Context, channel string, items ...hub.Sealed) error {
	records := make([]spokelog.Record, 0, len(items))
	passed := n.passed(channel)
	marker, _ := n.store.Complete(channel)
	for _, item := range items {
		_, err := n.store.Get(ctx, channel, item.Key)
		switch {
		case err == nil && (n.cluster == nil || !marker.Less(item.Key)):
			continue // it is here
		case err == nil:
		case !hub.Is(err, hub.NotFound) && !errors.Is(err, spokelog.ErrDamaged):
			return err
		}
		flags := spokelog.Replicated | spokelog.MoreFollows
		if !passed.Less(item.Key) {
			flags |= spokelog.Late
		}
		records = append(records, spokelog.Record{Channel: channel, Key: item.Key, Flags: flags, Data: item.Data})
	}
	if len(records) == 0 {
		return nil
	}
	records = sortedRecords(records)
	records[len(records)-1].Flags &^= spokelog.MoreFollows
	if err := n.put(ctx, records); err != nil {
		return err
	}
	n.board.notify(channel)
	return nil
}

// passed is the key up to which whoever follows a channel may have gone.
func (n *Node) passed(channel string) hub.Key {
	upTo, _ := n.store.Complete(channel)
	if n.opt.Archived != nil {
		if archived, known := n.opt.Archived(channel); known && upTo.Less(archived) {
			return archived
		}
	}
	return upTo
}

// put writes records that nobody's decision waits for, and returns when they are on the disk.
func (n *Node) put(ctx context.Context, records []spokelog.Record) error {
	if n.cluster != nil {
		return n.cluster.put(ctx, records)
	}
	for i := range records {
		records[i].Stream = n.stream
	}
	done := make(chan error, 1)
	if err := n.store.Enqueue(&spokelog.Batch{Records: records, Done: func(err error) { done <- err }}); err != nil {
		return err
	}
	timer := time.NewTimer(n.opt.WriteTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return lost(err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errGivenUp // the keys are the source's: what is sent again is not stored twice
	}
}
