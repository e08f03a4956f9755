package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"timehub/hub"
)

func TestReadEvents(t *testing.T) {
	const k = "2021/03/04/05/06/07/089/aZ3k9Q"
	id := "id: http://h/channel/c/" + k + "\n"
	long := strings.Repeat("x", 3*maxEventLine)
	for _, c := range []struct {
		in   string
		want string // k for a key, h for a heartbeat
		err  error
	}{
		{"", "", io.ErrUnexpectedEOF},
		{": \n\n: \n\n", "hh", io.ErrUnexpectedEOF},
		{"event: text/plain\n" + id + "data: x\n\n", "k", io.ErrUnexpectedEOF},
		{strings.ReplaceAll("event: a\n"+id+"data: x\n\n: \n\n", "\n", "\r\n"), "kh", io.ErrUnexpectedEOF},
		{id + "data: " + long + "\ndata: id: 3\n\n" + id + "data:\n\n", "kk", io.ErrUnexpectedEOF},
		{"data: " + long[:maxEventLine-6] + id + "\n" + strings.Repeat("x", maxEventLine) + "\n\n", "", io.ErrUnexpectedEOF},
		{id + "data: cut", "", io.ErrUnexpectedEOF},
		{"retry: 1000\n\n" + id + "\n", "k", io.ErrUnexpectedEOF},
		{"\n\n\n", "", io.ErrUnexpectedEOF},
		{"id: 17\n\n", "", nil},
		{long + ": x\n\n", "", io.ErrUnexpectedEOF},
	} {
		got := ""
		err := readEvents(strings.NewReader(c.in), func(key hub.Key) bool {
			switch key.String() {
			case k:
				got += "k"
			default:
				got += "h"
			}
			return true
		})
		if got != c.want || err == nil || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%.60q: %q, %v; want %q, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("event: a\nid: /channel/c/2021/03/04/05/06/07/089/x\ndata: 1\ndata: 2\n\n: \n\n")
	f.Add(": \r\n\r\nid:\n\n")
	f.Fuzz(func(t *testing.T, in string) {
		n := 0
		err := readEvents(strings.NewReader(in), func(hub.Key) bool { n++; return true })
		if err == nil || n > strings.Count(in, "\n") {
			t.Errorf("%d events, %v", n, err)
		}
	})
}

func TestEvents(t *testing.T) {
	key := hub.NewKey(time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC), "aZ3k9Q")
	answer := func(w http.ResponseWriter, r *http.Request) {}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer s.Close()
	c, err := New(Options{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	answer = func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("Last-Event-ID"); r.URL.Path != "/channel/c/events" || id != s.URL+"/channel/c/"+key.String() {
			t.Errorf("%s %q", r.URL, id)
		}
		w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
		fmt.Fprintf(w, "id: %s/channel/c/%s\ndata: x\n\n", s.URL, key)
	}
	var got []hub.Key
	var failed error
	for k, err := range c.Events(t.Context(), "c", key) {
		if failed = err; err == nil {
			got = append(got, k)
		}
	}
	if len(got) != 1 || got[0] != key || !errors.Is(failed, io.ErrUnexpectedEOF) || errors.Is(failed, ErrNoEvents) {
		t.Errorf("%v, %v", got, failed)
	}
	for status, none := range map[int]bool{200: true, 303: true, 404: true, 405: true, 410: true, 500: false, 503: false} {
		answer = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }
		for _, err := range c.Events(t.Context(), "c", hub.Key{}) {
			if err == nil || errors.Is(err, ErrNoEvents) != none {
				t.Errorf("%d: %v", status, err)
			}
		}
	}
}

func TestStable(t *testing.T) {
	text := `{"now":{"millis":1614834367089},"stable":{"iso8601":"2021-03-04T05:06:02.000Z","millis":1614834362000}}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) }))
	defer s.Close()
	c, err := New(Options{URL: s.URL, Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if at, err := c.Stable(t.Context(), "c"); err != nil || !at.Equal(time.Date(2021, 3, 4, 5, 6, 2, 0, time.UTC)) {
		t.Errorf("%v, %v", at, err)
	}
	for _, text = range []string{"<html>", "{}", `{"stable":{"millis":"x"}}`} {
		if at, err := c.Stable(t.Context(), "c"); err == nil {
			t.Errorf("%s: %v", text, at)
		}
	}
}
