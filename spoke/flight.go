package spoke

import (
	"time"

	"timehub/hub"
)

// state is what the writer has decided of a request.
type state uint8

const (
	undecided state = iota
	givingUp        // timed out; its name is on its way into the stream
	committed
	givenUp
)

// request is one write in flight: a single item, or a bulk, under one mark.
type request struct {
	mark    hub.Mark
	key     hub.Key
	parts   int // 0: a single item
	channel string
	state   state
	onDisk  bool        // the own disk has synced the records
	of      *peerStream // the incarnation that it was minted in (cluster)
	pos     uint64      // of the records in the own stream (cluster)
	namePos uint64      // of the name, once it is in the stream (cluster)
	named   bool        // the records of the name are in the stream
	gave    time.Time   // since when it is given up
	done    chan error  // gets the decision once; holds one
}

func (r *request) decided() bool { return r.state >= committed }

// keys are those of its records.
func (r *request) keys() []hub.Key {
	if r.parts == 0 {
		return []hub.Key{r.key}
	}
	keys := make([]hub.Key, r.parts)
	for i := range keys {
		keys[i] = hub.BulkKey(r.key, i)
	}
	return keys
}

// flight holds the requests of one stream that are not decided, in the order of their marks. It is a queue: what is decided in the middle waits for
// what was minted before it, because `low` does too. Not safe for concurrent use.
type flight struct {
	queue []*request
	head  int
}

func (f *flight) add(r *request) { f.queue = append(f.queue, r) }

func (f *flight) empty() bool { return f.head == len(f.queue) }

// low is the position just below the smallest undecided mark; ok is false if nothing is in flight.
func (f *flight) low() (m hub.Mark, ok bool) {
	if f.empty() {
		return 0, false
	}
	return f.queue[f.head].mark - 1, true
}

// settle removes what is decided from the front and hands it to visit in the order of the marks.
func (f *flight) settle(visit func(*request)) {
	for f.head < len(f.queue) && f.queue[f.head].decided() {
		r := f.queue[f.head]
		f.queue[f.head] = nil
		f.head++
		visit(r)
	}
	if f.head == len(f.queue) {
		f.queue, f.head = f.queue[:0], 0
	} else if f.head > 1024 && f.head > len(f.queue)/2 {
		n := copy(f.queue, f.queue[f.head:])
		clear(f.queue[n:])
		f.queue, f.head = f.queue[:n], 0
	}
}

// each visits what is in flight, in the order of the marks, until visit returns false.
func (f *flight) each(visit func(*request) bool) {
	for _, r := range f.queue[f.head:] {
		if !visit(r) {
			return
		}
	}
}
