package spoke

import "sync"

// board wakes those who wait for new keys of a channel, and tells those who follow all channels which ones have changed. Every wake channel holds one
// token: a follower that is slow is woken once, and nobody waits for it.
type board struct {
	mu       sync.Mutex // guards the fields below; never held while anybody waits
	channels map[string]map[*watcher]struct{}
	all      map[*watcher]struct{}
}

type watcher struct {
	wake    chan struct{}
	changed map[string]struct{} // only for those who follow all channels
}

func newBoard() *board {
	return &board{channels: map[string]map[*watcher]struct{}{}, all: map[*watcher]struct{}{}}
}

// watch follows one channel.
func (b *board) watch(channel string) (<-chan struct{}, func()) {
	w := &watcher{wake: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.channels[channel] == nil {
		b.channels[channel] = map[*watcher]struct{}{}
	}
	b.channels[channel][w] = struct{}{}
	return w.wake, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if delete(b.channels[channel], w); len(b.channels[channel]) == 0 {
			delete(b.channels, channel)
		}
	}
}

// watchAll follows all channels; drain returns the names that changed since the last drain.
func (b *board) watchAll() (wake <-chan struct{}, drain func() []string, stop func()) {
	w := &watcher{wake: make(chan struct{}, 1), changed: map[string]struct{}{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[w] = struct{}{}
	drain = func() []string {
		b.mu.Lock()
		defer b.mu.Unlock()
		names := make([]string, 0, len(w.changed))
		for name := range w.changed {
			names = append(names, name)
		}
		clear(w.changed)
		return names
	}
	stop = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.all, w)
	}
	return w.wake, drain, stop
}

// notify says that the horizon has passed a new key of channel.
func (b *board) notify(channel string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.channels[channel] {
		w.token()
	}
	for w := range b.all {
		w.changed[channel] = struct{}{}
		w.token()
	}
}

// notifyWatched is notify for every channel that somebody follows by name.
func (b *board) notifyWatched() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, watchers := range b.channels {
		for w := range watchers {
			w.token()
		}
	}
}

func (w *watcher) token() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
