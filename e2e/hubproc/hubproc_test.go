package hubproc

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the hub that it starts: `hubproc.test serve --data … --listen …`.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(fake(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// fake behaves as the environment says: FAKE=dies, stubborn, slow or nothing.
func fake(args []string) int {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	data, addr := flags.String("data", "", ""), flags.String("listen", "", "")
	flags.Parse(args)
	fmt.Println("fake hub", *data, os.Getenv("HUB_LEAKED"), os.Getenv("HUB_GIVEN"))
	if os.Getenv("FAKE") == "dies" {
		fmt.Println("no such property")
		return 3
	}
	begin := time.Now()
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "Hub/fake")
		if os.Getenv("FAKE") == "slow" && time.Since(begin) < 300*time.Millisecond {
			w.WriteHeader(500)
		}
	})
	go http.ListenAndServe(*addr, nil)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	if os.Getenv("FAKE") == "stubborn" {
		time.Sleep(time.Hour)
	}
	return 0
}

func newFake(t *testing.T, env ...string) *Hub {
	t.Setenv("HUB_LEAKED", "leaked")
	h, err := New(Options{Bin: os.Args[0], Env: env, Wait: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestLife(t *testing.T) {
	h := newFake(t, "HUB_GIVEN=given", "FAKE=slow")
	for range 2 {
		if err := h.Start(); err != nil {
			t.Fatal(err)
		}
		if !h.Running() || h.Start() == nil {
			t.Error("a hub that runs can be started")
		}
		if err := h.Stop(time.Minute); err != nil {
			t.Error(err)
		}
	}
	if h.Running() || h.Stop(time.Second) == nil {
		t.Error("a hub that does not run can be stopped")
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	pid := h.PID()
	h.Kill()
	if syscall.Kill(pid, 0) == nil {
		t.Error("the process is still there")
	}
	if got := strings.Count(h.Log(), "fake hub "+h.Dir+"  given"); got != 3 {
		t.Errorf("%d starts in the log, want 3 without HUB_LEAKED: %s", got, h.Log())
	}
	temp := filepath.Dir(h.log.Name())
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(temp); err == nil {
		t.Error("something is left")
	}
}

func TestDies(t *testing.T) {
	h := newFake(t, "FAKE=dies")
	if err := h.Start(); err == nil || !strings.Contains(err.Error(), "no such property") {
		t.Errorf("%v, want the end of the log", err)
	}
	if err := h.Launch(); err != nil {
		t.Fatal(err)
	}
	if code, err := h.Exit(time.Minute); err != nil || code != 3 {
		t.Errorf("exit %d, %v", code, err)
	}
}

func TestStubborn(t *testing.T) {
	h := newFake(t, "FAKE=stubborn")
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(200 * time.Millisecond); err == nil || h.Running() {
		t.Errorf("%v: it runs: %v", err, h.Running())
	}
}

func TestBuildFails(t *testing.T) {
	if _, err := Build(t.Context(), t.TempDir(), t.TempDir()); err == nil {
		t.Error("nothing can be built, and yet it was")
	}
}
