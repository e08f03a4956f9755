package archive

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"timehub/hub"
)

// ruled is a store with rules; node names who set them.
type ruled struct {
	mu   sync.Mutex // guards what follows
	away bool
	now  string
	sets []string
}

func (r *ruled) as(node string) Rules { return ruledBy{r, node} }

type ruledBy struct {
	*ruled
	node string
}

func (r ruledBy) SetRules(_ context.Context, all []*hub.Channel, limit int, _ time.Time, last string) (string, int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest := fmt.Sprint("limit ", limit)
	for _, ch := range all {
		digest += fmt.Sprint(" ", ch.Name, " ", ch.TTLDays)
	}
	if r.away {
		return last, 0, hub.E(hub.Unavailable, "away")
	}
	if digest != last {
		r.now = digest
		r.sets = append(r.sets, r.node)
	}
	return digest, len(all), nil
}

// TestKeepRules: one node sets the rules, at the start, a minute after a change, and now and then; another one takes over; a store that is away gets them later.
func TestKeepRules(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		r := &ruled{}
		with := func(node string) func(*Options) {
			return func(o *Options) { o.Rules, o.MaxRules = r.as(node), 7 }
		}
		is := func(what string, sets int, now string) {
			t.Helper()
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.sets) != sets || r.now != now {
				t.Errorf("%s: set %v, %q", what, r.sets, r.now)
			}
		}
		w.channel("c", hub.Single, func(ch *hub.Channel) { ch.TTLDays = 3 })
		a := w.start(with("a"))
		wait(time.Second)
		is("at the start", 1, "limit 7 c 3")
		b := w.start(with("b"))
		wait(time.Hour)
		is("nothing has changed", 1, "limit 7 c 3")
		w.channel("c", hub.Single, func(ch *hub.Channel) { ch.TTLDays = 30 })
		wait(61 * time.Second)
		is("a change", 2, "limit 7 c 30")
		wait(11 * time.Hour)
		is("a turn", 3, "limit 7 c 30")
		if r.sets[0] != r.sets[1] || r.sets[1] != r.sets[2] {
			t.Errorf("set by %v", r.sets)
		}
		a.stop()
		wait(time.Minute)
		is("another node", 4, "limit 7 c 30")
		r.mu.Lock()
		r.away = true
		r.mu.Unlock()
		w.channel("c", hub.Single, func(ch *hub.Channel) { ch.TTLDays = 5 })
		wait(5 * time.Hour)
		is("away", 4, "limit 7 c 30")
		r.mu.Lock()
		r.away = false
		r.mu.Unlock()
		wait(61 * time.Minute)
		is("back", 5, "limit 7 c 5")
		b.stop()
	})
}
