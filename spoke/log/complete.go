package log

import (
	"context"
	"fmt"

	"timehub/hub"
)

// marker says up to which key a channel is complete, and which segment says so.
type marker struct {
	upTo hub.Key
	seq  uint64
}

// Complete is the highest key of the markers, records with the flag Complete, that the log has taken of a channel; false if there is none. Markers
// survive a restart, and the sweep of their segment for as long as somebody needs the channel (Options.Archived). While there is a segment that cannot be
// read (Status.Unread), a channel may be complete further than it says; one without a known marker is then complete up to hub.MinKey.
func (l *Log) Complete(channel string) (upTo hub.Key, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.complete[channel]
	if !ok && l.unreadSegs > 0 {
		return hub.MinKey, true
	}
	return m.upTo, ok
}

// Markers are the channels with markers, each with what Complete tells.
func (l *Log) Markers() map[string]hub.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]hub.Key, len(l.complete))
	for channel, m := range l.complete {
		all[channel] = m.upTo
	}
	return all
}

// learnComplete takes in a marker that is on the disk. l.mu is held.
func (l *Log) learnComplete(channel string, upTo hub.Key, seq uint64) {
	if m, ok := l.complete[channel]; !ok || !upTo.Less(m.upTo) {
		l.complete[channel] = marker{upTo, max(seq, m.seq)}
	}
}

// carryMarkers writes the markers anew that only a segment which is to go has.
func (l *Log) carryMarkers(ctx context.Context, s *segment) error {
	batch := &Batch{}
	l.mu.Lock()
	for name, m := range l.complete {
		if m.seq == s.seq {
			batch.Records = append(batch.Records, Record{Channel: name, Key: m.upTo, Flags: Complete | Carried})
		}
	}
	l.mu.Unlock()
	kept := batch.Records[:0]
	for _, r := range batch.Records {
		if _, known := l.opt.Archived(r.Channel); known {
			kept = append(kept, r)
			continue
		}
		l.mu.Lock()
		if l.complete[r.Channel].seq == s.seq {
			delete(l.complete, r.Channel)
		}
		l.mu.Unlock()
	}
	if batch.Records = kept; len(kept) == 0 {
		return nil
	}
	if err := l.put(ctx, batch); err != nil {
		return fmt.Errorf("carry markers: %w", err)
	}
	return nil
}

// put enqueues what a sweep writes and waits until it is on the disk.
func (l *Log) put(ctx context.Context, b *Batch) error {
	done := make(chan error, 1)
	b.Done, b.durable = func(err error) { done <- err }, true
	if err := l.enqueue(b, true); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
