package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"timehub/hub"
)

// limit is what a channel need not keep: more than its newest items, or what is older than a day.
type limit struct {
	items int
	day   bool
}

const (
	day         = 24 * time.Hour
	retainEvery = 20 * time.Second
	lenience    = time.Hour // that what has expired is kept for
)

// members are those of a channel.
func (l limit) members(storage, tag string) map[string]any {
	m := map[string]any{"storage": storage, "tags": []string{tag}}
	switch {
	case l.items > 0:
		m["maxItems"] = l.items
	case l.day:
		m["ttlDays"] = 1
	default:
		m["keepForever"] = true
	}
	return m
}

// drawLimits adds channels with limits, perhaps.
func (c *config) drawLimits(r *rand.Rand) {
	c.limits = map[string]limit{}
	for _, l := range []limit{{items: 1 + r.IntN(60)}, {day: true}} {
		if r.IntN(3) == 0 {
			name := fmt.Sprint("ch", len(c.channels))
			c.channels[name] = []string{"SINGLE", "BATCH", "BOTH"}[r.IntN(3)]
			c.limits[name] = l
		}
	}
}

// kept is how many channels keep everything: the first ones.
func (c *config) kept() int { return len(c.channels) - len(c.limits) }

// tellLimits tells the judge.
func (w *world) tellLimits() {
	for name, l := range w.conf.limits {
		ttl := time.Duration(0)
		if l.day {
			ttl = day
		}
		w.ledger.Limit(name, l.items, ttl)
	}
}

// newest demands, when nobody writes, that channels with a number of items have their newest ones, and later that they have no others in long-term storage:
// a minute that is packed goes as a whole, and so stays as long as one of its items does.
func (w *world) newest(c *client, gone bool) {
	for name, l := range w.conf.limits {
		if l.items == 0 || !w.fine() {
			continue
		}
		must := w.ledger.Newest(name)
		if !w.alike(c, name, must) {
			return
		}
		if gone && len(must) == l.items {
			w.nothingBelow(name, must[len(must)-1])
		}
	}
}

// alike demands, when nobody writes, that all nodes show the same of a channel, whether or not they still hold what was removed, and its newest keys. A clock
// that was ahead has left keys that are stable only when time has passed them.
func (w *world) alike(c *client, name string, newest []hub.Key) bool {
	defer func() { c.move(w.first()) }()
	return w.eventually(time.Minute, func() string {
		var keys []hub.Key
		first := true
		for _, m := range w.machines {
			if m.left {
				continue
			}
			c.move(m)
			list, err := w.stableKeys(c, name)
			if err != nil {
				return err.Error()
			}
			for _, k := range newest {
				if !slices.Contains(list, k) {
					return fmt.Sprintf("%s is one of the newest %d items of %s, and %s does not show it among %d, %v", k, len(newest), name, m.ip, len(list), ends(list))
				}
			}
			if !first && !slices.Equal(list, keys) {
				return fmt.Sprintf("%s shows %d items of %s, %v, and another node %d, %v", m.ip, len(list), name, ends(list), len(keys), ends(keys))
			}
			keys, first = list, false
		}
		return ""
	})
}

// ends are the first and the last of some keys.
func ends(keys []hub.Key) []hub.Key {
	if len(keys) > 2 {
		return []hub.Key{keys[0], keys[len(keys)-1]}
	}
	return keys
}

// nothingBelow demands that long-term storage holds nothing of a channel that is wholly below a key.
func (w *world) nothingBelow(name string, key hub.Key) {
	w.eventually(5*time.Minute, func() string {
		for _, blob := range w.stored(name) {
			if until, ok := endOf(name, blob); ok && !key.Less(until) {
				return fmt.Sprintf("long-term storage still has %s; what is below %v need not be kept", blob, key)
			}
		}
		return ""
	})
}

// stored are the names of what long-term storage has of a channel, but for the bodies of large items.
func (w *world) stored(name string) (blobs []string) {
	for blob := range w.blobs.Dump() {
		if _, ok := endOf(name, blob); ok {
			blobs = append(blobs, blob)
		}
	}
	return blobs
}

// endOf is the lowest key above all that a blob of a channel holds.
func endOf(name, blob string) (hub.Key, bool) {
	if rest, ok := strings.CutPrefix(blob, name+"/2"); ok {
		k, err := hub.ParseKey("2" + rest)
		return k.After(), err == nil
	}
	for _, part := range []string{"items/", "index/"} {
		if rest, ok := strings.CutPrefix(blob, name+"Batch/"+part); ok {
			t, err := time.Parse("2006/01/02/15/04", rest)
			return hub.First(t.Add(time.Minute)), err == nil
		}
	}
	return hub.Key{}, false
}

// age lets nearly a day pass, and then more, while no node runs: what a channel keeps for a day is there until then, is in no list afterwards, and goes.
func (w *world) age(c *client) {
	for name, l := range w.conf.limits {
		if !l.day || !w.fine() {
			continue
		}
		w.asleep(w.start.Add(day - time.Minute))
		w.everything(c, hub.AllTiers)
		keys, err := w.stableKeys(c, name)
		if err != nil || len(keys) == 0 {
			return
		}
		before := w.stored(name)
		middle := keys[len(keys)/2].Time().Truncate(time.Minute) // packed minutes go as a whole
		w.asleep(middle.Add(day + lenience))
		w.everything(c, hub.AllTiers)
		if left, err := w.stableKeys(c, name); err != nil || len(left) > 0 {
			w.ledger.Wrong("%s keeps items for a day, and an hour later it shows %v; %v", name, left, err)
			return
		}
		w.nothingBelow(name, hub.First(middle))
		limit := hub.First(time.Now().Add(-day - lenience))
		there := map[string]bool{}
		for _, blob := range w.stored(name) {
			there[blob] = true
		}
		for _, blob := range before {
			if until, _ := endOf(name, blob); limit.Less(until) && !there[blob] {
				w.ledger.Wrong("%s was removed before its time", blob)
				return
			}
		}
	}
}

// asleep stops all nodes until an instant, and starts them again.
func (w *world) asleep(until time.Time) {
	w.note("nobody is there until %v", until)
	for _, m := range w.machines {
		m.stop()
	}
	time.Sleep(time.Until(until))
	for _, m := range w.machines {
		if !m.left {
			m.start()
		}
	}
	w.eventually(5*time.Minute, w.down)
	w.pass(5 * time.Second)
}
