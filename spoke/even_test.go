package spoke

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/spoke/roster"
)

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// TestEven: two nodes that stay two are told what that means, once; when the third is there soon, nobody is.
func TestEven(t *testing.T) {
	const says = "the number of nodes is even"
	for third, want := range map[time.Duration]int{2 * time.Second: 0, time.Minute: 1} {
		directed(t, 2, roster.Half, func(t *testing.T, w *simWorld) {
			out := &lines{}
			w.tune = func(o *Options) { o.Log = slog.New(slog.NewTextHandler(out, nil)) }
			w.nodes[0].end("stop")
			w.nodes[0].start()
			w.tune = nil
			w.whole()
			time.Sleep(third)
			w.member()
			w.until("all are on the list", func() bool { r := w.list(); return r.Next == nil && len(r.Disks) == 3 })
			time.Sleep(time.Minute)
			if n := out.count(says); n != want {
				t.Errorf("the third came after %v: %d warnings, not %d", third, n, want)
			}
		})
	}
}

// TestOtherQuorum: a node that was given another rule than that of the list says that it does not count.
func TestOtherQuorum(t *testing.T) {
	directed(t, 3, roster.Half, func(t *testing.T, w *simWorld) {
		out := &lines{}
		w.tune = func(o *Options) {
			o.Log, o.Cluster.Rule = slog.New(slog.NewTextHandler(out, nil)), roster.Majority
		}
		w.nodes[0].end("stop")
		w.nodes[0].start()
		w.tune = nil
		w.whole()
		if n := out.count("spoke.quorum is not what this cluster began with"); n != 1 {
			t.Errorf("%d warnings", n)
		}
		if rule := w.list().Rule; rule != roster.Half {
			t.Error(rule)
		}
	})
}
