package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

const (
	newsLength  = 256
	newsTimeout = 2 * time.Second
	newsRetry   = time.Second
)

// change is one write that others should look at.
type change struct {
	ID    string `json:"id"`
	Write string `json:"write"`
}

// bulletin is the value of the register: the last changes, the newest last. Count is how many there have been at all.
type bulletin struct {
	Count   uint64   `json:"count"`
	Changes []change `json:"changes"`
}

// news writes and reads the register.
type news struct {
	registers coord.Registers
	name      string
	log       *slog.Logger
	turn      chan struct{} // held by the one who writes
	owed      chan struct{} // one token: something could not be told

	mu      sync.Mutex // guards what follows
	pending []change
	failing bool   // the last attempt to tell failed
	seen    uint64 // the Count up to which this node knows
	known   bool   // whether seen means anything
}

func newNews(r coord.Registers, name string, log *slog.Logger) *news {
	return &news{registers: r, name: name, log: log, turn: make(chan struct{}, 1), owed: make(chan struct{}, 1)}
}

// forget lets the next read ask for everything.
func (n *news) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known = false
}

// read returns what has changed since the last read; whole is false if that is more than the register remembers.
func (n *news) read(ctx context.Context) (changes []change, whole bool, err error) {
	b, _, err := n.get(ctx)
	if err != nil {
		return nil, false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	missed := b.Count - n.seen
	whole = n.known && b.Count >= n.seen && missed <= uint64(len(b.Changes))
	n.seen, n.known = b.Count, true
	if !whole {
		return nil, false, nil
	}
	return b.Changes[uint64(len(b.Changes))-missed:], true, nil
}

func (n *news) get(ctx context.Context) (bulletin, uint64, error) {
	var b bulletin
	value, version, err := n.registers.Get(ctx, n.name)
	switch {
	case hub.Is(err, hub.NotFound):
		return b, 0, nil
	case err != nil:
		return b, 0, fmt.Errorf("read the news of a catalog: %w", err)
	}
	if err := json.Unmarshal(value, &b); err != nil { // written by nobody we know: begin anew, far from any count that was seen
		b = bulletin{Count: version << 20}
	}
	return b, version, nil
}

// tell adds a change, together with those that wait beside it. What cannot be told now is told by run.
func (n *news) tell(ctx context.Context, c change) {
	n.mu.Lock()
	n.pending = append(n.pending, c)
	n.mu.Unlock()
	n.flush(context.WithoutCancel(ctx))
}

// run tells what could not be told, until ctx ends: otherwise a channel that was made in a bad moment of the coordinator would be unknown to the other nodes
// until they look at everything.
func (n *news) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.owed:
		}
		if !hub.Sleep(ctx, newsRetry) {
			return
		}
		n.flush(ctx)
	}
}

// flush tells everything that waits.
func (n *news) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, newsTimeout)
	defer cancel()
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done(): // whoever holds the turn may have begun without it
		n.owe()
		return
	}
	n.mu.Lock()
	todo := n.pending
	n.pending = nil
	n.mu.Unlock()
	if len(todo) == 0 {
		return
	}
	err := n.add(ctx, todo)
	n.mu.Lock()
	said := n.failing
	if n.failing = err != nil; n.failing {
		n.pending = append(todo, n.pending...)
		n.owe()
	}
	n.mu.Unlock()
	switch {
	case err != nil && !said:
		n.log.Warn("other nodes cannot be told of a change; trying again", "register", n.name, "err", err)
	case err == nil && said:
		n.log.Info("other nodes were told of all changes", "register", n.name)
	}
}

func (n *news) owe() {
	select {
	case n.owed <- struct{}{}:
	default:
	}
}

func (n *news) add(ctx context.Context, todo []change) error {
	for {
		b, version, err := n.get(ctx)
		if err != nil {
			return err
		}
		b.Count += uint64(len(todo))
		b.Changes = append(b.Changes, todo...)
		b.Changes = b.Changes[max(0, len(b.Changes)-newsLength):]
		value, err := json.Marshal(b)
		if err != nil {
			return err
		}
		if _, err = n.registers.Set(ctx, n.name, value, version); !hub.Is(err, hub.Conflict) {
			return err
		}
	}
}
