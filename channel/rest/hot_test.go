package rest

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestItemsReadAgainAndAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	w.put("x", "")
	same := strings.Repeat("the same ", 50)
	paths := map[string]string{w.post("x", same): same, w.post("x", strings.Repeat("b", 20<<10)): strings.Repeat("b", 20<<10)}
	for i := range 600 { // more than there are places
		body := strings.Repeat(fmt.Sprint("item ", i, " "), 30)
		paths[w.post("x", body)] = body
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 3 {
				for path, want := range paths {
					for range 2 {
						if r := w.get(path); r.body != want {
							t.Errorf("%s has the body %.40q, want %.40q", path, r.body, want)
						}
					}
				}
			}
		})
	}
	all.Wait()
	const path = "/channel/old/2020/05/05/01/02/03/004/abc"
	for _, body := range []string{strings.Repeat("first ", 40), strings.Repeat("other ", 40)} {
		w.want(w.do("POST", path, body), 201)
		for range 3 {
			if r := w.get(path); r.body != body {
				t.Errorf("a mutable item has the body %.20q, want %.20q", r.body, body)
			}
			if r := w.get(path, "Range: bytes=0-4"); r.body != body[:5] {
				t.Errorf("range %q", r.body)
			}
		}
	}
}

// TestHotHeaders compares the headers of hot items with those that are made anew: for whoever asks, in whatever way, whoever asked before.
func TestHotHeaders(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", `{"ttlDays":30}`)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	body := strings.Repeat("the same ", 50)
	path := w.post("x", body, "Content-Type: text/plain")
	const past = "/channel/old/2020/05/05/01/02/03/004/abc"
	cold := func() {
		for i := range w.h.hot.places {
			w.h.hot.places[i].kept.Store(nil)
			w.h.hot.places[i].seen.Store(0)
		}
	}
	type question struct{ method, target, header string }
	questions := []question{
		{"GET", path, ""}, {"GET", path + "?a=b", ""}, {"HEAD", path, ""}, {"GET", path, "Host: elsewhere:99"}, {"GET", path, "Accept-Encoding: gzip"},
		{"GET", path, "Accept-Encoding: zstd"}, {"GET", path, "X-Forwarded-Proto: https"}, {"GET", path, "Range: bytes=1-3"},
		{"GET", strings.Replace(path, "/03/04/", "/3/4/", 1), ""}, {"GET", past, ""},
	}
	for round, contentType := range []string{"text/plain", "text/html", "text/html"} {
		w.want(w.do("POST", past, body, "Content-Type: "+contentType), 201) // the same bytes: only the type tells
		for _, before := range questions {
			for _, q := range questions {
				cold()
				w.do(q.method, q.target, "", q.header)
				want := w.do(q.method, q.target, "", q.header)
				cold()
				for range 3 {
					w.do(before.method, before.target, "", before.header)
				}
				for range 3 {
					if got := w.do(q.method, q.target, "", q.header); got.code >= 300 || got.body != want.body || !reflect.DeepEqual(got.header, want.header) {
						t.Fatalf("round %d: %v after %v: %d %v, want %d %v", round, q, before, got.code, got.header, want.code, want.header)
					}
				}
			}
		}
		w.now = w.now.Add(time.Minute)
	}
	// Another type for the same bytes is seen.
	for range 3 {
		w.get(past)
	}
	w.want(w.do("POST", past, body, "Content-Type: text/css"), 201)
	if got := w.get(past).header.Get("Content-Type"); got != "text/css" {
		t.Errorf("Content-Type %s after the item became text/css", got)
	}
	// The time that is left is not kept.
	for range 3 {
		w.get(path)
	}
	first := w.get(path).header.Get("Cache-Control")
	w.now = w.now.Add(time.Second)
	if next := w.get(path).header.Get("Cache-Control"); next == first {
		t.Errorf("still %s a second later", next)
	}
}
