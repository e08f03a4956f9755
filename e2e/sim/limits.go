package sim

import (
	"time"

	"timehub/hub"
)

// limit is what a channel need not keep.
type limit struct {
	items int           // more than the newest so many; 0: it keeps all
	ttl   time.Duration // what is older; 0: it keeps all
}

// slack is by how much clocks that are right may differ.
const slack = time.Second

// Limit tells that a channel need not keep more than its newest items, or what is older than ttl. 0: no limit. Before anybody uses it.
func (l *Ledger) Limit(channel string, items int, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shelves[channel].limit = limit{items, ttl}
}

// hidden is how many items a channel may have whose keys nobody knows: of requests that were not acknowledged. l.mu is held.
func (l *Ledger) hidden(channel string) (n int) {
	for _, w := range l.writes {
		if w.channel == channel && w.key.IsZero() && w.fate != Refused {
			n += len(w.sizes)
		}
	}
	return n
}

// over reports whether a key may be gone because it is over the limits of its channel: older than may be, or as many keys as are kept may have been above it.
// l.mu is held.
func (r *reading) over(k hub.Key) bool {
	lim := r.s.limit
	if lim.ttl > 0 && k.Time().Before(time.Now().Add(slack-lim.ttl)) {
		return true
	}
	if lim.items == 0 {
		return false
	}
	above := len(r.s.order) - search(r.s.order, k.After())
	return above+r.hidden >= lim.items
}

// Newest are the keys that a channel has to keep for sure, of all that anybody was told of: the newest ones, as many as it keeps.
func (l *Ledger) Newest(channel string) (keys []hub.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelves[channel]
	for i := len(s.order) - 1; i >= 0 && len(keys) < s.limit.items; i-- {
		if f := s.order[i]; f.must(l.history.now() + 1) {
			keys = append(keys, f.key)
		}
	}
	return keys
}
