package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"timehub/e2e/sim"
	"timehub/hub"
	hubclient "timehub/hub/client"
)

// follower is told of the items of a channel, and goes on at another node where it was when a stream breaks. What it heard has to be a part of the channel
// without a gap, from where it began.
type follower struct {
	w       *world
	name    string
	channel string

	mu    sync.Mutex // held for computing only
	heard []hub.Key
}

func (w *world) openFollowers() {
	for i := range w.conf.followers {
		f := &follower{w: w, name: fmt.Sprint("follower", i), channel: fmt.Sprint("ch", w.rng.IntN(w.conf.kept()))}
		w.followers = append(w.followers, f)
		rng := w.roll()
		w.people.Go(func() { f.follow(i%3, rng) })
	}
}

// follow listens until everybody goes home: to events, by polling, or at a socket.
func (f *follower) follow(how int, rng *rand.Rand) {
	c := f.w.newClient()
	defer c.close()
	for !f.w.home() {
		c.wander(rng, true)
		for stays := true; stays && !f.w.home(); {
			switch how {
			case 0:
				stays = f.listen(c, rng)
			case 1:
				stays = f.poll(c)
			default:
				stays = f.socket(c, rng)
			}
		}
		hub.Sleep(f.w.over, time.Duration(rng.Int64N(int64(time.Second))))
	}
}

func (f *follower) last() hub.Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.heard) == 0 {
		return hub.KeyAt(f.w.start.UnixMilli(), "0") // before there was any item
	}
	return f.heard[len(f.heard)-1]
}

func (f *follower) hear(c *client, k hub.Key) {
	if !f.last().Less(k) {
		f.w.ledger.Wrong("%s hears of %v from %s after %v", f.name, k, c.at.ip, f.last())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, k)
}

// poll asks for what comes after, and waits for it.
func (f *follower) poll(c *client) bool {
	ctx, cancel := context.WithTimeout(f.w.over, callTime)
	defer cancel()
	p, err := c.Client.After(ctx, f.channel, f.last(), 20, hubclient.Query{Wait: 5 * time.Second})
	if err != nil {
		c.fit(err)
		return false
	}
	for _, k := range p.Keys {
		f.hear(c, k)
	}
	return true
}

// listen follows the events of a node for a while.
func (f *follower) listen(c *client, rng *rand.Rand) bool {
	ctx, cancel := context.WithTimeout(f.w.over, time.Second+time.Duration(rng.Int64N(int64(30*time.Second))))
	defer cancel()
	for k, err := range c.Client.Events(ctx, f.channel, f.last()) {
		if err != nil {
			if !hub.Is(err, hub.Unavailable) && f.w.over.Err() == nil && ctx.Err() == nil && !f.w.rough.Load() {
				f.w.ledger.Wrong("%s: %v", f.name, err)
			}
			return false
		}
		if !k.IsZero() {
			f.hear(c, k)
		}
	}
	return false
}

// whole compares what was heard with all that there is.
func (f *follower) whole(keys []hub.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.heard)
	if n <= len(keys) && slices.Equal(keys[:n], f.heard) {
		return
	}
	for i, k := range f.heard {
		if i >= len(keys) || keys[i] != k {
			var instead hub.Key
			if i < len(keys) {
				instead = keys[i]
			}
			f.w.ledger.Wrong("%s heard of %v, and %v is the next one in %s", f.name, k, instead, f.channel)
			return
		}
	}
}

// stableKeys are all keys of a channel, as a node shows them in the end.
func (w *world) stableKeys(c *client, name string) ([]hub.Key, error) {
	ans, err := c.ask(sim.Ask{Channel: name, Kind: sim.Earliest, N: 10_000, Stable: true, Bodies: true})
	return ans.Keys, err
}
