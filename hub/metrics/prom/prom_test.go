package prom

import (
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"timehub/hub/metrics"
)

func scrape(t *testing.T, r *Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %s", w.Code, w.Header().Get("Content-Type"))
	}
	return w.Body.String()
}

func TestScrape(t *testing.T) {
	r := New()
	items := r.Counter(metrics.ChannelItems, "", "type", "channel")
	items.With("SINGLE", "beans").Add(3)
	items.With("SINGLE", "beans").Add(4)
	items.With("BULK", "a\xffb").Add(1)
	items.With("BULK", "a\xffb").Add(-1)
	items.Add(100) // has tags: counts nothing by itself
	r.Gauge(metrics.ArchiveLag, "").Set(2.5)
	r.Timing(metrics.Channel, "", "type", "channel").With("SINGLE", "beans").Observe(3 * time.Millisecond)
	r.Timing(metrics.Channel, "", "type", "channel").With("SINGLE", "tea").Observe(3 * time.Second)
	r.Timing(metrics.Webhook, "", "name").With("printer").Observe(time.Second)
	r.Timing(metrics.Webhook, "", "name").With("scanner").Observe(time.Second)
	r.Counter(metrics.LogFailures, "")
	body := scrape(t, r)
	for _, want := range []string{
		`hub_spoke_log_failures_total 0`,
		`hub_channel_items_total{channel="beans",type="SINGLE"} 7`,
		`hub_channel_items_total{channel="a?b",type="BULK"} 1`,
		`hub_archive_lag_seconds 2.5`,
		`hub_channel_seconds_bucket{type="SINGLE",le="0.005"} 1`,
		`hub_channel_seconds_count{type="SINGLE"} 2`,
		`hub_webhook_seconds_count 2`,
		`# HELP hub_channel_items_total Items inserted.`,
		`# TYPE hub_channel_seconds histogram`,
		`go_goroutines `, `process_open_fds `, `go_build_info`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

// Every line of the table makes a valid, distinct Prometheus metric.
func TestWholeTable(t *testing.T) {
	r := New()
	for _, d := range metrics.Table() {
		values := make([]string, len(d.Tags))
		switch d.Type {
		case metrics.CounterType:
			c := r.Counter(d.Name, "", d.Tags...)
			if len(values) > 0 {
				c = c.With(values...)
			}
			c.Add(1)
		case metrics.GaugeType:
			g := r.Gauge(d.Name, "", d.Tags...)
			if len(values) > 0 {
				g = g.With(values...)
			}
			g.Set(1)
		case metrics.TimingType:
			c := r.Timing(d.Name, "", d.Tags...)
			if len(values) > 0 {
				c = c.With(values...)
			}
			c.Observe(1)
		}
	}
	body := scrape(t, r)
	for _, d := range metrics.Table() {
		if !strings.Contains(body, "# HELP "+Name(d)+" ") {
			t.Errorf("%s is not shown", d.Name)
		}
	}
}

func TestVariantsAreBounded(t *testing.T) {
	r := New()
	items := r.Counter(metrics.ChannelItems, "", "type", "channel")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range maxVariants {
				items.With("SINGLE", fmt.Sprintf("c%d-%d", g, i)).Add(1)
			}
		})
	}
	wg.Wait()
	body := scrape(t, r)
	if n := strings.Count(body, "\nhub_channel_items_total{"); n > maxVariants+8 {
		t.Errorf("%d series", n)
	}
	if !strings.Contains(body, `hub_channel_items_total{channel="…",type="SINGLE"}`) {
		t.Error("those beyond the bound are not counted together")
	}
}

func TestMistakes(t *testing.T) {
	r := New()
	c := r.Counter("a.b", "A sentence.", "x")
	if r.Counter("a.b", "", "x") != c {
		t.Error("one name, one instrument")
	}
	for name, mistake := range map[string]func(){
		"other kind": func() { r.Gauge("a.b", "", "x") },
		"other tags": func() { r.Counter("a.b", "", "y") },
		"no value":   func() { c.With() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("a mistake in the program goes unnoticed")
				}
			}()
			mistake()
		})
	}
}

func BenchmarkCounter(b *testing.B) {
	c := New().Counter(metrics.ChannelItems, "", "type", "channel")
	b.Run("kept", func(b *testing.B) {
		v := c.With("SINGLE", "beans")
		b.ReportAllocs()
		for b.Loop() {
			v.Add(1)
		}
	})
	b.Run("with", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.With("SINGLE", "beans").Add(1)
		}
	})
}

// TestDocumentedNames: what docs/operations.md tells to watch is there under that name.
func TestDocumentedNames(t *testing.T) {
	text, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, d := range metrics.Table() {
		known[Name(d)] = true
	}
	found := regexp.MustCompile("hub_[a-z0-9_]+").FindAllString(string(text), -1)
	if len(found) < 5 {
		t.Errorf("only %v are named", found)
	}
	for _, name := range found {
		if !known[name] {
			t.Errorf("there is no metric %s", name)
		}
	}
}
