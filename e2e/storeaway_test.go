package e2e

import (
	"flag"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"timehub/e2e/clockctl"
	"timehub/e2e/faultproxy"
	"timehub/e2e/hubproc"
	"timehub/e2e/s3proc"
)

// storeAway is how long S3 is away. In CI it is not waited for: the clocks of all nodes are set on by ten minutes.
var storeAway = flag.Duration("cluster.s3away", 0, "how long S3 is away, with items living a minute in Spoke; 0: set the clocks on instead")

// withS3 starts a cluster with a real S3 server behind a proxy. Items live a minute in Spoke, or until they are archived.
func withS3(t *testing.T) (*hubCluster, []*clockctl.Clock, *faultproxy.HTTP, string) {
	t.Helper()
	server := s3proc.Start(t, s3proc.Versity, "..")
	bucket := filepath.Join(server.Dir, "the-bucket")
	if err := os.Mkdir(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(t.TempDir(), "credentials.properties")
	if err := os.WriteFile(credentials, []byte("accessKey="+s3proc.User+"\nsecretKey="+s3proc.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := faultproxy.NewHTTP(t, strings.TrimPrefix(server.URL, "http://"))
	clocks := make([]*clockctl.Clock, 3)
	session := "2000"
	if *storeAway > 0 { // a busy machine ends short sessions again and again, and then nobody archives
		session = "20000"
	}
	c := startClusterOf(t, func(i int, flags []string) *hubproc.Hub {
		clocks[i] = clockctl.New(t)
		return prepareWith(t, &clockBinary, hubproc.Options{Flags: flags, Env: clocks[i].Env(0)})
	}, "--set", "s3.endpoint="+proxy.URL, "--set", "s3.bucket_name=the-bucket", "--set", "s3.pathStyleAccessEnable=true", "--set", "aws.credentials="+credentials,
		"--set", "aws.retry.max.delay.millis=500", "--set", "s3.socketTimeout=3000", "--set", "spoke.write.ttlMinutes=1", "--set", "app.stable_seconds=auto",
		"--set", "metrics.seconds=1", "--set", "zookeeper.session.timeout="+session)
	return c, clocks, proxy, bucket
}

// gauge is the greatest value that a node shows of a figure.
func (c *hubCluster) gauge(t *testing.T, name string) (most float64) {
	t.Helper()
	for _, h := range c.hubs {
		for line := range strings.Lines(string(must(t, 200, "GET", h.URL+"/metrics", nil).body)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if plain, _, _ := strings.Cut(key, "{"); plain != name {
				continue
			}
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			most = max(most, v)
		}
	}
	return most
}

const lagGauge = "hub_archive_lag_seconds"

// TestClusterS3Away: S3 is away for longer than items live in Spoke. Inserts and reads go on, nothing that is not archived is let go, and the figures say
// what waits. When S3 is back, first with replies that get lost, everything comes into the bucket, each item once.
func TestClusterS3Away(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute has to pass before Spoke's log is swept")
	}
	t.Parallel()
	c, clocks, proxy, bucket := withS3(t)
	crowds := map[string]*crowd{}
	for _, storage := range []string{"BATCH", "SINGLE"} {
		name := "away-" + storage
		putChannel(t, c.hubs[0].URL, name, `{"storage": "`+storage+`"}`)
		for _, h := range c.hubs {
			waitChannel(t, h.URL, name, patience)
		}
		w := c.gather(name)
		w.blind = true
		for _, one := range w.writers {
			one.pace = 20 * time.Millisecond
			if *storeAway > 0 {
				one.pace = 500 * time.Millisecond
			}
		}
		crowds[name] = w
	}
	write := func(what string, span time.Duration, calm bool) {
		t.Helper()
		before := 0
		for _, w := range crowds {
			before += len(w.acked())
			for _, one := range w.writers {
				one.told = nil
			}
			w.run(t)
		}
		time.Sleep(span)
		after := 0
		for name, w := range crowds {
			w.stop()
			after += len(w.acked())
			for _, one := range w.writers {
				if calm && len(one.told) > 0 || len(one.wrong) > 0 {
					t.Errorf("%s: writers of %s are refused: %v %v", what, name, one.told, one.wrong)
				}
			}
		}
		if after == before {
			t.Errorf("%s: nothing was taken", what)
		}
		t.Logf("%s: %d items acknowledged", what, after-before)
	}
	set := func(offset time.Duration) {
		t.Helper()
		for _, clock := range clocks {
			if err := clock.Set(offset); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range c.hubs { // they look at each other's clocks once a second
			untilWritten(t, h.URL+"/channel/away-probe", time.Minute)
		}
	}
	c.make(t, "away-probe")

	write("before", time.Second, true)
	for _, h := range c.hubs { // so that the log is in several parts, which are let go one by one
		if err := h.Stop(time.Minute); err != nil {
			t.Error(err)
		}
		c.start(t)
	}
	restarted := time.Now()
	write("after a restart", time.Second, true)
	archived := crowds["away-SINGLE"].acked() // or about to be: singles are archived at once
	proxy.Away(true)
	gone := time.Now()
	write("without S3", max(2*time.Second, *storeAway/2), true)
	early := c.gauge(t, lagGauge)
	want := 9 * time.Minute
	if *storeAway > 0 {
		write("without S3 for long", *storeAway-time.Since(gone), true)
		want = *storeAway - 2*time.Minute
	} else {
		set(10 * time.Minute)
		write("ten minutes later", time.Second, true)
		time.Sleep(time.Until(restarted.Add(65 * time.Second))) // the log is swept once a minute
	}
	late := c.gauge(t, lagGauge)
	if late < want.Seconds() || late <= early {
		t.Errorf("the oldest item that is not in long-term storage was %.0f s old, and is %.0f s old after %v", early, late, time.Since(gone))
	}
	t.Logf("S3 is away for %v; the oldest item that is not in long-term storage is %.0f s old; %.0f records were let go by the last sweep",
		time.Since(gone).Round(time.Second), late, c.gauge(t, "hub_spoke_write_evicted"))
	for _, w := range crowds {
		w.each(t, 200, archived)
	}

	// Back: what was put is there, but the replies are lost, or never come.
	put := func(r *http.Request) bool { return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "away-") }
	proxy.Set(faultproxy.Fault{Kind: faultproxy.Lost, Only: put, Times: 2}, faultproxy.Fault{Kind: faultproxy.Hang, Only: put, Times: 1})
	proxy.Away(false)
	back := time.Now()
	if *storeAway > 0 {
		write("with S3 again", 2*time.Second, true)
	} else {
		set(12 * time.Minute) // so that the minute in which the last ones came is over
	}
	for time.Since(back) < 5*time.Minute && c.gauge(t, lagGauge) > 0 { // a put that fails is tried again within a minute
		time.Sleep(100 * time.Millisecond)
	}
	if lag := c.gauge(t, lagGauge); lag > 0 {
		t.Fatalf("%v after S3 is back something is not archived that is %.0f s old", time.Since(back), lag)
	}
	t.Logf("the backlog was gone after %v; requests that were hurt: %v", time.Since(back).Round(100*time.Millisecond), proxy.Struck())
	if struck := proxy.Struck(); struck[faultproxy.Lost] == 0 || struck[faultproxy.Hang] == 0 {
		t.Errorf("no put was done whose reply was lost: %v", struck)
	}
	for name, w := range crowds {
		inBucket(t, bucket, name, w.check(t))
	}
}

// TestClusterStartsWithoutS3: nodes that start while S3 is away say what they wait for, and hold what the others write meanwhile, so that these go on; they are
// healthy when it is back.
func TestClusterStartsWithoutS3(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	c, _, proxy, _ := withS3(t)
	c.make(t, "known")
	written := []string{untilWritten(t, c.hubs[0].URL+"/channel/known", time.Minute)}
	proxy.Away(true)
	restart := func(hubs ...*hubproc.Hub) {
		t.Helper()
		for _, h := range hubs {
			h.Kill()
		}
		for _, h := range hubs {
			if err := h.Launch(); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range hubs {
			eventually(t, "a node says what it waits for", func() bool {
				r, err := call(t.Context(), "GET", h.URL+"/health", nil)
				return err == nil && r.status != 200 && strings.Contains(string(r.body), "waiting for long-term storage")
			})
			eventually(t, "a node that waits shows the members", func() bool {
				r, err := call(t.Context(), "GET", h.URL+"/internal/cluster", nil)
				return err == nil && r.status == 200
			})
		}
	}
	restart(c.hubs[1], c.hubs[2])
	for range 20 {
		written = append(written, untilWritten(t, c.hubs[0].URL+"/channel/known", time.Minute))
	}
	restart(c.hubs...)
	proxy.Away(false)
	back := time.Now()
	for _, h := range c.hubs {
		if err := h.Ready(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("healthy %v after S3 was back", time.Since(back).Round(time.Millisecond))
	for _, key := range written {
		for _, h := range c.hubs {
			must(t, 200, "GET", h.URL+"/channel/known/"+key, nil)
		}
	}
}

// each reads what was acknowledged from each node, one by one: at most so many. What is archived already may be out of reach, and must not be denied.
func (w *crowd) each(t *testing.T, most int, archived map[string]string) {
	t.Helper()
	acked := w.acked()
	keys := slices.Sorted(maps.Keys(acked))
	for n, key := range keys {
		if n%max(1, len(keys)/most) != 0 {
			continue
		}
		for _, h := range w.c.hubs {
			r, err := call(t.Context(), "GET", h.URL+"/channel/"+w.channel+"/"+key, nil)
			if _, ok := archived[key]; ok && err == nil && r.status == 503 {
				continue
			}
			if err != nil || r.status != 200 || string(r.body) != acked[key] {
				t.Fatalf("%s on %s: %d %v %.200s, want %s", key, h.Addr, r.status, err, r.body, acked[key])
			}
		}
	}
}

// inBucket looks into the bucket, without a hub: it has each of these items once.
func inBucket(t *testing.T, bucket, channel string, items []item) {
	t.Helper()
	found := map[string]int{}
	objects := 0
	if strings.HasSuffix(channel, "SINGLE") {
		names, err := filepath.Glob(filepath.Join(bucket, channel, "2*/*/*/*/*/*/*/*"))
		if err != nil {
			t.Fatal(err)
		}
		objects = len(names)
		for _, name := range names {
			key, err := filepath.Rel(filepath.Join(bucket, channel), name)
			if err != nil {
				t.Fatal(err)
			}
			found[key]++
		}
		for _, i := range items {
			if found[i.key] != 1 {
				t.Errorf("%s: %s is %d times in the bucket", channel, i.key, found[i.key])
			}
		}
	} else {
		zips := batches(t, filepath.Join(bucket, channel+"Batch", "items"))
		objects = len(zips)
		for _, name := range zips {
			for _, i := range readZip(t, name) {
				found[string(i.body)]++
			}
		}
		for _, i := range items {
			if found[string(i.body)] != 1 {
				t.Errorf("%s: %s is %d times in the bucket", channel, i.body, found[string(i.body)])
			}
		}
	}
	if len(found) != len(items) {
		t.Errorf("%s: the bucket has %d items, the hub %d", channel, len(found), len(items))
	}
	t.Logf("%s: %d items in %d objects, each once", channel, len(found), objects)
}
