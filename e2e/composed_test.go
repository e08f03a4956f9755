package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"timehub/e2e/hubproc"
	"timehub/e2e/s3proc"
	"timehub/e2e/zkproc"
)

// composed reads from docker/cluster.yaml what environment the hubs have there. There is no Docker engine where this runs: the same programs run as plain
// processes, with other addresses.
func composed(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("../docker/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	env := map[string]string{}
	lines := bufio.NewScanner(f)
	for inside := false; lines.Scan(); {
		line := lines.Text()
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case strings.HasSuffix(line, "environment: &environment"):
			inside = true
		case inside && ok && strings.HasPrefix(line, "    "):
			env[name] = strings.Trim(value, `"`)
		default:
			inside = false
		}
	}
	return env
}

// proxied runs the real HAProxy with docker/haproxy.cfg before hubs and returns its URL.
func proxied(t *testing.T, hubs []*hubproc.Hub) string {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		if program = "/usr/sbin/haproxy"; !exists(program) {
			if os.Getenv("CI") != "" {
				t.Fatal("haproxy is missing: make needs")
			}
			t.Skip("haproxy is missing: make needs")
		}
	}
	if out, err := exec.Command(program, "-c", "-f", "../docker/haproxy.cfg").CombinedOutput(); err != nil {
		t.Errorf("HAProxy does not like its file: %s", out)
	}
	text, err := os.ReadFile("../docker/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	address, err := hubproc.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	cfg := string(text)
	for from, to := range map[string]string{
		"maxconn 20000": "maxconn 500", // as many files as two of them want, a test may not have
		"bind :8080":    "bind " + address, "hub-1:8080": hubs[0].Addr, "hub-2:8080": hubs[1].Addr, "hub-3:8080": hubs[2].Addr,
	} {
		if strings.Count(cfg, from) != 1 {
			t.Fatalf("docker/haproxy.cfg does not say %q once", from)
		}
		cfg = strings.Replace(cfg, from, to, 1)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-db", "-f", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("HAProxy: %s", out)
		}
		_ = log.Close()
	})
	return "http://" + address
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestComposed: what docker/cluster.yaml describes works: three hubs, ZooKeeper, an S3 server, HAProxy with the very file before them. One hub is killed and one
// stopped in order, and clients of the proxy go on.
func TestComposed(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	t.Parallel()
	server := s3proc.Start(t, s3proc.Versity, "..")
	if err := os.Mkdir(filepath.Join(server.Dir, "hub"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := composed(t)
	want := map[string]string{"HUB_HUB_TYPE": "aws", "HUB_ZOOKEEPER_CONNECTION": "zookeeper:2181", "HUB_S3_ENDPOINT": "http://store:9000", "HUB_S3_BUCKET_NAME": "hub"}
	for name, value := range want {
		if env[name] != value {
			t.Fatalf("docker/cluster.yaml gives %s the value %q, not %q: %v", name, env[name], value, env)
		}
	}
	c := &hubCluster{zk: zkproc.Start(t, zkproc.Options{})[0], own: map[*hubproc.Hub][]string{}}
	env["HUB_ZOOKEEPER_CONNECTION"], env["HUB_S3_ENDPOINT"] = c.zk.Address, server.URL
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = s3proc.User, s3proc.Secret
	bin, err := hubBinary.get()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o := hubproc.Options{Bin: bin}
		for name, value := range env {
			o.Env = append(o.Env, name+"="+value)
		}
		h, err := hubproc.New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(h.Tail(3000))
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
		c.own[h] = append([]string{"--set", "cluster.address=" + h.Addr}, unhurried...)
		c.hubs = append(c.hubs, h)
	}
	c.start(t)
	url := proxied(t, c.hubs)
	eventually(t, "the proxy finds hubs", func() bool {
		r, err := call(t.Context(), "GET", url+"/health", nil)
		return err == nil && r.status == 200
	})
	for _, path := range []string{"/internal/cluster", "/internal/spoke/state", "/internal"} {
		must(t, 403, "GET", url+path, nil)
	}
	must(t, 403, "POST", url+"/shutdown", nil)

	putChannel(t, url, "proxied", `{}`)
	for _, h := range c.hubs {
		waitChannel(t, h.URL, "proxied", patience)
	}
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(url, "http", "ws", 1)+"/channel/proxied/ws", http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()

	// Two clients, one after the other each, that never try again.
	ctx, stop := context.WithCancel(t.Context())
	type tally struct {
		keys   []string
		failed []string
	}
	tallies := make(chan tally, 2)
	for i := range 2 {
		go func() {
			var n tally
			for k := 0; ctx.Err() == nil; k++ {
				r, err := call(t.Context(), "POST", url+"/channel/proxied", fmt.Append(nil, i, " ", k), "Content-Type", "text/plain")
				if err == nil && r.status == 201 {
					location := r.header.Get("Location")
					if !strings.HasPrefix(location, url+"/channel/proxied/") {
						n.failed = append(n.failed, "a link that does not lead through the proxy: "+location)
					}
					n.keys = append(n.keys, keyOf(location))
				} else {
					n.failed = append(n.failed, fmt.Sprint(time.Now().Format("05.000"), " ", r.status, " ", err))
				}
				time.Sleep(10 * time.Millisecond)
			}
			tallies <- n
		}()
	}
	if _, message, err := ws.ReadMessage(); err != nil || !strings.Contains(string(message), "/channel/proxied/") {
		t.Errorf("the socket says %q, %v", message, err)
	}
	stopped := time.Now()
	if err := c.hubs[0].Stop(time.Minute); err != nil {
		t.Error(err)
	}
	t.Logf("an orderly stop took %v", time.Since(stopped).Round(time.Millisecond))
	c.start(t)
	time.Sleep(3 * time.Second) // the proxy has found it again
	stop()
	one, two := <-tallies, <-tallies
	t.Logf("%d items were inserted through the proxy while a hub was stopped and started", len(one.keys)+len(two.keys))
	for _, s := range append(one.failed, two.failed...) {
		t.Errorf("a request failed during an orderly stop: %s", s)
	}
	c.hubs[1].Kill()
	killed := time.Now()
	untilWritten(t, url+"/channel/proxied", patience)
	t.Logf("the first insert through the proxy after a death took %v", time.Since(killed).Round(time.Millisecond))
	for _, key := range append(one.keys, two.keys...) {
		must(t, 200, "GET", c.hubs[2].URL+"/channel/proxied/"+key, nil)
	}
}
