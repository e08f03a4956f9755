package channel

import (
	"cmp"
	"iter"
	"slices"

	"timehub/hub"
)

// This file is pure: sorted sequences in, one sorted sequence without duplicates out.

// inOrder compares keys in the order of a search.
func inOrder(a, b hub.Key, reverse bool) int {
	if reverse {
		return b.Compare(a)
	}
	return a.Compare(b)
}

// mergeKeys merges two lists that are sorted in the order of the search, drops duplicates and cuts the result to limit (0: no limit). more tells that
// the limit cut something off. The lists are not changed; the result may be one of them.
func mergeKeys(a, b []hub.Key, reverse bool, limit int) (keys []hub.Key, more bool) {
	if len(a) == 0 || len(b) == 0 {
		keys = a
		if len(a) == 0 {
			keys = b
		}
		if limit > 0 && len(keys) > limit {
			return keys[:limit], true
		}
		return keys, false
	}
	size := len(a) + len(b)
	if limit > 0 {
		size = min(size, limit)
	}
	keys = make([]hub.Key, 0, size)
	for len(a) > 0 || len(b) > 0 {
		if limit > 0 && len(keys) == limit {
			return keys, true
		}
		order := -1
		if len(a) == 0 {
			order = 1
		} else if len(b) > 0 {
			order = inOrder(a[0], b[0], reverse)
		}
		switch {
		case order < 0:
			keys, a = append(keys, a[0]), a[1:]
		case order > 0:
			keys, b = append(keys, b[0]), b[1:]
		default:
			keys, a, b = append(keys, a[0]), a[1:], b[1:]
		}
	}
	return keys, false
}

// dropKeys returns keys without those that drop names, in the same memory.
func dropKeys(keys []hub.Key, drop func(hub.Key) bool) []hub.Key {
	return slices.DeleteFunc(keys, drop)
}

// source is a sequence of items that is sorted in the order of the search; nil items: there is none.
type source struct {
	items iter.Seq2[hub.Sealed, error]
	// late, if not nil, says that all of it sorts after this key, and that the merge should not start it earlier: starting costs a request.
	late *hub.Key
}

// mergeItems merges two sources; of two items with one key it keeps that of a. Only b may be late. The first error ends the sequence.
func mergeItems(a, b source, reverse bool) iter.Seq2[hub.Sealed, error] {
	switch {
	case a.items == nil && b.items == nil:
		return func(func(hub.Sealed, error) bool) {}
	case b.items == nil:
		return a.items
	case a.items == nil:
		return b.items
	}
	return func(yield func(hub.Sealed, error) bool) {
		l, r := head{source: a}, head{source: b}
		defer l.close()
		defer r.close()
		for {
			l.pull()
			if l.err == nil && (r.late == nil || l.done || inOrder(l.item.Key, *r.late, reverse) > 0) {
				r.pull()
			}
			if err := cmp.Or(l.err, r.err); err != nil {
				yield(hub.Sealed{}, err)
				return
			}
			if l.done && r.done || !yield(nearer(&l, &r, reverse), nil) {
				return
			}
		}
	}
}

// nearer takes the nearer of two heads, of which at least one holds an item.
func nearer(l, r *head, reverse bool) hub.Sealed {
	if !r.full {
		return l.take()
	}
	if !l.full {
		return r.take()
	}
	order := inOrder(l.item.Key, r.item.Key, reverse)
	if order > 0 {
		return r.take()
	}
	if order == 0 {
		r.take()
	}
	return l.take()
}

// head is the next item of a source.
type head struct {
	source
	next func() (hub.Sealed, error, bool)
	stop func()
	item hub.Sealed
	full bool // item was not taken yet
	done bool
	err  error
}

func (h *head) pull() {
	if h.full || h.done {
		return
	}
	if h.next == nil {
		h.next, h.stop = iter.Pull2(h.items)
	}
	var ok bool
	h.item, h.err, ok = h.next()
	h.full, h.done = ok, !ok
}

func (h *head) take() hub.Sealed {
	h.full = false
	return h.item
}

func (h *head) close() {
	if h.stop != nil {
		h.stop()
	}
}
