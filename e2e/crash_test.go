package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/hubproc"
)

// crashSeed repeats the moments and the sizes of a run, as far as a real process can be repeated.
var crashSeed = flag.Uint64("seed", 0, "seed of the crash and injury tests; 0: of the time")

func seeded(t *testing.T) *rand.Rand {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// crashWriter is one sequential client. It never sends a body twice, so a body that is there twice is a mistake of the hub.
type crashWriter struct {
	name    string
	channel string
	rng     *rand.Rand
	next    int // number of the next body

	last  string                // greatest key acknowledged so far
	acked map[string][]byte     // by key
	open  map[string]*openWrite // by the id of the first body: writes without an answer, all rounds
	sent  map[string][]byte     // by id: everything that was ever sent
	wrong []string
}

// openWrite is a write of which nobody knows whether it happened.
type openWrite struct {
	ids    []string
	judged bool // it was looked for after the restart
	seen   bool // … and found; this may never change again
}

// body makes a body that says who sent it: "id padding".
func (w *crashWriter) body() (id string, body []byte) {
	id = fmt.Sprintf("%s-%06d", w.name, w.next)
	w.next++
	size := w.rng.IntN(2000)
	if w.rng.IntN(50) == 0 {
		size = 100_000 + w.rng.IntN(200_000)
	}
	body = append([]byte(id+" "), make([]byte, size)...)
	for i := len(id) + 1; i < len(body); i++ {
		body[i] = byte(w.rng.Uint32())
	}
	w.sent[id] = body
	return id, body
}

// run writes until the hub is gone.
func (w *crashWriter) run(ctx context.Context, hub string) {
	for ctx.Err() == nil {
		n := 1
		if w.rng.IntN(3) == 0 {
			n = 2 + w.rng.IntN(30)
		}
		ids, bodies := make([]string, n), make([][]byte, n)
		for i := range n {
			ids[i], bodies[i] = w.body()
		}
		if !w.write(ctx, hub, ids, bodies) {
			return
		}
	}
}

func (w *crashWriter) write(ctx context.Context, hub string, ids []string, bodies [][]byte) bool {
	url, body, contentType := hub+"/channel/"+w.channel, bodies[0], "application/octet-stream"
	if len(ids) > 1 {
		url += "/bulk"
		body, contentType = bulkBody(contentType, bodies)
	}
	r, err := call(ctx, "POST", url, body, "Content-Type", contentType)
	if err != nil {
		w.open[ids[0]] = &openWrite{ids: ids}
		return false
	}
	if r.status != 201 {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %d %.200s", ids[0], r.status, r.body))
		w.open[ids[0]] = &openWrite{ids: ids}
		return true
	}
	keys := []string{keyOf(r.header.Get("Location"))}
	if len(ids) > 1 {
		var uris []string
		if uris, err = r.uris(); err != nil || len(uris) != len(ids) {
			w.wrong = append(w.wrong, fmt.Sprintf("bulk of %d: %d keys, %v", len(ids), len(uris), err))
			return false
		}
		keys = keys[:0]
		for _, u := range uris {
			keys = append(keys, keyOf(u))
		}
	}
	for i, key := range keys {
		if key <= w.last {
			w.wrong = append(w.wrong, fmt.Sprintf("key %s after %s: keys must rise", key, w.last))
		}
		w.last = key
		w.acked[key] = bodies[i]
	}
	return true
}

// TestCrash kills a hub with kill -9 at random moments while clients write, one by one and in bulk, and looks after each restart: everything
// acknowledged is there, byte-equal, under its key; keys are unique and rise for each client; nothing is there that nobody sent, and nothing twice; a
// bulk is there whole or not at all; of a write without an answer it is decided once whether it happened.
func TestCrash(t *testing.T) {
	rng := seeded(t)
	hub := prepare(t)
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	channels := []string{"crash-batch", "crash-single", "crash-both"}
	for i, storage := range []string{"BATCH", "SINGLE", "BOTH"} {
		putChannel(t, hub.URL, channels[i], `{"storage": "`+storage+`"}`)
	}
	var writers []*crashWriter
	for i := range 8 {
		writers = append(writers, &crashWriter{
			name: "w" + strconv.Itoa(i), channel: channels[i%len(channels)], rng: rand.New(rand.NewPCG(rng.Uint64(), 2)),
			acked: map[string][]byte{}, open: map[string]*openWrite{}, sent: map[string][]byte{},
		})
	}
	n := *rounds
	if testing.Short() {
		n = 3
	}
	for round := range n {
		crashOnce(t, hub, writers, time.Duration(20+rng.IntN(600))*time.Millisecond)
		if err := hub.Start(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, channel := range channels {
			checkCrash(t, hub.URL, channel, writers)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	acked := 0
	for _, w := range writers {
		acked += len(w.acked)
	}
	if acked < 10*n {
		t.Errorf("only %d items were acknowledged in %d rounds: the test shows little", acked, n)
	}
	t.Logf("%d kills, %d items acknowledged, all there", n, acked)
	if err := hub.Stop(time.Minute); err != nil {
		t.Error(err)
	}
}

// crashOnce lets the writers run for a while and kills the hub under them.
func crashOnce(t *testing.T, hub *hubproc.Hub, writers []*crashWriter, after time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for _, w := range writers {
		group.Go(func() { w.run(ctx, hub.URL) })
	}
	time.Sleep(after)
	hub.Kill()
	cancel()
	group.Wait()
	client.CloseIdleConnections()
	for _, w := range writers {
		for _, s := range w.wrong {
			t.Errorf("%s: %s", w.name, s)
		}
	}
}

// readAll reads a channel as a client does: all days since the hub was started, in bulk.
func readAll(t *testing.T, hub, channel, query string) []item {
	t.Helper()
	var items []item
	now := time.Now().UTC()
	for _, day := range []time.Time{now.AddDate(0, 0, -1), now, now.AddDate(0, 0, 1)} {
		r := must(t, 200, "GET", hub+"/channel/"+channel+"/"+day.Format("2006/01/02")+"?bulk=true"+query, nil)
		parts, err := r.parts()
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, parts...)
	}
	return items
}

func checkCrash(t *testing.T, hub, channel string, writers []*crashWriter) {
	t.Helper()
	items := readAll(t, hub, channel, "")
	if unstable := readAll(t, hub, channel, "&stable=false"); len(unstable) != len(items) {
		t.Errorf("%s: %d items in the stable answer, %d in the unstable one", channel, len(items), len(unstable))
	}
	byKey := map[string][]byte{}
	byID := map[string]string{}
	last := ""
	for _, i := range items {
		if i.key <= last {
			t.Errorf("%s: %s after %s: not in order, or twice", channel, i.key, last)
		}
		last = i.key
		byKey[i.key] = i.body
		id, _, _ := strings.Cut(string(i.body[:min(len(i.body), 40)]), " ")
		if other, twice := byID[id]; twice {
			t.Errorf("%s: %s is there twice, as %s and %s", channel, id, other, i.key)
		}
		byID[id] = i.key
	}
	known := map[string]bool{}
	for _, w := range writers {
		if w.channel != channel {
			continue
		}
		for id := range w.sent {
			known[id] = true
		}
		for key, body := range w.acked {
			if got, ok := byKey[key]; !ok {
				t.Errorf("%s: %s was acknowledged and is not there", channel, key)
			} else if !bytes.Equal(got, body) {
				t.Errorf("%s: %s is not what was acknowledged", channel, key)
			}
		}
		for id, key := range byID {
			if sent, mine := w.sent[id]; mine && !bytes.Equal(sent, byKey[key]) {
				t.Errorf("%s: %s is %s, with other bytes", channel, key, id)
			}
		}
		for _, o := range w.open {
			o.judge(t, channel, byID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		if !known[id] {
			t.Errorf("%s: %s holds %.60q, which nobody sent", channel, byID[id], id)
		}
	}
}

// judge looks for a write without an answer: whole or not at all, and the same as last time.
func (o *openWrite) judge(t *testing.T, channel string, byID map[string]string) {
	t.Helper()
	found := 0
	for _, id := range o.ids {
		if _, ok := byID[id]; ok {
			found++
		}
	}
	if found != 0 && found != len(o.ids) {
		t.Errorf("%s: %d of the %d items of an unanswered bulk are there", channel, found, len(o.ids))
	}
	if seen := found > 0; o.judged && seen != o.seen {
		t.Errorf("%s: unanswered %s was there: %v, is there: %v", channel, o.ids[0], o.seen, seen)
	}
	o.judged, o.seen = true, found > 0
}

// TestStop: a hub that is told to stop while clients write answers what it has begun and exits with 0; what it acknowledged is there.
func TestStop(t *testing.T) {
	hub := start(t, "--set", "app.shutdown_delay_seconds=0")
	putChannel(t, hub.URL, "stop", `{}`)
	w := &crashWriter{name: "w", channel: "stop", rng: rand.New(rand.NewPCG(1, 1)),
		acked: map[string][]byte{}, open: map[string]*openWrite{}, sent: map[string][]byte{}}
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group.Go(func() { w.run(ctx, hub.URL) })
	time.Sleep(300 * time.Millisecond)
	if err := hub.Stop(time.Minute); err != nil {
		t.Error(err)
	}
	cancel()
	group.Wait()
	w.wrong = nil // while it stops it may refuse
	client.CloseIdleConnections()
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	checkCrash(t, hub.URL, "stop", []*crashWriter{w})
	if len(w.acked) == 0 {
		t.Error("nothing was acknowledged")
	}
}
