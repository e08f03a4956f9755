package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"timehub/e2e/s3proc"
)

// TestS3: a hub with its long-term storage in a real S3 server takes writes while the server is away, carries them there when it is back, and has them
// without its log. Another hub is kept off the bucket.
func TestS3(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute has to pass before it is archived")
	}
	t.Parallel()
	server := s3proc.Start(t, s3proc.Versity, "..")
	if err := os.Mkdir(filepath.Join(server.Dir, "the-bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(t.TempDir(), "credentials.properties")
	if err := os.WriteFile(credentials, []byte("accessKey="+s3proc.User+"\nsecretKey="+s3proc.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{
		"--set", "storage.type=s3", "--set", "s3.endpoint=" + server.URL, "--set", "s3.bucket_name=the-bucket", "--set", "s3.pathStyleAccessEnable=true",
		"--set", "aws.credentials=" + credentials, "--set", "aws.retry.max.delay.millis=500", "--set", "app.large.payload.MB=1",
	}
	hub := start(t, flags...)
	written := map[string][]item{}
	insert := func(n int) {
		for _, storage := range []string{"BATCH", "SINGLE"} {
			channel := "s3-" + storage
			for i := range n {
				body := bytes.Repeat([]byte(fmt.Sprintf("%s %d ", storage, i)), 1+50*i)
				r := must(t, 201, "POST", hub.URL+"/channel/"+channel, body, "Content-Type", "text/plain")
				written[channel] = append(written[channel], item{key: keyOf(r.header.Get("Location")), body: body})
			}
		}
	}
	for _, storage := range []string{"BATCH", "SINGLE"} {
		putChannel(t, hub.URL, "s3-"+storage, `{"storage": "`+storage+`"}`)
	}
	insert(10)
	large := bytes.Repeat([]byte("a large one "), 600_000)
	r := must(t, 201, "POST", hub.URL+"/channel/s3-SINGLE", large, "Content-Type", "text/plain")
	written["s3-SINGLE"] = append(written["s3-SINGLE"], item{key: keyOf(r.header.Get("Location")), body: large})

	server.Kill()
	insert(10)
	for _, i := range written["s3-BATCH"] { // what Spoke has is there
		if r := must(t, 200, "GET", hub.URL+"/channel/s3-BATCH/"+i.key, nil); !bytes.Equal(r.body, i.body) {
			t.Errorf("%s: %d bytes, want %d", i.key, len(r.body), len(i.body))
		}
	}
	must(t, 503, "GET", hub.URL+"/channel/s3-BATCH/"+time.Now().UTC().AddDate(0, 0, -1).Format("2006/01/02"), nil) // what may be in the store is not known
	must(t, 503, "POST", hub.URL+"/channel/s3-SINGLE", large)
	server.Run(t)
	insert(10)

	second := prepare(t, flags...)
	if err := second.Start(); err == nil || !strings.Contains(second.Log(), "the bucket belongs to the hub") {
		t.Errorf("a second hub on the bucket: %v\n%s", err, second.Log())
	}

	for channel, items := range written {
		waitArchived(t, hub.URL, channel, items)
	}
	reader := start(t, append(flags, "--set", "hub.read.only=true")...)
	for channel, items := range written {
		checkWritten(t, reader.URL, channel, items, "")
	}
	readsOnly(t, reader.URL+"/channel/s3-BATCH", written["s3-BATCH"][0].key)
	hub.Kill()
	if err := os.RemoveAll(filepath.Join(hub.Dir, "spoke")); err != nil {
		t.Fatal(err)
	}
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	for channel, items := range written {
		checkWritten(t, hub.URL, channel, items, "")
	}
}

// readsOnly: a read-only hub refuses whatever would change something, says so in /health, and answers everything else.
func readsOnly(t *testing.T, channel, key string) {
	t.Helper()
	base := channel[:strings.Index(channel, "/channel/")]
	const document, bulk = "application/json", "multipart/mixed; boundary=b"
	for _, c := range []struct{ method, url, contentType string }{
		{"POST", base + "/channel", document}, {"PUT", channel, document}, {"PATCH", channel, document}, {"DELETE", channel, ""}, {"POST", channel, "text/plain"},
		{"POST", channel + "/bulk", bulk}, {"POST", channel + "/" + key, "text/plain"}, {"DELETE", channel + "/" + key, ""}, {"POST", base + "/provider", "text/plain"},
		{"PUT", base + "/webhook/w", document}, {"DELETE", base + "/webhook/w", ""}, {"PUT", base + "/group/w", document}, {"GET", channel + "/events", ""},
		{"GET", channel + "/" + key + "/events", ""},
	} {
		r := must(t, 403, c.method, c.url, []byte("{}"), "Content-Type", c.contentType)
		if !strings.Contains(string(r.body), "read-only") && !strings.Contains(c.url, "/webhook/") {
			t.Errorf("%s %s: %s", c.method, c.url, r.body)
		}
	}
	for _, path := range []string{"", "/status", "/latest?location=LONG_TERM", "/" + key + "/next/5", "/time/minute"} {
		r, err := client.Get(channel + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode >= 400 {
			t.Errorf("GET %s: %d", path, r.StatusCode)
		}
	}
	if r := must(t, 200, "GET", base+"/health", nil); !strings.Contains(string(r.body), `"readOnly": true`) {
		t.Errorf("/health: %s", r.body)
	}
}
