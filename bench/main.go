// Bench measures what a hub costs against the least that any hub on this stack must cost, and three nodes against one, and prints the table of
// ENGINE.md §8.
//
// It builds the hub and bench/floor, starts each on a free port with a fresh folder on the same file system, lets them take turns, and takes medians.
// The load comes from this process, over keep-alive connections in closed loops. `make bench` runs everything, about a quarter of an hour;
// `make bench BENCH="-rows 'POST 1 KiB|GET' -runs 3"` a part; `-quick` shows in a minute that all of it works, on figures that mean little.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

type options struct {
	runs    int
	seconds time.Duration
	items   int           // of the rows that say a million
	few     int           // of those that compare with ten thousand
	sustain time.Duration // length of the long run
	window  time.Duration // of the insert rate
	samples int           // requests per query in the latency row
	idle    int           // idle channels
}

var full = options{
	runs: 5, seconds: 3 * time.Second, items: 1_000_000, few: 10_000, sustain: 4 * time.Minute, window: 10 * time.Second, samples: 3000, idle: 10_000,
}

var quick = options{
	runs: 1, seconds: time.Second, items: 30_000, few: 3000, sustain: 5 * time.Second, window: 500 * time.Millisecond, samples: 200, idle: 200,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	opt := full
	small := flag.Bool("quick", false, "small sizes: does it work, not how fast is it")
	rows := flag.String("rows", "", "only rows whose name matches this expression")
	runs := flag.Int("runs", 0, "alternating runs of each short row (default 5)")
	hub := flag.String("hub", "", "measure this binary instead of building one")
	dir := flag.String("dir", "", "where the data goes (default: a temporary folder); everything is measured on this file system")
	out := flag.String("out", filepath.Join("bench", "out"), "where the table is written to")
	flag.Parse()
	if *small {
		opt = quick
	}
	if *runs > 0 {
		opt.runs = *runs
	}
	which, err := regexp.Compile(*rows)
	if err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	b, err := newBench(ctx, opt, *dir, *hub)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	var failed []string
	for _, m := range b.measurements() {
		if !which.MatchString(strings.Join(m.rows, "\n")) {
			continue
		}
		fmt.Fprintf(os.Stderr, "== %s\n", strings.Join(m.rows, "; "))
		if err := m.run(ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "   failed: %v\n", err)
			failed = append(failed, m.rows[0])
		}
	}
	table := b.table()
	fmt.Println(table)
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if err := os.WriteFile(filepath.Join(*out, "table.md"), []byte(table), 0o644); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if len(failed) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(failed, "; "))
	}
	return nil
}
