package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The channels that are written to, one of each layout of the long-term store.
const (
	channelBatch  = "chaos-batch"
	channelSingle = "chaos-single"
	channelBoth   = "chaos-both"
)

// healPause is how long one of two faults may last on when the other one is healed, at most.
const healPause = 6 * time.Second

// RunOptions say how a stage is hurt.
type RunOptions struct {
	Seed   uint64
	Span   time.Duration // of faults; setting up and looking come on top
	Acked  int           // items that have to be acknowledged: the load goes on after the faults until there are so many, for three minutes at most
	Least  int           // faults that there have to be: on a slow machine they may take three times as long as Span
	Brief  bool          // faults last about as long as they have to, not longer
	Rate   int           // items a second that are offered, at most; 0: 300
	Calm   time.Duration // after each fault, once the hubs are healthy; 0: 2 s
	Faults []Fault
	Only   string        // comma-separated kinds; "": all
	Hold   time.Duration // how long each fault lasts; 0: as it says itself
	Pairs  float64       // share of faults that come with another one, of another part
}

// Run is load and faults on a stage.
type Run struct {
	s      *Stage
	t      *testing.T
	opt    RunOptions
	rec    *Recorder
	rng    *rand.Rand
	pool   *pool
	chans  []string
	start  map[string]string // by channel: the key of the first item, which everybody who follows begins with
	marker map[string]string // by channel: the key of the last item
	final  map[string][]Item // by channel: as the first node has it in the end
	ended  []error           // hubs that ended by themselves

	stop context.CancelFunc // ends the writers and the readers
	done sync.WaitGroup

	sinks     []*sink
	followers []*follower
	watching  context.Context // of these
	unwatch   context.CancelFunc
	following sync.WaitGroup
}

// Go lets clients work while faults come and go, heals everything, reads everything, and judges. The history is in the folder that it returns.
func (s *Stage) Go(t *testing.T, opt RunOptions) (*Verdict, string) {
	t.Helper()
	if opt.Rate == 0 {
		opt.Rate = 300
	}
	if opt.Calm == 0 {
		opt.Calm = 2 * time.Second
	}
	dir := filepath.Join(s.opt.Dir, "history")
	rec, err := NewRecorder(dir, len(s.Hubs))
	if err != nil {
		t.Fatal(err)
	}
	r := &Run{
		s: s, t: t, opt: opt, rec: rec, rng: rand.New(rand.NewPCG(opt.Seed, 1)), pool: &pool{},
		chans: []string{channelBatch, channelBatch, channelBatch, channelSingle, channelBoth}, start: map[string]string{}, marker: map[string]string{}, final: map[string][]Item{},
	}
	r.watching, r.unwatch = context.WithCancel(t.Context())
	defer func() { // also when the test is given up
		r.unwatch()
		r.following.Wait()
	}()
	r.prepare()
	r.work()
	r.nemesis()
	for began := time.Now(); r.pool.count() < opt.Acked && time.Since(began) < 3*time.Minute; { // on a machine that is too busy
		pause(t.Context(), 100*time.Millisecond)
	}
	r.heal()
	r.finish()
	r.told()
	r.archived()
	r.unwatch()
	r.following.Wait()
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	v := Judge(h)
	for _, err := range r.ended {
		v.fail("ended", err.Error())
	}
	return v, dir
}

// names are the channels, each once.
func (r *Run) names() []string { return slices.Compact(slices.Clone(r.chans)) }

func (r *Run) log(format string, args ...any) {
	r.t.Logf("%8.3fs %s", float64(r.rec.Now())/1e9, fmt.Sprintf(format, args...))
}

func (r *Run) client(proc string, timeout time.Duration) *client {
	return newClient(proc, r.rec, r.s.URLs(), rand.New(rand.NewPCG(r.rng.Uint64(), 2)), timeout)
}

// prepare makes the channels, waits until every node knows them, and writes the first items.
func (r *Run) prepare() {
	r.t.Helper()
	c := r.client("begin", 20*time.Second)
	for channel, storage := range map[string]string{channelBatch: "BATCH", channelSingle: "SINGLE", channelBoth: "BOTH"} {
		r.insist("make a channel", func() error {
			return c.must(r.t.Context(), 0, "PUT", "/channel/"+channel, `{"storage": "`+storage+`"}`)
		})
		for node := range r.s.Hubs {
			r.insist("a channel is known", func() error { return c.must(r.t.Context(), node, "GET", "/channel/"+channel, "") })
		}
	}
	r.hook(channelSingle)
	r.hook(channelBoth)
	for _, channel := range r.names() {
		r.start[channel] = r.mark("begin", channel)
	}
	r.follow(channelBatch)
}

// insist tries until it works, for two minutes.
func (r *Run) insist(what string, try func() error) {
	r.t.Helper()
	r.within(2*time.Minute, what, try)
}

func (r *Run) within(limit time.Duration, what string, try func() error) {
	r.t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	r.explain()
	r.t.Fatalf("%s: %v", what, err)
}

// must asks without writing down.
func (c *client) must(ctx context.Context, node int, method, path, body string) error {
	op := Op{Node: node, Path: path}
	_, err := c.ask(ctx, &op, method, []byte(body), "Content-Type", "application/json")
	if err == nil && op.Result != OK {
		err = fmt.Errorf("%s %s: %d %s", method, path, op.Status, op.Error)
	}
	return err
}

// mark writes an item that is acknowledged, and returns its key.
func (r *Run) mark(proc, channel string) string {
	r.t.Helper()
	w := &writer{client: r.client(proc+"-"+channel, 10*time.Second), pool: &pool{}}
	r.insist("write an item", func() error {
		if w.write(r.t.Context(), channel, 1) != OK {
			w.at = (w.at + 1) % len(w.hubs)
			return errors.New("no node took it")
		}
		return nil
	})
	return w.last
}

// work starts the clients.
func (r *Run) work() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop = cancel
	r.t.Cleanup(func() {
		cancel()
		r.done.Wait()
	})
	const writers, readers = 9, 4
	for i := range writers {
		w := &writer{
			client: r.client(fmt.Sprint("writer", i), time.Duration(2500+r.rng.IntN(5000))*time.Millisecond), channels: r.chans, pool: r.pool,
			pace: time.Second * writers / time.Duration(r.opt.Rate), ordered: i%2 == 0, large: 2000, at: i % len(r.s.Hubs),
		}
		r.done.Go(func() { w.run(ctx) })
	}
	for i := range readers {
		one := &reader{
			client: r.client(fmt.Sprint("reader", i), 5*time.Second), channels: r.chans, pool: r.pool, pace: 100 * time.Millisecond, carries: i%2 == 0,
		}
		r.done.Go(func() { one.run(ctx) })
	}
}

// deck is a shuffled stack of faults.
func (r *Run) deck() []Fault {
	var all []Fault
	for _, f := range r.opt.Faults {
		if r.opt.Only == "" || slices.Contains(strings.Split(r.opt.Only, ","), f.Kind) {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		r.t.Fatalf("there is no fault among %q", r.opt.Only)
	}
	r.rng.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	return all
}

// nemesis inflicts one fault after the other, or two at once.
func (r *Run) nemesis() {
	pause(r.t.Context(), r.opt.Calm)
	var deck []Fault
	began := time.Now()
	for n := 0; (time.Since(began) < r.opt.Span || n < r.opt.Least && time.Since(began) < 3*r.opt.Span) && r.t.Context().Err() == nil; n++ {
		if len(deck) == 0 {
			deck = r.deck()
		}
		together := deck[:1]
		deck = deck[1:]
		if k := slices.IndexFunc(deck, func(f Fault) bool { return f.Part != together[0].Part && f.Part != Alone }); k >= 0 && together[0].Part != Alone && r.rng.Float64() < r.opt.Pairs {
			together = append(slices.Clone(together), deck[k])
			deck = slices.Delete(deck, k, k+1)
		}
		r.inflict(together)
		pause(r.t.Context(), r.opt.Calm)
	}
}

// hold is how long faults last.
func (r *Run) hold(f Fault) time.Duration {
	more := r.rng.Int64N(int64(f.Max-f.Min) + 1)
	switch {
	case r.opt.Hold > 0:
		return r.opt.Hold
	case r.opt.Brief:
		more /= 8
	}
	return f.Min + time.Duration(more)
}

// inflict begins faults, lets them last, heals them, and waits until the hubs are healthy.
func (r *Run) inflict(together []Fault) {
	before := r.pool.count()
	var ops []Op
	var heals []Heal
	var hold time.Duration
	for _, f := range together {
		op := Op{Proc: "nemesis", Kind: Hurt, Node: -1, Begin: r.rec.Now(), Result: OK}
		target, heal, err := f.Inflict(r.t.Context(), r.rng)
		op.Path = f.Kind + " " + target
		if err != nil {
			r.t.Errorf("%s: %v", op.Path, err)
		}
		ops, heals, hold = append(ops, op), append(heals, heal), max(hold, r.hold(f))
	}
	pause(r.t.Context(), hold)
	lasted := r.rec.Now() - ops[0].Begin
	for n, i := range r.rng.Perm(len(heals)) { // what is healed first meets the other one: hubs start while S3 is away
		if n > 0 {
			pause(r.t.Context(), time.Duration(r.rng.Int64N(int64(healPause))))
		}
		if err := heals[i](); err != nil {
			r.t.Errorf("heal %s: %v", ops[i].Path, err)
		}
	}
	r.alive(ops)
	if err := r.s.Healthy(2 * time.Minute); err != nil {
		r.ended = append(r.ended, fmt.Errorf("after %s: %w", paths(ops), err))
	}
	for i := range ops {
		ops[i].End = r.rec.Now()
		r.rec.Add(ops[i])
	}
	r.log("%s for %s, healthy after %s; %d items acknowledged meanwhile", paths(ops), seconds(lasted), seconds(ops[0].End-ops[0].Begin-lasted), r.pool.count()-before)
}

func paths(ops []Op) string {
	all := ops[0].Path
	for _, op := range ops[1:] {
		all += ", and " + op.Path
	}
	return all
}

// alive looks for hubs that ended though nobody ended them, and starts them again.
func (r *Run) alive(ops []Op) {
	for _, h := range r.s.Hubs {
		if !h.Running() {
			r.ended = append(r.ended, fmt.Errorf("a hub ended by itself during %s:\n%s", paths(ops), h.Tail(2000)))
			if err := h.Launch(); err != nil {
				r.t.Error(err)
			}
		}
	}
}

// heal ends whatever is left of faults, and the load.
func (r *Run) heal() {
	r.t.Helper()
	r.stop()
	r.done.Wait()
	if err := r.s.Net.Mend(""); err != nil {
		r.t.Error(err)
	}
	if err := r.s.Start(); err != nil {
		r.t.Error(err)
	}
	if err := r.s.Healthy(2 * time.Minute); err != nil {
		r.t.Fatalf("after everything was healed: %v", err)
	}
	for _, channel := range r.names() {
		r.marker[channel] = r.mark("end", channel)
	}
}
