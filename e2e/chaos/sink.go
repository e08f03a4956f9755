package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink is the consumer of one webhook. It writes down each call, and now and then takes none, or takes one and does not say so.
type sink struct {
	proc, channel string
	rec           *Recorder
	nodes         []string // host:port, as Hub-Node tells

	mu   sync.Mutex // guards what follows
	rng  *rand.Rand
	calm bool   // nothing goes wrong any more
	last string // the greatest key that was taken
}

// newSink makes a consumer at the test's address; it ends with the test.
func newSink(t *testing.T, s *sink) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", Here+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return "http://" + l.Addr().String() + "/" + s.proc
}

// mood says what becomes of a call.
func (s *sink) mood() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calm {
		return 100
	}
	return s.rng.IntN(100)
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := Op{Proc: s.proc, Kind: Deliver, Channel: s.channel, Node: -1, Begin: s.rec.Now(), Path: r.URL.Path, Result: OK, Status: http.StatusOK}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the hub was killed
	}
	for i, n := range s.nodes {
		if n == r.Header.Get("Hub-Node") {
			op.Node = i
		}
	}
	var call struct {
		URIs []string `json:"uris"`
	}
	if err := json.Unmarshal(body, &call); err != nil {
		op.Error = err.Error()
	}
	for _, u := range call.URIs {
		op.Items = append(op.Items, Item{Key: keyOf(u)})
	}
	mood := s.mood()
	if mood < 2 {
		op.Result, op.Status = Fail, http.StatusInternalServerError
	}
	op.Silent = mood == 2
	op.End = s.rec.Now()
	s.rec.Add(op)
	s.mu.Lock()
	if n := len(op.Items); n > 0 && op.Result == OK {
		s.last = max(s.last, op.Items[n-1].Key)
	}
	s.mu.Unlock()
	if op.Silent {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
			return
		}
	}
	w.WriteHeader(op.Status)
}

func (s *sink) reached(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last >= key
}

// soothe lets it take everything from now on.
func (s *sink) soothe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calm = true
}

// hook makes a webhook with a consumer. The channel is empty, so it is sent everything.
func (r *Run) hook(channel string) {
	r.t.Helper()
	s := &sink{proc: "hook-" + channel, channel: channel, rec: r.rec, rng: rand.New(rand.NewPCG(r.rng.Uint64(), 3))}
	for _, h := range r.s.Hubs {
		s.nodes = append(s.nodes, h.Addr)
	}
	url := newSink(r.t, s)
	c := r.client("hooks", 20*time.Second)
	r.insist("make a webhook", func() error {
		return c.must(r.t.Context(), 0, "PUT", "/webhook/"+s.proc, fmt.Sprintf(`{"callbackUrl": %q, "channelUrl": "http://hub.example/channel/%s"}`, url, channel))
	})
	r.sinks = append(r.sinks, s)
}

// follow starts a client of each way to be told.
func (r *Run) follow(channel string) {
	for _, way := range []struct {
		name string
		how  func(*follower, context.Context) error
	}{{"events", events}, {"socket", socket}, {"poll", poll}} {
		r.followers = append(r.followers, &follower{client: r.client(way.name, 10*time.Second), channel: channel, how: way.how, last: r.start[channel]})
	}
	for i, f := range r.followers {
		f.at = i % len(r.s.Hubs)
		r.following.Go(func() { f.run(r.watching) })
	}
}

// told waits until everybody was told of the last items.
func (r *Run) told() {
	r.t.Helper()
	r.within(5*time.Minute+2*r.opt.Hold, "everybody is told of the last item", func() error {
		var late []string
		for _, f := range r.followers {
			if !f.reached(r.marker[f.channel]) {
				late = append(late, f.proc)
			}
		}
		for _, s := range r.sinks {
			s.soothe()
			if !s.reached(r.marker[s.channel]) {
				late = append(late, s.proc)
			}
		}
		if late != nil {
			return errors.New("not yet: " + strings.Join(late, ", "))
		}
		return nil
	})
}
