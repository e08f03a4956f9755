package stream

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"timehub/hub"
)

// TestSocketStarts: each of the six addresses begins where it should, and a client that comes back goes on where it was.
func TestSocketStarts(t *testing.T) {
	w := newWorld(t, nil)
	w.put("Orders")
	a := w.post("orders", "text/plain", "a")
	b := w.post("orders", "text/plain", "b")
	day := a.Time().Format("2006/01/02")
	all := []hub.Key{a, b}
	tomorrow := a.Time().Add(48 * time.Hour).Format("/2006/01/02/ws")
	for path, from := range map[string]int{
		"/" + day + "/ws": 0, a.Time().Format("/2006/01/02/15/ws"): 0, a.Time().Format("/2006/01/02/15/04/ws"): 0, a.Time().Format("/2006/01/02/15/04/05/ws"): 0,
		"/" + a.String() + "/ws": 1, "/" + b.String() + "/ws": 2, "/ws": -1, tomorrow: -1,
	} {
		if from < 0 {
			from = len(all)
		}
		socket := w.ws("/channel/oRDers" + path)
		for _, k := range all[from:] {
			socket.want(w.url("oRDers", k))
		}
		all = append(all, w.post("orders", "text/plain", "d"))
		last := all[len(all)-1]
		if path == tomorrow {
			socket.silent()
			continue
		}
		socket.want(w.url("oRDers", last))
		before := all[len(all)-2]
		w.ws("/channel/orders/" + before.String() + "/ws").want(w.url("orders", last))
	}
	// What a proxy says is not considered; the authority that the client named is.
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return w.dial(), nil }}
	ws, _, err := d.Dial("ws://hub.example/channel/orders/"+day+"/ws", http.Header{"X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"https"}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	client{t, ws}.want("http://hub.example/channel/orders/" + a.String())
}

// TestSocketTag: a tag has sockets too.
func TestSocketTag(t *testing.T) {
	w := newWorld(t, nil)
	w.put("a", "x:y")
	w.put("b", "x:y")
	socket := w.ws("/tag/x:y/ws")
	a, b := w.post("a", "", "1"), w.post("b", "", "2")
	socket.want(w.url("a", a)+"?tag=x%3Ay", w.url("b", b)+"?tag=x%3Ay")
	w.remove("a")
	c := w.post("b", "", "3")
	socket.want(w.url("b", c) + "?tag=x%3Ay")
	w.ws("/tag/x:y/" + b.String() + "/ws").want(w.url("b", c) + "?tag=x%3Ay")
}

func TestSocketBodies(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c")
	socket := w.ws("/channel/c/ws?payload=items")
	for _, c := range []struct{ contentType, body, member, want string }{
		{"text/plain", "a\r\nb\u2028\"\\\x00", "body", "a\r\nb\u2028\"\\\x00"},
		{"application/json", `{"a": [1, "ü"]}`, "body", `{"a": [1, "ü"]}`},
		{"", "no type", "body", "no type"},
		{"application/vnd.x+json", "{}", "body", "{}"},
		{"application/x-thing", "words\n", "body", "words\n"},
		{"application/x-thing", "words\r\n", "bodyBase64", "d29yZHMNCg=="},
		{"text/plain", "\xff\xfe", "bodyBase64", "//4="},
		{"image/png", "\x89PNG\r\n\x1a\n", "bodyBase64", "iVBORw0KGgo="},
		{"text/plain", "é"[:1], "bodyBase64", "ww=="},
		{"text/plain", strings.Repeat("long ", 100_000), "body", strings.Repeat("long ", 100_000)},
		{"image/png", strings.Repeat("\x00", 300_000), "bodyBase64", base64.StdEncoding.EncodeToString(make([]byte, 300_000))},
	} {
		k := w.post("c", c.contentType, c.body)
		text, err := socket.next()
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v in %.300q", err, text)
		}
		if len(got) != 3 || got["key"] != k.String() || got["contentType"] != c.contentType || got[c.member] != c.want {
			t.Errorf("%q of %q is %.200q", c.body[:min(len(c.body), 20)], c.contentType, text)
		}
	}
	big := w.post("c", "video/mp4", strings.Repeat("x", 2<<20)) // large
	socket.want(fmt.Sprintf(`{"key":%q,"contentType":"video/mp4","size":%d,"bodyUrl":%q}`, big, 2<<20, w.url("c", big)))
}

// TestSocketRefused: what is wrong is said in HTTP, before the upgrade.
func TestSocketRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c")
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	whole := upgrade + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, c := range []struct {
		target, headers string
		status          int
		contains        string
	}{
		{"/channel/nope/ws", whole, 404, "nope"},
		{"/channel/nope/2021/01/02/ws", whole, 404, "nope"},
		{"/channel/c/ws", "", 404, "websocket"},
		{"/channel/c/2021/01/02/03/ws", "Upgrade: websocket\r\n", 404, "websocket"},
		{"/channel/c/ws", upgrade, 400, "version"},
		{"/channel/c/ws", upgrade + "Sec-WebSocket-Version: 13\r\n", 400, "Sec-WebSocket-Key"},
		{"/channel/c/ws", upgrade + "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400, "version"},
		{"/channel/c/ws?payload=all", whole, 400, "payload"},
		{"/channel/c/ws?slow=never", whole, 400, "slow"},
		{"/channel/c/2021/13/02/ws", whole, 400, "month"},
		{"/channel/c/2021/ws", whole, 404, ""},
		{"/channel/c/2021/01/02/03/04/05/006/ws", whole, 404, ""},
	} {
		conn := w.dial()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", c.target, c.headers)
		_ = conn.SetDeadline(time.Now().Add(patience))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.contains) {
			t.Errorf("%s with %q: %d %s", c.target, c.headers, resp.StatusCode, body)
		}
		conn.Close()
	}
}

// raw is a websocket without a library.
func (w *world) raw(path string) net.Conn {
	w.t.Helper()
	c := w.dial()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, w.addr)
	head := ""
	for b := make([]byte, 1); !strings.HasSuffix(head, "\r\n\r\n"); head += string(b) {
		if _, err := io.ReadFull(c, b); err != nil {
			w.t.Fatal(err)
		}
	}
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") || strings.Contains(head, "Extensions") {
		w.t.Fatalf("handshake: %s", head)
	}
	return c
}

// TestSocketMalformed: frames that break the protocol, or are huge, end their own socket with the right code, and nothing else.
func TestSocketMalformed(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c")
	good := w.ws("/channel/c/ws")
	masked := func(first byte, n uint64) []byte {
		f := []byte{first, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint64(f[2:], n)
		return f
	}
	for name, c := range map[string]struct {
		send []byte
		code int
	}{
		"not masked":         {[]byte{0x81, 1, 'x'}, 1002},
		"reserved bit":       {[]byte{0xc1, 0x81, 0, 0, 0, 0, 'x'}, 1002},
		"unknown opcode":     {[]byte{0x83, 0x80, 0, 0, 0, 0}, 1002},
		"long control":       {[]byte{0x89, 0xfe, 0x00, 0x80, 0, 0, 0, 0}, 1002},
		"fragmented control": {[]byte{0x09, 0x80, 0, 0, 0, 0}, 1002},
		"continues nothing":  {[]byte{0x80, 0x80, 0, 0, 0, 0}, 1002},
		"bad close code":     {[]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed}, 1002},
		"a terabyte":         {masked(0x81, 1<<40), 1009},
		"negative length":    {masked(0x82, 1<<63|5), 1009},
		"64 KiB and one":     {append(masked(0x81, clientFrame+1), make([]byte, 5000)...), 1009},
	} {
		conn := w.raw("/channel/c/ws")
		if _, err := conn.Write(c.send); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if head[0] != 0x88 || int(binary.BigEndian.Uint16(head[2:])) != c.code {
			t.Errorf("%s: answered % x, want a close with %d", name, head, c.code)
		}
		_, _ = io.Copy(io.Discard, conn) // it ends
		conn.Close()
	}
	// Fragments without an end count together.
	conn := w.raw("/channel/c/ws")
	part := append([]byte{0x01, 0xfe, 0x10, 0x00, 0, 0, 0, 0}, make([]byte, 4096)...)
	for range 40 {
		if _, err := conn.Write(part); err != nil {
			break
		}
		part[0] = 0
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err == nil && int(binary.BigEndian.Uint16(head[2:])) != 1009 {
		t.Errorf("endless fragments: % x", head)
	}
	conn.Close()
	// Cut off within a frame.
	conn = w.raw("/channel/c/ws")
	_, _ = conn.Write([]byte{0x81, 0xff, 0, 0})
	conn.Close()

	// Messages of a client mean nothing.
	for i := range 20 {
		_ = good.ws.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", i*1000)))
		_ = good.ws.WriteMessage(websocket.BinaryMessage, nil)
	}
	good.want(w.url("c", w.post("c", "", "still here")))
}

// TestSocketLife: the closing handshake is answered at once; pings are sent and answered; a client that is silent is dropped.
func TestSocketLife(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Ping, o.Beat = 50*time.Millisecond, 10*time.Millisecond })
	w.put("c")
	conn := w.raw("/channel/c/ws?slow=gap")
	if _, err := conn.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}); err != nil {
		t.Fatal(err)
	}
	for head := make([]byte, 4); ; {
		if _, err := io.ReadFull(conn, head[:2]); err != nil {
			t.Fatal(err)
		}
		if head[0] == 0x89 { // a ping that was on its way
			continue
		}
		if _, err := io.ReadFull(conn, head[2:]); err != nil || head[0] != 0x88 || binary.BigEndian.Uint16(head[2:]) != 1000 {
			t.Fatalf("% x, %v", head, err)
		}
		break
	}
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("not the end: %d, %v", n, err)
	}
	// Pinged, it answers, and lives.
	socket := w.ws("/channel/c/ws")
	pings, pongs := 0, 0
	pinged, heard := make(chan struct{}), make(chan struct{})
	answer := socket.ws.PingHandler()
	socket.ws.SetPingHandler(func(text string) error {
		if pings++; pings == deadPings+2 { // more than one who answers none would see
			close(pinged)
		}
		return answer(text)
	})
	socket.ws.SetPongHandler(func(string) error {
		if pongs++; pongs == 1 {
			close(heard)
		}
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer w.post("c", "", "x") // ends the wait below, whatever came
		late := time.After(patience / 2)
		select {
		case <-pinged:
		case <-late:
			return
		}
		_ = socket.ws.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(patience))
		select {
		case <-heard:
		case <-late:
		}
	})
	if _, err := socket.next(); err != nil || pings < deadPings+2 || pongs != 1 {
		t.Errorf("%d pings, %d pongs, %v", pings, pongs, err)
	}
	wg.Wait()
	// It does not answer.
	conn = w.raw("/channel/c/ws")
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("a dead client: %v", err)
	}
}

// TestSocketEnds: the client is told why.
func TestSocketEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c")
	w.put("d")
	one, two := w.ws("/channel/c/ws"), w.ws("/channel/D/ws")
	stuck := w.raw("/channel/d/ws")
	w.remove("c")
	one.closed(4404, "channel c was deleted")
	for range 2000 { // stuck does not read
		w.post("d", "", "x")
	}
	for range 2000 {
		if _, err := two.next(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	w.leave()
	two.closed(1001, "going away")
	for w.open() > 0 {
		if time.Since(began) > patience {
			t.Fatalf("%d sockets do not end", w.open())
		}
		time.Sleep(10 * time.Millisecond)
	}
	stuck.Close()
}
