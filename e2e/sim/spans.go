package sim

import (
	"slices"

	"timehub/hub"
)

// span is a range of keys, from ≤ key < to.
type span struct{ from, to hub.Key }

func (s span) has(k hub.Key) bool { return !k.Less(s.from) && k.Less(s.to) }

// spans is a set of keys: ranges in their order that do not touch. A value is never changed in place, so a copy is a snapshot.
type spans []span

// with is the set and one more range.
func (s spans) with(n span) spans {
	if !n.from.Less(n.to) {
		return s
	}
	i, _ := slices.BinarySearchFunc(s, n.from, func(o span, k hub.Key) int { return o.to.Compare(k) })
	j := i
	for j < len(s) && !n.to.Less(s[j].from) {
		n.from, n.to = least(n.from, s[j].from), most(n.to, s[j].to)
		j++
	}
	out := make(spans, 0, len(s)+1)
	return append(append(append(out, s[:i]...), n), s[j:]...)
}

func (s spans) has(k hub.Key) bool {
	i, found := slices.BinarySearchFunc(s, k, func(o span, k hub.Key) int { return o.to.Compare(k) })
	if found {
		i++
	}
	return i < len(s) && s[i].has(k)
}

func least(a, b hub.Key) hub.Key {
	if b.Less(a) {
		return b
	}
	return a
}

func most(a, b hub.Key) hub.Key {
	if a.Less(b) {
		return b
	}
	return a
}
