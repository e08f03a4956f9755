package spoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
)

// judge holds answers against each other. It knows nothing of the inside of nodes.
type judge struct {
	mu        sync.Mutex
	began     time.Time
	history   []string
	bad       string
	sent      map[string]map[hub.Key]string // by channel: what was sent under a key, whatever became of it
	acked     map[string]map[hub.Key]bool
	given     map[string]map[hub.Key]bool // whose names enough disks have
	top       map[string]hub.Key          // the highest horizon that was shown
	all       map[string][]hub.Key        // the answer with it
	shown     map[string]hub.Key          // by node
	counts    [4]int
	lostDisks map[string]bool
}

func newJudge() *judge {
	j := &judge{
		began: time.Now(), sent: map[string]map[hub.Key]string{}, acked: map[string]map[hub.Key]bool{}, given: map[string]map[hub.Key]bool{}, top: map[string]hub.Key{},
		all: map[string][]hub.Key{}, shown: map[string]hub.Key{}, lostDisks: map[string]bool{},
	}
	for _, ch := range []string{"a", "b"} {
		j.sent[ch], j.acked[ch], j.given[ch] = map[hub.Key]string{}, map[hub.Key]bool{}, map[hub.Key]bool{}
		j.top[ch] = hub.MinKey
	}
	return j
}

func (j *judge) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.say(format, args...)
}

func (j *judge) say(format string, args ...any) {
	j.history = append(j.history, fmt.Sprintf("%9.3f ", time.Since(j.began).Seconds())+fmt.Sprintf(format, args...))
}

func (j *judge) fail(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wrong(format, args...)
}

func (j *judge) wrong(format string, args ...any) {
	if j.bad == "" {
		j.bad = fmt.Sprintf(format, args...)
		j.say("WRONG: %s", j.bad)
	}
}

func (j *judge) failed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bad != ""
}

func (j *judge) story() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.history, "\n") + fmt.Sprintf("\nacknowledged %d, not %d, answers %d, refused %d", j.counts[0], j.counts[1], j.counts[2], j.counts[3])
}

func (j *judge) verdict() string {
	if !j.failed() {
		return ""
	}
	return j.bad + "\n" + j.story()
}

// wrote is told of the end of a write. err is what the writer got.
func (j *judge) wrote(node, ch string, keys []hub.Key, data []string, err error, counts bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, k := range keys {
		if _, ok := j.sent[ch][k]; ok {
			j.wrong("%s gave key %v twice", node, k)
		}
		j.sent[ch][k] = data[i]
		if err != nil || !counts {
			continue
		}
		j.acked[ch][k] = true
		if !j.top[ch].Less(k) {
			if _, ok := slices.BinarySearchFunc(j.all[ch], k, hub.Key.Compare); !ok {
				j.wrong("%s acknowledged %v (%s), which is at or below a horizon that was shown, %v, and not in that answer", node, k, ch, j.top[ch])
			}
		}
	}
	if err == nil && counts {
		j.counts[0]++
	} else {
		j.counts[1]++
	}
}

// answer is a stable one of everything. inTurn: it was asked for after the one before of that node and channel had come.
func (j *judge) answer(node, ch string, page hub.Page, inTurn bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts[2]++
	h := page.Horizon
	if inTurn {
		if h.Less(j.shown[node+ch]) {
			j.wrong("the horizon of %s went back from %v to %v", node, j.shown[node+ch], h)
		}
		j.shown[node+ch] = h
	}
	low := j.top[ch]
	if h.Less(low) {
		low = h
	}
	mine, before := upTo(page.Keys, low), upTo(j.all[ch], low)
	if !slices.Equal(mine, before) {
		for _, k := range before {
			if _, ok := slices.BinarySearchFunc(mine, k, hub.Key.Compare); !ok {
				j.wrong("%s at %v lacks %v (%s, acknowledged %v), which an answer at %v had", node, h, k, ch, j.acked[ch][k], j.top[ch])
			}
		}
		for _, k := range mine {
			if _, ok := slices.BinarySearchFunc(before, k, hub.Key.Compare); !ok {
				j.wrong("%s at %v has %v (%s, acknowledged %v), which an answer at %v had not", node, h, k, ch, j.acked[ch][k], j.top[ch])
			}
		}
	}
	if !j.top[ch].Less(h) {
		return
	}
	old := j.top[ch]
	j.top[ch], j.all[ch] = h, page.Keys
	for k := range j.acked[ch] {
		if old.Less(k) && !h.Less(k) {
			if _, ok := slices.BinarySearchFunc(page.Keys, k, hub.Key.Compare); !ok {
				j.wrong("%s at %v lacks the acknowledged %v (%s)", node, h, k, ch)
			}
		}
	}
	for i, k := range page.Keys {
		if i > 0 && !page.Keys[i-1].Less(k) {
			j.wrong("%s: %v is not above %v", node, k, page.Keys[i-1])
		}
		if j.given[ch][k] {
			j.wrong("%s at %v has %v (%s), which was given up", node, h, k, ch)
		}
	}
}

func upTo(keys []hub.Key, h hub.Key) []hub.Key {
	at, found := slices.BinarySearchFunc(keys, h, hub.Key.Compare)
	if found {
		at++
	}
	return keys[:at]
}

// bytes compares all items of a node with what was sent.
func (j *judge) bytes(n *Node, ch string) {
	parts, has := map[string]int{}, map[string]int{}
	for item, err := range n.Items(context.Background(), hub.Query{Channel: ch, From: hub.MinKey, To: hub.MaxKey, Stable: true}) {
		j.mu.Lock()
		want, ok := j.sent[ch][item.Key]
		switch {
		case err != nil:
			j.wrong("read of all items: %v", err)
		case ok && string(item.Data) != want:
			j.wrong("%v of %s is %.40q, not %.40q", item.Key, ch, item.Data, want)
		}
		j.mu.Unlock()
		var id string
		var of int
		if _, err := fmt.Sscanf(string(item.Data), "%s of %d", &id, &of); err == nil {
			parts[id], has[id] = of, has[id]+1
		}
	}
	for id, of := range parts {
		if has[id] != of {
			j.fail("only %d of %d parts of the bulk %s are there", has[id], of, id)
		}
	}
}

// writer writes items and bulks to one node, one after the other.
func (w *simWorld) writer(n *simNode, number int, rng *rand.Rand) {
	last := hub.MinKey
	for i := 0; ; i++ {
		select {
		case <-w.over:
			return
		case <-time.After(time.Duration(rng.IntN(400)) * time.Millisecond):
		}
		node, life := w.current(n)
		if node == nil {
			continue
		}
		ch := []string{"a", "b"}[rng.IntN(2)]
		id := fmt.Sprintf("%s/%d/%d", n.name, number, i)
		parts := 1
		if rng.IntN(5) == 0 {
			parts = 2 + rng.IntN(4)
		}
		fill := ""
		if rng.IntN(10) == 0 {
			fill = strings.Repeat("x", rng.IntN(20_000))
		}
		var keys []hub.Key
		var data []string
		for range parts {
			data = append(data, fmt.Sprintf("%s of %d %s", id, parts, fill))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if rng.IntN(30) == 0 {
			cancel() // a client that goes away
			ctx, cancel = context.WithTimeout(context.Background(), time.Duration(rng.IntN(20))*time.Millisecond)
		}
		var key hub.Key
		var err error
		if parts == 1 {
			key, err = node.Write(ctx, ch, []byte(data[0]))
			keys = append(keys, key)
		} else {
			sealed := make([][]byte, parts)
			for i := range sealed {
				sealed[i] = bytes.Clone([]byte(data[i]))
			}
			key, err = node.WriteBulk(ctx, ch, sealed)
			for i := range parts {
				keys = append(keys, hub.BulkKey(key, i))
			}
		}
		cancel()
		if key == (hub.Key{}) {
			w.judge.refused(err)
			continue
		}
		_, now := w.current(n)
		w.judge.wrote(n.name, ch, keys, data, err, now == life)
		if !last.Less(key) {
			w.judge.fail("%s gave %v after %v", n.name, key, last)
		}
		last = key
		if err != nil && !hub.Is(err, hub.Unavailable) && !hub.Is(err, hub.Full) && !errors.Is(err, context.DeadlineExceeded) {
			w.judge.fail("%s: a write ended with %v", n.name, err)
		}
	}
}

func (j *judge) refused(error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts[3]++
}

// reader asks one node for stable answers.
func (w *simWorld) reader(n *simNode, rng *rand.Rand) {
	for {
		select {
		case <-w.over:
			return
		case <-time.After(time.Duration(rng.IntN(400)) * time.Millisecond):
		}
		node, life := w.current(n)
		if node == nil {
			continue
		}
		ch := []string{"a", "b"}[rng.IntN(2)]
		page, err := node.Keys(context.Background(), hub.Query{Channel: ch, From: hub.MinKey, To: hub.MaxKey, Stable: true})
		if _, now := w.current(n); now != life {
			continue
		}
		if err != nil {
			if !hub.Is(err, hub.Unavailable) && !hub.Is(err, hub.Internal) {
				w.judge.fail("%s: a read ended with %v", n.name, err)
			}
			continue
		}
		w.judge.answer(n.name, ch, page, true)
		if len(page.Keys) > 0 {
			k := page.Keys[rng.IntN(len(page.Keys))]
			item, err := node.Read(context.Background(), ch, k)
			if _, now := w.current(n); now == life {
				w.judge.item(n.name, ch, k, item, err)
			}
		}
	}
}

func (j *judge) item(node, ch string, k hub.Key, item hub.Sealed, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	want, ok := j.sent[ch][k]
	switch {
	case hub.Is(err, hub.NotFound):
		j.wrong("%s: %v of %s is in a stable answer and cannot be read: %v", node, k, ch, err)
	case err == nil && ok && string(item.Data) != want:
		j.wrong("%s: %v of %s is %.40q, not %.40q", node, k, ch, item.Data, want)
	}
}
