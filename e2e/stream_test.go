package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"timehub/e2e/hubproc"
)

// send makes one request and returns status, header and body.
func send(t *testing.T, method, url, contentType, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

func makeChannel(t *testing.T, h *hubproc.Hub, name, doc string) {
	t.Helper()
	if status, _, body := send(t, "PUT", h.URL+"/channel/"+name, "application/json", doc); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
}

// insert returns the address of an item.
func insert(t *testing.T, h *hubproc.Hub, name, contentType, body string) string {
	t.Helper()
	status, header, answer := send(t, "POST", h.URL+"/channel/"+name, contentType, body)
	if status != 201 {
		t.Fatalf("%d %s", status, answer)
	}
	return header.Get("Location")
}

func openWS(t *testing.T, h *hubproc.Hub, path string) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+h.Addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(time.Minute))
	return ws
}

// TestStreamRestarts: the hub is killed again and again while somebody writes and others follow, over a socket and over events, each going on from the
// last address that it saw. Each sees everything that was acknowledged, once, in order, from its past into the present.
func TestStreamRestarts(t *testing.T) {
	h := start(t)
	makeChannel(t, h, "stream", `{"storage": "BATCH"}`)
	const items, kills = 3000, 4
	first := insert(t, h, "stream", "text/plain", "0")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var mu sync.Mutex // guards acked
	acked := []string{}
	var readers, writer sync.WaitGroup
	done := make(chan struct{}) // closed when everything is written
	finished := func(got []string) bool {
		select {
		case <-done:
		default:
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		return len(got) > 0 && got[len(got)-1] == acked[len(acked)-1]
	}
	check := func(what string, got []string) {
		mu.Lock()
		defer mu.Unlock()
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%s: not in order, or twice", what)
		}
		seen := map[string]bool{}
		for _, u := range got {
			seen[u] = true
		}
		missing := 0
		for _, u := range acked {
			if !seen[u] {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%s: %d of %d items are missing", what, missing, len(acked))
		}
	}
	readers.Go(func() {
		last, got := first, []string{}
		for ctx.Err() == nil && !finished(got) {
			ws, _, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(last, "http")+"/ws", nil)
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			stop := context.AfterFunc(ctx, func() { ws.Close() })
			for !finished(got) {
				_ = ws.SetReadDeadline(time.Now().Add(time.Second))
				_, text, err := ws.ReadMessage()
				if err != nil {
					break
				}
				last = string(text)
				got = append(got, last)
			}
			stop()
			ws.Close()
		}
		check("socket", got)
	})
	readers.Go(func() {
		last, got := first, []string{}
		for ctx.Err() == nil && !finished(got) {
			r, err := http.NewRequestWithContext(ctx, "GET", h.URL+"/channel/stream/events", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Last-Event-ID", last)
			resp, err := (&http.Client{Transport: client.Transport}).Do(r)
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			if resp.StatusCode != 200 {
				time.Sleep(20 * time.Millisecond)
			}
			lines, id := bufio.NewScanner(resp.Body), ""
			for !finished(got) && lines.Scan() {
				switch line := lines.Text(); {
				case strings.HasPrefix(line, "id: "):
					id = line[4:]
				case line == "" && id != "": // an event that was cut off does not count
					last, id = id, ""
					got = append(got, last)
				}
			}
			resp.Body.Close()
		}
		check("events", got)
	})
	writer.Go(func() {
		defer close(done)
		for i := 1; i <= items && ctx.Err() == nil; {
			resp, err := client.Post(h.URL+"/channel/stream", "text/plain", strings.NewReader(fmt.Sprint(i)))
			if err != nil || resp.StatusCode != 201 {
				if err == nil {
					resp.Body.Close()
				}
				time.Sleep(10 * time.Millisecond)
				continue
			}
			resp.Body.Close()
			mu.Lock()
			acked = append(acked, resp.Header.Get("Location"))
			mu.Unlock()
			i++
			if i%100 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
	for range kills {
		time.Sleep(200*time.Millisecond + rand.N(300*time.Millisecond))
		h.Kill()
		if err := h.Start(); err != nil {
			t.Fatal(err)
		}
	}
	writer.Wait()
	readers.Wait()
	if ctx.Err() != nil {
		t.Error("not done in time")
	}
}

// TestStreamStop: an orderly stop is not held up by those who follow or wait; each is told.
func TestStreamStop(t *testing.T) {
	h := start(t)
	makeChannel(t, h, "stop", `{"tags": ["t"]}`)
	ws := openWS(t, h, "/channel/stop/ws")
	var ends sync.WaitGroup
	for _, path := range []string{"/channel/stop/events", "/tag/t/events"} {
		resp, err := client.Get(h.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		ends.Go(func() {
			text, err := io.ReadAll(resp.Body)
			if err != nil || !strings.HasSuffix(string(text), ": the hub is going away\n\n") {
				t.Errorf("%s ends with %q, %v", path, text[max(0, len(text)-100):], err)
			}
		})
	}
	waiting := make(chan struct{})
	ends.Go(func() {
		close(waiting)
		if status, _, body := send(t, "GET", h.URL+"/channel/stop/latest?wait=60", "", ""); status != 404 {
			t.Errorf("a request that waits: %d %s", status, body)
		}
	})
	<-waiting
	time.Sleep(300 * time.Millisecond)
	if err := h.Stop(30 * time.Second); err != nil {
		t.Error(err)
	}
	var e *websocket.CloseError
	if _, _, err := ws.ReadMessage(); !errors.As(err, &e) || e.Code != websocket.CloseGoingAway {
		t.Errorf("the socket ends with %v", err)
	}
	ends.Wait()
}

// TestStreamDeleted: all who follow or wait learn that the channel is gone; of a tag the others go on.
func TestStreamDeleted(t *testing.T) {
	h := start(t)
	makeChannel(t, h, "gone", `{"tags": ["t"]}`)
	makeChannel(t, h, "stays", `{"tags": ["t"]}`)
	ws, tag := openWS(t, h, "/channel/Gone/ws"), openWS(t, h, "/tag/t/ws")
	resp, err := client.Get(h.URL + "/channel/gone/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	waits := make(chan int, 1)
	go func() {
		status, _, _ := send(t, "GET", h.URL+"/channel/gone/latest?wait=60", "", "")
		waits <- status
	}()
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	if status, _, body := send(t, "DELETE", h.URL+"/channel/gone", "", ""); status != 202 {
		t.Fatalf("%d %s", status, body)
	}
	var e *websocket.CloseError
	if _, _, err := ws.ReadMessage(); !errors.As(err, &e) || e.Code != 4404 || e.Text != "channel gone was deleted" {
		t.Errorf("the socket ends with %v", err)
	}
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(text), ": channel gone was deleted\n\n") {
		t.Errorf("events end with %q, %v", text, err)
	}
	if status := <-waits; status != 404 {
		t.Errorf("who waits gets %d", status)
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("told after %v", d)
	}
	if want := insert(t, h, "stays", "", "x"); true {
		if _, text, err := tag.ReadMessage(); err != nil || string(text) != want+"?tag=t" {
			t.Errorf("the tag: %q, %v", text, err)
		}
	}
}

// TestStreamFixed: with a number of stable seconds nothing comes before it is stable, and what was inserted before the connection does not come.
func TestStreamFixed(t *testing.T) {
	h := start(t, "--set", "app.stable_seconds=2")
	makeChannel(t, h, "fixed", `{}`)
	insert(t, h, "fixed", "", "before")
	ws := openWS(t, h, "/channel/fixed/ws")
	began := time.Now()
	want := insert(t, h, "fixed", "", "after")
	status, header, _ := send(t, "GET", h.URL+"/channel/fixed/latest?wait=30", "", "") // before: it is the first to be stable
	if d := time.Since(began); status != 303 || d < 900*time.Millisecond {
		t.Errorf("latest: %d %s after %v", status, header.Get("Location"), d)
	}
	if _, text, err := ws.ReadMessage(); err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("after %v", d)
	}
}
