package sim

import (
	"fmt"
	"strings"
	"time"
)

// Played is the end of a game.
type Played struct {
	Verdict string // "": no promise was broken
	Lives   int
	Writes  int
	Asked   int
	Virtual time.Duration
	Deaths  [endsCount]int
	Fates   [Unknown + 1]int // of the writes
	Named   int              // writes answered 503 of which it is known that their failure was put on record
}

func (p Played) String() string {
	s := fmt.Sprintf("%d lives (", p.Lives)
	for e, n := range p.Deaths {
		s += fmt.Sprintf("%d %v, ", n, end(e))
	}
	s = fmt.Sprintf("%s), %d writes (", strings.TrimSuffix(s, ", "), p.Writes)
	for f := Acknowledged; f <= Unknown; f++ {
		s += fmt.Sprintf("%d %v, ", p.Fates[f], f)
	}
	return fmt.Sprintf("%s), %d doubts settled, %d answers judged, %v of virtual time", strings.TrimSuffix(s, ", "), p.Named, p.Asked, p.Virtual.Round(time.Second))
}

// Add sums up games.
func (p *Played) Add(o Played) {
	p.Lives += o.Lives
	p.Writes += o.Writes
	p.Asked += o.Asked
	p.Virtual += o.Virtual
	p.Named += o.Named
	for i := range o.Deaths {
		p.Deaths[i] += o.Deaths[i]
	}
	for i := range o.Fates {
		p.Fates[i] += o.Fates[i]
	}
}

// Sum counts what a ledger has seen.
func (l *Ledger) Sum(p *Played) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.Writes, p.Asked = len(l.writes), l.Asked
	for _, w := range l.writes {
		p.Fates[w.fate]++
		if w.fate == Doubtful && w.never > 0 {
			p.Named++
		}
	}
}
