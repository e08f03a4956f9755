package sim

import (
	"context"

	"timehub/hub"
)

// Marked is a Hub that keeps a marker of the keyed channel: up to which key it is complete.
type Marked interface {
	Mark(ctx context.Context, channel string, upTo hub.Key) error
	Marker(channel string) (hub.Key, bool)
}

// Now is a Hub that tells where somebody begins who wants what is written from now on.
type Now interface {
	Now(ctx context.Context) (hub.Key, error)
}

// marks is what is known of the marker, and of the keys that Now gave.
type marks struct {
	sent hub.Key // the highest marker that was tried
	told hub.Key // the highest one that was acknowledged or shown
	now  hub.Key
}

// Mark moves the marker through write.
func (l *Ledger) Mark(upTo hub.Key, write func() error) {
	l.mu.Lock()
	life := l.history.life
	l.marks.sent = most(l.marks.sent, upTo)
	l.history.add("mark %v", upTo)
	l.mu.Unlock()
	err := write()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && life == l.history.life {
		l.marks.told = most(l.marks.told, upTo)
	}
	l.history.add("mark %v: %v", upTo, short(err))
}

// Marker asks for the marker through ask.
func (l *Ledger) Marker(ask func() (hub.Key, bool)) {
	l.mu.Lock()
	told, life := l.marks.told, l.history.life
	l.mu.Unlock()
	at, _ := ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case life != l.history.life:
	case at.Less(told):
		l.fail(nil, "the marker went back from %v to %v", told, at)
	case l.marks.sent.Less(at):
		l.fail(nil, "the marker is %v, the highest one that was written is %v", at, l.marks.sent)
	default:
		l.marks.told = most(l.marks.told, at)
	}
}

// Now asks for a place to begin through ask.
func (l *Ledger) Now(ask func() (hub.Key, error)) error {
	l.mu.Lock()
	seen, life := l.top, l.history.life
	l.mu.Unlock()
	k, err := ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || life != l.history.life {
		return err
	}
	l.history.add("now %v", k)
	if !seen.Less(k) {
		l.fail(nil, "now is %v, and %v was there before", k, seen)
	}
	l.marks.now = most(l.marks.now, k)
	return nil
}
