package sim

import (
	"context"
	"io"
	"strings"
	"time"

	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
)

// StoreTrouble is what happens to calls of long-term storage.
type StoreTrouble struct {
	Before, After float64       // how often a call fails and has no effect, or fails and has it
	Late          time.Duration // before an effect
	// Flips is how often a byte of what is read is another one. The documents below .hub/ are spared: they have no checksums (docs/reliability.md).
	Flips float64
}

// Fault draws what becomes of a call; draw gives numbers from 0 to 1. Of no trouble it is nothing.
func (t *StoreTrouble) Fault(c mem.Call, draw func() float64) (f mem.Fault) {
	if t == nil {
		return f
	}
	away := hub.E(hub.Unavailable, "long-term storage is away (injected)")
	if draw() < t.Before {
		f.Before = away
	}
	if draw() < t.After {
		f.After = away
	}
	if draw() < 0.25 {
		f.Delay = time.Duration(draw() * float64(t.Late))
	}
	if t.Flips > 0 && c.Verb == mem.Get && !strings.HasPrefix(c.Name, ".hub/") && draw() < t.Flips {
		f.Flip = 1 + int64(draw()*(1<<40))
	}
	return f
}

// Mortal is a bucket as a process sees it that may die: from when Dead is closed on, its changes have no effect any more.
type Mortal struct {
	*mem.Bucket
	Dead <-chan struct{}
}

var _ bucket.Bucket = Mortal{}

func (m Mortal) gone() error {
	select {
	case <-m.Dead:
		return hub.E(hub.Unavailable, "the process is dead")
	default:
		return nil
	}
}

// Put implements bucket.Bucket.
func (m Mortal) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	if err := m.gone(); err != nil {
		return bucket.Info{}, err
	}
	return m.Bucket.Put(ctx, name, body, size, opt)
}

// Delete implements bucket.Bucket.
func (m Mortal) Delete(ctx context.Context, names ...string) error {
	if err := m.gone(); err != nil {
		return err
	}
	return m.Bucket.Delete(ctx, names...)
}

// InLongTerm asks for all that long-term storage holds of a channel, in each layout that its storage has, without and with the bodies.
func InLongTerm(channel, storage string) (all []Ask) {
	tiers := []hub.Tier{hub.LongTerm}
	if storage != "BATCH" {
		tiers = append(tiers, hub.LongTermSingle)
	}
	if storage != "SINGLE" {
		tiers = append(tiers, hub.LongTermBatch)
	}
	for _, tier := range tiers {
		for _, bodies := range []bool{false, true} {
			all = append(all, Ask{Channel: channel, Kind: Earliest, N: maxCount, Tier: tier, Bodies: bodies})
		}
	}
	return all
}
