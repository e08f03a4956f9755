package spoke

import "time"

// quickBeats come that much quicker after the last record: for one usual beat.
const quickBeats = 5

// beating says when a tail speaks next. Its fields are guarded by Node.mu.
//
// What a beat costs is mostly the waking of a process. So all tails of a node beat at the same instant, and all nodes do, without a word about it: who hears a
// beat when half of the time to the own one is over says its own at once. Then a process wakes once for what it says and for what it hears.
type beating struct {
	stirred uint64    // cluster.stirred when it was looked at last
	quick   time.Time // until then beats come sooner
	since   time.Time // when it spoke last
	every   time.Duration
}

// speaks notes that something is sent now, and returns when the next beat is due.
func (b *beating) speaks(every time.Duration, stirred uint64) time.Duration {
	now := time.Now()
	if b.stirred != stirred {
		b.stirred, b.quick = stirred, now.Add(every)
	}
	if now.Before(b.quick) { // somebody waits for horizons to pass a record, and the slowest beat of all tells when they do
		every /= quickBeats
	}
	b.since, b.every = now, every
	return every
}

// together lets those tails speak that have not just done so, and have nothing else to say: somebody beats. Under mu.
func (c *cluster) together() {
	for t := range c.tails {
		idle := t.live && len(t.queue) == 0 && t.load == nil && len(t.offers) == 0
		if b := &t.beating; idle && time.Since(b.since) > b.every/2 {
			poke(t.wake)
		}
	}
}
