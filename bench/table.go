package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"
)

// result is one row of the table.
type result struct {
	name, hub, yardstick string
	value                float64 // what must and aim speak of
	unit                 string  // of value; "×" is a ratio
	must, aim            float64
	atMost               bool // value must be at most must; otherwise at least
}

func (r result) holds(limit float64) bool {
	if r.atMost {
		return r.value <= limit
	}
	return r.value >= limit
}

// verdict says whether the must holds and how far the aim is.
func (r result) verdict() string {
	switch {
	case !r.holds(r.must):
		return "**misses the must**"
	case r.holds(r.aim):
		return "aim reached"
	}
	return fmt.Sprintf("must holds, aim %+.0f %%", 100*(r.value-r.aim)/r.aim)
}

func (b *bench) add(r result) {
	b.results = append(b.results, r)
	fmt.Fprintf(os.Stderr, "   %s: hub %s, yardstick %s, %s: %s\n", r.name, r.hub, r.yardstick, figure(r.value, r.unit), r.verdict())
}

// table is the table of ENGINE.md §8 in Markdown.
func (b *bench) table() string {
	var s strings.Builder
	fmt.Fprintf(&s, "Measured %s, %s, %d CPUs, %s.\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.Version(), runtime.NumCPU(), b.place)
	s.WriteString("| work | hub | yardstick | result | must | aim | |\n|---|--:|--:|--:|--:|--:|---|\n")
	for _, r := range b.results {
		sign := "≥ "
		if r.atMost {
			sign = "≤ "
		}
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s%s | %s | %s |\n", r.name, r.hub, r.yardstick, figure(r.value, r.unit),
			sign, figure(r.must, r.unit), figure(r.aim, r.unit), r.verdict())
	}
	return s.String()
}

func figure(v float64, unit string) string {
	switch unit {
	case "×":
		return fmt.Sprintf("%.2f ×", v)
	case "/s":
		return thousands(v) + "/s"
	case "s":
		return fmt.Sprintf("%.2f s", v)
	case "ms":
		return fmt.Sprintf("%.2f ms", v)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// thousands writes 12345 as 12,345.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = append([]float64(nil), v...)
	sort.Float64s(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	return times[min(len(times)-1, int(p*float64(len(times))))]
}
