package stream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"timehub/hub"
)

func TestEventsFrames(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c")
	stream := w.events("/channel/c/events", "Accept-Encoding: gzip, zstd", "X-Forwarded-Host: proxy.example", "X-Forwarded-Proto: https")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "Content-Encoding": "", "X-Accel-Buffering": "no"} {
		if got := stream.head.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if line, err := stream.body.ReadString('\n'); err != nil || line != "retry: 2000\n" {
		t.Fatalf("begins with %q, %v", line, err)
	}
	long := strings.Repeat("line\r\n", 50_000)
	large := strings.Repeat("0123456789ü\r", 100_000)
	for _, c := range []struct{ contentType, body, kind, data string }{
		{"text/plain", "one", "text/plain", "one"},
		{"text/plain", "a\nb\r\nc\rd\n\r\n", "text/plain", "a\nb\nc\nd\n\n"},
		{"text/plain", "\n", "text/plain", "\n"},
		{"text/plain", " data: x\n: y\nid: 7", "text/plain", " data: x\n: y\nid: 7"},
		{"", "no type", "", "no type"},
		{"application/json", "{\"a\":\n1}", "application/json", "{\"a\":\n1}"},
		{"image/png", "\x89PNG\r\n\x1a\n", "image/png;base64", base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\n"))},
		{"", "\xff", "application/octet-stream;base64", "/w=="},
		{"application/x-thing", "plain words", "application/x-thing", "plain words"},
		{"application/x-thing", "a\rb", "application/x-thing;base64", "YQ1i"},
		{"text/plain", long, "text/plain", strings.ReplaceAll(long, "\r", "")},
		{"text/plain", large, "text/plain", strings.ReplaceAll(large, "\r", "\n")},
		{"text/plain", large + "\xff", "text/plain;base64", base64.StdEncoding.EncodeToString([]byte(large + "\xff"))},
		{"text/plain", long + "ü"[:1], "text/plain;base64", base64.StdEncoding.EncodeToString([]byte(long + "ü"[:1]))},
	} {
		k := w.post("c", c.contentType, c.body)
		got, _, err := stream.next()
		want := event{c.kind, "https://proxy.example/channel/c/" + k.String(), c.data}
		if err != nil || got != want {
			t.Errorf("%.40q of %q is %.200v, %v", c.body, c.contentType, got, err)
		}
	}
}

func TestEventsStarts(t *testing.T) {
	w := newWorld(t, nil)
	w.put("c", "t")
	w.put("d", "t")
	a, b := w.post("c", "", "a"), w.post("c", "", "b")
	c := w.post("c", "", "c")
	one := func(k hub.Key, data string) event { return event{"", w.url("c", k), data} }
	for i, s := range []struct {
		path, header string
		want         []event
	}{
		{a.String() + "/events", "", []event{one(b, "b"), one(c, "c")}},
		{"events", "Last-Event-ID: " + w.url("c", a), []event{one(b, "b"), one(c, "c")}},
		{c.String() + "/events", "Last-Event-ID: " + w.url("C", a), []event{one(b, "b"), one(c, "c")}},
		{"events", "last-event-id: https://elsewhere.example:99/hub/channel/c/" + a.String() + "?x=y", []event{one(b, "b"), one(c, "c")}},
		{"events", "Last-Event-ID: " + a.String(), []event{one(b, "b"), one(c, "c")}},
		{b.String() + "/events", "Last-Event-ID: " + w.url("other", a), []event{one(c, "c")}},
		{b.String() + "/events", "Last-Event-ID: 17", []event{one(c, "c")}},
		{b.String() + "/events", "Last-Event-ID: http://x/channel/c/2021/01/02", []event{one(c, "c")}},
		{"events", "Last-Event-ID: \x01 nonsense", nil},
		{"events", "", nil},
	} {
		var lines []string
		if s.header != "" && !strings.Contains(s.header, "\x01") {
			lines = append(lines, s.header)
		}
		stream := w.events("/channel/c/"+s.path, lines...)
		stream.want(s.want...)
		if i == 9 {
			k := w.post("c", "", "now")
			stream.want(one(k, "now"))
		}
		stream.conn.Close()
	}
	// A tag: after an item of one channel come those of the others.
	d := w.post("d", "", "d")
	tagged := func(name string, k hub.Key, data string) event { return event{"", w.url(name, k) + "?tag=t", data} }
	stream := w.events("/tag/t/events", "Last-Event-ID: "+w.url("c", b)+"?tag=t")
	var now hub.Key
	for _, k := range w.short.All("c") {
		now = k.Key
	}
	stream.want(tagged("c", c, "c"), tagged("c", now, "now"), tagged("d", d, "d"))
	w.events("/tag/t/"+c.String()+"/events").want(tagged("c", now, "now"), tagged("d", d, "d"))
}

// TestEventsEnds: silence is told about once a beat; the end of the channel and of the hub are told in a comment, and end the stream.
func TestEventsEnds(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Beat = 50 * time.Millisecond })
	w.put("c", "t")
	w.put("d", "t")
	began := time.Now()
	one, two, tag := w.events("/channel/c/events"), w.events("/channel/d/events"), w.events("/tag/t/events")
	time.Sleep(500 * time.Millisecond)
	k := w.post("c", "", "x")
	e, comments, err := one.next()
	if took := time.Since(began); err != nil || e.id != w.url("c", k) || len(comments) < 3 || len(comments) > 2+int(took/w.s.opt.Beat) || slices.Index(comments, "") != 1 {
		t.Errorf("within %v: %v, %q, %v", took, e, comments, err)
	}
	if _, _, err := tag.next(); err != nil {
		t.Error(err)
	}
	w.remove("c")
	end := func(s *source, text string) {
		t.Helper()
		_, comments, err := s.next()
		if err != io.EOF || !slices.Contains(comments, text) {
			t.Errorf("%q, %v; want %q", comments, err, text)
		}
	}
	end(one, "channel c was deleted")
	k = w.post("d", "", "y")
	tag.want(event{"", w.url("d", k) + "?tag=t", "y"})
	two.want(event{"", w.url("d", k), "y"})
	w.leave()
	end(two, "the hub is going away")
	end(tag, "the hub is going away")
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/channel/c/events", 404}, {"GET", "/channel/c/" + k.String() + "/events", 404}, {"HEAD", "/channel/d/events", 200}, {"POST", "/channel/d/events", 405}} {
		r, err := http.NewRequest(c.method, "http://"+w.addr+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Close = true
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s %s: %v, %v", c.method, c.path, resp, err)
			continue
		}
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

// holes hides items, as their expiry does, and lets reads fail now and then.
type holes struct {
	Channels
	mu   sync.Mutex // guards what follows
	gone map[hub.Key]bool
	fail int
}

func (h *holes) Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error] {
	return func(yield func(hub.Sealed, error) bool) {
		for item, err := range h.Channels.Items(ctx, q) {
			h.mu.Lock()
			h.fail--
			failing, gone := h.fail >= 0, h.gone[item.Key]
			h.mu.Unlock()
			if failing {
				yield(hub.Sealed{}, errors.New("the disk hums"))
				return
			}
			if !gone && !yield(item, err) {
				return
			}
		}
	}
}

// TestItemsGone: what has expired is left out; what cannot be read at the moment is waited for.
func TestItemsGone(t *testing.T) {
	h := &holes{gone: map[hub.Key]bool{}}
	w := newWorld(t, func(o *Options) { h.Channels = o.Channels; o.Channels = h })
	w.put("c")
	var keys []hub.Key
	for i := range 10 {
		keys = append(keys, w.post("c", "", fmt.Sprint(i)))
	}
	h.mu.Lock()
	h.gone[keys[1]], h.gone[keys[4]], h.gone[keys[5]], h.gone[keys[9]] = true, true, true, true
	h.fail = 2
	h.mu.Unlock()
	var want []event
	for i, k := range keys {
		if i > 0 && !h.gone[k] {
			want = append(want, event{"", w.url("c", k), fmt.Sprint(i)})
		}
	}
	w.events("/channel/c/" + keys[0].String() + "/events").want(want...)
	socket := w.ws("/channel/c/" + keys[0].String() + "/ws?payload=items")
	for _, e := range want {
		if text, err := socket.next(); err != nil || !strings.Contains(text, `"body":"`+e.data+`"`) {
			t.Errorf("%q, %v", text, err)
		}
	}
}

// TestEventsStuck: a client that stops reading is cut off, one that reads slowly gets everything.
func TestEventsStuck(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Stall = 3 * time.Second })
	w.put("c")
	slow, _ := w.events("/channel/c/events"), w.events("/channel/c/events")
	var keys []hub.Key
	for range 300 {
		keys = append(keys, w.post("c", "", strings.Repeat("x", 1000)))
	}
	for i, k := range keys {
		slow.want(event{"", w.url("c", k), strings.Repeat("x", 1000)})
		if i%20 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	for began := time.Now(); w.open() > 1; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("it is not cut off")
		}
	}
}

// FuzzFrame: whatever the text, and however it is cut, a client reads it with LF for each end of a line, and nothing else.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{"", "a", "\r", "\n", "\r\n", "\n\r", "a\r\rb\n\n", "data: x\n\nid: 1\n", ": x", " ", "\x00", "ü\r"} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s+s), uint8(2))
	}
	f.Fuzz(func(t *testing.T, body []byte, cut uint8) {
		if !utf8.Valid(body) {
			return
		}
		var b []byte
		var fr framer
		fr.begin(&b)
		at := min(int(cut), len(body))
		fr.add(&b, body[:at])
		fr.add(&b, body[at:])
		fr.end(&b)
		s := &source{t: t, body: bufio.NewReader(bytes.NewReader(append(b, "data: end\n\n"...)))}
		want := strings.ReplaceAll(strings.ReplaceAll(string(body), "\r\n", "\n"), "\r", "\n")
		if got, comments, err := s.next(); err != nil || got != (event{data: want}) || comments != nil {
			t.Fatalf("%q is read as %q, %q, %v", body, got.data, comments, err)
		}
		if got, _, err := s.next(); err != nil || got.data != "end" {
			t.Fatalf("%q runs into what follows: %v, %v", body, got, err)
		}
	})
}

// FuzzText: cut anywhere, a body is text or not.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "ü", "日本", "\xff", "ü\xc3", "\xf0\x9f\x98\x80", "\xed\xa0\x80", "a\rb", "\x7f"} {
		f.Add([]byte(s), uint8(1), uint8(2))
	}
	f.Fuzz(func(t *testing.T, body []byte, one, two uint8) {
		for _, lax := range []bool{true, false} {
			tx := text{lax: lax}
			i := min(int(one), len(body))
			j := min(i+int(two), len(body))
			tx.add(body[:i])
			tx.add(body[i:j])
			tx.add(body[j:])
			want := utf8.Valid(body)
			if !lax {
				want = want && !bytes.ContainsFunc(body, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f })
			}
			if got := tx.end(); got != want {
				t.Fatalf("%q cut at %d, %d, lax %v: text is %v", body, i, j, lax, got)
			}
		}
	})
}

// TestSocketFrames: a frame that is closed behind its text is the one that is made at once, at every length of a length.
func TestSocketFrames(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 1000, 65535} {
		text := bytes.Repeat([]byte("x"), n)
		want := appendFrame([]byte("before"), text)
		got := closeFrame(append(append([]byte("before"), make([]byte, frameHead)...), text...), len("before"))
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: % x, want % x", n, got[:12], want[:12])
		}
	}
	if b := appendFrame(nil, make([]byte, 65536)); len(b) != 10+65536 || !bytes.Equal(b[:10], []byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}) {
		t.Errorf("64 KiB: % x", b[:10])
	}
}
