package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func server(t *testing.T, handler http.HandlerFunc) string {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestLoadCounts: as many requests as asked for reach the server, and their bodies are counted, whether their length is told or not.
func TestLoadCounts(t *testing.T) {
	var seen, bytes atomic.Int64
	addr := server(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		bytes.Add(n)
		w.Header().Set("Location", "http://"+r.Host+"/x/1")
		w.WriteHeader(201)
		io.WriteString(w, "hello")
		if seen.Add(1)%2 == 0 {
			w.(http.Flusher).Flush() // chunked
			io.WriteString(w, strings.Repeat("x", 10_000))
		}
	})
	var count atomic.Int64
	o, err := load{addr: addr, conns: 4, request: post(addr, "/x", "text/plain", []byte("12345")), status: 201, requests: 100, count: &count}.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if seen.Load() != 100 || o.requests != 100 || count.Load() != 100 || len(o.times) != 100 || bytes.Load() != 500 || o.bytes != 100*5+50*10_000 {
		t.Errorf("%d seen, %d counted, %d times, %d bytes sent, %d read", seen.Load(), o.requests, len(o.times), bytes.Load(), o.bytes)
	}
	if o.location != "http://"+addr+"/x/1" {
		t.Errorf("location %q", o.location)
	}
}

// TestLoadWindow: only what lies within the window counts.
func TestLoadWindow(t *testing.T) {
	var seen atomic.Int64
	addr := server(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		time.Sleep(5 * time.Millisecond)
		io.WriteString(w, "ok")
	})
	for tries := 1; ; tries++ {
		seen.Store(0)
		o, err := load{addr: addr, conns: 2, request: get(addr, "/"), status: 200, warm: 200 * time.Millisecond, duration: 300 * time.Millisecond}.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if o.requests > seen.Load() || o.elapsed > 300*time.Millisecond {
			t.Errorf("%d of %d requests in %v", o.requests, seen.Load(), o.elapsed)
		}
		if 0 < o.requests && o.requests < seen.Load() {
			break
		}
		if tries == 10 { // a machine that stands still misses a part of it
			t.Fatalf("%d of %d requests count", o.requests, seen.Load())
		}
	}
}

// TestLoadFails: an answer that is not what was asked for ends the run with its text.
func TestLoadFails(t *testing.T) {
	addr := server(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no such thing", 404) })
	_, err := load{addr: addr, conns: 3, request: get(addr, "/"), status: 200, requests: 10}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("%v", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	slow := server(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, err := (load{addr: slow, conns: 1, request: get(slow, "/"), status: 200, requests: 1}).run(ctx); err == nil {
		t.Error("a load that is cancelled says nothing")
	}
}

func TestFigures(t *testing.T) {
	for want, got := range map[string]string{
		"1,234,567": thousands(1234567), "999": thousands(999), "1,000": thousands(1000),
		"0.70 ×": figure(0.7, "×"), "12,000/s": figure(12000, "/s"),
		"2": fmt.Sprint(median([]float64{3, 1, 2})), "2.5": fmt.Sprint(median([]float64{4, 1, 2, 3})),
		"99ms":                  percentile(upTo(100), 0.98).String(),
		"aim reached":           result{value: 0.9, must: 0.7, aim: 0.8}.verdict(),
		"**misses the must**":   result{value: 2.1, must: 2, aim: 1, atMost: true}.verdict(),
		"must holds, aim -10 %": result{value: 0.9, must: 0.7, aim: 1}.verdict(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := rate([]tick{{time.Unix(0, 0), 0}, {time.Unix(1, 0), 10}, {time.Unix(2, 0), 30}, {time.Unix(3, 0), 60}}, time.Unix(1, 0), time.Unix(3, 0)); got != 25 {
		t.Errorf("rate %v", got)
	}
}

func TestShare(t *testing.T) {
	for want, got := range map[string][]int{
		"[22 21 21]": {share(64, 3, 0), share(64, 3, 1), share(64, 3, 2)}, "[1 0 0]": {share(1, 3, 0), share(1, 3, 1), share(1, 3, 2)}, "[4]": {share(4, 1, 0)},
	} {
		if fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

func upTo(n int) []time.Duration {
	var d []time.Duration
	for i := range n {
		d = append(d, time.Duration(i+1)*time.Millisecond)
	}
	return d
}
