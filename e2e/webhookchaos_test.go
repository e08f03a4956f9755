package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/hubproc"
)

// How much the chaos of webhooks is: 5,000 items and 5 kills in CI, more by `make chaos`.
var (
	webhookItems = flag.Int("webhook.items", 5000, "items in the chaos test of webhooks")
	webhookKills = flag.Int("webhook.kills", 5, "kills in the chaos test of webhooks")
)

// webhookTick is how old what a webhook has written down may be: the tick of its cursors, 100 ms, and the write itself, on a machine that holds up nobody.
const webhookTick = 400 * time.Millisecond

// delays measures what a busy machine and its disk add: the longest time that a look at the clock and a sync, which should take none, took within the last
// 20 seconds, the one that goes on included.
func delays(t *testing.T, dir string) (longest func() time.Duration) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "delays"))
	if err != nil {
		t.Fatal(err)
	}
	const pause = 50 * time.Millisecond
	var mu sync.Mutex // guards last
	last := []time.Time{time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(pause)
			if _, err = file.WriteString("x"); err == nil {
				err = file.Sync()
			}
			mu.Lock()
			last = append(last[max(0, len(last)-400):], time.Now())
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
		if err := errors.Join(err, file.Close()); err != nil {
			t.Error(err)
		}
	})
	return func() (most time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		for i, at := range last {
			until := time.Now()
			if i+1 < len(last) {
				until = last[i+1]
			}
			most = max(most, until.Sub(at)-pause)
		}
		return most
	}
}

// feeder inserts items in bulks, not too far ahead of what was delivered, and goes on when the hub is killed under it.
type feeder struct {
	url, channel string
	rng          *rand.Rand
	ahead        func(inserted int) bool // it is too far ahead

	mu     sync.Mutex
	acked  map[string]string // key → who the item is from
	wrong  []string
	closed bool // it has inserted all
}

// user is what the items are ordered by.
type user struct {
	User string `json:"user"`
	N    int    `json:"n"`
}

func (f *feeder) run(ctx context.Context, items int) {
	for n := 0; n < items && ctx.Err() == nil; {
		if f.ahead(n) {
			time.Sleep(time.Millisecond)
			continue
		}
		var bodies [][]byte
		var users []string
		for range 1 + f.rng.IntN(40) {
			u := "user" + strconv.Itoa(f.rng.IntN(20))
			body, _ := json.Marshal(user{u, n + len(bodies)})
			bodies, users = append(bodies, body), append(users, u)
		}
		body, contentType := bulkBody("application/json", bodies)
		r, err := call(ctx, "POST", f.url+"/channel/"+f.channel+"/bulk", body, "Content-Type", contentType)
		if err != nil { // the hub is dead; the items may be there or not
			time.Sleep(5 * time.Millisecond)
			continue
		}
		uris, err := r.uris()
		f.mu.Lock()
		if r.status != 201 || err != nil || len(uris) != len(bodies) {
			if r.status < 500 {
				f.wrong = append(f.wrong, fmt.Sprintf("bulk of %d: %d, %d keys, %v", len(bodies), r.status, len(uris), err))
			}
		} else {
			for i, u := range uris {
				f.acked[keyOf(u)] = users[i]
			}
			n += len(bodies)
		}
		f.mu.Unlock()
	}
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}

func (f *feeder) done() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// TestWebhookChaos: items go through webhooks whose consumers fail in every way while the hub is killed again and again. Each item is delivered at least
// once; the first deliveries are in the order of the keys, of all items or of those with the same value; duplicates are at most those that were in flight
// or finished within the last tick, at each kill.
func TestWebhookChaos(t *testing.T) {
	items, kills := *webhookItems, *webhookKills
	if testing.Short() {
		items, kills = 1000, 2
	}
	t.Run("one at a time", func(t *testing.T) {
		webhookChaos(t, items, kills, `"parallelCalls": 1`, 1, func(string) string { return "" })
	})
	t.Run("ordered by value", func(t *testing.T) {
		webhookChaos(t, items, kills, `"parallelCalls": 8, "orderBy": ".user"`, 8, func(u string) string { return u })
	})
}

func webhookChaos(t *testing.T, items, kills int, config string, parallel int, lane func(user string) string) {
	rng := seeded(t)
	hub := prepare(t, "--set", "webhook.retry.first_millis=5")
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	bad := newBadConsumer(rand.New(rand.NewPCG(rng.Uint64(), 2)), max(2, items/5000))
	bad.pace = time.Duration(parallel) * time.Millisecond
	to := newConsumer(t, bad.answer)
	putChannel(t, hub.URL, "chaos", `{}`)
	must(t, 201, "PUT", hub.URL+"/webhook/chaos", []byte(fmt.Sprintf(
		`{"callbackUrl": "%s/cb", "channelUrl": "%s/channel/chaos", "callbackTimeoutSeconds": 3, %s}`, to.URL, hub.URL, config)),
		"Content-Type", "application/json")
	f := &feeder{url: hub.URL, channel: "chaos", rng: rand.New(rand.NewPCG(rng.Uint64(), 3)), acked: map[string]string{}}
	f.ahead = func(inserted int) bool { return inserted > len(to.all())+500 }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { f.run(ctx, items) })

	delay := delays(t, t.TempDir())
	allowed, strict := 0, 0
	for kill := range kills {
		at := items * (kill + 1) / (kills + 1)
		eventually(t, fmt.Sprintf("delivery %d", at), func() bool { return len(to.all()) >= at })
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		hub.Kill()
		client.CloseIdleConnections()
		allowed += parallel + to.within(webhookTick+4*delay()) // a write is two syncs, and may wait for another one
		strict += parallel + to.within(webhookTick/4)
		if err := hub.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var stored []item
	eventually(t, "the end of the deliveries", func() bool {
		if !f.done() {
			return false
		}
		if stored == nil {
			stored = readAll(t, hub.URL, "chaos", "")
		}
		paths, _ := firsts(to.all())
		return len(paths) >= len(stored)
	})
	cancel()
	group.Wait()
	f.judge(t, stored, to, lane)
	_, again := firsts(to.all())
	if len(again) > allowed {
		t.Errorf("%d duplicates, %d are explained by %d kills", len(again), allowed, kills)
	}
	bad.check(t)
	settled(t, hub, "chaos", stored[len(stored)-1].key)
	t.Logf("%d items, %d kills, %d calls, %d duplicates of at most %d (%d on a machine without load)", len(stored), kills, to.called(), len(again), allowed, strict)
	if err := hub.Stop(time.Minute); err != nil {
		t.Error(err)
	}
}

// judge compares what was delivered with what is in the channel.
func (f *feeder) judge(t *testing.T, stored []item, to *consumer, lane func(user string) string) {
	t.Helper()
	for _, s := range f.wrong {
		t.Error(s)
	}
	users := map[string]string{}
	for _, i := range stored {
		var u user
		if err := json.Unmarshal(i.body, &u); err != nil {
			t.Fatal(err)
		}
		users[i.key] = u.User
	}
	for key, u := range f.acked {
		if users[key] != u {
			t.Errorf("%s was acknowledged and is not there", key)
		}
	}
	paths, _ := firsts(to.all())
	delivered := map[string]bool{}
	last := map[string]string{}
	for _, path := range paths {
		if _, ok := users[path]; !ok {
			t.Errorf("%q was delivered and is not in the channel", path)
		}
		l := lane(users[path])
		if path <= last[l] {
			t.Errorf("%s was delivered first after %s (%s)", path, last[l], l)
		}
		last[l] = path
		delivered[path] = true
	}
	for _, i := range stored {
		if !delivered[i.key] {
			t.Errorf("%s was never delivered", i.key)
		}
	}
}

// webhookStatus is what GET /webhook/{name} says.
type webhookStatus struct {
	Paused        bool
	PausedReason  string
	LastCompleted string
	InFlight      []string
	Errors        []string
	ItemsBehind   *int64
}

func hookStatus(t *testing.T, hub, name string) (s webhookStatus) {
	t.Helper()
	r := must(t, 200, "GET", hub+"/webhook/"+name, nil)
	if err := json.Unmarshal(r.body, &s); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return s
}

// settled waits until a webhook says that all is done.
func settled(t *testing.T, hub *hubproc.Hub, name, last string) {
	t.Helper()
	var s webhookStatus
	eventually(t, "the status says that all is done", func() bool {
		s = hookStatus(t, hub.URL, name)
		return strings.HasSuffix(s.LastCompleted, last) && len(s.InFlight) == 0
	})
	if len(s.Errors) > 10 {
		t.Errorf("%d error lines", len(s.Errors))
	}
}
