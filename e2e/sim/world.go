package sim

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/disk"
)

// Flavor says what is simulated.
type Flavor interface {
	// Stage prepares one seed. It may change the configuration that was drawn.
	Stage(r *rand.Rand, c *Config, l *Ledger) Stage
}

// Stage is what outlives the lives of a hub, and starts them.
type Stage interface {
	// Open starts a life on a disk. It may fail if the disk does.
	Open(ctx context.Context, s *Site) (Hub, error)
}

// Striker is a Stage with a store of its own that can be troubled.
type Striker interface {
	Strike(t StoreTrouble) (end func())
}

// Preparer is a Hub that has something to do in its first life, before anybody uses it.
type Preparer interface {
	Prepare(ctx context.Context) error
}

// Closer is a Hub that has something to prove in its last life, when nobody uses it any more.
type Closer interface {
	Last(ctx context.Context, ask func(Ask) (Answer, bool)) error
}

// Site is what a hub finds when it starts.
type Site struct {
	Disk     disk.Disk
	Dead     <-chan struct{} // closed when the process of this life has died
	Clock    hub.Clock
	Config   *Config
	Random32 func() uint32
	// Archived is the key up to which a channel is in long-term storage, for flavors that have none of their own.
	Archived func(channel string) (hub.Key, bool)
	Log      *slog.Logger
}

// world is one seed.
type world struct {
	seed   uint64
	rng    *rand.Rand
	stage  Stage
	config Config
	ledger *Ledger
	disk   *memdisk.Disk
	skew   atomic.Int64
	log    *slog.Logger
	full   atomic.Bool // the disk was left full
	played Played

	// of one life
	plan   plan
	hub    Hub
	keyed  atomic.Int64 // the last key given to the keyed channel
	ration atomic.Int64 // requests that writers may send at full speed
	rough  atomic.Bool  // there may be trouble
	looks  atomic.Int64 // questions that readers may ask at full speed
}

// Play lets a hub live through everything that a seed has for it. It must be called inside a bubble.
func Play(seed uint64, f Flavor, log *slog.Logger) Played {
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), log: log}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.config = newConfig(w.rng)
	w.disk = memdisk.New(memdisk.Options{Seed: seed, Hook: w.sluggish()})
	c := &w.config
	w.ledger = NewLedger(append([]string{c.Keyed}, c.Channels...), []string{c.Keyed})
	w.stage = f.Stage(w.rng, c, w.ledger)
	if c.Forgotten != "" {
		w.ledger.Archived(c.Forgotten, hub.MaxKey)
	}
	w.keyed.Store(946684800000 - 1000)
	w.ledger.Note("seed %d: %+v", seed, *c)
	start := time.Now()
	lives := 4 + w.rng.IntN(c.MaxLives-3)
	for i := 0; i < lives && w.ledger.Verdict() == ""; i++ {
		if w.plan = newPlan(w.rng, c); i == 0 && c.Gentle {
			w.plan.troubles, w.plan.ends = nil, stopped
		}
		w.live()
	}
	if w.ledger.Verdict() == "" {
		w.plan = plan{length: time.Second, ends: stopped, last: true}
		w.full.Store(false)
		w.live()
		w.ledger.Finish()
	}
	w.played.Verdict, w.played.Virtual = w.ledger.Verdict(), time.Since(start)
	w.ledger.Sum(&w.played)
	return w.played
}

// sluggish lets syncs of the log take about as long as a write may, now and then, while there is trouble at all.
func (w *world) sluggish() func(memdisk.Call) memdisk.Fault {
	if w.config.Sluggish == 0 {
		return nil
	}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(w.seed, 9))
	return func(c memdisk.Call) (f memdisk.Fault) {
		if c.Op != memdisk.OpSync || !w.rough.Load() || !strings.HasSuffix(c.Name, ".seg") {
			return f
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Float64() < w.config.Sluggish {
			f.Delay = time.Duration(r.Float64() * 2 * float64(w.config.WriteTimeout))
		}
		return f
	}
}

func (w *world) clock() time.Time { return time.Now().Add(time.Duration(w.skew.Load())).Round(0) }

func (w *world) dead() bool {
	select {
	case <-w.disk.Dead():
		return true
	default:
		return false
	}
}

// archived is what Spoke asks.
func (w *world) archived(channel string) (hub.Key, bool) {
	return w.ledger.Cursor(channel), channel != w.config.Forgotten
}

// live is one life.
func (w *world) live() {
	w.played.Lives++
	w.played.Deaths[w.plan.ends]++
	p := &w.plan
	w.ration.Store(int64(p.ration))
	w.looks.Store(int64(p.ration))
	w.ledger.Begin("a life begins: %v", p)
	var wg sync.WaitGroup
	nemesis, cancel := context.WithCancel(context.Background())
	w.rough.Store(!p.last)
	lift := func() { w.rough.Store(false); cancel() }
	if p.ends == crashed {
		w.disk.Inject(p.crash)
	}
	for _, t := range p.troubles {
		if t.at == 0 {
			w.strike(nemesis, t, &wg) // the start meets it
		}
	}
	if !w.full.Load() {
		w.disk.SetCapacity(0)
	}
	w.serve(nemesis, lift, &wg)
	lift()
	wg.Wait()
	w.disk.Kill()
	w.full.Store(p.keepFull && w.full.Load())
	w.ledger.Note("dead: %v; then %v, clock %v", p.death, p.pause, p.jump)
	w.disk = w.disk.Restart(p.death, p.seed)
	time.Sleep(p.pause)
	w.skew.Add(int64(p.jump))
}

// serve opens a hub and lets it be used until its end.
func (w *world) serve(nemesis context.Context, lift func(), wg *sync.WaitGroup) {
	p := &w.plan
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	site := &Site{Disk: w.disk, Dead: w.disk.Dead(), Clock: w.clock, Config: &w.config, Random32: w.random(), Archived: w.archived, Log: w.log}
	h, err := w.stage.Open(ctx, site)
	if err != nil {
		w.ledger.Note("it does not start: %v", err)
		if !w.dead() && !p.early() && !w.full.Load() {
			w.ledger.Wrong("the hub does not start: %v", err)
		}
		w.full.Store(false)
		return
	}
	w.hub = h
	ready := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
		err = w.use(ctx, nemesis, lift, wg, cancel, ended)
	case err = <-ended:
	}
	if err = errors.Join(err, h.Close()); err != nil && !w.dead() && !p.early() && len(p.troubles) == 0 {
		w.ledger.Wrong("the hub ended with: %v", err)
	}
}

// use lets everybody at the hub, until the life ends; then it returns what Run did.
func (w *world) use(ctx, nemesis context.Context, lift func(), wg *sync.WaitGroup, cancel context.CancelFunc, ended chan error) error {
	p := &w.plan
	if h, ok := w.hub.(Preparer); ok && w.ledger.Life() == 1 {
		if err := h.Prepare(ctx); err != nil {
			w.ledger.Wrong("%v", err)
		}
	}
	w.look(ctx)
	for _, t := range p.troubles {
		if t.at > 0 {
			wg.Go(func() {
				if hub.Sleep(nemesis, t.at) {
					w.strike(nemesis, t, wg)
				}
			})
		}
	}
	users, goHome := context.WithCancel(ctx)
	defer goHome()
	var people sync.WaitGroup
	w.people(users, &people)
	timer := time.NewTimer(p.length)
	defer timer.Stop()
	var err error
	gone := false
	select {
	case <-timer.C:
	case <-w.disk.Dead():
	case <-w.ledger.Broken():
	case err = <-ended:
		gone = true
		w.ledger.Note("Run ended: %v", err)
		if !w.dead() {
			w.ledger.Wrong("the hub ended by itself: %v", err)
		}
	}
	if p.ends == killed || p.ends == crashed {
		w.disk.Kill()
	}
	if p.ends == stopped && !w.dead() {
		goHome()
		people.Wait()
		lift()
		w.recover(ctx)
	}
	if p.ends != cutShort || p.keepFull { // otherwise it has to stop in the middle of its trouble
		lift()
	}
	w.ledger.Note("it is stopped")
	cancel()
	begin := time.Now()
	if !gone {
		err = <-ended
	}
	lift()
	if d := time.Since(begin); d > p.patience() {
		w.ledger.Wrong("it took %v to stop", d)
	}
	people.Wait()
	if !w.dead() && !w.config.Archives { // who has a handle can still read
		r := w.reader(context.Background())
		for _, c := range w.config.Channels {
			r.ask(Ask{Channel: c, From: hub.MinKey, To: hub.MaxKey, Stable: true})
		}
	}
	return err
}

func (w *world) random() func() uint32 {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(w.rng.Uint64(), 2))
	return func() uint32 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint32()
	}
}

// strike begins a trouble, and ends it after its time.
func (w *world) strike(ctx context.Context, t trouble, wg *sync.WaitGroup) {
	w.ledger.Note("trouble: %v", t)
	end := func() {}
	switch {
	case t.store != nil:
		end = w.stage.(Striker).Strike(*t.store)
	case t.jump != 0:
		w.skew.Add(int64(t.jump))
	case t.full:
		free, err := w.disk.Free()
		if err != nil {
			return
		}
		w.full.Store(true)
		w.disk.SetCapacity(1<<40 - free + t.room)
		end = func() { w.full.Store(false); w.disk.SetCapacity(0) }
		if w.plan.keepFull && t.at > 0 {
			return
		}
	default:
		end = w.disk.Inject(t.rule)
		if t.crash > 0 {
			w.disk.CrashAt(memdisk.Changes, t.crash, memdisk.Effect(t.crash%3))
		}
	}
	wg.Go(func() {
		if t.length > 0 {
			hub.Sleep(ctx, t.length)
			end()
			w.ledger.Note("no more: %v", t)
			return
		}
		<-ctx.Done()
		if t.jump == 0 {
			end()
		}
	})
}

// recover checks that a hub whose disk is good again takes writes again, and that its horizon goes on.
func (w *world) recover(ctx context.Context) {
	if w.full.Swap(false) {
		w.disk.SetCapacity(0)
	}
	hub.Sleep(ctx, settled)
	for _, c := range w.config.Channels {
		body := w.writing(c, false, 50)
		k, fate, err := w.hub.Put(ctx, c, body.bodies[0])
		if w.wrote(body, k, fate, err); w.dead() {
			return
		}
		if fate != Acknowledged {
			w.ledger.Wrong("nothing is wrong with the disk, and a write is %v: %v", fate, err)
			return
		}
		h, err := w.ledger.Horizon(func() (hub.Key, error) { return w.hub.Horizon(ctx) })
		if (err != nil || h.Less(k) && !w.config.Behind) && !w.dead() {
			w.ledger.Wrong("nothing is wrong with the disk, and the horizon is at %v, below %v: %v", h, k, err)
		}
	}
	w.look(ctx)
	if h, ok := w.hub.(Closer); ok && w.plan.last {
		r := w.reader(ctx)
		if err := h.Last(ctx, r.ask); err != nil && !w.dead() {
			w.ledger.Wrong("%v", err)
		}
	}
}

func (w *world) reader(ctx context.Context) *reader {
	return &reader{world: w, ctx: ctx, rng: rand.New(rand.NewPCG(w.seed, 3))}
}

// channels lists all channels.
func (w *world) channels() []string {
	if w.config.Keyed == "" {
		return w.config.Channels
	}
	return append([]string{w.config.Keyed}, w.config.Channels...)
}

// look asks for everything in several ways.
func (w *world) look(ctx context.Context) {
	if err := w.hub.Look(); err != nil && !w.dead() && !w.plan.excuses() {
		w.ledger.Wrong("%v", err)
	}
	if h, ok := w.hub.(Marked); ok && !w.dead() {
		w.ledger.Marker(func() (hub.Key, bool) { return h.Marker(w.config.Keyed) })
	}
	r := w.reader(ctx)
	for _, c := range w.channels() {
		everything := Ask{Channel: c, From: hub.MinKey, To: hub.MaxKey}
		if w.config.Windows {
			everything = Ask{Channel: c, Kind: Earliest, N: maxCount}
		}
		for i, a := range [4]Ask{{Stable: true, Bodies: true}, {Bodies: true}, {Stable: true}, {}} {
			everything.Stable, everything.Bodies = a.Stable, a.Bodies
			ans, ok := r.ask(everything)
			if i == 1 && ok {
				w.minutes(ctx, c, ans)
			}
		}
		r.walk(c, Next)
		r.walk(c, Previous)
	}
}

// minutes compares what the store says of each minute with the keys that it showed; nobody writes meanwhile.
func (w *world) minutes(ctx context.Context, channel string, a Answer) {
	h, ok := w.hub.(interface {
		Minute(ctx context.Context, channel string, minute time.Time) (int, uint64, error)
	})
	if !ok {
		return
	}
	sums := map[int64][2]uint64{}
	for _, k := range a.Keys {
		m := k.Millis() - k.Millis()%60_000
		sums[m] = [2]uint64{sums[m][0] + 1, sums[m][1] + k.Digest()}
	}
	for m, want := range sums {
		n, sum, err := h.Minute(ctx, channel, time.UnixMilli(m))
		if w.dead() || err != nil && w.plan.excuses() {
			return
		}
		if now := w.hub.(*shortHub).store.Floor(channel); now != a.Floor {
			return // swept meanwhile
		}
		if err != nil || uint64(n) != want[0] || sum != want[1] {
			w.ledger.Wrong("the minute %v of %s has %d keys, its digest says %d (%v)", time.UnixMilli(m).UTC(), channel, want[0], n, err)
		}
	}
}

// request is a write with its bodies.
type request struct {
	*write
	bodies [][]byte
}

func (w *world) writing(channel string, bulk bool, sizes ...int) request {
	r := request{write: w.ledger.Writing(channel, bulk, channel == w.config.Keyed, slices.Clone(sizes)...)}
	for _, b := range r.write.bodies {
		r.bodies = append(r.bodies, bytes.Clone(b)) // the hub may do with it what it likes
	}
	return r
}

// wrote takes an answer to the judge, unless it was given by a process that was dead already.
func (w *world) wrote(r request, k hub.Key, f Fate, err error) {
	if w.dead() {
		f = Unknown
	}
	w.ledger.Wrote(r.write, k, f, err)
}
