package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/hubproc"
	"timehub/e2e/s3proc"
	"timehub/e2e/zkproc"
)

// hubCluster is three hub processes that make one hub, with a real ZooKeeper.
type hubCluster struct {
	hubs []*hubproc.Hub
	zk   *zkproc.Server   // the first one
	zks  []*zkproc.Server // all of them

	flags []string
	own   map[*hubproc.Hub][]string // flags of one node alone
}

// unhurried is for tests in which no request may be refused: on a machine that stands still for two seconds all sessions end, and nobody writes until there
// are new ones.
var unhurried = []string{"--set", "zookeeper.session.timeout=20000"}

func startCluster(t *testing.T, flags ...string) *hubCluster {
	t.Helper()
	return startClusterOf(t, func(_ int, flags []string) *hubproc.Hub { return prepare(t, flags...) }, flags...)
}

// startClusterOf is startCluster with hubs that somebody else prepares.
func startClusterOf(t *testing.T, prepare func(i int, flags []string) *hubproc.Hub, flags ...string) *hubCluster {
	t.Helper()
	c := prepareCluster(t, zkproc.Options{}, prepare, flags...)
	c.start(t)
	return c
}

// prepareCluster starts ZooKeeper, and no hub.
func prepareCluster(t *testing.T, z zkproc.Options, prepare func(i int, flags []string) *hubproc.Hub, flags ...string) *hubCluster {
	t.Helper()
	servers := zkproc.Start(t, z)
	c := &hubCluster{zk: servers[0], zks: servers, own: map[*hubproc.Hub][]string{}}
	if s := c.zk.TLS; s != nil {
		flags = append(flags, "--set", "zookeeper.tls=true", "--set", "zookeeper.tls.authority="+s.Authority, "--set", "zookeeper.tls.certificate="+s.Client,
			"--set", "zookeeper.tls.key="+s.ClientKey)
	}
	var addresses []string
	for _, s := range servers {
		addresses = append(addresses, s.Address)
	}
	flags = append([]string{"--set", "hub.type=aws", "--set", "zookeeper.connection=" + strings.Join(addresses, ","), "--set", "app.shutdown_delay_seconds=0"}, flags...)
	c.flags = flags
	for i := range 3 {
		c.hubs = append(c.hubs, prepare(i, flags))
	}
	return c
}

// start launches what does not run, all at once, and waits until it is healthy.
func (c *hubCluster) start(t *testing.T) {
	t.Helper()
	var launched []*hubproc.Hub
	for _, h := range c.hubs {
		if !h.Running() {
			if err := h.Launch(c.own[h]...); err != nil {
				t.Fatal(err)
			}
			launched = append(launched, h)
		}
	}
	for _, h := range launched {
		if err := h.Ready(); err != nil {
			t.Fatal(err)
		}
	}
}

// clusterWriter is one sequential client, which goes to the next node when one does not take an item. It never sends a body twice.
type clusterWriter struct {
	name  string
	at    int
	next  int
	pace  time.Duration     // it rests so long after each item; 0: 1 ms
	stays bool              // it stays with its node, and any answer will do
	got   map[string]int    // how often which answer came; of those that stay
	last  string            // the last key, of the node at which it is
	acked map[string]string // body by key
	when  []ack             // the last ones
	told  []string          // answers 503
	wrong []string
}

// ack is when, and by which node, an item was acknowledged.
type ack struct {
	key  string
	at   time.Time
	node int
}

// run writes until ctx ends.
func (w *clusterWriter) run(ctx context.Context, hubs []*hubproc.Hub, channel string) {
	for ctx.Err() == nil {
		body := fmt.Sprintf("%s-%06d", w.name, w.next)
		w.next++
		r, err := call(ctx, "POST", hubs[w.at].URL+"/channel/"+channel, []byte(body), "Content-Type", "text/plain")
		if w.stays && ctx.Err() == nil {
			w.note(r, err)
		}
		switch {
		case err == nil && r.status == 201:
			key := keyOf(r.header.Get("Location"))
			if key <= w.last && w.last != "" {
				w.wrong = append(w.wrong, fmt.Sprintf("key %s after %s: keys of one node must rise", key, w.last))
			}
			w.last = key
			if _, twice := w.acked[key]; twice {
				w.wrong = append(w.wrong, "twice: "+key)
			}
			w.acked[key] = body
			w.when = append(w.when[max(0, len(w.when)-100):len(w.when):len(w.when)], ack{key, time.Now(), w.at})
		case w.stays:
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		case err == nil && r.status == 503:
			w.told = append(w.told, fmt.Sprintf("%s %s: %.200s", time.Now().Format("05.000"), hubs[w.at].Addr, r.body))
			w.at, w.last = (w.at+1)%len(hubs), ""
		case err == nil:
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %d %.200s", body, r.status, r.body))
			fallthrough
		default:
			w.at, w.last = (w.at+1)%len(hubs), ""
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		select {
		case <-time.After(max(w.pace, time.Millisecond)): // the others need the processor too
		case <-ctx.Done():
		}
	}
}

// note counts an answer: its status, with "later" when it says when to try again.
func (w *clusterWriter) note(r reply, err error) {
	what := fmt.Sprint(r.status)
	if err != nil {
		what = "nothing"
	} else if r.header.Get("Retry-After") != "" {
		what += " later"
	}
	w.got[what]++
}

// crowd is writers and readers on all nodes.
type crowd struct {
	c       *hubCluster
	channel string
	writers []*clusterWriter
	blind   bool     // it only writes
	samples [][]item // stable answers that were given meanwhile

	mu   sync.Mutex // guards samples
	end  context.CancelFunc
	done sync.WaitGroup
}

func (c *hubCluster) crowd(t *testing.T, channel string) *crowd {
	w := c.gather(channel)
	w.run(t)
	return w
}

// gather is a crowd that does not work yet.
func (c *hubCluster) gather(channel string) *crowd {
	w := &crowd{c: c, channel: channel}
	for i := range 2 * len(c.hubs) {
		w.writers = append(w.writers, &clusterWriter{name: fmt.Sprint("w", i), at: i % len(c.hubs), acked: map[string]string{}})
	}
	return w
}

// stay makes each writer stay with its node, and forget which answers came.
func (w *crowd) stay() {
	for i, one := range w.writers {
		one.at, one.last, one.stays, one.got = i%len(w.c.hubs), "", true, map[string]int{}
	}
}

// got is which answers a node gave to those that stay, and how often.
func (w *crowd) got(node int) map[string]int {
	all := map[string]int{}
	for i, one := range w.writers {
		if i%len(w.c.hubs) == node {
			for what, n := range one.got {
				all[what] += n
			}
		}
	}
	return all
}

// run lets everybody work until stop.
func (w *crowd) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w.end = cancel
	for _, one := range w.writers {
		w.done.Go(func() { one.run(ctx, w.c.hubs, w.channel) })
	}
	if w.blind {
		return
	}
	for _, h := range w.c.hubs {
		w.done.Go(func() {
			for ctx.Err() == nil {
				r, err := call(ctx, "GET", h.URL+"/channel/"+w.channel+"/"+time.Now().UTC().Format("2006/01/02")+"?bulk=true", nil)
				if err == nil && r.status == 200 {
					if items, err := r.parts(); err == nil && len(items) > 0 {
						w.mu.Lock()
						w.samples = append(w.samples, items)
						w.mu.Unlock()
					}
				}
				select {
				case <-time.After(300 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
}

func (w *crowd) stop() {
	w.end()
	w.done.Wait()
}

func (w *crowd) acked() map[string]string {
	all := map[string]string{}
	for _, one := range w.writers {
		maps.Copy(all, one.acked)
	}
	return all
}

// check waits until every running node lists what was acknowledged, and compares: the same on all, in order, nothing twice; every stable answer that was
// given before is the beginning of it.
func (w *crowd) check(t *testing.T) []item {
	t.Helper()
	acked := w.acked()
	for _, one := range w.writers {
		for _, s := range one.wrong {
			t.Errorf("%s: %s", one.name, s)
		}
	}
	if len(acked) < 10 {
		t.Errorf("only %d items were acknowledged: the test shows little", len(acked))
	}
	var first []item
	var lists [][]string
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		lists, first = nil, nil
		missing := 0
		for _, h := range w.c.hubs {
			if !h.Running() {
				continue
			}
			items := readAll(t, h.URL, w.channel, "")
			var keys []string
			has := map[string]bool{}
			for _, i := range items {
				keys = append(keys, i.key+" "+string(i.body))
				has[i.key+" "+string(i.body)] = true
			}
			for key, body := range acked {
				if !has[key+" "+body] {
					missing++
				}
			}
			lists = append(lists, keys)
			if first == nil {
				first = items
			}
		}
		same := true
		for _, l := range lists {
			same = same && slices.Equal(l, lists[0])
		}
		if same && missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			for _, one := range w.writers {
				for _, a := range one.when {
					if !slices.Contains(lists[0], a.key+" "+acked[a.key]) {
						t.Errorf("missing: %s, acknowledged at %s by node %d", a.key, a.at.Format("05.000000"), a.node)
					}
				}
			}
			t.Fatalf("%d of %d acknowledged items are missing; the nodes have %d, same: %v", missing, len(acked), lengths(lists), same)
		}
	}
	final, seen := lists[0], map[string]bool{}
	if !slices.IsSorted(final) {
		t.Error("a list is not in order")
	}
	for _, i := range first {
		if seen[string(i.body)] {
			t.Errorf("%s is there twice", i.body)
		}
		seen[string(i.body)] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, sample := range w.samples {
		for n, i := range sample {
			if n >= len(final) || final[n] != i.key+" "+string(i.body) {
				t.Fatalf("a stable answer had %s at place %d of %d; at the end it is %.80s", i.key, n, len(sample), final[min(n, len(final)-1)])
			}
		}
	}
	t.Logf("%s %d items acknowledged, %d there, on all nodes; %d stable answers are beginnings of it", time.Now().Format("05.000"), len(acked), len(final), len(w.samples))
	return first
}

func lengths(lists [][]string) (n []int) {
	for _, l := range lists {
		n = append(n, len(l))
	}
	return n
}

// waitChannel waits until a node knows a channel.
func waitChannel(t *testing.T, hub, channel string, within time.Duration) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		r, err := call(t.Context(), "GET", hub+"/channel/"+channel, nil)
		if err == nil && r.status == 200 {
			return
		}
		if time.Since(begin) > within {
			t.Fatalf("%s does not know %s after %v: %d %v", hub, channel, within, r.status, err)
		}
	}
}

// TestCluster: three processes, a real ZooKeeper and a directory that they share are one hub.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	shared := filepath.Join(t.TempDir(), "shared")
	c := startCluster(t, "--set", "storage.directory="+shared, "--set", "app.stable_seconds=auto")

	// One of two creators of a name wins; everybody knows the channel.
	var statuses sync.Map
	var both sync.WaitGroup
	for i, h := range c.hubs[:2] {
		both.Go(func() {
			r, err := call(t.Context(), "POST", h.URL+"/channel", []byte(`{"name": "both"}`), "Content-Type", "application/json")
			statuses.Store(i, fmt.Sprint(r.status, err))
		})
	}
	both.Wait()
	a, _ := statuses.Load(0)
	b, _ := statuses.Load(1)
	if got := []string{a.(string), b.(string)}; !slices.Contains(got, "201 <nil>") || !slices.Contains(got, "409 <nil>") {
		t.Errorf("two creators of one name are told %v", got)
	}
	putChannel(t, c.hubs[0].URL, "load", `{"storage": "BATCH"}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "load", patience)
		waitChannel(t, h.URL, "both", patience)
	}
	c.lists(t)

	w := c.crowd(t, "load")
	time.Sleep(3 * time.Second)
	w.stop()
	w.check(t)

	// One dies under load; the others go on.
	w.run(t)
	time.Sleep(time.Second)
	c.hubs[1].Kill()
	before := time.Now()
	r := untilWritten(t, c.hubs[0].URL+"/channel/both", patience)
	t.Logf("the first write after a death took %v", time.Since(before).Round(time.Millisecond))
	time.Sleep(3 * time.Second)
	c.start(t)
	time.Sleep(time.Second)
	w.stop()
	w.check(t)
	waitItem(t, c.hubs[1].URL+"/channel/both/"+r, patience)

	// All die under load.
	w.run(t)
	time.Sleep(time.Second)
	for _, h := range c.hubs {
		h.Kill()
	}
	w.stop()
	client.CloseIdleConnections()
	c.start(t)
	w.run(t)
	time.Sleep(time.Second)
	w.stop()
	w.check(t)
}

// untilWritten inserts an item, and tries until it is taken.
func untilWritten(t *testing.T, channel string, within time.Duration) (key string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		r, err := call(t.Context(), "POST", channel, []byte("x"), "Content-Type", "text/plain")
		if err == nil && r.status == 201 {
			return keyOf(r.header.Get("Location"))
		}
		if time.Since(begin) > within {
			t.Fatalf("%s takes nothing for %v: %d %v %.300s", channel, within, r.status, err, r.body)
		}
	}
}

func waitItem(t *testing.T, url string, within time.Duration) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		r, err := call(t.Context(), "GET", url, nil)
		if err == nil && r.status == 200 {
			return
		}
		if time.Since(begin) > within {
			t.Fatalf("%s: %d %v", url, r.status, err)
		}
	}
}

// lists: every node lists all of them.
func (c *hubCluster) lists(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		full := 0
		for _, h := range c.hubs {
			var names []string
			if err := json.Unmarshal(must(t, 200, "GET", h.URL+"/internal/deploy", nil).body, &names); err != nil {
				t.Fatal(err)
			}
			if len(names) == len(c.hubs) {
				full++
			}
		}
		if full == len(c.hubs) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d nodes list all of them", full)
		}
	}
}

// TestClusterWebhook: the node that runs a webhook is killed under load; another one goes on, and everything that was acknowledged is delivered.
func TestClusterWebhook(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c := startCluster(t, "--set", "storage.directory="+filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=auto", "--set", "webhook.retry.first_millis=50")
	to := newConsumer(t, nil)
	putChannel(t, c.hubs[0].URL, "called", `{}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "called", patience)
	}
	must(t, 201, "PUT", c.hubs[1].URL+"/webhook/called", []byte(`{"callbackUrl": "`+to.URL+`/cb", "channelUrl": "http://hub.example/channel/called"}`), "Content-Type", "application/json")
	w := c.crowd(t, "called")
	leader := -1
	eventually(t, "one node runs the webhook, and something was delivered", func() bool {
		runs := 0
		for i, h := range c.hubs {
			if string(must(t, 200, "GET", h.URL+"/internal/webhook/count", nil).body) == "1" {
				leader = i
				runs++
			}
		}
		return runs == 1 && len(to.all()) > 20
	})
	for i, h := range c.hubs {
		eventually(t, fmt.Sprintf("node %d answers with what the leader knows", i), func() bool {
			var d struct{ Attempts []struct{ Status int } }
			r, err := call(t.Context(), "GET", h.URL+"/webhook/called/attempts", nil)
			return err == nil && r.status == 200 && json.Unmarshal(r.body, &d) == nil && len(d.Attempts) > 0
		})
	}
	c.hubs[leader].Kill()
	killed := time.Now()
	var gap time.Duration
	eventually(t, "another node goes on", func() bool {
		all := to.all()
		last := all[len(all)-1].at
		gap = last.Sub(killed)
		return gap > 500*time.Millisecond // calls of the dead one may still be taken for a moment
	})
	if gap > patience { // a session lasts 2 s; the machine may be busy
		t.Errorf("nothing was delivered for %v", gap)
	}
	t.Logf("the first delivery after the death of the leader took %v", gap.Round(time.Millisecond))
	time.Sleep(time.Second)
	w.stop()
	c.start(t)
	stored := w.check(t)
	eventually(t, "everything is delivered", func() bool {
		paths, _ := firsts(to.all())
		return len(paths) >= len(stored)
	})
	paths, again := firsts(to.all())
	for i, item := range stored {
		if i >= len(paths) || paths[i] != item.key {
			t.Fatalf("delivery %d is not of %s", i, item.key)
		}
	}
	t.Logf("%d items delivered in order, %d of them again", len(paths), len(again))

	// A node that does not run it deletes it: when that is answered, nothing is delivered any more. Two that are asked find it gone.
	w.run(t)
	had := len(to.all())
	eventually(t, "it is delivered again", func() bool { return len(to.all()) > had+20 })
	leader = c.runs(t)
	other := c.hubs[(leader+1)%3].URL
	must(t, 202, "DELETE", other+"/webhook/called", nil)
	ended := time.Now()
	must(t, 404, "GET", other+"/webhook/called", nil)
	must(t, 404, "DELETE", other+"/webhook/called", nil)
	time.Sleep(time.Second)
	w.stop()
	late := slices.DeleteFunc(slices.Clone(to.all()), func(d delivery) bool { return !d.at.After(ended) })
	if len(late) > 1 { // one may have been broken off on its way
		t.Fatalf("%d calls came after the webhook was deleted, the last one %v later", len(late), late[len(late)-1].at.Sub(ended))
	}
}

// runs is the one node that runs the one webhook.
func (c *hubCluster) runs(t *testing.T) (leader int) {
	t.Helper()
	eventually(t, "one node runs the webhook", func() bool {
		runs := 0
		for i, h := range c.hubs {
			if string(must(t, 200, "GET", h.URL+"/internal/webhook/count", nil).body) == "1" {
				leader = i
				runs++
			}
		}
		return runs == 1
	})
	return leader
}

// TestClusterLongTerm: three processes with their long-term storage in a real S3 server, or in a directory that they share, archive each item once, and a node
// without its log reads it from there.
func TestClusterLongTerm(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute has to pass before it is archived")
	}
	t.Run("S3", func(t *testing.T) {
		t.Parallel()
		server := s3proc.Start(t, s3proc.Versity, "..")
		if err := os.Mkdir(filepath.Join(server.Dir, "the-bucket"), 0o755); err != nil {
			t.Fatal(err)
		}
		credentials := filepath.Join(t.TempDir(), "credentials.properties")
		if err := os.WriteFile(credentials, []byte("accessKey="+s3proc.User+"\nsecretKey="+s3proc.Secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		book := keepRules(t, server.URL)
		archives(t, filepath.Join(server.Dir, "the-bucket/s3-SINGLE/2*/*/*/*/*/*/*/*"), book, "--set", "s3.endpoint="+book.URL, "--set", "s3.bucket_name=the-bucket",
			"--set", "s3.pathStyleAccessEnable=true", "--set", "aws.credentials="+credentials, "--set", "aws.retry.max.delay.millis=500")
	})
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		shared := filepath.Join(t.TempDir(), "shared")
		archives(t, filepath.Join(shared, "bucket/blobs/s3-!s!i!n!g!l!e/2*/*/*/*/*/*/*.blob"), nil, "--set", "storage.directory="+shared)
	})
}

// archives: where are the objects of single items, as a pattern; book, if not nil, the lifecycle rules.
func archives(t *testing.T, where string, book *ruleBook, flags ...string) {
	c := startCluster(t, flags...)
	written := map[string][]item{}
	for _, storage := range []string{"BATCH", "SINGLE"} {
		channel := "s3-" + storage
		putChannel(t, c.hubs[0].URL, channel, `{"storage": "`+storage+`", "ttlDays": 9}`)
		for _, h := range c.hubs {
			waitChannel(t, h.URL, channel, patience)
		}
		for i := range 30 {
			body := []byte(fmt.Sprint(storage, " ", i))
			r := must(t, 201, "POST", c.hubs[i%3].URL+"/channel/"+channel, body, "Content-Type", "text/plain")
			written[channel] = append(written[channel], item{key: keyOf(r.header.Get("Location")), body: body})
		}
		slices.SortFunc(written[channel], func(a, b item) int { return strings.Compare(a.key, b.key) })
	}
	c.hubs[2].Kill()
	for channel, items := range written {
		waitArchived(t, c.hubs[0].URL, channel, items)
	}
	if book != nil {
		book.check(t, c.hubs, "theirs logs/ 7", "HUB_s3-BATCH/large/ s3-BATCH/large/ 10", "HUB_s3-BATCHBatch/index/ s3-BATCHBatch/index/ 9",
			"HUB_s3-BATCHBatch/items/ s3-BATCHBatch/items/ 9", "HUB_s3-SINGLE/2 s3-SINGLE/2 9", "HUB_s3-SINGLE/large/ s3-SINGLE/large/ 10")
	}
	reader := prepare(t, append(c.flags, "--set", "hub.read.only=true")...)
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	for channel, items := range written {
		checkWritten(t, reader.URL, channel, items, "")
	}
	for channel, items := range written { // every kind of read
		of := reader.URL + "/channel/" + channel
		if r := must(t, 200, "GET", of+"/"+items[3].key, nil); string(r.body) != string(items[3].body) {
			t.Errorf("%s is %q", items[3].key, r.body)
		}
		last, first := items[len(items)-1].key, items[0].key
		for path, want := range map[string][]string{
			"/latest/1": {last}, "/earliest/1": {first}, "/" + items[4].key + "/next/2": {items[5].key, items[6].key},
			"/" + items[4].key + "/previous/1": {items[3].key},
		} {
			uris, err := must(t, 200, "GET", of+path, nil).uris()
			for i, u := range uris {
				uris[i] = keyOf(u)
			}
			if err != nil || !slices.Equal(uris, want) {
				t.Errorf("%s%s is %v, %v; want %v", channel, path, uris, err, want)
			}
		}
		must(t, 200, "GET", of+"/status", nil)
		must(t, 200, "GET", of+"/earliest/30?batch=true", nil, "Accept", "application/zip")
		must(t, 403, "POST", of, []byte("x"))
		must(t, 403, "DELETE", of, nil)
	}
	must(t, 403, "PUT", reader.URL+"/webhook/any", []byte(`{}`), "Content-Type", "application/json")
	singles, err := filepath.Glob(where)
	if err != nil || len(singles) != len(written["s3-SINGLE"]) {
		t.Errorf("the bucket has %d objects of %d items, %v", len(singles), len(written["s3-SINGLE"]), err)
	}
	if err := os.RemoveAll(c.hubs[2].Dir); err != nil {
		t.Fatal(err)
	}
	c.start(t) // a new disk under the old name
	for channel, items := range written {
		checkWritten(t, c.hubs[2].URL, channel, items, "")
	}
}

// TestClusterWithout: known channels are read and written while ZooKeeper is away; without a quorum nothing is taken, and what is known is read; strangers
// are kept from the doors of the nodes; a node that was decommissioned ends, does not start, and comes back when it is called.
func TestClusterWithout(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c := startCluster(t, "--set", "storage.directory="+filepath.Join(t.TempDir(), "shared"), "--set", "app.stable_seconds=auto")
	putChannel(t, c.hubs[0].URL, "known", `{}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "known", patience)
		must(t, 403, "GET", h.URL+"/internal/spoke/state", nil, "X-Forwarded-For", "10.1.2.3")
		must(t, 200, "GET", h.URL+"/internal/spoke/state", nil) // loopback, as the other nodes
	}
	c.zk.Kill()
	w := c.crowd(t, "known")
	time.Sleep(4 * time.Second) // the sessions are over
	w.stop()
	w.check(t)
	r, err := call(t.Context(), "PUT", c.hubs[0].URL+"/channel/new", []byte(`{}`), "Content-Type", "application/json")
	if err != nil || r.status != 201 && r.status != 503 {
		t.Errorf("a channel made without ZooKeeper: %d %v %.200s", r.status, err, r.body)
	}
	c.zk.Run(t)
	c.zk.Wait(t)
	c.lists(t)

	if err := c.hubs[2].Stop(time.Minute); err != nil {
		t.Error(err)
	}
	c.hubs[1].Kill()
	eventually(t, "one of three takes nothing", func() bool {
		r, err := call(t.Context(), "POST", c.hubs[0].URL+"/channel/known", []byte("x"), "Content-Type", "text/plain")
		return err == nil && r.status == 503
	})
	for key, body := range w.acked() {
		if r := must(t, 200, "GET", c.hubs[0].URL+"/channel/known/"+key, nil); string(r.body) != body {
			t.Errorf("%s is %s", key, r.body)
		}
	}
	c.start(t)
	untilWritten(t, c.hubs[1].URL+"/channel/known", patience)

	gone := c.hubs[2]
	eventually(t, "a node is decommissioned", func() bool {
		_, err := c.node(t, "remove", gone.Addr)
		return err == nil
	})
	if code, err := gone.Exit(time.Minute); err != nil || code == 0 || !strings.Contains(gone.Log(), "was decommissioned") {
		t.Fatalf("it ends with %d, %v", code, err)
	}
	if err := gone.Start(); err == nil {
		t.Fatal("it starts again")
	}
	untilWritten(t, c.hubs[0].URL+"/channel/known", patience)
	if out, err := c.node(t, "ls"); err != nil || !strings.Contains(out, gone.Addr) || strings.Count(out, "member") != 2 || strings.Count(out, "decommissioned") != 1 {
		t.Errorf("the list of nodes: %v\n%s", err, out)
	}
	if out, err := c.node(t, "return", gone.Addr); err != nil {
		t.Errorf("calling it back: %v %s", err, out)
	}
	c.start(t)
	c.lists(t)
	untilWritten(t, gone.URL+"/channel/known", patience)
}

// node runs `hub node …` against the first hub.
func (c *hubCluster) node(t *testing.T, args ...string) (string, error) {
	t.Helper()
	bin, err := hubBinary.get()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, append([]string{"--hub", c.hubs[0].URL, "node"}, args...)...).CombinedOutput()
	return string(out), err
}

// TestClusterRolling restarts one node after the other in order, under load: whoever tries the next node is never refused. ZooKeeper speaks TLS only, and the
// nodes reach each other at IPv6 addresses.
func TestClusterRolling(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c := prepareCluster(t, zkproc.Options{TLS: true}, func(_ int, flags []string) *hubproc.Hub { return prepare(t, flags...) },
		slices.Concat(sharing(t), unhurried, []string{"--set", "app.shutdown_lock_seconds=300"})...)
	six := false
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Log("this machine has no IPv6:", err)
	} else {
		_ = l.Close()
		six = true
		for _, h := range c.hubs {
			_, port, _ := net.SplitHostPort(h.Addr)
			c.own[h] = []string{"--listen", "[::]:" + port, "--set", "cluster.address=[::1]:" + port}
		}
	}
	c.start(t)
	putChannel(t, c.hubs[0].URL, "rolling", `{}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "rolling", patience)
	}
	w := c.crowd(t, "rolling")
	for _, h := range c.hubs {
		time.Sleep(500 * time.Millisecond)
		if err := h.Stop(time.Minute); err != nil {
			t.Error(err)
		}
		c.start(t)
	}
	// Who is told to stop while another node is down waits until that one is back.
	if err := c.hubs[0].Stop(time.Minute); err != nil {
		t.Error(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- c.hubs[1].Stop(time.Minute) }()
	time.Sleep(time.Second)
	must(t, 200, "GET", c.hubs[1].URL+"/health", nil)
	if d := must(t, 200, "GET", c.hubs[2].URL+"/internal/shutdown", nil).body; !strings.Contains(string(d), strings.TrimPrefix(c.hubs[0].Addr, "127.0.0.1")) {
		t.Errorf("who is down: %s", d)
	}
	begin := time.Now()
	if err := c.hubs[0].Start(c.own[c.hubs[0]]...); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	t.Logf("the second of two that were stopped at once was down %v after the first was started again", time.Since(begin).Round(time.Millisecond))
	c.start(t)
	time.Sleep(500 * time.Millisecond)
	w.stop()
	w.check(t)
	for _, one := range w.writers {
		for _, s := range one.told {
			t.Errorf("%s is refused: %s", one.name, s)
		}
	}
	if out, err := c.node(t, "ls"); err != nil || six && strings.Count(out, "[::1]:") < 3 {
		t.Errorf("the list of nodes: %v\n%s", err, out)
	}
	// Who does not come back keeps nobody from stopping when the lock is taken from it.
	if err := c.hubs[0].Stop(time.Minute); err != nil {
		t.Error(err)
	}
	go func() { stopped <- c.hubs[1].Stop(time.Minute) }()
	must(t, 200, "POST", strings.Replace(c.hubs[1].URL, "127.0.0.1", "localhost", 1)+"/internal/shutdown/resetLock", nil)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
