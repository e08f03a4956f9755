package archive

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
)

const (
	linger    = 20 * time.Millisecond // between two looks at what has changed: a busy hub changes all the time
	retryMin  = time.Second           // after a failure of a channel, doubled up to retryMax
	retryMax  = 10 * time.Second
	judgeMax  = time.Minute      // instead of retryMax, while a person has to judge
	lagPeriod = 10 * time.Second // between two updates of the gauges, while something waits
)

// state is one channel in the archiver's schedule. A channel is in the queue, or running, or has an appointment, or none of these.
type state struct {
	name    string
	last    hub.Key // the last key known at the start; zero afterwards
	queued  bool
	running bool
	changed bool          // while it was running
	due     time.Time     // an appointment, by the clock of package time
	eager   bool          // changes matter before it
	place   int           // in the appointments, -1 if not there
	pause   time.Duration // after the next failure
	judged  bool          // a person has to judge what failed: it waits for nobody else
	cursor  *coord.Cursor // used by the pass that runs; nil: not loaded
	marker  hub.Key       // of a replicated channel, as the last pass saw it
	marked  time.Time     // since when it stands there
	replica bool          // the last pass found it replicated

	// Of one that was found so: how far it was archived then, and up to where that has been compared since; zero: it was.
	passed, compared hub.Key
}

// outcome is what a pass found.
type outcome struct {
	st   *state
	more bool      // it gave way to others, with work left
	gone bool      // there is no such channel
	due  time.Time // by the clock of Options: come back then; zero: when something changes
	// eager: come back when something changes as well. Otherwise nothing that changes matters before due.
	eager bool
	moved bool // it got on
	err   error
}

// schedule is what the archiver's one loop owns. Passes run beside it and touch nothing but the cursor of their state.
type schedule struct {
	j        *Jobs
	fence    uint64
	states   map[string]*state
	queue    []*state
	dates    appointments
	running  int
	failing  map[*state]struct{}
	outcomes chan outcome
	wg       sync.WaitGroup
}

// archive is the archiver, while this node leads.
func (j *Jobs) archive(ctx context.Context, fence uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	wake, drain, stop := j.opt.Short.Changes()
	defer stop()
	s := &schedule{j: j, fence: fence, states: map[string]*state{}, failing: map[*state]struct{}{}, outcomes: make(chan outcome, j.opt.Workers)}
	j.begin()
	defer func() {
		cancel()
		s.wg.Wait()
		j.end()
		j.measure()
	}()
	if err := s.begin(ctx); err != nil {
		return err
	}
	var quiet, gauges <-chan time.Time // non-nil: a timer runs
	shown := true                      // whether the gauges say that something waits
	for {
		s.start(ctx)
		if waits := j.waiting(); waits && gauges == nil || shown && !waits {
			j.measure()
			if shown = waits; waits {
				gauges = time.After(lagPeriod)
			}
		}
		awake := wake
		if quiet != nil {
			awake = nil
		}
		timer := s.alarm()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-awake:
			quiet = time.After(linger)
			for _, name := range drain() {
				s.change(name)
			}
		case <-quiet:
			quiet = nil
		case <-gauges:
			gauges = nil
		case <-timer.C:
			s.ring()
		case o := <-s.outcomes:
			if err := s.finish(o); err != nil {
				return err
			}
		}
		timer.Stop()
	}
}

// begin queues every channel of which the short-term store holds something.
func (s *schedule) begin(ctx context.Context) error {
	pause := retryMin
	for {
		all, err := s.j.opt.Short.Channels(ctx)
		if err == nil {
			for name, last := range all {
				st := s.state(name)
				st.last = last
				s.enqueue(st)
			}
			return nil
		}
		s.j.opt.Log.Warn("the archiver cannot list the channels; trying again", "err", err)
		if !hub.Sleep(ctx, around(pause)) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, retryMax)
	}
}

func (s *schedule) state(name string) *state {
	st := s.states[name]
	if st == nil {
		st = &state{name: name, place: -1, pause: retryMin}
		s.states[name] = st
	}
	return st
}

func (s *schedule) enqueue(st *state) {
	if !st.queued && !st.running {
		st.queued = true
		s.queue = append(s.queue, st)
	}
}

// change notes that a channel has a new key.
func (s *schedule) change(name string) {
	st := s.state(name)
	s.j.waits(name, s.j.opt.Clock())
	if st.running { // last is the pass's until finish forgets it
		st.changed = true
		return
	}
	st.last = hub.Key{}
	switch {
	case st.place < 0:
		s.enqueue(st)
	case st.eager:
		heap.Remove(&s.dates, st.place)
		s.enqueue(st)
	}
}

// start lets queued channels run, as many as there are workers.
func (s *schedule) start(ctx context.Context) {
	for s.running < s.j.opt.Workers && len(s.queue) > 0 {
		st := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		st.queued, st.running, st.changed = false, true, false
		s.running++
		s.wg.Go(func() {
			o := s.j.pass(ctx, st, s.fence)
			o.st = st
			s.outcomes <- o // there is room for each worker
		})
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

// finish takes in what a pass found. An error ends the archiver: another node leads.
func (s *schedule) finish(o outcome) error {
	st := o.st
	st.running = false
	s.running--
	st.last = hub.Key{}
	if o.err == nil || o.moved {
		st.pause = retryMin
		s.recovered(st)
	}
	if o.err != nil {
		return s.fail(st, o.err)
	}
	switch {
	case o.gone:
		if st.cursor != nil {
			st.cursor.Close()
		}
		delete(s.states, st.name)
	case o.more || st.changed && (o.eager || o.due.IsZero()):
		s.enqueue(st)
	case !o.due.IsZero():
		st.eager = o.eager
		s.appoint(st, o.due.Sub(s.j.opt.Clock()))
	}
	return nil
}

// recovered: one that failed has got on. Long-term storage answers again, so that the others need not sit out the pauses that its absence has cost them.
func (s *schedule) recovered(st *state) {
	if _, was := s.failing[st]; !was {
		return
	}
	delete(s.failing, st)
	if len(s.failing) == 0 {
		s.j.opt.Log.Info("archiving works again", "channel", st.name)
	}
	for other := range s.failing {
		if other.place >= 0 && !other.judged {
			heap.Remove(&s.dates, other.place)
			s.enqueue(other)
		}
	}
}

// fail gives a channel an appointment for another attempt. The others go on.
func (s *schedule) fail(st *state, err error) error {
	most := retryMax
	st.judged = hub.Is(err, hub.Conflict)
	switch {
	case errors.Is(err, coord.ErrFenced):
		return fmt.Errorf("%w: %w", coord.ErrLeaseLost, err)
	case st.judged:
		most = judgeMax
		s.j.opt.Log.Error("long-term storage holds something else under the name of an item: a person has to judge", "channel", st.name, "err", err)
	}
	s.j.meters.failures.Add(1)
	if len(s.failing) == 0 {
		s.j.opt.Log.Warn("a channel cannot be archived; trying again until it can. More of this, of any channel, is logged at debug level",
			"channel", st.name, "err", err)
	} else {
		s.j.opt.Log.Debug("a channel cannot be archived; trying again", "channel", st.name, "err", err)
	}
	s.failing[st] = struct{}{}
	st.eager = false
	s.appoint(st, around(st.pause))
	st.pause = min(2*st.pause, most)
	return nil
}

func (s *schedule) appoint(st *state, in time.Duration) {
	st.due = time.Now().Add(max(in, time.Millisecond))
	heap.Push(&s.dates, st)
}

// alarm is a timer for the next appointment; it never fires if there is none.
func (s *schedule) alarm() *time.Timer {
	if len(s.dates) == 0 {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTimer(max(0, time.Until(s.dates[0].due)))
}

// ring queues what is due.
func (s *schedule) ring() {
	now := time.Now()
	for len(s.dates) > 0 && !s.dates[0].due.After(now) {
		s.enqueue(heap.Pop(&s.dates).(*state))
	}
}

// appointments is a heap by due.
type appointments []*state

func (a appointments) Len() int           { return len(a) }
func (a appointments) Less(i, k int) bool { return a[i].due.Before(a[k].due) }
func (a appointments) Swap(i, k int) {
	a[i], a[k] = a[k], a[i]
	a[i].place, a[k].place = i, k
}

func (a *appointments) Push(x any) {
	st := x.(*state)
	st.place = len(*a)
	*a = append(*a, st)
}

func (a *appointments) Pop() any {
	last := len(*a) - 1
	st := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	st.place = -1
	return st
}
