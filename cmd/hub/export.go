package main

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"timehub/hub"
	"timehub/hub/client"
)

func (a *app) exportCommand() *cobra.Command {
	var f queryFlags
	var format, output string
	cmd := &cobra.Command{
		Use:   "export CHANNEL RANGE",
		Short: "Write the items of a range as NDJSON or as a zip archive",
		Long: `Write the items of a range, in order. RANGE is a day, hour, minute or second (2026/11/20/13), two of them (2026/11/20..2026/11/22, both
included), or what else gives a list (earliest/100, {key}/next/1000).

NDJSON has one line for each item: an object with key, contentType, and the body as json, text or base64. In a zip each item is an entry named by
its key.`,
		Args:              args(2, 2),
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			if format == "" {
				format = "ndjson"
				if strings.HasSuffix(strings.ToLower(output), ".zip") {
					format = "zip"
				}
			}
			if format != "ndjson" && format != "zip" {
				return usage("--format is %q: it must be ndjson or zip", format)
			}
			if format == "zip" && output == "" && terminal(a.stdout) {
				return usage("a zip does not belong on a terminal: name a file with --output")
			}
			paths, err := exportPaths(given[1], q.Order)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Channel(cmd.Context(), given[0]); err != nil {
				return hintChannel(given[0], err)
			}
			n := int64(0)
			err = a.writeTo(output, func(w io.Writer) error {
				items := exportItems(cmd.Context(), c, given[0], paths, q, &n)
				if format == "zip" {
					return exportZip(w, items)
				}
				return exportLines(w, items)
			})
			if err != nil {
				return err
			}
			if output != "" && output != "-" {
				if a.json {
					return a.printJSON(a.stdout, map[string]any{"items": n, "file": output})
				}
				_, err = fmt.Fprintf(a.stdout, "%s in %s\n", count(n, "item"), output)
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&format, "format", "", "ndjson or zip (default: by the extension of --output, else ndjson)")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write to, instead of standard output")
	return cmd
}

// maxWindows bounds FROM..TO: each window is a request.
const maxWindows = 100_000

// exportPaths are the queries that make up a range, in the order of the answer.
func exportPaths(text string, order hub.Order) (iter.Seq[string], error) {
	from, to, two := strings.Cut(text, "..")
	if !two {
		return func(yield func(string) bool) { yield(strings.Trim(text, "/")) }, nil
	}
	first, err := parseWindow(from)
	if err != nil {
		return nil, err
	}
	last, err := parseWindow(to)
	if err != nil {
		return nil, err
	}
	if first.Unit != last.Unit {
		return nil, usage("%s: both ends of a range must be days, or both hours, minutes or seconds", text)
	}
	if last.Start.Before(first.Start) {
		return nil, usage("%s: the range ends before it begins", text)
	}
	if last.Start.Sub(first.Start)/first.Unit.Duration() >= maxWindows {
		return nil, usage("%s has more than %d %ss: use a larger unit", text, maxWindows, first.Unit)
	}
	return func(yield func(string) bool) {
		if order == hub.Descending {
			for w := last; !w.Start.Before(first.Start) && yield(w.String()); {
				w = w.Previous()
			}
			return
		}
		for w := first; !w.Start.After(last.Start) && yield(w.String()); {
			w = w.Next()
		}
	}, nil
}

func parseWindow(s string) (hub.Window, error) {
	p, err := hub.ParsePath(strings.Trim(s, "/"))
	if err != nil {
		return hub.Window{}, coded{err, exitUsage}
	}
	if p.Verb != hub.NoVerb || p.Unit < hub.Day || p.Unit > hub.Second {
		return hub.Window{}, usage("%q is no day, hour, minute or second", s)
	}
	return p.Window(), nil
}

// exportItems reads the items of all queries and counts them.
func exportItems(ctx context.Context, c *client.Client, channel string, paths iter.Seq[string], q client.Query, n *int64) iter.Seq2[*hub.Item, error] {
	return func(yield func(*hub.Item, error) bool) {
		for path := range paths {
			for item, err := range c.Items(ctx, channel, path, q) {
				if err == nil {
					*n++
				}
				if !yield(item, err) || err != nil {
					return
				}
			}
		}
	}
}

func exportLines(w io.Writer, items iter.Seq2[*hub.Item, error]) error {
	out := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for item, err := range items {
		if err != nil {
			out.Flush() //nolint:errcheck // what could be had is shown; the error that counts is the other one
			return err
		}
		body, err := io.ReadAll(item.Body)
		if err != nil {
			return fmt.Errorf("read item %s: %w", item.Key, err)
		}
		if err := enc.Encode(recordOf(item.Key, item.ContentType, body)); err != nil {
			return fmt.Errorf("write item %s: %w", item.Key, err)
		}
	}
	return out.Flush()
}

func exportZip(w io.Writer, items iter.Seq2[*hub.Item, error]) error {
	z := zip.NewWriter(w)
	for item, err := range items {
		if err != nil {
			return err
		}
		entry, err := z.CreateHeader(&zip.FileHeader{Name: item.Key.String(), Method: zip.Deflate, Modified: item.Key.Time()})
		if err != nil {
			return fmt.Errorf("write item %s: %w", item.Key, err)
		}
		if _, err := io.Copy(entry, item.Body); err != nil {
			return fmt.Errorf("copy item %s: %w", item.Key, err)
		}
	}
	return z.Close()
}
