package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/bucket/s3"
)

// What a start waits for while long-term storage is away: a question that costs nothing, again and again, so that little time passes once it is back.
const (
	storePause    = 500 * time.Millisecond // between two attempts
	storePatience = 3 * time.Second        // for an answer to the question, doubled up to storeMost each time that none comes
	storeMost     = 12 * time.Second
)

// runStore opens long-term storage without asking it for anything: the log is recovered, and the others have this node again, also while it is away.
func (n *Node) runStore(ctx context.Context, ready func()) error {
	p := &n.parts
	b, err := n.openBucket(ctx)
	if err != nil {
		return err
	}
	p.bucket, p.claimed = meterBucket(b, p.metrics), make(chan struct{})
	if prober, ok := b.(interface {
		Probe(ctx context.Context, prefix string) error
	}); ok && !n.cfg.Bool("hub.read.only") {
		p.probe = func(ctx context.Context) error { return prober.Probe(ctx, probePrefix) }
	}
	ready()
	<-ctx.Done()
	return nil
}

// claimStore waits until long-term storage is known to do what it must (ENGINE §6), and to be this hub's; then what needs it may start. It fails when it
// never will be, and returns nil when ctx ends.
func (n *Node) claimStore(ctx context.Context, disk string) error {
	p := &n.parts
	select {
	case <-p.claimed:
		return nil
	default:
	}
	if p.probe != nil {
		if err := n.untilStore(ctx, p.probe); err != nil {
			return ignoreEnd(ctx, fmt.Errorf("long-term storage at %s: %w", n.cfg.Text("s3.endpoint"), err))
		}
	}
	if err := n.untilStore(ctx, func(ctx context.Context) error { return n.own(ctx, disk) }); err != nil {
		return ignoreEnd(ctx, err)
	}
	close(p.claimed)
	return nil
}

// ignoreEnd: what failed because the node stops has not failed.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// untilStore tries something until it works. It gives up when it fails for a reason that does not pass by itself, or when ctx ends.
func (n *Node) untilStore(ctx context.Context, try func(context.Context) error) error {
	const what = "long-term storage"
	defer n.waits.done(what)
	var said time.Time
	patience := storePatience
	for {
		err := n.askStore(ctx, patience)
		if errors.Is(err, context.DeadlineExceeded) {
			patience = min(2*patience, storeMost)
		}
		if err == nil {
			err = try(ctx)
		}
		if err == nil || ctx.Err() != nil || !passes(err) {
			return errors.Join(err, context.Cause(ctx))
		}
		n.waits.on(what, err)
		if time.Since(said) > waitSay {
			said = time.Now()
			n.log.Warn("waiting for long-term storage; the hub is healthy once it answers", "err", err)
		}
		if !hub.Sleep(ctx, storePause) {
			return context.Cause(ctx)
		}
	}
}

// askStore reports whether long-term storage answers at all.
func (n *Node) askStore(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it has not answered within %v: %w", patience, context.DeadlineExceeded))
	defer cancel()
	if _, err := n.parts.bucket.Stat(ctx, ownerBlob); err != nil && !hub.Is(err, hub.NotFound) {
		return err
	}
	return nil
}

// passes reports whether a failure of long-term storage may be over in a moment.
func passes(err error) bool {
	if s3.Denied(err) {
		return false
	}
	return hub.Is(err, hub.Unavailable) || hub.Is(err, hub.Timeout) || errors.Is(err, context.DeadlineExceeded)
}

// waits is what a start waits for, and why, as /health shows it. Its zero value waits for nothing.
type waits struct {
	mu  sync.Mutex // guards why
	why map[string]string
}

func (w *waits) on(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.why == nil {
		w.why = map[string]string{}
	}
	w.why[what] = err.Error()
}

func (w *waits) done(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.why, what)
}

// text names everything that is waited for; "" if that is nothing.
func (w *waits) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, what := range slices.Sorted(maps.Keys(w.why)) {
		all = append(all, what+" ("+w.why[what]+")")
	}
	return strings.Join(all, ", and for ")
}
