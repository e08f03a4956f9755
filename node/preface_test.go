package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"timehub/hub/web"
)

// TestPreface sends the same bytes to two servers: what comes back is the same, whether the common lines go through the map of net/http or are
// written by the connection; only their order may differ.
func TestPreface(t *testing.T) {
	rt, err := web.New(web.Options{Node: "n1:8080", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("HTTP/1.1 200 OK\r\n\r\n", 10_000) // a body that looks like an answer
	answer := func(body string) web.Handler {
		return func(w http.ResponseWriter, _ *http.Request) error {
			web.Write(w, 200, "text/plain", []byte(body))
			return nil
		}
	}
	rt.Handle("GET", "/small", answer("small"))
	rt.Handle("GET", "/empty", answer(""))
	rt.Handle("GET", "/large", answer(large))
	rt.Handle("GET", "/known", func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(304); return nil })
	rt.Handle("GET", "/fails", func(http.ResponseWriter, *http.Request) error { return errors.New("no") })
	rt.Handle("GET", "/parts", func(w http.ResponseWriter, _ *http.Request) error {
		for range 3 {
			io.WriteString(w, large[:1900])
			w.(http.Flusher).Flush()
		}
		return nil
	})
	rt.Handle("GET", "/hints", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Link", "</x>")
		w.WriteHeader(http.StatusEarlyHints)
		_, err := io.WriteString(w, "hints")
		return err
	})
	rt.Handle("GET", "/other", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Server", "Other/1")
		w.Header()["Vary"] = nil
		_, err := io.WriteString(w, "other")
		return err
	})
	rt.Handle("GET", "/broken", func(w http.ResponseWriter, _ *http.Request) error {
		io.WriteString(w, large)
		return errors.New("half of it")
	})
	rt.Handle("GET", "/taken", func(w http.ResponseWriter, _ *http.Request) error {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Taken\r\nX-Taken: %s\r\n\r\nthe rest", w.Header().Get("Hub-Node"))
		return c.Close()
	})
	rt.Handle("POST", "/echo", func(w http.ResponseWriter, r *http.Request) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		web.Write(w, 201, "text/plain", b)
		return nil
	})
	rt.Handle("POST", "/unread", func(w http.ResponseWriter, r *http.Request) error {
		web.Write(w, 200, "text/plain", []byte("not read"))
		return nil
	})
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	const last = "GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	for name, sent := range map[string]string{
		"one":               last,
		"several":           get("/small") + get("/empty") + get("/large") + get("/small") + get("/nowhere") + get("/fails") + get("/known") + last,
		"parts":             get("/parts") + get("/parts") + last,
		"early hints":       get("/hints") + last,
		"other lines":       get("/other") + last,
		"HEAD":              "HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n" + "OPTIONS /small HTTP/1.1\r\nHost: x\r\n\r\n" + last,
		"compressed":        "GET /large HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n" + last,
		"old":               "GET /small HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /large HTTP/1.0\r\n\r\n",
		"continue":          "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + last,
		"continue unread":   "POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + last,
		"a body unread":     "POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + last,
		"broken off":        get("/small") + get("/broken"),
		"taken":             get("/small") + get("/taken"),
		"no HTTP after all": get("/small") + "nonsense\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var got [2][]byte
			for i, context := range []bool{false, true} {
				inner, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				s := &http.Server{Handler: rt}
				if context {
					s.ConnContext = web.ConnContext
				}
				served := make(chan error)
				go func() { served <- s.Serve(&stallListener{Listener: inner, limit: time.Minute}) }()
				c, err := net.Dial("tcp", inner.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := io.WriteString(c, sent); err != nil {
					t.Fatal(err)
				}
				got[i], _ = io.ReadAll(c) // a connection that is broken off may be reset
				c.Close()
				s.Close()
				<-served
			}
			want, have := answers(got[0]), answers(got[1])
			if len(got[0]) == 0 || !reflect.DeepEqual(want, have) {
				t.Errorf("%d and %d answers\nthrough the map %.1500q\nby the connection %.1500q", len(want), len(have), want, have)
			}
		})
	}
}

// answers takes a stream apart at the begins of answers' headers; the lines of each header become a set without dates and ids. Bodies stay what they are.
func answers(stream []byte) (all []any) {
	for len(stream) > 0 {
		header, rest, ok := bytes.Cut(stream, []byte("\r\n\r\n"))
		if !ok {
			return append(all, string(stream))
		}
		lines := strings.Split(string(header), "\r\n")
		set := map[string]int{"first: " + lines[0]: 1}
		for _, l := range lines[1:] {
			if strings.HasPrefix(lines[0], "HTTP/1.1 103") && !strings.HasPrefix(l, "Link: ") {
				continue // what is written ahead of an answer need not have the common lines
			}
			if !strings.HasPrefix(l, "Date: ") && !strings.HasPrefix(l, web.RequestID) {
				set[l]++
			}
		}
		all = append(all, set)
		stream = rest
	}
	return all
}

// TestInsertPartly: what the owner is told to have been written is what was of its own bytes.
func TestInsertPartly(t *testing.T) {
	const status, lines, rest = "HTTP/1.1 200 OK\r\n", "A: b\r\nC: d\r\n", "E: f\r\n\r\nbody"
	for room := range len(status) + len(lines) + len(rest) + 1 {
		l := &stallListener{limit: time.Minute}
		c := &stallConn{Conn: &narrow{room: room}, limit: time.Minute, made: time.Now(), rooms: &l.rooms}
		c.Preface([]byte(lines))
		n, err := c.Write([]byte(status + rest))
		want := min(room, len(status)) + max(0, room-len(status)-len(lines))
		if n != want || (err == nil) != (want == len(status+rest)) {
			t.Errorf("room for %d: %d, %v, want %d", room, n, err, want)
		}
	}
}

// narrow takes so many bytes, then fails.
type narrow struct {
	net.Conn
	room int
}

func (c *narrow) Write(p []byte) (int, error) {
	n := min(len(p), c.room)
	if c.room -= n; n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
func (c *narrow) SetWriteDeadline(time.Time) error { return nil }
