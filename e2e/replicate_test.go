package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/faultproxy"
	hubclient "timehub/hub/client"
)

var (
	replicateItems = flag.Int("replicate.items", 20_000, "items of the replication test")
	replicateSeeds = flag.Int("replicate.seeds", 4, "seeds of the replication test in virtual time, from -seed on")
	replicateCuts  = flag.Int("replicate.cuts", 5, "cuts of the link in the replication test; every third one kills the target, every third one the source")
)

// replicated is what the test compares of an item.
type replicated struct {
	key, contentType string
	digest           [32]byte
	size             int
}

// readChannel reads a channel from its first item to its last, in pages.
func readChannel(t *testing.T, hub, channel string) []replicated {
	t.Helper()
	c, err := hubclient.New(hubclient.Options{URL: hub})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var all []replicated
	path := "earliest/1000"
	for {
		n := 0
		for it, err := range c.Items(t.Context(), channel, path, hubclient.Query{}) {
			if err != nil {
				t.Fatalf("read %s: %v", channel, err)
			}
			h := sha256.New()
			size, err := io.Copy(h, it.Body)
			if err != nil {
				t.Fatalf("read %s of %s: %v", it.Key, channel, err)
			}
			all = append(all, replicated{it.Key.String(), it.ContentType, [32]byte(h.Sum(nil)), int(size)})
			n++
		}
		if n == 0 {
			return all
		}
		path = all[len(all)-1].key + "/next/1000"
	}
}

// compareChannels compares key by key and byte by byte.
func compareChannels(t *testing.T, source, target []replicated) {
	t.Helper()
	if len(source) != len(target) {
		t.Errorf("the source has %d items, the target %d", len(source), len(target))
	}
	for i := range min(len(source), len(target)) {
		if source[i] != target[i] {
			t.Fatalf("item %d of the target is %+v, of the source %+v", i, target[i], source[i])
		}
	}
}

// replicationStatus is the member of the channel's status.
type replicationStatus struct {
	State, LastItem, LastError string
	LagMillis, Items           int64
	Gone                       []struct{ From, To string }
}

func statusOf(ctx context.Context, hub, channel string) (s replicationStatus, err error) {
	r, err := call(ctx, "GET", hub+"/channel/"+channel+"/status", nil)
	if err != nil {
		return s, err
	}
	var d struct{ Replication *replicationStatus }
	if err := json.Unmarshal(r.body, &d); err != nil || d.Replication == nil {
		return s, fmt.Errorf("no replication in the status: %s", r.body)
	}
	return *d.Replication, nil
}

// untilEqual waits until the target says that it has everything, and its last key is the source's.
func untilEqual(t *testing.T, source, from, target, to string) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for time.Now().Before(deadline) {
		a, errA := call(t.Context(), "GET", source+"/channel/"+from+"/latest", nil)
		b, errB := call(t.Context(), "GET", target+"/channel/"+to+"/latest", nil)
		s, err := statusOf(t.Context(), target, to)
		if errA == nil && errB == nil && err == nil && s.State == "live" && a.status == b.status && keyOf(a.header.Get("Location")) == keyOf(b.header.Get("Location")) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s, err := statusOf(t.Context(), target, to)
	t.Fatalf("the target does not get equal: %+v, %v", s, err)
}

// sourceWriter fills the source.
type sourceWriter struct {
	url   string
	rng   *rand.Rand
	bytes int64
	items int
	fail  error
}

func (w *sourceWriter) write(ctx context.Context, n int) {
	types := []string{"text/plain", "application/json", "application/octet-stream", "text/plain;charset=utf-8"}
	for n > 0 && w.fail == nil && ctx.Err() == nil {
		batch := min(n, 1)
		if w.rng.IntN(4) > 0 {
			batch = min(n, 1+w.rng.IntN(200))
		}
		bodies := make([][]byte, batch)
		for i := range bodies {
			size := 1 + w.rng.IntN(600)
			if w.rng.IntN(2000) == 0 {
				size = 1<<20 + w.rng.IntN(3<<20)
			}
			bodies[i] = make([]byte, size)
			for k := range bodies[i] {
				bodies[i][k] = byte(w.rng.Uint32())
			}
			w.bytes += int64(size)
		}
		kind := types[w.rng.IntN(len(types))]
		url, body, header := w.url, bodies[0], kind
		if batch > 1 {
			url += "/bulk"
			body, header = bulkBody(kind, bodies)
		}
		for {
			r, err := call(ctx, "POST", url, body, "Content-Type", header)
			if err == nil && r.status == http.StatusCreated {
				break
			}
			if ctx.Err() != nil {
				return
			}
			time.Sleep(100 * time.Millisecond) // it is being restarted; what was stored twice is two items
		}
		n -= batch
		w.items += batch
	}
}

// TestReplicate copies a channel from one hub to another over a link that is cut again and again in the middle of what it carries, while both hubs are
// killed and started again: in the end the target has what the source has, key by key and byte by byte, and at no time did a stable answer of the
// target leave anything out below its last key.
func TestReplicate(t *testing.T) {
	rng := seeded(t)
	items, cuts := *replicateItems, *replicateCuts
	if testing.Short() {
		items, cuts = 4000, 3
	}
	source, target := start(t), start(t)
	l := faultproxy.NewLine(t, source.Addr)
	putChannel(t, source.URL, "orders", `{}`)
	writer := &sourceWriter{url: source.URL + "/channel/orders", rng: rng}
	writer.write(t.Context(), items/2)

	cut := make(chan struct{}, 1)
	next := func() {
		l.CutAfter(int64(float64(items/max(1, cuts+1))*250*(0.3+rng.Float64())), func() { cut <- struct{}{} })
	}
	next()
	putChannel(t, target.URL, "Copy", `{"replicationSource": "http://`+l.Addr+`/channel/orders"}`)
	must(t, 403, "POST", target.URL+"/channel/Copy", []byte("x"))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	written := make(chan struct{})
	group.Go(func() {
		defer close(written)
		w := &sourceWriter{url: writer.url, rng: rand.New(rand.NewPCG(rng.Uint64(), 3))}
		w.write(ctx, items-items/2)
	})
	var samples [][]string
	group.Go(func() { samples = sample(ctx, target.URL, "Copy") })
	for done := 0; done < cuts; done++ {
		select {
		case <-cut:
		case <-time.After(20 * time.Second): // nothing is carried any more
			l.Cut()
			select {
			case <-cut:
			default:
			}
		}
		l.Refuse(true)
		switch done % 3 {
		case 0:
			target.Kill()
			if err := target.Start(); err != nil {
				t.Fatal(err)
			}
		case 1:
			source.Kill()
			if err := source.Start(); err != nil {
				t.Fatal(err)
			}
		default:
			time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
		}
		next()
		l.Refuse(false)
	}
	l.CutAfter(0, nil)
	<-written
	untilEqual(t, source.URL, "orders", target.URL, "Copy")
	stop()
	group.Wait()
	want := readChannel(t, source.URL, "orders")
	if len(want) < items {
		t.Errorf("the source has only %d items of %d", len(want), items)
	}
	compareChannels(t, want, readChannel(t, target.URL, "Copy"))
	checkSamples(t, want, samples)
	s, err := statusOf(t.Context(), target.URL, "Copy")
	if err != nil || len(s.Gone) > 0 || s.LagMillis > 0 {
		t.Errorf("%+v, %v", s, err)
	}
	t.Logf("%d items, the link broke %d times, %d samples", len(want), l.Cuts(), len(samples))
}

// sample reads the end of a channel now and then: the last keys, as a stable answer shows them.
func sample(ctx context.Context, hub, channel string) (samples [][]string) {
	for ctx.Err() == nil {
		r, err := call(ctx, "GET", hub+"/channel/"+channel+"/latest/500", nil)
		if err == nil && r.status == 200 {
			if uris, err := r.uris(); err == nil && len(uris) > 0 {
				keys := make([]string, len(uris))
				for i, u := range uris {
					keys[i] = keyOf(u)
				}
				samples = append(samples, keys)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return samples
}

// checkSamples compares what was seen on the way with the source: neighbours have to be neighbours.
func checkSamples(t *testing.T, want []replicated, samples [][]string) {
	t.Helper()
	for _, keys := range samples {
		at, found := slices.BinarySearchFunc(want, keys[0], func(r replicated, k string) int { return strings.Compare(r.key, k) })
		if !found || at+len(keys) > len(want) {
			t.Fatalf("the target showed %s, which the source does not have", keys[0])
		}
		if at > 0 && len(keys) < 500 {
			t.Fatalf("the target showed %d items, but the first of them was %s", len(keys), keys[0])
		}
		for i, k := range keys {
			if want[at+i].key != k {
				t.Fatalf("the target showed %s after %s, and left out %s", k, keys[max(0, i-1)], want[at+i].key)
			}
		}
	}
	if len(samples) == 0 {
		t.Error("nothing was seen on the way")
	}
}
