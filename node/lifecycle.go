package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// group owns everything long-lived of a node: named actors that start in the order in which they were added, each after the one before it said
// ready, and stop in reverse, each within its own deadline. One that fails, or ends unasked, ends the group.
//
// Each actor's context is detached from the caller's: otherwise one signal would stop all of them at once, and the order would be a wish.
type group struct {
	log    *slog.Logger
	actors []*actor
	ended  chan *actor // holds each started actor once
}

type actor struct {
	name   string
	stop   time.Duration // how long it may take to stop; 0: as long as it likes
	run    func(ctx context.Context, ready func()) error
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned
	err    error         // what it returned; read after done
}

// errEnded is what ends a group when an actor returns without an error and without having been asked to.
var errEnded = errors.New("it ended by itself")

// add appends an actor. run does its work until ctx ends; it calls ready when those after it may start.
func (g *group) add(name string, stop time.Duration, run func(ctx context.Context, ready func()) error) {
	g.actors = append(g.actors, &actor{name: name, stop: stop, run: run, done: make(chan struct{})})
}

// run starts all actors, calls up, waits until ctx ends or an actor does, and stops those that were started. It returns what went wrong, nil after an
// orderly end. Only an actor that missed its deadline may still be running then; it is named in the error.
func (g *group) run(ctx context.Context, up func()) error {
	g.ended = make(chan *actor, len(g.actors))
	started, err := g.start(ctx)
	if err == nil && ctx.Err() == nil {
		up()
		select {
		case <-ctx.Done():
		case a := <-g.ended:
			err = a.failure()
		}
	}
	return errors.Join(err, g.stop(started))
}

// start starts the actors in order until all are ready, ctx ends, or one has ended.
func (g *group) start(ctx context.Context) (started int, err error) {
	detached := context.WithoutCancel(ctx)
	for _, a := range g.actors {
		own, cancel := context.WithCancel(detached)
		a.cancel = cancel
		ready := make(chan struct{})
		started++
		begin := time.Now()
		go func() {
			defer func() { close(a.done); g.ended <- a }()
			once := false
			a.err = a.run(own, func() {
				if !once {
					once = true
					close(ready)
				}
			})
		}()
		select {
		case <-ready:
			g.log.Debug("started", "part", a.name, "took", time.Since(begin))
		case <-ctx.Done():
			return started, nil
		case e := <-g.ended:
			return started, e.failure()
		}
	}
	return started, nil
}

// failure says why an actor that nobody stopped has ended.
func (a *actor) failure() error {
	if a.err == nil {
		return fmt.Errorf("%s: %w", a.name, errEnded)
	}
	return fmt.Errorf("%s: %w", a.name, a.err)
}

// stop stops the first n actors, last one first.
func (g *group) stop(n int) error {
	var wrong []error
	for i := n - 1; i >= 0; i-- {
		a := g.actors[i]
		select {
		case <-a.done: // had ended before; its error is known
			continue
		default:
		}
		begin := time.Now()
		a.cancel()
		var late <-chan time.Time
		var timer *time.Timer
		if a.stop > 0 {
			timer = time.NewTimer(a.stop)
			late = timer.C
		}
		select {
		case <-a.done:
			if a.err != nil && !errors.Is(a.err, context.Canceled) {
				wrong = append(wrong, fmt.Errorf("stop %s: %w", a.name, a.err))
			}
			g.log.Debug("stopped", "part", a.name, "took", time.Since(begin))
		case <-late:
			g.log.Error("does not stop in time; going on without it", "part", a.name, "deadline", a.stop)
			wrong = append(wrong, fmt.Errorf("stop %s: not done within %s", a.name, a.stop))
		}
		if timer != nil {
			timer.Stop()
		}
	}
	return errors.Join(wrong...)
}
