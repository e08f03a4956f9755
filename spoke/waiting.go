package spoke

import (
	"context"
	"time"

	"timehub/hub"
)

const (
	waitingMost = 1 << 17 // records whose marks are remembered
	farStep     = 100     // ms by which the horizon moves before channels with forgotten marks are told
)

// waiting is what is stored and not passed by the horizon. Beyond waitingMost records it remembers the channel with its highest mark only: then some wake who find
// nothing new, but a horizon that stands for an hour costs no memory. Not safe for concurrent use.
type waiting struct {
	heap  []waitingKey
	far   map[string]hub.Mark // the highest mark of channels that are not, or not whole, in the heap
	farAt hub.Mark            // the horizon when they were told last
	due   map[string]bool     // channels to be told of whatever the horizon: of replicated records, and of markers, which are their horizon
	ahead map[string]hub.Mark // channels that were told, with the horizon then, if it has not been shown so high: it may fall back
}

type waitingKey struct {
	mark    hub.Mark
	channel string
}

// add notes a record.
func (w *waiting) add(m hub.Mark, channel string) {
	if len(w.heap) >= waitingMost {
		w.addFar(m, channel)
		return
	}
	h := append(w.heap, waitingKey{m, channel})
	for i := len(h) - 1; i > 0 && h[i].mark < h[(i-1)/2].mark; i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
	w.heap = h
}

// tell notes a channel that is to be told the next time.
func (w *waiting) tell(channel string) {
	if w.due == nil {
		w.due = map[string]bool{}
	}
	w.due[channel] = true
}

func (w *waiting) addFar(m hub.Mark, channel string) {
	if w.far == nil {
		w.far = map[string]hub.Mark{}
	}
	w.far[channel] = max(w.far[channel], m)
}

// told notes which channels were told of a horizon. Nobody need have been shown it: up to where that was, the horizon does not fall back.
func (w *waiting) told(channels []string, h, shown hub.Mark) {
	if h <= shown {
		w.ahead = nil
		return
	}
	for _, channel := range channels {
		if w.ahead == nil {
			w.ahead = map[string]hub.Mark{}
		}
		w.ahead[channel] = h
	}
}

// again takes back what was told ahead of what was shown: the horizon has fallen back.
func (w *waiting) again() {
	for channel, m := range w.ahead {
		w.addFar(m, channel)
	}
	w.ahead = nil
}

// has reports whether passed has something to tell; of channels with forgotten marks only after a whole step.
func (w *waiting) has(h hub.Mark) bool {
	return len(w.due) > 0 || len(w.heap) > 0 && w.heap[0].mark <= h || len(w.far) > 0 && h.Millis()-w.farAt.Millis() >= farStep
}

// passed returns, once each, the channels of which the horizon h may have passed a record since it was asked last; those with forgotten marks only once it has moved by
// so many ms.
func (w *waiting) passed(h hub.Mark, step int64) (channels []string) {
	var seen map[string]bool
	told := func(channel string) {
		if !seen[channel] {
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[channel] = true
			channels = append(channels, channel)
		}
	}
	for channel := range w.due {
		told(channel)
	}
	clear(w.due)
	for len(w.heap) > 0 && w.heap[0].mark <= h {
		told(w.heap[0].channel)
		w.pop()
	}
	if len(w.far) == 0 {
		return channels
	}
	far := h.Millis()-w.farAt.Millis() >= step && h > w.farAt
	if far {
		w.farAt = h
	}
	for channel, m := range w.far {
		if m <= h {
			delete(w.far, channel)
		}
		if m <= h || far {
			told(channel)
		}
	}
	return channels
}

func (w *waiting) pop() {
	h := w.heap
	last := len(h) - 1
	h[0] = h[last]
	h[last] = waitingKey{}
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].mark < h[child].mark {
			child++
		}
		if h[i].mark <= h[child].mark {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	w.heap = h
}

// keepTelling tells who follows what the horizon has passed without a frame, an acknowledgement or anything else that comes with it: by time, by a clock that is right again
// or was moved by Hub-After, by a change of the list. When somebody is shown it, it is told at once, otherwise within a second.
func (c *cluster) keepTelling(ctx context.Context) error {
	timer := time.NewTicker(learnEvery)
	defer timer.Stop()
	for {
		step := int64(farStep)
		select {
		case <-ctx.Done():
			return nil
		case <-c.tell:
		case <-timer.C:
			step = 0 // the horizon may stand now, and what it has passed last is to be told
		}
		c.tellBy(step)
	}
}

// moved tells those who wait that the horizon has moved. Not under mu.
func (c *cluster) moved() { c.tellBy(farStep) }

func (c *cluster) tellBy(step int64) {
	c.n.mu.Lock()
	channels := c.passedBy(step)
	c.n.mu.Unlock()
	for _, ch := range channels {
		c.n.board.notify(ch)
	}
}

// waitForStored notes what an earlier start has stored: where the horizon stood then, nobody knows any more.
func (c *cluster) waitForStored(ctx context.Context) error {
	all, err := c.n.store.Channels(ctx)
	if err != nil {
		c.n.log.Warn("who follows a channel may learn late of what was stored before this start", "err", err)
		return nil
	}
	for channel, r := range all {
		if _, replicated := c.n.store.Complete(channel); !replicated {
			m, _ := hub.MarkOf(r.Last)
			c.waiting.addFar(m, channel)
		}
	}
	return nil
}
