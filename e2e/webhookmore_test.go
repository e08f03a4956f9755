package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"timehub/e2e/hubproc"
)

// cpuOf is what a hub has computed so far, in hundredths of a second.
func cpuOf(t *testing.T, hub *hubproc.Hub) (ticks int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", hub.PID()))
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	for _, f := range strings.Fields(rest)[11:13] {
		var n int
		fmt.Sscan(f, &n)
		ticks += n
	}
	return ticks
}

// TestWebhookChannelGone: a channel that is deleted under its webhooks. They call no more and do not spin, say so in their status, and go on with the next
// channel of the name, of which they get everything and of the old one nothing.
func TestWebhookChannelGone(t *testing.T) {
	hub := start(t, "--set", quick)
	var deaf atomic.Bool
	to := newConsumer(t, func(w http.ResponseWriter, _ *http.Request, _ string, take func()) {
		if deaf.Load() {
			w.WriteHeader(503)
			return
		}
		take()
	})
	putChannel(t, hub.URL, "leaving", `{}`)
	var names []string
	for i, members := range []string{``, `, "parallelCalls": 4`, `, "batch": "SECOND"`, `, "payload": "items"`} {
		names = append(names, fmt.Sprint("leaving", i))
		putHook(t, hub, 201, names[i], "leaving", to.URL+"/"+names[i], members)
	}
	keys := insertEach(t, hub, "leaving", numbered(20)...)
	for _, name := range []string{names[0], names[1], names[3]} {
		settled(t, hub, name, keys[19])
	}
	deaf.Store(true)
	insertEach(t, hub, "leaving", numbered(20)...)
	must(t, 202, "DELETE", hub.URL+"/channel/leaving", nil)
	var calls int
	eventually(t, "silence", func() bool { // a call may be on its way
		before := to.called()
		time.Sleep(200 * time.Millisecond)
		calls = to.called()
		return calls == before
	})
	lines, busy := len(hub.Log()), cpuOf(t, hub)
	time.Sleep(2 * time.Second)
	if n := to.called() - calls; n > 0 {
		t.Errorf("%d calls for a channel that is gone", n)
	}
	if used := cpuOf(t, hub) - busy; used > 60 {
		t.Errorf("%d ms of CPU in 2 s for a channel that is gone", used*10)
	}
	if n := len(hub.Log()) - lines; n > 20_000 {
		t.Errorf("%d bytes of log in 2 s", n)
	}
	for _, name := range names {
		var s struct{ ChannelLatest *string }
		r := must(t, 200, "GET", hub.URL+"/webhook/"+name, nil)
		if err := json.Unmarshal(r.body, &s); err != nil || s.ChannelLatest == nil || *s.ChannelLatest != "" {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	deaf.Store(false)
	already := len(to.all())
	putChannel(t, hub.URL, "leaving", `{}`)
	keys = insertEach(t, hub, "leaving", numbered(20)...)
	for _, name := range []string{names[0], names[1], names[3]} {
		settled(t, hub, name, keys[19])
	}
	for _, d := range to.all()[already:] {
		if strings.Count(d.path, "/") > 5 && !slices.Contains(keys, d.path) {
			t.Errorf("%s of the channel that is gone was delivered", d.path)
		}
	}
}

// TestWebhookNeighbours: consumers that never answer, fail or read nothing hold up nobody but their own webhooks.
func TestWebhookNeighbours(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "neighbours", `{}`)
	bad := newConsumer(t, func(w http.ResponseWriter, r *http.Request, _ string, _ func()) {
		switch r.URL.Path {
		case "/never":
			<-r.Context().Done()
		case "/fail":
			w.WriteHeader(500)
		case "/circle":
			http.Redirect(w, r, "/circle", http.StatusTemporaryRedirect)
		}
	})
	for i := range 60 {
		path := []string{"never", "fail", "circle"}[i%3]
		putHook(t, hub, 201, fmt.Sprint(path, i), "neighbours", bad.URL+"/"+path, `, "parallelCalls": 5, "callbackTimeoutSeconds": 30`)
	}
	good := newConsumer(t, nil)
	putHook(t, hub, 201, "good", "neighbours", good.URL, "")
	keys := insertEach(t, hub, "neighbours", numbered(200)...)
	good.gets(t, keys)
	if s := hookStatus(t, hub.URL, "never0"); len(s.InFlight) == 0 {
		t.Errorf("%+v", s)
	}
	if err := hub.Stop(time.Minute); err != nil { // with a hundred calls that nobody answers
		t.Error(err)
	}
}

// TestWebhookAttempts: what was called is remembered over restarts, and what has failed can be delivered again.
func TestWebhookAttempts(t *testing.T) {
	hub := start(t, "--set", quick)
	putChannel(t, hub.URL, "attempts", `{}`)
	var well atomic.Bool
	to := newConsumer(t, func(w http.ResponseWriter, r *http.Request, path string, take func()) {
		if !well.Load() && strings.HasSuffix(r.URL.Path, "/fussy") && third(path) {
			w.WriteHeader(500)
			fmt.Fprint(w, "no, not ", path)
			return
		}
		take()
		fmt.Fprint(w, "thanks")
	})
	putHook(t, hub, 201, "fussy", "attempts", to.URL+"/fussy", `, "maxAttempts": 2`)
	keys := insertEach(t, hub, "attempts", numbered(30)...)
	settled(t, hub, "fussy", keys[29])
	type attempt struct {
		Key, Answer, Error string
		Number, Status     int
		Replay             bool
	}
	attempts := func(query string) []attempt {
		var a struct{ Attempts []attempt }
		r := must(t, 200, "GET", hub.URL+"/webhook/fussy/attempts"+query, nil)
		if err := json.Unmarshal(r.body, &a); err != nil {
			t.Fatal(err)
		}
		return a.Attempts
	}
	failed := 0
	for _, k := range keys {
		if third(k) {
			failed++
		}
	}
	check := func(when string) {
		if all, bad := attempts(""), attempts("?status=500"); len(all) != 30+failed || len(bad) != 2*failed {
			t.Errorf("%s: %d attempts, %d failed, of 30 items of which %d fail", when, len(all), len(bad), failed)
		}
		for n, a := range attempts("?key=" + keys[0]) {
			want := attempt{Key: keys[0], Answer: "thanks", Number: 1, Status: 200}
			if third(keys[0]) {
				want = attempt{Key: keys[0], Answer: "no, not " + keys[0], Number: 2 - n, Status: 500}
			}
			if a != want {
				t.Errorf("%s: %+v, want %+v", when, a, want)
			}
		}
	}
	check("at once")
	eventually(t, "the cursor is on the disk", func() bool { // or all of it is delivered again
		text, err := os.ReadFile(filepath.Join(hub.Dir, "coord.db"))
		return err == nil && bytes.Contains(text, []byte(`"key":"`+keys[29]))
	})
	putChannel(t, hub.URL, "attempts-2", `{}`)                  // what was being written when that was found there is committed now
	eventually(t, "the attempts are on the disk", func() bool { // they are a diary: what was not written yet may be lost
		there := 0
		files, err := filepath.Glob(filepath.Join(hub.Dir, "attempts", "*"))
		for _, f := range files {
			text, _ := os.ReadFile(f)
			there += bytes.Count(text, []byte("thanks")) + bytes.Count(text, []byte("no, not "))
		}
		return err == nil && there >= 30+failed
	})
	hub.Kill()
	client.CloseIdleConnections()
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	check("after kill -9")
	well.Store(true)
	before := len(to.all())
	eventually(t, "the webhook runs after the start", func() bool {
		r, err := call(t.Context(), "POST", hub.URL+"/webhook/fussy/replay", []byte(`{"failed": true}`), "Content-Type", "application/json")
		return err == nil && r.status == 202
	})
	eventually(t, "what had failed", func() bool { return len(to.all()) >= before+failed })
	for _, d := range to.all()[before:] {
		if !third(d.path) {
			t.Errorf("%s had not failed and came again", d.path)
		}
	}
	eventually(t, "attempts marked as replays", func() bool {
		again := 0
		for _, a := range attempts("?status=200") {
			if a.Replay {
				again++
			}
		}
		return again == failed
	})
}

// third chooses about a third of the paths, the same each time.
func third(path string) bool {
	sum := 0
	for _, c := range path {
		sum += int(c)
	}
	return sum%3 == 0
}
