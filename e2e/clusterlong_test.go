package e2e

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"timehub/e2e/hubproc"
	"timehub/e2e/zkproc"
)

// What is short in CI and long by `make chaos-long`.
var (
	zkAway       = flag.Duration("cluster.zkaway", 5*time.Second, "how long no server of ZooKeeper's ensemble runs")
	rollingTurns = flag.Int("cluster.rolls", 1, "rolling restarts of all nodes under a steady load")
	rollingRate  = flag.Int("cluster.rollrate", 300, "items a second meanwhile")
)

// sharing is flags for a cluster whose nodes share a folder.
func sharing(t *testing.T) []string {
	return []string{"--set", "storage.directory=" + filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=auto"}
}

// TestClusterZooKeeperAway: all three servers of the ensemble die. Everybody goes on writing to known channels and reading them; when the ensemble is back,
// jobs are done and channels made again.
func TestClusterZooKeeperAway(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c := prepareCluster(t, zkproc.Options{Servers: 3}, func(_ int, flags []string) *hubproc.Hub { return prepare(t, flags...) }, sharing(t)...)
	c.start(t)
	c.make(t, "known")
	w := c.gather("known")
	if w.blind = *zkAway > 30*time.Second; w.blind {
		for _, one := range w.writers {
			one.pace = 100 * time.Millisecond
		}
	}
	key := untilWritten(t, c.hubs[0].URL+"/channel/known", time.Minute)
	for _, h := range c.hubs {
		waitItem(t, h.URL+"/channel/known/"+key, patience)
	}
	for _, s := range c.zks {
		s.Kill()
	}
	killed := time.Now()
	w.run(t)
	reads := 0
	for time.Since(killed) < *zkAway {
		for i, h := range c.hubs {
			for path, want := range map[string]int{"/" + key: 200, "/latest": 303, "/" + time.Now().UTC().Format("2006/01/02/15/04"): 200} {
				if r, err := call(t.Context(), "GET", h.URL+"/channel/known"+path, nil); err != nil || r.status != want {
					t.Errorf("%v without ZooKeeper: node %d answers %s with %d %v %.200s", time.Since(killed), i, path, r.status, err, r.body)
				}
				reads++
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	w.stop()
	refused := 0
	for _, one := range w.writers {
		refused += len(one.told)
		for _, s := range one.told {
			t.Errorf("%s is refused: %s", one.name, s)
		}
	}
	t.Logf("no server of ZooKeeper for %v: %d items acknowledged, %d refused, %d reads", time.Since(killed).Round(time.Second), len(w.acked()), refused, reads)
	for _, s := range c.zks {
		s.Run(t)
	}
	for _, s := range c.zks {
		s.Wait(t)
	}
	back := time.Now()
	eventually(t, "a channel can be made again", func() bool {
		r, err := call(t.Context(), "PUT", c.hubs[1].URL+"/channel/after", []byte(`{}`), "Content-Type", "application/json")
		return err == nil && (r.status == 201 || r.status == 200)
	})
	t.Logf("a channel could be made %v after the ensemble was back", time.Since(back).Round(10*time.Millisecond))
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "after", patience)
	}
	c.lists(t)
	w.check(t)
}

// hopper is a client that hands the same item to the next node when one does not take it.
type hopper struct {
	mu    sync.Mutex // guards what follows
	acked map[string]string
	hops  map[string]int // why the next node was asked
	lost  []string       // items that no node took
	slow  time.Duration  // the longest that an item took
}

func (p *hopper) put(ctx context.Context, hubs []*hubproc.Hub, channel string, n int) {
	began := time.Now()
	body := fmt.Sprintf("rolled-%07d", n)
	var why []string
	for i := range hubs {
		h := hubs[(n+i)%len(hubs)]
		r, err := call(ctx, "POST", h.URL+"/channel/"+channel, []byte(body), "Content-Type", "text/plain")
		if err == nil && r.status == 201 {
			p.mu.Lock()
			p.acked[keyOf(r.header.Get("Location"))] = body
			p.slow = max(p.slow, time.Since(began))
			for _, s := range why {
				p.hops[s]++
			}
			p.mu.Unlock()
			return
		}
		reason := fmt.Sprint(r.status)
		if err != nil {
			reason = "no answer"
		}
		why = append(why, reason)
	}
	p.mu.Lock()
	p.lost = append(p.lost, fmt.Sprint(body, " ", why))
	p.mu.Unlock()
}

// TestClusterRollingRate restarts the nodes one after the other in order, again and again, under a steady load by clients that try the next node: no request
// fails.
func TestClusterRollingRate(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c := startCluster(t, slices.Concat(sharing(t), unhurried)...)
	c.make(t, "rolling")
	p := &hopper{acked: map[string]string{}, hops: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	const workers = 64
	turn := make(chan int, workers)
	for range workers {
		clients.Go(func() {
			for n := range turn {
				p.put(t.Context(), c.hubs, "rolling", n)
			}
		})
	}
	offered := 0
	clients.Go(func() {
		defer close(turn)
		every := time.NewTicker(time.Second / time.Duration(*rollingRate))
		defer every.Stop()
		for began := time.Now(); ; {
			select {
			case <-every.C:
			case <-ctx.Done():
				return
			}
			for due := int(time.Since(began).Seconds() * float64(*rollingRate)); offered < due; offered++ {
				turn <- offered
			}
		}
	})
	began := time.Now()
	for n := range *rollingTurns {
		for i, h := range c.hubs {
			time.Sleep(500 * time.Millisecond)
			if err := h.Stop(time.Minute); err != nil {
				t.Errorf("turn %d, node %d: %v", n, i, err)
			}
			if err := h.Start(); err != nil {
				t.Fatalf("turn %d, node %d: %v", n, i, err)
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	cancel()
	clients.Wait()
	took := time.Since(began)
	for _, s := range p.lost {
		t.Errorf("no node took %s", s)
	}
	t.Logf("%d rolling restarts of three nodes in %v: %d items offered (%.0f a second), %d acknowledged, %d taken by none; the next node was asked because of %v; the slowest took %v",
		*rollingTurns, took.Round(time.Second), offered, float64(offered)/took.Seconds(), len(p.acked), len(p.lost), p.hops, p.slow.Round(time.Millisecond))
	if len(p.acked) == 0 {
		t.Error("nothing was taken")
	}
	for i, h := range c.hubs {
		var keys []string
		missing := 0
		eventually(t, "all is listed", func() bool {
			keys, missing = nil, 0
			has := map[string]string{}
			for _, item := range readAll(t, h.URL, "rolling", "") {
				keys = append(keys, item.key)
				has[item.key] = string(item.body)
			}
			for key, body := range p.acked {
				if has[key] != body {
					missing++
				}
			}
			return missing == 0
		})
		if !slices.IsSorted(keys) {
			t.Errorf("node %d lists items out of order", i)
		}
		t.Logf("node %d lists %d items", i, len(keys))
	}
}
