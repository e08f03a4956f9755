package sim

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"timehub/hub"
)

// write is one request of a writer.
type write struct {
	id      int
	channel string
	sizes   []int // of the parts
	bodies  [][]byte
	bulk    bool
	keyed   bool
	node    string  // who took it, of several
	life    int     // of the hub, or of that node
	begun   int     // number of the event
	ended   int     // 0: not answered yet
	above   hub.Key // the highest key and horizon that anybody had seen when it began
	key     hub.Key // as far as it is known; of a bulk, the shared key
	fate    Fate
	never   int // since when it is sure that nobody will see it; 0: it is not
}

// keyOf is the key of a part.
func (w *write) keyOf(part int) hub.Key {
	if w.bulk {
		return hub.BulkKey(w.key, part)
	}
	return w.key
}

func (w *write) last() hub.Key { return w.keyOf(len(w.sizes) - 1) }

// fact is what is known of a key of a channel.
type fact struct {
	key  hub.Key
	w    *write // whose it is; nil: not known yet
	part int
	in   int // since when it is in stable answers; 0: in none yet
}

// must reports whether an answer has to hold the key: whether somebody was told that it is there, before the event limit.
func (f *fact) must(limit int) bool {
	return f.in > 0 && f.in < limit || f.w != nil && f.w.fate == Acknowledged && f.w.ended < limit
}

// shelf is a channel.
type shelf struct {
	keyed   bool // keys come from outside: there is no stable order
	facts   map[hub.Key]*fact
	order   []*fact
	covered spans            // what stable answers have said everything about
	by      map[string]spans // the same, of each node by itself
	cursor  hub.Key          // archived up to
	limit   limit
}

// Ledger judges. It is told of all requests and answers; the first broken promise is kept. All methods are safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex // held for computing only
	history history
	shelves map[string]*shelf
	writes  []*write
	top     hub.Key // the highest key that was seen, of those that are minted
	horizon hub.Key // the highest horizon that was shown
	several bool    // there are several nodes: see NewClusterLedger
	voices  map[string]*voice
	marks   marks
	doubts  []*write // answered 503 in this life, not known to be on record
	wrong   string
	broken  chan struct{} // closed when something is wrong
	Asked   int           // questions that were judged
}

// NewLedger returns the ledger of channels. The items of keyed ones have keys of their own.
func NewLedger(channels []string, keyed []string) *Ledger {
	l := &Ledger{shelves: map[string]*shelf{}, broken: make(chan struct{}), voices: map[string]*voice{}}
	l.history.start = time.Now()
	for _, c := range channels {
		l.shelves[c] = &shelf{by: map[string]spans{}, facts: map[hub.Key]*fact{}, cursor: hub.MinKey, keyed: slices.Contains(keyed, c)}
	}
	return l
}

// voice is what one of several nodes has shown.
type voice struct {
	horizon hub.Key
	top     hub.Key // the highest key that it acknowledged
}

func (l *Ledger) voice(node string) *voice {
	v := l.voices[node]
	if v == nil {
		v = &voice{}
		l.voices[node] = v
	}
	return v
}

// NewClusterLedger returns the ledger of a hub of several nodes, each of which may die by itself. All of them together give the promises of one; but
// the horizon goes on at each by itself, the keys of a writer rise where it stays at a node or sends Hub-After, and a write that was answered 503 may turn
// up as long as no stable answer has passed it.
func NewClusterLedger(channels []string) *Ledger {
	l := NewLedger(channels, nil)
	l.several = true
	return l
}

// Note adds a line to the history.
func (l *Ledger) Note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.add(format, args...)
}

// Life is the number of the life, from 1.
func (l *Ledger) Life() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.history.life
}

// Wrong notes a broken promise that somebody else has found.
func (l *Ledger) Wrong(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(nil, format, args...)
}

// Broken is closed when a promise was broken.
func (l *Ledger) Broken() <-chan struct{} { return l.broken }

// Verdict is "" or the first broken promise with the history.
func (l *Ledger) Verdict() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrong
}

// fail keeps the first broken promise. l.mu is held.
func (l *Ledger) fail(f *fact, format string, args ...any) {
	if l.wrong != "" {
		return
	}
	text := fmt.Sprintf(format, args...)
	var words []string
	if f != nil {
		text += fmt.Sprintf("\n  key %v, in stable answers since %d", f.key, f.in)
		words = append(words, f.key.String())
		if w := f.w; w != nil {
			text += fmt.Sprintf("\n  part %d of %d of write %d in life %d, begun %d, ended %d, %v, never since %d", f.part, len(w.sizes), w.id, w.life, w.begun, w.ended, w.fate, w.never)
			words = append(words, fmt.Sprintf("write %d:", w.id))
		}
	}
	l.history.add("BROKEN: %s", text)
	l.wrong = text + "\n" + l.history.dump(400, append(words, "life begins", "trouble:", "no more:", "dead:", "it is stopped", "does not start", "seed ", "** ")...)
	close(l.broken)
}

// Begin starts the next life.
func (l *Ledger) Begin(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.life++
	l.history.add(format, args...)
	for _, w := range l.writes {
		if w.fate == Open {
			w.fate, w.ended = Unknown, l.history.now()
		}
	}
	l.doubts = nil
}

// Writing is told before a request is sent. sizes are those of the bodies; bulk says whether it is one. It returns the number that goes into the bodies.
func (l *Ledger) Writing(channel string, bulk, keyed bool, sizes ...int) *write {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &write{
		id: len(l.writes), channel: channel, sizes: sizes, bulk: bulk, keyed: keyed, life: l.history.life, above: most(l.marks.now, most(l.top, l.horizon)),
	}
	for i, n := range sizes {
		w.bodies = append(w.bodies, body(w.id, i, n))
	}
	w.begun = l.history.add("write %d: to %s, %d parts", w.id, channel, len(sizes))
	l.writes = append(l.writes, w)
	return w
}

// WritingAt is Writing to one of several nodes, in a life of it. after is the key that the client sends as Hub-After.
func (l *Ledger) WritingAt(node string, life int, after hub.Key, channel string, bulk bool, sizes ...int) *write {
	w := l.Writing(channel, bulk, false, sizes...)
	l.mu.Lock()
	defer l.mu.Unlock()
	w.node, w.life = node, life
	w.above = most(after, most(l.horizon, l.voice(node).top))
	l.history.add("write %d: at %s", w.id, node)
	return w
}

// Bodies are those of a write. They must not be changed.
func (w *write) Bodies() [][]byte { return w.bodies }

// Wrote is told what became of a request; key is zero if it is not known.
func (l *Ledger) Wrote(w *write, key hub.Key, fate Fate, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.life != l.history.life && !l.several {
		fate = Unknown // too late to be an answer
	}
	w.ended = l.history.add("write %d: %v %v %v", w.id, fate, key, short(err))
	w.fate = fate
	if fate == Acknowledged && key.IsZero() {
		l.fail(nil, "write %d was acknowledged without a key", w.id)
		return
	}
	if !key.IsZero() {
		l.bind(w, key)
	}
	if v := l.voice(w.node); fate == Acknowledged {
		v.top = most(v.top, w.last())
	}
	switch {
	case fate == Refused:
		w.never = w.begun
		for _, f := range l.factsOf(w) {
			if f.in > 0 {
				l.fail(f, "a write that was refused is in a stable answer")
			}
		}
	case fate == Doubtful && l.several:
	case fate == Doubtful && !w.keyed:
		for _, f := range l.factsOf(w) {
			if f.in > w.begun {
				l.fail(f, "a write that was answered 503 is in a stable answer of the same life")
			}
		}
		l.doubts = append(l.doubts, w)
		l.onRecord()
	case fate == Acknowledged && !w.keyed:
		for _, f := range l.factsOf(w) {
			if f.in == 0 && l.shelves[w.channel].covered.has(f.key) {
				l.fail(f, "a write was acknowledged, and an earlier stable answer that reaches beyond it does not hold it")
			}
		}
	}
}

func short(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	return s[:min(len(s), 60)]
}

// onRecord finds writes that were answered 503 and whose failure is on record, because the horizon has passed them in the same life. l.mu is held.
func (l *Ledger) onRecord() {
	l.doubts = slices.DeleteFunc(l.doubts, func(w *write) bool {
		if w.key.IsZero() || l.horizon.Less(w.last()) {
			return false
		}
		w.never = l.history.now()
		return true
	})
}

// factsOf lists what is known of the keys of a write. l.mu is held.
func (l *Ledger) factsOf(w *write) (list []*fact) {
	if w.key.IsZero() {
		return nil
	}
	for part := range w.sizes {
		list = append(list, l.fact(w.channel, w.keyOf(part)))
	}
	return list
}

// fact finds or makes the fact of a key. l.mu is held.
func (l *Ledger) fact(channel string, k hub.Key) *fact {
	s := l.shelves[channel]
	f := s.facts[k]
	if f == nil {
		f = &fact{key: k}
		s.facts[k] = f
		i, _ := slices.BinarySearchFunc(s.order, k, func(f *fact, k hub.Key) int { return f.key.Compare(k) })
		s.order = slices.Insert(s.order, i, f)
		if !s.keyed {
			l.top = most(l.top, k)
		}
	}
	return f
}

// bind notes the key of a write. l.mu is held.
func (l *Ledger) bind(w *write, key hub.Key) {
	if !w.key.IsZero() {
		if w.key != key {
			l.fail(nil, "write %d is under %v and under %v", w.id, w.key, key)
		}
		return
	}
	w.key = key
	if !w.keyed && !w.above.Less(key) {
		l.fail(l.fact(w.channel, w.keyOf(0)), "write %d got %v, and %v had been seen before it began", w.id, key, w.above)
	}
	for part := range w.sizes {
		f := l.fact(w.channel, w.keyOf(part))
		if f.w != nil {
			l.fail(f, "writes %d and %d have the same key", f.w.id, w.id)
			return
		}
		f.w, f.part = w, part
	}
}

// bindBody finds out whose a body is, and checks every byte. l.mu is held.
func (l *Ledger) bindBody(f *fact, channel string, data []byte) {
	id, part, ok := owner(data)
	if !ok || id >= len(l.writes) || part >= len(l.writes[id].sizes) || l.writes[id].channel != channel {
		l.fail(f, "an item that nobody wrote is in %s: %.60q", channel, data)
		return
	}
	w := l.writes[id]
	if f.w != nil && (f.w != w || f.part != part) {
		l.fail(f, "the item has the content of part %d of write %d", part, id)
		return
	}
	if !bytes.Equal(data, w.bodies[part]) {
		l.fail(f, "the item has other bytes than were written")
		return
	}
	if f.w == nil {
		key := f.key
		if h := key.Hash(); w.bulk && len(h) > 6 {
			key = hub.KeyAt(key.Millis(), h[:len(h)-6])
		}
		l.bind(w, key)
		if f.w == nil {
			l.fail(f, "part %d of write %d is under the wrong key", part, id)
		}
	}
}

// horizonShown takes in a horizon; min is the highest one that was shown before it was asked for. l.mu is held.
func (l *Ledger) horizonShown(h, min hub.Key) {
	if h.Less(min) {
		l.fail(nil, "the horizon went back from %v to %v", min, h)
	}
	l.horizon = most(l.horizon, h)
	l.onRecord()
}

// HorizonAt is Horizon of one of several nodes.
func (l *Ledger) HorizonAt(node string, ask func() (hub.Key, error)) (hub.Key, error) {
	l.mu.Lock()
	v := l.voice(node)
	min := v.horizon
	l.mu.Unlock()
	h, err := ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		v.horizon = most(v.horizon, h)
		l.history.add("horizon of %s: %v", node, h)
		l.horizonShown(h, min)
	}
	return h, err
}

// Horizon asks for the horizon through ask.
func (l *Ledger) Horizon(ask func() (hub.Key, error)) (hub.Key, error) {
	l.mu.Lock()
	min, life := l.horizon, l.history.life
	l.mu.Unlock()
	h, err := ask()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && life == l.history.life {
		l.history.add("horizon %v", h)
		l.horizonShown(h, min)
	}
	return h, err
}

// Archived notes that a channel is in long-term storage up to a key.
func (l *Ledger) Archived(channel string, upTo hub.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelves[channel]
	s.cursor = most(s.cursor, upTo)
}

// Cursor is the key up to which a channel is archived.
func (l *Ledger) Cursor(channel string) hub.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.shelves[channel]; s != nil {
		return s.cursor
	}
	return hub.MinKey
}
