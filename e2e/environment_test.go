package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// refused starts a hub that must not come up, and returns what it says.
func refused(t *testing.T, dir string, flags ...string) string {
	t.Helper()
	h := prepare(t)
	h.Dir = dir
	if err := h.Launch(flags...); err != nil {
		t.Fatal(err)
	}
	code, err := h.Exit(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if code == 0 {
		t.Errorf("exit status 0: %s", h.Log())
	}
	return h.Log()
}

// TestDirectoryInUse: a second hub on the same directory is refused and says whose it is; the first does not notice.
func TestDirectoryInUse(t *testing.T) {
	first := start(t)
	log := refused(t, first.Dir)
	if !strings.Contains(log, strconv.Itoa(first.PID())) || !strings.Contains(log, first.Dir) {
		t.Errorf("neither process %d nor %s is named: %s", first.PID(), first.Dir, log)
	}
	putChannel(t, first.URL, "still-here", "{}")
	// After a kill the directory is free again.
	first.Kill()
	if err := first.Start(); err != nil {
		t.Error(err)
	}
	must(t, 200, "GET", first.URL+"/channel/still-here", nil)
}

// TestNewerFormat: a directory that a later version has written is left alone.
func TestNewerFormat(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "kept", "{}")
	if err := h.Stop(time.Minute); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(h.Dir, "format")
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	newer := regexp.MustCompile(`[0-9]+`).ReplaceAll(old, []byte("999"))
	if err := os.WriteFile(name, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	log := refused(t, h.Dir)
	if !strings.Contains(log, "999") {
		t.Errorf("the version is not named: %s", log)
	}
	if err := os.WriteFile(name, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	must(t, 200, "GET", h.URL+"/channel/kept", nil)
}

// TestDirectoryNotWritable: the sentence names the directory.
func TestDirectoryNotWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/hub-data"} {
		if log := refused(t, dir); !strings.Contains(log, dir) {
			t.Errorf("%s is not named: %s", dir, log)
		}
	}
}

// TestPortInUse: the sentence names the address.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if log := refused(t, t.TempDir(), "--listen", l.Addr().String()); !strings.Contains(log, l.Addr().String()) {
		t.Errorf("%s is not named: %s", l.Addr(), log)
	}
}

// TestBadProperties: what is unknown or malformed stops the start and is named; an unknown variable of the environment does not.
func TestBadProperties(t *testing.T) {
	for _, set := range []string{"no.such.property=1", "app.maxItemSizeMB=many", "app.stable_seconds=soon", "nonsense"} {
		name, _, _ := strings.Cut(set, "=")
		if log := refused(t, filepath.Join(t.TempDir(), "data"), "--set", set); !strings.Contains(log, name) {
			t.Errorf("%s is not named: %s", name, log)
		}
	}
	properties := filepath.Join(t.TempDir(), "hub.properties")
	if err := os.WriteFile(properties, []byte("# mine\napp.nonsense = 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if log := refused(t, filepath.Join(t.TempDir(), "data"), "--config", properties); !strings.Contains(log, "app.nonsense") {
		t.Errorf("the property is not named: %s", log)
	}
	t.Setenv("SOMETHING_ELSE", "1")
	h := prepare(t)
	if err := h.StartEnv([]string{"HUB_NO_SUCH_THING=1", "HUB_URL=http://elsewhere", "HUB_APP_MAXITEMSIZEMB=2"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(h.Log(), "HUB_NO_SUCH_THING") {
		t.Errorf("no warning names HUB_NO_SUCH_THING: %s", h.Log())
	}
	putChannel(t, h.URL, "env", "{}")
	must(t, 413, "POST", h.URL+"/channel/env", make([]byte, 2<<20+1))
}

// TestSlowClients: who does not send is cut off, and disturbs nobody.
func TestSlowClients(t *testing.T) {
	h := start(t, "--set", "http.header.timeout.seconds=1", "--set", "http.body.grace.seconds=1", "--set", "http.body.minBytesPerSecond=1000")
	putChannel(t, h.URL, "slow", "{}")
	var conns []net.Conn
	for i := range 50 {
		c, err := net.Dial("tcp", h.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if i%2 == 0 {
			fmt.Fprintf(c, "POST /channel/slow HTTP/1.1\r\nHost: x\r\nX-Half")
		} else {
			fmt.Fprintf(c, "POST /channel/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf")
		}
	}
	must(t, 201, "POST", h.URL+"/channel/slow", []byte("quick"))
	for i, c := range conns {
		c.SetDeadline(time.Now().Add(time.Minute))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case i%2 == 1 && (err != nil || resp.StatusCode != 408):
			t.Errorf("half a body: %v, want 408", err)
		case i%2 == 0 && err == nil && resp.StatusCode != 408 && resp.StatusCode != 400:
			t.Errorf("half a header: %d", resp.StatusCode)
		case i%2 == 0 && err != nil && os.IsTimeout(err):
			t.Error("half a header: the connection stays open")
		}
		if resp != nil {
			io.Copy(io.Discard, resp.Body)
		}
	}
	uris, err := must(t, 200, "GET", h.URL+"/channel/slow/latest/100", nil).uris()
	if err != nil || len(uris) != 1 {
		t.Errorf("%d items, want the quick one: %v", len(uris), err)
	}
}

// TestLargeItem: an item far over the threshold of large ones goes in and out, also in pieces, and memory stays small.
func TestLargeItem(t *testing.T) {
	h := start(t, "--set", "app.large.payload.MB=8")
	putChannel(t, h.URL, "large", "{}")
	body := make([]byte, 30<<20)
	for i := range body {
		body[i] = byte(i>>16) ^ byte(i*7)
	}
	r := must(t, 201, "POST", h.URL+"/channel/large", body, "Content-Type", "application/x-large")
	url := r.header.Get("Location")
	r = must(t, 200, "GET", url, nil)
	if digest(r.body) != digest(body) {
		t.Error("other bytes came back")
	}
	if r.header.Get("X-LargeItem") != "true" || r.header.Get("X-Item-Length") != strconv.Itoa(len(body)) || r.header.Get("Content-Type") != "application/x-large" {
		t.Errorf("headers %v", r.header)
	}
	r = must(t, 206, "GET", url, nil, "Range", "bytes=20000000-20000009")
	if string(r.body) != string(body[20000000:20000010]) {
		t.Error("another range came back")
	}
}
