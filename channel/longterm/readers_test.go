package longterm_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/channel/longterm"
	"timehub/hub"
	"timehub/hub/seal"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file that others may have stored.
func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s differs from its golden file: %d bytes, want %d.\n%q", name, len(have), len(want), have)
	}
}

// goldenItems are of every kind.
func goldenItems(w *world) []hub.Sealed {
	large := `{"key":"2021/03/04/05/06/05/000/body00","size":10,"content-type":"video/mp4"}`
	k := key("2021-03-04T05:06:59.999Z", "idx000")
	return []hub.Sealed{
		w.item(key("2021-03-04T05:06:00.000Z", "aaaaaa"), "", ""),
		w.item(key("2021-03-04T05:06:00.000Z", "aaaaaa000001"), "text/plain", "hello"),
		w.item(key("2021-03-04T05:06:07.089Z", "aZ3k9Q"), "application/json", strings.Repeat(`{"a":[1,2,3]},`, 50)),
		w.item(key("2021-03-04T05:06:07.089Z", "hub000"), "application/hub", "opaque"),
		{Key: k, Data: w.sealer.Seal(nil, seal.Meta{ContentType: "video/mp4", Large: true}, []byte(large))},
	}
}

func TestGolden(t *testing.T) {
	w := newWorld(t)
	items := goldenItems(w)
	w.put(both, items...)
	blobs := w.bucket.Dump()
	golden(t, "batch.zip", blobs["ordersBatch/items/2021/03/04/05/06"])
	golden(t, "batch.index.json", blobs["ordersBatch/index/2021/03/04/05/06"])
	golden(t, "single.zip", blobs["orders/"+items[2].Key.String()])
	golden(t, "single-without-type.zip", blobs["orders/"+items[0].Key.String()])
	var b bytes.Buffer
	z := longterm.NewZipWriter(&b, longterm.ZipOptions{})
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "empty.zip", b.Bytes())
}

// TestPureFunction: the bytes depend on the items alone, not on what the compressor did before or how the zip came about.
func TestPureFunction(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	w := newWorld(t)
	var items []hub.Sealed
	start := at("2021-03-04T05:06:00.000Z").UnixMilli()
	for i := range 300 {
		body := jsonBody(r, r.IntN(3000))
		if i%50 == 0 {
			body = bytes.Repeat(body, 60) // beyond one block
		}
		items = append(items, w.item(hub.KeyAt(start+int64(i*199), "aZ3k9Q"), []string{"", "a/b"}[i%2], string(body)))
	}
	w.putMinutes(batch, items...)
	want := w.bucket.Dump()
	for _, split := range [][]hub.Sealed{items[:1], items[150:], items[299:], items[100:101]} {
		w := newWorld(t)
		for range 3 {
			w.putMinutes(&hub.Channel{Name: "other", Storage: hub.Batch}, items[r.IntN(200):]...)
		}
		w.putMinutes(batch, split...)
		w.putMinutes(batch, items...)
		for name, data := range want {
			if !bytes.Equal(w.bucket.Dump()[name], data) {
				t.Errorf("%s differs", name)
			}
		}
	}
}

// zips that other programs must read: by name, with the number of entries.
func foreignZips(t *testing.T) map[string]int {
	w := newWorld(t)
	w.put(both, goldenItems(w)...)
	dir := t.TempDir()
	files := map[string]int{}
	save := func(name string, data []byte, entries int) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		files[path] = entries
	}
	blobs := w.bucket.Dump()
	save("batch.zip", blobs["ordersBatch/items/2021/03/04/05/06"], 5)
	save("single.zip", blobs["orders/2021/03/04/05/06/07/089/aZ3k9Q"], 2)
	var b bytes.Buffer
	z := longterm.NewZipWriter(&b, longterm.ZipOptions{Temp: w.temp, Folder: "tmp", Memory: 1000})
	k := key("2021-03-04T05:06:00.000Z", "aaaaaa")
	const many = 70000 // more than a zip without zip64 can count
	for i := range many {
		if err := z.Add(hub.BulkKey(k, i), "text/plain", []byte("body")); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	save("many.zip", b.Bytes(), many)
	b = bytes.Buffer{}
	z = longterm.NewZipWriter(&b, longterm.ZipOptions{})
	if err := z.AddFrom(k, "", io.LimitReader(rand.NewChaCha8([32]byte{}), 300000)); err != nil { // does not shrink
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	save("random.zip", b.Bytes(), 1)
	w.noTemps()
	return files
}

// tool finds a program that must be there where the product is checked.
func tool(t *testing.T, name string, optional bool) string {
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" && !optional {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestReadByGo(t *testing.T) {
	for path, entries := range foreignZips(t) {
		z, err := zip.OpenReader(path)
		if err != nil {
			t.Fatal(path, err)
		}
		if len(z.File) != entries {
			t.Errorf("%s: %d entries", path, len(z.File))
		}
		for _, f := range z.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); err != nil || uint64(n) != f.UncompressedSize64 {
				t.Errorf("%s: %s: %d, %v", path, f.Name, n, err)
			}
			r.Close()
		}
		if f := z.File[0]; strings.HasPrefix(f.Name, "2021/") {
			if y, m, d := f.Modified.Date(); y != 2021 || m != 3 || d != 4 {
				t.Errorf("%s: %v", path, f.Modified)
			}
		}
		z.Close()
	}
}

// TestReadByUnzip extracts and lists. "unzip -t" of a batch is not among what works: it judges the local extra fields, which have to be the bare JSON that
// the original's stream readers parse.
func TestReadByUnzip(t *testing.T) {
	unzip := tool(t, "unzip", false)
	for path, entries := range foreignZips(t) {
		if entries > 1000 && testing.Short() { // so many files take long to make
			if n := strings.Count(run(t, unzip, "-Z1", path), "\n"); n != entries {
				t.Errorf("%s: %d entries", path, n)
			}
			if out := run(t, unzip, "-p", path, "*aaaaaa069999"); out != "body" {
				t.Errorf("%s: %q", path, out)
			}
			continue
		}
		dir := t.TempDir()
		if out := run(t, unzip, "-q", "-o", "-d", dir, path); out != "" {
			t.Errorf("%s: %.500s", path, out)
		}
		n := 0
		err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				n++
			}
			return err
		})
		if n != entries || err != nil {
			t.Errorf("%s: %d files, want %d, %v", path, n, entries, err)
		}
		if out := run(t, unzip, "-l", path); strings.Contains(out, "warning") {
			t.Errorf("%s: %.500s", path, out)
		}
		if strings.HasSuffix(path, "batch.zip") {
			if out := run(t, unzip, "-p", path, "*aZ3k9Q"); out != strings.Repeat(`{"a":[1,2,3]},`, 50) {
				t.Errorf("%q", out)
			}
		}
		if strings.HasSuffix(path, "single.zip") {
			if out := run(t, unzip, "-t", path); !strings.Contains(out, "No errors detected") {
				t.Errorf("%s: %.500s", path, out)
			}
		}
	}
}

const pythonReader = `
import sys, zipfile, json, struct
for path, n in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    z = zipfile.ZipFile(path)
    assert z.testzip() is None, path
    infos = z.infolist()
    assert len(infos) == n, (path, len(infos))
    for i in infos:
        x, found = i.extra, None
        while x:
            tag, size = struct.unpack('<HH', x[:4])
            if tag == 0x4855: found = json.loads(x[4:4+size])
            x = x[4+size:]
        assert (found is not None) == i.filename.startswith('2021/'), (path, i.filename, i.extra)
        if path.endswith('batch.zip') and i.filename.endswith('aZ3k9Q'):
            assert found == {'contentType': 'application/json'}, found
            assert i.date_time == (2021, 3, 4, 5, 6, 6), i.date_time
            assert z.read(i) == b'{"a":[1,2,3]},' * 50
    if path.endswith('single.zip'):
        assert [i.filename for i in infos] == ['meta', 'payload'] and z.comment == b'700', z.comment
        assert json.loads(z.read('meta')) == {'contentType': 'application/json'}
print('ok')
`

func TestReadByPython(t *testing.T) {
	args := []string{tool(t, "python3", false), "-c", pythonReader}
	for path, entries := range foreignZips(t) {
		args = append(args, path, fmt.Sprint(entries))
	}
	if out := run(t, args...); !strings.HasSuffix(out, "ok\n") {
		t.Error(out)
	}
}

const javaReader = `
import java.io.*; import java.nio.charset.*; import java.util.*; import java.util.zip.*;
public class Read {
  public static void main(String[] a) throws Exception {
    for (int i = 0; i < a.length; i += 2) {
      int want = Integer.parseInt(a[i + 1]), n = 0;
      Map<String, Long> sums = new HashMap<>();
      try (ZipFile z = new ZipFile(a[i])) {
        for (Enumeration<? extends ZipEntry> e = z.entries(); e.hasMoreElements(); n++) {
          ZipEntry x = e.nextElement();
          CRC32 c = new CRC32(); c.update(z.getInputStream(x).readAllBytes());
          if (c.getValue() != x.getCrc()) throw new Exception(a[i] + " " + x);
          sums.put(x.getName(), x.getCrc());
        }
      }
      if (n != want) throw new Exception(a[i] + ": " + n);
      n = 0;
      try (ZipInputStream z = new ZipInputStream(new BufferedInputStream(new FileInputStream(a[i])))) {
        for (ZipEntry x; (x = z.getNextEntry()) != null; n++) {
          CRC32 c = new CRC32(); c.update(z.readAllBytes());
          if (c.getValue() != sums.get(x.getName())) throw new Exception(a[i] + " " + x);
          byte[] extra = x.getExtra();
          String s = extra == null ? "" : new String(extra, StandardCharsets.UTF_8);
          if (x.getName().startsWith("2021/") && !(s.startsWith("{") && s.endsWith("}"))) throw new Exception(x + ": " + s);
        }
      }
      if (n != want) throw new Exception(a[i] + " as a stream: " + n);
    }
    System.out.println("ok");
  }
}
`

func TestReadByJava(t *testing.T) {
	javac, java := tool(t, "javac", true), tool(t, "java", true)
	dir := t.TempDir()
	source := filepath.Join(dir, "Read.java")
	if err := os.WriteFile(source, []byte(javaReader), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, javac, "-d", dir, source)
	args := []string{java, "-cp", dir, "Read"}
	for path, entries := range foreignZips(t) {
		args = append(args, path, fmt.Sprint(entries))
	}
	if out := run(t, args...); !strings.HasSuffix(out, "ok\n") {
		t.Error(out)
	}
}

// TestZip64Offsets: entries that begin beyond 4 GiB, in a zip of which the beginning is never written anywhere.
func TestZip64Offsets(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses 4 GiB")
	}
	w := newWorld(t)
	sink := &lastBytes{keep: 1 << 20}
	z := longterm.NewZipWriter(sink, longterm.ZipOptions{})
	k := key("2021-03-04T05:06:00.000Z", "aaaaaa")
	noise := make([]byte, 256<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	for i := range 17 {
		if err := z.Add(hub.BulkKey(k, i), "", noise); err != nil {
			t.Fatal(err)
		}
	}
	tail := hub.BulkKey(k, 17)
	if err := z.Add(tail, "text/plain", []byte("far out")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := zip.NewReader(sink, sink.size)
	if err != nil || len(f.File) != 18 {
		t.Fatal(err)
	}
	r, err := f.File[17].Open()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "far out" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	keys, item, err := longterm.ReadAt(w.store, sink, sink.size, tail)
	if err != nil || keys != 18 {
		t.Fatal(keys, err)
	}
	if m, body := w.open(item); body != "far out" || m.ContentType != "text/plain" {
		t.Errorf("%+v, %q", m, body)
	}
}

// lastBytes keeps the end of what is written.
type lastBytes struct {
	keep int
	size int64
	buf  []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.size += int64(len(p))
	l.buf = append(l.buf, p[max(0, len(p)-l.keep):]...)
	if len(l.buf) > 2*l.keep {
		l.buf = append(l.buf[:0], l.buf[len(l.buf)-l.keep:]...)
	}
	return len(p), nil
}

func (l *lastBytes) ReadAt(p []byte, off int64) (int, error) {
	begin := l.size - int64(len(l.buf))
	if off < begin {
		return 0, io.ErrUnexpectedEOF
	}
	return bytes.NewReader(l.buf).ReadAt(p, off-begin)
}

func TestZipWriterRefuses(t *testing.T) {
	k := key("2021-03-04T05:06:00.000Z", "aaaaaa")
	z := longterm.NewZipWriter(io.Discard, longterm.ZipOptions{})
	if err := z.Add(k, strings.Repeat("x", 70000), nil); !hub.Is(err, hub.TooLarge) {
		t.Error(err)
	}
	if err := z.Close(); err == nil {
		t.Error("a zip with a failed entry was closed")
	}
	w := newWorld(t)
	broken := fmt.Errorf("broken pipe")
	z = longterm.NewZipWriter(errWriter{broken}, longterm.ZipOptions{Temp: w.temp, Folder: "tmp", Memory: 10})
	var err error
	for i := 0; err == nil && i < 10000; i++ {
		err = z.Add(hub.BulkKey(k, i), "", []byte("some bytes"))
	}
	if err == nil {
		t.Error("a broken writer was not noticed")
	}
	z.Abort()
	z.Abort()
	w.noTemps()
}

type errWriter struct{ err error }

func (e errWriter) Write([]byte) (int, error) { return 0, e.err }

func TestIndexIsTheZip(t *testing.T) {
	w := newWorld(t)
	items := goldenItems(w)
	w.putMinutes(batch, items...)
	var x struct {
		ID    string
		Items []string
	}
	if err := json.Unmarshal(w.bucket.Dump()["ordersBatch/index/2021/03/04/05/06"], &x); err != nil || x.ID != "2021/03/04/05/06" || len(x.Items) != len(items) {
		t.Fatal(x, err)
	}
	for i := range items {
		if x.Items[i] != items[i].Key.String() {
			t.Errorf("%d: %s", i, x.Items[i])
		}
	}
}
