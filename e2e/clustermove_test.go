package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"timehub/e2e/hubproc"
	"timehub/e2e/zkproc"
)

// owners are who holds each lease: the address of the node, by what the lease is called in ZooKeeper. A session without a node that is known is shown as
// itself.
func (c *hubCluster) owners(t *testing.T) map[string]string {
	t.Helper()
	dump := ""
	eventually(t, "ZooKeeper tells who holds the leases", func() (ok bool) {
		var err error
		dump, err = c.zk.Ask("dump")
		return err == nil
	})
	_, dump, _ = strings.Cut(dump, "ephemeral nodes dump")
	type claim struct{ number, session string }
	names, first := map[string]string{}, map[string]claim{}
	session := ""
	for line := range strings.Lines(dump) {
		path, inside := strings.CutPrefix(line, "\t")
		path = strings.TrimSpace(path)
		if !inside {
			session = strings.TrimSuffix(path, ":")
			continue
		}
		parts := strings.Split(strings.TrimPrefix(path, "/hub-test/"), "/")
		last := parts[len(parts)-1]
		switch {
		case parts[0] == "HubCluster":
			names[session] = last
		case parts[0] == "SpokeCluster" || parts[0] == "members":
		default: // a queue: the lowest number holds the lease
			number, lease := last[strings.LastIndexByte(last, '-')+1:], strings.Join(parts[:len(parts)-1], "/")
			if now, ok := first[lease]; !ok || number < now.number {
				first[lease] = claim{number, session}
			}
		}
	}
	owners := map[string]string{}
	for lease, held := range first {
		owners[lease] = held.session
		if name := names[held.session]; name != "" {
			owners[lease] = name
		}
	}
	return owners
}

// upset reports whether a node has lost its session since its log was so long: a machine that stands still ends the sessions of all.
func (c *hubCluster) upset(address string, since int) bool {
	i := slices.IndexFunc(c.hubs, func(h *hubproc.Hub) bool { return h.Addr == address })
	return upsets(c.hubs[i].Log()[since:]) > 0
}

// upsets is how often a node has lost its session or its leases, by its log.
func upsets(log string) int {
	return strings.Count(log, "the session with ZooKeeper has expired") + strings.Count(log, "the leases of this node are given up")
}

// TestClusterMoves: webhooks, replication and every job of the archive run on one node each, and within about a session's time on another one when theirs dies.
// What a node changes of the configurations, the others know at once.
func TestClusterMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	source := start(t, "--set", "app.stable_seconds=auto")
	putChannel(t, source.URL, "origin", `{}`)
	c := startCluster(t, "--set", "storage.directory="+filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=auto", "--set", "webhook.retry.first_millis=50")
	c.lists(t)

	// Configurations.
	var slowest time.Duration
	for i := range 5 {
		name := fmt.Sprint("made-", i)
		putChannel(t, c.hubs[i%3].URL, name, `{}`)
		made := time.Now()
		for k := range 2 {
			waitChannel(t, c.hubs[(i+k+1)%3].URL, name, patience)
		}
		slowest = max(slowest, time.Since(made))
		must(t, 200, "PATCH", c.hubs[i%3].URL+"/channel/"+name, []byte(`{"description": "changed"}`), "Content-Type", "application/json")
		changed := time.Now()
		eventually(t, "a change is known", func() bool {
			r := must(t, 200, "GET", c.hubs[(i+1)%3].URL+"/channel/"+name, nil)
			return strings.Contains(string(r.body), "changed")
		})
		slowest = max(slowest, time.Since(changed))
	}
	t.Logf("what one node made or changed, the others knew after %v at the latest", slowest.Round(time.Millisecond))
	if slowest > patience { // 1 s on a machine with nothing else to do
		t.Errorf("it took %v", slowest)
	}

	to := newConsumer(t, nil)
	putChannel(t, c.hubs[0].URL, "copy", `{"replicationSource": "`+source.URL+`/channel/origin"}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "copy", patience)
	}
	must(t, 201, "PUT", c.hubs[1].URL+"/webhook/copied", []byte(`{"callbackUrl": "`+to.URL+`/cb", "channelUrl": "http://hub.example/channel/copy"}`), "Content-Type", "application/json")
	send := func(n int) (keys []string) {
		for i := range n {
			r := must(t, 201, "POST", source.URL+"/channel/origin", fmt.Append(nil, "item ", i), "Content-Type", "text/plain")
			keys = append(keys, keyOf(r.header.Get("Location")))
		}
		return keys
	}
	time.Sleep(time.Second) // the clock of a cluster, by which the webhook begins, may be a little ahead of the source's
	all := send(20)
	came := func() bool {
		paths, _ := firsts(to.all())
		return len(paths) >= len(all)
	}
	defer func() { // what a failed test is asked about
		if t.Failed() {
			paths, _ := firsts(to.all())
			t.Log("sent", all, "delivered", paths)
			for _, h := range c.hubs {
				if h.Running() {
					t.Logf("%s: %v\n%s\n%s", h.Addr, c.owners(t), must(t, 200, "GET", h.URL+"/channel/copy/status", nil).body, must(t, 200, "GET", h.URL+"/webhook/copied", nil).body)
				}
			}
		}
	}()
	eventually(t, "what the source has is delivered here", came)
	jobs := []string{
		"S3VerifierSingleService", "WebhookLeader/copied", "leases/archive~lease~archiver", "leases/archive~lease~clean-up", "leases/archive~lease~retention",
		"leases/replicate~copy",
	}
	for range 2 {
		var before map[string]string
		told := map[string]int{} // how much each log has
		for _, h := range c.hubs {
			told[h.Addr] = len(h.Log())
		}
		eventually(t, "each job has a node", func() bool {
			before = c.owners(t)
			return !slices.ContainsFunc(jobs, func(job string) bool { return !strings.Contains(before[job], ":") })
		})
		victim := c.hubs[slices.IndexFunc(c.hubs, func(h *hubproc.Hub) bool { return h.Addr == before["leases/replicate~copy"] })]
		victim.Kill()
		killed := time.Now()
		var after map[string]string
		eventually(t, "each job has another node", func() bool {
			after = c.owners(t)
			return !slices.ContainsFunc(jobs, func(job string) bool { return after[job] == victim.Addr || !strings.Contains(after[job], ":") })
		})
		moved := time.Since(killed)
		all = append(all, send(10)...)
		eventually(t, "replication and the webhook go on", came)
		going := time.Since(killed)
		n := 0
		for _, job := range jobs {
			if before[job] == victim.Addr {
				n++
			} else if after[job] != before[job] && !c.upset(before[job], told[before[job]]) {
				t.Errorf("%s moved from %s to %s, and nothing had happened to its node", job, before[job], after[job])
			}
		}
		t.Logf("%d of %d jobs had another node %v after theirs was killed, and items of the source were delivered after %v", n, len(jobs), moved.Round(time.Millisecond), going.Round(time.Millisecond))
		if moved > patience { // a session lasts 2 s; the machine may be busy
			t.Errorf("it took %v until the jobs of a dead node had another one", moved)
		}
		c.start(t)
	}
	paths, _ := firsts(to.all())
	if !slices.Equal(paths, all) {
		t.Errorf("%d items were delivered, in another order than that of the source's %d", len(paths), len(all))
	}
	for _, h := range c.hubs { // each knows all, also the one that has just come
		var running map[string]map[string]any
		if err := json.Unmarshal(must(t, 200, "GET", h.URL+"/internal/webhook/running", nil).body, &running); err != nil {
			t.Error(err)
		}
		names := string(must(t, 200, "GET", h.URL+"/channel", nil).body)
		for i := range 5 {
			if !strings.Contains(names, fmt.Sprint(`"made-`, i, `"`)) {
				t.Errorf("%s does not list made-%d", h.Addr, i)
			}
		}
	}
}

// TestClusterForced: of two nodes one dies. The other takes items, and shows none of them in stable answers, until an operator closes by force what the dead one left open.
func TestClusterForced(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c := prepareCluster(t, zkproc.Options{}, func(_ int, flags []string) *hubproc.Hub { return prepare(t, flags...) },
		"--set", "storage.directory="+filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=auto")
	c.hubs = c.hubs[:2]
	c.start(t)
	left, dead := c.hubs[0], c.hubs[1]
	putChannel(t, left.URL, "x", `{}`)
	channel := left.URL + "/channel/x"
	first := untilWritten(t, channel, patience)
	waitItem(t, dead.URL+"/channel/x/"+first, patience)
	if out, err := c.node(t, "close", "--force", dead.Addr); err == nil {
		t.Errorf("what a living node writes was closed: %s", out)
	}
	dead.Kill()
	second := untilWritten(t, channel, patience)
	time.Sleep(4 * time.Second) // the session of the dead one is over
	latest := func() string {
		r, err := call(t.Context(), "GET", channel+"/latest", nil)
		if err != nil || r.status != 303 {
			return ""
		}
		return keyOf(r.header.Get("Location"))
	}
	if got := latest(); got != first {
		t.Errorf("the latest stable item is %s, want %s: nobody knows what the dead node has", got, first)
	}
	eventually(t, "an operator closes what the dead node has left open", func() bool {
		out, err := c.node(t, "close", "--force", dead.Addr)
		if err != nil {
			t.Logf("%v %s", err, out)
		}
		return err == nil
	})
	eventually(t, "stable answers go on", func() bool { return latest() == second })
	if err := dead.Launch(); err != nil {
		t.Fatal(err)
	}
	if err := dead.Ready(); err != nil {
		t.Fatal(err)
	}
	waitItem(t, dead.URL+"/channel/x/"+second, patience)
	c.lists(t)
	if out, err := c.node(t, "late"); err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("both had everything, and yet something is late: %v\n%s", err, out)
	}
	untilWritten(t, dead.URL+"/channel/x", patience)
}
