package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"timehub/hub"
	"timehub/hub/client"
)

// importer is one run of `hub import`.
type importer struct {
	app     *app
	client  *client.Client
	channel string
	file    string // "": standard input

	format, items, time, contentType, progress string
	raw, create, again                         bool
	batch, parallel                            int
}

// summary is what an import has done.
type summary struct {
	Channel string `json:"channel"`
	Items   int64  `json:"items"`
	Bytes   int64  `json:"bytes"`
	Skipped int64  `json:"skipped,omitempty"` // taken over by an earlier run
	First   string `json:"first,omitempty"`   // key
	Last    string `json:"last,omitempty"`
}

func (a *app) importCommand() *cobra.Command {
	m := &importer{app: a}
	cmd := &cobra.Command{
		Use:   "import CHANNEL FILE|- --items EXPR [--time EXPR]",
		Short: "Import records of a JSON, NDJSON or CSV file as items",
		Long: `Import records of a file. --items is a jq expression whose outputs are the items, each stored as compact JSON: '.features[]' of a JSON document,
'.' of each line of NDJSON or CSV (a row is an object by the names of the first line).

Without --time the items are appended in their order, by bulk inserts. What is done is written to a progress file beside FILE, so that an interrupted
run goes on where it was when it is started again; at most the last request can then be stored twice, and it says so.

With --time each item is inserted at its own instant: the jq expression is applied to the item and yields ISO 8601 text or epoch milliseconds. The
channel must be historical, with a mutableTime at or after every instant; --create makes such a channel if it is missing. The hash of a key follows
from the record itself, so a second run changes nothing.`,
		Example: `  hub import quakes earthquakes.json --items '.features[]' --time .properties.time --create
  hub import flights flights.json --items '.[]' --create`,
		Args:              args(2, 2),
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			m.channel, m.file = given[0], given[1]
			if m.file == "-" {
				m.file = ""
			}
			if m.client, err = a.client(); err != nil {
				return err
			}
			defer m.client.Close()
			return m.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&m.items, "items", "", "jq expression for the items (default: the elements of an array, else each value)")
	flags.StringVar(&m.time, "time", "", "jq expression, applied to an item, for its instant: makes historical inserts")
	flags.StringVar(&m.format, "format", "", "json, ndjson or csv (default: by the file's extension, else json)")
	flags.StringVarP(&m.contentType, "type", "t", "", "content type of the items (default application/json, text/plain with --raw)")
	flags.BoolVar(&m.raw, "raw", false, "store items that are strings as their text, not as JSON")
	flags.BoolVar(&m.create, "create", false, "make the channel if it is missing")
	flags.IntVar(&m.batch, "batch", 1000, "items of one bulk insert")
	flags.IntVar(&m.parallel, "parallel", 16, "historical inserts at the same time")
	flags.StringVar(&m.progress, "progress", "", "progress file (default FILE.CHANNEL.progress)")
	flags.BoolVar(&m.again, "again", false, "import the file again, although its progress file says that it is done or was begun")
	return cmd
}

func (m *importer) run(cmd *cobra.Command) error {
	if m.batch < 1 || m.parallel < 1 {
		return usage("--batch and --parallel must be at least 1")
	}
	if m.contentType == "" {
		m.contentType = "application/json"
		if m.raw {
			m.contentType = "text/plain"
		}
	}
	name := []string{m.file}
	if m.file == "" {
		name = nil
	}
	body, size, _, err := m.app.open(cmd.Context(), name)
	if err != nil {
		return err
	}
	defer body.Close()
	bar := m.app.bar(size)
	records, err := m.records(io.TeeReader(body, bar))
	if err != nil {
		return err
	}
	if err := m.prepare(cmd); err != nil {
		return err
	}
	var done summary
	if m.time != "" {
		done, err = m.historical(cmd.Context(), records)
	} else {
		done, err = m.bulk(cmd.Context(), records)
	}
	if err == nil {
		bar.Finish() //nolint:errcheck // an ornament
	} else {
		bar.Exit() //nolint:errcheck // an ornament
	}
	done.Channel = m.channel
	if err != nil {
		if done.Items > 0 {
			err = fmt.Errorf("%w (%s had been stored before that)", err, count(done.Items, "item"))
		}
		return err
	}
	return m.report(done)
}

func (m *importer) report(done summary) error {
	if m.app.json {
		return m.app.printJSON(m.app.stdout, done)
	}
	text := fmt.Sprintf("%s, %s, in %s", count(done.Items, "item"), count(done.Bytes, "byte"), m.channel)
	if done.Skipped > 0 {
		text += fmt.Sprintf("; %s had been stored by an earlier run", count(done.Skipped, "item"))
	}
	_, err := fmt.Fprintln(m.app.stdout, text)
	return err
}

// prepare looks for the channel, and makes it if that was asked for.
func (m *importer) prepare(cmd *cobra.Command) error {
	ch, err := m.client.Channel(cmd.Context(), m.channel)
	if hub.Is(err, hub.NotFound) {
		if !m.create {
			return hub.E(hub.NotFound, "there is no channel %s; --create makes it", m.channel)
		}
		members := map[string]any{"name": m.channel}
		if m.time != "" {
			now, err := m.client.Now(cmd.Context())
			if err != nil {
				return err
			}
			members["mutableTime"], members["storage"] = hub.ISO(now), "SINGLE"
		}
		ch, err = m.client.CreateChannel(cmd.Context(), members)
		if hub.Is(err, hub.Conflict) { // somebody else was first
			ch, err = m.client.Channel(cmd.Context(), m.channel)
		}
	}
	if err != nil {
		return err
	}
	switch {
	case m.time != "" && !ch.Historical():
		return hub.E(hub.Forbidden, "%s is no historical channel, so items cannot be inserted at instants of the past: name another channel with --create, or set a "+
			"mutableTime (hub channel set %s mutableTime=… storage=SINGLE ttlDays=0 maxItems=0)", m.channel, m.channel)
	case m.time == "" && ch.Historical():
		fmt.Fprintf(m.app.stderr, "hub: %s is a historical channel; without --time its items get the time of their insert\n", m.channel)
	}
	return nil
}

// bar shows progress to a person; for anybody else it does nothing.
func (a *app) bar(size int64) *progressbar.ProgressBar {
	w := io.Discard
	if terminal(a.stderr) && !a.json {
		w = a.stderr
	}
	// Without an interval its spinner turns when something is read: with one a goroutine of its own draws, beside whoever reads.
	return progressbar.NewOptions64(size, progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("importing"), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100_000_000), progressbar.OptionSetWidth(30))
}

// errRecord marks an error that lies in the file.
func errRecord(n int64, err error) error {
	var c coded
	if errors.As(err, &c) || errors.Is(err, context.Canceled) {
		return err
	}
	return coded{fmt.Errorf("record %d: %w", n, err), exitUsage}
}
