package e2e

import (
	"context"
	"flag"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/e2e/clockctl"
	"timehub/e2e/hubproc"
)

// rounds is how often the crash test kills the hub: 20 in CI, more by `make chaos`.
var rounds = flag.Int("rounds", 20, "kills in the crash test")

// logsFlag is where the logs of hubs go: whole, and at debug level.
var logsFlag = flag.String("logs", "", "keep what hubs log, everything, in this folder")

// hubFlag names a binary to test instead of one built from this tree.
var hubFlag = flag.String("hub", "", "test this binary")

// builder makes the binary once per test run, when the first test needs it.
type builder struct {
	tags []string // none: as it is released
	once sync.Once
	dir  string
	bin  string
	err  error
}

var (
	hubBinary   builder
	clockBinary = builder{tags: []string{clockctl.Tag}} // the clock of each process can be set
)

func (b *builder) get() (string, error) {
	b.once.Do(func() {
		if *hubFlag != "" && len(b.tags) == 0 {
			b.bin = *hubFlag
			return
		}
		if b.dir, b.err = os.MkdirTemp("", "hub-e2e-"); b.err == nil {
			b.bin, b.err = hubproc.Build(context.Background(), "..", b.dir, b.tags...)
		}
	})
	return b.bin, b.err
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	for _, b := range []*builder{&hubBinary, &clockBinary} {
		if b.dir != "" {
			os.RemoveAll(b.dir)
		}
	}
	os.Exit(code)
}

// client is what Go tests speak HTTP with: it follows no redirects and decompresses nothing.
var client = &http.Client{
	Timeout:       2 * time.Minute,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
}

// prepare makes a hub that is closed with the test. Its log is shown when the test failed; a panic in it is a failure.
func prepare(t *testing.T, flags ...string) *hubproc.Hub {
	t.Helper()
	return prepareWith(t, &hubBinary, hubproc.Options{Flags: flags})
}

func prepareWith(t *testing.T, binary *builder, opt hubproc.Options) *hubproc.Hub {
	t.Helper()
	bin, err := binary.get()
	if err != nil {
		t.Fatal(err)
	}
	opt.Bin = bin
	if *logsFlag != "" {
		opt.Flags = append(slices.Clip(opt.Flags), "--log-level", "debug")
	}
	h, err := hubproc.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		log := h.Log()
		for _, bad := range []string{"panic:", "fatal error:", "panic serving"} {
			if strings.Contains(log, bad) {
				t.Errorf("the hub's log has %q", bad)
			}
		}
		if *logsFlag != "" {
			_, port, _ := net.SplitHostPort(h.Addr)
			if err := os.WriteFile(filepath.Join(*logsFlag, strings.ReplaceAll(t.Name(), "/", "-")+"-"+port+".log"), []byte(log), 0o644); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.Logf("the end of the hub's log:\n%s", h.Tail(6000))
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// start prepares and starts a hub.
func start(t *testing.T, flags ...string) *hubproc.Hub {
	t.Helper()
	h := prepare(t, flags...)
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	return h
}

// data is a file of testdata/data.
func data(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "data", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
