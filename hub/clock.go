package hub

import (
	"context"
	"time"
)

// Clock tells the time. Real ones carry Go's monotonic reading.
type Clock func() time.Time

// Sleep waits for d and reports whether it did; false: ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	counterDigits = 3
	counterLimit  = 62 * 62 * 62 // keys of one node in one millisecond
	// MaxBulk is the number of items that one bulk key can number (ENGINE §1).
	MaxBulk = 999999
)

// Mark is a position of a hybrid logical clock: a millisecond and a counter within it. It reaches to the year 3196.
type Mark int64

// MarkAt is the position of an instant's millisecond with counter 0.
func MarkAt(ms int64) Mark { return Mark(ms * counterLimit) }

// Millis is the millisecond of the position.
func (m Mark) Millis() int64 {
	if m < 0 { // floor, not truncation
		return -int64((-m + counterLimit - 1) / counterLimit)
	}
	return int64(m / counterLimit)
}

// Key is the fence at m: at or above every key minted at m or before, below every key minted after it.
func (m Mark) Key() Key {
	var h [counterDigits + 1]byte
	m.counter(h[:counterDigits])
	h[counterDigits] = '~'
	return Key{m.Millis(), string(h[:])}
}

func (m Mark) counter(h []byte) {
	c := int64(m) - m.Millis()*counterLimit
	for i := counterDigits - 1; i >= 0; i-- {
		h[i] = Alphabet[c%62]
		c /= 62
	}
}

// MarkOf is the position of a minted key: its millisecond and counter. A hash that was not minted counts with what its first characters say; ok is
// false if they say nothing.
func MarkOf(k Key) (m Mark, ok bool) {
	m = MarkAt(k.ms)
	if len(k.hash) < counterDigits {
		return m, false
	}
	c := 0
	for i := range counterDigits {
		v := symbol(k.hash[i])
		if v < 0 {
			return m, false
		}
		c = c*62 + v
	}
	return m + Mark(c), true
}

func symbol(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'Z':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 36
	}
	return -1
}

// Minter is the hybrid logical clock of one node (ENGINE §1): time is the greatest of the wall clock, the wall clock at the start plus what the
// monotonic clock says has passed, and the last position. It rises within a millisecond by a counter and moves on by a millisecond when that is full.
// A Minter is not safe for concurrent use: its owner's lock makes minting and registering as in flight one step.
type Minter struct {
	clock   Clock
	start   time.Time
	last    Mark
	ordinal [2]byte
	random  func() uint32
}

// NewMinter returns a minter that starts above the position last. The ordinal (below 3,844) tells nodes apart; random picks the last character.
func NewMinter(clock Clock, last Mark, ordinal uint16, random func() uint32) *Minter {
	return &Minter{
		clock: clock, start: clock(), last: last, random: random,
		ordinal: [2]byte{Alphabet[ordinal/62%62], Alphabet[ordinal%62]},
	}
}

// SetOrdinal changes the ordinal (below 3,844) of what is minted from now on.
func (m *Minter) SetOrdinal(ordinal uint16) {
	m.ordinal = [2]byte{Alphabet[ordinal/62%62], Alphabet[ordinal%62]}
}

// Wall is the time of the clocks alone, without the last position.
func (m *Minter) Wall() int64 {
	now := m.clock()
	return max(now.UnixMilli(), m.start.UnixMilli()+now.Sub(m.start).Milliseconds())
}

// Last is the position reached.
func (m *Minter) Last() Mark { return m.last }

// Peek is the position that Mint would take.
func (m *Minter) Peek() Mark { return max(m.last+1, MarkAt(m.Wall())) }

// Mint moves on and returns the new position with its key of 6 characters.
func (m *Minter) Mint() (Mark, Key) {
	m.last = m.Peek()
	var h [6]byte
	m.last.counter(h[:counterDigits])
	h[3], h[4], h[5] = m.ordinal[0], m.ordinal[1], Alphabet[m.random()%62]
	return m.last, Key{m.last.Millis(), string(h[:])}
}

// Now moves the clock to the time that it shows and returns the position: whatever is minted later lies above it.
func (m *Minter) Now() Mark {
	m.last = max(m.last, MarkAt(m.Wall()))
	return m.last
}

// Raise moves the clock to a position seen elsewhere.
func (m *Minter) Raise(to Mark) { m.last = max(m.last, to) }

// Ordinal reads the node ordinal out of a minted hash.
func Ordinal(k Key) (uint16, bool) {
	if len(k.hash) < 5 {
		return 0, false
	}
	a, b := symbol(k.hash[3]), symbol(k.hash[4])
	return uint16(a*62 + b), a >= 0 && b >= 0
}

// BulkKey is the key of part i of a bulk whose shared key is k: 6 shared characters and 6 digits. Parts sort in their order.
func BulkKey(k Key, i int) Key {
	h := append(make([]byte, 0, 12), k.hash...)
	for d := 100000; d > 0; d /= 10 {
		h = append(h, byte('0'+i/d%10))
	}
	return Key{k.ms, string(h)}
}

// Horizon is the rule by which stable answers are cut (ENGINE §5): auto, or so many seconds behind the clock.
type Horizon struct {
	Auto    bool
	Seconds int64
}

// Cut returns the key up to which an answer is stable, given the horizon of the store and the time now, and the stable instant that the time
// interface shows. With seconds, the instant is a whole second and all of its first millisecond is stable (spec 01 §5).
func (h Horizon) Cut(store Key, now time.Time) (Key, time.Time) {
	if h.Auto {
		return store, store.Time()
	}
	t := now.UTC().Add(-time.Duration(h.Seconds) * time.Second).Truncate(time.Second)
	if fixed := Last(t); fixed.Less(store) {
		return fixed, t
	}
	return store, minTime(t, store.Time())
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
