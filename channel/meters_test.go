package channel_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/channel"
	"timehub/channel/channeltest"
	"timehub/hub"
	"timehub/hub/metrics"
)

// ledger is a registry that writes down what it is told.
type ledger struct {
	metrics.Registry // gauges
	mu               *sync.Mutex
	lines            *[]string
}

func (l ledger) Counter(name, _ string, _ ...string) metrics.Counter { return line{l, name} }
func (l ledger) Timing(name, _ string, _ ...string) metrics.Timing   { return span{l, name} }

func (l ledger) note(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.lines = append(*l.lines, s)
}

type line struct {
	to   ledger
	name string
}

func (c line) Add(n int64) { c.to.note(fmt.Sprint(c.name, " ", n)) }
func (c line) With(v ...string) metrics.Counter {
	return line{c.to, c.name + " " + strings.Join(v, " ")}
}

type span struct {
	to   ledger
	name string
}

func (s span) Observe(d time.Duration) { s.to.note(fmt.Sprint(s.name, " ", d.Round(time.Second))) }
func (s span) With(v ...string) metrics.Timing {
	return span{s.to, s.name + " " + strings.Join(v, " ")}
}

func TestMetrics(t *testing.T) {
	l := ledger{mu: new(sync.Mutex), lines: new([]string)}
	h := open(t, func(o *channel.Options) { o.Metrics = l })
	ch, old := h.put("Live", ``), h.put("old", `{"mutableTime":"2025-01-01"}`)
	if _, err := h.Insert(ctx, ch, channel.Upload{Body: []byte("12345"), Began: h.clock.Now().Add(-3 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.InsertBulk(ctx, ch, "", h.clock.Now().Add(-time.Second), []channel.Part{{Body: []byte("1")}, {Body: []byte("23")}}); err != nil {
		t.Fatal(err)
	}
	h.insertAt(old, old.MutableTime, "a", "1234")
	h.short.Fail(hub.E(hub.Unavailable, "away"))
	if _, err := h.Insert(ctx, ch, channel.Upload{Body: []byte("12345")}); err == nil {
		t.Error("no error")
	}
	want := []string{
		"channel SINGLE Live 3s", "channel.items SINGLE Live 1", "channel.bytes SINGLE Live 5",
		"channel BULK Live 1s", "channel.items BULK Live 2", "channel.bytes BULK Live 3",
		"channel HISTORICAL old 0s", "channel.items HISTORICAL old 1", "channel.bytes HISTORICAL old 4",
	}
	if !slices.Equal(*l.lines, want) {
		t.Errorf("%q", *l.lines)
	}
}

func BenchmarkInsert(b *testing.B) {
	c := channeltest.NewCatalog()
	s, err := channel.New(channel.Options{Short: &sink{}, Long: channeltest.NewLong(), Catalog: c})
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := s.PutChannel(ctx, "x", channel.ChannelPatch{}, channel.Caller{}); err != nil {
		b.Fatal(err)
	}
	body := []byte(strings.Repeat("flight 4711 from here to there; ", 32))
	parts := slices.Repeat([]channel.Part{{Body: body}}, 100)
	ch, err := s.Channel(ctx, "x")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("1KiB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Insert(ctx, ch, channel.Upload{ContentType: "application/json", Body: body}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bulk of 100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.InsertBulk(ctx, ch, "", time.Time{}, parts); err != nil {
				b.Fatal(err)
			}
		}
	})
}
