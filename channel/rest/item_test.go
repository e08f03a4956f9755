package rest

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"timehub/channel"
	"timehub/hub"
	"timehub/hub/seal"
)

func unzstd(t *testing.T, s string) string {
	t.Helper()
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b, err := d.DecodeAll([]byte(s), nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func ungzip(t *testing.T, s string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestItemHeaders(t *testing.T) {
	w := newWorld(t, nil)
	w.put("orders", `{"ttlDays":30}`)
	body := strings.Repeat("espresso ", 100)
	path := w.post("orders", body, `Content-Type: text/plain ; charset = "a b" ;x=y`)
	at := w.now
	w.now = w.now.Add(time.Hour)
	r := w.want(w.get(path+"?tag=x&a=%7e"), 200)
	for name, want := range map[string]string{
		"Content-Type": `text/plain;charset="a b";x=y`, "Content-Length": fmt.Sprint(len(body)), "X-Item-Length": fmt.Sprint(len(body)),
		"Creation-Date": hub.ISO(at), "Accept-Ranges": "", "X-LargeItem": "", "Content-Encoding": "",
		"Cache-Control": fmt.Sprintf("immutable, max-age=%d", 30*24*3600-3600),
		"Link":          "<http://hub.example" + path + `/previous?tag=x&a=%7e>;rel="previous"`,
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := r.header.Values("Link"); len(got) != 2 || got[1] != "<http://hub.example"+path+`/next?tag=x&a=%7e>;rel="next"` {
		t.Errorf("Link %q", got)
	}
	if r.body != body {
		t.Error("another body")
	}
	head := w.want(w.do("HEAD", path+"?tag=x&a=%7e", ""), 200)
	if head.body != "" || head.header.Get("Content-Length") != fmt.Sprint(len(body)) || head.header.Get("ETag") != r.header.Get("ETag") ||
		head.header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD: %v", head.header)
	}
	unpadded := w.want(w.get("/channel/orders/2021/3/4/5/6/8/89/"+path[strings.LastIndex(path, "/")+1:]), 200)
	if unpadded.body != body {
		t.Error("an unpadded path finds another item")
	}
}

func TestItemWithoutType(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	if r := w.want(w.get(w.post("x", "")), 200); r.header.Get("Content-Type") != octets || r.header.Get("Content-Length") != "0" || r.body != "" {
		t.Errorf("%v", r.header)
	}
}

// TestItemLengths asks a real server: every item that is sent as it is says how long it is, whoever counts.
func TestItemLengths(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	s := httptest.NewServer(w.rt)
	defer s.Close()
	for _, size := range []int{0, 1, 2047, 2048, 2049, 4096, 100_000} {
		path := w.post("x", strings.Repeat("x", size))
		for _, method := range []string{"GET", "HEAD"} {
			r, err := http.NewRequest(method, s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept-Encoding", "identity")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.ContentLength != int64(size) || len(resp.TransferEncoding) > 0 || method == "GET" && len(body) != size {
				t.Errorf("%s of %d bytes: Content-Length %d, %v, %d bytes, %v", method, size, resp.ContentLength, resp.TransferEncoding, len(body), err)
			}
			if ranges := resp.Header.Get("Accept-Ranges") == "bytes"; ranges != (method == "HEAD" || size > 2048) {
				t.Errorf("%s of %d bytes: Accept-Ranges %t", method, size, ranges)
			}
		}
	}
}

func TestItemCodings(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	body := strings.Repeat("espresso ", 1000)
	path := w.post("x", body)
	small := w.post("x", "tiny")
	tags := map[string]bool{}
	for _, coding := range []string{"", "gzip", "x-gzip", "deflate", "zstd"} {
		r := w.want(w.get(path, "Accept-Encoding: "+coding), 200)
		if got := r.header.Get("Content-Encoding"); got != coding {
			t.Errorf("%s: Content-Encoding %q", coding, got)
		}
		if r.header.Get("X-Item-Length") != "9000" {
			t.Errorf("%s: X-Item-Length %q", coding, r.header.Get("X-Item-Length"))
		}
		tag := r.header.Get("ETag")
		if tags[tag] {
			t.Errorf("%s: ETag %s is another coding's", coding, tag)
		}
		tags[tag] = true
		if again := w.get(path, "Accept-Encoding: "+coding, "If-None-Match: "+tag); again.code != 304 || again.body != "" || again.header.Get("ETag") != tag {
			t.Errorf("%s: If-None-Match: %d", coding, again.code)
		}
		head := w.do("HEAD", path, "", "Accept-Encoding: "+coding)
		for _, name := range []string{"Content-Encoding", "ETag", "Content-Length", "Content-Type", "X-Item-Length"} {
			if head.header.Get(name) != r.header.Get(name) {
				t.Errorf("%s: HEAD has %s %q, GET %q", coding, name, head.header.Get(name), r.header.Get(name))
			}
		}
		switch coding {
		case "gzip":
			if ungzip(t, r.body) != body {
				t.Error("gzip: another body")
			}
		case "zstd":
			if unzstd(t, r.body) != body || r.header.Get("Content-Length") != fmt.Sprint(len(r.body)) {
				t.Errorf("zstd: another body, or not the stored frame: %v", r.header)
			}
			if s := w.get(small, "Accept-Encoding: zstd"); unzstd(t, s.body) != "tiny" {
				t.Error("zstd of an item that is stored raw")
			}
		}
	}
}

func TestConditional(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	path := w.post("x", "0123456789")
	tag := w.get(path).header.Get("ETag")
	for header, want := range map[string]int{
		"*": 304, tag: 304, "W/" + tag: 304, `"a", ` + tag: 304, `"a",W/"b",` + tag + `,"c"`: 304, ` , ,` + tag: 304,
		`"a"`: 200, "": 200, "garbage": 200, `"open`: 200, strings.Trim(tag, `"`): 200, "garbage, " + tag: 304,
	} {
		if r := w.get(path, "If-None-Match: "+header); r.code != want {
			t.Errorf("%s: %d", header, r.code)
		}
	}
}

func TestRanges(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	path := w.post("x", "0123456789", "Content-Type: text/plain")
	empty := w.post("x", "")
	tag := w.get(path).header.Get("ETag")
	for _, c := range []struct {
		rng, ifRange  string
		code          int
		body, content string
	}{
		{"bytes=0-3", "", 206, "0123", "bytes 0-3/10"},
		{"bytes=4-", "", 206, "456789", "bytes 4-9/10"},
		{"Bytes=4-", "", 206, "456789", "bytes 4-9/10"},
		{"bytes", "", 200, "0123456789", ""},
		{"bytes=-3", "", 206, "789", "bytes 7-9/10"},
		{"bytes=-99", "", 206, "0123456789", "bytes 0-9/10"},
		{"bytes=9-9", "", 206, "9", "bytes 9-9/10"},
		{"bytes=8-99999999999999999999999", "", 206, "89", "bytes 8-9/10"},
		{"bytes=10-", "", 416, "", "bytes */10"},
		{"bytes=99999999999999999999999-", "", 416, "", "bytes */10"},
		{"bytes=-0", "", 416, "", "bytes */10"},
		{"bytes=5-4", "", 200, "0123456789", ""},
		{"bytes=0-1,3-4", "", 200, "0123456789", ""},
		{"bytes=", "", 200, "0123456789", ""},
		{"bytes=a-b", "", 200, "0123456789", ""},
		{"lines=0-3", "", 200, "0123456789", ""},
		{"bytes=0-3", tag, 206, "0123", "bytes 0-3/10"},
		{"bytes=0-3", `"other"`, 200, "0123456789", ""},
		{"bytes=0-3", "W/" + tag, 200, "0123456789", ""},
		{"bytes=0-3", "Tue, 01 Jan 2030 00:00:00 GMT", 200, "0123456789", ""},
	} {
		headers := []string{"Range: " + c.rng}
		if c.ifRange != "" {
			headers = append(headers, "If-Range: "+c.ifRange)
		}
		r := w.get(path, headers...)
		if r.code != c.code || r.header.Get("Content-Range") != c.content || c.code != 416 && r.body != c.body {
			t.Errorf("%s %s: %d %q %q", c.rng, c.ifRange, r.code, r.header.Get("Content-Range"), r.body)
		}
		if c.code == 206 && r.header.Get("Content-Length") != fmt.Sprint(len(c.body)) {
			t.Errorf("%s: Content-Length %q", c.rng, r.header.Get("Content-Length"))
		}
		if c.code == 416 && (!strings.Contains(r.body, "10 bytes") || r.header.Get("Content-Type") != "application/json") {
			t.Errorf("%s: %q", c.rng, r.body)
		}
	}
	if r := w.get(path, "Range: bytes=1-2", "Accept-Encoding: gzip"); r.code != 206 || r.body != "12" || r.header.Get("Content-Encoding") != "" || r.header.Get("ETag") != tag {
		t.Errorf("a range is of the identity form: %d %v", r.code, r.header)
	}
	if r := w.get(empty, "Range: bytes=0-0"); r.code != 416 {
		t.Errorf("a range of nothing: %d", r.code)
	}
}

func TestItemErrors(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", `{"ttlDays":1}`)
	path := w.post("x", "a", "Content-Type: image/png")
	for _, c := range []struct {
		path, accept string
		code         int
		contains     string
	}{
		{path, "text/html", 406, "image/png"},
		{path, "garbage", 406, "image/png"},
		{path, "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200, ""},
		{path, "IMAGE/PNG", 200, ""},
		{path, "image/*", 200, ""},
		{"/channel/nobody/2021/03/04/05/06/07/089/abc", "", 404, "nobody"},
		{"/channel/x/2021/03/04/05/06/07/089/nothere", "", 404, ""},
		{"/channel/x/2021/03/04/05/06/07/089/a.b", "", 404, ""},
		{"/channel/x/2021/03/04/05/06/07/089/..%2f..%2fetc%00", "", 404, ""},
		{"/channel/x/2021/13/04/05/06/07/089/abc", "", 400, "month 13"},
		{"/channel/x/2021/02/30", "", 400, "day 30"},
		{"/channel/x/2021/02/xx", "", 404, ""},
		{"/channel/x/2021/02", "", 404, ""},
		{"/channel/x/2021/02/03/04/05/06/007/h/ws", "", 404, ""},
		{"/channel/x/ws", "", 404, ""},
		{"/channel/x/events", "", 404, ""},
		{"/channel/x/doc", "", 404, ""},
		{"/channel/" + strings.Repeat("n", 10000), "", 404, ""},
	} {
		r := w.get(c.path, "Accept: "+c.accept)
		w.want(r, c.code, c.contains)
		if c.code >= 400 && r.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: Content-Type %q", clip(c.path), r.header.Get("Content-Type"))
		}
	}
	w.now = w.now.Add(25 * time.Hour)
	w.want(w.get(path), 404)
}

func TestLargeItems(t *testing.T) {
	w := newWorld(t, func(so *channel.Options, ro *Options) { so.LargeBytes = 100 })
	w.put("x", "")
	body := strings.Repeat("large ", 50)
	path := w.post("x", body, "Content-Type: text/plain")
	r := w.want(w.get(path), 200)
	if r.body != body || r.header.Get("X-LargeItem") != "true" || r.header.Get("X-Item-Length") != "300" || r.header.Get("Content-Length") != "300" || r.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%v %d bytes", r.header, len(r.body))
	}
	if r := w.get(path, "Range: bytes=6-10"); r.code != 206 || r.body != "large" {
		t.Errorf("range: %d %q", r.code, r.body)
	}
	if r := w.get(path, "Accept-Encoding: zstd"); unzstd(t, r.body) != body {
		t.Error("zstd of a large item")
	}
	if head := w.do("HEAD", path, ""); head.header.Get("X-LargeItem") != "true" || head.header.Get("Content-Length") != "300" {
		t.Errorf("HEAD %v", head.header)
	}
	if hidden := w.post("x", "small", "Content-Type: application/hub"); w.get(hidden).body != "small" {
		t.Error("application/hub from a client was read as an index")
	}
}

func TestStoredTypesCannotSplitHeaders(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	s := seal.New(seal.Options{})
	evil := s.Seal(nil, seal.Meta{ContentType: "text/plain\r\nSet-Cookie: a=b\x00"}, []byte("body"))
	key, err := w.short.Write(t.Context(), "x", evil)
	if err != nil {
		t.Fatal(err)
	}
	r := w.get("/channel/x/" + key.String())
	if got := r.header.Get("Content-Type"); strings.ContainsAny(got, "\r\n\x00") || r.header.Get("Set-Cookie") != "" {
		t.Errorf("Content-Type %q", got)
	}
	bulk := w.get("/channel/x/latest/1?bulk=true")
	if strings.Contains(bulk.body, "\r\nSet-Cookie") || !strings.Contains(bulk.body, "Content-Type: text/plain  Set-Cookie: a=b \r\n") {
		t.Errorf("%q", bulk.body)
	}
}

// Archives keep types as JSON: what they cannot keep must not be served before either.
func TestStoredTypesAreText(t *testing.T) {
	w := newWorld(t, nil)
	w.put("x", "")
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	for _, target := range []string{"/channel/x", "/channel/old/2020/01/02/03/04/05/006/hash"} {
		r := w.want(w.do("POST", target, "x", "Content-Type: caf\xe9; a=\xff\xfe"), 201)
		if got := w.get(strings.TrimPrefix(r.location(), "http://hub.example")).header.Get("Content-Type"); got != "caf\uFFFD;a=\uFFFD" {
			t.Errorf("%s: %q", target, got)
		}
	}
}

func TestNormalType(t *testing.T) {
	for in, want := range map[string]string{
		"": octets, "text/plain": "text/plain", "multipart/mixed; boundary=abc": "multipart/mixed;boundary=abc",
		"a/b ; x = y ;z": "a/b;x=y;z", `a/b; x="; = y" ; z`: `a/b;x="; = y";z`, `a/b; x="q\" ; r"; y=1`: `a/b;x="q\" ; r";y=1`,
		"a b": "a b", " text/plain ": "text/plain", "   ": octets, "a\tb": "a b", `a; x="open `: `a;x="open `, "a/b;c d=e": "a/b;c d=e",
		"a\r\nb: c": "a b: c", "a;\r\n b=c": "a;b=c", "\"\\\r\"": "\"\\ \"",
	} {
		if got := normalType(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzNormalType(f *testing.F) {
	for _, s := range []string{"a; b=c", `a;b="c ; d"`, "\r\n", `"\`, "a = \t;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := normalType(s)
		if hasControl(n) || n == "" {
			t.Fatalf("%q became %q", s, n)
		}
		if normalType(n) != n {
			t.Fatalf("%q became %q became %q", s, n, normalType(n))
		}
	})
}

func TestMutableItemsAreNotKeptByCaches(t *testing.T) {
	w := newWorld(t, nil)
	w.put("old", `{"mutableTime":"2021-01-01"}`)
	r := w.want(w.do("POST", "/channel/old/2020/05/05/01/02/03/004/abc", "first"), 201)
	path := strings.TrimPrefix(r.location(), "http://hub.example")
	first := w.want(w.get(path), 200)
	if got := first.header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control %q", got)
	}
	w.want(w.do("POST", "/channel/old/2020/05/05/01/02/03/004/abc", "second"), 201)
	if r := w.get(path, "If-None-Match: "+first.header.Get("ETag")); r.code != 200 || r.body != "second" {
		t.Errorf("after a change: %d %q", r.code, r.body)
	}
	if got := w.get(w.post("old", "new")).header.Get("Cache-Control"); got != "immutable, max-age=31536000" {
		t.Errorf("immutable item: %q", got)
	}
}
