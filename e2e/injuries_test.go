package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"timehub/e2e/hubproc"
)

var injuries = flag.Int("injuries", 200, "injuries in the damage test")

// TestInjuries flips bytes in segments of a stopped hub, or cuts them, at random places, and starts it again: it starts, it never serves a byte that
// was not written, and when something acknowledged is no longer there it says so.
func TestInjuries(t *testing.T) {
	rng := seeded(t)
	hub := prepare(t)
	written := writeInjured(t, hub, rng)
	pristine := filepath.Join(t.TempDir(), "pristine")
	if err := os.CopyFS(pristine, os.DirFS(hub.Dir)); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(pristine, "spoke", "*.seg"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("%d segments, %v: too few to injure", len(segments), err)
	}
	n := *injuries
	if testing.Short() {
		n = 10
	}
	// The control: without an injury everything is there, and nothing is reported.
	if injureOnce(t, hub, nil, pristine, written) != 0 || reported.MatchString(hub.Log()) {
		t.Fatalf("uninjured, and yet:\n%s", hub.Log())
	}
	missing := 0
	for i := range n {
		missing += injureOnce(t, hub, rng, pristine, written)
		if t.Failed() {
			t.Fatalf("injury %d", i)
		}
	}
	t.Logf("%d injuries to %d segments, %d times an item was missing and reported, never wrong", n, len(segments), missing)
}

// writeInjured fills several segments and stops the hub. Items by key, of one channel after another.
func writeInjured(t *testing.T, hub *hubproc.Hub, rng *rand.Rand) map[string]map[string][]byte {
	t.Helper()
	written := map[string]map[string][]byte{}
	for start := range 4 {
		if err := hub.Start(); err != nil {
			t.Fatal(err)
		}
		for c := range 3 {
			channel := fmt.Sprintf("injured-%d", c)
			putChannel(t, hub.URL, channel, `{}`)
			if written[channel] == nil {
				written[channel] = map[string][]byte{}
			}
			for i := range 8 {
				body := make([]byte, 20+rng.IntN(3000))
				for j := range body {
					body[j] = "0123456789abcdef"[rng.IntN(16)]
				}
				if i%4 == 3 {
					parts := [][]byte{body, body[:len(body)/2], body[:10]}
					b, contentType := bulkBody("text/plain", parts)
					uris, err := must(t, 201, "POST", hub.URL+"/channel/"+channel+"/bulk", b, "Content-Type", contentType).uris()
					if err != nil {
						t.Fatal(err)
					}
					for k, u := range uris {
						written[channel][keyOf(u)] = parts[k]
					}
					continue
				}
				r := must(t, 201, "POST", hub.URL+"/channel/"+channel, body, "Content-Type", "text/plain")
				written[channel][keyOf(r.header.Get("Location"))] = body
			}
		}
		if start%2 == 0 {
			hub.Kill()
		} else if err := hub.Stop(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	return written
}

// reported is how a hub says that acknowledged data is damaged: a line of warning or error, or a count that is not 0.
var reported = regexp.MustCompile(`level=(WARN|ERROR)|(cut|holes|damaged)=[1-9]`)

// injureOnce makes one injury (none without rng) and returns 1 if it cost an item.
func injureOnce(t *testing.T, hub *hubproc.Hub, rng *rand.Rand, pristine string, written map[string]map[string][]byte) int {
	t.Helper()
	if err := os.RemoveAll(hub.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(hub.Dir, os.DirFS(pristine)); err != nil {
		t.Fatal(err)
	}
	what := "no injury"
	if rng != nil {
		what = injure(t, hub.Dir, rng)
	}
	before := len(hub.Log())
	if err := hub.Start(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	absent := 0
	for channel, items := range written {
		listed, whole := listInjured(t, hub.URL, channel)
		for key := range listed {
			if _, ok := items[key]; !ok {
				t.Errorf("%s: %s lists %s, which was never written", what, channel, key)
			}
		}
		for key, body := range items {
			r, err := call(t.Context(), "GET", hub.URL+"/channel/"+channel+"/"+key, nil)
			switch {
			case err != nil:
				t.Errorf("%s: GET %s: %v", what, key, err)
			case r.status == 200 && !bytes.Equal(r.body, body):
				t.Errorf("%s: %s/%s is served wrong: %d bytes, want %d", what, channel, key, len(r.body), len(body))
			case r.status == 200 && whole && !listed[key]:
				t.Errorf("%s: %s/%s is there, and not in the list", what, channel, key)
			case r.status == 200:
			case r.status == 404 || r.status == 503:
				absent++
			default:
				t.Errorf("%s: GET %s: %d %.200s", what, key, r.status, r.body)
			}
		}
	}
	hub.Kill()
	if absent > 0 && !reported.MatchString(hub.Log()[before:]) {
		t.Errorf("%s: %d items are gone and nothing says so:\n%s", what, absent, hub.Log()[before:])
	}
	return min(absent, 1)
}

// listInjured lists a channel; a hub that knows of a hole may say 503 instead.
func listInjured(t *testing.T, hub, channel string) (keys map[string]bool, whole bool) {
	t.Helper()
	r, err := call(t.Context(), "GET", hub+"/channel/"+channel+"/"+time.Now().UTC().Format("2006/01/02")+"?stable=false", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.status == 503 {
		return nil, false
	}
	uris, err := r.uris()
	if err != nil || r.status != 200 {
		t.Fatalf("list: %d %v", r.status, err)
	}
	keys = map[string]bool{}
	for _, u := range uris {
		keys[keyOf(u)] = true
	}
	return keys, true
}

// injure flips a byte, overwrites a stretch, or cuts a random segment, and says what it did.
func injure(t *testing.T, dir string, rng *rand.Rand) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "spoke", "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatal(err)
	}
	var name string
	var b []byte
	for len(b) == 0 {
		name = segments[rng.IntN(len(segments))]
		if b, err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	at := rng.IntN(len(b))
	what := ""
	switch rng.IntN(4) {
	case 0, 1:
		b[at] ^= byte(1 + rng.IntN(255))
		what = fmt.Sprintf("byte %d of %d flipped in %s", at, len(b), filepath.Base(name))
	case 2:
		end := min(len(b), at+1+rng.IntN(600))
		for i := at; i < end; i++ {
			b[i] = byte(rng.Uint32())
		}
		what = fmt.Sprintf("bytes %d to %d of %d overwritten in %s", at, end, len(b), filepath.Base(name))
	case 3:
		what = fmt.Sprintf("%s cut at %d of %d", filepath.Base(name), at, len(b))
		b = b[:at]
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}
