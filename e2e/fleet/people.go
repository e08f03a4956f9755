package fleet

import (
	"fmt"
	"math/rand/v2"
	"time"

	"timehub/e2e/sim"
	"timehub/hub"
)

// settle lets everybody at the hub.
func (w *world) settle() {
	for i := range w.conf.writers {
		rng := w.roll()
		w.people.Go(func() { w.writer(i, rng) })
	}
	for i := range w.conf.readers {
		rng := w.roll()
		w.people.Go(func() { w.reader(i, rng) })
	}
	w.openFollowers()
	w.openContest()
}

// newClient makes a client on a machine of its own.
func (w *world) newClient() *client {
	w.mu.Lock()
	w.count++
	n := w.count
	w.mu.Unlock()
	c := w.client(fmt.Sprintf("10.0.1.%d", n))
	return c
}

// wander lets the client go to another node, now and then, or because this one does not answer.
func (c *client) wander(rng *rand.Rand, now bool) {
	all := c.w.all()
	if c.at == nil || now || rng.IntN(12) == 0 {
		c.move(all[rng.IntN(len(all))])
		return
	}
	c.move(c.at)
}

func (w *world) home() bool { return w.over.Err() != nil || !w.fine() }

func (w *world) channel(rng *rand.Rand) string {
	return fmt.Sprint("ch", rng.IntN(len(w.conf.channels)))
}

// writer stores items. One of two stays in order over all nodes by Hub-After.
func (w *world) writer(i int, rng *rand.Rand) {
	c := w.newClient()
	defer c.close()
	lost := false
	for !w.home() {
		c.wander(rng, lost)
		if i%2 == 1 {
			c.after = hub.Key{}
		}
		sizes := []int{size(rng)}
		if rng.IntN(5) == 0 {
			sizes = make([]int, 2+rng.IntN(8))
			for i := range sizes {
				sizes[i] = rng.IntN(300)
			}
		}
		f := c.write(w.channel(rng), sizes...)
		lost = f != sim.Acknowledged && rng.IntN(3) > 0
		hub.Sleep(w.over, time.Duration(rng.ExpFloat64()*float64(w.conf.think)))
	}
}

// size of a body: mostly small.
func size(rng *rand.Rand) int {
	switch n := rng.IntN(400); {
	case n == 0:
		return 1<<20 + rng.IntN(1<<20) // large
	case n < 8:
		return rng.IntN(100_000)
	}
	return rng.IntN(300)
}

// reader asks. One of two sees no less than before on whatever node, by Hub-Horizon.
func (w *world) reader(i int, rng *rand.Rand) {
	c := w.newClient()
	defer c.close()
	lost := false
	for !w.home() {
		c.wander(rng, lost)
		if i%2 == 0 && c.seen.IsZero() {
			c.seen = hub.MinKey
		}
		var err error
		switch ch := w.channel(rng); rng.IntN(10) {
		case 0:
			_, err = c.horizon()
		case 1, 2, 3:
			err = c.get(ch, w.ledger.Pick(rng, ch))
		case 4:
			err = c.walk(ch, rng)
		case 5:
			err = c.askTag(rng)
		default:
			_, err = c.ask(w.question(ch, rng))
		}
		lost = err != nil && rng.IntN(3) > 0
		hub.Sleep(w.over, time.Duration(rng.ExpFloat64()*float64(w.conf.think)))
	}
}

// question draws one.
func (w *world) question(channel string, rng *rand.Rand) sim.Ask {
	a := sim.Ask{
		Channel: channel, Kind: sim.Kind(rng.IntN(5)), Key: w.ledger.Pick(rng, channel), N: 1 + rng.IntN(10), Stable: rng.IntN(2) == 0, Bodies: rng.IntN(3) == 0,
	}
	if rng.IntN(5) == 0 {
		a.N = 1 + rng.IntN(1000)
	}
	if a.Kind == sim.Range {
		a.N = 0
		a.Window = hub.WindowAt(a.Key.Time(), []hub.Unit{hub.Second, hub.Minute, hub.Hour, hub.Day}[rng.IntN(4)])
		a.From, a.To = a.Window.From(), a.Window.To()
	}
	return a
}

// walk goes through a channel page by page, in one direction, perhaps over several nodes.
func (c *client) walk(channel string, rng *rand.Rand) error {
	a := sim.Ask{Channel: channel, Kind: sim.Earliest, N: 1 + rng.IntN(50), Stable: rng.IntN(2) == 0, Bodies: rng.IntN(4) == 0}
	on := sim.Next
	if rng.IntN(2) == 0 {
		a.Kind, on = sim.Latest, sim.Previous
	}
	for range 8 {
		ans, err := c.ask(a)
		if err != nil || len(ans.Keys) < a.N || c.w.home() {
			return err
		}
		a.Kind, a.Key = on, ans.Keys[len(ans.Keys)-1]
		a.N += 20
		c.wander(rng, false)
	}
	return nil
}
