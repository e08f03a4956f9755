package rest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/disk"
)

func TestInsertErrors(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, ro *Options) { so.MaxItemBytes = 1000 })
	w.put("x", "")
	w.put("full", `{"allowZeroBytes":false}`)
	w.put("Replica", `{"replicationSource":"http://other.example/channel/x"}`)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	gz := func(n int) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(make([]byte, n))
		z.Close()
		return b.String()
	}
	const verbatim = "historical inserts require a mutableTime on the channel."
	for _, c := range []struct {
		target, body string
		headers      []string
		code         int
		contains     string
	}{
		{"/channel/nobody", "x", nil, 404, "nobody"},
		{"/channel/full", "", nil, 400, "error"},
		{"/channel/full", "x", nil, 201, ""},
		{"/channel/x", "", nil, 201, ""},
		{"/channel/replica", "x", nil, 403, "=Replica cannot modified while replicating"},
		{"/channel/x", strings.Repeat("x", 1000), nil, 201, ""},
		{"/channel/x", strings.Repeat("x", 1001), nil, 413, "1000 bytes"},
		{"/channel/x", gz(1000), []string{"Content-Encoding: gzip"}, 201, ""},
		{"/channel/x", gz(1001), []string{"Content-Encoding: gzip"}, 413, "1000 bytes"},
		{"/channel/x", gz(50 << 20), []string{"Content-Encoding: gzip"}, 413, "1000 bytes"},
		{"/channel/x", "not gzip", []string{"Content-Encoding: gzip"}, 400, "gzip"},
		{"/channel/x", "x", []string{"Content-Type: " + strings.Repeat("t", 2000)}, 400, "Content-Type"},
		{"/channel/x/2020/01/02/03/04/05/006", "x", nil, 403, "=" + verbatim},
		{"/channel/x/2020/01/02/03/04/05/006/h", "x", nil, 403, "=" + verbatim},
		{"/channel/old/2020/01/02/03/04/05/006", "x", nil, 201, ""},
		{"/channel/old/2020/01/02/03/04/05/006/hash", "x", nil, 201, "2020/01/02/03/04/05/006/hash"},
		{"/channel/old/1/2/3/4/5/6/7/hash", "x", nil, 201, "0001/02/03/04/05/06/007/hash"},
		{"/channel/old/2021/01/01/00/00/00/000", "x", nil, 201, ""},
		{"/channel/old/2021/01/01/00/00/00/001", "x", nil, 400, ""},
		{"/channel/old/2020/01/02/03/04/05/006/a%2fb", "x", nil, 400, ""},
		{"/channel/old/2020/01/02/03/04/05", "x", nil, 405, ""},
		{"/channel/nobody/2020/01/02/03/04/05/006", "x", nil, 404, ""},
		{"/channel/x/2020/01/02", "x", nil, 405, ""},
		{"/channel/x/latest", "x", nil, 405, ""},
		{"/provider", "x", nil, 400, "channelName"},
		{"/provider", "x", []string{"channelName: made"}, 200, "="},
		{"/provider", "x", []string{"channelName: b@d"}, 400, ""},
		{"/provider", "x", []string{"channelName: replica"}, 403, "="},
		{"/provider/bulk", "--b\r\n\r\nx\r\n--b--", []string{"channelName: made2", "Content-Type: multipart/mixed;boundary=b"}, 200, "="},
		{"/provider/bulk", "x", []string{"channelName: made2", "Content-Type: text/plain"}, 415, ""},
	} {
		before := w.count()
		r := w.do("POST", c.target, c.body, c.headers...)
		exact, isExact := strings.CutPrefix(c.contains, "=")
		w.want(r, c.code)
		if isExact && exact != "" && r.body != exact || !isExact && !strings.Contains(r.body, c.contains) || c.contains == "=" && r.code == 200 && r.body != "" {
			t.Errorf("%s: body %q", clip(c.target), r.body)
		}
		if c.code >= 300 && w.count() != before {
			t.Errorf("%s: %d, and something was stored", c.target, r.code)
		}
		if c.code < 300 && w.count() != before+1 {
			t.Errorf("%s: %d, and nothing was stored", c.target, r.code)
		}
	}
	if n := w.h.flight.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted as in flight", n)
	}
	if r := w.get("/channel/made/latest"); r.code != 303 {
		t.Errorf("provider: %d", r.code)
	}
	w.short.fail = hub.E(hub.Full, "no space is left")
	if r := w.want(w.do("POST", "/channel/x", "x"), 507, "no space"); r.header.Get("Retry-After") == "" {
		t.Error("507 without Retry-After")
	}
	w.short.fail = hub.E(hub.Unavailable, "no quorum")
	w.want(w.do("POST", "/channel/x", "x"), 503, "no quorum")
}

// count is how many items all stores hold.
func (w *world) count() int {
	n := 0
	for _, items := range w.short.items {
		n += len(items)
	}
	for _, items := range w.long.items {
		n += len(items)
	}
	return n
}

func TestDeleteItem(t *testing.T) {
	w := newWorld(t, nil)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	w.put("x", "")
	path := "/channel/old/2020/01/02/03/04/05/006/hash"
	w.want(w.do("POST", path, "x"), 201)
	w.want(w.get("/channel/old/2020/01/02?epoch=ALL"), 200, "hash")
	w.want(w.do("DELETE", path, ""), 204)
	w.want(w.do("DELETE", path, ""), 204)
	w.want(w.get(path), 404)
	if r := w.get("/channel/old/2020/01/02?epoch=ALL"); strings.Contains(r.body, "hash") {
		t.Error("a deleted item is in a list")
	}
	w.want(w.do("DELETE", w.post("old", "new"), ""), 405)
	if r := w.want(w.do("DELETE", w.post("x", "new"), ""), 405); r.header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("Allow: %q", r.header.Get("Allow"))
	}
	w.want(w.do("DELETE", "/channel/nobody/2020/01/02/03/04/05/006/hash", ""), 404, "nobody")
}

func TestBodiesThatAreNotSmallLieOnTheDisk(t *testing.T) {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(so *channel.Options, ro *Options) {
		ro.Temp, ro.Small, ro.InFlight = d, 1000, 30000
		so.LargeBytes, so.MaxItemBytes = 20000, 1<<20
	})
	w.put("x", "")
	for _, size := range []int{0, 1, 999, 1000, 1001, 5000, 19999, 20000, 1 << 20} {
		body := strings.Repeat("0123456789", size/10+1)[:size]
		for _, chunked := range []bool{false, true} {
			r := httptest.NewRequest("POST", "/channel/x", io.MultiReader(strings.NewReader(body)))
			r.ContentLength = int64(size)
			if chunked {
				r.ContentLength = -1
			}
			rec := httptest.NewRecorder()
			w.rt.ServeHTTP(rec, r)
			if rec.Code != 201 {
				t.Fatalf("%d bytes: %d %s", size, rec.Code, rec.Body)
			}
			got := w.get(strings.TrimPrefix(rec.Header().Get("Location"), "http://example.com"))
			if got.body != body || (got.header.Get("X-LargeItem") == "true") != (size >= 20000) {
				t.Fatalf("%d bytes, chunked %v: %d bytes came back, large %q", size, chunked, len(got.body), got.header.Get("X-LargeItem"))
			}
		}
	}
	r := httptest.NewRequest("POST", "/channel/x", io.MultiReader(bytes.NewReader(make([]byte, 1<<20+1))))
	r.ContentLength = -1
	rec := httptest.NewRecorder()
	if w.rt.ServeHTTP(rec, r); rec.Code != 413 {
		t.Errorf("one too many: %d", rec.Code)
	}
	left, err := d.List("tmp")
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files stay behind: %v %v", left, err)
	}
	if n := w.h.flight.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted as in flight", n)
	}
}

// Some clients close their side when they have sent everything, and read the answer then.
func TestAClientThatIsDoneWithSendingIsAnswered(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	w.short.slow = 100 * time.Millisecond // long enough for net/http to see the end of the connection and to cancel the request
	s := httptest.NewServer(w.rt)
	defer s.Close()
	for _, c := range []struct {
		request string
		code    int
	}{
		{"POST /channel/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 201},
		{"POST /channel/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 201},
		{"POST /channel/x/bulk HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/mixed;boundary=b\r\nContent-Length: 15\r\n\r\n--b\r\n\r\nx\r\n--b--", 201},
		{"POST /provider HTTP/1.1\r\nHost: x\r\nchannelName: x\r\nContent-Length: 3\r\n\r\nabc", 200},
	} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.request)
		_ = conn.(*net.TCPConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != c.code {
			t.Errorf("%.30q: %d %s", c.request, resp.StatusCode, b)
		}
		conn.Close()
	}
	if n := w.count(); n != 4 {
		t.Errorf("%d items are stored", n)
	}
}

func TestABodyThatIsCutStoresNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	s := httptest.NewServer(w.rt)
	for _, target := range []string{"/channel/x", "/channel/old/2020/01/01/01/01/01/001/abc", "/channel/x/bulk", "/provider"} {
		for _, rest := range []string{"Content-Length: 400000\r\n\r\n--b\r\n\r\nx\r\n--b--", "Transfer-Encoding: chunked\r\n\r\n10\r\n--b\r\n\r\nx\r\n--b--\r\n"} {
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nchannelName: x\r\nContent-Type: multipart/mixed;boundary=b\r\n%s", target, rest)
			_ = c.(*net.TCPConn).CloseWrite()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 {
				t.Errorf("%s: %d %s", target, resp.StatusCode, b)
			}
			c.Close()
		}
	}
	s.Close()
	if n := w.count(); n != 0 {
		t.Errorf("%d items were stored", n)
	}
	if n := w.h.flight.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted as in flight", n)
	}
}

func TestBodiesOfEverySizeArriveWhole(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, ro *Options) { ro.InFlight = 1 << 30 })
	w.put("x", "")
	for _, size := range []int{4095, 4096, 4097, smallBody - 1, smallBody, smallBody + 1, trusted - 1, trusted, trusted + 1, keepBuffer - 1, keepBuffer, 5<<20 + 3} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(i * i >> 3)
		}
		for _, length := range []int64{int64(size), -1} {
			r := httptest.NewRequest("POST", "/channel/x", bytes.NewReader(body))
			r.ContentLength = length
			rec := httptest.NewRecorder()
			w.rt.ServeHTTP(rec, r)
			got := w.get(strings.TrimPrefix(rec.Header().Get("Location"), "http://example.com"))
			if rec.Code != 201 || got.body != string(body) {
				t.Errorf("%d bytes, length %d: %d, %d bytes came back", size, length, rec.Code, len(got.body))
			}
		}
	}
}

func TestBodiesInFlightAreBounded(t *testing.T) {
	w := newWorld(t, func(_ *channel.Options, ro *Options) { ro.InFlight = 10000 })
	w.put("x", "")
	w.h.flight.used.Store(9500)
	r := w.want(w.do("POST", "/channel/x", strings.Repeat("x", 1000)), 503, "try again")
	if r.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
	}
	w.want(w.do("POST", "/channel/x", "small"), 201)
	if n := w.h.flight.used.Load(); n != 9500 {
		t.Errorf("%d bytes are counted, want 9500", n)
	}
}

func TestBulkInsert(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, ro *Options) { so.MaxParts, ro.MaxBulkBytes = 5, 2000 })
	w.put("x", "")
	w.put("Replica", `{"replicationSource":"http://other.example/channel/x"}`)
	const mixed = "Content-Type: multipart/mixed; boundary=b"
	many := strings.Repeat("--b\r\n\r\nx\r\n", 5)
	for _, c := range []struct {
		name, target, body string
		header             string
		code               int
		contains           string
		stored             int
	}{
		{"two", "/channel/x/bulk", "--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--", mixed, 201, "/next/2?stable=false", 2},
		{"quoted", "/channel/x/bulk", "--a;b\r\n\r\none\r\n--a;b--", `Content-Type: multipart/mixed; x=";"; Boundary="a;b"; y=z`, 201, "", 1},
		{"unquoted, odd", "/channel/x/bulk", "--||~~\r\n\r\none\r\n--||~~--", `Content-Type: multipart/mixed;boundary=||~~ ;charset=x`, 201, "", 1},
		{"most", "/channel/x/bulk", many + "--b--", mixed, 201, "", 5},
		{"too many", "/channel/x/bulk", many + "--b\r\n\r\nx\r\n--b--", mixed, 413, "5 parts", 0},
		{"too long", "/channel/x/bulk", "--b\r\n\r\n" + strings.Repeat("x", 2000) + "\r\n--b--", mixed, 413, "2000 bytes", 0},
		{"cut", "/channel/x/bulk", "--b\r\n\r\none\r\n--b\r\n\r\ntwo", mixed, 400, "cut off", 0},
		{"empty", "/channel/x/bulk", "", mixed, 400, "no item", 0},
		{"only empty parts", "/channel/x/bulk", "--b\r\n\r\n\r\n--b--", mixed, 400, "no item", 0},
		{"bare LF", "/channel/x/bulk", "--b\n\none\n--b--", mixed, 400, "no item", 0},
		{"wrong boundary", "/channel/x/bulk", "--c\r\n\r\none\r\n--c--", mixed, 400, "no item", 0},
		{"no boundary", "/channel/x/bulk", "--b\r\n\r\none\r\n--b--", "Content-Type: multipart/mixed", 400, "boundary", 0},
		{"no type", "/channel/x/bulk", "--b\r\n\r\none\r\n--b--", "X: y", 400, "boundary", 0},
		{"another type", "/channel/x/bulk", "--b\r\n\r\none\r\n--b--", "Content-Type: application/zip", 415, "multipart/*", 0},
		{"split type", "/channel/x/bulk", "--b\r\nContent-Type: a\rb\r\n\r\none\r\n--b--", mixed, 400, "control character", 0},
		{"nobody", "/channel/nobody/bulk", "--b\r\n\r\none\r\n--b--", mixed, 404, "nobody", 0},
		{"replica", "/channel/replica/bulk", "--b\r\n\r\none\r\n--b--", mixed, 403, "Replica cannot modified while replicating", 0},
	} {
		before := w.count()
		r := w.do("POST", c.target, c.body, c.header)
		if r.code != c.code || !strings.Contains(r.body, c.contains) || w.count() != before+c.stored {
			t.Errorf("%s: %d, %d stored, %s", c.name, r.code, w.count()-before, r.body)
		}
		if c.code == 201 && !strings.Contains(r.body, `"href": "`+r.location()+`"`) {
			t.Errorf("%s: Location %q is not self", c.name, r.location())
		}
	}
	if n := w.h.flight.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted as in flight", n)
	}
	r := w.do("POST", "/channel/x/bulk", "--b\r\nContent-Type: a/b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--", mixed)
	self := strings.TrimPrefix(r.location(), "http://hub.example")
	if list := w.get(self); strings.Count(list.body, "000000\"")+strings.Count(list.body, "000001\"") != 2 {
		t.Errorf("self of a bulk finds: %s", list.body)
	}
}

func TestParseParts(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"--b\r\n\r\none\r\n--b--", `text/plain:"one"`},
		{"preamble\r\n--b\r\n\r\none\r\n--b--epilogue", `text/plain:"one"`},
		{"--b \t\r\n\r\none\r\n--b\t\r\n\r\ntwo\r\n--b--", `text/plain:"one" text/plain:"two"`},
		{"--b\r\ncontent-TYPE :  a/b; c=d \r\nX: y\r\nnonsense\r\n\r\none\r\n--b--", `a/b; c=d:"one"`},
		{"--b\r\nA: b\r\n \r\n folded\r\n--b--", `text/plain:" folded"`},
		{"--b\r\n\r\n\r\n--b\r\n\r\nx\r\n--b--", `text/plain:"x"`},
		{"--b\r\n\r\n--b\r\n\r\nx\r\n--b--", `text/plain:"x"`},
		{"--b\r\nContent-Key: k\r\n\r\n\r\n--b--", `text/plain:""`},
		{"--b\r\nContent-Key: k\r\n\r\n--b--", `text/plain:""`},
		{"--b\r\nContent-Key: k\r\n--b--", `text/plain:""`},
		{"--b\r\n\r\na\r\n--bx\r\n--b--", `text/plain:"a\r\n--bx"`},
		{"--b\r\n\r\na--b\r\n\n--b\r\n--b--", `text/plain:"a--b\r\n\n--b"`},
		{"--b\r\n\r\n\x00\xff\r\n\r\n\r\n--b--", `text/plain:"\x00\xff\r\n\r\n"`},
		{"--bx\r\n\r\na\r\n--b\r\n\r\nc\r\n--b--", `text/plain:"c"`},
		{"--b\r\nContent-Type:\r\n\r\na\r\n--b--", `:"a"`},
		{"--b\r\n\r\na\r\n--b--\r\n--b\r\n\r\nlate\r\n--b--", `text/plain:"a"`},
		{"--b--", "none"}, {"--b\r\n", "cut"}, {"--b\r\nX: y", "cut"}, {"--b\r\n\r\na", "cut"}, {"--b\r\n\r\na\r\n--b", "cut"}, {"--b\r\n\r\na\r\n--b-", "cut"},
		{"--b\r\n\r\na\r\n--b\r\n", "cut"}, {"--b\r\n\r\na\r\n--b\r", "cut"}, {"--b", "none"}, {"", "none"}, {"\r\n--b--\r\n--b\r\n\r\na\r\n--b--", "none"},
	} {
		parts, err := parseParts([]byte(c.body), "b", 100)
		var got []string
		for _, p := range parts {
			got = append(got, fmt.Sprintf("%s:%q", p.ContentType, p.Body))
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = "none"
			if strings.Contains(err.Error(), "cut off") {
				text = "cut"
			}
		}
		if text != c.want {
			t.Errorf("%q: %s, want %s", c.body, text, c.want)
		}
	}
}

func TestABodyCutAnywhereIsRefused(t *testing.T) {
	whole := "--bound\r\nContent-Type: text/plain\r\n\r\none\r\n--bound\r\n\r\ntwo\r\n--bound--"
	for i := range len(whole) {
		if parts, err := parseParts([]byte(whole[:i]), "bound", 100); err == nil {
			t.Errorf("cut at %d: %d parts were taken", i, len(parts))
		}
	}
	if _, err := parseParts([]byte(whole), "bound", 100); err != nil {
		t.Error(err)
	}
}

func FuzzParseParts(f *testing.F) {
	for _, s := range []string{
		"--b\r\n\r\none\r\n--b--", "x\r\n--b\r\nContent-Type: a\r\n\r\n\r\n--b\r\nContent-Key: z\r\n\r\n\r\n--b--", "--b\r\n--b\r\n--b--",
		"--b \r\n \r\n\r\n--b--", "--b\r\n\r\na\r\n--bb\r\n--b--", "\r\n--b--", "--b\r\nContent-Type: \xff\r\n\r\nx\r\n--b--",
	} {
		f.Add([]byte(s), "b")
	}
	f.Add([]byte("----\r\n\r\nx\r\n------"), "--")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		parts, err := parseParts(body, boundary, 50)
		if err != nil {
			if !hub.Is(err, hub.Invalid) && !hub.Is(err, hub.TooLarge) {
				t.Fatal(err)
			}
			return
		}
		total := 0
		for _, p := range parts {
			total += len(p.Body)
			if hasControl(strings.ReplaceAll(p.ContentType, "\t", "")) {
				t.Fatalf("type %q", p.ContentType)
			}
			if boundary != "" && bytes.Contains(p.Body, []byte("\r\n--"+boundary+"--")) {
				t.Fatalf("a part holds the closing delimiter: %q", p.Body)
			}
		}
		if len(parts) == 0 || len(parts) > 50 || total > len(body) {
			t.Fatalf("%d parts of %d bytes from %d", len(parts), total, len(body))
		}
	})
}

func TestBoundaryOf(t *testing.T) {
	for in, want := range map[string]string{
		"multipart/mixed;boundary=abc": "abc", "multipart/mixed; Boundary = abc ": "abc", `multipart/mixed;boundary="a;\"b"`: `a;"b`,
		"multipart/mixed;boundary=a=b/c": "a=b/c", "multipart/mixed": "", "multipart/mixed;boundary": "", "multipart/mixed;boundary=": "",
		`multipart/mixed;x="boundary=no";boundary=yes`: "yes", `multipart/mixed;boundary="open`: "open", "": "", `a;x="y"z;boundary=b`: "b",
	} {
		if got := boundaryOf(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
