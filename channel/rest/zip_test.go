package rest

import (
	"archive/zip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub/disk"
)

type zipped struct{ name, body string }

func (w *world) entries(r reply) []zipped {
	w.t.Helper()
	z, err := zip.NewReader(strings.NewReader(r.body), int64(len(r.body)))
	if err != nil {
		w.t.Fatal(err)
	}
	var out []zipped
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, zipped{f.Name, string(b)})
	}
	return out
}

func TestZipReads(t *testing.T) {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(so *channel.Options, ro *Options) { so.LargeBytes, ro.Temp = 3<<20, d })
	w.put("x", `{"tags":["t"]}`)
	large := strings.Repeat("large ", 600000)
	a := strings.TrimPrefix(w.post("x", "one", "Content-Type: text/plain; charset=utf-8"), "/channel/x/")
	b := strings.TrimPrefix(w.post("x", "\x00\xff"), "/channel/x/")
	c := strings.TrimPrefix(w.post("x", large, "Content-Type: text/csv"), "/channel/x/")
	w.now = w.now.Add(time.Minute)
	want := []zipped{{a, "one"}, {b, "\x00\xff"}, {c, large}}
	check := func(r reply, want ...zipped) {
		t.Helper()
		w.want(r, 200)
		if r.header.Get("Content-Type") != "application/zip" {
			t.Errorf("Content-Type %q", r.header.Get("Content-Type"))
		}
		got := w.entries(r)
		if len(got) != len(want) {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("entry %d is %.100q, want %.100q", i, got[i], want[i])
			}
		}
	}
	const accept = "Accept: application/zip"
	r := w.get("/channel/x/2021/03/04/05/06?bulk=true", accept)
	check(r, want...)
	if len(r.header.Values("Link")) != 2 || !strings.Contains(r.body, `{"contentType":"text/plain; charset=utf-8"}`) {
		t.Errorf("%v", r.header)
	}
	check(w.get("/channel/x/2021/03/04/05/06?bulk=true&order=d", "Accept: Application/ZIP"), want[2], want[1], want[0])
	check(w.get("/channel/x/latest/2?bulk=true", accept), want[1:]...)
	check(w.get("/channel/any/latest/2?bulk=true&tag=t", accept), want[1:]...)
	check(w.get("/channel/x/2021/03/04/04?bulk=true", accept))
	if r := w.want(w.get("/channel/x/latest/1?bulk=true", "Accept: application/zip, */*"), 200); !strings.HasPrefix(r.header.Get("Content-Type"), "multipart/mixed") {
		t.Errorf("a list of types is not exactly application/zip: %q", r.header.Get("Content-Type"))
	}
	if left, _ := d.List("tmp"); len(left) != 0 {
		t.Errorf("temporary files stay behind: %v", left)
	}

	file := filepath.Join(t.TempDir(), "bulk.zip")
	if err := os.WriteFile(file, []byte(r.body), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tool := range [][]string{{"unzip", "-qq", "-d", t.TempDir(), file}, {"python3", "-c", "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None and len(z.namelist()) == 3", file}} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			t.Logf("%s is not here: not asked", tool[0])
			continue
		}
		if out, err := exec.Command(tool[0], tool[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", tool[0], err, out)
		}
	}
}
