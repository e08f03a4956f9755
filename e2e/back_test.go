package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"timehub/e2e/memdisk"
	"timehub/e2e/memnet"
	"timehub/hub/bucket/mem"
	"timehub/hub/coord/local"
	hubnode "timehub/node"
)

// trio are three nodes that are one hub, in a bubble.
type trio struct {
	t      *testing.T
	wire   *memnet.Net
	store  *local.Store
	blobs  *mem.Bucket
	client *http.Client
	nodes  [3]*lone
}

// lone is one of them: a disk, and now and then a process.
type lone struct {
	*trio
	ip    string
	disk  *memdisk.Disk
	life  int
	host  *memnet.Host
	node  *hubnode.Node
	lease *local.Coordinator
	stop  context.CancelFunc
	ended chan error
}

func (l *lone) start() {
	l.t.Helper()
	cfg, _, err := hubnode.Load(hubnode.Sources{Listen: l.ip + ":80", Set: []string{"hub.type=aws", "spoke.write.ttlMinutes=1", "app.birthDay=1999/01/01", "app.shutdown_wait_seconds=5"}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.life++
	l.host, l.lease = l.wire.Host(l.ip), l.store.Session(fmt.Sprint(l.ip, " life ", l.life))
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("TRIO_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", l.ip)
	}
	l.node, err = hubnode.New(cfg, hubnode.Env{Disk: l.disk, Listen: l.host.Listen, Dial: l.host.Dial, Bucket: l.blobs, Coordinator: l.lease, Host: l.ip, Log: log})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.ended = cancel, make(chan error, 1)
	go func() { l.ended <- l.node.Run(ctx) }()
}

// up waits until the node serves.
func (l *lone) up() {
	l.t.Helper()
	select {
	case <-l.node.Ready():
	case err := <-l.ended:
		l.t.Fatalf("%s ended: %v", l.ip, err)
	case <-time.After(20 * time.Second):
		status, text := l.call("GET", "/health", "")
		l.t.Fatalf("%s is not up after 20 s: %d %s", l.ip, status, text)
	}
}

// kill ends the process in the middle of whatever it does.
func (l *lone) kill() {
	l.host.Kill()
	l.disk = l.disk.Restart(memdisk.ProcessKill, 1)
	l.store.Cut(l.lease)
	l.stop()
	<-l.ended
}

func (l *lone) call(method, path, body string) (int, string) {
	req, err := http.NewRequest(method, "http://"+l.ip+":80"+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func (l *lone) must(status int, method, path, body string) string {
	l.t.Helper()
	got, text := l.call(method, path, body)
	if got != status {
		l.t.Fatalf("%s %s at %s: %d %s", method, path, l.ip, got, text)
	}
	return text
}

// TestBackAfterSweep: a node that was away until the others had swept everything comes back, also when a stream was closed meanwhile with keys in its set: their records are in
// long-term storage only.
func TestBackAfterSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &trio{t: t, wire: memnet.New(), store: local.NewMemory(), blobs: mem.New(mem.Options{})}
		home := w.wire.Host("10.0.0.9")
		transport := &http.Transport{DialContext: home.Dial, DisableKeepAlives: true}
		w.client = &http.Client{Transport: transport, Timeout: time.Minute}
		for i := range w.nodes {
			w.nodes[i] = &lone{trio: w, ip: fmt.Sprint("10.0.0.", i+1), disk: memdisk.New(memdisk.Options{Seed: uint64(i)})}
			w.nodes[i].start()
		}
		for _, l := range w.nodes {
			l.up()
		}
		a, b, away := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, channel := range []string{"stays", "goes"} {
			a.must(201, "PUT", "/channel/"+channel, "")
		}
		time.Sleep(2 * time.Second)
		a.must(201, "POST", "/channel/stays", "first")
		away.kill()
		time.Sleep(5 * time.Second)
		// The items that were acknowledged last are above what anybody has heard of the stream's low: they are its set.
		for range 20 {
			var both sync.WaitGroup
			for _, channel := range []string{"stays", "goes"} {
				both.Go(func() {
					if status, text := a.call("POST", "/channel/"+channel, "while it is away"); status != 201 {
						t.Errorf("%d %s", status, text)
					}
				})
			}
			both.Wait()
		}
		a.kill()
		time.Sleep(5 * time.Second)
		a.start()
		a.up()
		for range 10 { // minutes are archived, segments are swept
			b.must(201, "POST", "/channel/stays", "later")
			a.must(201, "POST", "/channel/stays", "later")
			time.Sleep(time.Minute)
		}
		b.must(202, "DELETE", "/channel/goes", "")
		time.Sleep(2 * time.Minute)
		away.start()
		time.Sleep(50 * time.Millisecond) // it dies once more as it begins, with a clock that is above all of that
		away.kill()
		time.Sleep(3 * time.Second)
		away.start()
		away.up()
		time.Sleep(5 * time.Second)
		want := a.must(200, "GET", "/channel/stays/earliest/1000", "")
		if got := away.must(200, "GET", "/channel/stays/earliest/1000", ""); strings.ReplaceAll(got, away.ip, a.ip) != want || strings.Count(want, `"http://10.0.0.1/channel/stays/2000/`) < 41 {
			t.Errorf("the node that was away shows\n%s\nanother one\n%s", got, want)
		}
		transport.CloseIdleConnections()
		for _, l := range w.nodes {
			l.stop()
			if err := <-l.ended; err != nil {
				t.Errorf("%s: %v", l.ip, err)
			}
		}
	})
}
