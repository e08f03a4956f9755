package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"timehub/hub"
	"timehub/hub/disk"
)

// hubUnderTest is a whole hub in this process.
type hubUnderTest struct {
	*Node
	t      *testing.T
	client *http.Client
	cancel context.CancelFunc
	done   chan error
	log    *bytes.Buffer
}

func configure(t *testing.T, data string, set ...string) Config {
	t.Helper()
	cfg, warnings, err := Load(Sources{Data: data, Listen: "127.0.0.1:0", Set: set})
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	return cfg
}

// run starts a hub and waits until it is healthy.
func run(t *testing.T, data string, set ...string) *hubUnderTest {
	t.Helper()
	h := &hubUnderTest{t: t, client: &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		done: make(chan error, 1), log: new(bytes.Buffer)}
	n, err := New(configure(t, data, set...), Env{Log: slog.New(slog.NewTextHandler(h.log, nil)), Version: "1.2.3", Host: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	h.Node = n
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() { h.done <- n.Run(ctx) }()
	t.Cleanup(func() { cancel(); h.client.CloseIdleConnections() })
	select {
	case <-n.Ready():
	case err := <-h.done:
		t.Fatalf("%v\n%s", err, h.log)
	case <-time.After(time.Minute):
		t.Fatal("not healthy within a minute")
	}
	return h
}

// stop waits for the end.
func (h *hubUnderTest) stop() {
	h.t.Helper()
	h.cancel()
	select {
	case err := <-h.done:
		if err != nil {
			h.t.Errorf("%v\n%s", err, h.log)
		}
	case <-time.After(time.Minute):
		h.t.Fatal("does not stop")
	}
}

// call makes a request by number, or as localhost where a local caller is needed.
func (h *hubUnderTest) call(method, path, body string) (int, string, http.Header) {
	h.t.Helper()
	address, err := h.Address(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Contains(path, "shutdown") {
		r.Host = "localhost"
	}
	resp, err := h.client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

func TestWholeHub(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	data := filepath.Join(t.TempDir(), "not", "there", "yet")
	h := run(t, data)
	_, port, _ := net.SplitHostPort(h.address)
	if status, body, header := h.call("GET", "/health", ""); status != 200 || !strings.Contains(body, `"description": "OK"`) ||
		header.Get("Hub-Node") != "node-1:"+port || header.Get("Server") != "Hub/1.2.3" {
		t.Errorf("%d %s %v", status, body, header)
	}
	if status, _, _ := h.call("PUT", "/channel/beans", ""); status != 201 {
		t.Errorf("create: %d", status)
	}
	status, _, header := h.call("POST", "/channel/beans", "hello")
	location := header.Get("Location")
	if status != 201 || location == "" {
		t.Fatalf("insert: %d %v", status, header)
	}
	path := location[strings.Index(location, "/channel/"):]
	if _, body, _ := h.call("GET", path, ""); body != "hello" {
		t.Errorf("read: %q", body)
	}
	if status, _, header := h.call("GET", "/channel/beans/latest", ""); status != 303 || header.Get("Location") != location {
		t.Errorf("latest: %d %v", status, header)
	}
	if _, body, _ := h.call("GET", "/internal/deploy", ""); !strings.Contains(body, `"node-1:`+port+`"`) {
		t.Errorf("deploy: %s", body)
	}
	if _, body, _ := h.call("GET", "/internal/properties", ""); !strings.Contains(body, `"hub.type": "test"`) || !strings.Contains(body, data) {
		t.Errorf("properties: %s", body)
	}
	if _, body, _ := h.call("GET", "/internal/channel/stale/0", ""); !strings.Contains(body, "/channel/beans") {
		t.Errorf("stale: %s", body)
	}
	if status, body, _ := h.call("GET", "/metrics", ""); status != 200 || !strings.Contains(body, `hub_channel_items_total{channel="beans",type="SINGLE"} 1`) ||
		!strings.Contains(body, `hub_lifecycle_startup_complete_total{startup="startup"} 1`) {
		t.Errorf("metrics: %d %.3000s", status, body)
	}
	if status, _, _ := h.call("DELETE", "/internal/channel/beans", ""); status != 202 {
		t.Errorf("delete behind the scenes: %d", status)
	}
	if status, _, _ := h.call("GET", "/channel/beans/latest", ""); status != 404 {
		t.Errorf("a deleted channel: %d", status)
	}
	h.stop()
	h.client.CloseIdleConnections()
	goleak.VerifyNone(t, leaks)
}

// What was acknowledged is there after a stop and a start.
func TestRestart(t *testing.T) {
	data := t.TempDir()
	h := run(t, data)
	h.call("PUT", "/channel/beans", "")
	_, _, header := h.call("POST", "/channel/beans", "hello")
	location := header.Get("Location")
	h.stop()
	if left, err := os.ReadFile(filepath.Join(data, formatFile)); err != nil || string(left) != "timehub data format 1\n" {
		t.Errorf("%q, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(data, tempDir, "rest-of-a-dead-process"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h = run(t, data, "app.stable_seconds=2")
	if _, body, _ := h.call("GET", location[strings.Index(location, "/channel/"):], ""); body != "hello" {
		t.Errorf("after a restart: %q", body)
	}
	if _, err := os.Stat(filepath.Join(data, tempDir, "rest-of-a-dead-process")); !errors.Is(err, os.ErrNotExist) {
		t.Error("tmp is not emptied at a start")
	}
	h.stop()
}

func TestShutdownOverHTTP(t *testing.T) {
	for _, path := range []string{"/shutdown", "/internal/shutdown"} {
		h := run(t, t.TempDir())
		if status, body, _ := h.call("POST", path, ""); status != 200 || body != "" {
			t.Errorf("%s: %d %q", path, status, body)
		}
		select {
		case err := <-h.done:
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: the hub goes on", path)
		}
	}
}

// While it stops, /health says so, and a request in flight is finished.
func TestDraining(t *testing.T) {
	h := run(t, t.TempDir(), "app.shutdown_delay_seconds=1")
	h.call("PUT", "/channel/beans", "")
	h.client.CloseIdleConnections() // a request on a connection that the hub sees idle is not in flight for it
	body, writer := io.Pipe()
	answered := make(chan string, 1)
	go func() {
		resp, err := h.client.Post("http://"+h.address+"/channel/beans", "text/plain", body)
		if err != nil {
			answered <- err.Error()
			return
		}
		resp.Body.Close()
		answered <- strconv.Itoa(resp.StatusCode)
	}()
	io.WriteString(writer, strings.Repeat("slow ", 10_000)) // more than the client keeps back
	h.cancel()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		status, text, _ := h.call("GET", "/health", "")
		if status == 520 && strings.Contains(text, "SHUTTING DOWN") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("health while stopping: %d %s", status, text)
		}
	}
	<-h.drained
	io.WriteString(writer, " but sure")
	writer.Close()
	if got := <-answered; got != "201" {
		t.Errorf("a request in flight: %s\n%s", got, h.log)
	}
	h.stop()
}

// A data directory that cannot be used is refused with a sentence that says why.
func TestRefusedData(t *testing.T) {
	try := func(data string) error {
		n, err := New(configure(t, data), Env{})
		if err == nil {
			n.Close()
		}
		return err
	}
	busy := t.TempDir()
	first, err := New(configure(t, busy), Env{})
	if err != nil {
		t.Fatal(err)
	}
	if err := try(busy); !hub.Is(err, hub.Conflict) || !strings.Contains(err.Error(), busy) || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("in use: %v", err)
	}
	var ending sync.WaitGroup
	ending.Go(func() {
		time.Sleep(300 * time.Millisecond)
		first.Close()
	})
	if err := try(busy); err != nil {
		t.Errorf("given back while somebody waits: %v", err)
	}
	ending.Wait()
	if err := try(busy); err != nil {
		t.Errorf("given back: %v", err)
	}

	newer := t.TempDir()
	os.WriteFile(filepath.Join(newer, formatFile), []byte("timehub data format 2\n"), 0o600)
	if err := try(newer); !hub.Is(err, hub.Invalid) || !strings.Contains(err.Error(), "newer hub") {
		t.Errorf("newer: %v", err)
	}
	for _, text := range []string{"", "something", "timehub data format x", "timehub data format "} {
		os.WriteFile(filepath.Join(newer, formatFile), []byte(text), 0o600)
		if err := try(newer); !hub.Is(err, hub.Invalid) || !strings.Contains(err.Error(), formatFile) {
			t.Errorf("format %q: %v", text, err)
		}
	}

	for _, name := range []string{"tmp", "spoke", "bucket"} {
		foreign := t.TempDir()
		precious := filepath.Join(foreign, name, "precious")
		os.Mkdir(filepath.Dir(precious), 0o700)
		os.WriteFile(precious, []byte("x"), 0o600)
		if err := try(foreign); !hub.Is(err, hub.Invalid) || !strings.Contains(err.Error(), filepath.Join(foreign, name)) {
			t.Errorf("somebody else's directory with a folder %s: %v", name, err)
		}
		if _, err := os.Stat(precious); err != nil {
			t.Errorf("the directory is somebody else's: %v", err)
		}
		if _, err := os.Stat(filepath.Join(foreign, formatFile)); err == nil {
			t.Error("a refused directory was marked")
		}
	}
	home := t.TempDir()
	os.Mkdir(filepath.Join(home, "lost+found"), 0o700)
	os.WriteFile(filepath.Join(home, "hub.properties"), nil, 0o600)
	if err := try(home); err != nil {
		t.Errorf("what a hub has no use for does not matter: %v", err)
	}

	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if err := try(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file: %v", err)
	}
	if os.Getuid() != 0 { // root may write anywhere
		closed := t.TempDir()
		os.Chmod(closed, 0o500)
		defer os.Chmod(closed, 0o700)
		if err := try(closed); err == nil || !strings.Contains(err.Error(), closed) {
			t.Errorf("read-only: %v", err)
		}
	}
	if err := try(newer); err == nil {
		t.Error("a refused directory is still locked or was changed")
	}
}

// full is a disk without space for what a start has to write.
type full struct{ disk.Disk }

func (f full) Create(string) (disk.File, error) { return nil, disk.ErrFull }

func TestFullDisk(t *testing.T) {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := New(configure(t, "x"), Env{Disk: full{d}}); !errors.Is(err, disk.ErrFull) {
		t.Errorf("%v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg, _, _ := Load(Sources{Data: t.TempDir(), Listen: l.Addr().String()})
	n, err := New(cfg, Env{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("%v", err)
	}
	if _, err := New(cfg, Env{}); err != nil {
		t.Errorf("the directory is given back: %v", err)
	}
}

// Until everything is up, /health says so and everything else is asked to come back.
func TestEarlyRoutes(t *testing.T) {
	n, err := New(configure(t, t.TempDir()), Env{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.openMetrics(); err != nil {
		t.Fatal(err)
	}
	rt, err := n.earlyRoutes()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/health": 500, "/": 503, "/channel/x": 503, "/internal/deploy": 503} {
		w := &recorder{header: http.Header{}}
		rt.ServeHTTP(w, request(t, path))
		if w.status != want || path == "/health" && !strings.Contains(w.body.String(), "Starting up...") || want == 503 && w.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, w.status, &w.body)
		}
	}
}

// TestExpected: the log of a node that starts is not filled by those who ask too early, nor by other nodes who ask one that cannot answer now.
func TestExpected(t *testing.T) {
	var text bytes.Buffer
	n, err := New(configure(t, t.TempDir()), Env{Log: slog.New(slog.NewTextHandler(&text, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.openMetrics(); err != nil {
		t.Fatal(err)
	}
	rt, err := n.earlyRoutes()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(http.ResponseWriter, *http.Request) error { return hub.E(hub.Unavailable, "not now") }
	rt.Handle("GET", "/internal/spoke/test", refused)
	rt.Handle("GET", "/test", refused)
	for path, loud := range map[string]bool{"/channel/x": false, "/": false, "/internal/spoke/keys": false, "/internal/spoke/test": false, "/test": true} {
		text.Reset()
		r := request(t, path)
		r.RemoteAddr, r.Host = "127.0.0.1:9", "localhost"
		rt.ServeHTTP(&recorder{header: http.Header{}}, r)
		if got := strings.Contains(text.String(), "request failed"); got != loud {
			t.Errorf("%s: %q", path, text.String())
		}
	}
}

func request(t *testing.T, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("GET", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
