package rest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a whole answer with testdata/name.golden, and its layout with what encoding/json makes of the same document.
func golden(t *testing.T, name string, r reply) {
	t.Helper()
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(r.body), "", "  "); err != nil {
		t.Errorf("%s is no JSON: %v\n%s", name, err, r.body)
	} else if indented.String() != r.body {
		t.Errorf("%s is not laid out as encoding/json does:\n%s", name, r.body)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: Content-Type %q", name, got)
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(r.body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.body + "\n"; got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func TestGoldenAnswers(t *testing.T) {
	w := newWorld(t, nil)
	golden(t, "root", w.get("/"))
	golden(t, "channels-none", w.get("/channel"))
	golden(t, "tags-none", w.get("/tag"))
	golden(t, "channel", w.do("PUT", "/channel/Orders-EU", `{"owner":"barista-team","description":"espresso <tickets> & more","tags":["eu","cafe"],"ttlDays":30}`))
	w.put("beans", `{"tags":["cafe"]}`)
	w.put("old", `{"mutableTime":"2020-01-01"}`)
	golden(t, "channel-historical", w.get("/channel/old"))
	golden(t, "channels", w.get("/channel?x=1&y=%20"))
	golden(t, "tags", w.get("/tag"))
	golden(t, "tag", w.get("/tag/cafe"))
	golden(t, "status-empty", w.get("/channel/orders-eu/status"))

	w.now = testTime
	golden(t, "insert", w.do("POST", "/channel/orders-EU", "one", "Content-Type: text/plain"))
	w.now = w.now.Add(1500 * time.Millisecond)
	golden(t, "bulk", w.do("POST", "/channel/orders-eu/bulk", "--b\r\n\r\ntwo\r\n--b\r\n\r\nthree\r\n--b--", "Content-Type: multipart/mixed; boundary=b"))
	w.now = w.now.Add(time.Second)
	w.do("POST", "/channel/beans", "four")
	w.now = w.now.Add(5 * time.Second)

	golden(t, "status", w.get("/channel/orders-eu/status"))
	golden(t, "minute", w.get("/channel/Orders-eu/2021/3/4/5/6?stable=false&x=%7e"))
	golden(t, "minute-descending", w.get("/channel/orders-eu/2021/03/04/05/06?order=desc"))
	golden(t, "minute-past", w.get("/channel/orders-eu/2021/03/04/05/05"))
	first := strings.TrimPrefix(w.get("/channel/orders-eu/earliest").location(), "http://hub.example")
	golden(t, "next", w.get(first+"/next/1?stable=false"))
	golden(t, "next-none", w.get("/channel/orders-eu/2021/03/04/06/00/00/000/A/next/2"))
	golden(t, "previous", w.get("/channel/orders-eu/2021/03/04/06/00/00/000/A/previous/2"))
	golden(t, "previous-none", w.get("/channel/orders-eu/2021/03/04/04/00/00/000/A/previous/2"))
	golden(t, "latest", w.get("/channel/orders-eu/latest/2"))
	golden(t, "earliest", w.get("/channel/orders-eu/earliest/2"))
	golden(t, "seconds-next", w.get("/channel/orders-eu/2021/03/04/05/06/07/next/2?order=asc"))
	golden(t, "seconds-previous", w.get("/channel/orders-eu/2021/03/04/05/06/07/previous/2"))
	golden(t, "time", w.get("/channel/orders-eu/time"))
	golden(t, "time-unstable", w.get("/tag/cafe/time?stable=false"))
	golden(t, "tag-minute", w.get("/tag/cafe/2021/03/04/05/06?order=a&stable=false"))
	golden(t, "tag-next", w.get("/tag/cafe"+strings.TrimPrefix(first, "/channel/orders-eu")+"/next/2"))
	golden(t, "tag-latest", w.get("/tag/cafe/latest/2"))
	golden(t, "tag-earliest", w.get("/tag/cafe/earliest/2"))
	golden(t, "tag-earliest-none", w.get("/tag/nobody/earliest/2"))
	if a, b := w.get("/tag/cafe/latest/2"), w.get("/channel/orders-eu/latest/2?tag=cafe"); strings.Replace(b.body, "/channel/orders-eu/latest/2?tag=cafe", "/tag/cafe/latest/2", 1) != a.body {
		t.Errorf("?tag= gives another answer than /tag/:\n%s\n%s", a.body, b.body)
	}
}
