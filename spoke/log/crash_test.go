package log

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/hub"
	"timehub/hub/disk"
)

// fate is what is known of a batch. What a start has shown must never change.
type fate int

const (
	unknown fate = iota
	kept
	lost
)

// sent is a batch of the history.
type sent struct {
	channel string
	keys    []hub.Key
	fate    fate
	gen     int // in which it was sent
}

// history is a disk that dies again and again, and what its users were told.
type history struct {
	t    *testing.T
	rng  *rand.Rand
	disk *memdisk.Disk
	opt  Options
	gen  int
	note string

	mu       sync.Mutex // held for computing only
	ms       int64
	batches  []*sent
	archived map[string]hub.Key
	marks    map[string][]hub.Key // markers that may be in the log
	complete map[string]hub.Key   // the highest one that was acknowledged or shown
}

func (h *history) fatalf(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("generation %d (%s): %s", h.gen, h.note, fmt.Sprintf(format, args...))
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 7)), disk: memdisk.New(memdisk.Options{Seed: seed}), archived: map[string]hub.Key{}}
	h.marks, h.complete = map[string][]hub.Key{}, map[string]hub.Key{}
	h.ms = time.Now().UnixMilli()
	h.opt = Options{
		SegmentBytes: int64(1000 + h.rng.IntN(20_000)), SegmentRecords: 5 + h.rng.IntN(60), SegmentAge: time.Duration(50+h.rng.IntN(500)) * time.Millisecond,
		TTL: time.Duration(1+h.rng.IntN(400)) * time.Millisecond, MinFree: -1,
		Archived: func(ch string) (hub.Key, bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.archived[ch], true
		},
		Lows: func() []Low { return []Low{{Stream: Stream{Ordinal: 1, Incarnation: 1}, Mark: 5}} },
	}
	if os.Getenv("LOG_TRACE") != "" {
		h.opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return h
}

// body is the data of a key: any reader can tell whether it is right.
func body(k hub.Key) []byte {
	n := int(k.Digest() % 300)
	if n == 7 {
		n = 9000
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(k.Digest() >> (i % 8 * 8))
	}
	return b
}

// send enqueues a batch of 1 to 5 keys, which are minted with it; the mutex makes that one step.
func (h *history) send(l *Log, channel string, n int, done chan<- struct{}) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &sent{channel: channel, gen: h.gen}
	var b Batch
	h.ms = max(h.ms+1, time.Now().UnixMilli())
	for i := range n {
		k := hub.KeyAt(h.ms, fmt.Sprintf("h%05d", i))
		s.keys = append(s.keys, k)
		b.Records = append(b.Records, Record{Channel: channel, Key: k, Stream: Stream{Ordinal: 1, Incarnation: uint32(h.gen)}, Data: body(k)})
	}
	upTo := s.keys[len(s.keys)-1]
	mark := h.ms%4 == 0
	if mark {
		b.Records = append(b.Records, Record{Channel: channel, Key: upTo, Flags: Complete})
		if h.ms%8 == 0 { // alone
			b.Records, s.keys = b.Records[len(b.Records)-1:], nil
		}
		h.marks[channel] = append(h.marks[channel], upTo)
	}
	b.Done = func(err error) {
		h.mu.Lock()
		switch {
		case err == nil:
			s.fate = kept
			if mark && h.complete[channel].Less(upTo) {
				h.complete[channel] = upTo
			}
		case errors.Is(err, ErrLost):
			s.fate = lost
			if mark {
				h.marks[channel] = slices.DeleteFunc(h.marks[channel], func(k hub.Key) bool { return k == upTo })
			}
		case !errors.Is(err, ErrClosed):
			h.t.Errorf("Done: %v", err)
		}
		h.mu.Unlock()
		close(done)
	}
	if err := l.Enqueue(&b); err != nil {
		return err
	}
	if len(s.keys) > 0 {
		h.batches = append(h.batches, s)
	}
	return nil
}

// live runs one generation: writers, readers and sweeps until the disk dies, or the work is done.
func (h *history) live(batches int) {
	h.opt.Disk = h.disk
	l, _, err := Open(context.Background(), h.opt)
	if err != nil {
		if !dead(h.disk) && !errors.Is(err, errInjected) && !errors.Is(err, disk.ErrFull) {
			h.fatalf("Open: %v", err)
		}
		return
	}
	h.check(l)
	ctx, cancel := context.WithCancel(context.Background())
	var run, writers sync.WaitGroup
	run.Go(func() {
		if err := l.Run(ctx); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	for w := range 3 {
		seed := h.rng.Uint64()
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for range batches {
				done := make(chan struct{})
				if h.send(l, string(rune('a'+rng.IntN(3))), 1+rng.IntN(5), done) != nil {
					time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				} else {
					select {
					case <-done:
					case <-h.disk.Dead():
						return
					case <-time.After(10 * time.Second):
					}
				}
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			}
		})
	}
	run.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(150 * time.Millisecond)
			h.archive()
			_ = l.Sweep(ctx)
			_, _, _ = l.Keys(ctx, "a", hub.MinKey, hub.MaxKey, 5, true)
		}
	})
	writers.Wait()
	if !dead(h.disk) {
		time.Sleep(time.Duration(h.rng.IntN(2000)) * time.Millisecond)
	}
	cancel()
	run.Wait()
	if !dead(h.disk) {
		h.check(l)
	}
	h.opt.Reached = l.Reached() // nothing of it may look like damage
	l.Close()
}

// archive moves the cursor of a channel up to something that is kept.
func (h *history) archive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.batches) == 0 {
		return
	}
	s := h.batches[len(h.batches)/2]
	for _, b := range h.batches { // as a horizon does: nothing undecided below it
		if b == s {
			break
		}
		if b.fate == unknown && b.gen == h.gen {
			return
		}
	}
	if k := s.keys[len(s.keys)-1]; s.fate == kept && h.archived[s.channel].Less(k) {
		h.archived[s.channel] = k
	}
}

func dead(d *memdisk.Disk) bool {
	select {
	case <-d.Dead():
		return true
	default:
		return false
	}
}

// check compares what the log shows with all that was ever told, and remembers what it shows.
func (h *history) check(l *Log) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := l.Status(); len(s.Holes) > 0 || s.Damaged > 0 {
		h.fatalf("damage without a cause: %+v", s)
	}
	shown := map[string]map[hub.Key]bool{}
	for _, ch := range []string{"a", "b", "c"} {
		upTo, ok := l.Complete(ch)
		if was := h.complete[ch]; ok && !slices.Contains(h.marks[ch], upTo) || upTo.Less(was) {
			h.fatalf("channel %s is complete up to %v, it was up to %v", ch, upTo, was)
		}
		h.complete[ch] = upTo
		shown[ch] = map[hub.Key]bool{}
		last := hub.MinKey
		for r, err := range l.Items(context.Background(), ch, hub.MinKey, hub.MaxKey, 0, false) {
			if err != nil {
				if dead(h.disk) {
					return
				}
				h.fatalf("Items: %v", err)
			}
			if !last.Less(r.Key) {
				h.fatalf("%v after %v", r.Key, last)
			}
			last = r.Key
			if string(r.Data) != string(body(r.Key)) {
				h.fatalf("%v has other bytes", r.Key)
			}
			shown[ch][r.Key] = true
		}
	}
	ended := map[int]bool{} // generations of which a batch was not kept: nothing sent later can be
	total := 0
	for _, s := range h.batches {
		n, swept := 0, 0
		for _, k := range s.keys {
			if shown[s.channel][k] {
				n++
			} else if k.Less(l.Floor()) && !h.archived[s.channel].Less(k) {
				swept++
			}
		}
		total += n
		switch {
		case swept == len(s.keys) && s.fate != kept:
			s.fate = lost // too old to tell
		case n+swept < len(s.keys) && n > 0:
			h.fatalf("%d of %d records of a batch at %v are there", n, len(s.keys), s.keys[0])
		case s.fate == kept && n+swept < len(s.keys):
			h.fatalf("batch at %v is lost", s.keys[0])
		case s.fate == lost && n > 0:
			h.fatalf("batch at %v was said to be lost, and is there", s.keys[0])
		case s.fate == unknown && s.gen < h.gen && n > 0:
			if ended[s.gen] {
				h.fatalf("batch at %v is there, and one before it is not", s.keys[0])
			}
			s.fate = kept
		case s.fate == unknown && s.gen < h.gen:
			s.fate, ended[s.gen] = lost, true
		}
	}
	all := 0
	for _, m := range shown {
		all += len(m)
	}
	if all != total {
		h.fatalf("%d records are shown, %d of them were sent", all, total)
	}
}

var errInjected = errors.New("input/output error (injected)")

// crashSeeds is how many histories are run; LOG_SEEDS asks for more.
func crashSeeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("LOG_SEEDS"), 10, 32); err == nil {
		return n
	}
	if testing.Short() {
		return 30
	}
	return 150
}

// TestCrashes kills the disk at random calls, in the middle of them too, five times in a row for each seed, with failing calls and a full disk between.
func TestCrashes(t *testing.T) {
	from := uint64(0)
	if n, err := strconv.ParseUint(os.Getenv("LOG_SEED"), 10, 64); err == nil {
		from = n
	}
	for seed := from; seed < from+crashSeeds(); seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runHistory(t, seed) })
		})
		if !ok {
			return
		}
	}
}

func runHistory(t *testing.T, seed uint64) {
	h := newHistory(t, seed)
	for h.gen = range 6 {
		h.note = ""
		if h.rng.IntN(3) > 0 {
			k, e := 1+h.rng.IntN(120), memdisk.Effect(h.rng.IntN(3))
			h.disk.CrashAt(memdisk.Changes, k, e)
			h.note = fmt.Sprintf("crash at %d, effect %d", k, e)
		}
		if h.rng.IntN(2) == 0 {
			ops := []memdisk.Op{memdisk.OpWrite, memdisk.OpSync, memdisk.OpWrite | memdisk.OpSync, memdisk.OpCreate, memdisk.OpSyncDir, memdisk.OpRename, memdisk.OpTruncate | memdisk.OpRemove}
			r := memdisk.Rule{Ops: ops[h.rng.IntN(len(ops))], Skip: h.rng.IntN(60), Times: 1 + h.rng.IntN(6)}
			r.Fault = memdisk.Fault{Err: errInjected, Effect: memdisk.Effect(h.rng.IntN(3))}
			if h.rng.IntN(4) == 0 {
				r.Fault.Err = disk.ErrFull
			}
			h.disk.Inject(r)
			h.note += fmt.Sprintf(", %d× %v after %d, effect %d", r.Times, r.Ops, r.Skip, r.Fault.Effect)
		}
		h.live(5 + h.rng.IntN(60))
		death := memdisk.Death(h.rng.IntN(2))
		h.disk = h.disk.Restart(death, h.rng.Uint64())
	}
	h.note = "at the end"
	h.live(3)
}
