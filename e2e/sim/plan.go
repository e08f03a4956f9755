package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub/disk"
)

// Config is what a seed chooses once.
type Config struct {
	Channels       []string
	Keyed          string // the channel whose items bring their keys; "" if the flavor has none
	Forgotten      string // the channel that was deleted: what is in it may go
	SegmentBytes   int64
	SegmentRecords int
	SegmentAge     time.Duration
	TTL            time.Duration
	MinFree        int64
	WriteTimeout   time.Duration
	SweepEvery     time.Duration
	Writers        int
	Readers        int
	Think          time.Duration // between two requests of a writer, on average

	MaxLives  int           // 4 and more
	MaxRation float64       // of one life
	Sluggish  float64       // how often a sync of the log takes about as long as a write may
	Stretch   time.Duration // by how much lives are longer than those of a store that is swept every second
	Windows   bool          // ranges are seconds, minutes, hours and days only
	Gentle    bool          // nothing happens in the first life
	Store     bool          // long-term storage can be troubled too
	Archives  bool          // the hub archives by itself
	Behind    bool          // the horizon stays behind the clock
	MaxRoom   int64         // bytes that are left on a disk that is full, at most
}

// maxCount is how many keys are asked for when all are wanted.
const maxCount = 10_000

func between(r *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(r.Int64N(int64(b-a)+1))
}

// spread draws from a to b, small ones as often as large ones.
func spread(r *rand.Rand, a, b float64) float64 { return a * math.Exp(r.Float64()*math.Log(b/a)) }

func newConfig(r *rand.Rand) Config {
	c := Config{
		Channels: []string{"a", "b", "c", "long-name-of-a-channel", "e"}[:2+r.IntN(4)],
		Keyed:    "keyed", SegmentBytes: int64(spread(r, 2000, 200_000)), SegmentRecords: int(spread(r, 5, 400)),
		SegmentAge: time.Duration(spread(r, 0.05, 20) * float64(time.Second)), TTL: time.Duration(spread(r, 0.1, 30) * float64(time.Second)),
		MinFree: -1, WriteTimeout: 5 * time.Second, SweepEvery: time.Duration(spread(r, 0.2, 5) * float64(time.Second)),
		MaxLives: 10, MaxRation: 500, Stretch: 1, MaxRoom: 80_000,
		Writers: 1 + r.IntN(8), Readers: 1 + r.IntN(3), Think: time.Duration(spread(r, 1, 100) * float64(time.Millisecond)),
	}
	if r.IntN(3) == 0 {
		c.MinFree = int64(r.IntN(200_000))
	}
	if r.IntN(4) == 0 {
		c.Sluggish = spread(r, 0.005, 0.3)
	}
	if r.IntN(4) == 0 {
		c.Forgotten = c.Channels[len(c.Channels)-1]
	}
	if r.IntN(3) > 0 {
		c.WriteTimeout = time.Duration(spread(r, 0.05, 5) * float64(time.Second))
	}
	return c
}

// end is how a life ends.
type end uint8

const (
	stopped   end = iota // asked to stop when everybody has gone
	cutShort             // asked to stop while it is used
	killed               // at some instant
	crashed              // at some call to the disk
	endsCount            //
)

func (e end) String() string { return [...]string{"stopped", "stopped in use", "killed", "crashed"}[e] }

// trouble is a fault that begins some time after the start of a life.
type trouble struct {
	at, length time.Duration // length 0: the rule ends by itself
	rule       memdisk.Rule
	full       bool          // no more space than room
	room       int64         //
	jump       time.Duration // of the clock
	store      *StoreTrouble
	crash      int // the process dies so many changes of the disk after the trouble has begun; 0: it does not
}

func (t trouble) String() string {
	switch {
	case t.store != nil:
		return fmt.Sprintf("at %v for %v long-term storage: %+v", t.at, t.length, *t.store)
	case t.full:
		return fmt.Sprintf("at %v for %v room for %d bytes", t.at, t.length, t.room)
	case t.jump != 0:
		return fmt.Sprintf("at %v the clock jumps by %v", t.at, t.jump)
	}
	f := t.rule.Fault
	return fmt.Sprintf("at %v for %v: %v %q skip %d times %d: %v, effect %d, delay %v, crash %d",
		t.at, t.length, t.rule.Ops, t.rule.Name, t.rule.Skip, t.rule.Times, f.Err, f.Effect, f.Delay, t.crash)
}

// plan is what a life will be like.
type plan struct {
	length   time.Duration
	ends     end
	crash    memdisk.Rule
	troubles []trouble
	death    memdisk.Death
	seed     uint64        // of the death
	pause    time.Duration // before the next life
	jump     time.Duration // of the clock, in the pause
	lazy     bool          // the archiver does nothing
	ration   int           // requests at full speed
	last     bool          // the last life: nothing happens, everything is looked at
	keepFull bool          // a disk that is full stays so over the next start
}

func (p *plan) String() string {
	s := fmt.Sprintf("%v, %v", p.length, p.ends)
	if p.ends == crashed {
		f := p.crash.Fault
		s += fmt.Sprintf(" at %v %q %d, effect %d, delay %v", p.crash.Ops, p.crash.Name, p.crash.Skip+1, f.Effect, f.Delay)
	}
	for _, t := range p.troubles {
		s += "; " + t.String()
	}
	return s
}

// excuses reports whether reads may fail too.
func (p *plan) excuses() bool {
	for _, t := range p.troubles {
		if t.store != nil || t.rule.Fault.Err != nil && t.rule.Ops&(memdisk.OpOpen|memdisk.OpRead|memdisk.OpSize|memdisk.OpClose|memdisk.OpList|memdisk.OpStat) != 0 {
			return true
		}
	}
	return false
}

// patience is how long a hub may take to stop.
func (p *plan) patience() time.Duration {
	d := 2 * time.Minute
	for _, t := range p.troubles {
		d += 60 * t.rule.Fault.Delay
	}
	return d
}

// early reports whether the start may fail.
func (p *plan) early() bool {
	for _, t := range p.troubles {
		if t.at == 0 {
			return true
		}
	}
	return false
}

var errInjected = errors.New("input/output error (injected)")

func newPlan(r *rand.Rand, c *Config) plan {
	p := plan{
		length: time.Duration(spread(r, 0.2, 20) * float64(time.Second)), ends: end(r.IntN(int(endsCount))), death: memdisk.Death(r.IntN(2)), seed: r.Uint64(),
		lazy: r.IntN(5) == 0, keepFull: r.IntN(3) == 0, ration: int(spread(r, 5, c.MaxRation)),
	}
	if r.IntN(3) == 0 {
		p.ends = crashed
	}
	p.length *= c.Stretch
	if p.ends == crashed {
		ops := []memdisk.Op{memdisk.Changes, memdisk.Changes, memdisk.Any, memdisk.OpSync | memdisk.OpSyncDir, memdisk.OpSync, memdisk.OpWrite, memdisk.OpRename | memdisk.OpRemove}
		p.crash = memdisk.Rule{Ops: ops[r.IntN(len(ops))], Skip: int(spread(r, 1, 1500)) - 1, Times: 1}
		p.crash.Fault = memdisk.Fault{Crash: true, Effect: memdisk.Effect(r.IntN(3))}
		if r.IntN(3) == 0 { // so that others can go on while the last call hangs
			p.crash.Fault.Delay = time.Duration(spread(r, 0.001, 4) * float64(time.Second))
		}
		if r.IntN(4) == 0 {
			p.crash.Name = []string{"clock", "spoke/*.seg", "spoke/floor*"}[r.IntN(3)]
			p.crash.Skip = int(spread(r, 1, 60)) - 1
		}
		p.length *= 3
	}
	for range []int{0, 1, 1, 2, 2, 3, 4}[r.IntN(7)] {
		t := newTrouble(r, p.length, c)
		if after := t.at + max(t.length, t.rule.Fault.Delay); r.IntN(3) > 0 { // live to see what becomes of it, for a moment at least
			p.length = max(p.length, after+time.Duration(spread(r, 0.001, 3)*float64(time.Second)))
		}
		p.troubles = append(p.troubles, t)
		if t.rule.Fault.Err != nil && r.IntN(3) == 0 { // and before much can be done about it, the end
			p.troubles[len(p.troubles)-1].crash = int(spread(r, 1, 30))
		}
		if t.rule.Fault.Delay > 0 && r.IntN(2) == 0 { // and then it fails
			after := trouble{at: t.at, rule: t.rule}
			after.rule.Skip, after.rule.Times = r.IntN(3), 1+r.IntN(3)
			after.rule.Fault = memdisk.Fault{Err: errInjected, Effect: memdisk.Effect(r.IntN(3))}
			p.troubles = append(p.troubles, after)
		}
	}
	switch r.IntN(6) {
	case 0:
		p.pause = time.Duration(spread(r, 0.001, 10) * float64(time.Second))
	case 1:
		p.pause = time.Duration(spread(r, 10, 7200) * float64(time.Second))
	}
	if r.IntN(4) == 0 {
		p.jump = jump(r)
	}
	if p.crash.Name == "clock" && r.IntN(2) == 0 { // what was shown meanwhile must not be forgotten
		p.crash.Fault.Delay, p.jump = time.Duration(spread(r, 0.01, 2)*float64(time.Second)), -time.Duration(spread(r, 0.1, 100)*float64(time.Second))
	}
	return p
}

func jump(r *rand.Rand) time.Duration {
	d := time.Duration(spread(r, 0.001, 4000) * float64(time.Second))
	if r.IntN(2) == 0 {
		return -d
	}
	return d
}

func newTrouble(r *rand.Rand, length time.Duration, c *Config) trouble {
	t := trouble{at: between(r, 0, length)}
	if r.IntN(8) == 0 {
		t.at = 0
	}
	if c.Store && r.IntN(4) == 0 {
		t.length = time.Duration(spread(r, 0.1, 30)*float64(time.Second)) * c.Stretch
		t.store = &StoreTrouble{Before: r.Float64() * r.Float64(), After: r.Float64() * r.Float64(), Late: time.Duration(spread(r, 0.001, 10) * float64(time.Second))}
		if r.IntN(3) == 0 {
			t.store.Before = 1
		}
		return t
	}
	switch r.IntN(10) {
	case 0:
		t.jump = jump(r)
		return t
	case 1, 2:
		t.full, t.length, t.room = true, time.Duration(spread(r, 0.1, 20)*float64(time.Second)), r.Int64N(c.MaxRoom)
		return t
	case 3, 4, 5:
		return slow(r, t, c)
	}
	ops := []memdisk.Op{
		memdisk.OpWrite, memdisk.OpSync, memdisk.OpSync, memdisk.OpWrite | memdisk.OpSync, memdisk.OpCreate, memdisk.OpSyncDir, memdisk.OpRename,
		memdisk.OpTruncate | memdisk.OpRemove, memdisk.Changes, memdisk.OpOpen, memdisk.OpFree, memdisk.OpClose,
	}
	t.rule.Ops = ops[r.IntN(len(ops))]
	t.rule.Name = []string{"", "", "spoke/*", "spoke/*.seg", "spoke", "clock"}[r.IntN(6)]
	if t.rule.Name == "spoke" { // the folder
		t.rule.Ops = memdisk.OpSyncDir
	}
	if r.IntN(8) == 0 {
		t.rule.Ops = memdisk.OpRead
	}
	t.rule.Fault = memdisk.Fault{Err: errInjected, Effect: memdisk.Effect(r.IntN(3))}
	if r.IntN(5) == 0 {
		t.rule.Fault.Err = disk.ErrFull
	}
	switch r.IntN(4) {
	case 0:
		t.length = time.Duration(spread(r, 0.05, 20) * float64(time.Second))
	case 1:
		t.rule.Times = 3
	default:
		t.rule.Times = 1
	}
	return t
}

// slow makes calls take long: one that takes longer than a write may, or all of them for a while.
func slow(r *rand.Rand, t trouble, c *Config) trouble {
	t.rule.Ops = []memdisk.Op{memdisk.OpSync, memdisk.OpSync, memdisk.OpWrite, memdisk.OpWrite | memdisk.OpSync, memdisk.Changes}[r.IntN(5)]
	t.rule.Name = []string{"spoke/*", "spoke/*", "", "clock"}[r.IntN(4)]
	if r.IntN(3) > 0 {
		t.rule.Times = 1 + r.IntN(3)
		t.rule.Fault.Delay = time.Duration(spread(r, 0.3, 4) * float64(c.WriteTimeout))
		if r.IntN(4) == 0 {
			t.rule.Fault.Delay = c.WriteTimeout // at the very instant
		}
		return t
	}
	t.length = time.Duration(spread(r, 1, 30) * float64(time.Second))
	t.rule.Fault.Delay = time.Duration(spread(r, 0.001, 1.5) * float64(c.WriteTimeout))
	return t
}
