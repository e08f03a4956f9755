package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// delivery is one call that the consumer has taken: it was about to answer 2xx.
type delivery struct {
	path   string // key path, or period path
	at     time.Time
	header http.Header
	body   []byte
}

// consumer is the other end of webhooks: a server in the test process.
type consumer struct {
	*httptest.Server
	// answer answers a call; take is to be called before the hub can know that it was taken. nil: everything is taken.
	answer func(w http.ResponseWriter, r *http.Request, path string, take func())

	mu    sync.Mutex
	taken []delivery
	calls int
	other []string // requests that are no POST
}

func newConsumer(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, path string, take func())) *consumer {
	t.Helper()
	c := &consumer{answer: answer}
	c.Server = httptest.NewServer(c)
	t.Cleanup(func() {
		c.CloseClientConnections()
		c.Close()
		if len(c.other) > 0 {
			t.Errorf("the consumer was sent more than POSTs: %v", c.other)
		}
	})
	return c
}

func (c *consumer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the hub was killed
	}
	var p struct {
		ID   string   `json:"id"`
		URIs []string `json:"uris"`
	}
	json.Unmarshal(body, &p)
	path := p.ID
	if id := r.Header.Get("Ce-Id"); id != "" {
		path = id
	} else if path == "" && len(p.URIs) == 1 {
		path = keyOf(p.URIs[0])
	}
	c.mu.Lock()
	c.calls++
	if r.Method != http.MethodPost {
		c.other = append(c.other, r.Method+" "+r.URL.Path)
	}
	c.mu.Unlock()
	take := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.taken = append(c.taken, delivery{path, time.Now(), r.Header.Clone(), body})
	}
	if c.answer == nil {
		take()
		return
	}
	c.answer(w, r, path, take)
}

// all are the deliveries so far, in the order in which they came.
func (c *consumer) all() []delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken[:len(c.taken):len(c.taken)]
}

// called is how many calls came, taken or not.
func (c *consumer) called() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// within is how many deliveries came within the last d.
func (c *consumer) within(d time.Duration) int {
	n := 0
	for _, last := range slices.Backward(c.all()) {
		if time.Since(last.at) > d {
			break
		}
		n++
	}
	return n
}

// firsts are the paths in the order in which each came first, and how many deliveries came beside.
func firsts(all []delivery) (paths []string, again []delivery) {
	seen := map[string]bool{}
	for _, d := range all {
		if seen[d.path] {
			again = append(again, d)
			continue
		}
		seen[d.path] = true
		paths = append(paths, d.path)
	}
	return paths, again
}

// eventually waits for something that must come; how long that takes is not what is tested.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("this never came: %s", what)
}

// badConsumer fails in every way that a consumer can. It follows a shuffled deck, so that every way comes, and those that take long come seldom.
type badConsumer struct {
	pace time.Duration // what taking takes

	mu    sync.Mutex
	rng   *rand.Rand
	cards []string
	slow  map[string]int // how often each of these may still come
	seen  map[string]int
}

// mischief is how many of 200 calls are treated in which way.
var mischief = map[string]int{
	"take": 150, "500": 6, "503": 4, "429": 2, "302": 1, "sent on": 3, "circle": 1, "reset": 6, "close": 5, "garbage": 3, "half a head": 3,
	"take and close": 8, "take and answer 10 GB": 1, "take and break off": 3, "never": 2, "trickle": 2,
}

func newBadConsumer(rng *rand.Rand, slow int) *badConsumer {
	return &badConsumer{rng: rng, slow: map[string]int{"never": slow, "trickle": slow}, seen: map[string]int{}}
}

func (b *badConsumer) next() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if len(b.cards) == 0 {
			for what, n := range mischief {
				for range n {
					b.cards = append(b.cards, what)
				}
			}
			b.rng.Shuffle(len(b.cards), func(i, j int) { b.cards[i], b.cards[j] = b.cards[j], b.cards[i] })
		}
		what := b.cards[0]
		b.cards = b.cards[1:]
		if left, isSlow := b.slow[what]; isSlow {
			if left == 0 {
				continue
			}
			b.slow[what]--
		}
		b.seen[what]++
		return what
	}
}

// check logs what it did, and fails the test when some way never came.
func (b *badConsumer) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for what := range mischief {
		if b.seen[what] == 0 {
			t.Errorf("the consumer never did this: %s", what)
		}
	}
	t.Logf("the consumer: %v", b.seen)
}

func (b *badConsumer) answer(w http.ResponseWriter, r *http.Request, _ string, take func()) {
	switch r.URL.Path {
	case "/circle":
		w.Header().Set("Location", "/circle")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	case "/end":
		take()
		return
	}
	what := b.next()
	switch what {
	case "take":
		time.Sleep(b.pace)
		take()
	case "500", "503", "429":
		w.Header().Set("Retry-After", "0")
		var status int
		fmt.Sscan(what, &status)
		w.WriteHeader(status)
	case "302":
		http.Redirect(w, r, "/end", http.StatusFound)
	case "sent on":
		http.Redirect(w, r, "/end", http.StatusPermanentRedirect)
	case "circle":
		http.Redirect(w, r, "/circle", http.StatusTemporaryRedirect)
	case "never":
		<-r.Context().Done()
	default:
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		b.talk(what, conn, take)
	}
}

// talk does what an HTTP server would not.
func (b *badConsumer) talk(what string, conn net.Conn, take func()) {
	conn.SetDeadline(time.Now().Add(time.Minute))
	switch what {
	case "reset":
		conn.(*net.TCPConn).SetLinger(0)
	case "close":
	case "garbage":
		io.WriteString(conn, "220 smtp.example ESMTP\r\n\r\n")
	case "half a head":
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-")
	case "take and close":
		take()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	case "take and break off":
		take()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
	case "take and answer 10 GB":
		take()
		io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 10000000000\r\n\r\n")
		for block := []byte(strings.Repeat("g", 1<<16)); ; {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	case "trickle":
		io.WriteString(conn, "HTTP/1.1 200 ")
		for {
			time.Sleep(time.Second)
			if _, err := io.WriteString(conn, "O"); err != nil {
				return
			}
		}
	}
}
