package hub

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Verb is what a time path asks for beside the thing it names.
type Verb string

// The verbs of a time path. A word that starts with n is Next; one that starts with p or | is Previous (spec 02 §3.3).
const (
	NoVerb    Verb = ""
	Next      Verb = "next"
	Previous  Verb = "previous"
	Websocket Verb = "ws"
	Events    Verb = "events"
)

// Unit is how much of a time path is given: the length of the window it names.
type Unit uint8

// The units, from coarse to fine. A path down to the hash names one item.
const (
	NoUnit Unit = iota
	Day
	Hour
	Minute
	Second
	Millisecond
	ItemUnit
)

var unitNames = [...]string{"none", "day", "hour", "minute", "second", "millisecond", "item"}

func (u Unit) String() string { return unitNames[u] }

// Duration is the fixed length of a window of this unit (spec 01 §4); 0 for NoUnit and ItemUnit.
func (u Unit) Duration() time.Duration {
	return [...]time.Duration{0, 24 * time.Hour, time.Hour, time.Minute, time.Second, time.Millisecond, 0}[u]
}

// Path is a parsed time path: Y/M/D[/h[/m[/s[/ms[/hash]]]]][/verb[/n]].
type Path struct {
	Unit  Unit
	Start time.Time // first instant of what is named, UTC
	Hash  string    // only with ItemUnit; unescaped, any non-empty text
	Verb  Verb
	N     int  // the count after Next or Previous; negative counts and those beyond an int's range are clamped
	HasN  bool // whether a count was given
}

// Key is the key that an ItemUnit path names.
func (p Path) Key() Key { return NewKey(p.Start, p.Hash) }

// Window is the period that the path names.
func (p Path) Window() Window { return Window{p.Start, p.Unit} }

// ParsePath reads a time path as it stands in a URL after the channel or tag, percent-encoded. Fields may be unpadded. Text that is no time path at
// all, down to a field that is not an integer, is NotFound; an integer outside the calendar is Invalid and the message names the field
// (spec 01 §1.1, 02 §1.6).
func ParsePath(escaped string) (Path, error) {
	var fields [7]int
	n := 0
	rest, more := escaped, true // more: rest is a segment and what follows it
	for n < len(fields) && more {
		segment, after, ok := strings.Cut(rest, "/")
		v, isNumber := number(segment)
		if !isNumber {
			break
		}
		fields[n] = v
		n++
		rest, more = after, ok
	}
	if n < 3 {
		return Path{}, noSuchPath(escaped)
	}
	p := Path{Unit: Unit(n - 2)}
	if n == len(fields) && more {
		segment, after, ok := strings.Cut(rest, "/")
		hash, err := url.PathUnescape(segment)
		if err != nil || hash == "" {
			return Path{}, noSuchPath(escaped)
		}
		p.Unit, p.Hash = ItemUnit, hash
		rest, more = after, ok
	}
	var words []string
	if more {
		words = strings.Split(rest, "/")
	}
	if err := p.verb(words); err != nil {
		return Path{}, err
	}
	var err error
	p.Start, err = instant(fields)
	return p, err
}

// verb reads what follows the time. Which verbs go with which units is part of the grammar: spec 02 §11.
func (p *Path) verb(rest []string) error {
	if len(rest) == 0 {
		return nil
	}
	word, err := url.PathUnescape(rest[0])
	if err != nil || word == "" || len(rest) > 2 {
		return noSuchPath(rest[0])
	}
	switch {
	case word == "ws" && p.Unit != Millisecond:
		p.Verb = Websocket
	case word == "events" && p.Unit == ItemUnit:
		p.Verb = Events
	case word[0] == 'n' && (p.Unit == ItemUnit || p.Unit == Second && len(rest) == 2):
		p.Verb = Next
	case (word[0] == 'p' || word[0] == '|') && (p.Unit == ItemUnit || p.Unit == Second && len(rest) == 2):
		p.Verb = Previous
	default:
		return noSuchPath(word)
	}
	if len(rest) == 1 {
		return nil
	}
	if p.Verb != Next && p.Verb != Previous {
		return noSuchPath(rest[1])
	}
	p.N, p.HasN = Count(rest[1])
	if !p.HasN {
		return noSuchPath(rest[1])
	}
	return nil
}

// Count reads the n of next/n or latest/n: a decimal integer, perhaps negative. One beyond the range of an int is clamped to it.
func Count(s string) (int, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.Atoi(s) // only the range is left to be wrong; Atoi then returns the nearest int
	return n, true
}

// number reads one field of a time path: up to 9 digits.
func number(s string) (int, bool) {
	if len(s) == 0 || len(s) > 9 {
		return 0, false
	}
	v := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		v = v*10 + int(s[i]-'0')
	}
	return v, true
}

var fieldRules = [7]struct {
	name     string
	min, max int
}{{"year", 0, 9999}, {"month", 1, 12}, {"day", 1, 31}, {"hour", 0, 23}, {"minute", 0, 59}, {"second", 0, 59}, {"millisecond", 0, 999}}

// instant checks the seven fields against the calendar.
func instant(f [7]int) (time.Time, error) {
	for i, r := range fieldRules {
		if f[i] < r.min || f[i] > r.max {
			return time.Time{}, E(Invalid, "%s %d is not on the calendar: it must be %d to %d", r.name, f[i], r.min, r.max)
		}
	}
	t := time.Date(f[0], time.Month(f[1]), f[2], f[3], f[4], f[5], f[6]*1e6, time.UTC)
	if t.Day() != f[2] {
		last := time.Date(f[0], time.Month(f[1])+1, 0, 0, 0, 0, 0, time.UTC).Day()
		return time.Time{}, E(Invalid, "day %d is not on the calendar: %04d/%02d has days 1 to %d", f[2], f[0], f[1], last)
	}
	return t, nil
}

func noSuchPath(s string) *Error {
	return E(NotFound, "no such path: %q", clip(s))
}

// Window is a second, minute, hour or day of a channel.
type Window struct {
	Start time.Time
	Unit  Unit
}

// WindowAt is the window of a unit that holds t.
func WindowAt(t time.Time, u Unit) Window { return Window{t.UTC().Truncate(u.Duration()), u} }

// End is the first instant after the window.
func (w Window) End() time.Time { return w.Start.Add(w.Unit.Duration()) }

// Next is the window after this one.
func (w Window) Next() Window { return Window{w.End(), w.Unit} }

// Previous is the window before this one.
func (w Window) Previous() Window { return Window{w.Start.Add(-w.Unit.Duration()), w.Unit} }

// From and To are the fences of the window's keys: From ≤ key < To.
func (w Window) From() Key { return First(w.Start) }

// To is the exclusive upper fence.
func (w Window) To() Key { return First(w.End()) }

// String is the window's time path, padded: 2021/03/04/05/06.
func (w Window) String() string {
	b := AppendTimePath(make([]byte, 0, timeLen), w.Start.UnixMilli())
	return string(b[:[...]int{0, 10, 13, 16, 19, 23, 23}[w.Unit]])
}

// ParseWindow reads the padded form of a minute or second window, as cursors hold it (spec 01 §1.5).
func ParseWindow(s string) (Window, error) {
	p, err := ParsePath(s)
	if err != nil {
		return Window{}, err
	}
	w := p.Window()
	if p.Verb != NoVerb || p.Unit != Minute && p.Unit != Second || w.String() != s {
		return Window{}, E(Invalid, "%q is neither a minute path nor a second path", clip(s))
	}
	return w, nil
}
