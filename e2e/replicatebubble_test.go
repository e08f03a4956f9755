package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/hub"
	"timehub/hub/bucket"
	"timehub/hub/bucket/mem"
	hubclient "timehub/hub/client"
	"timehub/hub/coord/local"
	hubnode "timehub/node"
)

// bubbleHub is a whole hub in virtual time, on a network in memory. Its disk, bucket and coordinator outlive its process.
type bubbleHub struct {
	*hubclient.Client
	t      *testing.T
	net    *memnet.Net
	disk   *memdisk.Disk
	blobs  *mem.Bucket
	store  *local.Store
	skew   time.Duration // of its clock
	addr   string
	set    []string
	lives  int
	http   *http.Transport
	cancel context.CancelFunc
	ended  chan error
	coord  *local.Coordinator
}

// dying is a bucket as a process sees it that may die: then its calls have no effect any more.
type dying struct {
	*mem.Bucket
	dead <-chan struct{}
}

func (d dying) gone() error {
	select {
	case <-d.dead:
		return errors.New("the process is dead")
	default:
		return nil
	}
}

func (d dying) Put(ctx context.Context, name string, body io.Reader, size int64, o bucket.PutOptions) (bucket.Info, error) {
	if err := d.gone(); err != nil {
		return bucket.Info{}, err
	}
	return d.Bucket.Put(ctx, name, body, size, o)
}

func (d dying) Delete(ctx context.Context, names ...string) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.Bucket.Delete(ctx, names...)
}

// kill ends the process in the middle of whatever it does.
func (h *bubbleHub) kill(how memdisk.Death, seed uint64) {
	h.disk = h.disk.Restart(how, seed)
	h.store.Cut(h.coord)
	h.net.Cut()
	h.cancel()
	<-h.ended
	h.http.CloseIdleConnections()
	h.cancel = nil
}

// bubble runs f with some hubs, in virtual time. They are at 127.0.0.1:8001 and so on.
func bubble(t *testing.T, hubs int, f func(t *testing.T, h []*bubbleHub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		all := make([]*bubbleHub, hubs)
		wire := memnet.New()
		for i := range all {
			all[i] = &bubbleHub{
				t: t, net: wire, disk: memdisk.New(memdisk.Options{}), blobs: mem.New(mem.Options{}), store: local.NewMemory(), addr: fmt.Sprintf("127.0.0.1:%d", 8001+i),
				set: []string{"spoke.write.ttlMinutes=5", "app.birthDay=1999/01/01", "hub.protect.channels=false"},
			}
			defer all[i].stop()
			all[i].start()
		}
		f(t, all)
	})
}

func (h *bubbleHub) start() {
	h.t.Helper()
	cfg, _, err := hubnode.Load(hubnode.Sources{Listen: h.addr, Set: h.set})
	if err != nil {
		h.t.Fatal(err)
	}
	h.lives++
	h.coord = h.store.Session(fmt.Sprint("life ", h.lives))
	env := hubnode.Env{
		Clock: func() time.Time { return time.Now().Add(h.skew) }, Disk: h.disk, Listen: h.net.Listen, Dial: h.net.Dial, Bucket: dying{h.blobs, h.disk.Dead()},
		Coordinator: h.coord, Host: "bubble", Log: slog.New(slog.DiscardHandler),
	}
	if os.Getenv("BUBBLE_LOG") != "" {
		env.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("hub", h.addr)
	}
	n, err := hubnode.New(cfg, env)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.ended = cancel, make(chan error, 1)
	go func() { h.ended <- n.Run(ctx) }()
	select {
	case <-n.Ready():
	case err := <-h.ended:
		h.t.Fatal(err)
	}
	h.http = &http.Transport{DialContext: h.net.Dial, DisableCompression: true}
	if h.Client, err = hubclient.New(hubclient.Options{URL: "http://" + h.addr, Transport: h.http}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *bubbleHub) stop() {
	h.t.Helper()
	if h.cancel == nil {
		return
	}
	h.http.CloseIdleConnections()
	h.cancel()
	if err := <-h.ended; err != nil {
		h.t.Errorf("stop: %v", err)
	}
	h.cancel = nil
}

// put makes or changes a channel. Members come in pairs.
func (h *bubbleHub) put(name string, members ...string) {
	h.t.Helper()
	m := map[string]any{}
	for i := 0; i+1 < len(members); i += 2 {
		m[members[i]] = members[i+1]
	}
	if _, err := h.PutChannel(h.t.Context(), name, m); err != nil {
		h.t.Fatal(err)
	}
}

func (h *bubbleHub) url(name string) string { return "http://" + h.addr + "/channel/" + name }

func (h *bubbleHub) insert(name, body string) hub.Key {
	h.t.Helper()
	k, err := h.Insert(h.t.Context(), name, hubclient.Upload{ContentType: "text/plain", Body: strings.NewReader(body), Size: int64(len(body))})
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

// all reads a channel: its bodies by key. A key that comes twice, or out of order, or that cannot be read by itself, is an error.
func (h *bubbleHub) all(name string) map[string]string {
	h.t.Helper()
	items := map[string]string{}
	last, path := hub.MinKey, "earliest/1000"
	for {
		n := 0
		for it, err := range h.Items(h.t.Context(), name, path, hubclient.Query{}) {
			if hub.Is(err, hub.NotFound) && len(items) == 0 {
				return items
			}
			if err != nil {
				h.t.Fatalf("read %s: %v", name, err)
			}
			body, err := io.ReadAll(it.Body)
			if err != nil {
				h.t.Fatalf("read %s: %v", name, err)
			}
			if !last.Less(it.Key) {
				h.t.Fatalf("%s shows %s after %s", name, it.Key, last)
			}
			last = it.Key
			items[it.Key.String()] = string(body)
			n++
		}
		if n == 0 {
			return items
		}
		path = last.String() + "/next/1000"
	}
}

// objects counts what long-term storage holds of a channel, by layout: single items, and minutes.
func (h *bubbleHub) objects(name string) (singles, minutes int) {
	h.t.Helper()
	for prefix, n := range map[string]*int{name + "/": &singles, name + "Batch/items/": &minutes} {
		for token := ""; ; {
			l, err := h.blobs.List(h.t.Context(), bucket.ListOptions{Prefix: prefix, After: token})
			if err != nil {
				h.t.Fatal(err)
			}
			*n += len(l.Blobs)
			if token = l.Next; token == "" {
				break
			}
		}
	}
	return singles, minutes
}

// metric reads one figure of /metrics: the sum over all its labels that contain with.
func (h *bubbleHub) metric(name, with string) (sum float64) {
	h.t.Helper()
	resp, err := h.Raw(h.t.Context(), "/metrics", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ') + 1
		labels, value := line[:at], line[at:]
		if metric, _, _ := strings.Cut(labels, "{"); strings.TrimSpace(metric) == name && strings.Contains(labels, with) {
			found = true
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				h.t.Fatal(err)
			}
			sum += v
		}
	}
	if !found {
		h.t.Fatalf("/metrics has no %s", name)
	}
	return sum
}

func (h *bubbleHub) sameAs(name string, want map[string]string) bool {
	h.t.Helper()
	return maps.Equal(h.all(name), want)
}

// becomes waits, in virtual time, until a channel holds just these items.
func (h *bubbleHub) becomes(name string, want map[string]string) {
	h.t.Helper()
	for range 600 {
		if h.sameAs(name, want) {
			return
		}
		time.Sleep(time.Second)
	}
	got := h.all(name)
	s, err := h.Raw(h.t.Context(), "/channel/"+name+"/status", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Body.Close()
	text, _ := io.ReadAll(s.Body)
	for k, v := range want {
		if got[k] != v {
			h.t.Errorf("%s is %.60q, want %.60q", k, got[k], v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			h.t.Errorf("%s is %.60q, and nobody sent it", k, v)
		}
	}
	h.t.Fatalf("%s of %s has %d items, want %d: %s", name, h.addr, len(got), len(want), text)
}

// TestReplicateOldItems: items that are days old when they are replicated pass the log and are swept from it; at every moment all of them are found, and in the
// end long-term storage has each of them once, in every layout.
func TestReplicateOldItems(t *testing.T) {
	bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
		source, target := h[0], h[1]
		source.put("src")
		want := map[string]string{}
		minutes := map[string]bool{}
		for i := range 60 {
			body := strings.Repeat(fmt.Sprint("item ", i, "\r\n\x00"), i)
			k := source.insert("src", body)
			want[k.String()] = body
			minutes[k.String()[:16]] = true
			time.Sleep(time.Duration(1+2*i) * time.Minute)
		}
		storages := []string{"SINGLE", "BATCH", "BOTH"}
		for _, s := range storages {
			target.put("dst"+s, "storage", s, "replicationSource", source.url("src"))
		}
		for _, s := range storages {
			target.becomes("dst"+s, want)
		}
		for minute := range 30 {
			time.Sleep(time.Minute)
			for _, s := range storages {
				if !target.sameAs("dst"+s, want) {
					t.Fatalf("%s has %d items of %d after %d minutes", s, len(target.all("dst"+s)), len(want), minute)
				}
			}
		}
		for _, s := range storages {
			singles, batches := target.objects("dst" + s)
			if n := len(want); s != "BATCH" && singles != n || s != "SINGLE" && batches != len(minutes) {
				t.Errorf("%s: long-term storage has %d items and %d minutes, want %d and %d", s, singles, batches, n, len(minutes))
			}
		}
		if n := target.metric("hub_spoke_log_segments", ""); n > 8 {
			t.Errorf("the log still has %v segments", n)
		}
		target.stop()
		target.start()
		for _, s := range storages {
			if !target.sameAs("dst"+s, want) {
				t.Errorf("%s: not the same after a restart", s)
			}
		}
	})
}

// TestReplicateAnotherSource: a target that is pointed to another source takes what that has beside what it holds, older items too, without anything being
// hidden meanwhile, and archives all of it.
func TestReplicateAnotherSource(t *testing.T) {
	bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
		source, target := h[0], h[1]
		first, second := map[string]string{}, map[string]string{}
		source.put("one")
		source.put("two")
		for i := range 40 {
			if i%2 == 0 {
				first[source.insert("one", fmt.Sprint("one ", i)).String()] = fmt.Sprint("one ", i)
			} else {
				second[source.insert("two", fmt.Sprint("two ", i)).String()] = fmt.Sprint("two ", i)
			}
			time.Sleep(17 * time.Minute)
		}
		storages := []string{"SINGLE", "BATCH"}
		for _, s := range storages {
			target.put("dst"+s, "storage", s, "replicationSource", source.url("one"))
		}
		for _, s := range storages {
			target.becomes("dst"+s, first)
		}
		time.Sleep(20 * time.Minute) // archived and swept
		for _, s := range storages {
			target.put("dst"+s, "replicationSource", source.url("two"))
		}
		both := maps.Clone(first)
		maps.Copy(both, second)
		for _, s := range storages {
			target.becomes("dst"+s, both)
		}
		for minute := range 30 {
			time.Sleep(time.Minute)
			for _, s := range storages {
				if !target.sameAs("dst"+s, both) {
					t.Fatalf("%s has %d items of %d after %d minutes", s, len(target.all("dst"+s)), len(both), minute)
				}
			}
		}
		if singles, _ := target.objects("dstSINGLE"); singles != len(both) {
			t.Errorf("long-term storage has %d items, want %d", singles, len(both))
		}
		if _, batches := target.objects("dstBATCH"); batches != len(both) {
			t.Errorf("long-term storage has %d minutes, want %d", batches, len(both))
		}
		// The same source under another name: nothing is written again.
		written := target.metric("hub_replication_items_total", "")
		for _, s := range storages {
			target.put("dst"+s, "replicationSource", strings.Replace(source.url("two"), "two", "TWO", 1))
		}
		time.Sleep(10 * time.Minute)
		if n := target.metric("hub_replication_items_total", "") - written; n != 0 {
			t.Errorf("%v items were written again", n)
		}
		k := source.insert("two", "last")
		both[k.String()] = "last"
		for _, s := range storages {
			target.becomes("dst"+s, both)
		}
	})
}

// TestReplicateShapes: chains, several targets, a hub that follows itself, and two that follow each other.
func TestReplicateShapes(t *testing.T) {
	bubble(t, 3, func(t *testing.T, h []*bubbleHub) {
		a, b, c := h[0], h[1], h[2]
		a.put("src")
		want := map[string]string{}
		add := func(n int) {
			for i := range n {
				body := fmt.Sprint("item ", len(want), i)
				want[a.insert("src", body).String()] = body
				time.Sleep(time.Second)
			}
		}
		add(20)
		a.put("itself", "replicationSource", a.url("src"))
		b.put("second", "replicationSource", a.url("src"))
		c.put("third", "replicationSource", b.url("second"))
		c.put("sibling", "replicationSource", a.url("src"))
		a.put("again", "replicationSource", c.url("third"))
		a.put("src2", "replicationSource", a.url("src2")) // of itself
		check := func() {
			t.Helper()
			for name, of := range map[string]*bubbleHub{"itself": a, "second": b, "third": c, "sibling": c, "again": a} {
				of.becomes(name, want)
			}
		}
		check()
		add(20)
		check()
		// Two that follow each other: what both have, each has once, and they rest.
		a.put("x")
		own := map[string]string{}
		for i := range 10 {
			own[a.insert("x", fmt.Sprint(i)).String()] = fmt.Sprint(i)
		}
		b.put("y", "replicationSource", a.url("x"))
		b.becomes("y", own)
		a.put("x", "replicationSource", b.url("y"))
		time.Sleep(20 * time.Minute)
		before := b.metric("hub_request_api_channel_seconds_count", "")
		time.Sleep(10 * time.Minute)
		if !a.sameAs("x", own) || !b.sameAs("y", own) {
			t.Errorf("x has %d, y has %d items, want %d", len(a.all("x")), len(b.all("y")), len(own))
		}
		if n := b.metric("hub_request_api_channel_seconds_count", "") - before; n > 1000 {
			t.Errorf("%v requests in 10 minutes of rest", n)
		}
		check()
	})
}

// TestReplicateStops: blanking the source makes an ordinary channel, whose own items come after what was replicated, also when the source's clock was ahead.
func TestReplicateStops(t *testing.T) {
	bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
		source, target := h[0], h[1]
		source.stop()
		source.skew = 90 * time.Second
		source.start()
		source.put("src")
		want := map[string]string{}
		for i := range 10 {
			want[source.insert("src", fmt.Sprint(i)).String()] = fmt.Sprint(i)
		}
		target.put("dst", "replicationSource", source.url("src"))
		target.becomes("dst", want)
		last := slices.Max(slices.Collect(maps.Keys(want)))
		target.put("dst", "replicationSource", "")
		source.insert("src", "not for the target any more")
		resp, err := target.http.RoundTrip(must2(http.NewRequest("POST", target.url("dst"), bytes.NewReader([]byte("x")))))
		if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%+v, %v", resp, err)
		}
		resp.Body.Close()
		target.becomes("dst", want)
		time.Sleep(2 * time.Minute)
		for i := range 5 {
			k := target.insert("dst", fmt.Sprint("own ", i))
			if k.String() <= last {
				t.Errorf("%s was minted after %s", k, last)
			}
			want[k.String()] = fmt.Sprint("own ", i)
		}
		target.becomes("dst", want)
		for range 20 {
			time.Sleep(time.Minute)
			if !target.sameAs("dst", want) {
				t.Fatalf("%d items of %d", len(target.all("dst")), len(want))
			}
		}
		// And back: what came to the source meanwhile is added.
		more := source.all("src")
		target.put("dst", "replicationSource", source.url("src"))
		maps.Copy(want, more)
		target.becomes("dst", want)
		for range 20 {
			time.Sleep(time.Minute)
			if !target.sameAs("dst", want) {
				t.Fatalf("%d items of %d", len(target.all("dst")), len(want))
			}
		}
	})
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestReplicateOutage: a source that is away for hours, and a target that is: both go on where they were. Nobody waits for a source that is away.
func TestReplicateOutage(t *testing.T) {
	bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
		source, target := h[0], h[1]
		source.put("src")
		target.put("dst", "replicationSource", source.url("src"))
		want := map[string]string{}
		add := func() {
			for range 5 {
				body := fmt.Sprint("item ", len(want))
				want[source.insert("src", body).String()] = body
				time.Sleep(100 * time.Millisecond)
			}
		}
		for range 3 {
			add()
			target.becomes("dst", want)
			source.stop()
			time.Sleep(3 * time.Hour)
			if !target.sameAs("dst", want) {
				t.Fatalf("%d items of %d, with the source away", len(target.all("dst")), len(want))
			}
			began := time.Now()
			target.put("dst", "description", "still here")
			target.put("other", "replicationSource", source.url("nothing"))
			if err := target.DeleteChannel(t.Context(), "other"); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > time.Second {
				t.Errorf("changing configurations took %v", d)
			}
			source.start()
			add()
			target.becomes("dst", want)
			target.stop()
			add()
			time.Sleep(3 * time.Hour)
			target.start()
			target.becomes("dst", want)
		}
		if n := target.metric("hub_replication_items_total", ""); n > float64(len(want)) {
			t.Errorf("%v items were taken, there are %d", n, len(want))
		}
	})
}

// TestReplicateFeeds: who follows a target is told of every item, once, in order, when it is complete there, with either rule of stability; and through the
// restart of the target.
func TestReplicateFeeds(t *testing.T) {
	for _, rule := range []string{"auto", "5"} {
		t.Run(rule, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
				source, target := h[0], h[1]
				for _, h := range h {
					h.stop()
					h.set = append(h.set, "app.stable_seconds="+rule)
					h.start()
				}
				source.put("src")
				target.put("dst", "replicationSource", source.url("src"))
				time.Sleep(10 * time.Second)
				var want, got []string
				add := func(n int) {
					for range n {
						want = append(want, source.insert("src", fmt.Sprint(len(want))).String())
						time.Sleep(300 * time.Millisecond)
					}
				}
				follow := func(f func()) {
					ctx, cancel := context.WithCancel(t.Context())
					after := hub.Last(time.Now().Add(-time.Hour))
					if len(got) > 0 {
						var err error
						if after, err = hub.ParseKey(got[len(got)-1]); err != nil {
							t.Fatal(err)
						}
					}
					var group sync.WaitGroup
					group.Go(func() {
						for k, err := range target.Events(ctx, "dst", after) {
							if err != nil {
								return
							}
							if !k.IsZero() {
								got = append(got, k.String())
							}
						}
					})
					f()
					time.Sleep(20 * time.Second)
					cancel()
					group.Wait()
				}
				follow(func() { add(30) })
				if !slices.Equal(got, want) {
					t.Fatalf("%d events of %d items", len(got), len(want))
				}
				target.stop()
				add(10)
				target.start()
				follow(func() { add(10) })
				if !slices.Equal(got, want) {
					t.Fatalf("%d events of %d items: %v, want %v", len(got), len(want), got, want)
				}
				page, err := target.Latest(t.Context(), "dst", 1, hubclient.Query{})
				if err != nil || len(page.Keys) != 1 || page.Keys[0].String() != want[len(want)-1] {
					t.Errorf("%v, %v", page, err)
				}
			})
		})
	}
}

// TestReplicateLarge: large items stream from storage to storage and stay large.
func TestReplicateLarge(t *testing.T) {
	bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
		source, target := h[0], h[1]
		for _, h := range h {
			h.stop()
			h.set = append(h.set, "app.large.payload.MB=1")
			h.start()
		}
		source.put("src")
		want := map[string]string{}
		for i, size := range []int{10, 3 << 20, 1 << 20, 1<<20 - 1, 900_000, 5 << 20, 1} {
			body := strings.Repeat(fmt.Sprint(i), size)
			want[source.insert("src", body).String()] = body
		}
		target.put("dst", "replicationSource", source.url("src"))
		target.becomes("dst", want)
		for range 15 {
			time.Sleep(time.Minute)
			if !target.sameAs("dst", want) {
				t.Fatal("not the same any more")
			}
		}
		for key, body := range want {
			k, err := hub.ParseKey(key)
			if err != nil {
				t.Fatal(err)
			}
			it, err := target.Get(t.Context(), "dst", k)
			if err != nil {
				t.Fatal(err)
			}
			it.Body.Close()
			if it.Large != (len(body) >= 1<<20) || it.Size != int64(len(body)) || it.ContentType != "text/plain" {
				t.Errorf("%d bytes: %+v", len(body), it)
			}
		}
	})
}

// TestReplicateDeleted: a target that is deleted is gone with its state; made again under its name it holds what is younger than itself. A source that is deleted, and
// one that never was, are said to be so.
func TestReplicateDeleted(t *testing.T) {
	bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
		source, target := h[0], h[1]
		source.put("src")
		want := map[string]string{source.insert("src", "1").String(): "1"}
		target.put("dst", "replicationSource", source.url("src"))
		target.becomes("dst", want)
		if err := target.DeleteChannel(t.Context(), "dst"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		target.put("dst", "replicationSource", source.url("src"))
		time.Sleep(10 * time.Second)
		younger := map[string]string{source.insert("src", "2").String(): "2"}
		target.becomes("dst", younger)
		if err := source.DeleteChannel(t.Context(), "src"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s, err := statusIn(t, target, "dst")
		if err != nil || s.State != "retrying" || !strings.Contains(s.LastError, "no channel") {
			t.Errorf("%+v, %v", s, err)
		}
		if !target.sameAs("dst", younger) {
			t.Error("the target lost what its source lost")
		}
		source.put("src")
		maps.Copy(younger, map[string]string{source.insert("src", "3").String(): "3"})
		target.becomes("dst", younger)
	})
}

func statusIn(t *testing.T, h *bubbleHub, name string) (s replicationStatus, err error) {
	t.Helper()
	resp, err := h.Raw(t.Context(), "/channel/"+name+"/status", nil)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	var d struct{ Replication replicationStatus }
	err = json.NewDecoder(resp.Body).Decode(&d)
	return d.Replication, err
}

// TestReplicateChaos: sources that are exchanged and cleared, hubs that die by power cut and by kill, a line that breaks, at random. Nothing that the target has
// shown ever goes, nothing comes that nobody wrote; in the end it has all of its sources and all of its own, and long-term storage alone has it too.
func TestReplicateChaos(t *testing.T) {
	seeds := uint64(*replicateSeeds)
	if testing.Short() {
		seeds = 1
	}
	base := *crashSeed
	for i := range seeds {
		seed := base + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, h []*bubbleHub) {
				c := &replicaChaos{t: t, rng: rand.New(rand.NewPCG(seed, 7)), source: h[0], target: h[1], written: map[string]map[string]string{}, seen: map[string]string{}}
				c.run()
			})
		})
	}
}

type replicaChaos struct {
	t              *testing.T
	rng            *rand.Rand
	source, target *bubbleHub
	written        map[string]map[string]string // by source; "": its own
	seen           map[string]string
	from           string // the source now
}

func (c *replicaChaos) run() {
	storage := []string{"SINGLE", "BATCH", "BOTH"}[c.rng.IntN(3)]
	for _, name := range []string{"one", "two"} {
		c.source.put(name)
		c.written[name] = map[string]string{}
	}
	c.written[""] = map[string]string{}
	c.target.put("dst", "storage", storage)
	c.write("", 3*c.rng.IntN(2))
	c.point([]string{"one", "two"}[c.rng.IntN(2)])
	for range 40 {
		c.step()
		if c.rng.IntN(3) == 0 {
			c.look()
		}
		if c.rng.IntN(4) == 0 {
			time.Sleep(time.Duration(c.rng.Int64N(int64(20 * time.Minute))))
		} else {
			time.Sleep(time.Duration(c.rng.Int64N(int64(5 * time.Second))))
		}
	}
	want := maps.Clone(c.written[""])
	maps.Copy(want, c.seen)
	for _, name := range []string{"one", "two"} {
		c.point(name)
		maps.Copy(want, c.written[name])
		for _, all := range c.written { // what the other one had told before
			for k, v := range all {
				if _, ok := c.target.all("dst")[k]; ok {
					want[k] = v
				}
			}
		}
		c.target.becomes("dst", want)
	}
	c.look()
	time.Sleep(40 * time.Minute)
	c.target.kill(memdisk.PowerCut, 1)
	c.target.disk = memdisk.New(memdisk.Options{})
	c.target.start()
	if got := c.target.all("dst"); !maps.Equal(got, want) {
		for k, v := range want {
			if got[k] != v {
				c.t.Errorf("long-term storage (%s) lacks %s of %s", storage, k, v)
			}
		}
		c.t.Fatalf("%d items of %d", len(got), len(want))
	}
	time.Sleep(time.Minute)
	if !c.target.sameAs("dst", want) {
		c.t.Errorf("not the same a minute later")
	}
}

func (c *replicaChaos) step() {
	switch c.rng.IntN(8) {
	case 0, 1, 2:
		c.write([]string{"one", "two"}[c.rng.IntN(2)], c.rng.IntN(40))
	case 3:
		c.target.kill(memdisk.Death(c.rng.IntN(2)), c.rng.Uint64())
		c.target.start()
	case 4:
		c.source.kill(memdisk.Death(c.rng.IntN(2)), c.rng.Uint64())
		time.Sleep(time.Duration(c.rng.Int64N(int64(time.Minute))))
		c.source.start()
	case 5:
		c.target.net.Cut()
	case 6:
		c.point([]string{"one", "two", ""}[c.rng.IntN(3)])
	case 7:
		if c.from == "" {
			c.write("", c.rng.IntN(10))
		}
	}
}

func (c *replicaChaos) point(name string) {
	url := ""
	if c.from = name; name != "" {
		url = c.source.url(name)
	}
	c.target.put("dst", "replicationSource", url)
}

// write inserts items into a source, or into the target itself.
func (c *replicaChaos) write(name string, n int) {
	h, channel := c.source, name
	if name == "" {
		h, channel = c.target, "dst"
	}
	time.Sleep(time.Millisecond) // two hubs that mint in the same instant give the same key now and then
	for range n {
		body := fmt.Sprintf("%s %d", name, len(c.written[name]))
		k, err := h.Insert(c.t.Context(), channel, hubclient.Upload{ContentType: "text/plain", Body: strings.NewReader(body), Size: int64(len(body))})
		if err != nil {
			c.t.Fatalf("write to %q: %v", name, err)
		}
		c.written[name][k.String()] = body
		if c.rng.IntN(10) == 0 {
			time.Sleep(time.Duration(c.rng.Int64N(int64(3 * time.Second))))
		}
	}
}

// look compares what the target shows with what was written, and with what it has shown before.
func (c *replicaChaos) look() {
	c.t.Helper()
	got := c.target.all("dst")
	for k, body := range c.seen {
		if got[k] != body {
			c.t.Fatalf("%s (%s) was shown and is not there any more", k, body)
		}
	}
	for k, body := range got {
		if c.written["one"][k] != body && c.written["two"][k] != body && c.written[""][k] != body {
			c.t.Fatalf("%s holds %q, which nobody wrote", k, body)
		}
	}
	c.seen = got
}
