package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is what calls are forwarded to; it answers as its script says, then with 200.
type program struct {
	url string

	mu      sync.Mutex
	answers []int
	bodies  []string
	headers []http.Header
}

func newProgram(t *testing.T, answers ...int) *program {
	p := &program{answers: answers}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.bodies, p.headers = append(p.bodies, string(body)), append(p.headers, r.Header)
		status := 200
		if len(p.answers) > 0 {
			status, p.answers = p.answers[0], p.answers[1:]
		}
		switch {
		case status == 0:
			panic(http.ErrAbortHandler)
		case status == 307 || status == 302:
			w.Header().Set("Location", "/elsewhere")
		case status == 429:
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	p.url = s.URL + "/hook"
	return p
}

func (p *program) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.bodies...)
}

// Items are forwarded in order, each again until the program takes it.
func TestListen(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans")
	var want []string
	for i := range 3 {
		_, out, _ := c.run(fmt.Sprint("item ", i), "put", "beans", "-", "--type", "text/plain")
		want = append(want, fmt.Sprintf(`{"name":"mine","uris":[%q],"type":"item"}`, strings.TrimSpace(out)))
	}
	p := newProgram(t, 503, 302, 0, 200, 307, 200, 429, 204)
	code, stdout, stderr := c.run("", "webhook", "listen", "beans", "--forward", p.url, "--from", "earliest", "--name", "mine", "--max", "3", "--first-wait", "2ms",
		"--secret", "whsec_c2VjcmV0", "--json")
	if code != exitOK {
		t.Fatal(stderr)
	}
	// 503 and 302 fail; no answer on a connection that was used before is no attempt; 307 is followed; 429 is asked again later.
	if got := strings.Join(p.got(), "\n"); got != strings.Join([]string{want[0], want[0], want[0], want[0], want[1], want[1], want[2], want[2]}, "\n") {
		t.Errorf("calls:\n%s", got)
	}
	var calls []told
	for d := json.NewDecoder(strings.NewReader(stdout)); d.More(); {
		var call told
		if err := d.Decode(&call); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
	}
	if len(calls) != 6 || calls[0].Status != 503 || calls[2].Status != 200 || calls[2].Attempt != 3 || calls[2].Then != "" || calls[5].Status != 204 {
		t.Fatalf("%+v", calls)
	}
	if !strings.HasPrefix(calls[4].Then, "again in 1s") {
		t.Errorf("Retry-After: %+v", calls[4])
	}
	if last := calls[5].URI; !strings.Contains(stderr, "3 items forwarded; to go on: --from "+last) {
		t.Error(stderr)
	}
	for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		if p.headers[0].Get(name) == "" || name == "Webhook-Id" && p.headers[0].Get(name) != p.headers[3].Get(name) {
			t.Errorf("%s: %q, %q", name, p.headers[0].Get(name), p.headers[3].Get(name))
		}
	}
	p = newProgram(t)
	c.ok("webhook", "listen", "beans", "--forward", p.url, "--from", calls[0].URI, "--payload", "items", "--max", "2")
	if got := p.got(); len(got) != 2 || !strings.Contains(got[0], `"body":"item 1"`) || !strings.Contains(got[1], `"body":"item 2"`) {
		t.Errorf("%q", got)
	}
	p = newProgram(t)
	c.ok("webhook", "listen", "beans", "--forward", p.url, "--from", "previous", "--payload", "cloudevents", "--max", "1")
	if got := p.got(); len(got) != 1 || got[0] != "item 2" || p.headers[0].Get("Ce-Specversion") != "1.0" || p.headers[0].Get("Content-Type") != "text/plain" {
		t.Errorf("%q %v", got, p.headers)
	}
}

func TestListenEnds(t *testing.T) {
	c := cli{t, startHub(t)}
	c.ok("channel", "create", "beans")
	for i := range 2 {
		c.run(fmt.Sprint(i), "put", "beans", "-")
	}
	listen := func(p *program, more ...string) []string {
		return append([]string{"webhook", "listen", "beans", "--forward", p.url, "--from", "earliest", "--first-wait", "2ms"}, more...)
	}
	p := newProgram(t, 500, 500, 500, 200)
	if out := c.ok(listen(p, "--max-attempts", "3", "--max", "2")...); !strings.Contains(out, "(attempt 3, given up)") || !strings.Contains(out, "200 OK") || len(p.got()) != 4 {
		t.Errorf("%s %q", out, p.got())
	}
	p = newProgram(t, 200, 410)
	code, _, stderr := c.run("", listen(p)...)
	if code != exitRefused || !strings.Contains(stderr, "410") || !strings.Contains(stderr, "1 item forwarded") || len(p.got()) != 2 {
		t.Errorf("410: exit %d, %s", code, stderr)
	}
	p = newProgram(t)
	_, errs, end := c.begin(listen(p)...)
	until(t, "both", func() bool { return len(p.got()) == 2 })
	c.run("later", "put", "beans", "-")
	until(t, "the one that came", func() bool { return len(p.got()) == 3 })
	time.Sleep(time.Millisecond) // an interruption within the call is as good
	if code := end(); code != exitInterrupted || !strings.Contains(errs.String(), "to go on: --from") {
		t.Errorf("exit %d, %s", code, errs)
	}
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"beans"}, exitUsage, "--forward"},
		{[]string{"beans", "--forward", "localhost:3000"}, exitUsage, "--forward"},
		{[]string{"beans", "--forward", "http://x", "--payload", "all"}, exitUsage, "cloudevents"},
		{[]string{"beans", "--forward", "http://x", "--timeout", "0"}, exitUsage, "--timeout"},
		{[]string{"beans", "--forward", "http://x", "--max-attempts", "-1"}, exitUsage, "negative"},
		{[]string{"none", "--forward", "http://x"}, exitNotFound, "none"},
	} {
		if code, _, stderr := c.run("", append([]string{"webhook", "listen"}, bad.args...)...); code != bad.code || !strings.Contains(stderr, bad.says) {
			t.Errorf("%v: exit %d, %s", bad.args, code, stderr)
		}
	}
}

func TestListenPauses(t *testing.T) {
	l := &listener{first: 2 * time.Second, wait: time.Minute}
	for attempt, want := range map[int]time.Duration{1: 2 * time.Second, 2: 4 * time.Second, 5: 32 * time.Second, 6: time.Minute, 7: time.Minute, 1000: time.Minute} {
		for range 100 {
			if got := l.pause(attempt, 0); got < want/2 || got > want {
				t.Fatalf("after attempt %d: %v, want %v to %v", attempt, got, want/2, want)
			}
		}
	}
	if got := l.pause(1, 5*time.Second); got != 5*time.Second {
		t.Errorf("asked for 5 s: %v", got)
	}
	if got := l.pause(1, time.Hour); got != time.Minute {
		t.Errorf("asked for an hour: %v", got)
	}
}
