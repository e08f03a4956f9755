package coord

import (
	"context"
	"fmt"
	"time"

	"timehub/hub"
)

const (
	maxBatch      = 1000      // cursors in one Update
	maxBatchBytes = 512 << 10 // and bytes, less than a ZooKeeper packet holds
	cursorRetry   = 5 * time.Second
	stopTimeout   = 5 * time.Second
)

// Run writes what was moved, once per tick while there is something, and once more when ctx has ended. It returns nil then, or the error of that last
// write.
func (s *Cursors) Run(ctx context.Context) error {
	pause, failing := s.tick, false
	for {
		select {
		case <-ctx.Done():
			return s.stop(ctx)
		case <-s.wake:
		}
		if !hub.Sleep(ctx, pause) {
			return s.stop(ctx)
		}
		if err := s.Flush(ctx); err != nil && ctx.Err() == nil {
			if !failing {
				s.log.Warn("cursors cannot be written; trying again", "prefix", s.prefix, "err", err)
			}
			pause, failing = min(2*pause, cursorRetry), true
			continue
		}
		if failing {
			s.log.Info("cursors are written again", "prefix", s.prefix)
		}
		pause, failing = s.tick, false
	}
}

func (s *Cursors) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return s.Flush(ctx)
}

// Flush writes everything that was moved before it was called. An error means that some of it may not be written; it stays to be written. A cursor
// that turned out to be lost is no error of Flush: its owner is told.
func (s *Cursors) Flush(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	todo := s.take()
	for len(todo) > 0 {
		n := batchLen(todo)
		if err := s.writeBatch(ctx, todo[:n]); err != nil {
			s.again()
			return err
		}
		todo = todo[n:]
	}
	return nil
}

// move is a cursor as it is to be written.
type move struct {
	c     *Cursor
	moves uint64
	ask   func() (hub.Key, []byte)
	value []byte
}

// take lists the dirty cursors; they stay dirty until they are written.
func (s *Cursors) take() []move {
	s.mu.Lock()
	todo := make([]move, 0, len(s.dirty))
	for c := range s.dirty {
		todo = append(todo, move{c: c, moves: c.moves, ask: c.ask})
	}
	s.mu.Unlock()
	for i := range todo {
		todo[i].value = s.valueOf(todo[i])
	}
	return todo
}

// valueOf brings a cursor up to date and encodes it. What happens meanwhile counts as a later move.
func (s *Cursors) valueOf(m move) []byte {
	var key hub.Key
	var payload []byte
	if m.ask != nil {
		key, payload = m.ask()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := m.c
	switch {
	case m.ask == nil || c.err != nil || key.Less(c.at.Key):
	case len(payload) > MaxPayload:
		s.log.Error("a cursor holds too much beside its key and is not written", "cursor", s.prefix+c.name, "bytes", len(payload))
	default:
		c.at.Key, c.at.Payload = key, payload
	}
	return c.at.encode()
}

// again lets Run try once more.
func (s *Cursors) again() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func batchLen(todo []move) int {
	size := 0
	for i, m := range todo {
		size += len(m.value) + len(m.c.name) + 64
		if i == maxBatch || i > 0 && size > maxBatchBytes {
			return i
		}
	}
	return len(todo)
}

// writeBatch writes some cursors at once. Those that somebody else has changed are looked at one by one, and the rest is tried again.
func (s *Cursors) writeBatch(ctx context.Context, batch []move) error {
	for len(batch) > 0 {
		versions, err := s.registers.Update(ctx, s.changes(batch))
		if err == nil {
			s.written(batch, versions)
			return nil
		}
		if !hub.Is(err, hub.Conflict) {
			return fmt.Errorf("write %d cursors: %w", len(batch), err)
		}
		var rest []move
		for _, m := range batch {
			keep, err := s.settle(ctx, m.c)
			if err != nil {
				return err
			}
			if keep {
				rest = append(rest, s.refresh(m.c))
			}
		}
		batch = rest
	}
	return nil
}

func (s *Cursors) changes(batch []move) []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes := make([]Change, len(batch))
	for i, m := range batch {
		changes[i] = Change{Name: s.prefix + m.c.name, Value: m.value, Version: m.c.version}
	}
	return changes
}

func (s *Cursors) refresh(c *Cursor) move {
	s.mu.Lock()
	defer s.mu.Unlock()
	return move{c: c, moves: c.moves, value: c.at.encode()}
}

func (s *Cursors) written(batch []move, versions []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range batch {
		m.c.version = versions[i]
		if m.c.moves == m.moves {
			delete(s.dirty, m.c)
		} else {
			s.again()
		}
	}
}

// settle finds out why a cursor could not be written, and whether it is still ours. Our own write may have arrived although its reply was lost: a
// position with our fence is ours, whatever its version.
func (s *Cursors) settle(ctx context.Context, c *Cursor) (keep bool, err error) {
	p, version, err := s.get(ctx, c.name)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.err != nil: // lost meanwhile
	case version == c.version:
		return true, nil
	case p.Generation != c.at.Generation || version == 0:
		s.fail(c, ErrReset)
	case p.Fence > c.at.Fence:
		s.fail(c, ErrFenced)
	default:
		c.version = version
		if c.at.Key.Less(p.Key) { // a leader before us went further before we had taken the cursor
			c.at.Key, c.at.Payload = p.Key, p.Payload
			c.moves++
		}
		return true, nil
	}
	s.log.Info("cursor lost", "cursor", s.prefix+c.name, "why", c.err)
	return false, nil
}
