package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Clients that nobody here wrote: curl and packages for Node. Their versions are pinned in testdata/clients/package-lock.json.

// patience is how long a test waits for something that takes a moment.
const patience = time.Minute

// modules installs the packages once per version of the lock file, below the user's cache, and is the node_modules folder.
var modules = sync.OnceValues(func() (string, error) {
	const from = "testdata/clients"
	for _, tool := range []string{"node", "npm", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%s is missing: `make needs` installs it", tool)
		}
	}
	if out, err := exec.Command("node", "-p", "process.versions.node.split('.')[0] >= 20").Output(); err != nil || strings.TrimSpace(string(out)) != "true" {
		return "", fmt.Errorf("node is older than version 20, which the packages need (%v)", err)
	}
	digest := sha256.New()
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return "", err
		}
		files[name] = text
		digest.Write(text)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	parent := filepath.Join(cache, "timehub-e2e")
	dir := filepath.Join(parent, "clients-"+hex.EncodeToString(digest.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return filepath.Join(dir, "node_modules"), nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(parent, "installing-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(temp, name), text, 0o644); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = temp
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another run may have been quicker
			return "", err
		}
	}
	return filepath.Join(dir, "node_modules"), nil
})

// program is a client that runs beside the test. It ends with the test.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // of its standard output; closed at its end
	errs  bytes.Buffer
}

// runs starts a program.
func runs(t *testing.T, env []string, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(name, args...), lines: make(chan string, 10_000)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.stdin, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() { // the clean-up waits for it
		defer close(p.lines)
		for in := bufio.NewReader(out); ; {
			line, err := in.ReadString('\n')
			if line != "" {
				p.lines <- strings.TrimSuffix(line, "\n")
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		for range p.lines { // until nobody writes any more
		}
		p.cmd.Wait() // it was killed, or has ended before
		if t.Failed() && p.errs.Len() > 0 {
			t.Logf("%s says: %s", name, &p.errs)
		}
	})
	return p
}

// node starts a script of testdata/clients.
func node(t *testing.T, script string, args ...string) *program {
	t.Helper()
	dir, err := modules()
	if err != nil {
		t.Fatal(err)
	}
	return runs(t, []string{"NODE_PATH=" + dir}, "node", append([]string{filepath.Join("testdata", "clients", script)}, args...)...)
}

// line is the next line of its output.
func (p *program) line() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("%s has ended: %s", p.cmd.Path, &p.errs)
		}
		return line
	case <-time.After(patience):
		p.t.Fatalf("%s says nothing for %v", p.cmd.Path, patience)
	}
	return ""
}

// next is the next line of its output, as JSON.
func next[T any](p *program) (v T) {
	p.t.Helper()
	line := p.line()
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		p.t.Fatalf("%q: %v", line, err)
	}
	return v
}

// port is the first line of a consumer.
func (p *program) port() string {
	p.t.Helper()
	return fmt.Sprint("http://127.0.0.1:", next[struct{ Port int }](p).Port)
}

// silent reports what a program still says within a moment.
func (p *program) silent(moment time.Duration) {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if ok {
			p.t.Errorf("%s also says %s", p.cmd.Path, line)
		}
	case <-time.After(moment):
	}
}

// addItem stores an item and returns its address.
func addItem(t *testing.T, hub, channel, contentType, body string) string {
	t.Helper()
	return must(t, 201, "POST", hub+"/channel/"+channel, []byte(body), "Content-Type", contentType).header.Get("Location")
}

// eventSamples are items of all sorts, and what each is as an event.
var eventSamples = []struct{ contentType, body, event, data string }{
	{"text/plain", "one line", "text/plain", "one line"},
	{"text/plain", "two\nlines\n", "text/plain", "two\nlines\n"},
	{"text/plain; charset=utf-8", "héllo 😀: and\n\n:no comment", "text/plain; charset=utf-8", "héllo 😀: and\n\n:no comment"},
	{"application/json", `{"a": [1, 2]}`, "application/json", `{"a": [1, 2]}`},
	{"text/csv", "a,b\r\n1,2\r\n", "text/csv", "a,b\n1,2\n"}, // a text/… may have any line ends; events have one
	{"image/png", "\x89PNG\r\n\x1a\n", "image/png;base64", base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n"))},
}

// TestCurlEvents: curl -N shows each item as it comes, in the words of the documented interface, and can go on where it was.
func TestCurlEvents(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	first := addItem(t, h.URL, "beans", "text/plain", "before")
	curl := runs(t, nil, "curl", "-sSNi", h.URL+"/channel/beans/events")
	var head []string
	for line := curl.line(); line != "\r"; line = curl.line() {
		head = append(head, strings.ToLower(strings.TrimSuffix(line, "\r")))
	}
	if all := strings.Join(head, "\n"); head[0] != "http/1.1 200 ok" || !strings.Contains(all, "content-type: text/event-stream") || strings.Contains(all, "content-encoding") {
		t.Errorf("%s", all)
	}
	// event reads one event; what else there may be are comments and the pause before a reconnection.
	event := func(p *program) string {
		var lines []string
		for {
			line := p.line()
			switch {
			case line == "" && len(lines) > 0:
				return strings.Join(lines, "\n")
			case line == "" || line[0] == ':' || strings.HasPrefix(line, "retry: "):
			default:
				lines = append(lines, line)
			}
		}
	}
	var want []string
	for _, s := range eventSamples {
		uri := addItem(t, h.URL, "beans", s.contentType, s.body)
		want = append(want, "event: "+s.event+"\nid: "+uri+"\ndata: "+strings.ReplaceAll(s.data, "\n", "\ndata: "))
		if got := event(curl); got != want[len(want)-1] {
			t.Errorf("%q\nwant %q", got, want[len(want)-1])
		}
	}
	again := runs(t, nil, "curl", "-sSN", "--compressed", "-H", "Last-Event-ID: "+first, h.URL+"/channel/beans/events")
	fromPath := runs(t, nil, "curl", "-sSN", first+"/events")
	for _, p := range []*program{again, fromPath} {
		for i := range want {
			if got := event(p); got != want[i] {
				t.Errorf("%q\nwant %q", got, want[i])
			}
		}
	}
	refused := runs(t, nil, "curl", "-sSN", "-o", os.DevNull, "-w", "%{http_code}\n", h.URL+"/channel/none/events")
	if got := refused.line(); got != "404" {
		t.Errorf("of no channel: %s", got)
	}
}

// TestEventSource: the standard's own client connects again after each death of the hub, and nothing is missed or comes twice.
func TestEventSource(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	types := []string{h.URL + "/channel/beans/events"}
	for _, s := range eventSamples {
		types = append(types, s.event)
	}
	type line struct {
		Open  bool
		Error *int
		Type  string
		ID    string
		Data  string
	}
	source := node(t, "eventsource.js", types...)
	if !next[line](source).Open {
		t.Fatal("it did not open")
	}
	// event skips what is said about the connection.
	event := func() line {
		for {
			if l := next[line](source); l.ID != "" {
				return l
			}
		}
	}
	for round := range 3 {
		for _, s := range eventSamples {
			uri := addItem(t, h.URL, "beans", s.contentType, s.body)
			if got := event(); got.Type != s.event || got.ID != uri || got.Data != s.data {
				t.Errorf("%+v, want %q of %s", got, s.data, uri)
			}
		}
		if round == 2 {
			break
		}
		h.Kill()
		if err := h.Start(); err != nil {
			t.Fatal(err)
		}
		// What is inserted while it is away comes too, and first.
		uri := addItem(t, h.URL, "beans", "text/plain", "meanwhile")
		if got := event(); got.ID != uri || got.Data != "meanwhile" {
			t.Errorf("after a restart: %+v, want %s", got, uri)
		}
	}
	source.silent(time.Second)
}

// TestEventSourceOfTag: the same of all channels of a tag, in one stream.
func TestEventSourceOfTag(t *testing.T) {
	h := start(t)
	for _, name := range []string{"arabica", "robusta"} {
		putChannel(t, h.URL, name, `{"tags": ["beans"]}`)
	}
	type line struct {
		Open           bool
		Type, ID, Data string
	}
	source := node(t, "eventsource.js", h.URL+"/tag/beans/events", "text/plain")
	if !next[line](source).Open {
		t.Fatal("it did not open")
	}
	for round := range 2 {
		var want []string
		for i := range 10 {
			body := fmt.Sprint(round, " ", i)
			addItem(t, h.URL, []string{"arabica", "robusta"}[i%2], "text/plain", body)
			want = append(want, body)
		}
		for len(want) > 0 {
			l := next[line](source)
			if l.ID == "" {
				continue
			}
			if l.Data != want[0] {
				t.Errorf("%+v, want %q", l, want[0])
			}
			want = want[1:]
		}
		if round == 0 {
			h.Kill()
			if err := h.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	source.silent(time.Second)
}

// TestWS: one text message an item; pings are answered, both sides can close, and a client goes on from the last address it saw.
func TestWS(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	type line struct {
		Open   bool
		Pong   string
		Text   *string
		Binary bool
		Status int
		Closed int
		Reason string
		Error  string
	}
	ws := "ws" + strings.TrimPrefix(h.URL, "http") + "/channel/"
	first := addItem(t, h.URL, "beans", "text/plain", "before")
	live := node(t, "ws.js", ws+"beans/ws")
	if l := next[line](live); !l.Open {
		t.Fatalf("%+v", l)
	}
	if l := next[line](live); l.Pong != "are you there" {
		t.Errorf("%+v", l)
	}
	var uris []string
	for i := range 20 {
		uris = append(uris, addItem(t, h.URL, "beans", "text/plain", fmt.Sprint("item ", i)))
	}
	// said is the next line but those of the beginning.
	said := func(p *program) line {
		t.Helper()
		for {
			if l := next[line](p); !l.Open && l.Pong == "" {
				return l
			}
		}
	}
	messages := func(p *program, want []string) {
		t.Helper()
		for _, uri := range want {
			if l := said(p); l.Text == nil || *l.Text != uri || l.Binary {
				t.Fatalf("%+v, want %s", l, uri)
			}
		}
	}
	messages(live, uris)
	after := func(uri string) string { return "ws" + strings.TrimPrefix(uri, "http") + "/ws" }
	messages(node(t, "ws.js", after(first)), uris)
	messages(node(t, "ws.js", after(uris[9])), uris[10:])
	day := strings.Join(strings.Split(keyOf(first), "/")[:3], "/")
	messages(node(t, "ws.js", ws+"beans/"+day+"/ws"), append([]string{first}, uris...))
	binary := addItem(t, h.URL, "beans", "image/png", "\x89PNG\r\n")
	messages(live, []string{binary})
	whole := node(t, "ws.js", after(uris[18])+"?payload=items")
	for _, want := range []string{`{"key":"` + keyOf(uris[19]) + `","contentType":"text/plain","body":"item 19"}`, `{"key":"` + keyOf(binary) + `","contentType":"image/png","bodyBase64":"iVBORw0K"}`} {
		if l := said(whole); l.Text == nil || *l.Text != want {
			t.Errorf("%+v, want %s", l, want)
		}
	}
	if l := said(node(t, "ws.js", ws+"none/ws")); l.Status != 404 {
		t.Errorf("of no channel: %+v", l)
	}
	closing := node(t, "ws.js", after(uris[18]))
	messages(closing, append(uris[19:], binary))
	fmt.Fprintln(closing.stdin, "close")
	if l := said(closing); l.Closed != 1000 {
		t.Errorf("closed by the client: %+v", l)
	}
	if err := h.Stop(time.Minute); err != nil {
		t.Fatal(err)
	}
	if l := said(live); l.Closed != 1001 && l.Closed != 1012 {
		t.Errorf("closed by a hub that goes away: %+v", l)
	}
}

// TestWSCat: the tool that people try a websocket with.
func TestWSCat(t *testing.T) {
	dir, err := modules()
	if err != nil {
		t.Fatal(err)
	}
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	var uris []string
	for i := range 3 {
		uris = append(uris, addItem(t, h.URL, "beans", "text/plain", fmt.Sprint("item ", i)))
	}
	cat := runs(t, nil, "node", filepath.Join(dir, "wscat", "bin", "wscat"), "--no-color", "-c", "ws"+strings.TrimPrefix(uris[0], "http")+"/ws")
	for i := range 3 {
		uris = append(uris, addItem(t, h.URL, "beans", "text/plain", fmt.Sprint("item ", 3+i)))
	}
	for _, uri := range uris[1:] {
		if got := cat.line(); strings.TrimLeft(got, "<> ") != uri {
			t.Errorf("%q, want %s", got, uri)
		}
	}
	fmt.Fprintln(cat.stdin, "what a client says is ignored")
	uri := addItem(t, h.URL, "beans", "text/plain", "last")
	if got := cat.line(); strings.TrimLeft(got, "<> ") != uri {
		t.Errorf("%q, want %s", got, uri)
	}
}

// makeSecret is a secret of Standard Webhooks.
func makeSecret(seed string) string {
	key := sha256.Sum256([]byte(seed))
	return "whsec_" + base64.StdEncoding.EncodeToString(key[:])
}

// TestStandardWebhooks: signatures are what the reference library takes, also with two secrets while one is changed, also those of `hub webhook listen`.
func TestStandardWebhooks(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	type call struct {
		Payload *struct {
			Name, Type string
			URIs       []string
		}
		Refused, ID, Forged, Moved string
	}
	before, after := makeSecret("old"), makeSecret("new")
	taken := func(p *program, name, uri string) {
		t.Helper()
		c := next[call](p)
		if c.Payload == nil || c.Payload.Name != name || c.Payload.Type != "item" || len(c.Payload.URIs) != 1 || c.Payload.URIs[0] != uri || c.ID == "" {
			t.Errorf("%+v (%s), want %s", c, c.Refused, uri)
		}
		if c.Forged == "" || c.Moved == "" {
			t.Errorf("what was forged is taken: %+v", c)
		}
	}
	old := node(t, "standardwebhooks.js", before)
	hook := func(name, callback, members string) {
		t.Helper()
		body := fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": %q, %s}`, callback, h.URL+"/channel/beans", members)
		r, err := callJSON(t, "PUT", h.URL+"/webhook/"+name, body)
		if err != nil || r.status != 201 && r.status != 200 {
			t.Fatalf("%d %s %v", r.status, r.body, err)
		}
		if bytes.Contains(r.body, []byte("whsec_")) {
			t.Errorf("the secret is shown: %s", r.body)
		}
	}
	port := old.port()
	hook("signed", port, fmt.Sprintf(`"secret": %q`, before))
	taken(old, "signed", addItem(t, h.URL, "beans", "text/plain", "one"))
	// While the secret changes both consumers understand.
	fresh := node(t, "standardwebhooks.js", after)
	hook("signed", port, fmt.Sprintf(`"secret": %q, "previousSecret": %q`, after, before))
	hook("fresh", fresh.port(), fmt.Sprintf(`"secret": %q, "previousSecret": %q`, after, before))
	uri := addItem(t, h.URL, "beans", "text/plain", "two")
	taken(old, "signed", uri)
	taken(fresh, "fresh", uri)
	// Afterwards the old one does not any more, and the call is made again.
	hook("signed", port, fmt.Sprintf(`"secret": %q, "previousSecret": ""`, after))
	addItem(t, h.URL, "beans", "text/plain", "three")
	if c := next[call](old); c.Refused == "" {
		t.Errorf("%+v", c)
	}
	must(t, 202, "DELETE", h.URL+"/webhook/signed", nil)
	bin, err := hubBinary.get()
	if err != nil {
		t.Fatal(err)
	}
	listening := node(t, "standardwebhooks.js", before)
	runs(t, []string{"HUB_URL=" + h.URL}, bin, "webhook", "listen", "beans", "--forward", listening.port(), "--from", uri, "--secret", before, "--name", "laptop", "--max", "1")
	latest := must(t, 200, "GET", uri+"/next/1", nil)
	list, err := latest.uris()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	taken(listening, "laptop", list[0])
}

// TestStandardWebhooksBatch: the signature of a period is right too, also when the call is too large to be kept in one piece.
func TestStandardWebhooksBatch(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	const items = 5000
	bodies := make([][]byte, items)
	for i := range bodies {
		bodies[i] = fmt.Appendf(nil, "item %d é", i)
	}
	body, contentType := bulkBody("text/plain", bodies)
	for _, payload := range []string{"uris", "items"} {
		secret := makeSecret(payload)
		consumer := node(t, "standardwebhooks.js", secret)
		r, err := callJSON(t, "PUT", h.URL+"/webhook/"+payload, fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": %q, "batch": "SECOND", "payload": %q, "secret": %q}`,
			consumer.port(), h.URL+"/channel/beans", payload, secret))
		if err != nil || r.status != 201 {
			t.Fatalf("%d %s %v", r.status, r.body, err)
		}
		must(t, 201, "POST", h.URL+"/channel/beans/bulk", body, "Content-Type", contentType)
		for {
			c := next[struct {
				Payload *struct {
					Type  string
					URIs  []string
					Items []struct{ URL, Body string }
				}
				Refused string
			}](consumer)
			if c.Payload == nil {
				t.Fatalf("%s: refused: %s", payload, c.Refused)
			}
			if c.Payload.Type == "heartbeat" {
				continue
			}
			p := c.Payload // all parts of a bulk have one millisecond
			if len(p.URIs) != items || payload == "items" && (len(p.Items) != items || p.Items[7].Body != "item 7 é" || p.Items[7].URL != p.URIs[7]) {
				t.Errorf("%s: %d uris, %d items", payload, len(p.URIs), len(p.Items))
			}
			break
		}
		must(t, 202, "DELETE", h.URL+"/webhook/"+payload, nil)
	}
}

// callJSON sends JSON.
func callJSON(t *testing.T, method, url, body string) (reply, error) {
	return call(t.Context(), method, url, []byte(body), "Content-Type", "application/json")
}

// TestCloudEvents: an SDK reads what we send, one event in binary mode and batches of a period.
func TestCloudEvents(t *testing.T) {
	h := start(t)
	putChannel(t, h.URL, "beans", "{}")
	type event struct {
		ID, Source, Type, SpecVersion, Subject, Time, DataContentType string
		Data                                                          any
		Base64                                                        string `json:"data_base64"`
	}
	type calls struct {
		Batch  bool
		Events []event
		Error  string
	}
	single, batched := node(t, "cloudevents.js"), node(t, "cloudevents.js")
	for name, consumer := range map[string]*program{"single": single, "second": batched} {
		batch := strings.ToUpper(name)
		r, err := callJSON(t, "PUT", h.URL+"/webhook/"+name, fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": %q, "payload": "cloudevents", "batch": %q}`,
			consumer.port(), h.URL+"/channel/beans", batch))
		if err != nil || r.status != 201 {
			t.Fatalf("%d %s %v", r.status, r.body, err)
		}
	}
	items := []struct{ contentType, body string }{{"application/json", `{"a":[1,2]}`}, {"text/plain", "héllo\n"}, {"application/xml", "<a/>"}, {"application/octet-stream", "\x00\xff\x01"}}
	check := func(e event, uri, contentType, body string, binary bool) {
		t.Helper()
		if e.ID != keyOf(uri) || e.Source != h.URL+"/channel/beans" || e.SpecVersion != "1.0" || e.Subject != e.ID || e.Type == "" || e.DataContentType != contentType {
			t.Errorf("%+v, want %s", e, uri)
		}
		switch {
		case contentType == "application/json":
			if text, _ := json.Marshal(e.Data); string(text) != body {
				t.Errorf("%s: data %s, want %s", contentType, text, body)
			}
		case contentType != "application/octet-stream":
			if e.Data != body {
				t.Errorf("%s: data %q, want %q", contentType, e.Data, body)
			}
		case !binary: // what the SDK makes of bytes in binary mode depends on its reader
			if e.Base64 != base64.StdEncoding.EncodeToString([]byte(body)) {
				t.Errorf("%s: %+v", contentType, e)
			}
		}
	}
	var uris []string
	for _, i := range items {
		uri := addItem(t, h.URL, "beans", i.contentType, i.body)
		uris = append(uris, uri)
		c := next[calls](single)
		if c.Error != "" || c.Batch || len(c.Events) != 1 {
			t.Fatalf("%+v", c)
		}
		check(c.Events[0], uri, i.contentType, i.body, true)
	}
	for n := 0; n < len(items); {
		c := next[calls](batched)
		if c.Error != "" || !c.Batch {
			t.Fatalf("%+v", c)
		}
		for _, e := range c.Events { // a heartbeat has none
			check(e, uris[n], items[n].contentType, items[n].body, false)
			n++
		}
	}
}
