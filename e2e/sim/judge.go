package sim

import (
	"fmt"
	"slices"

	"timehub/hub"
)

// Question is one that was asked and not answered yet.
type Question struct {
	Ask
	begun   int
	life    int
	horizon hub.Key // the highest one shown before
	covered spans   // of the channel, before, by the same node
}

// Asking is told before a question is asked.
func (l *Ledger) Asking(a Ask) *Question {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := &Question{Ask: a, begun: l.history.now() + 1, life: l.history.life, horizon: l.horizon, covered: l.shelves[a.Channel].covered}
	if l.several {
		q.horizon, q.covered = most(l.voice(a.Node).horizon, a.Seen), l.shelves[a.Channel].by[a.Node]
	}
	return q
}

// late reports whether the hub that was asked is no more. Of several, each that dies takes its answers with it. l.mu is held.
func (l *Ledger) late(q *Question) bool { return q.life != l.history.life && !l.several }

// reading is one answer being judged.
type reading struct {
	*Question
	a     Answer
	s     *shelf
	in    span // what the answer says everything about
	found map[hub.Key]bool

	hidden int // items of the channel whose keys nobody knows; of one that keeps a number of them
}

// Answered judges an answer.
func (l *Ledger) Answered(q *Question, a Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late(q) || l.wrong != "" {
		return
	}
	l.Asked++
	l.history.add("%s", describe(q, a))
	r := reading{Question: q, a: a, s: l.shelves[q.Channel], found: make(map[hub.Key]bool, len(a.Keys))}
	if r.s.limit.items > 0 {
		r.hidden = l.hidden(q.Channel)
	}
	if !l.form(&r) {
		return
	}
	for i, k := range a.Keys {
		f := l.fact(q.Channel, k)
		if q.Bodies {
			l.bindBody(f, q.Channel, a.Bodies[i])
		}
		l.mayShow(&r, f)
		if q.Stable && f.in == 0 && !r.s.keyed {
			f.in = l.history.now()
		}
	}
	l.mustShow(&r)
	l.whole(&r)
	if q.Stable && !r.s.keyed {
		r.s.covered = r.s.covered.with(r.in)
		if l.several {
			v := l.voice(q.Node)
			v.horizon = most(v.horizon, a.Horizon)
			r.s.by[q.Node] = r.s.by[q.Node].with(r.in)
		}
	}
}

func describe(q *Question, a Answer) string {
	stable := "unstable"
	if q.Stable {
		stable = "stable"
	}
	s := fmt.Sprintf("asked %s at %d: %s of %s, %s", q.Node, q.begun, q.Kind, q.Channel, stable)
	switch q.Kind {
	case Range:
		s += fmt.Sprintf(" [%v, %v) n %d", q.From, q.To, q.N)
	case Next, Previous:
		s += fmt.Sprintf(" %v n %d", q.Key, q.N)
	default:
		s += fmt.Sprintf(" n %d", q.N)
	}
	s += fmt.Sprintf(": %d keys", len(a.Keys))
	if n := len(a.Keys); n > 0 && n <= 3 {
		s += fmt.Sprint(" ", a.Keys)
	} else if n > 0 {
		s += fmt.Sprintf(" %v … %v", a.Keys[0], a.Keys[n-1])
	}
	if q.Stable {
		s += fmt.Sprintf(", horizon %v", a.Horizon)
	}
	if a.Silent {
		s += ", some silent"
	}
	return s + fmt.Sprintf(", floor %v", a.Floor)
}

// form checks order, range, number and horizon, and finds out what the answer is complete about. l.mu is held.
func (l *Ledger) form(r *reading) bool {
	q, n := r.query(), len(r.a.Keys)
	for i, k := range r.a.Keys {
		r.found[k] = true
		switch {
		case k.Less(q.From) || !k.Less(q.To):
			l.fail(nil, "%v is not in the range that was asked for: %s", k, describe(r.Question, r.a))
		case i > 0 && !q.Reverse && !r.a.Keys[i-1].Less(k), i > 0 && q.Reverse && !k.Less(r.a.Keys[i-1]):
			l.fail(nil, "%v comes after %v: %s", k, r.a.Keys[i-1], describe(r.Question, r.a))
		case r.Stable && r.a.Top.Less(k):
			l.fail(nil, "%v is above the horizon %v of a stable answer", k, r.a.Top)
		}
	}
	if q.Limit > 0 && n > q.Limit {
		l.fail(nil, "%d keys, %d were asked for", n, q.Limit)
	}
	if r.Bodies && len(r.a.Bodies) != n {
		l.fail(nil, "%d keys and %d bodies", n, len(r.a.Bodies))
	}
	r.in = span{q.From, q.To}
	if r.Stable && !r.s.keyed {
		l.horizonShown(r.a.Horizon, r.horizon)
		r.in.to = least(q.To, r.a.Horizon.After())
	}
	gone := r.Bodies && !r.Stable && n > 0 // items that are given up while they are read are left out, and nobody looks for others
	if q.Limit > 0 && (n == q.Limit || gone) {
		if last := r.a.Keys[n-1]; q.Reverse {
			r.in.from = last
		} else {
			r.in.to = least(r.in.to, last.After())
		}
	}
	return l.wrong == ""
}

// mayShow checks whether a key that is in the answer may be there. l.mu is held.
func (l *Ledger) mayShow(r *reading, f *fact) {
	covered := r.covered
	if r.Stable {
		covered = r.s.covered
	}
	if r.s.cursor == hub.MaxKey {
		return // the channel was deleted: what is left of it counts for nobody
	}
	if !r.s.keyed && f.in == 0 && covered.has(f.key) {
		l.fail(f, "an earlier stable answer that reaches beyond the key does not hold it")
	}
	w := f.w
	if w == nil {
		return
	}
	switch {
	case w.fate == Refused:
		l.fail(f, "a write that was refused shows up")
	case w.never > 0 && w.never < r.begun:
		l.fail(f, "a write shows up whose failure was on record")
	case r.Stable && w.fate == Doubtful && w.life == r.life && !w.keyed && !l.several:
		l.fail(f, "a write that was answered 503 is in a stable answer of the same life")
	}
}

// excused reports whether a key may be missing: it was archived, and the hub says that it holds nothing for sure there; or it is over the limits. l.mu is held.
func (r *reading) excused(k hub.Key) bool {
	return k.Less(r.a.Floor) && !r.s.cursor.Less(k) || r.over(k)
}

// known lists what is known about the keys that the answer is complete about. l.mu is held.
func (r *reading) known() []*fact {
	from := search(r.s.order, r.in.from)
	to := search(r.s.order, r.in.to)
	return r.s.order[from:max(from, to)]
}

func search(order []*fact, k hub.Key) int {
	lo, hi := 0, len(order)
	for lo < hi {
		if m := (lo + hi) / 2; order[m].key.Less(k) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// mustShow checks whether everything is there that has to be. l.mu is held.
func (l *Ledger) mustShow(r *reading) {
	if r.a.Silent {
		return
	}
	limit := r.begun
	if r.Stable && !r.s.keyed {
		limit = l.history.now() + 1 // stable answers agree whenever they were asked
	}
	for _, f := range r.known() {
		if !r.found[f.key] && f.must(limit) && !r.excused(f.key) {
			l.fail(f, "an item is missing from the answer to %s", describe(r.Question, r.a))
			return
		}
	}
}

// whole checks that of each bulk all parts are there, or none. l.mu is held.
func (l *Ledger) whole(r *reading) {
	if r.a.Silent || r.Bodies && !r.Stable { // the second is read one by one: what must be there, mustShow says
		return
	}
	var w *write
	var seen, missing *fact
	check := func() {
		if seen != nil && missing != nil {
			l.fail(missing, "part %d of a bulk is there, part %d is not: %s", seen.part, missing.part, describe(r.Question, r.a))
		}
	}
	for _, f := range r.known() {
		if f.w == nil || !f.w.bulk {
			continue
		}
		if f.w != w { // the parts of a bulk lie side by side
			check()
			w, seen, missing = f.w, nil, nil
		}
		switch {
		case r.found[f.key]:
			seen = f
		case !r.excused(f.key):
			missing = f
		}
	}
	check()
}

// Reading is told before an item is read.
func (l *Ledger) Reading(channel string, key hub.Key) *Question {
	return l.Asking(Ask{Channel: channel, Key: key})
}

// Read judges the answer to a read of one item: data, or nil if there is none.
func (l *Ledger) Read(q *Question, data []byte, floor hub.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late(q) || l.wrong != "" {
		return
	}
	l.Asked++
	l.history.add("read %s at %d: %s %v: %d bytes", q.Node, q.begun, q.Channel, q.Key, len(data))
	r := reading{Question: q, a: Answer{Floor: floor}, s: l.shelves[q.Channel]}
	if r.s.limit.items > 0 {
		r.hidden = l.hidden(q.Channel)
	}
	f := r.s.facts[q.Key]
	if data != nil {
		f = l.fact(q.Channel, q.Key)
		l.bindBody(f, q.Channel, data)
		l.mayShow(&r, f)
	} else if f != nil && f.must(q.begun) && !r.excused(q.Key) {
		l.fail(f, "an item cannot be read")
	}
}

// Finish checks what can only be known at the end: that keys rise over all lives, and that everything that was shown is known.
func (l *Ledger) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*write
	for _, w := range l.writes {
		if !w.keyed && !w.key.IsZero() {
			all = append(all, w)
		}
	}
	sortByKey(all)
	before := map[string]*write{} // of each node
	for i, w := range all {
		if o := before[w.node]; o != nil && o.life > w.life {
			l.fail(nil, "write %d of life %d of %s has %v, write %d of life %d has %v", o.id, o.life, w.node, o.key, w.id, w.life, w.key)
		}
		before[w.node] = w
		if i > 0 && !all[i-1].last().Less(w.keyOf(0)) {
			l.fail(nil, "the keys of writes %d and %d overlap", all[i-1].id, w.id)
		}
	}
	for name, s := range l.shelves {
		for _, f := range s.order {
			if f.w == nil && f.in > 0 {
				l.fail(f, "nobody knows whose the key is that was in a stable answer of %s", name)
			}
		}
	}
}

func sortByKey(all []*write) {
	slices.SortFunc(all, func(a, b *write) int { return a.key.Compare(b.key) })
}
