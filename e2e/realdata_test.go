package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// countQuakes is the independent means: what the file itself says of days and hours, computed by nothing of ours.
const countQuakes = `
import json, sys, datetime, collections
count = collections.Counter()
for f in json.load(open(sys.argv[1]))["features"]:
    t = datetime.datetime.fromtimestamp(f["properties"]["time"] // 1000, datetime.timezone.utc)
    count[t.strftime("%Y/%m/%d")] += 1
    count[t.strftime("%Y/%m/%d/%H")] += 1
json.dump(count, sys.stdout)
`

// TestEarthquakes puts 1,707 earthquakes at their own instants and counts them per day and hour.
func TestEarthquakes(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "quakes", `{"mutableTime": "2018-03-01"}`)
	var file struct {
		Features []json.RawMessage `json:"features"`
	}
	if err := json.Unmarshal(data(t, "earthquakes.json"), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Features) != 1707 {
		t.Fatalf("%d features", len(file.Features))
	}
	sent := map[string][]byte{} // by time path
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for _, f := range file.Features {
		var quake struct {
			Properties struct {
				Time int64 `json:"time"`
			} `json:"properties"`
		}
		if err := json.Unmarshal(f, &quake); err != nil {
			t.Fatal(err)
		}
		path := strings.Replace(time.UnixMilli(quake.Properties.Time).UTC().Format("2006/01/02/15/04/05.000"), ".", "/", 1)
		sent[path] = f
		group.Go(func() error {
			r, err := call(ctx, "POST", hub.URL+"/channel/quakes/"+path, f, "Content-Type", "application/json")
			if err == nil && r.status != 201 {
				err = fmt.Errorf("POST %s: %d %s", path, r.status, r.body)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	checkQuakes(t, hub.URL, "quakes", sent)
}

// checkQuakes compares counts with python's, and every item with the file.
func checkQuakes(t *testing.T, hub, channel string, sent map[string][]byte) {
	t.Helper()
	out, err := exec.Command("python3", "-c", countQuakes, filepath.Join("testdata", "data", "earthquakes.json")).Output()
	if err != nil {
		t.Fatalf("count by python: %v", err)
	}
	want := map[string]int{}
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	days, items := 0, 0
	for day := time.Date(2018, 1, 30, 0, 0, 0, 0, time.UTC); day.Before(time.Date(2018, 2, 9, 0, 0, 0, 0, time.UTC)); day = day.AddDate(0, 0, 1) {
		period := day.Format("2006/01/02")
		r := must(t, 200, "GET", hub+"/channel/"+channel+"/"+period+"?epoch=MUTABLE", nil)
		uris, err := r.uris()
		if err != nil {
			t.Fatal(err)
		}
		if len(uris) != want[period] {
			t.Errorf("%s: %d earthquakes, the file has %d", period, len(uris), want[period])
		}
		if !slices.IsSorted(uris) {
			t.Errorf("%s: not in order", period)
		}
		days += len(uris)
		for hour := range 24 {
			period := fmt.Sprintf("%s/%02d", period, hour)
			uris, err := must(t, 200, "GET", hub+"/channel/"+channel+"/"+period+"?epoch=MUTABLE", nil).uris()
			if err != nil {
				t.Fatal(err)
			}
			if len(uris) != want[period] {
				t.Errorf("%s: %d earthquakes, the file has %d", period, len(uris), want[period])
			}
		}
		read, err := must(t, 200, "GET", hub+"/channel/"+channel+"/"+period+"?epoch=MUTABLE&bulk=true", nil).parts()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range read {
			items++
			if len(i.key) < 23 || !bytes.Equal(i.body, sent[i.key[:23]]) {
				t.Fatalf("item %s is not what was sent: %.200s", i.key, i.body)
			}
		}
	}
	if days != len(sent) || items != len(sent) {
		t.Errorf("%d keys and %d items in all, want %d", days, items, len(sent))
	}
}

// TestImport does the same by `hub import`, twice: the second run changes nothing.
func TestImport(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "quakes", `{"mutableTime": "2018-03-01"}`)
	var file struct {
		Features []json.RawMessage `json:"features"`
	}
	if err := json.Unmarshal(data(t, "earthquakes.json"), &file); err != nil {
		t.Fatal(err)
	}
	bin, err := hubBinary.get()
	if err != nil {
		t.Fatal(err)
	}
	var first []string
	for round := range 2 {
		cmd := exec.Command(bin, "import", "quakes", filepath.Join("testdata", "data", "earthquakes.json"),
			"--items", ".features[]", "--time", ".properties.time", "--hub", hub.URL)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("hub import: %v\n%s", err, out)
		}
		var keys []string
		for day := time.Date(2018, 1, 30, 0, 0, 0, 0, time.UTC); day.Day() != 9; day = day.AddDate(0, 0, 1) {
			r := must(t, 200, "GET", hub.URL+"/channel/quakes/"+day.Format("2006/01/02")+"?epoch=MUTABLE&bulk=true", nil)
			items, err := r.parts()
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range items {
				keys = append(keys, i.key+" "+digest(i.body))
			}
		}
		if len(keys) != len(file.Features) {
			t.Fatalf("run %d: %d items, the file has %d", round, len(keys), len(file.Features))
		}
		if round == 0 {
			first = keys
		} else if !slices.Equal(first, keys) {
			t.Error("the second run changed something")
		}
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TestFlights puts 20,000 flights in bulks of 1,000 and reads them back as multipart and as zip: byte-equal, in order, also by other people's readers.
func TestFlights(t *testing.T) {
	hub := start(t)
	putChannel(t, hub.URL, "flights", `{"keepForever": true}`)
	var raw []json.RawMessage
	if err := json.Unmarshal(data(t, "flights-20k.json"), &raw); err != nil {
		t.Fatal(err)
	}
	flights := make([][]byte, len(raw))
	for i, r := range raw {
		flights[i] = r
	}
	if len(flights) != 20_000 {
		t.Fatalf("%d flights", len(flights))
	}
	var keys []string
	for at := 0; at < len(flights); at += 1000 {
		body, contentType := bulkBody("application/json", flights[at:at+1000])
		r := must(t, 201, "POST", hub.URL+"/channel/flights/bulk", body, "Content-Type", contentType)
		uris, err := r.uris()
		if err != nil || len(uris) != 1000 {
			t.Fatalf("bulk insert: %d keys, %v", len(uris), err)
		}
		for _, u := range uris {
			keys = append(keys, keyOf(u))
		}
	}
	if !slices.IsSorted(keys) {
		t.Error("keys do not rise")
	}

	days := []string{keys[0][:10]}
	if last := keys[len(keys)-1][:10]; last != days[0] { // midnight passed in between
		days = append(days, last)
	}
	var items, zipped []item
	for _, day := range days {
		parts, err := must(t, 200, "GET", hub.URL+"/channel/flights/"+day+"?bulk=true", nil).parts()
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, parts...)
		r := must(t, 200, "GET", hub.URL+"/channel/flights/"+day+"?bulk=true", nil, "Accept", "application/zip")
		name := filepath.Join(t.TempDir(), "flights.zip")
		if err := os.WriteFile(name, r.body, 0o600); err != nil {
			t.Fatal(err)
		}
		entries := readZip(t, name)
		zipped = append(zipped, entries...)
		otherReaders(t, name, entries)
	}
	for how, got := range map[string][]item{"multipart": items, "zip": zipped} {
		if len(got) != len(flights) {
			t.Fatalf("%s: %d items", how, len(got))
		}
		for i := range got {
			if got[i].key != keys[i] || !bytes.Equal(got[i].body, flights[i]) {
				t.Fatalf("%s: item %d is %s %.100s, want %s %.100s", how, i, got[i].key, got[i].body, keys[i], flights[i])
			}
		}
	}
	if items[0].contentType != "application/json" {
		t.Errorf("content type %q", items[0].contentType)
	}
}

// readZip reads a zip with Go's reader.
func readZip(t *testing.T, name string) []item {
	t.Helper()
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var items []item
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		items = append(items, item{key: f.Name, body: body})
	}
	return items
}

const pythonZip = `
import sys, zipfile, hashlib
h = hashlib.sha256()
z = zipfile.ZipFile(sys.argv[1])
assert z.testzip() is None
for i in z.infolist():
    body = z.read(i)
    assert len(body) == i.file_size
    h.update(i.filename.encode() + b"\0" + body + b"\0")
print(h.hexdigest())
`

const javaZip = `
import java.io.*; import java.security.*; import java.util.*; import java.util.zip.*;
public class Zips {
  static void add(MessageDigest h, String name, InputStream in) throws Exception {
    h.update(name.getBytes("UTF-8")); h.update((byte) 0); h.update(in.readAllBytes()); h.update((byte) 0);
  }
  static void print(MessageDigest h) { System.out.println(HexFormat.of().formatHex(h.digest())); }
  public static void main(String[] a) throws Exception {
    MessageDigest h = MessageDigest.getInstance("SHA-256");
    try (ZipFile z = new ZipFile(a[0])) {
      for (Enumeration<? extends ZipEntry> e = z.entries(); e.hasMoreElements();) { ZipEntry n = e.nextElement(); add(h, n.getName(), z.getInputStream(n)); }
    }
    print(h);
    try (ZipInputStream z = new ZipInputStream(new BufferedInputStream(new FileInputStream(a[0])))) {
      for (ZipEntry n; (n = z.getNextEntry()) != null;) add(h, n.getName(), z);
    }
    print(h);
  }
}
`

// otherReaders reads a zip with unzip and python, and with both of Java's readers where there is a JDK.
func otherReaders(t *testing.T, name string, want []item) {
	t.Helper()
	sum, all := sha256.New(), sha256.New()
	for _, i := range want {
		fmt.Fprintf(sum, "%s\x00%s\x00", i.key, i.body)
		all.Write(i.body)
	}
	wantSum := hex.EncodeToString(sum.Sum(nil))
	run := func(name string, args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var out, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v\n%.2000s", name, err, stderr.String())
		}
		return out.String()
	}
	// Not -t: it warns of the raw JSON in the local headers, which stream readers of the original expect. Extracting checks the CRCs too.
	if got := digest([]byte(run("unzip", "-p", name))); got != hex.EncodeToString(all.Sum(nil)) {
		t.Error("unzip reads other bytes")
	}
	if got := strings.TrimSpace(run("python3", "-c", pythonZip, name)); got != wantSum {
		t.Errorf("python's zipfile reads other items: %s", got)
	}
	if _, err := exec.LookPath("javac"); err != nil {
		t.Log("no JDK here: Java's readers were not asked")
		return
	}
	source := filepath.Join(t.TempDir(), "Zips.java")
	if err := os.WriteFile(source, []byte(javaZip), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(run("java", source, name)); !slices.Equal(got, []string{wantSum, wantSum}) {
		t.Errorf("Java's readers read other items: %v", got)
	}
}
