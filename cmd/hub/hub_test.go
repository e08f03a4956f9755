package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"timehub/hub"
	"timehub/node"
)

// startHub runs a whole hub in this process and returns its URL.
func startHub(t *testing.T) string {
	t.Helper()
	cfg, _, err := node.Load(node.Sources{Data: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.New(cfg, node.Env{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-n.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the hub is not healthy within a minute")
	}
	address, err := n.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + address
}

// cli is a command line against one hub.
type cli struct {
	t   *testing.T
	url string
}

// run runs the program as main does.
func (c cli) run(stdin string, args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	var out, err bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &out, stderr: &err, environ: []string{"HUB_URL=" + c.url}}
	code = a.run(c.t.Context(), args)
	return code, out.String(), err.String()
}

// ok runs it and wants success.
func (c cli) ok(args ...string) string {
	c.t.Helper()
	code, stdout, stderr := c.run("", args...)
	if code != exitOK {
		c.t.Fatalf("hub %s: exit %d, %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestChannelCommands(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans", "owner=12", "ttlDays=30", "tags=cafe,eu")
	if got := c.ok("channel", "ls"); got != "beans\n" {
		t.Errorf("ls: %q", got)
	}
	if got := c.ok("ls", "--json"); strings.Join(strings.Fields(got), "") != `["beans"]` {
		t.Errorf("ls --json: %q", got)
	}
	text := c.ok("channel", "get", "beans")
	for _, want := range []string{"owner                      12\n", "ttlDays                    30\n", "tags                       cafe,eu\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var d struct{ TTLDays, MaxItems int }
	if err := json.Unmarshal([]byte(c.ok("channel", "set", "beans", "ttlDays=0", "maxItems=5", "--json")), &d); err != nil || d.MaxItems != 5 || d.TTLDays != 0 {
		t.Errorf("set: %+v, %v", d, err)
	}
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"channel", "create", "beans"}, exitRefused, "beans"},
		{[]string{"channel", "create", "a b"}, exitRefused, "a b"},
		{[]string{"channel", "get", "none"}, exitNotFound, "none"},
		{[]string{"channel", "set", "beans"}, exitUsage, "nothing to set"},
		{[]string{"channel", "set", "beans", "ttlDays"}, exitUsage, "member=value"},
		{[]string{"channel", "set", "beans", "ttldays=3"}, exitUsage, "no member \"ttldays\": there are owner,"},
		{[]string{"channel", "create", "tea", "owner description=x"}, exitUsage, "no member"},
		{[]string{"channel", "rm", "none"}, exitNotFound, "none"},
		{[]string{"channel", "fly"}, exitUsage, "channel fly"},
	} {
		if code, _, stderr := c.run("", bad.args...); code != bad.code || !strings.Contains(stderr, bad.says) {
			t.Errorf("%v: exit %d, %s", bad.args, code, stderr)
		}
	}
	c.ok("channel", "rm", "beans")
	if got := c.ok("channel", "ls", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("after rm: %q", got)
	}
}

func TestPutGetLs(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans")
	file := write(t, "a.json", `{"a": 1}`)
	uri := strings.TrimSpace(c.ok("put", "beans", file))
	if got := c.ok("get", uri); got != `{"a": 1}` {
		t.Errorf("get URL: %q", got)
	}
	var r record
	if err := json.Unmarshal([]byte(c.ok("get", "beans", "--json")), &r); err != nil || string(r.JSON) == "" || r.ContentType != "application/json" || r.URI != uri {
		t.Errorf("get --json: %+v, %v", r, err)
	}
	code, stdout, stderr := c.run("from stdin", "put", "beans", "--type", "text/plain", "--json")
	var put struct{ Key, URI, Timestamp string }
	if err := json.Unmarshal([]byte(stdout), &put); code != 0 || err != nil || put.Key == "" {
		t.Fatalf("put -: %d %s %s", code, stdout, stderr)
	}
	pipe := filepath.Join(t.TempDir(), "pipe") // a device would be replaced by a file just so; tests cannot make one
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	end, err := os.OpenFile(pipe, os.O_RDWR, 0) // neither side waits for the other
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	c.ok("get", uri, "--output", pipe)
	_ = end.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, 8)
	if _, err := io.ReadFull(end, got); err != nil || string(got) != `{"a": 1}` {
		t.Errorf("get into a pipe: %q %v", got, err)
	}
	link, aim := filepath.Join(t.TempDir(), "link"), write(t, "aim", "old")
	if err := os.Symlink(aim, link); err != nil {
		t.Fatal(err)
	}
	c.ok("get", uri, "--output", link)
	if got, err := os.ReadFile(aim); err != nil || string(got) != `{"a": 1}` {
		t.Errorf("get into a link: %q %v", got, err)
	}
	if code, _, stderr := c.run("", "get", uri, "--output", t.TempDir()); code != exitUsage || !strings.Contains(stderr, "is a directory") {
		t.Errorf("get into a folder: %d %s", code, stderr)
	}
	dir := t.TempDir()
	if code, _, stderr := c.run("", "put", "beans", dir); code != exitUsage || !strings.Contains(stderr, dir+": is a directory") {
		t.Errorf("put of a folder: %d %s", code, stderr)
	}
	if code, _, stderr := c.run("", "get", "http://127.0.0.1:1/channel/x"); code != exitUnavailable || !strings.Contains(stderr, "127.0.0.1:1/channel/x does not answer") {
		t.Errorf("get from nobody: %d %s", code, stderr)
	}
	for _, address := range []string{"beans", "beans/latest", "beans/" + put.Key} {
		if got := c.ok("get", address); got != "from stdin" {
			t.Errorf("get %s: %q", address, got)
		}
	}
	output := filepath.Join(t.TempDir(), "out")
	c.ok("get", "beans/earliest", "-o", output)
	if got, _ := os.ReadFile(output); string(got) != `{"a": 1}` {
		t.Errorf("get -o: %q", got)
	}
	if got := c.ok("ls", "beans"); got != uri+"\n"+put.URI+"\n" {
		t.Errorf("ls: %q", got)
	}
	if got := c.ok("ls", "beans", "-n", "1", "--desc"); got != put.URI+"\n" {
		t.Errorf("ls -n 1: %q", got)
	}
	k, _ := hub.ParseKey(put.Key)
	if got := c.ok("ls", "beans/"+hub.WindowAt(k.Time(), hub.Day).String()); !strings.Contains(got, put.URI) {
		t.Errorf("ls of a day: %q", got)
	}
	for _, bad := range []struct {
		args []string
		code int
	}{
		{[]string{"get", "beans/2015/01/01/00/00/00/000/abcdef"}, exitNotFound}, {[]string{"get", "none"}, exitNotFound}, {[]string{"put", "none", file}, exitNotFound},
		{[]string{"ls", "none"}, exitNotFound}, {[]string{"ls", "beans/2021/13/01"}, exitRefused}, {[]string{"ls", "beans", "--epoch", "x"}, exitUsage},
		{[]string{"put", "beans", "/does/not/exist"}, exitUsage}, {[]string{"put"}, exitUsage}, {[]string{"get"}, exitUsage}, {[]string{"fly"}, exitUsage}, {[]string{"ls", "--flag"}, exitUsage},
		{[]string{"put", "beans", file, "--time", "yesterday"}, exitUsage}, {[]string{"put", "beans", file, "--time", "2020-01-01"}, exitRefused},
		{[]string{"ls", "--hub", "http://127.0.0.1:1"}, exitUnavailable}, {[]string{"ls", "--hub", "nonsense"}, exitUsage}, {[]string{"get", "x", "-o", "/no/such/dir/x"}, exitNotFound},
	} {
		code, stdout, stderr := c.run("", append(bad.args, "--json")...)
		var d struct {
			Error string
			Exit  int
		}
		if err := json.Unmarshal([]byte(stderr), &d); code != bad.code || stdout != "" || err != nil || d.Error == "" || d.Exit != code {
			t.Errorf("%v: exit %d, %q, %s", bad.args, code, stdout, stderr)
		}
	}
}

const quakes = `{"features": [
	{"id": "a", "properties": {"time": 1517966773840}}, {"id": "b", "properties": {"time": 1517966773840}},
	{"id": "c", "properties": {"time": 1517966773999}}, {"id": "c", "properties": {"time": 1517966773999}}, {"id": "c", "properties": {"time": 1517966773999}}]}`

// Records go in at their own instants, duplicates included, and a second run changes nothing.
func TestImportHistorical(t *testing.T) {
	c := cli{t, startHub(t)}
	file := write(t, "quakes.json", quakes)
	command := []string{"import", "quakes", file, "--items", ".features[]", "--time", ".properties.time"}
	if code, _, stderr := c.run("", command...); code != exitNotFound || !strings.Contains(stderr, "--create") {
		t.Errorf("no channel: %d %s", code, stderr)
	}
	if got := c.ok(append(command, "--create")...); got != "5 items, 230 bytes, in quakes\n" {
		t.Errorf("%q", got)
	}
	first := c.ok("ls", "quakes/2018/02/07/01/26/13")
	if n := strings.Count(first, "\n"); n != 5 {
		t.Errorf("%d items:\n%s", n, first)
	}
	c.ok(command...)
	if again := c.ok("ls", "quakes/2018/02/07/01/26/13"); again != first {
		t.Errorf("a second run changed\n%sto\n%s", first, again)
	}
	if got := c.ok("get", strings.Fields(first)[4]); got != `{"id":"c","properties":{"time":1517966773999}}` {
		t.Errorf("%q", got)
	}
	c.ok("channel", "create", "plain")
	if code, _, stderr := c.run("", "import", "plain", file, "--items", ".features[]", "--time", ".properties.time"); code != exitRefused || !strings.Contains(stderr, "mutableTime") {
		t.Errorf("an ordinary channel: %d %s", code, stderr)
	}
}

// Lines of NDJSON and rows of CSV go in by bulk; a run that has ended is not repeated by accident.
func TestImportBulk(t *testing.T) {
	c := cli{t, startHub(t)}
	var lines strings.Builder
	for i := range 25 {
		fmt.Fprintf(&lines, `{"n": %d, "f": 1.10}`+"\n", i)
	}
	file := write(t, "numbers.ndjson", lines.String())
	if got := c.ok("import", "numbers", file, "--items", "select(.n != 3)", "--create", "--batch", "7"); got != "24 items, 399 bytes, in numbers\n" {
		t.Errorf("%q", got)
	}
	if code, _, stderr := c.run("", "import", "numbers", file, "--items", "select(.n != 3)"); code != exitUsage || !strings.Contains(stderr, "--again") {
		t.Errorf("a second run: %d %s", code, stderr)
	}
	twice := write(t, "twice.csv", "a,b,a\n1,2,3\n")
	if code, _, stderr := c.run("", "import", "numbers", twice, "--items", "."); code != exitUsage || !strings.Contains(stderr, `"a" twice`) {
		t.Errorf("a column that would be lost: %d %s", code, stderr)
	}
	export := c.ok("export", "numbers", "earliest/100")
	var seen []string
	for line := range strings.SplitSeq(strings.TrimSpace(export), "\n") {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.ContentType != "application/json" {
			t.Fatal(line, err)
		}
		seen = append(seen, string(r.JSON))
	}
	if len(seen) != 24 || seen[0] != `{"f":1.10,"n":0}` || seen[23] != `{"f":1.10,"n":24}` {
		t.Errorf("%q", seen)
	}
	csv := write(t, "a.csv", "\ufeffname,city\nAda,\"Lon\ndon\"\nBo,Rom\n")
	c.ok("import", "people", csv, "--create", "--items", ".name", "--raw", "--json")
	if got := c.ok("get", "people/earliest"); got != "Ada" {
		t.Errorf("%q", got)
	}
	if code, stdout, stderr := c.run(`[1, 2, "x"]`, "import", "people", "-", "--json"); code != 0 || !strings.Contains(stdout, `"items": 3`) {
		t.Errorf("standard input: %d %s %s", code, stdout, stderr)
	}
	for _, bad := range []struct{ file, format, items, at, says string }{
		{`{"a": 1}{"a": `, "json", ".", "", "record 2: invalid JSON near byte"},
		{"a,b\n1\n", "csv", ".", "", "record 1"},
		{`{"a": 1}`, "xml", ".", "", "json, ndjson or csv"},
		{`{"a": 1}`, "json", ".[", "", "--items"},
		{`{"a": 1}`, "json", "nosuch(1)", "", "--items"},
		{`{"a": 1}`, "json", ".a.b", "", "record 1: --items"},
		{`""`, "json", ".", "", "empty"},
	} {
		code, _, stderr := c.run("", "import", "people", write(t, "bad", bad.file), "--format", bad.format, "--items", bad.items, "--raw")
		if code != exitUsage || !strings.Contains(stderr, bad.says) {
			t.Errorf("%+v: exit %d, %s", bad, code, stderr)
		}
	}
}

// breaker is a hub whose answer to the n-th bulk insert is lost, after it was carried out.
func breaker(t *testing.T, target string, lose int32) (url string) {
	t.Helper()
	var bulks atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.Clone(r.Context())
		q.RequestURI = ""
		q.URL.Scheme, q.URL.Host, q.Host = "http", strings.TrimPrefix(target, "http://"), ""
		resp, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		if strings.HasSuffix(r.URL.Path, "/bulk") && bulks.Add(1) == lose {
			panic(http.ErrAbortHandler)
		}
		for name, v := range resp.Header {
			w.Header()[name] = v
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// An interrupted bulk import goes on; only the request whose answer was lost can be there twice, and the run says so.
func TestImportResumes(t *testing.T) {
	target := startHub(t)
	c := cli{t, breaker(t, target, 3)}
	file := write(t, "numbers.json", "[0,1,2,3,4,5,6,7,8,9]")
	c.ok("channel", "create", "numbers")
	command := []string{"import", "numbers", file, "--batch", "2"}
	code, _, stderr := c.run("", command...)
	if code != exitUnavailable || !strings.Contains(stderr, "items 5 to 6 were sent and not acknowledged; the same command goes on from there") {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	code, stdout, stderr := c.run("", command...)
	if code != 0 || !strings.Contains(stderr, "items 5 to 6 were sent without an answer") || stdout != "6 items, 6 bytes, in numbers; 4 items had been stored by an earlier run\n" {
		t.Errorf("exit %d, %q, %s", code, stdout, stderr)
	}
	var got []string
	for line := range strings.SplitSeq(strings.TrimSpace(c.ok("export", "numbers", "earliest/100")), "\n") {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.JSON))
	}
	if s := strings.Join(got, ""); s != "012345456789" {
		t.Errorf("stored %s", s)
	}
	// Another file under the same name is not taken for the rest of this one.
	os.WriteFile(file, []byte("[1]"), 0o600)
	if code, _, stderr := c.run("", command...); code != exitUsage || !strings.Contains(stderr, "another import") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	c.ok(append(command, "--again")...)
}

func TestExport(t *testing.T) {
	c := cli{t, startHub(t)}
	file := write(t, "quakes.json", quakes)
	c.ok("import", "quakes", file, "--items", ".features[]", "--time", ".properties.time", "--create")
	output := filepath.Join(t.TempDir(), "q.zip")
	if got := c.ok("export", "quakes", "2018/02/06..2018/02/08", "-o", output); got != "5 items in "+output+"\n" {
		t.Errorf("%q", got)
	}
	z, err := zip.OpenReader(output)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if len(z.File) != 5 || !strings.HasPrefix(z.File[0].Name, "2018/02/07/01/26/13/840/") {
		t.Errorf("%d entries, %s", len(z.File), z.File[0].Name)
	}
	if got := c.ok("export", "quakes", "2018/02/07/01", "--desc"); strings.Count(got, "\n") != 5 || !strings.Contains(strings.SplitN(got, "\n", 2)[0], "13/999") {
		t.Errorf("%s", got)
	}
	for _, bad := range []struct {
		rng  string
		code int
	}{
		{"2018/02/08..2018/02/06", exitUsage}, {"2018/02/08..2018/02/08/10", exitUsage}, {"2018/02/08..x", exitUsage}, {"0001/01/01/00..2018/01/01/00", exitUsage},
		{"2018/02/30", exitRefused}, {"2018", exitNotFound},
	} {
		if code, stdout, stderr := c.run("", "export", "quakes", bad.rng); code != bad.code || stdout != "" {
			t.Errorf("%s: exit %d, %s %s", bad.rng, code, stdout, stderr)
		}
	}
	if code, _, _ := c.run("", "export", "none", "2018/02/07"); code != exitNotFound {
		t.Errorf("no channel: exit %d", code)
	}
}

func TestConfigAndVersion(t *testing.T) {
	c := cli{t, "http://127.0.0.1:1"}
	text := c.ok("config", "--set", "app.stable_seconds=3")
	if !strings.Contains(text, "app.stable_seconds") || !strings.Contains(text, "--set") || !strings.Contains(text, "no effect") {
		t.Errorf("%.500s", text)
	}
	var lines []propertyLine
	if err := json.Unmarshal([]byte(c.ok("config", "--json", "--listen", ":99")), &lines); err != nil || len(lines) != len(node.Properties()) {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	for _, l := range lines {
		if l.Name == "http.bind_port" && (l.Value != "99" || l.Origin != "--listen" || l.Default != "8080") {
			t.Errorf("%+v", l)
		}
	}
	if got := c.ok("config", "--markdown"); got != node.Markdown() {
		t.Error("--markdown")
	}
	if got := c.ok("version"); !strings.HasPrefix(got, "hub ") {
		t.Errorf("%q", got)
	}
	if a, b := c.ok("version"), c.ok("--version"); a != b {
		t.Errorf("%q, --version %q", a, b)
	}
	if a, b := c.ok("version", "--json"), c.ok("--json", "--version"); a != b || !strings.Contains(a, "platform") {
		t.Errorf("%q, --version %q", a, b)
	}
	if code, _, stderr := c.run("", "get", "ftp://x/y"); code != exitUsage || !strings.Contains(stderr, "http or https, not of ftp") {
		t.Errorf("get of ftp: exit %d %s", code, stderr)
	}
	if got := c.ok("completion", "bash"); !strings.Contains(got, "bash completion") {
		t.Errorf("%.100q", got)
	}
	file := write(t, "hub.properties", "app.stable_secs=1")
	for _, args := range [][]string{{"ls", "--flag"}, {"config", "--set", "x=1"}, {"config", "--config", file}, {"serve", "--config", file}, {"serve", "--config", "/no/such"}, {"serve", "--log-format", "xml"},
		{"serve", "--log-level", "loud"}, {"serve", "extra"}, {"get", ""}, {"channel", "rm", "a", ""}, {"webhook", "get", ""}, {"tail", ""}} {
		if code, _, stderr := c.run("", args...); code != exitUsage || stderr == "" {
			t.Errorf("%v: exit %d %s", args, code, stderr)
		}
	}
	if code, _, stderr := c.run("", "config", "--set", "x=1", "--json"); code != exitUsage || !strings.Contains(stderr, `"kind": "invalid"`) {
		t.Errorf("exit %d %s", code, stderr)
	}
}

func TestServe(t *testing.T) {
	data := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	done := make(chan int, 1)
	go func() {
		a := &app{stdin: strings.NewReader(""), stdout: new(bytes.Buffer), stderr: &log, environ: []string{"HUB_APP_STABEL=1"}}
		done <- a.run(ctx, []string{"serve", "--data", data, "--listen", address, "--log-format", "json"})
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if resp, err := http.Get("http://" + address + "/health"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("not healthy within a minute")
		}
	}
	// A second one on the same data says who has it.
	if code, _, stderr := (cli{t, ""}).run("", "serve", "--data", data, "--listen", "127.0.0.1:0"); code != exitData || !strings.Contains(stderr, fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("exit %d, %s", code, stderr)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit %d\n%s", code, &log)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(log.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if !strings.Contains(log.String(), "HUB_APP_STABEL") {
		t.Error("an unknown variable goes unnoticed")
	}
}

func TestKeyMaker(t *testing.T) {
	at := time.UnixMilli(1517966773840)
	first, second := keyMaker{}, keyMaker{}
	seen := map[hub.Key]bool{}
	for i := range 1000 {
		body := []byte(fmt.Sprint(i % 10)) // each record 100 times
		k := first.next(at, body)
		if seen[k] || len(k.Hash()) != 6 || k.Time() != at.UTC() {
			t.Fatalf("record %d gets %s", i, k)
		}
		seen[k] = true
		if again := second.next(at, body); again != k {
			t.Fatalf("record %d gets %s, then %s", i, k, again)
		}
	}
	if a, b := (keyMaker{}).next(at, []byte("a")), (keyMaker{}).next(at, []byte("b")); a == b {
		t.Error("the hash does not follow from the record")
	}
}

func TestInstants(t *testing.T) {
	for text, want := range map[string]string{
		"2018-02-07T01:26:13.840Z": "2018-02-07T01:26:13.840Z", "2018-02-07T01:26:13": "2018-02-07T01:26:13.000Z", "2018-02-07": "2018-02-07T00:00:00.000Z",
		"2018-02-07T03:26:13.84+02:00": "2018-02-07T01:26:13.840Z", "2018-02-07T01:26": "2018-02-07T01:26:00.000Z", "2018/02/07": "", "": "", "1517966773840": "",
	} {
		got, err := parseInstant(text)
		if (err == nil) != (want != "") || err == nil && hub.ISO(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, v := range []any{json.Number("1517966773840"), json.Number("1517966773840.7"), 1517966773840, 1517966773840.9} {
		if got, err := instantOf(v); err != nil || got.UnixMilli() != 1517966773840 {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for _, v := range []any{nil, true, 1e300, json.Number("1e300"), []any{}} {
		if _, err := instantOf(v); err == nil {
			t.Errorf("%v is an instant", v)
		}
	}
}
