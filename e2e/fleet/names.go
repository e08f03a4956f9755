package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	hubclient "timehub/hub/client"
)

// contest is a name for which two compete, at different nodes, again and again.
type contest struct {
	w    *world
	name string
	a, b *client
	free bool // nobody has it, for sure

	unsure time.Time // until then a call of which nothing was heard may still be carried out
}

func (w *world) openContest() {
	rng := w.roll()
	w.people.Go(func() {
		c := w.newContest("contest")
		defer c.close()
		for !w.home() {
			c.a.wander(rng, true)
			c.b.wander(rng, true)
			c.round(rng)
			hub.Sleep(w.over, time.Duration(rng.Int64N(int64(3*time.Second))))
		}
	})
}

func (w *world) newContest(name string) *contest {
	return &contest{w: w, name: name, a: w.newClient(), b: w.newClient(), free: true}
}

func (c *contest) close() {
	c.a.close()
	c.b.close()
}

// ctx is that of a call.
func (c *contest) ctx() (context.Context, context.CancelFunc) {
	if c.w.over.Err() != nil {
		return context.WithTimeout(context.Background(), callTime)
	}
	return context.WithTimeout(c.w.over, callTime)
}

// create lets both try at the same time, and tells who has won: 0, 1, or -1 if nobody knows.
func (c *contest) create() (winner int) {
	var err [2]error
	var wg sync.WaitGroup
	for i, who := range []*client{c.a, c.b} {
		wg.Go(func() {
			ctx, cancel := c.ctx()
			defer cancel()
			_, err[i] = who.Client.CreateChannel(ctx, map[string]any{"name": c.name, "description": fmt.Sprint("of ", i)})
		})
	}
	wg.Wait()
	c.w.ledger.Note("%s and %s make %s: %v, %v", c.a.at.ip, c.b.at.ip, c.name, err[0], err[1])
	conflicts := 0
	winner = -1
	for i, e := range err {
		if hub.Is(e, hub.Conflict) {
			conflicts++
		}
		if e == nil && winner >= 0 && c.sure() {
			c.w.ledger.Wrong("%s and %s have both made %s", c.a.at.ip, c.b.at.ip, c.name)
		}
		if e == nil {
			winner = i
		} else if !hub.Is(e, hub.Conflict) {
			c.unsure = time.Now().Add(time.Minute)
			c.a.fit(e)
		}
	}
	if c.free && c.sure() && conflicts == 2 {
		c.w.ledger.Wrong("nobody has %s, and both who make it are told that somebody has", c.name)
	}
	c.free = false
	return winner
}

// remove deletes the name through a node, until it is gone for sure.
func (c *contest) remove(who *client) {
	ctx, cancel := c.ctx()
	defer cancel()
	err := who.Client.DeleteChannel(ctx, c.name)
	c.w.ledger.Note("%s deletes %s: %v", who.at.ip, c.name, err)
	if err != nil && !hub.Is(err, hub.NotFound) {
		c.unsure = time.Now().Add(time.Minute)
		who.fit(err)
	}
	c.free = c.free || err == nil
}

func (c *contest) sure() bool { return time.Now().After(c.unsure) }

func (c *contest) round(rng *rand.Rand) {
	if rng.IntN(2) == 0 {
		c.create()
	} else {
		c.remove(c.b)
	}
}

// exam sees that everybody knows at once what one has changed, when nothing is wrong.
func (w *world) exam() {
	var up []*machine
	for _, m := range w.machines {
		if !m.left {
			up = append(up, m)
		}
	}
	c := w.newContest("exam")
	defer c.close()
	for i := range 2 {
		c.a.move(up[i%len(up)])
		c.b.move(up[(i+1)%len(up)])
		winner := c.create()
		if winner < 0 {
			w.ledger.Wrong("nobody can make %s", c.name)
			return
		}
		want := fmt.Sprint("of ", winner)
		c.known(up, func(ch hubclient.Channel, err error) bool { return err == nil && ch.Description == want })
		ctx, cancel := c.ctx()
		if _, err := c.b.Client.PatchChannel(ctx, c.name, map[string]any{"description": "patched"}); err != nil {
			w.ledger.Wrong("%s cannot be changed: %v", c.name, err)
		}
		cancel()
		c.known(up, func(ch hubclient.Channel, err error) bool { return err == nil && ch.Description == "patched" })
		c.again(up)
		c.remove(c.a)
		c.known(up, func(_ hubclient.Channel, err error) bool { return hub.Is(err, hub.NotFound) })
		c.free = true
	}
}

// again writes something through each node, removes the channel and makes it again at once: it is empty then, wherever one looks.
func (c *contest) again(up []*machine) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, m := range up {
		c.b.move(m)
		if _, err := c.b.Client.Insert(ctx, c.name, hubclient.Upload{ContentType: "text/plain", Body: strings.NewReader("old"), Size: 3}); err != nil {
			c.w.ledger.Wrong("%s does not take an item: %v", m.ip, err)
			return
		}
	}
	c.remove(c.b)
	c.create()
	time.Sleep(time.Second)
	for _, m := range up {
		c.b.move(m)
		page, err := c.b.Client.Earliest(ctx, c.name, 10, hubclient.Query{Unstable: true})
		if err != nil || len(page.Keys) > 0 {
			c.w.ledger.Wrong("%s shows %v in %s, which has just been made; %v", m.ip, page.Keys, c.name, err)
		}
	}
}

// known waits, for a second at most, until every node says so.
func (c *contest) known(up []*machine, so func(hubclient.Channel, error) bool) {
	begin := time.Now()
	for _, m := range up {
		c.a.move(m)
		for {
			ctx, cancel := c.ctx()
			ch, err := c.a.Client.Channel(ctx, c.name)
			cancel()
			if so(ch, err) {
				break
			}
			if time.Since(begin) > time.Second {
				c.w.ledger.Wrong("a second later %s says of %s: %q, %v", m.ip, c.name, ch.Description, errors.Join(err))
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}
