package spoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/coord"
	spokelog "timehub/spoke/log"
	"timehub/spoke/roster"
)

// tally is how much happened.
type tally struct{ acked, undecided, given, answers, windows, unstable, partial, fed, items, refused, forced, late, dropped int }

func (t *tally) add(o tally) {
	t.acked += o.acked
	t.undecided += o.undecided
	t.given += o.given
	t.answers += o.answers
	t.windows += o.windows
	t.unstable += o.unstable
	t.partial += o.partial
	t.fed += o.fed
	t.items += o.items
	t.refused += o.refused
	t.forced += o.forced
	t.late += o.late
	t.dropped += o.dropped
}

func (t tally) String() string {
	return fmt.Sprintf("%d writes acknowledged, %d not, %d refused, %d keys given up; %d stable answers, %d searches, %d unstable answers (%d partial), %d pieces of feeds, %d items read; %d closings forced, %d names of late items, %d streams dropped",
		t.acked, t.undecided, t.refused, t.given, t.answers, t.windows, t.unstable, t.partial, t.fed, t.items, t.forced, t.late, t.dropped)
}

// judge holds answers against each other and against what was sent. Of the inside of nodes it knows which keys were given up, and no more.
type judge struct {
	past *archive

	mu        sync.Mutex
	began     time.Time
	history   []string
	bad       string
	sent      map[string]map[hub.Key]string // by channel: what was sent under a key, whatever became of it
	offered   map[string]map[string]bool    // what was sent, whether the key is known or not
	acked     map[string]map[hub.Key]bool
	ahead     map[string]map[hub.Key]bool // those of them above every horizon that was shown
	ackedList map[string][]hub.Key        // in the order of the acknowledgements
	gone      map[string]map[hub.Key]bool // given up: their names are on enough disks
	top       map[string]hub.Key          // the highest horizon that was shown
	all       map[string][]hub.Key        // the answer with it
	shown     map[string]hub.Key          // by node and channel
	bulks     map[string]map[hub.Key][]hub.Key
	counts    tally
	lostDisks map[string]bool
	wildClock bool // one was set of so few nodes that it counts: keys may be far from the time

	// Where closings may be forced, answers may differ in what is named late in the end, and in nothing else.
	forcible, settled bool                          // settled: everything is named; from now on nothing differs
	forcing           int                           // such closings that are being put on record
	forced            map[roster.Stream]forcedEnd   // on record
	odd               map[string]map[hub.Key]string // by channel: in which keys answers differed, and how
	writers           map[string]map[hub.Key]string // by channel: which node gave a key
}

// forcedEnd is a forced closing.
type forcedEnd struct {
	node string // that wrote the stream
	roster.Closing
}

func newJudge() *judge {
	j := &judge{
		began: time.Now(), sent: map[string]map[hub.Key]string{}, offered: map[string]map[string]bool{}, acked: map[string]map[hub.Key]bool{}, ahead: map[string]map[hub.Key]bool{}, ackedList: map[string][]hub.Key{}, gone: map[string]map[hub.Key]bool{},
		top: map[string]hub.Key{}, all: map[string][]hub.Key{}, shown: map[string]hub.Key{}, bulks: map[string]map[hub.Key][]hub.Key{}, lostDisks: map[string]bool{},
		forced: map[roster.Stream]forcedEnd{}, odd: map[string]map[hub.Key]string{}, writers: map[string]map[hub.Key]string{},
	}
	for _, ch := range []string{"a", "b", replica} {
		j.offered[ch] = map[string]bool{}
		j.ahead[ch] = map[hub.Key]bool{}
		j.odd[ch], j.writers[ch] = map[hub.Key]string{}, map[hub.Key]string{}
		j.sent[ch], j.acked[ch], j.gone[ch], j.bulks[ch] = map[hub.Key]string{}, map[hub.Key]bool{}, map[hub.Key]bool{}, map[hub.Key][]hub.Key{}
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

// logger lets a node tell the story, too, when somebody wants to read it.
func (j *judge) logger(node string) *slog.Logger {
	if !*simTrace {
		return nil
	}
	return slog.New(slog.NewTextHandler(teller{j, node}, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type teller struct {
	j    *judge
	node string
}

func (t teller) Write(b []byte) (int, error) {
	t.j.note("   %s %s", t.node, bytes.TrimSpace(b))
	return len(b), nil
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

// differs is told of a key in which answers differ, or are not what they have to be: that may be where a closing was forced, if the key is named. Under mu.
func (j *judge) differs(ch string, k hub.Key, format string, args ...any) {
	if !j.forcible || j.settled || j.forcing == 0 && len(j.forced) == 0 || ch == replica {
		j.wrong(format, args...)
		return
	}
	if _, known := j.odd[ch][k]; !known {
		j.odd[ch][k] = fmt.Sprintf(format, args...)
		j.say("differs: %s", j.odd[ch][k])
	}
}

// closing is told of a change in the coordinator that is about to be made; ended, how that ended.
func (j *judge) closing(changes []coord.Change) (ended func(error)) {
	found := map[roster.Stream]forcedEnd{}
	for _, x := range changes {
		if x.Name != listRegister {
			continue
		}
		r, err := roster.Parse(x.Value)
		if err != nil {
			j.fail("a list that cannot be read goes on record: %v", err)
		}
		for _, i := range r.Streams {
			if i.Closed != nil && i.Closed.Forced {
				found[i.Stream] = forcedEnd{i.Node, *i.Closed}
			}
		}
	}
	if len(found) == 0 {
		return func(error) {}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.forcing++
	if !j.forcible {
		j.wrong("a closing is forced that must not be: %v", found)
	}
	return func(err error) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.forcing--
		if hub.Is(err, hub.Conflict) {
			return
		}
		for s, end := range found {
			if _, known := j.forced[s]; !known {
				j.forced[s] = end
				j.counts.forced++
				j.say("%v of %s is closed by force above %v, %d keys", s, end.node, end.Base.Key(), end.Count)
			}
		}
	}
}

// named is told what all nodes name as late in the end. All in which answers differed is there, and nothing that no forced closing had to do with.
func (j *judge) named(late map[named]LateItem) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for ch, keys := range j.odd {
		for k, how := range keys {
			if _, ok := late[named{ch, k.String()}]; !ok {
				j.wrong("%v (%s) is not named late, and answers differed: %s", k, ch, how)
			}
		}
	}
	for _, i := range late {
		s, err := roster.ParseStream(i.Stream)
		end, forced := j.forced[s]
		key, bad := hub.ParseKey(i.Key)
		m, ok := hub.MarkOf(key)
		switch writer := j.writers[i.Channel][key]; {
		case err != nil || bad != nil || !ok || i.Node == "" || i.Found.IsZero():
			j.wrong("a late item is not named in full: %+v", i)
		case !forced:
			j.wrong("%+v is named late, and that stream was not closed by force", i)
		case m <= end.Base || writer != "" && writer != end.node:
			j.wrong("%+v, which %s wrote, is named late; %s wrote that stream, and it was whole up to %v", i, writer, end.node, end.Base.Key())
		}
		j.counts.late++
	}
	j.settled = true
}

func (j *judge) failed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bad != ""
}

func (j *judge) story() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.history, "\n") + "\n" + j.counts.String()
}

func (j *judge) verdict() string {
	if !j.failed() {
		return ""
	}
	return j.bad + "\n" + j.story()
}

func has(sorted []hub.Key, k hub.Key) bool {
	_, ok := slices.BinarySearchFunc(sorted, k, hub.Key.Compare)
	return ok
}

func upTo(keys []hub.Key, h hub.Key) []hub.Key {
	at, found := slices.BinarySearchFunc(keys, h, hub.Key.Compare)
	if found {
		at++
	}
	return keys[:at]
}

func between(keys []hub.Key, from, to hub.Key) []hub.Key {
	a, _ := slices.BinarySearchFunc(keys, from, hub.Key.Compare)
	b, _ := slices.BinarySearchFunc(keys, to, hub.Key.Compare)
	return keys[a:max(a, b)]
}

// offers is told what is about to be sent.
func (j *judge) offers(ch string, data ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, d := range data {
		j.offered[ch][d] = true
	}
}

// wrote is told of the end of a write. err is what the writer got; counts: its node lived on until then.
func (j *judge) wrote(node, ch string, keys []hub.Key, data []string, err error, counts bool, began time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, k := range keys {
		if _, ok := j.sent[ch][k]; ok {
			j.wrong("%s gave key %v twice", node, k)
		}
		if i > 0 && !keys[i-1].Less(k) {
			j.wrong("%s gave the parts %v and %v of a bulk", node, keys[i-1], k)
		}
		j.sent[ch][k], j.writers[ch][k] = data[i], node
		j.bulks[ch][k] = keys
	}
	j.whole(node, ch, keys, j.all[ch], j.top[ch])
	if err != nil || !counts {
		j.counts.undecided++
		return
	}
	j.counts.acked++
	if early, late := keys[0].Millis()-time.Now().UnixMilli(), began.UnixMilli()-keys[0].Millis(); !j.wildClock && max(early, late) > 2*simGuard.Milliseconds() {
		j.wrong("%s gave the key %v to a write from %v to now", node, keys[0], hub.ISO(began))
	}
	for _, k := range keys {
		j.ack(node, ch, k)
	}
}

// ack notes an acknowledged key. Under mu.
func (j *judge) ack(node, ch string, k hub.Key) {
	if j.acked[ch][k] {
		return
	}
	j.acked[ch][k] = true
	j.ackedList[ch] = append(j.ackedList[ch], k)
	if j.top[ch].Less(k) {
		j.ahead[ch][k] = true
	} else if !has(j.all[ch], k) {
		j.differs(ch, k, "%s acknowledged %v (%s), which is at or below a horizon that was shown, %v, and not in that answer", node, k, ch, j.top[ch])
	}
	if j.gone[ch][k] {
		j.wrong("%s acknowledged %v (%s), which was given up", node, k, ch)
	}
}

// whole: of a bulk, an answer has all or nothing, as far as it goes. Under mu.
func (j *judge) whole(node, ch string, bulk, answer []hub.Key, h hub.Key) {
	if len(bulk) < 2 || h.Less(bulk[len(bulk)-1]) {
		return
	}
	n := 0
	for _, k := range bulk {
		if has(answer, k) {
			n++
		}
	}
	if n > 0 && n < len(bulk) {
		j.wrong("%s at %v has %d of %d parts of the bulk %v (%s)", node, h, n, len(bulk), bulk[0], ch)
	}
}

// sends is told what a source is about to write.
func (j *judge) sends(ch string, items []hub.Sealed) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, item := range items {
		j.sent[ch][item.Key] = string(item.Data)
		j.offered[ch][string(item.Data)] = true
	}
}

// took is told that what a source has was written.
func (j *judge) took(ch string, items []hub.Sealed) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, item := range items {
		j.ack("a node", ch, item.Key)
	}
}

// gaveUp is told by the writers among the nodes that a key is given up: its name is on enough disks.
func (j *judge) gaveUp(ch string, keys []hub.Key) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone[ch] == nil { // of a test with channels of its own
		j.gone[ch] = map[hub.Key]bool{}
	}
	for _, k := range keys {
		j.counts.given++
		j.gone[ch][k] = true
		if j.acked[ch][k] {
			j.wrong("%v (%s) was acknowledged and is given up", k, ch)
		}
		if has(j.all[ch], k) {
			j.differs(ch, k, "%v (%s) was in a stable answer at %v and is given up", k, ch, j.top[ch])
		}
	}
}

func (j *judge) refused() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.refused++
}

// answer is a stable one of everything. inTurn: it was asked for after the one before of that node and channel had come.
func (j *judge) answer(node, ch string, page hub.Page, inTurn bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.answers++
	h := page.Horizon
	if inTurn {
		if before, ok := j.shown[node+ch]; ok && h.Less(before) {
			j.wrong("the horizon of %s went back from %v to %v (%s)", node, before, h, ch)
		}
		j.shown[node+ch] = h
	}
	j.agree(node, ch, hub.MinKey, page)
	j.rise(node, ch, page.Keys, h)
}

// rise takes in the highest stable answer so far. Under mu.
func (j *judge) rise(node, ch string, keys []hub.Key, h hub.Key) {
	old := j.top[ch]
	if !old.Less(h) {
		return
	}
	j.top[ch], j.all[ch] = h, keys
	for k := range j.ahead[ch] {
		if h.Less(k) {
			continue
		}
		delete(j.ahead[ch], k)
		if !has(keys, k) {
			j.differs(ch, k, "%s at %v lacks the acknowledged %v (%s)", node, h, k, ch)
		}
	}
	var last *hub.Key
	before := upTo(keys, old)
	for i, k := range keys[len(before):] {
		if i > 0 && !keys[len(before)+i-1].Less(k) {
			j.wrong("%s: %v is not above %v", node, k, keys[len(before)+i-1])
		}
		if j.gone[ch][k] {
			j.differs(ch, k, "%s at %v has %v (%s), which was given up", node, h, k, ch)
		}
		if bulk := j.bulks[ch][k]; len(bulk) > 1 && (last == nil || *last != bulk[0]) {
			last = &bulk[0]
			j.whole(node, ch, bulk, keys, h)
		}
	}
}

// agree compares a stable answer from a key on with what was answered before, as far as both go. Under mu.
func (j *judge) agree(node, ch string, from hub.Key, page hub.Page) {
	h, low := page.Horizon, j.top[ch]
	if h.Less(low) {
		low = h
	}
	if low.Less(from) {
		return
	}
	mine, before := upTo(page.Keys, low), between(j.all[ch], from, low.After())
	if slices.Equal(mine, before) {
		return
	}
	for _, k := range before {
		if !has(mine, k) {
			j.differs(ch, k, "%s at %v lacks %v (%s, acknowledged %v), which an answer at %v had", node, h, k, ch, j.acked[ch][k], j.top[ch])
		}
	}
	for _, k := range mine {
		if !has(before, k) {
			j.differs(ch, k, "%s at %v has %v (%s, acknowledged %v), which an answer at %v had not", node, h, k, ch, j.acked[ch][k], j.top[ch])
		}
	}
	if !slices.IsSortedFunc(mine, hub.Key.Compare) || !j.forcible {
		j.wrong("%s: the order of %v", node, mine)
	}
}

// fed is what a follower got after a cursor: like an answer, from there on.
func (j *judge) fed(node, ch string, cursor hub.Key, page hub.Page) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.fed++
	j.after(node+" (feed)", ch, cursor, page)
}

// after is a stable answer of everything after a key, which was shown. Under mu.
func (j *judge) after(node, ch string, cursor hub.Key, page hub.Page) {
	j.agree(node, ch, cursor.After(), page)
	if !j.top[ch].Less(cursor) {
		j.rise(node, ch, slices.Concat(upTo(j.all[ch], cursor), page.Keys), page.Horizon)
	}
}

// archived is what the archiver takes.
func (j *judge) archived(node, ch string, cursor hub.Key, page hub.Page) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.after(node+" (archiver)", ch, cursor, page)
}

// window is a stable search with a limit.
func (j *judge) window(node string, q hub.Query, page hub.Page) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.windows++
	low := j.top[q.Channel]
	if page.Horizon.Less(low) {
		low = page.Horizon
	}
	got := slices.Clone(page.Keys)
	if q.Reverse {
		slices.Reverse(got)
	}
	to := low.After()
	if q.To.Less(to) {
		to = q.To
	}
	if j.forcible && !j.settled {
		j.windowDiffers(node, q, got, to)
		return
	}
	want := between(j.all[q.Channel], q.From, to)
	mine := upTo(got, low)
	above := len(got) - len(mine)
	if left := q.Limit - above; q.Reverse && len(want) > left {
		want = want[len(want)-max(left, 0):]
	} else if !q.Reverse && len(want) > q.Limit {
		want = want[:q.Limit]
	}
	if !slices.Equal(mine, want) {
		j.wrong("%s answers a search (%s, from %v to %v, %d, reverse %v) at %v with %v; it should have %v", node, q.Channel, q.From, q.To, q.Limit, q.Reverse, page.Horizon, mine, want)
	}
}

// windowDiffers compares a search where answers may differ: in the part that it covers, up to a key. Under mu.
func (j *judge) windowDiffers(node string, q hub.Query, got []hub.Key, to hub.Key) {
	from := q.From
	switch {
	case len(got) > q.Limit || !slices.IsSortedFunc(got, hub.Key.Compare):
		j.wrong("%s answers a search for %d keys of %s with %v", node, q.Limit, q.Channel, got)
		return
	case len(got) == q.Limit && q.Reverse:
		from = got[0]
	case len(got) == q.Limit && got[len(got)-1].Less(to):
		to = got[len(got)-1].After()
	}
	want := between(j.all[q.Channel], from, to)
	for _, k := range want {
		if !has(got, k) {
			j.differs(q.Channel, k, "%s answers a search without %v (%s)", node, k, q.Channel)
		}
	}
	for _, k := range between(got, from, to) {
		if !has(want, k) {
			j.differs(q.Channel, k, "%s answers a search with %v (%s)", node, k, q.Channel)
		}
	}
}

// complete is told of a stable answer in the end: nothing acknowledged is missing.
func (j *judge) complete(node, ch string, page hub.Page) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for k := range j.acked[ch] {
		if !page.Horizon.Less(k) && !has(page.Keys, k) {
			j.wrong("%s lacks the acknowledged %v (%s) in the end", node, k, ch)
		}
	}
}

// ackedSoFar is how many keys of a channel are acknowledged.
func (j *judge) ackedSoFar(ch string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.ackedList[ch])
}

func (j *judge) acks(ch string) int { return j.ackedSoFar(ch) }

// highest is the highest horizon of a channel that was shown.
func (j *judge) highest(ch string) hub.Key {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.top[ch]
}

// someAcked is any acknowledged key, rather a young one.
func (j *judge) someAcked(ch string, rng *rand.Rand) (hub.Key, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.ackedList[ch]
	if len(list) == 0 {
		return hub.Key{}, false
	}
	if rng.IntN(2) == 0 {
		list = list[max(0, len(list)-10):]
	}
	return list[rng.IntN(len(list))], true
}

// unstable is an answer of everything from q.From on; known keys were acknowledged before it was asked for.
func (j *judge) unstable(node string, q hub.Query, page hub.Page, known int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.unstable++
	for i, k := range page.Keys {
		if i > 0 && !page.Keys[i-1].Less(k) {
			j.wrong("%s: %v is not above %v", node, k, page.Keys[i-1])
		}
	}
	if page.Silent > 0 {
		j.counts.partial++
		return
	}
	for _, k := range j.ackedList[q.Channel][:known] {
		if !k.Less(q.From) && !has(page.Keys, k) {
			j.differs(q.Channel, k, "an unstable answer of %s that is said to be whole lacks the acknowledged %v (%s)", node, k, q.Channel)
		}
	}
}

// item is a read of an item that was acknowledged or shown.
func (j *judge) item(node, ch string, k hub.Key, item hub.Sealed, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.items++
	want, ok := j.sent[ch][k]
	switch {
	case hub.Is(err, hub.NotFound):
		j.differs(ch, k, "%s: %v of %s (acknowledged %v) cannot be read: %v", node, k, ch, j.acked[ch][k], err)
	case err == nil && ok && string(item.Data) != want:
		j.wrong("%s: %v of %s is %.40q, not %.40q", node, k, ch, item.Data, want)
	}
}

// bytes compares all items of a node with what was sent.
func (j *judge) bytes(n *Node, ch string) {
	q := hub.Query{Channel: ch, From: hub.MinKey, To: hub.MaxKey, Stable: true}
	for more := true; more; {
		more = false
		for item, err := range n.Items(context.Background(), q) {
			if err != nil && errors.Is(err, spokelog.ErrDamaged) && j.past.has(ch, item.Key) { // the layers above take it from there
				q.From, more = item.Key.After(), true
				break
			}
			j.mu.Lock()
			want, ok := j.sent[ch][item.Key]
			switch {
			case err != nil:
				j.wrong("read of all items: %v", err)
			case !j.offered[ch][string(item.Data)]:
				j.wrong("%v of %s was sent by nobody: %.40q", item.Key, ch, item.Data)
			case ok && string(item.Data) != want: // otherwise its writer does not know the key yet
				j.wrong("%v of %s is %.40q, not %.40q", item.Key, ch, item.Data, want)
			}
			j.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}
