package fleet

import (
	"fmt"
	"math/rand/v2"
	"time"

	"timehub/e2e/sim"
	"timehub/node"
)

// Flavor says what is simulated. The zero value is the hub as it is.
type Flavor struct {
	Env  func(ip string, e *node.Env) // breaks a node on purpose
	Mild bool                         // nothing happens

	// What makes it likelier that a broken node is noticed: only these faults, on three nodes, with webhooks, until long-term storage is whole.
	Only         []Fault
	Three, Hooks bool
	Limits       bool // a channel keeps its newest items only
	Long         bool
}

// Played is the end of a game.
type Played struct {
	Verdict string // "": no promise was broken
	sim.Played
	Faults  int
	Calls   int // of webhooks
	Repeats int // of these
	Heard   int // items, by followers
}

// Add sums up games.
func (p *Played) Add(o Played) {
	p.Played.Add(o.Played)
	p.Faults += o.Faults
	p.Calls += o.Calls
	p.Repeats += o.Repeats
	p.Heard += o.Heard
}

func (p Played) String() string {
	return fmt.Sprintf("%d faults, %v; %d calls of webhooks (%d again), %d items followed", p.Faults, p.Played, p.Calls, p.Repeats, p.Heard)
}

// config is what a seed chooses once.
type config struct {
	nodes            int
	most             int // that join later, these included
	set              []string
	channels         map[string]string // with their storage
	limits           map[string]limit  // of some of them, which are the last ones
	writers          int
	readers          int
	hooks, followers int
	think            time.Duration
	stretch          time.Duration // by how much everything is slower
	long             bool          // until long-term storage is whole
	steps            int
	majority         bool
}

func (c *config) names() (list []string) {
	for i := range len(c.channels) {
		list = append(list, fmt.Sprint("ch", i))
	}
	return list
}

func newConfig(r *rand.Rand) config {
	c := config{nodes: []int{1, 2, 3, 3, 3, 3, 4, 5}[r.IntN(8)], channels: map[string]string{}, writers: 1 + r.IntN(4), readers: 1 + r.IntN(4)}
	c.most = min(5, c.nodes+r.IntN(3))
	for i := range 2 + r.IntN(3) {
		c.channels[fmt.Sprint("ch", i)] = []string{"SINGLE", "BATCH", "BOTH"}[r.IntN(3)]
	}
	c.think = time.Duration(60+r.IntN(500)) * time.Millisecond
	c.steps = 10 + r.IntN(30)
	c.majority = r.IntN(2) == 0
	c.hooks, c.followers = r.IntN(3), r.IntN(4)
	c.stretch = 1
	if c.long = r.IntN(4) == 0; c.long {
		c.stretch = time.Duration(1 + r.IntN(12))
		c.think *= c.stretch
	}
	stable := []string{"auto", "auto", "1", "5"}[r.IntN(4)]
	c.set = []string{
		"hub.type=aws", "app.stable_seconds=" + stable, "spoke.write.ttlMinutes=1", "app.birthDay=1999/01/01", "app.large.payload.MB=1", "s3Verifier.offsetMinutes=1",
		"app.shutdown_wait_seconds=5", "webhook.retry.first_millis=100", "webhook.callbackTimeoutSeconds.min=1", fmt.Sprintf("spoke.write.timeout=%d", 1+r.IntN(4)),
	}
	c.drawLimits(r)
	if c.majority {
		c.set = append(c.set, "spoke.quorum=majority")
	}
	return c
}

// focus changes what was drawn as a flavor says.
func (c *config) focus(f Flavor) {
	if f.Three {
		c.nodes, c.most = 3, 3
	}
	if f.Hooks {
		c.hooks = 2
	}
	if f.Limits {
		c.limits["ch0"] = limit{items: 10}
		c.hooks, c.followers = 0, 0
	}
	if f.Long && !c.long {
		c.long, c.stretch, c.think = true, 6, 6*c.think
	}
	if len(f.Only) > 0 {
		c.steps = max(c.steps, 25)
	}
}
