package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"timehub/hub"
	"timehub/hub/client"
)

func (a *app) putCommand() *cobra.Command {
	var contentType, at string
	cmd := &cobra.Command{
		Use:   "put CHANNEL [FILE|-]",
		Short: "Append an item to a channel",
		Long: `Append a file, or what comes on standard input, to a channel as one item, and print its address.

The content type is that of --type, or follows from the file's extension. With --time the item is inserted at that instant; the channel must be a
historical one (mutableTime).`,
		Args:              args(1, 2),
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			body, size, name, err := a.open(cmd.Context(), given[1:])
			if err != nil {
				return err
			}
			defer body.Close()
			if contentType == "" {
				contentType = mime.TypeByExtension(filepath.Ext(name))
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			u := client.Upload{ContentType: contentType, Body: body, Size: size}
			var k hub.Key
			if at == "" {
				k, err = c.Insert(cmd.Context(), given[0], u)
			} else {
				var t time.Time
				if t, err = parseInstant(at); err != nil {
					return usage("--time: %v", err)
				}
				k, err = c.InsertAt(cmd.Context(), given[0], hub.NewKey(t, ""), u)
			}
			if err != nil {
				return hintChannel(given[0], err)
			}
			uri := itemURL(c, given[0], k)
			if a.json {
				return a.printJSON(a.stdout, map[string]string{"key": k.String(), "uri": uri, "timestamp": hub.ISO(k.Time())})
			}
			_, err = fmt.Fprintln(a.stdout, uri)
			return err
		},
	}
	cmd.Flags().StringVarP(&contentType, "type", "t", "", "content type of the item")
	cmd.Flags().StringVar(&at, "time", "", "instant of the past to insert at, ISO 8601")
	return cmd
}

// open opens the file of an argument; none, or -, is standard input, whose reads end with ctx.
func (a *app) open(ctx context.Context, given []string) (body io.ReadCloser, size int64, name string, err error) {
	if len(given) == 0 || given[0] == "-" {
		return io.NopCloser(interruptible(ctx, a.stdin)), -1, "", nil
	}
	f, err := os.Open(given[0])
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = fmt.Errorf("%s: %w", p.Path, p.Err)
		}
		return nil, 0, "", coded{err, exitUsage}
	}
	size = -1
	switch info, err := f.Stat(); {
	case err == nil && info.IsDir():
		f.Close()
		return nil, 0, "", usage("%s: is a directory", given[0])
	case err == nil && info.Mode().IsRegular():
		size = info.Size()
	}
	return f, size, given[0], nil
}

// hintChannel says how a channel that is missing can be made.
func hintChannel(channel string, err error) error {
	if hub.Is(err, hub.NotFound) {
		return hub.E(hub.NotFound, "there is no channel %s; make it with: hub channel create %s", channel, channel)
	}
	return err
}

// instantLayouts are what ISO 8601 texts may look like. Text without an offset is UTC.
var instantLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02",
	"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999Z0700"}

// parseInstant reads an instant in ISO 8601.
func parseInstant(s string) (time.Time, error) {
	for _, layout := range instantLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no instant: want ISO 8601, such as 2018-02-07T01:26:13.840Z", s)
}
