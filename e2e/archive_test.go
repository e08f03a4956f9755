package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestLogLost: what the archiver has carried to long-term storage is whole without Spoke's log, in every layout. The batches are zips that others read.
func TestLogLost(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute has to pass before it is archived")
	}
	hub := start(t)
	written := map[string][]item{}
	for _, storage := range []string{"BATCH", "SINGLE", "BOTH"} {
		channel := "lost-" + storage
		putChannel(t, hub.URL, channel, `{"storage": "`+storage+`"}`)
		for i := range 30 {
			body := bytes.Repeat([]byte(fmt.Sprintf("%s %d ", storage, i)), 1+50*i)
			r := must(t, 201, "POST", hub.URL+"/channel/"+channel, body, "Content-Type", "text/plain")
			written[channel] = append(written[channel], item{key: keyOf(r.header.Get("Location")), body: body})
		}
		bodies := [][]byte{[]byte("first"), []byte("second"), []byte("third")}
		bulk, contentType := bulkBody("text/html", bodies)
		uris, err := must(t, 201, "POST", hub.URL+"/channel/"+channel+"/bulk", bulk, "Content-Type", contentType).uris()
		if err != nil {
			t.Fatal(err)
		}
		for i, u := range uris {
			written[channel] = append(written[channel], item{key: keyOf(u), body: bodies[i]})
		}
	}
	for channel, items := range written {
		waitArchived(t, hub.URL, channel, items)
	}

	hub.Kill()
	zips := batches(t, filepath.Join(hub.Dir, "bucket"))
	if len(zips) == 0 {
		t.Error("there is no zip in the bucket")
	}
	for _, name := range zips {
		otherReaders(t, name, readZip(t, name))
	}
	if err := os.RemoveAll(filepath.Join(hub.Dir, "spoke")); err != nil {
		t.Fatal(err)
	}
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	for channel, items := range written {
		checkWritten(t, hub.URL, channel, items, "")
		last := items[len(items)-1].key
		r := must(t, 303, "GET", hub.URL+"/channel/"+channel+"/latest", nil)
		if got := keyOf(r.header.Get("Location")); got != last {
			t.Errorf("%s: latest is %s, want %s", channel, got, last)
		}
		// Life goes on, above everything that was there.
		r = must(t, 201, "POST", hub.URL+"/channel/"+channel, []byte("after"))
		if got := keyOf(r.header.Get("Location")); got <= last {
			t.Errorf("%s: the new key %s is not above %s", channel, got, last)
		}
	}
}

// waitArchived waits until long-term storage alone lists all items; a minute is closed when it is over.
func waitArchived(t *testing.T, hub, channel string, items []item) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		if n := len(list(t, hub, channel, items, "?location=LONG_TERM")); n >= len(items) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%s: long-term storage has %d of %d items", channel, n, len(items))
		}
	}
	checkWritten(t, hub, channel, items, "&location=LONG_TERM")
}

// list lists the days of items.
func list(t *testing.T, hub, channel string, items []item, query string) []string {
	t.Helper()
	var keys []string
	for _, day := range days(items) {
		uris, err := must(t, 200, "GET", hub+"/channel/"+channel+"/"+day+query, nil).uris()
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range uris {
			keys = append(keys, keyOf(u))
		}
	}
	return keys
}

func days(items []item) []string {
	var days []string
	for _, i := range items {
		days = append(days, i.key[:10])
	}
	return slices.Compact(days)
}

// checkWritten compares what is read in bulk, and one by one, with what was written.
func checkWritten(t *testing.T, hub, channel string, items []item, query string) {
	t.Helper()
	var got []item
	for _, day := range days(items) {
		parts, err := must(t, 200, "GET", hub+"/channel/"+channel+"/"+day+"?bulk=true"+query, nil).parts()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, parts...)
	}
	if len(got) != len(items) {
		t.Errorf("%s%s: %d items, want %d", channel, query, len(got), len(items))
		return
	}
	for i, want := range items {
		if got[i].key != want.key || !bytes.Equal(got[i].body, want.body) {
			t.Errorf("%s%s: item %d is %s %.60q, want %s %.60q", channel, query, i, got[i].key, got[i].body, want.key, want.body)
		}
		r := must(t, 200, "GET", hub+"/channel/"+channel+"/"+want.key+"?remoteOnly="+fmt.Sprint(query != ""), nil)
		if !bytes.Equal(r.body, want.body) {
			t.Errorf("%s: %s is %.60q", channel, want.key, r.body)
		}
	}
}

// batches finds the zips in a bucket by their first bytes.
func batches(t *testing.T, dir string) []string {
	t.Helper()
	var zips []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err == nil && bytes.HasPrefix(b, []byte("PK\x03\x04")) {
			zips = append(zips, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return zips
}
