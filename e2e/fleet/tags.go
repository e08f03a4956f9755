package fleet

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"

	"timehub/e2e/sim"
	"timehub/hub"
	hubclient "timehub/hub/client"
)

// tags are those that channels have, every second one the same.
var tags = [...]string{"even", "odd"}

// tagged lists the channels with a tag.
func (c *config) tagged(tag int) (names []string) {
	for i, name := range c.names() {
		if i%len(tags) == tag {
			names = append(names, name)
		}
	}
	return names
}

// askTag asks for items of all channels of a tag, and has the answer judged as one about each of them.
func (c *client) askTag(rng *rand.Rand) error {
	tag := rng.IntN(len(tags))
	names := c.w.conf.tagged(tag)
	a := c.w.question(names[rng.IntN(len(names))], rng)
	ctx, x, cancel := c.call()
	defer cancel()
	a.Node, a.Bodies = c.at.ip, false
	asked := make([]*sim.Question, len(names))
	for i, name := range names {
		asked[i] = c.w.ledger.Asking(sim.Ask{Channel: name, Kind: sim.Range, Stable: a.Stable, Node: a.Node})
	}
	page, err := c.Client.Page(ctx, tagPath(tags[tag], a))
	if err != nil {
		if hub.Is(err, hub.NotFound) && a.Kind == sim.Latest {
			return nil // there is none; who asks for a channel says so too, and is judged
		}
		c.fit(err)
		return err
	}
	all, err := hits(page)
	if err != nil || !slices.IsSortedFunc(all, compareHits) || a.Kind != sim.Range && len(all) > a.N {
		c.w.ledger.Wrong("%s answers %s with %v; %v", a.Node, tagPath(tags[tag], a), all, err)
		return err
	}
	if a.Stable && page.Horizon.IsZero() {
		return nil
	}
	for i, name := range names {
		asked[i].From, asked[i].To = about(a, all, name)
		ans := sim.Answer{Horizon: page.Horizon, Top: page.Horizon, Floor: hub.MinKey, Silent: x.silent}
		for _, h := range all {
			if h.channel == name {
				ans.Keys = append(ans.Keys, h.key)
			}
		}
		c.w.ledger.Answered(asked[i], ans)
	}
	return nil
}

// tagPath is what is asked.
func tagPath(tag string, a sim.Ask) string {
	key := a.Key
	if key.Hash() == "" {
		key = hub.KeyAt(key.Millis(), "0")
	}
	path := "/tag/" + tag + "/"
	switch a.Kind {
	case sim.Range:
		path += a.Window.String()
	case sim.Next, sim.Previous:
		path += fmt.Sprintf("%v/%v/%d", key, a.Kind, a.N)
	default:
		path += fmt.Sprintf("%v/%d", a.Kind, a.N)
	}
	return path + fmt.Sprintf("?stable=%v", a.Stable)
}

// hit is an item in an answer about a tag.
type hit struct {
	channel string
	key     hub.Key
}

// hits reads the addresses of an answer.
func hits(p hubclient.Page) (all []hit, err error) {
	for i, text := range p.URIs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/channel/"), "/")
		all = append(all, hit{name, p.Keys[i]})
	}
	return all, nil
}

func compareHits(a, b hit) int {
	if n := a.key.Compare(b.key); n != 0 {
		return n
	}
	return strings.Compare(a.channel, b.channel)
}

// about is what an answer about a tag says everything about, in one of its channels.
func about(a sim.Ask, all []hit, channel string) (from, to hub.Key) {
	from, to = hub.MinKey, hub.MaxKey
	switch a.Kind {
	case sim.Range:
		return a.From, a.To
	case sim.Next:
		from = a.Key.After()
	case sim.Previous:
		to = a.Key
	}
	if len(all) < a.N {
		return from, to
	}
	if a.Kind == sim.Next || a.Kind == sim.Earliest { // the nearest ones: to the last of them
		last := all[len(all)-1]
		if to = last.key; channel <= last.channel {
			to = last.key.After()
		}
		return from, to
	}
	first := all[0]
	if from = first.key; channel < first.channel {
		from = first.key.After()
	}
	return from, to
}
