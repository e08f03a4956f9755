package replicate

import (
	"context"
	"iter"
	"sync"
	"time"

	"timehub/hub"
)

// bell rings when the event stream of a source has a key that was not read yet.
type bell struct {
	wake chan struct{} // one token

	mu   sync.Mutex // guards what follows
	last hub.Key
	err  error
}

func newBell() *bell { return &bell{wake: make(chan struct{}, 1)} }

// listen takes in a stream until it ends.
func (b *bell) listen(_ context.Context, stream iter.Seq2[hub.Key, error]) {
	for key, err := range stream {
		if err == nil && key.IsZero() {
			continue // a heartbeat: that it came is all
		}
		b.mu.Lock()
		if err != nil {
			b.err = err
		} else if b.last.Less(key) {
			b.last = key
		}
		b.mu.Unlock()
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// wait waits for a key above at, at most for a while, or for the end of the stream, which is an error.
func (b *bell) wait(ctx context.Context, at hub.Key, most time.Duration) (rang bool, err error) {
	t := time.NewTimer(most)
	defer t.Stop()
	for {
		b.mu.Lock()
		last, err := b.last, b.err
		b.mu.Unlock()
		switch {
		case err != nil:
			return false, err
		case at.Less(last):
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-t.C:
			return false, nil
		case <-b.wake:
		}
	}
}
