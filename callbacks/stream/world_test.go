package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"timehub/channel"
	"timehub/channel/channeltest"
	"timehub/channel/feed"
	"timehub/channel/rest"
	"timehub/hub"
	"timehub/hub/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a hub with stores in memory, on a real port.
type world struct {
	t     *testing.T
	short *channeltest.Short
	long  *channeltest.Long
	svc   *channel.Service
	s     *Server
	addr  string
	leave context.CancelFunc

	mu      sync.Mutex // guards what follows
	changed [2]map[string]bool
	wakes   [2]chan struct{}
}

const sockBuffer = 8 << 10 // of the kernel, for each connection: a client that stops reading is noticed soon

func newWorld(t *testing.T, edit func(*Options)) *world {
	t.Helper()
	w := &world{t: t, short: channeltest.NewShort(time.Now), long: channeltest.NewLong()}
	for i := range w.wakes {
		w.wakes[i], w.changed[i] = make(chan struct{}, 1), map[string]bool{}
	}
	var err error
	w.svc, err = channel.New(channel.Options{Short: w.short, Long: w.long, Catalog: channeltest.NewCatalog(), Horizon: hub.Horizon{Auto: true}, LargeBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	feeds, err := feed.NewShared(feed.SharedOptions{Source: w.svc, Channels: w.svc, Horizon: hub.Horizon{Auto: true}, Configs: w.news(0), Keys: w.news(1)})
	if err != nil {
		t.Fatal(err)
	}
	var stopping context.Context
	stopping, w.leave = context.WithCancel(context.Background())
	o := Options{Channels: w.svc, Feeds: feeds, Stopping: stopping}
	if edit != nil {
		edit(&o)
	}
	if w.s, err = New(o); err != nil {
		t.Fatal(err)
	}
	face, err := rest.New(rest.Options{Service: w.svc, Verbs: w.s.Verbs()})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := web.New(web.Options{Node: "n1:8080"})
	if err != nil {
		t.Fatal(err)
	}
	face.Mount(rt)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	server := &http.Server{Handler: rt}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(thin{l}) })
	wg.Go(func() { _ = feeds.Run(ctx) })
	wg.Go(func() { _ = w.s.Run(ctx) })
	t.Cleanup(func() {
		w.leave()
		down, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(down); err != nil {
			t.Errorf("the server does not stop: %v", err)
		}
		stop()
		wg.Wait()
		if n := w.open(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return w
}

// thin gives connections small buffers.
type thin struct{ net.Listener }

func (l thin) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(sockBuffer)
	}
	return thinConn{c}, err
}

// thinConn hides what else a connection can do.
type thinConn struct{ net.Conn }

// dial connects with small buffers.
func (w *world) dial() net.Conn {
	w.t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, sockBuffer)
		})
	}}
	c, err := d.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) news(kind int) feed.News {
	return func() (<-chan struct{}, func() []string, func()) {
		drain := func() (names []string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for n := range w.changed[kind] {
				names = append(names, n)
			}
			clear(w.changed[kind])
			return names
		}
		return w.wakes[kind], drain, func() {}
	}
}

func (w *world) tell(kind int, name string) {
	w.mu.Lock()
	w.changed[kind][name] = true
	w.mu.Unlock()
	select {
	case w.wakes[kind] <- struct{}{}:
	default:
	}
}

func (w *world) open() int {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return len(w.s.conns)
}

// put makes a channel with tags.
func (w *world) put(name string, tags ...string) {
	w.t.Helper()
	if _, err := w.svc.CreateChannel(w.t.Context(), patch(w.t, fmt.Sprintf(`{"name": %q, "tags": ["%s"]}`, name, strings.Join(append(tags, "all"), `","`))), channel.Caller{}); err != nil {
		w.t.Fatal(err)
	}
	w.tell(0, hub.ChannelID(name))
}

func patch(t *testing.T, text string) channel.ChannelPatch {
	t.Helper()
	p, err := channel.ParsePatch([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := w.svc.DeleteChannel(w.t.Context(), name, channel.Caller{}); err != nil {
		w.t.Fatal(err)
	}
	w.tell(0, hub.ChannelID(name))
}

// post inserts an item and returns its key.
func (w *world) post(name, contentType, body string) hub.Key {
	w.t.Helper()
	ch, err := w.svc.Channel(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	k, err := w.svc.Insert(w.t.Context(), ch, channel.Upload{ContentType: contentType, Body: []byte(body)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.tell(1, ch.Name)
	return k
}

func (w *world) url(name string, k hub.Key) string {
	return "http://" + w.addr + "/channel/" + name + "/" + k.String()
}

// client is a websocket.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func (w *world) ws(path string) client {
	w.t.Helper()
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return w.dial(), nil }}
	ws, resp, err := d.Dial("ws://"+w.addr+path, nil)
	if err != nil {
		w.t.Fatalf("%s: %v, %v", path, err, resp)
	}
	w.t.Cleanup(func() { ws.Close() })
	ws.SetPingHandler(func(m string) error { // its own gives up after a second
		return ws.WriteControl(websocket.PongMessage, []byte(m), time.Now().Add(patience))
	})
	return client{w.t, ws}
}

const patience = time.Minute // of tests

// next reads a text message.
func (c client) next() (string, error) {
	_ = c.ws.SetReadDeadline(time.Now().Add(patience))
	kind, text, err := c.ws.ReadMessage()
	if err == nil && kind != websocket.TextMessage {
		err = fmt.Errorf("a message of kind %d", kind)
	}
	return string(text), err
}

func (c client) want(texts ...string) {
	c.t.Helper()
	for i, want := range texts {
		if got, err := c.next(); err != nil || got != want {
			c.t.Fatalf("message %d is %q, %v; want %q", i, got, err, want)
		}
	}
}

// silent wants nothing for a while; the socket is of no use afterwards.
func (c client) silent() {
	c.t.Helper()
	_ = c.ws.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, text, err := c.ws.ReadMessage()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		c.t.Fatalf("%q, %v; want silence", text, err)
	}
}

// closed wants the end.
func (c client) closed(code int, contains string) {
	c.t.Helper()
	_, err := c.next()
	var e *websocket.CloseError
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Text, contains) {
		c.t.Fatalf("ended with %v; want code %d and %q", err, code, contains)
	}
}

// source is a stream of events that a client reads.
type source struct {
	t    *testing.T
	head http.Header
	body *bufio.Reader
	conn net.Conn
}

// events opens a stream; lines are more headers.
func (w *world) events(path string, lines ...string) *source {
	w.t.Helper()
	c := w.dial()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, w.addr, strings.Join(append(lines, ""), "\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		w.t.Fatalf("%s: %v, %v", path, resp, err)
	}
	return &source{w.t, resp.Header, bufio.NewReader(resp.Body), c}
}

// event is one event as a client sees it, by the rules of the HTML standard: a parser of its own.
type event struct{ kind, id, data string }

// next reads up to the next event; comments are gathered. It ends with the stream.
func (s *source) next() (e event, comments []string, err error) {
	var data []string
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			return e, comments, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			e.data = strings.Join(data, "\n")
			return e, comments, nil
		case line == "":
			e = event{id: e.id}
		case name == "":
			comments = append(comments, value)
		case name == "event":
			e.kind = value
		case name == "id":
			e.id = value
		case name == "data":
			data = append(data, value)
		case name == "retry":
			comments = append(comments, "retry "+value)
		}
	}
}

func (s *source) want(events ...event) {
	s.t.Helper()
	for i, want := range events {
		if got, _, err := s.next(); err != nil || got != want {
			s.t.Fatalf("event %d is %+v, %v; want %+v", i, got, err, want)
		}
	}
}
