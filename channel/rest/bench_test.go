package rest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"testing"

	"timehub/channel"
	"timehub/hub"
)

// sink is a ResponseWriter that keeps nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// mute is a short-term store that mints and forgets.
type mute struct{ *memShort }

func (m mute) Write(context.Context, string, []byte) (hub.Key, error) {
	_, key := m.minter.Mint()
	return key, nil
}

func request(method, path string, body io.Reader, n int64) *http.Request {
	r := &http.Request{Method: method, Host: "127.0.0.1:8080", RequestURI: path, URL: &url.URL{Path: path}, Header: http.Header{}, Body: http.NoBody}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(body), n
	}
	return r
}

func BenchmarkPost1KiB(b *testing.B) {
	w := newWorld(b, func(so *channel.Options, _ *Options) { so.Short = mute{so.Short.(*memShort)} })
	w.put("orders", "")
	body := bytes.Repeat([]byte(`{"n": 123456789, "s": "abcdefg"}`), 32)
	in := bytes.NewReader(nil)
	out := &sink{http.Header{}}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		in.Reset(body)
		clear(out.header)
		r := request("POST", "/channel/orders", in, int64(len(body)))
		r.Header["Content-Type"] = []string{"application/json"}
		w.rt.ServeHTTP(out, r)
	}
}

func BenchmarkGetItem(b *testing.B) {
	w := newWorld(b, nil)
	w.put("orders", "")
	path := w.post("orders", string(bytes.Repeat([]byte(`{"n": 123456789, "s": "abcdefg"}`), 32)), "Content-Type: application/json")
	out := &sink{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(out.header)
		w.rt.ServeHTTP(out, request("GET", path, nil, 0))
	}
}

func BenchmarkBulkRead(b *testing.B) {
	w := newWorld(b, nil)
	w.put("orders", "")
	body := string(bytes.Repeat([]byte(`{"n": 123456789, "s": "abcdefg"}`), 32))
	for range 1000 {
		w.post("orders", body)
	}
	out := &sink{http.Header{}}
	b.ReportAllocs()
	b.SetBytes(1000 * 1024)
	for b.Loop() {
		clear(out.header)
		r := request("GET", "/channel/orders/2021/03/04", nil, 0)
		r.URL.RawQuery = "bulk=true"
		w.rt.ServeHTTP(out, r)
	}
}
