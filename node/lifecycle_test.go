package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// diary writes down what happens, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) put(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, s)
}

func (d *diary) String() string { return strings.Join(d.lines, " ") }

func newGroup() *group { return &group{log: slog.New(slog.DiscardHandler)} }

// plain is an actor that takes a while to be ready and a while to stop.
func (d *diary) plain(g *group, name string) {
	g.add(name, time.Minute, func(ctx context.Context, ready func()) error {
		time.Sleep(time.Second)
		d.put("+" + name)
		ready()
		<-ctx.Done()
		time.Sleep(time.Second)
		d.put("-" + name)
		return ctx.Err()
	})
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		g := newGroup()
		d.plain(g, "a")
		d.plain(g, "b")
		d.plain(g, "c")
		ctx, cancel := context.WithCancel(t.Context())
		err := g.run(ctx, func() { d.put("up"); cancel() })
		if want := "+a +b +c up -c -b -a"; err != nil || d.String() != want {
			t.Errorf("%s, %v; want %s", d.String(), err, want)
		}
	})
}

func TestFailures(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		run  func(ctx context.Context, ready func()) error
		want string
		err  []string
	}{
		"does not start":       {func(context.Context, func()) error { return boom }, "+a -a", []string{"x: boom"}},
		"ends while starting":  {func(context.Context, func()) error { return nil }, "+a -a", []string{"x: it ended by itself"}},
		"fails later":          {func(_ context.Context, ready func()) error { ready(); time.Sleep(time.Hour); return boom }, "+a +z up -z -a", []string{"x: boom"}},
		"fails while stopping": {func(ctx context.Context, ready func()) error { ready(); <-ctx.Done(); return boom }, "+a +z up -z -a", []string{"stop x: boom"}},
		"does not stop": {func(ctx context.Context, ready func()) error {
			ready()
			<-ctx.Done()
			time.Sleep(2 * time.Hour)
			return nil
		},
			"+a +z up -z -a", []string{"stop x: not done within 1h"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d diary
				g := newGroup()
				d.plain(g, "a")
				g.add("x", time.Hour, c.run)
				d.plain(g, "z")
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				err := g.run(ctx, func() { d.put("up") })
				if d.String() != c.want {
					t.Errorf("%s; want %s", d.String(), c.want)
				}
				for _, e := range c.err {
					if err == nil || !strings.Contains(err.Error(), e) {
						t.Errorf("%v; want %s", err, e)
					}
				}
				time.Sleep(3 * time.Hour) // the one that was left behind ends too
			})
		})
	}
}

// A signal during the start stops what was started, the one that is not ready included.
func TestStopWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		g := newGroup()
		d.plain(g, "a")
		g.add("slow", time.Minute, func(ctx context.Context, _ func()) error { <-ctx.Done(); d.put("-slow"); return nil })
		d.plain(g, "never")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := g.run(ctx, func() { d.put("up") })
		if want := "+a -slow -a"; err != nil || d.String() != want {
			t.Errorf("%s, %v; want %s", d.String(), err, want)
		}
		if slices.Contains(d.lines, "up") {
			t.Error("it was never up")
		}
	})
}
