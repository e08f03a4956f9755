package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"timehub/e2e/memnet"
	"timehub/e2e/sim"
	"timehub/hub"
	hubclient "timehub/hub/client"
)

// client is somebody who uses the nodes over HTTP, one at a time.
type client struct {
	sim.Talk
	w         *world
	host      *memnet.Host
	transport *http.Transport
	at        *machine
	life      int

	after hub.Key // to be sent as Hub-After
	seen  hub.Key // to be sent as Hub-Horizon
}

func (w *world) client(ip string) *client {
	c := &client{w: w, host: w.wire.Host(ip)}
	c.transport = &http.Transport{DialContext: c.host.Dial, DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 20 * time.Second}
	return c
}

func (c *client) close() {
	c.transport.CloseIdleConnections()
	c.host.Kill()
}

// move lets the client use another node.
func (c *client) move(m *machine) {
	_, life := m.current()
	c.life = life
	if c.at == m {
		return
	}
	c.at = m
	var err error
	c.Client, err = hubclient.New(hubclient.Options{URL: m.url(), Tries: 1, Transport: told{c.transport}})
	if err != nil {
		c.w.ledger.Wrong("%v", err)
	}
	c.Probe = "ch0"
}

// exchange is what a call says and hears beside its content.
type exchange struct {
	send   http.Header
	silent bool
}

type exchangeKey struct{}

// told is a transport that carries the exchange of a call.
type told struct{ http.RoundTripper }

func (t told) RoundTrip(r *http.Request) (*http.Response, error) {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	if x == nil {
		return t.RoundTripper.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	for name, values := range x.send {
		r.Header[name] = values
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil && resp.Header.Get("Hub-Silent") != "" {
		n, e := strconv.Atoi(resp.Header.Get("Hub-Silent"))
		if e != nil || n < 1 {
			return nil, fmt.Errorf("Hub-Silent is %q", resp.Header.Get("Hub-Silent"))
		}
		x.silent = true
	}
	return resp, err
}

// callTime is how long a client waits for an answer.
const callTime = 15 * time.Second

// call makes the context of a call.
func (c *client) call() (context.Context, *exchange, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(c.w.over, callTime)
	if c.w.over.Err() != nil { // the last look
		ctx, cancel = context.WithTimeout(context.Background(), callTime)
	}
	x := &exchange{send: http.Header{}}
	return context.WithValue(ctx, exchangeKey{}, x), x, cancel
}

// write stores items, as a bulk if there are several, and says what became of them.
func (c *client) write(channel string, sizes ...int) sim.Fate {
	ctx, x, cancel := c.call()
	defer cancel()
	if !c.after.IsZero() {
		x.send.Set("Hub-After", c.after.String())
	}
	bulk := len(sizes) > 1
	r := c.w.ledger.WritingAt(c.at.ip, c.life, c.after, channel, bulk, sizes...)
	var k hub.Key
	var f sim.Fate
	var err error
	if bulk {
		k, f, err = c.PutBulk(ctx, channel, r.Bodies())
	} else {
		k, f, err = c.Put(ctx, channel, r.Bodies()[0])
	}
	c.w.ledger.Wrote(r, k, f, err)
	if f == sim.Acknowledged {
		c.after = k
		if bulk {
			c.after = hub.BulkKey(k, len(sizes)-1)
		}
	}
	c.fit(err)
	return f
}

// ask asks the node, and has the answer judged.
func (c *client) ask(a sim.Ask) (sim.Answer, error) {
	ctx, x, cancel := c.call()
	defer cancel()
	a.Node = c.at.ip
	if a.Stable && !c.seen.IsZero() {
		x.send.Set("Hub-Horizon", c.seen.String())
		a.Seen = c.seen
	}
	q := c.w.ledger.Asking(a)
	ans, err := c.Ask(ctx, a)
	if err != nil {
		c.fit(err)
		return ans, err
	}
	ans.Silent = x.silent
	c.w.ledger.Answered(q, ans)
	if a.Stable && c.seen.Less(ans.Horizon) && !c.seen.IsZero() {
		c.seen = ans.Horizon
	}
	return ans, nil
}

// get reads an item.
func (c *client) get(channel string, k hub.Key) error {
	ctx, _, cancel := c.call()
	defer cancel()
	q := c.w.ledger.Asking(sim.Ask{Channel: channel, Key: k, Node: c.at.ip})
	data, floor, err := c.Get(ctx, channel, k)
	if hub.Is(err, hub.NotFound) {
		data, err = nil, nil
	} else if err == nil && data == nil {
		data = []byte{}
	}
	if err == nil {
		c.w.ledger.Read(q, data, floor)
	}
	c.fit(err)
	return err
}

func (c *client) horizon() (hub.Key, error) {
	ctx, _, cancel := c.call()
	defer cancel()
	return c.w.ledger.HorizonAt(c.at.ip, func() (hub.Key, error) { return c.Horizon(ctx) })
}

// fit complains about errors that no fault excuses.
func (c *client) fit(err error) {
	if err == nil || c.w.over.Err() != nil && c.w.rough.Load() {
		return
	}
	var said *hub.Error
	if rough := c.w.rough.Load(); !errors.As(err, &said) {
		if rough { // the answer broke off, or took too long
			return
		}
	} else if rough {
		switch said.Kind {
		case hub.Unavailable, hub.Timeout, hub.Full, hub.TooMany:
			return
		case hub.Internal: // what is stored is damaged: refused
			if c.w.rotten.Load() {
				return
			}
		case hub.Invalid: // the clock of a node that the client comes from
			if strings.Contains(said.Msg, "Hub-After") || strings.Contains(said.Msg, "clock") {
				return
			}
		}
	}
	c.w.ledger.Wrong("%s answers: %v", c.at.ip, err)
}
