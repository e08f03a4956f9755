package sim

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"timehub/hub"
)

// people starts everybody who uses the hub, until ctx ends.
func (w *world) people(ctx context.Context, wg *sync.WaitGroup) {
	for i := range w.config.Writers {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
		wg.Go(func() { w.write(ctx, rng) })
	}
	for i := range w.config.Readers {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
		wg.Go(func() { w.read(ctx, rng) })
	}
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 7))
	if !w.plan.lazy && !w.config.Archives {
		wg.Go(func() { w.archive(ctx, rng) })
	}
}

// done reports whether there is nothing more to do in this life.
func (w *world) done(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-w.disk.Dead():
		return true
	case <-w.ledger.Broken():
		return true
	default:
		return false
	}
}

// write is a writer.
func (w *world) write(ctx context.Context, rng *rand.Rand) {
	patient := rng.IntN(4) > 0
	for !w.done(ctx) {
		c := w.config.Channels[rng.IntN(len(w.config.Channels))]
		call, cancel := ctx, context.CancelFunc(func() {})
		if !patient && rng.IntN(4) == 0 { // a client that goes away
			call, cancel = context.WithTimeout(ctx, time.Duration(spread(rng, 0.0001, 6)*float64(time.Second)))
		}
		var f Fate
		switch n := rng.IntN(20); {
		case n < 5:
			f = w.bulk(call, rng, c)
		case n < 7 && w.config.Keyed != "":
			f = w.keyedWrite(call, rng)
		case n < 10: // one after the other, as fast as it goes
			for range 1 + rng.IntN(8) {
				if f = w.single(call, c, size(rng)); f != Acknowledged {
					break
				}
			}
		default:
			f = w.single(call, c, size(rng))
		}
		cancel()
		if w.ration.Add(-1) < 0 { // enough for this life: from here on, slowly
			hub.Sleep(ctx, time.Second*w.config.Stretch)
		}
		if f == Refused || f == Doubtful {
			hub.Sleep(ctx, time.Duration(rng.Int64N(int64(time.Second))))
		} else if rng.IntN(4) > 0 {
			hub.Sleep(ctx, time.Duration(rng.ExpFloat64()*float64(w.config.Think)))
		}
	}
}

// size of a body: mostly small.
func size(rng *rand.Rand) int {
	switch n := rng.IntN(1000); {
	case n == 0:
		return 1<<20 + rng.IntN(2<<20) // large, or more than a part of a group that is written at once
	case n < 20:
		return rng.IntN(200_000)
	case n < 200:
		return rng.IntN(5000)
	}
	return rng.IntN(200)
}

func (w *world) single(ctx context.Context, channel string, size int) Fate {
	r := w.writing(channel, false, size)
	k, f, err := w.hub.Put(ctx, channel, r.bodies[0])
	w.wrote(r, k, f, err)
	return f
}

func (w *world) bulk(ctx context.Context, rng *rand.Rand, channel string) Fate {
	sizes := make([]int, 1+rng.IntN(12))
	if rng.IntN(20) == 0 {
		sizes = make([]int, 100)
	}
	for i := range sizes {
		sizes[i] = rng.IntN(300)
		if rng.IntN(100) == 0 {
			sizes[i] = rng.IntN(100_000)
		}
	}
	r := w.writing(channel, true, sizes...)
	k, f, err := w.hub.PutBulk(ctx, channel, r.bodies)
	w.wrote(r, k, f, err)
	return f
}

func (w *world) keyedWrite(ctx context.Context, rng *rand.Rand) Fate {
	h, ok := w.hub.(Keyed)
	if !ok {
		return Unknown
	}
	r := w.writing(w.config.Keyed, false, size(rng))
	k := hub.KeyAt(w.keyed.Add(int64(1+rng.IntN(5000))), "replica")
	doubt := false
	for {
		f, err := h.PutKeyed(ctx, w.config.Keyed, k, r.bodies[0])
		doubt = doubt || f == Doubtful || f == Unknown
		if doubt && f == Refused { // this attempt was, another one may not have been
			f = Unknown
		}
		if f == Acknowledged || rng.IntN(3) == 0 || w.done(ctx) {
			w.wrote(r, k, f, err)
			if f == Acknowledged && rng.IntN(3) == 0 {
				w.mark(ctx, k)
			}
			return f
		}
		hub.Sleep(ctx, time.Duration(rng.Int64N(int64(time.Second)))) // the source tries again
	}
}

// mark moves the marker of the keyed channel.
func (w *world) mark(ctx context.Context, upTo hub.Key) {
	h, ok := w.hub.(Marked)
	if !ok {
		return
	}
	w.ledger.Mark(upTo, func() error {
		err := h.Mark(ctx, w.config.Keyed, upTo)
		if w.dead() {
			err = context.Canceled
		}
		return err
	})
}

// reader asks.
type reader struct {
	*world
	ctx context.Context
	rng *rand.Rand
}

// read is a reader.
func (w *world) read(ctx context.Context, rng *rand.Rand) {
	r := &reader{w, ctx, rng}
	for !w.done(ctx) {
		c := w.config.Channels[rng.IntN(len(w.config.Channels))]
		if w.config.Keyed != "" && rng.IntN(10) == 0 {
			c = w.config.Keyed
		}
		switch n := rng.IntN(20); {
		case n == 0:
			r.walk(c, Next+Kind(rng.IntN(2)))
		case n == 1 && rng.IntN(2) == 0:
			r.now()
		case n == 1:
			_, err := w.ledger.Horizon(func() (hub.Key, error) {
				h, err := w.hub.Horizon(ctx)
				if w.dead() {
					err = context.Canceled
				}
				return h, err
			})
			r.failed(err)
		case n < 8:
			r.get(c)
		default:
			r.ask(r.question(c))
		}
		if w.looks.Add(-1) < 0 {
			hub.Sleep(ctx, time.Second*w.config.Stretch)
		}
		hub.Sleep(ctx, time.Duration(rng.ExpFloat64()*float64(w.config.Think)*2))
	}
}

// now asks for a place to begin.
func (r *reader) now() {
	h, ok := r.hub.(Now)
	if !ok {
		return
	}
	_ = r.ledger.Now(func() (hub.Key, error) { // when the clock cannot be moved, there is none
		k, err := h.Now(r.ctx)
		if r.dead() {
			err = context.Canceled
		}
		return k, err
	})
}

// question draws one.
func (r *reader) question(channel string) Ask {
	rng := r.rng
	a := Ask{Channel: channel, Kind: Kind(rng.IntN(5)), Key: r.ledger.Pick(rng, channel), N: 1 + rng.IntN(10), Stable: rng.IntN(2) == 0, Bodies: rng.IntN(3) == 0}
	if rng.IntN(5) == 0 {
		a.N = 1 + rng.IntN(1000)
	}
	if a.Kind == Range {
		a.N = 0
		if w := hub.WindowAt(a.Key.Time(), []hub.Unit{hub.Second, hub.Minute, hub.Hour, hub.Day}[rng.IntN(4)]); r.config.Windows || rng.IntN(2) == 0 {
			a.From, a.To, a.Window = w.From(), w.To(), w
		} else {
			b := r.ledger.Pick(rng, channel)
			a.From, a.To = least(a.Key, b), most(a.Key, b)
		}
	}
	return a
}

// ask asks, and has the answer judged; ok says that there was one.
func (r *reader) ask(a Ask) (ans Answer, ok bool) {
	if a.Channel == r.config.Keyed { // never ""
		a.Stable = false // such a channel has no horizon yet
	}
	q := r.ledger.Asking(a)
	ans, err := r.hub.Ask(r.ctx, a)
	if r.dead() || r.failed(err) {
		return ans, false
	}
	r.ledger.Answered(q, ans)
	return ans, true
}

// failed reports whether a read failed; one that has no reason to is wrong.
func (r *reader) failed(err error) bool {
	if err == nil {
		return false
	}
	if r.ctx.Err() == nil && !r.dead() && !r.plan.excuses() {
		r.ledger.Wrong("a read failed: %v", err)
	}
	return true
}

func (r *reader) get(channel string) {
	k := r.ledger.Pick(r.rng, channel)
	q := r.ledger.Reading(channel, k)
	data, floor, err := r.hub.Get(r.ctx, channel, k)
	if r.dead() {
		return
	}
	if hub.Is(err, hub.NotFound) {
		data, err = nil, nil
	} else if err == nil && data == nil {
		data = []byte{}
	}
	if !r.failed(err) {
		r.ledger.Read(q, data, floor)
	}
}

// walk goes through a channel page by page, in one direction.
func (r *reader) walk(channel string, kind Kind) {
	a := Ask{Channel: channel, Kind: Earliest, N: 1 + r.rng.IntN(50), Stable: r.rng.IntN(2) == 0, Bodies: r.rng.IntN(4) == 0}
	if kind == Previous {
		a.Kind = Latest
	}
	for range 40 {
		ans, ok := r.ask(a)
		if !ok || len(ans.Keys) < a.N || r.done(r.ctx) {
			return
		}
		a.Kind, a.Key = kind, ans.Keys[len(ans.Keys)-1]
		a.N += 20
	}
}

// Pick draws a key of a channel: one that is known, or one beside it.
func (l *Ledger) Pick(rng *rand.Rand, channel string) hub.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	order := l.shelves[channel].order
	if len(order) == 0 {
		return hub.NewKey(time.Now(), "nothing")
	}
	i := rng.IntN(len(order))
	if rng.IntN(2) == 0 { // those that are new are asked for more often
		i = len(order) - 1 - int(spread(rng, 1, float64(len(order)+1)))%len(order)
	}
	k := order[i].key
	switch rng.IntN(10) {
	case 0:
		return hub.KeyAt(k.Millis(), "")
	case 1:
		return hub.KeyAt(k.Millis()+1, "00000")
	}
	return k
}

// archive carries what is stable to long-term storage, and remembers how far it is.
func (w *world) archive(ctx context.Context, rng *rand.Rand) {
	r := &reader{w, ctx, rng}
	for hub.Sleep(ctx, time.Duration(spread(rng, 0.01, 3)*float64(time.Second))) && !w.done(ctx) {
		for _, c := range w.config.Channels {
			if c == w.config.Forgotten || rng.IntN(3) == 0 {
				continue
			}
			a := Ask{Channel: c, From: w.ledger.Cursor(c).After(), To: hub.MaxKey, Stable: true, Bodies: true}
			if ans, ok := r.ask(a); ok && ans.Horizon.Less(hub.MaxKey) {
				w.ledger.Archived(c, ans.Horizon)
			}
		}
	}
}
