package run

import (
	"context"
	"slices"
	"sync"
	"time"

	"timehub/callbacks/webhook"
	"timehub/hub"
)

// ledger is what a loop knows of its deliveries: everything above the cursor that was read, in the order of the keys. All that others can see of
// it (cursor, finished, in flight, error lines) changes in one step, under its lock. It does no I/O and knows no time but what it is told.
type ledger struct {
	parallel int
	ahead    int // entries that may wait to be begun

	mu      sync.Mutex
	born    string
	cursor  hub.Key // everything at or below is done
	last    string  // the greatest path done
	lastKey hub.Key
	open    []*entry // above the cursor, ascending; the first is not done
	ready   []*entry // can be begun now, in this order
	waiting int      // entries that are not begun
	lanes   map[string]*lane
	lines   []webhook.Line
	size    int // bytes of the paths of open
	workers int

	parked bool          // who delivers again has paused and wants a worker's place back
	place  chan struct{} // that place is handed over

	replay   []webhook.Range
	replayed *entry // the one that is delivered again now; nil: none
	fresh    bool   // a worker is looking for the next of replay
	turn     bool   // it is the turn of replay
	// flewAgain was delivered again when the session before ended.
	flewAgain webhook.Flight

	stopped bool
	room    chan struct{} // a token: something may be admitted again
}

// entry is one delivery: of an item, or of a period.
type entry struct {
	key     hub.Key    // of the item, or the end of the period: the cursor when it is done
	after   hub.Key    // of a period: its items are those above
	window  hub.Window // of a period; Unit 0: an item
	tries   int        // calls that have failed
	why     string     // the text of the last failure
	trouble int        // failures of our own
	lane    *lane
	state   entryState
	empty   bool      // of a period: there is nothing in it
	flew    bool      // it was in flight when the loop began
	replay  bool      // it is delivered again because somebody asked
	asked   time.Time // when that began
}

type entryState uint8

const (
	waits entryState = iota
	begun
	done
)

// lane holds the entries that must be delivered one after the other; the first is ready or begun.
type lane struct {
	value string
	queue []*entry
}

// maxBytes bounds the paths of a ledger, so that a State fits beside its key: keys of others may have long hashes.
const maxBytes = 96 << 10

func (e *entry) path() string {
	if e.window.Unit != hub.NoUnit {
		return e.window.String()
	}
	return e.key.String()
}

// time is the instant of an item, or the end of a period.
func (e *entry) time() time.Time { return e.key.Time() }

// age is what ttlMinutes is counted from: of what is delivered again, from when that began, since whoever asks for something old wants it.
func (e *entry) age() time.Time {
	if e.replay {
		return e.asked
	}
	return e.time()
}

// bytes is what e adds to a State, roughly.
func (e *entry) bytes() int { return 32 + len(e.key.Hash()) }

func newLedger(w *webhook.Webhook, cursor hub.Key, s webhook.State) *ledger {
	l := &ledger{
		parallel: min(max(w.ParallelCalls, 1), webhook.MaxFinished), born: w.Born, cursor: cursor, last: s.Last, lines: s.Errors, replay: s.Replay,
		room: make(chan struct{}, 1), place: make(chan struct{}, 1),
	}
	l.lastKey, _ = webhook.CursorAt(s.Last)
	if l.ahead = max(16, 2*l.parallel); w.OrderBy != "" && l.parallel > 1 && w.Unit() == hub.NoUnit {
		l.ahead = webhook.MaxFinished
		l.lanes = map[string]*lane{}
	}
	return l
}

// ordered reports whether entries need a lane.
func (l *ledger) ordered() bool { return l.lanes != nil }

// admit takes entries over, which follow those that are there, and returns how many there was room for.
func (l *ledger) admit(entries []*entry, lanes []string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(entries) && len(l.open) < webhook.MaxFinished && l.waiting < l.ahead && (l.size < maxBytes || len(l.open) == 0) {
		value := ""
		if lanes != nil {
			value = lanes[n]
		}
		l.add(entries[n], value)
		n++
	}
	if n < len(entries) { // a token from before would be of no use
		select {
		case <-l.room:
		default:
		}
	}
	return n
}

// top is where reading goes on.
func (l *ledger) top() hub.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.open); n > 0 {
		return l.open[n-1].key
	}
	return l.cursor
}

// resume puts back what a ledger before this one knew, whatever the room.
func (l *ledger) resume(entries []*entry, lanes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range entries {
		value := ""
		if lanes != nil {
			value = lanes[i]
		}
		l.add(e, value)
	}
}

// add appends one entry; mu is held.
func (l *ledger) add(e *entry, value string) {
	l.open = append(l.open, e)
	l.size += e.bytes()
	if e.state == done {
		l.advance()
		return
	}
	l.waiting++
	if l.lanes == nil {
		l.ready = append(l.ready, e)
		return
	}
	ln := l.lanes[value]
	if ln == nil {
		ln = &lane{value: value}
		l.lanes[value] = ln
	}
	e.lane = ln
	if ln.queue = append(ln.queue, e); len(ln.queue) == 1 {
		l.ready = append(l.ready, e)
	}
}

// hire returns how many workers should be begun, and counts them.
func (l *ledger) hire() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return 0
	}
	work := len(l.ready)
	if l.replayable() {
		work++
	}
	n := max(0, min(work, l.parallel-l.workers))
	l.workers += n
	return n
}

func (l *ledger) replayable() bool { return len(l.replay) > 0 && l.replayed == nil && !l.fresh }

// take is the next thing for a worker: an entry, which is in flight from now on, or the search for what is to be delivered again. ok is false if there is
// nothing; then the worker is not counted any more.
func (l *ledger) take() (e *entry, replay, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.parked:
		l.parked = false
		l.place <- struct{}{}
		return nil, false, false
	case l.stopped:
	case l.replayable() && (l.turn || len(l.ready) == 0):
		l.fresh, l.turn = true, false
		return nil, true, true
	case len(l.ready) > 0:
		e = l.ready[0]
		l.ready[0] = nil
		if l.ready = l.ready[1:]; len(l.ready) == 0 {
			l.ready = nil
		}
		e.state = begun
		l.waiting--
		l.turn = true
		l.signal()
		return e, false, true
	}
	l.workers--
	return nil, false, false
}

// leave gives the place of a worker up for the pause of something that is delivered again: what is new must not wait for it.
func (l *ledger) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.workers--
}

// back takes a place again, and waits until there is one, or ctx ends; then too the caller counts as a worker, who is about to end.
func (l *ledger) back(ctx context.Context) {
	l.mu.Lock()
	if l.workers < l.parallel || ctx.Err() != nil {
		l.workers++
		l.mu.Unlock()
		return
	}
	l.parked = true
	l.mu.Unlock()
	select {
	case <-l.place:
		return
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parked {
		l.parked = false
		l.workers++
		return
	}
	<-l.place
}

// signal tells who waits for room; mu is held.
func (l *ledger) signal() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// stop lets workers end after what they do.
func (l *ledger) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
}

// failed notes a failed attempt.
func (l *ledger) failed(e *entry, line webhook.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.tries++
	e.why = line.Text
	l.note(line)
}

// note adds an error line; mu is held.
func (l *ledger) note(line webhook.Line) {
	if len(line.Text) > webhook.MaxLineText {
		line.Text = line.Text[:webhook.MaxLineText]
	}
	l.lines = append(slices.Clone(l.lines), line) // others may hold the old ones
	l.lines = l.lines[max(0, len(l.lines)-webhook.MaxLines):]
}

// finish says that an entry is done: delivered, or given up for the reason in line. more: something can be begun that could not before.
func (l *ledger) finish(e *entry, line *webhook.Line) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line != nil {
		l.note(*line)
	}
	if e.replay {
		l.replayed = nil
		l.passed(e)
		return false
	}
	e.state = done
	if l.lastKey.Less(e.key) {
		l.lastKey, l.last = e.key, e.path()
	}
	if ln := e.lane; ln != nil {
		e.lane = nil
		ln.queue[0] = nil
		if ln.queue = ln.queue[1:]; len(ln.queue) == 0 {
			delete(l.lanes, ln.value)
		} else {
			l.ready = append(l.ready, ln.queue[0])
			more = true
		}
	}
	l.advance()
	return more
}

// advance moves the cursor over what is done; mu is held.
func (l *ledger) advance() {
	n := 0
	for n < len(l.open) && l.open[n].state == done {
		l.cursor = l.open[n].key
		l.size -= l.open[n].bytes()
		l.open[n] = nil
		n++
	}
	if n == 0 {
		return
	}
	if l.open = l.open[n:]; len(l.open) == 0 {
		l.open = nil
	}
	l.signal()
}

// live is where the webhook stands.
func (l *ledger) live(now time.Time) (hub.Key, webhook.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := webhook.State{Born: l.born, Last: l.last, Errors: youngLines(l.lines, now)}
	if e := l.replayed; e != nil && !l.cursor.Less(e.key) {
		s.InFlight = append(s.InFlight, webhook.Flight{Path: e.path(), Attempts: e.tries})
	}
	for _, e := range l.open {
		switch e.state {
		case done:
			s.Finished = append(s.Finished, e.path())
		case begun:
			s.InFlight = append(s.InFlight, webhook.Flight{Path: e.path(), Attempts: e.tries})
		case waits:
			if e.flew {
				s.InFlight = append(s.InFlight, webhook.Flight{Path: e.path(), Attempts: e.tries})
			}
		}
	}
	s.Replay = slices.Clone(l.replay)
	return l.cursor, s
}

// youngLines are the lines that may still be shown.
func youngLines(lines []webhook.Line, now time.Time) []webhook.Line {
	oldest := now.Add(-webhook.MaxLineAge).UnixMilli()
	for len(lines) > 0 && lines[0].Time < oldest {
		lines = lines[1:]
	}
	return slices.Clip(lines)
}
