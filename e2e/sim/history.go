package sim

import (
	"fmt"
	"strings"
	"time"
)

// event is a line of a history.
type event struct {
	seq  int
	at   time.Duration
	life int
	text string
}

// history is what happened, in the order in which the judge heard of it.
type history struct {
	start  time.Time
	life   int
	events []event
}

// add notes something and returns its number, from 1.
func (h *history) add(format string, args ...any) int {
	h.events = append(h.events, event{len(h.events) + 1, time.Since(h.start), h.life, fmt.Sprintf(format, args...)})
	return len(h.events)
}

// now is the number of the last event.
func (h *history) now() int { return len(h.events) }

// dump writes the last lines, and those before them that name a word.
func (h *history) dump(last int, words ...string) string {
	var b strings.Builder
	for i, e := range h.events {
		if i < len(h.events)-last && !containsAny(e.text, words) {
			continue
		}
		fmt.Fprintf(&b, "%6d  %12v  life %d  %s\n", e.seq, e.at, e.life, e.text)
	}
	return b.String()
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if w != "" && strings.Contains(s, w) {
			return true
		}
	}
	return false
}
